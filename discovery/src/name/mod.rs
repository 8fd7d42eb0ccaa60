//! Names of services and instances, and the spellings other systems use for them.

mod compose;
mod coordinate;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::{compose::ComposeName, coordinate::Coordinate};
use crate::{Error, Result};

/// The most bytes a label may have (RFC 1123, section 2.1, by way of RFC 1035).
const LABEL_MAX: usize = 63;

/// The most bytes a [`ServiceName`] may have, so that name, instance id and a zone fit a DNS name of 253.
const NAME_MAX: usize = 150;

/// The name of a service: labels from the most to the least significant, as in `eu1/prod/cart`.
///
/// Each label follows RFC 1123: 1 to 63 letters, digits and hyphens, no hyphen at either end. Upper case is folded
/// to lower case, as DNS would. At most 150 bytes in all, so every backend can carry every name. The
/// [root](ServiceName::root), written `/`, is the parent of all names; it scopes a watch but holds no instances.
///
/// # Example: names are compared by whole labels
///
/// ```
/// use discovery::ServiceName;
///
/// let cart: ServiceName = "eu1/prod/cart".parse()?;
/// assert!(cart.is_under(&"eu1/prod".parse()?));
/// assert!(!cart.is_under(&"eu1/pro".parse()?));
/// # Ok::<(), discovery::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The name without labels, above all others.
    pub fn root() -> Self {
        Self("".into())
    }

    /// Whether this is the [root](ServiceName::root).
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Joins labels, the most significant first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), as for [`FromStr`].
    pub fn from_labels<L: AsRef<str>>(labels: impl IntoIterator<Item = L>) -> Result<Self> {
        labels.into_iter().try_fold(Self::root(), |name, label| name.child(label.as_ref()))
    }

    /// The labels, the most significant first; none for the root.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('/').filter(|label| !label.is_empty())
    }

    /// The name without its last label; the root is its own parent.
    #[must_use]
    pub fn parent(&self) -> Self {
        self.0.rsplit_once('/').map_or_else(Self::root, |(parent, _)| Self(parent.into()))
    }

    /// This name with one more label.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if `label` is not a label or the name would grow too long.
    pub fn child(&self, label: &str) -> Result<Self> {
        let label = fold_label(label)?;
        let name = if self.is_root() { label } else { format!("{}/{label}", self.0) };
        if name.len() > NAME_MAX {
            return Err(Error::invalid(format!(
                "service name {name:?} has {} bytes; at most {NAME_MAX} are allowed",
                name.len()
            )));
        }
        Ok(Self(name.into()))
    }

    /// Whether `ancestor` is this name or one of its parents, compared by whole labels.
    pub fn is_under(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(&*ancestor.0) {
            Some(rest) => ancestor.is_root() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// The labels joined with `/`; empty for the root.
    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "/" => Ok(Self::root()),
            "" => Err(Error::invalid("a service name is empty; write / for the root")),
            _ => Self::from_labels(text.split('/'))
                .map_err(|error| Error::invalid(format!("service name {text:?}: {error}"))),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.is_root() { "/" } else { &self.0 })
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceName({self})")
    }
}

impl TryFrom<String> for ServiceName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.to_string()
    }
}

/// Tells the instances of one service apart: a single label, by the rules of [`ServiceName`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// A random id: 64 bits in lower-case hexadecimal.
    pub fn random() -> Self {
        Self::from_bits(fastrand::u64(..))
    }

    /// The id that [`random`](InstanceId::random) makes of these bits; for callers with a seed of their own.
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("{bits:x}").into())
    }

    /// A bound below every id, to start a range at; never the id of an instance.
    pub(crate) fn lowest() -> Self {
        Self("".into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        fold_label(text)
            .map(|label| Self(label.into()))
            .map_err(|error| Error::invalid(format!("instance id: {error}")))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

impl TryFrom<String> for InstanceId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0.as_ref().into()
    }
}

/// Checks one label and folds it to lower case.
pub(crate) fn fold_label(text: &str) -> Result<String> {
    let allowed = "allowed are 1 to 63 of a-z, 0-9 and -, with no - at either end";
    if text.is_empty() {
        return Err(Error::invalid(format!("a label is empty; {allowed}")));
    }
    if text.len() > LABEL_MAX {
        return Err(Error::invalid(format!("label {text:?} has {} bytes; {allowed}", text.len())));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
        return Err(Error::invalid(format!("label {text:?} contains {bad:?}; {allowed}")));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(Error::invalid(format!("label {text:?} has a hyphen at an end; {allowed}")));
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    #[test]
    fn is_under_compares_whole_labels() {
        assert!(name("a/b/c").is_under(&name("a/b")));
        assert!(name("a/b").is_under(&name("a/b")));
        assert!(name("a").is_under(&ServiceName::root()));
        assert!(!ServiceName::root().is_under(&name("a")));
        assert!(!name("a/bc").is_under(&name("a/b")));
        assert!(!name("x/b").is_under(&name("a")));
    }

    #[test]
    fn parents_end_at_the_root() {
        let chain: Vec<_> =
            std::iter::successors(Some(name("foo/bar/baz")), |n| Some(n.parent())).take(5).collect();
        assert_eq!(chain, ["foo/bar/baz", "foo/bar", "foo", "/", "/"].map(name));
    }

    #[test]
    fn bad_names_are_refused_with_the_bad_part() {
        for bad in ["", "//", "a//b", "/a", "a/", "-a", "a-", "a_b", "a.b", "ø", "a b", &"x".repeat(64)] {
            let error = bad.parse::<ServiceName>().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{bad:?}");
        }
        assert!("a/b_c".parse::<ServiceName>().unwrap_err().to_string().contains("\"b_c\" contains '_'"));
        assert!("x".repeat(63).parse::<InstanceId>().is_ok());
        assert!(["x".repeat(63), "y".repeat(63), "z".repeat(63)].join("/").parse::<ServiceName>().is_err());
    }

    #[test]
    fn case_is_folded() {
        assert_eq!(name("FirstSecond"), name("fIRSTsECOND"));
    }

    proptest! {
        #[test]
        fn display_parses_back(text in "[a-zA-Z0-9]([a-z0-9-]{0,8}[a-z0-9])?(/[a-z0-9]{1,9}){0,5}") {
            let parsed = name(&text);
            prop_assert_eq!(name(&parsed.to_string()), parsed);
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<ServiceName>();
            let _ = text.parse::<InstanceId>();
        }
    }
}
