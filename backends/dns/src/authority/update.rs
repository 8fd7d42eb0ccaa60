//! Updates (RFC 2136): all of one or nothing.

use std::collections::HashMap;

use imbl::Vector;

use super::{
    lease::Key,
    message::{Rcode, Request},
    table::{Edit, Table},
    wire::{Data, Name, Raw, code, is_within},
};

/// The most bytes of data that a record may have.
const DATA_MAX: usize = 60_000;

/// What an update came to.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The next table; `None` if nothing changed.
    pub(crate) table: Option<Table>,
    /// The records it asked for, there before or not.
    pub(crate) asked: Vec<Key>,
}

/// What the table is behind an update.
pub(crate) fn apply(table: &Table, request: &Request<'_>) -> Result<Applied, Rcode> {
    check_prerequisites(table, request)?;
    let changes = prescan(table, request)?;
    let mut edit = table.edit();
    let mut asked = Vec::new();
    for change in changes {
        match change {
            Change::Add { key, ttl } => {
                if add(&mut edit, &key, ttl) {
                    asked.push(key);
                }
            }
            Change::Remove(key) => remove(&mut edit, &key),
            Change::RemoveSet(name, kind) => remove_set(&mut edit, &name, kind),
            Change::RemoveName(name) => remove_name(&mut edit, &name),
        }
    }
    // Not those that the same update took out again.
    asked.retain(|key| edit.table().set(&key.name, key.kind).is_some_and(|set| set.has(&key.data)));
    let table = edit.finish(table).map_err(|_| Rcode::Refused)?;
    Ok(Applied { table, asked })
}

/// Section 3.2: what must be so before anything happens.
fn check_prerequisites(table: &Table, request: &Request<'_>) -> Result<(), Rcode> {
    let mut sets = HashMap::<(Name, u16), Vec<Data>>::new();
    for wanted in request.answers() {
        if wanted.ttl != 0 {
            return Err(Rcode::FormErr);
        }
        if !is_within(&wanted.name, table.apex()) {
            return Err(Rcode::NotZone);
        }
        let is_used = || table.node(&wanted.name).is_some_and(|node| !node.sets().is_empty());
        let has_set = || table.set(&wanted.name, wanted.kind).is_some();
        let is_any = wanted.kind == code::ANY;
        match wanted.class {
            code::CLASS_ANY | code::CLASS_NONE if wanted.length != 0 => return Err(Rcode::FormErr),
            code::CLASS_ANY | code::CLASS_NONE if !is_any && code::is_meta(wanted.kind) => {
                return Err(Rcode::FormErr);
            }
            code::CLASS_ANY if is_any && !is_used() => return Err(Rcode::NxDomain),
            code::CLASS_ANY if !is_any && !has_set() => return Err(Rcode::NxRrSet),
            code::CLASS_NONE if is_any && is_used() => return Err(Rcode::YxDomain),
            code::CLASS_NONE if !is_any && has_set() => return Err(Rcode::YxRrSet),
            code::CLASS_ANY | code::CLASS_NONE => {}
            code::IN if !code::is_meta(wanted.kind) => {
                let data = wanted.data().ok_or(Rcode::FormErr)?;
                sets.entry(((&*wanted.name).into(), wanted.kind)).or_default().push(data);
            }
            _ => return Err(Rcode::FormErr),
        }
    }
    for ((name, kind), mut data) in sets {
        data.sort();
        data.dedup();
        let is_same = table.set(&name, kind).is_some_and(|set| set.data == Vector::from(data));
        if !is_same {
            return Err(Rcode::NxRrSet);
        }
    }
    Ok(())
}

/// One change of an update, known to be well-formed.
#[derive(Debug)]
enum Change {
    Add { key: Key, ttl: u32 },
    Remove(Key),
    RemoveSet(Name, u16),
    RemoveName(Name),
}

