//! The embedded store as a server.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
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
    site.serve(super::instance(site)?, door, router(Book::open(args)?), leaving).await
}

fn router(book: Book) -> Router {
    Router::new()
        .route("/units", post(take).get(read))
        .route("/units/{unit}/done", post(bring))
        .route("/units/{unit}/back", post(give_back))
        .route("/healthz", get(async || "ok\n"))
        .with_state(Arc::new(book))
}

/// The book and its journal, changed together. Never locked across an `await`.
#[derive(Debug)]
struct Book(Mutex<(Ledger, Option<Journal>)>);

impl Book {
    fn open(args: &StoreArgs) -> anyhow::Result<Self> {
        let (journal, ledger) = args.journal.as_deref().map(Journal::open).transpose()?.unzip();
        Ok(Self(Mutex::new((ledger.unwrap_or_default(), journal))))
    }

    /// Changes the book, and writes down what there is to be written. A journal that cannot be written ends the store
    /// before it has answered: what is not written down must not be known to anybody.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> (T, Option<Entry>)) -> T {
        let (ledger, journal) = &mut *self.lock();
        let (told, entry) = change(ledger);
        if let (Some(journal), Some(entry)) = (journal, entry)
            && let Err(error) = journal.write(&entry)
        {
            tracing::error!("{error:#}; ending, for what is not written down must not count");
            std::process::exit(1);
        }
        told
    }

    fn lock(&self) -> MutexGuard<'_, (Ledger, Option<Journal>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(State(book): State<Arc<Book>>, Json(wish): Json<Wish>) -> Json<u64> {
    let now = now();
    Json(book.change(|ledger| ledger.take(now, now.saturating_add(wish.hold_ms))))
}

async fn bring(State(book): State<Arc<Book>>, Path(unit): Path<u64>, Json(done): Json<Done>) -> Response {
    if unit != done.unit {
        return (StatusCode::BAD_REQUEST, "that is another unit\n").into_response();
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

fn now() -> u64 {
    epoch_millis(SystemTime::now())
}

/// As the store counts time.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
