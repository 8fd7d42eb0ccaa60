//! The buddy circle: each looks after one other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    fence::{Fence, lost},
    place::{Hold, Place, Sight, random_id},
};
use crate::{
    Error, ErrorKind, Result, Revision, ServiceName,
    kv::{Entry, Guard, Key, Range, Txn},
    lease::Sessions,
};

/// How often a circle is read that does not close, because it is changing.
const LOOKS: usize = 20;

/// A circle of members, each of which watches exactly one other, its buddy, and covers for it when it dies: exactly one
/// member does, exactly once.
///
/// The buddy of a member is the one that joined before it; that of the first is the last. What a member has in hand it
/// can [entrust](Membership::entrust) to the group: whoever covers for it gets that.
///
/// # Example: cover for a buddy
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, kv::{Key, Txn}, mem::Mem, recipe::News};
///
/// let mem = Mem::new();
/// let discovery = Discovery::new(mem.clone());
/// let workers = discovery.group(&"batch/workers".parse()?)?;
/// let first = workers.join("first").await?;
/// first.entrust("invoice 17").await?;
/// mem.expire_all(); // The first one dies, as far as the store can tell.
///
/// let mut second = workers.join("second").await?;
/// loop {
///     if let News::Departed(gone) = second.next().await? {
///         assert_eq!(gone.label(), "first");
///         assert_eq!(*gone.duties().expect("something in hand"), "invoice 17");
///         let done: Key = "done/17".parse()?;
///         gone.settle(Txn::new().put(&done, "by the second")).await?; // Both or nothing.
///         break;
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Safety argument
///
/// A member has a permanent record, which names its buddy, and an entry under a lease, which says that it is alive; both
/// are created in one commit, together with the change of the circle. The records form one closed circle at any time,
/// because each commit that changes it does so as a whole, on condition that all records that it is based on are unchanged:
///
/// - *joining* puts the newcomer between the last and the first;
/// - *settling* takes a member out that is not alive any more, and gives its buddy to the one behind it.
///
/// In a circle exactly one record names a given member, so exactly one member may settle its departure; and it can do so
/// only as long as its own entry is alive, in the same commit. So a departure is settled exactly once, whoever else was
/// frozen, cut off or died in the middle of it: what was not settled is found by whoever is next in the circle, even if
/// all have died and somebody joins a day later.
///
/// *No herd, and no dependence on size*: a departure wakes the one behind; joining wakes the first. Each costs a fixed
/// number of reads and one commit, however large the group is.
#[derive(Clone, Debug)]
pub struct Group {
    place: Place,
}

/// Where the circle begins and ends.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Circle {
    first: String,
    last: String,
}

/// A member's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    label: String,
    buddy: String,
    /// Whether it left of its own will.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    left: bool,
    /// Whose departure it settled last: tells an attempt of its own, whose reply was lost, from a newcomer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<String>,
}

/// Something that was read, and the condition that it still is so.
struct Known<T> {
    value: T,
    guard: Guard,
    modified: Revision,
}

impl Group {
    pub(crate) fn new(sessions: &Arc<Sessions>, name: &ServiceName) -> Result<Self> {
        Ok(Self { place: Place::new(sessions, "groups", name)? })
    }

