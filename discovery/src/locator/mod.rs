//! Where a backend is, as text.

mod options;

use std::{collections::BTreeMap, fmt, str::FromStr};

pub use self::options::TlsFiles;
use crate::{Error, Result};

/// The address of a backend: `scheme://[user[:secret]@]host[:port][,host[:port]…][/path][?key=value&…]`.
///
/// Not a URL in the strict sense: it may name several hosts (`zk://a:2181,b:2181/chroot`). User, secret, path and
/// values may be percent-encoded. The secret is never printed.
///
/// # Example: the parts of a locator
///
/// ```
/// use discovery::Locator;
///
/// let locator: Locator = "zk://me:s3cret@a:2181,b/cn?session_timeout=10s".parse()?;
/// assert_eq!(locator.scheme(), "zk");
/// assert_eq!(locator.hosts()[1].to_string(), "b");
/// assert_eq!(locator.to_string(), "zk://me:***@a:2181,b/cn?session_timeout=10s");
/// # Ok::<(), discovery::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Locator {
    scheme: String,
    user: Option<String>,
    secret: Option<String>,
    hosts: Vec<Host>,
    path: String,
    query: BTreeMap<String, String>,
}

/// A host, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// The name or address, without brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if the locator has one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// `host:port`, with the port that the scheme has by default.
    pub fn with_default_port(&self, port: u16) -> String {
        Self { name: self.name.clone(), port: self.port.or(Some(port)) }.to_string()
    }
}

impl Locator {
    /// What is in front of `://`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user, decoded.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The secret, decoded.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// The hosts, in the order given; none in `mem://`.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What is behind the hosts, without slashes at the ends; empty if there is nothing.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of an option, decoded.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    /// Refuses options that are not in `known`: one that is silently ignored is worse than none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the nearest known option.
    pub fn check_options(&self, known: &[&str]) -> Result<()> {
        let Some(unknown) = self.query.keys().find(|key| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let nearest = known.iter().min_by_key(|known| distance(known, unknown));
        let hint = match nearest {
            Some(nearest) if distance(nearest, unknown) <= 3 => format!("did you mean {nearest:?}?"),
            Some(_) => format!("known are {}", known.join(", ")),
            None => "this scheme has none".into(),
        };
        Err(Error::invalid(format!("locator {self}: unknown option {unknown:?}; {hint}")))
    }
}

impl FromStr for Locator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // Errors name parts, never the text: it may hold a secret, and in a malformed one nobody knows where.
        let bad = |why: String| {
            Error::invalid(format!("locator: {why}; write scheme://[user:secret@]host[:port]/path"))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("no :// in it".into()))?;
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-');
        if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.chars().all(lower) {
            return Err(bad("the scheme is not lower-case letters, digits, + and -".into()));
        }
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("it contains white space; percent-encode it".into()));
        }
        // A secret with a raw slash would otherwise be taken for host and path, and be printed as such.
        let behind_hosts = rest.find(['/', '?']).map_or("", |cut| &rest[cut..]);
        if behind_hosts.contains('@') {
            return Err(bad(
                "an @ behind the hosts; percent-encode /, ? and @ in user, secret, path and values".into(),
            ));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, secret) =
            match credentials.map(|c| c.split_once(':').map_or((c, None), |(u, s)| (u, Some(s)))) {
                Some(("", _)) => return Err(bad("the user is empty".into())),
                Some((user, secret)) => (Some(decode(user)?), secret.map(decode).transpose()?),
                None => (None, None),
            };
        let hosts = match hosts {
            "" => Vec::new(),
            hosts => hosts.split(',').map(parse_host).collect::<Result<_>>()?,
        };
        Ok(Self {
            scheme: scheme.into(),
            user,
            secret,
            hosts,
            path: decode(path.trim_matches('/'))?,
            query: parse_query(query)?,
        })
    }
}

