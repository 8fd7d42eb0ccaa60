//! The commands, one after the other, as the description of the original has them and beyond.

use crate::{
    registry::Registry,
    run_state::processes::{Commands, TOPOLOGY},
};

pub(crate) async fn the_flow_of_the_original_goes_on_to_its_end<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let on = Commands::on(&registry);
    on.says(&["list"], &["There are no runs"]).await;
    on.says(&["create", "run-1235", TOPOLOGY], &["Creating nodes...", "Done!", "state init"]).await;
    on.says(&["create", "edn", r#"{"node1" [1 2 4], "node2" [2]}"#], &["Creating nodes...", "Done!"]).await;
    on.refuses(&["create", "run-1235", r#"{"a": [1]}"#], "Run already exists! (run-1235)").await;

    let mut waiting = on.start(&["wait", "run-1235"]);
    let mut patient = on.start(&["wait", "run-1235", "--until", "executing"]);
    waiting.says("Waiting for state change...").await;
    patient.says("Waiting for state change...").await;

    let complete = ["complete", "run-1235"];
    let one = async |node: &str, index: &str, words: &[&str]| {
        let args = [&complete[..], &[node, index, "init", "provisioning"]].concat();
        on.says(&args, &[&["Completing node state...", "Done!"], words].concat()).await;
    };
    one("node1", "1", &["not completed", "missing: node1/2, node1/4, node2/2"]).await;
    one("node1", "1", &["not completed", "which it had before"]).await;
    one("node1", "2", &["not completed", "missing: node1/4, node2/2"]).await;
    one("node1", "4", &["not completed", "missing: node2/2"]).await;
    // As the original had it: this one does not exist.
    on.refuses(&[&complete[..], &["node2", "1", "init", "provisioning"]].concat(), "no task \"node2/1\"")
        .await;
    on.says(
        &["walk", "run-1235"],
        &["node1  ● 1  ● 2  ● 4", "node2  ○ 2", "3 of 4 have reported, 1 have not"],
    )
    .await;
    waiting.says("\n.").await;
    one("node2", "2", &["\ncompleted!", "run-1235 is now provisioning"]).await;

    waiting.says("\nState changed to: provisioning\nDone!").await;
    assert!(waiting.ended().await.success());
    patient.says("State changed to: provisioning").await;
    // Too late, and not for the first time: nothing happens.
    one("node1", "4", &["not completed", "which it had before; run-1235 is in provisioning by now"]).await;
    let walk = on.ok(&["walk", "run-1235"]).await;
    for part in ["run-1235  provisioning  round 2", "0 of 4", "round 1: init to provisioning (node2/2)"] {
        assert!(walk.contains(part), "{part:?} is not in {walk}");
    }

    // Steps that the table does not have, and steps from where the run is not.
    let step = |from, to| [&complete[..], &["node1", "1", from, to]].concat();
    on.refuses(&step("provisioning", "terminated"), "\"terminated\"").await;
    on.refuses(&step("provisioning", "nonsense"), "\"nonsense\"").await;
    on.refuses(&step("executing", "sending-report"), "is in state \"provisioning\"").await;
    let list = on.ok(&["list"]).await;
    assert!(list.contains("edn       init  round 1\nrun-1235  provisioning  round 2"), "{list}");

    on.ok(&["abort", "run-1235", "for a test"]).await;
    // What he waited for will never be.
    assert_eq!(patient.ended().await.code(), Some(1));
    assert!(patient.out().ends_with("State changed to: aborted\n"), "{}", patient.out());
    assert!(patient.log().contains("run-1235 is over in state aborted"), "{}", patient.log());
}

pub(crate) async fn a_run_is_scaled_aborted_and_deleted<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let on = Commands::on(&registry);
    let states = ["--states", "init,running,done"];
    on.ok(&[&["create", "r", r#"{"node1": [1,2], "node2": [2]}"#], &states[..]].concat()).await;
    on.says(&["complete", "r", "node1", "1", "init", "running"], &["not completed"]).await;
    on.says(
        &["scale", "r", "--add", "node1/3", "node3/1", "node1/1"],
        &["node1/3 added\nnode3/1 added\nnode1/1 was there already\nDone!"],
    )
    .await;
    on.says(&["walk", "r"], &["node1  ● 1  ○ 2  ○ 3", "node2  ○ 2", "node3  ○ 1", "1 of 5"]).await;
    on.says(
        &["scale", "r", "--add", "node4/1", "--remove", "node3/1", "node9/9"],
        &["node4/1 added\nnode3/1 removed\nnode9/9 was not there\nDone!"],
    )
    .await;
    for (node, index) in [("node1", "2"), ("node1", "3"), ("node2", "2")] {
        on.says(&["complete", "r", node, index, "init", "running"], &["not completed"]).await;
    }
    // All that are left are done.
    on.says(
        &["scale", "r", "--remove", "node4/1"],
        &["node4/1 removed: all others were done, so the run moved"],
    )
    .await;
    on.says(&["walk", "r"], &["r  running  round 2", "0 of 4", "init to running (node4/1 removed)"]).await;

    on.says(&["abort", "r", "enough of it"], &["r is aborted"]).await;
    on.says(&["abort", "r", "again"], &["r is aborted"]).await;
    on.says(&["walk", "r"], &["r  aborted  round 3", "round 2: running to aborted (enough of it)"]).await;
    on.refuses(&["complete", "r", "node1", "1", "running", "done"], "is in state \"aborted\"").await;
    on.refuses(&["scale", "r", "--add", "node1/9"], "is over").await;

    on.says(&["create", "s", r#"{"a": [1]}"#, "--states", "only,end"], &["state only"]).await;
    let mut waiting = on.start(&["wait", "s"]);
    waiting.says("s is in state only").await;
    on.says(&["complete", "s", "a", "1", "only", "end"], &["completed!"]).await;
    assert!(waiting.ended().await.success());
    on.refuses(&["abort", "s"], "is over").await;

    on.refuses(&["wait", "s"], "s is over in state end").await;

    on.says(&["delete", "s"], &["s is deleted"]).await;
    on.says(&["create", "s", r#"{"a": [1]}"#], &["state init"]).await;
    let mut waiting = on.start(&["wait", "s"]);
    waiting.says("s is in state init").await;
    on.says(&["delete", "s"], &["s is deleted"]).await;
    assert_eq!(waiting.ended().await.code(), Some(1));
    assert!(waiting.log().contains("run s was deleted"), "{}", waiting.log());
    on.says(&["delete", "s"], &["s did not exist"]).await;
    for args in [&["walk", "s"][..], &["abort", "s"], &["wait", "s"], &["scale", "s", "--add", "a/1"]] {
        on.refuses(args, "no run s").await;
    }
    on.refuses(&["complete", "s", "a", "1", "only", "end"], "no run s").await;
    assert_eq!(on.ok(&["list"]).await, "r  aborted  round 3\n");
    // A name is free again.
    on.says(&["create", "s", r#"{"a": [1]}"#], &["state init"]).await;
}

pub(crate) async fn a_registry_that_is_down_is_named_in_time<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    registry.kill();
    let on = Commands::on(&registry);
    let reason = format!("{} did not answer within 300ms; is it running?", crate::registry::name(&registry));
    for args in [
        &["list"][..],
        &["create", "r", r#"{"a": [1]}"#],
        &["complete", "r", "a", "1", "init", "provisioning"],
        &["wait", "r"],
    ] {
        on.refuses(&[&["--patience", "300ms"], args].concat(), &reason).await;
    }
}
