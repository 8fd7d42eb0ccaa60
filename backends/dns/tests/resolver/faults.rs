//! Servers that are down, silent, slow, or of another opinion: an outage is an error, never an empty service.

use std::time::Duration;

use discovery::{Backend, ErrorKind, Revision, Scope};
use discovery_testbed::{Mode, NameServer, Port, Proxy};
use tokio::time::{Instant, sleep};

use crate::common::{BRISK, CART, Follower, authorities, dns, eventually, fetch, service};

fn cart() -> Scope {
    Scope::Service(service("cart"))
}

#[tokio::test]
async fn a_watch_fails_with_the_server_and_another_goes_on_where_it_was() {
    for server in authorities(CART) {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], &format!("/disco.test?{BRISK}"));
        let mut follower = Follower::start(&dns, "cart").await;
        follower.until("quiet", |seen| seen.quiet > 1).await;
        server.kill().unwrap();
        let error = follower.failure().await;
        assert!(error.is_transient(), "{error:?}");
        assert!(error.to_string().starts_with("dns: watch: "), "{error}");
        let error = fetch(&dns, "cart").await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        server.restart().await.unwrap();
        let after = follower.known.revision();
        let resumed = Follower::of(dns.watch(&cart(), Some(after))).await;
        assert_eq!(resumed.known, follower.known);
        assert!(resumed.known.revision() > after);
    }
}

#[tokio::test]
async fn silence_is_over_at_the_deadline() {
    let Some(server) = NameServer::bind().records(CART).start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let dns = dns(&[proxy.address()], "/disco.test?floor=50ms&ceiling=50ms&deadline=400ms");
    let mut follower = Follower::start(&dns, "cart").await;
    for mode in [Mode::BlackHole, Mode::LoseReplies] {
        proxy.set(mode).await;
        let error = follower.failure().await;
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        let begin = Instant::now();
        let error = fetch(&dns, "cart").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        proxy.pass().await;
        eventually("it to be found again", async || {
            fetch(&dns, "cart").await.is_ok_and(|all| all.len() == 2)
        })
        .await;
        follower = Follower::start(&dns, "cart").await;
    }
}

