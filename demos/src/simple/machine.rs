//! The life of a target, as a state machine.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    fsm::{self, Flap, Format},
    target::Target,
};

/// How long a tick is.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How long who waits for others, or for its supervisor to be elected, waits until it looks again.
const PATIENCE: u64 = 2;

/// How long it takes to be calm, so that what was is forgotten.
const CALM: Duration = Duration::from_secs(10);

/// How often a target that was started is started again without a pause.
const AT_ONCE: u32 = 3;

/// The first pause behind that, and the longest; and so for trying to bring one to an end.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// How often a target may go from running to failing and straight back before it is started anew.
const TRIPS: u32 = 5;

pub(super) type Machine = fsm::Machine<State, Signal, Arc<Target>>;
pub(super) type Machines = fsm::Machines<State, Signal, Arc<Target>>;
pub(super) type Instance = fsm::Instance<State, Signal, Arc<Target>>;

/// How a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum State {
    /// Not asked yet.
    Unknown,
    /// It answers that it is not ready.
    Pending,
    /// It answers that all is well.
    Running,
    /// It answers, or hangs, but all is not well. It is asked once more.
    Error,
    /// It is not there.
    Down,
    /// It has been started, and does not answer yet.
    Provisioning,
    /// It has been told to end.
    Stopping,
    /// It is not there, and has to wait: for what it comes after, or for us to be elected.
    Waiting,
    /// It is to end, and we cannot make it: it is somebody else's.
    Stuck,
    /// It was started too often; now it takes a person, or its own recovery.
    Failed,
}

/// As the original writes it.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "UNKNOWN",
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Error => "ERROR",
            Self::Down => "DOWN",
            Self::Provisioning => "PROVISIONING",
            Self::Stopping => "STOPPING",
            Self::Waiting => "WAITING",
            Self::Stuck => "STUCK",
            Self::Failed => "FAILED",
        })
    }
}

/// What moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Signal {
    /// It was asked: all is well.
    Running,
    /// It was asked: not ready.
    Pending,
    /// It was asked: all is not well.
    Error,
    /// It was asked once more: all is still not well.
    Again,
    /// It was asked once more: it still does not answer.
    Hang,
    /// It was asked: nobody is there.
    Down,
    /// Its process has ended.
    Exited,
    /// It is to be started.
    Provision,
    /// It is to be told to end.
    Kill,
    /// It has been told to end, and has not.
    Insist,
    /// It has been started too often.
    GiveUp,
    /// It has run for long.
    Calm,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Error => "error",
            Self::Again => "error again",
            Self::Hang => "hangs",
            Self::Down => "down",
            Self::Exited => "exited",
            Self::Provision => "provision",
            Self::Kill => "kill",
            Self::Insist => "insist",
            Self::GiveUp => "give up",
            Self::Calm => "calm",
        })
    }
}

/// What may be chosen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// How long a target may take until it answers.
    pub(super) start: Duration,
    /// How long a target may take to end.
    pub(super) stop: Duration,
    /// How often a target is started until it has been calm.
    pub(super) starts: u32,
}

