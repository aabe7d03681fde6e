//! What time brings: reports, requests again, speaker decisions, timeouts.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Meeting;
use super::feedback::micros;
use super::stream::VIDEO_SILENCE;
use crate::rewrite::rtp::ticks;
use crate::rtcp::{ReportBlock, ntp};
use crate::slot::Kind;
use crate::{Egress, LegKey, Transcoder, TransportIndex};

/// How often legs are looked at for what is due. Longer: later timeouts; it costs a glance a leg.
const SWEEP: Duration = Duration::from_millis(100);

/// Least time between two looks at missing packets and key frames.
const REPAIR_TICK: Duration = Duration::from_millis(10);

/// Mean time between two reports to a leg. RFC 3550's 5 s would make the first lip sync and every
/// round-trip time late; RFC 4585 §3.4 allows less.
const REPORT_MS: u64 = 1_000;

/// How many media timeouts a leg may be silent that is sent nothing: a phone on hold may stop its
/// packets, RTCP too, and people hold long. A session timer notices sooner who is gone.
const HELD_PATIENCE: u32 = 120;

/// An SR whose clock is further than this from what packets say is not believed.
const BELIEVABLE: Duration = Duration::from_secs(5);

impl Meeting {
    /// The transport can send from now on (pair validated and keys there): CONNECTED is reported
    /// for DTLS, and video that fills its slots gets a keyframe. To be called for every transport
    /// with ICE or DTLS; the others can send from the start.
    pub fn handle_connected<E: Egress>(
        &mut self,
        now: Instant,
        key: LegKey,
        transport: TransportIndex,
        out: &mut E,
    ) {
        let Some(leg) = self.leg_mut(key) else { return };
        let Some(state) = leg.transports.iter_mut().find(|t| t.index == transport) else {
            return;
        };
        state.ready = true;
        leg.failed
            .take_if(|(kind, _)| *kind == control::leg_event::Kind::ConsentLost);
        let announce = state.dtls && !leg.connected;
        leg.last_heard = now;
        leg.timed_out = false;
        if announce {
            leg.connected = true;
            self.leg_event(key, control::leg_event::Kind::Connected, "DTLS is done");
        }
        self.audio_stale = true;
        self.next_repair = Some(now);
        self.reassign_video(now);
        self.ask_waiting(now, out);
    }

    /// The transport of a leg failed (`ConsentLost`, `DtlsFailed`); the owner is told, once.
    pub fn handle_failed(
        &mut self,
        _now: Instant,
        key: LegKey,
        kind: control::leg_event::Kind,
        reason: &str,
    ) {
        let Some(leg) = self.leg_mut(key) else { return };
        if leg.failed.is_none() {
            leg.failed = Some((kind, reason.to_owned()));
            self.leg_event(key, kind, reason);
        }
    }

    /// Reports, keyframe requests again, speaker decisions, media timeouts that are due.
    pub fn handle_timeout<E: Egress, T: Transcoder>(
        &mut self,
        now: Instant,
        out: &mut E,
        codecs: &mut T,
    ) {
        if std::mem::take(&mut self.audio_stale) {
            self.reassign_audio(codecs);
        }
        if self.speakers.next_decision().is_some_and(|at| at <= now) {
            let dominant = self.speakers.dominant();
            if self.speakers.decide(now) {
                self.reassign_audio(codecs);
                self.announced.dirty = true;
                if self.speakers.dominant() != dominant {
                    self.reassign_video(now);
                    self.ask_waiting(now, out);
                }
            }
        }
        self.forward_renditions(now, out, codecs);
        if self.next_repair.is_some_and(|at| at <= now) {
            self.repair_due(now, out);
        }
        if self.next_sweep.is_some_and(|at| at <= now) {
            self.next_sweep = Some(now + SWEEP);
            self.sweep(now, out);
        }
        self.announce(now);
    }

