//! The proof that no unit is lost and none is counted twice, while everything around it is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    time::Duration,
};

use discovery::Instance;
use discovery_testbed::{Port, Proxy};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{project::Project, redis_server::RedisServer};
use crate::{
    demo::Demo,
    eventually, http,
    registry::{Registry, connect},
};

/// For how long things are killed.
const WAR: Duration = Duration::from_secs(12);

/// Fast, and quick to give up, so that much happens in that time.
const RNG: [&str; 2] = ["--rng-delay", "10ms"];
const HASHER: [&str; 2] = ["--hasher-delay", "20ms"];
const WORKER: [&str; 6] = ["--worker-delay", "10ms", "--hold", "1s", "--timeout", "400ms"];

/// The processes that are killed and started again, all but the store.
struct Troops {
    project: Project,
    instances: BTreeMap<&'static str, Vec<Demo>>,
    /// What workers said who are dead.
    logs: String,
    killed: usize,
}

impl Troops {
    async fn start(project: &Project) -> Self {
        let mut troops =
            Self { project: project.clone(), instances: BTreeMap::new(), logs: String::new(), killed: 0 };
        for (part, count) in [("rng", 2), ("hasher", 2), ("worker", 4)] {
            for _ in 0..count {
                troops.enlist(part).await;
            }
        }
        troops
    }

    async fn enlist(&mut self, part: &'static str) {
        let ttl = ["--ttl", "1s"];
        let new = match part {
            "rng" => self.project.serve(part, &[&RNG[..], &ttl].concat()).await,
            "hasher" => self.project.serve(part, &[&HASHER[..], &ttl].concat()).await,
            _ => self.project.start(part, &[&WORKER[..], &ttl].concat()),
        };
        self.instances.entry(part).or_default().push(new);
    }

    /// Kills one, and starts another in its place.
    async fn kill(&mut self, part: &'static str) {
        let mut victim = self.instances.get_mut(part).unwrap().remove(0);
        victim.signal(Signal::KILL);
        victim.ended().await;
        self.logs += &victim.log();
        self.killed += 1;
        self.enlist(part).await;
    }

    /// Asks all workers to leave, which they do in order.
    async fn send_home(&mut self) {
        let mut workers = self.instances.remove("worker").unwrap_or_default();
        for worker in &workers {
            worker.signal(Signal::TERM);
        }
        for worker in &mut workers {
            assert!(worker.ended().await.success(), "{}", worker.log());
            self.logs += &worker.log();
        }
    }
}

/// What is killed next, as chance has it.
async fn strike(random: &mut fastrand::Rng, troops: &mut Troops, proxy: &Proxy) {
    match random.u8(..8) {
        0..3 => troops.kill("worker").await,
        3 => troops.kill("rng").await,
        4 => troops.kill("hasher").await,
        5 => proxy.cut().await,
        // What the store has done, nobody hears of.
        _ => {
            proxy.lose_replies().await;
            sleep(Duration::from_millis(random.u64(30..200))).await;
            proxy.cut().await;
            proxy.pass().await;
        }
    }
}

/// Lets the store count what nobody hears of, so that it is brought again.
async fn lose_replies(troops: &Troops, proxy: &Proxy) {
    eventually("a unit is brought that was counted before", async || {
        proxy.lose_replies().await;
        sleep(Duration::from_millis(300)).await;
        proxy.cut().await;
        proxy.pass().await;
        // As long as they may pause between attempts.
        let deadline = Instant::now() + Duration::from_millis(2500);
        let is_repeated =
            || troops.instances["worker"].iter().any(|worker| worker.log().contains("was counted before"));
        while !is_repeated() && Instant::now() < deadline {
            sleep(Duration::from_millis(50)).await;
        }
        is_repeated()
    })
    .await;
}

/// Lets one more worker do what is left open, until nothing is.
async fn finish(troops: &mut Troops, open: impl AsyncFn() -> u64) {
    eventually("all is done that was open", async || {
        troops.enlist("worker").await;
        // Longer than a unit is its holder's own.
        sleep(Duration::from_millis(1500)).await;
        troops.send_home().await;
        open().await == 0
    })
    .await;
}