/// Section 3.4.1: whether all of it can be done, before any of it is.
fn prescan(table: &Table, request: &Request<'_>) -> Result<Vec<Change>, Rcode> {
    request.authorities().map(|raw| Change::read(table, &raw)).collect()
}

impl Change {
    fn read(table: &Table, raw: &Raw<'_>) -> Result<Self, Rcode> {
        if !is_within(&raw.name, table.apex()) {
            return Err(Rcode::NotZone);
        }
        let name = Name::from(&*raw.name);
        let key = || {
            let data = raw.data().ok_or(Rcode::FormErr)?;
            // Otherwise no message of a transfer had room for it.
            if data.len() > DATA_MAX {
                return Err(Rcode::Refused);
            }
            Ok(Key { name: name.clone(), kind: raw.kind, data })
        };
        let is_plain = !code::is_meta(raw.kind);
        match raw.class {
            code::IN if is_plain => Ok(Self::Add { key: key()?, ttl: raw.ttl }),
            code::CLASS_ANY if raw.ttl != 0 || raw.length != 0 => Err(Rcode::FormErr),
            code::CLASS_ANY if raw.kind == code::ANY => Ok(Self::RemoveName(name)),
            code::CLASS_ANY if is_plain => Ok(Self::RemoveSet(name, raw.kind)),
            code::CLASS_NONE if raw.ttl == 0 && is_plain => Ok(Self::Remove(key()?)),
            _ => Err(Rcode::FormErr),
        }
    }
}

/// Section 3.4.2.2; false for what is ignored.
fn add(edit: &mut Edit, key: &Key, ttl: u32) -> bool {
    // Values with the highest bit are to be read as zero (RFC 2181, section 8).
    let ttl = if ttl > i32::MAX.cast_unsigned() { 0 } else { ttl };
    let is_apex = key.name == *edit.table().apex();
    let sets = edit.table().node(&key.name).map(|node| node.sets()).unwrap_or_default();
    match key.kind {
        code::SOA => {
            if is_apex {
                edit.set_soa(ttl, key.data.clone());
            }
            return false;
        }
        code::CNAME if sets.iter().any(|set| set.kind != code::CNAME) => return false,
        // There is only one, so the new one takes its place.
        code::CNAME => {
            let others: Vec<_> = sets.iter().flat_map(|set| &set.data).cloned().collect();
            for data in others.iter().filter(|data| **data != key.data) {
                edit.remove(&key.name, code::CNAME, data);
            }
        }
        _ if sets.iter().any(|set| set.kind == code::CNAME) => return false,
        _ => {}
    }
    edit.add(&key.name, key.kind, ttl, key.data.clone());
    true
}

/// Section 3.4.2.4. The apex keeps its SOA record and the last of its NS records.
fn remove(edit: &mut Edit, key: &Key) {
    let is_apex = key.name == *edit.table().apex();
    let is_last = || edit.table().set(&key.name, key.kind).is_some_and(|set| set.data.len() == 1);
    if key.kind == code::SOA || (is_apex && key.kind == code::NS && is_last()) {
        return;
    }
    edit.remove(&key.name, key.kind, &key.data);
}

/// Section 3.4.2.3.
fn remove_set(edit: &mut Edit, name: &Name, kind: u16) {
    let is_apex = name == edit.table().apex();
    if !(is_apex && matches!(kind, code::SOA | code::NS)) {
        edit.remove_set(name, kind);
    }
}

