//! Whoever runs nodes: starts them, hears them, notices how they end, kills them and lets them leave.

use std::{collections::BTreeMap, process::Stdio, sync::Arc, time::Duration};

use anyhow::Context as _;
use discovery::{ErrorKind, Instance, Registration};
use futures_util::{StreamExt, future::join_all};
use tarpc::{
    context::Context,
    server::{BaseChannel, Channel},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::{Mutex, watch},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    args::Common,
    journal::{Journal, Line},
    net::Net,
    node::{Node, Role},
    project::{Index, NODE},
    rpc::{self, Fleet as _, RPC},
};
use crate::{
    console::{FAINT, say},
    listen::{Door, ListenArgs},
};

/// How long a node may take to leave in order.
const FAREWELL: Duration = Duration::from_secs(5);

/// The pause between two attempts to register after another `up`, which may have died.
const AGAIN: Duration = Duration::from_millis(500);

/// Nodes that belong together: processes, or tasks where the registry ends at the border of the process.
pub(super) struct Fleet {
    net: Net,
    common: Common,
    journal: Arc<Journal>,
    /// Held by whoever starts nodes or lets some leave, until that is done.
    crew: Mutex<Crew>,
}

#[derive(Default)]
struct Crew {
    berths: BTreeMap<Index, Berth>,
    /// Those who look after a node each, from its start to its end.
    tasks: JoinSet<()>,
}

/// A node as its fleet sees it.
struct Berth {
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
}

impl Fleet {
    pub(super) fn new(net: &Net, common: &Common) -> Arc<Self> {
        let (net, common) = (net.clone(), common.clone());
        Arc::new(Self { net, common, journal: Arc::default(), crew: Mutex::default() })
    }

    /// Answers others until it is dropped.
    pub(super) async fn serve(self: Arc<Self>, door: Door) {
        rpc::accept(door.listener, |stream| Desk(self.clone()).attend(stream)).await;
    }

    /// Registers as the one fleet of its project.
    pub(super) async fn register(&self, door: &Door) -> anyhow::Result<Registration> {
        let (project, registry) = (&self.net.project, &self.net.registry);
        let instance = Instance::builder(project.fleet().clone())
            .id("1".parse()?)
            .endpoints(door.endpoints.clone())
            .build()?;
        let deadline = Instant::now() + self.common.ttl * 2;
        loop {
            let register = registry.discovery.register(instance.clone()).ttl(self.common.ttl);
            match register.await {
                // One that has died is there for as long as its lease.
                Err(error) if error.kind() == ErrorKind::Conflict && Instant::now() < deadline => {
                    time::sleep(AGAIN).await;
                }
                Err(error) if error.kind() == ErrorKind::Conflict => anyhow::bail!(
                    "the nodes of {} are up already; change how many with `scale`, or choose another --project",
                    project.name()
                ),
                registered => return registered.with_context(|| format!("cannot register on {registry}")),
            }
        }
    }

    /// Starts nodes, dead ones again, or lets the last ones leave, until there are `size`.
    pub(super) async fn scale(&self, size: u32) -> anyhow::Result<()> {
        let mut crew = self.crew.lock().await;
        let Some(last) = Index::new(size) else {
            let all = std::mem::take(&mut crew.berths);
            return Ok(leave(all).await);
        };
        let mut leaving = crew.berths.split_off(&last);
        crew.berths.extend(leaving.remove_entry(&last));
        leave(leaving).await;
        while crew.tasks.try_join_next().is_some() {}
        for index in (1..=size).filter_map(Index::new) {
            if crew.berths.get(&index).is_none_or(Berth::has_ended) {
                let berth = self.start(index, &mut crew.tasks)?;
                crew.berths.insert(index, berth);
            }
        }
        Ok(())
    }

    fn start(&self, index: Index, tasks: &mut JoinSet<()>) -> anyhow::Result<Berth> {
        let (leave, kill) = (CancellationToken::new(), CancellationToken::new());
        let (ended, end) = watch::channel(None);
        let voice = Voice { journal: self.journal.clone(), index };
        let last = voice.clone();
        let life: std::pin::Pin<Box<dyn Future<Output = String> + Send>> = if self.net.registry.is_shared() {
            Box::pin(look_after(self.process(index)?, voice, leave.clone(), kill.clone()))
        } else {
            Box::pin(self.task(index, voice, leave.clone(), kill.clone()))
        };
        let is_wanted = leave.clone();
        tasks.spawn(async move {
            let how = life.await;
            if !is_wanted.is_cancelled() {
                last.hear(&format!("died: {how}"));
            }
            ended.send_replace(Some(how));
        });
        Ok(Berth { leave, kill, end })
    }

