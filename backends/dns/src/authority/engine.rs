//! From the bytes of a request to the bytes of its answer. No input or output, so that anything can be thrown at it.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{
    answer::answer,
    message::{OpCode, Rcode, Reply, Request, Transport, Unreadable},
    transfer::{self, Transfer},
    wire::{code, is_within},
    zone::Zone,
};
use crate::{
    protocol::unix_time,
    tsig::{Signer, TsigKey, append_refusal},
};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    /// Whether both ends are on a loopback address.
    pub(crate) is_local: bool,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// No answer.
    Silence,
    /// The answer is in the buffer.
    Answer,
    /// The answer is several messages.
    Transfer(Box<Transfer>),
}

/// The zones, and who may do what.
#[derive(Debug)]
pub(crate) struct Engine {
    zones: Vec<Arc<Zone>>,
    keys: Vec<TsigKey>,
}

impl Engine {
    pub(crate) fn new(mut zones: Vec<Arc<Zone>>, keys: Vec<TsigKey>) -> Self {
        // The longest that fits is the one.
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.apex().len()));
        Self { zones, keys }
    }

    pub(crate) fn zones(&self) -> &[Arc<Zone>] {
        &self.zones
    }

    /// Handles one message; the answer replaces what is in `out`.
    pub(crate) fn handle(&self, raw: &[u8], peer: Peer, out: &mut Vec<u8>) -> Outcome {
        let request = match Request::read(raw) {
            Ok(request) => request,
            Err(Unreadable::Nothing) => return Outcome::Silence,
            Err(Unreadable::Code(rcode)) => {
                let mut reply = Reply::bare(raw, out);
                reply.set_rcode(rcode);
                reply.finish();
                return Outcome::Answer;
            }
        };
        let mut signer = None;
        if request.is_signed {
            match Signer::authenticate(&self.keys, raw, unix_time()) {
                Ok(authenticated) => signer = authenticated,
                Err((flaw, signature)) => {
                    let mut reply = Reply::to(&request, Transport::Udp, 0, out);
                    reply.set_rcode(if signature.is_some() { Rcode::NotAuth } else { Rcode::FormErr });
                    reply.finish();
                    if let Some(signature) = signature {
                        append_refusal(out, &self.keys, &signature, flaw, unix_time());
                    }
                    return Outcome::Answer;
                }
            }
        }
        let reserved = signer.as_ref().map_or(0, Signer::size);
        let mut reply = Reply::to(&request, peer.transport, reserved, out);
        let may_write = if self.keys.is_empty() { peer.is_local } else { signer.is_some() };
        match self.carry_out(&request, peer, may_write, &mut reply) {
            Ok(Some(records)) => return Outcome::Transfer(Transfer::new(&request, records, signer).into()),
            Ok(None) => {}
            Err(rcode) => reply.set_rcode(rcode),
        }
        reply.finish();
        if let Some(mut signer) = signer {
            signer.sign(out, unix_time());
        }
        Outcome::Answer
    }

    /// The answer, but for a transfer by TCP: its records.
    fn carry_out(
        &self,
        request: &Request<'_>,
        peer: Peer,
        may_write: bool,
        reply: &mut Reply<'_>,
    ) -> Result<Option<Vec<super::wire::Rr>>, Rcode> {
        if !request.is_known_version() {
            return Err(Rcode::BadVers);
        }
        let is_update = request.opcode == OpCode::Update;
        if request.class != code::IN {
            return Err(if is_update { Rcode::NotAuth } else { Rcode::Refused });
        }
        if is_update {
            return self.update(request, may_write, reply).map(|()| None);
        }
        let zone = self.zones.iter().find(|zone| is_within(&request.name, zone.apex()));
        let is_transfer = matches!(request.kind, code::AXFR | code::IXFR);
        if code::is_meta(request.kind) && !is_transfer && request.kind != code::ANY {
            return Err(Rcode::FormErr);
        }
        let zone = match zone {
            Some(zone) if !is_transfer || *request.name == **zone.apex() => zone,
            // Nothing is said of other people's names.
            _ => return Err(if is_transfer { Rcode::NotAuth } else { Rcode::Refused }),
        };
        if is_transfer && !may_write {
            return Err(Rcode::Refused);
        }
        let manner = zone.manner().ok_or(Rcode::ServFail)?;
        if may_write && (is_transfer || request.kind == code::SOA) {
            subscribe(zone, request, peer);
        }
        let table = zone.table();
        if !is_transfer {
            answer(&table, manner, request, peer.transport, reply);
            return Ok(None);
        }
        match (peer.transport, request.kind) {
            (Transport::Udp, code::AXFR) => Err(Rcode::FormErr),
            (Transport::Udp, _) => {
                transfer::answer_udp(&transfer::records(&table, request)?, request, reply);
                Ok(None)
            }
            (Transport::Tcp, _) => transfer::records(&table, request).map(Some),
        }
    }

    fn update(&self, request: &Request<'_>, may_write: bool, reply: &mut Reply<'_>) -> Result<(), Rcode> {
        if request.kind != code::SOA {
            return Err(Rcode::FormErr);
        }
        let zone = self.zones.iter().find(|zone| *request.name == **zone.apex()).ok_or(Rcode::NotAuth)?;
        if !may_write {
            return Err(Rcode::Refused);
        }
        if let Some(granted) = zone.update(request)? {
            reply.set_lease(granted);
        }
        Ok(())
    }
}

