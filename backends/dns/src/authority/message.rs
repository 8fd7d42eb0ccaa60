//! Requests as they come in, and answers as they are written.

use std::time::Duration;

use super::wire::{NameBuf, Raw, Reader, Rr, ancestry, code};
use crate::protocol::{OPTION_LEASE, OPTION_NOTIFY, UDP_MAX};

const HEADER: usize = 12;
const QR: u16 = 1 << 15;
const AA: u16 = 1 << 10;
const TC: u16 = 1 << 9;
const RD: u16 = 1 << 8;

/// What a UDP message may have if nobody said otherwise (RFC 1035, section 4.2.1).
const UDP_MIN: usize = 512;
/// An OPT record without options.
const OPT_SIZE: usize = 11;
/// The long form of the Update Lease option with its head.
const LEASE_SIZE: usize = 12;

/// What a message wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpCode {
    Query,
    Update,
}

/// Response codes (RFC 6895, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    YxDomain = 6,
    YxRrSet = 7,
    NxRrSet = 8,
    NotAuth = 9,
    NotZone = 10,
    BadVers = 16,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Leases that an update asks for, or that its answer grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseOption {
    pub(crate) lease: Duration,
    /// For KEY records, in the longer form of the option.
    pub(crate) key_lease: Option<Duration>,
}

/// What the OPT record of a message says (RFC 6891).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edns {
    payload: u16,
    version: u8,
    flags: u16,
    pub(crate) lease: Option<LeaseOption>,
    pub(crate) notify_port: Option<u16>,
}

/// A request that can be read from end to end.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    raw: &'a [u8],
    pub(crate) opcode: OpCode,
    /// Name, type and class of the one question, or of the zone of an update.
    pub(crate) name: NameBuf,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Behind the question.
    body: usize,
    answers: u16,
    authorities: u16,
    pub(crate) edns: Option<Edns>,
    /// Whether its last record is a signature.
    pub(crate) is_signed: bool,
}

/// Why a message is not answered as it wants.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It is shorter than its header, or an answer itself: silence.
    Nothing,
    /// It says what it wants but is malformed, or there is nothing like that here.
    Code(Rcode),
}

impl<'a> Request<'a> {
    pub(crate) fn read(raw: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(raw, 2);
        let mut header = [0; 5];
        for field in &mut header {
            *field = reader.u16().ok_or(Unreadable::Nothing)?;
        }
        let [flags, questions, answers, authorities, additionals] = header;
        if flags & QR != 0 {
            return Err(Unreadable::Nothing);
        }
        let opcode = match flags >> 11 & 15 {
            0 => OpCode::Query,
            5 => OpCode::Update,
            _ => return Err(Unreadable::Code(Rcode::NotImp)),
        };
        let malformed = Unreadable::Code(Rcode::FormErr);
        if questions != 1 {
            return Err(malformed);
        }
        let question = |reader: &mut Reader<'a>| Some((reader.name()?, reader.u16()?, reader.u16()?));
        let Some((name, kind, class)) = question(&mut reader) else { return Err(malformed) };
        let mut request = Self {
            raw,
            opcode,
            name,
            kind,
            class,
            body: reader.at(),
            answers,
            authorities,
            edns: None,
            is_signed: false,
        };
        request.read_additionals(&mut reader, additionals).ok_or(malformed)?;
        Ok(request)
    }

    /// Looks for what concerns the message as a whole, and at the same time whether all records can be read.
    fn read_additionals(&mut self, reader: &mut Reader<'a>, additionals: u16) -> Option<()> {
        let others = u32::from(self.answers) + u32::from(self.authorities);
        for _ in 0..others {
            let record = reader.record()?;
            if matches!(record.kind, code::OPT | code::TSIG) {
                return None;
            }
        }
        for left in (0..additionals).rev() {
            let record = reader.record()?;
            match record.kind {
                code::OPT if self.edns.is_some() || record.name.len() != 1 => return None,
                code::OPT => self.edns = Some(Edns::read(&record)?),
                code::TSIG if left > 0 => return None,
                code::TSIG => self.is_signed = true,
                _ => {}
            }
        }
        // Something behind the last record has no meaning.
        (reader.at() == self.raw.len()).then_some(())
    }