#[tokio::test]
async fn a_slow_server_is_waited_for_within_the_deadline() {
    let Some(server) = NameServer::bind().records(CART).start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    proxy.delay(Duration::from_millis(100), Duration::from_millis(100)).await;
    let patient = dns(&[proxy.address()], "/disco.test?deadline=20s");
    assert_eq!(fetch(&patient, "cart").await.unwrap().len(), 2);
    let hasty = dns(&[proxy.address()], "/disco.test?deadline=300ms");
    assert_eq!(fetch(&hasty, "cart").await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn one_of_two_servers_is_enough() {
    let Some(alive) = NameServer::knot().records(CART).start_or_skip().await else { return };
    let nobody = Port::reserve().unwrap();
    let silent = Proxy::start(alive.address()).unwrap();
    silent.black_hole().await;
    // This one has no such zone and refuses.
    let Some(other) = NameServer::knot().zone("other.test").start_or_skip().await else { return };
    for broken in [nobody.address(), silent.address(), other.address()] {
        for servers in [[broken, alive.address()], [alive.address(), broken]] {
            let dns = dns(&servers, "/disco.test?deadline=4s");
            assert_eq!(fetch(&dns, "cart").await.unwrap().len(), 2, "{servers:?}");
            let begin = Instant::now();
            for _ in 0..10 {
                assert_eq!(fetch(&dns, "cart").await.unwrap().len(), 2);
            }
            assert!(
                begin.elapsed() < Duration::from_secs(2),
                "who is down is asked again and again: {begin:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_other_server_takes_over_without_a_word() {
    let Some(one) = NameServer::knot().records(CART).start_or_skip().await else { return };
    let Some(two) = NameServer::bind().records(CART).start_or_skip().await else { return };
    let dns = dns(&[one.address(), two.address()], "/disco.test?floor=50ms&ceiling=50ms&deadline=4s");
    let mut follower = Follower::start(&dns, "cart").await;
    for (dying, living) in [(&one, &two), (&two, &one)] {
        living.restart().await.unwrap();
        dying.kill().unwrap();
        let quiet = follower.quiet;
        follower.until("more looks", |seen| seen.quiet > quiet + 5).await;
    }
    assert!(follower.changes.is_empty(), "{:?}", follower.changes);
}

/// SERVFAIL of a real server: a zone that has expired, as its primary is gone.
#[tokio::test]
async fn a_server_that_cannot_tell_is_no_empty_service() {
    let Some(primary) = NameServer::bind().records(CART).start_or_skip().await else { return };
    // A zone that was never transferred.
    primary.kill().unwrap();
    let lagging = NameServer::bind().secondary_of(&primary);
    primary.restart().await.unwrap();
    let Some(secondary) = lagging.start_or_skip().await else { return };
    primary.kill().unwrap();
    secondary.stop().await.unwrap();
    let _ = std::fs::remove_file(secondary.dir().join("zone"));
    let _ = std::fs::remove_file(secondary.dir().join("zone.journal"));
    // It never serves, so its start is not waited for.
    let restarting = tokio::time::timeout(Duration::from_secs(20), secondary.restart());
    let dns = dns(&[secondary.address()], "/disco.test?deadline=1s");
    let asking = eventually("a server that says that it cannot tell", async || {
        let error = fetch(&dns, "cart").await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        error.to_string().contains("SERVFAIL")
    });
    tokio::select! {
        () = asking => {}
        end = restarting => panic!("{end:?}"),
    }
}

/// Two servers behind one address, one of which has not heard of the latest: answers flip between old and new.
#[tokio::test]
async fn a_lagging_secondary_makes_nothing_flap() {
    let Some(new) = NameServer::knot().records(CART).start_or_skip().await else { return };
    let old_cart = CART.replace("2.cart", "3.cart").replace("2._http", "3._http");
    let Some(old) = NameServer::knot().records(old_cart).start_or_skip().await else { return };
    let balanced = Proxy::start(new.address()).unwrap();
    let dns =
        dns(&[balanced.address()], "/disco.test?records=srv&floor=50ms&ceiling=50ms&deadline=2s&misses=3");
    let mut follower = Follower::start(&dns, "cart").await;
    for n in 0..20 {
        balanced.retarget(if n % 2 == 0 { old.address() } else { new.address() }).await;
        let items = follower.quiet + follower.changes.len();
        follower.until("a look", |seen| seen.quiet + seen.changes.len() > items).await;
    }
    assert!(follower.changes == ["3"] || follower.changes.is_empty(), "{:?}", follower.changes);
    balanced.retarget(new.address()).await;
    follower.until("what is true", |seen| seen.known.len() == 2).await;
}

/// What comes back first behind an outage may be half of the truth: a server that has just started, or has an old zone.
#[tokio::test]
async fn a_resumed_watch_does_not_flap() {
    let Some(server) = NameServer::knot().records(CART).start_or_skip().await else { return };
    let Some(half) = NameServer::knot().records("").start_or_skip().await else { return };
    let line = Proxy::start(server.address()).unwrap();
    let dns = dns(&[line.address()], "/disco.test?floor=300ms&ceiling=300ms&deadline=500ms");
    let mut follower = Follower::start(&dns, "cart").await;
    line.refuse().await;
    follower.failure().await;
    line.retarget(half.address()).await;
    line.pass().await;
    let resumed = async || {
        let mut updates = dns.watch(&cart(), Some(follower.known.revision()));
        futures_util::StreamExt::next(&mut updates).await.unwrap().map(|update| (update, updates))
    };
    let (first, updates) = loop {
        match resumed().await {
            Ok(first) => break first,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let discovery::Update::Reset(all) = first else { panic!("{first:?}") };
    assert_eq!(all, follower.known, "the first empty answer behind an outage is one, and not yet the second");
    line.retarget(server.address()).await;
    let mut follower = Follower::quiet(updates);
    follower.known = all;
    follower.until("quiet", |seen| seen.quiet > 2).await;
    assert!(follower.changes.is_empty(), "{:?}", follower.changes);
    // And who does not resume believes what there is.
    line.retarget(half.address()).await;
    eventually("nothing", async || fetch(&dns, "cart").await.is_ok_and(|all| all.is_empty())).await;
    assert_eq!(Follower::of(dns.watch(&cart(), Some(Revision(7)))).await.known.len(), 0);
}

/// A thousand lookups at once are asked in turn, over UDP, and with answers that need TCP.
#[tokio::test]
async fn many_lookups_at_once_do_not_get_into_each_others_way() {
    let many = (0..150).map(|n| format!("many A 10.0.0.{n}\n"));
    let records: String = many.chain([CART.to_owned()]).collect();
    for server in authorities(&records) {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], "/disco.test?port=80&deadline=20s");
        let all = (0..1000).map(async |n| {
            let (name, expected) = if n % 10 == 0 { ("many", 150) } else { ("cart", 2) };
            assert_eq!(fetch(&dns, name).await.unwrap().len(), expected);
        });
        futures_util::future::join_all(all).await;
    }
}
