//! What lives and dies with a lease.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{self, Instant};

use super::context::{Client, Context, instance, key, me, refused, removals, service, shows};
use crate::{Claim, ErrorKind, LeaseId, kv::Txn};

/// Longer than any check takes.
const LONG: Duration = Duration::from_secs(60);

pub(super) async fn a_grant_says_what_it_gives(cx: &Context) {
    let client = cx.client().await;
    let grant = client.grant(cx.ttl()).await;
    assert!(grant.ttl >= cx.ttl(), "{:?} is less than was asked for", grant.ttl);
    let renewed = client.leases().renew(grant.id).await.expect("it is fresh");
    assert!(renewed >= cx.ttl());
    refused(client.leases().grant(Duration::ZERO).await, ErrorKind::Invalid);
}

pub(super) async fn leases_are_independent(cx: &Context) {
    let client = cx.client().await;
    let (one, two) = (client.grant(LONG).await, client.grant(LONG).await);
    assert_ne!(one.id, two.id);
    client.put_leased(&instance("a/b", "1", 1), one.id).await;
    client.put_leased(&instance("a/b", "2", 2), two.id).await;
    client.leases().revoke(one.id).await.expect("it is revoked");
    let found = client.fetch(service("a/b")).await;
    assert!(found.len() == 1 && shows(&found, &instance("a/b", "2", 2)));
    client.leases().renew(two.id).await.expect("it lives on");
}

pub(super) async fn a_renewed_lease_lives(cx: &Context) {
    let client = cx.client().await;
    let grant = client.grant(cx.ttl()).await;
    let one = instance("a/b", "1", 1);
    client.put_leased(&one, grant.id).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_shows(&one).await;
    let enough = Instant::now() + 2 * grant.ttl;
    while Instant::now() < enough {
        // On a busy machine an answer may get lost: the next one comes in time.
        if let Err(error) = client.leases().renew(grant.id).await {
            assert!(error.is_transient(), "{error}");
        }
        time::sleep(grant.ttl / 5).await;
    }
    assert_eq!(feed.fence(&client, "a/b").await, []);
}

pub(super) async fn a_neglected_lease_ends(cx: &Context) {
    let (holder, observer) = (cx.client().await, cx.client().await);
    let sent = Instant::now();
    let grant = holder.grant(cx.ttl()).await;
    let all: Vec<_> = (1..=5).map(|n| instance("a/b", &n.to_string(), n)).collect();
    join_all(all.iter().map(|one| holder.put_leased(one, grant.id))).await;
    let mut feed = cx.feed(&observer, service("a/b")).await;
    feed.until_len(5).await;
    let seen = feed.until_len(0).await;
    assert_eq!(removals(&seen).len(), 5);
    let lived = sent.elapsed();
    assert!(lived >= grant.ttl, "ended after {lived:?}; {:?} was promised", grant.ttl);
    refused(holder.leases().renew(grant.id).await, ErrorKind::LeaseLost);
}

pub(super) async fn a_client_that_is_gone_leaves_nothing(cx: &Context) {
    let observer = cx.client().await;
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let gone = cx.client().await;
    let grant = gone.grant(cx.ttl()).await;
    gone.put_leased(&instance("a/b", "1", 1), grant.id).await;
    feed.until_len(1).await;
    drop(gone);
    feed.until_len(0).await;
}

pub(super) async fn a_revocation_takes_all_at_once(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    let (leased, permanent) = (101..=150, instance("a/b", "1", 1));
    client.put(&permanent).await;
    for n in leased {
        client.put_leased(&instance("a/b", &n.to_string(), n), lease.id).await;
    }
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_len(51).await;
    client.leases().revoke(lease.id).await.expect("it is revoked");
    let found = client.fetch(service("a/b")).await;
    assert!(found.len() == 1 && shows(&found, &permanent), "{} are left", found.len());
    assert_eq!(removals(&feed.until_len(1).await).len(), 50);
}

pub(super) async fn a_lease_that_is_gone_is_revoked_all_the_same(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    for _ in 0..3 {
        client.leases().revoke(lease.id).await.expect("what is gone need not be revoked");
    }
    client.leases().revoke(nobodys()).await.expect("what never was need not be revoked");
}

pub(super) async fn a_lost_lease_is_lost_for_good(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    client.leases().revoke(lease.id).await.expect("it is revoked");
    for _ in 0..2 {
        refused(client.leases().renew(lease.id).await, ErrorKind::LeaseLost);
    }
    refused(client.leases().renew(nobodys()).await, ErrorKind::LeaseLost);
    let next = client.grant(LONG).await;
    assert_ne!(next.id, lease.id);
    client.leases().renew(next.id).await.expect("a new one is as good as ever");
}

