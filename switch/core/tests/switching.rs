//! Who is heard and seen, and that every receiver gets unbroken streams.

mod common;

use common::*;
use control::leg_event::Kind as Event;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use switch_core::rtcp::{CompoundBuf, Element, Elements};

#[test]
fn everyone_else_hears_and_sees_the_one_who_speaks() {
    let mut b = Bench::with(&["a", "b", "c"], &Shape::default());
    for (n, speaker) in ["a", "b", "c", "a"].iter().enumerate() {
        b.talk(speaker, 50);
        b.clear();
        b.talk(speaker, 10);
        let source = b.legs[*speaker].source;
        for other in ["a", "b", "c"].iter().filter(|o| *o != speaker) {
            assert_eq!(
                b.last_source(other, 1, 0),
                Some(source),
                "{other} hears {speaker}, turn {n}"
            );
            assert_eq!(
                b.last_source(other, 2, 0),
                Some(source),
                "{other} sees {speaker}, turn {n}"
            );
        }
    }
}

#[test]
fn the_speaker_sees_the_one_before_and_nobody_receives_himself() {
    let mut b = Bench::with(&["a", "b", "c"], &Shape::default());
    b.talk("a", 60);
    b.talk("b", 60);
    b.clear();
    b.talk("b", 20);
    assert_eq!(b.last_source("b", 2, 0), Some(1));
    b.talk("c", 60);
    b.clear();
    b.talk("c", 20);
    assert_eq!(b.last_source("c", 2, 0), Some(2));
    for id in ["a", "b", "c"] {
        let own = b.legs[id].source;
        let key = b.keys[id];
        let mine = b.wire.rtp.iter().filter(|g| g.leg == key);
        assert!(mine.clone().count() > 0);
        assert!(
            mine.map(|g| g.view().csrcs().next())
                .all(|c| c != Some(own))
        );
    }
}

#[test]
fn further_video_slots_show_the_recent_speakers_and_stay() {
    let shape = Shape {
        video_slots: 3,
        audio_slots: 3,
        ..Shape::default()
    };
    let mut b = Bench::with(&["a", "b", "c", "d", "e"], &shape);
    for s in ["a", "b", "c"] {
        b.talk(s, 60);
    }
    b.clear();
    b.talk("c", 20);
    assert_eq!(b.last_source("d", 2, 0), Some(3));
    let mut others = [b.last_source("d", 2, 1), b.last_source("d", 2, 2)];
    others.sort();
    assert_eq!(others, [Some(1), Some(2)]);
    assert_eq!(
        b.last_source("c", 2, 0),
        Some(2),
        "the speaker sees the one before"
    );
}

#[test]
fn a_speaker_keeps_his_audio_slot_while_others_join_in() {
    let shape = Shape {
        audio_slots: 3,
        video: vec![],
        ..Shape::default()
    };
    let mut b = Bench::with(&["a", "b", "c", "d", "l"], &shape);
    let mut slot_of_a = None;
    for f in 0..200 {
        b.ms(20);
        for (id, from) in [("a", 0), ("b", 50), ("c", 100), ("d", 400), ("l", 400)] {
            b.speak(id, if f >= from { SPEECH } else { SILENCE });
        }
        let now: Vec<_> = (0..3).map(|n| b.last_source("l", 1, n)).collect();
        if let Some(at) = now.iter().position(|s| *s == Some(1)) {
            assert_eq!(*slot_of_a.get_or_insert(at), at, "a moved");
        }
    }
    let mut heard: Vec<_> = (0..3).map(|n| b.last_source("l", 1, n)).collect();
    heard.sort();
    assert_eq!(heard, [Some(1), Some(2), Some(3)]);
}

#[test]
fn who_has_the_first_picture_is_heard_in_the_first_slot() {
    let shape = Shape {
        audio_slots: 3,
        ..Shape::default()
    };
    let mut b = Bench::with(&["a", "b", "c", "l"], &shape);
    for (id, source, seen_by_himself) in [("a", 1, None), ("b", 2, Some(1)), ("c", 3, Some(2))] {
        b.talk(id, 120);
        assert_eq!(b.last_source("l", 2, 0), Some(source));
        assert_eq!(b.last_source("l", 1, 0), Some(source));
        assert_eq!(b.last_source(id, 1, 0), seen_by_himself);
        let mut decoders: Vec<_> = (0..3).map(|_| Decoder::new(false)).collect();
        for (n, decoder) in decoders.iter_mut().enumerate() {
            for got in b.stream_to("l", b.slot_ssrc("l", 1, n as u32)) {
                decoder.take(&got);
            }
        }
    }
}

