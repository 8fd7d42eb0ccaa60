//! The handle of a DNS server with its clients, against the real servers.

mod common;

use std::time::{Duration, Instant};

use common::is_alive;
use discovery_testbed::{Dig, Dnsmasq, NameServer, NameServerBuilder, NsUpdate};

const WEB: &str = "web.disco.test";

/// Every test is about both.
fn servers() -> [NameServerBuilder; 2] {
    [NameServer::bind(), NameServer::knot()]
}

async fn addresses(server: &NameServer, name: &str) -> Vec<String> {
    server.dig().short(name, "A").await.expect("the server answers")
}

#[tokio::test]
async fn a_server_serves_its_zone_over_udp_and_tcp() {
    for options in servers() {
        let records = "web 60 A 127.0.0.1\ntext 60 TXT \"two  spaces\"";
        let Some(server) = options.zone("eu1.example.").records(records).serial(7).start_or_skip().await
        else {
            continue;
        };
        assert_eq!((server.zone(), server.serial().await.unwrap()), ("eu1.example", 7));
        let dig = Dig::new(server.address());
        for dig in [dig.clone(), dig.clone().tcp(), server.dig()] {
            let answer = dig.query("web.eu1.example", "A").await.unwrap();
            assert_eq!(answer.rcode, "NOERROR");
            assert!(answer.flags.starts_with("qr aa"), "{answer:?}");
            assert_eq!(answer.records, ["web.eu1.example. 60 IN A 127.0.0.1"]);
        }
        assert_eq!(dig.short("text.eu1.example", "TXT").await.unwrap(), ["\"two  spaces\""]);

        let nobody = dig.query("nobody.eu1.example", "A").await.unwrap();
        assert_eq!((nobody.rcode.as_str(), nobody.records.len()), ("NXDOMAIN", 0));
        assert!(nobody.authority[0].starts_with("eu1.example. 1 IN SOA"), "{nobody:?}");
        assert_eq!(dig.query("web.elsewhere.test", "A").await.unwrap().rcode, "REFUSED");
    }
}

#[tokio::test]
async fn changes_need_the_key() {
    for options in servers() {
        let Some(server) = options.start_or_skip().await else { continue };
        let (nsupdate, add) = (server.nsupdate(), &format!("add {WEB}. 60 A 127.0.0.1"));
        let error = nsupdate.clone().without_key().run(add).await.unwrap_err().to_string();
        assert!(error.contains("REFUSED") || error.contains("NOTAUTH"), "{error}");
        let wrong =
            nsupdate.clone().key(server.key_name(), "d3Jvbmc=").run(add).await.unwrap_err().to_string();
        assert!(wrong.contains("NOTAUTH(BADSIG)"), "{wrong}");
        let unknown = nsupdate.clone().key("nobody", server.key_secret()).run(add).await;
        assert!(unknown.unwrap_err().to_string().contains("NOTAUTH(BADKEY)"));
        assert_eq!(server.serial().await.unwrap(), 1);

        nsupdate.run(add).await.unwrap();
        assert_eq!(addresses(&server, WEB).await, ["127.0.0.1"]);
        nsupdate.clone().tcp().run(&format!("delete {WEB}. A\nadd {WEB}. 60 A 127.0.0.2")).await.unwrap();
        assert_eq!(addresses(&server, WEB).await, ["127.0.0.2"]);
        assert_eq!(server.serial().await.unwrap(), 3);
        let refused = nsupdate.run(&format!("prereq nxdomain {WEB}.\n{add}")).await.unwrap_err().to_string();
        assert!(refused.contains("YXDOMAIN"), "{refused}");
        let elsewhere =
            nsupdate.clone().zone("elsewhere.test").run("add elsewhere.test. 60 A 127.0.0.1").await;
        assert!(elsewhere.unwrap_err().to_string().contains("NOTAUTH"));
    }
}

