//! Names and records as they are on the wire (RFC 1035): read from messages that nobody has looked at yet.
//!
//! Everything the authority holds is in this form already, in lower case and without compression, so an answer is
//! copied together and two records are the same if their bytes are. Nothing here trusts a length, a count or a pointer.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use hickory_proto::{
    rr::{self, Record},
    serialize::binary::BinEncodable,
};

/// Types, classes and other numbers.
pub(crate) mod code {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const TSIG: u16 = 250;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;

    pub(crate) const IN: u16 = 1;
    pub(crate) const CLASS_NONE: u16 = 254;
    pub(crate) const CLASS_ANY: u16 = 255;

    /// Types that only queries, or messages themselves, have (RFC 6895, section 3.1).
    pub(crate) fn is_meta(kind: u16) -> bool {
        kind == OPT || (128..=255).contains(&kind) || kind == 0
    }
}

/// The most bytes of a name.
const NAME_MAX: usize = 255;

/// A domain name: absolute, lower-case, as on the wire.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name(Arc<[u8]>);

impl Name {
    /// The same name in the library's form.
    pub(crate) fn to_library(&self) -> rr::Name {
        rr::Name::from_labels(labels(self)).unwrap_or_default()
    }
}

impl From<&[u8]> for Name {
    fn from(wire: &[u8]) -> Self {
        Self(wire.into())
    }
}

impl From<&rr::Name> for Name {
    fn from(name: &rr::Name) -> Self {
        let mut wire = Vec::with_capacity(name.len() + 1);
        for label in name {
            wire.push(u8::try_from(label.len()).unwrap_or_default());
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        wire.push(0);
        Self(wire.into())
    }
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_library().to_ascii())
    }
}

/// The labels of a name, the most specific first.
pub(crate) fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (&length, behind) = rest.split_first()?;
        let (label, behind) = behind.split_at_checked(length.into())?;
        rest = behind;
        (length > 0).then_some(label)
    })
}

/// The name without its first label; `None` for the root.
pub(crate) fn parent(name: &[u8]) -> Option<&[u8]> {
    match *name.first()? {
        0 => None,
        length => name.get(1 + usize::from(length)..),
    }
}

/// The name and everything it is under, up to the root.
pub(crate) fn ancestry(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |name| parent(name))
}

/// Whether a name is that of a zone or of something in it.
pub(crate) fn is_within(name: &[u8], apex: &[u8]) -> bool {
    name.len() >= apex.len() && ancestry(name).find(|name| name.len() <= apex.len()) == Some(apex)
}

/// A name on the stack.
#[derive(Clone, Copy)]
pub(crate) struct NameBuf {
    bytes: [u8; NAME_MAX],
    length: usize,
}

impl NameBuf {
    fn new() -> Self {
        Self { bytes: [0; NAME_MAX], length: 0 }
    }

    /// Appends in lower case; `None` if that is no name any more. Lengths of labels are no letters: at most 63.
    fn extend(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        let target = self.bytes.get_mut(self.length..end)?;
        target.copy_from_slice(bytes);
        target.make_ascii_lowercase();
        self.length = end;
        Some(())
    }
}

impl Deref for NameBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Name::from(&**self).fmt(f)
    }
}

/// The data of a record: names in it are lower-case and not compressed.
pub(crate) type Data = Arc<[u8]>;

/// A record, its class `IN`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rr {
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Data,
}

impl Rr {
    /// From the library's form; `None` for what cannot be written down.
    pub(crate) fn from_library(record: &Record) -> Option<Self> {
        let plain = record.data.to_bytes().ok()?;
        let kind = record.record_type().into();
        let data = Reader::new(&plain, 0).data(kind, plain.len())?;
        Some(Self { name: (&record.name).into(), kind, ttl: record.ttl, data })
    }

    /// As on the wire, not compressed.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend(&*self.name);
        out.extend(self.kind.to_be_bytes());
        out.extend(code::IN.to_be_bytes());
        out.extend(self.ttl.to_be_bytes());
        out.extend(u16::try_from(self.data.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(&*self.data);
    }

    /// How many bytes [`emit`](Rr::emit) appends.
    pub(crate) fn size(&self) -> usize {
        self.name.len() + 10 + self.data.len()
    }
}

impl fmt::Debug for Rr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} type {} {:02x?}", self.name, self.ttl, self.kind, self.data)
    }
}

/// A record of a message, its data not looked at yet.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) name: NameBuf,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// Where its data are.
    data: Reader<'a>,
    pub(crate) length: usize,
}

impl Raw<'_> {
    /// The data in canonical form; `None` if they are not those of such a record.
    pub(crate) fn data(&self) -> Option<Data> {
        self.data.clone().data(self.kind, self.length)
    }

    /// The data as they stand there.
    pub(crate) fn plain(&self) -> &[u8] {
        self.data.message.get(self.data.at..self.data.at + self.length).unwrap_or_default()
    }
}

