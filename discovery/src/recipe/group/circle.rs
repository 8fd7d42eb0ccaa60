//! The circle in the store, and how it changes: each change is one commit on what was read.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Seat;
use crate::{
    Error, ErrorKind, Result,
    kv::{Entry, Guard, Key, Range, Txn},
    recipe::{
        fence::lost,
        known::{Known, corrupt, json, parse},
        place::Place,
    },
};

/// Where the members are.
///
/// | key | holds |
/// | --- | --- |
/// | `circle` | the [`Ends`] |
/// | `record/<id>` | the [`Record`] of a member, permanent |
/// | `alive/<id>` | its label, under its lease |
/// | `duties/<id>` | what it has in hand, if anything |
#[derive(Clone, Debug)]
pub(super) struct Circle {
    pub(super) place: Place,
}

/// Where the circle begins and ends.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ends {
    first: String,
    last: String,
}

/// A member's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) label: String,
    pub(super) buddy: String,
    /// Whether it left of its own will.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) left: bool,
    /// Whose departure it settled last: tells an attempt of its own, whose reply was lost, from a newcomer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) settled: Option<String>,
}

impl Circle {
    /// Where all of it is.
    pub(super) fn range(&self) -> Range {
        Range::Subtree(self.place.top().clone())
    }

    /// Puts a newcomer between the last and the first.
    pub(super) async fn joining(&self, id: &str, label: &str) -> Result<Txn> {
        let record = |buddy: String| Record { label: label.to_owned(), buddy, left: false, settled: None };
        // An earlier attempt whose reply was lost may arrive at any moment: a member joins once.
        let txn = Txn::new().absent(&self.record(id)?);
        let Some(circle) = self.read_ends().await? else {
            let alone = Ends { first: id.to_owned(), last: id.to_owned() };
            let txn = txn.absent(&self.ends()?).put(&self.ends()?, json(&alone));
            return Ok(txn.put(&self.record(id)?, json(&record(id.to_owned()))));
        };
        let Ends { first, last } = circle.value;
        if first == id {
            return Err(Error::new(ErrorKind::Conflict, "this member has joined already"));
        }
        let Some(mut head) = self.read_record(&first).await? else {
            // Taken out meanwhile, if the circle is another one by now.
            let now = self.read_ends().await?;
            return Err(match now {
                Some(now) if now.modified == circle.modified => self.missing(),
                _ => Error::new(ErrorKind::Conflict, "the first member is gone"),
            });
        };
        id.clone_into(&mut head.value.buddy);
        Ok(txn
            .guard(circle.guard)
            .guard(head.guard)
            .put(&self.record(&first)?, json(&head.value))
            .put(&self.record(id)?, json(&record(last)))
            .put(&self.ends()?, json(&Ends { first, last: id.to_owned() })))
    }

    /// All members in order; `None` if the circle does not close at the moment.
    pub(super) async fn look(&self) -> Result<Option<Vec<Seat>>> {
        self.arrange(&self.place.scan(&self.range()).await?)
    }

    /// The members in order; `None` if the circle does not close.
    pub(super) fn arrange<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Option<Vec<Seat>>> {
        let named = entries.into_iter().filter_map(|entry| Some((entry.key.below(self.place.top())?, entry)));
        let all: HashMap<&str, &Entry> = named.collect();
        let Some(circle) = all.get("circle") else { return Ok(Some(Vec::new())) };
        let circle: Ends = parse(circle)?;
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
    pub(super) async fn close_gap(&self, me: &str, fence: &Guard, gone: &str, extra: &Txn) -> Result<()> {
        let mut pace = self.place.pace();
        let mut seen = None;
        loop {
            // Ours is read last: what it names must have been there before.
            let circle = self.read_ends().await?;
            let theirs = self.read_record(gone).await?;
            let mut ours = self.read_own(me).await?;
            if ours.value.settled.as_deref() == Some(gone) {
                // By an earlier attempt.
                return Ok(());
            }
            if ours.value.buddy != gone {
                let why = format!("somebody joined behind {gone}, and covers for it");
                return Err(Error::new(ErrorKind::Conflict, why));
            }
            let circle = circle.ok_or_else(|| self.missing())?;
            let theirs = theirs.ok_or_else(|| self.missing())?;
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
            let Ends { mut first, mut last } = circle.value;
            if first == gone || last == gone {
                if first == gone {
                    me.clone_into(&mut first);
                }
                if last == gone {
                    last = ours.value.buddy;
                }
                txn = txn.guard(circle.guard).put(&self.ends()?, json(&Ends { first, last }));
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
                Err(error) => {
                    // One that got no answer may be what is in the way of the next.
                    seen = (error.kind() == ErrorKind::Conflict).then_some(based_on);
                    pace.after(error).await?;
                }
            }
        }
    }

    /// The record of a member by the member itself: it is there until somebody else has settled its departure.
    pub(super) async fn read_own(&self, me: &str) -> Result<Known<Record>> {
        let ours = self.read_record(me).await?;
        ours.ok_or_else(|| lost("this member died, and somebody has covered for it"))
    }

    pub(super) async fn read_record(&self, id: &str) -> Result<Option<Known<Record>>> {
        Known::read(&self.place, &self.record(id)?).await
    }

    pub(super) async fn read_ends(&self) -> Result<Option<Known<Ends>>> {
        Known::read(&self.place, &self.ends()?).await
    }

    pub(super) fn missing(&self) -> Error {
        corrupt(self.place.top(), "a record is missing")
    }

    pub(super) fn ends(&self) -> Result<Key> {
        self.place.top().join("circle")
    }

    pub(super) fn record(&self, id: &str) -> Result<Key> {
        self.place.top().join(&format!("record/{id}"))
    }

    pub(super) fn alive(&self, id: &str) -> Result<Key> {
        self.place.top().join(&format!("alive/{id}"))
    }

    pub(super) fn duties(&self, id: &str) -> Result<Key> {
        self.place.top().join(&format!("duties/{id}"))
    }
}
