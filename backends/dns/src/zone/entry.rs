//! The records that a store is made of: entries, leases, and the head of the log.
//!
//! ```text
//! 1f.cart.prod.eu1.disco.example  TXT  "discovery=1 m=7 c=7 l=9f3a" "{\"endpoints\":[…]}"
//! 9f3a._lease.disco.example       TXT  "ttl=10000 beat=42"
//! _log.disco.example              TXT  "7 c0ffee"
//! ```
//!
//! An entry says at which numbers of the log it was created and modified, and to which lease it is bound; its value
//! follows, in strings of up to 255 bytes. One whose name does not tell its key has that in front of the value. A TXT
//! record that somebody wrote by hand is a value and nothing else: its revision is a digest of it.

use std::fmt::Write;

use bytes::Bytes;
use discovery::{LeaseId, Revision, kv::Key};
use hickory_proto::rr::{Name, RData, Record, rdata::TXT};

use crate::names::{Origin, fnv1a};

/// The most bytes of a string.
const STRING_MAX: usize = 255;
/// Numbers of the log are below this one; anything above was not written by us, and would soon be the end of all numbers.
const NUMBERS: u64 = 1 << 63;
/// What the first string of an entry of ours begins with.
const MARK: &str = "discovery=1";

/// A value, and what is known of it besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamped {
    pub(super) key: Key,
    pub(super) value: Bytes,
    pub(super) created: Revision,
    pub(super) modified: Revision,
    pub(super) lease: Option<LeaseId>,
}

impl Stamped {
    /// The record of the entry.
    pub(super) fn record(&self, origin: &Origin, ttl: u32) -> Record {
        let name = origin.entry(&self.key);
        let key = if origin.key(&name).is_none() { self.key.as_str() } else { "" };
        let key: Vec<_> = key.as_bytes().chunks(STRING_MAX).collect();
        let mut stamp = format!("{MARK} m={} c={}", self.modified, self.created);
        if let Some(lease) = self.lease {
            let _ = write!(stamp, " l={lease}");
        }
        if !key.is_empty() {
            let _ = write!(stamp, " k={}", key.len());
        }
        let strings =
            std::iter::once(stamp.as_bytes()).chain(key).chain(self.value.chunks(STRING_MAX)).collect();
        Record::from_rdata(name, ttl, RData::TXT(TXT::from_bytes(strings)))
    }

    /// The entry that the TXT records at a name are; `None` if they are none. Of several one of ours counts, and
    /// else the first.
    pub(super) fn read(origin: &Origin, name: &Name, records: &[TXT]) -> Option<Self> {
        let ours = records.iter().find_map(|record| Self::read_ours(origin, name, record));
        ours.or_else(|| {
            Self::read_foreign(origin.key(name)?, records.iter().min_by_key(|one| &one.txt_data)?)
        })
    }

    fn read_ours(origin: &Origin, name: &Name, record: &TXT) -> Option<Self> {
        let (stamp, mut rest) = record.txt_data.split_first()?;
        let mut fields = str::from_utf8(stamp).ok()?.strip_prefix(MARK)?.split_ascii_whitespace();
        let (mut created, mut modified, mut lease, mut key_strings) = (None, None, None, 0);
        fields.try_for_each(|field| {
            let (label, value) = field.split_once('=')?;
            match label {
                // Of an entry that was once written by hand it is a digest.
                "c" => created = Some(Revision(value.parse().ok()?)),
                "m" => modified = Some(Revision(parse_number(value)?)),
                "l" => lease = Some(parse_lease(value)?),
                "k" => key_strings = value.parse::<usize>().ok()?,
                // Of tomorrow.
                _ => {}
            }
            Some(())
        })?;
        let key = if key_strings == 0 {
            origin.key(name)?
        } else {
            let (key, value) = rest.split_at_checked(key_strings)?;
            rest = value;
            let key = String::from_utf8(key.concat()).ok()?.parse().ok()?;
            // Otherwise one key could have two entries.
            (origin.entry(&key) == *name).then_some(key)?
        };
        let value = Bytes::from(rest.concat());
        (!value.is_empty()).then_some(Self { key, value, created: created?, modified: modified?, lease })
    }