/// Without the secret.
impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(user) = &self.user {
            write!(f, "{user}{}@", if self.secret.is_some() { ":***" } else { "" })?;
        }
        for (n, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if n == 0 { "" } else { "," })?;
        }
        if !self.path.is_empty() {
            write!(f, "/{}", self.path)?;
        }
        for (n, (key, value)) in self.query.iter().enumerate() {
            let value = if key.contains("secret") || key.contains("password") { "***" } else { value };
            write!(f, "{}{key}={value}", if n == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locator({self})")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') { write!(f, "[{}]", self.name) } else { f.write_str(&self.name) }?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn parse_host(text: &str) -> Result<Host> {
    let bad = |why: &str| Error::invalid(format!("locator: host {text:?} {why}"));
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (name, rest) = rest.split_once(']').ok_or_else(|| bad("has no closing bracket"))?;
        match rest.strip_prefix(':') {
            Some(port) => (name, Some(port)),
            None if rest.is_empty() => (name, None),
            None => return Err(bad("has something behind the bracket that is not a port")),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(bad("has several colons; put an IPv6 address into brackets"));
            }
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        }
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '%');
    if name.is_empty() || !name.chars().all(fits) {
        return Err(bad("is not a host name or address"));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(bad("has a port that is not 1 to 65535")),
        },
    };
    Ok(Host { name: name.into(), port })
}

fn parse_query(text: &str) -> Result<BTreeMap<String, String>> {
    let mut query = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if query.insert(decode(key)?, decode(value)?).is_some() {
            return Err(Error::invalid(format!("locator: option {key:?} is given twice")));
        }
    }
    Ok(query)
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
                    _ => None,
                }
            }
            byte => Some(byte),
        };
        bytes.push(
            decoded
                .ok_or_else(|| Error::invalid("locator: a % is not followed by two hexadecimal digits"))?,
        );
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid("locator: percent-encoded bytes are not UTF-8"))
}

/// How many edits lead from one word to the other (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locator(text: &str) -> Locator {
        text.parse().unwrap()
    }

    #[test]
    fn several_hosts_and_a_chroot() {
        let zk = locator("zk://a:2181,[::1]:2182,c/deep/root/?x=1");
        let hosts: Vec<_> = zk.hosts().iter().map(|host| host.with_default_port(7)).collect();
        assert_eq!(hosts, ["a:2181", "[::1]:2182", "c:7"]);
        assert_eq!((zk.path(), zk.option("x")), ("deep/root", Some("1")));
    }

    #[test]
    fn credentials_may_hold_anything_encoded() {
        let it = locator("etcd://me%40home:p%3Aw%2F@h");
        assert_eq!((it.user(), it.secret()), (Some("me@home"), Some("p:w/")));
    }

    #[test]
    fn secrets_never_print() {
        let it = locator("zk://u:hunter2@h?tls_password=hunter2");
        assert!(!format!("{it} {it:?}").contains("hunter2"));
        let error = "zk://u:hunter2@h:x".parse::<Locator>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        for raw in
            ["zk://u:hunter2/x@h", "zk://u:1/hunter2@h", "zk://u:hunter2?x@h", "zk://u:2/hunter2@h:1/p"]
        {
            let error = raw.parse::<Locator>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn malformed_locators_are_refused() {
        for bad in [
            "",
            "zk",
            "://x",
            "Zk://h",
            "zk:/h",
            "zk://:1",
            "zk://a:0",
            "zk://a:70000",
            "zk://a,,b",
            "zk://::1",
            "zk://[::1",
            "zk://[::1]x",
            "zk://@h",
            "zk://h h",
            "zk://h/%zz",
            "zk://h?a=1&a=2",
            "zk://h/%ff",
        ] {
            assert!(bad.parse::<Locator>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unknown_options_are_refused_with_a_suggestion() {
        let error =
            locator("zk://h?sesion_timeout=1s").check_options(&["auth", "session_timeout"]).unwrap_err();
        assert!(error.to_string().contains("did you mean \"session_timeout\"?"), "{error}");
        assert!(locator("mem://?x=1").check_options(&[]).unwrap_err().to_string().contains("has none"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(zk://)?.{0,60}") {
            let _ = text.parse::<Locator>();
        }

        #[test]
        fn display_parses_back(text in "[a-z]{1,4}://([a-z]{1,4}@)?[a-z]{1,4}(:[1-9][0-9]{0,3})?(,[a-z]{1,3})?(/[a-z]{1,5}){0,2}([?][a-z]=[0-9])?") {
            let parsed = locator(&text);
            prop_assert_eq!(locator(&parsed.to_string()), parsed);
        }
    }
}
