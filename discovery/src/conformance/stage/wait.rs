//! Waiting with a deadline.

use std::{fmt::Display, time::Duration};

use tokio::time;

/// How long a stage waits for what must happen, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often trouble is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until there is no trouble any more: until `trouble`, which says what is not yet as it should be, says `None`.
///
/// # Panics
///
/// With the last trouble, when there still is some after [`PATIENCE`].
///
/// # Cancel safety
///
/// As cancel safe as `trouble` is.
///
/// # Example: wait for somebody else
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Instance, ServiceName, conformance::stage::eventually, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let cart: ServiceName = "cart".parse()?;
/// let registration = discovery.register(Instance::builder(cart.clone()).build()?).await?;
/// drop(registration);
/// eventually("the instance has left", async || match discovery.lookup(&cart).await {
///     Ok(found) if found.is_empty() => None,
///     other => Some(format!("{other:?}")),
/// })
/// .await;
/// # Ok(()) }
/// ```
pub async fn eventually(what: impl Display, mut trouble: impl AsyncFnMut() -> Option<String>) {
    let mut last = None;
    let look = async {
        while let Some(trouble) = trouble().await {
            last = Some(trouble);
            time::sleep(LOOK).await;
        }
    };
    if time::timeout(PATIENCE, look).await.is_err() {
        let last = last.as_deref().unwrap_or("it cannot be told");
        panic!("not within {PATIENCE:?}: {what}: {last}");
    }
}

/// Waits for what must happen soon, and returns what comes of it.
///
/// # Panics
///
/// When it has not happened within [`PATIENCE`].
///
/// # Cancel safety
///
/// As cancel safe as `happens` is.
///
/// # Example: be registered, or fail
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, conformance::stage::{instance, soon}, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let registration = soon("to be registered", discovery.register(instance(0))).await?;
/// # drop(registration);
/// # Ok(()) }
/// ```
pub async fn soon<T>(what: impl Display, happens: impl IntoFuture<Output = T>) -> T {
    let waited = time::timeout(PATIENCE, happens.into_future()).await;
    waited.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
