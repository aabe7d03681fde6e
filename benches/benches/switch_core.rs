//! The switch's path of a packet, piece by piece: header view, rewrite for one and for many
//! listeners, speaker decision, RTCP in and out, and the handshake before all of it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use switch_core::dtls::{Association, Event, Fingerprint, Identity, Role};
use switch_core::rtcp::{CompoundBuf, Elements, ReportBlock};
use switch_core::rtp::{Fixed, HeaderBuf, RtpView};
use switch_core::speaker::{SpeakerConfig, SpeakerDetector};
use switch_core::{
    AudioCodec, Egress, LegKey, Level, MediaFrame, Meeting, MeetingConfig, RenditionFrame, RtpOut,
    SourceId, Transcoder, TransportIndex, WallClock,
};

const LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const T0: TransportIndex = TransportIndex(0);
const SPEECH: Level = Level::new(26, true);
const SILENCE: Level = Level::new(70, false);

fn packet(sequence: u16, pt: u8, ssrc: u32, level: Level, payload: &[u8]) -> Vec<u8> {
    let fixed = Fixed {
        marker: false,
        payload_type: pt,
        sequence,
        timestamp: u32::from(sequence) * 960,
        ssrc,
        csrc: None,
    };
    let mut p = HeaderBuf::default()
        .write(
            fixed,
            &[
                (1, &[level.octet()]),
                (4, if pt == 96 { b"1" } else { b"0" }),
            ],
        )
        .to_vec();
    p.extend_from_slice(payload);
    p
}

fn header_view(c: &mut Criterion) {
    let p = packet(7, 111, 5, SPEECH, &[0; 160]);
    let mut group = c.benchmark_group("rtp_header_view");
    group.bench_function("parse", |b| {
        b.iter(|| {
            let v = RtpView::parse(black_box(&p)).expect("good");
            (
                v.sequence(),
                v.timestamp(),
                v.ssrc(),
                v.payload_type(),
                v.payload().len(),
            )
        });
    });
    group.bench_function("parse_and_level", |b| {
        b.iter(|| {
            RtpView::parse(black_box(&p))
                .expect("good")
                .extension(1)
                .map(|d| d[0])
        });
    });
    group.finish();
}

/// Takes packets as a send batch does: copies the parts.
struct Batch {
    room: Box<[u8; 2_048]>,
    packets: u64,
}

impl Egress for Batch {
    fn rtp(&mut self, _: LegKey, _: TransportIndex, p: RtpOut<'_>) {
        let (h, d) = (p.header.len(), p.prefix.len());
        self.room[..h].copy_from_slice(p.header);
        self.room[h..h + d].copy_from_slice(p.prefix);
        self.room[h + d..p.len()].copy_from_slice(p.payload);
        self.packets += 1;
        black_box(&self.room);
    }

    fn rtcp(&mut self, _: LegKey, _: TransportIndex, _: &[u8]) {}
}

struct NoCodecs;

impl Transcoder for NoCodecs {
    fn want(&mut self, _: SourceId, _: &[AudioCodec]) {}
    fn push(&mut self, _: Instant, _: MediaFrame<'_>) {}
    fn poll(&mut self, _: Instant) -> Option<RenditionFrame<'_>> {
        None
    }
    fn level(&mut self, _: SourceId, _: AudioCodec, _: &[u8]) -> Option<Level> {
        None
    }
    fn forget(&mut self, _: SourceId) {}
}

fn media(index: u32, kind: control::MediaKind, codec: control::Codec, ssrc: u32) -> control::Media {
    let ext = |id, uri: &str| control::HeaderExtension {
        id,
        uri: uri.into(),
        ..Default::default()
    };
    control::Media {
        index,
        mid: index.to_string(),
        kind: kind.into(),
        codecs: vec![codec],
        extensions: vec![ext(1, LEVEL), ext(4, MID)],
        receive: true,
        send: true,
        slot: Some(control::Slot {
            number: 0,
            ssrc,
            rtx_ssrc: 0,
        }),
        ..Default::default()
    }
}

