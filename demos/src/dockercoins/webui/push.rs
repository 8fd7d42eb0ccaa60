//! Pages are told by server-sent events: the past first, and then each new picture. Who is slow misses some.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError},
    time::Duration,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response, Sse, sse},
};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::Webui;

/// How soon a page comes back that has lost us.
const RETRY: Duration = Duration::from_millis(700);

pub(super) async fn events(State(webui): State<Arc<Webui>>) -> Response {
    let past = {
        let past = webui.past.lock().unwrap_or_else(PoisonError::into_inner);
        event("past", &*past).retry(RETRY)
    };
    let mut pictures = webui.picture.clone();
    // The first one is there already.
    pictures.mark_changed();
    let pictures = stream::unfold(pictures, async |mut pictures| {
        pictures.changed().await.ok()?;
        let picture = pictures.borrow_and_update().clone();
        Some((event("picture", &*picture), pictures))
    });
    let events = stream::iter([past]).chain(pictures).map(Ok::<_, Infallible>);
    Sse::new(events.take_until(webui.leaving.clone().cancelled_owned())).into_response()
}

fn event(name: &str, value: &impl Serialize) -> sse::Event {
    // Fails only for maps whose keys are no text.
    sse::Event::default().event(name).data(serde_json::to_string(value).unwrap_or_default())
}
