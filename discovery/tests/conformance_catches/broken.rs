//! A backend with one defect.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use discovery::{
    Backend, Change, Claim, ErrorKind, Grant, Info, Instance, InstanceKey, LeaseId, Leases, OnConflict,
    Owner, Registrar, Result, Revision, Scope, Snapshot, Update, Updates,
    kv::{Entry, Guard, Key, Kv, KvUpdates, Range, Scan, Txn},
};
use futures_util::{StreamExt, stream};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Nothing: it says things twice, which it may.
    OnlyStutters,
    LosesDeltas,
    HoldsBackTheLast,
    CountsBackwards,
    SaysNothingOfEmptiness,
    ReadsEverythingAgain,
    IgnoresTheGap,
    KeepsDroppedWatches,
    HangsOnError,
    EndsWithoutError,
    GoesOnBehindErrors,
    TakesTroubleForEmptiness,
    FailsOnBadRecords,
    ForgetsIncarnations,
    DropsMetadata,
    HearsTooMuch,
    DeletesThenCreates,
    OverwritesOthers,
    RemovesForAnybody,
    AlwaysRemoves,
    ForgetsRecreation,
    IgnoresGuards,
    AppliesPiecemeal,
    RenewsByItself,
    RenewsTheDead,
    WritesWithoutTheLease,
}

/// A backend as good as the one inside, but for its defect.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    inner: Arc<dyn Backend>,
    defect: Defect,
}

