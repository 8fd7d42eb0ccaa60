//! One supervisor and its targets: how they are started, watched and brought to an end.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::Stdio,
};

use discovery_testbed::Port;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Instant, timeout},
};

use crate::{
    DEADLINE,
    demo::{Demo, run},
    eventually,
    simple::server::{Config, FAST, SIMPLE, Server, leaf, lives, pid, signal, until_gone},
};

/// Says that it is ready, and does not end when it is asked to.
const STUBBORN: [&str; 3] = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"];

/// A server that looks after one leaf.
async fn pair(args: &[&str]) -> (Config, Server, String, Port) {
    let port = Port::reserve().unwrap();
    let (target, command) = leaf(&port);
    let config = Config::new(&json!({ &target: command }));
    let server = config.serve(args).await;
    (config, server, target, port)
}

#[tokio::test]
async fn who_cannot_be_started_is_given_up_and_can_be_started_by_hand() {
    let [gone, missing] = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
    let config = Config::new(&json!({ gone: ["sh", "-c", "exit 3"], missing: "/no/such/program" }));
    let server = config.serve(&["--starts", "4"]).await;
    for (target, why) in [(gone, "it exited with 3"), (missing, "could not be started")] {
        let failed = server.until(target, "FAILED").await;
        assert_eq!(failed["restarts"], 3, "{failed}");
        assert!(failed["lastError"]["what"].as_str().unwrap().contains(why), "{failed}");
        assert!(failed["lastError"]["at"].as_str() <= failed["since"].as_str(), "{failed}");
    }
    assert_eq!(server.get(&format!("provision?target={gone}")).await.status, 200);
    eventually("it is tried as often again", async || server.target(gone).await["restarts"] == 7).await;
    server.until(gone, "FAILED").await;
    assert_eq!(server.target(missing).await["restarts"], 3);
    server.ends_with(&[]).await;
}

#[tokio::test]
async fn a_death_is_noticed_at_once() {
    // Asked so seldom that nobody would notice.
    let pace = ["--start-delay", "200ms", "--poll-interval", "30s"];
    let port = Port::reserve().unwrap();
    let (target, command) = leaf(&port);
    let server = Config::new(&json!({ &target: command })).serve_at(&pace, &[]).await;
    let first = server.until(&target, "RUNNING").await;
    let before = Instant::now();
    signal(pid(&first), Signal::KILL);
    let mut second = first.clone();
    eventually("there is another process", async || {
        second = server.target(&target).await;
        second["pid"].is_i64() && second["pid"] != first["pid"]
    })
    .await;
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    assert_eq!(
        (&second["restarts"], &second["lastError"]["what"]),
        (&json!(1), &json!("it was killed by signal 9"))
    );
    server.ends_with(&[pid(&second)]).await;
}

#[tokio::test]
async fn who_is_asked_seldom_is_started_once() {
    let port = Port::reserve().unwrap();
    let (target, command) = leaf(&port);
    let pace = ["--start-delay", "200ms", "--poll-interval", "1h"];
    let server = Config::new(&json!({ &target: command })).serve_at(&pace, &[]).await;
    let well = server.until(&target, "RUNNING").await;
    assert_eq!(well["restarts"], 0, "{well}");
    server.ends_with(&[pid(&well)]).await;
}

#[tokio::test]
async fn who_hangs_is_killed_and_keeps_nobody_else() {
    let (_config, server, target, _port) = pair(&[]).await;
    let hangs = pid(&server.until(&target, "RUNNING").await);
    signal(hangs, Signal::STOP);
    server.until(&target, "ERROR").await;
    assert_eq!(server.get("").await.status, 503);
    until_gone(hangs).await;
    // Not within the time that others have to end in.
    let log = server.0.log();
    assert!(log.contains(&format!("{target} hangs, and has not ended within 1s")), "{log}");
    let well = server.until(&target, "RUNNING").await;
    assert!(well["lastError"]["what"].as_str().unwrap().contains("does not answer"), "{well}");
    server.ends_with(&[pid(&well)]).await;
}

