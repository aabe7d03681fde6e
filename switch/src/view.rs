//! Read-only JSON views of what the switch holds.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::control_server::State;

/// `/api/v1/switch` and `/api/v1/switch/meetings/{id}`.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/api/v1/switch", get(all))
        .route("/api/v1/switch/meetings/{id}", get(one))
        .with_state(state)
}

async fn all(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let view = state.inspect("").await;
    Json(json!({
        "instance": view.instance,
        "legs": view.legs,
        "ports": view.ports_in_use,
        "load": f64::from(state.load()) / 1_000.0,
        "meetings": view.meetings.iter().map(meeting).collect::<Vec<_>>(),
    }))
}

async fn one(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, axum::http::StatusCode> {
    let view = state.inspect(&id).await;
    view.meetings
        .first()
        .map(|m| Json(meeting(m)))
        .ok_or(axum::http::StatusCode::NOT_FOUND)
}

fn meeting(m: &control::MeetingView) -> Value {
    let stats = |s: &Option<control::StreamStats>| {
        s.as_ref().map(|s| {
            json!({
                "packets": s.packets, "bytes": s.bytes, "lost": s.lost, "jitter_ms": s.jitter_ms,
                "rtt_ms": s.rtt_ms, "nacks": s.nacks, "plis": s.plis,
            })
        })
    };
    let slot = |s: &control::SlotView| {
        json!({
            "kind": if s.kind() == control::MediaKind::Video { "video" } else { "audio" },
            "number": s.number, "ssrc": s.ssrc, "holder": s.holder, "switches": s.switches, "packets": s.packets,
        })
    };
    let leg = |l: &control::LegView| {
        json!({
            "id": l.id, "source": l.source, "connected": l.connected, "remote": l.remote, "level": l.level,
            "srtp": l.srtp_profile, "slots": l.slots.iter().map(slot).collect::<Vec<_>>(),
            "received": stats(&l.received), "sent": stats(&l.sent),
        })
    };
    let rendition = |r: &control::RenditionView| json!({ "source": r.source, "codec": r.codec, "listeners": r.listeners, "frames": r.frames });
    json!({
        "meeting": m.meeting, "epoch": m.epoch, "dominant": m.dominant, "previous": m.previous, "active": m.active,
        "legs": m.legs.iter().map(leg).collect::<Vec<_>>(),
        "renditions": m.renditions.iter().map(rendition).collect::<Vec<_>>(),
    })
}