impl Broken {
    pub(crate) fn new(inner: Arc<dyn Backend>, defect: Defect) -> Self {
        Self { inner, defect }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn scope(&self, scope: &Scope) -> Scope {
        match scope {
            Scope::Service(name) if self.has(Defect::HearsTooMuch) => Scope::Subtree(name.clone()),
            _ => scope.clone(),
        }
    }

    fn range(&self, range: &Range) -> Range {
        match range {
            Range::Key(only) if self.has(Defect::HearsTooMuch) => Range::Subtree(only.parent()),
            _ => range.clone(),
        }
    }

    /// What has become of an instance on its way to the reader.
    fn garbled(&self, instance: &Arc<Instance>) -> Arc<Instance> {
        match self.defect {
            Defect::ForgetsIncarnations => {
                Arc::new(instance.to_builder().incarnation(1).build().expect("an instance"))
            }
            Defect::DropsMetadata => {
                let plain = Instance::builder(instance.service().clone()).id(instance.id().clone());
                let plain =
                    plain.endpoints(instance.endpoints().to_vec()).incarnation(instance.incarnation());
                Arc::new(plain.build().expect("an instance"))
            }
            _ => instance.clone(),
        }
    }

    fn garbled_snapshot(&self, snapshot: &Snapshot) -> Snapshot {
        Snapshot::new(snapshot.revision(), snapshot.iter().map(|instance| self.garbled(instance)))
    }

    fn garbled_update(&self, update: Update) -> Update {
        match update {
            Update::Reset(snapshot) => Update::Reset(self.garbled_snapshot(&snapshot)),
            Update::Delta { revision, changes } => {
                let garbled = changes.into_iter().map(|change| match change {
                    Change::Put(instance) => Change::Put(self.garbled(&instance)),
                    removal @ Change::Remove(_) => removal,
                });
                Update::Delta { revision, changes: garbled.collect() }
            }
            progress @ Update::Progress(_) => progress,
        }
    }

    fn registrar_inside(&self) -> &dyn Registrar {
        self.inner.registrar().expect("the backend inside has everything")
    }

    fn leases_inside(&self) -> &dyn Leases {
        self.inner.leases().expect("the backend inside has everything")
    }

    fn kv_inside(&self) -> &dyn Kv {
        self.inner.kv().expect("the backend inside has everything")
    }
}

#[async_trait]
impl Backend for Broken {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        let before = self.info().skipped();
        match self.inner.fetch(&self.scope(scope)).await {
            Ok(_) if self.has(Defect::FailsOnBadRecords) && self.info().skipped() > before => {
                Err(discovery::Error::new(ErrorKind::Corrupt, "one bad record"))
            }
            Ok(snapshot) => Ok(self.garbled_snapshot(&snapshot)),
            Err(error) if self.has(Defect::TakesTroubleForEmptiness) && error.is_transient() => {
                Ok(Snapshot::default())
            }
            Err(error) => Err(error),
        }
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        let scope = self.scope(scope);
        if let (Defect::IgnoresTheGap, Some(after)) = (self.defect, after) {
            return ignoring_the_gap(self.inner.watch(&scope, None), after);
        }
        let updates = self.inner.watch(&scope, after);
        let garbler = self.clone();
        match self.defect {
            Defect::OnlyStutters => stuttering(updates),
            Defect::LosesDeltas => {
                let mut deltas = 0;
                let keep = move |update: &Result<Update>| {
                    deltas += usize::from(matches!(update, Ok(Update::Delta { .. })));
                    let keep = deltas % 3 != 2;
                    async move { keep }
                };
                updates.filter(keep).boxed()
            }
            Defect::HoldsBackTheLast => held_back(updates),
            Defect::CountsBackwards => {
                let backwards = |update| match update {
                    Update::Delta { revision, changes } => {
                        Update::Delta { revision: Revision(u64::MAX - revision.0), changes }
                    }
                    other => other,
                };
                updates.map(move |update| update.map(backwards)).boxed()
            }
            Defect::SaysNothingOfEmptiness => {
                let speak = |update: &Result<Update>| {
                    let nothing = matches!(update, Ok(Update::Reset(snapshot)) if snapshot.is_empty());
                    async move { !nothing }
                };
                updates.filter(speak).boxed()
            }
            Defect::ReadsEverythingAgain => {
                let mut known = Snapshot::default();
                let mut reset = move |update| {
                    match update {
                        Update::Reset(snapshot) => known = snapshot,
                        Update::Delta { revision, changes } => known.apply(revision, &changes),
                        progress @ Update::Progress(_) => return progress,
                    }
                    Update::Reset(known.clone())
                };
                updates.map(move |update| update.map(&mut reset)).boxed()
            }
            Defect::KeepsDroppedWatches => kept(updates),
            Defect::HangsOnError => updates
                .take_while(|update| std::future::ready(update.is_ok()))
                .chain(stream::pending())
                .boxed(),
            Defect::EndsWithoutError => {
                updates.take_while(|update| std::future::ready(update.is_ok())).boxed()
            }
            Defect::GoesOnBehindErrors => {
                updates.chain(stream::once(async { Ok(Update::Progress(Revision(u64::MAX))) })).boxed()
            }
            Defect::FailsOnBadRecords => {
                let mut skipped = self.info().skipped();
                let fail = move |update: Result<Update>| {
                    let now = garbler.info().skipped();
                    if std::mem::replace(&mut skipped, now) < now {
                        return Err(discovery::Error::new(ErrorKind::Corrupt, "one bad record"));
                    }
                    update
                };
                updates.map(fail).boxed()
            }
            _ => updates.map(move |update| update.map(|update| garbler.garbled_update(update))).boxed(),
        }
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn kv(&self) -> Option<&dyn Kv> {
        Some(self)
    }
}

/// Starts from the present, and says that nothing was missed.
fn ignoring_the_gap(updates: Updates, after: Revision) -> Updates {
    let gloss_over = move |update| match update {
        Update::Reset(snapshot) => Update::Progress(snapshot.revision().max(after)),
        other => other,
    };
    updates.map(move |update| update.map(gloss_over)).boxed()
}

/// Says every change twice, and that there is progress in between.
fn stuttering(updates: Updates) -> Updates {
    let twice = |update: Result<Update>| match update {
        Ok(Update::Delta { revision, changes }) => {
            let changes = changes.into_iter().flat_map(|change| [change.clone(), change]).collect();
            stream::iter(vec![Ok(Update::Delta { revision, changes }), Ok(Update::Progress(revision))])
        }
        other => stream::iter(vec![other]),
    };
    updates.flat_map(twice).boxed()
}

/// Says each change only when the next one comes.
fn held_back(updates: Updates) -> Updates {
    let shift = |held: &mut Option<Update>, update: Result<Update>| {
        let said = match update {
            Ok(delta @ Update::Delta { .. }) => held.replace(delta).map(Ok),
            other => Some(other),
        };
        std::future::ready(Some(stream::iter(said)))
    };
    updates.scan(None, shift).flatten().boxed()
}

/// Goes on reading for ever, whoever listens.
fn kept(mut updates: Updates) -> Updates {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(update) = updates.next().await {
            let _ = sender.send(update);
        }
    });
    tokio_stream::wrappers::UnboundedReceiverStream::new(receiver).boxed()
}