pub(crate) async fn no_unit_is_lost_or_counted_twice_whatever_is_killed<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    // The store itself is in a project of its own; here it is known by the address of the proxy.
    let port = Port::reserve().unwrap();
    let (number, path) = (port.number().to_string(), journal.to_str().unwrap());
    let args = ["--port", &number, "--journal", path, "--ttl", "1s"];
    let start = async || Demo::start(hidden_args(&registry, &args)).await;
    let mut store = start().await;
    let proxy = Proxy::start(port.address()).unwrap();
    let _known = introduce(&registry, proxy.address()).await;

    let mut troops = Troops::start(&Project::on(&registry, "dockercoins")).await;
    let reading =
        async || -> Value { http::get(&format!("http://{}/units?seen=0", port.address())).await.json() };
    eventually("work has begun", async || reading().await["hashes"].as_u64() > Some(10)).await;
    lose_replies(&troops, &proxy).await;
    let mut random = fastrand::Rng::with_seed(4);
    let (end, mut restarts) = (Instant::now() + WAR, 0);
    while Instant::now() < end || restarts == 0 {
        strike(&mut random, &mut troops, &proxy).await;
        if random.u8(..4) == 0 {
            store.signal(Signal::KILL);
            store.ended().await;
            store = start().await;
            restarts += 1;
        }
        sleep(Duration::from_millis(random.u64(20..150))).await;
    }
    troops.send_home().await;
    finish(&mut troops, async || reading().await["open"].as_u64().unwrap()).await;

    // Each unit from the first to the last was handed out once as a new one, and counted once.
    let written = fs::read_to_string(&journal).unwrap();
    assert!(written.lines().count() < 10_000, "a longer one is summed up, and tells nothing of each unit");
    let (mut issued, mut counted) = (Vec::new(), Vec::new());
    for line in written.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        issued.extend(entry["issued"].as_u64());
        counted.extend(entry["counted"][0].as_u64());
    }
    let units = issued.len() as u64;
    assert_eq!(issued, (1..=units).collect::<Vec<_>>());
    assert_eq!(counted.len() as u64, units, "one is counted twice, or not at all");
    assert_eq!(counted.into_iter().collect::<BTreeSet<_>>(), (1..=units).collect());
    let reading = reading().await;
    assert_eq!((reading["units"].as_u64(), reading["hashes"].as_u64()), (Some(units), Some(units)));
    report(&troops, units, restarts);
}

pub(crate) async fn no_unit_is_lost_or_counted_twice_in_redis_whatever_is_killed<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let Some(mut redis) = RedisServer::start_or_skip().await else { return };
    let project = Project::on(&registry, "dockercoins");
    let proxy = Proxy::start(redis.address()).unwrap();
    let introduction = ["--url", &format!("redis://{}", proxy.address()), "--ttl", "1s"];
    let _redis = project.start("redis", &introduction);
    let mut troops = Troops::start(&project).await;
    let number = async |redis: &RedisServer, command: &[&str]| -> u64 {
        redis.ask(command).await.parse().unwrap_or_default()
    };
    eventually("work has begun", async || number(&redis, &["get", "hashes"]).await > 10).await;
    lose_replies(&troops, &proxy).await;
    let mut random = fastrand::Rng::with_seed(5);
    let (end, mut restarts) = (Instant::now() + WAR, 0);
    while Instant::now() < end || restarts == 0 {
        strike(&mut random, &mut troops, &proxy).await;
        if random.u8(..6) == 0 {
            redis.kill().await;
            redis.restart().await;
            restarts += 1;
        }
        sleep(Duration::from_millis(random.u64(20..150))).await;
        // It remembers the last thousand; all are wanted.
        if number(&redis, &["llen", "latest"]).await > 900 && restarts > 0 {
            break;
        }
    }
    troops.send_home().await;
    finish(&mut troops, async || number(&redis, &["zcard", "open"]).await).await;

    let units = number(&redis, &["get", "units"]).await;
    assert_eq!(number(&redis, &["get", "hashes"]).await, units, "one is counted twice, or not at all");
    let latest = latest(&redis).await;
    assert_eq!(latest.len() as u64, units);
    assert_eq!(latest.into_iter().collect::<BTreeSet<_>>(), (1..=units).collect(), "one is counted twice");
    report(&troops, units, restarts);
}

