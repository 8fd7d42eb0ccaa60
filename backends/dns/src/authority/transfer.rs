//! The zone as a whole, or what changed in it since a serial: AXFR (RFC 5936) and IXFR (RFC 1995).

use std::{iter, sync::Arc};

use super::{
    message::{Rcode, Reply, Request, Section, Transport},
    table::{Table, serial_of},
    wire::{Rr, code},
};
use crate::{protocol::is_newer, tsig::Signer};

/// About how long a message of a transfer is.
const MESSAGE: usize = 16 * 1024;

/// So many records of steps are sent where the zone as a whole would be less: that would cost who asks its history.
const STEPS_MIN: usize = 1000;

/// The records that answer a query for a transfer, in order.
pub(crate) fn records(table: &Table, request: &Request<'_>) -> Result<Vec<Rr>, Rcode> {
    let soa = (**table.soa()).clone();
    if request.kind == code::AXFR {
        return Ok(whole(table));
    }
    let serial = known_serial(request, table).ok_or(Rcode::FormErr)?;
    if !is_newer(serial_of(&soa), serial) {
        return Ok(vec![soa]);
    }
    let Some(steps) = table.since(serial) else { return Ok(whole(table)) };
    let mut records = vec![soa.clone()];
    for step in steps {
        records.push(step.before.clone());
        records.extend_from_slice(&step.removed);
        records.push(step.after.clone());
        records.extend_from_slice(&step.added);
        if records.len() > STEPS_MIN.max(table.len() + 2) {
            return Ok(whole(table));
        }
    }
    records.push(soa);
    Ok(records)
}

fn whole(table: &Table) -> Vec<Rr> {
    let soa = (**table.soa()).clone();
    let others = table.records().filter(|rr| rr.kind != code::SOA);
    iter::once(soa.clone()).chain(others).chain(iter::once(soa)).collect()
}

/// The serial that an IXFR has already.
fn known_serial(request: &Request<'_>, table: &Table) -> Option<u32> {
    let soa =
        request.authorities().find(|record| record.kind == code::SOA && *record.name == **table.apex())?;
    let data = soa.data()?;
    Some(serial_of(&Rr { name: table.apex().clone(), kind: code::SOA, ttl: 0, data }))
}

/// By UDP: all in one message, or only the SOA record, which says that TCP is needed.
pub(crate) fn answer_udp(records: &[Rr], request: &Request<'_>, reply: &mut Reply<'_>) {
    reply.set_authoritative();
    if !records.iter().all(|rr| reply.push_rr(Section::Answer, rr)) {
        reply.clear(request);
        reply.push_rr(Section::Answer, &records[0]);
    }
}

/// A transfer by TCP, message by message.
#[derive(Debug)]
pub(crate) struct Transfer {
    request: Arc<[u8]>,
    records: std::iter::Peekable<std::vec::IntoIter<Rr>>,
    signer: Option<Signer>,
    is_first: bool,
}

impl Transfer {
    pub(crate) fn new(request: &Request<'_>, records: Vec<Rr>, signer: Option<Signer>) -> Self {
        Self {
            request: request.raw().into(),
            records: records.into_iter().peekable(),
            signer,
            is_first: true,
        }
    }

    /// Writes the next message; false if there is none any more.
    pub(crate) fn next(&mut self, now: impl FnOnce() -> u64, out: &mut Vec<u8>) -> bool {
        if self.records.peek().is_none() {
            return false;
        }
        let reserved = self.signer.as_ref().map_or(0, Signer::size);
        let request = self.is_first.then(|| Request::read(&self.request).ok()).flatten();
        let mut reply = match &request {
            Some(request) => Reply::to(request, Transport::Tcp, reserved, out),
            None => Reply::next_to(&self.request, usize::from(u16::MAX) - reserved, out),
        };
        reply.set_authoritative();
        let mut size = 0;
        // A record that does not fit into an empty message does not exist: its data would be longer than they can be.
        while size < MESSAGE
            && let Some(rr) = self.records.peek()
            && reply.push_rr(Section::Answer, rr)
        {
            size += rr.size();
            self.records.next();
        }
        if size == 0 {
            return false;
        }
        reply.finish();
        if let Some(signer) = &mut self.signer {
            signer.sign(out, now());
        }
        self.is_first = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{op::ResponseCode, rr::RecordType};

    use super::super::testing::*;
    use super::*;

    fn soa(serial: u32) -> Rr {
        let mut data = vec![0, 0];
        data.extend(serial.to_be_bytes());
        data.extend([0; 16]);
        rr("z.", code::SOA, 0, &data)
    }

    fn kinds(records: &[hickory_proto::rr::Record]) -> Vec<RecordType> {
        records.iter().map(hickory_proto::rr::Record::record_type).collect()
    }

    #[test]
    fn a_large_zone_goes_in_several_messages() {
        let records: Vec<_> = (0..5_000).map(|n| txt(&format!("n{n}.z."), "some text")).collect();
        let zone = zone(&records);
        let (records, messages) = Ask::query("z.", code::AXFR).transfer(&engine(&zone));
        assert_eq!(records.len(), 5_000 + 3);
        assert!(messages > 5, "{messages}");
        assert_eq!(records[0], records[5_002]);
        assert_eq!(kinds(&records).iter().filter(|kind| **kind == RecordType::SOA).count(), 2);
    }

    #[test]
    fn changes_are_told_step_by_step_as_far_back_as_they_are_known() {
        let zone = zone(&[a("a.z.", 1), a("b.z.", 1), a("c.z.", 1), a("d.z.", 1)]);
        let engine = engine(&zone);
        Ask::update("z.").remove(&a("a.z.", 1)).add(&a("a.z.", 2)).carry_out(&zone);
        Ask::update("z.").add(&a("a.z.", 3)).carry_out(&zone);
        let since = |serial| Ask::query("z.", code::IXFR).since(&soa(serial));
        let (records, _) = since(2).transfer(&engine);
        let (s, a) = (RecordType::SOA, RecordType::A);
        assert_eq!(kinds(&records), [s, s, s, a, s], "one step");
        let (records, _) = since(1).transfer(&engine);
        assert_eq!(kinds(&records), [s, s, a, s, a, s, s, a, s], "two steps");
        assert_eq!(kinds(&since(3).transfer(&engine).0), [s], "nothing new");
        assert_eq!(kinds(&since(7).transfer(&engine).0), [s], "from the future");
        let (whole, _) = since(u32::MAX - 5).transfer(&engine);
        assert_eq!(whole.len(), 5 + 3, "nobody knows any more");
        let without = Ask::query("z.", code::IXFR).ask(&engine, Transport::Tcp);
        assert_eq!(without.metadata.response_code, ResponseCode::FormErr);
    }

    #[test]
    fn by_udp_all_or_the_serial_alone() {
        let zone = zone(&[]);
        let engine = engine(&zone);
        Ask::update("z.").add(&a("a.z.", 1)).carry_out(&zone);
        let ask = Ask::query("z.", code::IXFR).since(&soa(1));
        assert_eq!(ask.ask(&engine, Transport::Udp).answers.len(), 5);
        let many = (0..100).fold(Ask::update("z."), |ask, n| ask.add(&a("b.z.", n)));
        many.carry_out(&zone);
        assert_eq!(ask.ask(&engine, Transport::Udp).answers.len(), 1);
    }
}
