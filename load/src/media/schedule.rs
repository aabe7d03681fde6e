//! Who talks when: turns of a conversation, drawn from a seed, so that every thread knows the same ones.
//!
//! Mostly one talks at a time; now and then another falls in for a moment, as people do. That is what a switch's speaker
//! selection has to cope with: a change of speaker every few seconds, and short contests.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Mean of a turn before it is kept within [`SPURT`].
const MEAN_SPURT: f64 = 3.0;

/// Shortest and longest turn, s. Shorter ones would be coughs: a switch may rightly ignore them.
const SPURT: (f64, f64) = (0.8, 10.0);

/// Mean pause between two turns, s.
const MEAN_PAUSE: f64 = 0.4;

/// Shortest and longest pause, s.
const PAUSE: (f64, f64) = (0.1, 2.0);

/// How many turns of at least [`INTERRUPTED`] someone falls into. Raising it raises the share of talk at once: with
/// this it is about an eighth.
const INTERJECTIONS: f64 = 0.5;

/// Turns shorter than this are left alone, s.
const INTERRUPTED: f64 = 1.2;

/// Shortest and longest interjection, s.
const INTERJECTION: (f64, f64) = (0.8, 1.6);

/// One participant talking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spurt {
    /// Who: a participant below the number of speakers.
    pub speaker: u32,
    /// The speaker's how manieth, from 0.
    pub number: u16,
    /// From the begin of the schedule.
    pub begin: Duration,
    /// Exclusive.
    pub end: Duration,
}

/// An endless conversation: an iterator of spurts, by their begin.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: ChaCha8Rng,
    speakers: u32,
    last: Option<u32>,
    /// Seconds at which the last turn ended.
    at: f64,
    numbers: Vec<u16>,
    ready: VecDeque<Spurt>,
}

impl Schedule {
    /// A conversation of participants 0 to `speakers` − 1.
    #[must_use]
    pub fn new(seed: u64, speakers: u32) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            speakers,
            last: None,
            at: 0.0,
            numbers: vec![0; speakers as usize],
            ready: VecDeque::new(),
        }
    }

    fn exponential(&mut self, mean: f64, (least, most): (f64, f64)) -> f64 {
        let uniform: f64 = self.random.random_range(f64::EPSILON..1.0);
        (-mean * uniform.ln()).clamp(least, most)
    }

    /// Anyone but `other`, where there is someone else.
    fn someone(&mut self, other: Option<u32>) -> u32 {
        match other {
            Some(other) if self.speakers > 1 => {
                let drawn = self.random.random_range(0..self.speakers - 1);
                drawn + u32::from(drawn >= other)
            }
            _ => self.random.random_range(0..self.speakers),
        }
    }

    fn push(&mut self, speaker: u32, begin: f64, end: f64) {
        let number = &mut self.numbers[speaker as usize];
        self.ready.push_back(Spurt {
            speaker,
            number: *number,
            begin: Duration::from_secs_f64(begin),
            end: Duration::from_secs_f64(end),
        });
        *number = number.wrapping_add(1);
    }

    fn turn(&mut self) {
        let speaker = self.someone(self.last);
        let begin = self.at + self.exponential(MEAN_PAUSE, PAUSE);
        let length = self.exponential(MEAN_SPURT, SPURT);
        self.push(speaker, begin, begin + length);
        if self.speakers > 1 && length >= INTERRUPTED && self.random.random_bool(INTERJECTIONS) {
            let other = self.someone(Some(speaker));
            let most = INTERJECTION.1.min(length - 0.2);
            let short = self.random.random_range(INTERJECTION.0..=most);
            // within the turn, so that nobody ever overlaps with themselves
            let after = self.random.random_range(0.1..=length - short);
            self.push(other, begin + after, begin + after + short);
        }
        self.last = Some(speaker);
        self.at = begin + length;
    }
}

impl Iterator for Schedule {
    type Item = Spurt;

    fn next(&mut self) -> Option<Spurt> {
        if self.speakers == 0 {
            return None;
        }
        if self.ready.is_empty() {
            self.turn();
        }
        self.ready.pop_front()
    }
}

/// Until a speaker is certainly heard by all after the begin of a spurt, and until the last packets of one before have
/// come.
const SETTLED: Duration = Duration::from_millis(700);

