//! Desired state: legs, streams and slots made, kept and removed.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::leg::{self, Leg, MAX_MEDIA, MediaLine, TransportState};
use super::stream::Stream;
use super::{Applied, MAX_LEGS, Meeting, Policy, place};
use crate::codecs::CodecList;
use crate::dtmf::Keypad;
use crate::extensions::ExtensionIds;
use crate::keyframe::KeyframeRequester;
use crate::nack::MissingTracker;
use crate::rewrite::PictureIdUnwrapper;
use crate::slot::{Kind, Slot, SlotConfig};
use crate::stats::{Budget, Reception};
use crate::{LegKey, Level, MeetingError, SourceId, Transcoder, TransportIndex};

/// Media timeout where the owner names none.
const DEFAULT_MEDIA_TIMEOUT: Duration = Duration::from_secs(30);

/// Pressed keys of a leg that are told the owner. Nobody presses more; a peer may send more.
const DIGITS_PER_SECOND: u64 = 20;

impl Meeting {
    /// Brings the meeting to the desired state. A leg that is named again keeps its
    /// key, and its streams go on unbroken. Leave legs out of the request for which no
    /// transport could be made.
    ///
    /// # Errors
    /// [`MeetingError`]: nothing was changed.
    pub fn apply<T: Transcoder>(
        &mut self,
        now: Instant,
        request: &control::ApplyRequest,
        codecs: &mut T,
    ) -> Result<Applied, MeetingError> {
        self.check_epoch(request.epoch)?;
        let new = request
            .legs
            .iter()
            .filter(|l| !self.by_id.contains_key(&l.id))
            .count();
        let kept = if request.full { 0 } else { self.by_id.len() };
        if kept + new > MAX_LEGS {
            return Err(MeetingError::TooManyLegs { limit: MAX_LEGS });
        }
        // Whoever takes the meeting over, or has lost sight of it, must hear what stands.
        let retell = request.full || request.epoch > self.epoch;
        self.epoch = request.epoch;
        let mut applied = Applied {
            ended: request.end,
            ..Applied::default()
        };
        if let Some(policy) = &request.policy {
            self.set_policy(policy);
        }
        for id in self.leaving(request) {
            if let Some(key) = self.by_id.get(&id).copied() {
                self.drop_leg(key, codecs);
                applied.removed.push((id, key));
            }
        }
        if !request.end {
            for wanted in &request.legs {
                let made = self.apply_leg(now, wanted);
                applied.legs.push((wanted.id.clone(), made));
            }
        }
        if !self.by_id.is_empty() && self.next_sweep.is_none() {
            self.next_sweep = Some(now);
        }
        if self.by_id.is_empty() {
            self.next_sweep = None;
        }
        self.reassign_audio(codecs);
        self.reassign_video(now);
        self.announced.dirty = true;
        if retell {
            self.retell();
        }
        Ok(applied)
    }

    /// Ends a leg at once, as if the owner had removed it.
    pub fn remove_leg<T: Transcoder>(&mut self, now: Instant, leg: LegKey, codecs: &mut T) {
        if self.leg(leg).is_some() {
            self.drop_leg(leg, codecs);
            self.reassign_audio(codecs);
            self.reassign_video(now);
            self.announced.dirty = true;
        }
    }

    /// A leg as the owner described it last.
    #[must_use]
    pub fn described(&self, id: &str) -> Option<&control::Leg> {
        let key = self.by_id.get(id)?;
        self.leg(*key).map(|leg| &leg.described)
    }

