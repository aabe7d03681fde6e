//! Who speaks: the dominant speaker for the picture, and the loudest active ones for audio.
//!
//! The dominant speaker follows I. Volfin and I. Cohen, "Dominant speaker identification for multipoint
//! videoconferencing" (Computer Speech & Language 27, 2013), fed by RFC 6464 levels: speech activity scored over an
//! immediate, a medium and a long time, and a switch only when a contender beats the incumbent in all three.
//!
//! ```text
//! levels, one a packet ──► immediate (1 frame) ──► medium (5 frames) ──► long (10 mediums)
//!        │                        └──────── contender / incumbent ────────┘
//!        │                                          │ every interval
//!        ▼ at once                                  ▼
//!   active, with hangover                     dominant, previous, ...
//! ```
//!
//! Participants that are silent cost nothing at a decision.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{Level, SourceId};

/// Levels kept of each participant: one second at 20 ms.
const HISTORY: usize = MEDIUM_FRAMES * LONG_BLOCKS;
/// Steps the level is scored in.
const STEPS: usize = 13;
/// Frames of the medium time.
const MEDIUM_FRAMES: usize = 5;
/// Mediums of the long time.
const LONG_BLOCKS: usize = 10;
/// A frame counts for the medium time above this step. Raising it makes quiet voices invisible.
const MEDIUM_STEP: u8 = 7;
/// A medium counts for the long time when more frames than this are speech in it.
const LONG_FRAMES: u8 = 4;
/// Parameters of the exponential prior of the three times, from the paper.
const LAMBDA: [f64; 3] = [0.78, 24.0, 47.0];
/// ln(contender / incumbent) that must be exceeded in the three times. Raising them makes the picture calmer and
/// later.
const THRESHOLD: [f64; 3] = [3.0, 2.0, 0.0];
/// Least score, so that ratios exist.
const LEAST_SCORE: f64 = 1e-10;

/// dB above the noise floor from which a frame may be speech. Lowering it lets noise in.
const ABOVE_FLOOR: u8 = 10;
/// The noise floor is the least level of so long.
const FLOOR_WINDOW: Duration = Duration::from_secs(15);
/// The first window is short, so that a noisy microphone is known soon.
const FIRST_FLOOR_WINDOW: Duration = Duration::from_secs(1);
/// Noise floor of somebody of whom nothing is known yet, as loudness.
const UNKNOWN_FLOOR: u8 = 40;
/// No noise floor is higher: a talker without pauses must not become noise.
const HIGHEST_FLOOR: u8 = 75;

/// Loudness (127 − level) from which somebody may take an audio slot: −60 dBov. Lowering it lets noise in.
const ACTIVE_LOUDNESS: u8 = 67;
/// How long somebody stays active after the last speech frame. Raising it clips less and holds slots longer.
const HANGOVER: Duration = Duration::from_millis(800);
/// dB by which a contender must be louder to take the slot of somebody who speaks too.
const SLOT_MARGIN: i32 = 6;
/// A sender of whom nothing came for so long is taken for silent (DTX, loss).
const SILENT_AFTER: Duration = Duration::from_millis(100);
/// What one level stands for.
const FRAME: Duration = Duration::from_millis(20);

/// How the detector runs.
#[derive(Clone, Copy, Debug)]
pub struct SpeakerConfig {
    /// Time between decisions on the dominant speaker. Raising it makes the picture calmer and later.
    pub interval: Duration,
    /// Audio slots to fill: 1..=3.
    pub slots: usize,
}

impl Default for SpeakerConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            slots: 3,
        }
    }
}

#[derive(Debug)]
struct Participant {
    /// Scored steps, newest at `newest`.
    steps: [u8; HISTORY],
    newest: usize,
    /// Frames in `steps` that are not zero.
    loud: usize,
    muted: bool,
    last_level: Option<Instant>,
    last_speech: Option<Instant>,
    /// Loudness, smoothed over some 100 ms, in 1/16 dB.
    smoothed: i32,
    floor: u8,
    window_least: u8,
    window_end: Option<Instant>,
}