#[async_trait]
impl Registrar for Broken {
    async fn put(&self, instance: &Instance, claim: &Claim) -> Result<Revision> {
        let inner = self.registrar_inside();
        let mut claim = claim.clone();
        match self.defect {
            Defect::DeletesThenCreates => {
                let taken = claim.on_conflict == OnConflict::TakeOver;
                let _ = inner.remove(instance.key(), (!taken).then_some(&claim.owner)).await;
            }
            Defect::OverwritesOthers => claim.on_conflict = OnConflict::TakeOver,
            Defect::ForgetsRecreation if claim.expected.is_some() => claim.on_conflict = OnConflict::TakeOver,
            Defect::WritesWithoutTheLease => match inner.put(instance, &claim).await {
                Err(error) if error.kind() == ErrorKind::LeaseLost => claim.lease = None,
                outcome => return outcome,
            },
            _ => {}
        }
        inner.put(instance, &claim).await
    }

    async fn remove(&self, key: &InstanceKey, owner: Option<&Owner>) -> Result<bool> {
        let inner = self.registrar_inside();
        let owner = owner.filter(|_| !self.has(Defect::RemovesForAnybody));
        let removed = inner.remove(key, owner).await?;
        Ok(removed || self.has(Defect::AlwaysRemoves))
    }
}

#[async_trait]
impl Leases for Broken {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        let inner = self.leases_inside();
        if self.has(Defect::RenewsByItself) && !ttl.is_zero() {
            let grant = inner.grant(Duration::from_secs(3600)).await?;
            return Ok(Grant { ttl, ..grant });
        }
        inner.grant(ttl).await
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        match self.leases_inside().renew(id).await {
            Err(error) if self.has(Defect::RenewsTheDead) && error.kind() == ErrorKind::LeaseLost => {
                Ok(Duration::from_secs(1))
            }
            outcome => outcome,
        }
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.leases_inside().revoke(id).await
    }
}

#[async_trait]
impl Kv for Broken {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.kv_inside().get(key).await
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        self.kv_inside().scan(&self.range(range)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        let inner = self.kv_inside();
        match self.defect {
            Defect::IgnoresGuards => inner.commit(txn.into_ops().into_iter().fold(Txn::new(), Txn::op)).await,
            Defect::ForgetsRecreation => {
                let mut forgetful = Txn::new();
                for guard in txn.guards() {
                    forgetful = forgetful.guard(self.forgotten(guard).await?);
                }
                inner.commit(txn.into_ops().into_iter().fold(forgetful, Txn::op)).await
            }
            Defect::AppliesPiecemeal => {
                let mut last = Revision(0);
                let guards: BTreeMap<_, _> =
                    txn.guards().iter().map(|guard| (guard.key().clone(), guard.clone())).collect();
                for op in txn.into_ops() {
                    let guard = guards.get(op.key()).cloned();
                    last = inner.commit(guard.into_iter().fold(Txn::new(), Txn::guard).op(op)).await?;
                }
                Ok(last)
            }
            _ => inner.commit(txn).await,
        }
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        self.kv_inside().watch(&self.range(range), after)
    }
}

impl Broken {
    /// A guard on an earlier life of a key, taken for one on the present life.
    async fn forgotten(&self, guard: &Guard) -> Result<Guard> {
        let present = self.kv_inside().get(guard.key()).await?;
        Ok(match (guard, present) {
            (Guard::Unmodified(key, revision), Some(entry)) if entry.created > *revision => {
                Guard::Unmodified(key.clone(), entry.modified)
            }
            (Guard::Alive(key, revision), Some(entry)) if entry.created > *revision => {
                Guard::Alive(key.clone(), entry.created)
            }
            (other, _) => other.clone(),
        })
    }
}
