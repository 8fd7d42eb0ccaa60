//! Who may write what.

use futures_util::future::join_all;

use super::context::{Context, instance, me, port, reborn, refused, service, shows};
use crate::{Claim, ErrorKind, Instance, InstanceKey, OnConflict, Owner, Revision, Scope};

pub(super) async fn a_repeated_put_changes_nothing(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    for _ in 0..3 {
        client.put(&one).await;
    }
    let found = client.fetch(service("a/b")).await;
    assert!(found.len() == 1 && shows(&found, &one));
}

pub(super) async fn revisions_of_writes_grow(cx: &Context) {
    let client = cx.client().await;
    let mut last = Revision(0);
    for n in 1..=10 {
        let revision = client.put(&instance("a/b", "1", n)).await;
        assert!(revision > last, "{revision} came after {last}");
        last = revision;
    }
}

pub(super) async fn a_revision_is_good_for_the_next_write(cx: &Context) {
    let client = cx.client().await;
    let mut expected = None;
    for n in 1..=5 {
        let claim = Claim::new(me()).expecting(expected);
        expected = Some(client.put_as(&instance("a/b", "1", n), &claim).await);
    }
    assert!(shows(&client.fetch(service("a/b")).await, &instance("a/b", "1", 5)));
}

pub(super) async fn an_outdated_expectation_is_no_obstacle(cx: &Context) {
    let client = cx.client().await;
    let old = client.put(&instance("a/b", "1", 1)).await;
    client.put(&instance("a/b", "1", 2)).await;
    // We ourselves have written since, and forgot: as after a reply that was lost.
    let late = Claim::new(me()).expecting(Some(old));
    client.put_as(&instance("a/b", "1", 3), &late).await;
    assert!(shows(&client.fetch(service("a/b")).await, &instance("a/b", "1", 3)));
    client.remove(&instance("a/b", "1", 3)).await;
    client.put_as(&instance("a/b", "1", 4), &late).await;
    assert!(shows(&client.fetch(service("a/b")).await, &instance("a/b", "1", 4)));
}

pub(super) async fn another_owners_entry_is_left_alone(cx: &Context) {
    let (ours, theirs) = (cx.client().await, cx.client().await);
    let one = instance("a/b", "1", 1);
    ours.put(&one).await;
    let outcome = theirs.registrar().put(&instance("a/b", "1", 2), &Claim::new(them())).await;
    refused(outcome, ErrorKind::Conflict);
    assert!(shows(&ours.fetch(service("a/b")).await, &one));
}

pub(super) async fn a_take_over_replaces(cx: &Context) {
    let client = cx.client().await;
    client.put(&instance("a/b", "1", 1)).await;
    let taken = instance("a/b", "1", 2);
    client.put_as(&taken, &Claim::new(them()).on_conflict(OnConflict::TakeOver)).await;
    assert!(shows(&client.fetch(service("a/b")).await, &taken));
    // It is theirs now.
    refused(client.registrar().put(&instance("a/b", "1", 3), &Claim::new(me())).await, ErrorKind::Conflict);
}

pub(super) async fn an_expectation_gives_no_right_to_overwrite(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    let revision = client.put(&one).await;
    client.remove(&one).await;
    let theirs = reborn(&one);
    client.put_as(&theirs, &Claim::new(them())).await;
    let late = Claim::new(me()).expecting(Some(revision));
    refused(client.registrar().put(&one, &late).await, ErrorKind::Conflict);
    assert!(shows(&client.fetch(service("a/b")).await, &theirs));
}

pub(super) async fn only_the_owner_removes(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    refused(client.registrar().remove(one.key(), Some(&them())).await, ErrorKind::Conflict);
    assert!(shows(&client.fetch(service("a/b")).await, &one));
    assert!(client.registrar().remove(one.key(), Some(&me())).await.expect("it is ours"));
    assert!(client.fetch(service("a/b")).await.is_empty());
}

