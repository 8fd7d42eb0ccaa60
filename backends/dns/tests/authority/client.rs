//! A client that says what no program can be made to say.

use std::{net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RData, Record, RecordType, rdata::A, rdata::opt::EdnsOption},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// A query, ready to be sent.
pub(crate) fn query(of: &str, kind: RecordType) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(of), kind));
    message
}

/// An update that adds an address.
pub(crate) fn update(zone: &str, host: &str, address: [u8; 4]) -> Message {
    let mut message = query(zone, RecordType::SOA);
    message.metadata.op_code = OpCode::Update;
    let [a, b, c, d] = address;
    message.add_authority(Record::from_rdata(name(host), 5, RData::A(A::new(a, b, c, d))));
    message
}

/// The same with one EDNS option.
pub(crate) fn with_option(mut message: Message, code: u16, value: &[u8]) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    edns.options_mut().insert(EdnsOption::Unknown(code, value.to_vec()));
    message.set_edns(edns);
    message
}

/// The answer by UDP; `None` if there is none.
pub(crate) async fn ask_raw(server: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(message, server).await.unwrap();
    let mut answer = vec![0; 65_535];
    let (length, _) = timeout(Duration::from_secs(5), socket.recv_from(&mut answer)).await.ok()?.ok()?;
    answer.truncate(length);
    Some(answer)
}

pub(crate) async fn ask(server: SocketAddr, message: &Message) -> Message {
    Message::from_vec(&ask_raw(server, &message.to_vec().unwrap()).await.unwrap()).unwrap()
}

/// A TCP connection that speaks in messages.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> Self {
        Self(TcpStream::connect(server).await.unwrap())
    }

    pub(crate) async fn send(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap();
        self.0.write_all(&[&length.to_be_bytes(), message].concat()).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Option<Message> {
        let length = self.0.read_u16().await.ok()?;
        let mut message = vec![0; length.into()];
        self.0.read_exact(&mut message).await.ok()?;
        Some(Message::from_vec(&message).unwrap())
    }
}
