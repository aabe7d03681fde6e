//! Each check fires on what it is for, and on nothing else.

use switch_core::rtp::{Fixed, HeaderBuf};

use super::super::schedule::Schedule;
use super::*;

const OPUS: Format = Format {
    payload_type: 111,
    kind: Kind::Audio,
    media: 0,
    clock_rate: 48_000,
    vp8: false,
    proper: true,
};

const VP8: Format = Format {
    payload_type: 96,
    kind: Kind::Video,
    media: 1,
    clock_rate: 90_000,
    vp8: true,
    proper: true,
};

/// A listener, and a server that sends it what a test says.
struct Rig {
    check: LegCheck,
    tally: Tally,
    watch: Watch,
    sequence: u16,
    timestamp: u32,
    /// ms since the engine began.
    now: u64,
    picture: u16,
    /// Packets of each speaker.
    counters: [u32; 4],
}

impl Rig {
    fn new() -> Self {
        Self {
            check: LegCheck::new(9, 4, 0),
            tally: Tally::default(),
            watch: Watch::new(Schedule::new(1, 4)),
            sequence: 65_530,
            timestamp: u32::MAX - 5000,
            now: 5000,
            picture: 0x7ffe,
            counters: [0; 4],
        }
    }

    fn stamp(&mut self, sender: u16) -> Stamp {
        let counter = &mut self.counters[usize::from(sender)];
        *counter += 1;
        Stamp {
            sender,
            sent: (self.now - 2) * 1000,
            counter: *counter,
            spurt: 1,
            since: Some(20),
        }
    }

    fn deliver(&mut self, format: Format, csrc: Option<u32>, marker: bool, payload: &[u8]) {
        let mut buf = HeaderBuf::default();
        let fixed = Fixed {
            marker,
            payload_type: format.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: 0x50 + u32::from(format.payload_type),
            csrc,
        };
        let mut packet = buf.write(fixed, &[]).to_vec();
        packet.extend_from_slice(payload);
        let view = RtpView::parse(&packet).unwrap();
        let (tally, watch) = (&mut self.tally, &mut self.watch);
        self.check
            .on_rtp(&view, &[OPUS, VP8], self.now * 1000, tally, watch);
    }

    /// A good 20 ms of a speaker's voice.
    fn voice(&mut self, sender: u16) {
        self.advance(20, 48);
        let mut payload = vec![0x0b, 0x41, 24];
        payload.extend_from_slice(&self.stamp(sender).to_bytes());
        self.deliver(OPUS, Some(100 + u32::from(sender)), true, &payload);
    }

