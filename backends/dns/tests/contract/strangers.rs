//! Others have the key as well, and write to the zone by hand: well, badly, and what is none of our business.

use std::time::Duration;

use discovery::{
    Instance, Scope,
    kv::{Range, Txn},
};
use discovery_testbed::NameServer;

use crate::common::{
    Follower, bind, discovery, emptied, eventually, everything, head_name, key, kv, lease_name, leases,
    listed, name, on, records, soon, update,
};

#[tokio::test]
async fn what_is_written_by_hand_is_an_entry() {
    let Some(server) = bind().await else { return };
    let zone = on(&server);
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    let by_hand = name(&server, "eu1/prod/cart/1");
    let value = r#"{\"v\":1,\"endpoints\":[]}"#;
    update(&server, &format!("add {by_hand} 60 TXT \"{value}\"")).await;
    follower.until("it is seen", |it| it.value("eu1/prod/cart/1").is_some()).await;
    let entry = kv(&zone).get(&key("eu1/prod/cart/1")).await.unwrap().unwrap();
    assert_eq!(entry.lease, None);
    // In strings, as long texts have to be.
    update(&server, &format!("delete {by_hand} TXT\nadd {by_hand} 60 TXT \"one \" \"two\"")).await;
    follower.until("it is changed", |it| it.value("eu1/prod/cart/1") == Some(b"one two")).await;
    // It can be overwritten, on condition that it is what was read.
    let outdated = kv(&zone).commit(Txn::new().unmodified(&entry).put(&entry.key, "ours")).await;
    assert_eq!(outdated.unwrap_err().kind(), discovery::ErrorKind::Conflict);
    let entry = kv(&zone).get(&entry.key).await.unwrap().unwrap();
    kv(&zone).commit(Txn::new().unmodified(&entry).put(&entry.key, "ours")).await.unwrap();
    assert_eq!(listed(&zone, &everything()).await, ["eu1/prod/cart/1=ours"]);
    update(&server, &format!("delete {by_hand} TXT")).await;
    follower.until("it is gone", |it| it.entries.is_empty()).await;
}

#[tokio::test]
async fn an_instance_may_be_written_by_hand() {
    let Some(server) = bind().await else { return };
    let discovery = discovery(on(&server));
    let cart = "eu1/prod/cart".parse().unwrap();
    let instance = Instance::builder(cart).id("1".parse().unwrap()).endpoint("http", "10.0.0.7", 80);
    let registered = soon("to be registered", discovery.register(instance.build().unwrap())).await.unwrap();
    // The record of another, with another name: its value is what is behind the stamp.
    let zone = on(&server);
    let value = kv(&zone).get(&key("eu1/prod/cart/1")).await.unwrap().unwrap().value;
    assert!(value.len() < 255, "one string holds it");
    let value = String::from_utf8(value.to_vec()).unwrap().replace('"', "\\\"");
    update(&server, &format!("add {} 60 TXT \"{value}\"", name(&server, "eu1/prod/cart/2"))).await;
    eventually("both are there", async || discovery.fetch(Scope::everything()).await.unwrap().len() == 2)
        .await;
    soon("to be deregistered", registered.deregister()).await.unwrap();
}

/// Records of other types and at other names, and such as are nobody's entry.
#[tokio::test]
async fn what_is_none_of_our_business_is_left_alone() {
    let Some(server) = bind().await else { return };
    let foreign = [
        "_acme-challenge.disco.test. TXT \"token\"",
        "1.cart.prod.eu1.disco.test. MX 10 mail.example.",
        "_dmarc.disco.test. TXT \"v=DMARC1\"",
        "cart.prod.eu1.disco.test. A 192.0.2.1",
        "www.disco.test. CNAME cart.prod.eu1.disco.test.",
        "zz._lease.disco.test. TXT \"ttl=1 beat=1\"",
    ];
    let script = foreign.iter().map(|record| {
        let (name, data) = record.split_once(' ').unwrap();
        format!("add {name} 60 {data}")
    });
    let script: Vec<_> = script.collect();
    update(&server, &format!("check-names off\n{}", script.join("\n"))).await;
    let zone = on(&server);
    assert_eq!(listed(&zone, &everything()).await, [""; 0]);
    let discovery = discovery(zone.clone());
    let cart = "eu1/prod/cart".parse().unwrap();
    let instance = Instance::builder(cart).id("1".parse().unwrap()).endpoint("http", "10.0.0.7", 80);
    let registered = soon("to be registered", discovery.register(instance.build().unwrap())).await.unwrap();
    assert_eq!(discovery.fetch(Scope::everything()).await.unwrap().len(), 1);
    soon("to be deregistered", registered.deregister()).await.unwrap();
    drop(discovery);
    let mut wanted: Vec<_> = foreign.iter().map(ToString::to_string).collect();
    wanted.sort();
    eventually("only theirs are left", async || {
        let mut left = records(&server).await;
        left.retain(|record| !record.starts_with("_log."));
        left == wanted
    })
    .await;
}

async fn write(server: &NameServer) {
    let zone = on(server);
    for n in 0..3 {
        kv(&zone).commit(Txn::new().put(&key(&format!("a/{n}")), "1")).await.unwrap();
    }
}

