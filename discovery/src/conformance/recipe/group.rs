//! Whoever dies is covered for, by exactly one, exactly once.

use futures_util::future::join_all;

use super::{LONG, clients, filled, is_lost, name, nothing_left};
use crate::{
    ErrorKind,
    conformance::context::{Client, Context, key, refused},
    kv::{Range, Txn},
    recipe::{Departure, Group, Membership, News},
};

/// Where the signs of life are.
const ALIVE: &str = "_groups/eu1.prod.thing/alive";

fn group(client: &Client) -> Group {
    client.discovery().group(&name()).expect("there are keys and leases").ttl(LONG)
}

async fn joined(cx: &Context, group: &Group, label: &str) -> Membership {
    cx.within("a place in the group", group.join(label)).await.expect("it can be joined")
}

/// A member on each client, labelled with its number, and with something in hand.
async fn members(cx: &Context, clients: &[Client]) -> Vec<Membership> {
    let mut members = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        let member = joined(cx, &group(client), &n.to_string()).await;
        member.entrust(format!("work of {n}")).await.expect("it is a member");
        members.push(member);
    }
    members
}

/// Waits until a member looks after this one, or after nobody. Nobody dies.
async fn until_buddy(cx: &Context, member: &mut Membership, id: Option<&str>) {
    loop {
        let what = format!("{id:?} to be the buddy of {}", member.label());
        match cx.within(what, member.next()).await.expect("it is a member") {
            News::Buddy(buddy) if buddy.as_ref().map(|buddy| &*buddy.id) == id => return,
            News::Buddy(_) => {}
            News::Departed(gone) => panic!("nobody died: {gone:?}"),
        }
    }
}

/// Waits for a departure; who is looked after may change before.
async fn departed(cx: &Context, member: &mut Membership) -> Departure {
    loop {
        let news = cx.within("a departure to be told", member.next()).await;
        if let News::Departed(gone) = news.expect("it is a member") {
            return gone;
        }
    }
}

/// Waits until the members are these, as others see them.
async fn until_labels(cx: &Context, client: &Client, labels: &[&str]) {
    let group = group(client);
    let seen = async || {
        let seats = group.seats().await.expect("the circle closes");
        seats.iter().map(|seat| &*seat.label).eq(labels.iter().copied())
    };
    cx.eventually(format!("the members to be {labels:?}"), seen).await;
}

/// What is to be done for a member that is gone: leaves a note of who did it.
fn cover(by: &Membership, gone: &Departure) -> Txn {
    let duties = gone.duties().cloned().unwrap_or_else(|| "nothing".into());
    Txn::new().put(&key(&format!("covered/{}/{}", gone.label(), by.label())), duties)
}

/// Waits until these are covered for, by these, as in `covered/1/2`: for the first by the second.
async fn until_covered(cx: &Context, client: &Client, notes: &[&str]) {
    let range = Range::Subtree(key("covered"));
    let covered = async || {
        let all = client.kv().scan(&range).await.expect("the range can be read").entries;
        assert!(all.len() <= notes.len(), "covered for too often: {all:?}");
        for entry in &all {
            assert_eq!(entry.created, entry.modified, "covered for twice: {entry:?}");
        }
        all.iter().map(|entry| entry.key.as_str()).eq(notes.iter().copied())
    };
    cx.eventually(format!("{notes:?}"), covered).await;
}

/// Looks after others until it dies.
async fn serve(mut member: Membership) {
    while let Ok(news) = member.next().await {
        let News::Departed(gone) = news else { continue };
        let duties = gone.duties().expect("each has something in hand");
        assert_eq!(*duties, format!("work of {}", gone.label()));
        gone.settle(cover(&member, &gone)).await.expect("nobody else covers for it");
    }
}

pub(in crate::conformance) async fn each_looks_after_the_one_before(cx: &Context) {
    let clients = clients(cx, 6).await;
    let mut members = members(cx, &clients[..5]).await;
    let ids: Vec<_> = members.iter().map(|member| member.id().to_owned()).collect();
    for (n, member) in members.iter_mut().enumerate() {
        until_buddy(cx, member, Some(&ids[(n + 4) % 5])).await;
    }
    until_labels(cx, &clients[5], &["0", "1", "2", "3", "4"]).await;
    let seats = group(&clients[5]).seats().await.expect("the circle closes");
    assert!(seats.iter().all(|seat| seat.is_alive && !seat.has_left), "{seats:?}");
    // A newcomer is the last one: it looks after the fifth, and the first after it.
    let mut newcomer = joined(cx, &group(&clients[5]), "5").await;
    until_buddy(cx, &mut members[0], Some(newcomer.id())).await;
    until_buddy(cx, &mut newcomer, Some(&ids[4])).await;
}

