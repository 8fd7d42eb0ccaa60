//! It starts, and stops.

use std::{net::UdpSocket, time::Duration};

use discovery::ErrorKind;
use discovery_dns::{Authority, ZoneConfig};
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::{
    ZONE,
    client::{Connection, ask, query, update, with_option},
    dynamic, local, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_gone_and_its_port_free() {
    for _ in 0..50 {
        let authority = dynamic().await;
        let address = authority.address();
        ask(address, &query("disco.test.", RecordType::SOA)).await;
        let mut connection = Connection::open(address).await;
        connection.send(&query("disco.test.", RecordType::SOA).to_vec().unwrap()).await;
        connection.receive().await.unwrap();
        drop(authority);
        // Nobody shares the port: this fails if a socket is left.
        let udp = UdpSocket::bind(address);
        assert!(udp.is_ok(), "{udp:?}");
        assert!(connection.receive().await.is_none(), "the connection is closed");
        drop(udp);
        let again = Authority::builder().listen(address).zone(ZoneConfig::dynamic(ZONE)).start().await;
        assert!(again.is_ok(), "{again:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_at_the_start() {
    let kind = |outcome: discovery::Result<Authority>| outcome.map(drop).unwrap_err().kind();
    assert_eq!(kind(Authority::builder().start().await), ErrorKind::Invalid);
    assert_eq!(kind(local().zone(ZoneConfig::dynamic(".")).start().await), ErrorKind::Invalid);
    let twice = local().zone(ZoneConfig::dynamic("a.test")).zone(ZoneConfig::dynamic("A.test."));
    assert_eq!(kind(twice.start().await), ErrorKind::Invalid);
    let lease = ZoneConfig::dynamic(ZONE).lease(Duration::from_secs(2), Duration::from_secs(1));
    assert_eq!(kind(local().zone(lease).start().await), ErrorKind::Invalid);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = Authority::builder().listen(taken.local_addr().unwrap());
    assert_eq!(kind(taken.start().await), ErrorKind::Unavailable);
    let authority = dynamic().await;
    let same = Authority::builder().listen(authority.address());
    assert_eq!(kind(same.start().await), ErrorKind::Unavailable);
}

#[tokio::test]
async fn several_addresses_are_one_authority() {
    let builder = local().listen("[::1]:0".parse().unwrap()).zone(ZoneConfig::dynamic(ZONE));
    // Not every machine has the other protocol.
    let Ok(authority) = builder.start().await else { return };
    ask(authority.address(), &update("disco.test.", "a.disco.test.", [10, 0, 0, 1])).await;
    for address in authority.addresses() {
        let mut connection = Connection::open(address).await;
        connection.send(&query("a.disco.test.", RecordType::A).to_vec().unwrap()).await;
        assert_eq!(connection.receive().await.unwrap().answers.len(), 1, "{address}");
    }
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends() {
    let authority = local().zone(ZoneConfig::dynamic(ZONE)).start().await.unwrap();
    let address = authority.address();
    let leased = with_option(update("disco.test.", "a.disco.test.", [10, 0, 0, 1]), 2, &1_u32.to_be_bytes());
    let answer = ask(address, &leased).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.edns.is_some());
    let is_there = || async {
        let answer = ask(address, &query("a.disco.test.", RecordType::A)).await;
        answer.metadata.response_code == ResponseCode::NoError
    };
    let kept = update("disco.test.", "b.disco.test.", [10, 0, 0, 2]);
    ask(address, &kept).await;
    until("it is gone", || async { !is_there().await }).await;
    let kept = ask(address, &query("b.disco.test.", RecordType::A)).await;
    assert_eq!(kept.answers.len(), 1, "without a lease it stays");
}