    fn advance(&mut self, ms: u64, clock: u32) {
        self.now += ms;
        self.timestamp = self.timestamp.wrapping_add(ms as u32 * clock);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// A good frame of three packets of a speaker's picture.
    fn frame(&mut self, sender: u16, key: bool) {
        self.advance(39, 90);
        self.sequence = self.sequence.wrapping_sub(1);
        self.timestamp = self.timestamp.wrapping_add(90);
        self.now += 1;
        self.picture = (self.picture + 1) & 0x7fff;
        for part in 0..3 {
            self.packet(sender, key, part);
        }
    }

    fn packet(&mut self, sender: u16, key: bool, part: u8) {
        self.sequence = self.sequence.wrapping_add(1);
        let id = (0x8000 | self.picture).to_be_bytes();
        let first = if part == 0 { 0x90 } else { 0x80 };
        let mut payload = vec![first, 0x80, id[0], id[1], u8::from(!key), 7];
        if part == 2 {
            payload.extend_from_slice(&self.stamp(sender).to_bytes());
        }
        self.deliver(VP8, Some(100 + u32::from(sender)), part == 2, &payload);
    }

    /// The counts that must be 0 where all is well, by name.
    fn wrong(mut self) -> Vec<(&'static str, u64)> {
        self.check.finish(0, &mut self.tally);
        let report = self.tally.report(1.0, 1);
        let (a, v) = (&report.audio, &report.video);
        let all = [
            ("lost", a.lost + v.lost),
            ("late", a.late + v.late),
            ("duplicates", a.duplicates + v.duplicates),
            ("doubled", a.doubled + v.doubled),
            ("skipped", a.skipped + v.skipped),
            ("jumps", a.sequence_jumps + v.sequence_jumps),
            ("gaps at switches", a.gaps_at_switches + v.gaps_at_switches),
            ("timestamps", a.timestamp_breaks + v.timestamp_breaks),
            ("wrong csrc", a.wrong_csrc + v.wrong_csrc),
            ("without csrc", a.without_csrc + v.without_csrc),
            ("echoes", a.echoes + v.echoes),
            ("undecodable", a.undecodable_starts + v.undecodable_starts),
            ("pictures", a.picture_breaks + v.picture_breaks),
            ("malformed", report.malformed),
        ];
        all.into_iter().filter(|(_, count)| *count != 0).collect()
    }
}

fn voices(rig: &mut Rig, sender: u16, count: usize) {
    for _ in 0..count {
        rig.voice(sender);
    }
}

fn frames(rig: &mut Rig, sender: u16, count: usize) {
    for _ in 0..count {
        rig.frame(sender, false);
    }
}

#[test]
fn clean_audio_over_switches_and_wraps_has_nothing_wrong() {
    let mut rig = Rig::new();
    for sender in [0, 1, 2, 0] {
        voices(&mut rig, sender, 60);
        // a pause: the clock goes on, the numbers do not
        rig.now += 400;
        rig.timestamp = rig.timestamp.wrapping_add(400 * 48);
    }
    assert_eq!(rig.tally.audio.counts.switches, 3);
    assert_eq!(rig.tally.audio.counts.received, 240);
    let delay = rig.tally.audio.delay.percentiles().unwrap();
    assert_eq!((delay.min, delay.max), (2000, 2000));
    // spurt 1 of three speakers, 20 ms after their begin and 2 on the way
    let switch = rig.tally.audio.switch_delay.percentiles().unwrap();
    assert_eq!((switch.count, switch.max / 100), (3, 220));
    assert_eq!(rig.tally.audio.jitter.percentiles().unwrap().max, 0);
    assert_eq!(rig.wrong(), []);
}

#[test]
fn clean_video_over_switches_has_nothing_wrong() {
    let mut rig = Rig::new();
    for sender in [0, 1, 0] {
        rig.frame(sender, true);
        frames(&mut rig, sender, 30);
    }
    assert_eq!(rig.tally.video.counts.switches, 2);
    assert_eq!(rig.tally.video.counts.keyframes, 3);
    let switch = rig.tally.video.switch_delay.percentiles().unwrap();
    assert_eq!((switch.count, switch.max / 100), (2, 220));
    assert_eq!(rig.wrong(), []);
}

#[test]
fn a_gap_is_loss_and_a_late_packet_mends_it() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 5);
    rig.sequence = rig.sequence.wrapping_add(2);
    rig.counters[0] += 2;
    rig.voice(0);
    assert_eq!(rig.tally.audio.lost, 2);
    let (sequence, timestamp) = (rig.sequence, rig.timestamp);
    rig.counters[0] -= 2;
    rig.sequence = rig.sequence.wrapping_sub(2);
    rig.voice(0);
    (rig.sequence, rig.timestamp) = (sequence, timestamp);
    rig.counters[0] += 1;
    rig.voice(0);
    assert_eq!(rig.wrong(), [("lost", 1), ("late", 1)]);
}

#[test]
fn a_repeated_number_is_a_duplicate() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 5);
    rig.sequence = rig.sequence.wrapping_sub(1);
    rig.timestamp -= 960;
    rig.now -= 20;
    rig.counters[0] -= 1;
    rig.voice(0);
    assert_eq!(rig.wrong(), [("duplicates", 1)]);
}