impl Participant {
    fn new() -> Self {
        Self {
            steps: [0; HISTORY],
            newest: 0,
            loud: 0,
            muted: false,
            last_level: None,
            last_speech: None,
            smoothed: 0,
            floor: UNKNOWN_FLOOR,
            window_least: u8::MAX,
            window_end: None,
        }
    }

    fn push(&mut self, step: u8) {
        self.newest = (self.newest + 1) % HISTORY;
        self.loud -= usize::from(self.steps[self.newest] > 0);
        self.loud += usize::from(step > 0);
        self.steps[self.newest] = step;
    }

    /// The least level of a window becomes the floor at its end; a lower one at once. Digital silence says nothing.
    fn track_floor(&mut self, now: Instant, loudness: u8) {
        if loudness == 0 {
            return;
        }
        let end = *self.window_end.get_or_insert(now + FIRST_FLOOR_WINDOW);
        self.window_least = self.window_least.min(loudness);
        self.floor = self.floor.min(loudness);
        if now >= end {
            self.floor = self.window_least.min(HIGHEST_FLOOR);
            self.window_least = loudness;
            self.window_end = Some(now + FLOOR_WINDOW);
        }
    }

    /// Silence for the time in which nothing came.
    fn catch_up(&mut self, now: Instant) {
        let Some(last) = self.last_level else { return };
        let silent = now.saturating_duration_since(last);
        if silent < SILENT_AFTER {
            return;
        }
        let frames = (silent.as_millis() / FRAME.as_millis()).min(HISTORY as u128) as usize;
        for _ in 0..frames {
            self.push(0);
        }
        self.smoothed = 0;
        self.last_level = Some(now);
    }

    fn is_active(&self, now: Instant) -> bool {
        self.last_speech
            .is_some_and(|t| now.saturating_duration_since(t) < HANGOVER)
    }

    fn speaks(&self, now: Instant) -> bool {
        self.last_speech
            .is_some_and(|t| now.saturating_duration_since(t) < SILENT_AFTER)
    }

    /// Scores of the immediate, medium and long time.
    fn scores(&self, tables: &Tables) -> [f64; 3] {
        let newest_first = |i: usize| self.steps[(self.newest + HISTORY - i) % HISTORY];
        let mut mediums = [0u8; LONG_BLOCKS];
        for (block, medium) in mediums.iter_mut().enumerate() {
            *medium = (0..MEDIUM_FRAMES)
                .map(|i| u8::from(newest_first(block * MEDIUM_FRAMES + i) > MEDIUM_STEP))
                .sum();
        }
        let long = mediums.iter().filter(|m| **m > LONG_FRAMES).count();
        [
            tables.immediate[usize::from(newest_first(0)).min(STEPS)],
            tables.medium[usize::from(mediums[0])],
            tables.long[long],
        ]
    }
}

/// Scores by count, made once.
#[derive(Debug)]
struct Tables {
    immediate: [f64; STEPS + 1],
    medium: [f64; MEDIUM_FRAMES + 1],
    long: [f64; LONG_BLOCKS + 1],
}

impl Tables {
    fn new() -> Self {
        Self {
            immediate: scores(LAMBDA[0]),
            medium: scores(LAMBDA[1]),
            long: scores(LAMBDA[2]),
        }
    }
}

/// ln C(n,v) + v ln p + (n−v) ln(1−p) − ln λ + λ v with p = ½, for every v (eq. 8 of the paper as the field runs it).
fn scores<const N: usize>(lambda: f64) -> [f64; N] {
    let n = N - 1;
    let mut ln_choose = 0.0;
    std::array::from_fn(|v| {
        if v > 0 {
            ln_choose += ((n - v + 1) as f64 / v as f64).ln();
        }
        (ln_choose + n as f64 * 0.5_f64.ln() - lambda.ln() + lambda * v as f64).max(LEAST_SCORE)
    })
}

