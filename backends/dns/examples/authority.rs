//! An authority with one dynamic zone, for trying out: `authority ADDRESS ZONE [KEY]`.

use discovery_dns::{Authority, ZoneConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(zone)) = (arguments.next(), arguments.next()) else {
        return Err("usage: authority ADDRESS ZONE [KEY], such as 127.0.0.1:5353 disco.example".into());
    };
    let mut builder = Authority::builder().listen(address.parse()?).zone(ZoneConfig::dynamic(&zone));
    if let Some(key) = arguments.next() {
        builder = builder.key(key.parse()?);
    }
    let authority = builder.start().await?;
    println!("{authority:?}");
    std::future::pending().await
}
