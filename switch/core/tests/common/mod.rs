//! A meeting on a virtual clock: legs that send, and a model of a decoder at every receiver.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use switch_core::rtcp::{Element, Elements, nack_numbers};
use switch_core::rtp::{Fixed, HeaderBuf, RtpView, sequence_delta};
use switch_core::{
    AudioCodec, Egress, LegKey, Level, MediaFrame, Meeting, MeetingConfig, RenditionFrame, RtpOut,
    SourceId, Transcoder, TransportIndex, WallClock,
};

pub const T0: TransportIndex = TransportIndex(0);
pub const LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
pub const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub const SEND_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
pub const SPEECH: u8 = 26;
pub const SILENCE: u8 = 70;

/// A packet sent to a leg.
#[derive(Clone, Debug)]
pub struct Got {
    pub leg: LegKey,
    pub at: Instant,
    pub bytes: Vec<u8>,
}

impl Got {
    pub fn view(&self) -> RtpView<'_> {
        RtpView::parse(&self.bytes).expect("the meeting sends RTP")
    }
}

#[derive(Default)]
pub struct Wire {
    pub now: Option<Instant>,
    pub rtp: Vec<Got>,
    pub rtcp: Vec<Got>,
}

impl Egress for Wire {
    fn rtp(&mut self, leg: LegKey, transport: TransportIndex, packet: RtpOut<'_>) {
        assert_eq!(transport, T0);
        let bytes = [packet.header, packet.prefix, packet.payload].concat();
        assert_eq!(bytes.len(), packet.len());
        self.rtp.push(Got {
            leg,
            at: self.now.unwrap(),
            bytes,
        });
    }

    fn rtcp(&mut self, leg: LegKey, transport: TransportIndex, compound: &[u8]) {
        assert_eq!(transport, T0);
        let mut elements = Elements::new(compound);
        let first = elements.next().expect("not empty");
        assert!(
            matches!(
                first,
                Element::SenderReport { .. } | Element::ReceiverReport { .. }
            ),
            "a compound begins with a report"
        );
        assert!(elements.by_ref().count() > 0 && !elements.malformed());
        self.rtcp.push(Got {
            leg,
            at: self.now.unwrap(),
            bytes: compound.to_vec(),
        });
    }
}

/// A transcoder whose frames are the target's name and the source's payload.
#[derive(Default)]
pub struct Echo {
    pub wanted: BTreeMap<SourceId, Vec<AudioCodec>>,
    queue: Vec<(SourceId, AudioCodec, u16, Vec<u8>)>,
    current: Vec<u8>,
    sequences: BTreeMap<(SourceId, AudioCodec), u16>,
    pub pushed: u64,
    pub level: Option<Level>,
}

impl Transcoder for Echo {
    fn want(&mut self, source: SourceId, targets: &[AudioCodec]) {
        self.wanted.insert(source, targets.to_vec());
    }

    fn push(&mut self, _: Instant, frame: MediaFrame<'_>) {
        self.pushed += 1;
        for target in self.wanted.get(&frame.source).cloned().unwrap_or_default() {
            let sequence = self.sequences.entry((frame.source, target)).or_default();
            *sequence = sequence.wrapping_add(1);
            let payload = [target.name().as_bytes(), frame.payload].concat();
            self.queue.push((frame.source, target, *sequence, payload));
        }
    }

    fn poll(&mut self, _: Instant) -> Option<RenditionFrame<'_>> {
        if self.queue.is_empty() {
            return None;
        }
        let (source, codec, sequence, payload) = self.queue.remove(0);
        self.current = payload;
        Some(RenditionFrame {
            source,
            codec,
            sequence,
            timestamp: u32::from(sequence) * codec.clock_rate() / 50,
            marker: sequence == 1,
            payload: &self.current,
        })
    }

    fn level(&mut self, _: SourceId, _: AudioCodec, _: &[u8]) -> Option<Level> {
        self.level
    }

    fn forget(&mut self, source: SourceId) {
        self.wanted.remove(&source);
    }
}

/// What a leg's sender counts.
#[derive(Clone, Debug)]
pub struct Sender {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub picture: u16,
    pub tl0: u8,
}

