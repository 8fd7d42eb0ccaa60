//! The embedded store as a client sees it.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, RequestBuilder, Response};

use super::{
    Done, Reading, Verdict,
    serve::{Wish, millis},
};

#[derive(Clone, Debug)]
pub(super) struct Remote {
    client: Client,
    /// Without a slash at the end.
    url: String,
}

impl Remote {
    pub(super) fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    pub(super) async fn take(&self, hold: Duration) -> anyhow::Result<u64> {
        let wish = Wish { hold_ms: millis(hold) };
        Ok(self.send(self.client.post(format!("{}/units", self.url)).json(&wish)).await?.json().await?)
    }

    pub(super) async fn bring(&self, done: &Done) -> anyhow::Result<Verdict> {
        let url = format!("{}/units/{}/done", self.url, done.unit);
        Ok(self.send(self.client.post(url).json(done)).await?.json().await?)
    }

    pub(super) async fn give_back(&self, unit: u64) -> anyhow::Result<()> {
        let url = format!("{}/units/{unit}/back", self.url);
        self.send(self.client.post(url)).await.map(drop)
    }

    pub(super) async fn read(&self, seen: u64) -> anyhow::Result<Reading> {
        let url = format!("{}/units?seen={seen}", self.url);
        Ok(self.send(self.client.get(url)).await?.json().await?)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.and_then(Response::error_for_status);
        answer.map_err(reqwest::Error::without_url).with_context(|| format!("no answer from {}", self.url))
    }
}
