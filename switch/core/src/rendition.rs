//! Renditions: a speaker's audio in a codec that some listeners need.
//!
//! One decoder a source, one encoder a source and target, whoever listens: the cost grows with speakers, never
//! with listeners.
//!
//! ```text
//! packet ─► reorder (at most PATIENCE packets) ─► decode or conceal ─► level
//!                                                       │
//!                              8 or 16 kHz linear audio, cut into 20 ms
//!                                                       │
//!                                  one encoder a target ─► frames to poll
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::codec::resample::HalfBand;
use crate::codec::{self, Decoder, Encoder, MOST_SAMPLES, linear_rate};
use crate::{AudioCodec, Level, MediaFrame, RenditionFrame, SourceId, Transcoder};

/// Packets that may overtake a missing one before it counts as lost. Raising it hides more reordering and adds
/// 20 ms of delay each, to renditions with loss only.
const PATIENCE: usize = 3;

/// How long a packet waits for one before it, where no more follow: a talkspurt's end.
const LONGEST_WAIT: Duration = Duration::from_millis(80);

/// Lost packets made up for in a row; after more the stream starts anew, with a marker.
const MOST_CONCEALED: u16 = 5;

/// Frames waiting for `poll`; beyond it the oldest is dropped (nobody polls: our bug, but bounded).
const MOST_WAITING: usize = 64;

/// Largest encoded frame, octets (G.711: 160; Opus at our bitrate far less).
const MOST_OCTETS: usize = 400;

/// A packet that came too early.
#[derive(Debug)]
struct Early {
    at: Instant,
    sequence: u16,
    timestamp: u32,
    payload: Vec<u8>,
}

/// One target codec of a source.
#[derive(Debug)]
struct Target {
    codec: AudioCodec,
    encoder: Encoder,
    /// From the source's rate to the target's, where they differ.
    resampler: HalfBand,
    /// Linear audio at the target's rate, not yet a whole frame.
    pending: Vec<i16>,
    rate: usize,
    sequence: u16,
    timestamp: u32,
    marker: bool,
}

impl Target {
    fn new(codec: AudioCodec, source_rate: usize) -> Result<Self, codec::CodecError> {
        // Opus takes either rate; the others only their own
        let rate = if codec == AudioCodec::Opus {
            source_rate
        } else {
            linear_rate(codec)
        };
        Ok(Self {
            codec,
            encoder: Encoder::new(codec, rate)?,
            resampler: HalfBand::default(),
            pending: Vec::with_capacity(2 * MOST_SAMPLES),
            rate,
            sequence: 0,
            timestamp: 0,
            marker: true,
        })
    }

    /// Silence of `samples` at `rate` was not sent: the clock goes on, and what comes next begins a talkspurt.
    fn skip(&mut self, samples: usize, rate: usize) {
        self.pending.clear();
        self.timestamp = self
            .timestamp
            .wrapping_add(codec::ticks(self.codec, samples, rate));
        self.marker = true;
    }
}

/// A source of which renditions, or a level, are wanted.
#[derive(Debug)]
struct Source {
    codec: AudioCodec,
    decoder: Decoder,
    targets: Vec<Target>,
    /// Sequence number and timestamp that come next; `None` before the first packet.
    expected: Option<(u16, u32)>,
    early: Vec<Early>,
    /// Last decoded packet, for concealment and for the level of a sender that says none.
    last: Vec<i16>,
}

impl Source {
    fn new(codec: AudioCodec) -> Result<Self, codec::CodecError> {
        Ok(Self {
            codec,
            decoder: Decoder::new(codec)?,
            targets: Vec::new(),
            expected: None,
            early: Vec::new(),
            last: Vec::new(),
        })
    }

    fn rate(&self) -> usize {
        linear_rate(self.codec)
    }
}

#[derive(Debug)]
struct Encoded {
    source: SourceId,
    codec: AudioCodec,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    octets: [u8; MOST_OCTETS],
    length: usize,
}

