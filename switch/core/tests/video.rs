//! Video codecs over a change of source, and what legs may send.

mod common;

use common::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use switch_core::rewrite::av1::DependencyDescriptor;
use switch_core::rtcp::{CompoundBuf, Element, Elements};
use switch_core::rtp::{Fixed, HeaderBuf};

const DD_URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

fn with_video(codec_: control::Codec, ids: &[&str]) -> Bench {
    let shape = Shape {
        video: vec![codec_],
        ..Shape::default()
    };
    let mut b = Bench::new();
    for (i, id) in ids.iter().enumerate() {
        let mut l = leg(id, i as u32 + 1, &shape);
        for m in l.media.iter_mut().filter(|m| m.index >= 10) {
            m.extensions.push(extension(9, DD_URI));
        }
        b.join(id, l);
    }
    b
}

/// A one-packet frame with this payload.
fn send(b: &mut Bench, id: &str, pt: u8, dd: Option<&[u8]>, payload: &[u8]) {
    let s = b.video.get_mut(id).unwrap();
    s.sequence = s.sequence.wrapping_add(1);
    s.timestamp = s.timestamp.wrapping_add(3_000);
    let fixed = Fixed {
        marker: true,
        payload_type: pt,
        sequence: s.sequence,
        timestamp: s.timestamp,
        ssrc: s.ssrc,
        csrc: None,
    };
    let id_ = if dd.is_some() { 9 } else { 0 };
    let mut p = HeaderBuf::default()
        .write(fixed, &[(id_, dd.unwrap_or_default())])
        .to_vec();
    p.extend_from_slice(payload);
    b.rtp(id, &mut p);
}

/// A talks, then B, each with frames from `frame(leg, n, key)`; what C was sent in its video slot.
fn turns(b: &mut Bench, mut frame: impl FnMut(&mut Bench, &str, u16, bool)) -> Vec<Got> {
    let mut n = 0;
    for speaker in ["a", "b"] {
        for f in 0..80 {
            b.ms(20);
            for id in ["a", "b", "c"] {
                b.speak(id, if id == speaker { SPEECH } else { SILENCE });
            }
            if f % 2 == 0 {
                n += 1;
                for id in ["a", "b"] {
                    let key = b.take_keyframe_request(id);
                    frame(b, id, n, key);
                }
            }
        }
    }
    b.stream_to("c", b.slot_ssrc("c", 2, 0))
}

/// Place of the first packet of the second source; sequence numbers are checked on the way.
fn change(got: &[Got]) -> usize {
    let of = |g: &Got| g.view().csrcs().next();
    let at = got
        .iter()
        .position(|g| of(g) == Some(2))
        .expect("B was shown");
    assert!(at > 10 && got.len() > at + 10);
    assert!(got[..at].iter().all(|g| of(g) == Some(1)));
    assert!(got[at..].iter().all(|g| of(g) == Some(2)));
    let numbers: Vec<u16> = got.iter().map(|g| g.view().sequence()).collect();
    assert!(numbers.windows(2).all(|w| w[1] == w[0].wrapping_add(1)));
    at
}

#[test]
fn vp9_picture_ids_go_on_from_seven_bits_to_fifteen() {
    let mut b = with_video(codec(98, "VP9", 90_000), &["a", "b", "c"]);
    let got = turns(&mut b, |b, id, n, key| {
        // I, P unless key, L, B, E; non-flexible, so TL0PICIDX follows.
        let flags = 0xac | if key { 0 } else { 0x40 };
        let mut p = vec![flags];
        if id == "a" {
            p.push((n % 128) as u8);
        } else {
            p.extend_from_slice(&(0x8000 | (n + 20_000)).to_be_bytes());
        }
        p.extend_from_slice(&[0x00, n as u8, 0xaa]);
        send(b, id, 98, None, &p);
    });
    let at = change(&got);
    let pictures: Vec<u16> = got
        .iter()
        .map(|g| u16::from_be_bytes([g.view().payload()[1] & 0x7f, g.view().payload()[2]]))
        .collect();
    assert!(
        pictures.windows(2).all(|w| w[1] == w[0] + 1),
        "{pictures:?}"
    );
    let tl0: Vec<u8> = got.iter().map(|g| g.view().payload()[4]).collect();
    assert!(
        tl0.windows(2).all(|w| w[1] == w[0].wrapping_add(1)),
        "{tl0:?}"
    );
    assert_eq!(
        got[at].view().payload()[0] & 0x40,
        0,
        "begins with a key frame"
    );
}

