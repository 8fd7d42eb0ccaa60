//! Leases: sessions that end when nobody renews them.

use std::time::Duration;

use discovery::{
    ErrorKind, LeaseId,
    kv::{Guard, Range, Txn},
};
use discovery_testbed::{Proxy, ZooKeeper};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::common::*;

/// Short enough to be waited for, long enough for a busy machine.
const TTL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn an_entry_lives_with_its_lease() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let (zk, reader) = (zk(&server.connect_string()), zk(&server.connect_string()));
    let (kv, leases, k) = (kv(&zk), leases(&zk), key("a/1"));
    let grant = leases.grant(TTL).await.unwrap();
    assert_eq!(grant.ttl, TTL);
    kv.commit(Txn::new().absent(&k).put_leased(&k, "x", grant.id)).await.unwrap();
    assert_eq!(kv.get(&k).await.unwrap().unwrap().lease, Some(grant.id));
    assert_eq!(
        crate::common::kv(&reader).get(&k).await.unwrap().unwrap().lease,
        None,
        "not one of its leases"
    );

    let mut follower = Follower::start(&reader, &everything()).await.unwrap();
    let until = Instant::now() + TTL * 2;
    while Instant::now() < until {
        assert_eq!(leases.renew(grant.id).await.unwrap(), TTL);
        sleep(TTL / 10).await;
    }
    assert_eq!(listed(&reader, &everything()).await, ["a/1=x"], "renewed for longer than its ttl");

    // Nobody renews it, although the client goes on to ping.
    let last = Instant::now();
    follower.until("the end of the lease", |f| f.entries.is_empty()).await;
    assert!(last.elapsed() < TTL * 2, "{:?}", last.elapsed());
    assert_eq!(leases.renew(grant.id).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let error = kv.commit(Txn::new().put_leased(&k, "x", grant.id)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    leases.revoke(grant.id).await.expect("gone already");
}

#[tokio::test]
async fn what_is_revoked_is_gone_when_that_returns() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let (zk, reader) = (zk(&server.connect_string()), zk(&server.connect_string()));
    for n in 0..20 {
        let lease = leases(&zk).grant(STEADY).await.unwrap().id;
        let (one, two) = (key("a/1"), key("b/2"));
        kv(&zk).commit(Txn::new().put_leased(&one, "x", lease).put_leased(&two, "y", lease)).await.unwrap();
        assert_eq!(kv(&reader).scan(&everything()).await.unwrap().entries.len(), 2, "round {n}");
        leases(&zk).revoke(lease).await.unwrap();
        assert_eq!(kv(&reader).scan(&everything()).await.unwrap().entries, [], "round {n}");
    }
}

#[tokio::test]
async fn an_expired_session_is_a_lost_lease() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let zk = zk_at(&format!("{}/cn?session_timeout=2s", proxy.address()));
    let observer = crate::common::zk(&server.connect_string());
    let lease = leases(&zk).grant(TTL).await.unwrap().id;
    let k = key("a/1");
    kv(&zk).commit(Txn::new().put_leased(&k, "x", lease)).await.unwrap();
    proxy.refuse().await;
    eventually("the server ends the session", async || kv(&observer).get(&k).await.unwrap().is_none()).await;
    proxy.pass().await;
    eventually("the lease is known to be lost", async || {
        leases(&zk).renew(lease).await.is_err_and(|error| error.kind() == ErrorKind::LeaseLost)
    })
    .await;
    let error = kv(&zk).commit(Txn::new().put_leased(&k, "x", lease)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    // A new one works, as does the session for reads, which ended as well.
    let lease = leases(&zk).grant(TTL).await.unwrap().id;
    kv(&zk).commit(Txn::new().absent(&k).put_leased(&k, "x", lease)).await.unwrap();
    assert_eq!(kv(&zk).get(&k).await.unwrap().unwrap().lease, Some(lease));
}

#[tokio::test]
async fn a_lease_survives_a_short_cut() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let zk = zk(&proxy.address().to_string());
    let lease = leases(&zk).grant(STEADY).await.unwrap().id;
    let k = key("a/1");
    kv(&zk).commit(Txn::new().put_leased(&k, "x", lease)).await.unwrap();
    let created = kv(&zk).get(&k).await.unwrap().unwrap().created;
    for _ in 0..5 {
        proxy.cut().await;
        eventually("the lease can be renewed", async || leases(&zk).renew(lease).await.is_ok()).await;
    }
    eventually("reads work", async || kv(&zk).get(&k).await.is_ok()).await;
    assert_eq!(kv(&zk).get(&k).await.unwrap().unwrap().created, created);
}