    /// Missing packets and key frames to ask for again.
    fn repair_due<E: Egress>(&mut self, now: Instant, out: &mut E) {
        self.next_repair = None;
        for index in 0..self.streams.len() as u32 {
            let Some(stream) = self.streams[index as usize].as_mut() else {
                continue;
            };
            if stream.kind != Kind::Video {
                continue;
            }
            if !stream.is_received() {
                stream.requests.on_keyframe(); // nobody wants one any more
                stream.missing.clear();
                continue;
            }
            let again = stream.requests.handle_timeout(now);
            let waits = !stream.waiting.is_empty();
            if again {
                self.send_keyframe_request(index, out);
            } else if waits {
                self.want_keyframe(now, index, out);
            }
            if self.stream(index).is_some_and(|s| !s.missing.is_empty()) {
                self.send_nacks(now, index, out);
            }
            let Some(stream) = self.streams[index as usize].as_ref() else {
                continue;
            };
            for at in [
                stream.requests.poll_timeout(),
                stream.missing.poll_timeout(),
            ] {
                if let Some(at) = at.map(|at| at.max(now + REPAIR_TICK)) {
                    self.next_repair = Some(self.next_repair.map_or(at, |t| t.min(at)));
                }
            }
        }
    }

    fn sweep<E: Egress>(&mut self, now: Instant, out: &mut E) {
        let mut vanished = false;
        for index in 0..self.streams.len() {
            let Some(stream) = self.streams[index].as_mut() else {
                continue;
            };
            if stream.kind == Kind::Video
                && stream.alive
                && stream
                    .last_packet
                    .is_none_or(|at| now.saturating_duration_since(at) >= VIDEO_SILENCE)
            {
                stream.alive = false;
                vanished = true;
            }
            let key = stream.leg;
            if let Some(digit) = stream.keypad.on_timeout(now) {
                self.digit_event(now, key, digit);
            }
        }
        if vanished {
            self.reassign_video(now);
            self.ask_waiting(now, out);
        }
        for index in 0..self.legs.len() {
            let Some(leg) = self.legs[index].as_mut() else {
                continue;
            };
            let key = leg.key;
            let due = leg.next_report <= now;
            let held = leg.slots().next().is_none();
            let patience = self.policy.media_timeout * if held { HELD_PATIENCE } else { 1 };
            let silent = now.saturating_duration_since(leg.last_heard) >= patience;
            let unready = leg.transports.iter().any(|t| !t.ready);
            let expects = unready || leg.media.iter().any(|m| m.stream.is_some());
            let timed_out = silent && expects && !leg.timed_out;
            if timed_out {
                leg.timed_out = true;
                let seconds = patience.as_secs_f32();
                let reason = if unready {
                    format!("no media path for {seconds} s: ICE or DTLS did not finish")
                } else {
                    format!("no media for {seconds} s")
                };
                self.leg_event(key, control::leg_event::Kind::MediaTimeout, &reason);
            }
            if due {
                // RFC 3550 §6.2: spread, so that reports of many never fall together.
                let spread = REPORT_MS / 2 + self.random() % REPORT_MS;
                if let Some(leg) = self.legs[index].as_mut() {
                    leg.next_report = now + Duration::from_millis(spread);
                }
                self.report(now, key, out);
            }
        }
    }

    /// Sends the reports of a leg, one compound a transport (more where they do not fit).
    fn report<E: Egress>(&mut self, now: Instant, key: LegKey, out: &mut E) {
        let Some(leg) = self.leg(key) else { return };
        let transports: SmallVec<[TransportIndex; 4]> = leg
            .transports
            .iter()
            .filter(|t| t.ready)
            .map(|t| t.index)
            .collect();
        for transport in transports {
            self.report_on(now, key, transport, out);
        }
    }

