//! What must hold whatever comes in: run by `cargo fuzz` (see `fuzz/`), and for a bounded time by the tests.

use std::{net::SocketAddr, sync::Arc};

use discovery::{Instance, InstanceId};

use super::{
    config::ZoneConfig,
    engine::{Engine, Outcome, Peer},
    message::Transport,
    wire::Rr,
    zone::Zone,
};
use crate::{
    names::Origin,
    protocol::{UDP_MAX, unix_time},
    records,
};

/// A zone with something in it, and an authority that lets everybody change it, or only who has a key.
fn engines() -> (Arc<Zone>, [Engine; 2]) {
    let config = ZoneConfig::dynamic("z").serial(7).records_max(1_000).journal_max(1_000);
    let zone = Arc::new(config.build().expect("a zone").0);
    show(&zone, &instance("a", "http", "10.0.0.7", "x").expect("an instance"));
    let key = "disco-key:c2VjcmV0IHNlY3JldCBzZWNyZXQ=".parse().expect("a key");
    (zone.clone(), [Engine::new(vec![zone.clone()], Vec::new()), Engine::new(vec![zone], vec![key])])
}

/// Messages one after the other, each with its length in front: none panics, every answer is one, and is no longer than
/// it may be.
pub fn requests(mut data: &[u8]) {
    let (_, engines) = engines();
    let mut out = Vec::new();
    while let Some(([high, low], rest)) = data.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high & 7, *low])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        data = rest;
        for engine in &engines {
            for transport in [Transport::Udp, Transport::Tcp] {
                let address = SocketAddr::from(([127, 0, 0, 1], 4321));
                handle(engine, message, Peer { address, transport, is_local: true }, &mut out);
            }
        }
    }
}

fn handle(engine: &Engine, message: &[u8], peer: Peer, out: &mut Vec<u8>) {
    let check = |out: &[u8]| {
        assert_eq!(out[..2], message[..2], "another id");
        assert!(out[2] & 0x80 != 0, "no answer");
        let is_udp = peer.transport == Transport::Udp;
        assert!(!is_udp || out.len() <= usize::from(UDP_MAX), "{} bytes by UDP", out.len());
    };
    match engine.handle(message, peer, out) {
        Outcome::Silence => {}
        Outcome::Answer => check(out),
        Outcome::Transfer(mut transfer) => {
            while transfer.next(|| 0, out) {
                check(out);
            }
        }
    }
}

/// An instance that may be called anything: its records can be put into a zone, read there, and taken out again, which
/// leaves nothing.
pub fn instances(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\n');
    let mut next = || parts.next().unwrap_or_default();
    let Some(instance) = instance(next(), next(), next(), next()) else { return };
    let zone = Arc::new(ZoneConfig::dynamic("z").serial(7).build().expect("a zone").0);
    let before = zone.table().len();
    let shown = show(&zone, &instance);
    assert!(shown.iter().all(|rr| zone.table().set(&rr.name, rr.kind).is_some_and(|set| set.has(&rr.data))));
    zone.change(|edit| shown.iter().for_each(|rr| edit.remove(&rr.name, rr.kind, &rr.data)));
    assert_eq!(zone.table().len(), before, "something is left");
}

fn instance(id: &str, endpoint: &str, host: &str, value: &str) -> Option<Instance> {
    let id: InstanceId = id.parse().ok()?;
    let builder = Instance::builder("eu1/prod/cart".parse().ok()?).id(id).metadata("key", value);
    builder.endpoint(endpoint, host, 80).endpoint("http", "fd00::1", 80).build().ok()
}

fn show(zone: &Zone, instance: &Instance) -> Vec<Rr> {
    let origin = Origin::parse("z").expect("a zone");
    let records = records::of_instance(&origin, instance, 5);
    let shown: Vec<Rr> = records.iter().filter_map(Rr::from_library).collect();
    let add = |rr: &Rr, edit: &mut super::table::Edit| edit.add(&rr.name, rr.kind, rr.ttl, rr.data.clone());
    zone.change(|edit| shown.iter().for_each(|rr| add(rr, edit)));
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{testing::*, wire::code};
    use super::*;

    /// Good messages to start from, those with a signature among them.
    fn corpus() -> Vec<Vec<u8>> {
        let key: crate::TsigKey = "disco-key:c2VjcmV0IHNlY3JldCBzZWNyZXQ=".parse().unwrap();
        let soa = table(&[]).soa().clone();
        let mut messages: Vec<_> = [
            Ask::query("a.cart.prod.eu1.z.", code::A),
            Ask::query("_http._tcp.cart.prod.eu1.z.", code::SRV).edns(1232, 0, &[(65011, &[1, 2])]),
            Ask::query("z.", code::IXFR).since(&soa),
            Ask::query("z.", code::AXFR),
            Ask::update("z.").add(&a("a.z.", 1)).remove(&a("a.z.", 2)).lease(5),
            Ask::update("z.")
                .requires(code::CLASS_NONE, &rr("b.z.", code::ANY, 0, &[]))
                .add(&txt("b.z.", "x")),
            Ask::update("z.").remove_set("cart.prod.eu1.z.", code::ANY),
        ]
        .iter()
        .map(Ask::bytes)
        .collect();
        let mut signed = messages.clone();
        for message in &mut signed {
            let _ = key.sign_request(message, unix_time());
        }
        messages.extend(signed);
        messages
    }

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let frame =
            |message: &Vec<u8>| [&u16::try_from(message.len()).unwrap().to_be_bytes(), &message[..]].concat();
        messages.iter().flat_map(frame).collect()
    }

    #[test]
    fn the_corpus_is_handled() {
        requests(&framed(&corpus()));
    }

    /// Writes the corpus down, for `cargo fuzz`.
    #[test]
    fn the_corpus_is_the_one_in_the_files() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/requests");
        // Those with a signature are of today.
        for (n, message) in corpus().iter().take(7).enumerate() {
            let file = dir.join(n.to_string());
            let bytes = framed(std::slice::from_ref(message));
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&file, &bytes).unwrap();
            }
            assert!(std::fs::read(&file).unwrap() == bytes, "{n} is another; write it with BLESS=1");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 500 } else { 5_000 }))]

        #[test]
        fn damaged_requests_are_handled(
            picks in prop::collection::vec((0_usize..14, prop::collection::vec((any::<u16>(), any::<u8>()), 0..6), any::<u16>()), 1..6),
        ) {
            let corpus = corpus();
            let damaged: Vec<_> = picks
                .iter()
                .map(|(pick, flips, cut)| {
                    let mut message = corpus[*pick].clone();
                    for (at, value) in flips {
                        let at = usize::from(*at) % message.len();
                        message[at] = *value;
                    }
                    // Most stay whole.
                    if cut % 4 == 0 {
                        message.truncate(usize::from(*cut / 4) % (message.len() + 1));
                    }
                    message
                })
                .collect();
            requests(&framed(&damaged));
        }

        #[test]
        fn any_bytes_are_handled(data in prop::collection::vec(any::<u8>(), 0..400)) {
            requests(&data);
        }

        #[test]
        fn any_instance_is_shown(text in "[ -~é\u{0}]{0,70}\n[ -~]{0,70}\n([0-9.:a-f%]{0,20}|[ -~]{0,80})\n\\PC{0,300}") {
            instances(text.as_bytes());
        }
    }
}
