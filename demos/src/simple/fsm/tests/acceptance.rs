//! The tests of the original, one by one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time;

use super::{
    super::{Clock, Fault, Flap, Machine, Machines},
    Numbers, one, soon, state,
};

/// `TestSetDeadlineTransition`.
#[test]
fn a_hundred_wait_for_their_time() {
    let [waiting, running, start] = [0, 1, 10];
    let machine: Numbers =
        Machine::builder().state(state(0).on(start, running).ttl(5, start)).state(state(1)).build().unwrap();
    let machines = Machines::new(machine);
    let all: Vec<_> = (0..100).map(|_| machines.add(waiting).unwrap()).collect();
    let stand = || (machines.count(waiting), machines.count(running), machines.timed());
    assert_eq!(stand(), (100, 0, 100));
    machines.tick();
    assert_eq!(stand(), (100, 0, 100));
    machines.tick();
    for instance in &all[..10] {
        instance.signal(start).unwrap();
    }
    for _ in 2..5 {
        assert_eq!(stand(), (90, 10, 90));
        machines.tick();
    }
    assert_eq!(stand(), (0, 100, 0));
    machines.tick();
    assert_eq!(stand(), (0, 100, 0));
}

/// `TestSetFlapping`.
#[test]
fn who_goes_to_and_fro_too_often_is_cordoned() {
    let [boot, running, down, cordoned] = [0, 1, 2, 3];
    let [start, ping, timeout, cordon] = [10, 11, 12, 13];
    let machine: Numbers = Machine::builder()
        .state(state(boot).on(start, running).ttl(3, start))
        .state(state(running).on(timeout, down))
        .state(state(down).on(ping, running).on(cordon, cordoned))
        .state(state(cordoned))
        .flap(Flap::new(running, down, 3).raise(cordon))
        .build()
        .unwrap();
    let (machines, instance) = one(machine);
    let mut clock = Clock::manual(&machines);
    clock.start();
    clock.ticks(3);
    assert_eq!(instance.state(), Ok(running));
    for round in 1..=3 {
        assert!(instance.can_receive(timeout));
        instance.signal(timeout).unwrap();
        assert_eq!(instance.state(), Ok(down));
        assert!(!instance.can_receive(timeout));
        instance.signal(timeout).unwrap();
        instance.signal(ping).unwrap();
        assert_eq!(instance.state(), Ok(if round < 3 { running } else { cordoned }));
        assert_eq!(instance.trips(down, running), round);
    }
    assert_eq!((machines.count(running), machines.count(cordoned)), (0, 1));
}

/// `TestMaxVisits`.
#[test]
fn a_visit_too_many_raises_a_signal() {
    let [up, down, unavailable] = [0, 1, 2];
    let [start_up, shut_down, give_up] = [10, 2, 12];
    let machine: Numbers = Machine::builder()
        .state(state(up).named("UP").on(shut_down, down))
        .state(state(down).on(start_up, up).on(give_up, unavailable).visits(2, give_up))
        .state(state(unavailable))
        .signal_name(start_up, "start_up")
        .build()
        .unwrap();
    assert_eq!(
        (machine.signal_name(start_up), machine.signal_name(shut_down)),
        ("start_up".into(), "2".into())
    );
    assert_eq!((machine.state_name(up), machine.state_name(unavailable)), ("UP".into(), "2".into()));
    let (_machines, instance) = one(machine);
    for (signal, then) in [(shut_down, down), (start_up, up), (shut_down, unavailable)] {
        instance.signal(signal).unwrap();
        assert_eq!(instance.state(), Ok(then));
    }
}

