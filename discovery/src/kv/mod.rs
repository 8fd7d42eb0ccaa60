//! Keys, values and transactions: the contract of key-value stores, and the raw access of those who need more than
//! services.

mod backend;

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use self::backend::{KvBackend, instance};
use crate::{Error, LeaseId, Leases, Result, Revision};

/// The most operations and guards a transaction may have: what the narrowest store (etcd: 128) takes, with room for
/// what an adapter adds.
const TXN_MAX: usize = 100;

/// The most bytes a key may have.
const KEY_MAX: usize = 512;

/// The stream behind a [`Kv::watch`]. Owns everything it needs; dropping it ends the watch.
pub type KvUpdates = BoxStream<'static, Result<KvUpdate>>;

/// A store of keys and values with revisions and transactions.
///
/// Reads through one handle never go back in time, and see the handle's own writes.
#[async_trait]
pub trait Kv: fmt::Debug + Send + Sync + 'static {
    /// The entry under `key`.
    ///
    /// # Errors
    ///
    /// As for [`Backend::fetch`](crate::Backend::fetch); a key that is not there is `Ok(None)`.
    async fn get(&self, key: &Key) -> Result<Option<Entry>>;

    /// The entries of a range, sorted by key.
    ///
    /// # Errors
    ///
    /// As for [`Backend::fetch`](crate::Backend::fetch).
    async fn scan(&self, range: &Range) -> Result<Scan>;

    /// Applies all operations if all guards hold, in one step; else nothing. Returns the revision of the step.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::ErrorKind::Conflict) if a guard does not hold, [`LeaseLost`](crate::ErrorKind::LeaseLost)
    /// if a lease is gone, [`Invalid`](crate::ErrorKind::Invalid) as [`Txn::check`] says.
    async fn commit(&self, txn: Txn) -> Result<Revision>;

    /// Follows a range, under the obligations of [`Backend::watch`](crate::Backend::watch).
    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates;
}

/// A key-value store with leases: what [`KvBackend`] makes a backend of.
pub trait Store: Kv + Leases {}

impl<T: Kv + Leases> Store for T {}

