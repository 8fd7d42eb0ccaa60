//! What Cloudname's own tests ask of a backend, in the terms of this crate.
//!
//! Each check has the name of the test it carries on, and every assertion of it. A lease is an entry; its path is a
//! key, or the key of an instance; a collection listener is a watch of what is below a path; a lease listener is a
//! watch of which one entry is looked at; another backend is another client. What the tests do with nulls the types of
//! this crate do not let anybody write down: the nearest thing that can be written is tried instead.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;

use super::context::{Client, Context, instance, key, port, refused, removals, service, shows, subtree};
use crate::{
    Change, Coordinate, ErrorKind, Instance, InstanceKey, Revision, ServiceName, Snapshot,
    kv::{Entry, Key, KvChange, Range, Txn},
};

/// Longer than any check takes.
const LONG: Duration = Duration::from_secs(60);

// CoreBackendTest

pub(super) async fn lease_creation_null_values(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await.id;
    for nothing in [
        Txn::new(),
        Txn::new().put(&Key::root(), "data"),
        Txn::new().put(&key("local/lease/perm"), ""),
        Txn::new().put_leased(&key("local/lease/temp"), "", lease),
    ] {
        refused(client.kv().commit(nothing).await, ErrorKind::Invalid);
    }
    refused(Instance::builder(ServiceName::root()).build(), ErrorKind::Invalid);
    refused("".parse::<ServiceName>(), ErrorKind::Invalid);
}

pub(super) async fn temporary_lease_creation(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    for name in ["local/test/service-a", "local/test/service-b"] {
        let registration = discovery.register(at(name, 1)).ttl(LONG).await.expect("a handle");
        let key = registration.key().clone();
        assert!(key.service().is_under(&service(name)), "the service path is a prefix of the handle's");
        assert_eq!(read(&client, &key).await, Some(1), "the data that it was created with");
        registration.update(with_port(&registration.instance(), 2)).await.expect("writing works");
        assert_eq!(read(&client, &key).await, Some(2));
        // A handle that is closed has no path and cannot be written to: it is moved, and the compiler sees to that.
        registration.deregister().await.expect("closing works");
        assert_eq!(read(&client, &key).await, None);
    }
    let mut paths = Vec::new();
    for _ in 0..50 {
        let registration =
            discovery.register(at("local/test/service-a", 1)).ttl(LONG).await.expect("a handle");
        paths.push(registration.key().clone());
        registration.deregister().await.expect("closing works");
    }
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 50, "all paths differ");
}

pub(super) async fn simple_temporary_notification(cx: &Context) {
    let (client, discovery) = (cx.client().await, cx.client().await.discovery());
    let mut listener = cx.feed(&client, service("simple")).await;
    let registration = discovery.register(at("simple", 1)).ttl(LONG).await.expect("a handle");
    let key = registration.key().clone();
    listener.until("created", |known| known.get(&key).is_some()).await;
    registration.update(with_port(&registration.instance(), 2)).await.expect("writing works");
    listener.until("data", |known| known.get(&key).is_some_and(|found| port(found) == 2)).await;
    registration.deregister().await.expect("closing works");
    listener.until("removed", |known| known.get(&key).is_none()).await;
    // Removing the listener raises nothing.
    drop(listener);
}

pub(super) async fn permanent_lease_creation(cx: &Context) {
    let (client, second) = (cx.client().await, cx.client().await);
    let path = key("some/path");
    client.commit(Txn::new().absent(&path).put(&path, "data")).await;
    assert_eq!(text(&client, &path).await.as_deref(), Some("data"));
    refused(client.kv().commit(Txn::new().absent(&path).put(&path, "again")).await, ErrorKind::Conflict);
    let entry = client.get(&path).await.expect("it is there");
    client.commit(Txn::new().alive(&entry).put(&path, "new")).await;
    assert_eq!(text(&client, &path).await.as_deref(), Some("new"));
    cx.eventually("the second backend to read it", async || {
        text(&second, &path).await.as_deref() == Some("new")
    })
    .await;
    let entry = second.get(&path).await.expect("it is there");
    second.commit(Txn::new().alive(&entry).delete(&path)).await;
    refused(second.kv().commit(Txn::new().alive(&entry).delete(&path)).await, ErrorKind::Conflict);
    assert_eq!(second.get(&path).await, None);
}

