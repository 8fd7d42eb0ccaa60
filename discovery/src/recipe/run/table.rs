//! Which state may follow which.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most bytes the name of a state or a task may have.
pub(super) const NAME_MAX: usize = 100;

/// The most bytes a table may have: it is part of the record of a run.
const TABLE_BYTES: usize = 16 * 1024;

/// The states of a run, and which may follow which.
///
/// A run goes a *step* when all its tasks have completed a state. An *exit* is taken from outside, out of any state that
/// has a step: aborted, timed out, in error. A state without steps is the end.
///
/// # Example
///
/// ```
/// use discovery::recipe::Table;
///
/// let table = Table::new("init").step("init", "running").step("running", "done").exit("aborted");
/// assert!(table.check().is_ok());
/// assert_eq!(table.steps("running"), ["done"]);
/// assert!(table.is_end("done") && table.is_end("aborted"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a table is for creating a run"]
pub struct Table {
    start: String,
    steps: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exits: Vec<String>,
}

impl Table {
    /// A table with one state, at which runs begin.
    pub fn new(start: impl Into<String>) -> Self {
        Self { start: start.into(), steps: BTreeMap::new(), exits: Vec::new() }
    }

    /// Allows the step from one state to another. A state may have several; then the first task that completes it
    /// decides for all.
    pub fn step(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        let (steps, to) = (self.steps.entry(from.into()).or_default(), to.into());
        if !steps.contains(&to) {
            steps.push(to);
        }
        self
    }

    /// Allows to end in `state` out of any state that has a step.
    pub fn exit(mut self, state: impl Into<String>) -> Self {
        let state = state.into();
        if !self.exits.contains(&state) {
            self.exits.push(state);
        }
        self
    }

    /// Where runs begin.
    pub fn start(&self) -> &str {
        &self.start
    }

    /// The states that may follow when all tasks have completed `state`.
    pub fn steps(&self, state: &str) -> &[String] {
        self.steps.get(state).map_or(&[], Vec::as_slice)
    }

    /// The states that may be forced.
    pub fn exits(&self) -> &[String] {
        &self.exits
    }

    /// Whether nothing can follow `state`.
    pub fn is_end(&self, state: &str) -> bool {
        self.steps(state).is_empty()
    }

    /// All states, in the order in which a run may come to them.
    pub fn states(&self) -> Vec<&str> {
        let mut all = vec![self.start.as_str()];
        let mut seen = BTreeSet::from([self.start.as_str()]);
        let mut passed = 0;
        while let Some(state) = all.get(passed) {
            let steps = self.steps(state);
            passed += 1;
            all.extend(steps.iter().map(String::as_str).filter(|step| seen.insert(step)));
        }
        let rest =
            self.steps.iter().flat_map(|(from, to)| std::iter::once(from).chain(to)).chain(&self.exits);
        all.extend(rest.map(String::as_str).filter(|state| seen.insert(state)));
        all
    }

    /// Checks the names of the states.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a name that is empty, longer than 100 bytes or not printable, and for a
    /// table of more than 16 KiB.
    pub fn check(&self) -> Result<()> {
        let bytes = self.bytes();
        if bytes > TABLE_BYTES {
            return Err(Error::invalid(format!(
                "a table of {bytes} bytes; at most {TABLE_BYTES} are allowed"
            )));
        }
        self.states().into_iter().try_for_each(|state| check_name("state", state))
    }

    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        let all = self.steps.iter().flat_map(|(from, to)| std::iter::once(from).chain(to)).chain(&self.exits);
        all.map(|state| state.len() + 3).sum()
    }

    /// Checks a step.
    pub(super) fn check_step(&self, from: &str, to: &str) -> Result<()> {
        let steps = self.steps(from);
        if steps.iter().any(|step| step == to) {
            return Ok(());
        }
        Err(Error::invalid(match steps {
            [] => format!("nothing follows {from:?}: it is the end, or no state of this run"),
            _ => format!("{from:?} cannot become {to:?}; it can become {}", quoted(steps)),
        }))
    }

    /// Checks an exit.
    pub(super) fn check_exit(&self, to: &str) -> Result<()> {
        if self.exits.iter().any(|exit| exit == to) {
            return Ok(());
        }
        Err(Error::invalid(match &self.exits[..] {
            [] => format!("{to:?} cannot be forced: this run has no exits"),
            exits => format!("{to:?} cannot be forced; allowed are {}", quoted(exits)),
        }))
    }
}

fn quoted(states: &[String]) -> String {
    states.iter().map(|state| format!("{state:?}")).collect::<Vec<_>>().join(", ")
}

/// Checks the name of a state or a task.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let why = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > NAME_MAX {
        format!("has {} bytes; at most {NAME_MAX} are allowed", name.len())
    } else if let Some(bad) = name.chars().find(|c| c.is_control()) {
        format!("contains {bad:?}; only printable characters are allowed")
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("{what} {name:?} {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_not_in_the_table_is_refused_with_those_that_are() {
        let table = Table::new("init").step("init", "running").step("init", "skipped").exit("aborted");
        assert!(table.check_step("init", "running").is_ok());
        let error = table.check_step("init", "done").unwrap_err().to_string();
        assert_eq!(error, r#""init" cannot become "done"; it can become "running", "skipped""#);
        assert!(table.check_step("running", "init").unwrap_err().to_string().contains("the end"));
        assert!(table.check_exit("aborted").is_ok());
        assert!(table.check_exit("error").unwrap_err().to_string().contains("\"aborted\""));
        assert_eq!(table.states(), ["init", "running", "skipped", "aborted"]);
    }

    #[test]
    fn names_are_printable_and_short() {
        for bad in ["", "a\nb", &"x".repeat(101)] {
            assert!(Table::new(bad).check().is_err(), "{bad:?}");
            assert!(Table::new("init").step("init", bad).check().is_err(), "{bad:?}");
        }
        assert!(Table::new("sending report").check().is_ok());
    }
}