pub(super) async fn an_administrator_removes_anything(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    let admin = cx.client().await;
    cx.eventually("the administrator to see and remove it", async || {
        admin.registrar().remove(one.key(), None).await.expect("anything may be removed")
    })
    .await;
    assert!(client.fetch(service("a/b")).await.is_empty());
}

pub(super) async fn what_is_not_there_is_not_removed(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    for owner in [None, Some(&me())] {
        assert!(!client.registrar().remove(one.key(), owner).await.expect("nothing to do is no error"));
        client.put(&one).await;
        assert!(client.registrar().remove(one.key(), owner).await.expect("it is there"));
        assert!(!client.registrar().remove(one.key(), owner).await.expect("nothing to do is no error"));
    }
}

pub(super) async fn a_removal_takes_nothing_else(cx: &Context) {
    let client = cx.client().await;
    let stay = [("a/b", "2"), ("a/b", "11"), ("a", "b"), ("a/b/1", "1"), ("a/b/c", "1")]
        .map(|(name, id)| instance(name, id, 1));
    let one = instance("a/b", "1", 1);
    for other in stay.iter().chain([&one]) {
        client.put(other).await;
    }
    client.remove(&one).await;
    let found = client.fetch(Scope::everything()).await;
    assert_eq!(found.len(), stay.len());
    assert!(stay.iter().all(|other| shows(&found, other)));
}

pub(super) async fn of_many_owners_one_wins(cx: &Context) {
    let clients = join_all((0..8).map(|_| cx.client())).await;
    let outcomes = join_all((1..).zip(&clients).map(async |(n, client)| {
        let owner = Owner::named(format!("owner-{n}"));
        let outcome = client.registrar().put(&instance("a/b", "1", n), &Claim::new(owner)).await;
        if let Err(error) = &outcome {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
        outcome.is_ok().then_some(n)
    }))
    .await;
    let winners: Vec<_> = outcomes.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?} think they have it");
    cx.eventually("the winner to be found", async || {
        clients[0].fetch(service("a/b")).await.iter().any(|found| port(found) == winners[0])
    })
    .await;
}

pub(super) async fn a_large_record_never_reaches_the_server(cx: &Context) {
    let client = cx.client().await;
    let limit = client.0.info().capabilities().max_record;
    let fits = sized(limit / 2);
    client.put(&fits).await;
    // A server that is sent too much may hang up on the whole client: its watches would end.
    let mut feed = cx.feed(&client, service("a/b")).await;
    for bytes in [limit, 2 * limit, 32 * limit] {
        refused(client.registrar().put(&sized(bytes), &Claim::new(me())).await, ErrorKind::Invalid);
    }
    assert_eq!(feed.fence(&client, "a/b").await, []);
    assert!(shows(feed.known(), &fits), "what was there stays");
}

pub(super) async fn an_unsigned_record_belongs_to_somebody(cx: &Context) {
    let client = cx.client().await;
    cx.plant("a/b/1", r#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":7}]}"#).await;
    let foreign = InstanceKey::new(service("a/b"), "1".parse().expect("an id"));
    let found = async || client.fetch(service("a/b")).await.get(&foreign).map(|found| port(found));
    cx.eventually("the foreign record to be found", async || found().await == Some(7)).await;
    let ours = instance("a/b", "1", 1);
    refused(client.registrar().put(&ours, &Claim::new(me())).await, ErrorKind::Conflict);
    refused(client.registrar().remove(&foreign, Some(&me())).await, ErrorKind::Conflict);
    assert_eq!(found().await, Some(7));
    client.put_as(&ours, &Claim::new(me()).on_conflict(OnConflict::TakeOver)).await;
    assert_eq!(found().await, Some(1));
}

/// An instance with this much metadata.
fn sized(bytes: usize) -> Instance {
    let one = instance("a/b", "1", 1).to_builder().metadata("padding", "x".repeat(bytes));
    one.build().expect("an instance")
}

fn them() -> Owner {
    Owner::named("them")
}
