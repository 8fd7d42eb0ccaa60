//! What people see: a few lines on standard output, the log on standard error; coloured on a terminal only.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use anstyle::{AnsiColor, Style};
use tokio::time::Instant;
use tracing_subscriber::{
    EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

/// The log without `RUST_LOG`: what the demo does, and the trouble of others but for what the demo tells itself, in
/// fewer words: that the registry is out of reach.
const FILTER: &str = "warn,demos=info,discovery::lease=error,discovery::watch=error,discovery_zk=error,\
    tarpc=error,zookeeper_client=off";

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Sends the log to standard error.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_timer(SinceStart(Instant::now()))
        .with_target(false)
        // It would be told on standard error as well, and that panics if the terminal is gone.
        .log_internal_errors(false)
        .init();
}

/// One line for people. Nobody listening is no reason to end.
pub(crate) fn say(line: impl fmt::Display) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// Part of a line for people, seen at once.
pub(crate) fn write(part: impl fmt::Display) {
    let mut out = anstream::stdout();
    let _ = write!(out, "{part}").and_then(|()| out.flush());
}

/// Why the program ends.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = writeln!(anstream::stderr(), "{BAD}error:{BAD:#} {error:#}");
}

/// Seconds since the start: what people compare, without a date and a time zone in the way.
struct SinceStart(Instant);

impl FormatTime for SinceStart {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:8.3}s", self.0.elapsed().as_secs_f64())
    }
}