#[tokio::test]
async fn transfers_need_the_key() {
    for options in servers() {
        let Some(server) = options.records("web 60 A 127.0.0.1").start_or_skip().await else { continue };
        let dig = server.dig();
        let error = dig.clone().without_key().transfer(server.zone()).await.unwrap_err().to_string();
        assert!(error.contains("REFUSED") || error.contains("NOTAUTH"), "{error}");
        let zone = dig.transfer(server.zone()).await.unwrap();
        assert_eq!(zone.len(), 5, "{zone:?}");
        assert!(zone[0] == zone[4] && zone[0].starts_with("disco.test. 60 IN SOA"), "{zone:?}");
        assert!(zone.contains(&format!("{WEB}. 60 IN A 127.0.0.1")), "{zone:?}");

        // What changed, and nothing else.
        server.nsupdate().run(&format!("delete {WEB}. A\nadd b.{WEB}. 60 A 127.0.0.2")).await.unwrap();
        let changes = dig.transfer_since(server.zone(), 1).await.unwrap();
        assert_eq!(changes.len(), 6, "{changes:?}");
        assert_eq!(changes[2], format!("{WEB}. 60 IN A 127.0.0.1"));
        assert_eq!(changes[4], format!("b.{WEB}. 60 IN A 127.0.0.2"));
        assert_eq!(dig.transfer_since(server.zone(), 2).await.unwrap().len(), 1);

        // More than a message holds.
        let many: String =
            (0..3000).fold(String::new(), |all, n| all + &format!("host-{n} 60 TXT \"{n:0100}\"\n"));
        server.reload_zone(&many, 3).await.unwrap();
        assert_eq!(dig.transfer(server.zone()).await.unwrap().len(), 3004);
    }
}

#[tokio::test]
async fn an_open_server_needs_no_key() {
    for options in servers() {
        let Some(server) = options.open().start_or_skip().await else { continue };
        let add = format!("add {WEB}. 60 A 127.0.0.1");
        server.nsupdate().without_key().run(&add).await.unwrap();
        assert_eq!(server.dig().without_key().transfer(server.zone()).await.unwrap().len(), 5);
        // Who signs is understood all the same.
        server.nsupdate().run(&format!("delete {WEB}. A")).await.unwrap();
        assert_eq!(server.dig().transfer(server.zone()).await.unwrap().len(), 4);
    }
}

#[tokio::test]
async fn data_outlive_a_kill_and_a_stop_but_not_a_wipe() {
    for options in servers() {
        let Some(server) = options.records("first 60 A 127.0.0.1").start_or_skip().await else { continue };
        let address = server.address();
        server.nsupdate().run(&format!("add {WEB}. 60 A 127.0.0.2")).await.unwrap();
        let killed = server.id().unwrap();
        server.kill().unwrap();
        assert!(server.id().is_none() && !is_alive(killed));
        assert!(server.dig().query(WEB, "A").await.is_err());
        server.restart().await.unwrap();
        assert_eq!(addresses(&server, WEB).await, ["127.0.0.2"]);

        let stopped = server.id().unwrap();
        server.stop().await.unwrap();
        assert!(server.id().is_none() && !is_alive(stopped));
        server.restart().await.unwrap();
        assert_eq!(addresses(&server, WEB).await, ["127.0.0.2"]);
        assert_eq!(server.serial().await.unwrap(), 2);
        // What changed before is still known.
        assert_eq!(server.dig().transfer_since(server.zone(), 1).await.unwrap().len(), 5);

        server.wipe().await.unwrap();
        assert_eq!(server.serial().await.unwrap(), 1);
        assert_eq!(addresses(&server, WEB).await, [""; 0]);
        assert_eq!(addresses(&server, "first.disco.test").await, ["127.0.0.1"]);
        server.nsupdate().run(&format!("add {WEB}. 60 A 127.0.0.3")).await.unwrap();
        assert_eq!(addresses(&server, WEB).await, ["127.0.0.3"]);
        assert_eq!(server.address(), address);
    }
}