#[tokio::test]
async fn targets_come_up_and_end_in_their_order() {
    let ports = [Port::reserve().unwrap(), Port::reserve().unwrap(), Port::reserve().unwrap()];
    let [(web, run_web), (cache, run_cache), (db, run_db)] = ports.each_ref().map(leaf);
    let config = Config::new(&json!({
        &web: { "command": run_web, "after": [&cache, &db] },
        &cache: { "command": run_cache, "after": [&db] },
        &db: run_db,
    }));
    let server = config.serve(&[]).await;
    let waiting = server.until(&web, "WAITING").await;
    assert!([&cache, &db].iter().any(|first| waiting["waitsFor"] == **first), "{waiting}");
    let mut pids = Vec::new();
    for target in [&web, &cache, &db] {
        pids.push(pid(&server.until(target, "RUNNING").await));
    }
    let mut server = server;
    server.0.signal(Signal::TERM);
    assert!(server.0.ended().await.success());
    let log = server.0.log();
    let order = |what: &dyn Fn(&str) -> String| {
        [&db, &cache, &web].map(|target| log.find(&what(target)).unwrap_or_else(|| panic!("{target}: {log}")))
    };
    assert!(order(&|target| format!("{target}: starting")).is_sorted(), "{log}");
    assert!(order(&|target| format!("{target} exited")).iter().rev().is_sorted(), "{log}");
    assert!(!pids.into_iter().any(lives));
}

#[tokio::test]
async fn who_does_not_end_is_killed() {
    let stubborn = "http://127.0.0.1:1";
    let config = Config::new(&json!({ stubborn: STUBBORN }));
    let mut server = config.serve(&["--stop-limit", "300ms"]).await;
    let pid = pid(&server.until(stubborn, "PROVISIONING").await);
    server.0.says("1 | ready").await;
    server.0.signal(Signal::TERM);
    assert!(server.0.ended().await.success());
    let log = server.0.log();
    // It was asked first.
    assert!(log.contains(&format!("{stubborn} has not ended within 300ms")), "{log}");
    assert!(!lives(pid));
}

#[tokio::test]
async fn who_is_told_to_end_twice_ends_once() {
    let stubborn = "http://127.0.0.1:1";
    let config = Config::new(&json!({ stubborn: ["sh", "-c", "trap '' TERM; echo ready; sleep 60"] }));
    let mut server = config.serve(&["--stop-limit", "1s"]).await;
    let pid = pid(&server.until(stubborn, "PROVISIONING").await);
    server.0.says("1 | ready").await;
    // It waits for its target, and still answers.
    for way in ["kill?tree=true", "kill?tree=true", "kill"] {
        assert_eq!(server.get(way).await.status, 200, "{way}");
    }
    assert!(server.0.ended().await.success());
    assert!(!lives(pid));
}

#[tokio::test]
async fn variables_are_as_good_as_flags_and_are_passed_on() {
    let print = "env | grep ^SIMPLE_; echo that is all; sleep 60";
    let config = Config::new(&json!({ "http://127.0.0.1:1": ["sh", "-c", print] }));
    let env = [
        ("SIMPLE_START_DELAY", "150ms"),
        ("SIMPLE_POLL_INTERVAL", ".25s"),
        ("SIMPLE_STOP_LIMIT", "3s"),
        ("SIMPLE_STARTS", "5"),
        ("SIMPLE_TTL", "1.5s"),
    ];
    let mut server = Server(Demo::start_with(&env, ["simple", &config.path(), ":0"]).await);
    server.0.says("1 | that is all").await;
    let out = server.0.out();
    let mut lines: Vec<_> =
        out.lines().filter_map(|line| line.trim_start().strip_prefix("1 | SIMPLE_")).collect();
    lines.sort_unstable();
    // By which orphans are known, and no choice of anybody.
    lines.retain(|line| !line.starts_with("SUPERVISOR="));
    assert_eq!(
        lines,
        [
            "POLL_INTERVAL=250000us",
            "STARTS=5",
            "START_DELAY=150000us",
            "STOP_LIMIT=2000000us",
            "TARGET=http://127.0.0.1:1",
            "TTL=1500ms"
        ]
    );
    server.ends_with(&[]).await;
}

