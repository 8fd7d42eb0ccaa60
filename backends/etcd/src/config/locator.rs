//! A locator as a configuration.

use discovery::{Locator, Result};

use super::{EtcdConfig, Tls};

const OPTIONS: &[&str] =
    &["call_timeout", "connect_timeout", "max_record", "silence_timeout", "tls_ca", "tls_cert", "tls_key"];

pub(super) fn parse(locator: &Locator) -> Result<EtcdConfig> {
    locator.check_options(OPTIONS)?;
    let mut builder = EtcdConfig::builder().namespace(locator.path());
    for host in locator.hosts() {
        builder = builder.host(host);
    }
    if let Some((user, secret)) = locator.credentials()? {
        builder = builder.user(user, secret);
    }
    if let Some(files) = locator.tls_files()? {
        let tls = Tls::new(files.authorities())?;
        builder = builder.tls(match files.identity() {
            Some((certificate, key)) => tls.identity(certificate, key)?,
            None => tls,
        });
    }
    if let Some(timeout) = locator.duration("silence_timeout")? {
        builder = builder.silence_timeout(timeout);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use discovery::ErrorKind;

    use super::*;

    fn config(text: &str) -> Result<EtcdConfig> {
        EtcdConfig::from_locator(&text.parse()?)
    }

    #[test]
    fn everything_a_locator_may_say() {
        let config = config(
            "etcd://me:s%3Acret@a,b:2380,[::1]/deep/cn?silence_timeout=900ms&connect_timeout=2s&call_timeout=1m&max_record=1000",
        )
        .unwrap();
        assert_eq!(config.to_string(), "etcd://me:***@a:2379,b:2380,[::1]:2379/deep/cn");
        assert_eq!(config.silence_timeout(), Duration::from_millis(900));
        assert_eq!(config.connect_timeout(), Duration::from_secs(2));
        assert_eq!(config.call_timeout(), Duration::from_secs(60));
        assert_eq!(config.max_record(), 1000);
    }

    #[test]
    fn what_a_locator_may_not_say() {
        for (bad, part) in [
            ("etcd://", "no server"),
            ("etcd:///cn", "no server"),
            ("etcd://h?timeout=1s", "timeout"),
            ("etcd://h?session_timeout=1s", "session_timeout"),
            ("etcd://h?silence_timeout=10", "silence_timeout"),
            ("etcd://h?call_timeout=99999999999s", "call_timeout"),
            ("etcd://h?max_record=many", "max_record"),
            ("etcd://me@h", "secret"),
            ("etcd://h?tls_ca=/does/not/exist", "tls_ca"),
            ("etcd://h?tls_cert=/dev/null", "tls_ca"),
            ("etcd://h/a/./b", "namespace"),
            ("etcd://h/.fence", "namespace"),
        ] {
            let error = config(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.to_string().contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn an_unreadable_certificate_is_named() {
        let error = config("etcd://h?tls_ca=/dev/null").unwrap_err();
        assert!(error.to_string().contains("PEM"), "{error}");
    }
}
