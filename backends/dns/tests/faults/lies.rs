//! What no real server would say, and who says it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{ErrorKind, kv::Txn};
use discovery_dns::{DnsZone, TsigKey};
use discovery_testbed::{Liar, Transport};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{SOA, TXT},
    },
};
use tokio::time::Instant;

use crate::common::{Follower, everything, key, kv, leases, listed, unsigned_at, zone};

const ZONE: &str = "disco.test";
/// How long an operation may take.
const PATIENCE: Duration = Duration::from_millis(700);

fn apex() -> Name {
    Name::from_ascii("disco.test.").unwrap()
}

fn soa(serial: u32) -> Record {
    let soa = SOA::new(apex(), apex(), serial, 1, 1, 1, 1);
    Record::from_rdata(apex(), 5, RData::SOA(soa))
}

fn txt(label: &str, text: &str) -> Record {
    let name = Name::from_ascii(format!("{label}.disco.test.")).unwrap();
    Record::from_rdata(name, 5, RData::TXT(TXT::new(vec![text.into()])))
}

/// The answer to a request, with these records.
fn answer(request: &Message, records: Vec<Record>) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata.authoritative = true;
    answer.add_queries(request.queries.clone());
    answer.insert_answers(records);
    answer
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// What there is in truth, always: an entry, under serial 7.
fn truth(request: &Message) -> Vec<Vec<u8>> {
    let records = match request.queries[0].query_type() {
        RecordType::SOA => vec![soa(7)],
        _ => vec![soa(7), txt("a", "true"), soa(7)],
    };
    vec![bytes(&answer(request, records))]
}

/// The question for the serial is answered with a newer one, so that there is something to transfer.
fn news(request: &Message, transport: Transport) -> Option<Vec<Vec<u8>>> {
    (transport == Transport::Udp).then(|| vec![bytes(&answer(request, vec![soa(8)]))])
}

type Lie = fn(&Message, Transport) -> Vec<Vec<u8>>;

/// A transfer that goes on and on.
fn endless(request: &Message, transport: Transport) -> Vec<Vec<u8>> {
    news(request, transport).unwrap_or_else(|| {
        let mut first = vec![bytes(&answer(request, vec![soa(8), txt("b", "lie")]))];
        first.extend((0..5000).map(|n| bytes(&answer(request, vec![txt(&format!("b{n}"), "lie")]))));
        first
    })
}

