//! The files of the pages, inside the binary.

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::get,
};

pub(super) const INDEX: Html<&str> = Html(include_str!("assets/index.html"));
pub(super) const GHOST: &str = include_str!("assets/ghost.html");
pub(super) const BYE: Html<&str> = Html(include_str!("assets/bye.html"));

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// What the page of the server needs.
pub(super) fn of_server<S: Clone + Send + Sync + 'static>() -> Router<S> {
    shared()
        .route("/pac.css", file(CSS, include_bytes!("assets/pac.css")))
        .route("/pac.js", file(JS, include_bytes!("assets/pac.js")))
}

/// What the page of a ghost needs.
pub(super) fn of_ghost<S: Clone + Send + Sync + 'static>() -> Router<S> {
    shared()
        .route("/ghost.css", file(CSS, include_bytes!("assets/ghost.css")))
        .route("/ghost.js", file(JS, include_bytes!("assets/ghost.js")))
}

fn shared<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/favicon.svg", file("image/svg+xml", include_bytes!("assets/favicon.svg")))
        .route("/arcade.woff2", file("font/woff2", include_bytes!("assets/arcade.woff2")))
}

fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    bytes: &'static [u8],
) -> axum::routing::MethodRouter<S> {
    get(move || async move { ([(CONTENT_TYPE, kind)], bytes).into_response() })
}
