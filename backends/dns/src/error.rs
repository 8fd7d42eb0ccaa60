//! What goes wrong, in the terms of the contract.

use discovery::Error;

/// The scheme of the resolver, and the name of this crate in errors.
pub(crate) const SCHEME: &str = "dns";

/// Names backend and operation in an error.
pub(crate) fn named(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.on_backend(SCHEME).during(operation)
}
