//! Exactly one moves the machine, whoever that is and whatever happens to the line.

use std::time::Duration;

use futures_util::{
    StreamExt,
    future::{join, join_all},
};
use tokio::time::Instant;

use super::{clients, done, name, nothing_left};
use crate::{
    ErrorKind, Result,
    conformance::context::{Client, Context, refused},
    kv::Txn,
    recipe::{Completed, Picture, Run, RunStatus, Runs, Table},
};

/// Two states that follow each other for ever.
const STATES: [&str; 2] = ["working", "resting"];

/// The states before and behind a round, the first of which is 1.
fn states(round: u64) -> (&'static str, &'static str) {
    if round % 2 == 1 { (STATES[0], STATES[1]) } else { (STATES[1], STATES[0]) }
}

fn table() -> Table {
    let [working, resting] = STATES;
    Table::new(working).step(working, resting).step(resting, working).exit("aborted").exit("timed out")
}

fn runs(client: &Client) -> Runs {
    client.discovery().runs(&name()).expect("there are keys and leases")
}

async fn created(client: &Client, tasks: &[&str]) -> Run {
    runs(client).create("one", &table(), tasks.iter().copied()).await.expect("it is new")
}

/// The same run, seen by another client, which sees it when this returns.
async fn found(cx: &Context, client: &Client) -> Run {
    let run = runs(client).run("one").expect("a good id");
    until_round(cx, &run, 1).await;
    run
}

/// Waits until a client sees that this round has begun; it must not see a later one.
async fn until_round(cx: &Context, run: &Run, round: u64) -> RunStatus {
    let mut seen = None;
    cx.eventually(format!("round {round} to be seen"), async || match run.status().await {
        Ok(status) => {
            assert!(status.round <= round, "moved more than once: {status:?}");
            let is_there = status.round == round;
            seen = Some(status);
            is_there
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            false
        }
    })
    .await;
    seen.expect("it was seen")
}

/// Completes a task, which can be done.
async fn complete(cx: &Context, run: &Run, task: &str, round: u64) -> Completed {
    attempt(cx, run, task, round).await.expect("it can be completed")
}

async fn attempt(cx: &Context, run: &Run, task: &str, round: u64) -> Result<Completed> {
    let (from, to) = states(round);
    cx.within(format!("{task} to be completed"), run.complete(task, from, to)).await
}

pub(in crate::conformance) async fn of_many_who_complete_the_last_task_one_moves_it(cx: &Context) {
    const TASKS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let clients = clients(cx, TASKS.len()).await;
    created(&clients[0], &TASKS).await;
    let all = join_all(clients.iter().map(async |client| found(cx, client).await)).await;
    for round in 1..=5 {
        join_all(all.iter().map(|run| until_round(cx, run, round))).await;
        let outcomes = all.iter().zip(TASKS).map(|(run, task)| attempt(cx, run, task, round));
        let outcomes = join_all(outcomes).await;
        let count =
            |what| outcomes.iter().filter(|outcome| outcome.as_ref().is_ok_and(|o| *o == what)).count();
        let counts = (count(Completed::Moved), count(Completed::Counted));
        assert_eq!(counts, (1, TASKS.len() - 1), "round {round}: {outcomes:?}");
    }
    let status = until_round(cx, &all[0], 6).await;
    assert_eq!(status.state, states(6).0);
    assert!(status.moves.iter().map(|step| step.round).eq(1..=5), "{:?}", status.moves);
    assert_eq!(all[0].missing().await.expect("it is there"), TASKS, "nothing is left over");
}

pub(in crate::conformance) async fn a_task_is_completed_once(cx: &Context) {
    let (one, two) = (cx.client().await, cx.client().await);
    let run = created(&one, &["a", "b"]).await;
    let other = found(cx, &two).await;
    assert_eq!(complete(cx, &run, "a", 1).await, Completed::Counted);
    for run in [&run, &other] {
        assert_eq!(complete(cx, run, "a", 1).await, Completed::Already);
        assert_eq!(run.missing().await.expect("it is there"), ["b"]);
        refused(attempt(cx, run, "c", 1).await, ErrorKind::NotFound);
        refused(run.complete("b", STATES[0], "aborted").await, ErrorKind::Invalid);
    }
    assert_eq!(complete(cx, &other, "b", 1).await, Completed::Moved);
    for run in [&run, &other] {
        for task in ["a", "b"] {
            assert_eq!(complete(cx, run, task, 1).await, Completed::Already, "and does not count again");
        }
        assert_eq!(run.missing().await.expect("it is there"), ["a", "b"]);
    }
    assert_eq!(complete(cx, &run, "a", 2).await, Completed::Counted);
    assert_eq!(complete(cx, &other, "b", 2).await, Completed::Moved);
    // What is said late of a round that is over does not count for another one that began in the same state.
    let [working, resting] = STATES;
    for run in [&run, &other] {
        until_round(cx, run, 3).await;
        let late = run.complete_round(1, "a", working, resting).await;
        assert_eq!(late.expect("it was completed"), Completed::Already);
        refused(run.complete_round(2, "a", working, resting).await, ErrorKind::Conflict);
        assert_eq!(run.missing().await.expect("it is there"), ["a", "b"]);
    }
}

