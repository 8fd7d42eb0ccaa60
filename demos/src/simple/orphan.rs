//! Processes whose supervisor is gone: how to find, watch and signal them.
//!
//! They are known by what their supervisor has put into their environment, which their own children inherit. On Linux
//! only; elsewhere an orphan is still asked how it is, and its end is noticed by that.

use std::os::fd::OwnedFd;

use rustix::{
    io,
    process::{Pid, Signal},
};

use super::output::Output;

/// The variable that tells a process who has started it: the process, and when that began, for numbers are given again.
pub(super) const SUPERVISOR: &str = "SIMPLE_SUPERVISOR";

/// The environment of a process, each variable as `NAME=value`.
pub(super) type Environment = [String];

/// Who we are, as the value of [`SUPERVISOR`].
pub(super) fn ourselves() -> String {
    let pid = rustix::process::getpid();
    format!("{}:{}", pid.as_raw_nonzero(), begin(pid).unwrap_or_default())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{env, fs, path::PathBuf};

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        process::{PidfdFlags, getpgid, pidfd_open, pidfd_send_signal},
    };

    use super::{Environment, Output, OwnedFd, Pid, SUPERVISOR, Signal, io};

    /// All that are wanted by their environment, and that nobody else looks after. Reads of every process of the
    /// machine: not for a thread that others wait for.
    pub(in crate::simple) fn find(is_wanted: impl Fn(&Environment) -> bool) -> Vec<(Pid, OwnedFd)> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let ourselves = super::ourselves();
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
        pids.filter_map(|pid| {
            // In this order: what is true of the process behind the handle stays true.
            let handle = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
            let env = environment(pid)?;
            let is_free =
                supervisor(&env).is_some_and(|supervisor| supervisor == ourselves || is_over(supervisor));
            (is_free && is_wanted(&env)).then_some((pid, handle))
        })
        .collect()
    }

    /// Whether it is the process that was started, not a child of that one.
    pub(in crate::simple) fn is_first(pid: Pid) -> bool {
        getpgid(Some(pid)).is_ok_and(|group| group == pid)
    }

    fn environment(pid: Pid) -> Option<Vec<String>> {
        let text = fs::read(of(pid, "environ")).ok()?;
        let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    fn supervisor(env: &Environment) -> Option<&str> {
        env.iter().find_map(|word| word.strip_prefix(SUPERVISOR)?.strip_prefix('='))
    }

    /// Whether a supervisor has ended, also if another process has its number by now.
    fn is_over(supervisor: &str) -> bool {
        let Some((pid, begin)) = supervisor.split_once(':') else { return true };
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        pid.and_then(self::begin).is_none_or(|now| now.to_string() != begin)
    }

    /// Whether we are an orphan ourselves.
    pub(in crate::simple) fn are_we_alone() -> bool {
        env::var(SUPERVISOR).is_ok_and(|supervisor| is_over(&supervisor))
    }

    /// When a process that lives has begun, in ticks since the machine has.
    pub(super) fn begin(pid: Pid) -> Option<u64> {
        let stat = fs::read_to_string(of(pid, "stat")).ok()?;
        // Behind the name, which may have anything in it, the state comes first.
        let (_, behind) = stat.rsplit_once(')')?;
        let mut fields = behind.split_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X");
        (!is_dead).then(|| fields.nth(18)?.parse().ok())?
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
use linux::begin;
#[cfg(target_os = "linux")]
pub(super) use linux::{are_we_alone, find, is_first, is_gone, output, signal};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Environment, Output, OwnedFd, Pid, Signal, io};

    pub(in crate::simple) fn find(_: impl Fn(&Environment) -> bool) -> Vec<(Pid, OwnedFd)> {
        Vec::new()
    }

    pub(in crate::simple) fn is_first(_: Pid) -> bool {
        false
    }

    pub(in crate::simple) fn are_we_alone() -> bool {
        false
    }

    pub(super) fn begin(_: Pid) -> Option<u64> {
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
use elsewhere::begin;
#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{are_we_alone, find, is_first, is_gone, output, signal};
