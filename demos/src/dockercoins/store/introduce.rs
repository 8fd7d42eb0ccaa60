//! Registering a Redis, which cannot do so itself.

use std::time::Duration;

use discovery::{Endpoint, Status};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::redis::{DATABASE, REDIS, Redis, RedisUrl};
use crate::dockercoins::site::Site;

/// How often Redis is asked whether it is there.
const PROBE: Duration = Duration::from_millis(500);

/// How often in a row it has to keep silent until it counts as down.
const SILENCES: u32 = 3;

/// Keeps a Redis registered until `leaving`, as down while it does not answer. It has to answer once before, and to be
/// nobody else's: who works on the units of another project would steal them.
pub(crate) async fn introduce(site: &Site, url: &RedisUrl, leaving: CancellationToken) -> anyhow::Result<()> {
    let (mut redis, project) = (Redis::open(url)?, site.project().to_string());
    if leaving.run_until_cancelled(until_ours(&mut redis, &project, url)).await.transpose()?.is_none() {
        return Ok(());
    }
    let instance = super::instance(site)?
        .endpoints([Endpoint::new(REDIS, &url.host, url.port)?])
        .metadata(DATABASE, url.database.to_string());
    let mut presence = site.register(instance.build()?)?;
    let (mut status, mut silences) = (Status::Up, 0);
    let ended = loop {
        tokio::select! {
            refused = site.follow(&mut presence) => break Err(refused),
            () = leaving.cancelled() => break Ok(()),
            () = time::sleep(PROBE) => {}
        }
        silences = match redis.claim(&project).await {
            Ok(owner) => match ours(&owner, &project, url) {
                Ok(()) => 0,
                Err(lost) => break Err(lost),
            },
            Err(_) => silences + 1,
        };
        let now = match silences {
            0 => Status::Up,
            SILENCES.. => Status::Down,
            _ => status,
        };
        if now != status {
            status = now;
            tracing::info!("{url} is {now}");
            presence.set(now).await;
        }
    };
    site.leave(presence).await;
    ended
}

/// Waits for Redis to answer, and says what is wrong with its answer.
async fn until_ours(redis: &mut Redis, project: &str, url: &RedisUrl) -> anyhow::Result<()> {
    let mut is_told = false;
    loop {
        let error = match redis.claim(project).await {
            Ok(owner) => return ours(&owner, project, url),
            Err(error) => error,
        };
        if !is_told {
            tracing::warn!("{url} does not answer yet; it is registered when it does ({error:#})");
            is_told = true;
        }
        time::sleep(PROBE).await;
    }
}

fn ours(owner: &str, project: &str, url: &RedisUrl) -> anyhow::Result<()> {
    let other = RedisUrl { database: url.database + 1, ..url.clone() };
    anyhow::ensure!(
        owner == project,
        "{url} has the units of project {owner}; give {project} a database of its own, such as {other}"
    );
    Ok(())
}
