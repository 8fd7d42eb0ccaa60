//! The page in a real browser.

use discovery_testbed::{Port, ZooKeeper};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    browser::{Browser, Tab},
    demo::Demo,
    registry::name,
    run_state::processes::{Commands, Server},
};

async fn until_connection(page: &Tab, state: &str) {
    page.until(&format!("document.body.dataset.connection === {state:?}")).await;
}

async fn until_state(page: &Tab, state: &str) {
    page.until(&format!("document.querySelector('#run')?.dataset.state === {state:?}")).await;
}

/// A machine by its name.
fn machine(name: &str) -> String {
    format!("[data-machine='{name}']")
}

async fn until_machine(page: &Tab, name: &str, is: &str) {
    page.until(&format!("document.querySelector(`{}`)?.dataset.is === {is:?}", machine(name))).await;
}

async fn until_worker(page: &Tab, label: &str, is: &str) {
    page.until(&format!("document.querySelector(`[data-worker='{label}']`)?.dataset.is === {is:?}")).await;
}

async fn count(page: &Tab, selector: &str) -> Value {
    page.value(&format!("document.querySelectorAll(`{selector}`).length")).await
}

async fn until_count(page: &Tab, selector: &str, count: usize) {
    page.until(&format!("document.querySelectorAll(`{selector}`).length === {count}")).await;
}

/// Writes into a field, as a person does who looks at it.
async fn fill(page: &Tab, selector: &str, text: &str) {
    page.value(&format!(
        "(() => {{ const field = document.querySelector({selector:?}); field.focus(); field.value = {}; }})()",
        json!(text)
    ))
    .await;
}

/// Nothing sticks out.
async fn assert_fits(phone: &Tab) {
    phone.until("innerWidth === 390 && document.documentElement.scrollWidth <= 390").await;
}

#[tokio::test]
async fn the_page_shows_a_run_that_moves_and_workers_that_die() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    let mut server = Server(Demo::start(["run-state", "demo", "--port", "0", "--pace", "600ms"]).await);
    let page = browser.open(server.0.url()).await;
    let phone = browser.open_on_phone(server.0.url()).await;
    until_connection(&page, "live").await;
    assert_eq!(page.value("document.querySelector('#registry').innerText").await, "memory");
    until_count(&page, "[data-run='run-1235']", 1).await;
    until_count(&page, "[data-node]", 3).await;
    until_count(&page, "[data-machine]", 12).await;
    page.until("document.querySelector('[data-machine][data-is=done]') !== null").await;
    // It is where the server has it, and each move is told.
    page.until("document.querySelectorAll('#moves [data-round]').length > 2").await;
    let at =
        "[...document.querySelectorAll('.stop[data-is=present]')].map((stop) => stop.dataset.state).join()
        === document.querySelector('#run').dataset.state";
    page.until(at).await;
    let stops = "[...document.querySelectorAll('.stop')].map((stop) => stop.dataset.state)";
    let stops = page.value(stops).await;
    for state in ["init", "provisioning", "executing", "sending-report", "ready", "finalizing", "terminated"]
    {
        assert!(stops.as_array().unwrap().contains(&json!(state)), "{state} is not in {stops}");
    }

    for worker in ["ada", "grace", "edsger"] {
        until_worker(&page, worker, "alive").await;
    }
    page.click("[data-worker=grace] button").await;
    // It is dead, then it is covered for, and a few seconds later it is back.
    page.until("document.querySelector('[data-worker=grace]')?.dataset.is !== 'alive'").await;
    page.until("document.querySelector('#log').innerText.includes('covering for my buddy grace')").await;
    page.picture("run-state").await;
    until_worker(&page, "grace", "alive").await;
    until_count(&page, "[data-worker]:not(.leaving)", 3).await;

    assert_fits(&phone).await;
    phone.until("document.querySelectorAll('#moves [data-round]').length > 2").await;
    phone.picture("run-state-phone").await;
    server.0.signal(Signal::TERM);
    until_connection(&page, "stale").await;
    assert!(server.0.ended().await.success());
    assert_eq!(count(&page, "[data-machine]").await, 12, "what is known is still shown");
    for seen in [&page, &phone] {
        seen.assert_sound().await;
    }
}

