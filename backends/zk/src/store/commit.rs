//! A transaction as a multi: look, compare, write, and again if something moved in between.

use std::collections::{BTreeMap, BTreeSet};

use discovery::{
    Error, ErrorKind, LeaseId, Result, Revision,
    kv::{Guard, Key, Op, Txn},
};
use tokio::time::Instant;
use zookeeper_client as zk;

use super::{Store, acquire, answers};
use crate::{
    error::Trouble,
    path::{Stripe, keys_of},
    session::{Session, SharedSession, revision},
};

/// How often a transaction starts over because something it is about, or a neighbour on the same stripe, moved.
const ATTEMPTS: usize = 16;

impl Store {
    /// Carries out a transaction.
    pub(super) async fn apply(&self, txn: &Txn) -> Result<Revision> {
        txn.check(self.config().max_record())?;
        self.layout().check_txn(txn)?;
        let lease = lease_of(txn)?;
        let deadline = self.deadline();
        let _place = self.admit(deadline).await?;
        let session = self.session_for(lease, deadline).await?;
        // Entries that should all be new are written without a look: the server itself refuses those that exist.
        let mut guess = is_all_new(txn).then(View::default);
        let mut doubts = false;
        for _ in 0..ATTEMPTS {
            let view = match guess.take() {
                Some(view) => view,
                None => match self.look(&session, txn, deadline, doubts).await {
                    Ok(Some(view)) => view,
                    Ok(None) => {
                        self.make_missing(&session, txn, deadline).await?;
                        continue;
                    }
                    Err(trouble) => return Err(session.failed(trouble).not_applied()),
                },
            };
            if let Some(broken) = txn.guards().iter().find(|guard| !view.confirms(guard)) {
                if view.is_synced {
                    let message = format!("{} is not as expected", broken.key());
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                doubts = true;
                continue;
            }
            let mut multi = self.multi(&session, txn, &view)?;
            match session.call(deadline, multi.commit()).await {
                Ok(results) => return Ok(self.written(&session, &results)),
                Err(trouble) if trouble.is(&zk::Error::NoNode) => {
                    self.make_missing(&session, txn, deadline).await?;
                }
                Err(Trouble::Client(zk::Error::BadVersion | zk::Error::NodeExists | zk::Error::NotEmpty)) => {
                }
                Err(trouble) => return Err(session.failed(trouble)),
            }
            doubts = true;
        }
        let message = format!("the keys are being written all the time; gave up after {ATTEMPTS} attempts");
        Err(Error::new(ErrorKind::Unavailable, message).not_applied())
    }

    /// The session that a transaction goes through: an ephemeral node belongs to the one that creates it.
    async fn session_for(&self, lease: Option<LeaseId>, deadline: Instant) -> Result<SharedSession> {
        match lease {
            None => self.main(deadline).await,
            Some(lease) => {
                let session = self.0.leases.session(lease)?;
                session.ready(deadline).await?;
                Ok(session)
            }
        }
    }

    /// Reads the stripes of a transaction and then its keys, in one flight; behind a `sync` if there are doubts.
    /// `None` if a stripe does not exist yet.
    async fn look(
        &self,
        session: &Session,
        txn: &Txn,
        deadline: Instant,
        doubts: bool,
    ) -> Result<Option<View>, Trouble> {
        let keys = keys_of(txn);
        let stripes: BTreeSet<_> = keys.iter().map(|key| Stripe::of(key)).collect();
        let sync = match doubts {
            true => Some(session.sync(self.horizon().get())),
            false => session.catch_up(self.horizon()),
        };
        let is_synced = sync.is_some();
        let nodes = stripes.iter().map(|stripe| self.layout().stripe_node(*stripe));
        let nodes = nodes.chain(keys.iter().map(|key| self.layout().node(key)));
        let asked = nodes.map(|node| session.client().check_stat(&node)).collect();
        session.caught_up(deadline, sync).await?;
        let mut stats = answers(session, deadline, asked).await.into_iter();
        let mut view = View { is_synced, ..View::default() };
        for (stripe, stat) in stripes.into_iter().zip(stats.by_ref()) {
            let Some(stat) = stat? else { return Ok(None) };
            view.stripes.insert(stripe, stat.version);
        }
        for (key, stat) in keys.into_iter().zip(stats) {
            if let Some(stat) = stat? {
                session.has_applied(stat.czxid.max(stat.mzxid).max(stat.pzxid), self.horizon());
                view.nodes.insert(key.clone(), Node::from(stat));
            }
        }
        for op in txn.ops() {
            if view.needs_keep(op) {
                let keep = self.layout().keep_node(op.key());
                if session.call(deadline, session.client().check_stat(&keep)).await?.is_some() {
                    view.kept.insert(op.key().clone());
                }
            }
        }
        Ok(Some(view))
    }

    /// The multi that does what the transaction says, provided that the view still holds.
    fn multi<'s>(&self, session: &'s Session, txn: &Txn, view: &View) -> Result<zk::MultiWriter<'s>> {
        let mut multi = session.client().new_multi_writer();
        let mut moved = BTreeSet::new();
        for op in txn.ops() {
            if self.write(&mut multi, session, op, view)? == Presence::Changes {
                moved.insert(Stripe::of(op.key()));
            }
        }
        let written: BTreeSet<_> = txn.ops().iter().map(Op::key).collect();
        for guard in txn.guards() {
            // What is written is checked by the writing; what is absent, by its stripe.
            if let (false, Some(node)) = (written.contains(guard.key()), view.nodes.get(guard.key())) {
                multi.add_check_version(&self.layout().node(guard.key()), node.version).map_err(refused)?;
            }
        }
        for stripe in keys_of(txn).into_iter().map(Stripe::of).collect::<BTreeSet<_>>() {
            let node = self.layout().stripe_node(stripe);
            match (moved.contains(&stripe), view.stripes.get(&stripe)) {
                (true, version) => multi.add_set_data(&node, b"", version.copied()),
                (false, Some(version)) => multi.add_check_version(&node, *version),
                (false, None) => Ok(()),
            }
            .map_err(refused)?;
        }
        Ok(multi)
    }

    /// Adds what one operation does.
    fn write(
        &self,
        multi: &mut zk::MultiWriter<'_>,
        session: &Session,
        op: &Op,
        view: &View,
    ) -> Result<Presence> {
        let key = op.key();
        let path = self.layout().node(key);
        let node = view.nodes.get(key);
        let (value, lease) = match op {
            Op::Put { value, lease, .. } => (value, *lease),
            Op::Delete(_) => {
                let Some(node) = node.filter(|node| node.is_entry) else { return Ok(Presence::Stays) };
                match node.has_children {
                    // The directory stays, the entry goes.
                    true => multi.add_set_data(&path, b"", Some(node.version)),
                    false => multi.add_delete(&path, Some(node.version)),
                }
                .map_err(refused)?;
                return Ok(Presence::Changes);
            }
        };
        let (owner, mode) = match lease {
            Some(_) => (session.id(), zk::CreateMode::Ephemeral),
            None => (0, zk::CreateMode::Persistent),
        };
        let options = mode.with_acls(self.config().acl());
        match node {
            None => multi.add_create(&path, value, &options).map_err(refused)?,
            Some(node) if node.is_entry && node.owner == owner => {
                multi.add_set_data(&path, value, Some(node.version)).map_err(refused)?;
                return Ok(Presence::Stays);
            }
            // Another owner, or a directory so far: a node of the other kind takes its place, in one step.
            Some(node) if !node.has_children => {
                multi.add_delete(&path, Some(node.version)).map_err(refused)?;
                multi.add_create(&path, value, &options).map_err(refused)?;
            }
            Some(_) if lease.is_some() => {
                return Err(Error::invalid(format!(
                    "{key} has keys below it and cannot be leased: ZooKeeper's ephemeral nodes have no children"
                )));
            }
            Some(node) => {
                multi.add_set_data(&path, value, Some(node.version)).map_err(refused)?;
                if !view.kept.contains(key) {
                    // The directory may be a container, which would be reaped with its last child, data or not.
                    multi.add_create(&self.layout().keep_node(key), b"", &options).map_err(refused)?;
                }
            }
        }
        Ok(Presence::Changes)
    }

    /// The revision of a multi: all its writes have the same.
    fn written(&self, session: &Session, results: &[zk::MultiWriteResult]) -> Revision {
        let zxid = results.iter().find_map(|result| match result {
            zk::MultiWriteResult::SetData { stat } => Some(stat.mzxid),
            _ => None,
        });
        // Nothing was written if there is none: what is there already is as new as anything we know.
        let zxid = zxid.unwrap_or_else(|| self.horizon().get());
        session.has_applied(zxid, self.horizon());
        revision(zxid)
    }

    /// Creates what a transaction needs and does not find: the chroot, the stripes, the directories of its keys.
    async fn make_missing(&self, session: &Session, txn: &Txn, deadline: Instant) -> Result<()> {
        let _turn = acquire(&self.0.making, deadline).await?;
        let keys = keys_of(txn);
        let layout = self.layout();
        let permanent = |node| (node, zk::CreateMode::Persistent);
        let top = layout.chroot_nodes().map(str::to_owned).chain([layout.epoch_node()]).map(permanent);
        let directories = layout.directories(keys.iter().copied());
        let directories = directories.into_iter().map(|node| (node, zk::CreateMode::Container));
        let needed: Vec<_> = top.chain(directories).collect();
        let stripes: Vec<_> = keys.into_iter().map(|key| layout.stripe_node(Stripe::of(key))).collect();

        let nodes = needed.iter().map(|(node, _)| node).chain(&stripes);
        let asked = nodes.map(|node| session.client().check_stat(node)).collect();
        let mut found = answers(session, deadline, asked).await.into_iter();
        let mut missing = Vec::new();
        for (node, found) in needed.into_iter().zip(found.by_ref()) {
            if found.map_err(|trouble| session.failed(trouble).not_applied())?.is_none() {
                missing.push(node);
            }
        }
        if found.any(|found| matches!(found, Ok(None))) {
            // The first write under a new chroot: make them all while we are at it.
            missing.extend(Stripe::all().map(|stripe| permanent(layout.stripe_node(stripe))));
        }
        let created = missing
            .iter()
            .map(|(node, mode)| session.client().create(node, b"", &mode.with_acls(self.config().acl())))
            .collect();
        for created in answers(session, deadline, created).await {
            match created {
                // Somebody else was faster, or the server has just reaped what is above: the next attempt will see.
                Ok(_) | Err(Trouble::Client(zk::Error::NodeExists | zk::Error::NoNode)) => {}
                Err(trouble) => return Err(session.failed(trouble).not_applied()),
            }
        }
        Ok(())
    }
}

