//! Leaving in order: the first signal asks, the second one insists.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that Ctrl-C or SIGTERM cancels. A second one ends the process at once, with the exit code of a shell for
/// an interrupted program.
pub(crate) fn on_signal() -> io::Result<CancellationToken> {
    let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = CancellationToken::new();
    // Lives as long as the process: there is nobody to stop it, and nothing that it could outlive.
    tokio::spawn(listen(interrupt, terminate, token.clone()));
    Ok(token)
}

async fn listen(mut interrupt: Signal, mut terminate: Signal, token: CancellationToken) {
    next(&mut interrupt, &mut terminate).await;
    tracing::info!("leaving in order; a second Ctrl-C leaves at once");
    token.cancel();
    next(&mut interrupt, &mut terminate).await;
    std::process::exit(130);
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
