//! What went wrong, as an answer: a status, and the reason in JSON.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use discovery::ErrorKind;
use serde_json::json;

pub(super) struct Problem {
    status: StatusCode,
    reason: String,
}

impl Problem {
    pub(super) fn bad_request(reason: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason: reason.to_string() }
    }

    pub(super) fn unavailable(reason: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, reason: reason.to_string() }
    }

    pub(super) fn not_found(reason: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::NOT_FOUND, reason: reason.to_string() }
    }
}

impl From<discovery::Error> for Problem {
    fn from(error: discovery::Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Denied => StatusCode::BAD_GATEWAY,
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, reason: error.to_string() }
    }
}

/// Of a step that may fail for the registry's reasons or for the client's.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast_ref::<discovery::Error>() {
            Some(cause) => Self { reason: format!("{error:#}"), ..cause.clone().into() },
            None => Self::bad_request(format_args!("{error:#}")),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.reason }))).into_response()
    }
}