/// A meeting of a speaker and so many listeners, the speaker heard and seen by all.
fn meeting(listeners: u32) -> (Meeting, Instant, LegKey) {
    let now = Instant::now();
    let clock = WallClock {
        origin: now,
        unix: Duration::from_secs(1_800_000_000),
    };
    let config = MeetingConfig {
        id: "m".into(),
        seed: 1,
        clock,
        video_bitrate: 1_000_000,
    };
    let mut meeting = Meeting::new(config);
    let codec = |pt, name: &str, clock| control::Codec {
        payload_type: pt,
        name: name.into(),
        clock_rate: clock,
        ..Default::default()
    };
    let legs = (1..=listeners + 1)
        .map(|source| control::Leg {
            id: format!("l{source}"),
            source,
            cname: "m".into(),
            transports: vec![control::Transport::default()],
            media: vec![
                media(
                    0,
                    control::MediaKind::Audio,
                    codec(111, "opus", 48_000),
                    source * 10,
                ),
                media(
                    1,
                    control::MediaKind::Video,
                    codec(96, "VP8", 90_000),
                    source * 10 + 1,
                ),
            ],
        })
        .collect();
    let request = control::ApplyRequest {
        meeting: "m".into(),
        epoch: 1,
        legs,
        ..Default::default()
    };
    let applied = meeting
        .apply(now, &request, &mut NoCodecs)
        .expect("applies");
    let speaker = *applied.legs[0].1.as_ref().expect("made");
    (meeting, now, speaker)
}

fn vp8(sequence: u16, key: bool, len: usize) -> Vec<u8> {
    let mut payload = vec![0; len];
    let [h, l] = (sequence | 0x8000).to_be_bytes();
    payload[..7].copy_from_slice(&[0x90, 0xe0, h, l, sequence as u8, 0x20, u8::from(!key)]);
    packet(sequence, 96, 6, SILENCE, &payload)
}

/// From the received packet to the send batch, without sealing: divide by the listeners for one copy.
fn rewrite(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward");
    for listeners in [1u32, 10, 100, 500] {
        group.throughput(Throughput::Elements(u64::from(listeners)));
        for video in [false, true] {
            let (mut m, start, speaker) = meeting(listeners);
            let mut out = Batch {
                room: Box::new([0; 2_048]),
                packets: 0,
            };
            let mut now = start;
            let mut sequence = 0u16;
            let mut next = |m: &mut Meeting, out: &mut Batch, video: bool, key: bool| {
                sequence = sequence.wrapping_add(1);
                now += Duration::from_millis(20);
                let p = if video {
                    vp8(sequence, key, 1_100)
                } else {
                    packet(sequence, 111, 5, SPEECH, &[0x78; 160])
                };
                m.handle_rtp(now, speaker, T0, &p, out, &mut NoCodecs);
            };
            for _ in 0..3 {
                next(&mut m, &mut out, video, true);
            }
            assert!(out.packets >= u64::from(listeners), "they are fed");
            let name = if video { "vp8_1100" } else { "opus_160" };
            group.bench_function(BenchmarkId::new(name, listeners), |b| {
                b.iter(|| next(&mut m, &mut out, video, false));
            });
        }
    }
    group.finish();
}

