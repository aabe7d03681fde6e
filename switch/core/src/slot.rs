//! A slot: one outgoing stream of a leg, whoever fills it.
//!
//! ```text
//!           assign(A)                keyframe of B (video)
//!  empty ───────────► shows A ─────────────────────────────► shows B
//!                        │  assign(B): B is pending,    ▲
//!                        └──── A goes on meanwhile ─────┘
//!                 audio changes with B's next packet
//! ```

use std::time::{Duration, Instant};

use crate::codecs::{AudioCodec, CodecList, Format};
use crate::extensions::{ExtensionIds, ExtensionKind, ExtensionSet, abs_send_time};
use crate::rewrite::av1::MAX_DESCRIPTOR;
use crate::rewrite::rtp::{Binding, Numbers, Source, StreamTag, Timeline};
use crate::rewrite::{Descriptor, MAX_PREFIX, PictureState};
use crate::rtp::{Fixed, HeaderBuf};
use crate::stats::Budget;
use crate::{Egress, LegKey, RtpOut, TransportIndex};

/// Audio or video.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// Where a slot's packets come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feed {
    /// The meeting's number of the source's stream.
    pub stream: u32,
    /// Through a rendition in this codec; `None` as the source sends it.
    pub rendition: Option<AudioCodec>,
}

/// A packet of a source, read once and ready to be written for any number of listeners.
#[derive(Clone, Copy, Debug)]
pub struct InPacket<'a> {
    /// Which stream, in which of its lives.
    pub tag: StreamTag,
    /// Source id of the talker.
    pub csrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// What the payload is.
    pub format: Format,
    /// Clock in Hz.
    pub clock_rate: u32,
    /// RFC 6464 octet, received or found by decoding.
    pub level: Option<u8>,
    /// Known header extension elements.
    pub extensions: ExtensionSet<'a>,
    /// Picture counters.
    pub descriptor: Descriptor,
    /// A decoder can begin here.
    pub keyframe: bool,
    /// When it came, since the Unix epoch: its abs-send-time, the same in every retransmission.
    pub unix: Duration,
    /// Payload without padding.
    pub payload: &'a [u8],
}

/// Room to write packets in; one a meeting.
#[derive(Clone, Debug)]
pub struct Scratch {
    header: HeaderBuf,
    prefix: [u8; MAX_PREFIX + 2],
    dependency: [u8; MAX_DESCRIPTOR],
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            header: HeaderBuf::default(),
            prefix: [0; MAX_PREFIX + 2],
            dependency: [0; MAX_DESCRIPTOR],
        }
    }
}

/// What came of a packet offered to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// It was sent.
    Yes,
    /// The listener does not take it, or it is from before the change.
    No,
    /// The slot waits for a key frame of this stream.
    NeedsKeyframe,
}

/// Retransmitted octets a second a slot may ask for. Lower: less amplification by one receiver's
/// NACKs; higher: more loss is repaired.
const REPAIR_RATE: u64 = 256 * 1024;

/// Retransmitted octets at once.
const REPAIR_BURST: u64 = 96 * 1024;

/// Retransmissions remembered, so that one packet asked for twice within a round trip goes once.
const RECENT_REPAIRS: usize = 64;

/// Key frames a listener may ask for: one in two seconds, and some at once while packets are lost.
/// More would let one listener make the source spend everybody's bits on them.
const ASKS_PER_SECOND: u64 = 1;
const ASK_COST: u64 = 2;
const ASKS_AT_ONCE: u64 = 5;

fn room_for_repairs(codecs: &CodecList) -> Box<[Option<(u16, Instant)>]> {
    let repairs = codecs.iter().any(|codec| codec.nack);
    vec![None; if repairs { RECENT_REPAIRS } else { 0 }].into()
}