/// A key: segments joined with `/`, as in `eu1/prod/cart/1f`. The empty key is the root; it scopes a range but holds
/// no value.
///
/// A segment has visible ASCII characters except `/`, and is neither `.` nor `..`; at most 512 bytes in all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key without segments.
    pub fn root() -> Self {
        Self("".into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the [root](Key::root).
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The segments, the topmost first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// The last segment; `None` for the root.
    pub fn name(&self) -> Option<&str> {
        self.segments().next_back()
    }

    /// The key one level up; the root is its own parent.
    #[must_use]
    pub fn parent(&self) -> Self {
        self.0.rsplit_once('/').map_or_else(Self::root, |(parent, _)| Self(parent.into()))
    }

    /// This key with `below` (one segment or several) behind it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the whole is not a key.
    pub fn join(&self, below: &str) -> Result<Self> {
        if self.is_root() { below.parse() } else { format!("{}/{below}", self.0).parse() }
    }

    /// What is behind `ancestor`: `c/d` for `a/b/c/d` under `a/b`. `None` unless this key is strictly below it.
    pub fn below(&self, ancestor: &Self) -> Option<&str> {
        if ancestor.is_root() {
            return (!self.is_root()).then_some(&*self.0);
        }
        self.0.strip_prefix(&*ancestor.0)?.strip_prefix('/')
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| Err(Error::invalid(format!("key {text:?} {why}")));
        if text.is_empty() {
            return bad("is empty");
        }
        if text.len() > KEY_MAX {
            return bad(&format!("has {} bytes; at most {KEY_MAX} are allowed", text.len()));
        }
        for segment in text.split('/') {
            match segment {
                "" => return bad("has an empty segment"),
                "." | ".." => {
                    return bad("has a segment . or .., which some stores resolve like a file system");
                }
                _ => {}
            }
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return bad(&format!("contains {c:?}; allowed are visible ASCII characters"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Which keys a scan or a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Range {
    /// The key itself, and nothing else; of the root, which holds no value, nothing at all.
    Key(Key),
    /// The keys exactly one level below the key, which is not among them.
    Children(Key),
    /// The keys at any level below the key, which is not among them.
    Subtree(Key),
}

impl Range {
    /// The key above the range, or the only one in it.
    pub fn top(&self) -> &Key {
        match self {
            Self::Key(key) | Self::Children(key) | Self::Subtree(key) => key,
        }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Key(only) => key == only,
            Self::Children(top) => key.below(top).is_some_and(|rest| !rest.contains('/')),
            Self::Subtree(top) => key.below(top).is_some(),
        }
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub key: Key,
    /// What it holds; never empty.
    pub value: Bytes,
    /// When the key came to be; a key that was deleted and written anew has another one.
    pub created: Revision,
    /// When the value was last written.
    pub modified: Revision,
    /// The lease it is bound to, if any; meaningful only to the handle that granted it.
    pub lease: Option<LeaseId>,
}

/// The entries of a range at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// As of when.
    pub revision: Revision,
    /// Sorted by key.
    pub entries: Vec<Entry>,
}

/// What [`Kv::watch`] yields; the counterpart of [`Update`](crate::Update).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvUpdate {
    /// The whole range as of now.
    Reset(Scan),
    /// What happened since the last item.
    Delta {
        /// The revision after the changes.
        revision: Revision,
        /// In commit order for each key.
        changes: Vec<KvChange>,
    },
    /// Nothing happened up to this revision.
    Progress(Revision),
}

/// One step in the history of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvChange {
    /// The entry is there, and this is its value.
    Put(Entry),
    /// The key is gone.
    Delete(Key),
}

impl KvChange {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// There is no such key.
    Absent(Key),
    /// The key was last written at this revision, and not since.
    Unmodified(Key, Revision),
    /// The key is still the one that was created at this revision, whatever was written to it since.
    Alive(Key, Revision),
}

impl Guard {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::Unmodified(key, _) | Self::Alive(key, _) => key,
        }
    }
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value, whether the key was there or not, and binds it to the lease or to none.
    Put {
        /// Where.
        key: Key,
        /// What; must not be empty.
        value: Bytes,
        /// With which lease.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; one that is not there stays so.
    Delete(Key),
}

impl Op {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// Guards and operations, all or nothing.
///
/// # Example: compare and set
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, ErrorKind, kv::{Key, Txn}, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let kv = discovery.kv()?;
/// let key: Key = "counter".parse()?;
/// kv.commit(Txn::new().absent(&key).put(&key, "1")).await?;
///
/// let entry = kv.get(&key).await?.expect("just written");
/// kv.commit(Txn::new().unmodified(&entry).put(&key, "2")).await?;
/// let late = kv.commit(Txn::new().unmodified(&entry).put(&key, "3")).await;
/// assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Txn {
    guards: Vec<Guard>,
    ops: Vec<Op>,
}

impl Txn {
    /// A transaction without guards and operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if `key` is not there.
    pub fn absent(self, key: &Key) -> Self {
        self.guard(Guard::Absent(key.clone()))
    }

    /// Only if the entry was not written or deleted since it was read.
    pub fn unmodified(self, entry: &Entry) -> Self {
        self.guard(Guard::Unmodified(entry.key.clone(), entry.modified))
    }

    /// Only if the entry was not deleted since it was read.
    pub fn alive(self, entry: &Entry) -> Self {
        self.guard(Guard::Alive(entry.key.clone(), entry.created))
    }

    /// Adds a guard.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Writes a permanent value.
    pub fn put(self, key: &Key, value: impl Into<Bytes>) -> Self {
        self.op(Op::Put { key: key.clone(), value: value.into(), lease: None })
    }

    /// Writes a value that lives with a lease.
    pub fn put_leased(self, key: &Key, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.op(Op::Put { key: key.clone(), value: value.into(), lease: Some(lease) })
    }

    /// Deletes a key.
    pub fn delete(self, key: &Key) -> Self {
        self.op(Op::Delete(key.clone()))
    }

    /// Adds an operation.
    pub fn op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// The conditions.
    pub fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// The operations.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The operations, for a store to carry out.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    /// Checks what every store must refuse before it sends anything; adapters call it first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a transaction without operations or with more than 100
    /// guards and operations, the root as a key, two operations or two guards on one key, an empty value or one over
    /// `max_value` bytes.
    pub fn check(&self, max_value: usize) -> Result<()> {
        if self.ops.is_empty() {
            return Err(Error::invalid("a transaction has no operation"));
        }
        let size = self.guards.len() + self.ops.len();
        if size > TXN_MAX {
            return Err(Error::invalid(format!(
                "a transaction has {size} guards and operations; at most {TXN_MAX} are allowed"
            )));
        }
        let mut seen = BTreeSet::new();
        let ops = self.ops.iter().map(|op| ("operations", op.key()));
        let guards = self.guards.iter().map(|guard| ("guards", guard.key()));
        for (what, key) in ops.chain(guards) {
            if key.is_root() {
                return Err(Error::invalid("the root holds no value; name a key"));
            }
            if !seen.insert((what, key)) {
                return Err(Error::invalid(format!("a transaction has two {what} on {key}")));
            }
        }
        for op in &self.ops {
            if let Op::Put { key, value, .. } = op {
                check_value(key, value, max_value)?;
            }
        }
        Ok(())
    }
}

fn check_value(key: &Key, value: &Bytes, max: usize) -> Result<()> {
    if value.is_empty() {
        // A ZooKeeper node without data is a mere directory; a store that tells the two apart gains nobody anything.
        return Err(Error::invalid(format!(
            "the value for {key} is empty; an entry needs at least one byte"
        )));
    }
    if value.len() > max {
        return Err(Error::invalid(format!(
            "the value for {key} has {} bytes; at most {max} are allowed",
            value.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn keys_have_segments() {
        for bad in ["", "/", "a//b", "/a", "a/", ".", "a/..", "a b", "ø", "a\n", &"x".repeat(513)] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
        assert_eq!(key("a/b").parent(), key("a"));
        assert_eq!(key("a").parent(), Key::root());
        assert_eq!(key("a/b/c").below(&key("a")), Some("b/c"));
        assert_eq!(key("ab").below(&key("a")), None);
        assert_eq!(key("a").below(&key("a")), None);
        assert_eq!(Key::root().join("a/b").unwrap(), key("a/b"));
    }

    #[test]
    fn ranges_leave_out_their_top_unless_it_is_all_there_is() {
        assert!(Range::Key(key("a")).contains(&key("a")));
        assert!(!Range::Key(key("a")).contains(&key("a/b")));
        assert!(Range::Children(key("a")).contains(&key("a/b")));
        assert!(!Range::Children(key("a")).contains(&key("a/b/c")));
        assert!(Range::Subtree(key("a")).contains(&key("a/b/c")));
        assert!(!Range::Subtree(key("a")).contains(&key("a")));
        assert!(Range::Subtree(Key::root()).contains(&key("a")));
    }

    #[test]
    fn transactions_are_checked() {
        let (a, b) = (key("a"), key("b"));
        assert!(Txn::new().absent(&a).put(&a, "1").delete(&b).check(1).is_ok());
        for bad in [
            Txn::new(),
            Txn::new().absent(&a),
            Txn::new().put(&a, ""),
            Txn::new().put(&a, "12"),
            Txn::new().put(&a, "1").delete(&a),
            Txn::new().absent(&a).absent(&a).put(&a, "1"),
            Txn::new().delete(&Key::root()),
            (0..101).fold(Txn::new(), |txn, n| txn.delete(&key(&n.to_string()))),
        ] {
            assert_eq!(bad.check(1).unwrap_err().kind(), crate::ErrorKind::Invalid, "{bad:?}");
        }
    }
}
