//! Cloudname's text form of names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{InstanceId, ServiceName};
use crate::{Error, Result};

/// A service or one of its instances in Cloudname's spelling, the least significant label first:
/// `service.tag.region` or `instance.service.tag.region`.
///
/// The [`ServiceName`] of a coordinate reads the other way round: `region/tag/service`.
///
/// # Example: from a coordinate to a name and back
///
/// ```
/// use discovery::Coordinate;
///
/// let blinky: Coordinate = "1f.blinky.test.local".parse()?;
/// assert_eq!(blinky.service().to_string(), "local/test/blinky");
/// assert_eq!(blinky.instance().unwrap().as_str(), "1f");
/// assert_eq!(blinky.to_string(), "1f.blinky.test.local");
/// # Ok::<(), discovery::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Coordinate {
    service: ServiceName,
    instance: Option<InstanceId>,
}

impl Coordinate {
    /// The coordinate of a service, or of one instance of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) unless `service` has exactly three labels (region, tag,
    /// service).
    pub fn new(service: ServiceName, instance: Option<InstanceId>) -> Result<Self> {
        match service.labels().count() {
            3 => Ok(Self { service, instance }),
            n => Err(Error::invalid(format!(
                "service name {service} has {n} labels; a coordinate needs three: region/tag/service"
            ))),
        }
    }

    /// The service: `region/tag/service`.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The instance, if the coordinate names one.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.instance.as_ref()
    }

    /// The same service with another instance.
    #[must_use]
    pub fn with_instance(self, instance: InstanceId) -> Self {
        Self { instance: Some(instance), ..self }
    }
}

impl FromStr for Coordinate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let forms = "write service.tag.region or instance.service.tag.region";
        let mut labels: Vec<_> = text.split('.').collect();
        let instance = match labels.len() {
            3 => None,
            4 => Some(labels.remove(0).parse::<InstanceId>()),
            n => {
                let labels = if n == 1 { "1 label".into() } else { format!("{n} labels") };
                return Err(Error::invalid(format!("coordinate {text:?} has {labels}; {forms}")));
            }
        };
        let name = instance
            .transpose()
            .and_then(|instance| Ok((ServiceName::from_labels(labels.iter().rev())?, instance)))
            .map_err(|error| Error::invalid(format!("coordinate {text:?}: {error}")))?;
        Ok(Self { service: name.0, instance: name.1 })
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(instance) = &self.instance {
            write!(f, "{instance}.")?;
        }
        let mut labels = self.service.labels().rev();
        f.write_str(labels.next().unwrap_or_default())?;
        labels.try_for_each(|label| write!(f, ".{label}"))
    }
}

impl TryFrom<String> for Coordinate {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Coordinate> for String {
    fn from(coordinate: Coordinate) -> Self {
        coordinate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_parse_and_print() {
        for text in ["service.tag.region", "1f.service.tag.region"] {
            assert_eq!(text.parse::<Coordinate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_forms() {
        for bad in ["", "foo", "a.b", "a.b.c.d.e", "..", "_._._", "foo bar baz", "foo:bar.baz", "æ.b.c"] {
            let error = bad.parse::<Coordinate>().unwrap_err().to_string();
            assert!(error.contains("coordinate"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn only_names_of_three_labels_are_coordinates() {
        assert!(Coordinate::new("a/b".parse().unwrap(), None).is_err());
        assert!(Coordinate::new("a/b/c".parse().unwrap(), None).is_ok());
    }
}
