//! Groups in which members die at random: whatever somebody had in hand is done, exactly once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{
    ErrorKind,
    kv::Txn,
    layer::Odds,
    mem::Mem,
    recipe::{Departure, Membership, News},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};

use super::support::{Client, TTL, entries, for_seeds, key, nothing_left, within};

const SEEDS: u64 = 200;
const MEMBERS: usize = 5;
const TROUBLE: Duration = Duration::from_secs(120);

#[test]
fn whatever_somebody_had_in_hand_is_done_exactly_once() {
    for_seeds(SEEDS, run);
}

/// A member in a task of its own.
struct Process {
    client: Client,
    task: JoinHandle<()>,
}

impl Process {
    fn start(mem: &Mem, seed: u64, drawn: &Arc<AtomicUsize>, closing: &watch::Receiver<bool>) -> Self {
        let client = Client::seeded(mem, seed);
        let worker = Worker { client: client.clone(), drawn: drawn.clone(), closing: closing.clone() };
        Self { client, task: tokio::spawn(worker.run()) }
    }

    /// Dies without a word, as after `kill -9`, or with its network gone for ever.
    fn kill(self) {
        self.client.fault.partition();
        self.task.abort();
    }
}

async fn run(seed: u64) {
    let mem = Mem::with_history(64);
    let mut random = fastrand::Rng::with_seed(seed);
    let (drawn, closing) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(false));
    let mut born = 0;
    let mut start = || {
        born += 1;
        Process::start(&mem, seed * 1000 + born, &drawn, &closing.subscribe())
    };
    let mut processes: Vec<_> = (0..MEMBERS).map(|_| start()).collect();
    let end = Instant::now() + TROUBLE;
    while Instant::now() < end {
        let victim = random.usize(0..MEMBERS);
        let fault = &processes[victim].client.fault;
        match random.u32(0..11) {
            0 | 1 => {
                std::mem::replace(&mut processes[victim], start()).kill();
            }
            2 => fault.partition(),
            3 => fault.heal(),
            4 => fault.lose_replies(random.usize(1..4)),
            5 => fault.expire_next(1),
            6 => fault.delay(Duration::from_millis(random.u64(0..1000))),
            7 if random.u32(0..4) == 0 => mem.expire_all(),
            8 => fault.calm(),
            10 => processes[victim].client.calls.answer_late(Duration::from_millis(random.u64(0..2000))),
            _ => fault.odds(Odds::new().fail(random.f64() * 0.2).lose_reply(random.f64() * 0.2).cut(0.02)),
        }
        time::sleep(Duration::from_millis(random.u64(0..4000))).await;
    }
    for process in &processes {
        process.client.fault.calm();
        process.client.calls.answer_late(Duration::ZERO);
    }
    closing.send_replace(true);
    for process in processes {
        within(20 * TTL, &format!("seed {seed}: all leave"), process.task).await.unwrap();
    }
    settle_the_rest(&mem).await;

    // What was taken in hand, and how often it was done.
    let mut done = BTreeMap::<String, usize>::new();
    let all = entries(&mem).await;
    let below = |top: &'static str| all.iter().filter_map(move |entry| entry.key.as_str().strip_prefix(top));
    for receipt in below("receipts/") {
        *done.entry(receipt.split('/').next().unwrap().to_owned()).or_default() += 1;
    }
    let taken: Vec<_> = below("taken/").collect();
    assert!(taken.len() > 20, "seed {seed}: {} is not much", taken.len());
    assert!(done.keys().eq(&taken), "seed {seed}: taken {taken:?}, done {done:?}");
    assert!(done.values().all(|times| *times == 1), "seed {seed}: {done:?}");
    assert_eq!(below("_groups/").count(), 0, "seed {seed}: left in the group");
    for entry in &all {
        discovery::Backend::kv(&mem).unwrap().commit(Txn::new().delete(&entry.key)).await.unwrap();
    }
    nothing_left(&mem).await;
}

/// The last one covers for all who are gone, and goes.
async fn settle_the_rest(mem: &Mem) {
    let client = Client::new(mem);
    let mut last = client.group().join("last").await.unwrap();
    while let Ok(news) = time::timeout(2 * TTL, last.next()).await {
        if let News::Departed(gone) = news.unwrap() {
            gone.settle(done(&in_hand(&gone))).await.unwrap();
        }
    }
    last.leave().await.unwrap();
}

