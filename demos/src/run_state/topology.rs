//! Which nodes a run has, and how many machines each: `{"node1" [1 2 4], "node2" [2]}`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context, anyhow, bail, ensure};
use serde::{Serialize, Serializer};

/// The most machines of one run.
const MACHINES_MAX: usize = 10_000;

/// Nodes, and the indices of their machines.
///
/// Read from EDN as the original has it, or from JSON: between the two differ only commas and colons, which EDN takes
/// for blanks or does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topology(BTreeMap<String, Vec<u32>>);

impl Topology {
    /// All machines.
    pub(super) fn machines(&self) -> impl Iterator<Item = Machine> {
        self.0.iter().flat_map(|(node, indices)| {
            indices.iter().map(|index| Machine { node: node.clone(), index: *index })
        })
    }

    fn check(&self) -> anyhow::Result<()> {
        let count: usize = self.0.values().map(Vec::len).sum();
        ensure!(count > 0, "there is no machine in it; a run needs at least one");
        ensure!(count <= MACHINES_MAX, "{count} machines; at most {MACHINES_MAX} are allowed");
        for (node, indices) in &self.0 {
            check_name("node", node)?;
            let mut sorted = indices.clone();
            sorted.sort_unstable();
            if let Some((twice, _)) = sorted.iter().zip(sorted.iter().skip(1)).find(|(one, next)| one == next)
            {
                bail!("node {node:?} has index {twice} twice");
            }
        }
        Ok(())
    }
}

/// As JSON.
impl Serialize for Topology {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl FromIterator<Machine> for Topology {
    fn from_iter<I: IntoIterator<Item = Machine>>(machines: I) -> Self {
        let mut nodes = BTreeMap::<_, Vec<_>>::new();
        for Machine { node, index } in machines {
            nodes.entry(node).or_default().push(index);
        }
        for indices in nodes.values_mut() {
            indices.sort_unstable();
        }
        Self(nodes)
    }
}

impl TryFrom<BTreeMap<String, Vec<u32>>> for Topology {
    type Error = anyhow::Error;

    fn try_from(nodes: BTreeMap<String, Vec<u32>>) -> anyhow::Result<Self> {
        let topology = Self(nodes);
        topology.check()?;
        Ok(topology)
    }
}

impl FromStr for Topology {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let read = Reader { text, rest: text }.read().and_then(Self::try_from);
        // In one message: of an error behind another one, a command line shows only the first.
        read.map_err(|error| anyhow!(r#"{error:#}; write it as {{"node1": [1,2,4], "node2": [2]}}"#))
    }
}

/// As EDN.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (n, (node, indices)) in self.0.iter().enumerate() {
            let indices: Vec<_> = indices.iter().map(u32::to_string).collect();
            write!(f, "{}{node:?} [{}]", if n > 0 { ", " } else { "" }, indices.join(" "))?;
        }
        f.write_str("}")
    }
}

/// One machine of a run: `node1/3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Machine {
    pub(super) node: String,
    pub(super) index: u32,
}

impl Machine {
    pub(super) fn new(node: &str, index: u32) -> anyhow::Result<Self> {
        check_name("node", node)?;
        Ok(Self { node: node.to_owned(), index })
    }
}

impl FromStr for Machine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts = text.split_once('/').and_then(|(node, index)| Some((node, index.parse().ok()?)));
        let (node, index) = parts.with_context(|| format!("{text:?} is no machine; write node1/3"))?;
        Self::new(node, index)
    }
}

/// As the tasks of a run are named.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.index)
    }
}

/// Checks the name of a node or a parameter, which is part of keys and addresses.
pub(super) fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = (1..=63).contains(&name.len()) && name.chars().all(is_allowed) && !name.starts_with('.');
    ensure!(fits, "{what} {name:?}: allowed are 1 to 63 letters, digits, and - _ . but no . in front");
    Ok(())
}

