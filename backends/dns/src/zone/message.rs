//! Messages to the server of a zone, and what it answers.

use discovery::{Error, ErrorKind};
use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, Record, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};

use crate::{
    names::Origin,
    protocol::{OPTION_LEASE, OPTION_NOTIFY, UDP_MAX},
};

/// A query for one type at the apex of the zone.
pub(super) fn query(origin: &Origin, kind: RecordType, notify: Option<u16>) -> Message {
    let mut message = question(origin.name(), kind);
    if let (Some(port), Some(edns)) = (notify, message.edns.as_mut()) {
        edns.options_mut().insert(EdnsOption::Unknown(OPTION_NOTIFY, port.to_be_bytes().into()));
    }
    message
}

/// A question for the records of a type at a name.
pub(super) fn question(name: &Name, kind: RecordType) -> Message {
    let mut message = new(OpCode::Query);
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MAX).set_version(0);
    message.set_edns(edns);
    message
}

/// An update without prerequisites and changes (RFC 2136).
pub(super) fn update(origin: &Origin) -> Message {
    request(origin, OpCode::Update, RecordType::SOA)
}

/// Asks that what an update adds lives that many seconds (RFC 9664).
pub(super) fn ask_lease(message: &mut Message, seconds: u32) {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_MAX).set_version(0);
    edns.options_mut().insert(EdnsOption::Unknown(OPTION_LEASE, seconds.to_be_bytes().into()));
    message.set_edns(edns);
}

/// How many seconds a server granted; `None` from one that knows of no leases.
pub(super) fn granted_lease(answer: &Message) -> Option<u32> {
    match answer.edns.as_ref()?.option(EdnsCode::from(OPTION_LEASE))? {
        EdnsOption::Unknown(_, bytes) => bytes.first_chunk().map(|seconds| u32::from_be_bytes(*seconds)),
        _ => None,
    }
}

fn request(origin: &Origin, op_code: OpCode, kind: RecordType) -> Message {
    let mut message = new(op_code);
    message.add_query(Query::query(origin.name().clone(), kind));
    message
}

/// A request with an id that nobody can guess.
fn new(op_code: OpCode) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = op_code;
    message.metadata.recursion_desired = false;
    message
}

/// Only if there are no records of a type (section 2.4.3).
pub(super) fn absent(name: &Name, kind: RecordType) -> Record {
    empty(name, kind, DNSClass::NONE)
}

/// Only if there are records of a type (section 2.4.1).
pub(super) fn present(name: &Name, kind: RecordType) -> Record {
    empty(name, kind, DNSClass::ANY)
}

/// Only if the records of a type are these; one for each (section 2.4.2).
pub(super) fn exactly(record: &Record) -> Record {
    let mut record = record.clone();
    record.ttl = 0;
    record
}

/// Deletes the records of a type (section 2.5.2).
pub(super) fn delete_all(name: &Name, kind: RecordType) -> Record {
    empty(name, kind, DNSClass::ANY)
}

/// Deletes one record (section 2.5.4).
pub(super) fn delete(record: &Record) -> Record {
    let mut record = exactly(record);
    record.dns_class = DNSClass::NONE;
    record
}

/// Whether this is one of an update that deletes.
pub(super) fn is_deletion(record: &Record) -> bool {
    record.dns_class != DNSClass::IN
}

fn empty(name: &Name, kind: RecordType, class: DNSClass) -> Record {
    let mut record = Record::update0(name.clone(), 0, kind);
    record.dns_class = class;
    record
}

/// Whether an update was not carried out because a prerequisite does not hold.
pub(super) fn is_unmet(code: ResponseCode) -> bool {
    use ResponseCode::{NXDomain, NXRRSet, YXDomain, YXRRSet};
    matches!(code, NXDomain | NXRRSet | YXDomain | YXRRSet)
}

/// What a server refuses to do, or cannot do.
pub(super) fn refusal(code: ResponseCode, origin: &Origin) -> Error {
    let (kind, message) = match code {
        ResponseCode::Refused => (
            ErrorKind::Denied,
            format!(
                "the server refuses it; check that it is the primary of the zone {origin}, and allows updates and transfers of it for the key"
            ),
        ),
        ResponseCode::NotAuth => (
            ErrorKind::Denied,
            format!(
                "the server is not the primary of the zone {origin}, or does not allow updates and transfers of it without another key"
            ),
        ),
        ResponseCode::NotZone | ResponseCode::NXDomain => {
            (ErrorKind::Invalid, format!("the server has no zone {origin}; check the name"))
        }
        ResponseCode::NotImp => {
            (ErrorKind::Unsupported, "the server does not do dynamic updates (RFC 2136)".into())
        }
        ResponseCode::FormErr => {
            (ErrorKind::Unsupported, "the server does not understand the request".into())
        }
        // It may have come to that after the change was made.
        ResponseCode::ServFail => {
            let message = "the server failed, as its log may tell; does it have write access to the zone?";
            return Error::new(ErrorKind::Unavailable, message);
        }
        _ => {
            return Error::new(ErrorKind::Other, format!("the server answered with {code}"));
        }
    };
    Error::new(kind, message).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_from_the_wire() {
        let origin = Origin::parse("z").unwrap();
        let mut message = update(&origin);
        assert_eq!(granted_lease(&message), None);
        ask_lease(&mut message, 70_000);
        let message = Message::from_vec(&message.to_vec().unwrap()).unwrap();
        assert_eq!(granted_lease(&message), Some(70_000));
        let message = query(&origin, RecordType::SOA, Some(5353));
        let message = Message::from_vec(&message.to_vec().unwrap()).unwrap();
        let option = message.edns.as_ref().unwrap().option(EdnsCode::from(OPTION_NOTIFY)).cloned();
        assert_eq!(option, Some(EdnsOption::Unknown(OPTION_NOTIFY, vec![0x14, 0xe9])));
    }
}