/// The machine of all targets.
pub(super) fn machine(limits: Limits) -> fsm::Result<Machine> {
    use State::{Down, Error, Failed, Pending, Provisioning, Running, Stopping, Stuck, Unknown, Waiting};
    let state = |id: State| fsm::State::new(id).named(&id.to_string());
    // What is asked of all that may answer.
    let asked = |id: State| {
        [(Signal::Running, Running), (Signal::Pending, Pending), (Signal::Error, Error)]
            .into_iter()
            .filter(|(_, to)| *to != id)
            .fold(state(id), |state, (signal, to)| state.on(signal, to))
    };
    let may_vanish = |id: State| asked(id).on(Signal::Down, Down).on(Signal::Exited, Down);
    let can_be_started = |id: State| {
        asked(id)
            .on(Signal::Provision, Provisioning)
            .act(Signal::Provision, "start", start)
            .on_error(Signal::Provision, Waiting)
    };
    let can_be_stopped = |from: fsm::State<State, Signal, Arc<Target>>, signal| {
        from.on(signal, Stopping).act(signal, "end", end).on_error(signal, Stuck)
    };
    let built = fsm::Machine::builder()
        .state(may_vanish(Unknown))
        .state(may_vanish(Pending))
        .state(
            may_vanish(Running)
                .on(Signal::Calm, Running)
                .act(Signal::Calm, "forget", forget)
                .ttl(ticks(CALM), Signal::Calm),
        )
        // No time-out: it is asked again, and an answer may take its time.
        .state(
            [Signal::Again, Signal::Kill]
                .into_iter()
                .fold(may_vanish(Error), can_be_stopped)
                .on(Signal::Hang, Stopping)
                .act(Signal::Hang, "cut short", cut_short)
                .on_error(Signal::Hang, Stuck),
        )
        .state(
            can_be_started(Down)
                .ttl_by(pause, Signal::Provision)
                // The visit behind the last start that is allowed.
                .on(Signal::GiveUp, Failed)
                .visits(limits.starts.saturating_add(1), Signal::GiveUp),
        )
        .state(can_be_started(Waiting).ttl(PATIENCE, Signal::Provision))
        .state(
            // Whoever is there again begins anew: the limit is met once, and never behind it.
            [Signal::Running, Signal::Pending, Signal::Error]
                .into_iter()
                .fold(can_be_started(Failed), |state, signal| state.act(signal, "forget", forget)),
        )
        .state(
            can_be_stopped(asked(Provisioning), Signal::Kill)
                .on(Signal::Exited, Down)
                .ttl(ticks(limits.start), Signal::Kill),
        )
        .state(
            state(Stopping)
                .on(Signal::Down, Down)
                .on(Signal::Exited, Down)
                .on(Signal::Insist, Stopping)
                .act(Signal::Insist, "crush", crush)
                .on_error(Signal::Insist, Stuck)
                .ttl(ticks(limits.stop), Signal::Insist),
        )
        // That it is still not well is no news.
        .state(
            can_be_stopped(state(Stuck), Signal::Kill)
                .on(Signal::Running, Running)
                .on(Signal::Pending, Pending)
                .on(Signal::Down, Down)
                .on(Signal::Exited, Down)
                .ttl_by(|visits| doubled(visits.saturating_sub(1)), Signal::Kill),
        )
        .flap(Flap::new(Running, Error, TRIPS).raise(Signal::Kill));
    let signals = [
        Signal::Running,
        Signal::Pending,
        Signal::Error,
        Signal::Again,
        Signal::Hang,
        Signal::Down,
        Signal::Exited,
        Signal::Provision,
        Signal::Kill,
        Signal::Insist,
        Signal::GiveUp,
        Signal::Calm,
    ];
    signals.into_iter().fold(built, |built, signal| built.signal_name(signal, &signal.to_string())).build()
}

/// The machine as a picture.
pub(super) fn diagram(limits: Limits, format: Format) -> fsm::Result<String> {
    Ok(machine(limits)?.diagram(State::Unknown, TICK, format))
}

async fn start(instance: Instance) -> anyhow::Result<()> {
    target(&instance)?.start().await
}

async fn end(instance: Instance) -> anyhow::Result<()> {
    let target = target(&instance)?;
    target.noted(target.end().await)
}

async fn cut_short(instance: Instance) -> anyhow::Result<()> {
    let target = target(&instance)?;
    target.noted(target.cut_short().await)
}

async fn crush(instance: Instance) -> anyhow::Result<()> {
    let target = target(&instance)?;
    target.noted(target.crush())
}

async fn forget(instance: Instance) -> anyhow::Result<()> {
    instance.forget();
    Ok(())
}

fn target(instance: &Instance) -> anyhow::Result<Arc<Target>> {
    instance.data().ok_or_else(|| anyhow::anyhow!("the instance has no target"))
}

