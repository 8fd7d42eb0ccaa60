//! What a server says of itself.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A server that does not answer at all within this time is as good as down.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

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
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await? > 0 && !answer.trim_ascii_end().ends_with(NOT_SERVING) {}
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(ANSWER_WITHIN, exchange).await.unwrap_or_else(|_| {
        let what = format!("ZooKeeper at {server} did not answer `{word}` within {ANSWER_WITHIN:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    })
}
