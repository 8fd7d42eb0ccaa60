//! What several processes do together, each of them a client of its own.
//!
//! Reads of different clients need not be of the same moment. So what one has done another one is given the time to see,
//! and what must not have happened is proven by a commit.

pub(super) mod barrier;
pub(super) mod election;
pub(super) mod group;
pub(super) mod lock;
pub(super) mod run;

use std::{sync::mpsc, time::Duration};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::context::{Client, Context, key, refused, service};
use crate::{
    ErrorKind, Result, ServiceName,
    kv::{Key, Range, Txn},
    recipe::Fence,
};

/// Longer than any check takes: a lease of it ends only if something ends it.
const LONG: Duration = Duration::from_secs(60);

fn name() -> ServiceName {
    service("eu1/prod/thing")
}

/// So many clients that share nothing but the store.
async fn clients(cx: &Context, count: usize) -> Vec<Client> {
    join_all((0..count).map(|_| cx.client())).await
}

/// Waits until there are so many entries below a key.
async fn filled(cx: &Context, observer: &Client, top: &str, count: usize) {
    let range = Range::Subtree(key(top));
    let is_filled = async || observer.keys(&range).await.len() == count;
    cx.eventually(format!("{count} entries below {top}"), is_filled).await;
}

/// Waits until nothing is left of anything.
async fn nothing_left(cx: &Context, observer: &Client) {
    let everything = Range::Subtree(Key::root());
    cx.eventually("nothing to be left", async || observer.keys(&everything).await.is_empty()).await;
}

/// Waits for what somebody else does.
async fn done<T>(cx: &Context, what: &str, task: JoinHandle<T>) -> T {
    cx.within(what, task).await.expect("no panic")
}

/// Whoever held this is told, can write no more under it, and has not.
async fn is_lost(cx: &Context, observer: &Client, fence: &Fence) {
    let told = cx.within("the holder to be told", fence.lost()).await;
    assert_eq!(told.kind(), ErrorKind::LeaseLost, "{told}");
    assert!(!fence.is_valid());
    let late = key("late");
    let refusal = async || match fence.commit(Txn::new().put(&late, "too late")).await {
        // Out of reach as yet, or so when it looked for whose guard it was.
        Err(error) if error.is_transient() || error.kind() == ErrorKind::Conflict => false,
        outcome => {
            refused(outcome, ErrorKind::LeaseLost);
            true
        }
    };
    cx.eventually("a late write to be refused", refusal).await;
    observer.commit(Txn::new().absent(&late).put(&late, "nobody was here")).await;
    observer.commit(Txn::new().delete(&late)).await;
}

/// Does nothing at all until somebody says `go on`, or is gone.
#[expect(clippy::needless_pass_by_value, reason = "nobody else is woken by it")]
fn freeze(go_on: mpsc::Receiver<()>) {
    let _ = go_on.recv();
}

/// What was lost cannot be given back.
fn was_lost(given_back: Result<()>) {
    refused(given_back, ErrorKind::LeaseLost);
}