pub(super) async fn an_expired_lease_is_lost(cx: &Context) {
    let (holder, observer) = (cx.fragile().await, cx.client().await);
    let lease = holder.grant(LONG).await;
    let one = instance("a/b", "1", 1);
    holder.put_leased(&one, lease.id).await;
    let mut feed = cx.feed(&observer, service("a/b")).await;
    feed.until_shows(&one).await;
    cx.expire().await;
    feed.until_gone(&one).await;
    is_lost(cx, &holder, lease.id).await;
    // A new one works, on the same client.
    let lease = cx.within("a new lease", grant_again(&holder)).await;
    holder.put_leased(&one, lease).await;
    feed.until_shows(&one).await;
}

pub(super) async fn permanent_entries_outlive_all_leases(cx: &Context) {
    let (holder, observer) = (cx.fragile().await, cx.client().await);
    let lease = holder.grant(LONG).await;
    holder.put_leased(&instance("a/b", "1", 1), lease.id).await;
    holder.put(&instance("a/b", "2", 2)).await;
    let mut feed = cx.feed(&observer, service("a/b")).await;
    feed.until_len(2).await;
    cx.expire().await;
    feed.until_len(1).await;
    assert_eq!(feed.fence(&observer, "a/b").await, []);
    assert!(shows(feed.known(), &instance("a/b", "2", 2)));
}

pub(super) async fn nothing_is_written_with_a_lost_lease(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    client.leases().revoke(lease.id).await.expect("it is revoked");
    for lost in [lease.id, nobodys()] {
        let one = instance("a/b", "1", 1);
        let claim = Claim::new(me()).leased(lost);
        refused(client.registrar().put(&one, &claim).await, ErrorKind::LeaseLost);
        assert!(client.fetch(service("a/b")).await.is_empty());
    }
}

pub(super) async fn a_transaction_with_a_lost_lease_does_nothing(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    client.leases().revoke(lease.id).await.expect("it is revoked");
    let (one, two) = (key("a/b/1"), key("a/b/2"));
    let txn = Txn::new().put(&one, "1").put_leased(&two, "2", lease.id);
    refused(client.kv().commit(txn).await, ErrorKind::LeaseLost);
    assert_eq!((client.get(&one).await, client.get(&two).await), (None, None));
}

pub(super) async fn an_entry_moves_to_another_lease(cx: &Context) {
    let client = cx.client().await;
    let (old, new) = (client.grant(LONG).await, client.grant(2 * LONG).await);
    let one = instance("a/b", "1", 1);
    client.put_leased(&one, old.id).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_shows(&one).await;
    client.put_leased(&instance("a/b", "1", 2), new.id).await;
    client.leases().revoke(old.id).await.expect("it is revoked");
    let seen = feed.fence(&client, "a/b").await;
    assert!(removals(&seen).is_empty(), "it never left, but was seen to: {seen:?}");
    assert!(shows(feed.known(), &instance("a/b", "1", 2)));
    client.leases().revoke(new.id).await.expect("it is revoked");
    feed.until_gone(&one).await;
}

pub(super) async fn an_entry_becomes_permanent_and_back(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    let one = instance("a/b", "1", 1);
    client.put_leased(&one, lease.id).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_shows(&one).await;
    client.put(&instance("a/b", "1", 2)).await;
    client.leases().revoke(lease.id).await.expect("it is revoked");
    let mut seen = feed.fence(&client, "a/b").await;
    let lease = client.grant(LONG).await;
    client.put_leased(&instance("a/b", "1", 3), lease.id).await;
    seen.extend(feed.fence(&client, "a/b").await);
    assert!(removals(&seen).is_empty(), "it never left, but was seen to: {seen:?}");
    client.leases().revoke(lease.id).await.expect("it is revoked");
    feed.until_gone(&one).await;
}

pub(super) async fn a_hundred_entries_share_a_lease(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    let all: Vec<_> = (1..=100).map(|n| instance("a/b", &n.to_string(), n)).collect();
    join_all(all.iter().map(|one| client.put_leased(one, lease.id))).await;
    assert_eq!(client.fetch(service("a/b")).await.len(), 100);
    client.leases().renew(lease.id).await.expect("it is not too heavy");
}

/// Holds a lease to be lost; a client may have to find out first.
async fn is_lost(cx: &Context, holder: &Client, lease: LeaseId) {
    cx.eventually("the lease to be known as lost", async || match holder.leases().renew(lease).await {
        Ok(_) => false,
        Err(error) if error.is_transient() => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
            true
        }
    })
    .await;
}

async fn grant_again(holder: &Client) -> LeaseId {
    loop {
        match holder.leases().grant(LONG).await {
            Ok(grant) => return grant.id,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
}

/// A lease that was never granted.
fn nobodys() -> LeaseId {
    LeaseId(u64::MAX - 1)
}
