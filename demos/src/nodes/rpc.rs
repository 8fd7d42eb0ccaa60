//! How nodes, and those who talk to them, call each other: tarpc over TCP.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::Arc,
    time::Duration,
};

use discovery::{Endpoint, Instance};
use serde::{Deserialize, Serialize};
use tarpc::{
    client::{Config, RpcError},
    context::{self, Context},
};
use tokio::net::TcpStream;

use super::{
    index::Index,
    journal::Page,
    wire::{LONGEST, Transport, transport},
};

/// The name of the endpoint that nodes register.
pub(super) const RPC: &str = "rpc";

/// How long a node may be given to answer at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The longest message in bytes.
pub(super) const MESSAGE: usize = 1 << 16;

/// How many calls on one connection are worked on at a time.
pub(super) const IN_FLIGHT: usize = 64;

/// What a node answers.
#[tarpc::service]
pub(super) trait NodeRpc {
    /// A message in, an answer out.
    async fn say_something(text: String) -> Answer;
    /// Another node asks who this is.
    async fn hail(from: Index) -> String;
    /// Hails all others that this node finds.
    async fn reach(patience: Duration) -> Reach;
    /// Cuts the nodes of the island off from all others; nobody is on an empty one.
    async fn part(island: BTreeSet<Index>);
    /// How it is.
    async fn report() -> Report;
    /// What it has said behind a line, waiting for something new.
    async fn log(after: u64) -> Page;
}

/// What whoever runs nodes answers.
#[tarpc::service]
pub(super) trait FleetRpc {
    /// Starts nodes or lets some leave.
    async fn scale(size: u32) -> Result<Roster, String>;
    /// Has nodes that are yet to come keep to a partition as well; says who runs.
    async fn part(island: BTreeSet<Index>) -> Roster;
    /// Kills a node; says whether there was one.
    async fn kill(index: Index) -> bool;
    /// All that should be there, dead or alive.
    async fn crew() -> BTreeMap<Index, Stage>;
    /// What all have said.
    async fn log(after: u64) -> Page;
}

/// To a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// 1, as ever.
    pub(super) code: i32,
    /// Who answers: under an address there may be somebody else by now.
    pub(super) name: String,
}

/// How far a node has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// It was started a moment ago, and need not be registered yet.
    Starting,
    Running,
    /// How it ended.
    Ended(String),
}

/// The nodes that a fleet runs, and those that it has run, by their incarnations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Roster {
    pub(super) here: BTreeMap<Index, u64>,
    /// Of each node that is not here, the last one.
    pub(super) gone: BTreeMap<Index, u64>,
}

impl Roster {
    /// Whether all who should be there are registered. Others do not matter.
    pub(super) fn is_here(&self, nodes: &BTreeMap<Index, Arc<Instance>>) -> bool {
        self.here.iter().all(|node| is_among(nodes, node))
    }

    /// The same, and none is there of those who should not: a lease outlives who has died.
    pub(super) fn is_met_by(&self, nodes: &BTreeMap<Index, Arc<Instance>>) -> bool {
        self.is_here(nodes) && !self.gone.iter().any(|node| is_among(nodes, node))
    }
}

fn is_among(nodes: &BTreeMap<Index, Arc<Instance>>, (index, incarnation): (&Index, &u64)) -> bool {
    nodes.get(index).is_some_and(|node| node.incarnation() == *incarnation)
}

/// Whom a node reaches, of those it knows.
pub(super) type Reach = BTreeMap<Index, Reached>;

/// What came of reaching a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reached {
    /// Which life of the peer it knows: that may be over.
    pub(super) incarnation: u64,
    /// How long it took, or why it cannot be reached.
    pub(super) outcome: Result<Duration, String>,
}

/// How a node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) up: Duration,
    /// How many messages it has received.
    pub(super) heard: u64,
    pub(super) island: BTreeSet<Index>,
}

/// Why there is no answer, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(String);

impl Failure {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    pub(super) fn late(patience: Duration) -> Self {
        Self(format!("no answer within {}", humantime::format_duration(patience)))
    }

    /// Whether a call found out by itself that it takes too long.
    pub(super) fn is_late(&self) -> bool {
        self.0 == LATE
    }
}

/// What a call says that does not know for how long it was waited for.
const LATE: &str = "no answer in time";

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::DeadlineExceeded => Self::new(LATE),
            RpcError::Server(error) => Self(error.to_string()),
            _ => Self::new("the connection broke"),
        }
    }
}

/// Connects to a node.
pub(super) async fn node(instance: &Instance) -> Result<NodeRpcClient, Failure> {
    Ok(NodeRpcClient::new(Config::default(), connect(instance).await?).spawn())
}

/// Connects to whoever runs nodes.
pub(super) async fn fleet(instance: &Instance) -> Result<FleetRpcClient, Failure> {
    Ok(FleetRpcClient::new(Config::default(), connect(instance).await?).spawn())
}

/// Within a call, how long its answer is waited for.
pub(super) fn within(patience: Duration) -> Context {
    let mut context = context::current();
    context.deadline = std::time::Instant::now() + patience.min(LONGEST);
    context
}

/// The first address that can be connected to.
async fn connect<In, Out>(instance: &Instance) -> Result<Transport<In, Out>, Failure>
where
    In: for<'de> Deserialize<'de>,
    Out: Serialize,
{
    let mut failure = Failure::new("no address");
    for endpoint in instance.endpoints().iter().filter(|endpoint| endpoint.name() == RPC) {
        match dial(endpoint).await {
            Ok(stream) => return Ok(transport(stream)),
            Err(error) => failure = Failure(without_number(&error)),
        }
    }
    Err(failure)
}

async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    TcpStream::connect((endpoint.host(), endpoint.port())).await
}

/// Without the number that the system has for it.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