/// Who asks for the serial or for changes, and says so, is notified of the next ones.
fn subscribe(zone: &Zone, request: &Request<'_>, peer: Peer) {
    if let Some(port) = request.edns.and_then(|edns| edns.notify_port) {
        zone.subscribers().add(SocketAddr::new(peer.address.ip(), port), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, ResponseCode};

    use super::super::testing::*;
    use super::*;

    fn key() -> TsigKey {
        "disco-key:c2VjcmV0IHNlY3JldCBzZWNyZXQ=".parse().unwrap()
    }

    fn code_of(engine: &Engine, raw: &[u8], peer: Peer) -> ResponseCode {
        let mut out = Vec::new();
        match engine.handle(raw, peer, &mut out) {
            Outcome::Answer => Message::from_vec(&out).unwrap().metadata.response_code,
            Outcome::Transfer(_) => ResponseCode::NoError,
            Outcome::Silence => panic!("no answer"),
        }
    }

    #[test]
    fn who_may_change_and_transfer() {
        let zone = zone(&[a("a.z.", 1)]);
        let open = engine(&zone);
        let closed = Engine::new(vec![zone.clone()], vec![key()]);
        let here = peer(Transport::Tcp);
        let far = Peer { is_local: false, ..here };
        let signed = |ask: &Ask| {
            let mut raw = ask.bytes();
            let _ = key().sign_request(&mut raw, unix_time());
            raw
        };
        for ask in [Ask::update("z.").add(&a("b.z.", 1)), Ask::query("z.", code::AXFR)] {
            let (plain, signed) = (ask.bytes(), signed(&ask));
            assert_eq!(code_of(&open, &plain, here), ResponseCode::NoError);
            assert_eq!(code_of(&open, &plain, far), ResponseCode::Refused);
            assert_eq!(code_of(&open, &signed, here), ResponseCode::NotAuth, "nobody knows that key");
            assert_eq!(code_of(&closed, &plain, here), ResponseCode::Refused, "there is a key");
            assert_eq!(code_of(&closed, &signed, far), ResponseCode::NoError);
        }
        for engine in [&open, &closed] {
            assert_eq!(code_of(engine, &Ask::query("a.z.", code::A).bytes(), far), ResponseCode::NoError);
        }
    }

    #[test]
    fn a_change_by_somebody_else_is_not_looked_at() {
        let zone = zone(&[]);
        let mut raw = Ask::update("z.").add(&a("b.z.", 1)).bytes();
        let _ = "disco-key:b3RoZXI=".parse::<TsigKey>().unwrap().sign_request(&mut raw, unix_time());
        let closed = Engine::new(vec![zone.clone()], vec![key()]);
        assert_eq!(code_of(&closed, &raw, peer(Transport::Udp)), ResponseCode::NotAuth);
        assert_eq!(zone.table().serial(), 1);
    }

    #[test]
    fn answers_to_signed_requests_are_signed_and_no_longer_for_it() {
        let records: Vec<_> = (0..2_000).map(|n| txt(&format!("n{n}.z."), &"x".repeat(60))).collect();
        let many: Vec<_> = (0..200).map(|n| a("many.z.", n)).collect();
        let zone = zone(&[records, many].concat());
        let engine = Engine::new(vec![zone], vec![key()]);
        let mut out = Vec::new();
        for ask in [Ask::query("many.z.", code::A), Ask::query("many.z.", code::A).edns(4096, 0, &[])] {
            let mut raw = ask.bytes();
            let mut verifier = key().sign_request(&mut raw, unix_time());
            engine.handle(&raw, peer(Transport::Udp), &mut out);
            verifier.verify(&out, unix_time()).unwrap();
            assert!(out.len() <= 1232 && Message::from_vec(&out).unwrap().metadata.truncation);
        }
        let mut raw = Ask::query("z.", code::AXFR).bytes();
        let mut verifier = key().sign_request(&mut raw, unix_time());
        let Outcome::Transfer(mut transfer) = engine.handle(&raw, peer(Transport::Tcp), &mut out) else {
            panic!("no transfer");
        };
        let mut messages = 0;
        while transfer.next(unix_time, &mut out) {
            verifier.verify(&out, unix_time()).unwrap();
            messages += 1;
        }
        verifier.finish().unwrap();
        assert!(messages > 5, "{messages}");
    }
}
