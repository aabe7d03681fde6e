//! The web client, built into the binary; or a page that says how to build it.

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/web.rs"));
}

/// Command that makes the web client part of the binary.
pub const HOW_TO_BUILD: &str = "make build";

const MISSING: &str = "<!doctype html><meta charset=utf-8><title>Rostrum</title>\
<p>This build of Rostrum has no web client in it. Build one with <code>make build</code> \
(it needs npm), then start Rostrum again. SIP clients and the API work without it.";

/// Whether the web client is part of this build.
pub fn is_present() -> bool {
    !embedded::FILES.is_empty()
}

/// Serves the page and its assets.
pub fn router() -> Router {
    Router::new().fallback(serve)
}

async fn serve(uri: Uri) -> Response {
    if !is_present() {
        return (StatusCode::NOT_FOUND, Html(MISSING)).into_response();
    }
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let Some((name, bytes)) = embedded::FILES.iter().find(|(name, _)| *name == path) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    // assets carry a hash in their name; the page itself must be asked for again
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)],
        *bytes,
    )
        .into_response()
}
