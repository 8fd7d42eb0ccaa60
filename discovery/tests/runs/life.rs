//! How runs come to be and go, whoever is in the middle of it.

use super::*;

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
