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

/// Keeps a Redis registered until `leaving`, as down while it does not answer.
pub(crate) async fn introduce(site: &Site, url: &RedisUrl, leaving: CancellationToken) -> anyhow::Result<()> {
    let mut redis = Redis::open(url)?;
    let mut status = if redis.ping().await.is_ok() { Status::Up } else { Status::Down };
    if status == Status::Down {
        tracing::warn!("{url} does not answer yet; it is registered as down until it does");
    }
    let instance = super::instance(site)?
        .endpoints([Endpoint::new(REDIS, &url.host, url.port)?])
        .metadata(DATABASE, url.database.to_string())
        .status(status);
    let mut presence = site.register(instance.build()?)?;
    let mut silences = 0;
    let ended = loop {
        tokio::select! {
            refused = site.follow(&mut presence) => break Err(refused),
            () = leaving.cancelled() => break Ok(()),
            () = time::sleep(PROBE) => {}
        }
        silences = if redis.ping().await.is_ok() { 0 } else { silences + 1 };
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
