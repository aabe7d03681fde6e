//! Received RTCP: clocks, key-frame requests, repairs, round trips.

use std::time::{Duration, Instant};

use super::Meeting;
use super::stream::SenderInfo;
use crate::keyframe::is_keyframe;
use crate::rtcp::{CompoundBuf, Element, Elements, ReportBlock, nack_numbers, ntp, round_trip};
use crate::rtp::RtpView;
use crate::slot::{InPacket, Kind};
use crate::{Egress, LegKey, TransportIndex};

/// Packets given again for one compound; more is an attack or a stream beyond repair.
const MAX_REPAIRS: usize = 64;

/// FIR entries looked at in one compound.
const MAX_ENTRIES: usize = 16;

/// A clock that differs from what was known by more than this was set anew, microseconds.
const CLOCK_STEP: i64 = 500_000;

impl Meeting {
    /// Takes one decrypted compound RTCP packet.
    pub fn handle_rtcp<E: Egress>(
        &mut self,
        now: Instant,
        leg: LegKey,
        transport: TransportIndex,
        packet: &[u8],
        out: &mut E,
    ) {
        if self.leg(leg).and_then(|l| l.transport(transport)).is_none() {
            return;
        }
        let mut elements = Elements::new(packet);
        let mut repairs = 0;
        let mut any = false;
        for element in elements.by_ref() {
            any = true;
            match element {
                Element::SenderReport {
                    ssrc,
                    ntp,
                    rtp,
                    blocks,
                } => {
                    self.on_sender_report(now, leg, ssrc, ntp, rtp);
                    blocks.for_each(|b| self.on_block(now, leg, &b));
                }
                Element::ReceiverReport { blocks, .. } => {
                    blocks.for_each(|b| self.on_block(now, leg, &b));
                }
                Element::Nack { media, pairs } => {
                    for number in pairs.flat_map(nack_numbers) {
                        if repairs == MAX_REPAIRS {
                            break;
                        }
                        repairs += 1;
                        self.repair(now, leg, media, number, out);
                    }
                }
                Element::Pli { media } => self.on_picture_lost(now, leg, media, out),
                Element::Fir { entries } => {
                    let mut entries = entries.take(2 * MAX_ENTRIES);
                    while let (Some(media), Some(_)) = (entries.next(), entries.next()) {
                        self.on_picture_lost(now, leg, media, out);
                    }
                }
                // A leg ends by its dialog; silence is noticed by its timeout. A BYE is easily
                // forged on plain RTP and says nothing more.
                Element::Bye(_) | Element::Remb { .. } | Element::Other => {}
            }
        }
        if elements.malformed()
            && let Some(leg) = self.leg_mut(leg)
        {
            leg.malformed += 1;
        }
        if any {
            self.sign_of_life(now, leg);
        }
    }

    fn sign_of_life(&mut self, now: Instant, key: LegKey) {
        if let Some(leg) = self.leg_mut(key) {
            leg.last_heard = now;
            leg.timed_out = false;
        }
    }

    fn on_sender_report(&mut self, now: Instant, key: LegKey, ssrc: u32, ntp: u64, rtp: u32) {
        let unix = self.config.clock.unix_at(now);
        let Some(leg) = self.legs.get_mut(key.index()).and_then(Option::as_mut) else {
            return;
        };
        let found = leg.streams().find(|s| {
            self.streams[*s as usize]
                .as_ref()
                .is_some_and(|st| st.ssrc == Some(ssrc))
        });
        let Some(stream) = found.and_then(|s| self.streams[s as usize].as_mut()) else {
            return;
        };
        stream.sender = Some(SenderInfo { ntp, rtp, at: now });
        let difference = (unix.as_micros() as i64).wrapping_sub(micros(ntp));
        leg.clock_offset = Some(match leg.clock_offset {
            Some(known) if (difference.wrapping_sub(known)).abs() < CLOCK_STEP => {
                known + (difference - known) / 16
            }
            _ => difference,
        });
    }

    fn on_block(&mut self, now: Instant, key: LegKey, block: &ReportBlock) {
        let unix = self.config.clock.unix_at(now);
        let found = self.slot_of(key, block.ssrc);
        let Some(slot) = found.and_then(|s| self.slots[s as usize].as_mut()) else {
            return;
        };
        slot.lost = block.cumulative_lost.max(0) as u64;
        let Some(leg) = self.leg_mut(key) else { return };
        if let Some(rtt) = round_trip(ntp(unix), block) {
            leg.rtt = Some(leg.rtt.map_or(rtt, |known| (known * 7 + rtt) / 8));
        }
    }

    /// The slot of a leg that sends with this SSRC.
    fn slot_of(&self, key: LegKey, ssrc: u32) -> Option<u32> {
        let leg = self.leg(key)?;
        leg.slots()
            .find(|s| self.slot(*s).is_some_and(|slot| slot.ssrc == ssrc))
    }

    fn on_picture_lost<E: Egress>(&mut self, now: Instant, key: LegKey, ssrc: u32, out: &mut E) {
        let found = self.slot_of(key, ssrc);
        let Some(slot) = found.and_then(|s| self.slots[s as usize].as_mut()) else {
            return;
        };
        if slot.kind != Kind::Video || !slot.may_ask(now) {
            return;
        }
        let stream = slot.feed.map(|f| f.stream).or(slot.pending);
        if let Some(leg) = self.leg_mut(key) {
            leg.plis += 1;
        }
        if let Some(stream) = stream {
            self.want_keyframe(now, stream, out);
        }
    }

