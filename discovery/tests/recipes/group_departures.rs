//! Deaths in a group: each is covered for by exactly one, exactly once.

use discovery::{
    ErrorKind,
    kv::Txn,
    mem::Mem,
    recipe::{Membership, News},
};
use futures_util::future::join_all;
use tokio::time;

use super::{
    group::{buddy, departed, labels, members},
    support::{
        Client, MOMENT, TTL, entries, eventually, for_seeds, key, name, nothing_left, pending, value, within,
    },
};

/// Covers for all who are gone until nothing more is told for a while; returns their labels.
async fn cover(member: &mut Membership) -> Vec<String> {
    let mut covered = Vec::new();
    while let Ok(news) = time::timeout(2 * TTL, member.next()).await {
        if let News::Departed(gone) = news.unwrap() {
            let report = key(&format!("covered/{}", gone.id()));
            gone.settle(Txn::new().absent(&report).put(&report, member.label().to_owned())).await.unwrap();
            covered.push(gone.label().to_owned());
        }
    }
    covered
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_is_covered_for_by_those_who_live_exactly_once() {
    // Which of four die: one, two neighbours, two opposite ones, all but one.
    for dead in
        [&[0][..], &[1], &[2], &[3], &[1, 2], &[3, 0], &[0, 2], &[1, 3], &[0, 1, 2], &[3, 0, 1], &[1, 2, 3]]
    {
        let mem = Mem::new();
        let (clients, mut members) = members(&mem, 4).await;
        for member in &mut members {
            buddy(member).await;
        }
        for n in dead {
            clients[*n].fault.partition();
        }
        let living = |n: &usize| !dead.contains(n);
        let watching = members.iter_mut().enumerate().filter(|(n, _)| living(n));
        let covered = join_all(watching.map(async |(n, member)| (n, cover(member).await))).await;
        for n in dead {
            // The next one behind who lives, and nobody else.
            let behind = (1..4).map(|steps| (n + steps) % 4).find(living).unwrap();
            for (by, covered) in &covered {
                let times = covered.iter().filter(|label| **label == n.to_string()).count();
                assert_eq!(times, usize::from(*by == behind), "of {dead:?}, {n} by {by}");
            }
        }
        assert_eq!(labels(&clients[covered[0].0].group()).await.len(), 4 - dead.len());
        for (n, member) in members.into_iter().enumerate() {
            if living(&n) {
                member.leave().await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_have_died_a_newcomer_covers_for_all() {
    let mem = Mem::new();
    let (clients, members) = members(&mem, 5).await;
    for member in &members {
        member.entrust(format!("work of {}", member.label())).await.unwrap();
    }
    drop((members, clients));
    time::sleep(10 * TTL).await;
    let client = Client::new(&mem);
    let mut newcomer = client.group().join("newcomer").await.unwrap();
    let mut work = Vec::new();
    for _ in 0..5 {
        let gone = departed(&mut newcomer).await;
        assert!(!gone.has_left());
        work.push(String::from_utf8(gone.duties().unwrap().to_vec()).unwrap());
        gone.settle(Txn::new()).await.unwrap();
    }
    work.sort();
    assert!(work.iter().enumerate().all(|(n, work)| *work == format!("work of {n}")), "{work:?}");
    assert_eq!(buddy(&mut newcomer).await, None, "it is alone");
    newcomer.leave().await.unwrap();
    drop(client);
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_settled_is_told_again_and_again() {
    let mem = Mem::new();
    let (clients, mut members) = members(&mem, 3).await;
    members[0].entrust("work").await.unwrap();
    clients[0].fault.partition();
    for _ in 0..3 {
        assert_eq!(*departed(&mut members[1]).await.duties().unwrap(), "work");
    }
    // Now the one who knows of it dies as well.
    clients[1].fault.partition();
    let second = departed(&mut members[2]).await;
    assert_eq!((second.label(), second.duties()), ("1", None));
    second.settle(Txn::new()).await.unwrap();
    let first = departed(&mut members[2]).await;
    assert_eq!((first.label(), &**first.duties().unwrap()), ("0", &b"work"[..]));
    first.settle(Txn::new()).await.unwrap();
    assert_eq!(buddy(&mut members[2]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_happens_with_its_effects_or_not_at_all() {
    let mem = Mem::new();
    let (clients, mut members) = members(&mem, 3).await;
    clients[0].fault.expire_next(1);
    let gone = departed(&mut members[1]).await;
    let (there, report) = (key("there"), key("report"));
    mem.plant(&there, "1");
    let refused = gone.settle(Txn::new().absent(&there).put(&report, "1")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.operation()), (ErrorKind::Conflict, Some("settle")));
    assert_eq!(value(&mem, &report).await, None);
    assert_eq!(departed(&mut members[1]).await.id(), gone.id(), "it is still to be covered for");

    // The reply to the first attempt is lost; the effects come once.
    clients[1].fault.lose_replies(1);
    gone.settle(Txn::new().absent(&report).put(&report, "2")).await.unwrap();
    assert_eq!(value(&mem, &report).await.unwrap(), "2");
    assert_eq!(buddy(&mut members[1]).await.unwrap(), members[2].id());
    let full = (0..90).fold(Txn::new(), |txn, n| txn.put(&key(&format!("many/{n}")), "1"));
    clients[2].fault.expire_next(1);
    departed(&mut members[1]).await.settle(full).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_arrives_late_changes_nothing_any_more() {
    let mem = Mem::new();
    let (clients, mut members) = members(&mem, 3).await;
    clients[0].fault.expire_next(1);
    let gone = departed(&mut members[1]).await;
    let report = key("report");
    clients[1].calls.strand_next(TTL / 9);
    gone.settle(Txn::new().put(&report, "covered for")).await.unwrap();
    mem.plant(&report, "read");
    time::sleep(TTL / 3).await;
    assert_eq!(value(&mem, &report).await.unwrap(), "read");
    assert_eq!(labels(&clients[1].group()).await, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_dead_itself_settles_nothing() {
    for covered_for in [false, true] {
        let mem = Mem::new();
        let (clients, mut members) = members(&mem, 3).await;
        clients[0].fault.expire_next(1);
        let gone = departed(&mut members[1]).await;
        clients[1].fault.expire_next(1);
        let second = departed(&mut members[2]).await;
        if covered_for {
            second.settle(Txn::new()).await.unwrap();
        }
        let late = within(TTL, "told", gone.settle(Txn::new().put(&key("a"), "1"))).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::LeaseLost, "{late}");
        assert_eq!(value(&mem, &key("a")).await, None);
        let member = members.remove(1);
        for refused in [member.entrust("work").await, member.relieve().await, member.leave().await] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::LeaseLost);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_behind_the_dead_covers_for_it_and_nobody_else() {
    let mem = Mem::new();
    let (clients, mut members) = members(&mem, 3).await;
    members[2].entrust("work").await.unwrap();
    clients[2].fault.expire_next(1);
    // The first is told of the last; then somebody joins between the two.
    let gone = departed(&mut members[0]).await;
    let mut newcomer = clients[1].group().join("newcomer").await.unwrap();
    let refused = gone.settle(Txn::new().put(&key("a"), "by the first")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(value(&mem, &key("a")).await, None);
    assert_eq!(buddy(&mut members[0]).await.unwrap(), newcomer.id());
    pending("it is not its business any more", members[0].next()).await;
    let gone = departed(&mut newcomer).await;
    assert_eq!(*gone.duties().unwrap(), "work");
    gone.settle(Txn::new().put(&key("a"), "by the newcomer")).await.unwrap();
    assert_eq!(value(&mem, &key("a")).await.unwrap(), "by the newcomer");
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_does_not_cover_for_itself() {
    for _ in 0..50 {
        let mem = Mem::new();
        let (_clients, mut members) = members(&mem, 1).await;
        assert_eq!(buddy(&mut members[0]).await, None);
        mem.expire_all();
        let told = within(TTL, "told", members[0].next()).await;
        assert_eq!(told.unwrap_err().kind(), ErrorKind::LeaseLost);
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_with_something_in_hand_hands_it_to_the_one_behind() {
    let mem = Mem::new();
    let (clients, mut members) = members(&mem, 3).await;
    members[1].entrust("old work").await.unwrap();
    members[1].entrust("work").await.unwrap();
    members.remove(1).leave().await.unwrap();
    let gone = departed(&mut members[1]).await;
    assert!(gone.has_left());
    assert_eq!((gone.label(), &**gone.duties().unwrap()), ("1", &b"work"[..]));
    // Both hand on what they know of: the settlement that is still to come as well.
    members.remove(1).leave().await.unwrap();
    let gone = departed(&mut members[0]).await;
    assert_eq!(gone.label(), "1");
    gone.settle(Txn::new()).await.unwrap();

    // Who is relieved has nothing to hand on, who is alone hands it to whoever comes.
    members[0].entrust("last work").await.unwrap();
    members[0].relieve().await.unwrap();
    members[0].entrust("the very last work").await.unwrap();
    members.remove(0).leave().await.unwrap();
    let mut newcomer = clients[0].group().join("newcomer").await.unwrap();
    let gone = departed(&mut newcomer).await;
    assert_eq!(*gone.duties().unwrap(), "the very last work");
    gone.settle(Txn::new()).await.unwrap();
    newcomer.leave().await.unwrap();
    assert_eq!(entries(&mem).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_membership_is_a_death() {
    let mem = Mem::new();
    let (_clients, mut members) = members(&mem, 3).await;
    let first = members.remove(0);
    first.entrust("work").await.unwrap();
    drop(first);
    let gone = within(MOMENT, "told at once", departed(&mut members[0])).await;
    assert!(!gone.has_left());
    assert_eq!(*gone.duties().unwrap(), "work");
}

#[tokio::test(start_paused = true)]
async fn a_member_who_is_cut_off_knows_before_it_is_covered_for() {
    let mem = Mem::new();
    let (clients, mut members) = members(&mem, 2).await;
    let fence = members[0].fence().clone();
    clients[0].fault.partition();
    assert_eq!(departed(&mut members[1]).await.label(), "0");
    assert!(!fence.is_valid());
    clients[0].fault.heal();
    let told = within(TTL, "told", async {
        loop {
            if let Err(error) = members[0].next().await {
                return error;
            }
        }
    });
    assert_eq!(told.await.kind(), ErrorKind::LeaseLost);
    let again = clients[0].group().join("again").await.unwrap();
    assert_ne!(again.id(), members[0].id(), "nobody comes back");
    eventually("all are there", async || labels(&clients[1].group()).await.len() == 3).await;
}

#[test]
fn a_death_is_noticed_in_time_however_often_the_connection_breaks() {
    for_seeds(20, async |seed| {
        let mem = Mem::new();
        let (dying, troubled) = (Client::seeded(&mem, seed), Client::seeded(&mem, seed));
        // Shorter than the pauses that a client may take.
        let ttl = TTL / 9;
        let join = async |client: &Client, label| {
            client.discovery.group(&name()).unwrap().ttl(ttl).join(label).await.unwrap()
        };
        let _victim = join(&dying, "victim").await;
        let mut survivor = join(&troubled, "survivor").await;
        buddy(&mut survivor).await;
        let breaks = async {
            loop {
                time::sleep(ttl / 3).await;
                troubled.fault.cut();
            }
        };
        let story = async {
            assert!(time::timeout(20 * ttl, survivor.next()).await.is_err(), "nobody has died yet");
            dying.fault.partition();
            drop(within(ttl + ttl / 2, "noticed", departed(&mut survivor)).await);
        };
        tokio::select! {
            () = breaks => {}
            () = story => {}
        }
    });
}