/// One outgoing stream.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Whose.
    pub leg: LegKey,
    /// Where it goes out.
    pub transport: TransportIndex,
    /// Audio or video.
    pub kind: Kind,
    /// Rank among the leg's slots of the kind.
    pub number: u32,
    /// SSRC sent with.
    pub ssrc: u32,
    /// SSRC of RTX, 0: none.
    pub rtx_ssrc: u32,
    /// What the listener takes.
    pub codecs: CodecList,
    /// The listener's extension ids.
    pub extensions: ExtensionIds,
    /// The listener's mid for this m-line.
    pub mid: Box<[u8]>,
    /// Who fills it.
    pub feed: Option<Feed>,
    /// Who will, from a key frame on.
    pub pending: Option<u32>,
    /// Changes of the source.
    pub switches: u64,
    /// Packets sent.
    pub packets: u64,
    /// Payload octets sent.
    pub octets: u64,
    /// Packets sent again.
    pub repaired: u64,
    /// Packets the receiver reports as lost.
    pub lost: u64,
    timeline: Timeline,
    picture: PictureState,
    rtx_sequence: u16,
    repair: Budget,
    asks: Budget,
    /// [`RECENT_REPAIRS`] of them where the listener asks for repairs, else none.
    recent: Box<[Option<(u16, Instant)>]>,
    last_source: Option<u32>,
}

/// How a slot is made.
#[derive(Clone, Debug)]
pub struct SlotConfig {
    /// Whose.
    pub leg: LegKey,
    /// Where it goes out.
    pub transport: TransportIndex,
    /// Audio or video.
    pub kind: Kind,
    /// Rank among the leg's slots of the kind.
    pub number: u32,
    /// SSRC sent with.
    pub ssrc: u32,
    /// SSRC of RTX, 0: none.
    pub rtx_ssrc: u32,
    /// What the listener takes.
    pub codecs: CodecList,
    /// The listener's extension ids.
    pub extensions: ExtensionIds,
    /// The listener's mid.
    pub mid: Box<[u8]>,
}

impl Slot {
    /// An empty slot; `random` gives its first sequence numbers and timestamp.
    pub fn new(config: SlotConfig, now: Instant, random: u64) -> Self {
        let recent = room_for_repairs(&config.codecs);
        Self {
            leg: config.leg,
            transport: config.transport,
            kind: config.kind,
            number: config.number,
            ssrc: config.ssrc,
            rtx_ssrc: config.rtx_ssrc,
            codecs: config.codecs,
            extensions: config.extensions,
            mid: config.mid,
            feed: None,
            pending: None,
            switches: 0,
            packets: 0,
            octets: 0,
            repaired: 0,
            lost: 0,
            timeline: Timeline::new(random as u16, (random >> 16) as u32),
            picture: PictureState::default(),
            rtx_sequence: (random >> 48) as u16 & 0x7fff,
            repair: Budget::new(REPAIR_RATE, REPAIR_BURST, now),
            asks: Budget::new(ASKS_PER_SECOND, ASKS_AT_ONCE * ASK_COST, now),
            recent,
            last_source: None,
        }
    }

    /// Takes a new description of the same stream; what was sent goes on unbroken.
    /// True: what packets look like changed, so that the source has to be bound again. What was sent
    /// before is not sent again then: it would be other octets under the same sequence number.
    pub fn reconfigure(&mut self, config: SlotConfig) -> bool {
        let rebind = self.codecs != config.codecs
            || self.extensions != config.extensions
            || self.mid != config.mid;
        self.leg = config.leg;
        self.transport = config.transport;
        self.number = config.number;
        self.rtx_ssrc = config.rtx_ssrc;
        if self.recent.is_empty() {
            self.recent = room_for_repairs(&config.codecs);
        }
        self.codecs = config.codecs;
        self.extensions = config.extensions;
        self.mid = config.mid;
        if rebind {
            self.timeline.forget();
        }
        rebind
    }

    /// Another source, or another way to the same, fills the slot from its next packet on.
    pub fn set_feed(&mut self, feed: Option<Feed>) {
        if self.feed == feed {
            return;
        }
        self.feed = feed;
        self.timeline.unbind();
    }

    /// The listener asks for a key frame: whether that is to be heeded.
    pub fn may_ask(&mut self, now: Instant) -> bool {
        self.asks.take(now, ASK_COST)
    }

