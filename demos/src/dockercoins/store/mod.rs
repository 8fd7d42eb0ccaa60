//! The store: which units of work there are, and what came of them.
//!
//! # No unit is lost, and none is counted twice
//!
//! The store hands out units by number. A unit that was handed out is *open* until its hash comes, and counting the hash
//! and closing the unit are one step: whatever is repeated, by whomever, finds the unit closed. A unit that nobody brings
//! back within its time is handed out again. So at any moment
//!
//! ```text
//! units handed out = hashes counted + units open
//! ```
//!
//! and neither the death of a worker nor a lost answer, nor two workers with the same unit, can change that. All
//! operations may be repeated until they are answered.
//!
//! There are two stores. [Redis](redis) does each operation by a script; the [embedded one](mod@serve) is spoken to by HTTP
//! and JSON, for which the sample has all that it takes, client and server, and people have curl. Both are registered
//! under the same name, and the name of their endpoint tells which one it is.

mod introduce;
mod journal;
mod ledger;
mod redis;
mod remote;
mod serve;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use data_encoding::HEXLOWER;
use discovery::{Endpoint, Instance, InstanceBuilder, View};
use reqwest::Client;
use serde::{Deserialize, Serialize};

pub(super) use self::{introduce::introduce, redis::RedisUrl, serve::serve};
use self::{
    redis::{DATABASE, REDIS, Redis},
    remote::Remote,
};
use super::{
    call::Took,
    hasher::hash_of,
    site::{Part, Site},
};
use crate::listen::HTTP;

/// The id of the store. There is one, and whoever comes second finds the place taken.
const ID: &str = "store";

/// A unit of work that was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) unit: u64,
    /// Who did it.
    pub(super) worker: String,
    /// The random bytes, in hexadecimal digits, and their hash.
    pub(super) bytes: String,
    pub(super) hash: String,
    pub(super) rng: Took,
    pub(super) hasher: Took,
}

/// The most bytes that are worth a unit.
const MOST_BYTES: usize = 256;

/// The longest name of anybody.
const LONGEST_NAME: usize = 256;

impl Done {
    /// Refuses what no worker in its senses brings: what is counted, is hashed. The embedded store does, and so does who
    /// brings something to Redis, which itself believes everybody.
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.bytes.len() <= MOST_BYTES * 2, "more than {MOST_BYTES} bytes");
        let bytes = HEXLOWER.decode(self.bytes.as_bytes()).context("the bytes are no hexadecimal digits")?;
        anyhow::ensure!(self.hash == hash_of(&bytes), "that is not the hash of the bytes");
        for name in [&self.worker, &self.rng.by, &self.hasher.by] {
            anyhow::ensure!(name.len() <= LONGEST_NAME, "a name of more than {LONGEST_NAME} bytes");
        }
        for ms in [self.rng.ms, self.hasher.ms] {
            anyhow::ensure!(ms.is_finite() && ms >= 0.0, "a time below 0");
        }
        Ok(())
    }

    /// One hash in sixteen.
    fn is_coin(&self) -> bool {
        self.hash.starts_with('0')
    }
}

/// What came of bringing a unit back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Counted, and the hash is nothing special.
    Plain,
    /// Counted, and the hash is a coin.
    Coin,
    /// Counted, and the hash is a coin that we had.
    OldCoin,
    /// Counted before: by an attempt whose answer was lost, or by another who had the unit as well.
    Known,
}

/// One of the latest units that were counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// When, in milliseconds by the clock of the store.
    pub(super) at: u64,
    pub(super) unit: u64,
    pub(super) worker: String,
    pub(super) rng: Took,
    pub(super) hasher: Took,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reading {
    /// By the clock of the store, in milliseconds since the epoch.
    pub(super) now: u64,
    /// How many units were handed out.
    pub(super) units: u64,
    /// How many of them are open.
    pub(super) open: u64,
    /// How many were counted; `None` before the first one.
    pub(super) hashes: Option<u64>,
    /// How many different coins there are.
    pub(super) coins: u64,
    /// What was counted behind the number that was asked for, the oldest first, as far as that is still known.
    pub(super) latest: Vec<Counted>,
}

/// How many of the latest units a store remembers.
const LATEST: usize = 1000;

/// The store of a project, wherever it is at the moment. Clones share its connection.
#[derive(Clone, Debug)]
pub(super) struct Store {
    view: View,
    client: Client,
    /// The last one that was used. Never locked across an `await`.
    link: Arc<Mutex<Option<(Place, Link)>>>,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Embedded(Endpoint),
    Redis(RedisUrl),
}

/// How a store is spoken to.
#[derive(Clone, Debug)]
enum Link {
    Embedded(Remote),
    Redis(Redis),
}

impl Store {
    pub(super) fn new(site: &Site, client: Client) -> Self {
        Self { view: site.view(Part::Store), client, link: Arc::default() }
    }

    /// A unit to work on, for so long: one that is overdue, or a new one. An answer that is lost leaves a unit that will
    /// be overdue.
    pub(super) async fn take(&self, hold: Duration) -> anyhow::Result<u64> {
        match self.link()? {
            Link::Embedded(link) => link.take(hold).await,
            Link::Redis(mut link) => link.take(hold).await,
        }
    }

    /// Counts a unit, once.
    pub(super) async fn bring(&self, done: &Done) -> anyhow::Result<Verdict> {
        match self.link()? {
            Link::Embedded(link) => link.bring(done).await,
            Link::Redis(mut link) => link.bring(done).await,
        }
    }

    /// Gives a unit to whoever comes next.
    pub(super) async fn give_back(&self, unit: u64) -> anyhow::Result<()> {
        match self.link()? {
            Link::Embedded(link) => link.give_back(unit).await,
            Link::Redis(mut link) => link.give_back(unit).await,
        }
    }

    /// How things stand, and what was counted behind the first `seen`.
    pub(super) async fn read(&self, seen: u64) -> anyhow::Result<Reading> {
        match self.link()? {
            Link::Embedded(link) => link.read(seen).await,
            Link::Redis(mut link) => link.read(seen).await,
        }
    }

    /// The store that is registered now. Also one that is said to be down: there is no other, and it may be up for us.
    fn link(&self) -> anyhow::Result<Link> {
        let snapshot = self.view.snapshot();
        let store = snapshot.iter().next().context("no store is registered")?;
        let place = Place::of(store)?;
        let mut last = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, link)) = &*last
            && *known == place
        {
            return Ok(link.clone());
        }
        let link = match &place {
            Place::Embedded(endpoint) => {
                Link::Embedded(Remote::new(self.client.clone(), format!("http://{endpoint}")))
            }
            Place::Redis(url) => Link::Redis(Redis::open(url)?),
        };
        *last = Some((place, link.clone()));
        Ok(link)
    }
}

impl Place {
    fn of(store: &Instance) -> anyhow::Result<Self> {
        if let Some(endpoint) = store.endpoint(REDIS) {
            let database = store.metadata(DATABASE).unwrap_or("0");
            return Ok(Self::Redis(format!("redis://{endpoint}/{database}").parse()?));
        }
        Ok(Self::Embedded(store.endpoint(HTTP).context("the store has no address")?.clone()))
    }
}

/// What is registered of either store.
fn instance(site: &Site) -> discovery::Result<InstanceBuilder> {
    Ok(site.instance(Part::Store).id(ID.parse()?))
}
