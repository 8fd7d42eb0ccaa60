//! Everything in one process.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::project::Page;
use crate::{demo::Demo, eventually, http};

async fn demo(more: &[&str]) -> Page {
    let args = ["dockercoins", "demo", "--port", "0", "--drain", "100ms"];
    Page(Demo::start(args.iter().chain(more)).await)
}

#[tokio::test]
async fn ten_workers_reach_a_ceiling_that_lifts_when_a_second_rng_joins() {
    let page = demo(&["--workers", "10"]).await;
    page.until_instances("worker", 10).await;
    eventually("the ceiling is nearly reached", async || page.rate().await > 8.5).await;
    // All have been in line then.
    eventually("it is rng that holds them up", async || {
        let picture = page.picture().await;
        let latency = |part: usize| picture["parts"][part]["latency"]["p50"].as_f64().unwrap_or_default();
        latency(0) > 500.0 && latency(1) < 300.0
    })
    .await;
    page.until_more(30).await;
    let picture = page.picture().await;
    assert_eq!(picture["ceiling"], 10.0);
    assert!(picture["rate"].as_f64() < Some(10.5), "one rng cannot do more: {picture}");
    for worker in page.instances("worker").await {
        let rate = worker["rate"].as_f64().unwrap();
        assert!((0.3..2.0).contains(&rate), "each has its share: {worker}");
    }

    page.scale("rng", 2).await;
    eventually("two rngs do more than one can", async || page.rate().await > 13.0).await;
    assert_eq!(page.picture().await["ceiling"], 20.0);
    eventually("both are called", async || {
        page.instances("rng").await.iter().all(|rng| rng["rate"].as_f64() > Some(6.0))
    })
    .await;
    page.scale("rng", 1).await;
    page.until_instances("rng", 1).await;
    eventually("the ceiling is back", async || page.rate().await < 11.0).await;
}

#[tokio::test]
async fn the_answers_are_those_of_the_original() {
    let page = demo(&["--workers", "0"]).await;
    let url = page.0.url();
    let answer = http::get(url).await;
    assert_eq!((answer.status, &*answer.body), (302, "Found. Redirecting to /index.html"));
    assert!(answer.headers.contains("location: /index.html"), "{answer:?}");
    assert!(http::get(&format!("{url}index.html")).await.body.contains("<title>dockercoins"));
    eventually("the store is read", async || page.picture().await["trouble"].is_null()).await;
    let json = page.json().await;
    assert_eq!((&json["coins"], &json["hashes"]), (&json!(0), &json!(null)), "{json}");
    assert!(json["now"].as_f64() > Some(1.7e9), "{json}");
    page.scale("worker", 3).await;
    page.until_more(3).await;
    let json = page.json().await;
    assert!(json["hashes"].as_str().is_some_and(|text| text.parse::<u64>().unwrap() >= 3), "{json}");
}

#[tokio::test]
async fn what_cannot_be_scaled_is_refused_with_a_reason() {
    let page = demo(&[]).await;
    for (path, status, reason) in [
        ("scale/store/2", 422, "there is one store"),
        ("scale/worker/1000", 422, "at most"),
        ("scale/worker/-1", 400, ""),
        ("scale/banana/1", 400, ""),
    ] {
        let answer = http::post(&format!("{}{path}", page.0.url()), "").await;
        assert!(answer.status == status && answer.body.contains(reason), "{path}: {answer:?}");
    }
    let url = format!("{}scale/worker/2", page.0.url());
    assert_eq!(http::post(&url, "Origin: http://evil.example\r\n").await.status, 403);
}

#[tokio::test]
async fn units_that_take_longer_than_they_are_held_count_all_the_same() {
    // Twelve in line: each unit takes 1.3 s.
    let page = demo(&["--workers", "12", "--hold", "500ms"]).await;
    page.until_more(30).await;
    let log = page.0.log();
    assert_eq!(log.matches("behind --hold 500ms others do such a unit as well").count(), 1, "{log}");
}

#[tokio::test]
async fn all_leave_in_order() {
    let mut page = demo(&["--workers", "4", "--rngs", "2"]).await;
    page.until_more(5).await;
    page.0.signal(Signal::INT);
    assert!(page.0.ended().await.success(), "{}", page.0.log());
    let log = page.0.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(log.matches("has left").count(), 9, "{log}");
}

/// Also not one that it is being given in that moment.
#[tokio::test]
async fn workers_that_leave_leave_no_unit_open() {
    let times = ["--rng-delay", "0s", "--hasher-delay", "0s", "--worker-delay", "0s", "--parallel", "10"];
    let page = demo(&times).await;
    for _ in 0..20 {
        page.scale("worker", 10).await;
        page.until_more(50).await;
        page.scale("worker", 0).await;
        page.until_instances("worker", 0).await;
        eventually("nothing is open", async || page.picture().await["open"] == 0).await;
    }
}

#[tokio::test]
async fn nobody_comes_any_more_when_all_are_leaving() {
    // A worker finishes its unit first, so that there is time to ask.
    let mut page = demo(&["--worker-delay", "4s"]).await;
    eventually("a unit is under way", async || page.picture().await["open"] == 1).await;
    page.0.signal(Signal::INT);
    for part in ["worker", "rng"] {
        let url = format!("{}scale/{part}/5", page.0.url());
        let is_refused = async || {
            let answer = http::post(&url, "").await;
            answer.status == 422 && answer.body.contains("all are leaving")
        };
        eventually("it is refused", is_refused).await;
    }
    assert!(page.0.ended_within(Duration::from_secs(10)).await.success(), "{}", page.0.log());
}

#[tokio::test]
async fn a_journal_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let args = ["--workers", "3", "--journal", journal.to_str().unwrap()];
    let mut page = demo(&args).await;
    page.until_more(10).await;
    let counted = page.hashes().await;
    page.0.signal(Signal::KILL);
    page.0.ended().await;
    let page = demo(&args).await;
    eventually("the count goes on", async || page.hashes().await > counted).await;
}
