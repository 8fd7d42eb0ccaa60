//! Where an instance can be reached.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, name};

/// The most bytes a host may have: the limit of a DNS name in text.
const HOST_MAX: usize = 253;

/// One address of an instance, under a name that says what is spoken there (`http`, `grpc`, `metrics`).
///
/// Several endpoints of an instance may share a name: they are then several addresses of the same thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Endpoint {
    name: Box<str>,
    host: Box<str>,
    port: u16,
}

impl Endpoint {
    /// An endpoint; `name` is a label by the rules of [`ServiceName`](crate::ServiceName), `host` an IP address
    /// (IPv6 without brackets) or a host name, `port` 1 to 65535.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if one of the three is not as above.
    pub fn new(name: &str, host: &str, port: u16) -> Result<Self> {
        let name =
            name::fold_label(name).map_err(|error| Error::invalid(format!("endpoint name: {error}")))?;
        check_host(host)?;
        if port == 0 {
            return Err(Error::invalid(format!("endpoint {name}: port 0; allowed are 1 to 65535")));
        }
        Ok(Self { name: name.into(), host: host.into(), port })
    }

    /// What is spoken there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The IP address or host name, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// `host:port`, with brackets around an IPv6 address: what goes into a URL or a connect call.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The fields as they come from a store, before they are checked.
#[derive(Deserialize)]
struct Raw {
    name: String,
    host: String,
    port: u16,
}

impl TryFrom<Raw> for Endpoint {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self> {
        Self::new(&raw.name, &raw.host, raw.port)
    }
}

fn check_host(host: &str) -> Result<()> {
    // A zone (`fe80::1%eth0`) is not part of the address proper, but a link-local address is no use without it.
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    if address.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let fits = !host.is_empty() && host.len() <= HOST_MAX;
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if fits && host.chars().all(letters) && !host.split('.').rev().skip(1).any(str::is_empty) && host != "." {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "host {host:?} is neither an IP address nor a host name (letters, digits, -, _ and ., at most {HOST_MAX})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        for good in ["127.0.0.1", "::1", "fe80::1%eth0", "db", "a.b.example.", "project_service_1"] {
            assert!(Endpoint::new("http", good, 80).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "http://a", "a:80", ".", "..", "a..b", ".a", "ø", "[::1]", "a\nb"] {
            assert!(Endpoint::new("http", bad, 80).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ports_start_at_one_and_names_are_labels() {
        assert!(Endpoint::new("http", "a", 0).is_err());
        assert!(Endpoint::new("", "a", 1).is_err());
        assert!(Endpoint::new("æ", "a", 1).is_err());
    }

    #[test]
    fn an_ipv6_host_is_bracketed() {
        assert_eq!(Endpoint::new("http", "::1", 80).unwrap().to_string(), "[::1]:80");
        assert_eq!(Endpoint::new("http", "db", 80).unwrap().to_string(), "db:80");
    }
}