#[tokio::test]
async fn a_change_of_lease_is_no_removal() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let (ours, theirs) = (zk(&server.connect_string()), zk(&server.connect_string()));
    let mut follower = Follower::start(&ours, &Range::Children(key("a"))).await.unwrap();
    let k = key("a/1");
    let grant = async |zk| leases(zk).grant(STEADY).await.unwrap().id;
    let lease = grant(&ours).await;
    kv(&ours).commit(Txn::new().absent(&k).put_leased(&k, "0", lease)).await.unwrap();
    let mut leased: Vec<(_, Option<LeaseId>)> = Vec::new();
    for _ in 0..5 {
        leased.extend([
            (&theirs, Some(grant(&theirs).await)),
            (&theirs, None),
            (&ours, Some(grant(&ours).await)),
        ]);
    }
    for (n, (zk, lease)) in leased.into_iter().enumerate() {
        let entry = kv(zk).get(&k).await.unwrap().unwrap();
        let txn = Txn::new().unmodified(&entry);
        let value = (n + 1).to_string();
        let txn = match lease {
            Some(lease) => txn.put_leased(&k, value.clone(), lease),
            None => txn.put(&k, value.clone()),
        };
        kv(zk).commit(txn).await.unwrap();
        let now = kv(zk).get(&k).await.unwrap().unwrap();
        assert_eq!(now.lease, lease);
        follower.until("the change", |f| f.value("a/1") == Some(value.as_bytes())).await;
    }
    assert!(!follower.saw_removal("a/1"), "{:?}", follower.changes);
}

/// Everybody comes, everybody moves to a new lease, everybody goes: nobody is turned away for being one of many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storms_are_weathered() {
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let processes = (0..8).map(|process| {
        let zk = zk_at(&format!("{}/cn?call_timeout=30s", server.connect_string()));
        tokio::spawn(async move {
            let keys: Vec<_> = (0..100).map(|n| key(&format!("cart/{process}-{n}"))).collect();
            let first = leases(&zk).grant(STEADY).await.unwrap().id;
            let second = leases(&zk).grant(STEADY).await.unwrap().id;
            let all = |txns: Vec<Txn>| try_join_all(txns.into_iter().map(|txn| kv(&zk).commit(txn)));
            let unmodified =
                |n: usize, revision| Txn::new().guard(Guard::Unmodified(keys[n].clone(), revision));
            let came = keys.iter().map(|key| Txn::new().absent(key).put_leased(key, "x", first));
            let came = all(came.collect()).await.unwrap();
            let moved = came.into_iter().enumerate();
            let moved = moved.map(|(n, revision)| unmodified(n, revision).put_leased(&keys[n], "y", second));
            let moved = all(moved.collect()).await.unwrap();
            let gone =
                moved.into_iter().enumerate().map(|(n, revision)| unmodified(n, revision).delete(&keys[n]));
            all(gone.collect()).await.unwrap();
        })
    });
    for process in processes.collect::<Vec<_>>() {
        process.await.unwrap();
    }
    assert_eq!(listed(&zk(&server.connect_string()), &everything()).await, [""; 0]);
}

#[tokio::test]
async fn one_transaction_has_one_lease() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let one = leases(&zk).grant(STEADY).await.unwrap().id;
    let two = leases(&zk).grant(STEADY).await.unwrap().id;
    let error = kv(&zk)
        .commit(Txn::new().put_leased(&key("a"), "x", one).put_leased(&key("b"), "x", two))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = kv(&zk).commit(Txn::new().put_leased(&key("a"), "x", LeaseId(7))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    kv(&zk).commit(Txn::new().put_leased(&key("a"), "x", one).put(&key("b"), "y")).await.unwrap();
    leases(&zk).revoke(one).await.unwrap();
    assert_eq!(listed(&zk, &everything()).await, ["b=y"]);
    for ttl in [Duration::ZERO, Duration::from_secs(1 << 40)] {
        assert_eq!(leases(&zk).grant(ttl).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_handle() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let lease = leases(&zk).grant(STEADY).await.unwrap().id;
    leases(&zk).grant(STEADY).await.unwrap();
    kv(&zk).commit(Txn::new().put_leased(&key("a"), "x", lease)).await.unwrap();
    let mut follower = Follower::start(&zk, &everything()).await.unwrap();
    assert_eq!(sessions(&server).await, 3);
    let dropped = Instant::now();
    drop(zk);
    eventually("the leases end", async || sessions(&server).await == 1).await;
    follower.until("the entry is gone", |f| f.entries.is_empty()).await;
    assert!(dropped.elapsed() < STEADY / 2, "by their ttl only");
    drop(follower);
    eventually("the last session ends", async || sessions(&server).await == 0).await;
}

/// How many sessions a server has.
async fn sessions(server: &ZooKeeper) -> usize {
    let dump = server.four_letter_word("dump").await.unwrap();
    let (sessions, _) = dump.split_once("ephemeral nodes dump").unwrap_or_else(|| panic!("{dump}"));
    sessions.lines().filter(|line| line.starts_with("\t0x")).count()
}
