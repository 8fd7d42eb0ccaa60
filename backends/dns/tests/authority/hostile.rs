//! Messages that nobody in his right mind sends.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::time::timeout;

use crate::{
    ZONE,
    client::{Connection, ask, ask_raw, query, update},
    dynamic,
};

#[tokio::test]
async fn nothing_that_comes_in_stops_it() {
    let authority = dynamic().await;
    let server = authority.address();
    let mut random = fastrand::Rng::with_seed(7);
    let good = [
        query("a.disco.test.", RecordType::A).to_vec().unwrap(),
        update("disco.test.", "a.disco.test.", [10, 0, 0, 1]).to_vec().unwrap(),
        query("disco.test.", RecordType::IXFR).to_vec().unwrap(),
    ];
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut connection = Connection::open(server).await;
    for round in 0..5_000 {
        let mut message = random.choice(&good).unwrap().clone();
        for _ in 0..random.u8(1..6) {
            let at = random.usize(..message.len());
            match random.u8(..4) {
                0 => message.truncate(at.max(1)),
                1 => message[at] = 0xff,
                // Counts are where it hurts.
                2 => message[4 + at % 8] = random.u8(..),
                _ => message[at] = random.u8(..),
            }
            if message.len() < 12 {
                break;
            }
        }
        socket.send_to(&message, server).await.unwrap();
        if round % 50 == 0 {
            connection.send(&message).await;
            ask(server, &query("disco.test.", RecordType::SOA)).await;
        }
    }
    let answer = ask(server, &query("disco.test.", RecordType::SOA)).await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(authority.serial(ZONE), Some(1), "nobody had the key");
}

#[tokio::test]
async fn counts_that_lie_are_malformed() {
    let authority = dynamic().await;
    let good = query("a.disco.test.", RecordType::A).to_vec().unwrap();
    for at in 4..12 {
        let mut message = good.clone();
        message[at] = 0xff;
        let answer = ask_raw(authority.address(), &message).await.unwrap();
        assert_eq!(answer[3] & 15, 1, "byte {at}");
        assert_eq!(answer.len(), 12, "byte {at}");
    }
    let mut everything = good.clone();
    everything[4..12].fill(0xff);
    assert_eq!(ask_raw(authority.address(), &everything).await.unwrap()[3] & 15, 1);
}

#[tokio::test]
async fn answers_are_not_answered() {
    let authority = dynamic().await;
    let mut connection = Connection::open(authority.address()).await;
    let (first, second) = (query("disco.test.", RecordType::SOA), query("disco.test.", RecordType::NS));
    let mut answer = first.to_vec().unwrap();
    answer[2] |= 0x80;
    connection.send(&answer).await;
    connection.send(&second.to_vec().unwrap()).await;
    assert_eq!(connection.receive().await.unwrap().metadata.id, second.metadata.id);
}

#[tokio::test]
async fn connections_that_stall_hold_up_nobody() {
    use tokio::io::AsyncWriteExt;
    let authority = dynamic().await;
    let mut idle = Vec::new();
    for n in 0..100_u16 {
        let mut stream = tokio::net::TcpStream::connect(authority.address()).await.unwrap();
        // A message that never becomes whole.
        stream.write_all(&[0xff, 0xff, 1, 2][..usize::from(n % 4)]).await.unwrap();
        idle.push(stream);
    }
    let mut connection = Connection::open(authority.address()).await;
    for _ in 0..10 {
        // Several at a time.
        let questions: Vec<_> = (0..5).map(|_| query("disco.test.", RecordType::SOA)).collect();
        for question in &questions {
            connection.send(&question.to_vec().unwrap()).await;
        }
        for question in &questions {
            let answer = timeout(Duration::from_secs(5), connection.receive()).await.unwrap().unwrap();
            assert_eq!((answer.metadata.id, answer.answers.len()), (question.metadata.id, 1));
        }
    }
}
