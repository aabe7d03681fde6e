//! What is kept in the store of a meeting and of each dialog: enough to go on elsewhere.

use bytes::Bytes;
use cluster::records::RECORD_VERSION;
use serde::{Deserialize, Serialize};
use sip::dialog::Dialog;
use sip::offer_answer::{LocalMedia, Plan};
use sip::session_timer::SessionTimer;

use crate::admission::{Identity, MeetingKind};
use crate::config::MeetingConfig;
use crate::ids::{ParticipantId, SourceId, SubscriptionId, SwitchId};

/// How far CSeq numbers may run ahead of the stored one: NOTIFYs are not stored one by one, and whoever
/// goes on with a dialog begins beyond what may have been used (gaps are allowed, RFC 3261 §12.2.1.1).
pub(crate) const CSEQ_RESERVE: u32 = 1_000;

/// `meeting/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeetingRecord {
    /// Record version.
    pub version: u32,
    /// How it came to be.
    pub kind: MeetingKind,
    /// Title.
    pub title: String,
    /// Lets in guests.
    pub guests: bool,
    /// Lets anybody in.
    pub open: bool,
    /// Addresses of record that may join.
    pub allowed: Vec<String>,
    /// Most participants.
    pub max_participants: usize,
    /// Audio slots.
    pub audio_slots: usize,
    /// Video slots.
    pub video_slots: usize,
}

impl MeetingRecord {
    pub(crate) fn new(kind: MeetingKind, config: &MeetingConfig) -> Self {
        Self {
            version: RECORD_VERSION,
            kind,
            title: config.title.clone(),
            guests: config.guests,
            open: config.open,
            allowed: config.allowed.clone(),
            max_participants: config.max_participants,
            audio_slots: config.audio_slots,
            video_slots: config.video_slots,
        }
    }

    pub(crate) fn config(&self) -> MeetingConfig {
        MeetingConfig {
            title: self.title.clone(),
            guests: self.guests,
            open: self.open,
            allowed: self.allowed.clone(),
            max_participants: self.max_participants,
            audio_slots: self.audio_slots,
            video_slots: self.video_slots,
        }
    }
}

/// `dialog/<meeting>/<participant or subscription>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DialogRecord {
    /// An INVITE dialog.
    Participant(Box<ParticipantRecord>),
    /// A subscription in a dialog of its own.
    Subscription(Box<SubscriptionRecord>),
}

/// An INVITE dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantRecord {
    /// Record version.
    pub version: u32,
    /// Also the leg's id.
    pub id: ParticipantId,
    /// CSRC.
    pub source: SourceId,
    /// Rank by time of joining.
    pub order: u64,
    /// ms since the Unix epoch; when its INVITE came.
    pub joined_at: u64,
    /// Who.
    pub identity: Identity,
    /// The dialog.
    pub dialog: Dialog,
    /// Media in force.
    pub plan: Plan,
    /// Where the switch listens for them.
    pub local: LocalMedia,
    /// Which switch.
    pub switch: SwitchId,
    /// Its instance that has the SDES keys of `plan`, which no other may use; empty where the peer has yet to be
    /// told other keys, and in records of builds before this was kept.
    #[serde(default)]
    pub instance: String,
    /// The peer is behind NAT.
    pub latch: bool,
    /// The peer takes UPDATE.
    pub peer_update: bool,
    /// Session timer, with wall-clock deadlines.
    pub timer: SessionTimer,
    /// Subscriptions that share the dialog.
    pub subscriptions: Vec<SubscriptionState>,
    /// The 2xx that goes out once this is durable, or has; the ACK had not come. It is taken back with a later
    /// write, so that it may still stand here of a call that has long been acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacknowledged: Option<Unacknowledged>,
}

/// A 2xx to INVITE whose ACK has not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unacknowledged {
    /// Its head; the body is that of the plan.
    pub head: String,
    /// It has our description.
    pub described: bool,
    /// That is an offer, and the ACK brings the answer.
    pub answer_due: bool,
    /// ms since the Unix epoch.
    pub sent_at: u64,
}

/// A subscription without its dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionState {
    /// Id.
    pub id: SubscriptionId,
    /// `id` parameter of the Event header.
    pub event_id: Option<String>,
    /// ms since the Unix epoch.
    pub expires_at: u64,
    /// Version of the last document when this was written.
    pub document: u32,
    /// When this was written, ms since the Unix epoch.
    pub written_at: u64,
}

/// A subscription in a dialog of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// Record version.
    pub version: u32,
    /// The dialog.
    pub dialog: Dialog,
    /// The subscription.
    pub state: SubscriptionState,
}

/// As stored. All our records serialize: they hold no maps with other than text keys and no failing types.
pub(crate) fn to_bytes<T: Serialize>(record: &T) -> Bytes {
    serde_json::to_vec(record)
        .expect("records hold only what JSON can express")
        .into()
}
