//! A received RTP packet: whose it is, what it says, and to whom it goes.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Meeting;
use super::stream::{Meta, Stream, audio_frames};
use crate::codecs::Format;
use crate::extensions::ExtensionKind;
use crate::keyframe::is_keyframe;
use crate::rewrite::Descriptor;
use crate::rewrite::rtp::{StreamTag, ticks};
use crate::rtp::RtpView;
use crate::slot::{InPacket, Kind};
use crate::stats::Arrival;
use crate::{Egress, LegKey, Level, MediaFrame, Transcoder, TransportIndex};

/// A packet whose stream is known.
struct Received<'a> {
    view: RtpView<'a>,
    stream: u32,
    /// Place in the stream's codec list.
    codec: usize,
    sequence: u16,
    payload: &'a [u8],
    /// It came as RTX.
    repaired: bool,
}

/// Most packets forwarded together; a longer burst is several.
const MOST_TOGETHER: usize = 16;

/// Packets of one stream that came together, as those of a video frame do. Each listener is sent them in a row: his
/// keys and numbers are fetched once, and what he is sent lies in one piece.
#[derive(Default)]
pub struct Burst<'a> {
    stream: u32,
    packets: SmallVec<[InPacket<'a>; MOST_TOGETHER]>,
}

impl Meeting {
    /// Takes one decrypted RTP packet and forwards it. `packet` is exactly the packet.
    /// Anything malformed or unexpected is counted and dropped.
    pub fn handle_rtp<E: Egress, T: Transcoder>(
        &mut self,
        now: Instant,
        leg: LegKey,
        transport: TransportIndex,
        packet: &[u8],
        out: &mut E,
        codecs: &mut T,
    ) {
        let mut burst = Burst::default();
        self.take_rtp(now, leg, transport, packet, &mut burst, out, codecs);
        self.forward(now, &mut burst, out);
    }

