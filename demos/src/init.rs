//! Being process 1, as in a container: whoever loses their parent becomes a child of ours, and has to be reaped.
//!
//! The program itself runs as a child then, so that it need not tell its own children from the others.

use std::{
    env, io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::Context;
use futures_util::future::select_all;
use rustix::{
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
    termios::tcsetpgrp,
};
use tokio::signal::unix::{self, SignalKind, signal};

use crate::shutdown;

/// Whether that is what we are.
pub(crate) fn is_needed() -> bool {
    std::process::id() == 1
}

/// Runs the same command as a child, passes on what we are told, and reaps all that end, until the child has ended.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    // Before there is anybody to hear of.
    let mut ends = signal(SignalKind::child())?;
    let mut words = shutdown::kinds()
        .map(|kind| Ok((kind, signal(kind)?)))
        .collect::<io::Result<Vec<(SignalKind, unix::Signal)>>>()?;
    let mut program = Command::new(env::current_exe()?);
    // A group of its own: else what is typed would reach it twice, from the terminal and from us.
    program.args(env::args_os().skip(1)).process_group(0);
    let program = program.spawn().context("cannot start the program as a child of process 1")?;
    let program = Pid::from_raw(program.id().cast_signed()).context("a process without a number")?;
    // If there is a terminal, it is the program's, which may have asked for it before.
    if tcsetpgrp(io::stdin(), program).is_ok() {
        kill_process(program, Signal::CONT)?;
    }
    loop {
        if let Some(status) = reap(program)? {
            return Ok(code(status));
        }
        let told = select_all(words.iter_mut().map(|(kind, word)| {
            Box::pin(async {
                word.recv().await;
                *kind
            })
        }));
        tokio::select! {
            _ = ends.recv() => {}
            (kind, ..) = told => if let Some(told) = Signal::from_named_raw(kind.as_raw_value()) {
                kill_process(program, told)?;
            },
        }
    }
}

/// Reaps all that have ended; returns how the program did, if it is among them.
fn reap(program: Pid) -> io::Result<Option<WaitStatus>> {
    while let Some((pid, status)) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)? {
        if pid == program && !status.stopped() {
            return Ok(Some(status));
        }
        // By Ctrl-Z, and there is no shell that it could be continued from. `kill -STOP` is meant.
        if pid == program && status.stopping_signal() != Some(Signal::STOP.as_raw()) {
            kill_process(program, Signal::CONT)?;
        }
    }
    Ok(None)
}

/// As a shell has it.
fn code(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