#[test]
fn a_stream_goes_on_with_its_numbers_after_hold_and_after_its_line_was_gone() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    b.talk("a", 50);
    let whole = b.legs["b"].clone();
    let mut held = whole.clone();
    for media in &mut held.media {
        media.send = false;
        media.slot = None;
    }
    let mut without_video = whole.clone();
    without_video.media.retain(|m| m.index < 10);
    for other in [held, without_video] {
        b.join("b", other);
        b.talk("a", 10);
        b.join("b", whole.clone());
        b.talk("a", 50);
    }
    for (kind, changes) in [(1, 1), (2, 1)] {
        let mut decoder = Decoder::new(kind == 2);
        for got in b.stream_to("b", b.slot_ssrc("b", kind, 0)) {
            decoder.take(&got);
        }
        assert_eq!((decoder.gaps, decoder.switches), (0, changes), "{kind}");
        let sent = b.stream_to("b", b.slot_ssrc("b", kind, 0));
        let numbers: Vec<u16> = sent.iter().map(|g| g.view().sequence()).collect();
        assert!(numbers.windows(2).all(|w| w[1] == w[0].wrapping_add(1)));
        let at = sent.last().expect("sent").at;
        assert!(b.now.duration_since(at).as_millis() < 100, "it flows again");
    }
}

#[test]
fn a_muted_leg_is_neither_heard_nor_seen() {
    let mut b = Bench::with(&["a", "b", "c"], &Shape::default());
    b.talk("a", 50);
    let mut muted = b.legs["a"].clone();
    muted.media.iter_mut().for_each(|m| m.muted = true);
    let key = b.keys["a"];
    assert_eq!(b.join("a", muted), key, "the leg keeps its key");
    b.clear();
    b.talk("a", 100);
    assert!(
        b.wire
            .rtp
            .iter()
            .all(|g| g.view().csrcs().next() != Some(1))
    );
}

#[test]
fn a_listener_without_the_speaker_s_codec_gets_one_rendition_shared_by_all_who_need_it() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    let phone = Shape {
        audio: vec![codec(0, "PCMU", 8_000)],
        video: vec![],
        level: false,
        ..Shape::default()
    };
    b.join("p", leg("p", 8, &phone));
    b.join("q", leg("q", 9, &phone));
    b.talk_only("a", 50);
    b.clear();
    let before = b.codecs.pushed;
    b.talk_only("a", 10);
    assert_eq!(b.codecs.pushed - before, 10, "decoded once a packet");
    for id in ["p", "q"] {
        let got = b.stream_to(id, b.slot_ssrc(id, 1, 0));
        assert_eq!(got.len(), 10);
        assert!(got.iter().all(|g| g.view().payload().starts_with(b"PCMU")));
        assert!(got.iter().all(|g| g.view().payload_type() == 0));
    }
    let direct = b.stream_to("b", b.slot_ssrc("b", 1, 0));
    assert!(direct.iter().all(|g| g.view().payload()[0] == 0x78));
    assert_eq!(b.meeting.view(b.now).renditions[0].listeners, 2);
    b.leave("p");
    b.leave("q");
    assert!(b.codecs.wanted[&switch_core::SourceId(1)].is_empty());
}

