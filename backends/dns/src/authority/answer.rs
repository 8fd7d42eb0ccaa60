//! What a query is answered: from one table, without waiting for anybody.

use std::cell::RefCell;

use super::{
    alias,
    message::{Rcode, Reply, Request, Section, Transport},
    table::{RrSet, Table, negative_ttl},
    wire::{NameBuf, Reader, code, is_within},
};

/// How many CNAME records are followed.
const CHAIN_MAX: usize = 8;

/// How a zone answers, beside its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// No TTL is longer than that.
    pub(crate) ttl_max: u32,
    /// Whether names have other spellings.
    pub(crate) has_aliases: bool,
}

/// Answers a query for a name in the zone.
pub(crate) fn answer(
    table: &Table,
    manner: Manner,
    request: &Request<'_>,
    transport: Transport,
    reply: &mut Reply<'_>,
) {
    let mut answering = Answering { table, manner, request, transport, reply };
    answering.reply.set_authoritative();
    answering.follow();
}

struct Answering<'a, 'o> {
    table: &'a Table,
    manner: Manner,
    request: &'a Request<'a>,
    transport: Transport,
    reply: &'a mut Reply<'o>,
}

impl Answering<'_, '_> {
    /// From the name of the question along CNAME records to an answer.
    fn follow(&mut self) {
        let (table, kind) = (self.table, self.request.kind);
        let mut name: NameBuf = self.request.name;
        for _ in 0..=CHAIN_MAX {
            if let Some((cut, servers)) = table.cut(&name) {
                return self.refer(cut, servers);
            }
            // Under the name that was asked for, whatever it is called here.
            let alias = (self.manner.has_aliases && table.node(&name).is_none())
                .then(|| alias::resolve(table, &name))
                .flatten();
            let node = alias.as_ref().map_or_else(|| table.node(&name), |alias| table.node(alias));
            let Some(node) = node else { return self.negative(Rcode::NxDomain) };
            if kind == code::ANY {
                return self.any(&name, node.sets());
            }
            if let Some(set) = node.set(kind) {
                if self.push_set(Section::Answer, &name, set) {
                    self.push_addresses(set);
                }
                return;
            }
            let Some(canonical) = node.set(code::CNAME) else { return self.negative(Rcode::NoError) };
            if !self.push_set(Section::Answer, &name, canonical) {
                return;
            }
            let target = canonical.data.front().and_then(|data| Reader::new(data, 0).name());
            match target {
                Some(target) if is_within(&target, table.apex()) => name = target,
                // Who asks looks for it elsewhere.
                _ => return,
            }
        }
    }

    /// All there is; by UDP one set will do (RFC 8482), so that small questions have no large answers.
    fn any(&mut self, name: &[u8], sets: &[RrSet]) {
        let count = if self.transport == Transport::Udp { 1 } else { sets.len() };
        for set in sets.iter().take(count) {
            if !self.push_set(Section::Answer, name, set) {
                return;
            }
        }
        if sets.is_empty() {
            self.negative(Rcode::NoError);
        }
    }

    /// Somebody else knows.
    fn refer(&mut self, cut: &[u8], servers: &RrSet) {
        if self.reply.count(Section::Answer) == 0 {
            self.reply.unset_authoritative();
        }
        if self.push_set(Section::Authority, cut, servers) {
            self.push_addresses(servers);
        }
    }

    /// There is no such name, or nothing of that type; and how long this holds (RFC 2308).
    fn negative(&mut self, rcode: Rcode) {
        self.reply.set_rcode(rcode);
        let soa = self.table.soa();
        let ttl = self.ttl(negative_ttl(soa));
        if !self.reply.push(Section::Authority, &soa.name, soa.kind, ttl, &soa.data) {
            self.reply.set_truncated();
        }
    }

    /// A whole set, shuffled; false if it does not fit.
    fn push_set(&mut self, section: Section, name: &[u8], set: &RrSet) -> bool {
        let ttl = self.ttl(set.ttl);
        let fits = shuffled(set.data.len(), |index| {
            let data = set.data.get(index);
            data.is_none_or(|data| self.reply.push(section, name, set.kind, ttl, data))
        });
        if !fits {
            self.reply.set_truncated();
        }
        fits
    }

