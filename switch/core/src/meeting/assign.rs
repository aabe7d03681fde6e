//! Who fills which slot.
//!
//! Audio: the active speakers, and while there is room those who were so last, so that nobody is cut
//! off at a pause. A listener with fewer slots gets the dominant one first. Video: who was dominant
//! most recently first, so that the dominant speaker, who never receives himself, sees the one before.

use std::time::Instant;

use smallvec::SmallVec;

use super::Meeting;
use super::leg::Leg;
use crate::codecs::{AudioCodec, Format};
use crate::nack::RetransmitBuffer;
use crate::slot::{Feed, Kind};
use crate::{Egress, SourceId, Transcoder};

impl Meeting {
    /// Keeps `holders`: the active speakers, then those who were active last, up to the policy.
    fn update_holders(&mut self) {
        let limit = self.policy.audio_slots.max(2);
        let active = self.speakers.active();
        // Those who stopped keep their place until somebody needs it.
        while let Some(newcomer) = active.iter().find(|a| !self.holders.contains(a)).copied() {
            if self.holders.len() >= limit {
                let Some(at) = self.holders.iter().position(|h| !active.contains(h)) else {
                    break;
                };
                self.holders.remove(at);
            }
            self.holders.push(newcomer);
        }
        self.holders.truncate(limit);
    }

    /// Fills every audio slot anew; slots that keep their source are not disturbed.
    pub(super) fn reassign_audio<T: Transcoder>(&mut self, codecs: &mut T) {
        self.update_holders();
        let dominant = self.speakers.dominant();
        let previous = self.speakers.previous();
        let active = self.speakers.active();
        let mut ranked: SmallVec<[(SourceId, u32); 4]> = SmallVec::new();
        // Dominant and active first, then the active, the louder before the quieter, then the rest.
        let rank = |h: &SourceId| {
            let place = active.iter().position(|a| a == h);
            (place.is_none(), dominant != Some(*h), place)
        };
        let mut holders: SmallVec<[SourceId; 4]> = self.holders.iter().copied().collect();
        holders.sort_by_key(rank);
        for h in holders {
            if let Some(stream) = self.audio_stream_of(h) {
                ranked.push((h, stream));
            }
        }
        let Self {
            legs,
            slots,
            streams,
            policy,
            ..
        } = self;
        for leg in legs.iter().flatten() {
            let mut mine = slots_of(leg, Kind::Audio, slots);
            mine.truncate(policy.audio_slots);
            let wanted: SmallVec<[u32; 4]> = ranked
                .iter()
                .filter(|(source, _)| *source != leg.source)
                .map(|(_, stream)| *stream)
                .take(mine.len())
                .collect();
            let showing = |slots: &[Option<crate::slot::Slot>], s: u32| {
                slots[s as usize]
                    .as_ref()
                    .and_then(|slot| slot.feed)
                    .map(|f| f.stream)
            };
            let held = |s: &u32| showing(slots, *s).filter(|c| wanted.contains(c));
            let mut filled: SmallVec<[Option<u32>; 4]> = mine.iter().map(held).collect();
            let mut free = wanted
                .iter()
                .copied()
                .filter(|w| !filled.contains(&Some(*w)))
                .collect::<SmallVec<[u32; 4]>>()
                .into_iter();
            for place in filled.iter_mut().filter(|p| p.is_none()) {
                *place = free.next();
            }
            // Who fills the first picture is heard in the first slot: receivers keep the two in step.
            let leader = if dominant == Some(leg.source) {
                previous
            } else {
                dominant
            };
            let lead = ranked.iter().find(|(source, _)| Some(*source) == leader);
            if let Some(at) = lead.and_then(|(_, l)| filled.iter().position(|f| *f == Some(*l))) {
                filled.swap(0, at);
            }
            for (s, stream) in mine.into_iter().zip(filled) {
                let Some(slot) = slots[s as usize].as_mut() else {
                    continue;
                };
                let feed = stream.and_then(|index| {
                    let format = streams[index as usize].as_ref()?.format;
                    // A stream keeps to one clock rate (RFC 7160 §4.1): browsers that are sent another play it,
                    // but no longer say whose it is.
                    let rendition = match format.and_then(Format::audio) {
                        Some(codec) => {
                            let preferred = slot.codecs.preferred_audio();
                            let fits = slot.accepts(Format::Audio(codec))
                                && preferred.is_none_or(|p| p.clock_rate() == codec.clock_rate());
                            if fits { None } else { Some(preferred?) }
                        }
                        None => None,
                    };
                    Some(Feed {
                        stream: index,
                        rendition,
                    })
                });
                slot.set_feed(feed);
            }
        }
        self.relist_audio(codecs);
    }