pub(super) async fn multiple_temporary_notifications(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(LONG).await;
    let path = key("root/lease/1f");
    client.commit(Txn::new().put_leased(&path, "created", lease.id)).await;
    let range = Range::Children(key("root/lease"));
    assert!(range.contains(&path), "root/lease is a prefix");
    let mut listeners = join_all((0..10).map(|_| cx.kv_feed(&client, &range))).await;
    assert!(listeners.iter().all(|listener| listener.known().contains_key(&path)), "10 created events");
    for value in 0..10 {
        client.commit(Txn::new().put_leased(&path, value.to_string(), lease.id)).await;
        // As the original pauses between its writes: each is seen before the next one comes.
        let seen = join_all(listeners.iter_mut().map(async |listener| {
            listener.until("the data", |known| known[&path].value == value.to_string()).await
        }))
        .await;
        assert_eq!(seen.iter().filter(|seen| seen.len() == 1).count(), 10, "one data event each: {seen:?}");
    }
    client.leases().revoke(lease.id).await.expect("closing works");
    for listener in &mut listeners {
        listener.until("removed", BTreeMap::is_empty).await;
    }
    for _ in 0..10 {
        client.leases().revoke(lease.id).await.expect("closing again raises nothing");
    }
}

pub(super) async fn multiple_services_with_multiple_clients(cx: &Context) {
    const CLIENTS: usize = 5;
    let observer = cx.client().await;
    let mut outside = cx.feed(&observer, service("multi/multi")).await;
    let clients = join_all((0..CLIENTS).map(|_| cx.client())).await;
    let handles = join_all(clients.iter().map(async |client| {
        let discovery = client.discovery();
        let registration = discovery.register(at("multi/multi", 1)).ttl(LONG).await.expect("a handle");
        let mut listener = cx.feed(client, service("multi/multi")).await;
        let mut seen = listener.until_len(CLIENTS).await;
        registration.update(with_port(&registration.instance(), 2)).await.expect("its own write works");
        let all_wrote = |known: &Snapshot| known.iter().all(|one| port(one) == 2);
        seen.extend(listener.until("a data event of each", all_wrote).await);
        let prefix = service("multi/multi");
        assert!(seen.iter().all(|change| change.key().service().is_under(&prefix)));
        registration
    }))
    .await;
    // Nobody closes before everybody has seen everybody.
    outside.until_len(CLIENTS).await;
    drop(handles);
    assert_eq!(removals(&outside.until_len(0).await).len(), CLIENTS);
}

pub(super) async fn remove_invalid_listener(cx: &Context) {
    let client = cx.client().await;
    // There are no listeners to be removed by name; ending a watch that was never read is the nearest thing.
    drop(client.0.watch(&service("never/added").into(), None));
    drop(client.kv().watch(&Range::Subtree(key("never/added")), None));
    assert!(client.fetch(service("never/added")).await.is_empty());
}

pub(super) async fn multiple_independent_listeners(cx: &Context) {
    let workers = join_all((0..20).map(async |worker| {
        let client = cx.client().await;
        let name = format!("pair/{}", worker / 2);
        let mut listener = cx.feed(&client, service(&name)).await;
        let mine = at(&name, 1);
        client.put(&mine).await;
        let seen = listener.until_len(2).await;
        (client, listener, mine, seen)
    }))
    .await;
    let mut pending = Vec::new();
    for (client, listener, mine, seen) in workers {
        client.put(&with_port(&mine, 2)).await;
        pending.push((client, listener, mine, seen));
    }
    let mut written = Vec::new();
    for (client, mut listener, mine, mut seen) in pending {
        let both = |known: &Snapshot| known.len() == 2 && known.iter().all(|one| port(one) == 2);
        seen.extend(listener.until("both to have written", both).await);
        assert!(
            seen.iter().all(|change| change.key().service() == mine.service()),
            "no cross-talk: {seen:?}"
        );
        written.push((client, mine));
    }
    for (client, mine) in written {
        client.remove(&mine).await;
    }
}

