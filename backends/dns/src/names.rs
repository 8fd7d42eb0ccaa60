//! Which name in a zone is what: services, instances and the entries of a store.
//!
//! The service `eu1/prod/cart` is `cart.prod.eu1` in the zone and its instance `1f` is `1f.cart.prod.eu1`, as
//! Cloudname's coordinates have it. An entry of a store is under the name of its key. What no name of a service can
//! have, keys may: such a segment is written `_x` and its bytes in base32hex; and a key that is too long for that is
//! `_k` and a digest of it, and then its record says which key it is. No other label here starts with an underscore
//! and one of these two letters, and no name of a service or instance has underscores at all.

use data_encoding::{BASE32_DNSSEC, Encoding};
use discovery::{Error, InstanceKey, Result, ServiceName, kv::Key};
use hickory_proto::rr::Name;

/// Base32hex (RFC 4648), lower-case, without padding: survives the case folding of DNS.
const ENCODING: Encoding = BASE32_DNSSEC;
/// In front of a segment that is no label by itself.
const ESCAPE: &str = "_x";
/// In front of the digest of a whole key.
const DIGEST: &str = "_k";
const LABEL_MAX: usize = 63;
/// The most bytes a name has on the wire (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 255;
/// The most bytes the name of a zone may have, so that every instance of every service has a name in it.
const ORIGIN_MAX: usize = 255 - (150 + 1 + 63 + 1) - 1;

/// The name of a zone, absolute and lower-case, that everything else is under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(Name);

impl Origin {
    /// The zone of that name.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::invalid(format!("zone {text:?} {why}"));
        let mut name = Name::from_ascii(text)
            .map_err(|_| bad("is not a domain name, such as disco.example"))?
            .to_lowercase();
        name.set_fqdn(true);
        if name.is_root() {
            return Err(bad("is the root; name a zone, such as disco.example"));
        }
        if name.len() > ORIGIN_MAX {
            return Err(bad("is too long for the names of services in it; at most 39 bytes"));
        }
        Ok(Self(name))
    }

    /// The name itself: the apex of the zone.
    pub(crate) fn name(&self) -> &Name {
        &self.0
    }

    /// `labels` in front of the origin, the most specific first.
    pub(crate) fn below<'a>(&'a self, labels: impl IntoIterator<Item = &'a str>) -> Name {
        let labels = labels.into_iter().map(str::as_bytes).chain(self.0.iter());
        // Whoever calls this has labels and names that fit.
        Name::from_labels(labels).unwrap_or_else(|_| self.0.clone())
    }

    /// The labels of a name in front of the origin, the most specific first; `None` for a name outside of the zone.
    pub(crate) fn relative(&self, name: &Name) -> Option<Vec<String>> {
        if !self.0.zone_of(name) {
            return None;
        }
        let labels = name.iter().take(usize::from(name.num_labels() - self.0.num_labels()));
        labels.map(|label| str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect()
    }

    /// The domain of a service.
    pub(crate) fn service(&self, service: &ServiceName) -> Name {
        self.below(service.labels().rev())
    }

    /// The name of an instance.
    pub(crate) fn instance(&self, key: &InstanceKey) -> Name {
        self.below(std::iter::once(key.id().as_str()).chain(key.service().labels().rev()))
    }

    /// The name of an entry.
    pub(crate) fn entry(&self, key: &Key) -> Name {
        let labels: Vec<_> = key.segments().rev().map(label).collect();
        let length: usize = labels.iter().map(|label| label.len() + 1).sum();
        if labels.iter().any(|label| label.len() > LABEL_MAX) || length + self.0.len() >= NAME_MAX {
            return self.below([digest(key).as_str()]);
        }
        self.below(labels.iter().map(String::as_str))
    }

    /// The key of the entry at a name, as far as the name tells; `None` for names of something else.
    pub(crate) fn key(&self, name: &Name) -> Option<Key> {
        let labels = self.relative(name)?;
        let segments: Option<Vec<_>> = labels.iter().rev().map(|label| segment(label)).collect();
        let key = segments?.join("/").parse().ok()?;
        // Another spelling of the same key would be another entry.
        (self.entry(&key) == *name).then_some(key)
    }

    /// Whether entries may be at a name.
    pub(crate) fn is_entry(&self, name: &Name) -> bool {
        let Some(labels) = self.relative(name) else { return false };
        match &labels[..] {
            [] => false,
            [one] if one.starts_with(DIGEST) => true,
            labels => labels.iter().all(|label| segment(label).is_some()),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_ascii().trim_end_matches('.'))
    }
}

