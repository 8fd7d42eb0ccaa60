//! The task behind a balancer: takes in changes and failures, and publishes the tables.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::{
    Candidate, Ejection, Policy, Table,
    balancer::{Filter, Shared, State},
    candidate::Reports,
    ejection::Ejections,
};
use crate::{Change, Instance, InstanceKey, Snapshot, Status, View, backoff::sleep_until};

/// Everything there is to know of the candidates. What picks need of it is published as a [`State`].
pub(super) struct Follower {
    view: View,
    filter: Filter,
    reports: Reports,
    inbox: mpsc::UnboundedReceiver<Arc<Instance>>,
    known: Snapshot,
    candidates: HashMap<InstanceKey, Arc<Candidate>>,
    /// Who should be picked.
    first: Box<dyn Table>,
    /// Who is picked when nobody should.
    reserve: Box<dyn Table>,
    ejections: Ejections,
}

/// Which table a candidate belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    First,
    Reserve,
    Out,
}

impl Follower {
    pub(super) fn new(view: View, policy: &dyn Policy, filter: Filter, ejection: Ejection) -> Self {
        let (to, inbox) = mpsc::unbounded_channel();
        Self {
            view,
            filter,
            reports: Reports { after: ejection.after, to },
            inbox,
            known: Snapshot::default(),
            candidates: HashMap::new(),
            first: policy.table(),
            reserve: policy.table(),
            ejections: Ejections::new(ejection),
        }
    }

    /// Follows the view for as long as the balancer lives.
    pub(super) async fn run(mut self, shared: Arc<Shared>, bell: watch::Sender<()>) {
        // Until the view has ended: then whoever waits for somebody to come is told that nobody will.
        let mut bell = Some(bell);
        loop {
            let due = self.ejections.due();
            tokio::select! {
                changed = self.view.changed(), if bell.is_some() => if let Err(error) = changed {
                    let _ = shared.end.set(error);
                },
                Some(failed) = self.inbox.recv() => self.eject(&failed),
                () = sleep_until(due) => self.release(),
            }
            shared.publish(self.catch_up());
            // Behind that: who is woken looks at it.
            match &bell {
                Some(_) if shared.end.get().is_some() => bell = None,
                Some(bell) => bell.send_replace(()),
                None => {}
            }
        }
    }

    /// Moves on to what the view shows now.
    pub(super) fn catch_up(&mut self) -> State {
        let (latest, freshness) = self.view.read(|snapshot, freshness| (snapshot.clone(), freshness.clone()));
        for change in self.known.diff(&latest) {
            match change {
                Change::Put(instance) => self.put(instance),
                Change::Remove(key) => self.remove(&key),
            }
        }
        self.known = latest.clone();
        State {
            snapshot: latest,
            freshness,
            first: self.first.publish(),
            reserve: self.reserve.publish(),
            ejected: self.ejections.len(),
        }
    }

    fn put(&mut self, instance: Arc<Instance>) {
        let key = instance.key().clone();
        let old = self.candidates.get(&key).cloned();
        let old_rank = old.as_deref().map_or(Rank::Out, |old| self.rank(old));
        let new = match &old {
            Some(old) if old.instance().incarnation() == instance.incarnation() => old.renewed(instance),
            // Another life: what the last one was busy with, or did wrong, is not its own.
            _ => {
                self.ejections.forget(&key);
                Candidate::reporting(instance, self.reports.clone())
            }
        };
        let new = Arc::new(new);
        self.change(old.as_ref().map(|old| (old, old_rank)), Some((&new, self.rank(&new))));
        self.candidates.insert(key, new);
    }

    fn remove(&mut self, key: &InstanceKey) {
        if let Some(old) = self.candidates.remove(key) {
            self.change(Some((&old, self.rank(&old))), None);
            self.ejections.forget(key);
        }
    }

    fn eject(&mut self, failed: &Instance) {
        let key = failed.key();
        // What an earlier life did wrong is none of this one's.
        let is_it = |it: &&Arc<Candidate>| it.instance().incarnation() == failed.incarnation();
        let Some(candidate) = self.candidates.get(key).filter(is_it).cloned() else { return };
        let rank = self.rank(&candidate);
        let term = (rank == Rank::First).then(|| self.ejections.eject(key, self.first.size())).flatten();
        match term {
            Some(term) => {
                tracing::info!(instance = %key, ?term, "ejected: too many failures in a row");
                self.change(Some((&candidate, rank)), None);
            }
            // Nobody can be spared: it stays, and may be reported again.
            None => candidate.pardon(),
        }
    }

    fn release(&mut self) {
        while let Some(key) = self.ejections.release() {
            if let Some(candidate) = self.candidates.get(&key).cloned() {
                candidate.pardon();
                self.change(None, Some((&candidate, self.rank(&candidate))));
            }
        }
    }

    fn rank(&self, candidate: &Candidate) -> Rank {
        let instance = candidate.instance();
        if !self.filter.admits(instance) || self.ejections.contains(instance.key()) {
            return Rank::Out;
        }
        match instance.status() {
            Status::Down => Rank::Out,
            Status::Up if instance.weight() > 0 => Rank::First,
            _ if self.filter.up_only => Rank::Out,
            _ => Rank::Reserve,
        }
    }

    fn change(&mut self, old: Option<(&Arc<Candidate>, Rank)>, new: Option<(&Arc<Candidate>, Rank)>) {
        let of = |side: Option<(&Arc<Candidate>, Rank)>, table| {
            side.filter(|(_, rank)| *rank == table).map(|(candidate, _)| candidate.clone())
        };
        for (table, rank) in [(&mut self.first, Rank::First), (&mut self.reserve, Rank::Reserve)] {
            table.change(of(old, rank).as_ref(), of(new, rank).as_ref());
        }
    }
}