/// All renditions of one meeting.
#[derive(Debug, Default)]
pub struct Renditions {
    sources: BTreeMap<SourceId, Source>,
    /// Decoders of senders that say no level themselves.
    levels: BTreeMap<SourceId, (AudioCodec, Decoder)>,
    waiting: VecDeque<Encoded>,
    /// What `poll` lends out.
    current: Option<Encoded>,
    pcm: Vec<i16>,
    made: BTreeMap<(SourceId, AudioCodec), u64>,
}

impl Renditions {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pcm: vec![0; MOST_SAMPLES],
            ..Self::default()
        }
    }

    /// Source, target codec and frames made so far, of every rendition there is.
    pub fn view(&self) -> impl Iterator<Item = (SourceId, AudioCodec, u64)> + '_ {
        self.sources.iter().flat_map(|(id, source)| {
            source.targets.iter().map(|t| {
                (
                    *id,
                    t.codec,
                    self.made.get(&(*id, t.codec)).copied().unwrap_or(0),
                )
            })
        })
    }

    /// In order, or made to be: takes in what is due and conceals what will not come.
    fn accept(&mut self, now: Instant, id: SourceId, frame: &MediaFrame<'_>) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let Some((expected, _)) = source.expected else {
            self.decode(id, frame.sequence, frame.timestamp, frame.payload);
            return;
        };
        match frame.sequence.wrapping_sub(expected) {
            0 => self.decode(id, frame.sequence, frame.timestamp, frame.payload),
            ahead if ahead < 0x8000 => {
                if source.early.len() < 2 * PATIENCE
                    && !source.early.iter().any(|e| e.sequence == frame.sequence)
                {
                    source.early.push(Early {
                        at: now,
                        sequence: frame.sequence,
                        timestamp: frame.timestamp,
                        payload: frame.payload.to_vec(),
                    });
                }
            }
            _ => return, // late or doubled
        }
        self.drain_early(now, id);
    }

    fn drain_early(&mut self, now: Instant, id: SourceId) {
        loop {
            let Some(source) = self.sources.get_mut(&id) else {
                return;
            };
            let Some((expected, _)) = source.expected else {
                return;
            };
            source
                .early
                .retain(|e| e.sequence.wrapping_sub(expected) < 0x8000);
            let next = source
                .early
                .iter()
                .enumerate()
                .min_by_key(|(_, e)| e.sequence.wrapping_sub(expected));
            let Some((index, first)) = next else { return };
            let missing = first.sequence.wrapping_sub(expected);
            let waited = now.saturating_duration_since(first.at) >= LONGEST_WAIT;
            if missing > 0 && source.early.len() <= PATIENCE && !waited {
                return; // it may still come
            }
            let early = source.early.swap_remove(index);
            if missing > 0 {
                self.conceal(id, missing, &early.payload);
            }
            self.decode(id, early.sequence, early.timestamp, &early.payload);
        }
    }

    fn conceal(&mut self, id: SourceId, missing: u16, next: &[u8]) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        if missing > MOST_CONCEALED || source.last.is_empty() {
            return; // the timestamp tells decode() how long it was
        }
        let samples = source.last.len();
        for lost in 0..missing {
            let redundancy = (lost + 1 == missing && !next.is_empty()).then_some(next);
            let got = source
                .decoder
                .conceal(redundancy, samples, &source.last, &mut self.pcm);
            if let Some((_, timestamp)) = &mut source.expected {
                *timestamp = timestamp.wrapping_add(codec::ticks(
                    source.codec,
                    got,
                    linear_rate(source.codec),
                ));
            }
            encode(
                source,
                id,
                &self.pcm[..got],
                &mut self.waiting,
                &mut self.made,
            );
        }
    }

    fn decode(&mut self, id: SourceId, sequence: u16, timestamp: u32, payload: &[u8]) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        if payload.is_empty() {
            if let Some((expected, _)) = &mut source.expected {
                *expected = sequence.wrapping_add(1);
            }
            return;
        }
        let rate = source.rate();
        if let Some((_, due)) = source.expected {
            // what the sender left out (DTX) or we could not conceal
            let gap = timestamp.wrapping_sub(due);
            if gap > 0 && gap < source.codec.clock_rate() * 600 {
                let samples =
                    (u64::from(gap) * rate as u64 / u64::from(source.codec.clock_rate())) as usize;
                for target in &mut source.targets {
                    target.skip(samples, rate);
                }
            }
        }
        let samples = source.decoder.decode(payload, &mut self.pcm).unwrap_or(0);
        source.expected = Some((
            sequence.wrapping_add(1),
            timestamp.wrapping_add(codec::ticks(source.codec, samples, rate)),
        ));
        if samples == 0 {
            return;
        }
        source.last.clear();
        source.last.extend_from_slice(&self.pcm[..samples]);
        encode(
            source,
            id,
            &self.pcm[..samples],
            &mut self.waiting,
            &mut self.made,
        );
    }
}

