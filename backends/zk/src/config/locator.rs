//! A locator as a configuration.

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
    if let Some(files) = locator.tls_files()? {
        let tls = Tls::new(files.authorities())?;
        builder = builder.tls(match files.identity() {
            Some((certificate, key)) => tls.identity(certificate, key)?,
            None => tls,
        });
    }
    if let Some(acl) = locator.option("acl") {
        builder = builder.access(match acl {
            "open" => Access::Open,
            "creator" => Access::Creator,
            _ => return Err(locator.bad_option("acl", "open or creator")),
        });
    }
    if let Some(timeout) = locator.duration("session_timeout")? {
        builder = builder.session_timeout(timeout);
    }
    if let Some(timeout) = locator.duration("connect_timeout")? {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(timeout) = locator.duration("call_timeout")? {
        builder = builder.call_timeout(timeout);
    }
    if let Some(bytes) = locator.bytes("max_record")? {
        builder = builder.max_record(bytes);
    }
    builder.build()
}

fn auth(locator: &Locator) -> Result<Option<Auth>> {
    let Some((user, secret)) = locator.credentials()? else {
        return match locator.option("auth") {
            None => Ok(None),
            Some(_) => Err(Error::invalid(format!(
                "locator {locator}: auth is for a user; write zk://user:secret@host"
            ))),
        };
    };
    match locator.option("auth") {
        None | Some("digest") => Ok(Some(Auth::digest(user, secret))),
        Some("sasl") => Ok(Some(Auth::sasl_digest_md5(user, secret))),
        Some(_) => Err(locator.bad_option("auth", "digest or sasl")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