pub struct Bench {
    pub meeting: Meeting,
    pub now: Instant,
    pub start: Instant,
    pub wire: Wire,
    pub codecs: Echo,
    pub keys: BTreeMap<String, LegKey>,
    pub audio: BTreeMap<String, Sender>,
    pub video: BTreeMap<String, Sender>,
    pub legs: BTreeMap<String, control::Leg>,
    pub events: Vec<control::event::Event>,
}

pub fn codec(pt: u32, name: &str, clock: u32) -> control::Codec {
    control::Codec {
        payload_type: pt,
        name: name.into(),
        clock_rate: clock,
        nack: clock == 90_000,
        pli: clock == 90_000,
        ..Default::default()
    }
}

pub fn extension(id: u32, uri: &str) -> control::HeaderExtension {
    control::HeaderExtension {
        id,
        uri: uri.into(),
        ..Default::default()
    }
}

/// How a test leg differs from the plain one.
#[derive(Clone)]
pub struct Shape {
    pub audio: Vec<control::Codec>,
    pub video: Vec<control::Codec>,
    pub audio_slots: u32,
    pub video_slots: u32,
    pub level: bool,
    pub rtx: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            audio: vec![codec(111, "opus", 48_000), codec(0, "PCMU", 8_000)],
            video: vec![codec(96, "VP8", 90_000)],
            audio_slots: 1,
            video_slots: 1,
            level: true,
            rtx: false,
        }
    }
}

/// A leg: m-line 0 audio and 1 video both ways, then further slots.
pub fn leg(id: &str, source: u32, shape: &Shape) -> control::Leg {
    let mut media = Vec::new();
    let ssrc = |kind: u32, n: u32| source * 1000 + kind * 100 + n;
    for n in 0..shape.audio_slots.max(1) {
        let mut extensions = vec![extension(4, MID_URI)];
        if shape.level {
            extensions.push(extension(1 + source % 3, LEVEL_URI));
        }
        media.push(control::Media {
            index: n,
            mid: format!("a{n}"),
            kind: control::MediaKind::Audio.into(),
            codecs: shape.audio.clone(),
            extensions,
            receive: n == 0,
            send: n < shape.audio_slots,
            slot: Some(control::Slot {
                number: n,
                ssrc: ssrc(1, n),
                rtx_ssrc: 0,
            }),
            ..Default::default()
        });
    }
    if !shape.video.is_empty() {
        let mut codecs = shape.video.clone();
        if shape.rtx {
            codecs
                .iter_mut()
                .for_each(|c| c.rtx_payload_type = c.payload_type + 1);
        }
        for n in 0..shape.video_slots.max(1) {
            let rtx_ssrc = if shape.rtx { ssrc(3, n) } else { 0 };
            media.push(control::Media {
                index: 10 + n,
                mid: format!("v{n}"),
                kind: control::MediaKind::Video.into(),
                codecs: codecs.clone(),
                extensions: vec![extension(4, MID_URI), extension(2, SEND_TIME_URI)],
                receive: n == 0,
                send: n < shape.video_slots,
                slot: Some(control::Slot {
                    number: n,
                    ssrc: ssrc(2, n),
                    rtx_ssrc,
                }),
                ..Default::default()
            });
        }
    }
    control::Leg {
        id: id.into(),
        source,
        cname: "meeting@example".into(),
        transports: vec![control::Transport {
            index: 0,
            rtcp_mux: true,
            ..Default::default()
        }],
        media,
    }
}

