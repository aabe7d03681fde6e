//! One meeting on a worker: what its links tell reaches it, what it sends is sealed.

use std::time::Instant;

use smallvec::SmallVec;

use super::WorkerStats;
use super::egress::Out;
use super::transports::Links;
use crate::link::LinkEvent;
use crate::meeting::Meeting;
use crate::rendition::Renditions;
use crate::{Batch, LegKey, TransportIndex};

/// A meeting with everything it needs.
pub(super) struct Hosted {
    pub(super) id: String,
    pub(super) meeting: Meeting,
    pub(super) renditions: Renditions,
    pub(super) links: Links,
    pub(super) link_due: Instant,
    /// When it stands in the worker's agenda.
    pub(super) scheduled: Option<Instant>,
}

impl Hosted {
    pub(super) fn due(&self) -> Instant {
        self.meeting
            .poll_timeout()
            .map_or(self.link_due, |due| due.min(self.link_due))
    }

    pub(super) fn settle_leg(
        &mut self,
        at: usize,
        now: Instant,
        batch: &mut Batch,
        stats: &mut WorkerStats,
    ) {
        let Some(leg) = self.links.legs.get(at).and_then(Option::as_ref) else {
            return;
        };
        let key = leg.key;
        let indices: SmallVec<[TransportIndex; 4]> =
            leg.transports.iter().map(|t| t.index).collect();
        for index in indices {
            self.settle_link(key, index, now, batch, stats);
        }
    }

    pub(super) fn settle_link(
        &mut self,
        leg: LegKey,
        transport: TransportIndex,
        now: Instant,
        batch: &mut Batch,
        stats: &mut WorkerStats,
    ) {
        use control::leg_event::Kind;
        while let Some(event) = self
            .links
            .link(leg, transport)
            .and_then(|link| link.poll_event())
        {
            match event {
                LinkEvent::Up => {
                    let mut out = Out {
                        links: &mut self.links,
                        batch,
                        unsendable: &mut stats.unsendable,
                        outlet: None,
                    };
                    self.meeting.handle_connected(now, leg, transport, &mut out);
                }
                LinkEvent::ConsentLost => {
                    let reason = "no ICE connectivity check for 30 s";
                    self.meeting
                        .handle_failed(now, leg, Kind::ConsentLost, reason);
                }
                LinkEvent::DtlsFailed(reason) => {
                    self.meeting
                        .handle_failed(now, leg, Kind::DtlsFailed, &reason);
                }
            }
        }
    }

    pub(super) fn view(&self, now: Instant) -> control::MeetingView {
        let mut view = self.meeting.view(now);
        for leg in &mut view.legs {
            let links = self.links.legs.iter().flatten().find(|l| l.id == leg.id);
            let Some(first) = links.and_then(|links| links.transports.first()) else {
                continue;
            };
            leg.remote = first
                .link
                .remote()
                .map(|r| r.to_string())
                .unwrap_or_default();
            leg.srtp_profile = first
                .link
                .profile()
                .map(|profile| profile.name().to_owned())
                .unwrap_or_default();
        }
        for (source, codec, frames) in self.renditions.view() {
            let Some(leg) = view.legs.iter().find(|leg| leg.source == source.0) else {
                continue;
            };
            let rendition = view
                .renditions
                .iter_mut()
                .find(|r| r.source == leg.id && r.codec.eq_ignore_ascii_case(codec.name()));
            if let Some(rendition) = rendition {
                rendition.frames = frames;
            }
        }
        view
    }
}
