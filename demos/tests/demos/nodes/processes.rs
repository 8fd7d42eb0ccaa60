//! Processes of their own on a real server, and which tests there are on each kind.

use rustix::process::Signal;

use crate::{
    eventually,
    nodes::net::{Net, signal},
    registry::Registry,
};

/// Makes all of them tests on one kind.
macro_rules! tests_on {
    ($registry:ty) => {
        tests_on! { $registry:
            nodes_are_called_by_either_name
            the_lines_of_the_original_are_exact
            a_node_that_dies_is_noticed_and_can_be_revived
            a_node_that_hangs_is_waited_for_no_longer_than_told
            a_node_by_hand_belongs_to_the_others
            nodes_outlive_an_outage_of_the_registry
            the_number_changes_while_all_are_pinged
            who_is_up_can_be_called
            a_partition_is_seen_by_the_nodes
            messages_are_answered_and_logged
            one_that_is_silent_hides_no_other
            projects_do_not_see_each_other
            nodes_end_with_whoever_started_them
        }
    };
    ($registry:ty: $($test:ident)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                crate::nodes::processes::$test::<$registry>().await;
            }
        )+
    };
}
pub(crate) use tests_on;

pub(crate) async fn nodes_are_called_by_either_name<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let _up = net.up(3).await;
    let out = net.ok(&["ping"]).await;
    for node in 1..=3 {
        assert!(out.contains(&format!("my_app-node-{node}  answers 1 in ")), "{out}");
    }
    for part in
        [crate::registry::name(&registry).as_str(), "3 of 3 answer; fastest ", ", median ", ", slowest "]
    {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    for name in ["2", "my_app_node_2", "my_app-node-2", "my-app-node-2"] {
        assert!(net.ok(&["ping", name]).await.contains("1 of 1 answer"), "{name}");
    }
    let out = net.fails(&["ping", "2", "9"], "no answer from node 9 of my_app").await;
    assert!(out.contains("my_app-node-9  does not answer: not there"), "{out}");
    net.fails(&["ping", "your-node-2"], "write 1, my_app-node-1 or my_app_node_1").await;
}

pub(crate) async fn the_lines_of_the_original_are_exact<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let up = net.up(2).await;
    let line = |node: u32| match node {
        ..=2 => format!("Ping my_app_node_{node}\t\t\tGot return code 1\n"),
        _ => format!("Ping my_app_node_{node}\t\t\tmy_app_node_{node} not responding\n"),
    };
    let ten: String = (1..=10).map(line).collect();
    let out = net.fails(&["ping", "--classic"], "no answer from nodes 3, 4, 5, 6, 7, 8, 9, 10").await;
    assert_eq!(out, format!("Running as client...\n{ten}"));
    let out = net.ok(&["ping", "--classic", "--count", "2"]).await;
    assert_eq!(out, format!("Running as client...\n{}{}", line(1), line(2)));
    for line in ["node-2 | Running as server...", "node-2 | Received message: Hello, World!"] {
        assert!(up.out().contains(line), "{}", up.out());
    }
}

pub(crate) async fn a_node_that_dies_is_noticed_and_can_be_revived<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let mut up = net.up(4).await;
    net.signal(3, Signal::KILL).await;
    up.says("node-3 | died: signal: 9").await;
    let out = net.fails(&["ping"], "no answer from node 3 of my_app").await;
    assert!(out.contains("my_app-node-3  does not answer: ") && out.contains("3 of 4 answer"), "{out}");
    assert_eq!(net.ok(&["kill", "my_app_node_2"]).await, "my_app-node-2 is dead\n");
    net.fails(&["kill", "2"], "my_app-node-2 does not run").await;
    net.fails(&["ping"], "no answer from nodes 2, 3 of my_app").await;
    // Also when their leases have ended, and to the others.
    eventually("both are out of the registry", async || {
        let ps = net.ok(&["ps"]).await;
        let is_dead = |node: u32| {
            ps.lines().any(|line| line.starts_with(&format!("my_app-node-{node}  dead (signal: 9")))
        };
        is_dead(2) && is_dead(3)
    })
    .await;
    let out = net.fails(&["ping"], "no answer from nodes 2, 3 of my_app").await;
    assert!(out.contains("my_app-node-3  does not answer: not there"), "{out}");
    eventually("the others have noticed", async || {
        let log = net.ok(&["logs", "1"]).await;
        log.lines().filter(|line| line.contains("node-1 | gone: ")).count() >= 1
    })
    .await;
    // In the words of the dead.
    assert!(net.ok(&["logs", "my_app-node-3"]).await.contains("node-3 | died: signal: 9"));

    assert_eq!(net.ok(&["scale", "4"]).await, "4 nodes are up\n");
    net.all_answer(4).await;
}