/// `TestActionErrors`.
#[tokio::test]
async fn an_action_that_fails_goes_where_the_rule_says() {
    let [down, up, retrying, unavailable, start_up, give_up] = [0, 1, 2, 3, 10, 11];
    let machine: Numbers = Machine::builder()
        .state(
            state(down)
                .on(start_up, up)
                .on_error(start_up, retrying)
                .act(start_up, "start", async |_| anyhow::bail!("no power")),
        )
        .state(state(up))
        .state(
            state(retrying)
                .on(start_up, up)
                .on(give_up, unavailable)
                .on_error(start_up, retrying)
                .act(start_up, "restart", async |_| anyhow::bail!("still no power"))
                .visits(2, give_up),
        )
        .state(state(unavailable))
        .build()
        .unwrap();
    let (_machines, instance) = one(machine);
    for (then, why) in [(retrying, "start: no power"), (unavailable, "restart: still no power")] {
        instance.signal(start_up).unwrap();
        assert_eq!(soon(instance.settled()).await, Ok(then));
        assert_eq!(instance.last_error().as_deref(), Some(why));
    }
}

/// `TestBuild2`, at run time: the action comes first, and knows the instance.
#[tokio::test]
async fn an_action_runs_before_the_state_changes() {
    let seen = Arc::new(AtomicU32::new(99));
    let machine: Machine<u32, u32, u32> = Machine::builder()
        .state(super::super::State::new(0).on(10, 1).act(10, "look", {
            let seen = seen.clone();
            move |instance| {
                let seen = seen.clone();
                async move {
                    let known = instance.state()? + instance.data().unwrap_or_default();
                    seen.store(known, Ordering::Relaxed);
                    Ok(())
                }
            }
        }))
        .state(super::super::State::new(1))
        .build()
        .unwrap();
    let machines = Machines::new(machine);
    let instance = machines.add(0).unwrap();
    instance.signal_with(10, 7).unwrap();
    soon(instance.wait_for(1)).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 7, "state 0, and the data of the signal");
    instance.signal_with(10, 8).unwrap();
    assert_eq!(instance.data(), Some(7), "a signal that is dropped leaves nothing");
    assert_eq!(instance.signal(11), Err(Fault::UnknownSignal("11".into())));
}

/// A machine that counts ticks: each one moves it.
fn counter() -> (Machines<u32, u32, ()>, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let machine: Numbers = Machine::builder()
        .state(state(0).on(10, 0).ttl_by(
            move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                1
            },
            10,
        ))
        .build()
        .unwrap();
    let (machines, _) = one(machine);
    count.store(0, Ordering::Relaxed);
    (machines, count)
}

/// `TestClock`.
#[test]
fn a_clock_is_started_and_stopped_as_often_as_one_likes() {
    let (machines, count) = counter();
    let mut clock = Clock::manual(&machines);
    clock.tick();
    assert_eq!(count.load(Ordering::Relaxed), 0, "not before the start");
    clock.start();
    clock.start();
    clock.ticks(3);
    clock.stop();
    clock.stop();
    clock.tick();
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

/// `TestWallClock` and `TestWallClock2`.
#[tokio::test(start_paused = true)]
async fn a_second_is_ten_ticks_of_a_hundred_milliseconds() {
    let (machines, count) = counter();
    let mut clock = Clock::wall(&machines, Duration::from_millis(100));
    clock.start();
    clock.start();
    time::sleep(Duration::from_millis(1050)).await;
    clock.stop();
    time::sleep(Duration::from_secs(10)).await;
    assert_eq!(count.load(Ordering::Relaxed), 10);
}

/// Not in the original: a process that is stopped for a while, and goes on.
#[tokio::test(start_paused = true)]
async fn a_pause_is_one_tick() {
    let (machines, count) = counter();
    let mut clock = Clock::wall(&machines, Duration::from_millis(50));
    clock.start();
    time::sleep(Duration::from_millis(125)).await;
    assert_eq!(count.load(Ordering::Relaxed), 2);
    time::advance(Duration::from_secs(15)).await;
    tokio::task::yield_now().await;
    assert_eq!(count.load(Ordering::Relaxed), 3);
    for (millis, ticks) in [(49, 3), (2, 4), (500, 14)] {
        time::sleep(Duration::from_millis(millis)).await;
        assert_eq!(count.load(Ordering::Relaxed), ticks, "{millis} ms later");
    }
}