pub(in crate::conformance) async fn tasks_come_and_go_while_it_moves(cx: &Context) {
    let (one, two) = (cx.client().await, cx.client().await);
    let run = created(&one, &["a"]).await;
    let other = found(cx, &two).await;
    for round in 1..=6 {
        let (_, _) = join(until_round(cx, &run, round), until_round(cx, &other, round)).await;
        let (completed, added) = join(complete(cx, &run, "a", round), other.add("new")).await;
        assert!(added.expect("it goes on"), "it is new");
        let removed = other.remove("new").await.expect("it goes on");
        // It was waited for if it came in time, and else is one of the next round.
        let expected = match completed {
            Completed::Moved => Completed::Counted,
            Completed::Counted => Completed::Moved,
            Completed::Already => panic!("nobody else completed it"),
        };
        assert_eq!(removed, Some(expected), "round {round}");
    }
    until_round(cx, &run, 7).await;
    assert_eq!(run.missing().await.expect("it is there"), ["a"]);
}

pub(in crate::conformance) async fn where_there_is_a_choice_one_decides_for_all(cx: &Context) {
    let clients = clients(cx, 4).await;
    let table = Table::new("working").step("working", "done").step("working", "failed");
    let tasks = ["a", "b", "c", "d"];
    runs(&clients[0]).create("one", &table, tasks).await.expect("it is new");
    let all = join_all(clients.iter().map(async |client| found(cx, client).await)).await;
    let choices = ["done", "failed", "done", "failed"];
    let attempts =
        all.iter().zip(tasks).zip(choices).map(|((run, task), to)| run.complete(task, "working", to));
    let outcomes = cx.within("all to be completed", join_all(attempts)).await;
    let chosen: Vec<_> = outcomes.iter().zip(choices).filter_map(|(o, to)| o.is_ok().then_some(to)).collect();
    assert!(chosen.len() == 2 && chosen[0] == chosen[1], "{outcomes:?}");
    let rest = outcomes.into_iter().zip(tasks).filter(|(outcome, _)| outcome.is_err());
    for (n, (outcome, task)) in rest.enumerate() {
        refused(outcome, ErrorKind::Conflict);
        let outcome = all[0].complete(task, "working", chosen[0]).await.expect("it heads there");
        assert_eq!(outcome, [Completed::Counted, Completed::Moved][n]);
    }
    let status = until_round(cx, &all[1], 2).await;
    assert!(status.is_over && status.state == chosen[0], "{status:?}");
}

pub(in crate::conformance) async fn it_is_ended_from_outside_once(cx: &Context) {
    let clients = clients(cx, 4).await;
    created(&clients[0], &["a", "b"]).await;
    let all = join_all(clients.iter().map(async |client| found(cx, client).await)).await;
    let forced = join_all(all.iter().map(|run| run.force("aborted", "enough"))).await;
    for (run, status) in all.iter().zip(forced) {
        let status = status.expect("it is an exit");
        assert_eq!((&*status.state, status.round, status.moves.len()), ("aborted", 2, 1), "{status:?}");
        assert!(status.is_over);
        refused(run.force("timed out", "late").await, ErrorKind::Conflict);
        refused(attempt(cx, run, "a", 1).await, ErrorKind::Conflict);
        refused(run.add("c").await, ErrorKind::Conflict);
    }
}

pub(in crate::conformance) async fn a_round_that_takes_too_long_is_ended_once(cx: &Context) {
    const LIMIT: Duration = Duration::from_millis(500);
    let clients = clients(cx, 3).await;
    let run = created(&clients[0], &["a"]).await;
    let before = Instant::now();
    run.limit(LIMIT, "timed out").await.expect("it is an exit");
    let mut supervisors = Vec::new();
    for client in &clients {
        let run = found(cx, client).await;
        supervisors.push(tokio::spawn(async move { run.supervise().await }));
    }
    for supervisor in supervisors {
        done(cx, "the end", supervisor).await.expect("they are not in each other's way");
    }
    assert!(before.elapsed() >= LIMIT, "ended after {:?}", before.elapsed());
    let status = until_round(cx, &run, 2).await;
    assert_eq!((&*status.state, status.moves.len()), ("timed out", 1), "{status:?}");
}

