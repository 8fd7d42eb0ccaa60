//! Projects that have a service of the same name.

use tokio::time::sleep;

use crate::common::{
    DATABASE, LOCATOR, SOME_LOOKS, UPSTREAM, UPSTREAM_DNS, UPSTREAM_NETWORK, Watcher, addresses, databases,
    done, start, start_with_upstream, up, watcher,
};

#[tokio::test]
async fn the_project_is_the_namespace() {
    let Some(docker) = start().await else { return };
    let blue = up(&docker, "blue", &[DATABASE], "").await;
    let green = up(&docker, "green", &[DATABASE], "").await;
    let followed = "blue/database green/database database";
    let services = [&*watcher("watcher", LOCATOR, followed, ", networks: [blue, green]")];
    let networks = "networks: { blue: { external: true, name: blue_default }, \
        green: { external: true, name: green_default } }";
    let ops = up(&docker, "ops", &services, networks).await;
    let of_blue = Watcher::of(&ops, "watcher", "blue/database").await;
    let of_green = Watcher::of(&ops, "watcher", "green/database").await;
    let containers = [databases(&blue).await, databases(&green).await];
    of_blue.until("three of blue", |heard| heard.is(&containers[0])).await;
    of_green.until("three of green", |heard| heard.is(&containers[1])).await;
    // By its own name alone a service is that of one network: the first by name that has it.
    let of_any = Watcher::of(&ops, "watcher", "database").await;
    let heard = of_any.until("three", |heard| heard.ids().len() == 3).await;
    assert_eq!(heard.ids(), ["blue-database-1", "blue-database-2", "blue-database-3"]);
    assert_eq!(heard.addresses(), addresses(&containers[0]));

    // A guest on a project's network is none of its replicas, also where it has the name of the service.
    let guest = ["network", "connect", "--alias", "database", "blue_default", containers[1][0].id()];
    let guest = async { docker.run(guest).await.map(|_| ()) };
    of_any.sees("a guest", guest, |heard| heard.ids().contains(&"green-database-1")).await;
    sleep(SOME_LOOKS).await;
    assert!(of_blue.last().await.is(&containers[0]));

    of_blue.sees("kill", blue.kill(&containers[0][0]), |heard| heard.ids() == ["2", "3"]).await;
    of_green.sees("scale to 1", green.scale("database", 1), |heard| heard.ids() == ["1"]).await;
    assert_eq!(of_blue.last().await.ids(), ["2", "3"]);
    done([blue, green, ops]);
}

#[tokio::test]
async fn on_a_network_that_projects_share_their_replicas_are_told_apart() {
    let Some(docker) = start().await else { return };
    docker.run(["network", "create", "mesh"]).await.unwrap();
    let mesh = "networks: { default: { external: true, name: mesh } }";
    let blue = up(&docker, "blue", &[DATABASE], mesh).await;
    let green = up(&docker, "green", &[DATABASE], mesh).await;
    let followed = "blue/database green/database mesh/database database";
    let ops = up(&docker, "ops", &[&watcher("watcher", LOCATOR, followed, "")], mesh).await;
    let containers = [databases(&blue).await, databases(&green).await];
    for (service, containers) in ["blue/database", "green/database"].into_iter().zip(&containers) {
        let watcher = Watcher::of(&ops, "watcher", service).await;
        watcher.until(service, |heard| heard.is(containers)).await;
    }
    for service in ["mesh/database", "database"] {
        let watcher = Watcher::of(&ops, "watcher", service).await;
        let heard = watcher.until("all", |heard| heard.ids().len() == 6).await;
        assert_eq!(heard.addresses(), addresses(&containers.concat()), "{service}");
        assert!(heard.ids().contains(&"green-database-3"), "{heard:?}");
    }

    // The name is still the other project's, so nobody further up is asked for it, and blue's is known to be empty.
    let watcher = Watcher::of(&ops, "watcher", "blue/database").await;
    watcher.sees("scale to 0", blue.scale("database", 0), |heard| heard.ids().is_empty()).await;
    assert!(Watcher::of(&ops, "watcher", "green/database").await.last().await.is(&containers[1]));
    done([blue, green, ops]);
}

/// As on a network that they were put on by hand, where they have no other.
#[tokio::test]
async fn replicas_are_found_by_their_own_names_in_both_spellings() {
    let Some(docker) = start_with_upstream().await else { return };
    let blue = up(&docker, "blue", &[DATABASE], "").await;
    let services = [UPSTREAM, &watcher("watcher", LOCATOR, "blue/database", UPSTREAM_DNS)];
    let ops = up(&docker, "ops", &services, UPSTREAM_NETWORK).await;
    let watcher = Watcher::of(&ops, "watcher", "blue/database").await;
    watcher.until("nobody", |heard| heard.what != "stale").await;
    let run = async |command: &str| docker.run(command.split(' ')).await.map(|_| ());
    let connect = run("network connect ops_default blue_database_1");
    watcher.sees("underscores", connect, |heard| heard.ids() == ["1"]).await;
    // As the second version of Compose would have called it.
    run("rename blue_database_2 blue-database-2").await.unwrap();
    let connect = run("network connect ops_default blue-database-2");
    watcher.sees("hyphens", connect, |heard| heard.ids() == ["1", "2"]).await;
    let connect = run("network connect ops_default blue_database_3");
    watcher.sees("underscores", connect, |heard| heard.ids() == ["1", "2", "3"]).await;

    // Whatever it is called, it is the same one.
    let heard = watcher.last().await;
    run("rename blue_database_3 blue-database-3").await.unwrap();
    run("rename blue-database-2 blue_database_2").await.unwrap();
    sleep(SOME_LOOKS).await;
    assert_eq!(watcher.last().await.at, heard.at);
    done([blue, ops]);
}