#[test]
fn a_speaker_in_two_places_is_doubled() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 5);
    rig.counters[0] -= 1;
    rig.voice(0);
    assert_eq!(rig.wrong(), [("doubled", 1)]);
}

#[test]
fn a_packet_that_never_reached_the_server_is_skipped() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 5);
    rig.counters[0] += 2;
    rig.voice(0);
    assert_eq!(rig.wrong(), [("skipped", 2)]);
    let mut rig = Rig::new();
    rig.frame(0, true);
    frames(&mut rig, 0, 3);
    rig.counters[0] += 1;
    rig.frame(0, false);
    assert_eq!(rig.wrong(), [("skipped", 1)]);
}

#[test]
fn numbers_that_begin_anew_are_a_jump() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 5);
    rig.sequence = rig.sequence.wrapping_add(20_000);
    rig.voice(0);
    assert_eq!(rig.wrong(), [("jumps", 1)]);
}

#[test]
fn a_number_left_out_at_a_switch_is_told_from_other_loss() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 5);
    rig.sequence = rig.sequence.wrapping_add(1);
    rig.voice(1);
    assert_eq!(rig.wrong(), [("lost", 1), ("gaps at switches", 1)]);
}

#[test]
fn timestamps_of_another_clock_and_of_the_past_are_breaks() {
    for step in [
        48_000 * 30,
        0u32.wrapping_sub(48_000),
        0u32.wrapping_sub(960),
    ] {
        for sender in [0, 1] {
            let mut rig = Rig::new();
            voices(&mut rig, 0, 5);
            rig.timestamp = rig.timestamp.wrapping_add(step);
            voices(&mut rig, sender, 5);
            assert_eq!(rig.wrong(), [("timestamps", 1)], "{step} {sender}");
        }
    }
}

#[test]
fn a_csrc_that_changes_its_participant_is_wrong() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 50);
    rig.advance(20, 48);
    let mut payload = vec![0x0b, 0x41, 24];
    payload.extend_from_slice(&rig.stamp(1).to_bytes());
    rig.deliver(OPUS, Some(100), true, &payload);
    assert_eq!(rig.wrong(), [("wrong csrc", 1)]);
}

#[test]
fn a_csrc_that_is_left_out_is_seen() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 5);
    rig.advance(20, 48);
    let mut payload = vec![0x0b, 0x41, 24];
    payload.extend_from_slice(&rig.stamp(0).to_bytes());
    rig.deliver(OPUS, None, true, &payload);
    assert_eq!(rig.wrong(), [("without csrc", 1)]);
}

#[test]
fn without_stamps_the_schedule_says_whose_a_csrc_is_and_no_delay_is_made_up() {
    // twice: right by the schedule, and with the CSRCs of two speakers exchanged for a while
    for wrong in [false, true] {
        let mut rig = Rig::new();
        rig.now = 0;
        rig.watch.begin(Duration::ZERO);
        let spurts: Vec<_> = Schedule::new(1, 4).take(60).collect();
        for _ in 0..5000 {
            rig.advance(20, 48);
            let now = Duration::from_millis(rig.now);
            let talks = spurts.iter().find(|s| s.begin <= now && now < s.end);
            let Some(talks) = talks else {
                continue;
            };
            let mut csrc = 100 + talks.speaker;
            if wrong && rig.now > 90_000 {
                csrc = 100 + (talks.speaker + 1) % 4;
            }
            rig.sequence = rig.sequence.wrapping_sub(1);
            rig.advance(0, 0);
            rig.deliver(OPUS, Some(csrc), false, &[0x08, 1, 2, 3]);
        }
        rig.check.finish(0, &mut rig.tally);
        assert_eq!(rig.tally.audio.delay.percentiles(), None);
        assert_eq!(rig.tally.audio.switch_delay.percentiles(), None);
        let report = rig.tally.report(1.0, 1);
        assert_eq!(report.audio.wrong_csrc > 0, wrong, "{:?}", report.findings);
    }
}