#[test]
fn a_listener_of_one_clock_rate_is_not_sent_another() {
    let mut b = Bench::with(&["a"], &Shape::default());
    let only = |audio: Vec<control::Codec>| Shape {
        audio,
        video: vec![],
        ..Shape::default()
    };
    let pcmu = || codec(0, "PCMU", 8_000);
    b.join("p", leg("p", 8, &only(vec![pcmu()])));
    b.join(
        "q",
        leg("q", 9, &only(vec![codec(9, "G722", 8_000), pcmu()])),
    );
    for _ in 0..50 {
        b.ms(20);
        let mut p = b.audio_packet("p", 0, 160, Some(SPEECH));
        b.rtp("p", &mut p);
    }
    let payload_types = |id: &str| {
        let got = b.stream_to(id, b.slot_ssrc(id, 1, 0));
        let all = got.iter().map(|g| g.view().payload_type());
        all.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(
        payload_types("a"),
        [111].into(),
        "Opus, though a takes PCMU"
    );
    assert_eq!(
        payload_types("q"),
        [0].into(),
        "as it is: the clock is G.722's"
    );
}

#[test]
fn with_one_slot_the_dominant_speaker_hears_who_talks_and_not_who_coughed() {
    let mut b = Bench::with(&["a", "b", "c"], &Shape::default());
    b.talk_only("a", 100);
    for _ in 0..5 {
        b.ms(20);
        b.speak("a", SPEECH);
        b.speak("b", 10);
    }
    for _ in 0..15 {
        b.ms(20);
        b.speak("a", SPEECH);
        b.speak("c", SPEECH);
    }
    assert_eq!(b.last_source("c", 1, 0), Some(1), "a is dominant");
    assert_eq!(b.last_source("a", 1, 0), Some(3));
}

#[test]
fn a_sender_without_levels_is_heard_by_what_his_audio_decodes_to() {
    let mut b = Bench::with(
        &["a", "b"],
        &Shape {
            level: false,
            ..Shape::default()
        },
    );
    b.codecs.level = Some(switch_core::Level::new(SPEECH, false));
    for _ in 0..30 {
        b.ms(20);
        let mut p = b.audio_packet("a", 111, 960, None);
        b.rtp("a", &mut p);
    }
    assert_eq!(b.last_source("b", 1, 0), Some(1));
}

#[test]
fn video_of_a_codec_the_listener_lacks_gives_way_to_the_next_candidate() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    let h264 = Shape {
        video: vec![codec(102, "H264", 90_000)],
        ..Shape::default()
    };
    b.join("h", leg("h", 9, &h264));
    b.talk("a", 60);
    b.clear();
    b.talk("b", 60);
    let key = b.keys["h"];
    let video = b.slot_ssrc("h", 2, 0);
    assert!(
        b.wire
            .rtp
            .iter()
            .all(|g| g.leg != key || g.view().ssrc() != video)
    );
    assert_eq!(b.last_source("h", 1, 0), Some(2), "but he is heard");
}

#[test]
fn on_a_change_the_old_picture_goes_on_until_the_new_key_frame() {
    let mut b = Bench::with(&["a", "b", "c"], &Shape::default());
    b.talk("a", 60);
    b.clear();
    // B takes over, but gives no key frame when asked.
    let mut asked = Vec::new();
    for f in 0..150 {
        b.ms(20);
        b.speak("a", SILENCE);
        b.speak("b", SPEECH);
        if f % 2 == 0 {
            b.frame("a", false, 1);
            b.frame("b", false, 1);
        }
        if b.take_keyframe_request("b") {
            asked.push(f * 20);
        }
    }
    assert_eq!(b.last_source("c", 2, 0), Some(1), "still A");
    assert!(asked.len() >= 3, "asked again and again: {asked:?}");
    assert!(
        asked.windows(2).all(|w| w[1] - w[0] >= 300),
        "but not too often: {asked:?}"
    );
    b.frame("b", true, 3);
    assert_eq!(b.last_source("c", 2, 0), Some(2));
}

#[test]
fn a_camera_that_stops_gives_its_place_to_another() {
    let mut b = Bench::with(&["a", "b", "c"], &Shape::default());
    b.talk("b", 60);
    b.talk("a", 60);
    for f in 0..150 {
        b.ms(20);
        b.speak("a", SPEECH);
        if f % 2 == 0 {
            let key = b.take_keyframe_request("b");
            b.frame("b", key, 1);
        }
    }
    assert_eq!(b.last_source("c", 2, 0), Some(2));
}

