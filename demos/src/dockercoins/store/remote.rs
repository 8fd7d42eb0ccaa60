//! The embedded store as a client sees it.

use std::time::Duration;

use reqwest::Client;

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
        let answer = self.client.post(format!("{}/units", self.url)).json(&wish).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    pub(super) async fn bring(&self, done: &Done) -> anyhow::Result<Verdict> {
        let url = format!("{}/units/{}/done", self.url, done.unit);
        Ok(self.client.post(url).json(done).send().await?.error_for_status()?.json().await?)
    }

    pub(super) async fn give_back(&self, unit: u64) -> anyhow::Result<()> {
        let url = format!("{}/units/{unit}/back", self.url);
        self.client.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    pub(super) async fn read(&self, seen: u64) -> anyhow::Result<Reading> {
        let url = format!("{}/units?seen={seen}", self.url);
        Ok(self.client.get(url).send().await?.error_for_status()?.json().await?)
    }
}
