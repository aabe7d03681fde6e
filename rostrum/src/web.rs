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
    page(embedded::FILES, uri.path())
}

fn page(files: &[(&str, &'static [u8])], path: &str) -> Response {
    if files.is_empty() {
        return (StatusCode::NOT_FOUND, Html(MISSING)).into_response();
    }
    let path = match path.trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let Some((name, bytes)) = files.iter().find(|(name, _)| *name == path) else {
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let text = String::from_utf8(bytes.expect("a body").to_vec()).expect("UTF-8");
        (status, text)
    }

    #[tokio::test]
    async fn build_without_the_web_client_says_how_to_make_one_with_it() {
        for path in ["/", "/assets/app.js"] {
            let (status, text) = body(page(&[], path)).await;
            assert_eq!(status, 404);
            assert!(text.contains(HOW_TO_BUILD), "{text}");
        }
        let files: &[(&str, &'static [u8])] = &[("index.html", b"the page")];
        assert_eq!(body(page(files, "/")).await, (200, "the page".into()));
        assert_eq!(body(page(files, "/nothing")).await.0, 404);
    }
}
