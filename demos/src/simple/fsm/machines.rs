//! The instances of a machine.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Data, Fault, Instance, Label, Machine, Result,
    instance::{Life, Mail},
    timers::Timers,
};

/// The instances of a machine. Dropping this ends them all, with what they do.
pub(crate) struct Machines<S: Label, G: Label, D: Data> {
    shared: Arc<Shared<S, G, D>>,
}

impl<S: Label, G: Label, D: Data> Machines<S, G, D> {
    /// None yet.
    pub(crate) fn new(machine: Machine<S, G, D>) -> Self {
        let core = Core { lives: HashMap::new(), timers: Timers::new(), now: 0, next: 0, is_closed: false };
        Self { shared: Arc::new(Shared { machine, core: Mutex::new(core) }) }
    }

    /// One more instance, which begins in this state.
    pub(crate) fn add(&self, state: S) -> Result<Instance<S, G, D>> {
        self.shared.add(state, None)
    }

    /// The same, with data.
    pub(crate) fn add_with(&self, state: S, data: D) -> Result<Instance<S, G, D>> {
        self.shared.add(state, Some(data))
    }

    /// How many instances are in a state.
    pub(crate) fn count(&self, state: S) -> usize {
        self.shared.lock().lives.values().filter(|life| life.state == state).count()
    }

    /// How many instances wait for a time to come.
    pub(crate) fn timed(&self) -> usize {
        self.shared.lock().timers.len()
    }

    /// Lets time pass, by one tick.
    pub(crate) fn tick(&self) {
        self.shared.tick();
    }

    /// Ends all instances, with what they do.
    pub(crate) fn close(&self) {
        self.shared.close();
    }

    pub(super) fn shared(&self) -> &Arc<Shared<S, G, D>> {
        &self.shared
    }
}

impl<S: Label, G: Label, D: Data> Drop for Machines<S, G, D> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<S: Label, G: Label, D: Data> fmt::Debug for Machines<S, G, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machines").field("instances", &self.shared.lock().lives.len()).finish_non_exhaustive()
    }
}

/// What all handles share.
pub(super) struct Shared<S: Label, G: Label, D: Data> {
    pub(super) machine: Machine<S, G, D>,
    /// Written by whoever signals, ticks, or ends an action; never locked across an `await`, nor while an action runs.
    core: Mutex<Core<S, G, D>>,
}

struct Core<S: Label, G: Label, D: Data> {
    lives: HashMap<u64, Life<S, G, D>>,
    timers: Timers<u64>,
    now: u64,
    /// The number of the next instance: none is given twice.
    next: u64,
    is_closed: bool,
}

impl<S: Label, G: Label, D: Data> Shared<S, G, D> {
    fn add(self: &Arc<Self>, state: S, data: Option<D>) -> Result<Instance<S, G, D>> {
        self.machine.state(state)?;
        let mut core = self.lock();
        if core.is_closed {
            return Err(Fault::Closed);
        }
        let id = core.next;
        core.next += 1;
        core.lives.insert(id, Life::new(state, data));
        self.enter(&mut core, id, state);
        self.drive(&mut core, id);
        Ok(Instance::new(self.clone(), id))
    }

    pub(super) fn signal(self: &Arc<Self>, id: u64, signal: G, data: Option<D>) -> Result<()> {
        self.machine.check(signal)?;
        let mut core = self.lock();
        core.life(id)?.inbox.push_back(Mail { signal, data, is_raised: false });
        self.drive(&mut core, id);
        Ok(())
    }

    /// Reads or changes what is known of an instance.
    pub(super) fn with<T>(&self, id: u64, work: impl FnOnce(&mut Life<S, G, D>) -> T) -> Result<T> {
        self.lock().life(id).map(work)
    }

    /// How many ticks it takes until the time of an instance is over, if there is such a time.
    pub(super) fn due(&self, id: u64) -> Option<u64> {
        let core = self.lock();
        core.timers.of(id).map(|deadline| deadline.saturating_sub(core.now))
    }

    /// What an instance did is dropped outside of the lock: it may have handles of ours.
    pub(super) fn remove(&self, id: u64) {
        let mut core = self.lock();
        core.timers.cancel(id);
        let life = core.lives.remove(&id);
        drop(core);
        drop(life);
    }

    pub(super) fn tick(self: &Arc<Self>) {
        let mut core = self.lock();
        core.now += 1;
        let now = core.now;
        while let Some(id) = core.timers.due(now) {
            let Ok(life) = core.life(id) else { continue };
            if let Some(signal) = self.machine.timeout(life.state) {
                life.inbox.push_back(Mail { signal, data: None, is_raised: false });
                self.drive(&mut core, id);
            }
        }
    }

