//! Processes whose supervisor is gone: how to find, watch and signal them.
//!
//! On Linux only; elsewhere an orphan is still asked how it is, and its end is noticed by that.

use std::os::fd::OwnedFd;

use rustix::{
    io,
    process::{Pid, Signal},
};

use super::output::Output;

#[cfg(target_os = "linux")]
mod linux {
    use std::{env, fs, path::PathBuf};

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        process::{PidfdFlags, pidfd_open, pidfd_send_signal},
    };

    use super::{Output, OwnedFd, Pid, Signal, io};

    pub(in crate::simple) fn find(words: &[String], marks: &[String]) -> Option<(Pid, OwnedFd)> {
        let pids =
            fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(Pid::from_raw).find_map(|pid| {
            // In this order: what is true of the process behind the handle stays true.
            let handle = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
            is_orphan(pid, words, marks).then_some((pid, handle))
        })
    }

    /// Whether it runs this command with these variables, where we would, and nobody looks after it.
    fn is_orphan(pid: Pid, words: &[String], marks: &[String]) -> bool {
        let list = |name| -> Option<Vec<String>> {
            let text = fs::read(of(pid, name)).ok()?;
            let text = String::from_utf8(text).ok()?;
            Some(text.trim_end_matches('\0').split('\0').map(str::to_owned).collect())
        };
        list("cmdline").is_some_and(|line| line == words)
            && list("environ").is_some_and(|env| marks.iter().all(|mark| env.contains(mark)))
            && fs::read_link(of(pid, "cwd")).ok() == env::current_dir().ok()
            && parent(pid)
                .is_none_or(|parent| fs::read_link(of(parent, "exe")).ok() != env::current_exe().ok())
    }

    fn parent(pid: Pid) -> Option<Pid> {
        let stat = fs::read_to_string(of(pid, "stat")).ok()?;
        // Behind the name, which may have anything in it: the state, then the parent.
        let (_, behind) = stat.rsplit_once(')')?;
        Pid::from_raw(behind.split_whitespace().nth(1)?.parse().ok()?)
    }

    pub(in crate::simple) fn is_gone(handle: &OwnedFd) -> bool {
        let mut polled = [PollFd::new(handle, PollFlags::IN)];
        // Readable once the process has ended.
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    pub(in crate::simple) fn signal(handle: &OwnedFd, signal: Signal) -> io::Result<()> {
        pidfd_send_signal(handle, signal)
    }

    pub(in crate::simple) fn output(pid: Pid, label: String) -> Option<Output> {
        let path = of(pid, "fd/1");
        let kind = fs::metadata(&path).ok()?;
        if !kind.is_file() {
            return None;
        }
        let file = fs::File::open(path).ok()?;
        Some(Output::of(label, file, kind.len()))
    }

    fn of(pid: Pid, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{find, is_gone, output, signal};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Output, OwnedFd, Pid, Signal, io};

    pub(in crate::simple) fn find(_: &[String], _: &[String]) -> Option<(Pid, OwnedFd)> {
        None
    }

    pub(in crate::simple) fn is_gone(_: &OwnedFd) -> bool {
        false
    }

    pub(in crate::simple) fn signal(_: &OwnedFd, _: Signal) -> io::Result<()> {
        Err(io::Errno::NOSYS)
    }

    pub(in crate::simple) fn output(_: Pid, _: String) -> Option<Output> {
        None
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{find, is_gone, output, signal};