fn speakers(c: &mut Criterion) {
    let mut group = c.benchmark_group("speaker");
    for participants in [10u32, 100, 1_000] {
        let start = Instant::now();
        let mut detector = SpeakerDetector::new(SpeakerConfig::default());
        (1..=participants).for_each(|p| detector.add(SourceId(p)));
        let mut now = start;
        // Ten talk, the others are there.
        for f in 0..100u32 {
            now += Duration::from_millis(20);
            for p in 1..=participants {
                let loud = p <= 10 && (f / 3 + p) % 4 != 0;
                detector.on_level(now, SourceId(p), if loud { SPEECH } else { SILENCE });
            }
        }
        group.bench_function(BenchmarkId::new("level", participants), |b| {
            let mut p = 0;
            b.iter(|| {
                p = p % participants + 1;
                if p == 1 {
                    now += Duration::from_millis(20);
                }
                let level = if p <= 10 { SPEECH } else { SILENCE };
                detector.on_level(now, SourceId(black_box(p)), level)
            });
        });
        group.bench_function(BenchmarkId::new("decision_ten_active", participants), |b| {
            for p in 1..=10.min(participants) {
                detector.on_level(now, SourceId(p), SPEECH);
            }
            b.iter_batched(
                || (),
                |()| detector.decide(black_box(now)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// What a listener sends once a second, and what comes when packets were lost.
fn rtcp(c: &mut Criterion) {
    let block = ReportBlock {
        ssrc: 10,
        highest: 70_000,
        ..Default::default()
    };
    let report = |buf: &mut CompoundBuf| {
        buf.clear();
        buf.receiver_report(5, black_box(&[block, block])) && buf.cname(5, "listener@example")
    };
    let mut group = c.benchmark_group("rtcp");
    let mut buf = CompoundBuf::default();
    group.bench_function("write_receiver_report", |b| b.iter(|| report(&mut buf)));
    assert!(report(&mut buf), "fits");
    group.bench_function("parse_receiver_report", |b| {
        b.iter(|| Elements::new(black_box(buf.bytes())).count());
    });
    let (mut m, now, speaker) = meeting(10);
    let mut out = Batch {
        room: Box::new([0; 2_048]),
        packets: 0,
    };
    group.bench_function("handle_receiver_report", |b| {
        b.iter(|| m.handle_rtcp(now, speaker, T0, black_box(buf.bytes()), &mut out));
    });
    // A second of a meeting with nobody talking: its sweeps, and a report to and about every leg.
    for listeners in [10, 100] {
        let (mut m, mut now, _) = meeting(listeners);
        group.bench_function(BenchmarkId::new("second_of_reports", listeners + 1), |b| {
            b.iter(|| {
                let end = now + Duration::from_secs(1);
                while let Some(next) = m.poll_timeout().filter(|next| *next <= end) {
                    now = now.max(next);
                    m.handle_timeout(now, &mut out, &mut NoCodecs);
                }
                now = end;
            });
        });
    }
    group.finish();
}

/// Both sides of a DTLS handshake with certificates on P-256, from the ClientHello to the keys of SRTP.
fn dtls(c: &mut Criterion) {
    let (client, server) = (identity(), identity());
    let expect = |of: &Identity| vec![Fingerprint::new("SHA-256", of.fingerprint()).expect("made")];
    c.bench_function("dtls_handshake", |b| {
        b.iter(|| {
            let now = Instant::now();
            let mut a = Association::new(&client, Role::Client, expect(&server)).expect("made");
            let mut b = Association::new(&server, Role::Server, expect(&client)).expect("made");
            let mut keys = 0;
            let mut count = |event: Option<Event>| {
                keys += usize::from(matches!(event, Some(Event::Connected(_))));
            };
            count(a.start(now));
            loop {
                let mut quiet = true;
                while let Some(datagram) = a.poll_transmit() {
                    quiet = false;
                    count(b.handle_datagram(&datagram, now));
                }
                while let Some(datagram) = b.poll_transmit() {
                    quiet = false;
                    count(a.handle_datagram(&datagram, now));
                }
                if quiet {
                    break;
                }
            }
            assert_eq!(keys, 2, "both have keys");
        });
    });
}

fn identity() -> Identity {
    Identity::generate().expect("made")
}

criterion_group!(benches, header_view, rewrite, speakers, rtcp, dtls);
criterion_main!(benches);