    pub(super) fn close(&self) {
        let mut core = self.lock();
        core.is_closed = true;
        core.timers.clear();
        let lives = std::mem::take(&mut core.lives);
        drop(core);
        drop(lives);
    }

    /// Takes the outcome of an action.
    fn acted(self: &Arc<Self>, id: u64, step: Step<S>, outcome: anyhow::Result<()>) {
        let mut core = self.lock();
        // It may have been removed meanwhile.
        let Ok(life) = core.life(id) else { return };
        life.acting = None;
        match (outcome, step.on_error) {
            (Ok(()), _) => self.enter(&mut core, id, step.to),
            (Err(error), rule) => {
                life.error = Some(Arc::from(format!("{}: {error:#}", step.action)));
                match rule {
                    Some(to) => self.enter(&mut core, id, to),
                    None => self.arm(&mut core, id),
                }
            }
        }
        self.drive(&mut core, id);
    }

    /// Takes one signal after the other, until there is none left or an action is to be waited for.
    fn drive(self: &Arc<Self>, core: &mut Core<S, G, D>, id: u64) {
        while let Ok(life) = core.life(id)
            && life.acting.is_none()
            && let Some(mail) = life.inbox.pop_front()
        {
            self.take(core, id, mail);
        }
        if let Ok(life) = core.life(id) {
            life.tell();
        }
    }

    fn take(self: &Arc<Self>, core: &mut Core<S, G, D>, id: u64, mail: Mail<G, D>) {
        let Mail { signal, data, is_raised } = mail;
        let Ok(life) = core.life(id) else { return };
        let Some(state) = self.machine.states.get(&life.state) else { return };
        let Some(&to) = state.transitions.get(&signal) else { return };
        if data.is_some() {
            life.data = data;
        }
        if !is_raised && let Some(instead) = self.limit(life, to) {
            life.inbox.push_front(Mail { signal: instead, data: None, is_raised: true });
            return;
        }
        let Some((name, action)) = state.actions.get(&signal) else {
            return self.enter(core, id, to);
        };
        core.timers.cancel(id);
        let step = Step { to, on_error: state.errors.get(&signal).copied(), action: name };
        let (shared, running) = (self.clone(), action.clone());
        let done = move |outcome| shared.acted(id, step, outcome);
        let instance = Instance::new(self.clone(), id);
        if let Ok(life) = core.life(id) {
            life.act(move || running(instance), done);
        }
    }

    /// The signal that takes the place of a step, if the step is one too many.
    fn limit(&self, life: &mut Life<S, G, D>, to: S) -> Option<G> {
        let from = life.state;
        let flap = self.machine.flaps.iter().find(|flap| flap.is_of(from, to))?;
        let signal = flap.raises?;
        let trips = life.trips.and(from, to);
        let takes = self.machine.next(from, signal).is_ok();
        (takes && trips.between(from, to) >= flap.limit).then(|| {
            life.trips = trips;
            signal
        })
    }

    fn enter(&self, core: &mut Core<S, G, D>, id: u64, to: S) {
        let Ok(life) = core.life(id) else { return };
        let from = std::mem::replace(&mut life.state, to);
        if self.machine.flaps.iter().any(|flap| flap.is_of(from, to)) {
            life.trips = life.trips.and(from, to);
        }
        let visits = life.visit();
        if let Some((limit, signal)) = self.machine.states.get(&to).and_then(|state| state.visits)
            && visits == limit
        {
            life.inbox.push_front(Mail { signal, data: None, is_raised: true });
        }
        self.arm(core, id);
    }

    /// Begins the time of the present state.
    fn arm(&self, core: &mut Core<S, G, D>, id: u64) {
        let Ok(life) = core.life(id) else { return };
        let visits = life.visits();
        match self.machine.states.get(&life.state).and_then(|state| state.ttl.as_ref()) {
            Some((span, _)) => {
                let deadline = core.now.saturating_add(span(visits).max(1));
                core.timers.set(id, deadline);
            }
            None => core.timers.cancel(id),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core<S, G, D>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Label, G: Label, D: Data> Core<S, G, D> {
    fn life(&mut self, id: u64) -> Result<&mut Life<S, G, D>> {
        if self.is_closed {
            return Err(Fault::Closed);
        }
        self.lives.get_mut(&id).ok_or(Fault::UnknownInstance(id))
    }
}

/// What is to come of an action.
#[derive(Clone, Copy)]
struct Step<S> {
    to: S,
    on_error: Option<S>,
    action: &'static str,
}
