//! Records of recipes: read with the condition that they still are so.

use serde::{Serialize, de::DeserializeOwned};

use bytes::Bytes;

use super::place::Place;
use crate::{
    Error, ErrorKind, Result, Revision,
    kv::{Entry, Guard, Key},
};

/// What was read.
#[derive(Clone, Debug)]
pub(super) struct Known<T> {
    pub(super) value: T,
    /// That it still is what was read.
    pub(super) guard: Guard,
    pub(super) modified: Revision,
    /// Which life of the key it is.
    pub(super) created: Revision,
}

impl<T: DeserializeOwned> Known<T> {
    pub(super) async fn read(place: &Place, key: &Key) -> Result<Option<Self>> {
        place.read(key).await?.as_ref().map(Self::of).transpose()
    }

    pub(super) fn of(entry: &Entry) -> Result<Self> {
        let guard = Guard::Unmodified(entry.key.clone(), entry.modified);
        Ok(Self { value: parse(entry)?, guard, modified: entry.modified, created: entry.created })
    }
}

pub(super) fn json(value: &impl Serialize) -> Bytes {
    // Fails only for maps whose keys are no text, which no record has.
    serde_json::to_vec(value).unwrap_or_default().into()
}

pub(super) fn parse<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| corrupt(&entry.key, "it cannot be read").with_source(error))
}

pub(super) fn corrupt(key: &Key, what: &str) -> Error {
    let advice = "somebody else wrote there; delete what is there and begin anew";
    Error::new(ErrorKind::Corrupt, format!("{key}: {what}: {advice}"))
}