pub(crate) async fn a_redis_is_found_by_name_and_has_the_keys_of_the_original<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let Some(mut redis) = RedisServer::start_or_skip().await else { return };
    let project = Project::on(&registry, "dockercoins");
    let url = redis.address().to_string();
    let mut introduced = project.start("redis", &["--address", &url]);
    let _parts = [
        project.serve("rng", &["--rng-delay", "0s"]).await,
        project.serve("hasher", &["--hasher-delay", "0s"]).await,
    ];
    let page = project.page().await;
    let mut worker = project.start("worker", &["--worker-delay", "0s"]);
    eventually("there are coins", async || page.json().await["coins"].as_u64() > Some(2)).await;
    let store = page.instances("store").await;
    assert_eq!(store[0]["address"].as_str(), Some(&*url));

    // Away, it is seen as down; and back, it goes on.
    redis.kill().await;
    eventually("Redis is down", async || page.instances("store").await[0]["status"] == "down").await;
    assert_eq!(http::get(&format!("{}json", page.0.url())).await.status, 503);
    redis.restart().await;
    eventually("Redis is up", async || page.instances("store").await[0]["status"] == "up").await;
    eventually("the page reads it", async || page.picture().await["trouble"].is_null()).await;
    page.until_more(20).await;

    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());
    let hashes = redis.ask(&["get", "hashes"]).await;
    eventually("the page has the same count", async || page.json().await["hashes"] == hashes.as_str()).await;
    assert_eq!(redis.ask(&["hlen", "wallet"]).await, page.json().await["coins"].to_string());
    for coin in redis.ask(&["hkeys", "wallet"]).await.lines() {
        assert!(coin.starts_with('0') && coin.len() == 64, "{coin}");
        assert_eq!(redis.ask(&["hstrlen", "wallet", coin]).await, "32");
    }
    introduced.signal(Signal::TERM);
    assert!(introduced.ended().await.success());
    page.until_instances("store", 0).await;
}

pub(crate) async fn two_projects_on_one_redis_need_two_databases<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let Some(redis) = RedisServer::start_or_skip().await else { return };
    // What the original has left is no other project's.
    redis.ask(&["incrby", "hashes", "7"]).await;
    let (blue, green) = (Project::on(&registry, "blue"), Project::on(&registry, "green"));
    let url = format!("redis://{}", redis.address());
    let _blue = blue.start("redis", &["--url", &url]);
    let in_blue = blue.page().await;
    eventually("blue goes on where the original was", async || in_blue.hashes().await == 7).await;

    let mut refused = green.start("redis", &["--url", &url]);
    assert_eq!(refused.ended().await.code(), Some(1));
    let log = refused.log();
    assert!(log.contains("has the units of project blue") && log.contains(&format!("{url}/1")), "{log}");
    let in_green = green.page().await;
    let _green = green.start("redis", &["--url", &format!("{url}/1")]);
    in_green.until_instances("store", 1).await;
    let _parts = [
        blue.serve("rng", &[]).await,
        blue.serve("hasher", &[]).await,
        green.serve("rng", &[]).await,
        green.serve("hasher", &[]).await,
    ];
    let _worker = green.start("worker", &[]);
    in_green.until_more(3).await;
    assert_eq!(in_blue.hashes().await, 7);
}

/// The units that Redis remembers.
async fn latest(redis: &RedisServer) -> Vec<u64> {
    let answer = redis.ask(&["lrange", "latest", "0", "-1"]).await;
    let unit = |line: &str| {
        let (_, entry) = line.split_once(' ').unwrap();
        serde_json::from_str::<Value>(entry).unwrap()[0].as_u64().unwrap()
    };
    answer.lines().map(unit).collect()
}

/// Registers an address as the store of the project.
async fn introduce<R: Registry>(registry: &R, address: SocketAddr) -> discovery::Registration {
    let store = Instance::builder("dockercoins/store".parse().unwrap())
        .id("store".parse().unwrap())
        .endpoint("http", &address.ip().to_string(), address.port());
    connect(registry).await.register(store.build().unwrap()).await.unwrap()
}

fn hidden_args<R: Registry>(registry: &R, more: &[&str]) -> Vec<String> {
    let common = ["dockercoins", "store", "--project", "hidden", "--backend"];
    let args = common.into_iter().map(str::to_owned).chain([registry.locator()]);
    args.chain(more.iter().map(|arg| (*arg).to_owned())).collect()
}

/// What it took, for people.
fn report(troops: &Troops, units: u64, restarts: u32) {
    let repeated = troops.logs.matches("was counted before").count();
    println!(
        "{units} units, each counted once; {} processes and {restarts} times the store killed; \
         {repeated} times a unit was brought that was counted before",
        troops.killed
    );
    assert!(troops.killed > 0 && restarts > 0 && repeated > 0, "nothing was at stake");
}