/// Looks up who talks, at times that mostly grow.
#[derive(Clone, Debug)]
pub struct Watch {
    schedule: Schedule,
    recent: VecDeque<Spurt>,
    next: Option<Spurt>,
    begun: Option<Duration>,
}

impl Watch {
    /// Of that schedule.
    #[must_use]
    pub fn new(mut schedule: Schedule) -> Self {
        let next = schedule.next();
        Self {
            schedule,
            recent: VecDeque::new(),
            next,
            begun: None,
        }
    }

    /// The schedule begins at `now`.
    pub fn begin(&mut self, now: Duration) {
        self.begun = Some(now);
    }

    /// The only one who can be heard at `now`: who has talked for a while, with nobody else about. Nobody before the
    /// schedule begins.
    pub fn alone(&mut self, now: Duration) -> Option<u32> {
        let now = now.checked_sub(self.begun?)?;
        while let Some(next) = self.next.filter(|next| next.begin <= now) {
            self.recent.push_back(next);
            self.next = self.schedule.next();
        }
        self.recent.retain(|spurt| spurt.end + SETTLED > now);
        let mut talking = self.recent.iter();
        let only = talking.next()?;
        let settled = only.begin + SETTLED <= now && now < only.end;
        (talking.next().is_none() && settled).then_some(only.speaker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(seed: u64, speakers: u32, seconds: u64) -> Vec<Spurt> {
        Schedule::new(seed, speakers)
            .take_while(|s| s.begin < Duration::from_secs(seconds))
            .collect()
    }

    /// Share of the time with any talk in which more than one talks.
    fn overlap(spurts: &[Spurt]) -> f64 {
        let (mut any, mut both) = (0u32, 0u32);
        for step in 0..36_000 {
            let at = Duration::from_millis(100 * step);
            let count = spurts.iter().filter(|s| s.begin <= at && at < s.end);
            match count.count() {
                0 => {}
                1 => any += 1,
                _ => (any, both) = (any + 1, both + 1),
            }
        }
        f64::from(both) / f64::from(any)
    }

    #[test]
    fn an_eighth_of_the_talk_is_at_once_and_turns_are_three_seconds() {
        let spurts = take(7, 3, 3600);
        let share = overlap(&spurts);
        assert!((0.10..0.15).contains(&share), "{share}");
        let turns = spurts.iter().map(|s| (s.end - s.begin).as_secs_f64());
        let mean = turns.sum::<f64>() / spurts.len() as f64;
        assert!((2.0..3.5).contains(&mean), "{mean}");
        for spurt in &spurts {
            let length = spurt.end - spurt.begin;
            assert!(length >= Duration::from_millis(790) && length <= Duration::from_secs(11));
        }
    }

    #[test]
    fn nobody_overlaps_with_themselves_and_begins_are_in_order() {
        for speakers in [1, 2, 3, 8] {
            let spurts = take(11, speakers, 1800);
            assert!(spurts.is_sorted_by_key(|s| s.begin));
            for speaker in 0..speakers {
                let own: Vec<_> = spurts.iter().filter(|s| s.speaker == speaker).collect();
                assert!(own.len() > 100 / speakers as usize, "{speakers}");
                for (at, pair) in own.windows(2).enumerate() {
                    assert!(pair[0].end < pair[1].begin);
                    assert_eq!(usize::from(pair[1].number), at + 1);
                }
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_conversation_and_another_another() {
        assert_eq!(take(1, 4, 300), take(1, 4, 300));
        assert_ne!(take(1, 4, 300), take(2, 4, 300));
        assert_eq!(Schedule::new(1, 0).next(), None);
    }

    #[test]
    fn a_watch_names_only_those_who_are_alone() {
        let spurts = take(5, 3, 600);
        let mut watch = Watch::new(Schedule::new(5, 3));
        assert_eq!(watch.alone(Duration::from_secs(3)), None);
        watch.begin(Duration::from_secs(7));
        let mut named = 0;
        for step in 0..6_000 {
            let at = Duration::from_millis(100 * step);
            if let Some(speaker) = watch.alone(at + Duration::from_secs(7)) {
                named += 1;
                let talking: Vec<_> = spurts
                    .iter()
                    .filter(|s| s.begin <= at && at < s.end)
                    .collect();
                assert_eq!(talking.len(), 1);
                assert_eq!(talking[0].speaker, speaker);
            }
        }
        assert!(named > 2_000, "{named}");
    }
}
