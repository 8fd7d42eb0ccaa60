//! Servers that answer with nonsense, or that they will not, or too much.

use std::time::Duration;

use discovery::{Backend, ErrorKind, Scope};
use discovery_testbed::{Liar, NameServer, Transport};
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, NS},
    },
    serialize::binary::BinEncodable,
};

use crate::common::{CART, Follower, dns, fetch, service, soon};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// The empty answer to a query.
fn answer(query: &[u8]) -> Message {
    let mut message = Message::from_vec(query).unwrap();
    message.metadata.message_type = MessageType::Response;
    message
}

/// A server that makes its answers of empty ones.
fn liar(lie: impl Fn(Message, Transport) -> Vec<Message> + Send + Sync + 'static) -> Liar {
    Liar::start(move |query, transport| {
        let lies = lie(answer(query), transport);
        lies.iter().map(|message| message.to_bytes().unwrap()).collect()
    })
    .unwrap()
}

fn record(message: &Message, data: RData) -> Record {
    Record::from_rdata(message.queries[0].name().clone(), 5, data)
}

/// What a server answers, and the kind of error that it is.
#[tokio::test]
async fn what_is_no_answer_is_an_error_of_its_kind() {
    type Lie = fn(Message) -> Message;
    let lies: [(&str, Lie, ErrorKind); 8] = [
        ("SERVFAIL", |m| with_code(m, ResponseCode::ServFail), ErrorKind::Unavailable),
        ("REFUSED", |m| with_code(m, ResponseCode::Refused), ErrorKind::Denied),
        ("NOTIMP", |m| with_code(m, ResponseCode::NotImp), ErrorKind::Unsupported),
        ("FORMERR", |m| with_code(m, ResponseCode::FormErr), ErrorKind::Unsupported),
        (
            "another name",
            |mut m| {
                m.add_answer(Record::from_rdata(name("other.test."), 5, RData::A(A::new(10, 0, 0, 1))));
                m
            },
            ErrorKind::Corrupt,
        ),
        (
            "an alias of itself",
            |mut m| {
                let own = m.queries[0].name().clone();
                m.add_answer(record(&m, RData::CNAME(CNAME(own))));
                m
            },
            ErrorKind::Corrupt,
        ),
        (
            "aliases without end",
            |mut m| {
                let next = m.queries[0].name().prepend_label("x").unwrap();
                m.add_answer(record(&m, RData::CNAME(CNAME(next))));
                m
            },
            ErrorKind::Corrupt,
        ),
        (
            "a referral",
            |mut m| {
                m.add_authority(Record::from_rdata(name("test."), 5, RData::NS(NS(name("ns.test.")))));
                m
            },
            ErrorKind::Unavailable,
        ),
    ];
    for (what, lie, kind) in lies {
        let liar = liar(move |message, _| vec![lie(message)]);
        let dns = dns(&[liar.address()], "/disco.test?records=a&port=80&deadline=2s");
        let error = soon(what, fetch(&dns, "cart")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
}

fn with_code(mut message: Message, code: ResponseCode) -> Message {
    message.metadata.response_code = code;
    message
}

/// What is not an answer to our question is not heard, and what comes behind it is.
#[tokio::test]
async fn strangers_answers_are_not_heard() {
    let honest = |mut m: Message| {
        if m.queries[0].query_type() == RecordType::A {
            m.add_answer(record(&m, RData::A(A::new(10, 0, 0, 1))));
        }
        m
    };
    let wrong_id = |m: &Message| {
        let mut wrong = m.clone();
        wrong.metadata.id = wrong.metadata.id.wrapping_add(1);
        wrong.add_answer(record(m, RData::A(A::new(10, 6, 6, 6))));
        wrong
    };
    let wrong_question = |m: &Message| {
        let mut wrong = m.clone();
        wrong.queries[0].set_name(name("evil.test."));
        wrong.add_answer(Record::from_rdata(name("evil.test."), 5, RData::A(A::new(10, 6, 6, 6))));
        wrong
    };
    let liars = [
        liar(move |m, _| vec![wrong_id(&m), honest(m)]),
        liar(move |m, _| vec![wrong_question(&m), honest(m)]),
        liar(move |m, _| vec![wrong_id(&m)]),
        liar(move |m, _| vec![wrong_question(&m)]),
        Liar::start(|_, _| vec![b"garbage".to_vec(), Vec::new()]).unwrap(),
    ];
    for (n, liar) in liars.iter().enumerate() {
        let dns = dns(&[liar.address()], "/disco.test?records=a&port=80&deadline=1s");
        match soon("an answer", fetch(&dns, "cart")).await {
            Ok(all) => {
                let hosts: Vec<_> = all.iter().map(|one| one.endpoints()[0].host().to_owned()).collect();
                assert_eq!(hosts, ["10.0.0.1"], "{n}");
            }
            // Never taken for an answer, and for none at all least of all.
            Err(error) => assert!(
                n > 0
                    && matches!(
                        error.kind(),
                        ErrorKind::Timeout | ErrorKind::Corrupt | ErrorKind::Unavailable
                    ),
                "{n}: {error:?}"
            ),
        }
    }
}

/// An answer that is cut short is asked for again over TCP; where there is none it is an error, not a part of the truth.
#[tokio::test]
async fn an_answer_cut_short_is_not_the_answer() {
    let full = |mut m: Message, count: u8| {
        if m.queries[0].query_type() == RecordType::A {
            for n in 1..=count {
                m.add_answer(record(&m, RData::A(A::new(10, 0, 0, n))));
            }
        }
        m
    };
    for tcp_works in [true, false] {
        let liar = liar(move |m, transport| match transport {
            Transport::Udp => {
                let mut cut = full(m, 1);
                cut.metadata.truncation = true;
                vec![cut]
            }
            Transport::Tcp if tcp_works => vec![full(m, 200)],
            Transport::Tcp => Vec::new(),
        });
        let dns = dns(&[liar.address()], "/disco.test?records=a&port=80&family=4&deadline=1s");
        match fetch(&dns, "cart").await {
            Ok(all) => assert!(tcp_works && all.len() == 200, "{}", all.len()),
            Err(error) => assert!(!tcp_works && error.is_transient(), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_huge_answer_is_taken_whole() {
    let liar = liar(|mut m, transport| {
        if transport == Transport::Udp {
            m.metadata.truncation = true;
        } else if m.queries[0].query_type() == RecordType::A {
            for n in 0..2000_u16 {
                let [high, low] = n.to_be_bytes();
                m.add_answer(record(&m, RData::A(A::new(10, 1, high, low))));
            }
        }
        vec![m]
    });
    let dns = dns(&[liar.address()], "/disco.test?records=a&port=80&family=4&deadline=20s");
    assert_eq!(fetch(&dns, "cart").await.unwrap().len(), 2000);
}

/// A server that turns to each kind of trouble in the midst of a watch: an error each time, and nobody leaves.
#[tokio::test]
async fn no_trouble_empties_a_service() {
    use std::sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    };
    let mood = Arc::new(AtomicU8::new(0));
    let told = mood.clone();
    let liar = liar(move |mut m, _| {
        let code = match told.load(Ordering::Relaxed) {
            0 => {
                if m.queries[0].query_type() == RecordType::A {
                    m.add_answer(record(&m, RData::A(A::new(10, 0, 0, 1))));
                }
                ResponseCode::NoError
            }
            1 => ResponseCode::ServFail,
            2 => ResponseCode::Refused,
            3 => ResponseCode::NotImp,
            4 => return Vec::new(),
            _ => ResponseCode::NXDomain,
        };
        vec![with_code(m, code)]
    });
    let dns = dns(&[liar.address()], "/disco.test?port=80&floor=20ms&ceiling=20ms&deadline=500ms");
    let mut follower = Follower::start(&dns, "cart").await;
    for trouble in 1..=4 {
        mood.store(trouble, Ordering::Relaxed);
        follower.failure().await;
        mood.store(0, Ordering::Relaxed);
        let after = Some(follower.known.revision());
        let resumed = Follower::of(dns.watch(&Scope::Service(service("cart")), after)).await;
        assert_eq!(resumed.known, follower.known, "{trouble}");
        follower = resumed;
    }
    assert!(follower.changes.is_empty());
    mood.store(5, Ordering::Relaxed);
    follower.until("a departure that is one", |seen| seen.known.is_empty()).await;
}

/// The truth comes through from one server while the other lies.
#[tokio::test]
async fn an_honest_server_is_heard_beside_a_liar() {
    let Some(honest) = NameServer::knot().records(CART).start_or_skip().await else { return };
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let liar = liar(move |m, _| vec![with_code(m, code)]);
        let dns = dns(&[liar.address(), honest.address()], "/disco.test?deadline=4s");
        let all = tokio::time::timeout(Duration::from_secs(5), fetch(&dns, "cart")).await.unwrap();
        assert_eq!(all.unwrap().len(), 2, "{code}");
    }
}