pub(in crate::conformance) async fn those_who_join_at_once_form_one_circle(cx: &Context) {
    let clients = clients(cx, 6).await;
    let mut members =
        join_all(clients.iter().map(async |client| joined(cx, &group(client), "-").await)).await;
    let observer = group(&clients[0]);
    cx.eventually("all to be seen", async || observer.seats().await.expect("it closes").len() == 6).await;
    let seats = observer.seats().await.expect("it closes");
    for member in &mut members {
        let at = seats.iter().position(|seat| seat.id == member.id()).expect("it has a seat");
        until_buddy(cx, member, Some(&seats[(at + 5) % 6].id)).await;
    }
}

pub(in crate::conformance) async fn two_neighbours_who_die_are_covered_for_once_each(cx: &Context) {
    let clients = clients(cx, 5).await;
    let members = members(cx, &clients).await;
    let serving: Vec<_> = members.into_iter().map(|member| tokio::spawn(serve(member))).collect();
    let die = async |task: usize| {
        serving[task].abort();
        cx.eventually("its end", async || serving[task].is_finished()).await;
    };
    until_labels(cx, &clients[0], &["0", "1", "2", "3", "4"]).await;
    // In this order, so that the second does not cover for the first.
    die(2).await;
    die(1).await;
    until_covered(cx, &clients[0], &["covered/1/3", "covered/2/3"]).await;
    until_labels(cx, &clients[0], &["0", "3", "4"]).await;
    die(4).await;
    until_covered(cx, &clients[0], &["covered/1/3", "covered/2/3", "covered/4/0"]).await;
    until_labels(cx, &clients[0], &["0", "3"]).await;
    assert!(!serving[0].is_finished() && !serving[3].is_finished(), "the others live");
}

pub(in crate::conformance) async fn settled_with_its_effects_or_not_at_all(cx: &Context) {
    let clients = clients(cx, 2).await;
    let mut members = members(cx, &clients).await;
    let duties = members[0].duties_key().expect("a key");
    // Leaving with something in hand hands it over.
    members.remove(0).leave().await.expect("it was a member");
    let (mut behind, closed) = (members.remove(0), key("closed"));
    clients[1].commit(Txn::new().put(&closed, "1")).await;
    let gone = departed(cx, &mut behind).await;
    assert_eq!((gone.label(), gone.has_left()), ("0", true));
    assert_eq!(gone.duties().map(|duties| &**duties), Some(&b"work of 0"[..]));
    refused(gone.settle(cover(&behind, &gone).absent(&closed)).await, ErrorKind::Conflict);
    until_covered(cx, &clients[1], &[]).await;
    assert!(clients[1].get(&duties).await.is_some(), "not one without the other");
    drop(gone);
    let gone = departed(cx, &mut behind).await;
    assert_eq!(gone.label(), "0", "it is told again");
    for _ in 0..2 {
        gone.settle(cover(&behind, &gone)).await.expect("it is settled, by nobody else");
    }
    until_covered(cx, &clients[1], &["covered/0/1"]).await;
    assert_eq!(clients[1].get(&duties).await, None);
    until_labels(cx, &clients[0], &["1"]).await;
    until_buddy(cx, &mut behind, None).await;
}

pub(in crate::conformance) async fn who_is_cut_off_is_covered_for_once(cx: &Context) {
    let (cut_off, first, last) = (cx.fragile().await, cx.client().await, cx.client().await);
    let mut before = joined(cx, &group(&first), "first").await;
    let mut member = joined(cx, &group(&cut_off).ttl(cx.ttl()), "middle").await;
    member.entrust("work").await.expect("it is a member");
    let mut behind = joined(cx, &group(&last), "last").await;
    until_buddy(cx, &mut behind, Some(member.id())).await;
    cx.cut().await;
    let gone = departed(cx, &mut behind).await;
    assert!(!member.fence().is_valid(), "it believes that nobody covers for it");
    assert_eq!((gone.label(), gone.has_left()), ("middle", false));
    assert_eq!(gone.duties().map(|duties| &**duties), Some(&b"work"[..]));
    gone.settle(cover(&behind, &gone)).await.expect("nobody else covers for it");
    cx.heal().await;
    refused(cx.within("it to be told", member.next()).await, ErrorKind::LeaseLost);
    is_lost(cx, &first, member.fence()).await;
    refused(cx.within("an answer", member.leave()).await, ErrorKind::LeaseLost);
    // It comes back as somebody else; nobody is told of it any more.
    until_buddy(cx, &mut behind, Some(before.id())).await;
    let again = joined(cx, &group(&cut_off), "again").await;
    until_buddy(cx, &mut before, Some(again.id())).await;
    until_labels(cx, &first, &["first", "last", "again"]).await;
}