pub(super) async fn permanent_lease_notifications(cx: &Context) {
    let (client, fresh) = (cx.client().await, cx.client().await);
    let path = key("permanent/vacation");
    client.commit(Txn::new().delete(&path)).await;
    client.commit(Txn::new().absent(&path).put(&path, "data")).await;
    cx.eventually("a fresh backend to have the data", async || {
        text(&fresh, &path).await.as_deref() == Some("data")
    })
    .await;
    let mut listener = cx.kv_feed_after(&client, &Range::Children(key("permanent")), None);
    let mut seen = Vec::new();
    let mut listen = async |what, condition: fn(Option<&Entry>) -> bool| {
        seen.extend(listener.until(what, |known| condition(known.get(&key("permanent/vacation")))).await);
    };
    listen("created", |entry| entry.is_some_and(|entry| entry.value == "data")).await;
    client.commit(Txn::new().put(&path, "new")).await;
    listen("data", |entry| entry.is_some_and(|entry| entry.value == "new")).await;
    client.commit(Txn::new().delete(&path)).await;
    listen("removed", |entry| entry.is_none()).await;
    assert_eq!(told(&seen), ["+data", "+new", "-"], "exactly three notifications");
    assert!(seen.iter().all(|change| *change.key() == path), "of exactly that path");
}

pub(super) async fn multiple_permanent_listeners(cx: &Context) {
    let client = cx.client().await;
    let listen = async |path: &str| {
        let path = key(path);
        (cx.kv_feed(&client, &Range::Children(path.parent())).await, path)
    };
    // A lease listener is for one path, whatever else is beside it: here, of one element, below the root.
    let (mut first, primary) = listen("primary").await;
    let (mut second, secondary) = listen("secondary").await;
    let (mut third, tertiary) = listen("tertiary/permanent/lease").await;
    let (mut nested, _) = listen("primary/child").await;
    for path in [&primary, &secondary] {
        client.commit(Txn::new().absent(path).put(path, "1")).await;
        client.commit(Txn::new().put(path, "2")).await;
    }
    // Unlike in the original, the events must come, and come in order.
    let mut seen = first.until("primary", |known| is(known.get(&primary), "2")).await;
    seen.retain(|change| *change.key() == primary);
    assert!(told(&seen).is_sorted() && told(&seen).last().is_some_and(|last| last == "+2"), "{seen:?}");
    second.until("secondary", |known| is(known.get(&secondary), "2")).await;
    // The tertiary listener sees nothing of them.
    assert_eq!(third.fence(&client, "tertiary/permanent/fence").await, []);
    // A temporary lease in its place works like any other, and once it is gone there is nothing left of it.
    let lease = client.grant(LONG).await;
    client.commit(Txn::new().put_leased(&tertiary, "1", lease.id)).await;
    client.commit(Txn::new().put_leased(&tertiary, "2", lease.id)).await;
    third.until("the temporary lease", |known| is(known.get(&tertiary), "2")).await;
    client.leases().revoke(lease.id).await.expect("closing works");
    third.until("its end", |known| !known.contains_key(&tertiary)).await;
    // A listener on `primary/*` hears nothing of `primary` itself.
    assert_eq!(nested.fence(&client, "primary/fence").await, []);
}

