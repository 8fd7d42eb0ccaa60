//! What strangers may send and register without doing harm.

use discovery::{Connectors, Discovery, Instance};
use discovery_testbed::Port;
use serde_json::json;

use crate::{
    eventually,
    nodes::{net::Net, raw::Raw},
};

/// In a zone that needs no server.
async fn zone() -> (Net, Discovery, Port) {
    let port = Port::reserve().unwrap();
    let locator = format!("dns+zone://{}/nodes.internal?serve=true", port.address());
    let connectors = Connectors::new().with(discovery_dns::connector());
    let discovery = Discovery::connect(&locator, &connectors).await.unwrap();
    (Net::at(locator), discovery, port)
}

#[tokio::test]
async fn no_number_of_nodes_is_too_much() {
    let (net, discovery, _port) = zone().await;
    let up = net.up(2).await;
    let stranger = Instance::builder("my-app/node".parse().unwrap()).id("4294967295".parse().unwrap());
    let stranger = stranger.endpoint("rpc", "127.0.0.1", 1).build().unwrap();
    let _registration = discovery.register(stranger).await.unwrap();
    net.all_answer(2).await;
    assert!(!net.ok(&["ps"]).await.contains("4294967295"));

    let mut fleet = Raw::dial(&discovery, "my-app/fleet", "1").await;
    let answer = fleet.call(json!({ "Scale": { "size": 100_000 } })).await.unwrap();
    assert!(answer["Ok"]["Scale"]["Err"].as_str().unwrap().contains("200"), "{answer}");
    net.all_answer(2).await;
    assert!(!up.out().contains("node-3 |"), "{}", up.out());
}

#[tokio::test]
async fn no_time_is_too_long() {
    let (net, discovery, _port) = zone().await;
    let up = net.up(2).await;
    let mut node = Raw::dial(&discovery, "my-app/node", "1").await;
    let answer = node.call(json!({ "Reach": { "patience": { "secs": u64::MAX, "nanos": 0 } } })).await;
    assert!(
        answer.as_ref().is_some_and(|answer| answer["Ok"]["Reach"]["2"]["outcome"]["Ok"].is_object()),
        "{answer:?}"
    );
    for seconds in [u64::MAX, 1 << 62, 100_000_000_000] {
        let mut node = Raw::dial(&discovery, "my-app/node", "1").await;
        let answer = node.call_within(seconds, json!({ "Report": {} })).await;
        assert!(answer.is_some_and(|answer| answer["Ok"]["Report"].is_object()), "{seconds}");
    }
    // The same, as a list.
    let trace = json!([([0; 16]), 0, "Unsampled"]);
    let request = json!({ "Request": [[[u64::MAX, 0], trace], 0, { "Report": [] }] });
    let mut node = Raw::dial(&discovery, "my-app/node", "1").await;
    node.send(request.to_string().as_bytes()).await;
    assert_eq!(node.receive().await, None);
    net.all_answer(2).await;
    assert!(!up.out().contains("panicked"), "{}", up.out());
}

#[tokio::test]
async fn no_message_is_too_large() {
    let (net, discovery, _port) = zone().await;
    let up = net.up(2).await;
    let mut attached = net.start(&["attach", "1"]);
    attached.says("my_app-node-1: type a message").await;
    let mut node = Raw::dial(&discovery, "my-app/node", "1").await;
    // More than a frame holds, taken together.
    for _ in 0..20 {
        let text = "x".repeat(900_000);
        let answer = node.call(json!({ "SaySomething": { "text": text } })).await.unwrap();
        assert_eq!(answer["Ok"]["SaySomething"]["code"], 1);
    }
    net.ok(&["ping", "1", "--message", "psst"]).await;
    attached.says("node-1 | Received message: psst").await;
    let logs = net.ok(&["logs"]).await;
    assert!(logs.len() < 1 << 20 && logs.contains("xxx…\n") && logs.contains("Received message: psst"));

    // What no frame holds cuts off whoever sends it.
    let mut node = Raw::dial(&discovery, "my-app/node", "1").await;
    node.send(&vec![b' '; 2 << 20]).await;
    assert_eq!(node.receive().await, None);
    net.all_answer(2).await;
    assert!(!up.out().contains("died"));
}

#[tokio::test]
async fn no_message_is_more_than_a_line() {
    let (net, _, _port) = zone().await;
    let up = net.up(2).await;
    net.ok(&["ping", "1", "--message", "hi\nnode-2 | died: \u{1b}[31mkilled"]).await;
    let line = "node-1 | Received message: hi\\nnode-2 | died: \\u{1b}[31mkilled\n";
    eventually("the fleet has heard it", async || up.out().contains(line)).await;
    assert!(net.ok(&["logs"]).await.contains(line));
}