fn in_hand(gone: &Departure) -> Vec<String> {
    let duties = gone.duties().map(|duties| String::from_utf8(duties.to_vec()).unwrap());
    duties.map(|duties| duties.split(' ').map(ToOwned::to_owned).collect()).unwrap_or_default()
}

/// The receipts of duties: to do one twice would be to have two.
fn done(duties: &[String]) -> Txn {
    duties.iter().fold(Txn::new(), |txn, duty| {
        txn.put(&key(&format!("receipts/{duty}/{:08x}", fastrand::u32(..))), "1")
    })
}

/// Takes duties in hand and does them, covers for its buddy, now and then leaves, and joins again when it is lost.
struct Worker {
    client: Client,
    /// Duties are numbered.
    drawn: Arc<AtomicUsize>,
    closing: watch::Receiver<bool>,
}

impl Worker {
    async fn run(self) {
        while !*self.closing.borrow() {
            // What is refused for good is nothing that happens here.
            match self.client.group().join("worker").await {
                Ok(member) => self.work(member).await,
                Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}"),
            }
        }
    }

    async fn work(&self, mut member: Membership) {
        let mut closing = self.closing.clone();
        while member.fence().is_valid() {
            let pause = time::sleep(Duration::from_millis(fastrand::u64(0..1500)));
            let closes = async { closing.wait_for(|closing| *closing).await.is_ok() };
            let news = tokio::select! {
                news = member.next() => Some(news),
                () = pause => None,
                _ = closes => return self.leave(member).await,
            };
            match news {
                Some(Ok(News::Departed(gone))) => self.cover(&member, gone).await,
                Some(Ok(News::Buddy(_))) => {}
                Some(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
                    return;
                }
                None if fastrand::u8(0..40) == 0 => return self.leave(member).await,
                None => self.go_on(&member).await,
            }
        }
    }

    async fn leave(&self, member: Membership) {
        if let Err(error) = member.leave().await {
            assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
        }
    }

    /// Takes something in hand, or does what is.
    async fn go_on(&self, member: &Membership) {
        // What others may have done on its behalf, and what became of a lost reply, only the store knows.
        let Some(mut mine) = self.mine(member).await else { return };
        let txn = if mine.len() < 5 && fastrand::bool() {
            let duty = format!("{:05}", self.drawn.fetch_add(1, Ordering::Relaxed));
            mine.push(duty.clone());
            Txn::new().put(&key(&format!("taken/{duty}")), "1")
        } else if let Some(duty) = mine.pop() {
            done(&[duty])
        } else {
            return;
        };
        let _ = member.fence().commit(with_mine(txn, member, &mine)).await;
    }

    async fn cover(&self, member: &Membership, gone: Departure) {
        // Dies, or does something else, in the middle of it.
        time::sleep(Duration::from_millis(fastrand::u64(0..500))).await;
        let theirs = in_hand(&gone);
        let effects = match fastrand::u8(0..5) {
            0 => return,
            1 | 2 => done(&theirs),
            _ => {
                let Some(mut mine) = self.mine(member).await else { return };
                mine.extend(theirs);
                if mine.is_empty() { Txn::new() } else { with_mine(Txn::new(), member, &mine) }
            }
        };
        if let Err(error) = gone.settle(effects).await {
            assert!(matches!(error.kind(), ErrorKind::LeaseLost | ErrorKind::Conflict), "{error}");
        }
    }

    /// What it has in hand; `None` if that cannot be known now.
    async fn mine(&self, member: &Membership) -> Option<Vec<String>> {
        let entry = self.client.discovery.kv().unwrap().get(&member.duties_key().unwrap()).await.ok()?;
        let duties = entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
        Some(duties.map(|duties| duties.split(' ').map(ToOwned::to_owned).collect()).unwrap_or_default())
    }
}

fn with_mine(txn: Txn, member: &Membership, mine: &[String]) -> Txn {
    let key = member.duties_key().unwrap();
    if mine.is_empty() { txn.delete(&key) } else { txn.put(&key, mine.join(" ")) }
}