/// Gives decoded audio to every target; whole frames of 20 ms come out.
fn encode(
    source: &mut Source,
    id: SourceId,
    pcm: &[i16],
    waiting: &mut VecDeque<Encoded>,
    made: &mut BTreeMap<(SourceId, AudioCodec), u64>,
) {
    let rate = source.rate();
    for target in &mut source.targets {
        match (rate, target.rate) {
            (16_000, 8_000) => target.resampler.down(pcm, &mut target.pending),
            (8_000, 16_000) => target.resampler.up(pcm, &mut target.pending),
            _ => target.pending.extend_from_slice(pcm),
        }
        let frame = target.rate / 50;
        let whole = target.pending.len() / frame * frame;
        for piece in target.pending[..whole].chunks_exact(frame) {
            let mut octets = [0; MOST_OCTETS];
            if let Ok(length) = target.encoder.encode(piece, &mut octets) {
                if waiting.len() == MOST_WAITING {
                    waiting.pop_front();
                }
                waiting.push_back(Encoded {
                    source: id,
                    codec: target.codec,
                    sequence: target.sequence,
                    timestamp: target.timestamp,
                    marker: target.marker,
                    octets,
                    length,
                });
                *made.entry((id, target.codec)).or_default() += 1;
                target.sequence = target.sequence.wrapping_add(1);
                target.marker = false;
            }
            target.timestamp =
                target
                    .timestamp
                    .wrapping_add(codec::ticks(target.codec, frame, target.rate));
        }
        target.pending.drain(..whole);
    }
}

impl Transcoder for Renditions {
    fn want(&mut self, source: SourceId, targets: &[AudioCodec]) {
        if targets.is_empty() {
            self.sources.remove(&source);
            self.made.retain(|(id, _), _| *id != source);
            return;
        }
        // the codec is not known before the first packet: PCMU stands in, `push` puts it right
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.sources.entry(source) {
            let Ok(new) = Source::new(AudioCodec::Pcmu) else {
                return;
            };
            vacant.insert(new);
        }
        let Some(state) = self.sources.get_mut(&source) else {
            return;
        };
        let rate = state.rate();
        state.targets.retain(|t| targets.contains(&t.codec));
        for codec in targets {
            if !state.targets.iter().any(|t| t.codec == *codec)
                && let Ok(target) = Target::new(*codec, rate)
            {
                state.targets.push(target);
            }
        }
    }

    fn push(&mut self, now: Instant, frame: MediaFrame<'_>) {
        let Some(source) = self.sources.get_mut(&frame.source) else {
            return;
        };
        if frame.codec != source.codec {
            // another codec: decoder and rates anew; each rendition keeps its count and its clock
            let Ok(mut fresh) = Source::new(frame.codec) else {
                return;
            };
            for old in &source.targets {
                let Ok(mut target) = Target::new(old.codec, fresh.rate()) else {
                    continue;
                };
                target.sequence = old.sequence;
                target.timestamp = old.timestamp;
                fresh.targets.push(target);
            }
            *source = fresh;
        } else if frame.restart {
            source.expected = None;
            source.early.clear();
            for target in &mut source.targets {
                target.marker = true;
            }
        }
        self.accept(now, frame.source, &frame);
    }

