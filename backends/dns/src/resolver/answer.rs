//! What a server says to one question, and what it means.
//!
//! There are three meanings, never mixed up: these records, no records (NXDOMAIN, or no data of that type), and "cannot
//! tell" (an error). Only the first two say anything of a service.

use std::{fmt, time::Duration};

use discovery::{Error, ErrorKind, Result};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use hickory_resolver::net::{DnsError, NetError, NoRecords};

/// The answer to one question; none is as good an answer as some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// The data of the type that was asked for.
    pub(crate) data: Vec<RData>,
    /// How long it holds, where that is told.
    pub(crate) ttl: Option<Duration>,
    /// What came along unasked: addresses of targets, mostly.
    pub(crate) extra: Vec<Record>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: RecordType,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind, self.name)
    }
}

/// What one message says.
#[derive(Debug)]
pub(super) enum Said {
    /// This, in the end.
    Answer(Answer),
    /// To be asked under another name, by a chain that this message does not follow to its end.
    Elsewhere { ttl: Duration },
}

/// Reads a message that is the answer to a question; `visited` are the names that led to it, and the new ones are added.
/// The question moves on with the chain.
pub(super) fn read(message: &Message, question: &mut Question, visited: &mut Vec<Name>) -> Result<Said> {
    let mut ttl = Duration::MAX;
    loop {
        let here = || message.answers.iter().filter(|record| record.name == question.name);
        let found: Vec<_> = here().filter(|record| record.record_type() == question.kind).collect();
        if !found.is_empty() {
            let shortest = found.iter().map(|record| seconds(record.ttl)).fold(ttl, Duration::min);
            return Ok(Said::Answer(Answer {
                data: found.into_iter().map(|record| record.data.clone()).collect(),
                ttl: Some(shortest),
                extra: message.additionals.clone(),
            }));
        }
        let alias = here().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((target.0.to_lowercase(), seconds(record.ttl))),
            _ => None,
        });
        let Some((target, lives)) = alias else { break };
        visited.push(std::mem::replace(&mut question.name, target));
        ttl = ttl.min(lives);
        if visited.contains(&question.name) {
            let message = format!("{question}: the aliases lead in a circle");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
    }
    let negative = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(seconds(record.ttl.min(soa.minimum))),
        _ => None,
    });
    match negative {
        // The end of the chain, and nothing there.
        Some(negative) => Ok(Said::Answer(Answer { ttl: Some(negative.min(ttl)), ..Answer::default() })),
        None if message.response_code == ResponseCode::NXDomain => Ok(Said::Answer(Answer::default())),
        None if ttl < Duration::MAX => Ok(Said::Elsewhere { ttl }),
        // Records, but not of what was asked for.
        None => Err(lie(question)),
    }
}

/// Reads what the client library has for an error: some of it are answers.
pub(super) fn read_error(error: NetError, question: &Question) -> Result<Answer> {
    let (kind, message) = match &error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if is_referral(none) => (
            ErrorKind::Unavailable,
            "the server knows of others only; is it one that answers for everything?",
        ),
        NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            response_code: ResponseCode::NXDomain | ResponseCode::NoError,
            negative_ttl,
            ..
        })) => return Ok(Answer { ttl: negative_ttl.map(seconds), ..Answer::default() }),
        NetError::Dns(DnsError::ResponseCode(code)) => match code {
            ResponseCode::ServFail => (ErrorKind::Unavailable, "the server cannot tell now (SERVFAIL)"),
            ResponseCode::Refused | ResponseCode::NotAuth => {
                (ErrorKind::Denied, "the server refuses to answer; is it one for these names, and for us?")
            }
            ResponseCode::NotImp | ResponseCode::FormErr => {
                (ErrorKind::Unsupported, "the server does not understand the question")
            }
            _ => (ErrorKind::Unavailable, "the server answered with an error"),
        },
        NetError::Timeout => (ErrorKind::Timeout, "the server does not answer"),
        NetError::Truncated => {
            (ErrorKind::Unavailable, "the answer is too long for UDP, and TCP does not work")
        }
        NetError::Proto(_) | NetError::ForeignClassRecord { .. } | NetError::QueryCaseMismatch => {
            return Err(lie(question).with_source(error));
        }
        _ => (ErrorKind::Unavailable, "the server cannot be reached"),
    };
    Err(Error::new(kind, format!("{question}: {message}")).with_source(error))
}

