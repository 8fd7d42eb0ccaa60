//! A signature as it stands in a message, and the bytes around it.

use hickory_proto::{
    rr::Name,
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::Flaw;

pub(super) const HEADER: usize = 12;
const TYPE_TSIG: u16 = 250;
pub(super) const CLASS_ANY: u16 = 255;

/// When a signature was made, and what is wrong with the one that it answers.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) error: u16,
    pub(super) other: Vec<u8>,
}

impl Stamp {
    pub(super) fn emit_times(&self, out: &mut Vec<u8>) {
        out.extend(&self.time.to_be_bytes()[2..]);
        out.extend(self.fudge.to_be_bytes());
    }

    pub(super) fn emit_error(&self, out: &mut Vec<u8>) {
        out.extend(self.error.to_be_bytes());
        out.extend(u16_of(self.other.len()).to_be_bytes());
        out.extend(&self.other);
    }
}

/// A signature as it stands at the end of a message.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    /// Where in the message it starts.
    pub(super) start: usize,
    pub(super) key: Name,
    pub(super) algorithm: Name,
    pub(super) original_id: u16,
    pub(super) mac: Vec<u8>,
    pub(super) stamp: Stamp,
}

impl Signature {
    /// The signature of a message; `None` if it has none.
    pub(crate) fn find(message: &[u8]) -> Result<Option<Self>, Flaw> {
        Self::read(message).ok_or(Flaw::Malformed)
    }

    /// `None` if the message is malformed, `Some(None)` if it has no signature.
    #[allow(clippy::option_option, reason = "`?` reads best here")]
    fn read(message: &[u8]) -> Option<Option<Self>> {
        let count = |n: usize| u16_at(message, 4 + 2 * n);
        let (questions, additionals) = (count(0)?, count(3)?);
        let records = usize::from(count(1)?) + usize::from(count(2)?) + usize::from(additionals);
        if additionals == 0 {
            return Some(None);
        }
        let mut at = HEADER;
        for _ in 0..questions {
            at = skip_name(message, at)? + 4;
        }
        for _ in 1..records {
            at = skip_record(message, at)?;
        }
        let start = at;
        let at = skip_name(message, start)?;
        if u16_at(message, at)? != TYPE_TSIG {
            return Some(None);
        }
        let ttl = message.get(at + 4..at + 8)?;
        let last = skip_record(message, start)? == message.len();
        if u16_at(message, at + 2)? != CLASS_ANY || ttl != [0; 4] || !last {
            return None;
        }
        let key = name_at(message, start)?;
        let rdata = at + 10;
        let at = skip_name(message, rdata)?;
        let algorithm = name_at(message, rdata)?;
        let bytes = message.get(at..)?;
        let (time, bytes) = bytes.split_at_checked(6)?;
        let time = time.iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
        let (fudge, bytes) = take_u16(bytes)?;
        let (size, bytes) = take_u16(bytes)?;
        let (mac, bytes) = bytes.split_at_checked(size.into())?;
        let (original_id, bytes) = take_u16(bytes)?;
        let (error, bytes) = take_u16(bytes)?;
        let (size, other) = take_u16(bytes)?;
        let stamp = Stamp { time, fudge, error, other: other.to_vec() };
        (other.len() == usize::from(size))
            .then(|| Some(Self { start, key, algorithm, original_id, mac: mac.to_vec(), stamp }))
    }

    /// The message as it was before it was signed.
    pub(super) fn stripped(&self, message: &[u8]) -> Vec<u8> {
        let mut bare = message[..self.start].to_vec();
        bare[..2].copy_from_slice(&self.original_id.to_be_bytes());
        let count = u16::from_be_bytes([bare[10], bare[11]]) - 1;
        bare[10..HEADER].copy_from_slice(&count.to_be_bytes());
        bare
    }

    /// Appends it to a message.
    pub(super) fn emit(&self, message: &mut Vec<u8>) {
        emit_name(message, &self.key);
        message.extend(TYPE_TSIG.to_be_bytes());
        message.extend(CLASS_ANY.to_be_bytes());
        message.extend(0_u32.to_be_bytes());
        let mut rdata = Vec::with_capacity(128);
        emit_name(&mut rdata, &self.algorithm);
        self.stamp.emit_times(&mut rdata);
        rdata.extend(u16_of(self.mac.len()).to_be_bytes());
        rdata.extend(&self.mac);
        rdata.extend(self.original_id.to_be_bytes());
        self.stamp.emit_error(&mut rdata);
        message.extend(u16_of(rdata.len()).to_be_bytes());
        message.extend(rdata);
        let count = u16_at(message, 10).unwrap_or_default().wrapping_add(1);
        message[10..HEADER].copy_from_slice(&count.to_be_bytes());
    }
}

pub(super) fn absolute(name: &Name) -> Name {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    name
}

fn name_at(message: &[u8], at: usize) -> Option<Name> {
    let mut decoder = BinDecoder::new(message).clone(u16::try_from(at).ok()?);
    Name::read(&mut decoder).ok().map(|name| absolute(&name))
}

/// In canonical form: lower-case, not compressed.
pub(super) fn emit_name(out: &mut Vec<u8>, name: &Name) {
    for label in &name.to_lowercase() {
        // A label has at most 63 bytes.
        out.push(u8::try_from(label.len()).unwrap_or_default());
        out.extend(label);
    }
    out.push(0);
}

/// Behind the name that starts at `at`.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Behind the record that starts at `at`.
fn skip_record(message: &[u8], at: usize) -> Option<usize> {
    let at = skip_name(message, at)?;
    let end = at + 10 + usize::from(u16_at(message, at + 8)?);
    (end <= message.len()).then_some(end)
}

pub(super) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    take_u16(message.get(at..)?).map(|(value, _)| value)
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (value, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*value), rest))
}

/// A length that is known to fit.
pub(super) fn u16_of(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
