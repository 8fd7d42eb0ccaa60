//! What the holder of a registration is told.

use tokio::time::Instant;

use crate::{Error, Revision};

/// How a registration stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// What went wrong, where something did.
    pub cause: Option<Error>,
    /// The revision of the last write that is known to be in effect.
    pub revision: Option<Revision>,
}

/// Where a registration is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Not registered yet.
    Pending,
    /// Registered, and kept so.
    Active,
    /// Registered as far as we know; the backend does not answer.
    Suspect,
    /// Gone, or about to be, for all we know: it is being put back.
    Lost,
    /// The backend says no; it will be asked again.
    Refused,
    /// Taken back.
    Withdrawn,
}

impl RegistrationStatus {
    pub(crate) fn pending() -> Self {
        Self { phase: Phase::Pending, since: Instant::now(), cause: None, revision: None }
    }

    /// Whether others can find us, as far as we know.
    pub fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }
}