#[tokio::test]
async fn what_targets_print_is_passed_on_to_the_last_word() {
    let loud = "http://127.0.0.1:1";
    let script = "echo first; echo second >&2; seq 1 20000; printf 'the end'; exit 0";
    let config = Config::new(&json!({ loud: ["sh", "-c", script] }));
    let server = config.serve(&["--starts", "1"]).await;
    server.until(loud, "FAILED").await;
    let out = server.0.out();
    let lines: Vec<_> = out.lines().filter_map(|line| line.trim_start().strip_prefix("1 | ")).collect();
    assert_eq!(lines.len(), 20_003);
    assert_eq!((lines[0], lines[1], lines[20_001], lines[20_002]), ("first", "second", "20000", "the end"));
    server.ends_with(&[]).await;
}

#[tokio::test]
async fn orphans_are_adopted() {
    let (config, mut server, target, _port) = pair(&[]).await;
    let orphan = pid(&server.until(&target, "RUNNING").await);
    server.0.signal(Signal::KILL);
    server.0.ended().await;
    assert!(lives(orphan));
    let server = config.serve(&[]).await;
    eventually("the next one has it", async || server.target(&target).await["pid"] == orphan).await;
    assert_eq!(server.until(&target, "RUNNING").await["restarts"], 0);
    // Its end is noticed as that of any other; what it prints is heard.
    server.does(&[&target], "fail").await;
    until_gone(orphan).await;
    eventually("there is another process", async || server.target(&target).await["restarts"] == 1).await;
    assert!(server.0.out().contains("answering with 500"), "{}", server.0.out());
    let next = pid(&server.until(&target, "RUNNING").await);
    server.ends_with(&[orphan, next]).await;
}

#[tokio::test]
async fn a_kill_leaves_the_targets_alone_unless_the_tree_is_meant() {
    let (config, mut server, target, _port) = pair(&[]).await;
    let orphan = pid(&server.until(&target, "RUNNING").await);
    server.get("kill").await;
    assert!(server.0.ended().await.success());
    assert!(lives(orphan));
    let mut server = config.serve(&[]).await;
    eventually("the next one has it", async || server.target(&target).await["pid"] == orphan).await;
    server.get("kill?tree=true").await;
    assert!(server.0.ended().await.success());
    assert!(!lives(orphan));
}

#[tokio::test]
async fn who_prints_without_end_holds_nobody_up() {
    let loud = "http://127.0.0.1:1";
    // A hundred times what is passed on; not all that the disk has, should nobody free it.
    let script = "ulimit -f 2000000; exec yes 'on and on'";
    let config = Config::new(&json!({ loud: ["sh", "-c", script] }));
    let server = config.serve(&[]).await;
    let pid = pid(&server.until(loud, "PROVISIONING").await);
    eventually("some is left out", async || server.0.out().contains("bytes are left out")).await;
    assert_eq!(server.get("").await.status, 503);
    server.ends_with(&[pid]).await;
}

/// A leaf that is not the process that was started, but a child of that one.
fn behind_a_script(port: &Port) -> (String, TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    let program = env!("CARGO_BIN_EXE_demos");
    let text = format!("#!/bin/sh\n{program} simple - :{}; true\n", port.number());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    (leaf(port).0, dir, script.to_str().unwrap().to_owned())
}

/// A server in the middle, and a leaf below it; where each of them is.
fn three_levels(port: &Port, below: &Port) -> (Config, String, String) {
    let (leaf_target, leaf_command) = leaf(below);
    let below = json!({ &leaf_target: leaf_command }).to_string();
    let target = leaf(port).0;
    let config = Config::new(&json!({ &target: [SIMPLE, &below, &format!(":{}", port.number())] }));
    (config, target, leaf_target)
}