    /// The binding in force.
    pub fn binding(&self) -> Option<&Binding> {
        self.timeline.current()
    }

    /// Whether the listener can be given this format at all.
    pub fn accepts(&self, format: Format) -> bool {
        self.codecs.accepting(format).is_some()
    }

    /// Timestamp sent last and when.
    pub fn last_sent(&self) -> Option<(u32, Instant)> {
        self.timeline.last()
    }

    /// Sends packets of the source that fills the slot; whether it waits for a key frame.
    pub fn send_all<E: Egress>(
        &mut self,
        now: Instant,
        packets: &[InPacket<'_>],
        scratch: &mut Scratch,
        out: &mut E,
    ) -> bool {
        let mut waits = false;
        for packet in packets {
            waits |= self.send(now, packet, scratch, out) == Sent::NeedsKeyframe;
        }
        waits
    }

    /// Sends a packet of the source that fills the slot.
    pub fn send<E: Egress>(
        &mut self,
        now: Instant,
        packet: &InPacket<'_>,
        scratch: &mut Scratch,
        out: &mut E,
    ) -> Sent {
        let auxiliary = matches!(
            packet.format,
            Format::TelephoneEvent(_) | Format::ComfortNoise
        );
        let bound = self.timeline.current().is_some_and(|b| b.tag == packet.tag);
        if auxiliary {
            if !bound {
                return Sent::No;
            }
            if !self.accepts(packet.format) {
                self.timeline.skip(packet.sequence);
                return Sent::No;
            }
        } else if !bound {
            let bind = self.bind(now, packet);
            if bind != Sent::Yes {
                return bind;
            }
        }
        let Some(numbers) = self.timeline.map(now, packet.sequence, packet.timestamp) else {
            return Sent::No;
        };
        let Some(binding) = self.timeline.current() else {
            return Sent::No;
        };
        let mut binding = *binding;
        if auxiliary && let Some(spec) = self.codecs.accepting(packet.format) {
            binding.payload_type = spec.payload_type;
        }
        if numbers.newest {
            self.picture.on_sent(&packet.descriptor, &binding.picture);
        }
        // Audio begins a talkspurt with every change (RFC 3551 §4.1); the marker of video ends a frame.
        let marker = packet.marker || (self.kind == Kind::Audio && numbers.first);
        let fixed = Fixed {
            marker,
            payload_type: binding.payload_type,
            sequence: numbers.sequence,
            timestamp: numbers.timestamp,
            ssrc: self.ssrc,
            csrc: Some(binding.csrc),
        };
        self.packets += 1;
        self.octets += packet.payload.len() as u64;
        self.write(fixed, None, &binding, packet, scratch, out);
        Sent::Yes
    }

    fn bind(&mut self, now: Instant, packet: &InPacket<'_>) -> Sent {
        let Some(spec) = self.codecs.accepting(packet.format) else {
            return Sent::No;
        };
        let min_step = match self.kind {
            Kind::Audio => Duration::from_millis(20),
            Kind::Video if !packet.keyframe => return Sent::NeedsKeyframe,
            Kind::Video => Duration::from_millis(10),
        };
        let source = Source {
            tag: packet.tag,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            clock_rate: packet.clock_rate,
            payload_type: spec.payload_type,
            rtx: spec.rtx.filter(|_| self.rtx_ssrc != 0),
            csrc: packet.csrc,
            picture: self.picture.continue_with(&packet.descriptor),
            min_step,
        };
        self.timeline.bind(now, source);
        if self.last_source != Some(packet.csrc) {
            self.last_source = Some(packet.csrc);
            self.switches += 1;
        }
        Sent::Yes
    }

    /// Sends a packet again that was asked for under the number `sent`; `find` looks it up by stream
    /// and sequence number. False: not to be had, not asked for in good time, or over the budget.
    pub fn repair<'p, E: Egress>(
        &mut self,
        now: Instant,
        sent: u16,
        patience: Duration,
        find: impl FnOnce(StreamTag, u16) -> Option<InPacket<'p>>,
        scratch: &mut Scratch,
        out: &mut E,
    ) -> bool {
        if self.recent.is_empty() {
            return false;
        }
        let place = usize::from(sent) % RECENT_REPAIRS;
        let again = self.recent[place]
            .is_some_and(|(s, at)| s == sent && now.saturating_duration_since(at) < patience);
        if again {
            return false;
        }
        let Some((binding, source)) = self.timeline.lookup(sent) else {
            return false;
        };
        let binding = *binding;
        let Some(packet) = find(binding.tag, source) else {
            return false;
        };
        if !self.repair.take(now, packet.payload.len() as u64 + 40) {
            return false;
        }
        self.recent[place] = Some((sent, now));
        let numbers = Numbers {
            sequence: sent,
            timestamp: binding.timestamp(packet.timestamp),
            first: false,
            newest: false,
        };
        let mut fixed = Fixed {
            marker: packet.marker,
            payload_type: binding.payload_type,
            sequence: numbers.sequence,
            timestamp: numbers.timestamp,
            ssrc: self.ssrc,
            csrc: Some(binding.csrc),
        };
        let mut original = None;
        if let Some(rtx) = binding.rtx {
            original = Some(sent);
            fixed.payload_type = rtx;
            fixed.ssrc = self.rtx_ssrc;
            fixed.sequence = self.rtx_sequence;
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        }
        self.repaired += 1;
        self.write(fixed, original, &binding, &packet, scratch, out);
        true
    }

