//! The endpoints of the original.

use discovery_testbed::Port;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    demo::Demo,
    http,
    simple::server::{Config, Server},
};

async fn leaf() -> Server {
    Server::start(&["-", ":0", "--start-delay", "0"]).await
}

#[tokio::test]
async fn a_leaf_is_well_until_it_is_told_not_to_be() {
    let server = leaf().await;
    for path in ["", "whatever/there/is"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.body.split(',').count()), (200, 3), "{answer:?}");
    }
    for (method, code) in [("GET", 503), ("POST", 418), ("PUT", 500)] {
        let told = http::request(method, &format!("{}httpStatus?code={code}", server.0.url()), "", "").await;
        assert_eq!((told.status, told.body.as_str()), (200, ""));
        let answer = server.get("").await;
        assert_eq!((answer.status, answer.body.as_str()), (code, ""));
    }
    for bad in ["", "?code=", "?code=x", "?code=99", "?code=100", "?code=600", "?code=-1"] {
        assert_eq!(server.get(&format!("httpStatus{bad}")).await.status, 400, "{bad}");
        assert_eq!(server.get("").await.status, 500, "{bad}");
    }
    server.get("httpStatus?code=0").await;
    assert_eq!(server.get("").await.status, 200);
    assert_eq!(server.get("state").await.body, "");
    assert!(server.targets().await.is_empty());
    for (path, status) in [("provision", 400), ("provision?target=http://nobody", 404)] {
        assert_eq!(server.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_state_is_a_line_for_each_target() {
    let config =
        Config::new(&json!({ "http://127.0.0.1:2": "sleep 60", "http://127.0.0.1:1/": ["sleep", "60"] }));
    let server = config.serve(&[]).await;
    let targets = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
    for target in targets {
        server.until(target, "PROVISIONING").await;
    }
    let lines = targets.map(|target| format!("{target}\tPROVISIONING\n")).concat();
    assert_eq!(server.get("state").await.body, lines);
    let root = server.get("").await;
    assert_eq!((root.status, root.body.as_str()), (503, ""));
    server.ends_with(&[]).await;
}

#[tokio::test]
async fn a_kill_ends_it_at_once() {
    let mut server = leaf().await;
    let before = Instant::now();
    assert_eq!(server.get("kill").await.status, 200);
    assert!(server.0.ended().await.success());
    assert!(before.elapsed().as_secs() < 3, "{:?}", before.elapsed());
}

#[tokio::test]
async fn other_sites_cannot_do_anything() {
    let server = leaf().await;
    let url = |path: &str| format!("{}{path}", server.0.url());
    for foreign in
        ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", "Origin: http://evil.example\r\n"]
    {
        for path in ["kill", "kill?tree=true", "httpStatus?code=500", "provision?target=x", "act"] {
            let method = if path == "act" { "POST" } else { "GET" };
            let answer = http::request(method, &url(path), foreign, "").await;
            assert_eq!(answer.status, 403, "{path} {foreign}: {answer:?}");
        }
    }
    assert_eq!(server.get("").await.status, 200);
    let rebound = http::request("GET", &url("kill"), "Host: evil.example\r\n", "").await;
    assert_eq!(rebound.status, 421);
    assert_eq!(http::request("GET", &url("kill"), "Sec-Fetch-Site: same-origin\r\n", "").await.status, 200);
}

#[tokio::test]
async fn nobody_is_there_before_the_delay_is_over() {
    let port = Port::reserve().unwrap().number();
    let mut server = Demo::spawn(["simple", "-", &format!(":{port}"), "--start-delay", "1h"]);
    crate::eventually("it says that it waits", async || server.log().contains("looking after 0 targets"))
        .await;
    assert_eq!(server.urls(), [""; 0]);
    assert!(!http::answers(&format!("http://127.0.0.1:{port}/")).await);
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn the_page_comes_with_its_files() {
    let server = leaf().await;
    for (file, kind) in [
        ("page", "text/html"),
        ("simple.css", "text/css"),
        ("simple.js", "text/javascript"),
        ("favicon.svg", "image/svg+xml"),
        ("tree", "application/json"),
    ] {
        let answer = server.get(file).await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.headers.contains(&format!("content-type: {kind}")), "{file}: {}", answer.headers);
    }
    // A browser is shown the page, whatever the status.
    server.get("httpStatus?code=500").await;
    let shown = http::request("GET", server.0.url(), "Accept: text/html,*/*;q=0.8\r\n", "").await;
    assert_eq!((shown.status, shown.body.contains("<title>Simple</title>")), (500, true));
}
