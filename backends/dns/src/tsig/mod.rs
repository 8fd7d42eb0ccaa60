//! Transaction signatures (RFC 8945): who sent a message, and that nobody changed it on its way.
//!
//! Works on whole messages as they are sent. It looks only at what it needs to find the signature, takes nothing in a
//! message for granted, and believes nothing before the signature was verified.

mod signature;

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use discovery::{Error, Result};
use hickory_proto::rr::{Name, rdata::tsig::TsigAlgorithm};

pub(crate) use self::signature::Signature;
use self::signature::{CLASS_ANY, Stamp, absolute, emit_name, u16_at, u16_of};

/// How far two clocks may be apart, in seconds (RFC 8945, section 10).
const FUDGE: u16 = 300;

/// The most messages of a transfer that may come without a signature between two with one (RFC 8945, section 5.3.1).
const UNSIGNED_MAX: usize = 99;

/// A key that a server and its clients share.
///
/// # Example: the key that `tsig-keygen` printed
///
/// ```
/// use discovery_dns::TsigKey;
///
/// let key = TsigKey::new("disco-key", "c2VjcmV0IHNlY3JldCBzZWNyZXQ=")?.algorithm("hmac-sha512")?;
/// assert_eq!(format!("{key:?}"), "TsigKey(disco-key, hmac-sha512)");
/// # Ok::<(), discovery::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TsigKey {
    name: Name,
    algorithm: TsigAlgorithm,
    secret: Vec<u8>,
}

impl TsigKey {
    /// The key of that name; its secret in base64. The algorithm is HMAC-SHA256.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for what is no domain name, and for a secret that is no base64 or
    /// empty.
    pub fn new(name: &str, secret: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("key name {name:?} is not a domain name, such as disco-key"));
        let mut parsed = Name::from_ascii(name).map_err(|_| bad())?.to_lowercase();
        parsed.set_fqdn(true);
        if parsed.is_root() {
            return Err(bad());
        }
        let secret = BASE64.decode(secret.as_bytes()).ok().filter(|secret| !secret.is_empty());
        let secret = secret.ok_or_else(|| {
            Error::invalid("the secret of the key is not base64, as tsig-keygen prints it between quotes")
        })?;
        Ok(Self { name: parsed, algorithm: TsigAlgorithm::HmacSha256, secret })
    }

    /// With another algorithm: `hmac-sha256`, `hmac-sha384` or `hmac-sha512`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for any other: those are too weak, or have no implementation here.
    pub fn algorithm(mut self, name: &str) -> Result<Self> {
        self.algorithm = match name {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            _ => {
                return Err(Error::invalid(format!(
                    "algorithm {name:?}; allowed are hmac-sha256, hmac-sha384 and hmac-sha512"
                )));
            }
        };
        Ok(self)
    }

    /// The name, lower-case and absolute.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Signs a request; returns what the answer is verified with.
    pub(crate) fn sign_request(&self, message: &mut Vec<u8>, now: u64) -> Verifier {
        let stamp = Stamp { time: now, fudge: FUDGE, error: 0, other: Vec::new() };
        let mac = self.append(message, &Prior::Nothing, stamp);
        Verifier { key: self.clone(), mac, first: true, unsigned: Vec::new(), unsigned_count: 0 }
    }

    /// Signs a message and appends the signature; returns its code.
    fn append(&self, message: &mut Vec<u8>, prior: &Prior<'_>, stamp: Stamp) -> Vec<u8> {
        let mac = self.mac(message, prior, &stamp);
        let record = Signature {
            start: message.len(),
            key: self.name.clone(),
            algorithm: self.algorithm.to_name(),
            original_id: u16_at(message, 0).unwrap_or_default(),
            mac: mac.clone(),
            stamp,
        };
        record.emit(message);
        mac
    }

    fn mac(&self, message: &[u8], prior: &Prior<'_>, stamp: &Stamp) -> Vec<u8> {
        let digested = self.digested(message, prior, stamp);
        // Only an unsupported algorithm fails, and no key has one.
        self.algorithm.mac_data(&self.secret, &digested).unwrap_or_default()
    }

    /// What the code is computed of (RFC 8945, section 4.3).
    fn digested(&self, message: &[u8], prior: &Prior<'_>, stamp: &Stamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 256);
        if let Prior::Request(mac) | Prior::Message(mac, _) = prior {
            out.extend(u16_of(mac.len()).to_be_bytes());
            out.extend(*mac);
        }
        if let Prior::Message(_, unsigned) = prior {
            out.extend(*unsigned);
        }
        out.extend(message);
        if let Prior::Message(..) = prior {
            out.extend(&stamp.time.to_be_bytes()[2..]);
            out.extend(stamp.fudge.to_be_bytes());
            return out;
        }
        emit_name(&mut out, &self.name);
        out.extend(CLASS_ANY.to_be_bytes());
        out.extend(0_u32.to_be_bytes());
        emit_name(&mut out, &self.algorithm.to_name());
        stamp.emit_times(&mut out);
        stamp.emit_error(&mut out);
        out
    }

    /// Verifies the signature of `message`, and then that it was made now.
    fn check(&self, message: &[u8], signature: &Signature, prior: &Prior<'_>, now: u64) -> Result<(), Flaw> {
        if signature.key != self.name || signature.algorithm != absolute(&self.algorithm.to_name()) {
            return Err(Flaw::Key);
        }
        let bare = signature.stripped(message);
        let digested = self.digested(&bare, prior, &signature.stamp);
        self.algorithm.verify_mac(&self.secret, &digested, &signature.mac).map_err(|_| Flaw::Signature)?;
        if now.abs_diff(signature.stamp.time) > u64::from(signature.stamp.fudge) {
            return Err(Flaw::Time);
        }
        Ok(())
    }
}

