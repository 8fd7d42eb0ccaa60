//! Processes of their own on a real server, and which tests there are on each kind.

use discovery::recipe::{Group, Runs};
use serde_json::{Value, json};

use crate::{
    demo::{Demo, Done},
    eventually,
    http::{self, Answer},
    registry::{Registry, connect},
};

/// Makes all of them tests on one kind.
macro_rules! tests_on {
    ($registry:ty) => {
        tests_on! { $registry:
            flow: the_flow_of_the_original_goes_on_to_its_end
            flow: a_run_is_scaled_aborted_and_deleted
            flow: a_registry_that_is_down_is_named_in_time
            workers: a_buddy_covers_for_a_worker_that_was_killed
            workers: a_worker_that_dies_before_it_answers_loses_nothing
            workers: a_worker_whose_connection_breaks_goes_on
            limits: what_takes_too_long_times_out_whoever_serves
            rest: all_can_be_done_over_http
            push: what_is_followed_is_heard_with_numbers_and_resumed
            push: who_follows_hears_on_behind_an_outage_of_the_registry
            follow: a_follower_comes_back_to_another_server_and_repeats_nothing
            race: no_round_is_moved_twice_while_workers_and_connections_die
        }
    };
    ($registry:ty: $($module:ident: $test:ident)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                crate::run_state::$module::$test::<$registry>().await;
            }
        )+
    };
}
pub(crate) use tests_on;

/// Four machines, as the original has them.
pub(crate) const TOPOLOGY: &str = r#"{"node1": [1,2,4], "node2": [2]}"#;

/// The commands of the sample on one registry.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    locator: String,
}

impl Commands {
    pub(crate) fn on<R: Registry>(registry: &R) -> Self {
        Self::at(registry.locator())
    }

    pub(crate) fn at(locator: String) -> Self {
        Self { locator }
    }

    /// Runs one to its end, which is to be a good one; returns what it printed.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        Done::of(&self.whole(args)).await.ok()
    }

    /// The same, where what it prints has this in it.
    pub(crate) async fn says(&self, args: &[&str], parts: &[&str]) {
        let said = self.ok(args).await;
        for part in parts {
            assert!(said.contains(part), "{args:?}: {part:?} is not in {said}");
        }
    }

    /// Runs one to its end, which is to be a bad one for this reason.
    pub(crate) async fn refuses(&self, args: &[&str], reason: &str) {
        let said = Done::of(&self.whole(args)).await.fails(reason);
        assert!(!said.contains("Done!"), "{args:?}: {said}");
    }

    /// Starts one that has no page.
    pub(crate) fn start(&self, args: &[&str]) -> Demo {
        Demo::spawn(self.whole(args))
    }

    /// Starts a server on a free port.
    pub(crate) async fn serve(&self) -> Server {
        self.serve_on(0).await
    }

    pub(crate) async fn serve_on(&self, port: u16) -> Server {
        Server(Demo::start(self.whole(&["serve", "--port", &port.to_string(), "--ttl", "3s"])).await)
    }

    fn whole<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["run-state"], args, &["--backend", &self.locator]].concat()
    }
}

/// Whatever serves the page and what belongs to it.
#[derive(Debug)]
pub(crate) struct Server(pub(crate) Demo);

impl Server {
    /// One in whose demo nothing happens by itself, on memory.
    pub(crate) async fn on_memory() -> Self {
        Self(Demo::start(["run-state", "demo", "--port", "0", "--pace", "1h"]).await)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{}", self.0.url(), path.trim_start_matches('/'))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        http::get(&self.url(path)).await
    }

    /// Does something that is to succeed with this status.
    pub(crate) async fn does(&self, status: u16, method: &str, path: &str, body: Value) -> Answer {
        let answer = http::ask(method, &self.url(path), body.clone()).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        answer
    }

    /// Does something that is to be refused with this status, for this reason.
    pub(crate) async fn refuses(&self, status: u16, method: &str, path: &str, body: Value, reason: &str) {
        let answer = self.does(status, method, path, body.clone()).await;
        let error = answer.json()["error"].as_str().map(str::to_owned);
        assert!(
            error.as_ref().is_some_and(|error| error.contains(reason)),
            "{method} {path} {body}: {reason:?} is not in {answer:?}"
        );
    }

    /// Creates a run of these machines.
    pub(crate) async fn create(&self, run: &str, topology: Value) {
        self.does(201, "POST", "/runs", json!({ "id": run, "topology": topology })).await;
    }

    /// Says that a machine has completed a state; returns what came of it.
    pub(crate) async fn complete(&self, run: &str, machine: &str, from: &str, to: &str) -> Value {
        let path = format!("/runs/{run}/nodes/{machine}");
        let completion = json!({ "current": from, "next": to });
        let mut answer = None;
        eventually("somebody is at work", async || {
            let told = http::ask("POST", &self.url(&path), completion.clone()).await;
            let status = answer.insert(told).status;
            status != 503
        })
        .await;
        let answer = answer.expect("somebody was at work");
        assert_eq!(answer.status, 200, "{machine} {completion}: {answer:?}");
        answer.json()["completed"].clone()
    }

    /// All about a run.
    pub(crate) async fn picture(&self, run: &str) -> Value {
        self.does(200, "GET", &format!("/runs/{run}"), Value::Null).await.json()["picture"].clone()
    }
}

/// The runs of the demo, and the circle of those who work on them, as this crate sees them.
pub(crate) async fn recipes<R: Registry>(registry: &R) -> (Runs, Group) {
    let discovery = connect(registry).await;
    let name = "slipstream".parse().unwrap();
    (discovery.runs(&name).unwrap(), discovery.group(&name).unwrap())
}
