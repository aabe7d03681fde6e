//! A meeting that is sent anything: packets of two legs, with time passing between.
//! Seeds: fuzz-seeds/rtp, fuzz-seeds/rtcp
#![cfg_attr(fuzzing, no_main)]

use std::time::{Duration, Instant};

use switch_core::rtp::RtpView;
use switch_core::{
    AudioCodec, Egress, LegKey, Level, MediaFrame, Meeting, MeetingConfig, RenditionFrame, RtpOut,
    SourceId, Transcoder, TransportIndex, WallClock,
};

struct Check;

impl Egress for Check {
    fn rtp(&mut self, _: LegKey, _: TransportIndex, p: RtpOut<'_>) {
        let v = RtpView::parse(p.header).expect("headers sent are sound");
        assert_eq!(v.csrcs().count(), 1);
    }

    fn rtcp(&mut self, _: LegKey, _: TransportIndex, compound: &[u8]) {
        assert!(compound.len().is_multiple_of(4) && compound.len() <= 1_200);
    }
}

struct Loud;

impl Transcoder for Loud {
    fn want(&mut self, _: SourceId, _: &[AudioCodec]) {}
    fn push(&mut self, _: Instant, _: MediaFrame<'_>) {}
    fn poll(&mut self, _: Instant) -> Option<RenditionFrame<'_>> {
        None
    }
    fn level(&mut self, _: SourceId, _: AudioCodec, payload: &[u8]) -> Option<Level> {
        Some(Level::from_octet(payload.first().copied().unwrap_or(20)))
    }
    fn forget(&mut self, _: SourceId) {}
}

fn leg(source: u32) -> control::Leg {
    let codec = |pt, name: &str, clock_rate| control::Codec {
        payload_type: pt,
        name: name.into(),
        clock_rate,
        nack: true,
        pli: true,
        rtx_payload_type: if clock_rate == 90_000 { pt + 1 } else { 0 },
        ..Default::default()
    };
    let media = |index, kind: control::MediaKind, codecs| control::Media {
        index,
        kind: kind.into(),
        codecs,
        receive: true,
        send: true,
        slot: Some(control::Slot {
            number: 0,
            ssrc: source * 10 + index,
            rtx_ssrc: source * 100 + index,
        }),
        extensions: vec![control::HeaderExtension {
            id: 1,
            uri: "urn:ietf:params:rtp-hdrext:ssrc-audio-level".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let audio = vec![
        codec(111, "opus", 48_000),
        codec(0, "PCMU", 8_000),
        codec(101, "telephone-event", 48_000),
    ];
    let video = vec![
        codec(96, "VP8", 90_000),
        codec(98, "VP9", 90_000),
        codec(102, "H264", 90_000),
        codec(104, "AV1", 90_000),
    ];
    control::Leg {
        id: format!("l{source}"),
        source,
        cname: "m".into(),
        transports: vec![control::Transport::default()],
        media: vec![
            media(0, control::MediaKind::Audio, audio),
            media(1, control::MediaKind::Video, video),
        ],
    }
}

rostrum_fuzz::target!(|data| {
    let mut now = Instant::now();
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
    let legs = vec![leg(1), leg(2)];
    let request = control::ApplyRequest {
        epoch: 1,
        legs,
        ..Default::default()
    };
    let applied = meeting
        .apply(now, &request, &mut Loud)
        .expect("a good request");
    let keys: Vec<LegKey> = applied
        .legs
        .iter()
        .filter_map(|(_, k)| k.clone().ok())
        .collect();
    let t0 = TransportIndex(0);
    // Octet: which leg, RTP or RTCP, how much time; then a length, then the packet.
    let mut rest = data;
    while let [how, len, tail @ ..] = rest {
        let (packet, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        rest = tail;
        now += Duration::from_millis(u64::from(how >> 2));
        let key = keys[usize::from(how & 1)];
        if how & 2 == 0 {
            meeting.handle_rtp(now, key, t0, packet, &mut Check, &mut Loud);
        } else {
            meeting.handle_rtcp(now, key, t0, packet, &mut Check);
        }
        if meeting.poll_timeout().is_some_and(|at| at <= now) {
            meeting.handle_timeout(now, &mut Check, &mut Loud);
        }
    }
    let _ = meeting.view(now);
    while meeting.poll_event().is_some() {}
});
