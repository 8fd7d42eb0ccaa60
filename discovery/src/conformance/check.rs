//! One check: what it asks, what it needs, and how it is run.

use std::{any::Any, fmt, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio::time;

use super::{Disruption, Harness, IntoHarness, context::Context, table};
use crate::Resume;

/// How many times the patience of its harness a check may take as a whole: it waits for many things, mostly short.
const LIMIT: u32 = 10;

/// One question to a backend.
pub struct Check {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) obligations: &'static [u8],
    pub(super) needs: &'static [Need],
    pub(super) run: for<'a> fn(&'a Context) -> LocalBoxFuture<'a, ()>,
}

impl Check {
    /// All checks, by group.
    pub fn all() -> &'static [Check] {
        table::CHECKS
    }

    /// The check of this name, as in `watch::starts_with_what_exists`.
    pub fn named(name: &str) -> Option<&'static Check> {
        Self::all().iter().find(|check| check.name == name)
    }

    /// Its name, group included.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it belongs to: a facet, or whose experience it carries on.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// What it checks, in a line.
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// The numbered obligations of [`Backend::watch`](crate::Backend::watch) that it is about; none where it is about
    /// what another method or the library itself promises.
    pub fn obligations(&self) -> &'static [u8] {
        self.obligations
    }

    /// What it needs of the backend and its harness.
    pub fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// The first need that is not met.
    pub async fn unmet(&self, harness: &dyn Harness) -> Option<Need> {
        for need in self.needs {
            if !need.is_met(harness).await {
                return Some(*need);
            }
        }
        None
    }

    /// Runs it, unless it does not apply.
    pub async fn run(&self, harness: impl Harness) -> Outcome {
        let harness: Arc<dyn Harness> = Arc::new(harness);
        if let Some(need) = self.unmet(&*harness).await {
            return Outcome::NotApplicable(need);
        }
        let limit = harness.patience() * LIMIT;
        let context = Context::new(harness);
        let run = AssertUnwindSafe((self.run)(&context)).catch_unwind();
        match time::timeout(limit, run).await {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(panic)) => Outcome::Failed(message(&*panic)),
            Err(_) => Outcome::Failed(format!("not done within {limit:?}")),
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({}: {})", self.name, self.about)
    }
}

/// How a check went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not as it should, and in what way.
    Failed(String),
    /// The backend, or its harness, has not got what the check needs.
    NotApplicable(Need),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "FAILED: {}", why.lines().next().unwrap_or_default()),
            Self::NotApplicable(need) => write!(f, "not applicable: {need}"),
        }
    }
}

/// What a check needs to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// [`Backend::registrar`](crate::Backend::registrar).
    Registrar,
    /// [`Backend::leases`](crate::Backend::leases).
    Leases,
    /// [`Backend::kv`](crate::Backend::kv).
    Kv,
    /// A backend that remembers changes one by one, and so can resume and deliver each of them.
    History,
    /// A harness that can [cut](Disruption::Cut).
    Cut,
    /// A harness that can [expire](Disruption::Expire) leases.
    Expire,
    /// A harness that can [compact](Disruption::Compact).
    Compact,
    /// A harness that [plants without limit](Harness::plants_without_limit).
    Oversize,
    /// A harness that counts [open watches](Harness::open_watches).
    WatchCount,
}

impl Need {
    async fn is_met(self, harness: &dyn Harness) -> bool {
        let can = |disruption| harness.disrupt().is_some_and(|disrupt| disrupt.can(disruption));
        match self {
            Self::Registrar => harness.backend().await.registrar().is_some(),
            Self::Leases => harness.backend().await.leases().is_some(),
            Self::Kv => harness.backend().await.kv().is_some(),
            Self::History => harness.backend().await.info().capabilities().resume != Resume::Never,
            Self::Cut => can(Disruption::Cut),
            Self::Expire => can(Disruption::Expire),
            Self::Compact => can(Disruption::Compact),
            Self::Oversize => harness.plants_without_limit(),
            Self::WatchCount => harness.open_watches().await.is_some(),
        }
    }
}

/// What is missing where the need is not met.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registrar => "the backend has no registrar",
            Self::Leases => "the backend has no leases",
            Self::Kv => "the backend has no kv",
            Self::History => "the backend keeps no history",
            Self::Cut => "the harness cannot cut",
            Self::Expire => "the harness cannot expire leases",
            Self::Compact => "the harness cannot compact",
            Self::Oversize => "the harness cannot plant a record over the limit",
            Self::WatchCount => "the harness cannot count watches",
        })
    }
}

/// Runs one check as a test of its own: the body of what [`conformance_tests!`](crate::conformance_tests) writes.
///
/// # Panics
///
/// When the check fails, or there is none of that name.
#[doc(hidden)]
pub fn test<H: IntoHarness>(name: &str, fresh: impl AsyncFnOnce() -> H) {
    let check = Check::named(name).expect("the macro knows only checks that there are");
    super::block_on(async {
        let Some(harness) = fresh().await.into_harness() else { return };
        match check.run(harness).await {
            Outcome::Passed => {}
            Outcome::NotApplicable(need) => eprintln!("not applicable: {need}"),
            Outcome::Failed(why) => {
                panic!("{name}\n  checks that {}\n  {}\n  {why}", check.about, cited(check.obligations));
            }
        }
    });
}

/// The obligations as a reader of a failed test wants them.
fn cited(obligations: &[u8]) -> String {
    match obligations {
        [] => "see the documentation of the method or type that it is about".into(),
        _ => format!("obligations of `Backend::watch`: {obligations:?}"),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}