/// Without the secret.
impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.to_ascii();
        write!(f, "TsigKey({}, {})", name.trim_end_matches('.'), self.algorithm)
    }
}

/// `name:secret` or `algorithm:name:secret`, as for `dig -y` and `nsupdate -y`.
impl FromStr for TsigKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split(':').collect::<Vec<_>>()[..] {
            [name, secret] => Self::new(name, secret),
            [algorithm, name, secret] => Self::new(name, secret)?.algorithm(algorithm),
            _ => Err(Error::invalid("a key is written name:secret or algorithm:name:secret")),
        }
    }
}

/// What is wrong with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The message, or its signature, cannot be read.
    Malformed,
    /// There should be a signature, and is none.
    Missing,
    /// A key, or an algorithm, that we do not know.
    Key,
    /// The code is not that of this message and key.
    Signature,
    /// It was made too long ago, or is from the future.
    Time,
}

impl Flaw {
    /// The error code of the answer (RFC 8945, section 3); `None` where there is none for it.
    pub(crate) fn code(self) -> Option<u16> {
        match self {
            Self::Malformed | Self::Missing => None,
            Self::Signature => Some(16),
            Self::Key => Some(17),
            Self::Time => Some(18),
        }
    }
}

/// Verifies the answer to a signed request; for a transfer, all its messages in order.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    key: TsigKey,
    /// The code of the last message that had one, the request first of all.
    mac: Vec<u8>,
    first: bool,
    /// The messages since then, which the next code covers.
    unsigned: Vec<u8>,
    unsigned_count: usize,
}

impl Verifier {
    /// Verifies the next message. One without a signature is good so far, but must not be the last one:
    /// [`finish`](Verifier::finish) says so.
    pub(crate) fn verify(&mut self, message: &[u8], now: u64) -> Result<(), Flaw> {
        let Some(signature) = Signature::find(message)? else {
            if self.first || self.unsigned_count == UNSIGNED_MAX {
                return Err(Flaw::Missing);
            }
            self.unsigned.extend(message);
            self.unsigned_count += 1;
            return Ok(());
        };
        let prior =
            if self.first { Prior::Request(&self.mac) } else { Prior::Message(&self.mac, &self.unsigned) };
        // Errors of key and signature are told without a signature, and prove nothing.
        match signature.stamp.error {
            16 => return Err(Flaw::Signature),
            17 => return Err(Flaw::Key),
            _ => {}
        }
        let outcome = self.key.check(message, &signature, &prior, now);
        if signature.stamp.error == 18 && matches!(outcome, Ok(()) | Err(Flaw::Time)) {
            return Err(Flaw::Time);
        }
        outcome?;
        self.mac = signature.mac;
        self.first = false;
        self.unsigned.clear();
        self.unsigned_count = 0;
        Ok(())
    }

    /// Whether everything so far is covered by a signature.
    pub(crate) fn finish(&self) -> Result<(), Flaw> {
        if self.first || self.unsigned_count > 0 { Err(Flaw::Missing) } else { Ok(()) }
    }
}

/// What the signature of a request has proved, and what signs the answer.
#[derive(Debug)]
pub(crate) struct Signer {
    key: TsigKey,
    mac: Vec<u8>,
    first: bool,
}

