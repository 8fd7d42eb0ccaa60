//! The page in a real browser.

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    browser::{Browser, Tab},
    demo::Demo,
};

async fn until_connection(page: &Tab, state: &str) {
    page.until(&format!("document.body.dataset.connection === {state:?}")).await;
}

/// How many of a part the page shows.
async fn until_rows(page: &Tab, part: &str, count: usize) {
    page.until(&format!("document.querySelectorAll('#part-{part} tbody tr').length === {count}")).await;
}

async fn until_rate(page: &Tab, condition: &str) {
    page.until(&format!("Number(document.querySelector('#rate').innerText) {condition}")).await;
}

async fn text(page: &Tab, selector: &str) -> String {
    page.value(&format!("document.querySelector(`{selector}`).innerText")).await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_page_shows_the_ceiling_and_lifts_it() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    let mut demo = Demo::start(["dockercoins", "demo", "--port", "0"]).await;
    let page = browser.open(&format!("{}index.html", demo.url())).await;
    let phone = browser.open_on_phone(&format!("{}index.html", demo.url())).await;
    until_connection(&page, "live").await;
    for part in ["rng", "hasher", "worker", "store", "webui"] {
        until_rows(&page, part, 1).await;
    }
    assert_eq!(text(&page, "#registry").await, "memory");
    until_rate(&page, "> 2.5").await;

    // A steady rate: of one worker, it is never seen as 0 or 4.
    let seen = "new Promise((resolve) => {
        const seen = [];
        const timer = setInterval(() => {
            seen.push(Number(document.querySelector('#rate').innerText));
            if (seen.length === 20) { clearInterval(timer); resolve([Math.min(...seen), Math.max(...seen)]); }
        }, 150);
    })";
    let Value::Array(seen) = page.value(seen).await else { panic!("no rates") };
    assert!(seen[0].as_f64() > Some(2.0) && seen[1].as_f64() < Some(3.5), "{seen:?}");

    for _ in 0..9 {
        page.click("#part-worker [data-by='1']").await;
    }
    until_rows(&page, "worker", 10).await;
    page.until("document.querySelector('#rate-note').innerText.includes('the ceiling is reached')").await;
    until_rate(&page, "< 10.6").await;
    page.click("#part-rng [data-by='1']").await;
    until_rows(&page, "rng", 2).await;
    until_rate(&page, "> 14").await;
    page.until("document.querySelector('#chart .ceiling-name').textContent.includes('2 rngs: 20.0')").await;
    page.until("document.querySelector('#part-rng .latency').innerText.includes('p99')").await;
    until_rate(&page, "> 17").await;
    page.picture("dockercoins").await;

    phone.until("innerWidth === 390 && document.documentElement.scrollWidth <= 390").await;
    phone.picture("dockercoins-phone").await;
    page.click("#part-worker [data-by='-1']").await;
    until_rows(&page, "worker", 9).await;

    // What is known is still shown when the server is gone.
    demo.signal(Signal::KILL);
    demo.ended().await;
    until_connection(&page, "stale").await;
    until_rows(&page, "rng", 2).await;
    page.picture("dockercoins-stale").await;
    for seen in [&page, &phone] {
        seen.assert_sound().await;
    }
}
