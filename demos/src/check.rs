//! For health checks where there is no curl, as in an image with nothing but this program.

use std::time::Duration;

use anyhow::Context;
use discovery::ServiceName;
use tokio::time;

use crate::{
    backend::{BackendArgs, Sample, usage},
    console::say,
};

/// How long a healthy server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Without an address, it is a registry that is asked, for a service of this name, which need not exist.
const CHECK: Sample = Sample { command: "check", alone: "check", root: "check", zone_port: 5300 };

/// What to ask for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address, such as `http://127.0.0.1:8000/readyz`; without one, the registry that --backend names is asked
    url: Option<String>,

    #[command(flatten)]
    backend: BackendArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match &args.url {
        Some(url) => ask_web(url).await,
        None => ask_registry(&args.backend).await,
    }
}

async fn ask_web(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let answer = client.get(url).send().await.context("no answer")?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    anyhow::ensure!(status.is_success(), "{url}: {status} {}", body.trim());
    say(body.trim_end());
    Ok(())
}

/// Whoever knows that a service has no instances, knows the others.
async fn ask_registry(backend: &BackendArgs) -> anyhow::Result<()> {
    let is_elsewhere =
        |text: &str| text.contains("://") && !text.starts_with("mem:") && !text.contains("serve=true");
    if !backend.text().is_some_and(is_elsewhere) {
        return Err(usage("give an address, or the locator of a registry that others serve with --backend"));
    }
    let registry = backend.choose_any("mem", CHECK)?.connect().await?;
    let service: ServiceName = CHECK.root.parse()?;
    let answer = time::timeout(PATIENCE, registry.discovery.lookup(&service)).await;
    answer.map_err(anyhow::Error::from).and_then(|known| Ok(known?)).context("no answer")?;
    say(format_args!("{registry} answers"));
    Ok(())
}
