//! Groups while all is well: who joins, who is whose buddy, and who leaves.

use std::time::Duration;

use discovery::{
    Error, ErrorKind,
    mem::Mem,
    recipe::{Departure, Group, Membership, News},
};
use futures_util::{StreamExt, future::join_all};
use tokio::{task::JoinSet, time};

use super::support::{Client, MOMENT, TTL, entries, for_seeds, key, nothing_left, pending, within};

/// Waits for a buddy to be told.
pub(crate) async fn buddy(member: &mut Membership) -> Option<String> {
    match within(2 * TTL, "a buddy is told", member.next()).await.unwrap() {
        News::Buddy(buddy) => buddy.map(|buddy| buddy.id),
        News::Departed(gone) => panic!("{}: {gone:?}", member.label()),
    }
}

/// Waits for a departure to be told; buddies may be told before.
pub(crate) async fn departed(member: &mut Membership) -> Departure {
    loop {
        if let News::Departed(gone) = within(3 * TTL, "a departure is told", member.next()).await.unwrap() {
            return gone;
        }
    }
}

/// So many members, each on a client of its own, labelled with its number.
pub(crate) async fn members(mem: &Mem, count: usize) -> (Vec<Client>, Vec<Membership>) {
    let clients: Vec<_> = (0..count).map(|_| Client::new(mem)).collect();
    let mut members = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        members.push(client.group().join(&n.to_string()).await.unwrap());
    }
    (clients, members)
}

pub(crate) async fn labels(group: &Group) -> Vec<String> {
    group.seats().await.unwrap().into_iter().map(|seat| seat.label).collect()
}