    /// Whether it has no number of the log, because it was written by hand.
    pub(super) fn is_foreign(&self) -> bool {
        self.lease.is_none() && self.created == self.modified && self.modified.0 == digest(&self.value)
    }

    fn read_foreign(key: Key, record: &TXT) -> Option<Self> {
        let value = Bytes::from(record.txt_data.concat());
        let revision = Revision(digest(&value));
        let entry = Self { key, value, created: revision, modified: revision, lease: None };
        (!entry.value.is_empty()).then_some(entry)
    }
}

/// A lease: how long it lives without a beat, and its latest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) ttl: std::time::Duration,
    pub(super) beat: u64,
}

impl Beat {
    pub(super) fn record(&self, origin: &Origin, id: LeaseId, ttl: u32) -> Record {
        let text = format!("ttl={} beat={}", self.ttl.as_millis(), self.beat);
        text_record(lease_name(origin, id), ttl, text)
    }

    pub(super) fn read(record: &TXT) -> Option<Self> {
        let text = str::from_utf8(record.txt_data.first()?).ok()?;
        let (ttl, beat) = text.split_once(' ')?;
        let ttl = std::time::Duration::from_millis(ttl.strip_prefix("ttl=")?.parse().ok()?);
        Some(Self { ttl, beat: beat.strip_prefix("beat=")?.parse().ok()? })
    }
}

/// The head of the log: the number of the latest commit, and a mark of who made it.
///
/// Each commit demands the head that it was made upon and moves it. So commits of all clients are in one order, a commit
/// knows its number, and what was not overtaken was decided on the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) mark: u64,
}

impl Head {
    pub(super) fn record(&self, origin: &Origin, ttl: u32) -> Record {
        text_record(head_name(origin), ttl, format!("{} {:x}", self.number, self.mark))
    }

    pub(super) fn read(record: &TXT) -> Option<Self> {
        let text = str::from_utf8(record.txt_data.first()?).ok()?;
        let (number, mark) = text.split_once(' ')?;
        Some(Self { number: parse_number(number)?, mark: u64::from_str_radix(mark, 16).ok()? })
    }
}

/// A TXT record as it was read.
pub(super) fn record(name: &Name, text: &TXT) -> Record {
    Record::from_rdata(name.clone(), 0, RData::TXT(text.clone()))
}

pub(super) fn head_name(origin: &Origin) -> Name {
    origin.below(["_log"])
}

pub(super) fn lease_name(origin: &Origin, id: LeaseId) -> Name {
    origin.below([id.to_string().as_str(), "_lease"])
}

/// The lease whose record is at a name.
pub(super) fn lease_at(origin: &Origin, name: &Name) -> Option<LeaseId> {
    match &origin.relative(name)?[..] {
        [id, lease] if lease == "_lease" => parse_lease(id),
        _ => None,
    }
}

fn parse_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number < NUMBERS)
}

fn parse_lease(text: &str) -> Option<LeaseId> {
    u64::from_str_radix(text, 16).ok().map(LeaseId)
}

fn text_record(name: Name, ttl: u32, text: String) -> Record {
    Record::from_rdata(name, ttl, RData::TXT(TXT::new(vec![text])))
}