    /// Takes one decrypted RTP packet, as [`Meeting::handle_rtp`] does, but leaves it in `burst` for
    /// [`Meeting::forward`], together with those after it.
    #[allow(clippy::too_many_arguments)] // those of handle_rtp, and the burst
    pub fn take_rtp<'a, E: Egress, T: Transcoder>(
        &mut self,
        now: Instant,
        leg: LegKey,
        transport: TransportIndex,
        packet: &'a [u8],
        burst: &mut Burst<'a>,
        out: &mut E,
        codecs: &mut T,
    ) {
        let Ok(view) = RtpView::parse(packet) else {
            if let Some(leg) = self.leg_mut(leg) {
                leg.malformed += 1;
            }
            return;
        };
        let Some(received) = self.recognise(now, leg, transport, view) else {
            return;
        };
        self.heard(now, leg);
        match self.stream(received.stream).map(|s| s.kind) {
            Some(Kind::Audio) => self.audio(now, &received, burst, out, codecs),
            Some(Kind::Video) => self.video(now, &received, burst, out),
            None => {}
        }
    }

    /// Sends the packets of a burst to all who receive their stream; the burst is empty then.
    pub fn forward<E: Egress>(&mut self, now: Instant, burst: &mut Burst<'_>, out: &mut E) {
        let Some(stream) = self.streams.get(burst.stream as usize) else {
            return;
        };
        let mut wanted = false;
        if let Some(stream) = stream
            && !burst.packets.is_empty()
        {
            let (slots, scratch) = (&mut self.slots, &mut self.scratch);
            wanted = out.fan_out(now, &burst.packets, &stream.direct, slots, scratch);
        }
        burst.packets.clear();
        if wanted {
            self.want_keyframe(now, burst.stream, out);
        }
    }

    /// Adds a packet to a burst of packets of its own stream.
    fn join<'a, E: Egress>(
        &mut self,
        now: Instant,
        stream: u32,
        packet: InPacket<'a>,
        burst: &mut Burst<'a>,
        out: &mut E,
    ) {
        if burst.stream != stream || burst.packets.len() == MOST_TOGETHER {
            self.forward(now, burst, out);
            burst.stream = stream;
        }
        burst.packets.push(packet);
    }

    /// The leg gave a sign of life.
    pub(super) fn heard(&mut self, now: Instant, key: LegKey) {
        let Some(leg) = self.leg_mut(key) else { return };
        leg.last_heard = now;
        leg.timed_out = false;
        if !leg.connected {
            leg.connected = true;
            self.leg_event(key, control::leg_event::Kind::Connected, "media arrives");
        }
    }

    /// Finds the stream of a packet: by SSRC, else by RTX payload type, else by what was signalled,
    /// the mid it carries, or the only m-line with its payload type.
    fn recognise<'a>(
        &mut self,
        now: Instant,
        key: LegKey,
        transport: TransportIndex,
        view: RtpView<'a>,
    ) -> Option<Received<'a>> {
        let (ssrc, payload_type) = (view.ssrc(), view.payload_type());
        let leg = self
            .legs
            .get(key.index())?
            .as_ref()
            .filter(|l| l.key == key)?;
        let (streams, lives) = (&mut self.streams, &mut self.lives);
        let on = |streams: &[Option<Stream>], s: u32| {
            streams[s as usize]
                .as_ref()
                .is_some_and(|st| st.transport == transport)
        };
        for s in leg.streams() {
            let Some(st) = streams[s as usize].as_ref() else {
                continue;
            };
            if st.ssrc == Some(ssrc) && st.transport == transport {
                let codec = st.codecs.index_of(payload_type)?;
                return Some(Received {
                    view,
                    stream: s,
                    codec,
                    sequence: view.sequence(),
                    payload: view.payload(),
                    repaired: false,
                });
            }
        }
        let mut best: Option<(u8, u32)> = None;
        let mut ambiguous = false;
        for s in leg.streams().filter(|s| on(streams, *s)) {
            let Some(st) = streams[s as usize].as_ref() else {
                continue;
            };
            if !st.codecs.has(payload_type) {
                continue;
            }
            let mid = match st.extensions.id(ExtensionKind::Mid) {
                0 => None,
                id => view.extension(id),
            };
            let rank = if st.signalled.contains(&ssrc)
                || st.signalled_rtx.contains(&ssrc)
                || st.rtx_ssrc == Some(ssrc)
            {
                3
            } else if mid.is_some_and(|m| *m == *st.mid) {
                2
            } else if mid.is_none() {
                1
            } else {
                continue;
            };
            match best {
                Some((r, _)) if r > rank => {}
                Some((r, _)) if r == rank => ambiguous = true,
                _ => {
                    best = Some((rank, s));
                    ambiguous = false;
                }
            }
        }
        let (_, s) = best.filter(|_| !ambiguous)?;
        let st = streams[s as usize].as_mut()?;
        if let Some(codec) = st.codecs.repaired_by(payload_type) {
            st.rtx_ssrc = Some(ssrc);
            let (original, payload) = view.payload().split_first_chunk::<2>()?;
            return Some(Received {
                view,
                stream: s,
                codec,
                sequence: u16::from_be_bytes(*original),
                payload,
                repaired: true,
            });
        }
        let codec = st.codecs.index_of(payload_type)?;
        st.admit(now, ssrc, lives).then_some(Received {
            view,
            stream: s,
            codec,
            sequence: view.sequence(),
            payload: view.payload(),
            repaired: false,
        })
    }

    /// Keeps the stream's numbers. `None`: the packet is not to be used.
    fn admit(&mut self, now: Instant, r: &Received<'_>) -> Option<(Format, Arrival)> {
        let unix = self.config.clock.unix_at(now);
        let lives = &mut self.lives;
        let stream = self.streams[r.stream as usize].as_mut()?;
        let spec = stream.codecs.get(r.codec)?;
        let (format, clock_rate) = (spec.format, spec.clock_rate);
        if r.repaired && stream.ssrc.is_none() {
            return None; // a repair of nothing
        }
        let arrival = stream
            .reception
            .on_packet(r.sequence, r.view.header_len() + r.payload.len());
        match arrival {
            Arrival::Duplicate | Arrival::Suspicious => return None,
            // A sender restarts its primary stream, never by way of RTX.
            Arrival::Restart if r.repaired => return None,
            Arrival::Restart => stream.renew(lives),
            Arrival::Newest { .. } | Arrival::Late => {}
        }
        if let Arrival::Newest { .. } | Arrival::Restart = arrival {
            let main = format.audio().is_some() || format.video().is_some();
            if main && stream.format != Some(format) {
                if stream.format.is_some() {
                    stream.renew(lives);
                }
                stream.format = Some(format);
                stream.clock_rate = clock_rate;
            }
            if !r.repaired {
                stream
                    .reception
                    .on_times(r.view.timestamp(), ticks(unix, clock_rate));
            }
        }
        stream.last_packet = Some(now);
        Some((format, arrival))
    }

    fn audio<'a, E: Egress, T: Transcoder>(
        &mut self,
        now: Instant,
        r: &Received<'a>,
        burst: &mut Burst<'a>,
        out: &mut E,
        codecs: &mut T,
    ) {
        let before = self.stream(r.stream).and_then(|s| s.format);
        let Some((format, _)) = self.admit(now, r) else {
            return;
        };
        let Some(stream) = self.streams[r.stream as usize].as_mut() else {
            return;
        };
        if stream.muted {
            return;
        }
        let extensions = stream.extensions.read(&r.view);
        let mut level = None;
        let pushed = push(stream, now, r, format, codecs);
        if let Format::TelephoneEvent(clock_rate) = format {
            let done = stream
                .keypad
                .on_event(now, r.view.timestamp(), clock_rate, r.payload);
            let key = stream.leg;
            if let Some(digit) = done {
                self.digit_event(now, key, digit);
            }
        } else if let Format::Audio(codec) = format {
            let found = extensions
                .get(ExtensionKind::AudioLevel)
                .and_then(|d| d.first())
                .map(|o| Level::from_octet(*o))
                .or_else(|| codecs.level(stream.source, codec, r.payload));
            let mut changed = before != Some(format);
            if let Some(found) = found {
                level = Some(found.octet());
                stream.level = found;
                for _ in 0..audio_frames(codec, r.payload) {
                    changed |= self.speakers.on_level(now, stream.source, found);
                }
            }
            if changed {
                self.forward(now, burst, out); // to those it was for
                self.reassign_audio(codecs);
                self.announced.dirty = true;
            }
        }
        let Some(stream) = self.streams[r.stream as usize].as_mut() else {
            return;
        };
        let packet = InPacket {
            tag: stream.tag(r.stream),
            csrc: stream.source.0,
            sequence: r.sequence,
            timestamp: r.view.timestamp(),
            marker: r.view.marker(),
            format,
            clock_rate: stream.clock_rate,
            level,
            extensions,
            descriptor: Descriptor::None,
            keyframe: false,
            unix: self.config.clock.unix_at(now),
            payload: r.payload,
        };
        let pushed = pushed || push(stream, now, r, format, codecs);
        self.join(now, r.stream, packet, burst, out);
        if pushed {
            self.forward_renditions(now, out, codecs);
        }
    }

    /// Sends what the transcoder has ready.
    pub(super) fn forward_renditions<E: Egress, T: Transcoder>(
        &mut self,
        now: Instant,
        out: &mut E,
        codecs: &mut T,
    ) {
        let unix = self.config.clock.unix_at(now);
        while let Some(frame) = codecs.poll(now) {
            let Some(index) = self.audio_stream_of(frame.source) else {
                continue;
            };
            let Some(stream) = self.streams[index as usize].as_ref() else {
                continue;
            };
            let packet = InPacket {
                // Each rendition is a stream of its own; its life is that of the wish for it.
                tag: StreamTag {
                    stream: index | (frame.codec as u32 + 1) << 28,
                    generation: 0,
                },
                csrc: frame.source.0,
                sequence: frame.sequence,
                timestamp: frame.timestamp,
                marker: frame.marker,
                format: Format::Audio(frame.codec),
                clock_rate: frame.codec.clock_rate(),
                level: Some(stream.level.octet()),
                extensions: Default::default(),
                descriptor: Descriptor::None,
                keyframe: false,
                unix,
                payload: frame.payload,
            };
            for &s in &stream.renditions[frame.codec as usize] {
                if let Some(slot) = self.slots[s as usize].as_mut() {
                    slot.send(now, &packet, &mut self.scratch, out);
                }
            }
        }
    }

    fn video<'a, E: Egress>(
        &mut self,
        now: Instant,
        r: &Received<'a>,
        burst: &mut Burst<'a>,
        out: &mut E,
    ) {
        let before = self.stream(r.stream).and_then(|s| s.format);
        let Some((format, arrival)) = self.admit(now, r) else {
            return;
        };
        let unix = self.config.clock.unix_at(now);
        let Some(stream) = self.streams[r.stream as usize].as_mut() else {
            return;
        };
        let Some(codec) = format.video() else { return };
        let extensions = stream.extensions.read(&r.view);
        let dependency = extensions.get(ExtensionKind::DependencyDescriptor);
        let Some(mut descriptor) = Descriptor::read(codec, r.payload, dependency) else {
            return;
        };
        descriptor.widen(&mut stream.unwrapper);
        let appeared = !stream.alive || before != Some(format);
        stream.alive = true;
        if stream.muted {
            return;
        }
        let keyframe = is_keyframe(codec, r.payload);
        if keyframe {
            stream.requests.on_keyframe();
        }
        self.keep(
            now,
            r,
            Meta {
                unix,
                format,
                descriptor,
            },
        );
        self.ask_missing(now, r, arrival, out);
        if appeared {
            self.reassign_video(now);
            self.ask_waiting(now, out);
        }
        if keyframe {
            self.forward(now, burst, out); // what came before is not for those who waited
            self.promote_waiting(r.stream);
        }
        let Some(stream) = self.streams[r.stream as usize].as_mut() else {
            return;
        };
        let packet = InPacket {
            tag: stream.tag(r.stream),
            csrc: stream.source.0,
            sequence: r.sequence,
            timestamp: r.view.timestamp(),
            marker: r.view.marker(),
            format,
            clock_rate: stream.clock_rate,
            level: None,
            extensions,
            descriptor,
            keyframe,
            unix,
            payload: r.payload,
        };
        self.join(now, r.stream, packet, burst, out);
    }

    /// Keeps a packet for those who will miss it, as if it had come in its own stream.
    fn keep(&mut self, now: Instant, r: &Received<'_>, meta: Meta) {
        let Some(stream) = self.streams[r.stream as usize].as_mut() else {
            return;
        };
        let Some(payload_type) = stream.codecs.get(r.codec).map(|c| c.payload_type) else {
            return;
        };
        let Some(buffer) = stream.buffer.as_mut() else {
            return;
        };
        let header = r.view.header();
        let mut fixed = [0; 4];
        fixed.copy_from_slice(&header[..4]);
        // Padding is taken off; RTX becomes what it repairs.
        fixed[0] &= !0x20;
        fixed[1] = (fixed[1] & 0x80) | payload_type;
        fixed[2..4].copy_from_slice(&r.sequence.to_be_bytes());
        buffer.insert(now, r.sequence, [&fixed, &header[4..], r.payload], meta);
    }

    fn ask_missing<E: Egress>(
        &mut self,
        now: Instant,
        r: &Received<'_>,
        arrival: Arrival,
        out: &mut E,
    ) {
        let Some(stream) = self.streams[r.stream as usize].as_mut() else {
            return;
        };
        if !stream.is_received() || !stream.codecs.get(r.codec).is_some_and(|c| c.nack) {
            stream.missing.clear();
            return;
        }
        match arrival {
            Arrival::Newest { missing: 0 } => {}
            Arrival::Newest { missing } => {
                if stream.missing.on_gap(now, r.sequence, missing) {
                    self.send_nacks(now, r.stream, out);
                } else {
                    self.want_keyframe(now, r.stream, out);
                }
            }
            Arrival::Late => stream.missing.on_received(r.sequence),
            _ => {}
        }
    }

    /// Asks a source for what is due, and says when to look again.
    pub(super) fn send_nacks<E: Egress>(&mut self, now: Instant, index: u32, out: &mut E) {
        let mut numbers = [0; crate::nack::MAX_MISSING];
        let Some(stream) = self.streams[index as usize].as_mut() else {
            return;
        };
        let rtt = self
            .legs
            .get(stream.leg.index())
            .and_then(Option::as_ref)
            .and_then(|l| l.rtt)
            .map(|r| r + Duration::from_millis(10));
        let n = stream.missing.due(now, rtt, &mut numbers);
        if let Some(at) = stream.missing.poll_timeout() {
            self.next_repair = Some(self.next_repair.map_or(at, |t| t.min(at)));
        }
        let Some(media) = stream.ssrc.filter(|_| n > 0) else {
            return;
        };
        stream.nacks += n as u64;
        let (leg, transport) = (stream.leg, stream.transport);
        self.send_feedback(leg, transport, out, |buf, sender| {
            buf.nack(sender, media, &numbers[..n])
        });
    }
}

/// Gives a packet to the transcoder, where renditions are wanted. True: it was.
fn push<T: Transcoder>(
    stream: &mut Stream,
    now: Instant,
    r: &Received<'_>,
    format: Format,
    codecs: &mut T,
) -> bool {
    let Some(codec) = stream.format.and_then(Format::audio) else {
        return false;
    };
    if stream.wanted == 0 {
        return false;
    }
    codecs.push(
        now,
        MediaFrame {
            source: stream.source,
            codec,
            sequence: r.sequence,
            timestamp: r.view.timestamp(),
            restart: std::mem::take(&mut stream.restart),
            // A pressed key is not heard, but its number is not missing either.
            payload: if format.audio().is_some() {
                r.payload
            } else {
                &[]
            },
        },
    );
    true
}