/// A pointer to other servers instead of an answer. It has no authority, so it says nothing of the name.
fn is_referral(none: &NoRecords) -> bool {
    none.response_code == ResponseCode::NoError && none.ns.is_some() && none.soa.is_none()
}

/// The more telling of two errors of several servers: one that may pass, since then there is hope.
pub(super) fn more_hopeful(one: Option<Error>, other: Error) -> Error {
    match one {
        Some(one) if one.is_transient() || !other.is_transient() => one,
        _ => other,
    }
}

fn lie(question: &Question) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{question}: the server's answer is not one to the question"))
}

fn seconds(ttl: u32) -> Duration {
    // RFC 2181, section 8: what has the highest bit set is zero.
    Duration::from_secs(if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl.into() })
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::OpCode,
        rr::rdata::{A, CNAME, SOA},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn message(answers: &[(&str, u32, RData)]) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.add_answers(
            answers.iter().map(|(n, ttl, data)| Record::from_rdata(name(n), *ttl, data.clone())),
        );
        message
    }

    fn a(last: u8) -> RData {
        RData::A(A::new(10, 0, 0, last))
    }

    fn cname(text: &str) -> RData {
        RData::CNAME(CNAME(name(text)))
    }

    fn question() -> Question {
        Question { name: name("x.z."), kind: RecordType::A }
    }

    fn said(message: &Message) -> Result<Said> {
        read(message, &mut question(), &mut Vec::new())
    }

    fn answer(message: &Message) -> Answer {
        match said(message).unwrap() {
            Said::Answer(answer) => answer,
            other @ Said::Elsewhere { .. } => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_shortest_life_of_a_chain_counts() {
        let chain =
            [("X.z.", 30, cname("Y.z.")), ("y.z.", 60, a(1)), ("y.z.", 90, a(2)), ("other.z.", 1, a(3))];
        let answer = answer(&message(&chain));
        assert_eq!(answer.data, [a(1), a(2)]);
        assert_eq!(answer.ttl, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_chain_that_leads_out_is_followed() {
        let mut question = question();
        let out = message(&[("x.z.", 30, cname("Y.other."))]);
        let said = read(&out, &mut question, &mut Vec::new()).unwrap();
        assert!(matches!(said, Said::Elsewhere { .. }));
        assert_eq!(question.to_string(), "A of y.other.");
    }

    #[test]
    fn circles_and_lies_are_errors() {
        let circle = [("x.z.", 30, cname("y.z.")), ("y.z.", 30, cname("x.z."))];
        for bad in [message(&circle), message(&[("x.z.", 1, cname("x.z."))]), message(&[("y.z.", 1, a(1))])] {
            assert_eq!(said(&bad).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_chain_to_nothing_is_an_answer() {
        let mut nothing = message(&[("x.z.", 30, cname("y.z."))]);
        let soa = SOA::new(name("ns.z."), name("me.z."), 1, 1, 1, 1, 7);
        nothing.add_authority(Record::from_rdata(name("z."), 60, RData::SOA(soa)));
        let answer = answer(&nothing);
        assert!(answer.data.is_empty());
        assert_eq!(answer.ttl, Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_absurd_time_to_live_is_none() {
        assert_eq!(answer(&message(&[("x.z.", u32::MAX, a(1))])).ttl, Some(Duration::ZERO));
    }

    #[test]
    fn what_is_no_answer_is_an_error_of_its_own() {
        let code = |code| NetError::Dns(DnsError::ResponseCode(code));
        for (error, kind) in [
            (NetError::Timeout, ErrorKind::Timeout),
            (NetError::NoConnections, ErrorKind::Unavailable),
            (NetError::Truncated, ErrorKind::Unavailable),
            (code(ResponseCode::ServFail), ErrorKind::Unavailable),
            (code(ResponseCode::Refused), ErrorKind::Denied),
            (code(ResponseCode::NotImp), ErrorKind::Unsupported),
        ] {
            assert_eq!(read_error(error, &question()).unwrap_err().kind(), kind);
        }
        for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
            let none = NoRecords::new(hickory_proto::op::Query::new(), code);
            assert!(
                read_error(NetError::Dns(DnsError::NoRecordsFound(none)), &question())
                    .unwrap()
                    .data
                    .is_empty()
            );
        }
    }
}