/// Decides for one meeting.
#[derive(Debug)]
pub struct SpeakerDetector {
    config: SpeakerConfig,
    tables: Tables,
    participants: BTreeMap<SourceId, Participant>,
    /// Those that were loud in the last second: the only ones a decision looks at.
    awake: Vec<SourceId>,
    /// Dominant speakers, newest first, each once.
    recent: Vec<SourceId>,
    /// Who fills audio slots, the louder first; neighbours change places only where the difference is clear.
    active: Vec<SourceId>,
    next_decision: Option<Instant>,
}

impl SpeakerDetector {
    /// A meeting of nobody.
    #[must_use]
    pub fn new(config: SpeakerConfig) -> Self {
        Self {
            config,
            tables: Tables::new(),
            participants: BTreeMap::new(),
            awake: Vec::new(),
            recent: Vec::new(),
            active: Vec::with_capacity(config.slots),
            next_decision: None,
        }
    }

    /// Changes the number of audio slots.
    pub fn set_slots(&mut self, slots: usize) {
        self.config.slots = slots.max(1);
        self.active.truncate(self.config.slots);
    }

    /// Somebody may speak from now on.
    pub fn add(&mut self, id: SourceId) {
        self.participants.entry(id).or_insert_with(Participant::new);
    }

    /// Somebody has left; who spoke before becomes dominant.
    pub fn remove(&mut self, id: SourceId) {
        self.participants.remove(&id);
        self.quiet(id);
        self.recent.retain(|r| *r != id);
    }

    /// A muted participant never speaks.
    pub fn set_muted(&mut self, id: SourceId, muted: bool) {
        let Some(p) = self.participants.get_mut(&id) else {
            return;
        };
        if p.muted != muted {
            *p = Participant {
                muted,
                ..Participant::new()
            };
            self.quiet(id);
        }
    }

    fn quiet(&mut self, id: SourceId) {
        self.awake.retain(|a| *a != id);
        self.active.retain(|a| *a != id);
    }

    /// Takes in the level of one audio packet. True: [`Self::active`] has changed.
    pub fn on_level(&mut self, now: Instant, id: SourceId, level: Level) -> bool {
        let Some(p) = self.participants.get_mut(&id) else {
            return false;
        };
        if p.muted {
            return false;
        }
        p.catch_up(now);
        p.last_level = Some(now);
        let loudness = level.loudness();
        p.track_floor(now, loudness);
        p.smoothed += (i32::from(loudness) * 16 - p.smoothed) / 4;
        let above = loudness >= p.floor.saturating_add(ABOVE_FLOOR);
        let step = if above {
            (u32::from(loudness) * STEPS as u32 / 127) as u8
        } else {
            0
        };
        let was_asleep = p.loud == 0;
        p.push(step);
        if was_asleep && p.loud > 0 && !self.awake.contains(&id) {
            self.awake.push(id);
            self.next_decision.get_or_insert(now + self.config.interval);
        }
        if !above || loudness < ACTIVE_LOUDNESS {
            return false;
        }
        p.last_speech = Some(now);
        !self.active.contains(&id) && self.take_slot(now, id)
    }

    /// A free slot, else that of one who is silent by now, else that of one who is clearly quieter.
    fn take_slot(&mut self, now: Instant, id: SourceId) -> bool {
        if self.active.len() < self.config.slots {
            self.active.push(id);
            return true;
        }
        let loudness = |id: &SourceId| self.loudness(now, *id);
        let dominant = self.dominant();
        let Some((place, weakest)) = self
            .active
            .iter()
            .enumerate()
            .filter(|(_, a)| self.config.slots == 1 || Some(**a) != dominant)
            .map(|(i, a)| (i, loudness(a)))
            .min_by_key(|(_, l)| *l)
        else {
            return false;
        };
        if is_clearly_louder(loudness(&id), weakest) {
            self.active[place] = id;
            return true;
        }
        false
    }

