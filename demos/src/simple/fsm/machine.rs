//! What a machine is: its states, and what they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use futures_util::future::BoxFuture;

use super::{Data, Fault, Flap, Instance, Label, Result};

/// What comes with a transition, and may fail.
pub(super) type Action<S, G, D> =
    Arc<dyn Fn(Instance<S, G, D>) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// How long a state may last, by how often it was visited.
pub(super) type Span = Arc<dyn Fn(u32) -> u64 + Send + Sync>;

/// A state: which signals it takes, and what comes of them. Whether all of it fits is looked at when the machine is built.
#[must_use = "a state is part of a machine"]
pub(crate) struct State<S: Label, G: Label, D: Data> {
    pub(super) id: S,
    pub(super) name: Option<String>,
    pub(super) transitions: BTreeMap<G, S>,
    pub(super) actions: BTreeMap<G, (&'static str, Action<S, G, D>)>,
    pub(super) errors: BTreeMap<G, S>,
    pub(super) ttl: Option<(Span, G)>,
    pub(super) visits: Option<(u32, G)>,
}

impl<S: Label, G: Label, D: Data> State<S, G, D> {
    /// A state that takes no signal yet.
    pub(crate) fn new(id: S) -> Self {
        Self {
            id,
            name: None,
            transitions: BTreeMap::new(),
            actions: BTreeMap::new(),
            errors: BTreeMap::new(),
            ttl: None,
            visits: None,
        }
    }

    /// What people call it; without this, what `Debug` says.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// A signal leads to a state.
    pub(crate) fn on(mut self, signal: G, to: S) -> Self {
        self.transitions.insert(signal, to);
        self
    }

    /// Something is done first when a signal leads elsewhere. The name is for people.
    pub(crate) fn act<F>(
        mut self,
        signal: G,
        name: &'static str,
        action: impl Fn(Instance<S, G, D>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.actions.insert(signal, (name, Arc::new(move |instance| Box::pin(action(instance)))));
        self
    }

    /// An action that fails leads to a state.
    pub(crate) fn on_error(mut self, signal: G, to: S) -> Self {
        self.errors.insert(signal, to);
        self
    }

    /// After so many ticks a signal is raised.
    pub(crate) fn ttl(self, ticks: u64, signal: G) -> Self {
        self.ttl_by(move |_| ticks, signal)
    }

    /// The same, by how often the state was visited: 1 the first time.
    pub(crate) fn ttl_by(self, ticks: impl Fn(u32) -> u64 + Send + Sync + 'static, signal: G) -> Self {
        Self { ttl: Some((Arc::new(ticks), signal)), ..self }
    }

    /// The visit with this number raises a signal.
    pub(crate) fn visits(self, limit: u32, signal: G) -> Self {
        Self { visits: Some((limit, signal)), ..self }
    }

    /// All signals that it speaks of, its transitions aside.
    fn mentioned(&self) -> impl Iterator<Item = G> {
        let ttl = self.ttl.iter().map(|(_, signal)| *signal);
        let visits = self.visits.iter().map(|(_, signal)| *signal);
        self.actions.keys().chain(self.errors.keys()).copied().chain(ttl).chain(visits)
    }
}

/// States that fit each other.
pub(crate) struct Machine<S: Label, G: Label, D: Data> {
    pub(super) states: BTreeMap<S, State<S, G, D>>,
    pub(super) flaps: Vec<Flap<S, G>>,
    signals: BTreeSet<G>,
    names: BTreeMap<G, String>,
}

impl<S: Label, G: Label, D: Data> Machine<S, G, D> {
    /// A machine without states.
    pub(crate) fn builder() -> MachineBuilder<S, G, D> {
        MachineBuilder { states: Vec::new(), flaps: Vec::new(), names: BTreeMap::new() }
    }

    /// Where a signal leads to.
    pub(crate) fn next(&self, state: S, signal: G) -> Result<S> {
        let to = self.state(state)?.transitions.get(&signal);
        to.copied().ok_or_else(|| self.unknown_transition(state, signal))
    }