#[test]
fn key_frame_requests_of_many_receivers_are_one() {
    let ids: Vec<String> = (0..30).map(|i| format!("l{i:02}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut b = Bench::with(&names, &Shape::default());
    b.talk("l00", 60);
    b.ms(1000);
    b.frame("l00", true, 1);
    b.clear();
    for id in &names[1..] {
        let mut c = CompoundBuf::default();
        c.receiver_report(1, &[]);
        c.pli(1, b.slot_ssrc(id, 2, 0));
        b.rtcp(id, c.bytes());
    }
    let key = b.keys["l00"];
    let to_speaker = b.wire.rtcp.iter().filter(|g| g.leg == key).count();
    assert_eq!(to_speaker, 1);
}

#[test]
fn one_listener_cannot_make_a_source_send_key_frames_all_the_time() {
    let mut b = Bench::with(&["a", "b", "c"], &Shape::default());
    b.talk("a", 60);
    let mut asked = 0;
    for n in 0..600 {
        b.ms(20);
        b.speak("a", SPEECH);
        if n % 2 == 0 {
            let mut c = CompoundBuf::default();
            c.receiver_report(1, &[]);
            c.pli(1, b.slot_ssrc("b", 2, 0));
            b.rtcp("b", c.bytes());
            let key = b.take_keyframe_request("a");
            asked += u32::from(key);
            b.frame("a", key, 1);
        }
    }
    assert!((6..=12).contains(&asked), "{asked} in 12 s");
}

#[test]
fn a_receiver_s_nack_is_answered_with_the_very_octets_or_in_rtx() {
    for rtx in [false, true] {
        let mut b = Bench::with(
            &["a", "b"],
            &Shape {
                rtx,
                ..Shape::default()
            },
        );
        b.talk("a", 60);
        b.clear();
        b.talk("a", 20);
        let ssrc = b.slot_ssrc("b", 2, 0);
        let sent = b.stream_to("b", ssrc);
        let lost = &sent[sent.len() - 7];
        b.wire.rtp.clear();
        let mut c = CompoundBuf::default();
        c.receiver_report(1, &[]);
        c.nack(1, ssrc, &[lost.view().sequence()]);
        b.rtcp("b", c.bytes());
        b.rtcp("b", c.bytes());
        assert_eq!(
            b.wire.rtp.len(),
            1,
            "asked twice within a round trip, given once"
        );
        let again = &b.wire.rtp[0];
        if rtx {
            let v = again.view();
            assert_eq!((v.ssrc(), v.payload_type()), (b.slot_ssrc("b", 3, 0), 97));
            assert_eq!(v.payload()[..2], lost.view().sequence().to_be_bytes());
            assert_eq!(v.payload()[2..], *lost.view().payload());
            assert_eq!(v.timestamp(), lost.view().timestamp());
        } else {
            assert_eq!(again.bytes, lost.bytes);
        }
    }
}

#[test]
fn nacks_do_not_amplify_without_bound() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    b.talk("a", 100);
    let ssrc = b.slot_ssrc("b", 2, 0);
    let last = b.stream_to("b", ssrc).last().unwrap().view().sequence();
    b.clear();
    let numbers: Vec<u16> = (0..64).map(|i| last.wrapping_sub(63 - i)).collect();
    for _ in 0..1000 {
        let mut c = CompoundBuf::default();
        c.receiver_report(1, &[]);
        c.nack(1, ssrc, &numbers);
        b.rtcp("b", c.bytes());
        b.ms(1);
    }
    let octets: usize = b.wire.rtp.iter().map(|g| g.bytes.len()).sum();
    assert!(octets < 400_000, "{octets} octets in a second");
}

#[test]
fn lost_video_is_asked_for_and_its_repair_fills_the_gap() {
    let mut b = Bench::with(
        &["a", "b"],
        &Shape {
            rtx: true,
            ..Shape::default()
        },
    );
    b.talk("a", 60);
    b.clear();
    let lost = b.vp8_packet("a", false, true, true);
    let number = u16::from_be_bytes([lost[2], lost[3]]);
    b.frame("a", false, 1);
    assert_eq!(b.nacks_to("a"), [number]);
    b.ms(45);
    assert_eq!(b.nacks_to("a"), [number, number], "and again");
    // The sender answers in RTX.
    let view = switch_core::rtp::RtpView::parse(&lost).unwrap();
    let mut rtx = lost[..12].to_vec();
    rtx[1] = (rtx[1] & 0x80) | 97;
    rtx[2..4].copy_from_slice(&500u16.to_be_bytes());
    rtx[8..12].copy_from_slice(&0xbbbb_0001u32.to_be_bytes());
    rtx.extend_from_slice(&number.to_be_bytes());
    rtx.extend_from_slice(view.payload());
    b.rtp("a", &mut rtx);
    let got = b.stream_to("b", b.slot_ssrc("b", 2, 0));
    assert_eq!(got.len(), 2);
    let (newer, repaired) = (got[0].view().sequence(), got[1].view().sequence());
    assert_eq!(newer.wrapping_sub(repaired), 1);
    assert!(got[1].view().payload().ends_with(&number.to_be_bytes()));
    b.clear();
    b.ms(500);
    assert!(b.nacks_to("a").is_empty(), "nothing is missing any more");
}

#[test]
fn payload_types_and_extension_ids_are_the_listener_s() {
    let mut b = Bench::with(&["a"], &Shape::default());
    let other = Shape {
        audio: vec![codec(96, "opus", 48_000)],
        video: vec![],
        ..Shape::default()
    };
    b.join("b", leg("b", 2, &other));
    b.talk_only("a", 20);
    let got = b.stream_to("b", b.slot_ssrc("b", 1, 0));
    let v = got.last().unwrap().view();
    assert_eq!(v.payload_type(), 96);
    assert_eq!(
        v.extension(3),
        Some(&[SPEECH][..]),
        "the level under the listener's id"
    );
    assert_eq!(v.extension(4), Some(&b"a0"[..]), "the listener's mid");
    assert_eq!(v.extensions().count(), 2);
}

#[test]
fn reports_carry_loss_a_clock_and_a_cname_and_give_the_round_trip() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    b.talk("a", 200);
    let key = b.keys["b"];
    let ssrc = b.slot_ssrc("b", 1, 0);
    let mut last_sr = None;
    for g in b.wire.rtcp.iter().filter(|g| g.leg == key) {
        for e in Elements::new(&g.bytes) {
            if let Element::SenderReport {
                ssrc: s, ntp, rtp, ..
            } = e
                && s == ssrc
            {
                last_sr = Some((g.at, ntp, rtp));
            }
        }
    }
    let (at, ntp, rtp) = last_sr.expect("an SR of the audio slot");
    let sent = b.stream_to("b", ssrc);
    let near = sent.iter().rfind(|g| g.at <= at).unwrap();
    let since = at.duration_since(near.at).as_secs_f64() * 48_000.0;
    let off = rtp.wrapping_sub(near.view().timestamp()) as i32 as f64 - since;
    assert!(off.abs() < 960.0, "{off} ticks off");
    let mut c = CompoundBuf::default();
    let block = switch_core::rtcp::ReportBlock {
        ssrc,
        last_sr: (ntp >> 16) as u32,
        delay: 0,
        ..Default::default()
    };
    c.receiver_report(5, &[block]);
    b.ms(0);
    b.now = at + Duration::from_millis(80);
    b.rtcp("b", c.bytes());
    let view = b.meeting.view(b.now);
    let rtt = view
        .legs
        .iter()
        .find(|l| l.id == "b")
        .unwrap()
        .sent
        .unwrap()
        .rtt_ms;
    assert!((79.0..82.0).contains(&rtt), "{rtt}");
}