    pub(crate) fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The records of the answer section: the prerequisites of an update.
    pub(crate) fn answers(&self) -> impl Iterator<Item = Raw<'a>> {
        let mut reader = Reader::new(self.raw, self.body);
        (0..self.answers).map_while(move |_| reader.record())
    }

    /// The records of the authority section: what an update does, or the SOA record of an IXFR.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = Raw<'a>> {
        let mut reader = Reader::new(self.raw, self.body);
        for _ in 0..self.answers {
            reader.record();
        }
        (0..self.authorities).map_while(move |_| reader.record())
    }

    /// Whether the version of EDNS is one that we know.
    pub(crate) fn is_known_version(&self) -> bool {
        self.edns.is_none_or(|edns| edns.version == 0)
    }

    /// How long the answer may be.
    pub(crate) fn limit(&self, transport: Transport) -> usize {
        match (transport, self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.payload.min(UDP_MAX)).max(UDP_MIN),
            (Transport::Udp, None) => UDP_MIN,
        }
    }
}

impl Edns {
    fn read(record: &Raw<'_>) -> Option<Self> {
        let [_, version, flags @ ..] = record.ttl.to_be_bytes();
        let flags = u16::from_be_bytes(flags);
        let mut edns = Self { payload: record.class, version, flags, ..Self::default() };
        let data = record.plain();
        let mut reader = Reader::new(data, 0);
        while reader.at() < data.len() {
            let (option, length) = (reader.u16()?, reader.u16()?);
            let value = reader.bytes(length.into())?;
            let mut value_reader = Reader::new(value, 0);
            match (option, length) {
                (OPTION_LEASE, 4 | 8) => {
                    let mut seconds = || value_reader.u32().map(u64::from).map(Duration::from_secs);
                    edns.lease = Some(LeaseOption { lease: seconds()?, key_lease: seconds() });
                }
                (OPTION_NOTIFY, 2) => edns.notify_port = value_reader.u16(),
                (OPTION_LEASE | OPTION_NOTIFY, _) => return None,
                _ => {}
            }
        }
        Some(edns)
    }
}

/// Where in an answer a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

/// An answer being written. Records come in the order of the sections.
#[derive(Debug)]
pub(crate) struct Reply<'o> {
    out: &'o mut Vec<u8>,
    /// How long it may become, without what comes at the end of it.
    limit: usize,
    counts: [u16; 3],
    question: Option<NameBuf>,
    edns: Option<Edns>,
    lease: Option<LeaseOption>,
    rcode: Rcode,
}

impl<'o> Reply<'o> {
    /// The answer to a request, `reserved` bytes of it left free. Replaces what is in `out`.
    pub(crate) fn to(
        request: &Request<'_>,
        transport: Transport,
        reserved: usize,
        out: &'o mut Vec<u8>,
    ) -> Self {
        let mut reply = Self::bare(request.raw, out);
        reply.out.extend(request.raw.get(HEADER..request.body).unwrap_or_default());
        reply.out[5] = 1;
        reply.question = Some(request.name);
        reply.edns = request.edns;
        let tail = reserved + request.edns.map_or(0, |_| OPT_SIZE + LEASE_SIZE);
        reply.limit = request.limit(transport).saturating_sub(tail);
        reply
    }

    /// The answer to a message of which only the header can be read.
    pub(crate) fn bare(raw: &[u8], out: &'o mut Vec<u8>) -> Self {
        out.clear();
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().zip(raw.iter().take(4)) {
            *to = *from;
        }
        let flags = u16::from_be_bytes([header[2], header[3]]);
        let flags = QR | flags & (15 << 11 | RD);
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        out.extend(header);
        Self {
            out,
            limit: UDP_MIN,
            counts: [0; 3],
            question: None,
            edns: None,
            lease: None,
            rcode: Rcode::NoError,
        }
    }

    /// One of the messages behind the first of a transfer: without the question.
    pub(crate) fn next_to(request: &[u8], limit: usize, out: &'o mut Vec<u8>) -> Self {
        let mut reply = Self::bare(request, out);
        reply.limit = limit;
        reply
    }

