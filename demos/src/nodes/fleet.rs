//! Whoever runs nodes: starts them, hears them, notices how they end, kills them and lets them leave.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use discovery::{ErrorKind, Instance, Registration};
use futures_util::{StreamExt, future::join_all};
use tarpc::{
    context::Context,
    server::{BaseChannel, Channel},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::watch,
    task::{self, JoinSet},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    args::Common,
    index::{Index, MOST},
    journal::{self, Journal, Page},
    net::Net,
    node::{Node, Role},
    rpc::{self, FleetRpc, RPC, Roster, Stage},
    wire,
};
use crate::listen::{Door, ListenArgs};

/// How long a node may take to leave in order.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a node may take from its start until it is registered.
const STARTING: Duration = Duration::from_secs(10);

/// How many bytes of a line of a node are taken at a time.
const LINE: u64 = 2 * journal::TEXT as u64;

/// How much longer than twice what was asked for a lease may last: registries round it up.
const GRACE: Duration = Duration::from_secs(10);

/// The pause between two attempts to register after another `up`, which may have died.
const AGAIN: Duration = Duration::from_millis(500);

/// Nodes that belong together: processes, or tasks where the registry ends at the border of the process.
pub(super) struct Fleet {
    net: Net,
    common: Common,
    journal: Arc<Journal>,
    /// Held by whoever starts nodes or lets some leave, until that is done.
    yard: tokio::sync::Mutex<Yard>,
    /// All that should be there. Written by whoever holds the yard; never locked across an `await`.
    berths: Mutex<BTreeMap<Index, Berth>>,
}

/// Where nodes are started, one change at a time.
#[derive(Default)]
struct Yard {
    /// Those who look after a node each, from its start to its end.
    tasks: JoinSet<()>,
    /// Who should not be there any more, by the last incarnation.
    gone: BTreeMap<Index, u64>,
    /// Who is on one side of the partition that there is.
    island: BTreeSet<Index>,
}

/// A node as its fleet sees it.
#[derive(Clone)]
struct Berth {
    incarnation: NonZeroU64,
    since: Instant,
    leave: CancellationToken,
    kill: CancellationToken,
    /// How it has ended. Written by whoever looks after it.
    end: watch::Receiver<Option<String>>,
}

impl Berth {
    fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    async fn ended(&mut self) {
        // Its task may be gone, which is an end as well.
        let _ = self.end.wait_for(Option::is_some).await;
    }

    fn stage(&self) -> Stage {
        match &*self.end.borrow() {
            Some(how) => Stage::Ended(how.clone()),
            None if self.since.elapsed() < STARTING => Stage::Starting,
            None => Stage::Running,
        }
    }
}

impl Fleet {
    pub(super) fn new(net: &Net, common: &Common) -> Arc<Self> {
        let (net, common) = (net.clone(), common.clone());
        Arc::new(Self {
            net,
            common,
            journal: Arc::default(),
            yard: tokio::sync::Mutex::default(),
            berths: Mutex::default(),
        })
    }

    /// Answers others until it is dropped.
    pub(super) async fn serve(self: Arc<Self>, door: Door) {
        wire::accept(door.listener, |stream| FleetDesk(self.clone()).attend(stream)).await;
    }

