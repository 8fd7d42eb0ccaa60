//! Targets that are found by name, and supervisors that are elected, on a registry.

use discovery::{Scope, ServiceName};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    DEADLINE, eventually,
    registry::{Registry, connect},
    simple::server::{Config, SIMPLE, Server, lives, pid, signal},
};

/// All tests of this kind on one kind of registry.
macro_rules! tests_on {
    ($registry:ty) => {
        #[tokio::test]
        async fn a_tree_of_names_comes_up_heals_and_ends() {
            crate::simple::processes::a_tree_of_names_comes_up_heals_and_ends::<$registry>().await;
        }

        #[tokio::test]
        async fn one_supervisor_is_elected_and_another_one_follows() {
            crate::simple::processes::one_supervisor_is_elected_and_another_one_follows::<$registry>().await;
        }
    };
}
pub(crate) use tests_on;

pub(crate) async fn a_tree_of_names_comes_up_heals_and_ends<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let discovery = connect(&registry).await;
    let on = registry.locator();
    let args = ["--backend", &on, "--ttl", "3s"];
    let mut server = Server::tree(&args).await;
    let all = server.all_run().await;
    let names: Vec<_> = all.iter().map(|(path, _)| path.join(" ")).collect();
    assert_eq!(names[..2], ["simple/tree/8080", "simple/tree/8080 simple/tree/8081"]);
    assert!(names.contains(&"simple/tree/9090 simple/tree/9095".to_owned()), "{names:?}");
    let tree = Scope::Subtree("simple/tree".parse().unwrap());
    let mut found = discovery.view(tree).await.unwrap();
    assert_eq!(found.snapshot().len(), 10, "{found:?}");

    let (path, leaf) = all.iter().find(|(path, _)| path.len() == 2).unwrap();
    signal(pid(leaf), Signal::KILL);
    let mut now = all.clone();
    eventually("it is another process, somewhere else", async || {
        now = server.all_run().await;
        now.iter().any(|(known, each)| known == path && each["pid"] != leaf["pid"])
    })
    .await;
    let pids: Vec<_> = now.iter().map(|(_, each)| pid(each)).collect();

    // The top dies, and the next one has all that it had.
    server.0.signal(Signal::KILL);
    server.0.ended().await;
    let server = Server::tree(&args).await;
    eventually("it has adopted them", async || {
        let adopted = server.all_run().await;
        adopted.iter().map(|(_, each)| each["pid"].as_i64()).eq(pids.iter().copied().map(Some))
    })
    .await;
    server.ends_with(&pids).await;
    // The one that was killed may be listed until its lease ends.
    let nobody = found.wait_for(|snapshot, _| snapshot.is_empty());
    timeout(DEADLINE, nobody).await.expect("nobody is left").unwrap();
}

pub(crate) async fn one_supervisor_is_elected_and_another_one_follows<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let name = "shop/web";
    let config = Config::new(&json!({ name: format!("{SIMPLE} - :0") }));
    let on = registry.locator();
    let args = ["--backend", &on, "--ttl", "2s"];
    let (one, other) = tokio::join!(config.serve(&args), config.serve(&args));
    let web = pid_of_both(name, &one, &other).await;
    let service: ServiceName = name.parse().unwrap();
    let discovery = connect(&registry).await;
    assert_eq!(discovery.lookup(&service).await.unwrap().len(), 1, "only one was started");
    let elected = async |server: &Server| server.target(name).await["elected"] == true;
    let (mut first, second) = match (elected(&one).await, elected(&other).await) {
        (true, false) => (one, other),
        (false, true) => (other, one),
        both => panic!("exactly one is elected: {both:?}"),
    };

    // The one that is elected dies; the target lives on, and is the other's.
    first.0.signal(Signal::KILL);
    first.0.ended().await;
    eventually("the other is elected", async || elected(&second).await).await;
    eventually("it has adopted the target", async || second.target(name).await["pid"] == web).await;
    assert!(lives(web));
    signal(web, Signal::KILL);
    let mut next = web;
    eventually("the other starts it again", async || {
        let target = second.target(name).await;
        next = target["pid"].as_i64().unwrap_or(web);
        next != web && target["state"] == "RUNNING"
    })
    .await;
    // Who leaves in order makes room at once.
    second.ends_with(&[web, next]).await;
    let third = config.serve(&args).await;
    let last = pid(&third.until(name, "RUNNING").await);
    third.ends_with(&[last]).await;
}

/// Waits until both see the target run; returns the process that one of them has.
async fn pid_of_both(name: &str, one: &Server, other: &Server) -> i64 {
    let mut web = None;
    for server in [one, other] {
        let seen = server.until(name, "RUNNING").await;
        web = seen["pid"].as_i64().or(web);
    }
    web.expect("one of them has started it")
}
