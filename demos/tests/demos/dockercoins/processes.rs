//! Processes of their own on a real registry: what is the same on each kind.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::post};
use discovery::Instance;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::project::{Page, Project};
use crate::{
    demo::{self, Demo},
    eventually, http,
    registry::{Registry, connect},
};

/// Makes all of them tests on one kind.
macro_rules! tests_on {
    ($registry:ty) => {
        tests_on! { $registry:
            processes: parts_find_each_other_by_name_and_replace_each_other
            processes: projects_side_by_side_do_not_see_each_other
            processes: a_worker_leaves_no_unit_open_when_it_is_asked_to_leave
            processes: work_goes_on_while_the_registry_is_away
            processes: who_comes_as_a_second_store_is_told
            processes: a_store_that_is_killed_is_replaced_on_another_port
            loss: no_unit_is_lost_or_counted_twice_whatever_is_killed
        }
    };
    ($registry:ty: $($module:ident: $test:ident)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                crate::dockercoins::$module::$test::<$registry>().await;
            }
        )+
    };
}
pub(crate) use tests_on;

pub(crate) async fn parts_find_each_other_by_name_and_replace_each_other<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let project = Project::on(&registry, "dockercoins");
    // In an order in which nobody finds what he needs.
    let worker = project.start("worker", &["--ttl", "2s"]);
    let page = project.page().await;
    assert_eq!(http::get(&format!("{}readyz", page.0.url())).await.status, 503);
    assert_eq!(http::get(&format!("{}json", page.0.url())).await.status, 503);
    let rng = project.serve("rng", &["--ttl", "2s"]).await;
    let _hasher = project.serve("hasher", &[]).await;
    let _store = project.serve("store", &[]).await;
    page.until_more(3).await;
    assert_eq!(http::get(&format!("{}readyz", page.0.url())).await.status, 200);
    for part in ["rng", "hasher", "worker", "store", "webui"] {
        page.until_instances(part, 1).await;
    }

    // The answers of the original.
    let answer = http::get(rng.url()).await;
    assert!(answer.body.starts_with("RNG running on ") && answer.body.ends_with('\n'), "{answer:?}");
    assert!(answer.headers.contains("content-type: text/html; charset=utf-8"), "{answer:?}");
    let json = page.json().await;
    assert!(json["hashes"].as_str().unwrap().parse::<u64>().unwrap() >= 3, "{json}");
    assert!(json["coins"].is_u64() && json["now"].is_f64(), "{json}");

    // Another rng is called as soon as it is there, and instead of one that dies.
    let _second = project.serve("rng", &[]).await;
    let workers = [project.start("worker", &[]), project.start("worker", &[])];
    page.until_instances("worker", 3).await;
    eventually("both rngs are called", async || {
        page.instances("rng").await.iter().filter(|rng| rng["rate"].as_f64().unwrap() > 0.5).count() == 2
    })
    .await;
    rng.signal(Signal::KILL);
    page.until_more(10).await;
    page.until_instances("rng", 1).await;

    // A worker that dies leaves the registry with its lease, one that is asked to leave at once.
    worker.signal(Signal::KILL);
    page.until_instances("worker", 2).await;
    workers[0].signal(Signal::INT);
    page.until_instances("worker", 1).await;
    page.until_more(3).await;
}

pub(crate) async fn projects_side_by_side_do_not_see_each_other<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let (blue, green) = (Project::on(&registry, "blue"), Project::on(&registry, "green"));
    let _shared = [
        blue.serve("rng", &[]).await,
        blue.serve("hasher", &[]).await,
        blue.serve("store", &[]).await,
        green.serve("hasher", &[]).await,
        green.serve("store", &[]).await,
    ];
    let (in_blue, in_green) = (blue.page().await, green.page().await);
    let _workers = [blue.start("worker", &[]), green.start("worker", &[])];
    in_blue.until_more(10).await;
    in_green.until_instances("worker", 1).await;
    // The rng of blue is none for green.
    assert_eq!(in_green.instances("rng").await, [] as [serde_json::Value; 0]);
    eventually("the unit of green waits", async || in_green.picture().await["open"] == 1).await;
    assert_eq!(in_green.json().await["hashes"], json!(null));
    let ids = async |page: &Page| {
        let instances = page.instances("worker").await;
        instances.iter().map(|instance| instance["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&in_blue).await.len(), 1);
    assert_ne!(ids(&in_blue).await, ids(&in_green).await);

    let _rng = green.serve("rng", &[]).await;
    in_green.until_more(3).await;
}

pub(crate) async fn a_worker_leaves_no_unit_open_when_it_is_asked_to_leave<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let project = Project::on(&registry, "dockercoins");
    let _hasher = project.serve("hasher", &[]).await;
    let _store = project.serve("store", &[]).await;
    let page = project.page().await;
    let rng = project.serve("rng", &[]).await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut worker = project.start("worker", &[]);
        page.until_more(3).await;
        worker.signal(signal);
        assert!(worker.ended_within(Duration::from_secs(8)).await.success());
        assert!(worker.log().contains("units of work done, updating hash counter"), "{}", worker.log());
        eventually("nothing is open", async || {
            let picture = page.picture().await;
            picture["open"] == 0 && picture["parts"][2]["instances"] == json!([])
        })
        .await;
    }

    // Where it cannot finish its unit, it gives it back, and another has it at once.
    drop(rng);
    let mut worker = project.start("worker", &["--grace", "300ms"]);
    eventually("it has a unit", async || page.picture().await["open"] == 1).await;
    let counted = page.hashes().await;
    worker.signal(Signal::TERM);
    assert!(worker.ended_within(Duration::from_secs(8)).await.success());
    assert!(worker.log().contains("is given back"), "{}", worker.log());
    let _rng = project.serve("rng", &[]).await;
    let mut worker = project.start("worker", &[]);
    page.until_more(3).await;
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());
    eventually("nothing is open", async || page.picture().await["open"] == 0).await;
    assert!(page.hashes().await > counted);
}