#[test]
fn sound_and_picture_of_a_talker_share_one_clock_in_the_reports() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    b.talk("a", 60);
    // A's own clock: its NTP is an hour off, its video timestamps are 70 ms behind its audio.
    let ntp = 0xe000_0000_0000_0000u64;
    let mut c = CompoundBuf::default();
    let (a, v) = (b.audio["a"].clone(), b.video["a"].clone());
    c.sender_report(a.ssrc, ntp, a.timestamp, 1, 1, &[]);
    c.sender_report(v.ssrc, ntp, v.timestamp.wrapping_sub(6_300), 1, 1, &[]);
    b.rtcp("a", c.bytes());
    let sent = |b: &Bench, kind| {
        let got = b.stream_to("b", b.slot_ssrc("b", kind, 0));
        got.last().unwrap().view().timestamp()
    };
    let (audio, video) = (sent(&b, 1), sent(&b, 2));
    b.clear();
    b.ms(1_600);
    let key = b.keys["b"];
    let mut at = BTreeMap::new();
    for g in b.wire.rtcp.iter().filter(|g| g.leg == key) {
        for e in Elements::new(&g.bytes) {
            if let Element::SenderReport { ssrc, ntp, rtp, .. } = e {
                at.insert(ssrc, (ntp, rtp));
            }
        }
    }
    let (n1, r1) = at[&b.slot_ssrc("b", 1, 0)];
    let (n2, r2) = at[&b.slot_ssrc("b", 2, 0)];
    let wall = (n2.wrapping_sub(n1) as i64) as f64 / f64::from(u32::MAX);
    let since_audio = f64::from(r1.wrapping_sub(audio) as i32) / 48_000.0;
    let since_video = f64::from(r2.wrapping_sub(video) as i32) / 90_000.0;
    let apart = since_video - since_audio - wall;
    assert!(
        (apart + 0.070).abs() < 0.002,
        "{apart}: the talker's own 70 ms are kept"
    );
}

