//! How BIND is configured and told what to do.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{NameServer, ZONE_FILE, builder::NameServerBuilder, key::Key};
use crate::{client, ports::Port, process::Deadline, require};

const CONFIG: &str = "named.conf";
const JOURNAL: &str = "zone.journal";
const CONTROL_CONFIG: &str = "rndc.conf";

/// In the foreground, with the log on standard error, IPv4 only, one thread.
pub(super) const ARGUMENTS: [&str; 6] = ["-g", "-4", "-n", "1", "-c", CONFIG];

/// Whether `AppArmor` is at work, where there is such a file.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";

/// The server's program, for a server in `dir`. Debian's profile for `AppArmor` keeps it from all files but those of
/// the machine's own server, and goes by its path; a copy is free.
pub(super) fn program(dir: &Path) -> io::Result<PathBuf> {
    let named = require::program("named");
    if !fs::read_to_string(APPARMOR).is_ok_and(|enabled| enabled.starts_with('Y')) {
        return Ok(named);
    }
    let copy = dir.join("named");
    // Not by ourselves: a child that another thread forks just now would have it open for writing until it execs, and
    // what is open for writing cannot be run.
    let copied = std::process::Command::new("cp").args([&named, &copy]).status()?;
    if copied.success() { Ok(copy) } else { Err(io::Error::other("cannot copy the program of bind")) }
}

/// Writes what the server and its control client read.
pub(super) fn configure(
    dir: &Path,
    options: &NameServerBuilder,
    key: &Key,
    port: &Port,
    control: &Port,
) -> io::Result<()> {
    let (key_lines, key_name) = (key.for_bind(), &key.name);
    let control_client = format!(
        "{key_lines}options {{ default-key \"{key_name}\"; default-server 127.0.0.1; default-port {}; }};\n",
        control.number()
    );
    fs::write(dir.join(CONTROL_CONFIG), control_client)?;
    let config = format!(
        "{key_lines}\
         controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ \"{key_name}\"; }}; }};\n\
         options {{\n\
         \x20 directory \".\"; pid-file \"named.pid\"; session-keyfile \"session.key\"; lock-file none;\n\
         \x20 listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
         \x20 recursion no; dnssec-validation no; empty-zones-enable no;\n\
         \x20 notify explicit; notify-delay 0; notify-rate 1000; startup-notify-rate 1000;\n\
         \x20 min-refresh-time 1; min-retry-time 1; serial-query-rate 1000;\n\
         \x20 max-ixfr-ratio unlimited;\n\
         }};\n\
         {zone}",
        control = control.number(),
        port = port.number(),
        zone = zone(options, key),
    );
    fs::write(dir.join(CONFIG), config)
}

fn zone(options: &NameServerBuilder, key: &Key) -> String {
    let key = &key.name;
    let whom = if options.open { "any".to_owned() } else { format!("key \"{key}\"") };
    let role = match options.primary {
        None => format!("type primary; allow-update {{ {whom}; }};"),
        Some(primary) => {
            let (ip, port) = (primary.ip(), primary.port());
            format!("type secondary; primaries {{ {ip} port {port} key \"{key}\"; }};")
        }
    };
    let notified = options.also_notify.iter().fold(String::new(), |all, to| {
        let (ip, port) = (to.ip(), to.port());
        all + &format!(" {ip} port {port};")
    });
    format!(
        "zone \"{name}\" {{\n\
         \x20 {role}\n\
         \x20 file \"{ZONE_FILE}\"; journal \"{JOURNAL}\";\n\
         \x20 allow-transfer {{ {whom}; }};\n\
         \x20 also-notify {{{notified} }};\n\
         {more}\
         }};\n",
        name = options.zone.name,
        more = options.more(""),
    )
}

/// Forgets what is in the zone.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    super::remove_file(&dir.join(JOURNAL))
}

/// Makes the running server serve `content` instead of what it has.
pub(super) async fn load(server: &NameServer, content: &str) -> io::Result<()> {
    let (zone, file) = (server.zone(), server.dir().join(ZONE_FILE));
    match control(server.dir(), &["freeze", zone]).await {
        // It did not like the last content, and has had nothing to write since.
        Err(error) if error.to_string().contains("already frozen") => {}
        frozen => {
            frozen?;
            written(server, &file).await?;
        }
    }
    clear(server.dir())?;
    super::replace_file(&file, content)?;
    control(server.dir(), &["thaw", zone]).await
}

/// Waits until a frozen server has written what it has. It answers before that, and would then replace any other content.
async fn written(server: &NameServer, file: &Path) -> io::Result<()> {
    let serial = server.serial().await?.to_string();
    let deadline = Deadline::after(super::LOADED_WITHIN);
    while serial_in(&fs::read_to_string(file)?) != Some(&serial) {
        if !deadline.wait().await {
            return Err(server.process.failure("did not write its zone"));
        }
    }
    Ok(())
}

/// The serial of a zone file.
fn serial_in(content: &str) -> Option<&str> {
    // Behind the server's name and who is responsible.
    content.split_whitespace().skip_while(|word| *word != "SOA").skip(3).find(|word| *word != "(")
}

async fn control(dir: &Path, command: &[&str]) -> io::Result<()> {
    let mut rndc = Command::new(require::program("rndc"));
    rndc.arg("-c").arg(dir.join(CONTROL_CONFIG)).args(command);
    client::run("rndc", rndc, super::printed).await.map(|_| ())
}