#[test]
fn ones_own_voice_is_an_echo() {
    let mut rig = Rig::new();
    rig.check = LegCheck::new(2, 4, 0);
    voices(&mut rig, 1, 5);
    voices(&mut rig, 2, 1);
    assert_eq!(rig.wrong(), [("echoes", 1)]);
}

#[test]
fn a_source_without_its_key_frame_is_undecodable_and_asked_for_one() {
    let mut rig = Rig::new();
    rig.frame(0, true);
    frames(&mut rig, 0, 3);
    assert_eq!(rig.check.keyframes_missing(rig.now * 1000).count(), 0);
    frames(&mut rig, 1, 3);
    let at = rig.now * 1000;
    let asked: Vec<_> = rig.check.keyframes_missing(at).collect();
    assert_eq!(asked, [(1, 0x50 + 96)]);
    assert_eq!(rig.check.keyframes_missing(at + 1000).count(), 0);
    rig.frame(1, true);
    assert_eq!(rig.check.keyframes_missing(at + 900_000).count(), 0);
    assert_eq!(rig.wrong(), [("undecodable", 1)]);
}

#[test]
fn a_lost_head_of_a_key_frame_is_undecodable() {
    let mut rig = Rig::new();
    rig.frame(0, true);
    frames(&mut rig, 0, 3);
    rig.advance(40, 90);
    rig.picture = (rig.picture + 1) & 0x7fff;
    rig.packet(1, true, 1);
    rig.packet(1, true, 2);
    let wrong = rig.wrong();
    assert!(wrong.contains(&("undecodable", 1)), "{wrong:?}");
    assert!(wrong.contains(&("gaps at switches", 1)), "{wrong:?}");
}

#[test]
fn picture_ids_that_do_not_follow_are_breaks() {
    let mut rig = Rig::new();
    rig.frame(0, true);
    frames(&mut rig, 0, 3);
    rig.picture += 1;
    rig.frame(0, false);
    assert_eq!(rig.wrong(), [("pictures", 1)]);
    // a frame cut off, the next one begun
    let mut rig = Rig::new();
    rig.frame(0, true);
    rig.advance(40, 90);
    rig.sequence = rig.sequence.wrapping_sub(1);
    rig.picture = (rig.picture + 1) & 0x7fff;
    rig.packet(0, false, 0);
    rig.frame(0, false);
    assert_eq!(rig.wrong(), [("pictures", 1)]);
}

#[test]
fn payload_types_nobody_agreed_on_are_refused() {
    let mut rig = Rig::new();
    let strange = Format {
        payload_type: 3,
        ..OPUS
    };
    rig.deliver(strange, None, false, &[1]);
    assert_eq!(rig.wrong(), [("malformed", 1)]);
}

#[test]
fn media_after_bye_is_found() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 2);
    rig.check.streams()[0].ended = true;
    voices(&mut rig, 0, 2);
    assert_eq!(rig.tally.rtcp.findings["media after BYE"].count, 1);
}

#[test]
fn jitter_is_against_the_time_of_sending_and_without_stamps_against_timestamps() {
    let mut rig = Rig::new();
    voices(&mut rig, 0, 3);
    // sent 5 ms late, on the way as long as ever
    rig.now += 5;
    voices(&mut rig, 0, 1);
    let jitter = |rig: &Rig| rig.tally.audio.jitter.percentiles().unwrap().max;
    assert_eq!(jitter(&rig), 0);
    let mut rig = Rig::new();
    for late in [0, 0, 5, 0] {
        rig.advance(20, 48);
        rig.now += late;
        rig.deliver(OPUS, Some(100), false, &[8, 1, 2, 3]);
    }
    assert_eq!(jitter(&rig) / 100, 50);
}