pub(super) async fn ensure_closed_leases_are_propagated_to_owners(cx: &Context) {
    let (one, two) = (cx.client().await, cx.client().await);
    for temporary in [true, false] {
        let (mine, yours) = (key("owner/lease1/temp"), key("owner/lease2/temp"));
        let first = create(&one, &mine, temporary).await;
        let second = create(&two, &yours, temporary).await;
        // Both handles can write. A handle is the life of an entry: what it wrote, and nothing that came after.
        one.commit(Txn::new().alive(&first).put(&mine, "2")).await;
        two.commit(Txn::new().alive(&second).put(&yours, "2")).await;
        // Each removes what the other holds, although it is not the owner: administrators may.
        remove(cx, &one, &yours).await;
        remove(cx, &two, &mine).await;
        for (client, handle, path) in [(&one, &first, &mine), (&two, &second, &yours)] {
            cx.eventually("the removal to be known", async || client.get(path).await.is_none()).await;
            let write = client.kv().commit(Txn::new().alive(handle).put(path, "3")).await;
            refused(write, ErrorKind::Conflict);
            assert_eq!(client.get(path).await, None);
        }
    }
}

// CloudnameServiceTest

pub(super) async fn ten_instances_five_clients(cx: &Context) {
    let blinky: Coordinate = "blinky.test.local".parse().expect("a coordinate");
    let clients = join_all((0..5).map(|_| cx.client())).await;
    let mut listeners = Vec::new();
    for client in &clients {
        listeners.push(cx.following(&client.discovery(), blinky.service().clone()).await);
    }
    let owner = cx.client().await.discovery();
    let handles = join_all((1..=10).map(|n| {
        let one = Instance::builder(blinky.service().clone()).endpoint("http", "127.0.0.1", n).endpoint(
            "webconsole",
            "127.0.0.1",
            1000 + n,
        );
        let register = owner.register(one.build().expect("an instance")).ttl(LONG);
        async { register.await.expect("a handle") }
    }))
    .await;
    for listener in &mut listeners {
        listener.until_len(10).await;
        for found in listener.known().iter() {
            assert!(found.endpoint("http").is_some() && found.endpoint("webconsole").is_some());
        }
    }
    drop(handles);
    for listener in &mut listeners {
        assert_eq!(removals(&listener.until_len(0).await).len(), 10);
    }
    drop(listeners);
    drop(owner);
    let late = cx.following(&cx.client().await.discovery(), blinky.service().clone()).await;
    assert!(late.known().is_empty(), "new listeners see nobody");
}

pub(super) async fn fifty_endpoint_replacements(cx: &Context) {
    let name = service("local/test/pinky");
    let clients = join_all((0..10).map(|_| cx.client())).await;
    let mut listeners = Vec::new();
    for client in &clients {
        listeners.push(cx.following(&client.discovery(), name.clone()).await);
    }
    let owner = cx.client().await.discovery();
    let handle = owner.register(at("local/test/pinky", 1000)).ttl(LONG).await.expect("a handle");
    for n in 1..=50 {
        handle.update(with_port(&handle.instance(), n)).await.expect("writing works");
        // In the original too each replacement is seen before the next one.
        for listener in &mut listeners {
            listener.until("the replacement", |known| known.iter().any(|one| port(one) == n)).await;
        }
    }
}

// CloudnameServicePermanentTest

pub(super) async fn permanent_service_is_created_once(cx: &Context) {
    let (one, two) = (cx.client().await.discovery(), cx.client().await.discovery());
    let coordinate = instance("local/test/permanent", "0", 1);
    one.register(coordinate.clone()).permanent().await.expect("the first creation works");
    for again in [&one, &two] {
        let outcome = again.register(coordinate.clone()).permanent().await;
        assert_eq!(outcome.expect_err("it exists").kind(), ErrorKind::Conflict);
    }
}