    fn poll(&mut self, now: Instant) -> Option<RenditionFrame<'_>> {
        if self.waiting.is_empty() {
            let late = |e: &Early| now.saturating_duration_since(e.at) >= LONGEST_WAIT;
            let due = |(id, s): (&SourceId, &Source)| s.early.iter().any(late).then_some(*id);
            if let Some(id) = self.sources.iter().find_map(due) {
                self.drain_early(now, id);
            }
        }
        self.current = self.waiting.pop_front();
        self.current.as_ref().map(|e| RenditionFrame {
            source: e.source,
            codec: e.codec,
            sequence: e.sequence,
            timestamp: e.timestamp,
            marker: e.marker,
            payload: &e.octets[..e.length],
        })
    }

    fn level(&mut self, source: SourceId, codec: AudioCodec, payload: &[u8]) -> Option<Level> {
        let decoded = self.sources.get(&source).filter(|s| s.codec == codec);
        if let Some(decoded) = decoded.filter(|s| !s.last.is_empty()) {
            self.levels.remove(&source); // it would miss what comes meanwhile
            return Some(Level::new(codec::dbov(&decoded.last), false));
        }
        let known = self.levels.get(&source).is_some_and(|(c, _)| *c == codec);
        if !known {
            self.levels
                .insert(source, (codec, Decoder::new(codec).ok()?));
        }
        let (_, decoder) = self.levels.get_mut(&source)?;
        let samples = decoder.decode(payload, &mut self.pcm).ok()?;
        let level = codec::dbov(&self.pcm[..samples]);
        Some(Level::new(level, false))
    }

    fn forget(&mut self, source: SourceId) {
        self.sources.remove(&source);
        self.levels.remove(&source);
        self.waiting.retain(|e| e.source != source);
        self.made.retain(|(id, _), _| *id != source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKER: SourceId = SourceId(7);

    fn tone(i: usize, rate: usize) -> i16 {
        (8000.0 * (std::f64::consts::TAU * 400.0 * i as f64 / rate as f64).sin()) as i16
    }

    /// A sender of 20 ms packets of a tone.
    struct Sender {
        codec: AudioCodec,
        encoder: Encoder,
        at: usize,
        sequence: u16,
        timestamp: u32,
    }

    impl Sender {
        fn new(codec: AudioCodec) -> Self {
            let encoder = Encoder::new(codec, linear_rate(codec)).expect("an encoder");
            Self {
                codec,
                encoder,
                at: 0,
                sequence: 65_530,
                timestamp: u32::MAX - 1000,
            }
        }

        fn next(&mut self) -> (u16, u32, Vec<u8>) {
            let rate = linear_rate(self.codec);
            let pcm: Vec<i16> = (self.at..self.at + rate / 50)
                .map(|i| tone(i, rate))
                .collect();
            self.at += rate / 50;
            let mut octets = vec![0; 1500];
            let length = self.encoder.encode(&pcm, &mut octets).expect("20 ms");
            octets.truncate(length);
            let packet = (self.sequence, self.timestamp, octets);
            self.sequence = self.sequence.wrapping_add(1);
            self.timestamp = self.timestamp.wrapping_add(self.codec.clock_rate() / 50);
            packet
        }
    }

    fn push(
        renditions: &mut Renditions,
        codec: AudioCodec,
        (sequence, timestamp, payload): &(u16, u32, Vec<u8>),
    ) {
        let frame = MediaFrame {
            source: SPEAKER,
            codec,
            sequence: *sequence,
            timestamp: *timestamp,
            restart: false,
            payload,
        };
        renditions.push(Instant::now(), frame);
    }

    /// Everything polled of one target: (sequence, timestamp, marker, payload).
    fn drain(renditions: &mut Renditions, codec: AudioCodec) -> Vec<(u16, u32, bool, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(f) = renditions.poll(Instant::now()) {
            if f.codec == codec {
                frames.push((f.sequence, f.timestamp, f.marker, f.payload.to_vec()));
            }
        }
        frames
    }

    #[test]
    fn every_codec_is_heard_in_every_other() {
        let all = [
            AudioCodec::Opus,
            AudioCodec::G722,
            AudioCodec::Pcmu,
            AudioCodec::Pcma,
        ];
        for from in all {
            for to in all.into_iter().filter(|to| *to != from) {
                let mut renditions = Renditions::new();
                renditions.want(SPEAKER, &[to]);
                let mut sender = Sender::new(from);
                for _ in 0..50 {
                    push(&mut renditions, from, &sender.next());
                }
                let frames = drain(&mut renditions, to);
                assert!(
                    (49..=50).contains(&frames.len()),
                    "{from:?} to {to:?}: {} frames",
                    frames.len()
                );
                assert!(
                    frames[0].2 && frames[1..].iter().all(|f| !f.2),
                    "marker on the first only"
                );
                let mut decoder = Decoder::new(to).expect("a decoder");
                let mut pcm = [0; MOST_SAMPLES];
                for (i, (sequence, timestamp, _, payload)) in frames.iter().enumerate() {
                    assert_eq!(usize::from(*sequence), i);
                    assert_eq!(*timestamp, i as u32 * to.clock_rate() / 50);
                    let samples = decoder.decode(payload, &mut pcm).expect("decodes");
                    assert_eq!(samples, linear_rate(to) / 50);
                    let level = codec::dbov(&pcm[..samples]);
                    assert!(
                        i < 8 || (10..=20).contains(&level),
                        "{from:?} to {to:?}, frame {i}: -{level} dBov"
                    );
                }
            }
        }
    }

    #[test]
    fn reordered_packets_come_out_in_order_and_doubled_ones_once() {
        let mut renditions = Renditions::new();
        renditions.want(SPEAKER, &[AudioCodec::Opus]);
        let mut sender = Sender::new(AudioCodec::Pcmu);
        let packets: Vec<_> = (0..6).map(|_| sender.next()).collect();
        for i in [0, 2, 1, 1, 3, 5, 4, 0] {
            push(&mut renditions, AudioCodec::Pcmu, &packets[i]);
        }
        let frames = drain(&mut renditions, AudioCodec::Opus);
        assert_eq!(
            frames.iter().map(|f| f.1).collect::<Vec<_>>(),
            [0, 960, 1920, 2880, 3840, 4800]
        );
    }

    #[test]
    fn a_talkspurt_s_end_does_not_wait_for_a_packet_lost_before_it() {
        let mut renditions = Renditions::new();
        renditions.want(SPEAKER, &[AudioCodec::Pcma]);
        let mut sender = Sender::new(AudioCodec::Pcmu);
        for lost in [false, true, false] {
            let packet = sender.next();
            if !lost {
                push(&mut renditions, AudioCodec::Pcmu, &packet);
            }
        }
        assert_eq!(drain(&mut renditions, AudioCodec::Pcma).len(), 1);
        let later = Instant::now() + LONGEST_WAIT;
        let mut rest = 0;
        while renditions.poll(later).is_some() {
            rest += 1;
        }
        assert_eq!(rest, 2, "the lost one made up for, and the last");
    }

    #[test]
    fn a_lost_packet_is_made_up_for_and_the_clock_goes_on() {
        for codec in [AudioCodec::Pcmu, AudioCodec::Opus] {
            let mut renditions = Renditions::new();
            renditions.want(SPEAKER, &[AudioCodec::Pcma]);
            let mut sender = Sender::new(codec);
            for i in 0..20 {
                let packet = sender.next();
                if i != 10 {
                    push(&mut renditions, codec, &packet);
                }
            }
            let frames = drain(&mut renditions, AudioCodec::Pcma);
            assert_eq!(frames.len(), 20, "{codec:?}");
            assert_eq!(frames.last().expect("frames").1, 19 * 160);
            assert_eq!(frames.iter().filter(|f| f.2).count(), 1);
        }
    }

    #[test]
    fn a_pressed_key_holds_nothing_up_and_is_not_made_up_for() {
        let mut renditions = Renditions::new();
        renditions.want(SPEAKER, &[AudioCodec::Pcma]);
        let mut sender = Sender::new(AudioCodec::Pcmu);
        push(&mut renditions, AudioCodec::Pcmu, &sender.next());
        let pressed = sender.timestamp;
        for _ in 0..4 {
            let (sequence, _, _) = sender.next();
            push(
                &mut renditions,
                AudioCodec::Pcmu,
                &(sequence, pressed, vec![]),
            );
        }
        push(&mut renditions, AudioCodec::Pcmu, &sender.next());
        let frames = drain(&mut renditions, AudioCodec::Pcma);
        let times: Vec<_> = frames.iter().map(|f| (f.1, f.2)).collect();
        assert_eq!(times, [(0, true), (5 * 160, true)]);
    }

    #[test]
    fn a_level_comes_from_the_audio_that_a_rendition_decodes_anyway() {
        let mut renditions = Renditions::new();
        renditions.want(SPEAKER, &[AudioCodec::Pcma]);
        let mut sender = Sender::new(AudioCodec::Opus);
        for _ in 0..20 {
            let packet = sender.next();
            push(&mut renditions, AudioCodec::Opus, &packet);
            let level = renditions.level(SPEAKER, AudioCodec::Opus, &packet.2);
            assert!(level.is_some());
            assert!(renditions.levels.is_empty(), "decoded a second time");
        }
        let loud = renditions.level(SPEAKER, AudioCodec::Opus, &[]);
        assert!(loud.is_some_and(|level| level.dbov() < 30));
    }

    #[test]
    fn silence_that_was_not_sent_advances_the_clock_and_sets_the_marker() {
        let mut renditions = Renditions::new();
        renditions.want(SPEAKER, &[AudioCodec::Opus]);
        let mut sender = Sender::new(AudioCodec::Pcmu);
        push(&mut renditions, AudioCodec::Pcmu, &sender.next());
        sender.timestamp = sender.timestamp.wrapping_add(8000);
        push(&mut renditions, AudioCodec::Pcmu, &sender.next());
        let frames = drain(&mut renditions, AudioCodec::Opus);
        assert_eq!(frames[1].1 - frames[0].1, 48_000 + 960);
        assert!(frames[1].2);
    }

    #[test]
    fn nothing_is_kept_of_a_source_nobody_needs() {
        let mut renditions = Renditions::new();
        renditions.want(SPEAKER, &[AudioCodec::Opus, AudioCodec::G722]);
        let packet = Sender::new(AudioCodec::Pcmu).next();
        push(&mut renditions, AudioCodec::Pcmu, &packet);
        assert_eq!(renditions.view().count(), 2);
        assert!(
            renditions
                .level(SPEAKER, AudioCodec::Pcmu, &packet.2)
                .is_some()
        );
        renditions.want(SPEAKER, &[]);
        assert_eq!(renditions.view().count(), 0);
        renditions.forget(SPEAKER);
        assert!(
            renditions.levels.is_empty()
                && renditions.waiting.is_empty()
                && renditions.made.is_empty()
        );
    }

    #[test]
    fn a_level_is_read_from_each_codec() {
        for codec in [
            AudioCodec::Opus,
            AudioCodec::G722,
            AudioCodec::Pcmu,
            AudioCodec::Pcma,
        ] {
            let mut renditions = Renditions::new();
            let mut sender = Sender::new(codec);
            let levels: Vec<u8> = (0..20)
                .filter_map(|_| renditions.level(SPEAKER, codec, &sender.next().2))
                .map(Level::dbov)
                .collect();
            assert_eq!(levels.len(), 20);
            assert!(
                (10..=20).contains(levels.last().expect("levels")),
                "{codec:?}: {levels:?}"
            );
        }
    }
}