impl Bench {
    pub fn new() -> Self {
        let start = Instant::now();
        let clock = WallClock {
            origin: start,
            unix: Duration::from_secs(1_800_000_000),
        };
        let config = MeetingConfig {
            id: "m".into(),
            seed: 7,
            clock,
            video_bitrate: 1_500_000,
        };
        Self {
            meeting: Meeting::new(config),
            now: start,
            start,
            wire: Wire {
                now: Some(start),
                ..Wire::default()
            },
            codecs: Echo::default(),
            keys: BTreeMap::new(),
            audio: BTreeMap::new(),
            video: BTreeMap::new(),
            legs: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// A bench with legs of one shape, named as given, sources from 1 on.
    pub fn with(ids: &[&str], shape: &Shape) -> Self {
        let mut b = Self::new();
        for (i, id) in ids.iter().enumerate() {
            b.join(id, leg(id, i as u32 + 1, shape));
        }
        b
    }

    pub fn request(&self) -> control::ApplyRequest {
        control::ApplyRequest {
            meeting: "m".into(),
            epoch: 1,
            ..Default::default()
        }
    }

    pub fn apply(&mut self, request: &control::ApplyRequest) -> switch_core::Applied {
        self.meeting
            .apply(self.now, request, &mut self.codecs)
            .expect("applies")
    }

    pub fn join(&mut self, id: &str, leg: control::Leg) -> LegKey {
        let request = control::ApplyRequest {
            legs: vec![leg.clone()],
            ..self.request()
        };
        let source = leg.source;
        let applied = self.apply(&request);
        let key = *applied.legs[0].1.as_ref().expect("made");
        self.keys.insert(id.into(), key);
        self.legs.insert(id.into(), leg);
        let sender = |k: u32| Sender {
            ssrc: 0xa000_0000 + source * 16 + k,
            sequence: (source * 9_973 + k * 77) as u16,
            timestamp: source.wrapping_mul(0x1234_5671),
            picture: (source * 700 % 0x8000) as u16,
            tl0: source as u8 * 3,
        };
        self.audio.entry(id.into()).or_insert_with(|| sender(1));
        self.video.entry(id.into()).or_insert_with(|| sender(2));
        key
    }

    pub fn leave(&mut self, id: &str) {
        let request = control::ApplyRequest {
            removed_legs: vec![id.into()],
            ..self.request()
        };
        self.apply(&request);
        self.keys.remove(id);
        self.legs.remove(id);
    }

    pub fn rtp(&mut self, id: &str, bytes: &mut [u8]) {
        let key = self.keys[id];
        self.wire.now = Some(self.now);
        self.meeting
            .handle_rtp(self.now, key, T0, bytes, &mut self.wire, &mut self.codecs);
    }

    pub fn rtcp(&mut self, id: &str, bytes: &[u8]) {
        let key = self.keys[id];
        self.wire.now = Some(self.now);
        self.meeting
            .handle_rtcp(self.now, key, T0, bytes, &mut self.wire);
    }

    /// Goes on in time, with every timer on its way.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        let mut turns = 0;
        while let Some(at) = self.meeting.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.wire.now = Some(self.now);
            self.meeting
                .handle_timeout(self.now, &mut self.wire, &mut self.codecs);
            turns += 1;
            assert!(turns < 10_000, "a timer that never moves");
        }
        self.now = end;
        self.wire.now = Some(end);
        while let Some(e) = self.meeting.poll_event() {
            self.events.extend(e.event);
        }
    }

    pub fn ms(&mut self, ms: u64) {
        self.advance(Duration::from_millis(ms));
    }

    /// An audio packet as the leg's sender makes it; `None` is a packet lost on the way.
    pub fn audio_packet(&mut self, id: &str, pt: u8, samples: u32, level: Option<u8>) -> Vec<u8> {
        let ids = &self.legs[id].media[0].extensions;
        let ext = ids
            .iter()
            .find(|e| e.uri == LEVEL_URI)
            .map_or(0, |e| e.id as u8);
        let s = self.audio.get_mut(id).unwrap();
        s.sequence = s.sequence.wrapping_add(1);
        s.timestamp = s.timestamp.wrapping_add(samples);
        let fixed = Fixed {
            marker: false,
            payload_type: pt,
            sequence: s.sequence,
            timestamp: s.timestamp,
            ssrc: s.ssrc,
            csrc: None,
        };
        let octet = [level.unwrap_or(127)];
        let id_ = if level.is_some() { ext } else { 0 };
        let mut buf = HeaderBuf::default();
        let mut p = buf.write(fixed, &[(id_, &octet)]).to_vec();
        p.extend_from_slice(&[0x78]);
        p.extend_from_slice(id.as_bytes());
        p.extend_from_slice(&s.sequence.to_be_bytes());
        p
    }

