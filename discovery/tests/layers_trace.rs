//! What the `Trace` layer tells, and what it keeps to itself; and how often an outage is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use discovery::{
    Discovery, ServiceName,
    kv::{Key, Range, Txn},
    layer::{Fault, Trace},
    mem::Mem,
};
use futures_util::StreamExt;
use tokio::time::timeout;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

#[tokio::test(start_paused = true)]
async fn traces_tell_names_outcomes_and_times_but_no_values() {
    let journal = Journal::default();
    let _guard = tracing::subscriber::set_default(journal.clone());
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(Trace::new()).layer(fault.clone());
    fault.delay(Duration::from_secs(1));
    let (cart, key): (ServiceName, Key) = ("eu1/cart".parse().unwrap(), "a/b".parse().unwrap());

    let kv = discovery.kv().unwrap();
    let txn = Txn::new().put(&key, "confidential").put(&"c".parse().unwrap(), "as well");
    kv.commit(txn).await.unwrap();
    kv.commit(Txn::new().absent(&key).delete(&key)).await.unwrap_err();
    discovery.backend().watch(&cart.into(), None).next().await.unwrap().unwrap();

    let told = journal.to_string();
    for expected in [
        "backend=mem:// operation=\"commit\" about=/a/b and 1 more",
        "done elapsed=1s",
        "failed elapsed=1s kind=Conflict outcome=NotApplied",
        "backend=mem:// operation=\"watch\" about=eu1/cart",
    ] {
        assert!(told.contains(expected), "{expected:?} is missing in\n{told}");
    }
    assert!(!told.contains("confidential"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_view_of_keys_tells_of_each_outage_once() {
    let journal = Journal::default();
    let _guard = tracing::subscriber::set_default(journal.clone());
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    let mut view = discovery.kv().unwrap().view(Range::Key("a".parse().unwrap()));
    assert!(view.changed().await.unwrap().is_empty());
    let mut a_minute = async || timeout(Duration::from_secs(60), view.changed()).await.unwrap_err();
    for outages in 1..=2 {
        fault.partition();
        a_minute().await;
        assert_eq!(journal.to_string().matches("cannot watch").count(), outages, "{journal}");
        fault.heal();
        a_minute().await;
    }
}

/// Writes down every span and event.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<String>>);

impl Journal {
    fn line(&self, record: impl FnOnce(&mut dyn Visit)) {
        let mut line = Line::default();
        record(&mut line);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(all, "{}{}", line.message, line.fields).unwrap();
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Subscriber for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["discovery::layer", "discovery::watch"].iter().any(|told| metadata.target().starts_with(told))
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        self.line(|line| attributes.record(line));
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        self.line(|line| event.record(line));
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => write!(self.fields, " {name}={value:?}").unwrap(),
        }
    }
}
