//! A leg: a participant's media path as the owner described it.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::slot::{Kind, Slot};
use crate::stats::Budget;
use crate::{LegKey, SourceId, TransportIndex};

/// Most m-lines of a leg.
pub const MAX_MEDIA: usize = 32;
/// Most 5-tuples of a leg.
pub const MAX_TRANSPORTS: usize = 32;

/// One 5-tuple.
#[derive(Debug, Clone)]
pub struct TransportState {
    pub index: TransportIndex,
    /// Can send: no ICE or DTLS to wait for, or they are done.
    pub ready: bool,
    pub dtls: bool,
    /// Sender SSRC of RTCP where no slot gives one.
    pub ssrc: u32,
}

/// One m-line.
#[derive(Debug, Clone, Copy)]
pub struct MediaLine {
    pub index: u32,
    pub kind: Kind,
    /// Publisher side, in the meeting's table of streams.
    pub stream: Option<u32>,
    /// Subscriber side, in the meeting's table of slots.
    pub slot: Option<u32>,
}

/// A participant's media path.
#[derive(Debug)]
pub struct Leg {
    pub key: LegKey,
    pub id: String,
    pub source: SourceId,
    pub cname: String,
    /// As described last, to see whether anything changed.
    pub described: control::Leg,
    pub transports: SmallVec<[TransportState; 2]>,
    pub media: SmallVec<[MediaLine; 4]>,
    pub connected: bool,
    /// What the owner was told of a failed path; it stands until there is another.
    pub failed: Option<(control::leg_event::Kind, String)>,
    pub last_heard: Instant,
    pub timed_out: bool,
    pub next_report: Instant,
    /// Slots sent to no longer: should one come back under its SSRC, its numbers go on, since the
    /// SRTP key it was sealed with does too. At most [`MAX_MEDIA`].
    pub parked: Vec<Slot>,
    /// Pressed keys that may still be told.
    pub digits: Budget,
    pub rtt: Option<Duration>,
    /// Our time minus the sender's NTP time, in microseconds.
    pub clock_offset: Option<i64>,
    pub malformed: u64,
    pub nacks: u64,
    pub plis: u64,
}

impl Leg {
    /// The transport of this index.
    pub fn transport(&self, index: TransportIndex) -> Option<&TransportState> {
        self.transports.iter().find(|t| t.index == index)
    }

    /// Streams it publishes.
    pub fn streams(&self) -> impl Iterator<Item = u32> + '_ {
        self.media.iter().filter_map(|m| m.stream)
    }

    /// Slots it subscribes to.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.media.iter().filter_map(|m| m.slot)
    }
}

/// What of a description is impossible, for people.
pub fn refusal(leg: &control::Leg) -> Option<String> {
    if leg.id.is_empty() {
        return Some("a leg needs an id".into());
    }
    if leg.source == 0 {
        return Some("source 0 is no source".into());
    }
    if leg.media.len() > MAX_MEDIA || leg.transports.len() > MAX_TRANSPORTS {
        return Some(format!(
            "a leg has at most {MAX_MEDIA} media and {MAX_TRANSPORTS} transports"
        ));
    }
    for (i, media) in leg.media.iter().enumerate() {
        let m = media.index;
        if leg.media[..i].iter().any(|o| o.index == m) {
            return Some(format!("media {m} is described twice"));
        }
        if kind(media).is_none() {
            return Some(format!("media {m} is neither audio nor video"));
        }
        if !leg.transports.iter().any(|t| t.index == media.transport) {
            return Some(format!(
                "media {m} names transport {}, which is not there",
                media.transport
            ));
        }
        if media.send && media.slot.as_ref().is_none_or(|s| s.ssrc == 0) {
            return Some(format!("media {m} sends without a slot and its ssrc"));
        }
    }
    None
}

/// The kind of an m-line.
pub fn kind(media: &control::Media) -> Option<Kind> {
    match control::MediaKind::try_from(media.kind) {
        Ok(control::MediaKind::Audio) => Some(Kind::Audio),
        Ok(control::MediaKind::Video) => Some(Kind::Video),
        _ => None,
    }
}
