//! The HTTP side: the page, its small API, and the way in for SIP over WebSocket (RFC 7118), on one port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rand::RngCore;
use registrar_core::GuestMint;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use transport::Transports;

use crate::config::Meeting;
use crate::driver::wall;

/// Longest request body, bytes.
const BODY_MAX: usize = 4096;

/// How long a request may take, WebSockets excepted.
const REQUEST_PATIENCE: Duration = Duration::from_secs(20);

/// Longest name a guest may have, characters.
const NAME_MAX: usize = 64;

/// Guests' identities one address may ask for in a minute: offices share addresses, so it is generous.
const GUESTS_PER_MINUTE: u32 = 120;

/// Source addresses counted.
const SOURCES_MAX: usize = 4096;

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) secure: bool,
}

/// What the handlers work with.
pub(crate) struct Site {
    /// As it stands in a URI.
    pub(crate) domain: String,
    pub(crate) realm: String,
    pub(crate) meetings: Vec<Meeting>,
    pub(crate) guests: GuestMint,
    pub(crate) guest_lifetime: Duration,
    /// Names under which this site may be reached, without port, lower case.
    pub(crate) hosts: Vec<String>,
    /// Port of the HTTPS side, as others see it.
    pub(crate) https_port: Option<u16>,
    pub(crate) transports: Transports,
    pub(crate) issued: Mutex<std::collections::BTreeMap<IpAddr, (u64, u32)>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// An answer after RFC 9457.
#[derive(Debug, Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
}

fn problem(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Response {
    let body = Problem {
        title,
        status: status.as_u16(),
        detail: detail.into(),
    };
    let json = serde_json::to_vec(&body).unwrap_or_default();
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        json,
    )
        .into_response()
}

/// Everything one HTTP port serves; `web` is asked for all that is not the API.
pub(crate) fn router(site: Arc<Site>, web: Router) -> Router {
    Router::new()
        .route("/api/v1/config", get(config))
        .route("/api/v1/guest", post(guest))
        .route("/sip", any(websocket))
        .with_state(Arc::clone(&site))
        .fallback_service(web)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(site, guard))
}

/// `host[:port]` without the port and brackets, lower case.
fn host_of(authority: &str) -> String {
    let host = match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or(authority),
    };
    host.trim_matches(['[', ']']).to_ascii_lowercase()
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn authority(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    headers
        .get(header::HOST)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned)
        .or_else(|| uri.authority().map(|a| a.as_str().to_owned()))
}

impl Site {
    /// Whether a page of that host may talk to us. A literal address cannot be rebound by somebody's DNS.
    fn is_own_host(&self, host: &str) -> bool {
        is_local(host) || host.parse::<IpAddr>().is_ok() || self.hosts.iter().any(|h| h == host)
    }

    fn may_issue(&self, source: IpAddr) -> bool {
        let minute = wall().as_secs() / 60;
        let mut issued = self.issued.lock();
        if issued.len() >= SOURCES_MAX && !issued.contains_key(&source) {
            issued.retain(|_, (at, _)| *at == minute);
            if issued.len() >= SOURCES_MAX {
                issued.pop_first();
            }
        }
        let entry = issued.entry(source).or_insert((minute, 0));
        if entry.0 != minute {
            *entry = (minute, 0);
        }
        entry.1 += 1;
        entry.1 <= GUESTS_PER_MINUTE
    }
}

/// Before everything: Host (DNS rebinding), HTTPS for all but this very machine, WebSocket on `/`, time.
async fn guard(
    State(site): State<Arc<Site>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let Some(authority) = authority(request.headers(), request.uri()) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "No Host",
            "The request names no host.",
        );
    };
    let host = host_of(&authority);
    if !site.is_own_host(&host) {
        return problem(
            StatusCode::MISDIRECTED_REQUEST,
            "Unknown host",
            format!("This server does not answer for {host:?}; add it to web_hosts if it should."),
        );
    }
    let upgrade = wants_websocket(request.headers());
    if upgrade && matches!(request.uri().path(), "/" | "/sip") {
        return websocket(State(site), Extension(peer), request).await;
    }
    if !peer.secure
        && !is_local(&host)
        && let Some(port) = site.https_port
    {
        return redirect(&host, port, request.uri());
    }
    match tokio::time::timeout(REQUEST_PATIENCE, next.run(request)).await {
        Ok(mut response) => {
            let headers = response.headers_mut();
            headers.insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
            headers.insert(
                header::X_FRAME_OPTIONS,
                HeaderValue::from_static("SAMEORIGIN"),
            );
            response
        }
        Err(_) => problem(
            StatusCode::REQUEST_TIMEOUT,
            "Too slow",
            "The request took too long.",
        ),
    }
}

/// Browsers give camera and microphone only to pages that came encrypted.
fn redirect(host: &str, port: u16, uri: &Uri) -> Response {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let location = if port == 443 {
        format!("https://{host}{path}")
    } else {
        format!("https://{host}:{port}{path}")
    };
    match HeaderValue::from_str(&location) {
        // 307: the port may change, so browsers should not remember.
        Ok(location) => (
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, location)],
        )
            .into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

// ---- the API

#[derive(Serialize)]
struct ConfigView<'a> {
    domain: &'a str,
    realm: &'a str,
    /// Path of SIP over WebSocket on this port.
    ws: &'static str,
    meetings: Vec<MeetingView<'a>>,
    guests: bool,
}

