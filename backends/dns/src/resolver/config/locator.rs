//! A locator as a configuration.

use discovery::{Error, Locator, Result};

use super::{DnsConfig, Family, Probe, Records};

const OPTIONS: &[&str] = &[
    "ceiling",
    "deadline",
    "endpoint",
    "family",
    "floor",
    "jitter",
    "misses",
    "port",
    "probe",
    "probe_timeout",
    "records",
];

pub(super) fn parse(locator: &Locator) -> Result<DnsConfig> {
    locator.check_options(OPTIONS)?;
    if locator.user().is_some() {
        return Err(Error::invalid(format!("locator {locator}: DNS knows no users; leave it out")));
    }
    let mut builder = DnsConfig::builder();
    for host in locator.hosts() {
        builder = builder.host(host)?;
    }
    if !locator.path().is_empty() {
        builder = builder.domain(locator.path());
    }
    if let Some(port) = number(locator, "port", "1 to 65535")? {
        builder = builder.port(port);
    }
    if let Some(endpoint) = locator.option("endpoint") {
        builder = builder.endpoint(endpoint);
    }
    builder = match locator.option("records") {
        None | Some("auto") => builder,
        Some("sd") => builder.records(Records::Sd),
        Some("srv") => builder.records(Records::Srv),
        Some("a") => builder.records(Records::Addresses),
        Some(_) => return Err(locator.bad_option("records", "auto, sd, srv or a")),
    };
    builder = match locator.option("family") {
        None | Some("both") => builder,
        Some("4") => builder.family(Family::V4),
        Some("6") => builder.family(Family::V6),
        Some(_) => return Err(locator.bad_option("family", "both, 4 or 6")),
    };
    builder = match locator.option("probe") {
        None | Some("none") => builder,
        Some("tcp") => builder.probe(Probe::Tcp),
        Some(probe) => match probe.strip_prefix("http:") {
            Some(path) => builder.probe(Probe::Http(path.into())),
            None => {
                return Err(locator.bad_option("probe", "none, tcp, or http: and a path, as in http:/health"));
            }
        },
    };
    if let Some(percent) = number(locator, "jitter", "0 to 100 percent")? {
        builder = builder.jitter(percent);
    }
    if let Some(misses) = number(locator, "misses", "a number of answers from 1")? {
        builder = builder.misses(misses);
    }
    if let Some(time) = locator.duration("floor")? {
        builder = builder.floor(time);
    }
    if let Some(time) = locator.duration("ceiling")? {
        builder = builder.ceiling(time);
    }
    if let Some(time) = locator.duration("deadline")? {
        builder = builder.deadline(time);
    }
    if let Some(time) = locator.duration("probe_timeout")? {
        builder = builder.probe_timeout(time);
    }
    builder.build()
}

fn number<N: std::str::FromStr>(locator: &Locator, key: &str, allowed: &str) -> Result<Option<N>> {
    let Some(text) = locator.option(key) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| locator.bad_option(key, allowed))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use discovery::ErrorKind;

    use super::*;

    fn config(text: &str) -> Result<DnsConfig> {
        DnsConfig::from_locator(&text.parse()?)
    }

    #[test]
    fn everything_a_locator_may_say() {
        let config = config(
            "dns://127.0.0.1:5353,[::1]/Disco.Example?port=80&endpoint=grpc&records=srv&family=4&floor=500ms&ceiling=1m\
             &jitter=0&misses=3&probe=http:/health?x&probe_timeout=300ms&deadline=3s",
        )
        .unwrap();
        assert_eq!(config.to_string(), "dns://127.0.0.1:5353,[::1]:53/disco.example");
        assert_eq!((config.port(), config.endpoint()), (Some(80), "grpc"));
        assert_eq!((config.records(), config.family()), (Records::Srv, Family::V4));
        assert_eq!((config.floor(), config.ceiling()), (Duration::from_millis(500), Duration::from_secs(60)));
        assert_eq!(config.misses(), 3);
        assert!(config.jitter() < f64::EPSILON);
        assert_eq!(config.probe(), &Probe::Http("/health?x".into()));
        assert_eq!(config.probe_timeout(), Duration::from_millis(300));
        assert_eq!(config.deadline(), Duration::from_secs(3));
    }

    #[test]
    fn what_a_locator_may_not_say() {
        for (bad, part) in [
            ("dns://ns1.example", "no address"),
            ("dns://me:x@127.0.0.1", "users"),
            ("dns://127.0.0.1?prt=1", "port"),
            ("dns://127.0.0.1?port=0", "port"),
            ("dns://127.0.0.1?port=70000", "port"),
            ("dns://127.0.0.1?records=aaaa", "auto, sd, srv or a"),
            ("dns://127.0.0.1?records=a", "port"),
            ("dns://127.0.0.1?family=5", "both, 4 or 6"),
            ("dns://127.0.0.1?probe=ping", "probe"),
            ("dns://127.0.0.1?probe=http:health", "probe"),
            ("dns://127.0.0.1?floor=10", "500ms"),
            ("dns://127.0.0.1?floor=2m", "over the ceiling"),
            ("dns://127.0.0.1?jitter=200", "percent"),
            ("dns://127.0.0.1?misses=none", "misses"),
            ("dns://127.0.0.1/a/b", "domain"),
        ] {
            let error = config(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.to_string().contains(part), "{bad}: {error}");
        }
    }
}
