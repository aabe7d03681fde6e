//! What is told: events to the owner, the picture for operators.

use std::time::{Duration, Instant};

use control::leg_event::Kind as LegEventKind;

use super::{MAX_EVENTS, Meeting};
use crate::codecs::AudioCodec;
use crate::dtmf::Digit;
use crate::slot::Kind;
use crate::{LegKey, SourceId};

/// Least time between two announcements of who is heard and seen.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(100);

impl Meeting {
    /// The next thing the owner must hear of (`Leg` or `Slots`); meeting and epoch are filled in.
    pub fn poll_event(&mut self) -> Option<control::Event> {
        self.events.pop_front()
    }

    fn event(&mut self, event: control::event::Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(control::Event { event: Some(event) });
    }

    pub(super) fn leg_event(&mut self, key: LegKey, kind: LegEventKind, reason: &str) {
        self.tell(key, kind, reason, 0, 0);
    }

    pub(super) fn digit_event(&mut self, now: Instant, key: LegKey, digit: Digit) {
        if !self.leg_mut(key).is_some_and(|leg| leg.digits.take(now, 1)) {
            return;
        }
        let ms = digit.duration.as_millis().min(u128::from(u32::MAX)) as u32;
        self.tell(key, LegEventKind::Dtmf, "", u32::from(digit.digit), ms);
    }

    fn tell(&mut self, key: LegKey, kind: LegEventKind, reason: &str, digit: u32, ms: u32) {
        let Some(leg) = self.leg(key) else { return };
        let event = control::LegEvent {
            meeting: self.config.id.clone(),
            epoch: self.epoch,
            leg: leg.id.clone(),
            kind: kind.into(),
            reason: reason.into(),
            digit,
            duration_ms: ms,
        };
        self.event(control::event::Event::Leg(event));
    }

    /// Tells again what stands: legs that have failed or are silent, and who is heard and seen. For
    /// an owner that may have missed it.
    pub fn retell(&mut self) {
        let standing: Vec<_> = self
            .legs
            .iter()
            .flatten()
            .filter_map(|leg| match &leg.failed {
                Some((kind, reason)) => Some((leg.key, *kind, reason.clone())),
                None => leg.timed_out.then(|| {
                    let reason = "no media for too long".to_owned();
                    (leg.key, LegEventKind::MediaTimeout, reason)
                }),
            })
            .collect();
        for (key, kind, reason) in standing {
            self.leg_event(key, kind, &reason);
        }
        let slots = self.slots_event();
        if !slots.active.is_empty() {
            self.event(control::event::Event::Slots(slots));
        }
    }

    /// Whether every leg has failed or has been silent for so long. A leg of which no media are expected (on hold)
    /// counts only where the owner is `unowned`: gone as well.
    pub fn is_abandoned(&self, now: Instant, patience: Duration, unowned: bool) -> bool {
        self.legs.iter().flatten().all(|leg| {
            let over = leg.failed.is_some() || leg.timed_out || unowned;
            over && now.saturating_duration_since(leg.last_heard) >= patience
        })
    }

    fn id_of(&self, source: SourceId) -> Option<&str> {
        let key = self.by_source.get(&source)?;
        self.leg(*key).map(|l| l.id.as_str())
    }

    fn slots_event(&self) -> control::SlotsEvent {
        let name = |s: Option<SourceId>| s.and_then(|s| self.id_of(s)).unwrap_or_default().into();
        control::SlotsEvent {
            meeting: self.config.id.clone(),
            epoch: self.epoch,
            dominant: name(self.speakers.dominant()),
            active: self
                .speakers
                .active()
                .iter()
                .take(self.policy.audio_slots)
                .filter_map(|s| self.id_of(*s))
                .map(String::from)
                .collect(),
            previous: name(self.speakers.previous()),
        }
    }