#[derive(Serialize)]
struct MeetingView<'a> {
    id: &'a str,
    title: &'a str,
    uri: String,
    guests: bool,
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (
            status,
            [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "no-store"),
            ],
            body,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn config(State(site): State<Arc<Site>>) -> Response {
    let meetings: Vec<MeetingView<'_>> = site
        .meetings
        .iter()
        .map(|m| MeetingView {
            id: &m.id,
            title: if m.title.is_empty() { &m.id } else { &m.title },
            uri: format!("sip:{}@{}", m.id, site.domain),
            guests: m.guests,
        })
        .collect();
    let view = ConfigView {
        domain: &site.domain,
        realm: &site.realm,
        ws: "/sip",
        guests: meetings.iter().any(|m| m.guests),
        meetings,
    };
    json(StatusCode::OK, &view)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestRequest {
    name: String,
    meeting: String,
}

#[derive(Serialize)]
struct GuestView {
    uri: String,
    user: String,
    password: String,
    display_name: String,
    /// Seconds since the Unix epoch.
    expires: u64,
    ws: String,
}

async fn guest(
    State(site): State<Arc<Site>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Result<axum::body::Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    // A page of another site must not fetch identities with a visitor's address.
    if !origin_is_own(&site, &headers) {
        return problem(
            StatusCode::FORBIDDEN,
            "Foreign page",
            "This page may not ask for guests' identities here.",
        );
    }
    let Ok(body) = body else {
        return problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Too large",
            "The request is too large.",
        );
    };
    let asked: GuestRequest = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "Not understood",
                format!("Expected {{\"name\", \"meeting\"}}: {error}"),
            );
        }
    };
    let name = asked.name.trim();
    if name.is_empty() || name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Name not usable",
            format!("Give a name of 1 to {NAME_MAX} characters."),
        );
    }
    let open = site
        .meetings
        .iter()
        .any(|m| m.id == asked.meeting && m.guests);
    if !open {
        return problem(
            StatusCode::FORBIDDEN,
            "No guests here",
            "This meeting does not exist or lets no guests in. Sign in with an account.",
        );
    }
    if !site.may_issue(peer.remote.ip()) {
        return problem(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many guests",
            "Too many guests came from your address. Try again in a minute.",
        );
    }
    let expires = wall().as_secs() + site.guest_lifetime.as_secs();
    let random = rand::rng().next_u64();
    let Some(pass) = site.guests.issue(&asked.meeting, expires, random) else {
        return problem(
            StatusCode::FORBIDDEN,
            "No guests here",
            "This meeting's address does not allow guests.",
        );
    };
    ::metrics::counter!(crate::metrics::GUESTS).increment(1);
    let scheme = if peer.secure { "wss" } else { "ws" };
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or(&site.domain);
    json(
        StatusCode::OK,
        &GuestView {
            uri: format!("sip:{}@{}", pass.user, site.domain),
            ws: format!("{scheme}://{host}/sip"),
            user: pass.user,
            password: pass.password,
            display_name: name.to_owned(),
            expires,
        },
    )
}

// ---- WebSocket

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case(token))
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, header::UPGRADE, "websocket")
}

/// Requests without Origin are no browser's; a browser always says whose page it is (RFC 6455 §10.2).
fn origin_is_own(site: &Site, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let Some(authority) = origin
        .to_str()
        .ok()
        .and_then(|o| o.split_once("://"))
        .map(|(_, rest)| rest)
    else {
        return false;
    };
    let host = host_of(authority);
    let own = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .map(host_of);
    // A foreign page served from a literal address must not pass for ours: only the very host asked for, this machine,
    // and the names configured.
    own.as_deref() == Some(&host) || is_local(&host) || site.hosts.contains(&host)
}

async fn websocket(
    State(site): State<Arc<Site>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
) -> Response {
    let headers = request.headers();
    let upgradable = *request.method() == Method::GET
        && wants_websocket(headers)
        && has_token(headers, header::CONNECTION, "upgrade");
    if !upgradable {
        let mut response = problem(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket wanted",
            "SIP is spoken here over WebSocket (RFC 7118).",
        );
        response
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    let version = headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes);
    if version != Some(b"13") {
        let mut response = problem(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version",
            "Only version 13 of the WebSocket protocol is spoken here.",
        );
        response.headers_mut().insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        return response;
    }
    if !origin_is_own(&site, headers) {
        return problem(
            StatusCode::FORBIDDEN,
            "Foreign page",
            "This page may not open a connection here.",
        );
    }
    if !has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, "sip") {
        return problem(
            StatusCode::BAD_REQUEST,
            "Subprotocol missing",
            "The WebSocket subprotocol must be sip (RFC 7118 §4).",
        );
    }
    let Some(accept) = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()))
    else {
        return problem(
            StatusCode::BAD_REQUEST,
            "No key",
            "Sec-WebSocket-Key is missing.",
        );
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let transports = site.transports.clone();
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let stream = TokioIo::new(upgraded);
            let taken = transports.accept_websocket(stream, peer.remote, peer.local, peer.secure);
            if let Err(refused) = taken {
                tracing::debug!(%refused, "WebSocket refused");
            }
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static("sip"),
    );
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
