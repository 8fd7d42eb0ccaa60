//! How an instance is written into a store: JSON that Cloudname's readers understand, and that may grow.
//!
//! Cloudname writes an object with one key, `endpoints`. We add keys of our own, leave out what has its default, and
//! ignore what we do not know, so that old and new readers and writers can live side by side. `v` counts changes that
//! an old reader must not ignore.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Endpoint, Error, ErrorKind, Instance, InstanceKey, Owner, Result, Revision, Status};

/// The version this crate writes, and the newest that it reads.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(default = "first", skip_serializing_if = "is_first")]
    v: u32,
    endpoints: Cow<'a, [Endpoint]>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_up")]
    status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    incarnation: u64,
}

/// The record of an instance, signed by its owner.
pub(crate) fn encode(instance: &Instance, owner: &Owner) -> Result<Vec<u8>> {
    let record = Record {
        v: VERSION,
        endpoints: Cow::Borrowed(instance.endpoints()),
        metadata: instance.metadata_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        weight: instance.weight(),
        zone: instance.zone().map(Cow::Borrowed),
        status: instance.status(),
        owner: Some(Cow::Borrowed(owner.as_str())),
        incarnation: instance.incarnation(),
    };
    serde_json::to_vec(&record).map_err(|error| {
        Error::invalid(format!("instance {} cannot be written as JSON", instance.key())).with_source(error)
    })
}

/// The instance in a record; one that carries no incarnation of its own takes the revision it was created at.
pub(crate) fn decode(key: &InstanceKey, value: &[u8], created: Revision) -> Result<Arc<Instance>> {
    let record = parse(value)?;
    let mut builder = Instance::builder(key.service().clone())
        .id(key.id().clone())
        .endpoints(record.endpoints.into_owned())
        .weight(record.weight)
        .status(record.status)
        .incarnation(if record.incarnation == 0 { created.0 } else { record.incarnation });
    if let Some(zone) = record.zone {
        builder = builder.zone(zone);
    }
    for (key, value) in record.metadata {
        builder = builder.metadata(key, value);
    }
    builder.build().map(Arc::new)
}

/// Who signed a record; `None` if nobody did, or if it is no record.
pub(crate) fn owner(value: &[u8]) -> Option<Owner> {
    parse(value).ok()?.owner.map(Owner::named)
}

fn parse(value: &[u8]) -> Result<Record<'_>> {
    let record: Record<'_> = serde_json::from_slice(value)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "not an instance record").with_source(error))?;
    if record.v > VERSION {
        let message = format!("a record of version {}; this reader knows up to {VERSION}", record.v);
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(record)
}

fn first() -> u32 {
    1
}

fn one() -> u32 {
    1
}

// `skip_serializing_if` hands out references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_first(v: &u32) -> bool {
    *v == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(incarnation: &u64) -> bool {
    *incarnation == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_up(status: &Status) -> bool {
    *status == Status::Up
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::InstanceId;

    fn key() -> InstanceKey {
        InstanceKey::new("local/test/blinky".parse().unwrap(), InstanceId::from_bits(0x1f))
    }

    #[test]
    fn cloudnames_records_are_read() {
        let value = br#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":80}]}"#;
        let instance = decode(&key(), value, Revision(9)).unwrap();
        assert_eq!(instance.endpoint("http").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!((instance.weight(), instance.status(), instance.incarnation()), (1, Status::Up, 9));
        assert_eq!(owner(value), None);
    }

    #[test]
    fn a_plain_instance_is_written_as_cloudname_does_but_for_its_owner() {
        let instance = Instance::builder("a".parse().unwrap()).endpoint("http", "::1", 80).build().unwrap();
        let text = String::from_utf8(encode(&instance, &Owner::named("me")).unwrap()).unwrap();
        assert_eq!(text, r#"{"endpoints":[{"name":"http","host":"::1","port":80}],"owner":"me"}"#);
    }

    #[test]
    fn unknown_keys_are_ignored_and_newer_versions_refused() {
        assert!(decode(&key(), br#"{"endpoints":[],"colour":"red"}"#, Revision(1)).is_ok());
        assert!(decode(&key(), br#"{"v":2,"endpoints":[]}"#, Revision(1)).is_err());
    }

    #[test]
    fn hostile_records_are_errors() {
        let deep = "[".repeat(100_000);
        let nested = format!(r#"{{"endpoints":[],"x":{deep}"#);
        for bad in [
            "",
            "}{",
            "[]",
            "null",
            "{}",
            "\u{0}",
            r#"{"endpoints":{}}"#,
            r#"{"endpoints":[{"name":"http","host":"a","port":0}]}"#,
            r#"{"endpoints":[{"name":"http","host":"a","port":70000}]}"#,
            r#"{"endpoints":[{"name":"http","host":"<script>","port":1}]}"#,
            r#"{"endpoints":[],"status":"sideways"}"#,
            r#"{"endpoints":[],"weight":-1}"#,
            &nested,
        ] {
            let error = decode(&key(), bad.as_bytes(), Revision(1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad:.60}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(meta in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4), weight: u32, zone: Option<String>, life in 1..u64::MAX) {
            let mut builder = Instance::builder(key().service().clone()).id(key().id().clone())
                .endpoint("http", "127.0.0.1", 80).weight(weight).incarnation(life).status(Status::Draining);
            if let Some(zone) = zone { builder = builder.zone(zone); }
            for (k, v) in meta { builder = builder.metadata(k, v); }
            let instance = builder.build().unwrap();
            let value = encode(&instance, &Owner::named("o\"'")).unwrap();
            prop_assert_eq!(&*decode(&key(), &value, Revision(1)).unwrap(), &instance);
            prop_assert_eq!(owner(&value), Some(Owner::named("o\"'")));
        }

        #[test]
        fn decoding_never_panics(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&key(), &value, Revision(1));
        }
    }
}