/// When the next start of one that is down is due.
pub(super) fn until_start(instance: &Instance) -> Option<Duration> {
    let ticks = instance.due().filter(|_| instance.state() == Ok(State::Down))?;
    Some(TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)))
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX)
}

/// How long to wait before the next start: nothing at first, then twice as long each time.
fn pause(visits: u32) -> u64 {
    visits.checked_sub(AT_ONCE + 1).map_or(1, doubled)
}

/// The first pause, or a longer one.
fn doubled(times: u32) -> u64 {
    let [first, longest] = PAUSES;
    ticks(first.saturating_mul(2_u32.saturating_pow(times)).min(longest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIMITS: Limits = Limits { start: Duration::from_secs(13), stop: Duration::from_secs(3), starts: 8 };

    #[test]
    fn the_table_of_the_original_still_holds() {
        use State::{Down, Error, Pending, Provisioning, Running, Stopping, Unknown};
        let machine = machine(LIMITS).unwrap();
        for (from, signal, to) in [
            (Unknown, Signal::Running, Running),
            (Unknown, Signal::Pending, Pending),
            (Unknown, Signal::Error, Error),
            (Unknown, Signal::Down, Down),
            (Pending, Signal::Running, Running),
            (Pending, Signal::Error, Error),
            (Pending, Signal::Down, Down),
            (Running, Signal::Pending, Pending),
            (Running, Signal::Error, Error),
            (Running, Signal::Down, Down),
            (Error, Signal::Running, Running),
            (Error, Signal::Down, Down),
            (Error, Signal::Kill, Stopping),
            (Down, Signal::Running, Running),
            (Down, Signal::Error, Error),
            (Down, Signal::Provision, Provisioning),
            (Provisioning, Signal::Running, Running),
            (Provisioning, Signal::Error, Error),
            (Stopping, Signal::Down, Down),
        ] {
            assert_eq!(machine.next(from, signal), Ok(to), "{from} on {signal}");
        }
        for (state, signal) in
            [(Provisioning, Signal::Down), (Stopping, Signal::Running), (Unknown, Signal::Kill)]
        {
            assert!(machine.next(state, signal).is_err(), "{state} on {signal}");
        }
    }

    #[test]
    fn the_picture_has_all_that_happens_by_itself() {
        let mermaid = diagram(LIMITS, Format::Mermaid).unwrap();
        for line in [
            "PROVISIONING --> DOWN: exited",
            "PROVISIONING --> STOPPING: kill after 13s / end",
            "STOPPING --> STOPPING: insist after 3s / crush",
            "STOPPING --> STUCK: crush fails",
            "STUCK --> STOPPING: kill after 500ms to 30s / end",
            "DOWN --> FAILED: give up on visit 9",
            "DOWN --> PROVISIONING: provision after 50ms to 30s / start",
            "ERROR --> STOPPING: error again / end",
            "ERROR --> STOPPING: hangs / cut short",
            "ERROR --> STOPPING: kill on trip 5 with RUNNING / end",
        ] {
            assert!(mermaid.contains(line), "{line} is not in {mermaid}");
        }
    }

    /// Where a target gets to by time and by these signals.
    fn reach(machine: &Machine, from: State, signals: &[Signal]) -> BTreeSet<State> {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(state) = left.pop() {
            if reached.insert(state) {
                let signals = signals.iter().copied().chain(machine.timeout(state));
                left.extend(signals.filter_map(|signal| machine.next(state, signal).ok()));
            }
        }
        reached
    }

    #[test]
    fn every_state_has_a_way_out_that_takes_nobody() {
        use State::{Down, Failed, Pending, Provisioning, Running, Stopping, Stuck, Waiting};
        let machine = machine(LIMITS).unwrap();
        for from in machine.states() {
            for (target, answers, to) in [
                ("well", [Signal::Running, Signal::Exited], Running),
                ("ill", [Signal::Error, Signal::Again], Stopping),
                ("hung", [Signal::Error, Signal::Hang], Stopping),
                ("gone", [Signal::Down, Signal::Exited], Provisioning),
            ] {
                let reached = reach(&machine, from, &answers);
                // It was given up.
                let is_left_alone = (from, target) == (Failed, "gone");
                assert_eq!(reached.contains(&to), !is_left_alone, "{from} where it is {target}: {reached:?}");
            }
        }
        // No word may come of it.
        for from in [Down, Waiting, Provisioning, Stopping, Stuck] {
            assert!(reach(&machine, from, &[]).contains(&Stopping), "{from}");
            assert!(machine.timeout(from).is_some(), "{from}");
        }
        // Who waits for others may do so for ever: to be started anew would not help them.
        assert_eq!(machine.timeout(Pending), None);
    }

    /// Instances of which nobody has a target: whatever they do fails.
    fn one(state: State) -> (Machines, Instance) {
        let machines = Machines::new(machine(LIMITS).unwrap());
        let instance = machines.add(state).unwrap();
        (machines, instance)
    }

    #[tokio::test]
    async fn who_recovers_by_itself_has_all_its_starts_again() {
        for recovered in [Signal::Running, Signal::Pending, Signal::Error] {
            let (_machines, instance) = one(State::Running);
            // Down, and down again, as often as it takes until it is given up.
            let give_up = async || {
                let mut visits = 0;
                while instance.state() != Ok(State::Failed) {
                    assert!(visits <= LIMITS.starts, "it is given up: {visits} visits");
                    for signal in [Signal::Running, Signal::Down] {
                        instance.signal(signal).unwrap();
                        instance.settled().await.unwrap();
                    }
                    visits += 1;
                }
                visits
            };
            assert_eq!(give_up().await, LIMITS.starts + 1);
            instance.signal(recovered).unwrap();
            assert_ne!(instance.settled().await, Ok(State::Failed));
            instance.signal(Signal::Down).unwrap();
            assert_eq!(instance.settled().await, Ok(State::Down), "{recovered}");
            assert_eq!(give_up().await, LIMITS.starts, "all but the one that was seen above: {recovered}");
        }
    }

    #[tokio::test]
    async fn who_cannot_be_brought_to_an_end_is_told_to_more_and_more_seldom() {
        let (machines, instance) = one(State::Error);
        instance.signal(Signal::Again).unwrap();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(instance.settled().await, Ok(State::Stuck));
            // It is asked, and not well: that is no news.
            instance.signal(Signal::Error).unwrap();
            let mut ticks = 0;
            while !instance.is_acting() {
                assert!(ticks < 601, "it is told again: {pauses:?}");
                machines.tick();
                ticks += 1;
            }
            pauses.push(ticks);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600]);
        for (signal, then) in [(Signal::Down, State::Down), (Signal::Running, State::Running)] {
            let (_machines, instance) = one(State::Stuck);
            instance.signal(signal).unwrap();
            assert_eq!(instance.state(), Ok(then));
        }
    }

    #[tokio::test]
    async fn it_is_known_when_the_next_start_is_due() {
        let (machines, instance) = one(State::Running);
        assert_eq!(until_start(&instance), None);
        for millis in [50, 50, 50, 500, 1000] {
            instance.signal(Signal::Down).unwrap();
            assert_eq!(until_start(&instance), Some(Duration::from_millis(millis)));
            instance.signal(Signal::Running).unwrap();
        }
        instance.signal(Signal::Down).unwrap();
        machines.tick();
        assert_eq!(until_start(&instance), Some(Duration::from_millis(1950)));
        instance.signal(Signal::Provision).unwrap();
        assert_eq!(until_start(&instance), None, "it is being started");
    }

    #[test]
    fn the_pause_doubles_up_to_a_bound() {
        let pauses: Vec<_> = (1..=10).map(|visit| u64::from(TICK.subsec_millis()) * pause(visit)).collect();
        assert_eq!(pauses, [50, 50, 50, 500, 1000, 2000, 4000, 8000, 16_000, 30_000]);
        assert_eq!(pause(u32::MAX), 600);
    }
}
