//! dnsmasq in the place of Docker: names with underscores, addresses with the names of their containers, no SOA.

use discovery_testbed::{Dnsmasq, Liar, Transport};

use crate::common::{BRISK, Follower, dns, fetch, found};

/// What Docker says of two projects with a service `database` each. The name that an address has is the first.
const PROJECTS: &str = "\
    10.0.1.1 blue_database_1.blue_default blue_database_1 database.blue_default\n\
    10.0.1.2 blue-database-2.blue_default blue-database-2 database.blue_default\n\
    10.0.2.1 green_database_1.green_default green_database_1 database.green_default\n\
    10.0.3.1 app_web_1.shared app_web_1 web web.shared\n\
    10.0.3.2 other_web_1.shared other_web_1 web web.shared\n\
";

async fn docker() -> Option<Dnsmasq> {
    // All names are its own, as Docker's are; they live for 600 s.
    Dnsmasq::builder().hosts(PROJECTS).option("local=/#/").option("local-ttl=600").start_or_skip().await
}

#[tokio::test]
async fn the_project_is_the_namespace() {
    let Some(server) = docker().await else { return };
    for options in ["?port=5432", "?port=5432&records=a"] {
        let dns = dns(&[server.address()], options);
        assert_eq!(
            found(&dns, "blue/database").await,
            ["1 http=10.0.1.1:5432 *1", "2 http=10.0.1.2:5432 *1"]
        );
        assert_eq!(found(&dns, "green/database").await, ["1 http=10.0.2.1:5432 *1"]);
        assert_eq!(found(&dns, "app/web").await, ["1 http=10.0.3.1:5432 *1"]);
        assert_eq!(found(&dns, "shared/web").await.len(), 2);
        assert_eq!(
            found(&dns, "web").await,
            ["app-web-1 http=10.0.3.1:5432 *1", "other-web-1 http=10.0.3.2:5432 *1"]
        );
        assert!(fetch(&dns, "red/database").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn scaling_is_followed_at_the_floor_whatever_the_time_to_live() {
    let Some(server) = docker().await else { return };
    let dns = dns(&[server.address()], "?port=5432&records=a&floor=50ms&ceiling=10m");
    let mut follower = Follower::start(&dns, "blue/database").await;
    assert_eq!(follower.known.len(), 2);
    let third = "10.0.1.3 blue-database-3.blue_default database.blue_default";
    server.set_hosts(&format!("{PROJECTS}\n{third}\n")).await.unwrap();
    follower.until("the third", |seen| seen.known.len() == 3).await;
    server.set_hosts(PROJECTS).await.unwrap();
    follower.until("the third to be gone", |seen| seen.known.len() == 2).await;
    // A container that comes back elsewhere is the same one, at another address.
    server.set_hosts(&PROJECTS.replace("10.0.1.1 ", "10.0.1.9 ")).await.unwrap();
    follower
        .until("the first to have moved", |seen| seen.changes.last().is_some_and(|last| last == "1"))
        .await;
    assert_eq!(follower.changes, ["3", "-3", "1"]);
    server.set_hosts("10.9.9.9 nobody").await.unwrap();
    follower.until("nobody to be there", |seen| seen.known.is_empty()).await;
}

/// Docker sends what it does not know to servers that may be out of reach: it is silent on SRV and TXT even of what it
/// has an address for.
#[tokio::test]
async fn silence_about_other_records_hides_nothing() {
    let Some(server) = docker().await else { return };
    let docker = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    docker.connect(server.address()).unwrap();
    docker.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let docker = std::sync::Mutex::new(docker);
    let forwarder = Liar::start(move |query, _: Transport| {
        // The type is behind the name, which ends with a zero.
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap();
        if !matches!(query[end + 2], 1 | 28 | 12) || query[12..].starts_with(b"\x09_services") {
            return Vec::new();
        }
        let docker = docker.lock().unwrap();
        docker.send(query).unwrap();
        let mut reply = vec![0; 4096];
        let length = docker.recv(&mut reply).unwrap();
        reply.truncate(length);
        vec![reply]
    })
    .unwrap();
    let dns = dns(&[forwarder.address()], &format!("?port=5432&{BRISK}"));
    let begin = std::time::Instant::now();
    assert_eq!(found(&dns, "blue/database").await.len(), 2);
    assert!(begin.elapsed() < std::time::Duration::from_secs(1), "{:?}", begin.elapsed());
    let heard = forwarder.heard();
    assert_eq!(found(&dns, "blue/database").await.len(), 2);
    assert_eq!(forwarder.heard() - heard, 4, "A, AAAA and two names, and nothing that is not answered");
}