    fn set_policy(&mut self, policy: &control::MeetingPolicy) {
        let media_timeout = match policy.media_timeout_ms {
            0 => DEFAULT_MEDIA_TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)),
        };
        let audio_slots = match policy.audio_slots {
            0 => Policy::default().audio_slots,
            n => n.min(3) as usize,
        };
        self.policy = Policy {
            audio_slots,
            media_timeout,
        };
        // With one slot the talker hears the next loudest, who therefore has to be known too.
        self.speakers.set_slots(audio_slots.max(2));
    }

    fn leaving(&self, request: &control::ApplyRequest) -> Vec<String> {
        let named = |id: &str| request.legs.iter().any(|l| l.id == id);
        let mut leaving: Vec<String> = self
            .by_id
            .keys()
            .filter(|id| {
                request.end || request.removed_legs.contains(id) || (request.full && !named(id))
            })
            .cloned()
            .collect();
        leaving.sort_unstable();
        leaving
    }

    fn drop_leg<T: Transcoder>(&mut self, key: LegKey, codecs: &mut T) {
        let Some(leg) = self.legs.get_mut(key.index()).and_then(Option::take) else {
            return;
        };
        self.by_id.remove(&leg.id);
        self.by_source.remove(&leg.source);
        for s in leg.streams() {
            self.drop_stream(s);
        }
        for s in leg.slots() {
            self.drop_slot(s);
        }
        self.speakers.remove(leg.source);
        self.holders.retain(|h| *h != leg.source);
        codecs.forget(leg.source);
    }

    fn drop_stream(&mut self, index: u32) {
        self.streams[index as usize] = None;
        for slot in self.slots.iter_mut().flatten() {
            if slot.feed.is_some_and(|f| f.stream == index) {
                slot.set_feed(None);
            }
            if slot.pending == Some(index) {
                slot.pending = None;
            }
        }
    }

    fn drop_slot(&mut self, index: u32) -> Option<Slot> {
        let slot = self.slots[index as usize].take();
        for stream in self.streams.iter_mut().flatten() {
            stream.direct.retain(|s| *s != index);
            stream.waiting.retain(|s| *s != index);
            stream
                .renditions
                .iter_mut()
                .for_each(|r| r.retain(|s| *s != index));
        }
        slot
    }

    fn apply_leg(&mut self, now: Instant, wanted: &control::Leg) -> Result<LegKey, String> {
        if let Some(reason) = leg::refusal(wanted) {
            return Err(reason);
        }
        let source = SourceId(wanted.source);
        let known = self.by_id.get(&wanted.id).copied();
        if self
            .by_source
            .get(&source)
            .is_some_and(|k| Some(*k) != known)
        {
            return Err(format!("source {} is another leg's", wanted.source));
        }
        if let Some(key) = known {
            match self.leg(key) {
                Some(leg) if leg.described == *wanted => return Ok(key),
                Some(leg) if leg.source != source => {
                    return Err(format!("the leg's source is {}", leg.source.0));
                }
                Some(_) => {
                    self.change_leg(now, key, wanted);
                    return Ok(key);
                }
                None => {}
            }
        }
        let key = self.make_leg(now, wanted);
        self.change_leg(now, key, wanted);
        Ok(key)
    }

    fn make_leg(&mut self, now: Instant, wanted: &control::Leg) -> LegKey {
        let at = self
            .legs
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.legs.push(None);
                self.generations.push(0);
                self.legs.len() - 1
            });
        self.generations[at] = self.generations[at].wrapping_add(1);
        let key = LegKey::new(at as u32, self.generations[at]);
        let source = SourceId(wanted.source);
        self.legs[at] = Some(Leg {
            key,
            id: wanted.id.clone(),
            source,
            cname: wanted.cname.clone(),
            described: control::Leg::default(),
            transports: SmallVec::new(),
            media: SmallVec::new(),
            connected: false,
            failed: None,
            last_heard: now,
            timed_out: false,
            next_report: now + Duration::from_millis(500),
            parked: Vec::new(),
            digits: Budget::new(DIGITS_PER_SECOND, 2 * DIGITS_PER_SECOND, now),
            rtt: None,
            clock_offset: None,
            malformed: 0,
            nacks: 0,
            plis: 0,
        });
        self.by_id.insert(wanted.id.clone(), key);
        self.by_source.insert(source, key);
        self.speakers.add(source);
        key
    }

    /// Brings a leg's transports, streams and slots to the description; what stays the same goes on.
    fn change_leg(&mut self, now: Instant, key: LegKey, wanted: &control::Leg) {
        let Some(mut leg) = self.legs[key.index()].take() else {
            return;
        };
        leg.transports = wanted
            .transports
            .iter()
            .map(|t| {
                let index = TransportIndex(t.index);
                let before = leg.transport(index);
                let waits = t.ice.is_some() || t.dtls.is_some();
                TransportState {
                    index,
                    ready: before.is_some_and(|b| b.ready) || !waits,
                    dtls: t.dtls.is_some(),
                    ssrc: before.map_or_else(|| (self.random() as u32).max(1), |b| b.ssrc),
                }
            })
            .collect();
        if !leg.described.media.iter().any(|m| m.receive) {
            leg.last_heard = now; // the time without media begins when media may come
        }
        let before = std::mem::take(&mut leg.media);
        for media in &wanted.media {
            let Some(kind) = leg::kind(media) else {
                continue;
            };
            let old = before
                .iter()
                .find(|m| m.index == media.index && m.kind == kind);
            let stream = self.change_stream(&leg, media, kind, old.and_then(|m| m.stream));
            let old_slot = old.and_then(|m| m.slot);
            let slot = self.change_slot(now, key, media, kind, old_slot, &mut leg.parked);
            leg.media.push(MediaLine {
                index: media.index,
                kind,
                stream,
                slot,
            });
        }
        for old in &before {
            if let Some(s) = old.stream.filter(|s| !leg.streams().any(|n| n == *s)) {
                self.drop_stream(s);
            }
            if let Some(s) = old.slot.filter(|s| !leg.slots().any(|n| n == *s))
                && let Some(slot) = self.drop_slot(s)
            {
                leg.parked.truncate(MAX_MEDIA - 1);
                leg.parked.insert(0, slot);
            }
        }
        let audible = wanted
            .media
            .iter()
            .any(|m| leg::kind(m) == Some(Kind::Audio) && m.receive && !m.muted);
        self.speakers.set_muted(leg.source, !audible);
        if !audible {
            self.holders.retain(|h| *h != leg.source);
        }
        if leg.described.transports != wanted.transports {
            leg.failed = None; // a new path may fail anew
            leg.timed_out = false;
            leg.last_heard = now;
        }
        leg.cname.clone_from(&wanted.cname);
        leg.described = wanted.clone();
        self.legs[key.index()] = Some(leg);
    }

    fn change_stream(
        &mut self,
        leg: &Leg,
        media: &control::Media,
        kind: Kind,
        old: Option<u32>,
    ) -> Option<u32> {
        if !media.receive {
            return None; // the caller drops the old one
        }
        let codecs = CodecList::new(&media.codecs);
        let extensions = ExtensionIds::received(&media.extensions);
        if let Some(index) = old
            && let Some(stream) = self.streams[index as usize].as_mut()
        {
            if stream.codecs != codecs {
                // The same payload type may mean another codec now.
                stream.format = None;
                stream.renew(&mut self.lives);
            }
            if stream.extensions != extensions
                && let Some(buffer) = &mut stream.buffer
            {
                buffer.clear(); // its packets would be read with other ids than they came with
            }
            stream.codecs = codecs;
            stream.extensions = extensions;
            stream.transport = TransportIndex(media.transport);
            stream.mid = media.mid.as_bytes().into();
            stream.muted = media.muted;
            stream.signalled.clone_from(&media.remote_ssrcs);
            stream.signalled_rtx.clone_from(&media.remote_rtx_ssrcs);
            return Some(index);
        }
        self.lives = self.lives.wrapping_add(1);
        let clock_rate = codecs.get(0).map_or(90_000, |c| c.clock_rate);
        let repairs = codecs.iter().any(|codec| codec.nack);
        let stream = Stream {
            leg: leg.key,
            source: leg.source,
            mid: media.mid.as_bytes().into(),
            transport: TransportIndex(media.transport),
            kind,
            codecs,
            extensions,
            muted: media.muted,
            signalled: media.remote_ssrcs.clone(),
            signalled_rtx: media.remote_rtx_ssrcs.clone(),
            ssrc: None,
            rtx_ssrc: None,
            generation: self.lives,
            format: None,
            clock_rate,
            reception: Reception::default(),
            last_packet: None,
            sender: None,
            level: Level::SILENCE,
            keypad: Keypad::default(),
            direct: Vec::new(),
            waiting: Vec::new(),
            renditions: Default::default(),
            wanted: 0,
            restart: true,
            alive: false,
            unwrapper: PictureIdUnwrapper::default(),
            requests: KeyframeRequester::default(),
            fir_sequence: 0,
            missing: MissingTracker::new(repairs),
            buffer: None,
            nacks: 0,
            plis: 0,
        };
        Some(place(&mut self.streams, stream))
    }

    fn change_slot(
        &mut self,
        now: Instant,
        leg: LegKey,
        media: &control::Media,
        kind: Kind,
        old: Option<u32>,
        parked: &mut Vec<Slot>,
    ) -> Option<u32> {
        let described = media.slot.as_ref().filter(|_| media.send)?;
        let config = SlotConfig {
            leg,
            transport: TransportIndex(media.transport),
            kind,
            number: described.number,
            ssrc: described.ssrc,
            rtx_ssrc: described.rtx_ssrc,
            codecs: CodecList::new(&media.codecs),
            extensions: ExtensionIds::sent(&media.extensions),
            mid: media.mid.as_bytes().into(),
        };
        if let Some(index) = old
            && let Some(slot) = self.slots[index as usize].as_mut()
            && slot.ssrc == described.ssrc
        {
            if slot.reconfigure(config) && kind == Kind::Video {
                slot.set_feed(None);
            }
            return Some(index);
        }
        let before = parked.iter().position(|s| s.ssrc == described.ssrc);
        let slot = match before.map(|at| parked.remove(at)) {
            Some(mut slot) if slot.kind == kind => {
                slot.set_feed(None);
                slot.pending = None;
                slot.reconfigure(config);
                slot
            }
            _ => Slot::new(config, now, self.random()),
        };
        Some(place(&mut self.slots, slot))
    }
}