pub(crate) async fn a_node_that_hangs_is_waited_for_no_longer_than_told<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let up = net.up(3).await;
    let pid = net.pid(2).await;
    signal(pid, Signal::STOP);
    let out = net.fails(&["ping", "--timeout", "200ms"], "no answer from node 2 of my_app").await;
    assert!(out.contains("my_app-node-2  does not answer: no answer within 200ms"), "{out}");
    eventually("its lease has ended", async || {
        net.run(&["ping", "--timeout", "200ms"])
            .await
            .out
            .contains("my_app-node-2  does not answer: not there")
    })
    .await;
    signal(pid, Signal::CONT);
    net.all_answer(3).await;
    assert!(!up.out().contains("died"), "{}", up.out());
}

pub(crate) async fn a_node_by_hand_belongs_to_the_others<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let mut first = net.start(&["serve", "--index", "1", "--port", "0", "--ttl", "1s"]);
    first.says("Running as server...").await;
    net.all_answer(1).await;
    let mut twin = net.start(&["serve", "--index", "1", "--port", "0", "--ttl", "1s"]);
    eventually("the second one is refused", async || {
        twin.log().contains("another has the place of my-app/node/1")
    })
    .await;
    let mut third = net.start(&["serve", "--index", "3", "--port", "0", "--ttl", "1s"]);
    first.says("here: node 3").await;
    // Numbers have no gaps.
    let out = net.fails(&["ping"], "no answer from node 2 of my_app").await;
    assert!(out.contains("2 of 3 answer"), "{out}");
    third.signal(Signal::TERM);
    assert!(third.ended().await.success());
    first.says("gone: node 3").await;

    // Nobody runs them together, so each has its own words.
    assert!(net.ok(&["logs"]).await.contains("node-1 | gone: node 3"));
    net.fails(&["kill", "1"], "no `up` of my_app is running").await;
    first.signal(Signal::KILL);
    first.ended().await;
    eventually("the second one takes its place", async || twin.log().contains("node/1 is registered")).await;
    net.all_answer(1).await;
    twin.signal(Signal::INT);
    assert!(twin.ended().await.success());
    assert_eq!(net.ok(&["ps"]).await, "");
}

pub(crate) async fn nodes_outlive_an_outage_of_the_registry<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let up = net.up(2).await;
    registry.kill();
    let name = crate::registry::name(&registry);
    net.fails(&["ping"], &name).await;
    eventually("the nodes say so", async || up.out().contains(&format!("{name} is not reachable"))).await;
    registry.restart().await;
    net.all_answer(2).await;
    // Whoever runs them has to be registered again as well.
    eventually("their number can be changed", async || net.run(&["scale", "3"]).await.code == Some(0)).await;
    net.all_answer(3).await;
    assert!(!up.out().contains("died"), "{}", up.out());
}

pub(crate) async fn the_number_changes_while_all_are_pinged<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let _up = net.up(3).await;
    let mut pings = net.start(&["ping", "--every", "20ms", "--timeout", "10s"]);
    pings.says("3 of 3 answer").await;
    for (size, summary) in [(6, "6 of 6 answer"), (2, "2 of 2 answer"), (5, "5 of 5 answer")] {
        assert_eq!(net.ok(&["scale", &size.to_string()]).await, format!("{size} nodes are up\n"));
        pings.says(summary).await;
    }
    pings.signal(Signal::INT);
    let ended = pings.ended().await;
    assert!(ended.success() && pings.out().contains("rounds, and all answered in each"), "{}", pings.out());
    // Nobody was started anew.
    assert!(!net.ok(&["logs", "1"]).await.contains("died"));
}

/// Once they are said to be, and no matter who else is there.
pub(crate) async fn who_is_up_can_be_called<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let _up = net.up(3).await;
    let mut stranger = net.start(&["serve", "--index", "9", "--port", "0", "--ttl", "1s"]);
    stranger.says("here: ").await;
    // The lease of the dead one is still there.
    for _ in 0..6 {
        net.ok(&["kill", "3"]).await;
        assert_eq!(net.ok(&["scale", "3"]).await, "3 nodes are up\n");
        // The others may not know of it yet.
        net.ok(&["ping", "3"]).await;
    }
    // Who is dead is gone, too.
    net.ok(&["kill", "3"]).await;
    assert_eq!(net.ok(&["scale", "2"]).await, "2 nodes are up\n");
    assert!(!net.ok(&["ps"]).await.contains("node-3"));
}

pub(crate) async fn a_partition_is_seen_by_the_nodes<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let _up = net.up(4).await;
    let told = net.ok(&["partition", "1", "my_app_node_2"]).await;
    assert_eq!(told, "nodes 1, 2 and the others cannot reach each other\n");
    let reason = "all nodes of my_app answer, but not all reach each other";
    let out = net.fails(&["ping", "--matrix"], reason).await;
    for part in [
        "4 of 4 answer",
        "    1 2 3 4\n  1 · + x x\n  2 + · x x\n  3 x x · +\n  4 x x + ·\n",
        "nodes 1, 2 cannot reach nodes 3, 4",
        "nodes 3, 4 cannot reach nodes 1, 2",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    // Those who come later keep to it as well, on both sides.
    net.ok(&["kill", "1"]).await;
    net.ok(&["kill", "3"]).await;
    net.ok(&["scale", "5"]).await;
    let matrix = "  1 · + x x x\n  2 + · x x x\n  3 x x · + +\n  4 x x + · +\n  5 x x + + ·\n";
    eventually("the new ones are where the dead ones were", async || {
        net.run(&["ping", "--matrix"]).await.out.contains(matrix)
    })
    .await;
    net.ok(&["heal"]).await;
    net.ok(&["kill", "1"]).await;
    net.ok(&["scale", "5"]).await;
    net.all_answer(5).await;
    assert!(net.ok(&["ping", "--matrix"]).await.contains("  5 + + + + ·\n"));
}

