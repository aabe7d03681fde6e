//! Read-only JSON views of what this member holds.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use meeting_core::Focus;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::driver::Query;
use crate::switches::Switches;

/// What the views are made from.
#[derive(Clone)]
pub struct Views {
    /// To the focus.
    pub queries: mpsc::Sender<Query>,
    /// To the switches.
    pub switches: Switches,
}

impl Views {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Focus) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let query: Query = Box::new(move |focus| {
            let _ = reply.send(question(focus));
        });
        self.queries.send(query).await.ok()?;
        answer.await.ok()
    }

    async fn meetings(&self) -> Vec<Value> {
        let views = self
            .ask(|focus| serde_json::to_value(focus.meetings().collect::<Vec<_>>()))
            .await;
        match views {
            Some(Ok(Value::Array(meetings))) => meetings,
            _ => Vec::new(),
        }
    }
}

/// `/api/v1/meetings`, `/api/v1/meetings/{id}`, `/api/v1/counts`.
pub fn router(views: Views) -> Router {
    Router::new()
        .route("/api/v1/meetings", get(all))
        .route("/api/v1/meetings/{id}", get(one))
        .route("/api/v1/counts", get(counts))
        .with_state(views)
}

async fn all(State(views): State<Views>) -> Json<Value> {
    Json(Value::Array(views.meetings().await))
}

/// One meeting, with what its switch says of legs and slots.
async fn one(State(views): State<Views>, Path(id): Path<String>) -> Response {
    let found = views
        .meetings()
        .await
        .into_iter()
        .find(|m| m["id"] == id.as_str());
    let Some(mut meeting) = found else {
        let problem = json!({
            "type": "about:blank", "title": "No such meeting", "status": 404,
            "detail": format!("no meeting {id:?} is running on this member"),
        });
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        return (StatusCode::NOT_FOUND, headers, problem.to_string()).into_response();
    };
    if let Some(switch) = meeting["switch"].as_str().map(str::to_owned) {
        let seen = views.switches.inspect(&switch, &id).await;
        if let Some(view) = seen.as_ref().and_then(|s| s.meetings.first()) {
            meeting["media"] = media(view);
        }
    }
    Json(meeting).into_response()
}

fn media(m: &control::MeetingView) -> Value {
    let slot = |s: &control::SlotView| {
        let kind = if s.kind() == control::MediaKind::Video {
            "video"
        } else {
            "audio"
        };
        json!({
            "kind": kind, "number": s.number, "ssrc": s.ssrc, "holder": s.holder, "switches": s.switches,
            "packets": s.packets,
        })
    };
    let leg = |l: &control::LegView| {
        json!({
            "id": l.id, "source": l.source, "connected": l.connected, "remote": l.remote, "level": l.level,
            "srtp": l.srtp_profile, "slots": l.slots.iter().map(slot).collect::<Vec<_>>(),
        })
    };
    let rendition = |r: &control::RenditionView| json!({ "source": r.source, "codec": r.codec, "listeners": r.listeners });
    json!({
        "dominant": m.dominant, "previous": m.previous, "active": m.active,
        "legs": m.legs.iter().map(leg).collect::<Vec<_>>(),
        "renditions": m.renditions.iter().map(rendition).collect::<Vec<_>>(),
    })
}

/// Totals, here and on the switches: all zero when nothing is left of any call.
async fn counts(State(views): State<Views>) -> Json<Value> {
    let counts = views.ask(|focus| focus.counts()).await.unwrap_or_default();
    let (mut legs, mut ports) = (0, 0);
    for id in views.switches.ids() {
        if let Some(view) = views.switches.inspect(&id, "").await {
            legs += view.legs;
            ports += view.ports_in_use;
        }
    }
    Json(json!({
        "meetings": counts.meetings, "participants": counts.participants, "dialogs": counts.dialogs,
        "subscriptions": counts.subscriptions, "legs": legs, "ports": ports,
        "pending_requests": counts.pending_requests, "pending_operations": counts.pending_operations,
        "client_transactions": counts.client_transactions, "server_transactions": counts.server_transactions,
    }))
}
