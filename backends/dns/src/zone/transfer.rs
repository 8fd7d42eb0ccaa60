//! What a server sends of a zone: the steps since a serial (IXFR, RFC 1995), or the whole (AXFR, RFC 5936).

use discovery::{Error, ErrorKind, Result};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{SOA, TXT},
    },
};

use super::{entry::Head, message};
use crate::{names::Origin, protocol::is_newer};

/// The most bytes of texts that a transfer may bring: more than any registry has, and less than would harm.
const BYTES_MAX: usize = 1 << 30;

/// A TXT record and where it is; of others the store wants to know nothing.
pub(super) type Text = (Name, TXT);

/// What a transfer brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// The server has nothing newer than this serial, its own.
    Nothing(u32),
    /// What was changed since, step by step; each is one update, or several that the server took for one.
    Steps(Vec<Step>),
    /// The zone as a whole.
    Whole { serial: u32, texts: Vec<Text> },
}

/// What leads to a serial.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) serial: u32,
    pub(super) removed: Vec<Text>,
    pub(super) added: Vec<Text>,
}

/// Reads the messages of a transfer, one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    origin: Origin,
    /// The serial that was asked behind; `None` for the whole.
    after: Option<u32>,
    state: State,
    bytes: usize,
}

#[derive(Debug)]
enum State {
    /// Nothing has come yet.
    Start,
    /// The SOA that begins and ends every transfer has come.
    First(u32),
    /// In the whole zone.
    Whole { serial: u32, texts: Vec<Text> },
    /// In what a step removes, or adds.
    Steps { end: u32, done: Vec<Step>, step: Step, adding: bool },
}

impl Reader {
    pub(super) fn new(origin: &Origin, after: Option<u32>) -> Self {
        Self { origin: origin.clone(), after, state: State::Start, bytes: 0 }
    }

    /// The request: by TCP; signed by whoever sends it.
    pub(super) fn request(&self, notify: Option<u16>) -> Message {
        let Some(after) = self.after else { return message::query(&self.origin, RecordType::AXFR, notify) };
        let mut request = message::query(&self.origin, RecordType::IXFR, notify);
        // Only the serial counts.
        let name = self.origin.name().clone();
        let soa = SOA::new(name.clone(), name.clone(), after, 0, 0, 0, 0);
        request.add_authority(Record::from_rdata(name, 0, RData::SOA(soa)));
        request
    }

    /// Takes a message; the transfer, once it is complete.
    pub(super) fn take(&mut self, message: Message) -> Result<Option<Transfer>> {
        if message.metadata.response_code != ResponseCode::NoError {
            return Err(message::refusal(message.metadata.response_code, &self.origin));
        }
        let alone = message.answers.len() == 1;
        for record in message.answers {
            if let RData::TXT(text) = &record.data {
                self.bytes += text.txt_data.iter().map(|string| string.len() + 64).sum::<usize>();
            }
            if self.bytes > BYTES_MAX {
                return Err(corrupt("a transfer that has no end"));
            }
            if let Some(transfer) = self.step(record)? {
                return Ok(Some(transfer));
            }
        }
        match self.state {
            State::Start => Err(corrupt("a transfer without a SOA record")),
            // A single SOA that is not newer says that there is nothing to tell. A newer one is the beginning of more.
            State::First(serial) if alone && self.after.is_some_and(|after| !is_newer(serial, after)) => {
                Ok(Some(Transfer::Nothing(serial)))
            }
            _ => Ok(None),
        }
    }

    fn step(&mut self, record: Record) -> Result<Option<Transfer>> {
        let soa = match &record.data {
            RData::SOA(soa) if record.name == *self.origin.name() => Some(soa.serial),
            _ => None,
        };
        let state = std::mem::replace(&mut self.state, State::Start);
        self.state = match (state, soa) {
            (State::Start, Some(serial)) => State::First(serial),
            (State::Start, None) => return Err(corrupt("a transfer that does not begin with a SOA record")),
            // A zone without anything else.
            (State::First(end), Some(serial)) if serial == end => {
                return Ok(Some(Transfer::Whole { serial, texts: Vec::new() }));
            }
            (State::First(end), Some(serial)) if Some(serial) == self.after => {
                State::Steps { end, done: Vec::new(), step: Step::default(), adding: false }
            }
            (State::First(_), Some(_)) => {
                return Err(corrupt("a transfer behind another serial than asked for"));
            }
            (State::First(serial), None) => {
                State::Whole { serial, texts: text(record).into_iter().collect() }
            }
            (State::Whole { serial: end, texts }, Some(serial)) => {
                if serial != end {
                    return Err(corrupt("a transfer that ends with another serial than it began with"));
                }
                return Ok(Some(Transfer::Whole { serial, texts }));
            }
            (State::Whole { serial, mut texts }, None) => {
                texts.extend(text(record));
                State::Whole { serial, texts }
            }
            (State::Steps { end, done, mut step, adding: false }, Some(serial)) => {
                step.serial = serial;
                State::Steps { end, done, step, adding: true }
            }
            (State::Steps { end, mut done, step, adding: true }, Some(serial)) => {
                // The next step begins where this one ends; the last one is followed by the SOA that ends everything.
                if serial != step.serial {
                    return Err(corrupt("steps of a transfer that do not follow each other"));
                }
                done.push(step);
                if serial == end {
                    return Ok(Some(Transfer::Steps(done)));
                }
                State::Steps { end, done, step: Step::default(), adding: false }
            }
            (State::Steps { end, done, mut step, adding }, None) => {
                if adding { &mut step.added } else { &mut step.removed }.extend(text(record));
                State::Steps { end, done, step, adding }
            }
        };
        Ok(None)
    }
}

