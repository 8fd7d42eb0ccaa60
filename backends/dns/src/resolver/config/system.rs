//! What the system says in `resolv.conf`.

use std::net::SocketAddr;

use discovery::{Error, Result};
use hickory_proto::rr::Name;
use hickory_resolver::system_conf;

/// The servers, and the domains of the search list.
///
/// Of its options none matters: a lookup has one deadline, and a name of a service is no host name with dots to count.
pub(super) fn read() -> Result<(Vec<SocketAddr>, Vec<Name>)> {
    let (config, _) = system_conf::read_system_conf().map_err(|error| {
        let message = "the system has no servers in resolv.conf; name one, as in dns://127.0.0.1:53";
        Error::invalid(message).with_source(error)
    })?;
    let address = |server: &hickory_resolver::config::NameServerConfig| {
        let port = server.connections.first().map_or(super::DEFAULT_PORT, |connection| connection.port);
        SocketAddr::new(server.ip, port)
    };
    let search = config.search().iter().map(|name| {
        let mut name = name.to_lowercase();
        name.set_fqdn(true);
        name
    });
    Ok((config.name_servers().iter().map(address).collect(), search.collect()))
}
