//! Who asks to be notified is, until it does not ask any more.

use std::{net::SocketAddr, time::Duration};

use discovery_dns::ZoneConfig;
use hickory_proto::{
    op::{Message, OpCode},
    rr::{RData, RecordType},
};
use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

use crate::{
    ZONE,
    client::{ask, query, update, with_option},
    dynamic, has_programs, local,
};

struct Ear(UdpSocket);

impl Ear {
    async fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The serial of the next notification, and what it was.
    async fn hear(&self) -> Option<(u32, Message, SocketAddr)> {
        let mut buffer = [0; 1500];
        let heard = timeout(Duration::from_secs(3), self.0.recv_from(&mut buffer)).await.ok()?;
        let (length, from) = heard.unwrap();
        let message = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(message.metadata.op_code, OpCode::Notify);
        assert_eq!(message.queries[0].query_type(), RecordType::SOA);
        let RData::SOA(soa) = &message.answers[0].data else { panic!("{message:?}") };
        Some((soa.serial, message, from))
    }

    async fn answer(&self, message: &Message, to: SocketAddr) {
        let answer = message.clone().into_response();
        self.0.send_to(&answer.to_vec().unwrap(), to).await.unwrap();
    }
}

#[tokio::test]
async fn who_asks_for_it_is_notified_of_each_change() {
    let authority = local().zone(ZoneConfig::dynamic(ZONE).serial(1)).start().await.unwrap();
    let ear = Ear::new().await;
    let interest =
        with_option(query("disco.test.", RecordType::SOA), 65011, &ear.address().port().to_be_bytes());
    ask(authority.address(), &interest).await;
    let mut last = 1;
    for n in 1..20 {
        ask(authority.address(), &update("disco.test.", "a.disco.test.", [10, 0, 0, n])).await;
        while last < u32::from(n) + 1 {
            let (serial, message, from) = ear.hear().await.expect("a notification");
            assert_eq!(from.ip(), authority.address().ip());
            ear.answer(&message, from).await;
            last = serial;
        }
    }
}

#[tokio::test]
async fn it_is_told_again_and_then_only_the_latest() {
    let authority = local().zone(ZoneConfig::dynamic(ZONE).serial(1)).start().await.unwrap();
    let ear = Ear::new().await;
    let interest =
        with_option(query("disco.test.", RecordType::SOA), 65011, &ear.address().port().to_be_bytes());
    ask(authority.address(), &interest).await;
    ask(authority.address(), &update("disco.test.", "a.disco.test.", [10, 0, 0, 0])).await;
    // It does not answer the first one.
    let (serial, first, _) = ear.hear().await.expect("a notification");
    assert_eq!(serial, 2);
    for n in 1..50 {
        ask(authority.address(), &update("disco.test.", "a.disco.test.", [10, 0, 0, n])).await;
    }
    let (serial, again, from) = ear.hear().await.expect("another one");
    assert_eq!((serial, again.metadata.id), (51, first.metadata.id), "the latest, in one message");
    ear.answer(&again, from).await;
    assert!(timeout(Duration::from_millis(1200), ear.hear()).await.is_err(), "all was told");
}

#[tokio::test]
async fn without_the_key_nobody_is_notified() {
    if !has_programs() {
        return;
    }
    let authority = dynamic().await;
    let ear = Ear::new().await;
    let port = ear.address().port().to_be_bytes();
    ask(authority.address(), &with_option(query("disco.test.", RecordType::SOA), 65011, &port)).await;
    crate::nsupdate(&authority).run("add a.disco.test. 5 A 10.0.0.1").await.unwrap();
    assert!(timeout(Duration::from_millis(500), ear.hear()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_a_second_while_others_ask() {
    let authority = local().zone(ZoneConfig::dynamic(ZONE).serial(1)).start().await.unwrap();
    let address = authority.address();
    let asking = tokio::spawn(async move {
        let mut count = 0_u32;
        loop {
            let answer = ask(address, &query("h1.disco.test.", RecordType::A)).await;
            assert!(answer.metadata.authoritative);
            count += 1;
            if count.is_multiple_of(100) {
                tokio::task::yield_now().await;
            }
        }
    });
    let started = std::time::Instant::now();
    for n in 0..2_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        ask(address, &update("disco.test.", &format!("h{}.disco.test.", n % 100), [10, 0, high, low])).await;
        // Their pace, as far as this machine keeps it.
        if let Some(early) = Duration::from_millis(n.into()).checked_sub(started.elapsed()) {
            sleep(early).await;
        }
    }
    assert!(!asking.is_finished(), "every question was answered");
    asking.abort();
    assert_eq!(authority.serial(ZONE), Some(2_001));
}
