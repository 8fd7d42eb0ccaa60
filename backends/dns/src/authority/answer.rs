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
