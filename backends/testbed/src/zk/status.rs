//! What a server says of itself.

use std::{io, net::SocketAddr};

use crate::client;

/// How the answer of a server that does not serve ends. Early in its start it then fails to close the connection
/// (a `NullPointerException` in its log), so the end of the stream cannot be waited for.
const NOT_SERVING: &[u8] = b"not currently serving requests";

/// What a serving server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A single server.
    Standalone,
    /// The server of an ensemble through which all writes go.
    Leader,
    /// A server of an ensemble that follows the leader.
    Follower,
}

/// The role of a server that serves; an error while it does not.
pub(super) async fn role(server: SocketAddr) -> io::Result<Role> {
    let answer = four_letter_word(server, "srvr").await?;
    let role = answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::trim);
    match role {
        Some("standalone") => Ok(Role::Standalone),
        Some("leader") => Ok(Role::Leader),
        Some("follower") => Ok(Role::Follower),
        _ => Err(io::Error::other(format!("ZooKeeper at {server} does not serve: {}", answer.trim()))),
    }
}

pub(super) async fn four_letter_word(server: SocketAddr, word: &str) -> io::Result<String> {
    client::ask(server, word, |answer| answer.trim_ascii_end().ends_with(NOT_SERVING)).await
}