#[test]
fn h264_changes_at_parameter_sets_and_is_not_touched() {
    let h264 = control::Codec {
        fmtp: "packetization-mode=1;profile-level-id=42e01f".into(),
        ..codec(102, "H264", 90_000)
    };
    let mut b = with_video(h264, &["a", "b", "c"]);
    let got = turns(&mut b, |b, id, n, key| {
        let n = n as u8;
        let p: &[u8] = if key {
            &[0x78, 0, 2, 0x67, n, 0, 2, 0x68, n]
        } else {
            &[0x41, n, 9]
        };
        send(b, id, 102, None, p);
    });
    let at = change(&got);
    assert_eq!(got[at].view().payload()[0], 0x78);
    assert_eq!(got[at].view().payload().len(), 9);
}

#[test]
fn av1_frame_numbers_go_on_and_templates_do_not_collide() {
    let mut b = with_video(codec(45, "AV1", 90_000), &["a", "b", "c"]);
    let got = turns(&mut b, |b, id, n, key| {
        let frame = if id == "a" { n } else { n.wrapping_add(40_000) };
        let [h, l] = frame.to_be_bytes();
        // Key: structure present, template_id_offset 0, two templates.
        let dd: &[u8] = if key {
            &[0xc0, h, l, 0x80, 0x00, 0x70, 0x00]
        } else {
            &[0xc1, h, l]
        };
        send(b, id, 45, Some(dd), &[if key { 0x18 } else { 0x10 }, 0xaa]);
    });
    let at = change(&got);
    let dds: Vec<&[u8]> = got
        .iter()
        .map(|g| g.view().extension(9).expect("kept"))
        .collect();
    let frames: Vec<u16> = dds
        .iter()
        .map(|d| DependencyDescriptor::parse(d).unwrap().frame_number)
        .collect();
    assert!(frames.windows(2).all(|w| w[1] == w[0] + 1), "{frames:?}");
    let first = DependencyDescriptor::parse(dds[0])
        .unwrap()
        .structure
        .unwrap();
    let second = DependencyDescriptor::parse(dds[at])
        .unwrap()
        .structure
        .unwrap();
    assert_eq!((first.offset, first.count), (0, 2));
    assert_eq!((second.offset, second.count), (2, 2));
    assert_eq!(dds[at + 1][0] & 0x3f, 3);
}

#[test]
fn fir_is_sent_where_only_that_was_negotiated() {
    let fir = control::Codec {
        pli: false,
        fir: true,
        ..codec(96, "VP8", 90_000)
    };
    let mut b = with_video(fir, &["a", "b"]);
    b.frame("a", false, 1);
    let key = b.keys["a"];
    let kinds: Vec<bool> = b
        .wire
        .rtcp
        .iter()
        .filter(|g| g.leg == key)
        .flat_map(|g| {
            Elements::new(&g.bytes)
                .map(|e| matches!(e, Element::Fir { .. }))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(kinds.contains(&true), "a FIR");
}

#[test]
fn a_leg_that_waits_for_dtls_is_sent_nothing_and_then_gets_a_key_frame() {
    let mut b = Bench::with(&["a"], &Shape::default());
    let mut l = leg("w", 2, &Shape::default());
    l.transports[0].dtls = Some(control::Dtls::default());
    let key = b.join("w", l);
    for _ in 0..50 {
        b.ms(20);
        b.speak("a", SPEECH);
        b.frame("a", false, 1);
    }
    assert!(b.wire.rtp.iter().all(|g| g.leg != key));
    assert!(!b.take_keyframe_request("a"), "nobody looks");
    b.wire.now = Some(b.now);
    b.meeting.handle_connected(b.now, key, T0, &mut b.wire);
    assert!(b.take_keyframe_request("a"));
    b.ms(20);
    b.speak("a", SPEECH);
    b.frame("a", true, 1);
    assert_eq!(b.last_source("w", 1, 0), Some(1));
    assert_eq!(b.last_source("w", 2, 0), Some(1));
    assert_eq!(b.kinds(control::leg_event::Kind::Connected).len(), 2);
    b.meeting
        .handle_failed(b.now, key, control::leg_event::Kind::ConsentLost, "gone");
    b.meeting
        .handle_failed(b.now, key, control::leg_event::Kind::ConsentLost, "gone");
    b.ms(1);
    assert_eq!(b.kinds(control::leg_event::Kind::ConsentLost).len(), 1);
}

#[test]
fn a_camera_that_starts_anew_is_shown_from_its_key_frame_on() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    let mut decoder = Decoder::new(true);
    b.talk("a", 60);
    b.ms(300);
    let s = b.video.get_mut("a").unwrap();
    (s.ssrc, s.sequence, s.timestamp, s.picture) = (99, 5, 5, 5);
    let before = b.stream_to("b", b.slot_ssrc("b", 2, 0)).len();
    b.frame("a", false, 2);
    assert!(
        b.take_keyframe_request("a"),
        "a key frame of the new stream is asked for"
    );
    b.frame("a", false, 2);
    assert_eq!(b.stream_to("b", b.slot_ssrc("b", 2, 0)).len(), before);
    b.frame("a", true, 2);
    b.frame("a", false, 2);
    let got = b.stream_to("b", b.slot_ssrc("b", 2, 0));
    assert_eq!(got.len(), before + 4);
    got.iter().for_each(|g| decoder.take(g));
    assert_eq!(got[before].view().payload()[6] & 1, 0);
}

#[test]
fn what_was_sent_under_other_extension_ids_is_not_sent_again() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    b.talk("a", 60);
    let ssrc = b.slot_ssrc("b", 2, 0);
    let number = b.stream_to("b", ssrc).last().unwrap().view().sequence();
    let mut changed = b.legs["b"].clone();
    changed.media.iter_mut().for_each(|m| m.extensions.clear());
    b.join("b", changed);
    b.clear();
    let mut c = CompoundBuf::default();
    c.receiver_report(1, &[]);
    c.nack(1, ssrc, &[number]);
    b.rtcp("b", c.bytes());
    assert!(b.wire.rtp.is_empty());
}

