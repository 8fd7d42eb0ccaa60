//! What the web servers of all demos do alike.

use std::{
    future::IntoFuture,
    io,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
    serve::ListenerExt,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Nothing from outside, nothing in frames of others. A page may set its own instead.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// How a browser's request relates to the page that it is for. The address that a person typed relates to none.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long requests that are under way may still take at the end.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Serves until `closing`, and then what is under way. Whoever listens for this machine only answers to its names only.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    closing: CancellationToken,
) -> io::Result<()> {
    // Small messages, each of which is to be seen now.
    let is_local = listener.local_addr()?.ip().is_loopback();
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let router = if is_local { router.layer(middleware::from_fn(local_only)) } else { router };
    let router = router.layer(middleware::map_response(with_headers));
    let server = axum::serve(listener, router).with_graceful_shutdown(closing.clone().cancelled_owned());
    let overdue = async {
        closing.cancelled().await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    tokio::select! {
        outcome = server.into_future() => outcome,
        () = overdue => Ok(()),
    }
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(CONTENT_SECURITY_POLICY, POLICY);
    // The pages belong to the binary: after a new build the old ones are wrong.
    default(CACHE_CONTROL, "no-store");
    // Not `no-referrer`: a form would then be sent with `Origin: null`.
    default(REFERRER_POLICY, "same-origin");
    default(X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// Lets nobody act through a visitor's browser: another site may not send our forms nor open our sockets.
pub(crate) async fn same_origin_only(request: Request, next: Next) -> Response {
    if is_foreign(request.headers()) {
        return (StatusCode::FORBIDDEN, "not from another site\n").into_response();
    }
    next.run(request).await
}

/// Browsers say where a request comes from, and scripts cannot make them lie. Who says nothing is no browser.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text(ORIGIN) {
        // What a page merely shows, such as an image, comes without its origin, but not without this.
        None => matches!(text(SEC_FETCH_SITE), Some("cross-site" | "same-site")),
        Some(origin) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_none() || host != text(HOST)
        }
    }
}

/// Another site may have its name lead here (DNS rebinding), and is of the same origin then.
async fn local_only(request: Request, next: Next) -> Response {
    // A request of HTTP/2 has its host in its address.
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default()),
    };
    if host.is_none_or(is_local) {
        return next.run(request).await;
    }
    let advice = "this server is for this machine only, and not known by that name; ask 127.0.0.1, or start it with --addr\n";
    (StatusCode::MISDIRECTED_REQUEST, advice).into_response()
}

/// Whether nobody else can give this name to another machine.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

pub(crate) const CSS: &str = "text/css; charset=utf-8";
pub(crate) const JS: &str = "text/javascript; charset=utf-8";
pub(crate) const SVG: &str = "image/svg+xml";

/// The style that pages share.
pub(crate) fn base<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    file(CSS, include_bytes!("assets/base.css"))
}

/// A file that is part of the binary.
pub(crate) fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    bytes: &'static [u8],
) -> MethodRouter<S> {
    get(move || async move { ([(CONTENT_TYPE, kind)], bytes).into_response() })
}

/// A time as pages know it.
pub(crate) fn epoch_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:4567"));
        headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
        is_foreign(&headers)
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_ours() {
        for ours in
            ["127.0.0.1:4567", "127.0.0.1", "localhost:80", "LocalHost", "a.localhost:1", "[::1]:80", "[::1]"]
        {
            assert!(is_local(ours), "{ours}");
        }
        for theirs in [
            "evil.example:4567",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            ":80",
        ] {
            assert!(!is_local(theirs), "{theirs}");
        }
    }

    #[test]
    fn only_our_own_pages_and_programs_may_act() {
        assert!(!foreign(None));
        assert!(!foreign(Some("http://127.0.0.1:4567")));
        for other in ["http://evil.example", "http://127.0.0.1:4568", "null", "", "file://"] {
            assert!(foreign(Some(other)), "{other:?}");
        }
        for (site, is_refused) in
            [("same-origin", false), ("none", false), ("same-site", true), ("cross-site", true)]
        {
            let headers = HeaderMap::from_iter([(SEC_FETCH_SITE, HeaderValue::from_static(site))]);
            assert_eq!(is_foreign(&headers), is_refused, "{site}");
        }
    }
}
