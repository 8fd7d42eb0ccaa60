//! The files of the pages, inside the binary.

use axum::{Router, response::Html};

use crate::web::{CSS, JS, SVG, file};

pub(super) const INDEX: Html<&str> = Html(include_str!("assets/index.html"));
pub(super) const GHOST: &str = include_str!("assets/ghost.html");
pub(super) const BYE: Html<&str> = Html(include_str!("assets/bye.html"));

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
        .route("/favicon.svg", file(SVG, include_bytes!("assets/favicon.svg")))
        .route("/arcade.woff2", file("font/woff2", include_bytes!("assets/arcade.woff2")))
}