    /// Smoothed loudness, in 1/16 dB; below zero: silent by now.
    fn loudness(&self, now: Instant, id: SourceId) -> i32 {
        let speaking = self.participants.get(&id).filter(|p| p.speaks(now));
        speaking.map_or(-1, |p| p.smoothed)
    }

    /// Lets whoever is clearly louder pass the one before. True: the order has changed.
    fn order_active(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for end in (1..self.active.len()).rev() {
            for at in 0..end {
                let [before, after] = [self.active[at], self.active[at + 1]];
                if is_clearly_louder(self.loudness(now, after), self.loudness(now, before)) {
                    self.active.swap(at, at + 1);
                    changed = true;
                }
            }
        }
        changed
    }

    /// When [`Self::decide`] wants to be called; `None` while everybody is silent.
    #[must_use]
    pub fn next_decision(&self) -> Option<Instant> {
        self.next_decision
    }

    /// Decides on the dominant speaker. True: dominant or active have changed.
    pub fn decide(&mut self, now: Instant) -> bool {
        for id in &self.awake {
            if let Some(p) = self.participants.get_mut(id) {
                p.catch_up(now);
            }
        }
        let participants = &self.participants;
        self.awake.retain(|id| {
            participants
                .get(id)
                .is_some_and(|p| p.loud > 0 || p.is_active(now))
        });
        let active_before = self.active.len();
        self.active
            .retain(|id| participants.get(id).is_some_and(|p| p.is_active(now)));
        self.next_decision = if self.awake.is_empty() {
            None
        } else {
            Some(now + self.config.interval)
        };
        let switched = match self.contender() {
            Some(id) => {
                self.recent.retain(|r| *r != id);
                self.recent.insert(0, id);
                if !self.active.contains(&id) && self.participants[&id].is_active(now) {
                    self.take_slot(now, id);
                }
                true
            }
            None => false,
        };
        let passed = self.order_active(now);
        switched || passed || self.active.len() != active_before
    }

