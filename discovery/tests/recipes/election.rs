//! Elections: who leads, who sees it, and what it costs those who wait.

use discovery::{Backend, Error, ErrorKind, Result, kv::Txn, mem::Mem, recipe::Leader};
use futures_util::{StreamExt, stream::BoxStream};
use tokio::time::{self, Instant};

use super::support::{Client, MOMENT, TTL, entries, filled, nothing_left, pending, within};

type Leaders = BoxStream<'static, Result<Option<Leader>>>;

async fn next(leaders: &mut Leaders) -> Option<String> {
    let leader = within(2 * TTL, "a leader is told", leaders.next()).await.unwrap().unwrap();
    leader.map(|leader| String::from_utf8(leader.value.to_vec()).unwrap())
}

async fn leader(client: &Client) -> Option<String> {
    let leader = client.election().leader().await.unwrap();
    leader.map(|leader| String::from_utf8(leader.value.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_until_it_resigns_and_then_the_second() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    assert_eq!(leader(&one).await, None);
    let first = one.election().campaign("one").await.unwrap();
    let campaign = tokio::spawn({
        let election = other.election();
        async move { election.campaign("other").await.unwrap() }
    });
    filled(&mem, "_elections", 2).await;
    assert_eq!(leader(&other).await.unwrap(), "one");
    assert_eq!(one.election().leader().await.unwrap().unwrap().token, first.fence().token());
    assert!(!campaign.is_finished());

    first.proclaim("one, elsewhere").await.unwrap();
    assert_eq!(leader(&other).await.unwrap(), "one, elsewhere");
    let token = first.fence().token();
    first.resign().await.unwrap();
    let second = within(MOMENT, "elected", campaign).await.unwrap();
    assert_eq!(leader(&one).await.unwrap(), "other");
    assert!(second.fence().token() > token);
    drop((second, one, other));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn who_lost_it_proclaims_nothing() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let leadership = client.election().campaign("one").await.unwrap();
    let empty = leadership.proclaim("").await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Invalid);
    mem.expire_all();
    let late = leadership.proclaim("still me").await.unwrap_err();
    assert_eq!((late.kind(), late.operation()), (ErrorKind::LeaseLost, Some("proclaim")));
    assert!(entries(&mem).await.is_empty());
    assert_eq!(client.election().campaign("").await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_be_proven_gives_up_before_the_next_one_leads() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    let first = one.election().campaign("one").await.unwrap();
    let fence = first.fence().clone();
    let given_up = tokio::spawn(async move {
        fence.lost().await;
        Instant::now()
    });
    let campaign = tokio::spawn({
        let election = other.election();
        async move { (election.campaign("other").await.unwrap(), Instant::now()) }
    });
    filled(&mem, "_elections", 2).await;
    one.fault.partition();
    let (second, elected) = campaign.await.unwrap();
    assert!(given_up.await.unwrap() <= elected && second.fence().is_valid());
    let late = first.proclaim("me").await.unwrap_err();
    assert!(late.is_transient(), "it cannot even ask: {late}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_campaign_is_no_candidacy() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let election = client.election();
    let first = election.campaign("one").await.unwrap();
    client.fault.lose_replies(1);
    pending("somebody leads", election.campaign("two")).await;
    client.fault.calm();
    time::sleep(MOMENT).await;
    assert_eq!(entries(&mem).await.len(), 1);
    first.resign().await.unwrap();
    assert_eq!(election.leader().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn watchers_see_leaders_come_and_go_in_order() {
    let mem = Mem::new();
    let (client, watcher) = (Client::new(&mem), Client::new(&mem));
    let mut leaders = watcher.election().leaders();
    assert_eq!(next(&mut leaders).await, None);
    pending("nobody leads", leaders.next()).await;
    for name in ["a", "b", "c"] {
        let leadership = client.election().campaign(name).await.unwrap();
        assert_eq!(next(&mut leaders).await.unwrap(), name);
        leadership.proclaim("elsewhere").await.unwrap();
        assert_eq!(next(&mut leaders).await.unwrap(), "elsewhere");
        leadership.proclaim("elsewhere").await.unwrap();
        pending("nothing new", leaders.next()).await;
        leadership.resign().await.unwrap();
        assert_eq!(next(&mut leaders).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn watchers_survive_outages_and_catch_up() {
    let mem = Mem::new();
    let (client, watcher) = (Client::new(&mem), Client::new(&mem));
    watcher.fault.partition();
    let mut leaders = watcher.election().leaders();
    pending("nobody can be asked", leaders.next()).await;
    watcher.fault.heal();
    assert_eq!(next(&mut leaders).await, None);
    let first = client.election().campaign("a").await.unwrap();
    assert_eq!(next(&mut leaders).await.unwrap(), "a");

    watcher.fault.partition();
    first.resign().await.unwrap();
    drop(client.election().campaign("b").await.unwrap());
    time::sleep(MOMENT).await;
    let last = client.election().campaign("c").await.unwrap();
    pending("it is out of reach", leaders.next()).await;
    watcher.fault.heal();
    assert_eq!(next(&mut leaders).await.unwrap(), "c", "it may miss leaders, not the last one");

    // The same one under another life is another leader.
    last.resign().await.unwrap();
    assert_eq!(next(&mut leaders).await, None);
    let denied = Error::new(ErrorKind::Denied, "not for you");
    watcher.fault.fail_next(1, &denied);
    drop(client.election().campaign("d").await.unwrap());
    let error = within(TTL, "told", leaders.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(leaders.next().await.is_none(), "an error is the end");
}

#[tokio::test(start_paused = true)]
async fn candidates_who_come_and_go_wake_nobody_but_the_one_behind() {
    let mem = Mem::new();
    let watcher = Client::new(&mem);
    let clients: Vec<_> = (0..10).map(|_| Client::new(&mem)).collect();
    let mut leaders = watcher.election().leaders();
    next(&mut leaders).await;
    let mut candidates = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        let election = client.election();
        candidates.push(tokio::spawn(async move {
            let _leadership = election.campaign("somebody").await.unwrap();
            std::future::pending::<()>().await;
        }));
        filled(&mem, "_elections", n + 1).await;
    }
    next(&mut leaders).await;
    let watching = tokio::spawn(async move { leaders.next().await });
    time::sleep(MOMENT).await;
    for client in clients.iter().chain([&watcher]) {
        client.calls.take();
    }
    candidates[4].abort();
    filled(&mem, "_elections", 9).await;
    let woken: Vec<_> = clients.iter().map(|client| client.calls.take()).collect();
    for (n, calls) in woken.iter().enumerate() {
        assert!(calls.is_empty() || n == 4 || n == 5, "{n} was woken: {calls:?}");
    }
    assert_eq!(watcher.calls.take().len(), 0, "the watcher was woken");
    assert!(!watching.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_leader_removed_by_hand_is_told_and_another_leads() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    let first = one.election().campaign("one").await.unwrap();
    let entry = entries(&mem).await.remove(0).key;
    let mut leaders = other.election().leaders();
    assert_eq!(next(&mut leaders).await.unwrap(), "one");
    mem.kv().unwrap().commit(Txn::new().delete(&entry)).await.unwrap();
    within(MOMENT, "told", first.fence().lost()).await;
    assert_eq!(next(&mut leaders).await, None);
    let second = within(MOMENT, "elected", one.election().campaign("two")).await.unwrap();
    assert_eq!(next(&mut leaders).await.unwrap(), "two");
    assert!(second.fence().is_valid());
}