/// The only child of a process.
fn child(pid: i64) -> i64 {
    let all = children(pid);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

/// The children of a process, and those that have ended and were not reaped.
fn children(pid: i64) -> Vec<i64> {
    // Each thread has those that it has started.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap());
    children.collect::<String>().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test]
async fn whatever_a_target_has_started_ends_with_it() {
    let port = Port::reserve().unwrap();
    let (target, _dir, script) = behind_a_script(&port);
    let config = Config::new(&json!({ &target: [script] }));
    let server = config.serve(&[]).await;
    let shell = pid(&server.until(&target, "RUNNING").await);
    let leaf = child(shell);
    // The shell alone: what it has started keeps the port.
    signal(shell, Signal::KILL);
    eventually("there is another one", async || {
        let report = server.target(&target).await;
        report["state"] == "RUNNING" && report["pid"].is_i64() && report["pid"] != shell
    })
    .await;
    until_gone(leaf).await;
    let second = pid(&server.target(&target).await);
    server.ends_with(&[second, child(second)]).await;
}

#[tokio::test]
async fn orphans_are_adopted_whatever_they_call_themselves() {
    let port = Port::reserve().unwrap();
    let (target, _dir, script) = behind_a_script(&port);
    let config = Config::new(&json!({ &target: [script] }));
    let mut server = config.serve(&[]).await;
    let orphan = pid(&server.until(&target, "RUNNING").await);
    let leaf = child(orphan);
    server.0.signal(Signal::KILL);
    server.0.ended().await;
    let server = config.serve(&[]).await;
    eventually("the next one has it", async || server.target(&target).await["pid"] == orphan).await;
    server.ends_with(&[orphan, leaf]).await;
}

#[tokio::test]
async fn the_targets_of_a_dead_server_end_with_the_tree() {
    let [port, below] = [Port::reserve().unwrap(), Port::reserve().unwrap()];
    let (config, target, _leaf) = three_levels(&port, &below);
    // It takes a while until there is another one.
    let server = config.serve_at(&["--start-delay", "2s"], &[]).await;
    let middle = pid(&server.until(&target, "RUNNING").await);
    let leaf = child(middle);
    signal(middle, Signal::KILL);
    until_gone(middle).await;
    assert!(lives(leaf));
    server.ends_with(&[middle, leaf]).await;
}

#[tokio::test]
async fn who_is_no_process_of_ours_is_left_alone() {
    let port = Port::reserve().unwrap();
    let (target, command) = leaf(&port);
    let stranger = Server::start(&["-", &format!(":{}", port.number())]).await;
    let config = Config::new(&json!({ &target: command }));
    let server = config.serve(&[]).await;
    let report = server.until(&target, "RUNNING").await;
    assert!(report["pid"].is_null(), "{report}");
    eventually("it is told", async || server.0.log().contains("is no process of ours")).await;
    let log = server.ends_with(&[]).await;
    assert!(log.contains("is left running"), "{log}");
    assert_eq!(stranger.get("").await.status, 200);
}

#[tokio::test]
async fn the_terminal_may_go() {
    let (_config, mut server, target, _port) = pair(&[]).await;
    let leaf = pid(&server.until(&target, "RUNNING").await);
    server.0.signal(Signal::HUP);
    assert!(server.0.ended().await.success());
    assert!(!lives(leaf));
}

#[tokio::test]
async fn who_is_about_to_end_says_so() {
    let stubborn = "http://127.0.0.1:1";
    let config = Config::new(&json!({ stubborn: STUBBORN }));
    let mut server = config.serve(&["--stop-limit", "5s"]).await;
    let pid = pid(&server.until(stubborn, "PROVISIONING").await);
    server.0.says("1 | ready").await;
    server.0.signal(Signal::TERM);
    server.until(stubborn, "STOPPING").await;
    assert_eq!(server.get("").await.status, 503);
    signal(pid, Signal::KILL);
    assert!(server.0.ended().await.success());
}

/// One for all who come after each other: those in the middle have to be done in time as well.
#[tokio::test]
async fn the_time_to_end_is_shared() {
    let [first, second] = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
    let config = Config::new(&json!({ first: STUBBORN, second: { "command": STUBBORN, "after": [first] } }));
    let mut server = config.serve(&["--stop-limit", "600ms"]).await;
    server.until(first, "PROVISIONING").await;
    server.0.says("1 | ready").await;
    server.0.signal(Signal::TERM);
    assert!(server.0.ended().await.success());
    assert!(server.0.log().contains("has not ended within 300ms"), "{}", server.0.log());
}

#[tokio::test]
async fn who_hangs_hides_nobody_else() {
    let [port, below] = [Port::reserve().unwrap(), Port::reserve().unwrap()];
    let (config, target, leaf_target) = three_levels(&port, &below);
    let server = config.serve(&[]).await;
    let middle = pid(&server.until(&target, "RUNNING").await);
    let hangs = child(middle);
    signal(hangs, Signal::STOP);
    eventually("the one above it is seen, and that it does not answer", async || {
        let tree = server.get("tree").await.json();
        let seen = &tree["targets"][0]["below"]["targets"][0];
        seen["target"] == *leaf_target && seen["pid"] == hangs && seen["below"].is_null()
    })
    .await;
}

#[tokio::test]
async fn a_circle_of_servers_has_an_end() {
    let [one, other] = [Port::reserve().unwrap(), Port::reserve().unwrap()];
    let at = |port: &Port| format!(":{}", port.number());
    let of = |port: &Port| Config::new(&json!({ leaf(port).0: "true" }));
    let (config, back) = (of(&other), of(&one));
    let pace = ["--start-delay", "0"];
    let first = Server::start(&[&[&*config.path(), &at(&one)], &pace[..]].concat()).await;
    let _second = Server::start(&[&[&*back.path(), &at(&other)], &pace[..]].concat()).await;
    let mut tree = json!(null);
    eventually("each has the other one below", async || {
        tree = first.get("tree").await.json();
        tree["targets"][0]["below"]["targets"][0]["below"].is_object()
    })
    .await;
    assert!(tree["targets"][0]["below"]["targets"][0]["below"]["targets"][0]["below"].is_null(), "{tree}");
}

#[tokio::test]
async fn nobody_looks_after_itself() {
    let port = Port::reserve().unwrap();
    let config = Config::new(&json!({ format!("http://localhost:{}", port.number()): "true" }));
    let listen = format!(":{}", port.number());
    let output = run(&["simple", &config.path(), &listen, "--start-delay", "0"]).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("where this server listens itself"), "{log}");
    let output = run(&["simple", "demo", "--port", "9093"]).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && log.contains("that of a server below"), "{log}");
}

