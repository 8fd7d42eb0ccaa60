//! Which registry a demo uses: one flag for all of them.

use std::{fmt, sync::Arc, time::Duration};

use clap::error::ErrorKind;
use discovery::{Connectors, Discovery, Locator, ServiceName};

/// Where plain `zk` points to.
const LOCAL_ZOOKEEPER: &str = "zk://127.0.0.1:2181";

/// Where plain `etcd` points to.
const LOCAL_ETCD: &str = "etcd://127.0.0.1:2379";

/// In a locator: whoever finds nobody who serves the zone does so.
const SERVING: &str = "?serve=true";

/// Whether this build has the client of etcd.
const HAS_ETCD: bool = cfg!(feature = "etcd");

const HELP: &str = if HAS_ETCD {
    "Where services register: mem, zk or etcd (the ZooKeeper or etcd on this machine), dns (a zone that needs no \
     server), or a locator such as zk://host:2181/cn, etcd://host:2379/cn or dns+zone://key:secret@host/zone"
} else {
    "Where services register: mem, zk (the ZooKeeper on this machine), dns (a zone that needs no server), or a locator \
     such as zk://host:2181/cn or dns+zone://key:secret@host/zone; for etcd, build with --features etcd"
};

/// What a registry for several processes may be.
const SHARED: &str = if HAS_ETCD { "dns, zk or etcd" } else { "dns or zk" };

/// What a demo is called on the command line, and where its tree is when only the kind of registry is named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) command: &'static str,
    /// The command that has everything in one process.
    pub(crate) alone: &'static str,
    pub(crate) root: &'static str,
    /// Where plain `dns` points to: a zone that the processes of the demo have among themselves. Whoever comes first
    /// serves it, and no other; so each demo has a port of its own.
    pub(crate) zone_port: u16,
}

impl Sample {
    /// How to run it, from the root of the repository.
    fn cargo(self) -> String {
        format!("cargo run --release -- {}", self.command)
    }

    /// The zone that its processes have among themselves.
    fn zone(self) -> String {
        let Self { root, zone_port, .. } = self;
        format!("dns+zone://127.0.0.1:{zone_port}/{root}.internal{SERVING}")
    }

    /// The same, with etcd.
    fn cargo_with_etcd(self) -> String {
        format!("cargo run --release --features etcd -- {}", self.command)
    }
}

/// The flag.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BackendArgs {
    // Text, not a parsed value: clap would repeat a value that it refuses, and with it the secret in a locator.
    #[arg(
        long,
        global = true,
        env = "DISCOVERY_BACKEND",
        hide_env_values = true,
        value_name = "BACKEND",
        help = HELP
    )]
    backend: Option<String>,
}

impl BackendArgs {
    /// The registry that was asked for, or else `default`; services can register there.
    pub(crate) fn choose(&self, default: &str, sample: Sample) -> anyhow::Result<Choice> {
        let choice = self.choose_any(default, sample)?;
        if choice.locator.scheme() == "dns" {
            let message = format!(
                "--backend: {} can only be read, and services register here; write dns, or a zone such as \
                 dns+zone://key:secret@host/zone",
                choice.locator
            );
            return Err(usage(message));
        }
        Ok(choice)
    }

    /// The same, where it is enough to find services.
    pub(crate) fn choose_any(&self, default: &str, sample: Sample) -> anyhow::Result<Choice> {
        let root = sample.root;
        let text = self.backend.as_deref().unwrap_or(default);
        let locator = match text {
            "mem" => "mem://".parse(),
            "zk" => format!("{LOCAL_ZOOKEEPER}/{root}").parse(),
            "etcd" => format!("{LOCAL_ETCD}/{root}").parse(),
            "dns" => sample.zone().parse(),
            locator if locator.contains("://") => locator.parse::<Locator>(),
            unknown => {
                let message = format!(
                    "--backend: {unknown:?} is no backend; write mem, zk, etcd, dns, or a locator such as \
                     zk://host:2181/{root}"
                );
                return Err(usage(message));
            }
        };
        let locator = locator.map_err(|error| usage(format!("--backend: {error}")))?;
        if locator.scheme() == "etcd" && !HAS_ETCD {
            return Err(usage(without_etcd(sample)));
        }
        Ok(Choice { locator, sample, flag: self.flag() })
    }

    /// What was given, secrets and all: for processes of our own.
    pub(crate) fn text(&self) -> Option<&str> {
        self.backend.as_deref()
    }

    /// The flag as others would have to give it to find the same registry, with a space before it; nothing if it was
    /// not given. A secret in it is left out.
    fn flag(&self) -> String {
        let shown = |text: &String| match text.parse::<Locator>() {
            Ok(locator) => format!(" --backend '{locator}'"),
            Err(_) => format!(" --backend {text}"),
        };
        self.backend.as_ref().map(shown).unwrap_or_default()
    }
}

/// A registry, not connected yet. Displayed for people, without secrets.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    locator: Locator,
    sample: Sample,
    /// For others, without a secret.
    flag: String,
}