impl Signer {
    /// Whether a request is signed, and with one of `keys`; `Ok(None)` if it is not signed at all.
    pub(crate) fn authenticate(
        keys: &[TsigKey],
        message: &[u8],
        now: u64,
    ) -> Result<Option<Self>, (Flaw, Option<Box<Signature>>)> {
        let signature = Signature::find(message).map_err(|flaw| (flaw, None))?;
        let Some(signature) = signature else { return Ok(None) };
        let Some(key) = keys.iter().find(|key| key.name == signature.key) else {
            return Err((Flaw::Key, Some(signature.into())));
        };
        match key.check(message, &signature, &Prior::Nothing, now) {
            Ok(()) => Ok(Some(Self { key: key.clone(), mac: signature.mac, first: true })),
            Err(flaw) => Err((flaw, Some(signature.into()))),
        }
    }

    /// The most bytes that a signature takes.
    pub(crate) fn size(&self) -> usize {
        // Two names, the head of the record, the stamp, and the longest code.
        self.key.name.len() + self.key.algorithm.to_name().len() + 2 + 10 + 16 + 6 + 64
    }

    /// Signs the next message of the answer, and appends the signature.
    pub(crate) fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        let prior = if self.first { Prior::Request(&self.mac) } else { Prior::Message(&self.mac, &[]) };
        let stamp = Stamp { time: now, fudge: FUDGE, error: 0, other: Vec::new() };
        self.mac = self.key.append(message, &prior, stamp);
        self.first = false;
    }
}

/// Appends the signature of an answer that refuses a signature: without a code, but for a clock that is off.
pub(crate) fn append_refusal(
    message: &mut Vec<u8>,
    keys: &[TsigKey],
    refused: &Signature,
    flaw: Flaw,
    now: u64,
) {
    let error = flaw.code().unwrap_or_default();
    if flaw == Flaw::Time
        && let Some(key) = keys.iter().find(|key| key.name == refused.key)
    {
        // The time of the request, so that it can be verified; ours goes along (RFC 8945, section 5.2.3).
        let other = now.to_be_bytes()[2..].to_vec();
        let stamp = Stamp { time: refused.stamp.time, fudge: FUDGE, error, other };
        key.append(message, &Prior::Request(&refused.mac), stamp);
        return;
    }
    let stamp = Stamp { time: now, fudge: FUDGE, error, other: Vec::new() };
    let answer = Signature { start: message.len(), mac: Vec::new(), stamp, ..refused.clone() };
    answer.emit(message);
}