const LIES: &[(&str, Lie)] = &[
    ("nothing", |_, _| Vec::new()),
    ("the id of another request", |request, _| {
        let mut message = answer(request, vec![soa(8), txt("b", "lie"), soa(8)]);
        message.metadata.id = request.metadata.id.wrapping_add(1);
        vec![bytes(&message)]
    }),
    ("the answer to another question", |request, _| {
        let mut message = answer(request, vec![soa(8), txt("b", "lie"), soa(8)]);
        message.queries = vec![Query::query(Name::from_ascii("other.test.").unwrap(), RecordType::SOA)];
        vec![bytes(&message)]
    }),
    ("the request itself", |request, _| vec![bytes(request)]),
    ("another operation", |request, _| {
        let mut message = answer(request, vec![soa(8)]);
        message.metadata.op_code = OpCode::Notify;
        vec![bytes(&message)]
    }),
    ("garbage", |_, _| vec![(0..200).map(|_| fastrand::u8(..)).collect()]),
    ("nothing in a packet", |_, _| vec![Vec::new()]),
    ("half of an answer", |request, _| {
        let whole = bytes(&answer(request, vec![soa(8), txt("b", "lie"), soa(8)]));
        vec![whole[..whole.len() / 2].to_vec()]
    }),
    ("an answer with a tail", |request, transport| {
        news(request, transport).unwrap_or_else(|| {
            let mut message = bytes(&answer(request, vec![soa(8), txt("b", "lie")]));
            message.extend([0xc0; 20_000]);
            vec![message]
        })
    }),
    ("more records than there are", |request, _| {
        let mut message = bytes(&answer(request, vec![soa(8)]));
        message[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
        vec![message]
    }),
    ("names that point at themselves", |request, _| {
        let mut message = bytes(&answer(request, vec![]));
        message[6..8].copy_from_slice(&1_u16.to_be_bytes());
        let at = u16::try_from(message.len()).unwrap() | 0xc000;
        message.extend(at.to_be_bytes());
        vec![message]
    }),
    ("a truncated answer", |request, _| {
        let mut message = answer(request, vec![]);
        message.metadata.truncation = true;
        vec![bytes(&message)]
    }),
    ("no records", |request, _| vec![bytes(&answer(request, vec![]))]),
    ("failure", |request, _| {
        let mut message = answer(request, vec![]);
        message.metadata.response_code = ResponseCode::ServFail;
        vec![bytes(&message)]
    }),
    ("no such zone", |request, _| {
        let mut message = answer(request, vec![]);
        message.metadata.response_code = ResponseCode::NXDomain;
        vec![bytes(&message)]
    }),
    ("a transfer without a beginning", |request, transport| {
        news(request, transport).unwrap_or_else(|| vec![bytes(&answer(request, vec![txt("b", "lie")]))])
    }),
    ("a transfer without an end", |request, transport| {
        news(request, transport)
            .unwrap_or_else(|| vec![bytes(&answer(request, vec![soa(8), txt("b", "lie")]))])
    }),
    ("a transfer that ends with another serial", |request, transport| {
        news(request, transport)
            .unwrap_or_else(|| vec![bytes(&answer(request, vec![soa(8), txt("b", "lie"), soa(9)]))])
    }),
    ("steps from elsewhere", |request, transport| {
        let steps = vec![soa(8), soa(5), txt("a", "true"), soa(8), soa(8)];
        news(request, transport).unwrap_or_else(|| vec![bytes(&answer(request, steps))])
    }),
    ("steps that take away what is not there", |request, transport| {
        let steps = vec![soa(8), soa(7), txt("a", "true"), txt("b", "lie"), soa(8), soa(8)];
        news(request, transport).unwrap_or_else(|| vec![bytes(&answer(request, steps))])
    }),
    ("steps that lead back", |request, transport| {
        let steps = vec![soa(6), soa(7), txt("a", "true"), soa(6), soa(6)];
        news(request, transport).unwrap_or_else(|| vec![bytes(&answer(request, steps))])
    }),
    ("a transfer without an end, in thousands of messages", endless),
];

/// Tells the truth, or the lie of that number.
fn liar(lies: &Arc<AtomicUsize>) -> Liar {
    let lies = lies.clone();
    Liar::start(move |packet, transport| {
        let Ok(request) = Message::from_vec(packet) else { return Vec::new() };
        if request.metadata.message_type != MessageType::Query || request.queries.is_empty() {
            return Vec::new();
        }
        match LIES.get(lies.load(Ordering::Relaxed)) {
            Some((_, lie)) => lie(&request, transport),
            None => truth(&request),
        }
    })
    .unwrap()
}

fn client(liar: &Liar) -> DnsZone {
    let config = unsigned_at(ZONE, liar.address()).call_timeout(PATIENCE).silence_timeout(PATIENCE);
    zone(config)
}

#[tokio::test]
async fn a_lie_is_an_error_in_time_and_changes_nothing() {
    let lies = Arc::new(AtomicUsize::new(usize::MAX));
    let liar = liar(&lies);
    let zone = client(&liar);
    for (number, (lie, _)) in LIES.iter().enumerate() {
        let mut follower = Follower::start(&zone, &everything()).await.unwrap();
        assert_eq!(follower.value("a"), Some(&b"true"[..]));
        lies.store(number, Ordering::Relaxed);
        let start = Instant::now();
        let known = kv(&zone).scan(&everything()).await.unwrap_err();
        // To these some of them are an answer.
        let other = client(&liar);
        let written = kv(&other).commit(Txn::new().put(&key("c"), "1")).await;
        let granted = leases(&other).grant(Duration::from_secs(10)).await;
        assert!(start.elapsed() < 4 * PATIENCE + Duration::from_secs(3), "{lie}: {:?}", start.elapsed());
        // So is one who knows nothing yet.
        let new = kv(&client(&liar)).scan(&everything()).await.unwrap_err();
        eprintln!("{lie}: {known}; {written:?}; {granted:?}; {new}");
        let told = follower.failure().await;
        assert_eq!(follower.value("a"), Some(&b"true"[..]), "{lie}: {told}");
        assert_eq!((follower.changes.len(), follower.resets), (0, 1), "{lie}: {told}");
        lies.store(usize::MAX, Ordering::Relaxed);
        assert_eq!(listed(&zone, &everything()).await, ["a=true"], "{lie}");
    }
}

/// Where there is a key, the truth is not believed either.
#[tokio::test]
async fn what_is_not_signed_is_not_believed() {
    let lies = Arc::new(AtomicUsize::new(usize::MAX));
    let liar = liar(&lies);
    let tsig = TsigKey::new("disco-key", "c2VjcmV0").unwrap();
    let zone = zone(unsigned_at(ZONE, liar.address()).key(tsig).call_timeout(PATIENCE));
    for error in [
        kv(&zone).scan(&everything()).await.unwrap_err(),
        kv(&zone).commit(Txn::new().put(&key("c"), "1")).await.unwrap_err(),
        leases(&zone).grant(Duration::from_secs(10)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("signature"), "{error}");
    }
}

/// Servers that limit how much they answer by UDP say so (response rate limiting).
#[tokio::test]
async fn what_does_not_fit_into_a_packet_is_asked_for_by_tcp() {
    let liar = Liar::start(|packet, transport| {
        let request = Message::from_vec(packet).unwrap();
        if transport == Transport::Tcp {
            return truth(&request);
        }
        let mut message = answer(&request, vec![]);
        message.metadata.truncation = true;
        vec![bytes(&message)]
    })
    .unwrap();
    let zone = client(&liar);
    for _ in 0..3 {
        assert_eq!(listed(&zone, &everything()).await, ["a=true"]);
    }
}