#[test]
fn digits_are_reported_once_and_forwarded_where_negotiated() {
    let with = Shape {
        audio: vec![
            codec(111, "opus", 48_000),
            codec(101, "telephone-event", 48_000),
        ],
        video: vec![],
        ..Shape::default()
    };
    let without = Shape {
        video: vec![],
        ..Shape::default()
    };
    let mut b = Bench::new();
    b.join("a", leg("a", 1, &with));
    b.join("b", leg("b", 2, &with));
    b.join("c", leg("c", 3, &without));
    b.talk_only("a", 30);
    b.clear();
    for n in 0..6u16 {
        let mut p = b.audio_packet("a", 101, 0, None);
        p.truncate(12);
        p.extend_from_slice(&[5, if n > 2 { 0x8a } else { 0x0a }, n as u8 * 16, 0]);
        b.ms(20);
        b.rtp("a", &mut p);
    }
    b.talk_only("a", 10);
    b.ms(500);
    let digits = b.kinds(Event::Dtmf);
    assert_eq!(digits.len(), 1);
    assert_eq!((digits[0].digit, digits[0].leg.as_str()), (5, "a"));
    let to_b = b.stream_to("b", b.slot_ssrc("b", 1, 0));
    assert_eq!(
        to_b.iter()
            .filter(|g| g.view().payload_type() == 101)
            .count(),
        6
    );
    let to_c = b.stream_to("c", b.slot_ssrc("c", 1, 0));
    assert_eq!(to_c.len(), 10);
    let numbers: Vec<u16> = to_c.iter().map(|g| g.view().sequence()).collect();
    assert!(
        numbers.windows(2).all(|w| w[1] == w[0].wrapping_add(1)),
        "no gap where events were"
    );
}

#[test]
fn digits_by_the_thousand_are_not_told() {
    let mut b = Bench::new();
    let shape = Shape {
        audio: vec![
            codec(0, "PCMU", 8_000),
            codec(101, "telephone-event", 8_000),
        ],
        video: vec![],
        ..Shape::default()
    };
    b.join("a", leg("a", 1, &shape));
    for _ in 0..1_000 {
        let mut p = b.audio_packet("a", 101, 160, None);
        p.truncate(12);
        p.extend_from_slice(&[5, 0x8a, 0, 160]);
        b.ms(1);
        b.rtp("a", &mut p);
    }
    b.ms(100);
    let told = b.kinds(Event::Dtmf).len();
    assert!((40..=62).contains(&told), "{told} in a second");
}

#[test]
fn silence_of_a_leg_is_reported_once_and_its_first_packet_too() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    let policy = control::MeetingPolicy {
        audio_slots: 3,
        media_timeout_ms: 2_000,
    };
    let request = control::ApplyRequest {
        policy: Some(policy),
        ..b.request()
    };
    b.apply(&request);
    b.talk_only("a", 10);
    assert_eq!(b.kinds(Event::Connected).len(), 1);
    b.ms(1_500);
    b.talk_only("a", 1);
    b.ms(1_900);
    let silent: Vec<_> = b
        .kinds(Event::MediaTimeout)
        .iter()
        .map(|e| e.leg.clone())
        .collect();
    assert_eq!(silent, ["b"]);
    b.ms(10_000);
    assert_eq!(b.kinds(Event::MediaTimeout).len(), 2);
    assert_eq!(b.kinds(Event::Connected).len(), 1);
}

#[test]
fn a_phone_on_hold_may_be_silent_for_an_hour_but_not_for_ever() {
    let mut b = Bench::new();
    let mut held = leg("a", 1, &Shape::default());
    for media in &mut held.media {
        media.send = false;
    }
    b.join("a", held);
    for _ in 0..59 {
        b.ms(60_000);
    }
    assert_eq!(b.kinds(Event::MediaTimeout).len(), 0);
    b.ms(61_000);
    assert_eq!(b.kinds(Event::MediaTimeout).len(), 1);
}

