//! Which registry a demo uses: one flag for all of them.

use std::fmt;

use clap::error::ErrorKind;
use discovery::{Connectors, Discovery, Locator};

/// Where plain `zk` points to.
const LOCAL_ZOOKEEPER: &str = "zk://127.0.0.1:2181";

/// The flag.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BackendArgs {
    // Text, not a parsed value: clap would repeat a value that it refuses, and with it the secret in a locator.
    #[arg(
        long,
        env = "DISCOVERY_BACKEND",
        hide_env_values = true,
        value_name = "BACKEND",
        help = "Where services register: mem, zk (the ZooKeeper on this machine), or a locator such as \
                zk://host:2181/cn"
    )]
    backend: Option<String>,
}

impl BackendArgs {
    /// The registry that was asked for, or else `default`; `root` is where a demo keeps its tree when only the kind
    /// of registry is named.
    pub(crate) fn choose(&self, default: &str, root: &str) -> anyhow::Result<Choice> {
        let text = self.backend.as_deref().unwrap_or(default);
        let locator = match text {
            "mem" => "mem://".parse(),
            "zk" => format!("{LOCAL_ZOOKEEPER}/{root}").parse(),
            locator if locator.contains("://") => locator.parse::<Locator>(),
            unknown => {
                let message = format!(
                    "--backend: {unknown:?} is no backend; write mem, zk, or a locator such as zk://host:2181/{root}"
                );
                return Err(usage(message));
            }
        };
        locator.map(Choice).map_err(|error| usage(format!("--backend: {error}")))
    }

    /// The flag as others would have to give it to find the same registry, with a space before it; nothing if it was
    /// not given. A secret in it is left out.
    pub(crate) fn flag(&self) -> String {
        let shown = |text: &String| match text.parse::<Locator>() {
            Ok(locator) => format!(" --backend '{locator}'"),
            Err(_) => format!(" --backend {text}"),
        };
        self.backend.as_ref().map(shown).unwrap_or_default()
    }
}

/// A registry, not connected yet. Displayed for people, without secrets.
#[derive(Clone, Debug)]
pub(crate) struct Choice(Locator);

impl Choice {
    /// Connects. Succeeds while the server is down.
    pub(crate) async fn connect(&self) -> anyhow::Result<Registry> {
        let backend =
            connectors().connect(&self.0).await.map_err(|error| usage(format!("--backend: {error}")))?;
        Ok(Registry { discovery: Discovery::from_arc(backend), name: self.to_string() })
    }

    /// Refuses a registry that ends at the border of this process; `together` is the command that needs no other.
    pub(crate) fn shared(self, together: &str) -> anyhow::Result<Self> {
        if self.0.scheme() == "mem" {
            return Err(usage(format!(
                "--backend: mem lives inside one process, so nobody else would ever see this one; \
                 use `{together}` to have everything in one process, or zk to have several"
            )));
        }
        Ok(self)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.scheme() {
            "mem" => f.write_str("memory"),
            "zk" => write!(f, "ZooKeeper at {}", hosts(&self.0, 2181)),
            _ => self.0.fmt(f),
        }
    }
}

/// A registry in use.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pub(crate) discovery: Discovery,
    name: String,
}

/// For people.
impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn hosts(locator: &Locator, port: u16) -> String {
    let hosts: Vec<_> = locator.hosts().iter().map(|host| host.with_default_port(port)).collect();
    hosts.join(",")
}

fn connectors() -> Connectors {
    Connectors::new().with(discovery_zk::connector())
}

/// A wrong flag, told and answered with an exit code as clap does it.
fn usage(message: impl fmt::Display) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str) -> anyhow::Result<Choice> {
        BackendArgs { backend: Some(text.into()) }.choose("mem", "cn")
    }

    #[test]
    fn a_kind_alone_means_this_machine_and_the_root_of_the_demo() {
        assert_eq!(choose("zk").unwrap().0.to_string(), "zk://127.0.0.1:2181/cn");
        assert_eq!(choose("mem").unwrap().to_string(), "memory");
        assert_eq!(BackendArgs { backend: None }.choose("zk", "runs").unwrap().0.path(), "runs");
    }

    #[test]
    fn a_locator_is_taken_as_it_is_and_shown_without_its_secret() {
        let args = BackendArgs { backend: Some("zk://me:s3cret@a,b:2182/deep".into()) };
        assert_eq!(args.flag(), " --backend 'zk://me:***@a,b:2182/deep'");
        let choice = args.choose("mem", "cn").unwrap();
        assert_eq!(choice.to_string(), "ZooKeeper at a:2181,b:2182");
        assert!(!format!("{choice:?}").contains("s3cret"));
    }

    #[test]
    fn a_bad_backend_is_named_with_what_is_allowed() {
        let error = choose("zoo").unwrap_err().to_string();
        assert!(
            error.contains("--backend") && error.contains("\"zoo\"") && error.contains("mem, zk"),
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
        let error = choose("mem").unwrap().shared("demos pac").unwrap_err().to_string();
        assert!(error.contains("one process") && error.contains("demos pac"), "{error}");
        assert!(choose("zk").unwrap().shared("demos pac").is_ok());
    }
}
