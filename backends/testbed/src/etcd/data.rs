//! What servers hold: the first start, a start from nothing, a start from a backup.

use std::{fs, io, path::Path};

use super::{Etcd, builder::Login};
use crate::quorum;

/// The user that etcd wants before it asks anybody to log in, and its role.
pub(super) const ROOT: &str = "root";

/// The role of any other user: all keys.
const ROLE: &str = "everything";

/// Starts servers that hold nothing yet as a new cluster, and returns when all of them serve.
pub(super) async fn bootstrap(servers: &[Etcd]) -> io::Result<()> {
    let token = token(servers);
    for server in servers {
        server.process.spawn_with(std::slice::from_ref(&token))?;
    }
    quorum::wait(servers).await?;
    demand_login(servers).await
}

/// Kills servers, removes all they hold and starts them as another cluster.
pub(super) async fn wipe(servers: &[Etcd]) -> io::Result<()> {
    clear(servers)?;
    bootstrap(servers).await
}

/// Kills servers and starts them as another cluster with what `backup` holds.
pub(super) async fn restore(servers: &[Etcd], backup: &Path) -> io::Result<()> {
    clear(servers)?;
    let token = token(servers);
    for server in servers {
        let mut command = vec!["snapshot".to_owned(), "restore".to_owned(), backup.display().to_string()];
        command.extend(server.member.flags(server.dir()));
        command.push(token.clone());
        server.cli().run(command).await?;
    }
    for server in servers {
        server.process.spawn()?;
    }
    quorum::wait(servers).await?;
    Ok(())
}

/// The flag that gives a cluster that starts on used ports an id of its own, also among parallel tests, unless it is
/// to have the same as before. Servers that hold data ignore it.
fn token(servers: &[Etcd]) -> String {
    let token = servers.first().and_then(|server| server.token.clone());
    let token = token.unwrap_or_else(|| format!("discovery-{:016x}", fastrand::u64(..)));
    format!("--initial-cluster-token={token}")
}

fn clear(servers: &[Etcd]) -> io::Result<()> {
    for server in servers {
        server.kill()?;
        match fs::remove_dir_all(server.dir().join("data")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Creates the users and closes the cluster to all others, where the options ask for that.
async fn demand_login(servers: &[Etcd]) -> io::Result<()> {
    let Some(first) = servers.first() else { return Ok(()) };
    let Some(Login { user, password }) = &first.login else { return Ok(()) };
    let password = format!("--new-user-password={password}");
    let cli = first.cli().without_login();
    cli.run(["user", "add", ROOT, &password]).await?;
    cli.run(["role", "add", ROOT]).await?;
    cli.run(["user", "grant-role", ROOT, ROOT]).await?;
    if user != ROOT {
        cli.run(["user", "add", user, &password]).await?;
        cli.run(["role", "add", ROLE]).await?;
        cli.run(["role", "grant-permission", ROLE, "readwrite", "", "--prefix"]).await?;
        cli.run(["user", "grant-role", user, ROLE]).await?;
    }
    cli.run(["auth", "enable"]).await?;
    for server in servers {
        // A follower that hears of it late would still serve anybody; a read that goes through the leader waits.
        server.cli().run(["get", "/"]).await?;
    }
    Ok(())
}