#[test]
fn a_listener_whose_ice_never_ends_is_reported() {
    let mut b = Bench::with(&["a"], &Shape::default());
    let mut viewer = leg("b", 2, &Shape::default());
    for media in &mut viewer.media {
        media.receive = false;
    }
    viewer.transports[0].ice = Some(control::Ice::default());
    b.join("b", viewer);
    for _ in 0..31 {
        b.ms(1_000);
        b.talk_only("a", 1);
    }
    let timeouts = b.kinds(Event::MediaTimeout);
    let told: Vec<_> = timeouts.iter().map(|e| (&*e.leg, &*e.reason)).collect();
    assert_eq!(
        told,
        [("b", "no media path for 30 s: ICE or DTLS did not finish")]
    );
}

#[test]
fn who_is_heard_is_told_at_most_ten_times_a_second() {
    let mut b = Bench::with(
        &["a", "b", "c", "d"],
        &Shape {
            video: vec![],
            ..Shape::default()
        },
    );
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..500 {
        b.ms(20);
        for id in ["a", "b", "c", "d"] {
            b.speak(
                id,
                if rng.random_bool(0.5) {
                    SPEECH
                } else {
                    SILENCE
                },
            );
        }
    }
    let told = b
        .events
        .iter()
        .filter(|e| matches!(e, control::event::Event::Slots(_)))
        .count();
    assert!((1..=100).contains(&told), "{told} in 10 s");
}

#[test]
fn a_stale_owner_changes_nothing() {
    let mut b = Bench::with(&["a"], &Shape::default());
    let newer = control::ApplyRequest {
        epoch: 9,
        ..b.request()
    };
    b.apply(&newer);
    let stale = control::ApplyRequest {
        epoch: 8,
        full: true,
        ..b.request()
    };
    assert!(b.meeting.apply(b.now, &stale, &mut b.codecs).is_err());
    assert!(b.meeting.check_epoch(8).is_err());
    assert!(b.meeting.leg_key("a").is_some());
    let full = control::ApplyRequest {
        epoch: 9,
        full: true,
        ..b.request()
    };
    assert_eq!(b.apply(&full).removed.len(), 1);
}

#[test]
fn impossible_legs_are_refused_with_a_reason_and_the_others_made() {
    let mut b = Bench::with(&["a"], &Shape::default());
    let twin = leg("twin", 1, &Shape::default());
    let mut lost = leg("lost", 3, &Shape::default());
    lost.media[0].transport = 7;
    let good = leg("good", 4, &Shape::default());
    let request = control::ApplyRequest {
        legs: vec![twin, lost, good],
        ..b.request()
    };
    let applied = b.apply(&request);
    let outcome: Vec<bool> = applied.legs.iter().map(|(_, r)| r.is_ok()).collect();
    assert_eq!(outcome, [false, false, true]);
}

#[test]
fn the_same_request_again_disturbs_no_packet() {
    let mut b = Bench::with(&["a", "b"], &Shape::default());
    let mut decoder = Decoder::new(true);
    for _ in 0..10 {
        b.talk("a", 40);
        let legs: Vec<_> = b.legs.values().cloned().collect();
        let request = control::ApplyRequest {
            legs,
            full: true,
            ..b.request()
        };
        assert!(b.apply(&request).removed.is_empty());
    }
    b.stream_to("b", b.slot_ssrc("b", 2, 0))
        .iter()
        .for_each(|g| decoder.take(g));
    assert_eq!((decoder.switches, decoder.gaps), (1, 0));
}