#[tokio::test(start_paused = true)]
async fn each_looks_after_the_one_before_and_the_first_after_the_last() {
    for count in 1..8 {
        let mem = Mem::new();
        let (clients, mut members) = members(&mem, count).await;
        let ids: Vec<_> = members.iter().map(|member| member.id().to_owned()).collect();
        for (n, member) in members.iter_mut().enumerate() {
            let before = (count > 1).then(|| ids[(n + count - 1) % count].clone());
            assert_eq!(buddy(member).await, before, "{n} of {count}");
            assert_eq!(member.label(), n.to_string());
            pending("nothing else to be told", member.next()).await;
        }
        let seats = clients[0].group().seats().await.unwrap();
        assert!(seats.iter().map(|seat| &seat.id).eq(&ids), "{seats:?}");
        assert!(seats.iter().all(|seat| seat.is_alive && !seat.has_left));
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_changes_the_buddy_of_the_first_only() {
    let mem = Mem::new();
    let (clients, mut members) = members(&mem, 4).await;
    for member in &mut members {
        buddy(member).await;
    }
    let newcomer = clients[2].group().join("").await.unwrap();
    assert_eq!(buddy(&mut members[0]).await.unwrap(), newcomer.id());
    for member in &mut members[1..] {
        pending("it is nobody else's business", member.next()).await;
    }
}

#[test]
fn fifty_who_join_at_once_form_one_circle() {
    for_seeds(10, |seed| async move {
        let mem = Mem::new();
        let mut joining = JoinSet::new();
        for n in 0..50 {
            let client = Client::seeded(&mem, seed * 100 + n);
            client.fault.delay(Duration::from_millis(fastrand::u64(0..5)));
            client.fault.lose_replies(fastrand::usize(0..2));
            joining.spawn(async move { client.group().join(&n.to_string()).await.unwrap() });
        }
        let mut members = within(10 * TTL, "all join", joining.join_all()).await;
        let seats = Client::new(&mem).group().seats().await.unwrap();
        assert_eq!(seats.len(), 50, "seed {seed}");
        for member in &mut members {
            let at = seats.iter().position(|seat| seat.id == member.id()).unwrap();
            assert_eq!(buddy(member).await.unwrap(), seats[(at + 49) % 50].id, "seed {seed}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn who_leaves_with_empty_hands_is_not_told_of() {
    for leaver in 0..4 {
        let mem = Mem::new();
        let (clients, mut members) = members(&mem, 4).await;
        for member in &mut members {
            buddy(member).await;
        }
        let ids: Vec<_> = members.iter().map(|member| member.id().to_owned()).collect();
        members.remove(leaver).leave().await.unwrap();
        // The one behind closes the gap, and the others hear nothing.
        let mut behind = members.remove(leaver % 3);
        assert_eq!(buddy(&mut behind).await.unwrap(), ids[(leaver + 3) % 4], "behind {leaver}");
        for member in &mut members {
            pending("it is nobody else's business", member.next()).await;
        }
        assert_eq!(labels(&clients[0].group()).await.len(), 3);
        members.insert(0, behind);
        while let Some(member) = members.pop() {
            member.leave().await.unwrap();
        }
        drop(clients);
        nothing_left(&mem).await;
    }
}

#[test]
fn all_who_leave_at_once_leave_nothing() {
    for_seeds(100, |seed| async move {
        let mem = Mem::new();
        let (clients, mut members) = members(&mem, 1 + fastrand::usize(0..8)).await;
        for client in &clients {
            client.fault.delay(Duration::from_millis(fastrand::u64(0..4)));
            client.fault.lose_replies(fastrand::usize(0..3));
        }
        for member in &mut members {
            if fastrand::bool() {
                buddy(member).await;
            }
        }
        let left = within(TTL, "all leave", join_all(members.into_iter().map(Membership::leave))).await;
        assert!(left.iter().all(Result::is_ok), "seed {seed}: {left:?}");
        drop(clients);
        nothing_left(&mem).await;
    });
}

#[test]
fn some_who_join_while_others_leave_form_one_circle() {
    for_seeds(100, |seed| async move {
        let mem = Mem::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut all = JoinSet::new();
        for n in 0..12 {
            let client = Client::seeded(&mem, seed * 100 + n);
            client.fault.delay(Duration::from_millis(random.u64(0..4)));
            let (begin, stay) = (random.u64(0..40), random.u64(0..40));
            all.spawn(async move {
                time::sleep(Duration::from_millis(begin)).await;
                let mut member = client.group().join(&n.to_string()).await.unwrap();
                let until = time::Instant::now() + Duration::from_millis(stay);
                while let Ok(news) = time::timeout_at(until, member.next()).await {
                    assert!(matches!(news.unwrap(), News::Buddy(_)), "seed {seed}: nobody dies");
                }
                member.leave().await.unwrap();
            });
        }
        within(TTL, &format!("seed {seed}: all come and go"), all.join_all()).await;
        nothing_left(&mem).await;
    });
}

#[test]
fn a_join_in_trouble_makes_one_member() {
    for_seeds(100, |seed| async move {
        let mem = Mem::new();
        let (others, mut members) = members(&mem, fastrand::usize(0..3)).await;
        let client = Client::seeded(&mem, seed);
        let group = client.group();
        client.fault.delay(Duration::from_millis(20));
        client.fault.lose_replies(2);
        let joining = tokio::spawn(async move { group.join("troubled").await.unwrap() });
        // Anywhere between the first write and the next look, what it holds is taken from it.
        time::sleep(Duration::from_millis(fastrand::u64(0..200))).await;
        if seed % 2 == 0 {
            mem.expire_all();
        } else {
            client.fault.expire_next(1);
        }
        let mut member = within(3 * TTL, "it joins", joining).await.unwrap();
        client.fault.calm();
        loop {
            // The others may have died as well.
            match time::timeout(TTL, member.next()).await {
                Ok(Ok(News::Departed(gone))) => {
                    gone.settle(discovery::kv::Txn::new()).await.unwrap_or_default();
                }
                Ok(Ok(News::Buddy(_))) => {}
                Ok(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::LeaseLost, "seed {seed}: {error}");
                    member = client.group().join("again").await.unwrap();
                }
                Err(_) => break,
            }
        }
        members.retain(|member| member.fence().is_valid());
        let seats = client.group().seats().await.unwrap();
        let alive = seats.iter().filter(|seat| seat.is_alive).count();
        assert_eq!(alive, 1 + members.len(), "seed {seed}: {seats:?}");
        drop(others);
    });
}

#[tokio::test(start_paused = true)]
async fn a_dropped_join_is_a_death_at_most() {
    for millis in 0..60 {
        let mem = Mem::new();
        let (_clients, mut others) = members(&mem, 2).await;
        let client = Client::new(&mem);
        client.fault.delay(Duration::from_millis(7));
        client.fault.lose_replies(1);
        let group = client.group();
        let joined = time::timeout(Duration::from_millis(millis), group.join("short-lived")).await;
        drop(joined);
        // Told without waiting for the lease, if there is anything to be told.
        let gone = async {
            loop {
                if let News::Departed(gone) = others[0].next().await.unwrap() {
                    assert_eq!((gone.label(), gone.duties()), ("short-lived", None));
                    gone.settle(discovery::kv::Txn::new()).await.unwrap();
                }
            }
        };
        let _ = time::timeout(TTL / 3, gone).await;
        assert_eq!(labels(&client.group()).await, ["0", "1"], "dropped after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_circle_can_be_watched() {
    let mem = Mem::new();
    let watcher = Client::new(&mem);
    let mut circles = watcher.group().watch();
    let mut next = async || {
        let seats = within(TTL, "the circle is told", circles.next()).await.unwrap().unwrap();
        seats.iter().map(|seat| format!("{} {}", seat.label, seat.is_alive)).collect::<Vec<_>>()
    };
    assert_eq!(next().await, [""; 0]);
    let (clients, mut members) = members(&mem, 2).await;
    assert_eq!(next().await, ["0 true", "1 true"]);
    clients[0].fault.expire_next(1);
    while next().await != ["0 false", "1 true"] {}
    departed(&mut members[1]).await.settle(discovery::kv::Txn::new()).await.unwrap();
    while next().await != ["1 true"] {}
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_by_all() {
    for what in ["circle", "record"] {
        let mem = Mem::new();
        let (clients, mut members) = members(&mem, 2).await;
        buddy(&mut members[1]).await;
        let all = entries(&mem).await;
        for entry in all.iter().filter(|entry| entry.key.as_str().contains(what)) {
            mem.plant(&entry.key, "not ours");
        }
        let is_clear = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(what), "{error}");
        };
        is_clear(within(MOMENT, "told", clients[0].group().seats()).await.unwrap_err());
        is_clear(within(MOMENT, "told", clients[0].group().join("new")).await.unwrap_err());
        if what == "record" {
            is_clear(within(MOMENT, "told", members[1].next()).await.unwrap_err());
            is_clear(members.remove(0).leave().await.unwrap_err());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_told_and_never_waited_for() {
    use discovery::{Backend, kv::Txn};
    for what in ["circle", "record"] {
        let mem = Mem::new();
        let (clients, mut members) = members(&mem, 3).await;
        buddy(&mut members[1]).await;
        let first = members[0].id().to_owned();
        let all = entries(&mem).await;
        let doomed = |key: &str| {
            key.ends_with(what) || (what == "record" && key.ends_with(&format!("{what}/{first}")))
        };
        let doomed: Vec<_> = all.iter().filter(|entry| doomed(entry.key.as_str())).collect();
        assert_eq!(doomed.len(), 1);
        mem.kv().unwrap().commit(Txn::new().delete(&doomed[0].key)).await.unwrap();
        if what == "record" {
            let error = within(2 * TTL, "joining", clients[0].group().join("new")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let error = within(20 * TTL, "looking", clients[0].group().seats()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        clients[0].fault.expire_next(1);
        let told = async {
            match members[1].next().await {
                Ok(News::Departed(gone)) => gone.settle(Txn::new()).await.unwrap_err(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => error,
            }
        };
        let error = within(2 * TTL, "told", told).await;
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(within(2 * TTL, "leaving", members.remove(1).leave()).await.is_ok() || what == "record");
    }
}

#[tokio::test(start_paused = true)]
async fn a_buddy_without_a_record_is_told_when_it_is_named() {
    use discovery::{Backend, kv::Txn};
    let mem = Mem::new();
    let (_clients, mut members) = members(&mem, 2).await;
    let record = key(&members[0].duties_key().unwrap().as_str().replace("duties", "record"));
    assert!(mem.kv().unwrap().get(&record).await.unwrap().is_some());
    mem.kv().unwrap().commit(Txn::new().delete(&record)).await.unwrap();
    let error = within(TTL, "told", members[1].next()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