    /// How long a member who died counts as alive; 10 s unless told. The backend may round up.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { place: self.place.ttl(ttl) }
    }

    /// Joins, as the last one. `label` is for people who look. A store that is out of reach is waited for.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) if that took too long; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave a member behind that is found dead, and had nothing in hand.
    pub async fn join(&self, label: &str) -> Result<Membership> {
        self.enter(label).await.map_err(|error| error.during("join"))
    }

    async fn enter(&self, label: &str) -> Result<Membership> {
        let mut id = random_id();
        let mut hold = Hold::new(self.place.session().await?, self.alive(&id)?);
        let mut pace = self.place.pace();
        loop {
            let joined = match self.joining(&id, label).await {
                Ok(txn) => self.place.kv()?.commit(txn.op(hold.op(label_bytes(label)))).await,
                Err(error) => Err(error),
            };
            match joined {
                Ok(revision) => {
                    hold.is_there(revision);
                    break;
                }
                // Whoever came to be all the same has died with the lease. Nobody comes back: this is somebody else.
                Err(error) if error.kind() == ErrorKind::LeaseLost => {
                    id = random_id();
                    hold = self.place.start_over(hold, self.alive(&id)?, &mut pace).await?;
                    continue;
                }
                Err(error) => pace.after(error).await?,
            }
            // It may have been done all the same. If not, it will not be any more: both depend on the same circle. The
            // record tells, which stays there even if the lease is lost by now.
            if let Some(record) = self.place.read(&self.record(&id)?).await? {
                hold.is_there(record.created);
                break;
            }
        }
        Ok(Membership {
            record: Sight::new(self.place.sessions(), self.record(&id)?),
            fence: Fence::new(&self.place, &hold),
            group: self.clone(),
            label: label.to_owned(),
            id,
            hold,
            buddy: None,
        })
    }

    /// Puts a newcomer between the last and the first.
    async fn joining(&self, id: &str, label: &str) -> Result<Txn> {
        let record = |buddy: String| Record { label: label.to_owned(), buddy, left: false, settled: None };
        let Some(circle) = self.read::<Circle>(&self.circle()?).await? else {
            let alone = Circle { first: id.to_owned(), last: id.to_owned() };
            let txn = Txn::new().absent(&self.circle()?).put(&self.circle()?, json(&alone));
            return Ok(txn.put(&self.record(id)?, json(&record(id.to_owned()))));
        };
        let Circle { first, last } = circle.value;
        let Some(mut head) = self.read::<Record>(&self.record(&first)?).await? else {
            // Taken out meanwhile, if the circle is another one by now.
            let now = self.read::<Circle>(&self.circle()?).await?;
            return Err(match now {
                Some(now) if now.modified == circle.modified => missing(&self.record(&first)?),
                _ => Error::new(ErrorKind::Conflict, "the first member is gone"),
            });
        };
        id.clone_into(&mut head.value.buddy);
        let txn = Txn::new().guard(circle.guard).guard(head.guard);
        Ok(txn
            .put(&self.record(&first)?, json(&head.value))
            .put(&self.record(id)?, json(&record(last)))
            .put(&self.circle()?, json(&Circle { first, last: id.to_owned() })))
    }

    /// All members in order, with those who are gone but not settled yet. Reads all of them.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](ErrorKind::Corrupt) if the circle does not close; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn seats(&self) -> Result<Vec<Seat>> {
        let mut pace = self.place.pace();
        for _ in 0..LOOKS {
            // A list that is not of one moment may show a circle that never was.
            if let Some(seats) = self.look().await.map_err(|error| error.during("seats"))? {
                return Ok(seats);
            }
            pace.later().await;
        }
        Err(corrupt(self.place.top(), "the circle does not close").during("seats"))
    }

    async fn look(&self) -> Result<Option<Vec<Seat>>> {
        let all = self.place.scan(&Range::Subtree(self.place.top().clone())).await?;
        self.arrange(&all)
    }

    /// All members in order, now and whenever that changes. Reads all of them, and all that happens among them: for people
    /// who look. Who is slow misses what was in between, never the latest. Outages are waited out.
    pub fn watch(&self) -> BoxStream<'static, Result<Vec<Seat>>> {
        let observer = (self.clone(), self.place.view(Range::Subtree(self.place.top().clone())));
        let circles = stream::try_unfold(observer, |(group, mut view)| async {
            loop {
                view.changed().await?;
                // Half of a commit may show a circle that never was; the other half comes in a moment.
                if let Some(seats) = group.arrange(view.entries().values())? {
                    return Ok(Some((seats, (group, view))));
                }
            }
        });
        circles.boxed()
    }

    /// The members in order; `None` if the circle does not close.
    fn arrange<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> Result<Option<Vec<Seat>>> {
        let named = entries.into_iter().filter_map(|entry| Some((entry.key.below(self.place.top())?, entry)));
        let all: HashMap<&str, &Entry> = named.collect();
        let Some(circle) = all.get("circle") else { return Ok(Some(Vec::new())) };
        let circle: Circle = parse(circle)?;
        let mut seats = Vec::new();
        let mut id = circle.last;
        loop {
            let Some(record) = all.get(&*format!("record/{id}")) else { return Ok(None) };
            let Record { label, buddy, left, .. } = parse(record)?;
            let is_alive = all.contains_key(&*format!("alive/{id}"));
            let is_first = id == circle.first;
            seats.push(Seat { id, label, is_alive, has_left: left });
            if is_first {
                break;
            }
            if seats.len() > all.len() {
                return Ok(None);
            }
            id = buddy;
        }
        seats.reverse();
        Ok(Some(seats))
    }

    /// Takes `gone` out of the circle, which is the buddy of `me`, in one step with `extra`.
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict) if a guard of `extra` does not hold, or `gone` is not the buddy of `me` any more.
    async fn close_gap(&self, me: &str, fence: &Guard, gone: &str, extra: &Txn) -> Result<()> {
        let mut pace = self.place.pace();
        let mut seen = None;
        loop {
            // Ours is read last: what it names must have been there before.
            let circle = self.read::<Circle>(&self.circle()?).await?;
            let theirs = self.read::<Record>(&self.record(gone)?).await?;
            let mut ours = self.read_own(me).await?;
            if ours.value.settled.as_deref() == Some(gone) {
                // By an earlier attempt.
                return Ok(());
            }
            if ours.value.buddy != gone {
                let why = format!("somebody joined behind {gone}, and covers for it");
                return Err(Error::new(ErrorKind::Conflict, why));
            }
            let circle = circle.ok_or_else(|| missing(self.place.top()))?;
            let theirs = theirs.ok_or_else(|| missing(self.place.top()))?;
            ours.value.buddy = theirs.value.buddy;
            ours.value.settled = Some(gone.to_owned());
            let based_on = (ours.modified, theirs.modified, circle.modified);
            let mut txn = extra
                .clone()
                .guard(fence.clone())
                .guard(ours.guard)
                .guard(theirs.guard)
                .absent(&self.alive(gone)?)
                .put(&self.record(me)?, json(&ours.value))
                .delete(&self.record(gone)?)
                .delete(&self.duties(gone)?);
            let Circle { mut first, mut last } = circle.value;
            if first == gone || last == gone {
                if first == gone {
                    me.clone_into(&mut first);
                }
                if last == gone {
                    last = ours.value.buddy;
                }
                txn = txn.guard(circle.guard).put(&self.circle()?, json(&Circle { first, last }));
            }
            match self.place.kv()?.commit(txn).await {
                Ok(_) => return Ok(()),
                // Nothing of the circle was in the way, twice: it was our own death, or what the caller demanded.
                Err(error) if error.kind() == ErrorKind::Conflict && seen == Some(based_on) => {
                    return match self.place.read(&self.alive(me)?).await? {
                        Some(_) => Err(error),
                        None => Err(lost("this member does not count as alive any more")),
                    };
                }
                Err(error) => pace.after(error).await?,
            }
            seen = Some(based_on);
        }
    }

    /// The record of a member by the member itself: it is there until somebody else has settled its departure.
    async fn read_own(&self, me: &str) -> Result<Known<Record>> {
        let ours = self.read(&self.record(me)?).await?;
        ours.ok_or_else(|| lost("this member died, and somebody has covered for it"))
    }

    async fn read<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<Known<T>>> {
        let Some(entry) = self.place.read(key).await? else { return Ok(None) };
        let guard = Guard::Unmodified(key.clone(), entry.modified);
        Ok(Some(Known { value: parse(&entry)?, guard, modified: entry.modified }))
    }

    fn circle(&self) -> Result<Key> {
        self.place.top().join("circle")
    }

    fn record(&self, id: &str) -> Result<Key> {
        self.place.top().join(&format!("record/{id}"))
    }

    fn alive(&self, id: &str) -> Result<Key> {
        self.place.top().join(&format!("alive/{id}"))
    }

    fn duties(&self, id: &str) -> Result<Key> {
        self.place.top().join(&format!("duties/{id}"))
    }
}

