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

/// The variable that tells a process who has started it: the process, when that began, for numbers are given again, and
/// whose numbers these are, for each container counts for itself.
pub(super) const SUPERVISOR: &str = "SIMPLE_SUPERVISOR";

/// The environment of a process, each variable as `NAME=value`.
pub(super) type Environment = [String];

/// A process that belongs to a target, and that nobody else looks after.
#[derive(Debug)]
pub(super) struct Relative {
    pub(super) pid: Pid,
    pub(super) handle: OwnedFd,
    /// Whether its supervisor is gone; otherwise we are that.
    is_orphan: bool,
}

impl Relative {
    /// Whether it is what a supervisor that is gone has started, not a child of that.
    pub(super) fn is_adoptable(&self) -> bool {
        self.is_orphan && is_first(self.pid)
    }

    /// When it has begun.
    pub(super) fn begin(&self) -> Option<u64> {
        begin(self.pid)
    }

    pub(super) fn is_gone(&self) -> bool {
        is_gone(&self.handle)
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        self::signal(&self.handle, signal)
    }
}

/// Who we are, as the value of [`SUPERVISOR`].
pub(super) fn ourselves() -> String {
    let pid = rustix::process::getpid();
    format!("{}:{}:{}", pid.as_raw_nonzero(), begin(pid).unwrap_or_default(), numbers())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{env, fs, os::unix::fs::MetadataExt, path::PathBuf};

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        process::{PidfdFlags, pidfd_open, pidfd_send_signal},
    };

    use super::{Environment, Output, OwnedFd, Pid, Relative, SUPERVISOR, Signal, io};

    /// All that are wanted by their environment, and that nobody else looks after. Reads of every process of the
    /// machine: not for a thread that others wait for.
    pub(in crate::simple) fn find(is_wanted: impl Fn(&Environment) -> bool) -> Vec<Relative> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let ourselves = super::ourselves();
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
        pids.filter_map(|pid| {
            // In this order: what is true of the process behind the handle stays true.
            let handle = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
            let env = environment(pid)?;
            let supervisor = supervisor(&env)?;
            let is_orphan = is_over(supervisor);
            let is_free = is_orphan || supervisor == ourselves;
            (is_free && is_wanted(&env)).then_some(Relative { pid, handle, is_orphan })
        })
        .collect()
    }

    /// Whether a supervisor has started it: that gives it a group of its own, but no session.
    pub(super) fn is_first(pid: Pid) -> bool {
        let ours = pid.as_raw_nonzero().get();
        Stat::of(pid).is_some_and(|stat| stat.group == ours && stat.session != ours)
    }

    fn environment(pid: Pid) -> Option<Vec<String>> {
        let text = fs::read(of(pid, "environ")).ok()?;
        let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    fn supervisor(env: &Environment) -> Option<&str> {
        env.iter().find_map(|word| word.strip_prefix(SUPERVISOR)?.strip_prefix('='))
    }

    /// Whether a supervisor has ended, also if another process has its number by now. Of those in other containers nobody
    /// here can tell.
    fn is_over(supervisor: &str) -> bool {
        let mut parts = supervisor.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default();
        let (pid, begin, numbers) = (part(), part(), part());
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        numbers == self::numbers() && pid.and_then(self::begin).is_none_or(|now| now.to_string() != begin)
    }

    /// Whose numbers of processes ours are.
    pub(super) fn numbers() -> String {
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        namespace.to_string_lossy().into_owned()
    }

    /// Whether we are an orphan ourselves.
    pub(in crate::simple) fn are_we_alone() -> bool {
        env::var(SUPERVISOR).is_ok_and(|supervisor| is_over(&supervisor))
    }

    /// When a process that lives has begun, in ticks since the machine has.
    pub(super) fn begin(pid: Pid) -> Option<u64> {
        Stat::of(pid).map(|stat| stat.begin)
    }

    /// What the kernel says of a process that lives (proc(5)).
    ///
    /// Of a leader outside of our namespace, as in a container that was entered, the number is 0. No [`Pid`] is that, and
    /// what asks for one by a call (`getsid`) panics.
    struct Stat {
        group: i32,
        session: i32,
        begin: u64,
    }

    impl Stat {
        fn of(pid: Pid) -> Option<Self> {
            let text = fs::read_to_string(of(pid, "stat")).ok()?;
            // Behind the name, which may have anything in it.
            let (_, behind) = text.rsplit_once(')')?;
            let fields: Vec<_> = behind.split_whitespace().collect();
            let [state, _parent, group, session, ..] = fields[..] else { return None };
            let is_dead = matches!(state, "Z" | "X");
            let begin = fields.get(19)?.parse().ok()?;
            (!is_dead).then_some(Self { group: group.parse().ok()?, session: session.parse().ok()?, begin })
        }
    }

    pub(in crate::simple) fn is_gone(handle: &OwnedFd) -> bool {
        let mut polled = [PollFd::new(handle, PollFlags::IN)];
        // Readable once the process has ended.
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    pub(super) fn signal(handle: &OwnedFd, signal: Signal) -> io::Result<()> {
        pidfd_send_signal(handle, signal)
    }

    pub(in crate::simple) fn output(pid: Pid, label: String) -> Option<Output> {
        let path = of(pid, "fd/1");
        let kind = fs::metadata(&path).ok()?;
        if !kind.is_file() {
            return None;
        }
        // One without a name is ours to free what has been read; any other is somebody's.
        let is_ours = kind.nlink() == 0;
        let file = fs::File::options().read(true).write(is_ours).open(path).ok()?;
        Some(Output::of(label, file, kind.len()))
    }

    fn of(pid: Pid, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{are_we_alone, find, is_gone, output};
#[cfg(target_os = "linux")]
use linux::{begin, is_first, numbers, signal};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::{Environment, Output, OwnedFd, Pid, Relative, Signal, io};

    pub(in crate::simple) fn find(_: impl Fn(&Environment) -> bool) -> Vec<Relative> {
        Vec::new()
    }

    pub(super) fn numbers() -> String {
        String::new()
    }

    pub(super) fn is_first(_: Pid) -> bool {
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

    pub(super) fn signal(_: &OwnedFd, _: Signal) -> io::Result<()> {
        Err(io::Errno::NOSYS)
    }

    pub(in crate::simple) fn output(_: Pid, _: String) -> Option<Output> {
        None
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{are_we_alone, find, is_gone, output};
#[cfg(not(target_os = "linux"))]
use elsewhere::{begin, is_first, numbers, signal};
