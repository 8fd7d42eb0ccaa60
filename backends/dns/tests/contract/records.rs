//! What others see of what is registered, by `dig`.

use discovery::{
    Discovery, Instance, InstanceBuilder, Registration, Scope, ServiceName, Status,
    kv::{Range, Txn},
};
use discovery_testbed::NameServer;
use futures_util::future::join_all;

use crate::common::{
    bind, discovery, emptied, eventually, key, knot, kv, leftovers, listed, on, records, soon,
};

fn cart(id: &str) -> InstanceBuilder {
    let service: ServiceName = "eu1/prod/cart".parse().unwrap();
    Instance::builder(service).id(id.parse().unwrap())
}

async fn registered(discovery: &Discovery, instance: InstanceBuilder) -> Registration {
    soon("to be registered", discovery.register(instance.build().unwrap())).await.unwrap()
}

/// The data of the records of a type at a name in the zone, sorted.
async fn dig(server: &NameServer, name: &str, kind: &str) -> Vec<String> {
    let zone = server.zone();
    let name = if name.is_empty() { format!("{zone}.") } else { format!("{name}.{zone}.") };
    let mut found = server.dig().without_key().short(&name, kind).await.unwrap();
    found.sort();
    found
}

async fn an_instance_is_found_in_every_way(server: NameServer) {
    let discovery = discovery(on(&server));
    let instance = cart("1f").endpoint("http", "10.0.0.7", 8080).endpoint("http", "fd00::7", 8080);
    let registration = registered(&discovery, instance.metadata("version", "1.4").weight(3)).await;

    assert_eq!(dig(&server, "cart.prod.eu1", "A").await, ["10.0.0.7"]);
    assert_eq!(dig(&server, "cart.prod.eu1", "AAAA").await, ["fd00::7"]);
    assert_eq!(dig(&server, "1f.cart.prod.eu1", "A").await, ["10.0.0.7"]);
    let targets = ["0 3 8080 1f.cart.prod.eu1.disco.test.", "0 3 8080 host2.1f.cart.prod.eu1.disco.test."];
    assert_eq!(dig(&server, "_http._tcp.cart.prod.eu1", "SRV").await, targets);
    assert_eq!(dig(&server, "1f._http._tcp.cart.prod.eu1", "SRV").await, targets);
    assert_eq!(dig(&server, "host2.1f.cart.prod.eu1", "AAAA").await, ["fd00::7"]);
    assert_eq!(dig(&server, "1f._http._tcp.cart.prod.eu1", "TXT").await, ["\"version=1.4\""]);
    // DNS-SD: which domains there are, which types in one of them, and which instances of one.
    assert_eq!(dig(&server, "b._dns-sd._udp", "PTR").await, ["cart.prod.eu1.disco.test."]);
    let types = dig(&server, "_services._dns-sd._udp.cart.prod.eu1", "PTR").await;
    assert_eq!(types, ["_http._tcp.cart.prod.eu1.disco.test."]);
    let instances = dig(&server, "_http._tcp.cart.prod.eu1", "PTR").await;
    assert_eq!(instances, ["1f._http._tcp.cart.prod.eu1.disco.test."]);

    soon("to be deregistered", registration.deregister()).await.unwrap();
    drop(discovery);
    emptied(&server).await;
}

#[tokio::test]
async fn an_instance_is_found_in_every_way_on_bind() {
    let Some(server) = bind().await else { return };
    an_instance_is_found_in_every_way(server).await;
}

#[tokio::test]
async fn an_instance_is_found_in_every_way_on_knot() {
    let Some(server) = knot().await else { return };
    an_instance_is_found_in_every_way(server).await;
}