/// Reads a map of strings to vectors of numbers.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn read(mut self) -> anyhow::Result<BTreeMap<String, Vec<u32>>> {
        let mut nodes = BTreeMap::new();
        self.expect('{')?;
        while !self.takes('}') {
            let node = self.string()?;
            self.takes(':');
            let indices = self.numbers()?;
            ensure!(nodes.insert(node.clone(), indices).is_none(), "node {node:?} is there twice");
        }
        self.skip_blanks();
        ensure!(self.rest.is_empty(), "more behind the end, {}", self.place());
        Ok(nodes)
    }

    fn numbers(&mut self) -> anyhow::Result<Vec<u32>> {
        self.expect('[')?;
        let mut numbers = Vec::new();
        while !self.takes(']') {
            let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
            let (number, rest) = self.rest.split_at(end);
            numbers.push(number.parse().with_context(|| format!("no index, {}", self.place()))?);
            self.rest = rest;
        }
        Ok(numbers)
    }

    fn string(&mut self) -> anyhow::Result<String> {
        self.expect('"')?;
        let (string, rest) = self
            .rest
            .split_once('"')
            .with_context(|| format!("a string without an end, {}", self.place()))?;
        self.rest = rest;
        Ok(string.to_owned())
    }

    fn expect(&mut self, what: char) -> anyhow::Result<()> {
        ensure!(self.takes(what), "no {what} {}", self.place());
        Ok(())
    }

    fn takes(&mut self, what: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    }

    fn place(&self) -> String {
        match self.rest.chars().next() {
            Some(c) => {
                format!("at {c:?}, character {}", self.text.chars().count() - self.rest.chars().count() + 1)
            }
            None => "at the end".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edn_and_json_are_the_same() {
        let samples = [
            r#"{"node1": [1,2,4], "node2": [2]}"#,
            r#"{"node1" [1 2 4], "node2" [2]}"#,
            "{ \"node2\" [ 2 ] \"node1\"\n[1, 2, 4] } ",
        ];
        for sample in samples {
            let topology: Topology = sample.parse().unwrap();
            assert_eq!(topology.to_string(), r#"{"node1" [1 2 4], "node2" [2]}"#);
            let machines: Vec<_> = topology.machines().map(|machine| machine.to_string()).collect();
            assert_eq!(machines, ["node1/1", "node1/2", "node1/4", "node2/2"]);
            assert_eq!(topology.machines().collect::<Topology>(), topology);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (bad, part) in [
            ("", "no { at the end"),
            ("{}", "no machine"),
            (r#"{"a": []}"#, "no machine"),
            (r#"{"a": [1,1]}"#, "index 1 twice"),
            (r#"{"a": [1], "a": [2]}"#, "there twice"),
            (r#"{"a": [x]}"#, "no index, at 'x', character 8"),
            (r#"{"a": [-1]}"#, "no index"),
            (r#"{"a": [99999999999]}"#, "no index"),
            (r#"{"a/b": [1]}"#, "node \"a/b\""),
            (r#"{"..": [1]}"#, "node \"..\""),
            (r#"{"a" [1]} x"#, "more behind the end"),
            (r#"{"a"#, "a string without an end"),
            (r"{a [1]}", "no \" at 'a'"),
        ] {
            let error = format!("{:#}", bad.parse::<Topology>().unwrap_err());
            assert!(error.contains(part) && error.contains("write it as"), "{bad}: {error}");
        }
        let many: Vec<_> = (0..10_001).map(|n| n.to_string()).collect();
        let error =
            format!("{:#}", format!("{{\"a\" [{}]}}", many.join(" ")).parse::<Topology>().unwrap_err());
        assert!(error.contains("10001 machines"), "{error}");
    }

    #[test]
    fn a_machine_is_a_node_and_an_index() {
        assert_eq!("node1/3".parse::<Machine>().unwrap().to_string(), "node1/3");
        for bad in ["node1", "node1/", "/3", "a/b/3", "node1/x"] {
            assert!(bad.parse::<Machine>().is_err(), "{bad}");
        }
    }
}
