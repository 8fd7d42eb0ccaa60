//! The files of the page, inside the binary.

use axum::{Router, response::Html, routing::get};

use crate::web::{CSS, JS, SVG, base, file};

const INDEX: Html<&str> = Html(include_str!("../assets/index.html"));

pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/base.css", base())
        .route("/index.html", get(async || INDEX))
        .route("/dockercoins.css", file(CSS, include_bytes!("../assets/dockercoins.css")))
        .route("/dockercoins.js", file(JS, include_bytes!("../assets/dockercoins.js")))
        .route("/favicon.svg", file(SVG, include_bytes!("../assets/favicon.svg")))
}