/// By name it is not there any more once it has left the registry, which is taken for a failure.
#[tokio::test]
async fn who_leaves_by_name_is_left_in_peace() {
    let port = Port::reserve().unwrap();
    let locator = format!("dns+zone://{}/simple.internal?serve=true", port.address());
    let stubborn = "http://127.0.0.1:1";
    let below = json!({ stubborn: STUBBORN }).to_string();
    let config = Config::new(&json!({ "t/mid": [SIMPLE, &below, ":0"] }));
    let mut server = config.serve(&["--backend", &locator, "--stop-limit", "3s"]).await;
    let middle = pid(&server.until("t/mid", "PENDING").await);
    server.0.says("1 | ready").await;
    let leaf = child(middle);
    signal(middle, Signal::TERM);
    eventually("it has begun to leave", async || server.0.out().contains("leaving in order")).await;
    // It takes two seconds, in which it is asked many times.
    eventually("it has ended", async || server.0.log().contains("t/mid exited with")).await;
    assert!(server.0.log().contains("t/mid exited with 0"), "{}{}", server.0.out(), server.0.log());
    assert!(!lives(leaf));
    server.ends_with(&[middle]).await;
}

/// What has a group of its own could be taken for an orphan.
#[tokio::test]
async fn a_child_is_not_taken_for_the_target() {
    let port = Port::reserve().unwrap();
    let program = env!("CARGO_BIN_EXE_demos");
    let script = format!("setsid sleep 7777 & exec {program} simple - :{}", port.number());
    let target = leaf(&port).0;
    let config = Config::new(&json!({ &target: ["sh", "-c", &script] }));
    let server = config.serve(&[]).await;
    let first = pid(&server.until(&target, "RUNNING").await);
    let sleeper = child(first);
    signal(first, Signal::KILL);
    eventually("there is another one", async || {
        let report = server.target(&target).await;
        report["state"] == "RUNNING" && report["pid"].is_i64() && report["pid"] != first
    })
    .await;
    assert!(!lives(sleeper) && !server.0.log().contains("adopted"), "{}", server.0.log());
    let second = pid(&server.target(&target).await);
    server.ends_with(&[second, child(second)]).await;
}