/// Everybody who has seen the log has to give the zone up for another; then it goes on.
#[tokio::test]
async fn a_log_without_a_head_begins_anew() {
    for (what, script) in [
        ("deleted", "delete _log.disco.test. TXT"),
        ("garbled", "delete _log.disco.test. TXT\nadd _log.disco.test. 5 TXT \"what is this\""),
        (
            "garbled twice",
            "delete _log.disco.test. TXT\nadd _log.disco.test. 5 TXT \"\"\nadd _log.disco.test. 5 TXT \"7\"",
        ),
        (
            "at the end of all numbers",
            "delete _log.disco.test. TXT\nadd _log.disco.test. 5 TXT \"18446744073709551615 1\"",
        ),
    ] {
        let Some(server) = bind().await else { return };
        write(&server).await;
        let zone = on(&server);
        let before = kv(&zone).get(&key("a/0")).await.unwrap().unwrap();
        // What is written by hand has a digest for a number, which is no number of the log.
        update(&server, &format!("add {} 5 TXT \"by hand\"\n{script}", name(&server, "b"))).await;
        // Whoever comes now knows nothing of that, ...
        let new = on(&server);
        let number = kv(&new).commit(Txn::new().put(&key("a/0"), "2")).await.unwrap();
        assert!(number > before.modified && number.0 < u64::MAX / 2, "{what}: {number:?}");
        // ... and who was there comes round.
        eventually(what, async || {
            kv(&zone).commit(Txn::new().put(&key("a/1"), "2")).await.is_ok_and(|next| next > number)
        })
        .await;
        let heads = server.dig().short(&head_name(&server), "TXT").await.unwrap();
        assert_eq!(heads.len(), 1, "{what}: {heads:?}");
        assert_eq!(listed(&zone, &everything()).await, ["a/0=2", "a/1=2", "a/2=1", "b=by hand"], "{what}");
    }
}

#[tokio::test]
async fn of_two_heads_the_higher_counts() {
    let Some(server) = bind().await else { return };
    write(&server).await;
    let zone = on(&server);
    let before = kv(&zone).get(&key("a/2")).await.unwrap().unwrap();
    update(&server, &format!("add {} 5 TXT \"5 5\"", head_name(&server))).await;
    let number = kv(&zone).commit(Txn::new().put(&key("a/0"), "2")).await.unwrap();
    assert_eq!(number.0, before.modified.0 + 1);
    let heads = server.dig().short(&head_name(&server), "TXT").await.unwrap();
    assert_eq!(heads.len(), 1, "{heads:?}");
}

/// Its holder finds out at the next renewal at the latest, and nothing is lost without a word.
#[tokio::test]
async fn a_lease_that_was_meddled_with_is_lost_or_lives() {
    let ttl = Duration::from_secs(30);
    for garble in [true, false] {
        let Some(server) = bind().await else { return };
        let (zone, witness) = (on(&server), on(&server));
        let mut follower = Follower::start(&witness, &Range::Children(key("a"))).await.unwrap();
        let lease = leases(&zone).grant(ttl).await.unwrap().id;
        kv(&zone).commit(Txn::new().put_leased(&key("a/1"), "1", lease)).await.unwrap();
        follower.until("it is there", |it| it.value("a/1").is_some()).await;
        let record = lease_name(&server, lease);
        let script = format!("delete {record} TXT");
        let garbled = format!("{script}\nadd {record} 5 TXT \"what is this\"");
        update(&server, if garble { &garbled } else { &script }).await;
        follower.until("what was bound to it is gone", |it| it.entries.is_empty()).await;
        eventually("it is swept away", async || {
            server.dig().short(&name(&server, "a/1"), "TXT").await.unwrap().is_empty()
        })
        .await;
        let error = leases(&zone).renew(lease).await.unwrap_err();
        assert_eq!(error.kind(), discovery::ErrorKind::LeaseLost, "garbled: {garble}");
        drop((zone, witness, follower));
        emptied(&server).await;
    }
}

#[tokio::test]
async fn an_entry_that_was_meddled_with_is_what_it_now_is() {
    let Some(server) = bind().await else { return };
    let zone = on(&server);
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    let lease = leases(&zone).grant(Duration::from_secs(30)).await.unwrap().id;
    for entry in ["a/1", "a/2"] {
        kv(&zone).commit(Txn::new().put_leased(&key(entry), "1", lease)).await.unwrap();
    }
    let [one, two] = ["a/1", "a/2"].map(|entry| name(&server, entry));
    update(
        &server,
        &format!("delete {one} TXT\nadd {one} 5 TXT \"discovery=1 m=x\" \"2\"\ndelete {two} TXT"),
    )
    .await;
    let garbled = Some(&b"discovery=1 m=x2"[..]);
    follower.until("it is seen", |it| it.value("a/2").is_none() && it.value("a/1") == garbled).await;
    kv(&zone).commit(Txn::new().put_leased(&key("a/1"), "3", lease)).await.unwrap();
    kv(&zone).commit(Txn::new().absent(&key("a/2")).put_leased(&key("a/2"), "3", lease)).await.unwrap();
    assert_eq!(listed(&zone, &everything()).await, ["a/1=3", "a/2=3"]);
    // A second record beside ours is nobody's.
    update(&server, &format!("add {one} 5 TXT \"beside\"")).await;
    assert_eq!(listed(&zone, &everything()).await, ["a/1=3", "a/2=3"]);
    leases(&zone).revoke(lease).await.unwrap();
    emptied(&server).await;
}
