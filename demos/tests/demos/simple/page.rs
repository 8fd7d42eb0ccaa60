//! The page in a real browser.

use rustix::process::Signal;
use serde_json::json;

use crate::{
    browser::{Browser, Tab},
    simple::server::{Config, Server, pid, signal},
};

async fn until_state(page: &Tab, server: &str, state: &str) {
    page.until(&format!("document.querySelector('[data-server=\"{server}\"]')?.dataset.state === {state:?}"))
        .await;
}

#[tokio::test]
async fn the_page_shows_the_tree_that_keeps_itself_alive() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    // Slow enough for the eye.
    let slow = ["--start-delay", "1s", "--poll-interval", "200ms"];
    let mut server = Server::start(&[&["demo", "--port", "0", "--free-ports"], &slow[..]].concat()).await;
    let page = browser.open(server.0.url()).await;
    let phone = browser.open_on_phone(&format!("{}page", server.0.url())).await;
    let top = format!("port {}", server.0.port());
    for seen in [&page, &phone] {
        seen.until("document.body.dataset.connection === 'live'").await;
        seen.until("document.querySelector('#well').innerText === 'All 11 servers run'").await;
    }
    assert_eq!(page.value("document.querySelector('#registry').innerText").await, "memory");
    assert_eq!(page.value("document.querySelectorAll('.server').length").await, 11);
    page.picture("simple").await;
    phone.until("document.documentElement.scrollWidth <= 390").await;
    phone.picture("simple-phone").await;

    // By a button: it is not well, it is stopped, and it is back.
    let all = server.all_run().await;
    let leaves: Vec<_> = all.iter().filter(|(path, _)| path.len() == 2).collect();
    let sick = leaves[1].0.last().unwrap();
    page.click(&format!("[data-server='{sick}'] [data-deed=fail]")).await;
    until_state(&page, sick, "PROVISIONING").await;
    page.picture("simple-sick").await;
    until_state(&page, sick, "RUNNING").await;
    // By itself: it dies, and is back.
    let dying = leaves[5].0.last().unwrap();
    signal(pid(&leaves[5].1), Signal::KILL);
    until_state(&page, dying, "PROVISIONING").await;
    until_state(&page, dying, "RUNNING").await;
    // One in the middle, with those below.
    let middle = &all[0].0[0];
    page.click(&format!("[data-server='{middle}'] > article [data-deed=crash]")).await;
    until_state(&page, middle, "PROVISIONING").await;
    page.until("document.querySelectorAll('.server').length === 11").await;
    until_state(&page, middle, "RUNNING").await;
    for seen in [&page, &phone] {
        seen.until("document.querySelector('#well').innerText === 'All 11 servers run'").await;
        seen.assert_sound().await;
    }
    // The top, which nobody looks after.
    page.click("#tree > .server > article [data-deed=fail]").await;
    until_state(&page, &top, "ERROR").await;
    page.click("#tree > .server > article [data-deed=heal]").await;
    until_state(&page, &top, "RUNNING").await;

    server.0.signal(Signal::TERM);
    page.until("document.body.dataset.connection === 'stale'").await;
    assert_eq!(
        page.value("document.querySelectorAll('.server').length").await,
        11,
        "what is known is still shown"
    );
    assert!(server.0.ended().await.success());
}

#[tokio::test]
async fn the_page_says_when_the_next_start_is_due() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    let server = Config::new(&json!({ "http://127.0.0.1:1": "false" })).serve(&["--starts", "50"]).await;
    let page = browser.open(server.0.url()).await;
    page.until("document.querySelector('[data-state=DOWN] .facts')?.innerText.includes('starts in')").await;
    server.ends_with(&[]).await;
}
