//! What applies to a backend, and how it went.

use std::{env, fmt, fs, path::Path};

use super::{Check, Harness, IntoHarness, Need, Outcome};

/// The environment variable that makes [`Coverage::compare`] write the file instead.
const BLESS: &str = "DISCOVERY_BLESS";

/// Which checks apply to a backend. Its text is stable and meant to be committed, so that no check stops applying
/// unseen.
#[derive(Clone, Debug)]
pub struct Coverage(Vec<(&'static Check, Option<Need>)>);

impl Coverage {
    /// Asks every check whether it applies, without running any.
    pub async fn of(harness: impl Harness) -> Self {
        let mut rows = Vec::new();
        for check in Check::all() {
            rows.push((check, check.unmet(&harness).await));
        }
        Self(rows)
    }

    /// Compares with the committed text at `path`; with `DISCOVERY_BLESS=1` in the environment, writes it.
    ///
    /// # Panics
    ///
    /// When the two differ, or the file cannot be read or written.
    pub fn compare(&self, path: &Path) {
        let now = self.to_string();
        if env::var_os(BLESS).is_some() {
            fs::write(path, now).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            return;
        }
        let then = fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}; {BLESS}=1 writes it", path.display()));
        let gone = then.lines().filter(|line| !now.lines().any(|other| other == *line));
        let new = now.lines().filter(|line| !then.lines().any(|other| other == *line));
        let difference: Vec<_> =
            gone.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}"))).collect();
        assert!(
            difference.is_empty(),
            "what applies is not as in {} any more; if that is intended, {BLESS}=1 rewrites it:\n{}",
            path.display(),
            difference.join("\n")
        );
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|(check, unmet)| {
            (*check, unmet.map_or_else(|| "applies".into(), |need| format!("not applicable: {need}")))
        });
        write_table(f, rows)
    }
}

/// How all checks went.
#[derive(Clone, Debug)]
pub struct Report(Vec<(&'static Check, Outcome)>);

impl Report {
    /// Each check with its outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static Check, &Outcome)> {
        self.0.iter().map(|(check, outcome)| (*check, outcome))
    }

    /// Whether no check failed.
    pub fn is_clean(&self) -> bool {
        self.outcomes().all(|(_, outcome)| !matches!(outcome, Outcome::Failed(_)))
    }

    /// Which checks apply.
    pub fn coverage(&self) -> Coverage {
        let unmet = |outcome: &Outcome| match outcome {
            Outcome::NotApplicable(need) => Some(*need),
            Outcome::Passed | Outcome::Failed(_) => None,
        };
        Coverage(self.outcomes().map(|(check, outcome)| (check, unmet(outcome))).collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_table(f, self.outcomes().map(|(check, outcome)| (check, outcome.to_string())))
    }
}

/// Runs every check, one after the other, each on a harness of its own, and prints the table.
pub async fn report<H: Harness>(mut fresh: impl AsyncFnMut() -> H) -> Report {
    let mut rows = Vec::new();
    for check in Check::all() {
        rows.push((check, check.run(fresh().await).await));
    }
    let report = Report(rows);
    println!("{report}");
    report
}

/// Compares what applies with a committed file: the last of the tests that
/// [`conformance_tests!`](crate::conformance_tests) writes.
#[doc(hidden)]
pub fn compare<H: IntoHarness>(fresh: impl AsyncFnOnce() -> H, path: &str) {
    super::block_on(async {
        if let Some(harness) = fresh().await.into_harness() {
            Coverage::of(harness).await.compare(path.as_ref());
        }
    });
}

fn write_table(
    f: &mut fmt::Formatter<'_>,
    rows: impl Iterator<Item = (&'static Check, String)>,
) -> fmt::Result {
    let width = Check::all().iter().map(|check| check.name().len()).max().unwrap_or_default();
    writeln!(f, "{:width$}  obligations  outcome", "check")?;
    for (check, outcome) in rows {
        let obligations: Vec<_> = check.obligations().iter().map(ToString::to_string).collect();
        writeln!(f, "{:width$}  {:11}  {outcome}", check.name(), obligations.join(" "))?;
    }
    Ok(())
}