/// A member, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seat {
    /// Its id in the group, which nobody else ever has.
    pub id: String,
    /// What it joined as.
    pub label: String,
    /// Whether its lease lives.
    pub is_alive: bool,
    /// Whether it left of its own will; one that is neither alive nor has left is waiting to be covered for.
    pub has_left: bool,
}

/// Being in a group. Dropping it looks like dying to the others: use [`leave`](Membership::leave).
#[derive(Debug)]
#[must_use = "whoever drops a membership is covered for"]
pub struct Membership {
    group: Group,
    id: String,
    label: String,
    hold: Hold,
    fence: Fence,
    /// Our record, where others write who our buddy is.
    record: Sight,
    buddy: Option<Buddy>,
}

/// Whom we look after.
#[derive(Debug)]
struct Buddy {
    id: String,
    /// Its sign of life.
    alive: Sight,
    /// Whether it was seen to be gone.
    is_gone: bool,
}

/// What a member is told.
#[derive(Debug)]
pub enum News {
    /// Whom it looks after from now on; nobody if it is alone.
    Buddy(Option<String>),
    /// Its buddy died, or left with something in hand: cover for it. Told again until it is settled.
    Departed(Departure),
}

impl Membership {
    /// Its id in the group, which nobody else ever has.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it joined as.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The proof that the others count on it.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Where that is written which is in hand. To change it in one step with something else, put it into a transaction for
    /// [`Fence::commit`].
    ///
    /// # Errors
    ///
    /// None in practice: the key has its form.
    pub fn duties_key(&self) -> Result<Key> {
        self.group.duties(&self.id)
    }