#[tokio::test]
async fn what_others_have_too_stays() {
    let Some(server) = bind().await else { return };
    // Of two processes, which know of each other by the zone alone.
    let (one, two) = (discovery(on(&server)), discovery(on(&server)));
    let first = registered(&one, cart("1").endpoint("http", "10.0.0.7", 80)).await;
    let second = registered(&two, cart("2").endpoint("http", "10.0.0.7", 81)).await;
    assert_eq!(dig(&server, "cart.prod.eu1", "A").await, ["10.0.0.7"]);
    assert_eq!(dig(&server, "_http._tcp.cart.prod.eu1", "SRV").await.len(), 2);
    soon("to be deregistered", first.deregister()).await.unwrap();
    assert_eq!(dig(&server, "cart.prod.eu1", "A").await, ["10.0.0.7"]);
    assert_eq!(dig(&server, "1.cart.prod.eu1", "A").await, [""; 0]);
    let left = ["0 1 81 2.cart.prod.eu1.disco.test."];
    assert_eq!(dig(&server, "_http._tcp.cart.prod.eu1", "SRV").await, left);
    assert_eq!(dig(&server, "b._dns-sd._udp", "PTR").await, ["cart.prod.eu1.disco.test."]);
    soon("to be deregistered", second.deregister()).await.unwrap();
    drop((one, two));
    emptied(&server).await;
}

#[tokio::test]
async fn who_drains_leaves_what_is_shared() {
    let Some(server) = bind().await else { return };
    let discovery = discovery(on(&server));
    let one = registered(&discovery, cart("1").endpoint("http", "10.0.0.1", 80)).await;
    let two = registered(&discovery, cart("2").endpoint("http", "10.0.0.2", 80)).await;
    assert_eq!(dig(&server, "cart.prod.eu1", "A").await, ["10.0.0.1", "10.0.0.2"]);
    let draining = one.instance().to_builder().status(Status::Draining).build().unwrap();
    soon("to be drained", one.update(draining)).await.unwrap();
    assert_eq!(dig(&server, "cart.prod.eu1", "A").await, ["10.0.0.2"]);
    assert_eq!(dig(&server, "_http._tcp.cart.prod.eu1", "SRV").await.len(), 1);
    assert_eq!(dig(&server, "_http._tcp.cart.prod.eu1", "PTR").await.len(), 1);
    // By its own name it is there, for those who still talk to it.
    assert_eq!(dig(&server, "1.cart.prod.eu1", "A").await, ["10.0.0.1"]);
    assert_eq!(dig(&server, "1._http._tcp.cart.prod.eu1", "SRV").await.len(), 1);
    let up = one.instance().to_builder().status(Status::Up).build().unwrap();
    soon("to be up again", one.update(up)).await.unwrap();
    assert_eq!(dig(&server, "cart.prod.eu1", "A").await, ["10.0.0.1", "10.0.0.2"]);
    // Who moves to another address leaves nothing behind.
    let moved = cart("2").endpoint("http", "10.0.0.9", 80).incarnation(two.instance().incarnation());
    soon("to move", two.update(moved.build().unwrap())).await.unwrap();
    assert_eq!(dig(&server, "cart.prod.eu1", "A").await, ["10.0.0.1", "10.0.0.9"]);
    assert_eq!(dig(&server, "2.cart.prod.eu1", "A").await, ["10.0.0.9"]);
    soon("to be deregistered", join_all([one.deregister(), two.deregister()])).await;
    drop(discovery);
    emptied(&server).await;
}

async fn more_than_a_hundred_show_a_hundred(server: NameServer) {
    const CROWD: u8 = 130;
    let discovery = discovery(on(&server));
    let crowd = (0..CROWD).map(|n| {
        let instance = cart(&format!("i{n}")).endpoint("http", &format!("10.0.0.{n}"), 80);
        registered(&discovery, instance)
    });
    let mut crowd = join_all(crowd).await;
    assert_eq!(discovery.fetch(Scope::everything()).await.unwrap().len(), usize::from(CROWD));
    let shown = async |count: usize| {
        let service = "_http._tcp.cart.prod.eu1";
        for (name, kind) in [("cart.prod.eu1", "A"), (service, "SRV"), (service, "PTR")] {
            assert_eq!(dig(&server, name, kind).await.len(), count, "{name} {kind}");
        }
    };
    shown(100).await;
    // Everybody is there by its own name, and takes the place of those who leave.
    assert_eq!(dig(&server, "i129.cart.prod.eu1", "A").await, ["10.0.0.129"]);
    let leaving: Vec<_> = crowd.drain(..50).collect();
    soon("to be deregistered", join_all(leaving.into_iter().map(Registration::deregister))).await;
    shown(usize::from(CROWD) - 50).await;
    soon("to be deregistered", join_all(crowd.into_iter().map(Registration::deregister))).await;
    drop(discovery);
    emptied(&server).await;
}

