//! For health checks where there is no curl, as in an image with nothing but this program.

use std::time::Duration;

use anyhow::Context;

use crate::console::say;

/// How long a healthy server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to ask for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address, such as `http://127.0.0.1:8000/readyz`
    url: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let answer = client.get(&args.url).send().await.context("no answer")?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    anyhow::ensure!(status.is_success(), "{}: {status} {}", args.url, body.trim());
    say(body.trim_end());
    Ok(())
}
