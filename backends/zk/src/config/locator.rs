//! A locator as a configuration.

use std::{fs, time::Duration};

use discovery::{Error, Locator, Result};

use super::{Access, Auth, Tls, ZkConfig};

const OPTIONS: &[&str] = &[
    "acl",
    "auth",
    "call_timeout",
    "connect_timeout",
    "max_record",
    "session_timeout",
    "tls_ca",
    "tls_cert",
    "tls_key",
];

pub(super) fn parse(locator: &Locator) -> Result<ZkConfig> {
    locator.check_options(OPTIONS)?;
    let mut builder = ZkConfig::builder().chroot(locator.path());
    for host in locator.hosts() {
        builder = builder.host(host);
    }
    if let Some(auth) = auth(locator)? {
        builder = builder.auth(auth);
    }
    if let Some(tls) = tls(locator)? {
        builder = builder.tls(tls);
    }
    if let Some(acl) = locator.option("acl") {
        builder = builder.access(match acl {
            "open" => Access::Open,
            "creator" => Access::Creator,
            _ => return Err(bad(locator, "acl", "open or creator")),
        });
    }
    if let Some(timeout) = duration(locator, "session_timeout")? {
        builder = builder.session_timeout(timeout);
    }
    if let Some(timeout) = duration(locator, "connect_timeout")? {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(timeout) = duration(locator, "call_timeout")? {
        builder = builder.call_timeout(timeout);
    }
    if let Some(bytes) = locator.option("max_record") {
        let bytes = bytes.parse().map_err(|_| bad(locator, "max_record", "a number of bytes"))?;
        builder = builder.max_record(bytes);
    }
    builder.build()
}

fn auth(locator: &Locator) -> Result<Option<Auth>> {
    let (user, secret) = match (locator.user(), locator.secret()) {
        (Some(user), Some(secret)) => (user, secret),
        (Some(_), None) => {
            return Err(Error::invalid(format!(
                "locator {locator}: there is a user but no secret; write zk://user:secret@host"
            )));
        }
        (None, _) if locator.option("auth").is_some() => {
            return Err(Error::invalid(format!(
                "locator {locator}: auth is for a user; write zk://user:secret@host"
            )));
        }
        (None, _) => return Ok(None),
    };
    match locator.option("auth") {
        None | Some("digest") => Ok(Some(Auth::digest(user, secret))),
        Some("sasl") => Ok(Some(Auth::sasl_digest_md5(user, secret))),
        Some(_) => Err(bad(locator, "auth", "digest or sasl")),
    }
}

fn tls(locator: &Locator) -> Result<Option<Tls>> {
    let (certificate, key) = (read(locator, "tls_cert")?, read(locator, "tls_key")?);
    let Some(authorities) = read(locator, "tls_ca")? else {
        return match certificate.or(key) {
            None => Ok(None),
            Some(_) => Err(Error::invalid(format!(
                "locator {locator}: tls_cert and tls_key need tls_ca, the authority that signed the servers"
            ))),
        };
    };
    let tls = Tls::new(&authorities)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => tls.identity(&certificate, &key).map(Some),
        (None, None) => Ok(Some(tls)),
        _ => Err(Error::invalid(format!("locator {locator}: tls_cert and tls_key go together"))),
    }
}

/// The file that an option names.
fn read(locator: &Locator, option: &str) -> Result<Option<String>> {
    locator
        .option(option)
        .map(|path| {
            fs::read_to_string(path).map_err(|error| {
                Error::invalid(format!("locator {locator}: {option} cannot be read")).with_source(error)
            })
        })
        .transpose()
}

/// A time as in `500ms`, `10s` or `2m`.
fn duration(locator: &Locator, option: &str) -> Result<Option<Duration>> {
    let Some(text) = locator.option(option) else { return Ok(None) };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let duration = match (number.parse::<u32>(), unit) {
        (Ok(number), "ms") => Duration::from_millis(number.into()),
        (Ok(number), "s") => Duration::from_secs(number.into()),
        (Ok(number), "m") => Duration::from_secs(60 * u64::from(number)),
        _ => {
            return Err(bad(
                locator,
                option,
                "a whole number with ms, s or m behind it, such as 500ms or 10s",
            ));
        }
    };
    Ok(Some(duration))
}

fn bad(locator: &Locator, option: &str, allowed: &str) -> Error {
    let value = locator.option(option).unwrap_or_default();
    Error::invalid(format!("locator {locator}: {option} is {value:?}; allowed is {allowed}"))
}

#[cfg(test)]
mod tests {
    use discovery::ErrorKind;

    use super::*;

    fn config(text: &str) -> Result<ZkConfig> {
        ZkConfig::from_locator(&text.parse()?)
    }

    #[test]
    fn everything_a_locator_may_say() {
        let config = config(
            "zk://me:s%3Acret@a,b:2182,[::1]/deep/cn?auth=sasl&acl=creator&session_timeout=900ms&connect_timeout=2s&call_timeout=1m&max_record=1000",
        )
        .unwrap();
        assert_eq!(config.to_string(), "zk://me:***@a:2181,b:2182,[::1]:2181/deep/cn");
        assert_eq!(config.session_timeout(), Duration::from_millis(900));
        assert_eq!(config.connect_timeout(), Duration::from_secs(2));
        assert_eq!(config.call_timeout(), Duration::from_secs(60));
        assert_eq!(config.max_record(), 1000);
        assert_eq!(config.detects_silence_within(), Duration::from_millis(600));
    }

    #[test]
    fn what_a_locator_may_not_say() {
        for (bad, part) in [
            ("zk://", "no server"),
            ("zk:///cn", "no server"),
            ("zk://h?timeout=1s", "timeout"),
            ("zk://h?session_timeout=10", "session_timeout"),
            ("zk://h?session_timeout=-1s", "session_timeout"),
            ("zk://h?session_timeout=1.5s", "session_timeout"),
            ("zk://h?session_timeout=s", "session_timeout"),
            ("zk://h?call_timeout=99999999999s", "call_timeout"),
            ("zk://h?max_record=many", "max_record"),
            ("zk://h?acl=mine", "acl"),
            ("zk://h?acl=creator", "creator"),
            ("zk://h?auth=digest", "user"),
            ("zk://me@h", "secret"),
            ("zk://me:x@h?auth=kerberos", "auth"),
            ("zk://h?tls_ca=/does/not/exist", "tls_ca"),
            ("zk://h?tls_cert=/dev/null", "tls_ca"),
            ("zk://h/a/./b", "chroot"),
        ] {
            let error = config(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.to_string().contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn an_unreadable_certificate_is_named() {
        let error = config("zk://h?tls_ca=/dev/null").unwrap_err();
        assert!(error.to_string().contains("PEM"), "{error}");
    }
}