pub(crate) async fn messages_are_answered_and_logged<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let _up = net.up(2).await;
    let mut attached = net.start(&["attach", "my_app_node_2"]);
    attached.says("my_app-node-2: type a message").await;
    attached.tell("how are you?").await;
    attached.says("Got return code 1 in ").await;
    attached.says("node-2 | Received message: how are you?").await;
    // What others say to it is seen as well.
    net.ok(&["ping", "2", "--message", "psst"]).await;
    attached.says("node-2 | Received message: psst").await;
    attached.hang_up();
    assert!(attached.ended().await.success());

    let mut logs = net.start(&["logs", "--follow", "2"]);
    logs.says("node-2 | Received message: how are you?").await;
    net.ok(&["ping", "--message", "later"]).await;
    logs.says("node-2 | Received message: later").await;
    assert!(!logs.out().contains("node-1 |"), "{}", logs.out());

    let mut attached = net.start(&["attach", "1"]);
    attached.says("my_app-node-1: type a message").await;
    net.signal(1, Signal::KILL).await;
    let ended = attached.ended().await;
    assert!(
        !ended.success() && attached.log().contains("my_app-node-1: the connection broke"),
        "{attached:?}"
    );
}

pub(crate) async fn one_that_is_silent_hides_no_other<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    // Nobody runs these together, so each is asked.
    let [mut first, mut second] =
        ["1", "2"].map(|node| net.start(&["serve", "--index", node, "--port", "0", "--ttl", "30s"]));
    first.says("here: node 2").await;
    let mut logs = net.start(&["logs", "--follow"]);
    logs.says("node-2 | Running as server...").await;
    second.signal(Signal::STOP);
    let out = net.fails(&["logs", "--timeout", "200ms"], "no answer from node 2 of my_app").await;
    assert!(out.contains("node-1 | here: node 2") && !out.contains("node-2 |"), "{out}");
    second.signal(Signal::KILL);
    second.ended().await;
    eventually("it is noticed", async || logs.log().contains("my_app-node-2: the connection broke")).await;
    net.ok(&["ping", "1", "--message", "later"]).await;
    logs.says("node-1 | Received message: later").await;

    // Nor does whoever started them.
    let net = net.project("green");
    let up = net.start(&["up", "2", "--ttl", "30s"]);
    net.all_answer(2).await;
    up.signal(Signal::STOP);
    let out = net.fails(&["ps"], "whoever started the nodes: no answer within 2s").await;
    assert!(out.contains("green-node-1  up") && out.contains("green-node-2  up"), "{out}");
    up.signal(Signal::CONT);
}

pub(crate) async fn projects_do_not_see_each_other<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let (blue, green) = (Net::on(&registry).project("blue"), Net::on(&registry).project("green"));
    let (mut of_blue, _of_green) = (blue.up(2).await, green.up(1).await);
    let out = blue.ok(&["ping"]).await;
    assert!(out.contains("blue-node-2") && !out.contains("green"), "{out}");
    assert!(green.ok(&["ping"]).await.contains("1 of 1 answer"));
    blue.fails(&["up", "1", "--ttl", "1s"], "the nodes of blue are up already").await;

    of_blue.signal(Signal::TERM);
    assert!(of_blue.ended().await.success());
    blue.fails(&["ping"], "no node of blue is on ").await;
    blue.fails(&["scale", "3"], "no `up` of blue is running").await;
    green.all_answer(1).await;
}

pub(crate) async fn nodes_end_with_whoever_started_them<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let net = Net::on(&registry);
    let mut up = net.up(3).await;
    up.signal(Signal::KILL);
    up.ended().await;
    eventually("all have left", async || net.ok(&["ps"]).await.is_empty()).await;
    // Its own lease may still be there.
    let mut up = net.up(2).await;

    // Also for much longer than the next one asks for.
    up.signal(Signal::TERM);
    up.ended().await;
    let mut up = net.start(&["up", "1", "--ttl", "5s"]);
    net.all_answer(1).await;
    up.signal(Signal::KILL);
    up.ended().await;
    let heir = net.start(&["up", "2", "--ttl", "300ms"]);
    eventually("it says what it waits for", async || heir.log().contains("waiting for its lease to end"))
        .await;
    net.all_answer(2).await;
}
