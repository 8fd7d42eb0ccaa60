//! The dockercoins sample: miners of worthless coins, who find all that they need by name.
//!
//! A worker takes a unit of work from the store, gets random bytes from an rng, has them hashed by a hasher, and brings
//! the hash back to the store; one in sixteen is a coin. The page of the webui shows how fast that goes, and why no
//! faster: an rng serves one at a time.

mod args;
mod call;
mod demo;
mod hasher;
mod retry;
mod rng;
mod site;
mod store;
mod webui;
mod worker;

pub(crate) use self::args::Args;
use self::{
    args::{Command, Common},
    site::{Part, Site},
};
use crate::{
    backend::Sample,
    console::{BOLD, FAINT, say},
    contact,
    listen::Door,
    shutdown,
};

/// The tree is `/coins/<project>/<part>/<id>`.
const DOCKERCOINS: Sample =
    Sample { command: "dockercoins", alone: "dockercoins demo", root: "coins", zone_port: 5303 };

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let leaving = shutdown::on_signal()?;
    let Args { command, common } = args;
    match command {
        Command::Demo(args) => {
            let registry = common.backend.choose("mem", DOCKERCOINS)?.connect().await?;
            Box::pin(demo::run(args, Site::new(registry, &common)?, leaving)).await
        }
        Command::Rng(args) => {
            let site = shared_site(&common).await?;
            let door = args.serve.open(8001).await?;
            announce("rng", &door, &site);
            let rng = rng::run(&site, args.rng, door, leaving);
            contact::told_during(site.registry(), site.view(Part::Rng), rng).await
        }
        Command::Hasher(args) => {
            let site = shared_site(&common).await?;
            let door = args.serve.open(8002).await?;
            announce("hasher", &door, &site);
            let hasher = hasher::run(&site, args.hasher, door, leaving);
            contact::told_during(site.registry(), site.view(Part::Hasher), hasher).await
        }
        Command::Worker(args) => {
            let site = shared_site(&common).await?;
            say(format_args!("\n  {BOLD}worker{BOLD:#}  {FAINT}on {}{FAINT:#}\n", site.registry()));
            let worker = worker::Tools::new(&site, &args)?.work(worker::Voice::Loud, leaving);
            contact::told_during(site.registry(), site.view(Part::Worker), worker).await
        }
        Command::Webui(args) => {
            let site = shared_site(&common).await?;
            let door = args.open(8000).await?;
            announce("webui", &door, &site);
            contact::told_during(site.registry(), site.all(), webui::run(&site, door, None, leaving)).await
        }
        Command::Store(args) => {
            let site = shared_site(&common).await?;
            let door = args.serve.open(0).await?;
            announce("store", &door, &site);
            let store = store::serve(&site, &args.store, door, leaving);
            contact::told_during(site.registry(), site.view(Part::Store), store).await
        }
        Command::Redis(args) => {
            let url = args.url()?;
            let site = shared_site(&common).await?;
            say(format_args!("\n  {BOLD}redis{BOLD:#}  {url}  {FAINT}on {}{FAINT:#}\n", site.registry()));
            let redis = store::introduce(&site, &url, leaving);
            contact::told_during(site.registry(), site.view(Part::Store), redis).await
        }
    }
}

/// A registry that processes share.
async fn shared_site(common: &Common) -> anyhow::Result<Site> {
    let registry = common.backend.choose("zk", DOCKERCOINS)?.shared()?.connect().await?;
    Site::new(registry, common)
}

fn announce(part: &str, door: &Door, site: &Site) {
    say(format_args!("\n  {BOLD}{part}{BOLD:#}  {}  {FAINT}on {}{FAINT:#}\n", door.url(), site.registry()));
}
