//! What a fetch finds.

use super::context::{Context, instance, keys, me, port, refused, service, shows, subtree};
use crate::{Claim, ErrorKind, Instance, Scope, ServiceName, Status};

pub(super) async fn unknown_scopes_are_empty(cx: &Context) {
    let client = cx.client().await;
    for scope in [Scope::Service(service("no/such/thing")), subtree("no/such"), Scope::everything()] {
        let found = client.fetch(scope.clone()).await;
        assert!(found.is_empty(), "{scope} holds {:?}", keys(&found));
    }
}

pub(super) async fn the_root_is_no_service(cx: &Context) {
    let client = cx.client().await;
    refused(client.0.fetch(&Scope::Service(ServiceName::root())).await, ErrorKind::Invalid);
}

pub(super) async fn finds_what_was_put(cx: &Context) {
    let client = cx.client().await;
    let written = Instance::builder(service("eu1/prod/cart"))
        .id("1f".parse().expect("an id"))
        .endpoint("http", "10.0.0.7", 8080)
        .endpoint("http", "fd00::7", 8080)
        .endpoint("metrics", "cart-7.example.org", 65_535)
        .metadata("version", "1.4.2")
        .metadata("", "a key may be empty")
        .metadata("quotes \" and \\ and \u{0} and \n", "snow \u{2603}, clef \u{1d11e}")
        .weight(0)
        .zone("eu1-a")
        .status(Status::Draining)
        .incarnation(u64::MAX)
        .build()
        .expect("an instance");
    client.put(&written).await;
    let found = client.fetch(written.service()).await;
    assert_eq!(found.iter().map(|found| (**found).clone()).collect::<Vec<_>>(), [written]);
}

pub(super) async fn other_clients_find_it(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let one = instance("a/b", "1", 1);
    writer.put(&one).await;
    cx.eventually("another client to find it", async || shows(&reader.fetch(one.service()).await, &one))
        .await;
}

pub(super) async fn a_service_is_itself_alone(cx: &Context) {
    let client = cx.client().await;
    for name in ["a", "a/b", "a/b/c", "a/x"] {
        client.put(&instance(name, "1", 1)).await;
    }
    assert_eq!(keys(&client.fetch(service("a/b")).await), ["a/b/1"]);
    assert_eq!(keys(&client.fetch(service("a/b/c")).await), ["a/b/c/1"]);
}

pub(super) async fn a_subtree_is_its_top_and_all_below(cx: &Context) {
    let client = cx.client().await;
    for name in ["a", "a/b", "a/b/c", "a/b/c/d", "a/x"] {
        client.put(&instance(name, "1", 1)).await;
    }
    assert_eq!(keys(&client.fetch(subtree("a/b")).await), ["a/b/1", "a/b/c/1", "a/b/c/d/1"]);
    assert_eq!(client.fetch(Scope::everything()).await.len(), 5);
}

pub(super) async fn names_of_one_label_work(cx: &Context) {
    let client = cx.client().await;
    client.put(&instance("solo", "1", 1)).await;
    assert_eq!(keys(&client.fetch(service("solo")).await), ["solo/1"]);
    assert_eq!(keys(&client.fetch(subtree("solo")).await), ["solo/1"]);
}

pub(super) async fn labels_are_compared_whole(cx: &Context) {
    let client = cx.client().await;
    for name in ["a/b", "a/bc", "a/b-c", "ab", "a-b/b"] {
        client.put(&instance(name, "1", 1)).await;
    }
    assert_eq!(keys(&client.fetch(service("a/b")).await), ["a/b/1"]);
    assert_eq!(keys(&client.fetch(subtree("a/b")).await), ["a/b/1"]);
    assert_eq!(keys(&client.fetch(subtree("a")).await), ["a/b/1", "a/b-c/1", "a/bc/1"]);
}

