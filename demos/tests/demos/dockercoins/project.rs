//! The processes of a project, on one registry.

use serde_json::Value;

use crate::{demo::Demo, eventually, http, registry::Registry};

/// How the processes of one project are started.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    name: String,
    locator: String,
}

impl Project {
    pub(crate) fn on<R: Registry>(registry: &R, name: &str) -> Self {
        Self::at(registry.locator(), name)
    }

    pub(crate) fn at(locator: String, name: &str) -> Self {
        Self { name: name.to_owned(), locator }
    }

    /// Starts a part that serves HTTP, on a free port.
    pub(crate) async fn serve(&self, part: &str, more: &[&str]) -> Demo {
        Demo::start(self.args(part, &[&["--port", "0"], more].concat())).await
    }

    /// Starts all that a worker needs.
    pub(crate) async fn serve_all(&self) -> [Demo; 3] {
        [self.serve("rng", &[]).await, self.serve("hasher", &[]).await, self.serve("store", &[]).await]
    }

    /// Starts a worker, or what else serves nothing.
    pub(crate) fn start(&self, part: &str, more: &[&str]) -> Demo {
        Demo::spawn(self.args(part, more))
    }

    pub(crate) async fn page(&self) -> Page {
        Page(self.serve("webui", &[]).await)
    }

    fn args(&self, part: &str, more: &[&str]) -> Vec<String> {
        let common = ["--project", &self.name, "--backend", &self.locator, "--drain", "200ms"];
        let args = ["dockercoins", part].into_iter().chain(more.iter().copied()).chain(common);
        args.map(str::to_owned).collect()
    }
}

/// A webui.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) Demo);

impl Page {
    pub(crate) async fn picture(&self) -> Value {
        self.0.state().await
    }

    /// The answer of the original.
    pub(crate) async fn json(&self) -> Value {
        http::get(&format!("{}json", self.0.url())).await.json()
    }

    pub(crate) async fn hashes(&self) -> u64 {
        self.picture().await["hashes"].as_u64().unwrap_or_default()
    }

    pub(crate) async fn rate(&self) -> f64 {
        self.picture().await["rate"].as_f64().unwrap()
    }

    /// The instances of a part, as the registry has them.
    pub(crate) async fn instances(&self, part: &str) -> Vec<Value> {
        let picture = self.picture().await;
        let parts = picture["parts"].as_array().into_iter().flatten();
        let instances = parts.filter(|of| of["part"] == part).filter_map(|of| of["instances"].as_array());
        instances.flatten().cloned().collect()
    }

    pub(crate) async fn until_instances(&self, part: &str, count: usize) {
        let what = format!("there are {count} of {part}");
        eventually(&what, async || self.instances(part).await.len() == count).await;
    }

    /// Waits until so many more were counted.
    pub(crate) async fn until_more(&self, count: u64) {
        let goal = self.hashes().await + count;
        eventually(&format!("{goal} units are counted"), async || self.hashes().await >= goal).await;
    }

    pub(crate) async fn scale(&self, part: &str, count: usize) {
        let answer = http::post(&format!("{}scale/{part}/{count}", self.0.url()), "").await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}
