//! A registry for where there is none: the zone that `--backend` names, served to other machines.

use std::net::SocketAddr;

use anyhow::Context;
use discovery::Locator;
use discovery_dns::{Authority, TsigKey, ZoneConfig};

use crate::{
    backend::{BackendArgs, usage},
    console::{BOLD, FAINT, say},
    shutdown,
};

/// What the locator has to be like.
const ADVICE: &str = "write the locator that the others are given, \
                      dns+zone://key:secret@host:port/zone, whose secret is in base64";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    backend: BackendArgs,

    /// The address to listen on, by UDP and TCP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:5300")]
    listen: SocketAddr,
}

/// Serves the zone until somebody ends it. It is kept in memory: behind a restart all register again, by themselves.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let leaving = shutdown::on_signal()?;
    let (key, zone) = key_and_zone(args.backend.text().unwrap_or_default())
        .ok_or_else(|| usage(format_args!("--backend: {ADVICE}")))?;
    let authority = Authority::builder()
        .listen(args.listen)
        .key(key)
        .zone(ZoneConfig::dynamic(&zone))
        .start()
        .await
        .with_context(|| format!("--listen: cannot serve {zone} at {}", args.listen))?;
    say(format_args!("\n  {BOLD}registry{BOLD:#}  {zone} at {}  {FAINT}DNS{FAINT:#}\n", authority.address()));
    leaving.cancelled().await;
    Ok(())
}

fn key_and_zone(locator: &str) -> Option<(TsigKey, String)> {
    let locator: Locator = locator.parse().ok()?;
    let (name, secret) = locator.credentials().ok()??;
    let is_zone = locator.scheme() == "dns+zone" && !locator.path().is_empty();
    is_zone.then_some((TsigKey::new(name, secret).ok()?, locator.path().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_and_the_zone_are_those_of_the_locator() {
        assert_eq!(
            key_and_zone("dns+zone://k:c2VjcmV0@registry:5300/coins.internal").unwrap().1,
            "coins.internal"
        );
        for other in ["", "dns", "zk://k:c2VjcmV0@h/z", "dns+zone://h/z", "dns+zone://k:c2VjcmV0@h"] {
            assert!(key_and_zone(other).is_none(), "{other}");
        }
    }
}
