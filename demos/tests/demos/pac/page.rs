//! The pages in a real browser.

use discovery_testbed::{Port, ZooKeeper};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    browser::{Browser, Tab},
    demo::Demo,
    eventually, http,
    pac::processes::{ghost, server_on},
    registry::{Registry, name},
};

async fn until_connection(page: &Tab, state: &str) {
    page.until(&format!("document.body.dataset.connection === {state:?}")).await;
}

async fn until_up(page: &Tab, coordinate: &str) {
    page.until(&format!(
        "document.querySelector('[data-coordinate={coordinate:?}]')?.dataset.state === 'up'"
    ))
    .await;
}

async fn until_gone(page: &Tab, coordinate: &str) {
    page.until(&format!("document.querySelector('[data-coordinate={coordinate:?}]') === null")).await;
}

/// Waits until seven ghosts are there and none hides another one.
async fn until_spread(page: &Tab) {
    page.until(
        "(() => {
            const at = [...document.querySelectorAll('[data-coordinate]')].map((el) => el.getBoundingClientRect());
            return at.length === 7 && at.every((a, i) => at.every((b, j) => i === j || Math.hypot(a.x - b.x, a.y - b.y) > a.width));
        })()",
    )
    .await;
}

/// The states that a ghost went through.
async fn states(page: &Tab, coordinate: &str) -> serde_json::Value {
    page.value(&format!("states[{coordinate:?}]")).await
}

#[tokio::test]
async fn the_page_lives_through_everything_on_zookeeper() {
    the_page_lives_through_everything::<ZooKeeper>().await;
}

#[tokio::test]
async fn the_page_lives_through_everything_on_dns() {
    the_page_lives_through_everything::<discovery_testbed::NameServer>().await;
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn the_page_lives_through_everything_on_etcd() {
    the_page_lives_through_everything::<discovery_testbed::Etcd>().await;
}

async fn the_page_lives_through_everything<R: Registry>() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    let Some(registry) = R::start_or_skip().await else { return };
    let port = Port::reserve().unwrap();
    let server = server_on(&registry, port.number(), &["--ttl", "20s"]).await;
    let page = browser.open(server.url()).await;
    until_connection(&page, "live").await;
    page.until("document.querySelectorAll('[data-coordinate]').length === 0").await;
    assert_eq!(page.value("document.querySelector('#registry dd').innerText").await, name(&registry));
    let command = page.value("document.querySelector('#start code').innerText").await;
    let flag = format!("-- pac ghost blinky --backend '{}'", registry.locator());
    assert!(command.as_str().unwrap().ends_with(&flag), "{command}");

    // Ghosts appear.
    let inky = ghost(&registry, &["inky"]).await;
    let clyde = ghost(&registry, &["clyde", "--ttl", "6s"]).await;
    let sue = ghost(&registry, &["sue", "--ttl", "20s"]).await;
    let (inky_is, clyde_is, sue_is) =
        (inky.coordinate().await, clyde.coordinate().await, sue.coordinate().await);
    for coordinate in [&inky_is, &clyde_is, &sue_is] {
        until_up(&page, coordinate).await;
    }
    let link = format!("document.querySelector('[data-coordinate={sue_is:?}]').href");
    assert_eq!(page.value(&link).await, sue.url());

    // One is shut down by its page's button.
    shut_down_by_button(&browser, inky, &inky_is).await;
    until_gone(&page, &inky_is).await;
    assert_eq!(states(&page, &inky_is).await, json!(["arriving", "up", "draining", "leaving"]));

    // One is killed, and leaves with its lease.
    clyde.signal(Signal::KILL);
    until_gone(&page, &clyde_is).await;
    assert_eq!(states(&page, &clyde_is).await, json!(["arriving", "up", "leaving"]));

    // The registry goes and comes back.
    registry.kill();
    until_connection(&page, "stale").await;
    until_up(&page, &sue_is).await;
    registry.restart().await;
    until_connection(&page, "live").await;

    // So does the server.
    server.signal(Signal::KILL);
    until_connection(&page, "disconnected").await;
    drop(server);
    let server = server_on(&registry, port.number(), &["--ttl", "20s"]).await;
    until_connection(&page, "live").await;

    until_up(&page, &sue_is).await;
    assert_eq!(states(&page, &sue_is).await, json!(["arriving", "up"]), "it never left");
    page.assert_sound().await;
    drop(server);
}

async fn shut_down_by_button(browser: &Browser, mut ghost: Demo, coordinate: &str) {
    let page = browser.open(ghost.url()).await;
    page.until("document.body.dataset.status === 'active'").await;
    page.until(&format!("document.querySelector('#peers')?.innerText.includes({coordinate:?})")).await;
    page.assert_sound().await;
    page.click("#shutdown").await;
    assert!(ghost.ended().await.success());
}

#[tokio::test]
async fn the_page_is_good_to_look_at() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let port = Port::reserve().unwrap();
    let server = server_on(&zk, port.number(), &[]).await;
    let mut ghosts = Vec::new();
    for name in ["blinky", "pinky", "inky", "clyde", "sue", "blinky", "inky"] {
        ghosts.push(ghost(&zk, &[name]).await);
    }
    let page = browser.open(server.url()).await;
    let own = browser.open(ghosts[0].url()).await;
    own.until("document.body.dataset.status === 'active'").await;
    own.until("document.querySelectorAll('#peers li').length === 2").await;
    own.picture("pac-ghost").await;
    let phone = browser.open_on_phone(server.url()).await;
    until_spread(&phone).await;
    // Nothing sticks out.
    phone.until("innerWidth === 390 && document.documentElement.scrollWidth <= 390").await;
    phone.picture("pac-phone").await;
    until_spread(&page).await;
    http::post(&format!("{}shutdown", ghosts[4].url()), "").await;
    page.until("document.querySelector('[data-state=leaving]') !== null").await;
    page.picture("pac").await;
    zk.kill().unwrap();
    until_connection(&page, "stale").await;
    until_connection(&phone, "stale").await;
    page.picture("pac-stale").await;
    eventually("the ghosts notice as well", async || ghosts[0].state().await["status"] != "active").await;
    for seen in [&page, &phone, &own] {
        seen.assert_sound().await;
    }
}
