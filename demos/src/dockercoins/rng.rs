//! The rng: random bytes, slowly, and for one client at a time. The bottleneck that the sample is about.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    args::RngArgs,
    site::{Part, Site},
};
use crate::listen::{Door, hostname};

/// The most bytes of one answer, of which a worker wants 32. The original has no limit.
const MOST: usize = 1_000_000;

/// In the metadata: how long an answer takes, and for how many at a time.
pub(super) const DELAY_MS: &str = "delay-ms";
pub(super) const PARALLEL: &str = "parallel";

pub(super) async fn run(
    site: &Site,
    args: RngArgs,
    door: Door,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    let instance = site
        .instance(Part::Rng)
        .metadata(DELAY_MS, args.delay.as_millis().to_string())
        .metadata(PARALLEL, args.parallel.to_string());
    site.serve(instance, door, router(args), leaving).await
}

#[derive(Debug)]
struct Rng {
    delay: Duration,
    /// One permit for each client that is served; the others wait in line. Whoever hangs up leaves the line.
    turns: Arc<Semaphore>,
}

fn router(args: RngArgs) -> Router {
    let rng = Rng { delay: args.delay, turns: Arc::new(Semaphore::new(args.parallel.into())) };
    Router::new()
        .route("/", get(greet))
        .route("/{count}", get(bytes))
        // Not in line: whether the process lives, not how busy it is.
        .route("/healthz", get(async || "ok\n"))
        .with_state(Arc::new(rng))
}

async fn greet(State(rng): State<Arc<Rng>>) -> Result<impl IntoResponse, Trouble> {
    let _turn = rng.turn().await?;
    Ok(Html(format!("RNG running on {}\n", hostname())))
}

async fn bytes(State(rng): State<Arc<Rng>>, Path(count): Path<String>) -> Result<Response, Trouble> {
    // For as long as the answer is made, not for as long as somebody takes to read it.
    let _turn = rng.turn().await?;
    if count.is_empty() || !count.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok((StatusCode::NOT_FOUND, Html("<h1>Not Found</h1>\n")).into_response());
    }
    let Some(count) = count.parse().ok().filter(|count| *count <= MOST) else {
        return Ok((StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MOST} bytes\n")).into_response());
    };
    time::sleep(rng.delay).await;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], random(count)?).into_response())
}

impl Rng {
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Trouble> {
        Ok(self.turns.clone().acquire_owned().await.context("the line is closed")?)
    }
}

fn random(count: usize) -> anyhow::Result<Bytes> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).context("the system has no random bytes")?;
    Ok(bytes.into())
}

/// What is not the client's fault.
struct Trouble(anyhow::Error);

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}\n", self.0)).into_response()
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
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

    async fn ask(router: &Router, path: &str) -> (StatusCode, Bytes) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        (answer.status(), to_bytes(answer.into_body(), usize::MAX).await.unwrap())
    }

    fn rng(parallel: u16) -> Router {
        router(RngArgs { delay: Duration::from_millis(100), parallel })
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_those_of_the_original() {
        let rng = rng(1);
        let (status, body) = ask(&rng, "/").await;
        assert_eq!(
            (status, &body[..]),
            (StatusCode::OK, format!("RNG running on {}\n", hostname()).as_bytes())
        );
        for count in [0, 1, 32, 200_001, MOST] {
            let (status, body) = ask(&rng, &format!("/{count}")).await;
            assert_eq!((status, body.len()), (StatusCode::OK, count));
        }
        let (one, other) = (ask(&rng, "/32").await.1, ask(&rng, "/32").await.1);
        assert_ne!(one, other);
        for wrong in ["/-1", "/x", "/1.5", "/+1"] {
            assert_eq!(ask(&rng, wrong).await.0, StatusCode::NOT_FOUND, "{wrong}");
        }
        for large in ["/1000001", "/99999999999999999999999"] {
            assert_eq!(ask(&rng, large).await.0, StatusCode::PAYLOAD_TOO_LARGE, "{large}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_served_at_a_time_unless_told() {
        for (parallel, millis) in [(1, 600), (2, 300), (6, 100)] {
            let rng = rng(parallel);
            let began = Instant::now();
            join_all((0..6).map(|_| ask(&rng, "/32"))).await;
            assert_eq!(began.elapsed(), Duration::from_millis(millis), "{parallel} at a time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_holds_nobody_up() {
        let rng = rng(1);
        let began = Instant::now();
        let request = Request::get(format!("/{MOST}")).body(Body::empty()).unwrap();
        let _unread = rng.clone().oneshot(request).await.unwrap();
        time::timeout(Duration::from_secs(5), ask(&rng, "/32")).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn health_is_not_in_line() {
        let rng = rng(1);
        let began = Instant::now();
        let asked = async {
            ask(&rng, "/healthz").await;
            began.elapsed()
        };
        assert_eq!(tokio::join!(ask(&rng, "/32"), asked).1, Duration::ZERO);
    }
}
