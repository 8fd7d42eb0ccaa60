//! What the engine says of a container.

use std::{collections::BTreeMap, io, net::Ipv4Addr};

use super::Docker;

/// One line for a container: words, then `network=address` for each network that it is connected to.
const FORMAT: &str = "{{.Id}} {{.Name}} {{.State.Status}} \
    {{index .Config.Labels \"com.docker.compose.service\"}} \
    {{index .Config.Labels \"com.docker.compose.container-number\"}}\
    {{range $name, $end := .NetworkSettings.Networks}} {{$name}}={{$end.IPAddress}}{{end}}";

/// A container of a project as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    id: String,
    name: String,
    state: String,
    service: String,
    number: usize,
    addresses: BTreeMap<String, Ipv4Addr>,
}

impl Container {
    /// Looks at containers; in the order of their numbers.
    pub(super) async fn inspect(docker: &Docker, ids: &str) -> io::Result<Vec<Self>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let command = ["container", "inspect", "--format", FORMAT].into_iter().chain(ids.lines());
        let printed = docker.run(command).await?;
        let containers: Option<Vec<_>> = printed.lines().map(Self::parse).collect();
        let mut containers =
            containers.ok_or_else(|| io::Error::other(format!("cannot make sense of: {printed}")))?;
        containers.sort_by_key(Self::number);
        Ok(containers)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self {
            id: words.next()?.to_owned(),
            name: words.next()?.trim_start_matches('/').to_owned(),
            state: words.next()?.to_owned(),
            service: words.next()?.to_owned(),
            number: words.next()?.parse().ok()?,
            // On a network where it has no address it is not running.
            addresses: words
                .filter_map(|word| word.split_once('='))
                .filter_map(|(network, address)| Some((network.to_owned(), address.parse().ok()?)))
                .collect(),
        })
    }

    /// The whole id. Its first twelve digits are the host name inside, unless the compose file sets another.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name that Compose gave it: `project_service_1`, or `project-service-1` by its second version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What Docker calls its state: `running`, `paused`, `exited` and others.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// The service that it is a replica of.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Which replica of its service it is, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its address if it has any; the one on the network whose name sorts first if it is on several.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.addresses.values().next().copied()
    }

    /// Its addresses by the full name of the network, such as `project_default`; none while it does not run.
    pub fn addresses(&self) -> &BTreeMap<String, Ipv4Addr> {
        &self.addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_on_two_networks_has_two_addresses() {
        let line = "4f7e /blue_web_2 running web 2 blue_back=172.19.0.2 blue_default=172.18.0.3";
        let container = Container::parse(line).unwrap();
        assert_eq!((container.id(), container.name(), container.state()), ("4f7e", "blue_web_2", "running"));
        assert_eq!((container.service(), container.number()), ("web", 2));
        assert_eq!(container.address(), Some(Ipv4Addr::new(172, 19, 0, 2)));
        assert_eq!(container.addresses()["blue_default"], Ipv4Addr::new(172, 18, 0, 3));
    }

    #[test]
    fn a_container_that_does_not_run_has_no_address() {
        let container = Container::parse("4f7e /blue_web_1 exited web 1 blue_default=").unwrap();
        assert_eq!((container.address(), container.addresses().len()), (None, 0));
        assert_eq!(Container::parse("4f7e /other running"), None);
    }
}
