//! Looks a service up and follows it: `look 'dns://?records=a&port=80' blue/database`.

use std::{env, process::ExitCode};

use discovery::{Discovery, Event, Result, Snapshot};
use discovery_dns::{Dns, DnsConfig};
use futures_util::StreamExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [locator, service] = &arguments[..] else {
        eprintln!("usage: look LOCATOR SERVICE");
        return ExitCode::FAILURE;
    };
    match follow(locator, service).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what there is, and again whenever something has changed.
async fn follow(locator: &str, service: &str) -> Result<()> {
    let dns = Dns::new(DnsConfig::from_locator(&locator.parse()?)?)?;
    let mut watch = Discovery::new(dns).watch(service.parse::<discovery::ServiceName>()?);
    let mut known = Snapshot::default();
    while let Some(event) = watch.next().await {
        match event? {
            Event::Stale(error) => println!("stale: {error}"),
            Event::Live => println!("live"),
            event => {
                known.take(&event);
                let shown = known.iter().map(|one| {
                    let endpoints: Vec<_> = one.endpoints().iter().map(ToString::to_string).collect();
                    format!("{} ({}) at {}", one.id(), one.status(), endpoints.join(", "))
                });
                println!("{}: {}", known.len(), shown.collect::<Vec<_>>().join("; "));
            }
        }
    }
    Ok(())
}
