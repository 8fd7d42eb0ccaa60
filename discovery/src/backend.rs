//! The contract between this crate and a backend.
//!
//! Authors of a store that is a key-value store at heart (it has keys, transactions and leases) implement
//! [`Kv`](crate::kv::Kv) and [`Leases`] and wrap them in [`KvBackend`](crate::kv::KvBackend), which turns them into a
//! [`Backend`]. Authors of anything else implement [`Backend`] directly. Both prove it with the `conformance` feature.
//!
//! The traits are object-safe, take `&self`, and have no default bodies: a layer that forgot to forward a method would
//! silently bypass the backend it wraps.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::{Info, Instance, InstanceKey, Result, Revision, Scope, Snapshot, Update, kv::Kv};

/// The stream behind a watch. Owns everything it needs; dropping it ends the watch.
pub type Updates = BoxStream<'static, Result<Update>>;

/// Finds services. The one trait every backend has; what else it offers is reached through the facets.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What this backend is and can do.
    fn info(&self) -> &Info;

    /// The instances of a scope now.
    ///
    /// A service that nobody registered is an empty snapshot; "cannot tell" is an error.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) or [`Unavailable`](crate::ErrorKind::Unavailable) when the backend does
    /// not answer, [`Denied`](crate::ErrorKind::Denied) when it refuses.
    async fn fetch(&self, scope: &Scope) -> Result<Snapshot>;

    /// Follows a scope.
    ///
    /// The obligations, which the conformance checks cite by number:
    ///
    /// 1. The first item is a `Reset`, or continues behind `after` where the backend can prove that nothing was
    ///    missed; if nothing happened since, that is a `Progress`. Either comes at once, not with the next change.
    /// 2. Revisions never decrease within a stream; changes of one instance come in commit order.
    /// 3. Changes are idempotent: one that the `Reset` already contains may come again.
    /// 4. On trouble: one `Err`, then the end. No retry and no sleep in here, and never a silent gap.
    /// 5. Dropping the stream releases every resource on the server; nothing is delivered after that.
    /// 6. A record that cannot be decoded is skipped, counted and logged; it neither ends the stream nor hides its
    ///    siblings.
    /// 7. A transport that dies silently is noticed within
    ///    [`detects_silence_within`](crate::Capabilities::detects_silence_within).
    /// 8. A service that nobody registered is an empty `Reset` and can be watched; "cannot tell" is an error.
    /// 9. A guard minted before a key was deleted and created anew fails ([`Kv`] only).
    /// 10. One change costs O(1) reads from the server, however many instances the scope has.
    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates;

    /// Registers instances; `None` for a backend that only reads.
    fn registrar(&self) -> Option<&dyn Registrar>;

    /// Grants leases; `None` where all entries are permanent.
    fn leases(&self) -> Option<&dyn Leases>;

    /// Raw keys with compare-and-set; `None` where there is no such thing.
    fn kv(&self) -> Option<&dyn Kv>;
}

/// Writes instances.
#[async_trait]
pub trait Registrar: Send + Sync {
    /// Writes an instance: creates it, or replaces what the same owner wrote before, in one step that no watcher sees
    /// as a removal. Idempotent, so it may be repeated when the outcome is unknown.
    ///
    /// Returns the revision of the write, which is good as [`Claim::expected`] of the next one.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::ErrorKind::Conflict) if another owner has the key and the claim does not take over,
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost), [`Invalid`](crate::ErrorKind::Invalid) for a record over the limit.
    async fn put(&self, instance: &Instance, claim: &Claim) -> Result<Revision>;

    /// Removes an instance; `Ok(false)` if there was none. With an `owner` only what that owner wrote, without one
    /// whatever is there.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::ErrorKind::Conflict) if the entry belongs to another owner.
    async fn remove(&self, key: &InstanceKey, owner: Option<&Owner>) -> Result<bool>;
}

/// On what terms an instance is written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// Who writes.
    pub owner: Owner,
    /// The lease the entry lives and dies with; `None` for a permanent one.
    pub lease: Option<LeaseId>,
    /// What to do about another owner's entry.
    pub on_conflict: OnConflict,
    /// The revision of our last write, if any: a hint that spares the backend a look at the entry.
    pub expected: Option<Revision>,
}

impl Claim {
    /// A permanent claim that yields to other owners.
    pub fn new(owner: Owner) -> Self {
        Self { owner, lease: None, on_conflict: OnConflict::Fail, expected: None }
    }

    /// Binds the entry to a lease.
    #[must_use]
    pub fn leased(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Decides what happens to another owner's entry.
    #[must_use]
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.on_conflict = policy;
        self
    }

    /// Says which revision our last write had.
    #[must_use]
    pub fn expecting(mut self, revision: Option<Revision>) -> Self {
        self.expected = revision;
        self
    }
}

/// What to do when another owner has the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Leave it alone and report [`Conflict`](crate::ErrorKind::Conflict).
    #[default]
    Fail,
    /// Replace it.
    TakeOver,
}

/// Who wrote an entry. Only its owner, or somebody who asks for it explicitly, replaces or removes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(Box<str>);

impl Owner {
    /// An owner of the caller's naming: one that comes back under the same name after a restart finds its old entry
    /// its own.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into().into())
    }

    /// An owner that nobody else is.
    pub fn random() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)).into())
    }

    /// The owner as it stands in the record.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Grants, renews and revokes leases.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Grants a lease of about `ttl`; the grant says what the server really gave.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a zero `ttl`; otherwise as for [`Backend::fetch`].
    async fn grant(&self, ttl: Duration) -> Result<Grant>;

    /// Renews a lease and returns its ttl, counted from the moment the request was sent.
    ///
    /// Comes behind the writes under this lease that were sent before it: once it has succeeded, one of unknown outcome
    /// is in effect or never will be. So what was withdrawn on its way does not arrive after its removal.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) is final; anything else leaves the lease as it was.
    async fn renew(&self, id: LeaseId) -> Result<Duration>;

    /// Ends a lease now, with everything bound to it. A lease that is gone already is no error.
    ///
    /// # Errors
    ///
    /// As for [`Backend::fetch`]; the lease then ends by its ttl.
    async fn revoke(&self, id: LeaseId) -> Result<()>;
}

/// Names a lease of one backend handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: LeaseId,
    /// How long it lives without renewal; a server may round up what was asked for.
    pub ttl: Duration,
}
