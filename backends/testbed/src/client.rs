//! Asking a server: on a plain connection, or with its own command line client.

use std::{
    io,
    net::SocketAddr,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

/// A server that does not answer at all within this time is as good as down.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A client that connects, does one thing and ends gets no longer than this.
const DONE_WITHIN: Duration = Duration::from_secs(60);

/// Sends `request` on a connection of its own and returns what the server says until it closes the connection or
/// `is_complete` holds.
pub(crate) async fn ask(
    server: SocketAddr,
    request: &str,
    is_complete: impl Fn(&[u8]) -> bool,
) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await? > 0 && !is_complete(&answer) {}
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(ANSWER_WITHIN, exchange).await.unwrap_or_else(|_| {
        let what = format!("{server} did not answer `{}` within {ANSWER_WITHIN:?}", request.trim_end());
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    })
}

/// Runs a command line client to its end and returns what it `printed`; when it fails that is in the error, after
/// its `name`. Dropping the future kills it.
pub(crate) async fn run(
    name: &str,
    command: Command,
    printed: impl Fn(&Output) -> String,
) -> io::Result<String> {
    run_within(DONE_WITHIN, name, command, printed).await
}

/// [`run`] for what takes its time.
pub(crate) async fn run_within(
    time: Duration,
    name: &str,
    mut command: Command,
    printed: impl Fn(&Output) -> String,
) -> io::Result<String> {
    let child = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(time, child)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{name} took longer than {time:?}")))?;
    let output =
        output.map_err(|error| io::Error::new(error.kind(), format!("cannot run {name}: {error}")))?;
    let printed = printed(&output);
    if output.status.success() {
        Ok(printed)
    } else {
        Err(io::Error::other(format!("{name} failed ({}): {printed}", output.status)))
    }
}
