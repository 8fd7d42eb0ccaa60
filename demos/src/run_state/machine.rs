//! The states of a run, as the original has them, and runs on a registry.

use discovery::{
    ServiceName,
    recipe::{Runs, Table},
};

use crate::backend::Registry;

/// What all runs begin with.
pub(super) const INIT: &str = "init";

/// What a run that somebody aborts ends in.
pub(super) const ABORTED: &str = "aborted";

/// What a run ends in when a machine reports that it cannot go on.
pub(super) const ERROR: &str = "error";

/// What a run ends in when machines do not report in time.
pub(super) const TIMED_OUT: &str = "timed-out";

/// The table of the original, with a way out of `ready`, which it does not have, and with exits.
pub(super) fn slipstream() -> Table {
    with_exits(
        Table::new(INIT)
            .step(INIT, "provisioning")
            .step("provisioning", "executing")
            .step("executing", "sending-report")
            .step("sending-report", "ready")
            .step("ready", "provisioning")
            .step("ready", "finalizing")
            .step("finalizing", "terminated"),
    )
}

/// States one after the other.
pub(super) fn in_a_row(states: &[String]) -> Table {
    let start = states.first().map_or(INIT, String::as_str);
    let row = states.windows(2).fold(Table::new(start), |table, pair| table.step(&*pair[0], &*pair[1]));
    with_exits(row)
}

fn with_exits(table: Table) -> Table {
    table.exit(ABORTED).exit(ERROR).exit(TIMED_OUT)
}

/// The runs of the demo.
pub(super) fn runs(registry: &Registry) -> discovery::Result<Runs> {
    registry.discovery.runs(&name())
}

/// What the runs, and the circle of those who work on them, are called in the registry.
pub(super) fn name() -> ServiceName {
    ServiceName::from_labels(["slipstream"]).unwrap_or_else(|_| ServiceName::root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_original_goes_round_and_out() {
        let table = slipstream();
        assert_eq!(table.steps("ready"), ["provisioning", "finalizing"]);
        assert!(table.is_end("terminated") && table.is_end(ABORTED));
        assert_eq!(table.exits(), [ABORTED, ERROR, TIMED_OUT]);
        assert_eq!(in_a_row(&["a".into(), "b".into(), "c".into()]).steps("b"), ["c"]);
        assert_eq!(name().to_string(), "slipstream");
    }
}
