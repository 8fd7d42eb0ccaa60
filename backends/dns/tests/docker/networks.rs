//! Networks and addresses: who leaves one, comes back, or gets what was somebody else's.

use tokio::time::sleep;

use crate::common::{DATABASE, Heard, LOCATOR, SOME_LOOKS, Watcher, databases, done, start, up, watcher};

#[tokio::test]
async fn who_leaves_the_network_is_gone_until_it_is_back_with_the_name_of_the_service() {
    let Some(docker) = start().await else { return };
    let services = [DATABASE, &watcher("watcher", LOCATOR, "blue/database", "")];
    let blue = up(&docker, "blue", &services, "").await;
    let watcher = Watcher::of(&blue, "watcher", "blue/database").await;
    let all = |heard: &Heard| heard.ids().len() == 3;
    let without_second = |heard: &Heard| heard.ids() == ["1", "3"];
    watcher.until("three", all).await;
    let second = &databases(&blue).await[1];
    watcher.sees("disconnect", blue.disconnect(second, "default"), without_second).await;
    watcher.sees("connect", blue.connect(second, "default", &["database"]), all).await;
    assert!(watcher.last().await.is(&databases(&blue).await));
    watcher.sees("disconnect", blue.disconnect(second, "default"), without_second).await;
    blue.connect(second, "default", &[]).await.unwrap();
    sleep(SOME_LOOKS).await;
    assert!(without_second(&watcher.last().await), "it is there, and not as a replica of the service");
    done([blue]);
}

#[tokio::test]
async fn an_instance_is_a_container_and_not_its_address() {
    let Some(docker) = start().await else { return };
    let stranger = "stranger: { image: container, command: [serve, '8000', /stranger], scale: 0 }";
    let services = [
        DATABASE,
        stranger,
        &watcher("watcher", LOCATOR, "blue/database", ""),
        // Holds on to what is missing from DNS.
        &watcher("patient", &format!("{LOCATOR}&misses=100"), "blue/database", ""),
    ];
    let blue = up(&docker, "blue", &services, "").await;
    let watcher = Watcher::of(&blue, "watcher", "blue/database").await;
    let patient = Watcher::of(&blue, "patient", "blue/database").await;
    let before = databases(&blue).await;
    watcher.until("three", |heard| heard.is(&before)).await;
    patient.until("three", |heard| heard.is(&before)).await;

    watcher.sees("kill", blue.kill(&before[1]), |heard| heard.ids() == ["1", "3"]).await;
    blue.scale("stranger", 1).await.unwrap();
    let stranger = &blue.containers("stranger").await.unwrap()[0];
    assert_eq!(stranger.address(), before[1].address(), "Docker gives an address to the next one");
    sleep(SOME_LOOKS).await;
    assert_eq!(watcher.last().await.ids(), ["1", "3"]);
    assert!(patient.last().await.is(&before), "nobody tells who still believes in the dead");

    watcher.sees("start", blue.start(&before[1]), |heard| heard.ids() == ["1", "2", "3"]).await;
    let after = databases(&blue).await;
    assert_ne!(after[1].address(), before[1].address());
    assert!(watcher.last().await.is(&after));
    patient.until("the new address", |heard| heard.is(&after)).await;
    done([blue]);
}
