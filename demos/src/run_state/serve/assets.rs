//! The files of the page, inside the binary.

use axum::{Router, response::Html, routing::get};

use crate::web::{CSS, JS, SVG, base, file};

const INDEX: Html<&str> = Html(include_str!("../assets/index.html"));

pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/base.css", base())
        .route("/", get(async || INDEX))
        .route("/run-state.css", file(CSS, include_bytes!("../assets/run-state.css")))
        .route("/run-state.js", file(JS, include_bytes!("../assets/run-state.js")))
        .route("/link.js", file(JS, include_bytes!("../assets/link.js")))
        .route("/favicon.svg", file(SVG, include_bytes!("../assets/favicon.svg")))
}
