//! Where a web server listens, and under which addresses others find it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use discovery::Endpoint;
use tokio::net::TcpListener;

/// The name under which web servers register their addresses.
pub(crate) const HTTP: &str = "http";

/// The flags that every demo with a server has.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// The address to listen on; 0.0.0.0 or :: for all
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    addr: IpAddr,

    /// The host to register, may be given several times [default: the address listened on; if that is all of them,
    /// each address of this machine]
    #[arg(long, value_name = "HOST", value_parser = parse_host)]
    advertise: Vec<String>,
}

impl ListenArgs {
    /// Where only this machine can connect.
    pub(crate) fn loopback() -> Self {
        Self { addr: Ipv4Addr::LOCALHOST.into(), advertise: Vec::new() }
    }

    /// The same on another address.
    pub(crate) fn on(self, addr: IpAddr) -> Self {
        Self { addr, ..self }
    }

    /// As [`open_as`](Self::open_as), for a web server.
    pub(crate) async fn open(&self, port: u16) -> anyhow::Result<Door> {
        self.open_as(HTTP, port).await
    }

    /// Takes `port`, or a free one for 0. The port is ours from then on: nobody can take it between finding and using
    /// it. What is spoken there is registered as `name`.
    pub(crate) async fn open_as(&self, name: &str, port: u16) -> anyhow::Result<Door> {
        let listener = TcpListener::bind((self.addr, port)).await.with_context(|| {
            let address = SocketAddr::new(self.addr, port);
            format!("cannot listen on {address}; choose with --addr and --port (0 takes a free one)")
        })?;
        let address = listener.local_addr()?;
        let hosts = match (self.advertise.as_slice(), address.ip()) {
            ([], ip) if ip.is_unspecified() => interfaces(ip),
            ([], ip) => vec![ip.to_string()],
            (hosts, _) => hosts.to_vec(),
        };
        let endpoints = hosts
            .iter()
            .map(|host| Endpoint::new(name, host, address.port()))
            .collect::<discovery::Result<_>>()?;
        Ok(Door { listener, endpoints })
    }
}

/// An open port and its addresses, of which there is at least one.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Door {
    /// The port, which is another one than asked for if any would do.
    pub(crate) fn port(&self) -> u16 {
        self.endpoints.first().map_or(0, Endpoint::port)
    }

    /// The address for people.
    pub(crate) fn url(&self) -> String {
        self.endpoints.first().map(|endpoint| format!("http://{endpoint}/")).unwrap_or_default()
    }
}

/// The addresses that others can use, or else the one that at least this machine can. Link-local addresses of IPv6
/// are left out: they need a zone, which is another one on each machine.
fn interfaces(any: IpAddr) -> Vec<String> {
    let reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => any.is_ipv6() && !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the addresses of this machine; registering the loopback address");
        Vec::new()
    });
    let mut hosts: Vec<_> = found.iter().map(if_addrs::Interface::ip).filter(reachable).collect();
    // Most clients of IPv4 cannot use IPv6, the other way round they can; and readers of old take the first.
    hosts.sort_by_key(IpAddr::is_ipv6);
    if hosts.is_empty() {
        hosts.push(IpAddr::from([127, 0, 0, 1]));
    }
    hosts.iter().map(IpAddr::to_string).collect()
}

/// The name of this machine, or container.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn parse_host(text: &str) -> discovery::Result<String> {
    // What an endpoint takes, decided where all of them are.
    Endpoint::new(HTTP, text, 1).map(|endpoint| endpoint.host().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(addr: &str, advertise: &[&str]) -> ListenArgs {
        let advertise = advertise.iter().map(|host| (*host).to_owned()).collect();
        ListenArgs { addr: addr.parse().unwrap(), advertise }
    }

    #[tokio::test]
    async fn a_free_port_is_taken_at_once() {
        let door = on("127.0.0.1", &[]).open(0).await.unwrap();
        let port = door.listener.local_addr().unwrap().port();
        assert_eq!(door.url(), format!("http://127.0.0.1:{port}/"));
        let error = on("127.0.0.1", &[]).open(port).await.unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("--port"), "{error}");
    }

    #[tokio::test]
    async fn what_is_advertised_wins_and_all_share_a_name() {
        let door = on("0.0.0.0", &["pac.example", "::1"]).open(0).await.unwrap();
        assert!(door.endpoints.iter().all(|endpoint| endpoint.name() == HTTP));
        assert_eq!(door.endpoints.iter().map(Endpoint::host).collect::<Vec<_>>(), ["pac.example", "::1"]);
    }

    #[tokio::test]
    async fn all_addresses_are_never_advertised_as_such() {
        let door = on("0.0.0.0", &[]).open(0).await.unwrap();
        assert!(!door.endpoints.is_empty());
        assert!(door.endpoints.iter().all(|endpoint| endpoint.host() != "0.0.0.0"), "{:?}", door.endpoints);
    }

    #[test]
    fn hosts_are_hosts() {
        assert!(parse_host("http://pac").unwrap_err().to_string().contains("http://pac"));
    }
}
