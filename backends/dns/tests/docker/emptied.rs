//! A service whose last container has stopped. Docker then knows nothing of its name, and asks the servers further up.

use tokio::time::sleep;

use crate::common::{
    Heard, LOCATOR, SOME_LOOKS, UPSTREAM, UPSTREAM_DNS, UPSTREAM_NETWORK, Watcher, databases, done, start,
    start_with_upstream, up, watcher,
};

const ONE: &str = "database: { image: container, command: [serve, '8000', /database] }";

#[tokio::test]
async fn with_a_server_further_up_that_says_so_it_is_empty() {
    let Some(docker) = start_with_upstream().await else { return };
    let services = [ONE, UPSTREAM, &watcher("watcher", LOCATOR, "teal/database", UPSTREAM_DNS)];
    let teal = up(&docker, "teal", &services, UPSTREAM_NETWORK).await;
    let watcher = Watcher::of(&teal, "watcher", "teal/database").await;
    watcher.until("one", |heard| heard.ids() == ["1"]).await;
    let database = &databases(&teal).await[0];
    let upstream = &teal.containers("upstream").await.unwrap()[0];
    let nobody = |heard: &Heard| heard.what == "delta" && heard.ids().is_empty();
    watcher.sees("stop of the last", teal.stop(database), nobody).await;
    watcher.sees("start of the first", teal.start(database), |heard| heard.ids() == ["1"]).await;
    // What a Swarm has, Compose has not.
    let tasks = teal.exec(upstream, ["/probe", "resolve", "tasks.database"]).await.unwrap_err();
    assert!(tasks.to_string().contains("there is no such name"), "{tasks}");

    watcher.sees("kill of the last", teal.kill(database), nobody).await;
    // Who is nobody stays nobody when there is nobody left to say so.
    let silence = |heard: &Heard| heard.what == "stale" && heard.ids().is_empty();
    watcher.sees("silence further up", teal.kill(upstream), silence).await;
    watcher.sees("start of the first", teal.start(database), |heard| heard.ids() == ["1"]).await;
    assert_eq!(watcher.until("contact", |heard| heard.what == "live").await.ids(), ["1"]);
    done([teal]);
}

#[tokio::test]
async fn with_silence_further_up_nobody_can_tell_and_what_was_known_stays() {
    let Some(docker) = start().await else { return };
    let services = [
        ONE,
        &watcher("watcher", LOCATOR, "teal/database", ""),
        &watcher("prober", &format!("{LOCATOR}&probe=tcp"), "teal/database", ""),
        // Asks for all kinds of records and addresses. Most of these questions Docker sends further up.
        &watcher("asker", "dns://?port=8000&floor=200ms&ceiling=10m", "teal/database", ""),
    ];
    let teal = up(&docker, "teal", &services, "").await;
    let [watcher, prober, asker] = [
        Watcher::of(&teal, "watcher", "teal/database").await,
        Watcher::of(&teal, "prober", "teal/database").await,
        Watcher::of(&teal, "asker", "teal/database").await,
    ];
    for watcher in [&watcher, &prober, &asker] {
        watcher.until("one", |heard| heard.those("up") == ["1"]).await;
    }
    let database = &databases(&teal).await[0];
    let silence = |heard: &Heard| heard.what == "stale";
    watcher.sees("stop of the last", teal.stop(database), silence).await;
    for watcher in [&prober, &asker] {
        watcher.until("silence", silence).await;
    }
    sleep(SOME_LOOKS).await;
    watcher.sees("start of the first", teal.start(database), |heard| heard.what == "live").await;
    for watcher in [&watcher, &prober, &asker] {
        let live = watcher.until("contact", |heard| heard.what == "live").await;
        let heard = watcher.heard().await;
        let known = heard.iter().skip_while(|one| one.ids().is_empty());
        assert!(known.clone().all(|one| one.ids() == ["1"]), "an outage empties nothing: {heard:?}");
        assert_eq!(known.filter(|one| one.what == "stale" && one.at < live.at).count(), 1, "{heard:?}");
    }
    done([teal]);
}
