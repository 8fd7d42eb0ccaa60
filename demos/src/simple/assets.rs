//! The files of the page, inside the binary.

use axum::{Router, response::Html};

use crate::web::{CSS, JS, SVG, base, file};

pub(super) const INDEX: Html<&str> = Html(include_str!("assets/index.html"));

pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/base.css", base())
        .route("/simple.css", file(CSS, include_bytes!("assets/simple.css")))
        .route("/simple.js", file(JS, include_bytes!("assets/simple.js")))
        .route("/favicon.svg", file(SVG, include_bytes!("assets/favicon.svg")))
}
