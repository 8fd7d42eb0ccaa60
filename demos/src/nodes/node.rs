//! One node: found by name, answers what it is told, and can be cut off from others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use discovery::{Instance, View};
use futures_util::{StreamExt, future::join_all};
use tarpc::{
    context::Context,
    server::{BaseChannel, Channel},
};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    index::Index,
    journal::{Journal, Page},
    net::{by_index, in_time},
    project::{Project, listed},
    rpc::{self, Answer, NodeRpc, Reach, Reached, Report},
    wire,
};
use crate::{backend::Registry, contact, listen::Door, presence::Presence};

/// What every answer is, as in the original.
const CODE: i32 = 1;

/// Where the words of a node go, besides its journal.
pub(super) type Voice = Box<dyn Fn(&str) + Send + Sync>;

/// Which node to be, and how.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) project: Project,
    pub(super) index: Index,
    pub(super) ttl: Duration,
    /// What its fleet knows it by, if it has one; then an earlier node of this index is dead, or has to make room.
    pub(super) incarnation: Option<NonZeroU64>,
    /// Who is on one side of the partition that there is.
    pub(super) island: BTreeSet<Index>,
}

/// A node, not running yet.
pub(super) struct Node {
    state: Arc<State>,
    registry: Registry,
    place: Place,
    door: Door,
}

/// What the calls share.
struct State {
    project: Project,
    index: Index,
    since: Instant,
    peers: View,
    journal: Journal,
    voice: Voice,
    /// A statistic: nothing hangs on when others see it.
    heard: AtomicU64,
    /// Who is together on one side of a partition. Written by whoever makes one, read by each call between nodes; never
    /// locked across an `await`.
    island: Mutex<BTreeSet<Index>>,
}

impl Node {
    /// Registers where that can be done, and begins to watch the others.
    pub(super) fn new(registry: &Registry, role: &Role, door: Door, voice: Voice) -> discovery::Result<Self> {
        let Role { project, index, .. } = role;
        let state = State {
            project: project.clone(),
            index: *index,
            since: Instant::now(),
            peers: registry.discovery.view(project.nodes()).open(),
            journal: Journal::default(),
            voice,
            heard: AtomicU64::new(0),
            island: Mutex::new(role.island.clone()),
        };
        let place = Place::take(registry, role, &door)?;
        Ok(Self { state: Arc::new(state), registry: registry.clone(), place, door })
    }

    /// Runs until `leaving`. Dropping the future is a crash: nobody is told.
    pub(super) async fn run(self, leaving: CancellationToken) -> anyhow::Result<()> {
        let Self { state, registry, mut place, door } = self;
        state.say("Running as server...");
        let island = state.island();
        if !island.is_empty() {
            state.say_parted(&island);
        }
        let calls = wire::accept(door.listener, |stream| NodeDesk::attend(state.clone(), stream));
        let life = async {
            let leave = async {
                tokio::select! {
                    () = place.follow() => {}
                    () = leaving.cancelled() => {}
                }
                place.leave().await;
            };
            tokio::select! {
                () = calls => {}
                () = state.follow() => {}
                () = leave => {}
            }
            Ok(())
        };
        contact::told_during(&registry, state.peers.clone(), life).await
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.state.name(self.state.index))
    }
}

impl State {
    fn name(&self, index: Index) -> String {
        self.project.node(index).to_string()
    }

    fn say(&self, text: &str) {
        let line = self.journal.push(self.index, text);
        (self.voice)(&line.text);
    }

    fn say_parted(&self, island: &BTreeSet<Index>) {
        self.say(&format!("a partition is around {}", listed(island)));
    }

    /// Tells who comes and goes, for as long as it is polled.
    async fn follow(&self) {
        let mut view = self.peers.clone();
        let mut known = BTreeSet::from([self.index]);
        while view.changed().await.is_ok() {
            let mut now: BTreeSet<_> = by_index(&view.snapshot()).into_keys().collect();
            now.insert(self.index);
            for (peers, what) in [(&now - &known, "here"), (&known - &now, "gone")] {
                if !peers.is_empty() {
                    self.say(&format!("{what}: {}", listed(&peers)));
                }
            }
            known = now;
        }
        // The reason is told elsewhere.
        std::future::pending::<()>().await;
    }

