//! Other spellings of names, as Docker has them: only answered, never in the zone.
//!
//! ```text
//! tasks.cart.prod.eu1.disco.example   the service cart.prod.eu1 (Swarm)
//! blue-database-1.disco.example       the instance 1 of blue/database (Compose 2)
//! blue_database_1.disco.example       the same (Compose 1)
//! ```
//!
//! Hyphens are part of names, too: the first way to split that gives a name in the zone is taken. An underscore is as
//! good as a hyphen, for no name of a service has one.

use super::{
    table::Table,
    wire::{Name, labels, parent},
};

/// The name that another spelling means; `None` if it means none that exists.
pub(crate) fn resolve(table: &Table, name: &[u8]) -> Option<Name> {
    let first = labels(name).next()?;
    let rest = parent(name).filter(|rest| rest.len() >= table.apex().len())?;
    if first == b"tasks" {
        return (rest.len() > table.apex().len() && table.node(rest).is_some()).then(|| rest.into());
    }
    if first.starts_with(b"_") {
        return None;
    }
    let parts: Vec<&[u8]> = first.split(|byte| matches!(byte, b'-' | b'_')).collect();
    let (id, names) = parts.split_last()?;
    (1..names.len()).find_map(|at| {
        let (project, service) = names.split_at(at);
        let mut wire = Vec::with_capacity(name.len() + 2);
        for label in [id, service.join(&b'-').as_slice(), project.join(&b'-').as_slice()] {
            wire.push(u8::try_from(label.len()).ok()?);
            wire.extend(label);
        }
        wire.extend(rest);
        table.node(&wire).map(|_| wire.as_slice().into())
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn other_spellings_mean_what_is_there() {
        let table = table(&[
            a("1.database.blue.z.", 1),
            a("database.blue.z.", 1),
            a("2.node.docker-system.z.", 2),
            a("3.my-node.docker.z.", 3),
        ]);
        for (spelling, expected) in [
            ("blue-database-1.z.", Some("1.database.blue.z.")),
            ("blue_database_1.z.", Some("1.database.blue.z.")),
            ("docker_system_node_2.z.", Some("2.node.docker-system.z.")),
            ("docker-my-node-3.z.", Some("3.my-node.docker.z.")),
            ("tasks.database.blue.z.", Some("database.blue.z.")),
            ("tasks.nothing.z.", None),
            ("tasks.z.", None),
            ("blue-database-2.z.", None),
            ("1-2.z.", None),
            ("_http.z.", None),
            ("a--1.z.", None),
        ] {
            assert_eq!(super::resolve(&table, &name(spelling)), expected.map(name), "{spelling}");
        }
    }
}