pub(in crate::conformance) async fn a_newcomer_covers_for_all_who_have_died(cx: &Context) {
    let (observer, fragile) = (cx.client().await, cx.fragile().await);
    let clients = [fragile, cx.fragile().await, cx.fragile().await];
    let mut dead = members(cx, &clients).await;
    cx.expire().await;
    filled(cx, &observer, ALIVE, 0).await;
    for member in &mut dead {
        until_lost(cx, member).await;
    }
    let mut newcomer = joined(cx, &group(&observer), "newcomer").await;
    for label in ["2", "1", "0"] {
        let gone = departed(cx, &mut newcomer).await;
        assert_eq!((gone.label(), gone.has_left()), (label, false));
        assert_eq!(*gone.duties().expect("it had something in hand"), format!("work of {label}"));
        gone.settle(cover(&newcomer, &gone)).await.expect("nobody else covers for it");
    }
    until_buddy(cx, &mut newcomer, None).await;
    newcomer.leave().await.expect("it was a member");
    until_covered(cx, &observer, &["covered/0/newcomer", "covered/1/newcomer", "covered/2/newcomer"]).await;
    filled(cx, &observer, "_groups", 0).await;
}

/// Told what there is to be told before it was known, it hears that it is dead.
async fn until_lost(cx: &Context, member: &mut Membership) {
    let lost = async {
        loop {
            if let Err(error) = member.next().await {
                return error;
            }
        }
    };
    assert_eq!(cx.within("the dead to be told", lost).await.kind(), ErrorKind::LeaseLost);
}

pub(in crate::conformance) async fn who_dies_while_covering_is_covered_for(cx: &Context) {
    let clients = clients(cx, 4).await;
    let mut members = members(cx, &clients).await;
    let (mut last, mut covers) = (members.remove(3), members.remove(2));
    drop(members.remove(1));
    let unsettled = departed(cx, &mut covers).await;
    assert_eq!(unsettled.label(), "1");
    let late = cover(&covers, &unsettled);
    drop(covers);
    filled(cx, &clients[2], ALIVE, 2).await;
    refused(unsettled.settle(late.clone()).await, ErrorKind::LeaseLost);
    for label in ["2", "1"] {
        let gone = departed(cx, &mut last).await;
        assert_eq!(gone.label(), label);
        assert_eq!(*gone.duties().expect("it had something in hand"), format!("work of {label}"));
        gone.settle(cover(&last, &gone)).await.expect("nobody else has covered for it");
    }
    refused(unsettled.settle(late).await, ErrorKind::LeaseLost);
    until_buddy(cx, &mut last, Some(members[0].id())).await;
    until_covered(cx, &clients[3], &["covered/1/3", "covered/2/3"]).await;
}

pub(in crate::conformance) async fn leaving_with_empty_hands_is_no_departure(cx: &Context) {
    let clients = clients(cx, 5).await;
    let join = async |client: &Client| joined(cx, &group(client), "-").await;
    let mut all = Vec::new();
    for client in &clients[..3] {
        all.push(join(client).await);
    }
    let (mut last, middle, mut first) = (all.remove(2), all.remove(1), all.remove(0));
    until_buddy(cx, &mut last, Some(middle.id())).await;
    middle.leave().await.expect("it was a member");
    until_buddy(cx, &mut last, Some(first.id())).await;
    last.leave().await.expect("it was a member");
    until_buddy(cx, &mut first, None).await;
    first.leave().await.expect("it was a member");
    nothing_left(cx, &clients[0]).await;
    // All at once.
    let all = join_all(clients.iter().map(join)).await;
    let left = cx.within("all to leave", join_all(all.into_iter().map(Membership::leave))).await;
    assert!(left.iter().all(Result::is_ok), "{left:?}");
    nothing_left(cx, &clients[0]).await;
}
