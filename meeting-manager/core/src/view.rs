//! A read-only picture of what the focus holds, for the API.

use serde::Serialize;

use crate::admission::MeetingKind;
use crate::exchange::Stage;
use crate::ids::SwitchId;
use crate::meeting::{Meeting, State};
use crate::participant::{Participant, Phase};
use crate::slot_policy;

/// How much of everything there is; all zero when nothing is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Meetings served here.
    pub meetings: usize,
    /// Participants, those that join or leave included.
    pub participants: usize,
    /// Dialogs, of calls and of subscriptions.
    pub dialogs: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Legs that a switch was told of.
    pub legs: usize,
    /// Client transactions.
    pub client_transactions: usize,
    /// Server transactions.
    pub server_transactions: usize,
    /// Requests of ours that nobody answered yet.
    pub pending_requests: usize,
    /// Operations of store and switch that are under way.
    pub pending_operations: usize,
    /// Deadlines that are set.
    pub timers: usize,
}

/// A meeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MeetingView {
    /// Id.
    pub id: String,
    /// Title.
    pub title: String,
    /// How it came to be.
    pub kind: MeetingKind,
    /// `claiming`, `active`, `ending`, `releasing`.
    pub state: &'static str,
    /// Ownership epoch.
    pub epoch: u64,
    /// Switch that carries it.
    pub switch: Option<SwitchId>,
    /// Leg that dominates, empty: none.
    pub dominant: String,
    /// Legs heard, loudest first.
    pub active: Vec<String>,
    /// Subscriptions, those in INVITE dialogs included.
    pub subscriptions: usize,
    /// Who is in it, by order of joining.
    pub participants: Vec<ParticipantView>,
}

/// A participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParticipantView {
    /// Id, also of its leg.
    pub id: String,
    /// CSRC.
    pub source: u32,
    /// Address of record.
    pub uri: String,
    /// Display name.
    pub display: String,
    /// Not a registered user.
    pub guest: bool,
    /// ms since the Unix epoch; when its INVITE came.
    pub joined_at: u64,
    /// `joining`, `joined`, `leaving`.
    pub state: &'static str,
    /// The switch hears it.
    pub connected: bool,
    /// It takes no audio.
    pub on_hold: bool,
    /// Its dialog.
    pub dialog: DialogView,
    /// Accepted m-lines.
    pub media: Vec<MediaView>,
}

/// A dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DialogView {
    /// Call-ID.
    pub call_id: String,
    /// `early` or `confirmed`.
    pub state: &'static str,
    /// CSeq of our last request.
    pub local_cseq: u32,
    /// CSeq of the peer's last request.
    pub remote_cseq: Option<u32>,
    /// What an offer/answer exchange that is under way waits for: `switch`, `store`, `answer`.
    pub exchange: Option<&'static str>,
    /// Our 2xx has no ACK yet.
    pub awaiting_ack: bool,
}

/// An m-line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MediaView {
    /// Position in the SDP.
    pub index: usize,
    /// `audio` or `video`.
    pub kind: String,
    /// Ours: `sendrecv`, `sendonly`, `recvonly`, `inactive`.
    pub direction: &'static str,
    /// `plain`, `sdes`, `dtls`.
    pub security: &'static str,
    /// Codecs in order of preference.
    pub codecs: Vec<String>,
    /// Rank of its slot.
    pub slot: Option<usize>,
    /// SSRC of its slot.
    pub ssrc: Option<u32>,
}

pub(crate) fn meeting(meeting: &Meeting) -> MeetingView {
    let mut participants: Vec<&Participant> = meeting.participants.values().collect();
    participants.sort_by_key(|p| p.order);
    MeetingView {
        id: meeting.facts.id.to_string(),
        title: meeting.facts.config.title.clone(),
        kind: meeting.facts.kind,
        state: match meeting.state {
            State::Claiming => "claiming",
            State::Active => "active",
            State::Ending => "ending",
            State::Releasing | State::Over => "releasing",
        },
        epoch: meeting.facts.epoch.0,
        switch: meeting.link.switch().cloned(),
        dominant: meeting.speaking.dominant.clone(),
        active: meeting.speaking.active.clone(),
        subscriptions: meeting.subscriptions.len(),
        participants: participants.into_iter().map(participant).collect(),
    }
}

fn participant(p: &Participant) -> ParticipantView {
    ParticipantView {
        id: p.id.to_string(),
        source: p.source.0,
        uri: p.identity.uri.clone(),
        display: p.identity.display.clone(),
        guest: p.identity.guest,
        joined_at: p.joined_at,
        state: match p.phase {
            Phase::Joining => "joining",
            Phase::Joined => "joined",
            Phase::Leaving | Phase::Gone => "leaving",
        },
        connected: p.connected,
        on_hold: p.plan.as_ref().is_some_and(slot_policy::on_hold),
        dialog: DialogView {
            call_id: p.dialog.id.call_id.clone(),
            state: match p.phase {
                Phase::Joining => "early",
                _ => "confirmed",
            },
            local_cseq: p.dialog.local_cseq,
            remote_cseq: p.dialog.remote_cseq,
            exchange: p.exchange.as_ref().map(|e| match e.stage {
                Stage::Applying => "switch",
                Stage::Storing => "store",
                Stage::AwaitingAnswer => "answer",
            }),
            awaiting_ack: p.accepted.is_some(),
        },
        media: p.plan.iter().flat_map(media).collect(),
    }
}

fn media(plan: &sip::offer_answer::Plan) -> Vec<MediaView> {
    plan.accepted()
        .map(|m| MediaView {
            index: m.index,
            kind: m.raw_kind.clone(),
            direction: m.direction.as_str(),
            security: match plan.transports.get(m.transport).map(|t| &t.security) {
                Some(sip::offer_answer::Security::Sdes { .. }) => "sdes",
                Some(sip::offer_answer::Security::Dtls { .. }) => "dtls",
                _ => "plain",
            },
            codecs: m.codecs.iter().map(|c| c.name.clone()).collect(),
            slot: m.has_slot().then_some(m.slot),
            ssrc: m.has_slot().then_some(m.ssrc),
        })
        .collect()
}