    /// Asks a source for a key frame, if it is time to.
    pub(super) fn want_keyframe<E: Egress>(&mut self, now: Instant, index: u32, out: &mut E) {
        let Some(stream) = self.streams[index as usize].as_mut() else {
            return;
        };
        let ask = stream.requests.request(now);
        if let Some(at) = stream.requests.poll_timeout() {
            self.next_repair = Some(self.next_repair.map_or(at, |t| t.min(at)));
        }
        if ask {
            self.send_keyframe_request(index, out);
        }
    }

    /// PLI, or FIR where only that was negotiated.
    pub(super) fn send_keyframe_request<E: Egress>(&mut self, index: u32, out: &mut E) {
        let Some(stream) = self.streams[index as usize].as_mut() else {
            return;
        };
        let Some(media) = stream.ssrc else { return };
        let spec = stream
            .format
            .and_then(|f| stream.codecs.iter().find(|c| c.format == f))
            .or_else(|| stream.codecs.get(0));
        let only_fir = spec.is_some_and(|c| c.fir && !c.pli);
        stream.plis += 1;
        let (leg, transport) = (stream.leg, stream.transport);
        if only_fir {
            stream.fir_sequence = stream.fir_sequence.wrapping_add(1);
            let sequence = stream.fir_sequence;
            self.send_feedback(leg, transport, out, |buf, sender| {
                buf.fir(sender, media, sequence)
            });
        } else {
            self.send_feedback(leg, transport, out, |buf, sender| buf.pli(sender, media));
        }
    }

    /// Sends feedback to a publisher in a compound of its own (RFC 4585 §3.1 wants RR and CNAME).
    pub(super) fn send_feedback<E: Egress>(
        &mut self,
        key: LegKey,
        transport: TransportIndex,
        out: &mut E,
        write: impl FnOnce(&mut CompoundBuf, u32) -> bool,
    ) {
        let Some(sender) = self.rtcp_ssrc(key, transport) else {
            return;
        };
        let Some(leg) = self.legs.get(key.index()).and_then(Option::as_ref) else {
            return;
        };
        self.compound.clear();
        self.compound.receiver_report(sender, &[]);
        self.compound.cname(sender, &leg.cname);
        if write(&mut self.compound, sender) {
            out.rtcp(key, transport, self.compound.bytes());
        }
    }

    /// The SSRC RTCP is sent under on a transport: that of its first slot, else one of its own.
    pub(super) fn rtcp_ssrc(&self, key: LegKey, transport: TransportIndex) -> Option<u32> {
        let leg = self.leg(key)?;
        let slot = leg
            .slots()
            .filter_map(|s| self.slot(s))
            .find(|s| s.transport == transport);
        Some(match slot {
            Some(slot) => slot.ssrc,
            None => leg.transport(transport)?.ssrc,
        })
    }

    fn repair<E: Egress>(
        &mut self,
        now: Instant,
        key: LegKey,
        ssrc: u32,
        number: u16,
        out: &mut E,
    ) {
        let Some(index) = self.slot_of(key, ssrc) else {
            return;
        };
        let rtt = self
            .leg(key)
            .and_then(|l| l.rtt)
            .unwrap_or(Duration::from_millis(50));
        let patience = rtt.clamp(Duration::from_millis(10), Duration::from_millis(300)) / 2;
        let Self {
            slots,
            streams,
            scratch,
            ..
        } = self;
        let Some(slot) = slots[index as usize].as_mut() else {
            return;
        };
        let find = |tag: crate::rewrite::rtp::StreamTag, sequence| {
            let stream = streams.get(tag.stream as usize)?.as_ref()?;
            if stream.generation != tag.generation {
                return None;
            }
            let (kept, octets) = stream.buffer.as_ref()?.get(now, sequence)?;
            let view = RtpView::parse(octets).ok()?;
            Some(InPacket {
                tag,
                csrc: stream.source.0,
                sequence,
                timestamp: view.timestamp(),
                marker: view.marker(),
                format: kept.meta.format,
                clock_rate: stream.clock_rate,
                level: None,
                extensions: stream.extensions.read(&view),
                descriptor: kept.meta.descriptor,
                keyframe: kept
                    .meta
                    .format
                    .video()
                    .is_some_and(|codec| is_keyframe(codec, view.payload())),
                unix: kept.meta.unix,
                payload: view.payload(),
            })
        };
        slot.repair(now, number, patience, find, scratch, out);
        if let Some(leg) = self.leg_mut(key) {
            leg.nacks += 1;
        }
    }
}

/// Microseconds since the Unix epoch of an NTP timestamp.
pub(super) fn micros(ntp: u64) -> i64 {
    const NTP_TO_UNIX: i64 = 2_208_988_800;
    let seconds = (ntp >> 32) as i64 - NTP_TO_UNIX;
    let fraction = ((ntp & 0xffff_ffff) * 1_000_000) >> 32;
    seconds * 1_000_000 + fraction as i64
}
