//! The configuration file: which targets there are, and how each is started.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use discovery::ServiceName;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// Instead of a file: nothing is looked after.
const NOTHING: &str = "-";

/// What the original calls itself in its configuration files; here it is this program.
pub(super) const SIMPLE: &str = "build/simple";

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    /// Always there.
    Url(String),
    /// Wherever the registry says.
    Service(ServiceName),
}

impl Address {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if !text.contains("://") {
            let name =
                text.parse().with_context(|| format!("{text:?} is neither a URL nor a service name"))?;
            return Ok(Self::Service(name));
        }
        let url = reqwest::Url::parse(text).with_context(|| format!("{text:?} is no URL"))?;
        anyhow::ensure!(
            url.scheme() == "http" && url.has_host() && url.query().is_none() && url.fragment().is_none(),
            "{text}: only http://host:port/path is supported"
        );
        Ok(Self::Url(text.trim_end_matches('/').to_owned()))
    }

    /// The service, if that is what it is.
    pub(super) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Url(_) => None,
            Self::Service(name) => Some(name),
        }
    }

    /// A few characters of it, for the lines that it prints.
    pub(super) fn short(&self) -> String {
        match self {
            Self::Url(url) => url.rsplit([':', '/']).next().unwrap_or(url).to_owned(),
            Self::Service(name) => name.labels().next_back().unwrap_or_default().to_owned(),
        }
    }
}

/// As in the file.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.pad(url),
            Self::Service(name) => f.pad(&name.to_string()),
        }
    }
}

/// How a target is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The command and its arguments; at least one word.
    pub(super) words: Vec<String>,
    /// Which targets are to run first.
    pub(super) after: Vec<Address>,
}

/// All targets, in the order in which they can be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) targets: Vec<(Address, Order)>,
}

impl Config {
    /// Reads a file: as given, next to the program, or in the working directory. `-` is none; and what begins with a brace
    /// is no name of a file, but what would be in it.
    pub(super) fn read(name: &str) -> anyhow::Result<Self> {
        if name == NOTHING {
            return Ok(Self::default());
        }
        if name.starts_with('{') {
            return Self::parse(name).context("this is no configuration");
        }
        let places = places(name);
        let Some(path) = places.iter().find(|path| path.is_file()) else {
            let places: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
            anyhow::bail!("no configuration at {}; write - to look after nothing", places.join(" nor at "));
        };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no configuration", path.display()))
    }

    /// How many targets come after each other, at most.
    pub(super) fn depth(&self) -> u32 {
        let mut depths: BTreeMap<&Address, u32> = BTreeMap::new();
        for (address, order) in &self.targets {
            let first = order.after.iter().filter_map(|after| depths.get(after)).max().copied();
            depths.insert(address, first.unwrap_or(0) + 1);
        }
        depths.into_values().max().unwrap_or(1)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let Entries(entries) = serde_json::from_str(text).context(
            "each target takes a command, as text or as a list of words, \
             or {\"command\": …, \"after\": [targets]}",
        )?;
        let mut targets = BTreeMap::new();
        for (text, entry) in entries {
            let (command, after) = match entry {
                Entry::Command(command) => (command, Vec::new()),
                Entry::Order(Extended { command, after }) => (command, after),
            };
            let words = command.words();
            anyhow::ensure!(!words.is_empty(), "{text}: the command is empty");
            let after = after.iter().map(|text| Address::parse(text)).collect::<anyhow::Result<_>>()?;
            let address = Address::parse(&text)?;
            let twice = targets.insert(address, Order { words, after });
            anyhow::ensure!(twice.is_none(), "{text} is there twice");
        }
        Ok(Self { targets: sorted(targets)? })
    }
}