    fn island(&self) -> BTreeSet<Index> {
        self.island.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a partition is between this node and that one.
    fn is_parted_from(&self, peer: Index) -> bool {
        let island = self.island.lock().unwrap_or_else(PoisonError::into_inner);
        island.contains(&self.index) != island.contains(&peer)
    }

    async fn hail(&self, index: Index, peer: &Instance, patience: Duration) -> Result<Duration, String> {
        if self.is_parted_from(index) {
            return Err("cut off".into());
        }
        let begin = Instant::now();
        let call = async {
            let name = rpc::node(peer).await?.hail(rpc::within(patience), self.index).await?;
            self.project.is(index, &name)
        };
        in_time(patience, call).await.map_err(|failure| failure.to_string())?;
        Ok(begin.elapsed())
    }
}

/// A connection to the node.
#[derive(Clone)]
struct NodeDesk {
    state: Arc<State>,
    /// Ends the connection.
    cut: CancellationToken,
}

impl NodeDesk {
    async fn attend(state: Arc<State>, stream: TcpStream) {
        let desk = Self { state, cut: CancellationToken::new() };
        let cut = desk.cut.clone();
        let calls = BaseChannel::with_defaults(wire::transport(stream)).execute(desk.serve());
        tokio::select! {
            () = calls.for_each_concurrent(rpc::IN_FLIGHT, |call| call) => {}
            () = cut.cancelled() => {}
        }
    }
}

impl NodeRpc for NodeDesk {
    async fn say_something(self, _: Context, text: String) -> Answer {
        self.state.heard.fetch_add(1, Ordering::Relaxed);
        self.state.say(&format!("Received message: {text}"));
        Answer { code: CODE, name: self.state.name(self.state.index) }
    }

    async fn hail(self, _: Context, from: Index) -> String {
        if self.state.is_parted_from(from) {
            self.cut.cancel();
            // Ends with the connection.
            std::future::pending::<()>().await;
        }
        self.state.name(self.state.index)
    }

    async fn reach(self, _: Context, patience: Duration) -> Reach {
        let patience = patience.min(rpc::PATIENCE);
        let peers: BTreeMap<_, _> = by_index(&self.state.peers.snapshot());
        let others = peers.iter().filter(|(index, _)| **index != self.state.index);
        let hailed = others.map(async |(index, peer)| {
            let outcome = self.state.hail(*index, peer, patience).await;
            (*index, Reached { incarnation: peer.incarnation(), outcome })
        });
        join_all(hailed).await.into_iter().collect()
    }

    async fn part(self, _: Context, island: BTreeSet<Index>) {
        if island.is_empty() {
            self.state.say("the partition has healed");
        } else {
            self.state.say_parted(&island);
        }
        *self.state.island.lock().unwrap_or_else(PoisonError::into_inner) = island;
    }

    async fn report(self, _: Context) -> Report {
        Report {
            name: self.state.name(self.state.index),
            pid: std::process::id(),
            up: self.state.since.elapsed(),
            heard: self.state.heard.load(Ordering::Relaxed),
            island: self.state.island(),
        }
    }

    async fn log(self, _: Context, after: u64) -> Page {
        self.state.journal.read(after).await
    }
}

/// A place in the registry. Dropping it is a crash: the lease ends by itself.
struct Place(Option<Presence>);

impl Place {
    /// Registers in the background; where one can only read, being there is enough.
    fn take(registry: &Registry, role: &Role, door: &Door) -> discovery::Result<Self> {
        if !registry.is_writable() {
            return Ok(Self(None));
        }
        let instance = Instance::builder(role.project.nodes().clone())
            .id(role.index.to_string().parse()?)
            .endpoints(door.endpoints.clone())
            // 0 has one drawn.
            .incarnation(role.incarnation.map_or(0, NonZeroU64::get))
            .build()?;
        let mut register = registry.discovery.register(instance).ttl(role.ttl);
        if role.incarnation.is_some() {
            register = register.take_over();
        }
        Ok(Self(Some(Presence::new(registry, register.start()?).quiet())))
    }

    /// Says how it goes, for as long as it is polled.
    async fn follow(&mut self) {
        match &mut self.0 {
            Some(presence) => presence.follow().await,
            None => std::future::pending().await,
        }
    }

    /// Whoever has found it may call it until it is out of the registry.
    async fn leave(mut self) {
        if let Some(presence) = self.0.take() {
            presence.leave(Duration::ZERO).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(presence) = self.0.take() {
            presence.abandon();
        }
    }
}
