#![doc = include_str!("../../docs/conformance.md")]

mod check;
mod client;
mod cloudname;
mod context;
mod fault;
mod feed;
mod fetch;
mod harness;
mod kv;
mod kv_watch;
mod lease;
mod peers;
mod recipe;
mod record;
mod registrar;
mod report;
mod resume;
mod side_by_side;
pub mod stage;
mod table;
mod watch;

#[doc(hidden)]
pub use self::{check::test, report::compare};
pub use self::{
    check::{Check, Need, Outcome},
    harness::{Disrupt, Disruption, Harness, IntoHarness},
    report::{Coverage, Report, report},
    side_by_side::side_by_side,
};

/// Makes a `#[test]` of every check, and one that compares what applies with a committed file.
///
/// Takes an expression that makes a [`Harness`](crate::conformance::Harness), or `Some` or `None` of one; it may `.await`.
/// The file is `tests/conformance.txt` of the crate, or `tests/` and the name that follows the expression;
/// `DISCOVERY_BLESS=1` in the environment writes it.
///
/// Everything is in a module `conformance`; a second backend in the same file goes into a module of its own.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::conformance_tests!($harness, "conformance.txt");
    };
    ($harness:expr, $file:literal) => {
        mod conformance {
            #[allow(unused_imports)]
            use super::*;

            async fn fresh() -> impl $crate::conformance::IntoHarness {
                $harness
            }

            $crate::__conformance_checks!([$crate::__conformance_tests]);

            #[test]
            fn coverage() {
                let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/", $file);
                $crate::conformance::compare(fresh, file);
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($($group:ident { $($name:ident [$($obligation:literal)*] [$($need:ident)*] $about:literal;)* })*) => {
        $(mod $group {
            $(#[test]
            fn $name() {
                $crate::conformance::test(concat!(stringify!($group), "::", stringify!($name)), super::fresh);
            })*
        })*
    };
}

/// Runs a check on a runtime of its own, with threads, as programs have it.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be had").block_on(future)
}