pub(in crate::conformance) async fn whoever_watches_sees_it_move(cx: &Context) {
    let (one, two, observer) = (cx.client().await, cx.client().await, cx.fragile().await);
    let run = created(&one, &["a", "b"]).await;
    let other = found(cx, &two).await;
    let watched = found(cx, &observer).await;
    let mut statuses = watched.statuses();
    let mut pictures = watched.watch();
    let mut until = async |what: &str, shows: &dyn Fn(&Picture) -> bool| {
        let seen = async {
            let mut last = 0;
            while let Some(picture) = pictures.next().await {
                let picture = picture.expect("an outage is no error");
                assert!(picture.status.round >= last, "{last}, then {picture:?}");
                last = picture.status.round;
                if shows(&picture) {
                    return;
                }
            }
            panic!("it ended before {what}");
        };
        cx.within(what, seen).await;
    };
    until("all to be missing", &|picture| picture.missing().eq(["a", "b"])).await;
    assert_eq!(complete(cx, &run, "a", 1).await, Completed::Counted);
    until("one to be missing", &|picture| picture.status.round == 1 && picture.missing().eq(["b"])).await;
    assert_eq!(complete(cx, &other, "b", 1).await, Completed::Moved);
    let is_fresh = |picture: &Picture, round| picture.status.round == round && picture.missing().count() == 2;
    until("the next round", &|picture| is_fresh(picture, 2)).await;
    cx.cut().await;
    assert_eq!(complete(cx, &other, "b", 2).await, Completed::Counted);
    assert_eq!(complete(cx, &run, "a", 2).await, Completed::Moved);
    cx.heal().await;
    until("what was missed", &|picture| is_fresh(picture, 3) && picture.status.moves.len() == 2).await;
    assert!(run.delete().await.expect("it can be deleted"), "it was there");
    let ended = async {
        while let Some(picture) = pictures.next().await {
            picture.expect("no error");
        }
    };
    cx.within("the end of the pictures", ended).await;
    let mut rounds = Vec::new();
    let ended = async {
        while let Some(status) = statuses.next().await {
            rounds.push(status.expect("an outage is no error").round);
        }
    };
    cx.within("the end of the statuses", ended).await;
    assert!(rounds.is_sorted(), "{rounds:?}");
}

pub(in crate::conformance) async fn a_deleted_one_leaves_nothing(cx: &Context) {
    let clients = clients(cx, 3).await;
    let tasks: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    for round in 0..2 {
        let run = runs(&clients[0]).create("one", &table(), tasks.clone()).await.expect("it is new");
        let all = join_all(clients.iter().map(async |client| found(cx, client).await)).await;
        let data = run.data_key("notes").expect("a key");
        run.commit(Txn::new().put(&data, "1")).await.expect("it is there");
        // Whoever works on it meanwhile leaves nothing behind either.
        let late = all[1].data_key("late").expect("a key");
        let ((one, other), completed, written) = tokio::join!(
            join(all[0].delete(), all[2].delete()),
            attempt(cx, &all[1], "7", 1),
            all[1].commit(Txn::new().put(&late, "1")),
        );
        let (one, other) = (one.expect("it can be deleted"), other.expect("it can be deleted"));
        assert!(one || other, "it was there");
        let errors = [completed.err(), written.err()].into_iter().flatten();
        assert!(errors.map(|error| error.kind()).all(|kind| kind == ErrorKind::NotFound), "round {round}");
        nothing_left(cx, &clients[1]).await;
        refused(run.status().await, ErrorKind::NotFound);
        assert!(!run.delete().await.expect("nothing is to be done"));
    }
}

pub(in crate::conformance) async fn completed_during_an_outage_is_counted_behind_it(cx: &Context) {
    let (one, fragile) = (cx.client().await, cx.fragile().await);
    let run = created(&one, &["a", "b"]).await;
    let other = found(cx, &fragile).await;
    cx.cut().await;
    let late = other.clone();
    let late = tokio::spawn(async move { late.complete("b", STATES[0], STATES[1]).await });
    assert_eq!(complete(cx, &run, "a", 1).await, Completed::Counted);
    assert_eq!(run.missing().await.expect("it is there"), ["b"]);
    assert!(!late.is_finished(), "it waits");
    cx.heal().await;
    let completed = done(cx, "the outage to be over", late).await.expect("it can be completed");
    assert_eq!(completed, Completed::Moved);
    for run in [&run, &other] {
        let status = until_round(cx, run, 2).await;
        assert_eq!(status.moves[0].cause, "b");
    }
}

pub(in crate::conformance) async fn a_flapping_line_makes_nobody_count_twice(cx: &Context) {
    let (one, fragile) = (cx.client().await, cx.fragile().await);
    let run = created(&one, &["a", "b"]).await;
    let other = found(cx, &fragile).await;
    for round in 1..=8 {
        let (_, _) = join(until_round(cx, &run, round), until_round(cx, &other, round)).await;
        let is_last = round % 2 == 0;
        if is_last {
            assert_eq!(complete(cx, &run, "a", round).await, Completed::Counted);
        }
        let shake = async {
            cx.cut().await;
            cx.heal().await;
        };
        let (outcome, ()) = join(complete(cx, &other, "b", round), shake).await;
        if is_last {
            assert_eq!(outcome, Completed::Moved);
        } else {
            // If the answer was lost, it had been counted already.
            assert!(matches!(outcome, Completed::Counted | Completed::Already), "{outcome:?}");
            assert_eq!(complete(cx, &run, "a", round).await, Completed::Moved);
        }
    }
    let status = until_round(cx, &run, 9).await;
    assert_eq!(status.moves.len(), 8);
}
