//! Requests as tests want them, malformed ones among them, and what the library reads in the answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr;

use super::{
    config::ZoneConfig,
    engine::{Engine, Outcome, Peer},
    lease::Bounds,
    message::Transport,
    table::{Limits, Table},
    wire::{Data, Name, Rr, code},
    zone::Zone,
};

pub(super) fn name(text: &str) -> Name {
    (&rr::Name::from_ascii(text).unwrap()).into()
}

pub(super) fn rr(name_text: &str, kind: u16, ttl: u32, data: &[u8]) -> Rr {
    Rr { name: name(name_text), kind, ttl, data: data.into() }
}

pub(super) fn a(name: &str, last: u8) -> Rr {
    rr(name, code::A, 5, &[10, 0, 0, last])
}

pub(super) fn txt(name: &str, text: &str) -> Rr {
    let data = [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    rr(name, code::TXT, 5, &data)
}

pub(super) fn pointing(name_text: &str, kind: u16, target: &str) -> Rr {
    rr(name_text, kind, 5, &name(target))
}

pub(super) fn srv(name_text: &str, port: u16, target: &str) -> Rr {
    let data = [&[0, 0, 0, 1], &port.to_be_bytes()[..], &name(target)].concat();
    rr(name_text, code::SRV, 5, &data)
}

/// The zone `z` with these records beside SOA and NS; its serial is 1.
pub(super) fn table(records: &[Rr]) -> Table {
    let (zone, _) = ZoneConfig::dynamic("z").serial(u32::from(records.is_empty())).build().unwrap();
    let before = zone.table();
    let mut edit = before.edit();
    for rr in records {
        edit.add(&rr.name, rr.kind, rr.ttl, rr.data.clone());
    }
    edit.finish(&before).unwrap().unwrap_or_else(|| (**before).clone())
}

/// The same as a zone that may be changed.
pub(super) fn zone(records: &[Rr]) -> Arc<Zone> {
    let bounds = Bounds { min: Duration::from_secs(1), max: Duration::from_secs(100) };
    Arc::new(Zone::new(table(records), true, bounds, Vec::new()))
}

pub(super) fn engine(zone: &Arc<Zone>) -> Engine {
    Engine::new(vec![zone.clone()], Vec::new())
}

pub(super) fn limits(records: usize, journal: usize) -> Limits {
    Limits { records, journal }
}

pub(super) fn peer(transport: Transport) -> Peer {
    Peer { address: SocketAddr::from(([127, 0, 0, 1], 4321)), transport, is_local: true }
}

/// All records but SOA and NS, as sorted text.
pub(super) fn content(table: &Table) -> Vec<Rr> {
    let mut records: Vec<_> = table.records().filter(|rr| !matches!(rr.kind, code::SOA | code::NS)).collect();
    records.sort();
    records
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    flags: u16,
    question: Vec<u8>,
    sections: [Vec<Vec<u8>>; 3],
}

impl Ask {
    pub(super) fn query(of: &str, kind: u16) -> Self {
        Self::new(0x0100, of, kind, code::IN)
    }

    pub(super) fn update(zone: &str) -> Self {
        Self::new(5 << 11, zone, code::SOA, code::IN)
    }

    pub(super) fn new(flags: u16, of: &str, kind: u16, class: u16) -> Self {
        let mut question = name(of).to_vec();
        question.extend(kind.to_be_bytes());
        question.extend(class.to_be_bytes());
        Self { flags, question, sections: Default::default() }
    }

    fn record(mut self, section: usize, rr: &Rr, class: u16, ttl: u32, data: &[u8]) -> Self {
        let mut record = rr.name.to_vec();
        for number in [rr.kind, class] {
            record.extend(number.to_be_bytes());
        }
        record.extend(ttl.to_be_bytes());
        record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        record.extend(data);
        self.sections[section].push(record);
        self
    }

    /// A prerequisite, or the change that adds if `section` is 1, of any class.
    pub(super) fn with(self, section: usize, class: u16, ttl: u32, rr: &Rr) -> Self {
        let data = if class == code::CLASS_ANY { Data::default() } else { rr.data.clone() };
        self.record(section, rr, class, ttl, &data)
    }

    pub(super) fn requires(self, class: u16, rr: &Rr) -> Self {
        self.with(0, class, 0, rr)
    }

    pub(super) fn add(self, rr: &Rr) -> Self {
        self.with(1, code::IN, rr.ttl, rr)
    }

    pub(super) fn remove(self, rr: &Rr) -> Self {
        self.with(1, code::CLASS_NONE, 0, rr)
    }

    /// Of any type: the whole name.
    pub(super) fn remove_set(self, name: &str, kind: u16) -> Self {
        self.with(1, code::CLASS_ANY, 0, &rr(name, kind, 0, &[]))
    }

    /// The SOA record of an IXFR.
    pub(super) fn since(self, soa: &Rr) -> Self {
        self.with(1, code::IN, 0, soa)
    }

    pub(super) fn edns(self, payload: u16, version: u8, options: &[(u16, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (option, value) in options {
            data.extend(option.to_be_bytes());
            data.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            data.extend(*value);
        }
        let ttl = u32::from(version) << 16;
        self.record(2, &rr(".", code::OPT, 0, &[]), payload, ttl, &data)
    }

    pub(super) fn lease(self, seconds: u32) -> Self {
        self.edns(1232, 0, &[(2, &seconds.to_be_bytes())])
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut message = vec![0x12, 0x34];
        message.extend(self.flags.to_be_bytes());
        message.extend(1_u16.to_be_bytes());
        for section in &self.sections {
            message.extend(u16::try_from(section.len()).unwrap().to_be_bytes());
        }
        message.extend(&self.question);
        message.extend(self.sections.concat().concat());
        message
    }

    /// What the engine answers.
    pub(super) fn ask(&self, engine: &Engine, transport: Transport) -> Message {
        let mut out = Vec::new();
        match engine.handle(&self.bytes(), peer(transport), &mut out) {
            Outcome::Answer => Message::from_vec(&out).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The code of the answer to an update.
    pub(super) fn carry_out(&self, zone: &Arc<Zone>) -> ResponseCode {
        self.ask(&engine(zone), Transport::Udp).metadata.response_code
    }

    /// The records of a transfer, and how many messages they took.
    pub(super) fn transfer(&self, engine: &Engine) -> (Vec<rr::Record>, usize) {
        let mut out = Vec::new();
        let Outcome::Transfer(mut transfer) = engine.handle(&self.bytes(), peer(Transport::Tcp), &mut out)
        else {
            panic!("no transfer: {:?}", Message::from_vec(&out));
        };
        let (mut records, mut messages) = (Vec::new(), 0);
        while transfer.next(|| 0, &mut out) {
            messages += 1;
            records.extend(Message::from_vec(&out).unwrap().answers);
        }
        (records, messages)
    }
}
