//! Runs under paused time: whatever happens to those who complete them, exactly one moves the machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod life;

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