#[tokio::test]
async fn a_paused_server_is_silent_and_answers_later() {
    for options in servers() {
        let Some(server) = options.start_or_skip().await else { continue };
        server.pause().unwrap();
        let error = server.dig().option("+time=1").query("disco.test", "SOA").await.unwrap_err().to_string();
        assert!(error.contains("timed out"), "{error}");
        server.resume().unwrap();
        assert_eq!(server.serial().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn drop_leaves_no_process_and_no_files() {
    for options in servers() {
        let Some(server) = options.start_or_skip().await else { continue };
        server.pause().unwrap();
        let (id, dir) = (server.id().unwrap(), server.dir().to_owned());
        assert!(is_alive(id) && dir.exists());
        drop(server);
        assert!(!is_alive(id) && !dir.exists());
    }
}

#[tokio::test]
async fn operations_on_a_server_that_is_down_say_so() {
    for options in servers() {
        let Some(server) = options.start_or_skip().await else { continue };
        server.kill().unwrap();
        server.kill().unwrap();
        server.stop().await.unwrap();
        for error in [server.pause().unwrap_err(), server.resume().unwrap_err()] {
            assert!(error.to_string().contains("is not running"), "{error}");
        }
        let error = server.serial().await.unwrap_err().to_string();
        assert!(error.contains("connection refused"), "{error}");
        assert!(server.nsupdate().run(&format!("add {WEB}. 60 A 127.0.0.1")).await.is_err());
        assert!(server.reload_zone("", 7).await.is_err());
    }
}

#[tokio::test]
async fn records_that_a_server_does_not_like_are_an_error_at_once() {
    for options in servers() {
        let bad = "web 60 A nowhere";
        let Some(server) = options.clone().records("web 60 A 127.0.0.1").start_or_skip().await else {
            continue;
        };
        let begun = Instant::now();
        let error = options.clone().records(bad).start().await.unwrap_err().to_string();
        assert!(error.contains("will not serve") && error.contains("zone"), "{error}");
        let error = server.reload_zone(bad, 7).await.unwrap_err().to_string();
        assert!(error.contains("zone"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(addresses(&server, WEB).await, ["127.0.0.1"]);
        server.reload_zone("web 60 A 127.0.0.2", 8).await.unwrap();
        assert_eq!(addresses(&server, WEB).await, ["127.0.0.2"]);
        server.restart().await.unwrap();
    }
}

#[tokio::test]
async fn bind_is_strict_with_the_names_of_hosts_unless_told_otherwise() {
    let Some(server) = NameServer::bind().start_or_skip().await else { return };
    let update = server.nsupdate().run("check-names off\nadd my_host.disco.test. 60 A 127.0.0.1").await;
    assert!(update.unwrap_err().to_string().contains("REFUSED"));
    let lenient = NameServer::bind().option("check-names ignore;").records("my_host 60 A 127.0.0.1");
    assert_eq!(addresses(&lenient.start().await.unwrap(), "my_host.disco.test").await, ["127.0.0.1"]);
}

#[test]
fn handles_and_their_futures_can_move_between_threads() {
    fn movable<T: Send>(_: T) {}
    fn check(
        server: &'static NameServer,
        resolver: &'static Dnsmasq,
        dig: &'static Dig,
        nsupdate: &'static NsUpdate,
    ) {
        movable((
            server,
            server.restart(),
            server.stop(),
            server.wipe(),
            server.reload_zone("", 1),
            server.serial(),
        ));
        movable((resolver, resolver.restart(), resolver.stop(), resolver.set_hosts("")));
        movable((dig.query("", ""), dig.transfer(""), nsupdate.run("")));
    }
    // Compiling it is the test.
    let _ = check;
}

#[tokio::test]
async fn another_content_is_served_under_any_serial() {
    for options in servers() {
        let records = "old 60 A 127.0.0.1\nweb 60 A 127.0.0.1";
        let Some(server) = options.records(records).serial(100).start_or_skip().await else { continue };
        let add = |address: &str| format!("add {WEB}. 60 A {address}");
        for serial in [200, 3, 3, u32::MAX, 100] {
            server.nsupdate().run(&add("127.0.0.2")).await.unwrap();
            server.reload_zone("web 60 A 127.0.0.3", serial).await.unwrap();
            assert_eq!(server.serial().await.unwrap(), serial);
            assert_eq!(addresses(&server, WEB).await, ["127.0.0.3"]);
            assert_eq!(addresses(&server, "old.disco.test").await, [""; 0]);
            // Nobody is told as a change what is none.
            let zone = server.dig().transfer_since(server.zone(), serial.wrapping_sub(1)).await.unwrap();
            assert_eq!(zone.len(), 5, "{zone:?}");
        }
        // It takes changes as before, and keeps them.
        server.nsupdate().run(&add("127.0.0.4")).await.unwrap();
        assert_eq!(server.serial().await.unwrap(), 101);
        server.kill().unwrap();
        server.restart().await.unwrap();
        assert_eq!(server.serial().await.unwrap(), 101);
        assert_eq!(addresses(&server, WEB).await.len(), 2);
        server.wipe().await.unwrap();
        assert_eq!(addresses(&server, "old.disco.test").await, ["127.0.0.1"]);
    }
}