    pub fn speak(&mut self, id: &str, level: u8) {
        let mut p = self.audio_packet(id, 111, 960, Some(level));
        self.rtp(id, &mut p);
    }

    /// A VP8 packet: `first` and `last` of the frame; a frame's number counts at its first.
    pub fn vp8_packet(&mut self, id: &str, key: bool, first: bool, last: bool) -> Vec<u8> {
        let s = self.video.get_mut(id).unwrap();
        s.sequence = s.sequence.wrapping_add(1);
        if first {
            s.timestamp = s.timestamp.wrapping_add(3_000);
            s.picture = (s.picture + 1) & 0x7fff;
            s.tl0 = s.tl0.wrapping_add(1);
        }
        let fixed = Fixed {
            marker: last,
            payload_type: 96,
            sequence: s.sequence,
            timestamp: s.timestamp,
            ssrc: s.ssrc,
            csrc: None,
        };
        let mut buf = HeaderBuf::default();
        let mut p = buf.write(fixed, &[]).to_vec();
        let [high, low] = (s.picture | 0x8000).to_be_bytes();
        p.extend_from_slice(&[
            if first { 0x90 } else { 0x80 },
            0xe0,
            high,
            low,
            s.tl0,
            0x20,
        ]);
        p.push(u8::from(!key));
        p.extend_from_slice(id.as_bytes());
        p.extend_from_slice(&s.sequence.to_be_bytes());
        p
    }

    /// A whole frame of `packets`.
    pub fn frame(&mut self, id: &str, key: bool, packets: usize) {
        for n in 0..packets {
            let mut p = self.vp8_packet(id, key, n == 0, n + 1 == packets);
            self.rtp(id, &mut p);
        }
    }

    /// Lets `speaker` talk and all others be silent for so many 20 ms; frames every 40 ms, key frames on request.
    pub fn talk(&mut self, speaker: &str, frames: usize) {
        let ids: Vec<String> = self.keys.keys().cloned().collect();
        for f in 0..frames {
            self.ms(20);
            for id in &ids {
                self.speak(id, if id == speaker { SPEECH } else { SILENCE });
                if f % 2 == 0 && !self.legs[id].media.iter().all(|m| m.index < 10) {
                    let key = self.take_keyframe_request(id);
                    self.frame(id, key, 2);
                }
            }
        }
    }

    /// Whether the leg was asked for a key frame since the last look.
    pub fn take_keyframe_request(&mut self, id: &str) -> bool {
        let key = self.keys[id];
        let ssrc = self.video[id].ssrc;
        let before = self.wire.rtcp.len();
        let asks = |g: &Got| {
            g.leg == key
                && Elements::new(&g.bytes).any(|e| match e {
                    Element::Pli { media } => media == ssrc,
                    Element::Fir { mut entries } => entries.next() == Some(ssrc),
                    _ => false,
                })
        };
        self.wire.rtcp.retain(|g| !asks(g));
        self.wire.rtcp.len() < before
    }

    pub fn nacks_to(&self, id: &str) -> Vec<u16> {
        let key = self.keys[id];
        let mut numbers = Vec::new();
        for g in self.wire.rtcp.iter().filter(|g| g.leg == key) {
            for e in Elements::new(&g.bytes) {
                if let Element::Nack { pairs, .. } = e {
                    numbers.extend(pairs.flat_map(nack_numbers));
                }
            }
        }
        numbers
    }

    /// Packets sent to a leg under an SSRC.
    pub fn stream_to(&self, id: &str, ssrc: u32) -> Vec<Got> {
        let key = self.keys[id];
        let mine = |g: &&Got| g.leg == key && g.view().ssrc() == ssrc;
        self.wire.rtp.iter().filter(mine).cloned().collect()
    }

    pub fn slot_ssrc(&self, id: &str, kind: u32, n: u32) -> u32 {
        self.legs[id].source * 1000 + kind * 100 + n
    }