/// Puts each target behind those it comes after; among equals, by address.
fn sorted(mut rest: BTreeMap<Address, Order>) -> anyhow::Result<Vec<(Address, Order)>> {
    for (address, order) in &rest {
        if let Some(unknown) = order.after.iter().find(|after| !rest.contains_key(after)) {
            anyhow::bail!("{address} comes after {unknown}, which is no target");
        }
    }
    let mut sorted = Vec::new();
    while !rest.is_empty() {
        let free = |order: &Order| order.after.iter().all(|after| !rest.contains_key(after));
        let Some(first) = rest.iter().find(|(_, order)| free(order)).map(|(address, _)| address.clone())
        else {
            let circle: Vec<_> = rest.keys().map(ToString::to_string).collect();
            anyhow::bail!("each of these comes after another one: {}", circle.join(", "));
        };
        sorted.extend(rest.remove_entry(&first));
    }
    Ok(sorted)
}

fn places(name: &str) -> Vec<PathBuf> {
    let beside = env::current_exe().ok().and_then(|program| Some(program.parent()?.join(name)));
    let here = env::current_dir().ok().map(|here| here.join(name));
    let mut places: Vec<_> = [Some(Path::new(name).to_owned()), beside, here].into_iter().flatten().collect();
    places.dedup();
    places
}

/// A map as it is in the file: what is there twice is there twice.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Command(Command),
    Order(Extended),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extended {
    command: Command,
    #[serde(default)]
    after: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Line(String),
    Words(Vec<String>),
}

impl Command {
    fn words(self) -> Vec<String> {
        match self {
            Self::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
            Self::Words(words) => words,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        format!("{:#}", Config::parse(text).unwrap_err())
    }

    #[test]
    fn the_files_of_the_original_are_understood() {
        let config = Config::parse(
            r#"{"http://localhost:9090": "build/simple simple-9090.conf :9090",
                "http://localhost:8080": "build/simple simple-8080.conf :8080"}"#,
        )
        .unwrap();
        let shown: Vec<_> = config.targets.iter().map(|(address, _)| address.to_string()).collect();
        assert_eq!(shown, ["http://localhost:8080", "http://localhost:9090"]);
        let (address, order) = &config.targets[0];
        assert_eq!((address.short().as_str(), order.words.len()), ("8080", 3));
        assert_eq!(Config::read(NOTHING).unwrap(), Config::default());
        assert_eq!(Config::read("{}").unwrap(), Config::default());
    }

    #[test]
    fn targets_may_be_services_and_come_in_an_order() {
        let config = Config::parse(
            r#"{"shop/web": {"command": ["server", "a b"], "after": ["shop/db", "shop/cache"]},
                "shop/cache": {"command": "cache", "after": ["shop/db"]},
                "shop/db": ["db"]}"#,
        )
        .unwrap();
        let order: Vec<_> = config.targets.iter().map(|(address, _)| address.short()).collect();
        assert_eq!(order, ["db", "cache", "web"]);
        assert_eq!(config.targets[2].1.words, ["server", "a b"]);
        assert!(config.targets.iter().all(|(address, _)| address.service().is_some()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("[]", "expected a map"),
            (r#"{"http://a:1": 7}"#, "each target takes a command"),
            (r#"{"http://a:1": {"command": "x", "before": []}}"#, "each target takes a command"),
            (r#"{"http://a:1": " "}"#, "the command is empty"),
            (r#"{"https://a:1": "x"}"#, "only http://"),
            (r#"{"a_b": "x"}"#, "neither a URL nor a service name"),
            (r#"{"http://a:1/?x=1": "x"}"#, "only http://"),
            (r#"{"http://a:1": "x", "http://a:1/": "x"}"#, "twice"),
            (r#"{"http://a:1": "x", "http://a:1": "y"}"#, "twice"),
            (r#"{"a": {"command": "x", "after": ["b"]}}"#, "b, which is no target"),
            (
                r#"{"a": {"command": "x", "after": ["b"]}, "b": {"command": "x", "after": ["a"]}, "c": "x"}"#,
                "another one: a, b",
            ),
        ] {
            let error = refused(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = Config::read("no-such.conf").unwrap_err().to_string();
        assert!(error.contains("no-such.conf") && error.contains("write -"), "{error}");
    }
}
