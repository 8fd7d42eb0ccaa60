//! The REST interface.

use serde_json::{Value, json};

use crate::{
    eventually, http,
    registry::{Registry, name},
    run_state::processes::{Commands, Server},
};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

pub(crate) async fn all_can_be_done_over_http<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let server = Commands::on(&registry).serve().await;
    assert_eq!(server.get("/about").await.json()["registry"], name(&registry));
    assert_eq!(server.get("/runs").await.json(), json!({}));
    let order = json!({
        "id": "r",
        "topology": { "node1": [1, 2, 3], "node2": [1, 2] },
        "limit": "1h",
        "parameters": { "node1.p2": "before", "node2.p4": "unset" },
        "mappings": { "node1.p1": ["node2.p4"], "node2.p6": ["node1.p1", "node1.p3"] },
    });
    let created = server.does(201, "POST", "/runs", order).await;
    assert!(created.headers.contains("location: /runs/r"), "{}", created.headers);
    assert_eq!(created.json()["picture"], server.picture("r").await);
    let random = server.does(201, "POST", "/runs", json!({ "topology": { "a": [1] } })).await.json();
    let random = random["id"].as_str().unwrap();
    assert!(random.starts_with("run-") && random.len() > 4, "{random}");
    assert_eq!(server.get("/runs").await.json().as_object().unwrap().len(), 2);
    assert_eq!(server.get("/runs/r/nodes").await.json(), json!({ "node1": [1, 2, 3], "node2": [1, 2] }));
    it_moves(&server).await;
    parameters_are_kept_and_mapped(&server).await;

    // It is the same for those who come by another server, or by the command line.
    let other = Commands::on(&registry).serve().await;
    assert_eq!(other.picture("r").await, server.picture("r").await);
    other.does(200, "POST", "/runs/r/abort", json!({ "cause": "enough" })).await;
    let picture = server.picture("r").await;
    assert_eq!((&picture["state"], &picture["is_over"]), (&json!("aborted"), &json!(true)));
    assert_eq!(picture["moves"][1]["cause"], "enough");
    server.does(200, "POST", &format!("/runs/{random}/abort"), json!({ "state": "error" })).await;
    assert_eq!(server.get(&format!("/runs/{random}/state")).await.body, "error");
    server.does(204, "DELETE", "/runs/r", Value::Null).await;
    other.does(404, "GET", "/runs/r", Value::Null).await;
    assert_eq!(Commands::on(&registry).ok(&["list"]).await, format!("{random}  error  round 2\n"));
    let alive = |seat: &Value| seat["alive"] == true && seat["label"].as_str().unwrap().starts_with("serve-");
    eventually("both work in the circle", async || {
        let circle = server.get("/circle").await.json();
        circle.as_array().is_some_and(|seats| seats.len() == 2 && seats.iter().all(alive))
    })
    .await;
}

async fn it_moves(server: &Server) {
    let state = async || {
        let answer = server.get("/runs/r/state").await;
        assert!(answer.headers.contains("content-type: text/plain"), "{}", answer.headers);
        answer.body
    };
    assert_eq!(state().await, "init");
    for (machine, missing) in [
        ("node1/1", json!(["node1/2", "node1/3", "node2/1", "node2/2"])),
        ("node2/2", json!(["node1/2", "node1/3", "node2/1"])),
    ] {
        assert_eq!(server.complete("r", machine, "init", "provisioning").await, "counted");
        assert_eq!(server.complete("r", machine, "init", "provisioning").await, "already");
        assert_eq!(server.get("/runs/r/missing").await.json(), missing);
    }
    server.does(201, "PUT", "/runs/r/nodes/node2/3", Value::Null).await;
    server.does(204, "PUT", "/runs/r/nodes/node2/3", Value::Null).await;
    let removed = server.does(200, "DELETE", "/runs/r/nodes/node1/3", Value::Null).await;
    assert_eq!(removed.json(), json!({ "moved": false }));
    assert_eq!(server.complete("r", "node1/2", "init", "provisioning").await, "counted");
    assert_eq!(server.complete("r", "node2/1", "init", "provisioning").await, "counted");
    let removed = server.does(200, "DELETE", "/runs/r/nodes/node2/3", Value::Null).await;
    assert_eq!(removed.json(), json!({ "moved": true }), "all the others were done");
    assert_eq!(state().await, "provisioning");
    assert_eq!(server.get("/runs/r/nodes").await.json(), json!({ "node1": [1, 2], "node2": [1, 2] }));
    let listed = &server.get("/runs").await.json()["r"];
    assert_eq!((&listed["state"], &listed["round"]), (&json!("provisioning"), &json!(2)));
    assert_eq!(listed["moves"][0]["from"], "init");
}