/// Reads a message from some place on.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8], at: usize) -> Self {
        Self { message, at }
    }

    /// Where it is.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// A name. A pointer must point in front of everything read of the name so far, so this ends.
    pub(crate) fn name(&mut self) -> Option<NameBuf> {
        let mut name = NameBuf::new();
        let (mut at, mut first, mut behind) = (self.at, self.at, None);
        loop {
            let length = *self.message.get(at)?;
            match length {
                0 => {
                    name.extend(&[0])?;
                    self.at = behind.unwrap_or(at + 1);
                    return Some(name);
                }
                1..=63 => {
                    let end = at + 1 + usize::from(length);
                    name.extend(self.message.get(at..end)?)?;
                    at = end;
                }
                0xc0.. => {
                    let low = *self.message.get(at + 1)?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if target >= first {
                        return None;
                    }
                    behind = behind.or(Some(at + 2));
                    (at, first) = (target, target);
                }
                _ => return None,
            }
        }
    }

    /// The next record.
    pub(crate) fn record(&mut self) -> Option<Raw<'a>> {
        let name = self.name()?;
        let (kind, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let data = self.clone();
        self.bytes(length)?;
        Some(Raw { name, kind, class, ttl, data, length })
    }

    /// Data of a record in canonical form. Only names of the types that RFC 1035 knows, and of SRV, may be compressed
    /// (RFC 3597, section 4).
    fn data(&mut self, kind: u16, length: usize) -> Option<Data> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.message.len())?;
        let mut out = Vec::with_capacity(length + 32);
        match kind {
            code::A if length != 4 => return None,
            code::AAAA if length != 16 => return None,
            // MD, MF, MB, MG and MR are like the others, and out of use.
            code::NS | 3 | 4 | code::CNAME | 7 | 8 | 9 | code::PTR | code::DNAME => {
                out.extend(&*self.name()?);
            }
            code::MX | 18 | 21 => {
                out.extend(self.bytes(2)?);
                out.extend(&*self.name()?);
            }
            code::SRV => {
                out.extend(self.bytes(6)?);
                out.extend(&*self.name()?);
            }
            // MINFO and RP.
            14 | 17 => {
                out.extend(&*self.name()?);
                out.extend(&*self.name()?);
            }
            code::SOA => {
                out.extend(&*self.name()?);
                out.extend(&*self.name()?);
                out.extend(self.bytes(20)?);
            }
            code::TXT => {
                while self.at < end {
                    let length = self.u8()?;
                    out.push(length);
                    out.extend(self.bytes(length.into())?);
                }
                if out.is_empty() {
                    return None;
                }
            }
            _ => out.extend(self.bytes(length)?),
        }
        (self.at == end).then(|| out.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        (&rr::Name::from_ascii(text).unwrap()).into()
    }

    #[test]
    fn names_are_compared_by_whole_labels() {
        assert!(is_within(&name("a.z."), &name("z.")));
        assert!(is_within(&name("z."), &name("z.")));
        assert!(!is_within(&name("az."), &name("z.")));
        assert!(!is_within(&name("z."), &name("a.z.")));
        assert!(!is_within(&name("a.y."), &name("z.")));
        // The bytes of the other name, but within a label.
        assert!(!is_within(b"\x05ab\x01z\x00c\x00", b"\x01z\x00"));
        assert_eq!(name("A.z.").to_library().to_ascii(), "a.z.");
    }

    #[test]
    fn a_compressed_name_is_read_and_a_loop_is_not() {
        let message = b"\x01z\x00\x01A\xc0\x00\xc0\x05\xc0\x07";
        let mut reader = Reader::new(message, 3);
        assert_eq!(*reader.name().unwrap(), *name("a.z."));
        assert_eq!(reader.at(), 7);
        assert_eq!(*reader.name().unwrap(), *name("z."), "a pointer to a pointer");
        assert_eq!(Reader::new(b"\xc0\x00", 0).name().map(|name| name.len()), None);
        assert_eq!(Reader::new(b"\x01a\xc0\x00", 0).name().map(|name| name.len()), None);
    }

    #[test]
    fn data_that_are_not_of_their_type_are_refused() {
        for (kind, bytes) in [
            (code::A, &b"abc"[..]),
            (code::AAAA, b"abcd"),
            (code::TXT, b""),
            (code::TXT, b"\x05abc"),
            (code::SRV, b"\0\0\0\0\0\0"),
            (code::NS, b"\x01a\x00x"),
            (code::SOA, b"\x00\x00abc"),
        ] {
            assert!(Reader::new(bytes, 0).data(kind, bytes.len()).is_none(), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_come_in(message in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..220) {
            let mut reader = Reader::new(&message, at);
            while let Some(record) = reader.record() {
                let _ = record.data();
                let _ = is_within(&record.name, b"\x01z\x00");
                let _: Vec<_> = labels(&record.name).collect();
            }
        }
    }
}