    /// Entrusts the group with what is in hand: whoever covers for this member gets it. Replaces what was there; must not
    /// be empty.
    ///
    /// # Errors
    ///
    /// As for [`Fence::commit`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped call may have entrusted it or not.
    pub async fn entrust(&self, duties: impl Into<Bytes>) -> Result<()> {
        let entrusted = self.fence.commit(Txn::new().put(&self.duties_key()?, duties)).await;
        entrusted.map(drop).map_err(|error| error.during("entrust"))
    }

    /// Has nothing in hand any more.
    ///
    /// # Errors
    ///
    /// As for [`Fence::commit`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped call may have taken effect or not.
    pub async fn relieve(&self) -> Result<()> {
        let relieved = self.fence.commit(Txn::new().delete(&self.duties_key()?)).await;
        relieved.map(drop).map_err(|error| error.during("relieve"))
    }

    /// Looks after the buddy, and tells what is to be known. A member that does not ask is alive but looks after nobody.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) if this member does not count as alive any more: join again.
    /// [`Corrupt`](ErrorKind::Corrupt) if somebody else has written into the records of the group.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<News> {
        let fence = self.fence.clone();
        let news = tokio::select! {
            news = self.look_after() => news,
            error = fence.lost() => Err(error),
        };
        news.map_err(|error| error.during("group"))
    }

    async fn look_after(&mut self) -> Result<News> {
        loop {
            if let Some(buddy) = self.buddy.as_ref().filter(|buddy| buddy.is_gone)
                && let Some(departure) = self.departure(&buddy.id).await?
            {
                return Ok(News::Departed(departure));
            }
            let alive = async {
                match &mut self.buddy {
                    // Nobody covers for himself.
                    Some(buddy) if !buddy.is_gone && buddy.id != self.id => buddy.alive.next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                // First: a buddy that is not ours any more is none of our business.
                biased;
                record = self.record.next() => {
                    let record = record?.ok_or_else(|| lost("somebody has covered for this member"))?;
                    let Record { buddy: id, .. } = parse(&record)?;
                    if self.buddy.as_ref().map(|buddy| &buddy.id) != Some(&id) {
                        return self.follow(id);
                    }
                }
                found = alive => if found?.is_none()
                    && let Some(buddy) = &mut self.buddy
                {
                    buddy.is_gone = true;
                },
            }
        }
    }

    fn follow(&mut self, id: String) -> Result<News> {
        let told = (id != self.id).then(|| id.clone());
        let alive = Sight::new(self.group.place.sessions(), self.group.alive(&id)?);
        self.buddy = Some(Buddy { id, alive, is_gone: false });
        Ok(News::Buddy(told))
    }

    /// What there is to cover for a buddy that is gone; if nothing, closes the gap at once.
    async fn departure(&self, gone: &str) -> Result<Option<Departure>> {
        let theirs = self.group.read::<Record>(&self.group.record(gone)?).await?;
        let duties = self.group.place.read(&self.group.duties(gone)?).await?.map(|entry| entry.value);
        // Ours is read last: what it names must have been there before.
        if self.group.read_own(&self.id).await?.value.buddy != gone {
            // Settled, or somebody joined in between and covers for it: our own record will say so in a moment.
            return Ok(None);
        }
        let record = theirs.ok_or_else(|| missing(self.group.place.top()))?.value;
        if record.left && duties.is_none() {
            return match self.group.close_gap(&self.id, &self.fence.guard(), gone, &Txn::new()).await {
                // Somebody joined in between just now.
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                closed => closed.map(|()| None),
            };
        }
        Ok(Some(Departure {
            group: self.group.clone(),
            me: self.id.clone(),
            fence: self.fence.clone(),
            id: gone.to_owned(),
            label: record.label,
            has_left: record.left,
            duties,
        }))
    }

    /// Leaves, and waits until the others can know. What is still in hand is handed to the one behind.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) if it had been lost; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is leaving without a word: the others cover for this member.
    pub async fn leave(self) -> Result<()> {
        self.go().await.map_err(|error| error.during("leave"))?;
        self.hold.forget();
        Ok(())
    }

    async fn go(&self) -> Result<()> {
        let mut pace = self.group.place.pace();
        loop {
            let Some(txn) = self.leaving().await? else { continue };
            let Err(error) = self.fence.commit(txn).await else { return Ok(()) };
            // It may have been done all the same, now or by an earlier attempt.
            let record = self.group.read::<Record>(&self.group.record(&self.id)?).await?;
            if record.is_none_or(|record| record.value.left) {
                return Ok(());
            }
            pace.after(error).await?;
        }
    }

    /// The transaction that leaves; `None` if something had to be tidied up first.
    async fn leaving(&self) -> Result<Option<Txn>> {
        let group = &self.group;
        let mut ours = group.read_own(&self.id).await?;
        let buddy = std::mem::take(&mut ours.value.buddy);
        let is_alone = buddy == self.id;
        let mut txn = Txn::new().guard(ours.guard).delete(self.hold.key());
        if is_alone && group.place.read(&self.duties_key()?).await?.is_none() {
            let circle = group.read::<Circle>(&group.circle()?).await?;
            let circle = circle.ok_or_else(|| missing(group.place.top()))?;
            return Ok(Some(
                txn.guard(circle.guard).delete(&group.circle()?).delete(&group.record(&self.id)?),
            ));
        }
        if !is_alone {
            match group.place.read(&group.alive(&buddy)?).await? {
                // If both leave at the same time, one of them must see it: else nobody would close the gaps.
                Some(alive) => txn = txn.alive(&alive),
                None => {
                    if self.departure(&buddy).await?.is_none() {
                        return Ok(None);
                    }
                }
            }
        }
        let record = Record { buddy, left: true, ..ours.value };
        Ok(Some(txn.put(&group.record(&self.id)?, json(&record))))
    }
}