/// The serial in the answer to a question for it.
pub(super) fn serial(origin: &Origin, answer: &Message) -> Result<u32> {
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(message::refusal(answer.metadata.response_code, origin));
    }
    let soa = answer.answers.iter().find_map(|record| match &record.data {
        RData::SOA(soa) if record.name == *origin.name() => Some(soa.serial),
        _ => None,
    });
    soa.ok_or_else(|| {
        let message = format!("the server has no zone {origin}; check the name, or set the zone up");
        Error::new(ErrorKind::Unavailable, message).not_applied()
    })
}

/// The head of the log in the answer to a question for it.
pub(super) fn head(answer: &Message) -> Option<Head> {
    let heads = answer.answers.iter().filter_map(|record| match &record.data {
        RData::TXT(text) => Head::read(text),
        _ => None,
    });
    heads.max_by_key(|head| head.number)
}

fn text(record: Record) -> Option<Text> {
    let RData::TXT(txt) = record.data else { return None };
    Some((record.name.to_lowercase(), txt))
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the server sent {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin {
        Origin::parse("z").unwrap()
    }

    fn name(label: &str) -> Name {
        origin().below([label])
    }

    /// A record by what it is written as: a number is a SOA, a word a TXT record, `@` something else.
    fn record(text: &str) -> Record {
        let (name, data) = match text.parse() {
            Ok(serial) => {
                let apex = origin().name().clone();
                (apex.clone(), RData::SOA(SOA::new(apex.clone(), apex, serial, 0, 0, 0, 0)))
            }
            Err(_) if text == "@" => {
                (name("other"), RData::A(hickory_proto::rr::rdata::A::new(127, 0, 0, 1)))
            }
            Err(_) => (name(text), RData::TXT(TXT::new(vec![text.into()]))),
        };
        Record::from_rdata(name, 5, data)
    }

    /// Reads messages that are separated by `|`.
    fn read(after: Option<u32>, texts: &str) -> Result<Option<Transfer>> {
        let mut reader = Reader::new(&origin(), after);
        for texts in texts.split('|') {
            let mut message = Message::response(1, hickory_proto::op::OpCode::Query);
            message.insert_answers(texts.split_whitespace().map(record).collect());
            if let Some(transfer) = reader.take(message)? {
                return Ok(Some(transfer));
            }
        }
        Ok(None)
    }

    fn texts(labels: &str) -> Vec<Text> {
        labels.split_whitespace().map(|label| (name(label), TXT::new(vec![label.into()]))).collect()
    }

    #[test]
    fn a_whole_zone_comes_in_any_number_of_messages() {
        let whole = Transfer::Whole { serial: 7, texts: texts("a b") };
        for text in ["7 @ a b @ 7", "7|@|a|b|@|7", "7 @ a|b @ 7"] {
            for after in [None, Some(3)] {
                assert_eq!(read(after, text).unwrap().as_ref(), Some(&whole), "{text}");
            }
        }
        assert_eq!(read(None, "7 7").unwrap(), Some(Transfer::Whole { serial: 7, texts: vec![] }));
        assert_eq!(read(None, "7 @ a").unwrap(), None, "not complete");
    }

    #[test]
    fn steps_come_in_any_number_of_messages() {
        let step = |serial, removed, added| Step { serial, removed: texts(removed), added: texts(added) };
        for text in ["5 3 a 4 b 4 5 c 5", "5|3|a|4|b|4|5|c|5", "5 3 @ a 4|b 4 @ 5 c 5"] {
            let expected = Transfer::Steps(vec![step(4, "a", "b"), step(5, "", "c")]);
            assert_eq!(read(Some(3), text).unwrap(), Some(expected), "{text}");
        }
    }

    #[test]
    fn nothing_new_is_a_single_soa() {
        assert_eq!(read(Some(3), "3").unwrap(), Some(Transfer::Nothing(3)));
        assert_eq!(read(Some(3), "2").unwrap(), Some(Transfer::Nothing(2)), "a server that is behind");
        assert_eq!(read(Some(3), "4").unwrap(), None, "the beginning of more");
    }

    #[test]
    fn nonsense_is_told() {
        for text in ["", "a", "5 4 a 5", "5 @ 6", "5 3 4 a 5 6", "5 3 a 4 b 3"] {
            assert_eq!(read(Some(3), text).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_order_of_records_may_come(text in "([3-6@ab|] ){0,12}", after in prop::option::of(3_u32..6)) {
            let _ = read(after, &text);
        }
    }
}