    /// Registers as the one fleet of its project.
    pub(super) async fn register(&self, door: &Door) -> anyhow::Result<Registration> {
        let (project, registry) = (&self.net.project, &self.net.registry);
        let instance = Instance::builder(project.fleet().clone())
            .id("1".parse()?)
            .endpoints(door.endpoints.clone())
            .build()?;
        let deadline = Instant::now() + self.common.ttl * 2 + GRACE;
        let mut is_told = false;
        loop {
            let register = registry.discovery.register(instance.clone()).ttl(self.common.ttl);
            match register.await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                registered => return registered.with_context(|| format!("cannot register on {registry}")),
            }
            // One that has died is there for as long as its lease, and does not answer.
            if self.net.is_up().await? {
                anyhow::bail!(
                    "the nodes of {} are up already; change how many with `scale`, or choose another --project",
                    project.name()
                );
            }
            if Instant::now() > deadline {
                anyhow::bail!(
                    "an `up` of {} is registered, but does not answer; end it, or choose another --project",
                    project.name()
                );
            }
            if !std::mem::replace(&mut is_told, true) {
                tracing::info!(
                    "an earlier `up` of {} has died; waiting for its lease to end",
                    project.name()
                );
            }
            time::sleep(AGAIN).await;
        }
    }

    /// Starts nodes, dead ones again, or lets the last ones leave, until there are `size`. They need not be registered
    /// yet, nor is the lease of each that has died at its end.
    pub(super) async fn scale(&self, size: u32) -> anyhow::Result<Roster> {
        anyhow::ensure!(size <= MOST, "there can be {MOST} nodes, not {size}");
        let mut yard = self.yard.lock().await;
        let (stay, leave): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut *self.berths()).into_iter().partition(|(index, _)| index.get() <= size);
        *self.berths() = stay;
        yard.gone.extend(leave.iter().map(|(index, berth)| (*index, berth.incarnation.get())));
        let mut leaving: Vec<_> = leave.into_values().collect();
        for berth in &leaving {
            berth.leave.cancel();
        }
        join_all(leaving.iter_mut().map(Berth::ended)).await;
        while yard.tasks.try_join_next().is_some() {}
        for index in Index::first(size) {
            let is_there = self.berths().get(&index).is_some_and(|berth| !berth.has_ended());
            if !is_there {
                let berth = self.start(index, &mut yard)?;
                yard.gone.remove(&index);
                self.berths().insert(index, berth);
                // Many take a while to start, and who has to leave does not wait for that.
                task::yield_now().await;
            }
        }
        let here = self.berths().iter().map(|(index, berth)| (*index, berth.incarnation.get())).collect();
        Ok(Roster { here, gone: yard.gone.clone() })
    }

    /// Has nodes that are yet to come keep to a partition; says who runs, and has to be told of it.
    async fn part(&self, island: BTreeSet<Index>) -> Roster {
        let mut yard = self.yard.lock().await;
        yard.island = island;
        let berths = self.berths();
        let running = berths.iter().filter(|(_, berth)| !berth.has_ended());
        let here = running.map(|(index, berth)| (*index, berth.incarnation.get())).collect();
        Roster { here, gone: yard.gone.clone() }
    }

    fn start(&self, index: Index, yard: &mut Yard) -> anyhow::Result<Berth> {
        let (leave, kill) = (CancellationToken::new(), CancellationToken::new());
        let (ended, end) = watch::channel(None);
        let incarnation = NonZeroU64::MIN.saturating_add(fastrand::u64(..));
        let role = Role {
            project: self.net.project.clone(),
            index,
            ttl: self.common.ttl,
            incarnation: Some(incarnation),
            island: yard.island.clone(),
        };
        let ear = Ear { journal: self.journal.clone(), index };
        let last = ear.clone();
        let life: std::pin::Pin<Box<dyn Future<Output = String> + Send>> = if self.net.registry.is_shared() {
            Box::pin(look_after(self.process(&role, incarnation)?, ear, leave.clone(), kill.clone()))
        } else {
            Box::pin(self.task(role, ear, leave.clone(), kill.clone()))
        };
        let is_wanted = leave.clone();
        yard.tasks.spawn(async move {
            let how = life.await;
            if !is_wanted.is_cancelled() {
                last.hear(&format!("died: {how}"));
            }
            ended.send_replace(Some(how));
        });
        Ok(Berth { incarnation, since: Instant::now(), leave, kill, end })
    }

    fn process(&self, role: &Role, incarnation: NonZeroU64) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["nodes", "serve", "--tethered", &incarnation.to_string(), "--port", "0"]);
        command.args(["--index", &role.index.to_string(), "--project", role.project.name()]);
        command.args(["--ttl", &humantime::format_duration(role.ttl).to_string()]);
        for index in &role.island {
            command.args(["--island", &index.to_string()]);
        }
        // Not as an argument: there may be a secret in it, and others see arguments.
        command.envs(self.common.backend.text().map(|text| ("DISCOVERY_BACKEND", text)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is for this process, which lets the others leave.
        command.process_group(0);
        command.spawn().context("cannot start a node")
    }

    fn task(
        &self,
        role: Role,
        ear: Ear,
        leave: CancellationToken,
        kill: CancellationToken,
    ) -> impl Future<Output = String> + Send + 'static {
        // A lease of its own, which ends with it.
        let registry = self.net.registry.apart();
        let life = async move {
            let door = ListenArgs::loopback().open_as(RPC, 0).await?;
            let node = Node::new(&registry, &role, door, Box::new(move |text| ear.hear(text)))?;
            node.run(leave).await
        };
        async move {
            tokio::select! {
                ended = life => ended.map_or_else(|error| format!("{error:#}"), |()| "left".into()),
                () = kill.cancelled() => "killed".into(),
            }
        }
    }

    /// Kills a node as a crash would; returns when it is dead. Says whether there was one.
    pub(super) async fn kill(&self, index: Index) -> bool {
        let berth = self.berths().get(&index).filter(|berth| !berth.has_ended()).cloned();
        let Some(mut berth) = berth else { return false };
        berth.kill.cancel();
        berth.ended().await;
        true
    }

    fn crew(&self) -> BTreeMap<Index, Stage> {
        self.berths().iter().map(|(index, berth)| (*index, berth.stage())).collect()
    }

    fn berths(&self) -> MutexGuard<'_, BTreeMap<Index, Berth>> {
        self.berths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears what a node says.
