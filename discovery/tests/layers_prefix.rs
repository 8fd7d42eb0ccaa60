//! The `Prefix` layer: what goes in comes out, and nothing else does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::collections::{BTreeMap, BTreeSet};

use discovery::{
    Change, Claim, Discovery, ErrorKind, Instance, InstanceId, Owner, Scope, ServiceName, Snapshot, Update,
    kv::{Key, KvChange, KvUpdate, Range, Txn},
    layer::Prefix,
    mem::Mem,
};
use futures_util::StreamExt;
use proptest::prelude::*;

fn under(store: &Mem, prefix: &str) -> Discovery {
    Discovery::new(store.clone()).layer(Prefix::new(prefix.parse().unwrap()))
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn instance(service: &str, id: u64) -> Instance {
    Instance::builder(name(service))
        .id(InstanceId::from_bits(id))
        .endpoint("http", "10.0.0.1", 80)
        .metadata("version", "1")
        .zone("a")
        .weight(3)
        .incarnation(9)
        .build()
        .unwrap()
}

async fn put(discovery: &Discovery, instance: &Instance) {
    let claim = Claim::new(Owner::named("test"));
    discovery.backend().registrar().unwrap().put(instance, &claim).await.unwrap();
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tenants_see_what_they_registered_and_nothing_else(
        writes in prop::collection::vec((0..4_usize, 0..4_usize, 0..6_u64), 0..40),
    ) {
        // One prefix is the beginning of another, and one service is called like the other's first label.
        let prefixes = ["a", "ab", "b", "c/a"];
        let services = ["a", "ab", "a/b", "x/y/z"];
        block_on(async {
            let store = Mem::new();
            let mut expected: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
            let mut watches: Vec<_> = prefixes
                .iter()
                .map(|prefix| (prefix, under(&store, prefix).backend().watch(&Scope::everything(), None)))
                .collect();
            for (_, watch) in &mut watches {
                let first = watch.next().await;
                assert!(matches!(first, Some(Ok(Update::Reset(all))) if all.is_empty()));
            }
            for (prefix, service, id) in writes {
                let instance = instance(services[service], id);
                put(&under(&store, prefixes[prefix]), &instance).await;
                expected.entry(prefixes[prefix]).or_default().insert(instance.key().clone(), instance);
            }
            for (prefix, mut watch) in watches {
                let expected: Vec<_> = expected.remove(prefix).unwrap_or_default().into_values().collect();
                let discovery = under(&store, prefix);
                let all = discovery.fetch(Scope::everything()).await.unwrap();
                let seen: Vec<_> = all.iter().map(|instance| (**instance).clone()).collect();
                assert_eq!(seen, expected);

                let mut followed = Snapshot::default();
                while followed != all {
                    match watch.next().await.unwrap().unwrap() {
                        Update::Delta { revision, changes } => followed.apply(revision, &changes),
                        other => panic!("{other:?}"),
                    }
                }
                for service in services {
                    let of_one = discovery.lookup(&name(service)).await.unwrap();
                    assert!(all.of(&name(service)).eq(of_one.iter()));
                }
            }
        });
    }

    #[test]
    fn keys_round_trip(keys in prop::collection::btree_set("[a-c]{1,2}(/[a-c]{1,2}){0,2}", 1..20)) {
        block_on(async {
            let store = Mem::new();
            let (blue, outside) = (under(&store, "t/blue").kv().unwrap(), Discovery::new(store).kv().unwrap());
            let everything = Range::Subtree(Key::root());
            outside.commit(Txn::new().put(&key("t/blue"), "not below").put(&key("t/bluer"), "beside")).await.unwrap();
            let mut watch = blue.watch(&everything, None).unwrap();
            assert!(matches!(watch.next().await, Some(Ok(KvUpdate::Reset(scan))) if scan.entries.is_empty()));
            for text in &keys {
                blue.commit(Txn::new().absent(&key(text)).put(&key(text), text.clone())).await.unwrap();
                assert_eq!(outside.get(&key("t/blue").join(text).unwrap()).await.unwrap().unwrap().value, *text);
            }
            let scan = blue.scan(&everything).await.unwrap();
            let scanned: BTreeSet<_> = scan.entries.iter().map(|entry| entry.key.as_str().to_owned()).collect();
            assert_eq!(scanned, keys);

            let mut followed = BTreeSet::new();
            while followed != keys {
                let Some(Ok(KvUpdate::Delta { changes, .. })) = watch.next().await else { panic!("no delta") };
                followed.extend(changes.iter().map(|change| change.key().as_str().to_owned()));
            }
            for entry in &scan.entries {
                assert_eq!(blue.get(&entry.key).await.unwrap().as_ref(), Some(entry));
                blue.commit(Txn::new().unmodified(entry).alive(entry).delete(&entry.key)).await.unwrap_err();
                blue.commit(Txn::new().unmodified(entry).delete(&entry.key)).await.unwrap();
            }
            let gone = watch.next().await.unwrap().unwrap();
            assert!(matches!(&gone, KvUpdate::Delta { changes, .. }
                if changes.iter().all(|change| matches!(change, KvChange::Delete(_)))), "{gone:?}");
            assert!(blue.scan(&everything).await.unwrap().entries.is_empty());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_that_is_called_like_the_prefix_is_not_ours() {
    let store = Mem::new();
    let blue = under(&store, "blue");
    put(&Discovery::new(store.clone()), &instance("blue", 1)).await;
    put(&blue, &instance("blue", 2)).await;
    let all = blue.fetch(Scope::everything()).await.unwrap();
    assert_eq!(all.iter().map(|instance| instance.key().to_string()).collect::<Vec<_>>(), ["blue/2"]);
    let error = blue.fetch(Scope::Service(ServiceName::root())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_removal_comes_back_under_our_name() {
    let store = Mem::new();
    let blue = under(&store, "blue");
    let mut watch = blue.backend().watch(&Scope::everything(), None);
    watch.next().await.unwrap().unwrap();
    put(&blue, &instance("cart", 1)).await;
    watch.next().await.unwrap().unwrap();
    assert!(blue.remove(instance("cart", 1).key()).await.unwrap());
    let Some(Ok(Update::Delta { changes, .. })) = watch.next().await else { panic!("no delta") };
    assert_eq!(changes, [Change::Remove(instance("cart", 1).key().clone())]);
}

#[tokio::test(start_paused = true)]
async fn the_root_holds_no_value_under_a_prefix_either() {
    let store = Mem::new();
    let (outside, blue) = (Discovery::new(store.clone()).kv().unwrap(), under(&store, "blue").kv().unwrap());
    outside.commit(Txn::new().put(&key("blue"), "x")).await.unwrap();
    assert_eq!(blue.get(&Key::root()).await.unwrap(), None);
    let root = Range::Key(Key::root());
    assert_eq!(blue.scan(&root).await.unwrap().entries, []);
    let first = blue.watch(&root, None).unwrap().next().await.unwrap().unwrap();
    assert!(matches!(&first, KvUpdate::Reset(scan) if scan.entries.is_empty()), "{first:?}");
    let error = blue.commit(Txn::new().delete(&Key::root())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn names_that_would_grow_too_long_are_refused_clearly() {
    let long = ["x".repeat(60), "y".repeat(60)].join("/");
    let blue = under(&Mem::new(), &long);
    let error = blue.lookup(&name(&"z".repeat(60))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for part in ["under the prefix xxx", "at most 150"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = blue.kv().unwrap().get(&key(&"k".repeat(500))).await.unwrap_err();
    assert!(error.to_string().contains("at most 512"), "{error}");
}