    pub(super) fn announcement_due(&self) -> Option<Instant> {
        let at = self.announced.at.map(|at| at + ANNOUNCE_INTERVAL);
        // Not told yet: with the next timer, which legs guarantee.
        self.announced
            .dirty
            .then(|| at.or(self.next_sweep))
            .flatten()
    }

    /// Tells who is heard and seen, where that changed and the last time is long enough ago.
    pub(super) fn announce(&mut self, now: Instant) {
        let early = self
            .announced
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < ANNOUNCE_INTERVAL);
        if !self.announced.dirty || early {
            return;
        }
        self.announced.dirty = false;
        let event = self.slots_event();
        if event != self.announced.last && !(self.announced.at.is_none() && event.active.is_empty())
        {
            self.announced.at = Some(now);
            self.announced.last = event.clone();
            self.event(control::event::Event::Slots(event));
        }
    }

    /// A picture for operators. `remote` and `srtp_profile` of legs and `renditions[].frames`
    /// are left for the caller to fill in.
    pub fn view(&self, _now: Instant) -> control::MeetingView {
        let slots = self.slots_event();
        control::MeetingView {
            meeting: slots.meeting,
            epoch: slots.epoch,
            dominant: slots.dominant,
            previous: slots.previous,
            active: slots.active,
            legs: self
                .by_id
                .values()
                .filter_map(|k| self.leg_view(*k))
                .collect(),
            renditions: self.rendition_views(),
        }
    }

    fn leg_view(&self, key: LegKey) -> Option<control::LegView> {
        let leg = self.leg(key)?;
        let mut received = control::StreamStats::default();
        let mut level = 127;
        for stream in leg.streams().filter_map(|s| self.stream(s)) {
            received.packets += stream.reception.packets();
            received.bytes += stream.reception.bytes();
            received.lost += stream.reception.lost();
            received.nacks += stream.nacks;
            received.plis += stream.plis;
            let ms =
                f64::from(stream.reception.jitter()) * 1000.0 / f64::from(stream.clock_rate.max(1));
            received.jitter_ms = received.jitter_ms.max(ms);
            if stream.kind == Kind::Audio {
                level = stream.level.dbov();
            }
        }
        let rtt_ms = leg.rtt.map_or(0.0, |r| r.as_secs_f64() * 1000.0);
        received.rtt_ms = rtt_ms;
        let mut sent = control::StreamStats {
            rtt_ms,
            nacks: leg.nacks,
            plis: leg.plis,
            ..Default::default()
        };
        let mut slots = Vec::new();
        for slot in leg.slots().filter_map(|s| self.slot(s)) {
            sent.packets += slot.packets;
            sent.bytes += slot.octets;
            sent.lost += slot.lost;
            let holder = slot
                .feed
                .and_then(|f| self.stream(f.stream))
                .and_then(|st| self.id_of(st.source))
                .unwrap_or_default();
            let kind = match slot.kind {
                Kind::Audio => control::MediaKind::Audio,
                Kind::Video => control::MediaKind::Video,
            };
            slots.push(control::SlotView {
                kind: kind.into(),
                number: slot.number,
                ssrc: slot.ssrc,
                holder: holder.into(),
                switches: slot.switches,
                packets: slot.packets,
            });
        }
        Some(control::LegView {
            id: leg.id.clone(),
            source: leg.source.0,
            connected: leg.connected,
            level: u32::from(level),
            slots,
            received: Some(received),
            sent: Some(sent),
            ..Default::default()
        })
    }

    fn rendition_views(&self) -> Vec<control::RenditionView> {
        let mut views = Vec::new();
        for stream in self.streams.iter().flatten() {
            for codec in AudioCodec::ALL {
                let listeners = stream.renditions[codec as usize].len() as u32;
                if listeners > 0 {
                    views.push(control::RenditionView {
                        source: self.id_of(stream.source).unwrap_or_default().into(),
                        codec: codec.name().into(),
                        listeners,
                        frames: 0,
                    });
                }
            }
        }
        views
    }
}
