//! An authority over a busy registry, to be measured from outside: `authority_load ADDRESS INSTANCES CHANGES_PER_SECOND`.
//!
//! Shows `INSTANCES` instances, ten a service, in the zone `disco.example`, while others come and go.

use std::{error::Error, time::Duration};

use discovery::{Discovery, Instance, InstanceId, Scope, mem::Mem};
use discovery_dns::{Authority, ZoneConfig};
use tokio::time::{MissedTickBehavior, interval};

const STEP: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, instances, changes] = &arguments[..] else {
        return Err("usage: authority_load ADDRESS INSTANCES CHANGES_PER_SECOND".into());
    };
    let (instances, changes): (u32, u32) = (instances.parse()?, changes.parse()?);
    let discovery = Discovery::new(Mem::new());
    for n in 0..instances {
        discovery.register(instance(&format!("eu1/prod/s{}", n / 10), n)?).permanent().await?.detach();
    }
    let zone = ZoneConfig::view("disco.example", &discovery, Scope::everything());
    let authority = Authority::builder().listen(address.parse()?).zone(zone).start().await?;
    println!("{authority:?}");

    let mut pace = interval(STEP);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let a_step = changes / 100;
    let mut next = 0_u32;
    loop {
        pace.tick().await;
        for _ in 0..a_step {
            let busy = instance("eu1/prod/busy", next / 2 % 500)?;
            if next.is_multiple_of(2) {
                discovery.register(busy).permanent().await?.detach();
            } else {
                discovery.remove(busy.key()).await?;
            }
            next += 1;
        }
    }
}

fn instance(service: &str, n: u32) -> discovery::Result<Instance> {
    let [_, _, high, low] = n.to_be_bytes();
    Instance::builder(service.parse()?)
        .id(InstanceId::from_bits(n.into()))
        .endpoint("http", &format!("10.0.{high}.{low}"), 8080)
        .metadata("version", "1.4.2")
        .build()
}