/// What is digested in front of a message.
enum Prior<'a> {
    /// Nothing: it is a request.
    Nothing,
    /// The code of the request: it is the first message of an answer.
    Request(&'a [u8]),
    /// The code of the last signed message of the answer, and the unsigned messages since.
    Message(&'a [u8], &'a [u8]),
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{RecordType, rdata::tsig::TSIG};
    use proptest::prelude::*;

    use super::{signature::HEADER, *};

    const NOW: u64 = 1_800_000_000;

    fn key() -> TsigKey {
        TsigKey::new("Disco-Key", "c2VjcmV0IHNlY3JldCBzZWNyZXQ=").unwrap()
    }

    fn query() -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("a.b.").unwrap(), RecordType::SOA));
        message.to_vec().unwrap()
    }

    /// A signed request, what verifies the answers to it, and what signs them.
    fn exchange() -> (Verifier, Signer) {
        let mut request = query();
        let verifier = key().sign_request(&mut request, NOW);
        (verifier, Signer::authenticate(&[key()], &request, NOW).unwrap().unwrap())
    }

    #[test]
    fn the_library_understands_it() {
        use hickory_proto::rr::TSigner;
        let signer =
            TSigner::new(key().secret.clone(), TsigAlgorithm::HmacSha256, key().name, FUDGE).unwrap();
        let mut request = query();
        let mut verifier = key().sign_request(&mut request, NOW);
        let (mac, time, _) = signer.verify_message_byte(&request, None, true).unwrap();
        assert_eq!((mac, time), (verifier.mac.clone(), NOW));
        // And the other way round: what it signs, we accept.
        let mut answer = Message::from_vec(&query()).unwrap();
        let stub = TSIG::new(TsigAlgorithm::HmacSha256, NOW, FUDGE, Vec::new(), answer.id, None, Vec::new());
        let tbs = signer.encode_response_tbs(&verifier.mac, &answer.to_vec().unwrap(), &stub).unwrap();
        let tsig = stub.set_mac(signer.sign(&tbs).unwrap());
        let record = hickory_proto::rr::rdata::tsig::make_tsig_record(signer.signer_name().clone(), tsig);
        answer.set_signature(Box::new(record));
        verifier.verify(&answer.to_vec().unwrap(), NOW).unwrap();
    }

    #[test]
    fn an_answer_of_several_messages_is_verified_as_a_whole() {
        let (mut verifier, mut signer) = exchange();
        assert_eq!(verifier.finish(), Err(Flaw::Missing));
        for _ in 0..3 {
            let mut message = query();
            signer.sign(&mut message, NOW);
            verifier.verify(&message, NOW).unwrap();
        }
        verifier.finish().unwrap();
        // One that is unsigned must be covered by the next.
        verifier.verify(&query(), NOW).unwrap();
        assert_eq!(verifier.finish(), Err(Flaw::Missing));
        let mut message = query();
        signer.sign(&mut message, NOW);
        assert_eq!(
            verifier.verify(&message, NOW),
            Err(Flaw::Signature),
            "it does not cover the unsigned one"
        );
    }

    #[test]
    fn a_flaw_is_told_by_its_kind() {
        let signed = |now| {
            let mut request = query();
            key().sign_request(&mut request, now);
            request
        };
        let flaw = |keys: &[TsigKey], message: &[u8]| match Signer::authenticate(keys, message, NOW) {
            Ok(accepted) => panic!("accepted: {accepted:?}"),
            Err((flaw, _)) => flaw,
        };
        let other = TsigKey::new("disco-key", "b3RoZXI=").unwrap();
        assert_eq!(flaw(&[other], &signed(NOW)), Flaw::Signature);
        assert_eq!(flaw(&[], &signed(NOW)), Flaw::Key);
        assert_eq!(flaw(&[key().algorithm("hmac-sha512").unwrap()], &signed(NOW)), Flaw::Key);
        assert_eq!(flaw(&[key()], &signed(NOW - 301)), Flaw::Time);
        assert_eq!(flaw(&[key()], &signed(NOW + 301)), Flaw::Time);
        let mut changed = signed(NOW);
        changed[HEADER + 1] = b'x';
        assert_eq!(flaw(&[key()], &changed), Flaw::Signature);
        let cut = &signed(NOW)[..60];
        assert_eq!(flaw(&[key()], cut), Flaw::Malformed);
        assert!(Signer::authenticate(&[key()], &query(), NOW).unwrap().is_none());
    }

    #[test]
    fn an_answer_tells_what_was_wrong_with_the_request() {
        for (request_time, keys, expected) in [
            (NOW - 1000, vec![key()], Flaw::Time),
            (NOW, vec![], Flaw::Key),
            (NOW, vec![TsigKey::new("disco-key", "b3RoZXI=").unwrap()], Flaw::Signature),
        ] {
            let mut request = query();
            let mut verifier = key().sign_request(&mut request, request_time);
            let (flaw, signature) = Signer::authenticate(&keys, &request, NOW).unwrap_err();
            assert_eq!(flaw, expected);
            let mut answer = query();
            append_refusal(&mut answer, &keys, &signature.unwrap(), flaw, NOW);
            assert_eq!(verifier.verify(&answer, request_time), Err(expected));
        }
    }

    #[test]
    fn bad_keys_are_refused_by_part() {
        for (bad, part) in [
            ("", "key is written"),
            ("k", "key is written"),
            ("k:!", "base64"),
            ("k:", "base64"),
            (":AAAA", "key name"),
            ("hmac-md5:k:AAAA", "hmac-sha256"),
            ("a..b:AAAA", "key name"),
        ] {
            let error = bad.parse::<TsigKey>().unwrap_err().to_string();
            assert!(error.contains(part), "{bad}: {error}");
        }
        assert!(!format!("{:?}", key()).contains("c2Vj"));
    }

    proptest! {
        #[test]
        fn anything_may_come_in(message in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Signer::authenticate(&[key()], &message, NOW);
            let (mut verifier, _) = exchange();
            let _ = verifier.verify(&message, NOW);
        }

        #[test]
        fn a_damaged_message_is_never_accepted(at in 0_usize..130, bit in 0_u8..8) {
            let mut request = query();
            key().sign_request(&mut request, NOW);
            let at = at % request.len();
            // The id may differ: a forwarder may have changed it.
            prop_assume!(at > 1);
            request[at] ^= 1 << bit;
            // Names are compared without case.
            let folded = request[at].is_ascii_alphabetic() && bit == 5;
            let accepted = matches!(Signer::authenticate(&[key()], &request, NOW), Ok(Some(_)));
            prop_assert!(!accepted || folded, "byte {}, bit {}", at, bit);
        }
    }
}