    /// Who is heard (1) or seen (2) in a slot: the source of its last packet.
    pub fn last_source(&self, id: &str, kind: u32, n: u32) -> Option<u32> {
        self.stream_to(id, self.slot_ssrc(id, kind, n))
            .last()
            .and_then(|g| g.view().csrcs().next())
    }

    pub fn clear(&mut self) {
        self.wire.rtp.clear();
        self.wire.rtcp.clear();
    }

    pub fn kinds(&self, kind: control::leg_event::Kind) -> Vec<control::LegEvent> {
        self.events
            .iter()
            .filter_map(|e| match e {
                control::event::Event::Leg(l) if l.kind() == kind => Some(l.clone()),
                _ => None,
            })
            .collect()
    }
}

/// A decoder's view of one stream: what must hold of every packet, in the order of sending.
pub struct Decoder {
    clock_rate: u32,
    video: bool,
    seen: HashSet<u16>,
    highest: Option<u16>,
    timestamp: Option<(u32, Instant)>,
    source: Option<u32>,
    picture: Option<u16>,
    pub gaps: u64,
    pub switches: u64,
}

impl Decoder {
    pub fn new(video: bool) -> Self {
        Self {
            clock_rate: if video { 90_000 } else { 48_000 },
            video,
            seen: HashSet::new(),
            highest: None,
            timestamp: None,
            source: None,
            picture: None,
            gaps: 0,
            switches: 0,
        }
    }

    /// Checks a packet against all before it.
    pub fn take(&mut self, got: &Got) {
        let v = got.view();
        let source = v.csrcs().next().expect("a CSRC names the talker");
        assert_eq!(v.csrcs().count(), 1);
        let sequence = v.sequence();
        let delta = self.highest.map_or(1, |h| sequence_delta(sequence, h));
        assert!(
            self.seen.insert(sequence),
            "sequence number {sequence} was used twice"
        );
        if self.seen.len() > 20_000 {
            self.seen
                .retain(|s| sequence_delta(sequence, *s).abs() < 5_000);
        }
        if delta <= 0 {
            assert_eq!(
                Some(source),
                self.source,
                "a late packet of the source before"
            );
            return;
        }
        assert!(delta < 200, "a jump of {delta}");
        self.gaps += (delta - 1) as u64;
        self.highest = Some(sequence);
        let changed = self.source != Some(source);
        if changed {
            assert_eq!(delta, 1, "a change of source leaves no gap");
            self.switches += 1;
        }
        if let Some((last, at)) = self.timestamp {
            let step = v.timestamp().wrapping_sub(last) as i32;
            assert!(step >= 0, "the timestamp went back by {}", -step);
            let wall = got.at.duration_since(at).as_secs_f64() * f64::from(self.clock_rate);
            let slack = f64::from(self.clock_rate) * 0.25;
            assert!(
                (f64::from(step) - wall).abs() < slack,
                "{step} ticks in {wall} of wall time"
            );
        }
        self.timestamp = Some((v.timestamp(), got.at));
        if self.video {
            self.take_picture(&v, changed, delta);
        } else if changed {
            assert!(v.marker(), "audio marks a change");
        }
        self.source = Some(source);
    }

    fn take_picture(&mut self, v: &RtpView<'_>, changed: bool, delta: i32) {
        let p = v.payload();
        let picture = u16::from_be_bytes([p[2] & 0x7f, p[3]]);
        let first = p[0] & 0x10 != 0;
        if changed {
            assert!(first && p[6] & 1 == 0, "a change begins with a key frame");
        }
        if let Some(last) = self.picture {
            let step = picture.wrapping_sub(last) & 0x7fff;
            if changed || (delta == 1 && first) {
                assert_eq!(step, 1, "picture ids go on one by one");
            } else if delta == 1 {
                assert_eq!(step, 0, "the packets of a picture share its id");
            }
        }
        self.picture = Some(picture);
    }

    pub fn source(&self) -> Option<u32> {
        self.source
    }
}

impl Bench {
    /// Only `speaker` sends audio, nobody video.
    pub fn talk_only(&mut self, speaker: &str, frames: usize) {
        for _ in 0..frames {
            self.ms(20);
            self.speak(speaker, SPEECH);
        }
    }
}