    fn process(&self, index: Index) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["nodes", "serve", "--tethered", "--port", "0"]);
        command.args(["--index", &index.to_string(), "--project", self.net.project.name()]);
        command.args(["--ttl", &humantime::format_duration(self.common.ttl).to_string()]);
        // Not as an argument: there may be a secret in it, and others see arguments.
        command.envs(self.common.backend.text().map(|text| ("DISCOVERY_BACKEND", text)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is for this process, which lets the others leave.
        command.process_group(0);
        command.spawn().context("cannot start a node")
    }

    fn task(
        &self,
        index: Index,
        voice: Voice,
        leave: CancellationToken,
        kill: CancellationToken,
    ) -> impl Future<Output = String> + Send + 'static {
        // A lease of its own, which ends with it.
        let registry = self.net.registry.apart();
        let (project, ttl) = (self.net.project.clone(), self.common.ttl);
        let role = Role { project, index, ttl, take_over: true };
        let life = async move {
            let door = ListenArgs::loopback().open_as(RPC, 0).await?;
            let node = Node::new(&registry, &role, door, Box::new(move |text| voice.hear(text)))?;
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
        let mut crew = self.crew.lock().await;
        match crew.berths.get_mut(&index) {
            Some(berth) if !berth.has_ended() => {
                berth.kill.cancel();
                berth.ended().await;
                true
            }
            _ => false,
        }
    }

    async fn crew(&self) -> BTreeMap<Index, Option<String>> {
        let crew = self.crew.lock().await;
        crew.berths.iter().map(|(index, berth)| (*index, berth.end.borrow().clone())).collect()
    }
}

/// Lets nodes leave; returns when all have.
async fn leave(mut berths: BTreeMap<Index, Berth>) {
    berths.values().for_each(|berth| berth.leave.cancel());
    join_all(berths.values_mut().map(Berth::ended)).await;
}

/// Hears what a node says.
#[derive(Clone)]
struct Voice {
    journal: Arc<Journal>,
    index: Index,
}

impl Voice {
    fn hear(&self, text: &str) {
        say(format_args!("{FAINT}{NODE}-{} |{FAINT:#} {text}", self.index));
        self.journal.push(self.index, text);
    }

    async fn listen(&self, output: Option<impl AsyncRead + Unpin>) {
        let Some(output) = output else { return };
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            self.hear(&line);
        }
    }
}

/// Looks after a process from its start to its end; says how it ended.
async fn look_after(
    mut child: Child,
    voice: Voice,
    leave: CancellationToken,
    kill: CancellationToken,
) -> String {
    let (input, output, log) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let end = async {
        tokio::select! {
            status = child.wait() => return status,
            () = kill.cancelled() => child.start_kill()?,
            // It leaves when nobody can tell it anything any more.
            () = leave.cancelled() => drop(input),
        }
        match time::timeout(FAREWELL, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                child.start_kill()?;
                child.wait().await
            }
        }
    };
    let (status, (), ()) = tokio::join!(end, voice.listen(output), voice.listen(log));
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// A connection to the fleet.
#[derive(Clone)]
struct Desk(Arc<Fleet>);

impl Desk {
    async fn attend(self, stream: TcpStream) {
        let calls = BaseChannel::with_defaults(rpc::transport(stream)).execute(self.serve());
        calls.for_each_concurrent(rpc::IN_FLIGHT, |call| call).await;
    }
}

impl rpc::Fleet for Desk {
    async fn scale(self, _: Context, size: u32) -> Result<(), String> {
        self.0.scale(size).await.map_err(|error| format!("{error:#}"))
    }

    async fn kill(self, _: Context, index: Index) -> bool {
        self.0.kill(index).await
    }

    async fn crew(self, _: Context) -> BTreeMap<Index, Option<String>> {
        self.0.crew().await
    }

    async fn log(self, _: Context, after: u64) -> Vec<Line> {
        self.0.journal.read(after).await
    }
}
