//! The raw client as an expert uses it: `hickory-net` on one TCP connection that stays open, signed with TSIG, update
//! messages made by hand with as many records as fit.

use std::{net::SocketAddr, time::SystemTime};

use discovery_benches::workloads::RECORD;
use futures_util::StreamExt;
use hickory_net::{
    DnsHandle, DnsMultiplexer,
    client::{Client, ClientHandle},
    proto::{
        op::{DnsRequest, Edns, Message, MessageType, OpCode, Query, ResponseCode},
        rr::{
            DNSClass, Name, RData, Record, RecordType, TSigner,
            rdata::{A, PTR, SOA, SRV, TXT, opt::EdnsOption, tsig::TsigAlgorithm},
        },
    },
    runtime::TokioRuntimeProvider,
    tcp::TcpClientStream,
    xfer::FirstAnswer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::server::Server;

/// How many instances' records go into one message: as many as fit, in round numbers.
const ENTRIES_A_MESSAGE: usize = 250;
const SHOWN_A_MESSAGE: usize = 100;
/// How many records of a type a name may have (BIND's default).
const SET_MAX: u64 = 100;
const TTL: u32 = 5;
/// The option by which the embedded authority is told where to send NOTIFY.
const NOTIFY_PORT: u16 = 65011;

/// A connection to a server.
pub(crate) struct Raw {
    client: Client<TokioRuntimeProvider>,
    server: SocketAddr,
    signer: TSigner,
    zone: Name,
}

impl Raw {
    pub(crate) async fn connect(server: &Server) -> Self {
        let (name, secret) = server.key();
        let name = Name::from_ascii(name).expect("a name");
        let signer = TSigner::new(secret, TsigAlgorithm::HmacSha256, name, 300).expect("a key");
        let address = server.address();
        let (stream, handle) = TcpClientStream::new(address, None, None, TokioRuntimeProvider::new());
        let stream = stream.await.expect("the server is up");
        let (client, background) =
            Client::from_sender(DnsMultiplexer::new(stream, handle).with_signer(signer.clone()));
        tokio::spawn(background);
        let mut zone = Name::from_ascii(server.zone()).expect("a zone");
        zone.set_fqdn(true);
        Self { client, server: address, signer, zone }
    }

    fn below(&self, labels: &str) -> Name {
        Name::from_ascii(labels).and_then(|name| name.append_domain(&self.zone)).expect("a name")
    }

    /// The name of an instance.
    pub(crate) fn name(&self, n: u64) -> Name {
        self.below(&format!("{n:016x}.cart.prod.eu1"))
    }

    /// The record of an instance, as this crate writes it.
    pub(crate) fn entry(&self, n: u64) -> Record {
        let text = TXT::from_bytes(vec![RECORD]);
        Record::from_rdata(self.name(n), TTL, RData::TXT(text))
    }

    /// What any resolver finds an instance by: addresses, SRV and DNS-SD.
    fn shown(&self, n: u64) -> Vec<Record> {
        let (name, service) = (self.name(n), self.below("cart.prod.eu1"));
        let (kind, own) = (
            self.below("_http._tcp.cart.prod.eu1"),
            self.below(&format!("{n:016x}._http._tcp.cart.prod.eu1")),
        );
        let record = |name: &Name, data| Record::from_rdata(name.clone(), TTL, data);
        let address = || RData::A(A::new(10, 11, 12, 13));
        let target = || RData::SRV(SRV::new(0, 1, 8080, name.clone()));
        let pointer = |to: &Name| RData::PTR(PTR(to.clone()));
        let description = TXT::new(vec!["version=1.4.2".into(), "build=7c1f2d9".into()]);
        let mut records =
            vec![record(&name, address()), record(&own, target()), record(&own, RData::TXT(description))];
        if n < SET_MAX {
            records.push(record(&kind, target()));
            records.push(record(&kind, pointer(&own)));
        }
        if n == 0 {
            records.push(record(&service, address()));
            records.push(record(&self.below("_services._dns-sd._udp.cart.prod.eu1"), pointer(&kind)));
            records.push(record(&self.below("b._dns-sd._udp"), pointer(&service)));
        }
        records
    }

    /// Writes the entries of `count` instances and nothing else.
    pub(crate) async fn put_entries(&self, count: u64) {
        let instances: Vec<_> = (0..count).map(|n| vec![self.entry(n)]).collect();
        self.update_all(&instances, ENTRIES_A_MESSAGE).await;
    }

    /// Writes the entries of `count` instances and what resolvers find them by.
    pub(crate) async fn put_shown(&self, count: u64) {
        let with_entry = |n| [vec![self.entry(n)], self.shown(n)].concat();
        let instances: Vec<_> = (0..count).map(with_entry).collect();
        self.update_all(&instances, SHOWN_A_MESSAGE).await;
    }

    /// Removes all that the other two write.
    pub(crate) async fn remove_all(&self, count: u64) {
        let all = |n| {
            let names = [vec![self.entry(n)], self.shown(n)].concat().into_iter().map(|record| record.name);
            names.map(|name| delete_all(name, RecordType::ANY)).collect()
        };
        let instances: Vec<_> = (0..count).map(all).collect();
        self.update_all(&instances, SHOWN_A_MESSAGE).await;
    }

    async fn update_all(&self, instances: &[Vec<Record>], a_message: usize) {
        let updates = instances.chunks(a_message).map(|some| self.update([], some.concat()));
        futures_util::future::join_all(updates).await;
    }

    /// Writes one entry that must not be there yet.
    pub(crate) async fn create(&self, n: u64) {
        let mut absent = delete_all(self.name(n), RecordType::TXT);
        absent.dns_class = DNSClass::NONE;
        self.update([absent], [self.entry(n)]).await;
    }

    pub(crate) async fn remove(&self, n: u64) {
        self.update([], [delete_all(self.name(n), RecordType::TXT)]).await;
    }

    async fn update(
        &self,
        on_condition: impl IntoIterator<Item = Record>,
        records: impl IntoIterator<Item = Record>,
    ) {
        let mut message = Message::new(0, MessageType::Query, OpCode::Update);
        message.add_query(Query::query(self.zone.clone(), RecordType::SOA));
        message.add_answers(on_condition);
        message.add_authorities(records);
        let answer = self.client.send(DnsRequest::from(message)).first_answer().await;
        assert_eq!(answer.expect("the server is up").metadata.response_code, ResponseCode::NoError);
    }

    /// Whether the entry of an instance is there; it is read, if it is.
    pub(crate) async fn has(&self, n: u64) -> bool {
        let query = self.client.clone().query(self.name(n), DNSClass::IN, RecordType::TXT).await;
        query.expect("the server is up").answers.iter().any(is_entry)
    }

    /// The serial of the zone from which on `listener` hears of changes. The embedded authority has to be told, with a
    /// signature; with that the client sends only transfers and updates.
    pub(crate) async fn follow(&self, listener: &Listener) -> u32 {
        let soa = self.client.clone().query(self.zone.clone(), DNSClass::IN, RecordType::SOA).await;
        let mut serial =
            soa.expect("the server is up").answers.iter().find_map(serial).expect("a SOA record");
        let mut request = self.changes(serial);
        let mut edns = Edns::new();
        let port = listener.address().port();
        edns.options_mut().insert(EdnsOption::Unknown(NOTIFY_PORT, port.to_be_bytes().into()));
        request.set_edns(edns);
        self.news(request, &mut serial, 0).await;
        serial
    }

    /// A request for what has happened since a serial.
    pub(crate) fn changes(&self, since: u32) -> Message {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(self.zone.clone(), RecordType::IXFR));
        let soa = SOA::new(self.zone.clone(), self.zone.clone(), since, 0, 0, 0, 0);
        message.add_authority(Record::from_rdata(self.zone.clone(), 0, RData::SOA(soa)));
        message
    }

    /// What has happened since a serial, which becomes that of now: whether the entry of an instance was added.
    pub(crate) async fn news(&self, request: Message, since: &mut u32, n: u64) -> bool {
        let mut answer = self.client.send(DnsRequest::from(request));
        let (name, mut found, mut records) = (self.name(n), false, 0);
        let mut serials = Vec::new();
        loop {
            let message = answer.next().await.expect("a complete answer").expect("the server is up");
            for record in &message.answers {
                records += 1;
                serials.extend(serial(record));
                // The first SOA record is that of now. Then each step has one before what it takes, and one before
                // what it adds.
                found |= serials.len() % 2 == 1 && record.name == name && is_entry(record);
            }
            let is_end = message.answers.last().and_then(serial) == serials.first().copied();
            let is_empty = records == 1 && serials == [*since];
            if is_empty || is_end && serials.len() % 2 == 0 {
                *since = serials[0];
                return found;
            }
        }
    }

    /// The zone as a whole: how many entries there are. By hand: of many messages that come at once the client drops some.
    pub(crate) async fn transfer(&self) -> usize {
        let mut request = Message::new(1, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(self.zone.clone(), RecordType::AXFR));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let verifier = request.finalize(&self.signer, now).expect("a request");
        let mut verifier = verifier.expect("it is signed");
        let mut stream = TcpStream::connect(self.server).await.expect("the server is up");
        let request = request.to_vec().expect("a request");
        let length = u16::try_from(request.len()).expect("a short request").to_be_bytes();
        stream.write_all(&[&length, &request[..]].concat()).await.expect("the server is up");
        let (mut entries, mut ends) = (0, 0);
        while ends < 2 {
            let length = stream.read_u16().await.expect("the server is up");
            let mut message = vec![0; length.into()];
            stream.read_exact(&mut message).await.expect("the server is up");
            let message = verifier.verify(&message).expect("it is signed");
            ends += message.answers.iter().filter_map(serial).count();
            entries += message.answers.iter().filter(|record| is_entry(record)).count();
        }
        entries
    }
}

