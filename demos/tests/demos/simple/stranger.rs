//! Targets that are none of ours: somebody else's server is where one should be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    eventually,
    simple::server::{Config, Server},
};

/// Which status is the answer to a path that is asked for the nth time.
type Answers = fn(&str, u32) -> u16;

type Asked = Arc<Mutex<HashMap<String, u32>>>;

/// Somebody else's server, which does not end.
#[derive(Debug)]
struct Stranger {
    url: String,
    asked: Asked,
    _task: AbortOnDropHandle<()>,
}

impl Stranger {
    async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let router = Router::new().fallback(answer).with_state((asked.clone(), answers));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked, _task: AbortOnDropHandle::new(task) }
    }

    /// How often it was asked for a path.
    fn asked(&self, path: &str) -> u32 {
        self.asked.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    /// A server that takes it for its own.
    async fn supervised(&self, pace: &[&str]) -> Server {
        Config::new(&json!({ &self.url: "sleep 60" })).serve_at(pace, &[]).await
    }
}

async fn answer(State((asked, answers)): State<(Asked, Answers)>, request: Request) -> StatusCode {
    let path = request.uri().path();
    let mut asked = asked.lock().unwrap();
    let times = asked.entry(path.to_owned()).or_default();
    *times += 1;
    StatusCode::from_u16(answers(path, *times)).unwrap()
}

#[tokio::test]
async fn one_bad_answer_stops_nobody() {
    let stranger = Stranger::start(|path, times| if (path, times) == ("/", 2) { 500 } else { 200 }).await;
    // Asked seldom: what is bad once could be bad until then.
    let server = stranger.supervised(&["--start-delay", "0", "--poll-interval", "2500ms"]).await;
    eventually("it is asked behind the bad answer", async || stranger.asked("/") >= 3).await;
    let well = server.until(&stranger.url, "RUNNING").await;
    assert_eq!(well["lastError"]["what"], "it answers with status 500");
    assert_eq!(stranger.asked("/kill"), 0);
    server.ends_with(&[]).await;
}

#[tokio::test]
async fn who_cannot_be_brought_to_an_end_is_told_to_now_and_then() {
    let stranger = Stranger::start(|_, _| 404).await;
    let server = stranger.supervised(&["--start-delay", "0", "--poll-interval", "200ms"]).await;
    let stuck = server.until(&stranger.url, "STUCK").await;
    let why = "it does not take /kill, and is no process of ours";
    assert_eq!(stuck["lastError"]["what"], why, "{stuck}");
    let first = stranger.asked("/");
    eventually("it is asked again and again", async || stranger.asked("/") > first + 100).await;
    let told = stranger.asked("/kill");
    assert!(told * 10 < stranger.asked("/"), "{told} times");
    let log = server.0.log();
    assert!(log.contains("is ERROR: it answers with status 404"), "{log}");
    let lines: Vec<_> = log.lines().filter(|line| line.contains(why)).collect();
    assert!(lines.len() == 1 && lines[0].contains("STUCK"), "{log}");
    server.ends_with(&[]).await;
}