pub(super) async fn permanent_service_update(cx: &Context) {
    let (owner, client) = (cx.client().await.discovery(), cx.client().await);
    let one = instance("local/test/permanent", "0", 1);
    let handle = owner.register(one.clone()).permanent().await.expect("it is created");
    let mut listener = cx.feed(&client, one.service()).await;
    let mut seen = listener.until_len(1).await;
    // What it is called cannot be updated, only what it says.
    refused(handle.update(instance("local/test/permanent", "other", 2)).await, ErrorKind::Invalid);
    refused(handle.update(instance("local/test/other", "0", 2)).await, ErrorKind::Invalid);
    handle.update(with_port(&one, 2)).await.expect("it is updated");
    seen.extend(listener.until_shows(&with_port(&one, 2)).await);
    seen.extend(listener.fence(&client, "local/test/permanent").await);
    assert!(removals(&seen).is_empty(), "never removed: {seen:?}");
    let said: Vec<_> = seen.iter().map(say_change).collect();
    assert!(said.ends_with(&["+2".into()]) && said.len() <= 2, "one created and one changed: {said:?}");
    drop(listener);
    handle.update(with_port(&one, 3)).await.expect("it is updated, and nobody listens");
}

pub(super) async fn listener_of_a_service_that_does_not_exist_yet(cx: &Context) {
    let (owner, client) = (cx.client().await.discovery(), cx.client().await);
    let one = instance("local/test/permanent", "0", 1);
    let mut listener = cx.following(&client.discovery(), one.service()).await;
    assert!(listener.known().is_empty());
    let handle = owner.register(one.clone()).permanent().await.expect("it is created");
    let mut seen = listener.until_shows(&one).await;
    handle.update(with_port(&one, 2)).await.expect("it is updated");
    seen.extend(listener.until_shows(&with_port(&one, 2)).await);
    assert!(owner.remove(one.key()).await.expect("it is removed"));
    seen.extend(listener.until_gone(&one).await);
    assert_eq!(seen.iter().map(say_change).collect::<Vec<_>>(), ["+1", "+2", "-"], "once each, in order");
}

pub(super) async fn unknown_services_are_not_updated_or_removed(cx: &Context) {
    let client = cx.client().await;
    let unknown = instance("local/test/unknown", "0", 1);
    assert!(!client.discovery().remove(unknown.key()).await.expect("nothing to do is no error"));
    let path = key("local/test/unknown/0");
    let never = Entry {
        key: path.clone(),
        value: "{}".into(),
        created: Revision(1),
        modified: Revision(1),
        lease: None,
    };
    refused(client.kv().commit(Txn::new().alive(&never).put(&path, "data")).await, ErrorKind::Conflict);
    assert_eq!(client.get(&path).await, None);
}

pub(super) async fn created_then_removed_and_nothing_between(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let one = instance("local/test/permanent", "0", 1);
    let mut listener = cx.feed(&client, one.service()).await;
    drop(discovery.register(one.clone()).permanent().await.expect("it is created"));
    let mut seen = listener.until_shows(&one).await;
    assert!(discovery.remove(one.key()).await.expect("it is removed"));
    seen.extend(listener.until_gone(&one).await);
    assert!(!discovery.remove(one.key()).await.expect("nothing to do is no error"));
    seen.extend(listener.fence(&client, "local/test/permanent").await);
    assert_eq!(seen.iter().map(say_change).collect::<Vec<_>>(), ["+1", "-"]);
}

// ServiceHandleTest

pub(super) async fn service_handle_endpoints_come_and_go(cx: &Context) {
    let client = cx.client().await;
    let handle = client.discovery().register(at("a/b", 1)).ttl(LONG).await.expect("a handle");
    let plain = handle.instance();
    let endpoints = async || {
        let found = client.fetch(service("a/b")).await;
        found.iter().map(|one| one.endpoints().len()).sum::<usize>()
    };
    let more = plain.to_builder().endpoint("metrics", "127.0.0.1", 9).build().expect("an instance");
    // Again is no news; the original says false, here it is a write of the same.
    for _ in 0..2 {
        handle.update(more.clone()).await.expect("registering an endpoint works");
        assert_eq!(endpoints().await, 2);
    }
    for _ in 0..2 {
        handle.update((*plain).clone()).await.expect("removing an endpoint works");
        assert_eq!(endpoints().await, 1);
    }
    handle.deregister().await.expect("closing works");
}

