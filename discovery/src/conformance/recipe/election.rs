//! One leads, the next one follows, and everybody can know.

use std::sync::mpsc;

use futures_util::{StreamExt, stream::BoxStream};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{LONG, done, filled, freeze, is_lost, name, nothing_left, was_lost};
use crate::{
    ErrorKind, Result,
    conformance::context::{Client, Context, refused},
    recipe::{Election, Leader, Leadership},
};

/// Where the candidates are.
const TOP: &str = "_elections";

fn election(client: &Client) -> Election {
    client.discovery().election(&name()).expect("there are keys and leases").ttl(LONG)
}

async fn leads(cx: &Context, election: &Election, value: &'static str) -> Leadership {
    cx.within("the leadership", election.campaign(value)).await.expect("it can be had")
}

/// Somebody who wants to lead, and is in the queue when this returns, as the last of so many.
async fn candidate(
    cx: &Context,
    client: &Client,
    (value, place): (&'static str, usize),
    observer: &Client,
) -> JoinHandle<Result<Leadership>> {
    let election = election(client);
    let candidate = tokio::spawn(async move { election.campaign(value).await });
    filled(cx, observer, TOP, place).await;
    candidate
}

pub(in crate::conformance) async fn the_first_leads_and_the_next_one_follows(cx: &Context) {
    let (one, two, observer) = (cx.client().await, cx.client().await, cx.client().await);
    let who = election(&observer);
    assert_eq!(who.leader().await.expect("it can be asked"), None);
    let first = leads(cx, &election(&one), "one").await;
    let second = candidate(cx, &two, ("two", 2), &observer).await;
    let leader = who.leader().await.expect("it can be asked").expect("somebody leads");
    assert_eq!((&*leader.value, leader.token), (&b"one"[..], first.fence().token()));
    assert!(!second.is_finished(), "two lead");
    let fence = first.fence().clone();
    first.resign().await.expect("it led");
    assert!(!fence.is_valid());
    let second = done(cx, "the next one", second).await.expect("it can be had");
    assert!(second.fence().token() > fence.token());
    let is_told = async || who.leader().await.expect("it can be asked").is_some_and(|now| now.value == "two");
    cx.eventually("the next one to be seen", is_told).await;
}

pub(in crate::conformance) async fn leaders_are_told_in_order(cx: &Context) {
    let (one, two, three, observer) =
        (cx.client().await, cx.client().await, cx.client().await, cx.client().await);
    let mut news = Leaders::follow(&observer);
    news.until(cx, None).await;
    let first = leads(cx, &election(&one), "one").await;
    news.until(cx, Some("one")).await;
    first.proclaim("one, elsewhere").await.expect("it leads");
    let told = news.until(cx, Some("one, elsewhere")).await.expect("a leader");
    assert_eq!(told.token, first.fence().token());
    let second = candidate(cx, &two, ("two", 2), &observer).await;
    let third = candidate(cx, &three, ("three", 3), &observer).await;
    first.resign().await.expect("it led");
    news.until(cx, Some("two")).await;
    drop(done(cx, "the next one", second).await.expect("it can be had"));
    news.until(cx, Some("three")).await;
    done(cx, "the last one", third).await.expect("it can be had").resign().await.expect("it led");
    news.until(cx, None).await;
    assert_eq!(news.told, ["-", "one", "one, elsewhere", "two", "three", "-"]);
    nothing_left(cx, &observer).await;
}

pub(in crate::conformance) async fn leaders_are_told_through_an_outage(cx: &Context) {
    let (one, two, observer) = (cx.client().await, cx.client().await, cx.fragile().await);
    let first = leads(cx, &election(&one), "one").await;
    let second = candidate(cx, &two, ("two", 2), &one).await;
    let mut news = Leaders::follow(&observer);
    news.until(cx, Some("one")).await;
    cx.cut().await;
    first.resign().await.expect("it led");
    let second = done(cx, "the next one", second).await.expect("it can be had");
    cx.heal().await;
    let leader = news.until(cx, Some("two")).await.expect("a leader");
    assert_eq!(leader.token, second.fence().token());
    second.proclaim("two, elsewhere").await.expect("it leads");
    news.until(cx, Some("two, elsewhere")).await;
    assert_eq!(news.told, ["one", "two", "two, elsewhere"]);
}

pub(in crate::conformance) async fn who_is_cut_off_gives_up_before_the_next_leads(cx: &Context) {
    let (one, two) = (cx.fragile().await, cx.client().await);
    let first = leads(cx, &election(&one).ttl(cx.ttl()), "one").await;
    let (fence, next) = (first.fence().clone(), election(&two));
    let second = tokio::spawn(async move {
        let second = next.campaign("two").await.expect("it can be had");
        (fence.is_valid(), second)
    });
    filled(cx, &two, TOP, 2).await;
    cx.cut().await;
    let (both, second) = done(cx, "the lease to end", second).await;
    assert!(!both, "two believe to lead");
    cx.heal().await;
    is_lost(cx, &two, first.fence()).await;
    // It comes back as the last one.
    let again = candidate(cx, &one, ("one again", 2), &two).await;
    let leader = election(&two).leader().await.expect("it can be asked").expect("somebody leads");
    assert_eq!(leader.token, second.fence().token());
    second.resign().await.expect("it led");
    let again = done(cx, "its turn", again).await.expect("it can be had");
    assert!(again.fence().token() > leader.token);
}

pub(in crate::conformance) async fn who_was_frozen_leads_no_more_when_it_wakes_up(cx: &Context) {
    let two = cx.client().await;
    let (has_it, told) = oneshot::channel();
    let (wake, go_on) = mpsc::channel();
    let frozen = cx.program(async move |cx| {
        let one = cx.client().await;
        let first = leads(&cx, &election(&one).ttl(cx.ttl()), "one").await;
        has_it.send(first.fence().token()).expect("the check goes on");
        freeze(go_on);
        assert!(!first.fence().is_valid(), "two believe to lead");
        is_lost(&cx, &one, first.fence()).await;
        refused(first.proclaim("it is still me").await, ErrorKind::LeaseLost);
        was_lost(first.resign().await);
    });
    let token = cx.within("a leader", told).await.expect("no panic");
    let second = leads(cx, &election(&two), "two").await;
    assert!(second.fence().token() > token);
    wake.send(()).expect("it is frozen");
    done(cx, "the leader to be told", frozen).await;
    let leader = election(&two).leader().await.expect("it can be asked").expect("somebody leads");
    assert_eq!((&*leader.value, leader.token), (&b"two"[..], second.fence().token()));
    second.resign().await.expect("it led");
}

pub(in crate::conformance) async fn who_is_expired_leads_no_more(cx: &Context) {
    let (one, two) = (cx.fragile().await, cx.client().await);
    let first = leads(cx, &election(&one), "one").await;
    cx.expire().await;
    let second = leads(cx, &election(&two), "two").await;
    is_lost(cx, &two, first.fence()).await;
    refused(first.proclaim("it is still me").await, ErrorKind::LeaseLost);
    was_lost(first.resign().await);
    let leader = election(&two).leader().await.expect("it can be asked").expect("somebody leads");
    assert_eq!((&*leader.value, leader.token), (&b"two"[..], second.fence().token()));
    second.proclaim("two, elsewhere").await.expect("it leads");
}

/// Somebody who is told who leads.
struct Leaders {
    news: BoxStream<'static, Result<Option<Leader>>>,
    /// Everything so far.
    told: Vec<String>,
}

impl Leaders {
    fn follow(client: &Client) -> Self {
        Self { news: election(client).leaders(), told: Vec::new() }
    }

    /// Waits until this one, or nobody, leads.
    async fn until(&mut self, cx: &Context, value: Option<&str>) -> Option<Leader> {
        let expected = value.unwrap_or("-");
        loop {
            let next = cx.within(format!("{expected} after {:?}", self.told), self.news.next()).await;
            let leader = next.expect("it goes on").expect("an outage is no error");
            let name = leader.as_ref().map_or("-".into(), |leader| String::from_utf8_lossy(&leader.value));
            self.told.push(name.into_owned());
            if self.told.last().is_some_and(|last| last == expected) {
                return leader;
            }
        }
    }
}
