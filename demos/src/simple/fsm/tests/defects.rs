//! What the original gets wrong, by its number in the list.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time;

use super::{
    super::{Clock, Fault, Machine, Machines, State},
    Numbers, one, soon, state,
};

/// Waits in 0, and goes to 1 when it is time.
fn timed(ticks: u64) -> Numbers {
    Machine::builder().state(state(0).on(10, 1).on(11, 0).ttl(ticks, 10)).state(state(1)).build().unwrap()
}

/// Whose action never ends.
fn hanging() -> Numbers {
    Machine::builder()
        .state(state(0).on(10, 1).on(11, 2).act(10, "hang", async |_| std::future::pending().await))
        .state(state(1))
        .state(state(2))
        .build()
        .unwrap()
}

/// 1: there is no queue that 256 time-outs at once could fill.
#[tokio::test]
async fn a_hundred_thousand_expire_on_one_tick() {
    let machines = Machines::new(timed(5));
    for _ in 0..100_000 {
        machines.add(0).unwrap();
    }
    assert_eq!(machines.timed(), 100_000);
    (0..4).for_each(|_| machines.tick());
    assert_eq!(machines.count(0), 100_000);
    machines.tick();
    assert_eq!((machines.count(1), machines.timed()), (100_000, 0));
}

/// 1 again, where each of them has something to do.
#[tokio::test]
async fn a_hundred_thousand_act_on_one_tick() {
    let acts = state(0).on(10, 1).ttl(1, 10).act(10, "act", async |_| Ok(()));
    let machines = Machines::new(Machine::builder().state(acts).state(state(1)).build().unwrap());
    let all: Vec<_> = (0..100_000).map(|_| machines.add(0).unwrap()).collect();
    machines.tick();
    for instance in all {
        assert_eq!(soon(instance.settled()).await, Ok(1));
    }
}

/// 2: whoever is at the head of the queue may start anew.
#[test]
fn a_timer_that_starts_anew_holds_up_no_other() {
    let machine: Numbers = Machine::builder()
        .state(state(0).on(10, 1).on(11, 0).ttl_by(|visits| if visits == 1 { 3 } else { 50 }, 10))
        .state(state(1))
        .state(state(2).on(10, 1).ttl(5, 10))
        .build()
        .unwrap();
    let machines = Machines::new(machine);
    let (first, other) = (machines.add(0).unwrap(), machines.add(2).unwrap());
    machines.tick();
    first.signal(11).unwrap();
    (2..5).for_each(|_| machines.tick());
    assert_eq!(other.state(), Ok(2));
    machines.tick();
    assert_eq!((other.state(), first.state()), (Ok(1), Ok(0)));
    (6..51).for_each(|_| machines.tick());
    assert_eq!(first.state(), Ok(0));
    machines.tick();
    assert_eq!(first.state(), Ok(1));
}

/// 3: the state that an instance begins in is visited once by that.
#[test]
fn the_first_visit_counts_once() {
    let machine: Numbers =
        Machine::builder().state(state(0).on(10, 0).on(11, 1).visits(3, 11)).state(state(1)).build().unwrap();
    let (_machines, instance) = one(machine);
    for then in [0, 1] {
        instance.signal(10).unwrap();
        assert_eq!(instance.state(), Ok(then));
    }
}

/// 4: after the end everything returns.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_has_ended() {
    let (machines, instance) = one(hanging());
    let other = machines.add(0).unwrap();
    instance.signal(10).unwrap();
    let waiting = tokio::spawn({
        let instance = instance.clone();
        async move { (instance.settled().await, instance.wait_for(1).await) }
    });
    tokio::task::yield_now().await;
    machines.close();
    assert_eq!(soon(waiting).await.unwrap(), (Err(Fault::Closed), Err(Fault::Closed)));
    for instance in [instance, other] {
        assert_eq!((instance.state(), instance.signal(10)), (Err(Fault::Closed), Err(Fault::Closed)));
        assert_eq!((instance.can_receive(10), instance.is_acting(), instance.data()), (false, false, None));
        instance.remove();
    }
    assert_eq!(machines.add(0).unwrap_err(), Fault::Closed);
    machines.tick();
}

/// 4 again: an action may ask its instance, and signal it.
#[tokio::test(start_paused = true)]
async fn an_action_may_use_its_instance() {
    let acts = state(0).on(10, 1).act(10, "look", async |instance: super::Instance<_, _, _>| {
        assert_eq!((instance.state()?, instance.is_acting()), (0, true));
        instance.signal(11)?;
        Ok(())
    });
    let machine = Machine::builder().state(acts).state(state(1).on(11, 2)).state(state(2)).build().unwrap();
    let (_machines, instance) = one(machine);
    instance.signal(10).unwrap();
    assert_eq!(soon(instance.settled()).await, Ok(2), "its signal came behind the transition");
}

