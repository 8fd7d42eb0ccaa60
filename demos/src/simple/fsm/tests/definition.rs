//! Definitions: what fits, what does not, and what they look like.

use std::time::Duration;

use super::{
    super::{Fault, Flap, Format, Machine, State, flap::Trips, machine::MachineBuilder, timers::Timers},
    Numbers, state,
};

const ON: u32 = 0;
const OFF: u32 = 1;
const SLEEP: u32 = 2;
const TURN_ON: u32 = 10;
const TURN_OFF: u32 = 11;

fn fault(states: impl IntoIterator<Item = State<u32, u32, ()>>) -> Fault {
    states.into_iter().fold(Machine::builder(), MachineBuilder::state).build().unwrap_err()
}

/// `TestBuild1`.
#[test]
fn every_target_must_exist() {
    let on = || state(ON).on(TURN_OFF, OFF);
    let off = || state(OFF).on(TURN_ON, ON).visits(5, TURN_ON);
    assert_eq!(fault([on()]), Fault::UnknownState("1".into()));
    let machine: Numbers =
        Machine::builder().state(on()).state(off()).flap(Flap::new(ON, OFF, 3)).build().unwrap();
    assert_eq!((machine.states.len(), machine.flaps.len()), (2, 1));
    assert_eq!(machine.states[&OFF].visits, Some((5, TURN_ON)));
    assert_eq!(machine.states[&ON].visits, None);
    for signal in [TURN_ON, TURN_OFF] {
        assert_eq!(machine.check(signal), Ok(()));
    }
    assert_eq!(machine.check(12), Err(Fault::UnknownSignal("12".into())));
}

/// `TestBuild2`.
#[test]
fn a_machine_knows_where_signals_lead() {
    let machine: Numbers = Machine::builder()
        .state(state(ON).on(TURN_OFF, SLEEP).act(TURN_OFF, "sleep", async |_| Ok(())))
        .state(state(OFF).on(TURN_ON, ON))
        .state(state(SLEEP).on(TURN_ON, ON))
        .build()
        .unwrap();
    assert_eq!(machine.next(ON, TURN_OFF), Ok(SLEEP));
    assert_eq!(machine.next(OFF, TURN_ON), Ok(ON));
    let refusal = machine.next(ON, TURN_ON).unwrap_err();
    assert_eq!(refusal.to_string(), "state 0 has no transition for signal 10");
}

#[test]
fn what_does_not_fit_is_named() {
    let missing = |state: u32, signal: u32| Fault::UnknownTransition {
        state: state.to_string(),
        signal: signal.to_string(),
    };
    assert_eq!(fault([state(0).on(9, 0), state(0)]), Fault::DuplicateState("0".into()));
    assert_eq!(fault([state(0), state(1)]), Fault::NoTransitions);
    assert_eq!(fault([state(0).on(9, 0).act(8, "x", async |_| Ok(()))]), missing(0, 8));
    assert_eq!(fault([state(0).on(9, 0).ttl(1, 8)]), missing(0, 8));
    assert_eq!(fault([state(0).on(9, 0).visits(1, 8)]), missing(0, 8));
    assert_eq!(fault([state(0).on(9, 0).on_error(8, 0)]), missing(0, 8));
    assert_eq!(fault([state(0).on(9, 0).on_error(9, 7)]), Fault::UnknownState("7".into()));
    let flap = |flap| Machine::builder().state(state(0).on(9, 0)).flap(flap).build().unwrap_err();
    assert_eq!(flap(Flap::new(0, 1, 3)), Fault::UnknownState("1".into()));
    assert_eq!(flap(Flap::new(0, 0, 3).raise(8)), missing(0, 8));
}

