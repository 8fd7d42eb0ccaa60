//! What all tests on Docker need: an engine with the image, a project, and somebody in it who follows a service.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, SystemTime},
};

use discovery_testbed::{Container, Docker, Program, Project, static_binary};
use tokio::time::{Instant, sleep};

/// A look every 200 ms, if that is decided by Docker's answers being Docker's. Were it decided by their time to live, it
/// would be every ten minutes.
pub(crate) const LOCATOR: &str = "dns://?records=a&port=8000&family=4&floor=200ms&ceiling=10m";

/// How long a test waits for what must happen, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// An engine that has the image `container`.
pub(crate) async fn start() -> Option<Docker> {
    let docker = Docker::start_or_skip().await?;
    let container = static_binary("discovery-dns", Program::Example("container"), &[]).await.unwrap();
    docker.build_scratch("container", &container).await.unwrap();
    Some(docker)
}

/// Adds the image `probe`, which knows how to be a name server that knows no name.
pub(crate) async fn with_probe(docker: &Docker) {
    let probe = static_binary("discovery-testbed-probe", Program::Bin("probe"), &[]).await.unwrap();
    docker.build_scratch("probe", &probe).await.unwrap();
}

pub(crate) async fn up<'a>(docker: &'a Docker, name: &str, yaml: &str) -> Project<'a> {
    let project = docker.compose(name, yaml).unwrap();
    project.up().await.unwrap();
    project
}

/// A service of a compose file that follows others.
pub(crate) fn watch(locator: &str, services: &str) -> String {
    let services = services.replace(' ', "', '");
    format!("{{ image: container, command: [watch, '{locator}', '{services}'] }}")
}

/// Milliseconds since 1970, by the clock that containers have too.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

/// Somebody in a container who follows services.
pub(crate) struct Watcher<'a> {
    project: &'a Project<'a>,
    container: Container,
    service: String,
}

/// What was heard of a service at a time, and what is known then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) at: u64,
    pub(crate) what: String,
    known: BTreeMap<String, (Ipv4Addr, String)>,
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
        let own = log.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (at, service, what) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
            (service == self.service).then(|| Heard {
                at,
                what: what.to_owned(),
                known: words.map(|word| parse(word).expect("id=address,status")).collect(),
            })
        });
        own.collect()
    }

    /// Waits until something is heard at or after `since`, or until it is so since before.
    pub(crate) async fn until(
        &self,
        since: u64,
        what: &str,
        mut wanted: impl FnMut(&Heard) -> bool,
    ) -> Heard {
        let end = Instant::now() + SOON;
        loop {
            let heard = self.heard().await;
            let mut from = heard.iter().position(|one| one.at >= since).unwrap_or(heard.len());
            if from == heard.len() {
                from = from.saturating_sub(1);
            }
            if let Some(found) = heard[from..].iter().find(|one| wanted(one)) {
                return found.clone();
            }
            if Instant::now() > end {
                let log = self.project.logs(&self.container).await.unwrap();
                panic!("not within {SOON:?}: {what}; since {since}:\n{log}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Does something and waits until it is seen. Prints how long both took.
    pub(crate) async fn sees(
        &self,
        what: &str,
        action: impl Future<Output = io::Result<()>>,
        wanted: impl FnMut(&Heard) -> bool,
    ) -> Heard {
        let since = now();
        action.await.unwrap();
        let done = now();
        let heard = self.until(since, what, wanted).await;
        println!(
            "{what}: seen after {} ms; the command took {} ms",
            heard.at.saturating_sub(since),
            done - since
        );
        heard
    }
}

fn parse(word: &str) -> Option<(String, (Ipv4Addr, String))> {
    let (id, rest) = word.split_once('=')?;
    let (address, status) = rest.split_once(',')?;
    let address: SocketAddrV4 = address.parse().ok()?;
    Some((id.to_owned(), (*address.ip(), status.to_owned())))
}

impl Heard {
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.known.keys().map(String::as_str).collect()
    }

    /// The ids of those with a status.
    pub(crate) fn with(&self, wanted: &str) -> Vec<&str> {
        let with = self.known.iter().filter(|(_, (_, status))| status == wanted);
        with.map(|(id, _)| id.as_str()).collect()
    }

    pub(crate) fn address(&self, id: &str) -> Option<Ipv4Addr> {
        self.known.get(id).map(|(address, _)| *address)
    }

    pub(crate) fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.known.values().map(|(address, _)| *address).collect()
    }
}

/// The addresses of containers on a network, or on the only one.
pub(crate) fn addresses(containers: &[Container]) -> BTreeSet<Ipv4Addr> {
    containers.iter().filter_map(Container::address).collect()
}