    /// The addresses of those that a set points at, as far as they fit.
    fn push_addresses(&mut self, set: &RrSet) {
        let skip = match set.kind {
            code::SRV => 6,
            code::MX => 2,
            code::NS => 0,
            _ => return,
        };
        for data in set.data.iter().take(usize::from(u8::MAX)) {
            let Some(node) = data.get(skip..).and_then(|target| self.table.node(target)) else { continue };
            for set in [code::A, code::AAAA].into_iter().filter_map(|kind| node.set(kind)) {
                let ttl = self.ttl(set.ttl);
                for address in &set.data {
                    if !self.reply.push(Section::Additional, &data[skip..], set.kind, ttl, address) {
                        return;
                    }
                }
            }
        }
    }

    fn ttl(&self, ttl: u32) -> u32 {
        ttl.min(self.manner.ttl_max)
    }
}

/// Calls `visit` with every index below `length`, in random order, until it says false. Only as far as it is called is
/// the order made: of a large set, a message has room for few.
fn shuffled(length: usize, mut visit: impl FnMut(usize) -> bool) -> bool {
    thread_local! {
        static ORDER: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }
    if length == 1 {
        return visit(0);
    }
    ORDER.with_borrow_mut(|order| {
        order.clear();
        order.extend(0..length);
        for next in 0..length {
            order.swap(next, fastrand::usize(next..length));
            if !visit(order[next]) {
                return false;
            }
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hickory_proto::op::{Message, ResponseCode};

    use super::super::{testing::*, wire::Rr};
    use super::*;

    fn ask_of(records: &[Rr], of: &str, kind: u16) -> Message {
        Ask::query(of, kind).ask(&engine(&zone(records)), Transport::Udp)
    }

    fn texts(records: &[hickory_proto::rr::Record]) -> Vec<String> {
        records.iter().map(|rr| format!("{} {} {}", rr.name, rr.record_type(), rr.data)).collect()
    }

    #[test]
    fn a_name_without_the_type_is_no_data_and_no_name_is_no_domain() {
        let records = [a("a.b.z.", 1), a("x.z.", 1)];
        let cases = [
            ("a.b.z.", code::A, ResponseCode::NoError, 1),
            ("A.B.z.", code::A, ResponseCode::NoError, 1),
            ("a.b.z.", code::TXT, ResponseCode::NoError, 0),
            ("b.z.", code::A, ResponseCode::NoError, 0),
            ("c.z.", code::A, ResponseCode::NXDomain, 0),
            ("c.a.b.z.", code::A, ResponseCode::NXDomain, 0),
            ("z.", code::NS, ResponseCode::NoError, 1),
            ("z.", code::SOA, ResponseCode::NoError, 1),
            ("zz.", code::A, ResponseCode::Refused, 0),
            (".", code::NS, ResponseCode::Refused, 0),
        ];
        for (of, kind, expected, count) in cases {
            let answer = ask_of(&records, of, kind);
            assert_eq!(
                (answer.metadata.response_code, answer.answers.len()),
                (expected, count),
                "{of} {kind}"
            );
            let is_negative = count == 0 && expected != ResponseCode::Refused;
            assert_eq!(answer.authorities.len(), usize::from(is_negative), "{of} {kind}");
            assert_eq!(answer.metadata.authoritative, expected != ResponseCode::Refused, "{of} {kind}");
        }
    }

    #[test]
    fn the_case_of_the_question_is_kept() {
        let message = Ask::query("a.z.", code::A);
        let mut raw = message.bytes();
        raw[13] = b'A';
        let mut out = Vec::new();
        engine(&zone(&[a("a.z.", 1)])).handle(&raw, peer(Transport::Udp), &mut out);
        assert_eq!(out[13], b'A');
        assert_eq!(Message::from_vec(&out).unwrap().answers.len(), 1);
    }

    #[test]
    fn a_chain_is_followed_and_a_circle_ends() {
        let records = [
            pointing("a.z.", code::CNAME, "b.z."),
            pointing("b.z.", code::CNAME, "c.z."),
            a("c.z.", 1),
            pointing("out.z.", code::CNAME, "example."),
            pointing("dead.z.", code::CNAME, "nothing.z."),
            pointing("r.z.", code::CNAME, "r.z."),
        ];
        let answer = ask_of(&records, "a.z.", code::A);
        assert_eq!(texts(&answer.answers), ["a.z. CNAME b.z.", "b.z. CNAME c.z.", "c.z. A 10.0.0.1"]);
        assert_eq!(ask_of(&records, "a.z.", code::CNAME).answers.len(), 1);
        assert_eq!(ask_of(&records, "out.z.", code::A).answers.len(), 1);
        let dead = ask_of(&records, "dead.z.", code::A);
        assert_eq!((dead.metadata.response_code, dead.answers.len()), (ResponseCode::NXDomain, 1));
        assert!(ask_of(&records, "r.z.", code::A).answers.len() <= CHAIN_MAX + 1);
    }

    #[test]
    fn who_is_pointed_at_goes_along() {
        let records = [srv("_h._tcp.z.", 80, "a.z."), a("a.z.", 1), a("a.z.", 2)];
        let answer = ask_of(&records, "_h._tcp.z.", code::SRV);
        assert_eq!(texts(&answer.additionals), ["a.z. A 10.0.0.1", "a.z. A 10.0.0.2"]);
    }

    #[test]
    fn what_belongs_to_others_is_referred() {
        let records = [pointing("sub.z.", code::NS, "ns.sub.z."), a("ns.sub.z.", 1)];
        for of in ["sub.z.", "x.y.sub.z."] {
            let answer = ask_of(&records, of, code::A);
            assert!(!answer.metadata.authoritative, "{of}");
            assert_eq!(texts(&answer.authorities), ["sub.z. NS ns.sub.z."], "{of}");
            assert_eq!(texts(&answer.additionals), ["ns.sub.z. A 10.0.0.1"], "{of}");
        }
    }

    #[test]
    fn many_are_shuffled_and_cut_to_what_fits() {
        let records: Vec<_> = (0..200).map(|n| a("many.z.", n)).collect();
        let engine = engine(&zone(&records));
        let small = Ask::query("many.z.", code::A);
        for (ask, max) in [(small.clone(), 512), (small.clone().edns(4096, 0, &[]), 1232)] {
            let answer = ask.ask(&engine, Transport::Udp);
            assert!(answer.metadata.truncation);
            let size = answer.to_vec().unwrap().len();
            assert!(size <= max && size > max - 60, "{size}");
        }
        let whole = small.ask(&engine, Transport::Tcp);
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
        let firsts: HashSet<_> =
            (0..50).map(|_| small.ask(&engine, Transport::Tcp).answers[0].data.to_string()).collect();
        assert!(firsts.len() > 10, "{firsts:?}");
    }

    #[test]
    fn any_is_small_by_udp() {
        let records = [a("a.z.", 1), txt("a.z.", "x")];
        let engine = engine(&zone(&records));
        let ask = Ask::query("a.z.", code::ANY);
        assert_eq!(ask.ask(&engine, Transport::Udp).answers.len(), 1);
        assert_eq!(ask.ask(&engine, Transport::Tcp).answers.len(), 2);
    }

    #[test]
    fn what_we_do_not_do_is_told_by_its_code() {
        let engine = engine(&zone(&[a("a.z.", 1)]));
        for (ask, expected) in [
            (Ask::new(0, "a.z.", code::A, 3), ResponseCode::Refused),
            (Ask::new(4 << 11, "z.", code::SOA, code::IN), ResponseCode::NotImp),
            (Ask::new(2 << 11, "z.", code::SOA, code::IN), ResponseCode::NotImp),
            (Ask::query("a.z.", code::A).edns(1232, 1, &[]), ResponseCode::BADVERS),
            (Ask::query("a.z.", code::A).edns(1232, 0, &[]).edns(1232, 0, &[]), ResponseCode::FormErr),
            (Ask::query("a.z.", code::OPT), ResponseCode::FormErr),
            (Ask::query("z.", code::AXFR), ResponseCode::FormErr),
        ] {
            let answer = ask.ask(&engine, Transport::Udp);
            let high = answer.edns.as_ref().map_or(0, |edns| u16::from(edns.rcode_high()));
            let low = u16::from(answer.metadata.response_code) & 15;
            assert_eq!(high << 4 | low, u16::from(expected), "{ask:?}");
        }
    }
}