/// What a transaction is about, as it was read.
#[derive(Debug, Default)]
struct View {
    /// The versions of the stripes; empty if nothing was read, in the hope that no key exists.
    stripes: BTreeMap<Stripe, i32>,
    /// The nodes that exist.
    nodes: BTreeMap<Key, Node>,
    /// The keys whose directory has a child that keeps it.
    kept: BTreeSet<Key>,
    /// Whether the server had caught up with its leader when it was read.
    is_synced: bool,
}

#[derive(Debug)]
struct Node {
    created: Revision,
    modified: Revision,
    version: i32,
    owner: i64,
    is_entry: bool,
    has_children: bool,
}

impl From<zk::Stat> for Node {
    fn from(stat: zk::Stat) -> Self {
        Self {
            created: revision(stat.czxid),
            modified: revision(stat.mzxid),
            version: stat.version,
            owner: stat.ephemeral_owner,
            is_entry: stat.data_length > 0,
            has_children: stat.num_children > 0,
        }
    }
}

impl View {
    fn confirms(&self, guard: &Guard) -> bool {
        let entry = self.nodes.get(guard.key()).filter(|node| node.is_entry);
        match guard {
            Guard::Absent(_) => entry.is_none(),
            Guard::Unmodified(_, revision) => entry.is_some_and(|entry| entry.modified == *revision),
            Guard::Alive(_, revision) => entry.is_some_and(|entry| entry.created == *revision),
        }
    }