    pub(crate) fn set_rcode(&mut self, rcode: Rcode) {
        self.rcode = rcode;
    }

    /// What it says is so by our own authority.
    pub(crate) fn set_authoritative(&mut self) {
        self.set_flag(AA);
    }

    /// It only says who knows.
    pub(crate) fn unset_authoritative(&mut self) {
        let [high, _] = AA.to_be_bytes();
        self.out[2] &= !high;
    }

    /// There is more than fits.
    pub(crate) fn set_truncated(&mut self) {
        self.set_flag(TC);
    }

    pub(crate) fn set_lease(&mut self, lease: LeaseOption) {
        self.lease = Some(lease);
    }

    /// How many records there are in a section.
    pub(crate) fn count(&self, section: Section) -> u16 {
        self.counts[section as usize]
    }

    /// Forgets the records, to start over.
    pub(crate) fn clear(&mut self, request: &Request<'_>) {
        self.out.truncate(request.body);
        self.counts = [0; 3];
    }

    /// Appends a record; false if it does not fit.
    pub(crate) fn push(&mut self, section: Section, name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> bool {
        let before = self.out.len();
        self.push_name(name);
        self.out.extend(kind.to_be_bytes());
        self.out.extend(code::IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.out.extend(data);
        let fits = self.out.len() <= self.limit && self.counts[section as usize] < u16::MAX;
        if fits {
            self.counts[section as usize] += 1;
        } else {
            self.out.truncate(before);
        }
        fits
    }

    pub(crate) fn push_rr(&mut self, section: Section, rr: &Rr) -> bool {
        self.push(section, &rr.name, rr.kind, rr.ttl, &rr.data)
    }

    /// Completes the message, but for a signature.
    pub(crate) fn finish(self) {
        let rcode = self.rcode as u16;
        if let Some(edns) = self.edns {
            self.out.push(0);
            self.out.extend(code::OPT.to_be_bytes());
            self.out.extend(UDP_MAX.to_be_bytes());
            // High bits of the code, version 0, and the DO bit as in the request (RFC 3225, section 3).
            let [_, high] = (rcode >> 4).to_be_bytes();
            self.out.extend([high, 0]);
            self.out.extend((edns.flags & 0x8000).to_be_bytes());
            let mut option = Vec::new();
            if let Some(lease) = self.lease {
                let seconds = |lease: Duration| u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
                let values = [Some(lease.lease), lease.key_lease];
                let values: Vec<u8> =
                    values.into_iter().flatten().flat_map(|lease| seconds(lease).to_be_bytes()).collect();
                option.extend(OPTION_LEASE.to_be_bytes());
                option.extend(u16::try_from(values.len()).unwrap_or_default().to_be_bytes());
                option.extend(values);
            }
            self.out.extend(u16::try_from(option.len()).unwrap_or_default().to_be_bytes());
            self.out.extend(option);
        }
        let additionals = self.counts[2] + u16::from(self.edns.is_some());
        let message = self.out;
        message[3] = message[3] & 0xf0 | u8::try_from(rcode & 15).unwrap_or_default();
        for (n, count) in [self.counts[0], self.counts[1], additionals].into_iter().enumerate() {
            message[6 + 2 * n..8 + 2 * n].copy_from_slice(&count.to_be_bytes());
        }
    }

    fn set_flag(&mut self, flag: u16) {
        let [high, _] = flag.to_be_bytes();
        self.out[2] |= high;
    }

    /// A name, as far as possible by a pointer at the question.
    fn push_name(&mut self, name: &[u8]) {
        let Some(question) = &self.question else {
            self.out.extend(name);
            return;
        };
        for suffix in ancestry(name).take_while(|suffix| suffix.len() > 1) {
            let is_same = ancestry(question).find(|name| name.len() <= suffix.len()) == Some(suffix);
            if is_same {
                self.out.extend(&name[..name.len() - suffix.len()]);
                // At most 255 behind the header, and so within the 14 bits of a pointer.
                let at = u16::try_from(HEADER + question.len() - suffix.len()).unwrap_or_default();
                self.out.extend((0xc000 | at).to_be_bytes());
                return;
            }
        }
        self.out.extend(name);
    }
}
