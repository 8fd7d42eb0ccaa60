//! The embedded store as a client sees it.

use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;

use super::{
    Done, Reading, Verdict,
    serve::{Wish, millis},
};
use crate::dockercoins::call::body;

/// The most bytes of an answer: a thousand units, with some to spare.
const MOST: usize = 4 * 1024 * 1024;

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
        self.ask(self.client.post(format!("{}/units", self.url)).json(&wish)).await
    }

    pub(super) async fn bring(&self, done: &Done) -> anyhow::Result<Verdict> {
        let url = format!("{}/units/{}/done", self.url, done.unit);
        self.ask(self.client.post(url).json(done)).await
    }

    pub(super) async fn give_back(&self, unit: u64) -> anyhow::Result<()> {
        let url = format!("{}/units/{unit}/back", self.url);
        self.send(self.client.post(url)).await.map(drop)
    }

    pub(super) async fn read(&self, seen: u64) -> anyhow::Result<Reading> {
        let url = format!("{}/units?seen={seen}", self.url);
        self.ask(self.client.get(url)).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        Ok(serde_json::from_slice(&self.send(request).await?)?)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Bytes> {
        body(request, MOST).await.context("no answer from the store")
    }
}
