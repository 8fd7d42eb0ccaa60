//! What happens to containers is seen, at the pace of the floor.

use std::time::Duration;

use crate::common::{LOCATOR, Watcher, addresses, start, up, watch};

fn databases(watcher: &str) -> String {
    format!(
        "services:\n  \
           database: {{ image: container, command: [serve, '8000', /database], scale: 3 }}\n  \
           watcher: {watcher}\n"
    )
}

#[tokio::test]
async fn replicas_come_and_go() {
    let Some(docker) = start().await else { return };
    let blue = up(&docker, "blue", &databases(&watch(LOCATOR, "blue/database"))).await;
    let watcher = Watcher::of(&blue, "watcher", "blue/database").await;
    let all = watcher.until(0, "three", |heard| heard.ids() == ["1", "2", "3"]).await;
    let containers = blue.containers("database").await.unwrap();
    assert_eq!(all.addresses(), addresses(&containers));
    println!("{:#?}", watcher.heard().await);

    watcher.sees("scale to 5", blue.scale("database", 5), |heard| heard.ids().len() == 5).await;
    watcher.sees("kill", blue.kill(&containers[1]), |heard| heard.ids() == ["1", "3", "4", "5"]).await;
    watcher.sees("start", blue.start(&containers[1]), |heard| heard.ids().len() == 5).await;
    watcher.sees("stop", blue.stop(&containers[2]), |heard| heard.ids() == ["1", "2", "4", "5"]).await;
    watcher.sees("scale to 1", blue.scale("database", 1), |heard| heard.ids() == ["1"]).await;
    println!("{:#?}", watcher.heard().await);
    println!("{}", blue.logs(&blue.containers("watcher").await.unwrap()[0]).await.unwrap());
}

#[tokio::test]
async fn who_is_paused_or_ill_is_down() {
    let Some(docker) = start().await else { return };
    let locator = |probe: &str| format!("{LOCATOR}&probe={probe}&probe_timeout=500ms");
    let yaml = format!(
        "{}  dialler: {}\n  bystander: {}\n",
        databases(&watch(&locator("http:/database"), "blue/database")),
        watch(&locator("tcp"), "blue/database"),
        watch(LOCATOR, "blue/database")
    );
    let blue = up(&docker, "blue", &yaml).await;
    let watcher = Watcher::of(&blue, "watcher", "blue/database").await;
    watcher.until(0, "three", |heard| heard.with("up").len() == 3).await;
    let second = &blue.containers("database").await.unwrap()[1];
    let tell = async |state| blue.exec(second, ["/container", "tell", "8000", state]).await.map(|_| ());
    watcher.sees("ill", tell("ill"), |heard| heard.with("down") == ["2"]).await;
    watcher.sees("well", tell("well"), |heard| heard.with("up").len() == 3).await;
    watcher.sees("pause", blue.pause(second), |heard| heard.with("down") == ["2"]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    watcher.sees("unpause", blue.unpause(second), |heard| heard.with("up").len() == 3).await;
    for who in ["dialler", "bystander", "watcher"] {
        println!("{who}: {:#?}", Watcher::of(&blue, who, "blue/database").await.heard().await);
    }
}