    /// Who beats the incumbent in all three times; of several the one with the highest medium ratio.
    fn contender(&self) -> Option<SourceId> {
        let incumbent = match self.dominant() {
            Some(id) => self.participants.get(&id)?.scores(&self.tables),
            // nobody yet: somebody silent is to be beaten
            None => [
                self.tables.immediate[0],
                self.tables.medium[0],
                self.tables.long[0] / 2.0,
            ],
        };
        let mut best: Option<(f64, SourceId)> = None;
        for id in self.awake.iter().filter(|id| Some(**id) != self.dominant()) {
            let Some(p) = self.participants.get(id) else {
                continue;
            };
            let scores = p.scores(&self.tables);
            let ratio: [f64; 3] = std::array::from_fn(|i| (scores[i] / incumbent[i]).ln());
            let wins = ratio.iter().zip(THRESHOLD).all(|(r, t)| *r > t);
            if wins && best.is_none_or(|(medium, _)| ratio[1] > medium) {
                best = Some((ratio[1], *id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Who has the picture.
    #[must_use]
    pub fn dominant(&self) -> Option<SourceId> {
        self.recent.first().copied()
    }

    /// Whom the dominant speaker sees.
    #[must_use]
    pub fn previous(&self) -> Option<SourceId> {
        self.recent.get(1).copied()
    }

    /// Dominant speakers, newest first, each once.
    pub fn recent(&self) -> impl Iterator<Item = SourceId> + '_ {
        self.recent.iter().copied()
    }

    /// Who fills audio slots, the louder of the last 100 ms first.
    #[must_use]
    pub fn active(&self) -> &[SourceId] {
        &self.active
    }
}

/// Whether somebody of the first loudness takes the place of somebody of the second (see [`SpeakerDetector::loudness`]).
fn is_clearly_louder(challenger: i32, holder: i32) -> bool {
    challenger >= 0 && (holder < 0 || challenger > holder + SLOT_MARGIN * 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SourceId = SourceId(1);
    const B: SourceId = SourceId(2);
    const C: SourceId = SourceId(3);
    const D: SourceId = SourceId(4);
    const SPEECH: u8 = 26;
    const NOISE: u8 = 66;

    /// A meeting on a virtual clock: everybody sends a level each 20 ms.
    struct Meeting {
        detector: SpeakerDetector,
        now: Instant,
        ids: Vec<SourceId>,
    }

    impl Meeting {
        fn of(ids: &[SourceId]) -> Self {
            let mut detector = SpeakerDetector::new(SpeakerConfig::default());
            for id in ids {
                detector.add(*id);
            }
            let mut meeting = Self {
                detector,
                now: Instant::now(),
                ids: ids.to_vec(),
            };
            meeting.run(2500, &[]);
            meeting
        }

        /// So many ms in which `speakers` are at their levels and the others at the noise floor. Returns when the
        /// dominant speaker changed first, ms.
        fn run(&mut self, ms: u64, speakers: &[(SourceId, u8)]) -> Option<u64> {
            let before = self.detector.dominant();
            let mut changed = None;
            for at in (0..ms).step_by(20) {
                for id in &self.ids {
                    let level = speakers
                        .iter()
                        .find(|(s, _)| s == id)
                        .map_or(NOISE, |(_, l)| *l);
                    self.detector
                        .on_level(self.now, *id, Level::new(level, false));
                }
                if self.detector.next_decision().is_some_and(|t| t <= self.now) {
                    self.detector.decide(self.now);
                }
                if self.detector.dominant() != before && changed.is_none() {
                    changed = Some(at);
                }
                self.now += Duration::from_millis(20);
            }
            changed
        }
    }

    #[test]
    fn scores_grow_with_speech_and_never_fall_below_the_least() {
        let tables = Tables::new();
        for row in [&tables.immediate[..], &tables.medium[..], &tables.long[..]] {
            assert!(row.iter().all(|s| *s >= LEAST_SCORE));
            assert!(row.last() > row.first());
        }
    }

    #[test]
    fn nobody_is_dominant_in_silence_and_no_decision_is_due() {
        let meeting = Meeting::of(&[A, B, C]);
        assert_eq!(meeting.detector.dominant(), None);
        assert_eq!(meeting.detector.active(), &[]);
        assert_eq!(meeting.detector.next_decision(), None);
    }

    #[test]
    fn a_speaker_becomes_dominant_within_half_a_second_and_active_at_once() {
        let mut meeting = Meeting::of(&[A, B, C]);
        assert!(
            meeting
                .detector
                .on_level(meeting.now, B, Level::new(SPEECH, false))
        );
        assert_eq!(meeting.detector.active(), &[B]);
        let at = meeting
            .run(1000, &[(B, SPEECH)])
            .expect("a dominant speaker");
        assert!(at <= 500, "{at} ms");
        assert_eq!(meeting.detector.dominant(), Some(B));
    }

    #[test]
    fn contender_wins_after_the_incumbent_falls_silent() {
        let mut meeting = Meeting::of(&[A, B, C]);
        meeting.run(3000, &[(A, SPEECH)]);
        let at = meeting.run(2000, &[(B, SPEECH)]).expect("a switch");
        assert!(at <= 800, "{at} ms");
        assert_eq!(
            (meeting.detector.dominant(), meeting.detector.previous()),
            (Some(B), Some(A))
        );
    }

    #[test]
    fn a_click_does_not_win_the_floor_from_a_speaker() {
        let mut meeting = Meeting::of(&[A, B, C]);
        meeting.run(3000, &[(A, SPEECH)]);
        assert_eq!(meeting.run(60, &[(A, SPEECH), (B, 10)]), None);
        assert_eq!(meeting.run(2000, &[(A, SPEECH)]), None);
    }

    #[test]
    fn a_speaker_keeps_the_floor_through_a_pause() {
        let mut meeting = Meeting::of(&[A, B, C]);
        meeting.run(3000, &[(A, SPEECH)]);
        meeting.run(4000, &[]);
        assert_eq!(meeting.detector.dominant(), Some(A));
        assert_eq!(meeting.detector.active(), &[], "hangover is over");
    }

    #[test]
    fn a_slot_is_kept_until_the_hangover_ends_and_given_to_a_louder_fourth() {
        let mut meeting = Meeting::of(&[A, B, C, D]);
        meeting.run(400, &[(A, SPEECH), (B, SPEECH), (C, SPEECH + 8)]);
        let mut active = meeting.detector.active().to_vec();
        active.sort();
        assert_eq!(active, [A, B, C]);
        meeting.run(
            200,
            &[(A, SPEECH), (B, SPEECH), (C, SPEECH + 8), (D, SPEECH + 5)],
        );
        assert!(
            !meeting.detector.active().contains(&D),
            "3 dB louder is not enough"
        );
        meeting.run(
            400,
            &[(A, SPEECH), (B, SPEECH), (C, SPEECH + 8), (D, SPEECH - 4)],
        );
        assert!(meeting.detector.active().contains(&D));
        assert!(!meeting.detector.active().contains(&C));
    }

    #[test]
    fn whoever_speaks_now_comes_before_a_cough_and_the_clearly_louder_before_the_quieter() {
        let mut meeting = Meeting::of(&[A, B, C]);
        meeting.run(100, &[(A, 10)]);
        meeting.run(300, &[(B, SPEECH)]);
        assert_eq!(meeting.detector.active(), &[B, A], "A has coughed");
        meeting.run(400, &[(B, SPEECH), (C, SPEECH - 4)]);
        assert_eq!(meeting.detector.active()[0], B, "4 dB are not enough");
        meeting.run(400, &[(B, SPEECH), (C, SPEECH - 9)]);
        assert_eq!(meeting.detector.active()[0], C);
    }

    #[test]
    fn muted_and_gone_participants_neither_speak_nor_hold_anything() {
        let mut meeting = Meeting::of(&[A, B, C]);
        meeting.run(2000, &[(A, SPEECH)]);
        meeting.run(2000, &[(B, SPEECH)]);
        meeting.detector.set_muted(C, true);
        meeting.run(2000, &[(C, SPEECH)]);
        assert_eq!(meeting.detector.dominant(), Some(B));
        meeting.detector.remove(B);
        assert_eq!(
            (meeting.detector.dominant(), meeting.detector.previous()),
            (Some(A), None)
        );
        assert!(
            !meeting
                .detector
                .on_level(meeting.now, B, Level::new(SPEECH, false))
        );
    }

    #[test]
    fn a_sender_that_stops_sending_falls_silent() {
        let mut meeting = Meeting::of(&[A, B]);
        meeting.run(2000, &[(A, SPEECH)]);
        meeting.ids = vec![B];
        meeting.run(2000, &[]);
        assert_eq!(meeting.detector.next_decision(), None);
        assert_eq!(meeting.detector.active(), &[]);
    }

    #[test]
    fn steady_noise_becomes_the_floor_and_wins_nothing() {
        let mut meeting = Meeting::of(&[A, B]);
        meeting.run(40_000, &[(B, 55)]);
        meeting.run(2000, &[(A, SPEECH), (B, 55)]);
        assert_eq!(meeting.detector.dominant(), Some(A));
        meeting.run(5000, &[(B, 55)]);
        assert_eq!(meeting.detector.dominant(), Some(A));
        assert_eq!(meeting.detector.active(), &[]);
    }
}