    pub(super) fn audio_stream_of(&self, source: SourceId) -> Option<u32> {
        let leg = self.leg(*self.by_source.get(&source)?)?;
        leg.streams().find(|s| {
            self.stream(*s)
                .is_some_and(|st| st.kind == Kind::Audio && !st.muted)
        })
    }

    /// Lists anew who receives each audio stream, and asks for the renditions needed.
    fn relist_audio<T: Transcoder>(&mut self, codecs: &mut T) {
        for stream in self
            .streams
            .iter_mut()
            .flatten()
            .filter(|s| s.kind == Kind::Audio)
        {
            stream.direct.clear();
            stream.renditions.iter_mut().for_each(Vec::clear);
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot.as_ref().filter(|s| s.kind == Kind::Audio) else {
                continue;
            };
            let Some(feed) = slot.feed else { continue };
            let Some(stream) = self.streams[feed.stream as usize].as_mut() else {
                continue;
            };
            match feed.rendition {
                None => stream.direct.push(index as u32),
                Some(codec) => stream.renditions[codec as usize].push(index as u32),
            }
        }
        for stream in self
            .streams
            .iter_mut()
            .flatten()
            .filter(|s| s.kind == Kind::Audio)
        {
            let targets: SmallVec<[AudioCodec; 4]> = AudioCodec::ALL
                .into_iter()
                .filter(|c| !stream.renditions[*c as usize].is_empty())
                .collect();
            let bits = targets.iter().fold(0, |b, c| b | 1 << (*c as u8));
            if bits != stream.wanted {
                stream.wanted = bits;
                stream.restart = true;
                codecs.want(stream.source, &targets);
            }
        }
    }

    /// Streams of video that can be shown, who was dominant last first.
    fn order_video(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        let video_of = |m: &Self, leg: &Leg| {
            leg.streams()
                .find(|s| m.stream(*s).is_some_and(super::stream::Stream::shows))
        };
        for source in self.speakers.recent() {
            let leg = self.by_source.get(&source).and_then(|k| self.leg(*k));
            if let Some(s) = leg.and_then(|leg| video_of(self, leg)) {
                order.push(s);
            }
        }
        let spoken = order.len();
        for leg in self.legs.iter().flatten() {
            if let Some(s) = video_of(self, leg).filter(|s| !order[..spoken].contains(s)) {
                order.push(s);
            }
        }
        self.order = order;
    }

    /// Decides anew who is to fill every video slot. Where that is somebody else, the slot waits for
    /// a key frame and goes on with what it shows. Key frames are asked for by
    /// [`Meeting::ask_waiting`].
    pub(super) fn reassign_video(&mut self, now: Instant) {
        self.order_video();
        let Self {
            legs,
            slots,
            streams,
            order,
            ..
        } = self;
        for leg in legs.iter().flatten() {
            let mine = slots_of(leg, Kind::Video, slots);
            let mut wanted: SmallVec<[u32; 8]> = SmallVec::new();
            for &candidate in order.iter() {
                if wanted.len() == mine.len() {
                    break;
                }
                let Some(stream) = streams[candidate as usize].as_ref() else {
                    continue;
                };
                let Some(slot) = mine.first().and_then(|s| slots[*s as usize].as_ref()) else {
                    break;
                };
                let fits = stream.format.is_some_and(|f| slot.accepts(f));
                if stream.source != leg.source && fits {
                    wanted.push(candidate);
                }
            }
            // Slot 0 is the first's; the others keep whom they show as long as he is wanted.
            let mut rest: SmallVec<[u32; 8]> = wanted.iter().skip(1).rev().copied().collect();
            let heading = |slots: &[Option<crate::slot::Slot>], s: u32| {
                let slot = slots[s as usize].as_ref()?;
                slot.pending.or_else(|| slot.feed.map(|f| f.stream))
            };
            for &s in mine.iter().skip(1) {
                if let Some(h) = heading(slots, s) {
                    let kept = rest.iter().position(|r| *r == h);
                    if let Some(at) = kept {
                        rest.remove(at);
                    }
                }
            }
            let keep: SmallVec<[u32; 8]> = wanted
                .iter()
                .skip(1)
                .copied()
                .filter(|w| !rest.contains(w))
                .collect();
            for (n, &s) in mine.iter().enumerate() {
                let target = if n == 0 {
                    wanted.first().copied()
                } else {
                    heading(slots, s)
                        .filter(|h| keep.contains(h))
                        .or_else(|| rest.pop())
                };
                let Some(slot) = slots[s as usize].as_mut() else {
                    continue;
                };
                let shown = slot.feed.map(|f| f.stream);
                slot.pending = target.filter(|t| shown != Some(*t));
                let gone = shown.is_some_and(|sh| {
                    streams[sh as usize]
                        .as_ref()
                        .is_none_or(|st| !st.shows() || st.source == leg.source)
                });
                if target.is_none() || gone {
                    slot.set_feed(None);
                }
            }
        }
        self.relist_video(now);
    }