/// `TestUsage`.
#[test]
fn six_states_with_all_there_is() {
    let machine: Numbers = Machine::builder()
        .state(state(0).on(10, 1).ttl(5, 10))
        .state(state(1).on(11, 2).on(12, 3).act(11, "start", async |_| Ok(())))
        .state(state(2).on(12, 3).on(13, 2))
        .state(state(3).on(10, 1).on(14, 4).ttl(20, 14))
        .state(state(4).on(15, 5).act(15, "clean up", async |_| Ok(())))
        .state(state(5))
        .flap(Flap::new(2, 3, 10))
        .build()
        .unwrap();
    let machines = super::Machines::new(machine);
    assert_eq!(machines.add(0).unwrap().state(), Ok(0));
    assert_eq!(machines.add(6).unwrap_err(), Fault::UnknownState("6".into()));
    machines.close();
}

/// `TestFlap`.
#[test]
fn round_trips_are_counted_either_way() {
    const A: u32 = 0;
    const B: u32 = 1;
    const C: u32 = 2;
    let none = Trips::none();
    assert_eq!(none.between(A, B), 0);
    let steps = [(A, B), (B, A), (A, C), (A, B), (B, A), (A, B), (B, A)];
    let trips = steps.into_iter().fold(none, |trips, (from, to)| trips.and(from, to));
    assert_eq!((trips.between(A, B), trips.between(B, A)), (2, 2));
    let trips = trips.and(A, B).and(B, A);
    assert_eq!((trips.between(A, B), trips.between(B, A), trips.between(A, C)), (3, 3, 0));
}

/// `TestQueue`, `TestQueue2` and `TestFifo`.
#[test]
fn deadlines_come_in_order() {
    let mut timers = Timers::new();
    assert_eq!(timers.peek(), None);
    for (whose, deadline) in [("a", 5), ("b", 3), ("c", 1), ("d", 2), ("e", 4), ("f", 10), ("g", 7)] {
        timers.set(whose, deadline);
    }
    timers.set("f", 20);
    timers.set("h", 0);
    timers.cancel("g");
    timers.cancel("nobody");
    assert_eq!((timers.of("f"), timers.of("g")), (Some(20), None));
    assert_eq!(timers.due(0), Some("h"));
    assert_eq!(timers.due(0), None, "the time of the next has not come");
    let mut order = Vec::new();
    while let Some(first) = timers.peek() {
        order.push(first);
        assert_eq!(timers.due(u64::MAX), Some(first.1));
    }
    assert_eq!(order, [(1, "c"), (2, "d"), (3, "b"), (4, "e"), (5, "a"), (20, "f")]);
    assert_eq!((timers.len(), timers.due(u64::MAX)), (0, None));

    let mut timers = Timers::new();
    (0..100).for_each(|n| timers.set(n, 7));
    let order: Vec<_> = std::iter::from_fn(|| timers.due(7)).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_machine_can_be_drawn() {
    let machine: Numbers = Machine::builder()
        .state(state(0).named("DOWN").on(10, 1).on_error(10, 0).ttl(5, 10).act(10, "start", async |_| Ok(())))
        .state(state(1).named("UP").on(11, 0).visits(3, 11))
        .signal_name(10, "provision")
        .signal_name(11, "down")
        .flap(Flap::new(0, 1, 4).raise(11))
        .build()
        .unwrap();
    assert_eq!(
        machine.diagram(0, Duration::from_secs(2), Format::Mermaid),
        "stateDiagram-v2\n    [*] --> DOWN\n    DOWN --> DOWN: start fails\n    \
         DOWN --> UP: provision after 10s / start\n    UP --> DOWN: down on visit 3 on trip 4 with DOWN\n"
    );
    let dot = machine.diagram(0, Duration::from_secs(2), Format::Dot);
    for line in [
        "digraph machine {",
        r#"    start -> "DOWN""#,
        r#"    "DOWN" -> "DOWN" [label="start fails", style=dashed]"#,
        r#"    "DOWN" -> "UP" [label="provision after 10s / start"]"#,
        "}",
    ] {
        assert!(dot.lines().any(|each| each == line), "{line} is not in {dot}");
    }
}