impl Choice {
    /// Connects. Succeeds while the server is down.
    pub(crate) async fn connect(self) -> anyhow::Result<Registry> {
        let backend = connectors()
            .connect(&self.locator)
            .await
            .map_err(|error| usage(format!("--backend: {error}")))?;
        Ok(Registry { discovery: Discovery::from_arc(backend), choice: Arc::new(self) })
    }

    /// The same for a command that is soon over: it serves no zone, which would end with it.
    pub(crate) fn briefly(mut self) -> anyhow::Result<Self> {
        let text = self.locator.to_string();
        if text == self.sample.zone() {
            self.locator = text.trim_end_matches(SERVING).parse()?;
        }
        Ok(self)
    }

    /// Refuses a registry that ends at the border of this process.
    pub(crate) fn shared(self) -> anyhow::Result<Self> {
        if self.is_shared() {
            return Ok(self);
        }
        Err(usage(format!(
            "--backend: mem lives inside one process, so nobody else would ever see this one; \
             use `cargo run --release -- {}` to have everything in one process, or {SHARED} to have several",
            self.sample.alone
        )))
    }

    fn is_shared(&self) -> bool {
        self.locator.scheme() != "mem"
    }

    /// How to run the sample so that it can use this one.
    fn cargo(&self) -> String {
        match self.locator.scheme() {
            "etcd" => self.sample.cargo_with_etcd(),
            _ => self.sample.cargo(),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.locator.scheme() {
            "mem" => f.write_str("memory"),
            "zk" => write!(f, "ZooKeeper at {}", hosts(&self.locator, 2181)),
            "etcd" => write!(f, "etcd at {}", hosts(&self.locator, 2379)),
            "dns" if self.locator.hosts().is_empty() => f.write_str("DNS"),
            "dns" | "dns+zone" => write!(f, "DNS at {}", hosts(&self.locator, 53)),
            _ => self.locator.fmt(f),
        }
    }
}

/// A registry in use.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pub(crate) discovery: Discovery,
    choice: Arc<Choice>,
}

impl Registry {
    /// Whether other processes can use it.
    pub(crate) fn is_shared(&self) -> bool {
        self.choice.is_shared()
    }

    /// Whether services can register there.
    pub(crate) fn is_writable(&self) -> bool {
        self.discovery.backend().registrar().is_some()
    }

    /// The same one for somebody who lives and dies apart: watches and leases are not shared.
    pub(crate) fn apart(&self) -> Self {
        let discovery = Discovery::from_arc(self.discovery.backend().clone());
        Self { discovery, choice: self.choice.clone() }
    }

    /// The command for another process of the sample, such as `ghost blinky`, on the same registry; `None` if that is
    /// for one process only. A secret in it is left out.
    pub(crate) fn command(&self, role: &str) -> Option<String> {
        let Choice { flag, .. } = &*self.choice;
        self.choice.is_shared().then(|| format!("{} {role}{flag}", self.choice.cargo()))
    }
}

/// For people.
impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.choice.fmt(f)
    }
}

fn hosts(locator: &Locator, port: u16) -> String {
    let hosts: Vec<_> = locator.hosts().iter().map(|host| host.with_default_port(port)).collect();
    hosts.join(",")
}

fn connectors() -> Connectors {
    let connectors = Connectors::new().with(discovery_zk::connector()).with(discovery_dns::connector());
    #[cfg(feature = "etcd")]
    let connectors = connectors.with(discovery_etcd::connector());
    connectors
}

/// What to do about a build that has no etcd.
fn without_etcd(sample: Sample) -> String {
    format!(
        "--backend: this build has no etcd; use `{} …`, for which protoc has to be installed \
         (Debian: apt-get install protobuf-compiler)",
        sample.cargo_with_etcd()
    )
}

/// How long something outlives a process that dies.
pub(crate) fn parse_ttl(text: &str) -> anyhow::Result<Duration> {
    let ttl = humantime::parse_duration(text)?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    anyhow::ensure!(allowed.contains(&ttl), "allowed are 100ms to 1h");
    Ok(ttl)
}

/// How long somebody waits, who may not wait at all.
pub(crate) fn parse_delay(text: &str) -> anyhow::Result<Duration> {
    let delay = humantime::parse_duration(text)?;
    anyhow::ensure!(delay <= Duration::from_secs(3600), "allowed are 0s to 1h");
    Ok(delay)
}

/// A label of a name, from a flag.
pub(crate) fn parse_label(text: &str) -> discovery::Result<String> {
    let name: ServiceName = text.parse()?;
    let mut labels = name.labels();
    match (labels.next(), labels.next()) {
        (Some(label), None) => Ok(label.to_owned()),
        _ => Err(discovery::Error::invalid("it takes one label of letters, digits and hyphens")),
    }
}

