//! Calling one of several, each in turn.
//!
//! In turn, and not whoever has the least to do: a worker in a process of its own has one call under way at most, and
//! knows nothing of those of the others, so that its choice by load would be one by chance.

use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use discovery::{
    Backoff,
    balance::{Balancer, Ejection, RoundRobin},
};
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::site::{Part, Site};
use crate::listen::HTTP;

/// How long one who fails is left out, if there are others.
const OUT: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);

/// Who answered, and how long that took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Took {
    pub(super) by: String,
    pub(super) ms: f64,
}

/// Calls the instances of one part. Clones share their balancer, and so take turns with each other.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    part: Part,
    balancer: Balancer,
    client: Client,
}

impl Caller {
    pub(super) fn new(site: &Site, part: Part, client: Client) -> Self {
        let ejection = Ejection::new().after(1).backoff(OUT);
        let balancer = Balancer::builder(RoundRobin::new()).ejection(ejection).build(&site.view(part));
        Self { part, balancer, client }
    }

    /// Sends what `request` makes of an address, once.
    pub(super) async fn call(
        &self,
        request: impl FnOnce(&Client, String) -> RequestBuilder,
    ) -> anyhow::Result<(Bytes, Took)> {
        let pick = self.balancer.pick()?;
        let endpoint = pick.endpoint(HTTP).with_context(|| format!("{} has no address", self.part))?;
        let began = Instant::now();
        match send(request(&self.client, format!("http://{endpoint}"))).await {
            Ok(bytes) => {
                let ms = began.elapsed().as_secs_f64() * 1000.0;
                Ok((bytes, Took { by: pick.id().to_string(), ms }))
            }
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("{} failed", pick.key()));
                pick.failed();
                Err(error)
            }
        }
    }
}

/// What calls are made with.
pub(super) fn client(timeout: Duration) -> anyhow::Result<Client> {
    let builder = Client::builder().timeout(timeout).connect_timeout(CONNECT.min(timeout)).no_proxy();
    builder.tcp_nodelay(true).build().context("no HTTP client")
}

async fn send(request: RequestBuilder) -> reqwest::Result<Bytes> {
    request.send().await?.error_for_status()?.bytes().await
}
