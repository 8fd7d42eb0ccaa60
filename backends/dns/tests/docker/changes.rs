//! What happens to containers is seen, at the pace of the floor.

use std::time::Duration;

use tokio::time::sleep;

use crate::common::{
    DATABASE, FLOOR, Heard, LOCATOR, SOME_LOOKS, Watcher, databases, done, now, start, up, watcher,
};

/// What two looks take at most, on a machine that is busy with other things.
const TWO_LOOKS: Duration = Duration::from_secs(5);

#[tokio::test]
async fn replicas_come_and_go() {
    let Some(docker) = start().await else { return };
    let services = [
        DATABASE,
        &watcher("watcher", LOCATOR, "blue/database", ""),
        &watcher("patient", &format!("{LOCATOR}&misses=100"), "blue/database", ""),
        // Looks often enough to see containers half gone.
        &watcher("hasty", &LOCATOR.replace("200ms", "10ms"), "blue/database", ""),
    ];
    let blue = up(&docker, "blue", &services, "").await;
    let watcher = Watcher::of(&blue, "watcher", "blue/database").await;
    let patient = Watcher::of(&blue, "patient", "blue/database").await;
    let hasty = Watcher::of(&blue, "hasty", "blue/database").await;
    let containers = databases(&blue).await;
    for watcher in [&watcher, &patient, &hasty] {
        watcher.until("three", |heard| heard.is(&containers)).await;
    }

    let ready = now();
    watcher.sees("scale to 5", blue.scale("database", 5), |heard| heard.ids().len() == 5).await;
    patient.until("five", |heard| heard.ids().len() == 5).await;
    let begin = now();
    let kill = watcher.sees("kill", blue.kill(&containers[1]), |heard| heard.ids() == ["1", "3", "4", "5"]);
    let kill = kill.await;
    assert!(kill.after > FLOOR, "one miss is none: {:?}", kill.after);
    assert!(kill.after < kill.took + TWO_LOOKS, "{:?}", kill.after);
    watcher.sees("start", blue.start(&containers[1]), |heard| heard.ids().len() == 5).await;
    let containers = databases(&blue).await;
    assert!(watcher.last().await.is(&containers));
    // Who is back before it was missing long enough was never gone.
    assert!(patient.last().await.is(&containers));
    assert!(patient.heard().await.iter().filter(|one| one.at > begin).all(|one| one.ids().len() == 5));

    let stop = watcher.sees("stop", blue.stop(&containers[2]), |heard| heard.ids() == ["1", "2", "4", "5"]);
    let stop = stop.await;
    assert!(stop.after < stop.took + TWO_LOOKS, "{:?}", stop.after);
    watcher.sees("scale to 1", blue.scale("database", 1), |heard| heard.ids() == ["1"]).await;
    // Nobody was ever in doubt, and nobody was ever taken for somebody else.
    hasty.until("one", |heard| heard.ids() == ["1"]).await;
    let heard = [watcher.heard().await, hasty.heard().await].concat();
    for heard in heard.iter().filter(|one| one.at > ready) {
        assert_ne!(heard.what, "stale");
        assert!(heard.ids().iter().all(|id| ["1", "2", "3", "4", "5"].contains(id)), "{heard:?}");
    }
    done([blue]);
}

/// Docker lists it all the same. And the kernel of a paused container still accepts connections.
#[tokio::test]
async fn who_is_paused_or_ill_is_down() {
    let Some(docker) = start().await else { return };
    let probing = |probe| format!("{LOCATOR}&probe={probe}&probe_timeout=500ms");
    let services = [
        DATABASE,
        &watcher("getter", &probing("http:/database"), "blue/database", ""),
        &watcher("caller", &probing("tcp"), "blue/database", ""),
        &watcher("reader", LOCATOR, "blue/database", ""),
    ];
    let blue = up(&docker, "blue", &services, "").await;
    let all_up = |heard: &Heard| heard.those("up").len() == 3;
    let second_down = |heard: &Heard| heard.those("down") == ["2"] && heard.those("up") == ["1", "3"];
    let [getter, caller, reader] = [
        Watcher::of(&blue, "getter", "blue/database").await,
        Watcher::of(&blue, "caller", "blue/database").await,
        Watcher::of(&blue, "reader", "blue/database").await,
    ];
    for watcher in [&getter, &caller, &reader] {
        watcher.until("three", all_up).await;
    }
    let begin = now();
    let second = &databases(&blue).await[1];
    let tell = async |how| blue.exec(second, ["/container", "tell", "8000", how]).await.map(|_| ());
    getter.sees("ill", tell("ill"), second_down).await;
    getter.sees("well", tell("well"), all_up).await;
    getter.sees("pause", blue.pause(second), second_down).await;
    sleep(SOME_LOOKS).await;
    assert!(second_down(&getter.last().await));
    getter.sees("unpause", blue.unpause(second), all_up).await;
    for watcher in [&caller, &reader] {
        assert!(watcher.heard().await.iter().all(|one| one.at < begin), "only a GET notices");
    }
    done([blue]);
}