pub(crate) async fn work_goes_on_while_the_registry_is_away<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let project = Project::on(&registry, "dockercoins");
    let _parts = project.serve_all().await;
    let page = project.page().await;
    let _worker = project.start("worker", &[]);
    page.until_more(3).await;
    registry.kill();
    eventually("the page says so", async || page.picture().await["stale"].is_u64()).await;
    page.until_more(10).await;
    registry.restart().await;
    eventually("the page says so", async || page.picture().await["stale"].is_null()).await;
    let _second = project.start("worker", &[]);
    page.until_instances("worker", 2).await;
    page.until_more(10).await;
}

pub(crate) async fn who_comes_as_a_second_store_is_told<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let project = Project::on(&registry, "dockercoins");
    let _store = project.serve("store", &[]).await;
    let page = project.page().await;
    page.until_instances("store", 1).await;
    let locator = registry.locator();
    let second = demo::run(&[
        "dockercoins",
        "store",
        "--port",
        "0",
        "--ttl",
        "500ms",
        "--drain",
        "0s",
        "--backend",
        &locator,
    ])
    .await;
    let log = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{log}");
    assert!(log.contains("there is a dockercoins/store already"), "{log}");
    assert!(log.contains("was never registered") && !log.contains("has left"), "{log}");
    assert_eq!(page.instances("store").await.len(), 1, "the first one is still there");
}

pub(crate) async fn a_store_that_is_killed_is_replaced_on_another_port<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let project = Project::on(&registry, "dockercoins");
    let _parts = [project.serve("rng", &[]).await, project.serve("hasher", &[]).await];
    let page = project.page().await;
    let _worker = project.start("worker", &[]);
    let kill = async |mut store: Demo| {
        page.until_more(3).await;
        store.signal(Signal::KILL);
        store.ended().await;
        store.port().to_owned()
    };

    // The lock on the journal proves that who is still registered is dead: nobody waits for the end of the lease.
    let args = ["--journal", journal.to_str().unwrap(), "--ttl", "1h"];
    let port = kill(project.serve("store", &args).await).await;
    let counted = page.hashes().await;
    let store = project.serve("store", &args).await;
    assert_ne!(store.port(), port);
    eventually("the count goes on", async || page.hashes().await > counted).await;
    assert!(!store.log().contains("WARN"), "{}", store.log());
    // This one has no journal, and nothing to do with the other; it waits for its time, and for no longer.
    let mut other = project.start("store", &["--port", "0", "--ttl", "200ms"]);
    assert_eq!(other.ended().await.code(), Some(1));
    assert!(other.log().contains("there is a dockercoins/store already"), "{}", other.log());
    assert!(other.log().contains("was never registered"), "{}", other.log());
    assert_eq!(page.instances("store").await.len(), 1);
    drop(store);

    // Without a journal it is the lease that ends, which a registry may have made longer than it was asked for.
    let project = Project::on(&registry, "forgetful");
    let page = project.page().await;
    let mut store = project.serve("store", &["--ttl", "1s"]).await;
    page.until_instances("store", 1).await;
    store.signal(Signal::KILL);
    store.ended().await;
    let store = project.serve("store", &["--ttl", "1s"]).await;
    eventually("the second one has its place", async || {
        let address = store.url().trim_start_matches("http://").trim_end_matches('/');
        page.instances("store").await.iter().any(|store| store["address"] == address)
    })
    .await;
}

pub(crate) async fn a_hasher_that_makes_coins_up_is_not_believed<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let project = Project::on(&registry, "dockercoins");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let coin = async move || {
        counter.fetch_add(1, Ordering::Relaxed);
        "0".repeat(64)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let liar = Instance::builder("dockercoins/hasher".parse().unwrap()).id("liar".parse().unwrap()).endpoint(
        "http",
        "127.0.0.1",
        listener.local_addr().unwrap().port(),
    );
    let _serving = AbortOnDropHandle::new(tokio::spawn(
        axum::serve(listener, Router::new().route("/", post(coin))).into_future(),
    ));
    let discovery = connect(&registry).await;
    let _liar = discovery.register(liar.build().unwrap()).await.unwrap();
    let _parts = project.serve_all().await;
    let page = project.page().await;
    let _worker = project.start("worker", &[]);
    page.until_more(10).await;
    assert!(asked.load(Ordering::Relaxed) > 0, "it is asked in its turn");
    let hashers = page.instances("hasher").await;
    let rate = |hasher: &Value| hasher["rate"].as_f64().unwrap() > 0.0;
    let (liars, others): (Vec<_>, Vec<_>) = hashers.iter().partition(|hasher| hasher["id"] == "liar");
    assert!(!liars.into_iter().any(rate) && others.into_iter().all(rate), "{hashers:?}");
}
