//! A server that says what a test wants, asked by a client that knows DNS.

mod common;

use std::time::Duration;

use common::eventually;
use discovery_testbed::{Dig, Liar, Server, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const A_MOMENT: Duration = Duration::from_millis(100);

/// The query as an answer, without any record, and whatever code is in the low bits of the flags.
fn reply(query: &[u8], code: u8) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[3] = reply[3] & 0xf0 | code;
    reply
}

#[tokio::test]
async fn answers_are_sent_as_they_are_and_in_their_order() {
    let liar = Liar::start(|query, transport| {
        let name: &[u8] = if transport == Transport::Udp { b"udp" } else { b"tcp" };
        match query {
            b"silence" => vec![],
            b"long" => vec![vec![7; 65_507], b"end".to_vec()],
            b"too long" => vec![vec![7; 65_536], b"end".to_vec()],
            _ => vec![query.to_vec(), name.to_vec(), vec![]],
        }
    })
    .unwrap();

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(liar.address()).await.unwrap();
    let mut stream = TcpStream::connect(liar.address()).await.unwrap();
    let mut buffer = vec![0; 1 << 16];
    for (query, answers) in [
        ("any", vec![b"any".to_vec(), b"udp".to_vec(), vec![]]),
        ("long", vec![vec![7; 65_507], b"end".to_vec()]),
        ("too long", vec![b"end".to_vec()]),
        ("", vec![vec![], b"udp".to_vec(), vec![]]),
    ] {
        socket.send(query.as_bytes()).await.unwrap();
        stream.write_u16(query.len().try_into().unwrap()).await.unwrap();
        stream.write_all(query.as_bytes()).await.unwrap();
        for answer in answers {
            let length = socket.recv(&mut buffer).await.unwrap();
            assert!(buffer[..length] == answer);
            let length = usize::from(stream.read_u16().await.unwrap());
            stream.read_exact(&mut buffer[..length]).await.unwrap();
            let answer = if answer == b"udp" { b"tcp".to_vec() } else { answer };
            assert!(buffer[..length] == answer);
        }
    }
    assert_eq!(liar.heard(), 8);
    socket.send(b"silence").await.unwrap();
    stream.write_all(b"\0\x07silence").await.unwrap();
    assert!(timeout(A_MOMENT, socket.recv(&mut buffer)).await.is_err());
    assert!(timeout(A_MOMENT, stream.read_u8()).await.is_err());
    assert_eq!(liar.heard(), 10);

    let address = liar.address();
    drop(liar);
    assert!(!matches!(stream.read(&mut buffer).await, Ok(1..)));
    eventually("the port is closed", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test]
async fn a_client_that_knows_dns_believes_some_of_it() {
    if !Server::Bind.available() {
        return;
    }
    let truncated = |query: &[u8]| {
        let mut reply = reply(query, 0);
        reply[2] |= 0x02;
        reply
    };
    let other_id = |query: &[u8]| {
        let mut reply = reply(query, 0);
        reply[0] ^= 0xff;
        reply
    };
    let liar = Liar::start(move |query, transport| match transport {
        // One that is not meant for this client first.
        Transport::Udp => vec![other_id(query), truncated(query)],
        Transport::Tcp => vec![reply(query, 3)],
    })
    .unwrap();
    let dig = Dig::new(liar.address());
    assert_eq!(dig.query("any.disco.test", "A").await.unwrap().rcode, "NXDOMAIN");
    assert_eq!(liar.heard(), 2);
    let answer = dig.option("+ignore").query("any.disco.test", "A").await.unwrap();
    assert_eq!((answer.rcode.as_str(), answer.flags.as_str()), ("NOERROR", "qr tc rd ad"));

    let mute = Liar::start(|_, _| Vec::new()).unwrap();
    let error = Dig::new(mute.address()).option("+time=1").query("any.disco.test", "A").await.unwrap_err();
    assert!(error.to_string().contains("timed out"), "{error}");
}