#[tokio::test]
async fn more_than_a_hundred_show_a_hundred_on_bind() {
    let Some(server) = bind().await else { return };
    more_than_a_hundred_show_a_hundred(server).await;
}

#[tokio::test]
async fn more_than_a_hundred_show_a_hundred_on_knot() {
    let Some(server) = knot().await else { return };
    more_than_a_hundred_show_a_hundred(server).await;
}

/// All services share the name that lists them.
#[tokio::test]
async fn more_than_a_hundred_services_are_no_trouble() {
    const SERVICES: usize = 130;
    let Some(server) = bind().await else { return };
    let (one, two) = (discovery(on(&server)), discovery(on(&server)));
    let services = (0..SERVICES).map(|n| {
        let service: ServiceName = format!("eu1/prod/s{n}").parse().unwrap();
        let instance = Instance::builder(service).endpoint("http", "10.0.0.7", 80);
        registered(if n % 2 == 0 { &one } else { &two }, instance)
    });
    let services = join_all(services).await;
    assert_eq!(dig(&server, "s129.prod.eu1", "A").await, ["10.0.0.7"]);
    assert_eq!(dig(&server, "b._dns-sd._udp", "PTR").await.len(), 100);
    soon("to be deregistered", join_all(services.into_iter().map(Registration::deregister))).await;
    drop((one, two));
    emptied(&server).await;
}

/// Entries that are no instances are entries all the same, whatever their keys and values.
#[tokio::test]
async fn keys_and_values_may_be_anything() {
    let Some(server) = bind().await else { return };
    let zone = on(&server);
    let long = ["k".repeat(200), "K".repeat(200)].join("/");
    let binary: Vec<u8> = (0..=255).cycle().take(3000).collect();
    for (name, value) in
        [("locks/Leader_1", &b"me"[..]), ("a/b_C", b"\"quoted\" \\ ;"), (&long, b"1"), ("bin", &binary)]
    {
        kv(&zone).commit(Txn::new().put(&key(name), value.to_vec())).await.unwrap();
    }
    // As another reads it.
    for zone in [&zone, &on(&server)] {
        assert_eq!(listed(zone, &Range::Subtree(key("locks"))).await, ["locks/Leader_1=me"]);
        assert_eq!(kv(zone).get(&key("bin")).await.unwrap().unwrap().value, binary);
        assert_eq!(kv(zone).get(&key(&long)).await.unwrap().unwrap().value, "1");
        assert_eq!(kv(zone).get(&key("a/b_C")).await.unwrap().unwrap().value, "\"quoted\" \\ ;");
    }
    for name in ["locks/Leader_1", "a/b_C", &long, "bin"] {
        kv(&zone).commit(Txn::new().delete(&key(name))).await.unwrap();
    }
    assert_eq!(leftovers(&server).await, [""; 0]);
    assert_eq!(records(&server).await.len(), 1, "the head of the log");
}

/// A registration that was withdrawn or has ended leaves nothing, and neither does one that never came about.
#[tokio::test]
async fn nothing_is_left_of_a_dropped_handle() {
    let Some(server) = bind().await else { return };
    let discovery = discovery(on(&server));
    let dropped = registered(&discovery, cart("1").endpoint("http", "10.0.0.7", 80)).await;
    drop(dropped);
    eventually("it has left", async || dig(&server, "1.cart.prod.eu1", "A").await.is_empty()).await;
    drop(discovery);
    emptied(&server).await;
}
