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
