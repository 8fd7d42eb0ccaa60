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

/// The most bytes of an answer; what is asked for is far less.
const MOST: usize = 4096;

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

    /// Sends what `request` makes of an address, once. Whoever answers what `read` does not take has failed.
    pub(super) async fn call<T>(
        &self,
        request: impl FnOnce(&Client, String) -> RequestBuilder,
        read: impl FnOnce(Bytes) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Took)> {
        let pick = self.balancer.pick()?;
        let endpoint = pick.endpoint(HTTP).with_context(|| format!("{} has no address", self.part))?;
        let began = Instant::now();
        let answer = body(request(&self.client, format!("http://{endpoint}")), MOST).await;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        match answer.and_then(read) {
            Ok(answer) => Ok((answer, Took { by: pick.id().to_string(), ms })),
            Err(error) => {
                let error = error.context(format!("{} failed", pick.key()));
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

/// What the answer to a request consists of, if that is not more than `most` bytes.
pub(super) async fn body(request: RequestBuilder, most: usize) -> anyhow::Result<Bytes> {
    let mut answer = request.send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        anyhow::ensure!(body.len() + chunk.len() <= most, "an answer of more than {most} bytes");
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::IntoFuture};

    use axum::{Router, body::Body, routing::get};
    use futures_util::stream;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let endless =
            async || Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[0; 1000]))));
        let router = Router::new().route("/endless", get(endless)).route("/short", get(async || "short"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = async {
            let client = client(Duration::from_secs(10)).unwrap();
            assert_eq!(body(client.get(format!("{url}/short")), 5).await.unwrap(), "short");
            let error = body(client.get(format!("{url}/endless")), 5000).await.unwrap_err();
            assert!(error.to_string().contains("more than 5000 bytes"), "{error:#}");
        };
        tokio::select! {
            () = asked => {}
            ended = axum::serve(listener, router).into_future() => panic!("{ended:?}"),
        }
    }
}
