//! A Docker engine and Compose projects in it, with a program of this workspace in their containers.

mod common;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use common::eventually;
use discovery_testbed::{Agent, Container, Docker, Program, Project, static_binary};
use tokio::time::timeout;

/// Three containers that can be found under the name `cart`.
const CARTS: &str = "
services:
  cart:
    image: probe
    command: [serve, '8000']
    scale: 3
    stop_grace_period: 0s
";

/// Such a project takes about 1.5 s on an idle machine.
const UP_WITHIN: Duration = Duration::from_secs(60);

async fn start() -> Option<Docker> {
    let docker = Docker::start_or_skip().await?;
    let probe = static_binary("discovery-testbed-probe", Program::Bin("probe"), &[])
        .await
        .expect("the probe can be built");
    docker.build_scratch("probe", &probe).await.expect("the image can be built");
    Some(docker)
}

async fn up<'a>(docker: &'a Docker, name: &str, yaml: &str) -> Project<'a> {
    let project = docker.compose(name, yaml).expect("a name that Compose takes");
    timeout(UP_WITHIN, project.up()).await.expect("it does not take too long").expect("it comes up");
    project
}

/// What the embedded name server tells a container about a name.
async fn resolve(project: &Project<'_>, at: &Container, name: &str) -> BTreeSet<Ipv4Addr> {
    let printed = project.exec(at, ["/probe", "resolve", name]).await.expect("the name server answers");
    printed.lines().map(|line| line.parse().expect("an address")).collect()
}

fn addresses(containers: &[Container]) -> BTreeSet<Ipv4Addr> {
    containers.iter().filter_map(Container::address).collect()
}

fn states(containers: &[Container]) -> Vec<&str> {
    containers.iter().map(Container::state).collect()
}

/// What there is of an engine on this machine: processes, mounts, control groups and its directory.
fn traces(engine: &Path) -> Vec<PathBuf> {
    let name = engine.file_name().and_then(OsStr::to_str).expect("a directory with a name");
    let mut traces = Vec::new();
    for process in entries("/proc") {
        // A file of a process that ends meanwhile cannot be read.
        let mentions = |file| {
            fs::read(process.join(file)).is_ok_and(|text| String::from_utf8_lossy(&text).contains(name))
        };
        if mentions("cmdline") || mentions("mountinfo") {
            traces.push(process);
        }
    }
    let controllers = entries("/sys/fs/cgroup").into_iter().flat_map(entries);
    let groups = entries("/sys/fs/cgroup").into_iter().chain(controllers).filter(|path| path.ends_with(name));
    traces.extend(groups);
    traces.extend(engine.exists().then(|| engine.to_owned()));
    traces
}

fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn replicas_find_each_other_by_the_name_of_their_service() {
    let Some(docker) = start().await else { return };
    let project = up(&docker, "shop", CARTS).await;
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(carts.iter().map(Container::number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(states(&carts), ["running"; 3]);
    assert_eq!(addresses(&carts).len(), 3);
    assert_eq!(resolve(&project, &carts[0], "cart").await, addresses(&carts));
    assert_eq!(resolve(&project, &carts[0], carts[2].name()).await, addresses(&carts[2..]));
    for cart in &carts {
        assert_eq!(cart.service(), "cart");
        assert_eq!(cart.addresses().keys().collect::<Vec<_>>(), ["shop_default"]);
        eventually("the program prints who it is", async || {
            project.logs(cart).await.unwrap() == format!("{} listens on port 8000\n", &cart.id()[..12])
        })
        .await;
    }
    assert_eq!(project.containers("stranger").await.unwrap(), []);
}

#[tokio::test]
async fn a_killed_container_is_no_longer_found_until_it_is_started() {
    let Some(docker) = start().await else { return };
    let project = up(&docker, "shop", CARTS).await;
    let before = project.containers("cart").await.unwrap();
    project.kill(&before[1]).await.unwrap();
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(states(&carts), ["running", "exited", "running"]);
    assert_eq!(carts[1].address(), None);
    assert_eq!(addresses(&carts).len(), 2);
    eventually("its address is gone", async || {
        resolve(&project, &carts[0], "cart").await == addresses(&carts)
    })
    .await;

    let error = project.kill(&before[1]).await.unwrap_err().to_string();
    assert!(error.contains("is not running") && error.contains("docker kill"), "{error}");
    project.start(&before[1]).await.unwrap();
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(states(&carts), ["running"; 3]);
    assert_eq!(carts[1].id(), before[1].id());
    assert_eq!(resolve(&project, &carts[0], "cart").await, addresses(&carts));

    project.stop(&carts[2]).await.unwrap();
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(states(&carts), ["running", "running", "exited"]);
    eventually("its address is gone", async || {
        resolve(&project, &carts[0], "cart").await == addresses(&carts)
    })
    .await;
}

#[tokio::test]
async fn a_paused_container_keeps_its_address() {
    let Some(docker) = start().await else { return };
    let project = up(&docker, "shop", CARTS).await;
    let before = project.containers("cart").await.unwrap();
    project.pause(&before[1]).await.unwrap();
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(states(&carts), ["running", "paused", "running"]);
    assert_eq!(resolve(&project, &carts[0], "cart").await, addresses(&before));
    project.unpause(&before[1]).await.unwrap();
    assert_eq!(project.containers("cart").await.unwrap(), before);
    // A project can also be removed when a container stands still.
    project.pause(&before[2]).await.unwrap();
    drop(project);
    assert_eq!(docker.run(["ps", "--all", "--quiet"]).await.unwrap(), "");
}

#[tokio::test]
async fn one_service_is_scaled_and_the_others_stay() {
    let Some(docker) = start().await else { return };
    let yaml = format!("{CARTS}\n  till:\n    image: probe\n    command: [serve, '9000']\n");
    let project = up(&docker, "shop", &yaml).await;
    project.scale("till", 2).await.unwrap();
    for replicas in [4, 1, 0] {
        project.scale("cart", replicas).await.unwrap();
        let carts = project.containers("cart").await.unwrap();
        assert_eq!(carts.len(), replicas);
        let tills = project.containers("till").await.unwrap();
        assert_eq!(states(&tills), ["running"; 2]);
        // The name server does not answer at all about a name that nobody has any more.
        if replicas > 0 {
            eventually("the name server knows", async || {
                resolve(&project, &tills[0], "cart").await == addresses(&carts)
            })
            .await;
        }
    }
    project.down().await.unwrap();
    assert_eq!(project.containers("cart").await.unwrap(), []);
    project.up().await.unwrap();
    assert_eq!(project.containers("cart").await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_same_name_in_two_projects_is_two_services() {
    let Some(docker) = start().await else { return };
    let (blue, green) = (up(&docker, "blue", CARTS).await, up(&docker, "green", CARTS).await);
    let of_blue = blue.containers("cart").await.unwrap();
    let of_green = green.containers("cart").await.unwrap();
    assert!(addresses(&of_blue).is_disjoint(&addresses(&of_green)));
    assert_eq!(resolve(&blue, &of_blue[0], "cart").await, addresses(&of_blue));
    assert_eq!(resolve(&green, &of_green[0], "cart").await, addresses(&of_green));

    drop(blue);
    let left = docker.run(["ps", "--all", "--quiet", "--no-trunc"]).await.unwrap();
    let left: BTreeSet<&str> = left.lines().collect();
    assert_eq!(left, of_green.iter().map(Container::id).collect());
    let networks = docker.run(["network", "ls", "--format", "{{.Name}}"]).await.unwrap();
    assert!(networks.contains("green_default") && !networks.contains("blue_default"), "{networks}");
    assert_eq!(green.containers("cart").await.unwrap(), of_green);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_a_matter_for_the_name_server_upstream() {
    let Some(docker) = start().await else { return };
    let yaml = "
services:
  cart: { image: probe, command: [serve, '8000'], dns: 172.30.0.53 }
  upstream: { image: probe, command: [deny], networks: { default: { ipv4_address: 172.30.0.53 } } }
networks:
  default: { ipam: { config: [{ subnet: 172.30.0.0/24 }] } }
";
    let project = up(&docker, "shop", yaml).await;
    let cart = &project.containers("cart").await.unwrap()[0];
    assert_eq!(resolve(&project, cart, "cart").await, cart.address().into_iter().collect());
    let upstream = &project.containers("upstream").await.unwrap()[0];
    let resolve =
        async || project.exec(cart, ["/probe", "resolve", "stranger"]).await.unwrap_err().to_string();
    eventually("it serves", async || resolve().await.contains("there is no such name")).await;
    project.kill(upstream).await.unwrap();
    let error = resolve().await;
    assert!(!error.contains("there is no such name"), "nobody can know: {error}");
}

#[tokio::test]
async fn a_container_leaves_its_network_and_comes_back_under_what_name_it_is_given() {
    let Some(docker) = start().await else { return };
    let project = up(&docker, "shop", CARTS).await;
    let before = project.containers("cart").await.unwrap();
    let resolve = async || resolve(&project, &before[0], "cart").await;
    project.disconnect(&before[1], "default").await.unwrap();
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(states(&carts), ["running"; 3]);
    assert_eq!(carts[1].address(), None);
    eventually("its address is gone", async || resolve().await == addresses(&carts)).await;
    assert_eq!(addresses(&carts).len(), 2);

    project.connect(&before[1], "default", &[]).await.unwrap();
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(addresses(&carts).len(), 3);
    assert_eq!(resolve().await.len(), 2);

    project.disconnect(&before[1], "default").await.unwrap();
    project.connect(&before[1], "default", &["cart"]).await.unwrap();
    let carts = project.containers("cart").await.unwrap();
    assert_eq!(addresses(&carts).len(), 3);
    assert_eq!(resolve().await, addresses(&carts));
}

#[tokio::test]
async fn what_goes_wrong_is_in_the_error() {
    let Some(docker) = start().await else { return };
    let error = docker.compose("Shop", CARTS).unwrap_err().to_string();
    assert!(error.contains("\"Shop\""), "{error}");
    let error = docker.compose("shop", "services: 3").unwrap().up().await.unwrap_err().to_string();
    assert!(error.contains("docker-compose") && error.contains("services"), "{error}");
    let error = docker.build_scratch("none", Path::new("/no-such-file")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");

    let project = up(&docker, "shop", CARTS).await;
    let carts = project.containers("cart").await.unwrap();
    let error = project.exec(&carts[0], ["/probe", "dance"]).await.unwrap_err().to_string();
    assert!(error.contains("usage: probe serve"), "{error}");
    let error = project.unpause(&carts[0]).await.unwrap_err().to_string();
    assert!(error.contains("is not paused"), "{error}");

    let error = static_binary("discovery-testbed-probe", Program::Example("none"), &[]).await.unwrap_err();
    assert!(error.to_string().contains("no example target named `none`"), "{error}");
}

#[tokio::test]
async fn drop_leaves_no_trace() {
    let Some(docker) = start().await else { return };
    let project = up(&docker, "shop", CARTS).await;
    let carts = project.containers("cart").await.unwrap();
    project.pause(&carts[0]).await.unwrap();
    project.kill(&carts[1]).await.unwrap();
    let dir = docker.dir().to_owned();
    assert!(traces(&dir).len() > 2);
    // Nobody has to remove the containers first.
    std::mem::forget(project);
    drop(docker);
    assert_eq!(traces(&dir), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_killed_test_leaves_no_trace() {
    let file = tempfile::NamedTempFile::new().unwrap();
    if Docker::start_or_skip().await.is_none() {
        return;
    }
    let agent = Agent::start("agent", file.path().to_str().unwrap()).unwrap();
    let mut dir = String::new();
    eventually("the agent has an engine with containers", async || {
        dir = fs::read_to_string(file.path()).unwrap();
        !dir.is_empty()
    })
    .await;
    let dir = Path::new(&dir);
    assert!(traces(dir).len() > 2);
    drop(agent);
    eventually("nothing is left", async || traces(dir).is_empty()).await;
}

/// The killed test of `a_killed_test_leaves_no_trace`.
#[tokio::test]
#[ignore = "runs in a process of its own"]
async fn agent() {
    let Some(order) = Agent::order() else { return };
    let Some(docker) = start().await else { return };
    let _project = up(&docker, "shop", CARTS).await;
    // All at once, as the file is being watched.
    let dir = docker.dir().to_str().unwrap();
    fs::write(order, dir).unwrap();
    Agent::until_asked_to_end().await.unwrap();
}

#[test]
fn handles_and_their_futures_can_move_between_threads() {
    fn movable<T: Send>(_: T) {}
    fn check(docker: &'static Docker, project: &'static Project<'static>, container: &'static Container) {
        movable((docker, Docker::start(), docker.build_scratch("any", Path::new("any")), docker.run(["ps"])));
        movable((project, project.up(), project.scale("any", 1), project.containers("any")));
        movable((
            container,
            project.kill(container),
            project.exec(container, ["any"]),
            project.logs(container),
        ));
        movable(static_binary("any", Program::Bin("any"), &[]));
    }
    // Compiling it is the test.
    let _ = check;
}