#[tokio::test]
async fn what_an_orphan_has_printed_is_freed_by_whoever_adopts_it() {
    let loud = "http://127.0.0.1:1";
    // Less than is passed on.
    let script = "while :; do head -c 20000 /dev/zero | tr '\\0' x; echo; sleep 0.05; done";
    let config = Config::new(&json!({ loud: ["sh", "-c", script] }));
    let mut server = config.serve(&[]).await;
    let orphan = pid(&server.until(loud, "PROVISIONING").await);
    server.0.signal(Signal::KILL);
    server.0.ended().await;
    let server = config.serve(&[]).await;
    eventually("the next one has it", async || server.target(loud).await["pid"] == orphan).await;
    let printed = fs::metadata(format!("/proc/{orphan}/fd/1")).unwrap().len();
    eventually("most of what is printed is freed", async || {
        let file = fs::metadata(format!("/proc/{orphan}/fd/1")).unwrap();
        let (length, there) = (file.len(), file.blocks() * 512);
        length > printed + 500_000 && there < 250_000
    })
    .await;
    server.ends_with(&[orphan]).await;
}

/// Nobody can be told any more then, which is no reason to stay.
#[tokio::test]
async fn who_has_nobody_to_talk_to_ends_all_the_same() {
    for kind in [Signal::HUP, Signal::TERM] {
        let mut server = Command::new("env")
            .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_demos")])
            .args(["simple", "-", ":0", "--start-delay", "1h"])
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap());
        log.read_line(&mut String::new()).await.unwrap();
        drop((log, server.stdout.take()));
        signal(server.id().unwrap().into(), kind);
        let ended = timeout(DEADLINE, server.wait()).await.expect("it ends").unwrap();
        assert!(ended.success(), "{kind:?}: {ended}");
    }
}

/// As in a container, where whoever loses their parent becomes a child of process 1.
#[tokio::test]
async fn process_1_reaps_strays_and_passes_on_what_it_is_told() {
    // Each is forsaken by its parent, and ends a little later.
    let script = "for n in $(seq 20); do (sleep 0.3 &); done; echo forsaken; exec sleep 7777";
    let config = Config::new(&json!({ "http://127.0.0.1:1": ["sh", "-c", script] }));
    let path = config.path();
    let mut server = Demo::spawn_as_process_1([&["simple", &path, ":0"], &FAST[..]].concat());
    server.says("1 | forsaken").await;
    let first = child(server.id().unwrap().into());
    eventually("none is left but the server itself", async || children(first).len() == 1).await;
    let [server_itself] = children(first)[..] else { panic!("it has just been alone") };
    let target = child(server_itself);
    // As Ctrl-Z does, behind which nobody could say that it is to go on.
    signal(server_itself, Signal::TSTP);
    signal(first, Signal::TERM);
    assert!(server.ended().await.success(), "{}", server.log());
    assert!(server.log().contains("leaving in order") && !lives(target), "{}", server.log());
}
