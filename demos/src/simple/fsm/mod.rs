//! State machines: many instances of one definition, moved by signals and by time.
//!
//! # The parts
//!
//! * A [`State`] says which signals it takes and where each leads, which **action** comes with a signal, where an action
//!   that fails leads instead, how long the state may last (its **TTL**), and how often it may be visited.
//! * A [`Machine`] is a set of states that fit each other, with its [`Flap`] limits. It is checked when it is built.
//! * [`Machines`] are the instances of a machine. Dropping them ends them.
//! * An [`Instance`] is one of them: it takes signals, and says in which state it is.
//! * A [`Clock`] makes time pass, in ticks: by hand, or by the clock on the wall.
//!
//! # The rules
//!
//! *There is no worker.* Whoever signals an instance, lets time pass or ends an action moves the instance on, under one lock that
//! nobody holds for long. So no queue can be full, and whoever reads a state behind a signal sees what came of it.
//!
//! *An action runs in a task of its own*, before the state changes. One that hangs keeps nobody but its own instance, whose
//! signals wait in their order; one that panics has failed. An action that fails leads to where the error rule says; without a rule the
//! instance stays where it is, and its time begins anew.
//!
//! *A signal that the present state does not take is dropped*; one that no state takes is an error.
//!
//! *A TTL* is counted from entering the state, again each time, and stands still while an action runs. It is over on the tick
//! that reaches it. It may depend on how often the state was visited, which makes a back-off of it. While the whole process is
//! stopped no time passes: behind that there is one tick, not all that were missed.
//!
//! *A visit limit* raises its signal on the visit that reaches it, and never again. The state that an instance begins in
//! is visited once by that.
//!
//! *A flap limit* counts how often an instance went from one state to another and straight back. The step that would
//! reach the limit is not taken; the signal of the limit is raised instead. Any other step between states that are limited
//! begins a new count.
//!
//! *[Forgetting](Instance::forget)* begins all counts anew: for who has been calm long enough.
//!
//! *After the end* everything returns at once, with [`Fault::Closed`].

#![cfg_attr(not(test), allow(dead_code, reason = "a library, of which the sample does not need all"))]

mod clock;
mod diagram;
mod flap;
mod instance;
mod machine;
mod machines;
#[cfg(test)]
mod tests;
mod timers;

use std::{fmt, hash::Hash};

pub(crate) use self::{
    clock::Clock,
    diagram::Format,
    flap::Flap,
    instance::Instance,
    machine::{Machine, State},
    machines::Machines,
};

/// What states and signals are made of: enums without data, as a rule.
pub(crate) trait Label: Copy + Ord + Hash + fmt::Debug + Send + Sync + 'static {}

impl<T: Copy + Ord + Hash + fmt::Debug + Send + Sync + 'static> Label for T {}

/// What instances carry: the latest data that came with a signal, or that they began with.
pub(crate) trait Data: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Data for T {}

/// What is wrong with a definition or with a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("state {0} is defined twice")]
    DuplicateState(String),
    #[error("no state {0} is defined")]
    UnknownState(String),
    #[error("state {state} has no transition for signal {signal}")]
    UnknownTransition { state: String, signal: String },
    #[error("no state has a transition for signal {0}")]
    UnknownSignal(String),
    #[error("no state has a transition; add one with `State::on`")]
    NoTransitions,
    #[error("there is no instance {0}; it was removed")]
    UnknownInstance(u64),
    #[error("the machines have ended")]
    Closed,
}

/// What calls of this library return.
pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;
