//! A headless Chromium, driven over its own protocol.
//!
//! By hand, with six commands: the crates that cover the whole protocol are generated from one version of it, and
//! fail to parse what a newer browser says. Here only answers are read, and events are passed over.

use std::{env, fs, path::Path, process::Stdio, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use discovery_testbed::REQUIRE;
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{DEADLINE, eventually};

const CHROMIUM: &str = "/usr/bin/chromium";

/// Nothing that talks to others, and no slowing down of pages that lie behind others.
const FLAGS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-component-update",
    "--disable-renderer-backgrounding",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
];

/// Runs before the scripts of each page: what goes wrong, and how the ghosts fare.
const WITNESS: &str = r#"
    window.trouble = [];
    addEventListener("error", (event) => trouble.push(`error: ${event.message}`));
    addEventListener("unhandledrejection", (event) => trouble.push(`rejection: ${event.reason}`));
    document.addEventListener("securitypolicyviolation", (event) =>
        trouble.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
    window.states = {};
    new MutationObserver((mutations) => {
        const elements = mutations.flatMap(({ target, addedNodes }) => [target, ...addedNodes]);
        for (const { dataset } of elements) {
            if (!dataset?.coordinate || !dataset.state) continue;
            const seen = (states[dataset.coordinate] ??= []);
            if (seen.at(-1) !== dataset.state) seen.push(dataset.state);
        }
    }).observe(document, { subtree: true, childList: true, attributeFilter: ["data-state"] });
"#;

/// A browser of one's own, with a profile of its own. Ends with the last of its tabs.
#[derive(Clone, Debug)]
pub(crate) struct Browser(Arc<Mutex<Wire>>);

#[derive(Debug)]
struct Wire {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    process: Child,
    profile: TempDir,
}

impl Drop for Wire {
    /// Asks first: what is killed leaves children behind. Those of an orderly end, too, write into the profile for a
    /// moment more.
    fn drop(&mut self) {
        if let Some(id) = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = kill_process(id, Signal::TERM);
        }
        wait(|| !matches!(self.process.try_wait(), Ok(None)));
        wait(|| {
            let _ = fs::remove_dir_all(self.profile.path());
            std::thread::sleep(Duration::from_millis(30));
            !self.profile.path().exists()
        });
    }
}

/// As long as a test may take to clean up.
fn wait(mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Browser {
    /// Starts one, or says why the test is skipped when there is none; fails if it must not be skipped.
    pub(crate) async fn start_or_skip() -> Option<Self> {
        if !Path::new(CHROMIUM).exists() {
            let why = format!("{CHROMIUM} not found (Debian: apt-get install chromium)");
            let required = env::var(REQUIRE).unwrap_or_default();
            assert!(
                !required.split(',').any(|name| name.trim() == "chromium"),
                "{REQUIRE}={required} forbids to skip this test, but {why}"
            );
            eprintln!("skipped: {why}");
            return None;
        }
        let profile = tempfile::Builder::new().prefix("discovery-chromium-").tempdir().unwrap();
        let process = Command::new(CHROMIUM)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut address = None;
        eventually("the browser says where it listens", async || {
            // The port, and behind it the path.
            let file = fs::read_to_string(profile.path().join("DevToolsActivePort")).unwrap_or_default();
            address =
                file.split_once('\n').map(|(port, path)| format!("ws://127.0.0.1:{port}{}", path.trim()));
            address.is_some()
        })
        .await;
        let (socket, _) = connect_async(address.unwrap()).await.unwrap();
        let wire = Wire { socket, calls: 0, process, profile };
        Some(Self(Arc::new(Mutex::new(wire))))
    }

    /// A page in a window of its own.
    pub(crate) async fn open(&self, url: &str) -> Tab {
        self.tab().await.on(url).await
    }

    /// A page on a phone.
    pub(crate) async fn open_on_phone(&self, url: &str) -> Tab {
        let tab = self.tab().await;
        let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
        tab.call("Emulation.setDeviceMetricsOverride", phone).await;
        tab.call("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
        tab.on(url).await
    }

    async fn tab(&self) -> Tab {
        let target = json!({ "url": "about:blank", "newWindow": true, "width": 1280, "height": 800 });
        let target = self.call(None, "Target.createTarget", target).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attach).await;
        Tab { browser: self.clone(), session: attached["sessionId"].as_str().unwrap().to_owned() }
    }

    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let mut wire = self.0.lock().await;
        wire.calls += 1;
        let id = wire.calls;
        let mut call = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            call["sessionId"] = session.into();
        }
        let exchange = async {
            wire.socket.send(Message::text(call.to_string())).await.unwrap();
            loop {
                let frame = wire.socket.next().await.expect("the browser is there").unwrap();
                let Message::Text(text) = frame else { continue };
                let answer: Value = serde_json::from_str(&text).unwrap();
                if answer["id"] == id {
                    return answer;
                }
            }
        };
        let answer = timeout(DEADLINE, exchange).await.unwrap_or_else(|_| panic!("no answer to {method}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }
}

/// A page.
#[derive(Debug)]
pub(crate) struct Tab {
    browser: Browser,
    session: String,
}

impl Tab {
    /// The value of an expression.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// No script failed, the policy forbade nothing, and nothing came from elsewhere.
    pub(crate) async fn assert_sound(&self) {
        assert_eq!(self.value("trouble").await, json!([]));
        let foreign = "performance.getEntriesByType('resource').map((entry) => entry.name)
            .filter((name) => new URL(name).host !== location.host)";
        assert_eq!(self.value(foreign).await, json!([]));
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, expression: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.value(expression).await != true {
            let body = self.value("document.body?.innerText").await;
            assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {expression}; the page says {body}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses what is in the middle of an element, once that is in sight and has come to rest.
    pub(crate) async fn click(&self, selector: &str) {
        let middle = format!(
            "(async () => {{
                // Looked for each time: the page may draw it anew.
                const element = () => document.querySelector({selector:?});
                const place = () => {{
                    element().scrollIntoView({{ block: 'nearest', inline: 'nearest', behavior: 'instant' }});
                    const box = element().getBoundingClientRect();
                    return [box.x + box.width / 2, box.y + box.height / 2];
                }};
                for (let before = [], now = place(), n = 0; n < 200 && `${{before}}` !== `${{now}}`; n++) {{
                    before = now;
                    await new Promise((resolve) => setTimeout(resolve, 30));
                    now = place();
                }}
                const there = document.elementFromPoint(...place());
                if (!element().contains(there)) throw new Error(`${{there?.outerHTML.slice(0, 200)}} covers it`);
                return place();
            }})()"
        );
        let middle = self.value(&middle).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Keeps a picture among the build's temporary files, for people.
    pub(crate) async fn picture(&self, name: &str) {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let bytes = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png")), bytes).unwrap();
    }

    async fn on(self, url: &str) -> Self {
        self.call("Page.enable", json!({})).await;
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": WITNESS })).await;
        self.call("Page.navigate", json!({ "url": url })).await;
        self.until("document.readyState === 'complete'").await;
        self
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params).await
    }
}