async fn parameters_are_kept_and_mapped(server: &Server) {
    let url = |of: &str| server.url(&format!("/runs/r/nodes/{of}"));
    let all = async |machine: &str| http::get(&url(machine)).await.json();
    assert_eq!(all("node1/1").await, json!({ "p2": "before" }));
    assert_eq!(all("node2/2").await, json!({ "p4": "unset" }));
    // A form, as the original has it; and JSON.
    let first = http::request("PUT", &url("node1/1/p1"), FORM, "value=one+and+%C3%BC").await;
    assert_eq!(first.status, 200, "{first:?}");
    let second = http::ask("PUT", &url("node1/2/p1"), json!({ "value": "two" })).await;
    assert!(second.json()["seq"].as_u64() > first.json()["seq"].as_u64(), "{first:?} {second:?}");
    let one = http::get(&url("node1/1/p1")).await;
    assert_eq!(one.body, "one and ü");
    let etag = format!("etag: \"{}\"", first.json()["seq"]);
    assert!(
        one.headers.contains(&etag) && one.headers.contains("content-type: text/plain"),
        "{}",
        one.headers
    );
    assert_eq!(all("node1/1").await, json!({ "p1": "one and ü", "p2": "before" }));
    // What is mapped goes to all machines of the other node, and stops there.
    for machine in ["node2/1", "node2/2"] {
        assert_eq!(all(machine).await, json!({ "p4": "two" }));
        let mapped = http::get(&url(&format!("{machine}/p4"))).await;
        assert!(
            mapped.headers.contains(&format!("etag: \"{}\"", second.json()["seq"])),
            "{}",
            mapped.headers
        );
    }
    http::ask("PUT", &url("node2/1/p6"), json!({ "value": "six" })).await;
    for machine in ["node1/1", "node1/2"] {
        assert_eq!(all(machine).await, json!({ "p1": "six", "p2": "before", "p3": "six" }));
    }
    assert_eq!(all("node2/1").await, json!({ "p4": "two", "p6": "six" }));
    assert_eq!(all("node2/2").await, json!({ "p4": "two" }));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    let server = Server::on_memory().await;
    server.create("r", json!({ "a": [1, 2] })).await;
    let a = json!({ "a": [1] });
    for (status, order, reason) in [
        (400, json!({ "id": "r_1", "topology": a }), "'_'"),
        (400, json!({ "id": "", "topology": a }), "empty"),
        (400, json!({ "id": "a".repeat(64), "topology": a }), "64 bytes"),
        (400, json!({ "topology": {} }), "no machine"),
        (400, json!({ "topology": { "a": [] } }), "no machine"),
        (400, json!({ "topology": { "a": [1, 1] } }), "index 1 twice"),
        (400, json!({ "topology": { "a/b": [1] } }), "node \"a/b\""),
        (400, json!({ "topology": { "a": [-1] } }), "as JSON"),
        (400, json!({ "topology": { "a": ["1"] } }), "as JSON"),
        (400, json!({ "topology": { "a": (0..10_001).collect::<Vec<_>>() } }), "10001 machines"),
        (400, json!({ "topology": "a" }), "as JSON"),
        (400, json!({ "topologie": a }), "topologie"),
        (400, json!({ "topology": a, "limit": "soon" }), "limit"),
        (400, json!({ "topology": a, "states": ["one", ""] }), ""),
        (400, json!({ "topology": a, "parameters": { "p1": "x" } }), "node1.p1"),
        (400, json!({ "topology": a, "parameters": { "a.p/1": "x" } }), "p/1"),
        (400, json!({ "topology": a, "mappings": { "a.p1": "a.p2" } }), "as JSON"),
        (400, Value::Null, "topology"),
        (400, json!([]), "as JSON"),
        (409, json!({ "id": "r", "topology": a }), "Run already exists! (r)"),
        (409, json!({ "id": "R", "topology": a }), "Run already exists!"),
    ] {
        server.refuses(status, "POST", "/runs", order, reason).await;
    }
    let step = |from: &str, to: &str| json!({ "current": from, "next": to });
    for (status, method, path, body, reason) in [
        (404, "GET", "/runs/none", Value::Null, "no run none"),
        (404, "GET", "/runs/none/state", Value::Null, "no run none"),
        (404, "GET", "/runs/none/missing", Value::Null, "no run none"),
        (404, "GET", "/runs/none/nodes", Value::Null, "no run none"),
        (404, "DELETE", "/runs/none", Value::Null, "no run none"),
        (404, "POST", "/runs/none/abort", Value::Null, "no run none"),
        (400, "GET", "/runs/n_one", Value::Null, "'_'"),
        (400, "POST", "/runs/r/abort", json!({ "state": "ready" }), "\"ready\""),
        (400, "POST", "/runs/r/abort", json!({ "why": "x" }), "why"),
        (404, "POST", "/runs/none/nodes/a/1", step("init", "provisioning"), "no run none"),
        (404, "POST", "/runs/r/nodes/a/3", step("init", "provisioning"), "no task \"a/3\""),
        (409, "POST", "/runs/r/nodes/a/1", step("ready", "provisioning"), "in state \"init\""),
        (400, "POST", "/runs/r/nodes/a/1", step("init", "ready"), "\"ready\""),
        (400, "POST", "/runs/r/nodes/a/1", json!({ "current": "init" }), "next"),
        (400, "POST", "/runs/r/nodes/a/1", Value::Null, "current"),
        (404, "DELETE", "/runs/r/nodes/a/9", Value::Null, "no machine a/9"),
        (404, "PUT", "/runs/none/nodes/a/9", Value::Null, "no run none"),
        (400, "PUT", "/runs/r/nodes/a%20b/9", Value::Null, "node \"a b\""),
        (404, "GET", "/runs/r/nodes/a/9", Value::Null, "no machine a/9"),
        (404, "GET", "/runs/r/nodes/a/1/p1", Value::Null, "no parameter p1"),
        (404, "PUT", "/runs/r/nodes/a/9/p1", json!({ "value": "x" }), "no machine a/9"),
        (400, "PUT", "/runs/r/nodes/a/1/p%2F1", json!({ "value": "x" }), "p/1"),
        (400, "GET", "/runs/r/nodes/a/1/p%2F1", Value::Null, "p/1"),
        (400, "PUT", "/runs/r/nodes/a/1/p1", json!({ "value": "" }), "0 bytes"),
        (400, "PUT", "/runs/r/nodes/a/1/p1", json!({ "value": "x".repeat(20_000) }), "20000 bytes"),
        (400, "PUT", "/runs/r/nodes/a/1/p1", json!({ "value": 1 }), "as JSON"),
        (400, "PUT", "/runs/r/nodes/a/1/p1", Value::Null, "value"),
        (404, "POST", "/workers/none/kill", Value::Null, "no worker none"),
    ] {
        server.refuses(status, method, path, body, reason).await;
    }
    for (headers, body) in [("", "}{"), ("", "\u{0}"), (FORM, "worth=1"), (FORM, "")] {
        let answer = http::request("PUT", &server.url("/runs/r/nodes/a/1/p1"), headers, body).await;
        assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
        assert!(answer.json()["error"].is_string());
    }
    let huge = format!("{{\"value\": \"{}\"}}", "x".repeat(3_000_000));
    let answer = http::request("PUT", &server.url("/runs/r/nodes/a/1/p1"), "", &huge).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    // Nothing of all that has done anything.
    assert_eq!(server.picture("r").await["tasks"], json!({ "a/1": false, "a/2": false }));
    assert_eq!(server.get("/runs/r/nodes/a/1").await.json(), json!({}));
    assert_eq!(server.get("/runs").await.json().as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_refused() {
    let server = Server::on_memory().await;
    for (status, method, path) in [
        (404, "GET", "/none"),
        (405, "PUT", "/runs"),
        (405, "POST", "/runs/run-1235"),
        (405, "DELETE", "/runs/run-1235/state"),
        (405, "GET", "/workers/ada/kill"),
        (404, "GET", "/runs/run-1235/../../etc/passwd"),
    ] {
        let answer = http::request(method, &server.url(path), "", "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    for path in
        ["/runs/run-1235/nodes/web/x", "/runs/run-1235/nodes/web/-1", "/runs/run-1235/nodes/web/1x/p1"]
    {
        server.refuses(400, "GET", path, Value::Null, "").await;
    }
}

#[tokio::test]
async fn other_sites_may_do_nothing() {
    let server = Server::on_memory().await;
    for (method, path) in [
        ("POST", "/runs"),
        ("DELETE", "/runs/run-1235"),
        ("POST", "/runs/run-1235/abort"),
        ("PUT", "/runs/run-1235/nodes/web/9"),
        ("PUT", "/runs/run-1235/nodes/web/1/p1"),
        ("POST", "/workers/ada/kill"),
        ("GET", "/runs"),
    ] {
        for origin in ["http://evil.example", "null"] {
            let headers = format!("Origin: {origin}\r\n");
            let body = r#"{"topology": {"a": [1]}, "value": "x"}"#;
            assert_eq!(http::request(method, &server.url(path), &headers, body).await.status, 403, "{path}");
        }
    }
    // A page whose name was made to lead here.
    let rebound = "Host: evil.example\r\nOrigin: http://evil.example\r\n";
    for path in ["/", "/runs", "/healthz"] {
        let answer = http::request("GET", &server.url(path), rebound, "").await;
        assert!(answer.status == 421 && answer.body.contains("127.0.0.1"), "{answer:?}");
    }
    let own = format!("Origin: {}\r\n", server.0.url().trim_end_matches('/'));
    let body = r#"{"id": "own", "topology": {"a": [1]}}"#;
    assert_eq!(http::request("POST", &server.url("/runs"), &own, body).await.status, 201);
    assert_eq!(server.get("/runs").await.json().as_object().unwrap().len(), 2);
    assert_eq!(server.get("/runs/run-1235/state").await.body, "init");
}
