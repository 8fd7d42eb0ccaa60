//! What several processes do together: elect a leader, take turns, look after each other, wait for each other.
//!
//! Each recipe is written once, on keys and leases, and works on every backend that has them. What each promises and why
//! that holds is in its own documentation, and a group of the conformance suite checks it.
//!
//! | recipe | for |
//! | --- | --- |
//! | [`Election`] | one of many does something |
//! | [`Lock`] | one at a time does something |
//! | [`Group`] | each looks after one other: whoever dies is covered for, by exactly one |
//! | [`Barrier`] | nobody begins before all are there, nobody goes on before all are done |
//! | [`Run`] | a state machine moves on when all its tasks have completed a state, moved by exactly one |
//!
//! What is held ends when it can no longer be proven. The proof is a [`Fence`], and it explains what protects against
//! what. Nobody polls: whoever waits to act watches one key, and whatever happens wakes those it concerns only.
//!
//! The entries are below `_elections`, `_locks`, `_groups`, `_barriers` and `_runs`, where no instance can be; whoever watches the
//! whole registry hears of them no more than of any other foreign key.

mod barrier;
mod election;
mod fence;
mod group;
mod known;
mod lock;
mod place;
mod queue;
mod run;

pub use self::{
    barrier::{Barrier, Entered},
    election::{Election, Leader, Leadership},
    fence::Fence,
    group::{Buddy, Departure, Group, Membership, News, Seat},
    lock::{Lock, LockGuard},
    run::{Completed, Move, Picture, Plan, Run, RunStatus, Runs, Table},
};
