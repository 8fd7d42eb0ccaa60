//! How Knot is configured and told what to do.

use std::{fmt::Write, fs, io, path::Path};

use tokio::process::Command;

use super::{NameServer, ZONE_FILE, builder::NameServerBuilder, key::Key};
use crate::{client, ports::Port, require};

const CONFIG: &str = "knot.conf";
const CONTROL_SOCKET: &str = "knot.sock";
const PID_FILE: &str = "knot.pid";

/// The journal and more; the server does not create the directory.
const DATABASE: &str = "database";

/// In the foreground.
pub(super) const ARGUMENTS: [&str; 2] = ["-c", CONFIG];

/// Writes what the server reads.
pub(super) fn configure(dir: &Path, options: &NameServerBuilder, key: &Key, port: &Port) -> io::Result<()> {
    let mut config = format!(
        "server:\n\
         \x20   rundir: \".\"\n\
         \x20   pidfile: {PID_FILE}\n\
         \x20   listen: 127.0.0.1@{port}\n\
         \x20   udp-workers: 1\n\
         \x20   tcp-workers: 1\n\
         \x20   background-workers: 2\n\
         log:\n\
         \x20 - target: stderr\n\
         \x20   any: info\n\
         control:\n\
         \x20   listen: {CONTROL_SOCKET}\n\
         database:\n\
         \x20   storage: {DATABASE}\n\
         \x20   journal-db-max-size: 100M\n\
         {key}",
        port = port.number(),
        key = key.for_knot(),
    );
    let key = &key.name;
    let mut remotes: Vec<_> = options.also_notify.iter().map(|to| (*to, String::new())).collect();
    remotes.extend(options.primary.map(|primary| (primary, format!("    key: {key}\n"))));
    config.push_str(if remotes.is_empty() { "" } else { "remote:\n" });
    for (index, (address, key)) in remotes.iter().enumerate() {
        let (ip, port) = (address.ip(), address.port());
        let _ = write!(config, "  - id: remote{index}\n    address: {ip}@{port}\n{key}");
    }
    let mut rules = vec!["clients"];
    // A rule without a key is for those only who do not sign.
    rules.extend(options.open.then_some("strangers"));
    rules.extend(options.primary.map(|_| "primary"));
    let _ = write!(
        config,
        "acl:\n\
         \x20 - id: clients\n\
         \x20   key: {key}\n\
         \x20   action: [{actions}]\n\
         \x20 - id: strangers\n\
         \x20   action: [{actions}]\n\
         \x20 - id: primary\n\
         \x20   address: 127.0.0.1\n\
         \x20   action: notify\n\
         zone:\n\
         \x20 - domain: {name}\n\
         \x20   storage: \".\"\n\
         \x20   file: {ZONE_FILE}\n\
         \x20   acl: [{rules}]\n",
        actions = if options.primary.is_some() { "transfer" } else { "transfer, update" },
        name = options.zone.name,
        rules = rules.join(", "),
    );
    let notified: Vec<_> = (0..options.also_notify.len()).map(|index| format!("remote{index}")).collect();
    if !notified.is_empty() {
        let _ = writeln!(config, "    notify: [{}]", notified.join(", "));
    }
    if options.primary.is_some() {
        // The last of them.
        let _ = writeln!(config, "    master: remote{}", options.also_notify.len());
    }
    config.push_str(&options.more("    "));
    fs::create_dir_all(dir.join(DATABASE))?;
    fs::write(dir.join(CONFIG), config)
}

/// Removes what a crashed server leaves and what would keep the next from starting where its number is in use again.
pub(super) fn tidy(dir: &Path) -> io::Result<()> {
    super::remove_file(&dir.join(PID_FILE))
}

/// Forgets what is in the zone.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    let database = dir.join(DATABASE);
    fs::remove_dir_all(&database)?;
    fs::create_dir(&database)
}

/// Makes the running server serve `content` instead of what it has.
pub(super) async fn load(server: &NameServer, content: &str) -> io::Result<()> {
    let (dir, zone) = (server.dir(), server.zone());
    control(dir, &["zone-freeze", zone]).await?;
    super::replace_file(&dir.join(ZONE_FILE), content)?;
    // Or the changes since a lower serial would be applied to the new content.
    control(dir, &["-f", "zone-purge", zone, "+journal"]).await?;
    let reloaded = control(dir, &["zone-reload", zone]).await;
    control(dir, &["zone-thaw", zone]).await?;
    // The client itself knows no reason.
    reloaded.map_err(|error| server.process.failure(&format!("did not load the zone ({error})")))
}

/// Returns when the command was carried out.
async fn control(dir: &Path, command: &[&str]) -> io::Result<()> {
    let mut knotc = Command::new(require::program("knotc"));
    knotc.arg("-b").arg("-s").arg(dir.join(CONTROL_SOCKET)).args(command);
    client::run("knotc", knotc, super::printed).await.map(|_| ())
}