/// A wrong flag, told and answered with an exit code as clap does it.
pub(crate) fn usage(message: impl fmt::Display) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAC: Sample = Sample { command: "pac", alone: "pac", root: "cn", zone_port: 5300 };

    fn choose(text: &str) -> anyhow::Result<Choice> {
        BackendArgs { backend: Some(text.into()) }.choose("mem", PAC)
    }

    async fn command(text: &str) -> Option<String> {
        choose(text).unwrap().connect().await.unwrap().command("ghost sue")
    }

    #[test]
    fn a_kind_alone_means_this_machine_and_the_root_of_the_demo() {
        assert_eq!(choose("zk").unwrap().locator.to_string(), "zk://127.0.0.1:2181/cn");
        assert_eq!(choose("mem").unwrap().to_string(), "memory");
        let runs = Sample { command: "batch", root: "runs", ..PAC };
        assert_eq!(BackendArgs { backend: None }.choose("zk", runs).unwrap().locator.path(), "runs");
    }

    #[test]
    fn a_locator_is_taken_as_it_is_and_shown_without_its_secret() {
        let choice = choose("zk://me:s3cret@a,b:2182/deep").unwrap();
        assert_eq!(choice.to_string(), "ZooKeeper at a:2181,b:2182");
        assert!(!format!("{choice:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn others_are_told_how_to_find_the_same_registry() {
        assert_eq!(command("mem").await, None);
        assert_eq!(command("zk").await.unwrap(), "cargo run --release -- pac ghost sue --backend zk");
        assert_eq!(
            command("zk://me:s3cret@a,b:2182/deep").await.unwrap(),
            "cargo run --release -- pac ghost sue --backend 'zk://me:***@a,b:2182/deep'"
        );
        let default = BackendArgs { backend: None }.choose("zk", PAC).unwrap().connect().await.unwrap();
        assert_eq!(default.command("ghost sue").unwrap(), "cargo run --release -- pac ghost sue");
    }

    #[tokio::test]
    async fn dns_is_a_zone_that_needs_no_server_or_one_that_has_one() {
        let local = choose("dns").unwrap();
        assert_eq!(local.locator.to_string(), "dns+zone://127.0.0.1:5300/cn.internal?serve=true");
        assert_eq!(local.to_string(), "DNS at 127.0.0.1:5300");
        assert!(local.shared().is_ok());
        assert_eq!(choose("dns+zone://k:s3cret@h/z").unwrap().to_string(), "DNS at h:53");
        let error = choose("dns://h/z").unwrap_err().to_string();
        assert!(error.contains("only be read") && error.contains("dns+zone"), "{error}");
    }

    #[test]
    fn a_command_that_is_soon_over_serves_no_zone_unless_it_is_told_to() {
        let briefly = |text: &str| choose(text).unwrap().briefly().unwrap().locator.to_string();
        assert_eq!(briefly("dns"), "dns+zone://127.0.0.1:5300/cn.internal");
        for other in ["zk://127.0.0.1:2181/cn", "dns+zone://127.0.0.1:1/z?serve=true"] {
            assert_eq!(briefly(other), other);
        }
    }

    #[tokio::test]
    async fn what_can_only_be_read_is_enough_to_find_services() {
        let docker = BackendArgs { backend: Some("dns://127.0.0.1?records=a&port=80".into()) };
        let choice = docker.choose_any("mem", PAC).unwrap();
        assert_eq!(choice.to_string(), "DNS at 127.0.0.1:53");
        let registry = choice.shared().unwrap().connect().await.unwrap();
        assert!(!registry.is_writable() && registry.is_shared());
        assert!(choose("mem").unwrap().connect().await.unwrap().is_writable());
    }

    #[cfg(feature = "etcd")]
    #[tokio::test]
    async fn etcd_is_chosen_like_any_other() {
        assert_eq!(choose("etcd").unwrap().locator.to_string(), "etcd://127.0.0.1:2379/cn");
        assert_eq!(choose("etcd").unwrap().to_string(), "etcd at 127.0.0.1:2379");
        let choice = choose("etcd://me:s3cret@a,b:2380/deep").unwrap();
        assert_eq!(choice.to_string(), "etcd at a:2379,b:2380");
        assert!(choice.shared().is_ok());
        assert_eq!(
            command("etcd").await.unwrap(),
            "cargo run --release --features etcd -- pac ghost sue --backend etcd"
        );
    }

    #[cfg(not(feature = "etcd"))]
    #[test]
    fn without_etcd_the_choice_says_how_to_get_it() {
        for text in ["etcd", "etcd://me:s3cret@h/cn"] {
            let error = choose(text).unwrap_err().to_string();
            assert!(error.contains(&without_etcd(PAC)) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_build_without_etcd_is_told_from_a_build_with_it() {
        let text = without_etcd(PAC);
        for part in
            ["--backend", "cargo run --release --features etcd -- pac …", "protoc", "protobuf-compiler"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_bad_backend_is_named_with_what_is_allowed() {
        let error = choose("zoo").unwrap_err().to_string();
        assert!(
            error.contains("--backend") && error.contains("\"zoo\"") && error.contains("mem, zk, etcd, dns"),
            "{error}"
        );
        let error = choose("zk://u:s3cret@h:x").unwrap_err().to_string();
        assert!(
            error.contains("--backend") && error.contains("\"h:x\"") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn memory_is_not_for_several_processes() {
        let error = choose("mem").unwrap().shared().unwrap_err().to_string();
        assert!(error.contains("one process") && error.contains("-- pac`"), "{error}");
        assert!(choose("zk").unwrap().shared().is_ok());
    }
}
