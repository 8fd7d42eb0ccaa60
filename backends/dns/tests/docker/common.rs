//! What all tests on Docker need: an engine with the image, projects, and somebody in one who follows a service.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, SystemTime},
};

use discovery_testbed::{Container, Docker, Program, Project, static_binary};
use tokio::time::{Instant, sleep};

/// A look every 200 ms, because the answers are Docker's. If it went by their time to live it would be one in ten minutes.
pub(crate) const LOCATOR: &str = "dns://?records=a&port=8000&family=4&floor=200ms&ceiling=10m";

/// The pause between two looks.
pub(crate) const FLOOR: Duration = Duration::from_millis(200);

/// Time for some looks, in which nothing must happen.
pub(crate) const SOME_LOOKS: Duration = Duration::from_secs(1);

/// A service to follow: replicas that answer a GET of `/database`.
pub(crate) const DATABASE: &str =
    "database: { image: container, command: [serve, '8000', /database], scale: 3 }";

/// A server further up that says of every name that there is none, to be used as `dns`; and the network that it is on.
pub(crate) const UPSTREAM: &str = "upstream: { image: probe, command: [deny], dns: 172.30.0.53, networks: { default: { ipv4_address: 172.30.0.53 } } }";
pub(crate) const UPSTREAM_DNS: &str = ", dns: 172.30.0.53";
pub(crate) const UPSTREAM_NETWORK: &str =
    "networks: { default: { ipam: { config: [{ subnet: 172.30.0.0/24 }] } } }";

/// How long a test waits for what must happen, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// An engine that has the image `container`.
pub(crate) async fn start() -> Option<Docker> {
    let docker = Docker::start_or_skip().await?;
    let container = static_binary("discovery-dns", Program::Example("container"), &[]).await.unwrap();
    docker.build_scratch("container", &container).await.unwrap();
    Some(docker)
}

/// One that has the image `probe` too, for [`UPSTREAM`].
pub(crate) async fn start_with_upstream() -> Option<Docker> {
    let docker = start().await?;
    let probe = static_binary("discovery-testbed-probe", Program::Bin("probe"), &[]).await.unwrap();
    docker.build_scratch("probe", &probe).await.unwrap();
    Some(docker)
}

/// A service by the name `name` that follows others; `more` is what else a compose file says of it.
pub(crate) fn watcher(name: &str, locator: &str, services: &str, more: &str) -> String {
    let services = services.replace(' ', "', '");
    format!("{name}: {{ image: container, command: [watch, '{locator}', '{services}']{more} }}")
}

/// A project that runs; `more` is what its compose file says besides services.
pub(crate) async fn up<'a>(docker: &'a Docker, name: &str, services: &[&str], more: &str) -> Project<'a> {
    let yaml = format!("services:\n  {}\n{more}\n", services.join("\n  "));
    let project = docker.compose(name, &yaml).unwrap();
    project.up().await.unwrap();
    project
}

/// Leaves a project to the engine, which ends with all that it has. Removing it in order takes seconds; that is for tests
/// that fail, as these show its logs.
pub(crate) fn done<'a>(projects: impl IntoIterator<Item = Project<'a>>) {
    projects.into_iter().for_each(std::mem::forget);
}

pub(crate) async fn databases(project: &Project<'_>) -> Vec<Container> {
    project.containers("database").await.unwrap()
}

pub(crate) fn addresses(containers: &[Container]) -> BTreeSet<Ipv4Addr> {
    containers.iter().filter_map(Container::address).collect()
}

/// Somebody in a container who follows services.
pub(crate) struct Watcher<'a> {
    project: &'a Project<'a>,
    container: Container,
    service: String,
}

/// What was heard of a service, when, and what was known then.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// Milliseconds since 1970. Containers have the clock of the machine.
    pub(crate) at: u64,
    pub(crate) what: String,
    known: BTreeMap<String, (Ipv4Addr, String)>,
}

/// What became of an action.
pub(crate) struct Seen {
    /// From the beginning of the action to the moment at which it was seen.
    pub(crate) after: Duration,
    /// How long the action itself took.
    pub(crate) took: Duration,
    pub(crate) heard: Heard,
}

impl<'a> Watcher<'a> {
    /// The service `by` of a project, as far as it follows `service`.
    pub(crate) async fn of(project: &'a Project<'a>, by: &str, service: &str) -> Self {
        let container = project.containers(by).await.unwrap().remove(0);
        Self { project, container, service: service.to_owned() }
    }

    /// Everything so far.
    pub(crate) async fn heard(&self) -> Vec<Heard> {
        let log = self.project.logs(&self.container).await.unwrap();
        log.lines().filter_map(|line| Heard::parse(line, &self.service)).collect()
    }

    pub(crate) async fn last(&self) -> Heard {
        self.heard().await.pop().expect("something was heard")
    }

    /// Waits until something is as wanted, now or ever.
    pub(crate) async fn until(&self, what: &str, wanted: impl FnMut(&Heard) -> bool) -> Heard {
        self.until_since(0, what, wanted).await
    }

    /// Does something and waits until it is seen, behind its beginning. Prints how long that took.
    pub(crate) async fn sees(
        &self,
        what: &str,
        action: impl Future<Output = io::Result<()>>,
        wanted: impl FnMut(&Heard) -> bool,
    ) -> Seen {
        let (since, begin) = (now(), Instant::now());
        action.await.unwrap();
        let took = begin.elapsed();
        let heard = self.until_since(since, what, wanted).await;
        let after = Duration::from_millis(heard.at - since);
        println!("{what}: seen after {after:?}; the command took {took:?}");
        Seen { after, took, heard }
    }

    async fn until_since(&self, since: u64, what: &str, mut wanted: impl FnMut(&Heard) -> bool) -> Heard {
        let end = Instant::now() + SOON;
        loop {
            let mut heard = self.heard().await.into_iter().filter(|one| one.at >= since);
            if let Some(found) = heard.find(&mut wanted) {
                return found;
            }
            assert!(Instant::now() < end, "not within {SOON:?}: {what}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Heard {
    /// A line of the example `container` about a service.
    fn parse(line: &str, about: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let at = words.next()?.parse().ok()?;
        let what = (words.next()? == about).then(|| words.next()).flatten()?.to_owned();
        let known = words.map(|word| {
            let (id, rest) = word.split_once('=')?;
            let (address, status) = rest.split_once(',')?;
            let address: SocketAddrV4 = address.parse().ok()?;
            Some((id.to_owned(), (*address.ip(), status.to_owned())))
        });
        Some(Self { at, what, known: known.map(|one| one.expect("id=address,status")).collect() })
    }

    pub(crate) fn ids(&self) -> Vec<&str> {
        self.known.keys().map(String::as_str).collect()
    }

    /// The ids of those that have this status.
    pub(crate) fn those(&self, wanted: &str) -> Vec<&str> {
        let those = self.known.iter().filter(|(_, (_, status))| status == wanted);
        those.map(|(id, _)| id.as_str()).collect()
    }

    pub(crate) fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.known.values().map(|(address, _)| *address).collect()
    }

    /// Whether each of the containers is an instance by its number, at its own address, and there is nobody else.
    pub(crate) fn is(&self, containers: &[Container]) -> bool {
        let expected = containers.iter().filter_map(|one| Some((one.number().to_string(), one.address()?)));
        let expected: BTreeMap<_, _> = expected.collect();
        expected == self.known.iter().map(|(id, (address, _))| (id.clone(), *address)).collect()
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}
