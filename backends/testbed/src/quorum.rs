//! Waiting until servers serve: one, or the majority of several that elect a leader.

use std::{io, time::Duration};

use crate::process::{Deadline, Process};

/// An idle machine takes about 0.3 s (1 to 3 s for several servers); a loaded one gets much more.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A server that can tell whether it serves.
pub(crate) trait Serve {
    fn process(&self) -> &Process;

    /// Whether it has said that it never will serve, although it goes on to run.
    fn has_given_up(&self) -> bool {
        false
    }

    /// Fails unless it serves clients. Asked while there is no leader, it may take seconds to find out.
    fn serves(&self) -> impl Future<Output = io::Result<()>> + Send;
}

/// A server that may be one of several.
pub(crate) trait Member: Serve {
    /// Whether it believes that it leads the others; an error while it cannot know.
    fn leads(&self) -> impl Future<Output = io::Result<bool>> + Send;
}

/// Waits until `server` serves.
pub(crate) async fn ready(server: &impl Serve) -> io::Result<()> {
    let deadline = Deadline::after(READY_WITHIN);
    while let Err(why) = server.serves().await {
        server.process().check()?;
        if server.has_given_up() {
            return Err(server.process().failure(&format!("will not serve ({why})")));
        }
        if !deadline.wait().await {
            let what = format!("did not serve within {READY_WITHIN:?} ({why})");
            return Err(server.process().failure(&what));
        }
    }
    Ok(())
}

/// The index of the leader; an error when none leads, or two still believe they do.
pub(crate) async fn leader(members: &[impl Member]) -> io::Result<usize> {
    let mut leaders = Vec::new();
    for (index, member) in responsive(members) {
        if matches!(member.leads().await, Ok(true)) {
            leaders.push(index);
        }
    }
    match leaders[..] {
        [leader] => Ok(leader),
        _ => Err(io::Error::other(format!("there are {} leaders: {leaders:?}", leaders.len()))),
    }
}

/// Waits until every member that is neither down nor paused serves, under one leader, and they are the majority;
/// returns the index of the leader.
pub(crate) async fn wait(members: &[impl Member]) -> io::Result<usize> {
    let deadline = Deadline::after(READY_WITHIN);
    loop {
        match look(members).await? {
            Ok(leader) => return Ok(leader),
            Err(why) if !deadline.wait().await => {
                let logs: Vec<_> = responsive(members)
                    .map(|(_, member)| member.process().failure("is running").to_string())
                    .collect();
                let logs = logs.join("\n");
                return Err(io::Error::other(format!("no quorum within {READY_WITHIN:?}: {why}\n{logs}")));
            }
            Err(_) => {}
        }
    }
}

/// The leader, or why there is no quorum yet; the outer error is final.
async fn look(members: &[impl Member]) -> io::Result<Result<usize, io::Error>> {
    let up: Vec<_> = responsive(members).collect();
    for (_, member) in &up {
        member.process().check()?;
    }
    if up.len() * 2 <= members.len() {
        return Ok(Err(io::Error::other(format!("only {} of {} servers are up", up.len(), members.len()))));
    }
    let leader = match leader(members).await {
        Ok(leader) => leader,
        Err(why) => return Ok(Err(why)),
    };
    for (_, member) in up {
        if let Err(why) = member.serves().await {
            return Ok(Err(why));
        }
    }
    Ok(Ok(leader))
}

fn responsive<M: Member>(members: &[M]) -> impl Iterator<Item = (usize, &M)> {
    members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.process().is_running() && !member.process().is_paused())
}