pub(super) async fn service_handle_failed_writes_leave_no_trace(cx: &Context) {
    let client = cx.client().await;
    let handle = client.discovery().register(at("a/b", 1)).ttl(LONG).await.expect("a handle");
    let before = handle.instance();
    // Another owner takes the place: from here on our writes fail.
    let other = client.discovery();
    let theirs = other.register((*before).clone()).ttl(LONG).take_over().await.expect("it is taken over");
    let more = before.to_builder().endpoint("metrics", "127.0.0.1", 9).build().expect("an instance");
    refused(handle.update(more).await, ErrorKind::Conflict);
    assert_eq!(handle.instance(), before, "a failed write is rolled back");
    handle.deregister().await.expect("closing does not fail");
    assert!(shows(&client.fetch(service("a/b")).await, &theirs.instance()));
}

// NodeCollectionWatcherTest

pub(super) async fn rapid_changes(cx: &Context) {
    let client = cx.client().await;
    let mut listener = cx.feed(&client, subtree("rapid")).await;
    let all = |n: u16| (1..=50).map(move |id: u16| instance("rapid", &id.to_string(), n));
    for round in 1..=6 {
        for one in all(round) {
            client.put(&one).await;
        }
        let current = |known: &Snapshot| all(round).all(|one| shows(known, &one));
        let seen = listener.until("the whole round", current).await;
        assert!(seen.len() >= 50, "{} events for 50 changes", seen.len());
    }
    for one in all(6) {
        client.remove(&one).await;
    }
    assert_eq!(removals(&listener.until_len(0).await).len(), 50);
}

/// An instance with an id that the service draws, as leases of Cloudname have.
fn at(name: &str, port: u16) -> Instance {
    let one = Instance::builder(service(name)).endpoint("http", "127.0.0.1", port).incarnation(1);
    one.build().expect("an instance")
}

fn with_port(one: &Instance, port: u16) -> Instance {
    let moved = instance(&one.service().to_string(), one.id().as_str(), port);
    moved.to_builder().incarnation(one.incarnation()).build().expect("an instance")
}

/// The port of an instance, as a fetch shows it.
async fn read(client: &Client, key: &InstanceKey) -> Option<u16> {
    client.fetch(key.service()).await.get(key).map(|found| port(found))
}

async fn text(client: &Client, path: &Key) -> Option<String> {
    let entry = client.get(path).await?;
    Some(String::from_utf8(entry.value.to_vec()).expect("text"))
}

async fn create(client: &Client, path: &Key, temporary: bool) -> Entry {
    let txn = Txn::new().absent(path);
    let txn =
        if temporary { txn.put_leased(path, "1", client.grant(LONG).await.id) } else { txn.put(path, "1") };
    client.commit(txn).await;
    client.get(path).await.expect("it was just created")
}

/// Removes somebody else's entry, once this client sees it.
async fn remove(cx: &Context, client: &Client, path: &Key) {
    cx.eventually("the other's lease to be seen", async || client.get(path).await.is_some()).await;
    client.commit(Txn::new().delete(path)).await;
}

fn is(entry: Option<&Entry>, value: &str) -> bool {
    entry.is_some_and(|entry| entry.value == value)
}

/// What happened, as `+value` and `-`.
fn told(seen: &[KvChange]) -> Vec<String> {
    let say = |change: &KvChange| match change {
        KvChange::Put(entry) => format!("+{}", String::from_utf8_lossy(&entry.value)),
        KvChange::Delete(_) => "-".into(),
    };
    seen.iter().map(say).collect()
}

/// What happened, as `+port` and `-`.
fn say_change(change: &Change) -> String {
    match change {
        Change::Put(instance) => format!("+{}", port(instance)),
        Change::Remove(_) => "-".into(),
    }
}