#[derive(Clone)]
struct Ear {
    journal: Arc<Journal>,
    index: Index,
}

impl Ear {
    fn hear(&self, text: &str) {
        self.journal.push(self.index, text).tell();
    }

    async fn listen(&self, output: Option<impl AsyncRead + Unpin>) {
        let Some(output) = output else { return };
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // What no node of ours would say in one line is heard in parts.
        while let Ok(1..) = (&mut output).take(LINE).read_until(b'\n', &mut line).await {
            self.hear(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).as_ref());
            line.clear();
        }
    }
}

/// Looks after a process from its start to its end; says how it ended.
async fn look_after(mut child: Child, ear: Ear, leave: CancellationToken, kill: CancellationToken) -> String {
    let (input, output, log) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let end = async {
        tokio::select! {
            status = child.wait() => return status,
            () = kill.cancelled() => child.start_kill()?,
            // It leaves when nobody can tell it anything any more.
            () = leave.cancelled() => drop(input),
        }
        if let Ok(status) = time::timeout(FAREWELL, child.wait()).await {
            return status;
        }
        child.start_kill()?;
        child.wait().await
    };
    let (status, (), ()) = tokio::join!(end, ear.listen(output), ear.listen(log));
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// A connection to the fleet.
#[derive(Clone)]
struct FleetDesk(Arc<Fleet>);

impl FleetDesk {
    async fn attend(self, stream: TcpStream) {
        let calls = BaseChannel::with_defaults(wire::transport(stream)).execute(self.serve());
        calls.for_each_concurrent(rpc::IN_FLIGHT, |call| call).await;
    }
}

impl FleetRpc for FleetDesk {
    async fn scale(self, _: Context, size: u32) -> Result<Roster, String> {
        self.0.scale(size).await.map_err(|error| format!("{error:#}"))
    }

    async fn part(self, _: Context, island: BTreeSet<Index>) -> Roster {
        self.0.part(island).await
    }

    async fn kill(self, _: Context, index: Index) -> bool {
        self.0.kill(index).await
    }

    async fn crew(self, _: Context) -> BTreeMap<Index, Stage> {
        self.0.crew()
    }

    async fn log(self, _: Context, after: u64) -> Page {
        self.0.journal.read(after).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_without_end_is_heard_in_parts() {
        let ear = Ear { journal: Arc::default(), index: Index::MIN };
        let mut said = vec![b'x'; 100_000];
        said.extend(b"\nnot \xff text\nlast");
        ear.listen(Some(said.as_slice())).await;
        let texts: Vec<_> = ear.journal.read(0).await.lines.into_iter().map(|line| line.text).collect();
        assert!(texts.len() > 10 && texts.iter().all(|text| text.len() <= journal::TEXT + 3));
        assert_eq!(texts[texts.len() - 2..], ["not \u{fffd} text", "last"]);
    }
}
