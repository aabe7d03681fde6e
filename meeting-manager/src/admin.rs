//! The read-only HTTP view: meetings, participants, dialogs and, asked of the switch, slots.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use control::v1 as ctl;
use meeting_core::{Counts, Focus, MeetingId, MeetingKind, MeetingView, SwitchId};
use parking_lot::Mutex;
use serde::Serialize;

use crate::switches::Switches;

#[derive(Clone)]
pub(crate) struct View {
    pub(crate) member: String,
    pub(crate) focus: Arc<Mutex<Focus>>,
    pub(crate) switches: Arc<Switches>,
}

/// Answer of `GET /api/v1/meetings`.
#[derive(Serialize)]
struct List {
    member: String,
    counts: Counts,
    meetings: Vec<Line>,
}

/// Answer of `GET /api/v1/counts`.
#[derive(Serialize)]
struct Totals {
    #[serde(flatten)]
    focus: Counts,
    /// Legs on the switches.
    switch_legs: u32,
    /// UDP ports of plain legs on the switches.
    ports: u32,
}

/// A meeting in the list.
#[derive(Serialize)]
struct Line {
    id: String,
    title: String,
    kind: MeetingKind,
    state: &'static str,
    participants: usize,
    switch: Option<SwitchId>,
}

/// Answer of `GET /api/v1/meetings/{id}`.
#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    meeting: MeetingView,
    /// `None`: on no switch, or it does not answer.
    media: Option<Media>,
}

#[derive(Serialize)]
struct Media {
    instance: String,
    dominant: String,
    previous: String,
    active: Vec<String>,
    legs: Vec<Leg>,
    renditions: Vec<Rendition>,
}

#[derive(Serialize)]
struct Leg {
    id: String,
    source: u32,
    connected: bool,
    remote: String,
    level: u32,
    srtp_profile: String,
    slots: Vec<Slot>,
    received: Option<Stats>,
    sent: Option<Stats>,
}

#[derive(Serialize)]
struct Slot {
    kind: &'static str,
    number: u32,
    ssrc: u32,
    holder: String,
    switches: u64,
    packets: u64,
}

#[derive(Serialize)]
struct Stats {
    packets: u64,
    bytes: u64,
    lost: u64,
    jitter_ms: f64,
    rtt_ms: f64,
    nacks: u64,
    plis: u64,
}

#[derive(Serialize)]
struct Rendition {
    source: String,
    codec: String,
    listeners: u32,
    frames: u64,
}

pub(crate) fn router(view: View) -> Router {
    Router::new()
        .route("/api/v1/counts", get(counts))
        .route("/api/v1/meetings", get(list))
        .route("/api/v1/meetings/{id}", get(detail))
        .with_state(view)
}

/// Totals of this member and of all switches: zero when nothing is left of any call.
async fn counts(State(view): State<View>) -> Json<Totals> {
    let focus = view.focus.lock().counts();
    let mut totals = Totals {
        focus,
        switch_legs: 0,
        ports: 0,
    };
    for id in view.switches.ids() {
        if let Some(answer) = view.switches.inspect(&id, "").await {
            totals.switch_legs += answer.legs;
            totals.ports += answer.ports_in_use;
        }
    }
    Json(totals)
}

async fn list(State(view): State<View>) -> Json<List> {
    let focus = view.focus.lock();
    let meetings = focus
        .meetings()
        .map(|m| Line {
            id: m.id,
            title: m.title,
            kind: m.kind,
            state: m.state,
            participants: m.participants.len(),
            switch: m.switch,
        })
        .collect();
    Json(List {
        member: view.member.clone(),
        counts: focus.counts(),
        meetings,
    })
}

async fn detail(State(view): State<View>, Path(id): Path<String>) -> Response {
    let found = MeetingId::new(&id).and_then(|id| view.focus.lock().meeting(&id));
    let Some(meeting) = found else {
        let text = "There is no such meeting on this meeting manager.\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let media = match &meeting.switch {
        Some(switch) => view
            .switches
            .inspect(switch, &meeting.id)
            .await
            .and_then(|answer| media(answer, &meeting.id)),
        None => None,
    };
    Json(Detail { meeting, media }).into_response()
}

fn media(answer: ctl::InspectResponse, meeting: &str) -> Option<Media> {
    let view = answer.meetings.into_iter().find(|m| m.meeting == meeting)?;
    Some(Media {
        instance: answer.instance,
        dominant: view.dominant,
        previous: view.previous,
        active: view.active,
        legs: view.legs.into_iter().map(leg).collect(),
        renditions: view
            .renditions
            .into_iter()
            .map(|r| Rendition {
                source: r.source,
                codec: r.codec,
                listeners: r.listeners,
                frames: r.frames,
            })
            .collect(),
    })
}

fn leg(leg: ctl::LegView) -> Leg {
    Leg {
        slots: leg
            .slots
            .iter()
            .map(|s| Slot {
                kind: match s.kind() {
                    ctl::MediaKind::Video => "video",
                    _ => "audio",
                },
                number: s.number,
                ssrc: s.ssrc,
                holder: s.holder.clone(),
                switches: s.switches,
                packets: s.packets,
            })
            .collect(),
        id: leg.id,
        source: leg.source,
        connected: leg.connected,
        remote: leg.remote,
        level: leg.level,
        srtp_profile: leg.srtp_profile,
        received: leg.received.map(stats),
        sent: leg.sent.map(stats),
    }
}

fn stats(s: ctl::StreamStats) -> Stats {
    Stats {
        packets: s.packets,
        bytes: s.bytes,
        lost: s.lost,
        jitter_ms: s.jitter_ms,
        rtt_ms: s.rtt_ms,
        nacks: s.nacks,
        plis: s.plis,
    }
}