/// Deletes records (RFC 2136, sections 2.5.2 and 2.5.3).
fn delete_all(name: Name, kind: RecordType) -> Record {
    let mut record = Record::update0(name, 0, kind);
    record.dns_class = DNSClass::ANY;
    record
}

fn serial(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    }
}

/// Whether it is an entry, which is read: the raw side's own, or one of ours, which has a stamp in front.
fn is_entry(record: &Record) -> bool {
    let RData::TXT(text) = &record.data else { return false };
    let value = text.txt_data.iter().skip_while(|string| !string.starts_with(b"{")).map(|string| &**string);
    let value: Vec<_> = value.collect();
    let value = value.concat();
    if value.is_empty() {
        return false;
    }
    let record: serde_json::Value = serde_json::from_slice(&value).expect("our own record");
    record["endpoints"].is_array()
}

/// Where NOTIFY comes in.
pub(crate) struct Listener(UdpSocket);

impl Listener {
    pub(crate) async fn open() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.expect("a free port"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// Waits for the next one, and answers it.
    pub(crate) async fn notified(&self) {
        let mut buffer = [0; 1500];
        let (size, from) = self.0.recv_from(&mut buffer).await.expect("an open socket");
        let message = Message::from_vec(&buffer[..size]).expect("a message");
        let mut answer = Message::response(message.metadata.id, OpCode::Notify);
        answer.add_queries(message.queries);
        self.0.send_to(&answer.to_vec().expect("a message"), from).await.expect("an open socket");
    }
}
