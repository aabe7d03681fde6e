//! The read-only JSON view of what is registered.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use registrar_core::{Core, Stats};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Query as Ask, wall};

/// Records one page has at most.
const PAGE_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Page {
    /// Only addresses of record that contain this.
    #[serde(default)]
    search: String,
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Registrations {
    total: usize,
    registrations: Vec<Registration>,
}

#[derive(Serialize)]
struct Registration {
    aor: String,
    bindings: Vec<BindingView>,
}

#[derive(Serialize)]
struct BindingView {
    contact: String,
    q: f32,
    /// Seconds.
    expires_in: u64,
    transport: String,
    node: String,
    instance: Option<String>,
    reg_id: Option<u32>,
    user_agent: String,
    /// Its connection still stands, as far as this registrar knows.
    reachable: bool,
}

#[derive(Serialize)]
struct FlowsView {
    count: usize,
    by_transport: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
struct StatsView {
    requests: u64,
    rejected: u64,
    challenges: u64,
    authentication_failures: u64,
    registrations: u64,
    overload: u64,
    forwarded: u64,
    loops: u64,
    requests_in_progress: u64,
    pending: u64,
    client_transactions: u64,
    server_transactions: u64,
    bindings: u64,
    parked: u64,
}

impl From<Stats> for StatsView {
    fn from(s: Stats) -> Self {
        Self {
            requests: s.requests,
            rejected: s.rejected,
            challenges: s.challenges,
            authentication_failures: s.authentication_failures,
            registrations: s.registrations,
            overload: s.overload,
            forwarded: s.forwarded,
            loops: s.loops,
            requests_in_progress: s.contexts,
            pending: s.pending,
            client_transactions: s.client_transactions,
            server_transactions: s.server_transactions,
            bindings: s.bindings,
            parked: s.parked,
        }
    }
}

/// The router; answers 503 once the registrar has stopped.
pub(crate) fn router(queries: mpsc::Sender<Ask>) -> Router {
    Router::new()
        .route("/api/v1/registrations", get(registrations))
        .route("/api/v1/flows", get(flows))
        .route("/api/v1/registrar", get(stats))
        .with_state(queries)
}

async fn ask<T, F>(queries: &mpsc::Sender<Ask>, read: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Core) -> T + Send + 'static,
{
    let (answer_in, answer) = oneshot::channel();
    let query: Ask = Box::new(move |core| {
        let _ = answer_in.send(read(core));
    });
    if queries.send(query).await.is_ok()
        && let Ok(value) = answer.await
    {
        return axum::Json(value).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "registrar stopped\n").into_response()
}

async fn registrations(
    State(queries): State<mpsc::Sender<Ask>>,
    Query(page): Query<Page>,
) -> Response {
    let now = wall().as_secs();
    let limit = page.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    ask(&queries, move |core| {
        let mut total = 0;
        let mut found = Vec::new();
        for set in core.location().iter() {
            if !set.aor.contains(&page.search) || set.live(now).next().is_none() {
                continue;
            }
            total += 1;
            if found.len() < limit {
                found.push(Registration {
                    aor: set.aor.clone(),
                    bindings: set.live(now).map(|b| view(core, b, now)).collect(),
                });
            }
        }
        Registrations {
            total,
            registrations: found,
        }
    })
    .await
}

fn view(core: &Core, binding: &registrar_core::Binding, now: u64) -> BindingView {
    let flow = binding.flow.as_ref();
    BindingView {
        contact: binding.contact.clone(),
        q: f32::from(binding.q) / 1000.0,
        expires_in: binding.left(now),
        transport: flow.map_or_else(String::new, |f| f.transport.clone()),
        node: flow.map_or_else(String::new, |f| f.node.clone()),
        instance: binding.instance.clone(),
        reg_id: binding.reg_id,
        user_agent: binding.user_agent.clone(),
        reachable: !core.is_unreachable(binding),
    }
}

async fn flows(State(queries): State<mpsc::Sender<Ask>>) -> Response {
    ask(&queries, |core| {
        let mut by_transport = BTreeMap::new();
        let mut count = 0;
        for flow in core.flows() {
            count += 1;
            *by_transport.entry(flow.transport.uri_token()).or_insert(0) += 1;
        }
        FlowsView {
            count,
            by_transport,
        }
    })
    .await
}

async fn stats(State(queries): State<mpsc::Sender<Ask>>) -> Response {
    ask(&queries, |core| StatsView::from(core.stats())).await
}