/// A segment of a key as a label; maybe one that is too long.
fn label(segment: &str) -> String {
    if is_plain(segment) {
        segment.into()
    } else {
        format!("{ESCAPE}{}", ENCODING.encode(segment.as_bytes()))
    }
}

/// The segment that a label stands for.
fn segment(label: &str) -> Option<String> {
    match label.strip_prefix(ESCAPE) {
        Some(encoded) => String::from_utf8(ENCODING.decode(encoded.as_bytes()).ok()?).ok(),
        None => is_plain(label).then(|| label.into()),
    }
}

/// Whether a segment is a label as it is: one of a service or an instance.
fn is_plain(segment: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    segment.len() <= LABEL_MAX && segment.chars().all(letter)
}

/// FNV-1a (Fowler, Noll, Vo) with 64 bits: the same at all times and everywhere.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A name for a key that fits none: by FNV-1a (Fowler, Noll, Vo) with 128 bits. Whoever makes two keys collide harms only
/// himself, and the record says which key it is of.
fn digest(key: &Key) -> String {
    let hash = key.as_str().bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{DIGEST}{}", ENCODING.encode(&hash.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin() -> Origin {
        Origin::parse("Disco.Example").unwrap()
    }

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn services_and_instances_read_like_coordinates() {
        let service: ServiceName = "eu1/prod/cart".parse().unwrap();
        assert_eq!(origin().service(&service).to_ascii(), "cart.prod.eu1.disco.example.");
        let instance = InstanceKey::new(service, "1f".parse().unwrap());
        assert_eq!(origin().instance(&instance).to_ascii(), "1f.cart.prod.eu1.disco.example.");
        assert_eq!(origin().entry(&key("eu1/prod/cart/1f")), origin().instance(&instance));
        assert_eq!(origin().service(&ServiceName::root()), *origin().name());
    }

    #[test]
    fn what_is_no_label_is_escaped() {
        let name = origin().entry(&key("a/B_c/1"));
        assert_eq!(name.to_ascii(), "1._x89fm6.a.disco.example.");
        assert_eq!(origin().key(&name), Some(key("a/B_c/1")));
    }

    #[test]
    fn the_longest_keys_have_names() {
        let long = key(&["k".repeat(255), "k".repeat(256)].join("/"));
        let name = origin().entry(&long);
        assert!(origin().is_entry(&name));
        assert_eq!(origin().key(&name), None, "only the record can tell");
        assert_ne!(name, origin().entry(&key(&"k".repeat(300))));
    }

    #[test]
    fn names_of_something_else_are_no_entries() {
        for text in [
            "disco.example.",
            "_http._tcp.disco.example.",
            "a.example.",
            "_xa9z.disco.example.",
            "*.disco.example.",
        ] {
            let name = Name::from_ascii(text).unwrap();
            assert!(!origin().is_entry(&name), "{text}");
            assert_eq!(origin().key(&name), None, "{text}");
        }
        // An escape that nobody needs would be a second name of the same key.
        assert_eq!(origin().key(&Name::from_ascii("_xc4.disco.example.").unwrap()), None);
    }

    #[test]
    fn a_zone_has_a_name_of_its_own() {
        for (bad, part) in [("", "root"), (".", "root"), ("a..b", "domain name"), (&"x".repeat(45), "39")] {
            assert!(Origin::parse(bad).unwrap_err().to_string().contains(part), "{bad}");
        }
        assert_eq!(origin().to_string(), "disco.example");
    }

    proptest! {
        #[test]
        fn every_key_has_a_name_of_its_own(text in "[!-~]{1,60}(/[!-~]{1,40}){0,4}") {
            let Ok(key) = text.parse::<Key>() else { return Ok(()) };
            let name = origin().entry(&key);
            prop_assert!(origin().is_entry(&name));
            if let Some(back) = origin().key(&name) {
                prop_assert_eq!(back, key);
            }
        }
    }
}
