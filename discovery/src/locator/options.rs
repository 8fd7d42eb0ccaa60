//! Options that several schemes have in common, read the same way for all of them.

use std::{fs, time::Duration};

use super::Locator;
use crate::{Error, Result};

/// What a locator says about TLS: the contents of the files that `tls_ca`, `tls_cert` and `tls_key` name; PEM text.
#[derive(Clone)]
pub struct TlsFiles {
    authorities: String,
    identity: Option<(String, String)>,
}

impl TlsFiles {
    /// The authorities that servers are signed by.
    pub fn authorities(&self) -> &str {
        &self.authorities
    }

    /// The certificate that we show, and its key.
    pub fn identity(&self) -> Option<(&str, &str)> {
        self.identity.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()))
    }
}

impl std::fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsFiles")
    }
}

/// # Reading options
///
/// All of these fail with [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where the value makes no sense, and then
/// say what would.
impl Locator {
    /// User and secret, if there is a user.
    ///
    /// # Errors
    ///
    /// A user without a secret.
    pub fn credentials(&self) -> Result<Option<(&str, &str)>> {
        match (self.user(), self.secret()) {
            (Some(user), Some(secret)) => Ok(Some((user, secret))),
            (Some(_), None) => Err(Error::invalid(format!(
                "locator {self}: there is a user but no secret; write {}://user:secret@host",
                self.scheme()
            ))),
            (None, _) => Ok(None),
        }
    }

    /// An option that is a time, as in `500ms`, `10s` or `2m`.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn duration(&self, key: &str) -> Result<Option<Duration>> {
        let Some(text) = self.option(key) else { return Ok(None) };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        match (number.parse::<u32>(), unit) {
            (Ok(number), "ms") => Ok(Some(Duration::from_millis(number.into()))),
            (Ok(number), "s") => Ok(Some(Duration::from_secs(number.into()))),
            (Ok(number), "m") => Ok(Some(Duration::from_secs(60 * u64::from(number)))),
            _ => Err(self.bad_option(key, "a whole number with ms, s or m behind it, such as 500ms or 10s")),
        }
    }

    /// An option that is a number of bytes.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn bytes(&self, key: &str) -> Result<Option<usize>> {
        let Some(text) = self.option(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.bad_option(key, "a number of bytes"))
    }

    /// The files of the options `tls_ca`, `tls_cert` and `tls_key`, if there is the first.
    ///
    /// # Errors
    ///
    /// A file that cannot be read; a certificate without its key, or either without the authority.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>> {
        let (certificate, key) = (self.file("tls_cert")?, self.file("tls_key")?);
        let Some(authorities) = self.file("tls_ca")? else {
            return match certificate.or(key) {
                None => Ok(None),
                Some(_) => Err(Error::invalid(format!(
                    "locator {self}: tls_cert and tls_key need tls_ca, the authority that signed the servers"
                ))),
            };
        };
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Error::invalid(format!("locator {self}: tls_cert and tls_key go together")));
            }
        };
        Ok(Some(TlsFiles { authorities, identity }))
    }

    /// The error for an option whose value makes no sense: it names the locator, the option and what is allowed.
    pub fn bad_option(&self, key: &str, allowed: &str) -> Error {
        let value = self.option(key).unwrap_or_default();
        Error::invalid(format!("locator {self}: {key} is {value:?}; allowed is {allowed}"))
    }

    /// The contents of the file that an option names.
    fn file(&self, key: &str) -> Result<Option<String>> {
        self.option(key)
            .map(|path| {
                fs::read_to_string(path).map_err(|error| {
                    Error::invalid(format!("locator {self}: {key} cannot be read")).with_source(error)
                })
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn locator(text: &str) -> Locator {
        text.parse().unwrap()
    }

    #[test]
    fn times_have_a_unit() {
        let time = |text: &str| locator(&format!("zk://h?t={text}")).duration("t");
        assert_eq!(time("500ms").unwrap(), Some(Duration::from_millis(500)));
        assert_eq!(time("10s").unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(time("2m").unwrap(), Some(Duration::from_secs(120)));
        assert_eq!(locator("zk://h").duration("t").unwrap(), None);
        for bad in ["10", "-1s", "1.5s", "s", "99999999999s", "1h", ""] {
            let error = time(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("500ms"), "{error}");
        }
    }

    #[test]
    fn credentials_are_two() {
        assert_eq!(locator("zk://me:x@h").credentials().unwrap(), Some(("me", "x")));
        assert_eq!(locator("zk://h").credentials().unwrap(), None);
        let error = locator("zk://me@h").credentials().unwrap_err();
        assert!(error.to_string().contains("zk://user:secret@host"), "{error}");
    }

    #[test]
    fn certificates_are_read_together() {
        assert!(locator("zk://h").tls_files().unwrap().is_none());
        for (bad, part) in [
            ("zk://h?tls_ca=/does/not/exist", "tls_ca"),
            ("zk://h?tls_cert=/dev/null", "need tls_ca"),
            ("zk://h?tls_ca=/dev/null&tls_key=/dev/null", "go together"),
        ] {
            let error = locator(bad).tls_files().unwrap_err();
            assert!(error.to_string().contains(part), "{bad}: {error}");
        }
    }
}