fn remove_name(edit: &mut Edit, name: &Name) {
    let sets = edit.table().node(name).map(|node| node.sets()).unwrap_or_default();
    let kinds: Vec<_> = sets.iter().map(|set| set.kind).collect();
    for kind in kinds {
        remove_set(edit, name, kind);
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode as Code;

    use super::super::{testing::*, wire::Rr};
    use super::*;

    const NONE: u16 = code::CLASS_NONE;
    const ANY: u16 = code::CLASS_ANY;

    fn any(name: &str) -> Rr {
        rr(name, code::ANY, 0, &[])
    }

    #[test]
    fn prerequisites_are_checked_in_all_forms() {
        let zone = zone(&[a("a.z.", 1), a("a.z.", 2), a("x.ent.z.", 1)]);
        let update = || Ask::update("z.");
        let has = |rr: &Rr| update().requires(code::IN, rr);
        for (ask, expected) in [
            (update().requires(ANY, &any("a.z.")), Code::NoError),
            (update().requires(ANY, &any("b.z.")), Code::NXDomain),
            (update().requires(ANY, &any("ent.z.")), Code::NXDomain),
            (update().requires(ANY, &a("a.z.", 0)), Code::NoError),
            (update().requires(ANY, &txt("a.z.", "")), Code::NXRRSet),
            (update().requires(NONE, &rr("b.z.", code::ANY, 0, &[])), Code::NoError),
            (update().requires(NONE, &rr("a.z.", code::ANY, 0, &[])), Code::YXDomain),
            (update().requires(NONE, &rr("a.z.", code::TXT, 0, &[])), Code::NoError),
            (update().requires(NONE, &rr("a.z.", code::A, 0, &[])), Code::YXRRSet),
            (has(&a("a.z.", 1)).requires(code::IN, &a("a.z.", 2)), Code::NoError),
            (has(&a("a.z.", 2)).requires(code::IN, &a("a.z.", 1)), Code::NoError),
            (has(&a("a.z.", 1)), Code::NXRRSet),
            (has(&a("a.z.", 1)).requires(code::IN, &a("a.z.", 3)), Code::NXRRSet),
            (has(&a("b.z.", 1)), Code::NXRRSet),
            (has(&a("a.y.", 1)), Code::NotZone),
            (update().with(0, ANY, 1, &any("a.z.")), Code::FormErr),
            (update().with(0, NONE, 0, &a("a.z.", 1)), Code::FormErr),
            (update().with(0, code::IN, 0, &any("a.z.")), Code::FormErr),
            (update().with(0, 3, 0, &a("a.z.", 1)), Code::FormErr),
        ] {
            assert_eq!(ask.carry_out(&zone), expected, "{ask:?}");
        }
        assert_eq!(zone.table().serial(), 1, "nothing has changed");
    }

    #[test]
    fn nothing_is_done_unless_all_can_be() {
        let zone = zone(&[a("a.z.", 1)]);
        let update = || Ask::update("z.").add(&a("b.z.", 1));
        for (ask, expected) in [
            (update().add(&a("a.y.", 1)), Code::NotZone),
            (update().add(&any("a.z.")), Code::FormErr),
            (update().add(&rr("a.z.", code::A, 1, &[1])), Code::FormErr),
            (update().with(1, ANY, 1, &a("a.z.", 1)), Code::FormErr),
            (update().with(1, NONE, 1, &a("a.z.", 1)), Code::FormErr),
            (update().with(1, NONE, 0, &any("a.z.")), Code::FormErr),
            (update().remove_set("a.z.", code::AXFR), Code::FormErr),
            (update().with(1, 3, 0, &a("a.z.", 1)), Code::FormErr),
            (update().add(&rr("a.z.", 1000, 1, &vec![0; DATA_MAX + 1])), Code::Refused),
            (Ask::update("y.").add(&a("a.y.", 1)), Code::NotAuth),
            (Ask::new(5 << 11, "z.", code::A, code::IN), Code::FormErr),
            (Ask::new(5 << 11, "z.", code::SOA, 3), Code::NotAuth),
        ] {
            assert_eq!(ask.carry_out(&zone), expected, "{ask:?}");
        }
        assert_eq!(zone.table().serial(), 1);
    }

    #[test]
    fn an_update_is_one_step_and_none_if_nothing_changes() {
        let zone = zone(&[a("a.z.", 1), a("a.z.", 2), txt("a.z.", "t")]);
        let serial = || zone.table().serial();
        let both = Ask::update("z.").remove(&a("a.z.", 1)).add(&a("b.z.", 1)).add(&a("b.z.", 2));
        assert_eq!(both.carry_out(&zone), Code::NoError);
        assert_eq!(serial(), 2);
        assert_eq!(both.carry_out(&zone), Code::NoError);
        assert_eq!(serial(), 2, "the same again");
        let back_and_forth =
            Ask::update("z.").remove_set("b.z.", code::A).add(&a("b.z.", 1)).add(&a("b.z.", 2));
        back_and_forth.carry_out(&zone);
        assert_eq!(serial(), 2);
        Ask::update("z.").add(&Rr { ttl: 9, ..a("b.z.", 1) }).carry_out(&zone);
        assert_eq!(serial(), 3);
        assert_eq!(zone.table().set(&name("b.z."), code::A).unwrap().ttl, 9, "that of all the set");
        Ask::update("z.").remove_set("a.z.", code::ANY).carry_out(&zone);
        assert!(zone.table().node(&name("a.z.")).is_none());
        assert_eq!(serial(), 4);
    }

    #[test]
    fn the_apex_keeps_what_makes_it_a_zone() {
        let zone = zone(&[]);
        let ns = || zone.table().set(&name("z."), code::NS).unwrap().data.len();
        for ask in [
            Ask::update("z.").remove_set("z.", code::ANY),
            Ask::update("z.").remove_set("z.", code::NS),
            Ask::update("z.").remove_set("z.", code::SOA),
            Ask::update("z.").remove(&pointing("z.", code::NS, "ns.z.")),
            Ask::update("z.").remove(zone.table().soa()),
        ] {
            assert_eq!(ask.carry_out(&zone), Code::NoError);
        }
        assert_eq!((ns(), zone.table().serial()), (1, 1));
        let two = Ask::update("z.").add(&pointing("z.", code::NS, "other.")).remove(&pointing(
            "z.",
            code::NS,
            "ns.z.",
        ));
        two.carry_out(&zone);
        assert_eq!((ns(), zone.table().serial()), (1, 2));
    }

    #[test]
    fn a_serial_may_be_set_forward_only() {
        let zone = zone(&[]);
        let soa = |serial: u32| {
            let mut soa = (**zone.table().soa()).clone();
            let mut data = soa.data.to_vec();
            let at = data.len() - 20;
            data[at..at + 4].copy_from_slice(&serial.to_be_bytes());
            soa.data = data.into();
            soa
        };
        Ask::update("z.").add(&soa(0)).carry_out(&zone);
        assert_eq!(zone.table().serial(), 1);
        Ask::update("z.").add(&soa(10)).add(&a("a.z.", 1)).carry_out(&zone);
        assert_eq!(zone.table().serial(), 10);
        Ask::update("z.").add(&soa(u32::MAX)).carry_out(&zone);
        assert_eq!(zone.table().serial(), 10, "more than half way round is back");
        assert_eq!(zone.table().since(1).unwrap().count(), 1);
    }

    #[test]
    fn an_alias_is_alone() {
        let zone = zone(&[a("a.z.", 1), pointing("c.z.", code::CNAME, "a.z.")]);
        let kinds = |of: &str| -> Vec<u16> {
            zone.table().node(&name(of)).unwrap().sets().iter().map(|set| set.kind).collect()
        };
        Ask::update("z.").add(&pointing("a.z.", code::CNAME, "b.z.")).carry_out(&zone);
        assert_eq!(kinds("a.z."), [code::A]);
        Ask::update("z.").add(&a("c.z.", 1)).carry_out(&zone);
        assert_eq!(kinds("c.z."), [code::CNAME]);
        Ask::update("z.").add(&pointing("c.z.", code::CNAME, "b.z.")).carry_out(&zone);
        let target = zone.table().set(&name("c.z."), code::CNAME).unwrap().data.clone();
        assert_eq!(target.iter().map(|data| &**data).collect::<Vec<_>>(), [&*name("b.z.")]);
    }
}