    /// The signal that a state raises when its time is over.
    pub(crate) fn timeout(&self, state: S) -> Option<G> {
        self.states.get(&state)?.ttl.as_ref().map(|(_, signal)| *signal)
    }

    /// All states, in their order.
    pub(crate) fn states(&self) -> impl Iterator<Item = S> {
        self.states.keys().copied()
    }

    /// What people call a state.
    pub(crate) fn state_name(&self, state: S) -> String {
        let name = self.states.get(&state).and_then(|state| state.name.clone());
        name.unwrap_or_else(|| format!("{state:?}"))
    }

    /// What people call a signal.
    pub(crate) fn signal_name(&self, signal: G) -> String {
        self.names.get(&signal).cloned().unwrap_or_else(|| format!("{signal:?}"))
    }

    pub(super) fn state(&self, state: S) -> Result<&State<S, G, D>> {
        self.states.get(&state).ok_or_else(|| Fault::UnknownState(self.state_name(state)))
    }

    /// Fails for a signal that no state takes.
    pub(super) fn check(&self, signal: G) -> Result<()> {
        let known = self.signals.contains(&signal);
        known.then_some(()).ok_or_else(|| Fault::UnknownSignal(self.signal_name(signal)))
    }

    fn unknown_transition(&self, state: S, signal: G) -> Fault {
        Fault::UnknownTransition { state: self.state_name(state), signal: self.signal_name(signal) }
    }

    /// Looks whether all parts fit.
    fn checked(self) -> Result<Self> {
        if self.signals.is_empty() {
            return Err(Fault::NoTransitions);
        }
        for state in self.states.values() {
            for to in state.transitions.values().chain(state.errors.values()) {
                self.state(*to)?;
            }
            for signal in state.mentioned() {
                self.next(state.id, signal)?;
            }
        }
        for Flap { pair: (a, b), raises, .. } in &self.flaps {
            let (from_a, from_b) = (self.state(*a)?, self.state(*b)?);
            if let Some(signal) = raises
                && !from_a.transitions.contains_key(signal)
                && !from_b.transitions.contains_key(signal)
            {
                return Err(self.unknown_transition(*a, *signal));
            }
        }
        Ok(self)
    }
}

impl<S: Label, G: Label, D: Data> fmt::Debug for Machine<S, G, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states: BTreeMap<_, _> = self.states.iter().map(|(id, state)| (id, &state.transitions)).collect();
        f.debug_struct("Machine").field("states", &states).field("flaps", &self.flaps).finish_non_exhaustive()
    }
}

/// Puts a machine together.
#[must_use = "a builder does nothing until `build`"]
pub(crate) struct MachineBuilder<S: Label, G: Label, D: Data> {
    states: Vec<State<S, G, D>>,
    flaps: Vec<Flap<S, G>>,
    names: BTreeMap<G, String>,
}

impl<S: Label, G: Label, D: Data> MachineBuilder<S, G, D> {
    /// Adds a state.
    pub(crate) fn state(mut self, state: State<S, G, D>) -> Self {
        self.states.push(state);
        self
    }

    /// Adds a limit.
    pub(crate) fn flap(mut self, flap: Flap<S, G>) -> Self {
        self.flaps.push(flap);
        self
    }

    /// What people call a signal; without this, what `Debug` says.
    pub(crate) fn signal_name(mut self, signal: G, name: &str) -> Self {
        self.names.insert(signal, name.to_owned());
        self
    }

    /// The machine, if all of it fits.
    pub(crate) fn build(self) -> Result<Machine<S, G, D>> {
        let mut machine = Machine {
            states: BTreeMap::new(),
            flaps: self.flaps,
            signals: BTreeSet::new(),
            names: self.names,
        };
        for state in self.states {
            machine.signals.extend(state.transitions.keys());
            let id = state.id;
            if machine.states.insert(id, state).is_some() {
                return Err(Fault::DuplicateState(machine.state_name(id)));
            }
        }
        machine.checked()
    }
}