/// A member that is gone, for its successor to cover for.
#[derive(Debug)]
#[must_use = "a departure that is not settled is told again"]
pub struct Departure {
    group: Group,
    me: String,
    fence: Fence,
    id: String,
    label: String,
    has_left: bool,
    duties: Option<Bytes>,
}

impl Departure {
    /// The id of whoever is gone.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it had joined as.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it left of its own will, with something still in hand.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// What it had in hand, if anything.
    pub fn duties(&self) -> Option<&Bytes> {
        self.duties.as_ref()
    }

    /// Says that it is covered for: applies `effects` (which may be empty, and have at most 90 guards and operations) and
    /// takes it out of the group, in one step. This happens exactly once, whoever else tries, and only as long as this
    /// member is alive itself; so what is done about the departure within the store is best done here. What is done outside
    /// of the store before may be done again by somebody else, who finds the departure if this member dies before it has
    /// settled it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) if this member does not count as alive any more;
    /// [`Conflict`](ErrorKind::Conflict) if a guard of `effects` does not hold, or if somebody joined in between, who covers
    /// for it instead; what the backend refuses. A store that is out of reach is waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: it was settled, or it will be told again.
    pub async fn settle(&self, effects: Txn) -> Result<()> {
        let settled = self.group.close_gap(&self.me, &self.fence.guard(), &self.id, &effects).await;
        settled.map_err(|error| error.during("settle"))
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn parse<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| corrupt(&entry.key, "it cannot be read").with_source(error))
}

fn missing(key: &Key) -> Error {
    corrupt(key, "a record is missing")
}

fn corrupt(key: &Key, what: &str) -> Error {
    let advice =
        "somebody else wrote there: end all members, delete the keys of the group, and start them again";
    Error::new(ErrorKind::Corrupt, format!("{key}: {what}; {advice}"))
}

/// A value must not be empty.
fn label_bytes(label: &str) -> Bytes {
    if label.is_empty() { "-".into() } else { label.to_owned().into() }
}