/// 5: without a clock there is no time.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_stopped_stands_still() {
    let (machines, instance) = one(timed(20));
    let mut clock = Clock::wall(&machines, Duration::from_millis(100));
    clock.start();
    time::sleep(Duration::from_millis(1050)).await;
    clock.stop();
    time::sleep(Duration::from_secs(1_000_000)).await;
    assert_eq!(instance.state(), Ok(0));
    clock.start();
    time::sleep(Duration::from_millis(950)).await;
    assert_eq!(instance.state(), Ok(0), "nothing is made up for");
    time::sleep(Duration::from_millis(150)).await;
    assert_eq!(instance.state(), Ok(1));
}

/// 6: instances can be removed, from wherever one likes, and leave nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_come_and_go_from_many_threads() {
    let machines = Arc::new(Machines::new(timed(5)));
    let tasks = (0..8).map(|_| {
        let machines = machines.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..500 {
                let instance = machines.add(0).unwrap();
                instance.signal(11).unwrap();
                machines.tick();
                instance.remove();
                let id = instance.id();
                assert_eq!(instance.state(), Err(Fault::UnknownInstance(id)));
                instance.remove();
                ids.push(id);
            }
            ids
        })
    });
    let mut ids: Vec<_> =
        futures_util::future::join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4000, "no number is given twice");
    assert_eq!((machines.count(0), machines.count(1), machines.timed()), (0, 0, 0));
}

/// 6 again: what an instance does ends with it.
#[tokio::test(start_paused = true)]
async fn an_action_ends_with_its_instance_or_with_all() {
    let alive = Arc::new(());
    let held = alive.clone();
    let acts = state(0).on(10, 1).act(10, "hang", move |_| {
        let held = held.clone();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        }
    });
    let machines = Machines::new(Machine::builder().state(acts).state(state(1)).build().unwrap());
    let all = [machines.add(0).unwrap(), machines.add(0).unwrap()];
    for instance in &all {
        instance.signal(10).unwrap();
    }
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&alive), 4);
    all[0].remove();
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&alive), 3);
    drop((machines, all));
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&alive), 1, "nothing of them is left");
}

/// 7: who hangs keeps nobody else.
#[tokio::test(start_paused = true)]
async fn an_action_that_hangs_keeps_only_its_own_instance() {
    let (machines, stuck) = one(hanging());
    let other = machines.add(0).unwrap();
    stuck.signal(10).unwrap();
    tokio::task::yield_now().await;
    stuck.signal(11).unwrap();
    other.signal(11).unwrap();
    machines.tick();
    assert_eq!((stuck.state(), stuck.is_acting(), other.state()), (Ok(0), true, Ok(2)));
}

/// 8: what fails has not happened.
#[tokio::test(start_paused = true)]
async fn an_action_that_fails_moves_nothing_without_a_rule() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let acts = state(0).on(10, 1).ttl(3, 10).act(10, "open", move |_| {
        let tries = counted.clone();
        async move {
            match tries.fetch_add(1, Ordering::Relaxed) + 1 {
                1 => anyhow::bail!("locked"),
                2 => panic!("a test panics"),
                _ => Ok(()),
            }
        }
    });
    let (machines, instance) = one(Machine::builder().state(acts).state(state(1)).build().unwrap());
    for error in ["open: locked", "open: it panicked"] {
        for left in [3, 2, 1] {
            assert_eq!(instance.due(), Some(left));
            machines.tick();
        }
        assert_eq!(instance.due(), None, "it acts");
        assert_eq!(soon(instance.settled()).await, Ok(0));
        assert_eq!(instance.last_error().as_deref(), Some(error));
    }
    (0..2).for_each(|_| machines.tick());
    assert_eq!(soon(instance.settled()).await, Ok(0), "its time began anew");
    machines.tick();
    assert_eq!(soon(instance.settled()).await, Ok(1));
    assert_eq!((tries.load(Ordering::Relaxed), machines.timed()), (3, 0));
}

/// Signals of an instance keep their order, also behind an action.
#[tokio::test(start_paused = true)]
async fn signals_keep_their_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let machine: Machine<u32, u32, u32> = Machine::builder()
        .state(State::new(0).on(10, 0).act(10, "note", move |instance| {
            let seen = seen.clone();
            async move {
                let data = instance.data().unwrap_or_default();
                time::sleep(Duration::from_millis(u64::from(data * 7 % 5))).await;
                seen.lock().unwrap().push(data);
                Ok(())
            }
        }))
        .build()
        .unwrap();
    let machines = Machines::new(machine);
    let instance = machines.add(0).unwrap();
    (0..100).for_each(|n| instance.signal_with(10, n).unwrap());
    soon(instance.settled()).await.unwrap();
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

/// Who has been calm for long enough begins anew.
#[test]
fn what_is_forgotten_does_not_count() {
    let machine: Numbers =
        Machine::builder().state(state(0).on(10, 0).on(11, 1).visits(3, 11)).state(state(1)).build().unwrap();
    let (_machines, instance) = one(machine);
    instance.signal(10).unwrap();
    instance.forget();
    for then in [0, 0, 1] {
        instance.signal(10).unwrap();
        assert_eq!(instance.state(), Ok(then));
    }
}