    /// Whether an operation makes a permanent entry of a directory with something in it.
    fn needs_keep(&self, op: &Op) -> bool {
        let node = self.nodes.get(op.key());
        matches!(op, Op::Put { lease: None, .. })
            && node.is_some_and(|node| node.has_children && !node.is_entry)
    }
}

/// Whether an operation makes an entry come or go.
#[derive(PartialEq, Eq)]
enum Presence {
    Changes,
    Stays,
}

/// The one lease of a transaction, if any.
fn lease_of(txn: &Txn) -> Result<Option<LeaseId>> {
    let leases = txn.ops().iter().filter_map(|op| match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete(_) => None,
    });
    let leases: BTreeSet<_> = leases.collect();
    if leases.len() > 1 {
        let message = "a transaction can bind to one lease only: each is a session of its own in ZooKeeper";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(leases.into_iter().next())
}

/// Whether a transaction does nothing but create entries that must not be there.
fn is_all_new(txn: &Txn) -> bool {
    let absent = txn.guards().iter().filter(|guard| matches!(guard, Guard::Absent(_)));
    let puts = txn.ops().iter().filter(|op| matches!(op, Op::Put { .. }));
    absent.clone().count() == txn.guards().len()
        && puts.clone().count() == txn.ops().len()
        && absent.map(Guard::key).collect::<BTreeSet<_>>() == puts.map(Op::key).collect()
}

/// The client does not take a path.
fn refused(error: zk::Error) -> Error {
    Trouble::from(error).into()
}
