//! The files of the page, inside the binary.

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::{MethodRouter, get},
};

pub(super) const INDEX: Html<&str> = Html(include_str!("assets/index.html"));

pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/simple.css", file("text/css; charset=utf-8", include_bytes!("assets/simple.css")))
        .route("/simple.js", file("text/javascript; charset=utf-8", include_bytes!("assets/simple.js")))
        .route("/favicon.svg", file("image/svg+xml", include_bytes!("assets/favicon.svg")))
}

fn file<S: Clone + Send + Sync + 'static>(kind: &'static str, bytes: &'static [u8]) -> MethodRouter<S> {
    get(move || async move { ([(CONTENT_TYPE, kind)], bytes).into_response() })
}