    fn relist_video(&mut self, now: Instant) {
        for stream in self
            .streams
            .iter_mut()
            .flatten()
            .filter(|s| s.kind == Kind::Video)
        {
            stream.direct.clear();
            stream.waiting.clear();
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot.as_ref().filter(|s| s.kind == Kind::Video) else {
                continue;
            };
            if let Some(feed) = slot.feed
                && let Some(stream) = self.streams[feed.stream as usize].as_mut()
            {
                stream.direct.push(index as u32);
            }
            if let Some(pending) = slot.pending
                && let Some(stream) = self.streams[pending as usize].as_mut()
            {
                stream.waiting.push(index as u32);
                let repairs = slot.codecs.iter().any(|c| c.nack);
                if repairs && stream.buffer.is_none() {
                    stream.buffer = Some(RetransmitBuffer::new());
                }
            }
        }
        if self.streams.iter().flatten().any(|s| !s.waiting.is_empty()) {
            self.next_repair = Some(now);
        }
    }

    /// Asks every source somebody waits for, for a key frame.
    pub(super) fn ask_waiting<E: Egress>(&mut self, now: Instant, out: &mut E) {
        for index in 0..self.streams.len() as u32 {
            if self.stream(index).is_some_and(|s| !s.waiting.is_empty()) {
                self.want_keyframe(now, index, out);
            }
        }
    }

    /// A key frame of a stream begins: those who waited for it are fed by it from here on.
    pub(super) fn promote_waiting(&mut self, index: u32) {
        let Self { streams, slots, .. } = self;
        let Some(stream) = streams[index as usize].as_mut() else {
            return;
        };
        let mut waiting = std::mem::take(&mut stream.waiting);
        for &s in &waiting {
            let Some(slot) = slots[s as usize].as_mut() else {
                continue;
            };
            let before = slot.feed.map(|f| f.stream);
            slot.pending = None;
            slot.set_feed(Some(Feed {
                stream: index,
                rendition: None,
            }));
            if let Some(old) = before.and_then(|b| streams[b as usize].as_mut()) {
                old.direct.retain(|d| *d != s);
            }
            if let Some(stream) = streams[index as usize].as_mut() {
                stream.direct.push(s);
            }
        }
        waiting.clear();
        if let Some(stream) = streams[index as usize].as_mut() {
            stream.waiting = waiting; // keeps its capacity
        }
    }
}

/// The leg's slots of a kind that can be sent to, by number.
fn slots_of(leg: &Leg, kind: Kind, slots: &[Option<crate::slot::Slot>]) -> SmallVec<[u32; 8]> {
    let get = |s: u32| slots[s as usize].as_ref();
    let mut mine: SmallVec<[u32; 8]> = leg
        .slots()
        .filter(|s| {
            get(*s).is_some_and(|slot| {
                slot.kind == kind && leg.transport(slot.transport).is_some_and(|t| t.ready)
            })
        })
        .collect();
    mine.sort_by_key(|s| get(*s).map_or(u32::MAX, |slot| slot.number));
    mine
}