#[tokio::test]
async fn all_can_be_done_on_the_page() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    let server = Server::on_memory().await;
    let page = browser.open(server.0.url()).await;
    until_state(&page, "init").await;

    // A new run.
    page.click("#new summary").await;
    fill(&page, "#create [name=id]", "mine").await;
    fill(&page, "#create [name=topology]", r#"{"a" [1..3], "b": [7]}"#).await;
    page.click("#create button").await;
    page.until("location.hash === '#mine'").await;
    until_count(&page, "[data-machine]", 4).await;
    until_count(&page, "[data-run]", 2).await;
    page.until("document.querySelector('#run-id').innerText === 'mine'").await;

    // A machine is completed, one is added and removed.
    page.click(&machine("a/2")).await;
    until_machine(&page, "a/2", "done").await;
    assert_eq!(server.picture("mine").await["tasks"]["a/2"], true);
    page.click("[data-node=a] [data-do=add]").await;
    until_machine(&page, "a/4", "pending").await;
    page.click("[data-node=b] [data-do=add]").await;
    until_machine(&page, "b/8", "pending").await;
    page.click("[data-node=b] [data-do=remove]").await;
    until_count(&page, &machine("b/8"), 0).await;

    // The rest; and of two that may follow, the one that is chosen.
    for state in ["provisioning", "executing", "sending-report", "ready"] {
        page.click("#complete-all").await;
        until_state(&page, state).await;
        until_count(&page, "[data-machine][data-is=pending]", 5).await;
    }
    page.click(".stop[data-state=finalizing] circle").await;
    page.until("document.querySelector('.stop[data-state=finalizing]').dataset.is === 'next'").await;
    page.click(&machine("a/1")).await;
    until_machine(&page, "a/1", "done").await;
    page.click("#complete-all").await;
    until_state(&page, "finalizing").await;

    // Parameters, also those that others set.
    page.click(&machine("a/3")).await;
    until_machine(&page, "a/3", "done").await;
    page.click(&machine("a/3")).await;
    page.until("document.querySelector('#machine-title').innerText === 'a/3'").await;
    fill(&page, "#param-new [name=name]", "p1").await;
    fill(&page, "#param-new [name=value]", "<b>one</b>").await;
    page.click("#param-new button").await;
    page.until("document.querySelector('[data-param=p1] input')?.value === '<b>one</b>'").await;
    server.does(200, "PUT", "/runs/mine/nodes/a/3/p1", json!({ "value": "two" })).await;
    page.until("document.querySelector('[data-param=p1] input').value === 'two'").await;
    page.picture("run-state-parameters").await;

    // What is refused is said.
    fill(&page, "#param-new [name=name]", "p/1").await;
    fill(&page, "#param-new [name=value]", "x").await;
    page.click("#param-new button").await;
    page.until("document.querySelector('#notice').innerText.includes('p/1')").await;

    // The end of it.
    page.click("#abort").await;
    fill(&page, "#sure [name=cause]", "seen enough").await;
    page.click("#sure button.bad").await;
    until_state(&page, "aborted").await;
    until_count(&page, "[data-machine][data-is=idle]", 5).await;
    page.until("document.querySelector('#moves li').innerText.includes('seen enough')").await;
    page.picture("run-state-aborted").await;
    page.click("#delete").await;
    page.click("#sure button.bad").await;
    until_count(&page, "[data-run=mine]", 0).await;
    page.until("document.querySelector('#run').hidden").await;
    page.click("[data-run='run-1235'] a").await;
    until_state(&page, "init").await;
    page.assert_sound().await;
}

#[tokio::test]
async fn the_page_lives_through_outages_of_the_server_and_the_registry() {
    let Some(browser) = Browser::start_or_skip().await else { return };
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let on = Commands::on(&zk);
    let port = Port::reserve().unwrap();
    let server = on.serve_on(port.number()).await;
    on.ok(&["create", "run-1235", r#"{"node1": [1,2,4], "node2": [2]}"#]).await;
    let page = browser.open(server.0.url()).await;
    let phone = browser.open_on_phone(server.0.url()).await;
    until_connection(&page, "live").await;
    until_state(&page, "init").await;
    assert_eq!(page.value("document.querySelector('#registry').innerText").await, name(&zk));
    until_count(&page, "[data-worker][data-is=alive]", 1).await;
    assert_eq!(count(&page, "[data-worker] button:not([hidden])").await, 0, "nobody here may be killed");

    // Others complete, a worker of theirs is killed.
    let work = on.start(&["work", "--label", "ada", "--ttl", "2s"]);
    until_worker(&page, "ada", "alive").await;
    on.ok(&["complete", "run-1235", "node1", "1", "init", "provisioning"]).await;
    until_machine(&page, "node1/1", "done").await;
    page.click(&machine("node1/4")).await;
    until_machine(&page, "node1/4", "done").await;
    work.signal(Signal::KILL);
    until_count(&page, "[data-worker=ada]:not(.leaving)", 0).await;
    page.until("document.querySelector('#log').innerText.includes('covering for my buddy ada')").await;
    assert_fits(&phone).await;
    phone.picture("run-state-zookeeper-phone").await;

    // The server goes and comes back.
    server.0.signal(Signal::KILL);
    until_connection(&page, "stale").await;
    assert_eq!(count(&page, "[data-machine][data-is=done]").await, 2, "what is known is still shown");
    page.picture("run-state-stale").await;
    drop(server);
    on.ok(&["complete", "run-1235", "node1", "2", "init", "provisioning"]).await;
    let server = on.serve_on(port.number()).await;
    until_connection(&page, "live").await;
    until_machine(&page, "node1/2", "done").await;
    // Whoever was killed with it is covered for.
    until_count(&page, "[data-worker]:not(.leaving)", 1).await;

    // So does the registry.
    zk.kill().unwrap();
    zk.restart().await.unwrap();
    on.ok(&["complete", "run-1235", "node2", "2", "init", "provisioning"]).await;
    for seen in [&page, &phone] {
        until_state(seen, "provisioning").await;
        until_connection(seen, "live").await;
        until_count(seen, "[data-machine][data-is=pending]", 4).await;
        seen.assert_sound().await;
    }
    assert_eq!(page.value("document.querySelectorAll('#moves [data-round]').length").await, 1);
    page.picture("run-state-zookeeper").await;
    drop(server);
}
