//! Leaving in order: the first signal asks, the second one insists.

use std::{fs, io};

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that Ctrl-C, SIGTERM or the end of the terminal (SIGHUP) cancels. A second signal ends the process at once,
/// with the exit code of a shell for an interrupted program.
pub(crate) fn on_signal() -> io::Result<CancellationToken> {
    let signals = kinds().map(signal).collect::<io::Result<_>>()?;
    let token = CancellationToken::new();
    // Lives as long as the process: there is nobody to stop it, and nothing that it could outlive.
    tokio::spawn(listen(signals, token.clone()));
    Ok(token)
}

/// What asks us to leave.
pub(crate) fn kinds() -> impl Iterator<Item = SignalKind> {
    let hangup = Some(SignalKind::hangup()).filter(|kind| !is_ignored(*kind));
    [SignalKind::interrupt(), SignalKind::terminate()].into_iter().chain(hangup)
}

async fn listen(mut signals: Vec<Signal>, token: CancellationToken) {
    select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    // First: there may be no terminal any more that could be told.
    token.cancel();
    tracing::info!("leaving in order; a second Ctrl-C leaves at once");
    select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    std::process::exit(130);
}

/// Whether whoever has started us wants a signal to be ignored, as `nohup` does.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored >> (kind.as_raw_value() - 1) & 1 == 1)
}