pub(super) async fn an_instance_may_be_named_like_a_service(cx: &Context) {
    let client = cx.client().await;
    // Below service `a`, the instance `b` and the service `b` are one path in a store that has paths.
    client.put(&instance("a", "b", 1)).await;
    client.put(&instance("a/b", "1", 2)).await;
    assert_eq!(keys(&client.fetch(service("a")).await), ["a/b"]);
    assert_eq!(keys(&client.fetch(service("a/b")).await), ["a/b/1"]);
    client.remove(&instance("a", "b", 1)).await;
    assert!(client.fetch(service("a")).await.is_empty(), "removed although something is below");
    assert_eq!(keys(&client.fetch(service("a/b")).await), ["a/b/1"], "what is below stays");
}

pub(super) async fn a_leased_instance_named_like_a_service_harms_nobody(cx: &Context) {
    let client = cx.client().await;
    let lease = client.grant(cx.patience()).await;
    let (above, below) = (instance("a", "b", 1), instance("a/b", "1", 2));
    client.put_leased(&above, lease.id).await;
    let claim = Claim::new(me()).leased(lease.id);
    match client.registrar().put(&below, &claim).await {
        Ok(_) => assert_eq!(keys(&client.fetch(subtree("a")).await), ["a/b", "a/b/1"]),
        // A store whose leased entries are leaves says so, and leaves the first one where it is.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert_eq!(keys(&client.fetch(subtree("a")).await), ["a/b"]);
        }
    }
    client.leases().revoke(lease.id).await.expect("the lease is revoked");
    assert!(client.fetch(subtree("a")).await.is_empty());
    // What is left of the one is not in the way of the other.
    client.put(&below).await;
    assert!(shows(&client.fetch(service("a/b")).await, &below));
}

pub(super) async fn the_longest_names_are_carried(cx: &Context) {
    let client = cx.client().await;
    let (label, rest) = ("x".repeat(63), "y".repeat(150 - 64));
    let name = format!("{label}/{}/{}", &rest[..63], &rest[64..]);
    for (name, id) in [(name.as_str(), label.as_str()), ("0/1-2--3", "0"), ("xn--nxasmq6b", "9-a")] {
        let longest = instance(name, id, 1);
        client.put(&longest).await;
        assert!(shows(&client.fetch(longest.service()).await, &longest), "{}", longest.key());
    }
}

pub(super) async fn a_thousand_instances_are_found(cx: &Context) {
    let client = cx.client().await;
    let all: Vec<_> = (1..=1000).map(|n| instance("big", &n.to_string(), n)).collect();
    for some in all.chunks(100) {
        futures_util::future::join_all(some.iter().map(|one| client.put(one))).await;
    }
    let found = client.fetch(service("big")).await;
    assert_eq!(found.len(), all.len());
    assert!(all.iter().all(|one| shows(&found, one)));
}

pub(super) async fn an_update_is_found_and_a_removal_too(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    client.put(&instance("a/b", "1", 2)).await;
    let found = client.fetch(one.service()).await;
    assert_eq!(found.iter().map(|found| port(found)).collect::<Vec<_>>(), [2]);
    assert!(client.registrar().remove(one.key(), Some(&me())).await.expect("it is ours to remove"));
    assert!(client.fetch(one.service()).await.is_empty());
}

pub(super) async fn a_life_without_a_number_gets_one(cx: &Context) {
    let client = cx.client().await;
    let unnumbered = instance("a/b", "1", 1).to_builder().incarnation(0).build().expect("an instance");
    let life = async || {
        client.put_as(&unnumbered, &Claim::new(me())).await;
        let found = client.fetch(unnumbered.service()).await;
        found.get(unnumbered.key()).expect("it was just written").incarnation()
    };
    let first = life().await;
    assert_ne!(first, 0);
    assert_eq!(life().await, first, "an update is the same life");
    client.remove(&unnumbered).await;
    assert_ne!(life().await, first, "a new life has a new number");
}