    /// Writes a packet; apart from `fixed` and `original` a function of binding and packet alone.
    fn write<E: Egress>(
        &self,
        fixed: Fixed,
        original: Option<u16>,
        binding: &Binding,
        packet: &InPacket<'_>,
        scratch: &mut Scratch,
        out: &mut E,
    ) {
        use ExtensionKind as K;
        let Scratch {
            header,
            prefix,
            dependency,
        } = scratch;
        let send_time = abs_send_time(packet.unix);
        let level = [packet.level.unwrap_or(127)];
        let mut elements: [(u8, &[u8]); 8] = [(0, &[]); 8];
        let mut n = 0;
        for (kind, data) in [
            (K::Mid, Some(&*self.mid).filter(|m| !m.is_empty())),
            (K::AudioLevel, packet.level.map(|_| &level[..])),
            (K::AbsSendTime, Some(&send_time[..])),
            (
                K::VideoOrientation,
                packet.extensions.get(K::VideoOrientation),
            ),
            (K::PlayoutDelay, packet.extensions.get(K::PlayoutDelay)),
            (
                K::VideoContentType,
                packet.extensions.get(K::VideoContentType),
            ),
            (K::ColorSpace, packet.extensions.get(K::ColorSpace)),
        ] {
            if let Some(data) = data {
                let id = self.extensions.id(kind);
                if id != 0 {
                    elements[n] = (id, data);
                    n += 1;
                }
            }
        }
        if let (id @ 1.., Descriptor::Av1(d), Some(data)) = (
            self.extensions.id(K::DependencyDescriptor),
            &packet.descriptor,
            packet.extensions.get(K::DependencyDescriptor),
        ) {
            let len = d.write(data, &binding.picture, dependency);
            elements[n] = (id, &dependency[..len]);
            n += 1;
        }
        let header = header.write(fixed, &elements[..n]);
        let mut descriptor = [0; MAX_PREFIX];
        let (len, consumed) = packet.descriptor.write(&binding.picture, &mut descriptor);
        let mut at = 0;
        if let Some(original) = original {
            prefix[..2].copy_from_slice(&original.to_be_bytes());
            at = 2;
        }
        prefix[at..at + len].copy_from_slice(&descriptor[..len]);
        let payload = packet.payload.get(consumed..).unwrap_or_default();
        let packet = RtpOut {
            header,
            prefix: &prefix[..at + len],
            payload,
        };
        out.rtp(self.leg, self.transport, packet);
    }
}
