//! Several backends' coverage in one table, for people.

use std::{collections::BTreeMap, fmt::Write};

use super::Check;
use crate::{Error, Result};

/// The committed coverages of several backends as one Markdown table: what each check is about, and to which of the
/// backends it applies. Takes names and texts, as [`Coverage`](super::Coverage) writes them.
///
/// # Errors
///
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a text that does not tell of every check.
///
/// # Example: one backend
///
/// ```
/// use discovery::conformance::side_by_side;
///
/// let coverage = include_str!("../../tests/conformance.txt");
/// let table = side_by_side(&[("mem", coverage)])?;
/// assert!(table.contains("| unknown scopes are empty | 8 | ✓ |"));
/// # Ok::<(), discovery::Error>(())
/// ```
pub fn side_by_side(backends: &[(&str, &str)]) -> Result<String> {
    let names: Vec<_> = backends.iter().map(|(name, _)| *name).collect();
    let outcomes: Vec<_> = backends.iter().map(|(_, text)| self::outcomes(text)).collect();
    let mut notes = Vec::new();
    let mut table = String::new();
    line(&mut table, &format!("\n| | {} |\n|{}", names.join(" | "), " --- |".repeat(1 + names.len())));
    let applies =
        |outcomes: &BTreeMap<_, _>| outcomes.values().filter(|outcome| **outcome == "applies").count();
    let counts: Vec<_> = outcomes.iter().map(|outcomes| applies(outcomes).to_string()).collect();
    line(&mut table, &format!("| of {} checks apply | {} |", Check::all().len(), counts.join(" | ")));
    let mut group = "";
    for check in Check::all() {
        if check.group() != group {
            group = check.group();
            let (names, lines) = (names.join(" | "), " --- |".repeat(2 + names.len()));
            line(&mut table, &format!("\n### `{group}`\n\n| check | obligations | {names} |\n|{lines}"));
        }
        let title = check.name().trim_start_matches(group).trim_start_matches("::").replace('_', " ");
        let obligations: Vec<_> = check.obligations().iter().map(ToString::to_string).collect();
        let mut cells = vec![title, obligations.join(" ")];
        for ((name, _), outcomes) in backends.iter().zip(&outcomes) {
            let outcome = outcomes.get(check.name()).ok_or_else(|| {
                Error::invalid(format!(
                    "the coverage of {name} does not tell of {}; write it anew",
                    check.name()
                ))
            })?;
            cells.push(match outcome.strip_prefix("not applicable: ") {
                None if *outcome == "applies" => "✓".to_owned(),
                None => {
                    return Err(Error::invalid(format!(
                        "the coverage of {name} says {outcome:?}; write it anew"
                    )));
                }
                Some(why) => {
                    let known = notes.iter().position(|note| note == why);
                    let number = known.unwrap_or_else(|| {
                        notes.push(why.to_owned());
                        notes.len() - 1
                    });
                    format!("– ({})", number + 1)
                }
            });
        }
        line(&mut table, &format!("| {} |", cells.join(" | ")));
    }
    for (number, why) in notes.iter().enumerate() {
        line(&mut table, &format!("\n({}) not applicable: {why}", number + 1));
    }
    Ok(table)
}

/// Check by check, what a coverage says of it.
fn outcomes(text: &str) -> BTreeMap<&str, &str> {
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    // Between the two come the numbers of obligations.
    let outcome = |rest| str::trim_start_matches(rest, |c: char| c == ' ' || c.is_ascii_digit());
    rows.map(|(check, rest)| (check, outcome(rest))).collect()
}

fn line(table: &mut String, text: &str) {
    writeln!(table, "{text}").expect("writing to a string does not fail");
}
