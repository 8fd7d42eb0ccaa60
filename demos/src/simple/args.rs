//! The command line of the `simple` sample.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::{Subcommand, builder::BoolishValueParser};
use discovery::ServiceName;

use super::{fsm::Format, machine::Limits};
use crate::{
    backend::{self, BackendArgs},
    listen::ListenArgs,
};

/// A server that looks after others, which may be servers of the same kind.
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The tree of the sample: eleven processes, and a page that shows them
    Demo(DemoArgs),
    /// The state machine of a target, as a picture
    Diagram(DiagramArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The file with the configuration, a JSON map from targets to commands; a target is a URL or a service name. - for
    /// none, or the JSON itself
    #[arg(required = true, value_name = "CONFIG_FILE")]
    pub(super) config: Option<String>,

    /// Where to listen: :7070, or 0.0.0.0:7070 to be reached from elsewhere; port 0 takes a free one
    #[arg(required = true, value_name = "LISTEN_PORT", value_parser = parse_listen)]
    pub(super) listen: Option<Listen>,

    /// The service to register as, so that a supervisor finds it by name
    #[arg(long, env = "SIMPLE_NAME", value_name = "SERVICE")]
    pub(super) name: Option<ServiceName>,

    #[command(flatten)]
    pub(super) common: Common,

    /// Leaves when the supervisor that has started it is gone
    #[arg(long, hide = true, env = "SIMPLE_TETHERED", value_parser = BoolishValueParser::new())]
    pub(super) tethered: bool,

    /// Whether the targets are to be tethered
    #[arg(skip)]
    pub(super) tethers: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// The port of the top, whose page shows all
    #[arg(long, default_value_t = 7070)]
    pub(super) port: u16,

    /// Takes free ports for all, instead of 8080 to 9095. With a registry that is how it always is
    #[arg(long)]
    pub(super) free_ports: bool,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct DiagramArgs {
    /// For which tool
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    pub(super) format: Format,

    #[command(flatten)]
    pub(super) pace: Pace,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) backend: BackendArgs,

    #[command(flatten)]
    pub(super) door: ListenArgs,

    #[command(flatten)]
    pub(super) pace: Pace,

    /// How long a supervisor, or a registration, outlives a process that dies; the registry may round it up
    #[arg(long, env = "SIMPLE_TTL", value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    pub(super) ttl: Duration,
}

/// How fast all goes. Children inherit it, as environment variables.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Pace {
    /// How long the server takes until it listens
    #[arg(long, env = "SIMPLE_START_DELAY", value_name = "TIME", default_value = "3s", value_parser = parse_delay)]
    pub(super) start_delay: Duration,

    /// How often each target is asked; twenty times as often while it is not running, and twice a second at least
    #[arg(long, env = "SIMPLE_POLL_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub(super) poll_interval: Duration,

    /// How long a target may take to end before it is killed. Targets have two thirds of it for their own
    #[arg(long, env = "SIMPLE_STOP_LIMIT", value_name = "TIME", default_value = "9s", value_parser = parse_interval)]
    pub(super) stop_limit: Duration,

    /// How often a target is started, before it has run calmly for 10 s, until that is given up
    #[arg(long, env = "SIMPLE_STARTS", value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) starts: u32,
}

impl Pace {
    /// What the state machine needs of it.
    pub(super) fn limits(&self) -> Limits {
        // A target is as slow to start as we are, and then has to be asked.
        let start = self.start_delay + Duration::from_secs(10);
        Limits { start, stop: self.stop_limit, starts: self.starts }
    }
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) addr: Option<IpAddr>,
    pub(super) port: u16,
}

fn parse_listen(text: &str) -> anyhow::Result<Listen> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(Listen { addr: None, port });
    }
    let address: SocketAddr =
        text.parse().map_err(|_| anyhow::anyhow!("write :7070, or an address with a port: 0.0.0.0:7070"))?;
    Ok(Listen { addr: Some(address.ip()), port: address.port() })
}

/// Longer is nothing, lest sums of it overflow.
const LONGEST: Duration = Duration::from_secs(3600);

fn parse_delay(text: &str) -> anyhow::Result<Duration> {
    let delay = parse_duration(text)?;
    anyhow::ensure!(delay <= LONGEST, "allowed are 0 to 1h");
    Ok(delay)
}

fn parse_interval(text: &str) -> anyhow::Result<Duration> {
    let interval = parse_duration(text)?;
    anyhow::ensure!((Duration::from_millis(10)..=LONGEST).contains(&interval), "allowed are 10ms to 1h");
    Ok(interval)
}

/// As all other times here, or as in the other demos.
fn parse_ttl(text: &str) -> anyhow::Result<Duration> {
    let text = parse_duration(text)
        .map_or_else(|_| text.to_owned(), |ttl| humantime::format_duration(ttl).to_string());
    backend::parse_ttl(&text)
}

/// A duration as Go writes it: `300ms`, `1.5s`, `1m30s`, `0`.
fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let wrong = || anyhow::anyhow!("write a number and a unit, such as 500ms, 1.5s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(unit_at);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, after) = behind.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("simple").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_that_of_the_original() {
        let args = parse("simple-7070.conf :7070").unwrap();
        assert_eq!(args.serve.config.as_deref(), Some("simple-7070.conf"));
        assert_eq!(args.serve.listen, Some(Listen { addr: None, port: 7070 }));
        let pace = args.serve.common.pace;
        assert_eq!((pace.start_delay, pace.poll_interval), (Duration::from_secs(3), Duration::from_secs(1)));
        let all = parse("- 0.0.0.0:80").unwrap().serve.listen.unwrap();
        assert_eq!(all, Listen { addr: Some(IpAddr::from([0, 0, 0, 0])), port: 80 });
        assert!(matches!(parse("demo --port 0").unwrap().command, Some(Command::Demo(_))));
        assert!(matches!(parse("diagram --format dot").unwrap().command, Some(Command::Diagram(_))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, parts) in [
            ("", ["CONFIG_FILE", "LISTEN_PORT"]),
            ("a.conf", ["required", "LISTEN_PORT"]),
            ("a.conf here", ["LISTEN_PORT", "write :7070"]),
            ("a.conf :70000", ["LISTEN_PORT", "write :7070"]),
            ("a.conf :1 --name a_b", ["--name", "a_b"]),
            ("a.conf :1 --poll-interval 0", ["--poll-interval", "10ms"]),
            ("a.conf :1 --start-delay 3", ["--start-delay", "unit"]),
            ("a.conf :1 --start-delay 5124095576030430h4090s", ["--start-delay", "0 to 1h"]),
            ("diagram --start-delay 3601s", ["--start-delay", "0 to 1h"]),
            ("a.conf :1 --ttl 0", ["--ttl", "100ms"]),
            ("a.conf :1 --ttl 90m", ["--ttl", "1h"]),
            ("a.conf :1 --ttl soon", ["--ttl", "number"]),
            ("a.conf :1 --starts 0", ["--starts", "0"]),
            ("diagram --format svg", ["--format", "mermaid"]),
        ] {
            let error = parse(line).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
        }
    }

    #[test]
    fn a_ttl_is_written_as_all_other_times_or_as_elsewhere() {
        for (text, millis) in [("1.5s", 1500), ("250ms", 250), ("1m30s", 90_000), ("2min", 120_000)] {
            assert_eq!(parse_ttl(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("0", 0),
            ("3s", 3000),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            (".5s", 500),
            ("250ms", 250),
            ("2h", 7_200_000),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "3", "s", "-1s", "1 s", "1x", "1..s", "1s2", "9e9h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