#[test]
fn another_ssrc_takes_over_when_the_first_is_silent_but_never_alternates() {
    let mut b = Bench::with(
        &["a", "b"],
        &Shape {
            video: vec![],
            ..Shape::default()
        },
    );
    let mut decoder = Decoder::new(false);
    b.talk_only("a", 30);
    let first = b.audio["a"].clone();
    // An intruder at the same time is ignored…
    for _ in 0..10 {
        b.talk_only("a", 1);
        b.audio.get_mut("a").unwrap().ssrc = 77;
        b.speak("a", SPEECH);
        b.audio.get_mut("a").unwrap().ssrc = first.ssrc;
        b.audio.get_mut("a").unwrap().sequence -= 1;
        b.audio.get_mut("a").unwrap().timestamp -= 960;
    }
    assert_eq!(b.stream_to("b", b.slot_ssrc("b", 1, 0)).len(), 40);
    // …after silence it is the sender's new stream.
    b.ms(300);
    let s = b.audio.get_mut("a").unwrap();
    (s.ssrc, s.sequence, s.timestamp) = (78, 5, 5);
    b.talk_only("a", 30);
    let got = b.stream_to("b", b.slot_ssrc("b", 1, 0));
    assert_eq!(got.len(), 70);
    got.iter().for_each(|g| decoder.take(g));
}

/// Random meetings: turns, joins, leaves, mutes, loss, reordering, restarts; every stream of every
/// receiver goes through the decoder model.
#[test]
fn every_receiver_s_stream_is_unbroken_over_random_switching() {
    for seed in 0..16 {
        scenario(seed);
    }
}

fn scenario(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = Shape {
        audio_slots: 3,
        video_slots: 2,
        rtx: seed.is_multiple_of(2),
        ..Shape::default()
    };
    let mut b = Bench::with(&["a", "b", "c", "d"], &shape);
    let mut decoders: BTreeMap<(String, u32), Decoder> = BTreeMap::new();
    let mut next_source = 5;
    let mut speaker = 0;
    let mut held: Vec<(String, Vec<u8>)> = Vec::new();
    for f in 0..1_500 {
        b.ms(20);
        let ids: Vec<String> = b.keys.keys().cloned().collect();
        if f % 70 == 0 {
            speaker = rng.random_range(0..ids.len());
        }
        for (i, id) in ids.iter().enumerate() {
            let level = if i == speaker || rng.random_bool(0.02) {
                SPEECH
            } else {
                SILENCE
            };
            let mut packets = vec![b.audio_packet(id, 111, 960, Some(level))];
            if f % 2 == 0 {
                let key = b.take_keyframe_request(id);
                for n in 0..3 {
                    packets.push(b.vp8_packet(id, key, n == 0, n == 2));
                }
            }
            for mut p in packets {
                match rng.random_range(0..100) {
                    0..3 => {}
                    3..6 => held.push((id.clone(), p)),
                    6..8 => {
                        b.rtp(id, &mut p);
                        b.rtp(id, &mut p);
                    }
                    _ => b.rtp(id, &mut p),
                }
            }
        }
        let late = std::mem::take(&mut held);
        for (id, mut p) in late {
            if rng.random_bool(0.5) {
                held.push((id, p));
            } else if b.keys.contains_key(&id) {
                b.rtp(&id, &mut p);
            }
        }
        match rng.random_range(0..400) {
            0 if ids.len() < 7 => {
                let id = format!("n{next_source}");
                b.join(&id, leg(&id, next_source, &shape));
                next_source += 1;
            }
            1 if ids.len() > 3 => {
                let gone = ids[rng.random_range(0..ids.len())].clone();
                b.leave(&gone);
                decoders.retain(|(id, _), _| *id != gone);
                speaker = 0;
            }
            2 => {
                let id = &ids[rng.random_range(0..ids.len())];
                if b.keys.contains_key(id) {
                    let mut changed = b.legs[id].clone();
                    changed.media.iter_mut().for_each(|m| m.muted = !m.muted);
                    b.join(id, changed);
                }
            }
            _ => {}
        }
        let got = std::mem::take(&mut b.wire.rtp);
        let names: BTreeMap<_, _> = b.keys.iter().map(|(id, k)| (*k, id.clone())).collect();
        for g in &got {
            let Some(id) = names.get(&g.leg) else {
                continue;
            };
            let ssrc = g.view().ssrc();
            let kind = ssrc / 100 % 10;
            assert_ne!(kind, 3, "nobody asked for RTX");
            assert_ne!(
                g.view().csrcs().next(),
                Some(b.legs[id].source),
                "received himself"
            );
            let decoder = decoders
                .entry((id.clone(), ssrc))
                .or_insert_with(|| Decoder::new(kind == 2));
            decoder.take(g);
        }
    }
    let switches: u64 = decoders.values().map(|d| d.switches).sum();
    assert!(switches > 20, "seed {seed}: only {switches} switches");
}
