//! What the compose files need beside the demos, and an engine to bring them up.

use std::time::Duration;

use discovery_testbed::{Docker, Port, Program, Project, static_binary};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::demo::{self, Demo};

/// As long as anything in containers may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// An engine that has the image, which is that of the Dockerfile.
pub(crate) async fn engine_or_skip() -> Option<Docker> {
    let docker = Docker::start_or_skip().await?;
    let demos = static_binary("discovery-demos", Program::Bin("demos"), &[]).await.unwrap();
    docker.build_scratch("discovery-demos", &demos).await.unwrap();
    Some(docker)
}

/// What `/state` says in a container of a service; `None` while it does not answer.
pub(crate) async fn state(project: &Project<'_>, service: &str) -> Option<Value> {
    let containers = project.containers(service).await.unwrap();
    let check = ["/demos", "check", "http://127.0.0.1/state"];
    serde_json::from_str(&project.exec(containers.first()?, check).await.ok()?).ok()
}

/// Waits until `/state` of a service is as it should be.
pub(crate) async fn until(
    project: &Project<'_>,
    service: &str,
    what: &str,
    condition: impl Fn(&Value) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = state(project, service).await;
        if state.as_ref().is_some_and(&condition) {
            return;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; {state:?}");
        sleep(Duration::from_millis(300)).await;
    }
}

/// Waits until so many containers are healthy by the checks of the file.
pub(crate) async fn healthy(docker: &Docker, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let healthy = docker.run(["ps", "--filter", "health=healthy", "--quiet"]).await.unwrap();
        if healthy.lines().count() == count {
            return;
        }
        let all = docker.run(["ps", "--all"]).await.unwrap();
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {count} are healthy; {all}");
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_helpers_is_named() {
    for (args, code, part) in [
        (&["check", "http://127.0.0.1:1/"][..], 1, "no answer"),
        (&["check", "nowhere"], 1, "no answer"),
        (&["check", "--backend", "mem"], 2, "that others serve"),
        (&["check", "--backend", "dns"], 2, "that others serve"),
        (&["check"], 2, "--backend"),
        (&["check", "--backend", "dns+zone://k:c2VjcmV0@127.0.0.1:1/z.internal"], 1, "no answer"),
        (&["registry", "--backend", "zk"], 2, "dns+zone://key:secret@"),
        (&["registry", "--backend", "dns+zone://k:s3cret@h/z"], 2, "base64"),
        (&["registry", "--listen", "here"], 2, "--listen"),
    ] {
        let output = demo::run(args).await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {log}");
        assert!(log.contains(part) && !log.contains("s3cret"), "{args:?}: {part:?} is not in {log}");
    }
}

#[tokio::test]
async fn a_registry_is_checked_by_asking_it() {
    let port = Port::reserve().unwrap();
    let address = port.address().to_string();
    let zone = |name| format!("dns+zone://k:c2VjcmV0@{address}/{name}.internal");
    let mut registry = Demo::spawn(["registry", "--listen", &address, "--backend", &zone("z")]);
    registry.says("z.internal at").await;
    let check = async |name| demo::run(&["check", "--backend", &zone(name)]).await;
    let (same, other) = (check("z").await, check("other").await);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    assert_eq!(String::from_utf8_lossy(&same.stdout), format!("DNS at {address} answers\n"));
    assert_eq!(other.status.code(), Some(1), "that zone is not served: {other:?}");
}
