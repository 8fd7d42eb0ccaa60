//! Being one of the circle.

use bytes::Bytes;

use super::circle::{Circle, Record};
use crate::{
    ErrorKind, Outcome, Result,
    kv::{Key, Txn},
    lease::Standing,
    recipe::{
        fence::{Fence, lost},
        known::{json, parse},
        place::{Hold, Sight, random_id},
    },
};

/// Being in a group. Dropping it looks like dying to the others: use [`leave`](Membership::leave).
#[derive(Debug)]
#[must_use = "whoever drops a membership is covered for"]
pub struct Membership {
    circle: Circle,
    id: String,
    label: String,
    hold: Hold,
    fence: Fence,
    /// Our record, where others write who our buddy is.
    record: Sight,
    charge: Option<Charge>,
    /// Whom our record names since it was last read, if we do not look after that one yet.
    named: Option<String>,
}

/// Whom we look after.
#[derive(Debug)]
struct Charge {
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
    Buddy(Option<Buddy>),
    /// Its buddy died, or left with something in hand: cover for it. Told again until it is settled.
    Departed(Departure),
}

/// Whom a member looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Buddy {
    /// Its id in the group, which nobody else ever has.
    pub id: String,
    /// What it joined as.
    pub label: String,
}

impl Membership {
    pub(super) async fn begin(circle: &Circle, label: &str) -> Result<Self> {
        let mut id = random_id();
        let mut hold = Hold::new(circle.place.session().await?, circle.alive(&id)?);
        let mut pace = circle.place.pace();
        loop {
            let joined = match circle.joining(&id, label).await {
                Ok(txn) => circle.place.kv()?.commit(txn.op(hold.op(label_bytes(label)))).await,
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
                    hold = circle.place.start_over(hold, circle.alive(&id)?, &mut pace).await?;
                    continue;
                }
                Err(error) => pace.after(error).await?,
            }
            // It may have been done all the same. If not, it will not be any more: both depend on the same circle. The
            // record tells, which stays there even if the lease is lost by now.
            if let Some(record) = circle.place.read(&circle.record(&id)?).await? {
                hold.is_there(record.created);
                break;
            }
        }
        Ok(Self {
            record: circle.place.sight(circle.record(&id)?),
            fence: Fence::new(&circle.place, &hold),
            circle: circle.clone(),
            label: label.to_owned(),
            id,
            hold,
            charge: None,
            named: None,
        })
    }

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
        self.circle.duties(&self.id)
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
            if let Some(news) = self.follow_named().await? {
                return Ok(news);
            }
            if let Some(charge) = self.charge.as_ref().filter(|charge| charge.is_gone)
                && let Some(departure) = self.departure(&charge.id).await?
            {
                return Ok(News::Departed(departure));
            }
            let alive = async {
                match &mut self.charge {
                    // Nobody covers for himself.
                    Some(charge) if !charge.is_gone && charge.id != self.id => charge.alive.next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                // First: a buddy that is not ours any more is none of our business.
                biased;
                record = self.record.next() => {
                    let record = record?.ok_or_else(|| lost("somebody has covered for this member"))?;
                    let Record { buddy: id, .. } = parse(&record)?;
                    self.named = (self.charge.as_ref().map(|charge| &charge.id) != Some(&id)).then_some(id);
                }
                found = alive => if found?.is_none()
                    && let Some(charge) = &mut self.charge
                {
                    charge.is_gone = true;
                },
            }
        }
    }

    /// Looks after whom our record names, if that is another one than before, and says who it is: nobody, if it is
    /// ourselves.
    async fn follow_named(&mut self) -> Result<Option<News>> {
        let Some(id) = &self.named else { return Ok(None) };
        let buddy = if *id == self.id {
            None
        } else {
            let Some(record) = self.circle.read_record(id).await? else {
                // Ours is read last: one that is gone altogether is not named any more, as `record` will say in a moment.
                let is_named = self.circle.read_own(&self.id).await?.value.buddy == *id;
                return if is_named { Err(self.circle.missing()) } else { Ok(None) };
            };
            Some(Buddy { id: id.clone(), label: record.value.label })
        };
        let alive = self.circle.place.sight(self.circle.alive(id)?);
        // Only now: whoever drops the future before finds everything as it was.
        self.charge = self.named.take().map(|id| Charge { id, alive, is_gone: false });
        Ok(Some(News::Buddy(buddy)))
    }

    /// What there is to cover for a buddy that is gone; if nothing, closes the gap at once.
    async fn departure(&self, gone: &str) -> Result<Option<Departure>> {
        let theirs = self.circle.read_record(gone).await?;
        let duties = self.circle.place.read(&self.circle.duties(gone)?).await?.map(|entry| entry.value);
        // Ours is read last: what it names must have been there before.
        if self.circle.read_own(&self.id).await?.value.buddy != gone {
            // Settled, or somebody joined in between and covers for it: our own record will say so in a moment.
            return Ok(None);
        }
        let record = theirs.ok_or_else(|| self.circle.missing())?.value;
        if record.left && duties.is_none() {
            return match self.circle.close_gap(&self.id, &self.fence.guard(), gone, &Txn::new()).await {
                // Somebody joined in between just now.
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                closed => closed.map(|()| None),
            };
        }
        Ok(Some(Departure {
            circle: self.circle.clone(),
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
        let mut standing = self.hold.session().standing();
        let left = tokio::select! {
            biased;
            left = self.go() => left,
            // Who is out of reach for so long does not count any more, whatever the store says when it is back.
            _ = standing.wait_for(|standing| matches!(standing, Standing::Ended(_))) => {
                Err(self.hold.session().why_ended())
            }
        };
        left.map_err(|error| error.during("leave"))?;
        self.hold.forget();
        Ok(())
    }

    async fn go(&self) -> Result<()> {
        let mut pace = self.circle.place.pace();
        let mut in_doubt = false;
        loop {
            let error = match self.leaving().await {
                Ok(Some(txn)) => match self.fence.commit(txn).await {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                },
                Ok(None) => continue,
                // What it does not find, an earlier attempt may have taken away.
                Err(error) if in_doubt => error,
                Err(error) => return Err(error),
            };
            // It may have been done all the same, now or by an earlier attempt.
            let record = self.circle.read_record(&self.id).await?;
            if record.is_none_or(|record| record.value.left) {
                return Ok(());
            }
            in_doubt |= error.outcome() == Outcome::Unknown;
            pace.after(error).await?;
        }
    }

    /// The transaction that leaves; `None` if something had to be tidied up first.
    async fn leaving(&self) -> Result<Option<Txn>> {
        let circle = &self.circle;
        let mut ours = circle.read_own(&self.id).await?;
        let buddy = std::mem::take(&mut ours.value.buddy);
        let is_alone = buddy == self.id;
        let mut txn = Txn::new().guard(ours.guard).delete(self.hold.key());
        if is_alone && circle.place.read(&self.duties_key()?).await?.is_none() {
            let ends = circle.read_ends().await?.ok_or_else(|| circle.missing())?;
            // What a call that was dropped may still entrust must not be left behind.
            let txn = txn.guard(ends.guard).absent(&self.duties_key()?);
            return Ok(Some(txn.delete(&circle.ends()?).delete(&circle.record(&self.id)?)));
        }
        if !is_alone {
            match circle.place.read(&circle.alive(&buddy)?).await? {
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
        Ok(Some(txn.put(&circle.record(&self.id)?, json(&record))))
    }
}

/// A member that is gone, for its successor to cover for.
#[derive(Debug)]
#[must_use = "a departure that is not settled is told again"]
pub struct Departure {
    circle: Circle,
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
        let settled = self.circle.close_gap(&self.me, &self.fence.guard(), &self.id, &effects).await;
        settled.map_err(|error| error.during("settle"))
    }
}

/// A value must not be empty.
fn label_bytes(label: &str) -> Bytes {
    if label.is_empty() { "-".into() } else { label.to_owned().into() }
}
