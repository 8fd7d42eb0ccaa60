//! The embedded store as a server.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use discovery::Owner;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Done, Reading, Verdict,
    journal::Journal,
    ledger::{Entry, Ledger},
};
use crate::{
    dockercoins::{args::StoreArgs, site::Site},
    listen::Door,
    web::epoch_millis,
};

/// The most bytes of a request.
const LARGEST: usize = 16 * 1024;

/// For how long anybody can have a unit, whatever is asked for.
const LONGEST: Duration = Duration::from_secs(3600);

/// For how long a unit is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) hold_ms: u64,
}

/// What was seen before.
#[derive(Debug, Default, Deserialize)]
struct Seen {
    #[serde(default)]
    seen: u64,
}

/// Keeps the book until `leaving`.
pub(crate) async fn serve(
    site: &Site,
    args: &StoreArgs,
    door: Door,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    let (book, owner) = Book::open(args)?;
    site.serve_as(owner, super::instance(site)?, door, router(book), leaving).await
}

fn router(book: Book) -> Router {
    Router::new()
        .route("/units", post(take).get(read))
        .route("/units/{unit}/done", post(bring))
        .route("/units/{unit}/back", post(give_back))
        .route("/healthz", get(async || "ok\n"))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(Arc::new(book))
}

#[derive(Debug)]
struct Book {
    /// The book and its journal, changed together. Never locked across an `await`.
    pages: Mutex<(Ledger, Option<Journal>)>,
    /// What is due is due by a clock that nobody sets.
    began: Instant,
}

impl Book {
    /// And who the store is in the registry: with a journal, the one that had it before, who is dead, for the journal is
    /// ours.
    fn open(args: &StoreArgs) -> anyhow::Result<(Self, Owner)> {
        let (journal, ledger) = args.journal.as_deref().map(Journal::open).transpose()?.unzip();
        let owner = journal.as_ref().map_or_else(Owner::random, Journal::owner);
        let book = Self { pages: Mutex::new((ledger.unwrap_or_default(), journal)), began: Instant::now() };
        Ok((book, owner))
    }

    /// Hands out a unit.
    fn take(&self, hold: Duration) -> u64 {
        let now = self.began.elapsed();
        self.change(|ledger| ledger.take(millis(now), millis(now + hold.min(LONGEST))))
    }

    /// Changes the book, and writes down what there is to be written. A journal that cannot be written ends the store
    /// before it has answered: what is not written down must not be known to anybody.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> (T, Option<Entry>)) -> T {
        let (ledger, journal) = &mut *self.lock();
        let (told, entry) = change(ledger);
        if let (Some(journal), Some(entry)) = (journal, entry)
            && let Err(error) = journal.write(entry)
        {
            tracing::error!("{error:#}; ending, for what is not written down must not count");
            std::process::exit(1);
        }
        told
    }

    fn lock(&self) -> MutexGuard<'_, (Ledger, Option<Journal>)> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(State(book): State<Arc<Book>>, Json(wish): Json<Wish>) -> Json<u64> {
    Json(book.take(Duration::from_millis(wish.hold_ms)))
}

async fn bring(State(book): State<Arc<Book>>, Path(unit): Path<u64>, Json(done): Json<Done>) -> Response {
    if unit != done.unit {
        return (StatusCode::BAD_REQUEST, "that is another unit\n").into_response();
    }
    if let Err(error) = done.check() {
        return (StatusCode::BAD_REQUEST, format!("{error:#}\n")).into_response();
    }
    let verdict: Verdict = book.change(|ledger| ledger.bring(now(), done));
    Json(verdict).into_response()
}

async fn give_back(State(book): State<Arc<Book>>, Path(unit): Path<u64>) -> StatusCode {
    book.lock().0.give_back(unit);
    StatusCode::NO_CONTENT
}

async fn read(State(book): State<Arc<Book>>, Query(seen): Query<Seen>) -> Json<Reading> {
    Json(book.lock().0.read(now(), seen.seen))
}

/// For people and rates; it may be set.
fn now() -> u64 {
    epoch_millis(SystemTime::now())
}

/// As the store counts time.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use tokio::time;
    use tower::ServiceExt;

    use super::*;
    use crate::dockercoins::hasher::hash_of;

    fn store() -> Router {
        router(Book::open(&StoreArgs { journal: None }).unwrap().0)
    }

    async fn ask(store: &Router, path: &str, body: &Value) -> Response {
        let request = Request::post(path).header("content-type", "application/json");
        store.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
    }

    async fn json<T: DeserializeOwned>(answer: Response) -> T {
        assert_eq!(answer.status(), StatusCode::OK);
        serde_json::from_slice(&to_bytes(answer.into_body(), 1000).await.unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_overdue_does_not_depend_on_what_time_it_is() {
        let store = store();
        let take = async || json::<u64>(ask(&store, "/units", &json!({ "hold_ms": 5000 })).await).await;
        assert_eq!(take().await, 1);
        time::advance(Duration::from_millis(4999)).await;
        assert_eq!(take().await, 2);
        // The clock on the wall does not know that time has passed.
        time::advance(Duration::from_millis(1)).await;
        assert_eq!((take().await, take().await), (1, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_a_unit_for_ever() {
        let store = store();
        let take = async || json::<u64>(ask(&store, "/units", &json!({ "hold_ms": u64::MAX })).await).await;
        assert_eq!(take().await, 1);
        time::advance(LONGEST).await;
        assert_eq!((take().await, take().await), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_the_hash_of_its_bytes_counts() {
        let store = store();
        assert_eq!(ask(&store, "/units", &json!({ "hold_ms": 1000 })).await.status(), StatusCode::OK);
        let hash = hash_of(b"abc");
        let took = |by: &str, ms: f64| json!({ "by": by, "ms": ms });
        let done = |bytes: &str, hash: &str, worker: &str, rng: Value| json!({ "unit": 1, "worker": worker, "bytes": bytes, "hash": hash, "rng": rng, "hasher": took("h", 1.0) });
        let long = "x".repeat(300);
        for (wrong, status) in [
            (done("616263", "0", "w", took("r", 1.0)), StatusCode::BAD_REQUEST),
            (done("616263", &"0".repeat(64), "w", took("r", 1.0)), StatusCode::BAD_REQUEST),
            (done("616263", &hash.to_uppercase(), "w", took("r", 1.0)), StatusCode::BAD_REQUEST),
            (done("abc", &hash, "w", took("r", 1.0)), StatusCode::BAD_REQUEST),
            (done(&"61".repeat(300), &hash_of(&[0x61; 300]), "w", took("r", 1.0)), StatusCode::BAD_REQUEST),
            (done("616263", &hash, &long, took("r", 1.0)), StatusCode::BAD_REQUEST),
            (done("616263", &hash, "w", took(&long, 1.0)), StatusCode::BAD_REQUEST),
            (done("616263", &hash, "w", took("r", -1.0)), StatusCode::BAD_REQUEST),
            (done("616263", &hash, &"x".repeat(20_000), took("r", 1.0)), StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            assert_eq!(ask(&store, "/units/1/done", &wrong).await.status(), status, "{wrong}");
        }
        let right = done("616263", &hash, "w", took("r", 1.0));
        assert_eq!(json::<Verdict>(ask(&store, "/units/1/done", &right).await).await, Verdict::Plain);
    }
}
