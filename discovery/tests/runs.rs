//! Runs under paused time: whatever happens to those who complete them, exactly one moves the machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::time::Duration;

use discovery::{
    Discovery, ErrorKind, ServiceName,
    kv::{Key, Range},
    layer::{Fault, Odds},
    mem::Mem,
    recipe::{Completed, Plan, Run, Runs, Table},
};
use futures_util::{StreamExt, TryStreamExt, future::join_all};
use proptest::prelude::*;
use tokio::time;

fn name() -> ServiceName {
    "batch".parse().unwrap()
}

fn table() -> Table {
    Table::new("init")
        .step("init", "running")
        .step("running", "ready")
        .step("ready", "running")
        .step("ready", "done")
        .exit("aborted")
        .exit("timed out")
}

fn runs(mem: &Mem) -> Runs {
    Discovery::new(mem.clone()).runs(&name()).unwrap()
}

async fn run(mem: &Mem, tasks: &[&str]) -> Run {
    runs(mem).create("one", &table(), tasks.iter().copied()).await.unwrap()
}

async fn keys(mem: &Mem) -> Vec<String> {
    let kv = Discovery::new(mem.clone()).kv().unwrap();
    let scan = kv.scan(&Range::Subtree(Key::root())).await.unwrap();
    scan.entries.iter().map(|entry| entry.key.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_last_one_moves_the_machine() {
    let run = run(&Mem::new(), &["node1/1", "node1/2", "node1/4", "node2/2"]).await;
    for task in ["node1/1", "node1/2", "node1/4"] {
        assert_eq!(run.complete(task, "init", "running").await.unwrap(), Completed::Counted);
    }
    let missing = run.complete("node2/1", "init", "running").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(run.complete("node1/1", "init", "running").await.unwrap(), Completed::Already);
    assert_eq!(run.missing().await.unwrap(), ["node2/2"]);
    assert_eq!(run.complete("node2/2", "init", "running").await.unwrap(), Completed::Moved);
    assert_eq!(run.complete("node2/2", "init", "running").await.unwrap(), Completed::Already);
    let late = run.complete("node2/2", "ready", "running").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    assert!(late.to_string().contains(r#"in state "running", not in "ready""#), "{late}");
    let status = run.status().await.unwrap();
    assert_eq!((&*status.state, status.round), ("running", 2));
    assert_eq!((&*status.moves[0].from, &*status.moves[0].cause), ("init", "node2/2"));
    assert_eq!(run.missing().await.unwrap().len(), 4, "nothing is done in the new state");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_the_table_does_not_allow_is_refused() {
    let run = run(&Mem::new(), &["a"]).await;
    assert_eq!(run.complete("a", "init", "done").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(run.status().await.unwrap().state, "init");
}

#[tokio::test(start_paused = true)]
async fn where_there_is_a_choice_the_first_one_decides() {
    let run = run(&Mem::new(), &["a", "b"]).await;
    for (from, to) in [("init", "running"), ("running", "ready")] {
        for task in ["a", "b"] {
            run.complete(task, from, to).await.unwrap();
        }
    }
    run.complete("a", "ready", "done").await.unwrap();
    assert_eq!(run.status().await.unwrap().heading.as_deref(), Some("done"));
    assert_eq!(run.complete("b", "ready", "running").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(run.complete("b", "ready", "done").await.unwrap(), Completed::Moved);
    assert!(run.status().await.unwrap().is_over);
}

#[tokio::test(start_paused = true)]
async fn tasks_come_and_go_while_it_runs() {
    let mem = Mem::new();
    let run = run(&mem, &["a", "b"]).await;
    run.complete("a", "init", "running").await.unwrap();
    assert!(run.add("c").await.unwrap());
    assert!(!run.add("c").await.unwrap());
    assert_eq!(run.complete("b", "init", "running").await.unwrap(), Completed::Counted);
    assert_eq!(run.remove("c").await.unwrap(), Some(Completed::Moved), "all others were done");
    assert_eq!(run.remove("c").await.unwrap(), None);
    assert_eq!(run.status().await.unwrap().state, "running");
    // A task that was done counts no more when it comes again.
    run.complete("a", "running", "ready").await.unwrap();
    run.remove("a").await.unwrap();
    run.add("a").await.unwrap();
    assert_eq!(run.missing().await.unwrap(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_tasks_waits_for_some() {
    let run = run(&Mem::new(), &["a"]).await;
    assert_eq!(run.remove("a").await.unwrap(), Some(Completed::Counted));
    assert_eq!(run.status().await.unwrap().state, "init");
    run.add("b").await.unwrap();
    assert_eq!(run.complete("b", "init", "running").await.unwrap(), Completed::Moved);
}

#[tokio::test(start_paused = true)]
async fn it_is_aborted_once_and_for_all() {
    let run = run(&Mem::new(), &["a"]).await;
    assert_eq!(run.force("running", "because").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(run.force("aborted", "because").await.unwrap().moves[0].cause, "because");
    assert_eq!(run.force("aborted", "again").await.unwrap().round, 2);
    assert_eq!(run.force("timed out", "late").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(run.add("b").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(run.complete("a", "aborted", "init").await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_round_that_takes_too_long_is_ended_by_whoever_supervises() {
    let mem = Mem::new();
    let run = run(&mem, &["a"]).await;
    run.limit(Duration::from_secs(30), "timed out").await.unwrap();
    let supervisors: Vec<_> = (0..3)
        .map(|_| {
            let run = runs(&mem).run("one").unwrap();
            tokio::spawn(async move { run.supervise().await })
        })
        .collect();
    time::sleep(Duration::from_secs(20)).await;
    run.complete("a", "init", "running").await.unwrap();
    time::sleep(Duration::from_secs(29)).await;
    assert_eq!(run.status().await.unwrap().state, "running", "a new round, a new limit");
    time::sleep(Duration::from_secs(2)).await;
    let status = run.status().await.unwrap();
    assert_eq!((&*status.state, status.round, status.is_over), ("timed out", 3, true));
    for supervisor in supervisors {
        supervisor.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_run_leaves_nothing_and_can_be_created_anew() {
    let mem = Mem::new();
    let tasks: Vec<_> = (0..3000).map(|n| format!("node{}/{n}", n % 7)).collect();
    for _ in 0..2 {
        let run = runs(&mem).create("one", &table(), tasks.clone()).await.unwrap();
        let kv = Discovery::new(mem.clone()).kv().unwrap();
        for n in 0..200 {
            let key = run.data_key(&n.to_string()).unwrap();
            kv.commit(discovery::kv::Txn::new().put(&key, "1")).await.unwrap();
        }
        let twice = runs(&mem).create("one", &table(), ["a"]).await.unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Conflict);
        assert_eq!(runs(&mem).list().await.unwrap().keys().collect::<Vec<_>>(), ["one"]);
        assert!(run.delete().await.unwrap());
        assert!(!run.delete().await.unwrap());
        assert_eq!(keys(&mem).await, [""; 0]);
        assert_eq!(run.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_broken_off_is_ended_by_the_next_one() {
    let mem = Mem::new();
    let fault = Fault::new();
    let tasks: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    for ended_by_creation in [true, false] {
        let run = runs(&mem).create("one", &table(), tasks.clone()).await.unwrap();
        let broken =
            Discovery::new(mem.clone()).layer(fault.clone()).runs(&name()).unwrap().run("one").unwrap();
        fault.delay(Duration::from_secs(1));
        // The reading, the mark, and then it ends.
        let _ = time::timeout(Duration::from_millis(3500), broken.delete()).await;
        fault.calm();
        assert!(runs(&mem).list().await.unwrap().is_empty(), "nobody sees it any more");
        assert_ne!(keys(&mem).await, [""; 0]);
        if ended_by_creation {
            runs(&mem).create("one", &table(), ["a"]).await.unwrap();
            assert_eq!(run.missing().await.unwrap(), ["a"]);
        }
        run.delete().await.unwrap();
        assert_eq!(keys(&mem).await, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_was_broken_off_is_seen_by_nobody_and_in_nobodys_way() {
    let mem = Mem::new();
    let fault = Fault::new();
    let tasks: Vec<_> = (0..8000).map(|n| format!("node/{n}")).collect();
    let broken = Discovery::new(mem.clone()).layer(fault.clone()).runs(&name()).unwrap();
    fault.delay(Duration::from_secs(1));
    // The hidden record, one step or two, and then it ends.
    let ended =
        time::timeout(Duration::from_millis(2500), broken.create("one", &table(), tasks.clone())).await;
    assert!(ended.is_err());
    assert_ne!(keys(&mem).await, [""; 0]);
    assert!(runs(&mem).list().await.unwrap().is_empty());
    let run = runs(&mem).run("one").unwrap();
    assert_eq!(run.status().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(run.complete("node/1", "init", "running").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(run.statuses().next().await.is_none());
    assert!(run.watch().next().await.is_none());
    runs(&mem).create("one", &table(), ["a"]).await.unwrap();
    assert_eq!(run.missing().await.unwrap(), ["a"]);
    run.delete().await.unwrap();
    assert_eq!(keys(&mem).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn of_many_who_create_a_long_run_one_does_and_it_is_whole() {
    let mem = Mem::new();
    let tasks: Vec<_> = (0..8000).map(|n| format!("node/{n}")).collect();
    for round in 0..10 {
        let creations = (0..4).map(|_| {
            let (runs, tasks) = (runs(&mem), tasks.clone());
            async move { runs.create("one", &table(), tasks).await }
        });
        let created = join_all(creations).await;
        let won = created.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {created:#?}");
        for error in created.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
        let run = runs(&mem).run("one").unwrap();
        assert_eq!(run.missing().await.unwrap().len(), tasks.len());
        run.delete().await.unwrap();
        assert_eq!(keys(&mem).await, [""; 0]);
    }
}

/// Each takes the others for dead, as nothing happens for longer than anybody waits.
#[tokio::test(start_paused = true)]
async fn creators_and_deleters_that_are_very_slow_leave_a_whole_run_or_none() {
    const PARTS: usize = 5;
    let parts = (0..PARTS).map(|n| (n.to_string(), "x".repeat(30 * 1024)));
    let plan = Plan::new(&table(), ["a"]).unwrap();
    let plan = parts.fold(plan, |plan, (below, value)| plan.data(&below, value).unwrap());
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mem = Mem::new();
        let mut lives = tokio::task::JoinSet::new();
        for slowness in [8000, 1000, 1000] {
            let fault = Fault::new();
            fault.delay(Duration::from_millis(random.u64(slowness / 2..slowness)));
            fault.lose_replies(random.usize(..3));
            let runs = Discovery::new(mem.clone()).layer(fault.clone()).runs(&name()).unwrap();
            let (plan, deletes, late) =
                (plan.clone(), random.u8(..4) == 0, Duration::from_millis(random.u64(..20_000)));
            lives.spawn(async move {
                time::sleep(late).await;
                if deletes {
                    runs.run("one").unwrap().delete().await.map(drop)
                } else {
                    runs.create_as("one", plan).await.map(drop)
                }
            });
        }
        for outcome in lives.join_all().await {
            let is_refused = |error: &discovery::Error| error.kind() == ErrorKind::Conflict;
            assert!(outcome.as_ref().err().is_none_or(is_refused), "seed {seed}: {outcome:?}");
        }
        let run = runs(&mem).run("one").unwrap();
        match run.missing().await {
            Ok(missing) => {
                let data = Range::Children(run.data_key("0").unwrap().parent());
                let kv = Discovery::new(mem.clone()).kv().unwrap();
                assert_eq!(missing, ["a"]);
                assert_eq!(kv.scan(&data).await.unwrap().entries.len(), PARTS, "seed {seed}");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "seed {seed}: {error}"),
        }
        run.delete().await.unwrap();
        assert_eq!(keys(&mem).await, [""; 0], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_is_refused_half_way_leaves_nothing() {
    let mem = Mem::new();
    let plan = Plan::new(&table(), (0..8000).map(|n| n.to_string())).unwrap();
    let plan = plan.data("p", vec![b'x'; 8 << 20]).unwrap();
    let refused = runs(&mem).create_as("one", plan).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert_eq!(keys(&mem).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_can_be_deleted() {
    let mem = Mem::new();
    mem.plant(&"_runs/batch/one".parse().unwrap(), "{");
    mem.plant(&"_runs/batch/one/tasks/0".parse().unwrap(), "{");
    let again = runs(&mem).create("one", &table(), ["a"]).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Corrupt);
    assert!(runs(&mem).run("one").unwrap().delete().await.unwrap());
    assert_eq!(keys(&mem).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn who_adds_or_removes_and_gets_no_answer_is_told_that_it_was_done() {
    let mem = Mem::new();
    run(&mem, &["a", "b"]).await;
    let fault = Fault::new();
    let run = Discovery::new(mem.clone()).layer(fault.clone()).runs(&name()).unwrap().run("one").unwrap();
    for task in ["b", "a"] {
        fault.lose_replies(1);
        assert!(run.add(&format!("{task}2")).await.unwrap());
        fault.lose_replies(1);
        assert_eq!(run.remove(task).await.unwrap(), Some(Completed::Counted));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_plan_has_is_there_with_the_run() {
    let mem = Mem::new();
    let mut plan = Plan::new(&table(), ["a"]).unwrap().limit(Duration::from_secs(30), "timed out").unwrap();
    for n in 0..500 {
        plan = plan.data(&format!("p/{n}"), "x".repeat(1000)).unwrap();
    }
    assert_eq!(plan.clone().data("/", "1").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(plan.clone().limit(Duration::ZERO, "done").unwrap_err().kind(), ErrorKind::Invalid);
    let mut list = runs(&mem).watch();
    assert!(list.next().await.unwrap().unwrap().is_empty());
    let kv = Discovery::new(mem.clone()).kv().unwrap();
    let run = tokio::spawn({
        let runs = runs(&mem);
        async move { runs.create_as("one", plan).await }
    });
    assert_eq!(list.next().await.unwrap().unwrap().len(), 1);
    let run = run.await.unwrap().unwrap();
    let scan = kv.scan(&Range::Children(run.data_key("p").unwrap())).await.unwrap();
    assert_eq!(scan.entries.len(), 500);
    run.supervise().await.unwrap();
    assert_eq!(run.status().await.unwrap().state, "timed out");
}

/// A new life may be seen without the end of the old one.
#[tokio::test(start_paused = true)]
async fn a_follower_of_a_run_that_was_deleted_and_created_anew_is_told_of_the_end() {
    let mem = Mem::new();
    let run = run(&mem, &["a", "b"]).await;
    let (mut statuses, mut pictures) = (run.statuses(), run.watch());
    let before = statuses.next().await.unwrap().unwrap();
    pictures.next().await.unwrap().unwrap();
    let fault = Fault::new();
    let distant = Discovery::new(mem.clone()).layer(fault.clone()).runs(&name()).unwrap().run("one").unwrap();
    let (mut late, mut late_pictures) = (distant.statuses(), distant.watch());
    late.next().await.unwrap().unwrap();
    late_pictures.next().await.unwrap().unwrap();
    fault.partition();
    run.delete().await.unwrap();
    let after = runs(&mem).create("one", &table(), ["a", "b"]).await.unwrap().status().await.unwrap();
    assert!(after.version > before.version && after.round == before.round);
    fault.heal();
    assert!(statuses.next().await.is_none() && pictures.next().await.is_none());
    assert!(late.next().await.is_none() && late_pictures.next().await.is_none());
}

/// Who creates, completes and deletes at the same time is told that there is such a run, or none; never that it is broken.
#[tokio::test(start_paused = true)]
async fn a_run_that_comes_and_goes_is_never_taken_for_broken() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mem = Mem::new();
        let mut lives = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let mut random = random.fork();
            let fault = Fault::new();
            fault.delay(Duration::from_micros(random.u64(..900)));
            let runs = Discovery::new(mem.clone()).layer(fault).runs(&name()).unwrap();
            lives.spawn(async move {
                let run = runs.run("one").unwrap();
                for _ in 0..10 {
                    let outcome = match random.u8(..6) {
                        0 | 1 => {
                            let tasks = (0..random.usize(1..200)).map(|n| n.to_string());
                            runs.create("one", &table(), tasks).await.map(drop)
                        }
                        2 => run.delete().await.map(drop),
                        3 => run.complete(&random.u8(..200).to_string(), "init", "running").await.map(drop),
                        4 => run.picture().await.map(drop),
                        _ => run.remove(&random.u8(..200).to_string()).await.map(drop),
                    };
                    if let Err(error) = outcome {
                        assert!(
                            matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound),
                            "seed {seed}: {error}"
                        );
                    }
                }
            });
        }
        lives.join_all().await;
        runs(&mem).run("one").unwrap().delete().await.unwrap();
        assert_eq!(keys(&mem).await, [""; 0], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn followers_see_it_move_and_end() {
    let mem = Mem::new();
    let run = run(&mem, &["a", "b"]).await;
    let mut statuses = run.statuses();
    let mut pictures = run.watch();
    assert_eq!(statuses.next().await.unwrap().unwrap().state, "init");
    assert_eq!(pictures.next().await.unwrap().unwrap().missing().count(), 2);
    run.complete("a", "init", "running").await.unwrap();
    let picture = pictures.next().await.unwrap().unwrap();
    assert_eq!((picture.tasks["a"], picture.tasks["b"]), (true, false));
    assert_eq!(picture.table.states(), ["init", "running", "ready", "done", "aborted", "timed out"]);
    run.complete("b", "init", "running").await.unwrap();
    assert_eq!(statuses.next().await.unwrap().unwrap().state, "running");
    let mut picture = pictures.next().await.unwrap().unwrap();
    while picture.status.state != "running" {
        picture = pictures.next().await.unwrap().unwrap();
    }
    assert_eq!(picture.missing().count(), 2);
    run.delete().await.unwrap();
    assert_eq!(statuses.try_collect::<Vec<_>>().await.unwrap().len(), 0);
    while let Some(picture) = pictures.next().await {
        picture.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused() {
    let mem = Mem::new();
    let runs = runs(&mem);
    for (id, tasks) in [("-", vec!["a"]), ("one", vec!["a", "a"]), ("one", vec![""]), ("a/b", vec!["a"])] {
        let error = runs.create(id, &table(), tasks).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    mem.plant(&"_runs/batch/one".parse().unwrap(), "{");
    assert_eq!(runs.run("one").unwrap().status().await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(runs.list().await.unwrap().is_empty());
}

/// Everybody completes the last tasks at the same time, and everything goes wrong that can.
async fn race(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mem = Mem::new();
    let workers = random.usize(2..=8);
    let tasks: Vec<_> = (0..random.usize(workers..=200)).map(|n| format!("vm/{n}")).collect();
    let run = runs(&mem).create("one", &table(), tasks.clone()).await.unwrap();
    let steps = [("init", "running"), ("running", "ready"), ("ready", "running"), ("running", "ready")];
    for (round, (from, to)) in steps.into_iter().enumerate() {
        let (last, rest) = tasks.split_at(workers);
        for task in rest {
            assert_eq!(run.complete(task, from, to).await.unwrap(), Completed::Counted);
        }
        let outcomes = join_all(last.iter().map(|task| {
            let seed = random.u64(..);
            let fault = Fault::seeded(seed);
            fault.odds(Odds::new().fail(0.2).lose_reply(0.3));
            fault.delay(Duration::from_millis(seed % 7));
            let own = Discovery::new(mem.clone()).layer(fault).runs(&name()).unwrap().run("one").unwrap();
            // Some die on the way, and then somebody covers for them.
            let dies_after = random.bool().then(|| Duration::from_millis(random.u64(0..200)));
            let run = &run;
            async move {
                let attempt = own.complete(task, from, to);
                match dies_after {
                    Some(after) => match time::timeout(after, attempt).await {
                        Ok(outcome) => Some(outcome),
                        Err(_) => Some(run.complete(task, from, to).await),
                    },
                    None => Some(attempt.await),
                }
            }
        }))
        .await;
        let status = run.status().await.unwrap();
        assert_eq!((&*status.state, status.round), (to, round as u64 + 2), "seed {seed}: moved once");
        let moved =
            outcomes.iter().flatten().filter(|outcome| matches!(outcome, Ok(Completed::Moved))).count();
        // One that moved it may have died before it could tell.
        assert!(moved <= 1 && outcomes.iter().flatten().all(Result::is_ok), "seed {seed}: {outcomes:?}");
        assert_eq!(run.missing().await.unwrap().len(), tasks.len(), "seed {seed}: left over");
    }
    run.delete().await.unwrap();
    assert_eq!(keys(&mem).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_completion_counts_for_its_round_only_however_late_it_is_said() {
    let run = run(&Mem::new(), &["a", "b"]).await;
    for task in ["a", "b"] {
        run.complete(task, "init", "running").await.unwrap();
    }
    let round = run.status().await.unwrap().round;
    for (from, to) in [("running", "ready"), ("ready", "running")] {
        for task in ["a", "b"] {
            run.complete(task, from, to).await.unwrap();
        }
    }
    // The same state, but another round.
    assert_eq!(run.complete_round(round, "a", "running", "ready").await.unwrap(), Completed::Already);
    assert_eq!(run.missing().await.unwrap(), ["a", "b"], "nobody has reported in this one");
    let wrong = run.complete_round(round, "a", "running", "running").await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_mover_whose_reply_is_lost_is_told_also_when_the_run_has_moved_on() {
    let mem = Mem::new();
    let run = run(&mem, &["a"]).await;
    let fault = Fault::new();
    let pace = discovery::Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
    let slow = Discovery::new(mem.clone()).backoff(pace).layer(fault.clone());
    let slow = slow.runs(&name()).unwrap().run("one").unwrap();
    fault.lose_replies(1);
    let others = async {
        time::sleep(Duration::from_millis(500)).await;
        run.complete("a", "running", "ready").await.unwrap();
        run.complete("a", "ready", "running").await.unwrap();
    };
    let (moved, ()) = tokio::join!(slow.complete("a", "init", "running"), others);
    assert_eq!(moved.unwrap(), Completed::Moved);
}

#[tokio::test(start_paused = true)]
async fn an_exit_cannot_be_completed_nor_a_step_be_taken_twice() {
    let mem = Mem::new();
    let run = run(&mem, &["a"]).await;
    run.force("aborted", "because").await.unwrap();
    assert_eq!(run.complete("a", "init", "aborted").await.unwrap_err().kind(), ErrorKind::Invalid);
    let again = Table::new("again").step("again", "again");
    let run = runs(&mem).create("two", &again, ["a"]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(run.complete("a", "again", "again").await.unwrap(), Completed::Moved);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_moves_is_deleted_all_the_same() {
    for seed in 0..50 {
        let mem = Mem::new();
        let tasks: Vec<_> = (0..8).map(|n| n.to_string()).collect();
        let run = runs(&mem).create("one", &table(), tasks.clone()).await.unwrap();
        let fault = Fault::seeded(seed);
        fault.delay(Duration::from_millis(3));
        let deleting = Discovery::new(mem.clone()).layer(fault).runs(&name()).unwrap().run("one").unwrap();
        let moving = async {
            for task in &tasks {
                time::sleep(Duration::from_millis(1)).await;
                // Until there is no run any more.
                let _ = run.complete(task, "init", "running").await;
            }
        };
        let (deleted, ()) = tokio::join!(deleting.delete(), moving);
        assert!(deleted.unwrap());
        assert_eq!(run.status().await.unwrap_err().kind(), ErrorKind::NotFound, "seed {seed}");
        assert_eq!(keys(&mem).await, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_not_fit_later_is_refused_at_once() {
    let runs = runs(&Mem::new());
    let states: Vec<_> = (0..300).map(|n| format!("{n}{}", "x".repeat(90))).collect();
    let long = states.windows(2).fold(Table::new(&states[0]), |table, pair| table.step(&pair[0], &pair[1]));
    assert_eq!(runs.create("one", &long, ["a"]).await.unwrap_err().kind(), ErrorKind::Invalid);
    let many = (0..30_000).map(|n| format!("{n}{}", "x".repeat(90)));
    assert_eq!(runs.create("one", &table(), many).await.unwrap_err().kind(), ErrorKind::Invalid);
    let run = runs.create("one", &table(), ["a"]).await.unwrap();
    let aborted = run.force("aborted", &"because ".repeat(10_000)).await.unwrap();
    assert!(aborted.moves[0].cause.len() <= 200);
}

#[tokio::test(start_paused = true)]
async fn whoever_completes_the_last_ones_at_the_same_time_exactly_one_moves_it() {
    for seed in 0..300 {
        race(seed).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever order things come in, the tally is what the lists say.
    #[test]
    fn any_order_of_completions_and_changes_moves_when_all_are_done(
        steps in proptest::collection::vec((0..3_u8, 0..12_usize), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let run = run(&Mem::new(), &["0", "1", "2"]).await;
            let (mut tasks, mut done) = ((0..3).collect::<std::collections::BTreeSet<_>>(), std::collections::BTreeSet::new());
            let mut state = ("init", "running");
            for (kind, n) in steps {
                let task = n.to_string();
                match kind {
                    0 => { tasks.insert(n); run.add(&task).await.unwrap(); }
                    1 => { if tasks.remove(&n) { done.remove(&n); } run.remove(&task).await.unwrap(); }
                    _ => {
                        let outcome = run.complete(&task, state.0, state.1).await;
                        assert_eq!(outcome.is_ok(), tasks.contains(&n), "{outcome:?}");
                        if tasks.contains(&n) { done.insert(n); }
                    }
                }
                if !tasks.is_empty() && done == tasks {
                    done.clear();
                    state = if state.0 == "running" { ("ready", "running") } else { ("running", "ready") };
                }
                assert_eq!(run.status().await.unwrap().state, state.0);
                assert_eq!(run.missing().await.unwrap().len(), tasks.len() - done.len());
            }
        });
    }
}
