//! Which node.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

/// How many nodes there can be in a project, whoever asks: each is a process, and each pings all others.
pub(super) const MOST: u32 = 200;

/// Which node, from 1 to [`MOST`]. What has another number is no node, wherever it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(super) struct Index(NonZeroU32);

impl Index {
    pub(super) const MIN: Self = Self(NonZeroU32::MIN);

    pub(super) fn new(index: u32) -> Option<Self> {
        NonZeroU32::new(index).filter(|index| index.get() <= MOST).map(Self)
    }

    /// The first so many.
    pub(super) fn first(count: u32) -> impl Iterator<Item = Self> {
        (1..=count.min(MOST)).filter_map(Self::new)
    }

    pub(super) fn get(self) -> u32 {
        self.0.get()
    }
}

impl From<Index> for NonZeroU32 {
    fn from(index: Index) -> Self {
        index.0
    }
}

impl From<Index> for u32 {
    fn from(index: Index) -> Self {
        index.get()
    }
}

impl TryFrom<u32> for Index {
    type Error = NoIndex;

    fn try_from(index: u32) -> Result<Self, NoIndex> {
        Self::new(index).ok_or(NoIndex)
    }
}

impl FromStr for Index {
    type Err = NoIndex;

    fn from_str(text: &str) -> Result<Self, NoIndex> {
        text.parse().ok().and_then(Self::new).ok_or(NoIndex)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a number is no node's.
#[derive(Debug, thiserror::Error)]
#[error("nodes have numbers from 1 to {MOST}")]
pub(super) struct NoIndex;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_beyond_is_no_node() {
        assert_eq!(Index::first(u32::MAX).last().map(Index::get), Some(MOST));
        assert_eq!(Index::first(0).count(), 0);
        assert_eq!("200".parse::<Index>().unwrap().get(), 200);
        for bad in ["0", "201", "4294967295", "-1", "node"] {
            assert!(bad.parse::<Index>().is_err(), "{bad}");
        }
        // As numbers, and as the keys of a map.
        assert_eq!(serde_json::from_str::<Index>("3").unwrap(), Index::new(3).unwrap());
        assert!(serde_json::from_str::<Index>("201").is_err());
        let map: BTreeMap<Index, u8> = serde_json::from_str(r#"{"200": 1}"#).unwrap();
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"200":1}"#);
        assert!(serde_json::from_str::<BTreeMap<Index, u8>>(r#"{"4294967295": 1}"#).is_err());
    }
}