#[test]
fn a_forged_bye_ends_nothing() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    b.talk("a", 60);
    let [s0, s1, s2, s3] = b.audio["a"].ssrc.to_be_bytes();
    b.rtcp("a", &[0x81, 203, 0, 1, s0, s1, s2, s3]);
    b.clear();
    b.talk("a", 5);
    assert_eq!(b.stream_to("b", b.slot_ssrc("b", 1, 0)).len(), 5);
}

#[test]
fn senders_of_video_are_told_the_bitrate_where_remb_was_negotiated() {
    let remb = control::Codec {
        remb: true,
        ..codec(96, "VP8", 90_000)
    };
    let mut b = with_video(remb, &["a", "b"]);
    b.frame("a", true, 1);
    b.ms(3_000);
    let key = b.keys["a"];
    let told = b.wire.rtcp.iter().filter(|g| g.leg == key).any(|g| {
        Elements::new(&g.bytes)
            .any(|e| matches!(e, Element::Remb { bitrate } if (1_490_000..=1_500_000).contains(&bitrate)))
    });
    assert!(told);
}

/// Sound packets with flipped, cut and added octets, in a live meeting: nothing panics, and what is
/// sent stays well-formed (the wire checks it).
#[test]
fn damaged_packets_do_no_damage() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut b = Bench::with(
        &["a", "b", "c"],
        &Shape {
            rtx: true,
            ..Shape::default()
        },
    );
    b.talk("a", 60);
    for _ in 0..20_000 {
        let mut p = match rng.random_range(0..3) {
            0 => b.audio_packet("a", 111, 960, Some(SPEECH)),
            1 => b.vp8_packet("a", rng.random(), rng.random(), rng.random()),
            _ => {
                let mut c = CompoundBuf::default();
                c.sender_report(
                    b.audio["a"].ssrc,
                    rng.random(),
                    rng.random(),
                    1,
                    1,
                    &[Default::default()],
                );
                c.nack(1, b.slot_ssrc("a", 2, 0), &[rng.random(), rng.random()]);
                c.pli(1, b.slot_ssrc("a", 2, 0));
                c.bytes().to_vec()
            }
        };
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..p.len());
            p[at] = rng.random();
        }
        if rng.random_bool(0.2) {
            p.truncate(rng.random_range(0..p.len()));
        }
        if rng.random_bool(0.5) {
            b.rtp("a", &mut p);
        } else {
            b.rtcp("a", &p);
        }
        if rng.random_bool(0.1) {
            b.ms(rng.random_range(0..200));
            b.wire.rtp.iter().for_each(|g| {
                g.view();
            });
            b.clear();
        }
    }
    b.ms(1_000);
    b.clear();
    b.talk("b", 80);
    assert_eq!(b.last_source("c", 1, 0), Some(2), "the meeting goes on");
}