    fn report_on<E: Egress>(
        &mut self,
        now: Instant,
        key: LegKey,
        transport: TransportIndex,
        out: &mut E,
    ) {
        let unix = self.config.clock.unix_at(now);
        let ntp_now = ntp(unix);
        let Some(sender) = self.rtcp_ssrc(key, transport) else {
            return;
        };
        let mut blocks = self.blocks(now, key, transport);
        let mut reports: SmallVec<[(u32, u32, u32, u32); 8]> = SmallVec::new();
        let Some(leg) = self.leg(key) else { return };
        for slot in leg.slots() {
            let Some(s) = self.slot(slot).filter(|s| s.transport == transport) else {
                continue;
            };
            if let Some(rtp) = self.slot_timestamp(now, slot).filter(|_| s.packets > 0) {
                reports.push((s.ssrc, rtp, s.packets as u32, s.octets as u32));
            }
        }
        let remb: SmallVec<[u32; 4]> = leg
            .streams()
            .filter_map(|s| self.stream(s))
            .filter(|s| s.transport == transport && s.kind == Kind::Video)
            .filter(|s| s.codecs.iter().any(|c| c.remb))
            .filter_map(|s| s.ssrc)
            .collect();
        let (legs, buf, bitrate) = (&self.legs, &mut self.compound, self.config.video_bitrate);
        let Some(leg) = legs[key.index()].as_ref() else {
            return;
        };
        buf.clear();
        if reports.is_empty() {
            buf.receiver_report(sender, &blocks);
            buf.cname(sender, &leg.cname);
        }
        for (ssrc, rtp, packets, octets) in reports {
            let room = 28 + 24 * blocks.len() + 12 + leg.cname.len() + 8;
            if buf.bytes().len() + room > crate::rtcp::MAX_COMPOUND {
                out.rtcp(key, transport, buf.bytes());
                buf.clear();
            }
            buf.sender_report(ssrc, ntp_now, rtp, packets, octets, &blocks);
            buf.cname(ssrc, &leg.cname);
            blocks.clear(); // once is enough
        }
        for ssrc in remb {
            buf.remb(sender, ssrc, bitrate);
        }
        if !buf.is_empty() {
            out.rtcp(key, transport, buf.bytes());
        }
    }

    /// Report blocks about what a leg sends on a transport.
    fn blocks(
        &mut self,
        now: Instant,
        key: LegKey,
        transport: TransportIndex,
    ) -> SmallVec<[ReportBlock; 4]> {
        let Some(leg) = self.legs.get(key.index()).and_then(Option::as_ref) else {
            return SmallVec::new();
        };
        let mut blocks = SmallVec::new();
        for s in leg.streams() {
            let Some(stream) = self.streams[s as usize].as_mut() else {
                continue;
            };
            let Some(ssrc) = stream.ssrc.filter(|_| stream.transport == transport) else {
                continue;
            };
            let numbers = stream.reception.report();
            let (last_sr, delay) = stream.sender.map_or((0, 0), |sr| {
                let since = now.saturating_duration_since(sr.at);
                ((sr.ntp >> 16) as u32, ticks(since, 65_536))
            });
            blocks.push(ReportBlock {
                ssrc,
                fraction_lost: numbers.fraction_lost,
                cumulative_lost: numbers.cumulative_lost,
                highest: numbers.highest,
                jitter: numbers.jitter,
                last_sr,
                delay,
            });
            if blocks.len() == 8 {
                break;
            }
        }
        blocks
    }

    /// The timestamp a slot's stream has at `now`. For what a source sends itself it follows the
    /// source's own SR, by one clock offset for all its streams, so that sound and picture of one
    /// talker stay together; else it is the last packet's plus the time since.
    pub(super) fn slot_timestamp(&self, now: Instant, slot: u32) -> Option<u32> {
        let slot = self.slot(slot)?;
        let (last, at) = slot.last_sent()?;
        let by_packets = match slot.binding() {
            Some(b) => last.wrapping_add(ticks(now.saturating_duration_since(at), b.clock_rate)),
            None => return None,
        };
        let feed = slot.feed?;
        let binding = slot.binding()?;
        let by_reports = || {
            let stream = self
                .stream(feed.stream)
                .filter(|_| feed.rendition.is_none())?;
            if stream.tag(feed.stream) != binding.tag {
                return None;
            }
            let sr = stream.sender?;
            let offset = self.leg(stream.leg)?.clock_offset?;
            let ours = self.config.clock.unix_at(now).as_micros() as i64;
            let since = ours.wrapping_sub(offset).wrapping_sub(micros(sr.ntp));
            let ticks = i128::from(since) * i128::from(binding.clock_rate) / 1_000_000;
            let source = sr.rtp.wrapping_add(ticks as u32);
            let sent = binding.timestamp(source);
            let off = (sent.wrapping_sub(by_packets) as i32).unsigned_abs();
            let most = BELIEVABLE.as_secs() as u32 * binding.clock_rate;
            (off < most).then_some(sent)
        };
        Some(by_reports().unwrap_or(by_packets))
    }
}
