//! Redis as the store: each operation is a script, which Redis does as a whole or not at all.
//!
//! `hashes` and `wallet` are as the original has them. Beside them: `units`, the number of the last one that was handed
//! out; `open`, those that are, by when they are overdue; `latest`, the newest first; and `project`, whose they are: the
//! names of the others say nothing of that, so that two projects need two databases.

use std::{fmt, str::FromStr, sync::LazyLock, time::Duration};

use anyhow::Context;
use data_encoding::HEXLOWER;
use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{Counted, Done, LATEST, Reading, Verdict, serve::millis};

/// The name of the endpoint under which a Redis is registered.
pub(super) const REDIS: &str = "redis";

/// In the metadata: which database of it.
pub(super) const DATABASE: &str = "database";

/// How long Redis may take to answer, or to let us in.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the scripts have the time from, in milliseconds. It may be set, but what is due has to outlive Redis: there is no
/// better one.
const NOW: &str = "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)\n";

static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('SETNX', 'project', ARGV[1])
        return redis.call('GET', 'project')",
    )
});

static TAKE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local unit = redis.call('ZRANGEBYSCORE', 'open', '-inf', now, 'LIMIT', 0, 1)[1]
        if not unit then unit = redis.call('INCR', 'units') end
        redis.call('ZADD', 'open', now + ARGV[1], unit)
        return tonumber(unit)",
    )
});

static BRING: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.call('ZREM', 'open', ARGV[1]) == 0 then return 'known' end
        redis.call('INCR', 'hashes')
        redis.call('LPUSH', 'latest', now .. ' ' .. ARGV[2])
        redis.call('LTRIM', 'latest', 0, ARGV[3] - 1)
        if string.sub(ARGV[4], 1, 1) ~= '0' then return 'plain' end
        if redis.call('HSET', 'wallet', ARGV[4], ARGV[5]) == 0 then return 'oldcoin' end
        return 'coin'",
    )
});

static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| script("return redis.call('ZADD', 'open', 'XX', 0, ARGV[1])"));

static READ: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local hashes = redis.call('GET', 'hashes')
        local unseen = (hashes or 0) - ARGV[1]
        if unseen < 0 then unseen = hashes or 0 end
        local latest = {}
        if unseen > 0 then latest = redis.call('LRANGE', 'latest', 0, unseen - 1) end
        return {now, redis.call('GET', 'units') or 0, redis.call('ZCARD', 'open'), hashes, redis.call('HLEN', 'wallet'), latest}",
    )
});

fn script(code: &str) -> Script {
    Script::new(&format!("{NOW}{code}"))
}

/// Where a Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: i64,
}

impl FromStr for RedisUrl {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let text = text.strip_prefix("redis://").unwrap_or(text);
        anyhow::ensure!(
            !text.contains("://"),
            "it begins with redis://; other ways to connect are not provided for"
        );
        // What is registered, all can read.
        anyhow::ensure!(
            !text.contains('@'),
            "a password has no place in a registry; use a Redis without one"
        );
        let (address, database) = text.split_once('/').unwrap_or((text, "0"));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (address, "6379"),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        anyhow::ensure!(!host.is_empty(), "it names no host");
        let port = port.parse().with_context(|| format!("{port:?} is no port"))?;
        let database = if database.is_empty() { "0" } else { database };
        let database =
            database.parse().with_context(|| format!("{database:?} is no number of a database"))?;
        Ok(Self { host, port, database })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, database } = self;
        if host.contains(':') {
            return write!(f, "redis://[{host}]:{port}/{database}");
        }
        write!(f, "redis://{host}:{port}/{database}")
    }
}

/// A Redis, connected to when it is first used, and again whenever that is necessary.
#[derive(Clone)]
pub(super) struct Redis(ConnectionManager);

impl Redis {
    pub(super) fn open(url: &RedisUrl) -> anyhow::Result<Self> {
        // Attempts are repeated by those who want something, not in here.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        Ok(Self(Client::open(url.to_string())?.get_connection_manager_lazy(config)?))
    }

    /// Makes the database a project's own, unless it is one's already; says whose it is.
    pub(super) async fn claim(&mut self, project: &str) -> anyhow::Result<String> {
        Ok(CLAIM.arg(project).invoke_async(&mut self.0).await?)
    }

    pub(super) async fn take(&mut self, hold: Duration) -> anyhow::Result<u64> {
        Ok(TAKE.arg(millis(hold)).invoke_async(&mut self.0).await?)
    }

    pub(super) async fn bring(&mut self, done: &Done) -> anyhow::Result<Verdict> {
        done.check()?;
        let Done { unit, worker, bytes, hash, rng, hasher } = done;
        let latest = serde_json::to_string(&(unit, worker, rng, hasher))?;
        // As the original keeps it.
        let bytes = HEXLOWER.decode(bytes.as_bytes())?;
        let mut call = BRING.prepare_invoke();
        call.arg(unit).arg(latest).arg(LATEST).arg(hash).arg(bytes);
        let verdict: String = call.invoke_async(&mut self.0).await?;
        Ok(serde_json::from_value(verdict.into())?)
    }

    pub(super) async fn give_back(&mut self, unit: u64) -> anyhow::Result<()> {
        let _: u64 = GIVE_BACK.arg(unit).invoke_async(&mut self.0).await?;
        Ok(())
    }

    pub(super) async fn read(&mut self, seen: u64) -> anyhow::Result<Reading> {
        type Answer = (u64, u64, u64, Option<u64>, u64, Vec<String>);
        let (now, units, open, hashes, coins, latest): Answer =
            READ.arg(seen).invoke_async(&mut self.0).await?;
        let latest = latest.iter().rev().map(|text| counted(text)).collect::<anyhow::Result<_>>()?;
        Ok(Reading { now, units, open, hashes, coins, latest })
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

fn counted(text: &str) -> anyhow::Result<Counted> {
    let (at, rest) = text.split_once(' ').context("an entry of another program")?;
    let (unit, worker, rng, hasher) = serde_json::from_str(rest)?;
    Ok(Counted { at: at.parse()?, unit, worker, rng, hasher })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_defaults() {
        for (text, url) in [
            ("redis://h:1/2", "redis://h:1/2"),
            ("redis://h", "redis://h:6379/0"),
            ("h:7", "redis://h:7/0"),
            ("127.0.0.1", "redis://127.0.0.1:6379/0"),
            ("redis://[::1]:7/", "redis://[::1]:7/0"),
            ("[::1]", "redis://[::1]:6379/0"),
        ] {
            assert_eq!(text.parse::<RedisUrl>().unwrap().to_string(), url, "{text}");
        }
        for (text, why) in [
            ("rediss://h", "redis://"),
            ("redis://me:secret@h", "password"),
            ("h:x", "no port"),
            ("h:1/x", "database"),
            (":1", "no host"),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