/// A number for what has none. Never 0, which would be no revision.
pub(super) fn digest(value: &[u8]) -> u64 {
    fnv1a(value).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin {
        Origin::parse("disco.example").unwrap()
    }

    fn stamped(key: &str, value: &'static [u8]) -> Stamped {
        Stamped {
            key: key.parse().unwrap(),
            value: value.into(),
            created: Revision(3),
            modified: Revision(7),
            lease: Some(LeaseId(0x9f)),
        }
    }

    fn txt(record: &Record) -> TXT {
        let RData::TXT(txt) = &record.data else { panic!("{record}") };
        txt.clone()
    }

    #[test]
    fn a_record_is_what_the_documentation_says() {
        let record = stamped("eu1/prod/cart/1f", b"{}").record(&origin(), 5);
        assert_eq!(record.name.to_ascii(), "1f.cart.prod.eu1.disco.example.");
        assert_eq!(&*txt(&record).txt_data[0], b"discovery=1 m=7 c=3 l=9f");
        assert_eq!(&*txt(&record).txt_data[1], b"{}");
    }

    #[test]
    fn what_is_written_by_hand_is_a_value() {
        let name = Name::from_ascii("1.b.a.disco.example.").unwrap();
        let record = TXT::from_bytes(vec![b"{\"endpoints\"", b":[]}"]);
        let entry = Stamped::read(&origin(), &name, std::slice::from_ref(&record)).unwrap();
        assert_eq!(entry.value, "{\"endpoints\":[]}");
        assert_eq!((entry.created, entry.lease), (entry.modified, None));
        // One of ours beside it counts.
        let ours = txt(&stamped("a/b/1", b"x").record(&origin(), 5));
        assert_eq!(Stamped::read(&origin(), &name, &[record, ours]).unwrap().value, "x");
    }

    #[test]
    fn what_makes_no_sense_is_no_entry_or_a_foreign_one() {
        let name = Name::from_ascii("1.b.a.disco.example.").unwrap();
        let read = |strings: Vec<&[u8]>| Stamped::read(&origin(), &name, &[TXT::from_bytes(strings)]);
        assert_eq!(read(vec![b""]), None);
        for strange in
            ["discovery=1", "discovery=1 m=x c=1", "discovery=1 m=1 c=1 k=9", "discovery=1 m=1 c=1 k=1"]
        {
            let entry = read(vec![strange.as_bytes(), b"v"]).unwrap();
            assert!(entry.value.starts_with(b"discovery=1"), "{strange}");
        }
        let elsewhere = Name::from_ascii("_http._tcp.disco.example.").unwrap();
        assert_eq!(Stamped::read(&origin(), &elsewhere, &[TXT::new(vec!["x".into()])]), None);
    }

    #[test]
    fn beats_and_heads_come_back() {
        let beat = Beat { ttl: std::time::Duration::from_millis(2500), beat: 4 };
        let record = beat.record(&origin(), LeaseId(0x9f3a), 5);
        assert_eq!(lease_at(&origin(), &record.name), Some(LeaseId(0x9f3a)));
        assert_eq!(Beat::read(&txt(&record)), Some(beat));
        let head = Head { number: 7, mark: 0x00c0_ffee };
        assert_eq!(Head::read(&txt(&head.record(&origin(), 5))), Some(head));
        for strange in ["", "7", "x y", "ttl=1", "ttl=-1 beat=0", "18446744073709551615 1"] {
            let record = TXT::new(vec![strange.into()]);
            assert_eq!((Beat::read(&record), Head::read(&record)), (None, None), "{strange}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "[!-~]{1,70}(/[!-~]{1,90}){0,4}", value in prop::collection::vec(any::<u8>(), 1..2000), c: u64, m in 0..NUMBERS, lease: Option<u64>) {
            let Ok(key) = text.parse::<Key>() else { return Ok(()) };
            let entry = Stamped { key, value: value.into(), created: Revision(c), modified: Revision(m), lease: lease.map(LeaseId) };
            let record = entry.record(&origin(), 5);
            prop_assert_eq!(Stamped::read(&origin(), &record.name, &[txt(&record)]), Some(entry));
        }

        #[test]
        fn anything_may_be_read(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let name = Name::from_ascii("1.b.a.disco.example.").unwrap();
            let record = TXT::from_bytes(strings.iter().map(Vec::as_slice).collect());
            let _ = Stamped::read(&origin(), &name, std::slice::from_ref(&record));
            let _ = (Beat::read(&record), Head::read(&record));
        }
    }
}
