//! The hasher: SHA-256 in hexadecimal digits, slowly, but for any number of clients at a time.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    response::{Html, IntoResponse},
    routing::get,
};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    args::HasherArgs,
    site::{Part, Site},
};
use crate::listen::{Door, hostname};

/// The most bytes that are hashed at once.
const MOST: usize = 16 * 1024 * 1024;

pub(super) async fn run(
    site: &Site,
    args: HasherArgs,
    door: Door,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    site.serve(site.instance(Part::Hasher), door, router(args.delay), leaving).await
}

fn router(delay: Duration) -> Router {
    Router::new()
        .route("/", get(greet).post(hash))
        .layer(DefaultBodyLimit::max(MOST))
        .route("/healthz", get(async || "ok\n"))
        .with_state(Arc::new(delay))
}

async fn greet() -> impl IntoResponse {
    Html(format!("HASHER running on {}\n", hostname()))
}

async fn hash(State(delay): State<Arc<Duration>>, body: Bytes) -> String {
    time::sleep(*delay).await;
    hash_of(&body)
}

/// The hash that this is all about.
pub(super) fn hash_of(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use futures_util::future::join_all;
    use tokio::time::Instant;
    use tower::ServiceExt;

    use super::*;

    async fn post(router: &Router, body: &'static str) -> Bytes {
        let request = Request::post("/").body(Body::from(body)).unwrap();
        to_bytes(router.clone().oneshot(request).await.unwrap().into_body(), 1000).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn hashes_are_those_of_the_original_and_nobody_waits_for_another() {
        let hasher = router(Duration::from_millis(100));
        for (body, hash) in [
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ] {
            assert_eq!(post(&hasher, body).await, hash);
        }
        let began = Instant::now();
        join_all((0..20).map(|_| post(&hasher, "x"))).await;
        assert_eq!(began.elapsed(), Duration::from_millis(100));
    }
}
