//! A hierarchical timer wheel: insert and cancel in constant time, never early, at most one tick late.
//!
//! Level 0 has 64 slots of one tick; a slot of level n+1 is as long as the whole of level n. A timer lives on the
//! level of the highest six bits in which its tick differs from the present one, and moves down (cascades) when the
//! wheel enters its slot. So everything on a lower level is due before everything on a higher one, and the first
//! occupied slot of the lowest occupied level holds the next timer.

use std::time::{Duration, Instant};

/// One tick. Raising it saves wake-ups of an idle shell, and makes timers later by as much.
const TICK: Duration = Duration::from_millis(1);
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 6;
/// Longest timer: half of the highest level (398 days), so that it never laps the present slot.
const MAX_AHEAD: u64 = 1 << (BITS as u64 * LEVELS as u64 - 1);
const NIL: u32 = u32::MAX;

/// Names a timer until it fires or is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimerId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    /// `None` where the entry is free.
    value: Option<T>,
    tick: u64,
    generation: u32,
    level: u8,
    slot: u8,
    previous: u32,
    /// The next in the slot, or in the free list.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct SlotList {
    head: u32,
    tail: u32,
    /// No timer of the slot is due before this tick (exact but for cancelled ones).
    earliest: u64,
}

const EMPTY: SlotList = SlotList {
    head: NIL,
    tail: NIL,
    earliest: u64::MAX,
};

#[derive(Debug)]
struct Level {
    /// Bit n: slot n is not empty.
    occupied: u64,
    slots: [SlotList; SLOTS],
}

/// The wheel. Time begins with the first insertion.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    origin: Option<Instant>,
    /// Every tick before this one has been fired; this one too, but while [`Self::fire`] is at it.
    elapsed: u64,
    levels: Box<[Level; LEVELS]>,
    entries: Vec<Entry<T>>,
    free: u32,
    len: usize,
}

impl<T: Copy> Wheel<T> {
    pub(super) fn new() -> Self {
        Self {
            origin: None,
            elapsed: 0,
            levels: Box::new(std::array::from_fn(|_| Level {
                occupied: 0,
                slots: [EMPTY; SLOTS],
            })),
            entries: Vec::new(),
            free: NIL,
            len: 0,
        }
    }

    /// Timers that run.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.len
    }

    /// Starts a timer that fires at `deadline`, or with the next [`Self::fire`] where that is past.
    pub(super) fn insert(&mut self, now: Instant, deadline: Instant, value: T) -> TimerId {
        let origin = *self.origin.get_or_insert(now);
        // Rounded up: never early. Not before the next tick, since the present one has been fired.
        let tick = ticks_up(deadline.saturating_duration_since(origin))
            .clamp(self.elapsed + 1, self.elapsed.saturating_add(MAX_AHEAD));
        let index = self.allocate(value, tick);
        self.link(index);
        self.len += 1;
        TimerId {
            index,
            generation: self.entries[index as usize].generation,
        }
    }

    /// Stops a timer; nothing happens where it has fired.
    pub(super) fn cancel(&mut self, id: TimerId) {
        let live = self
            .entries
            .get(id.index as usize)
            .is_some_and(|e| e.generation == id.generation && e.value.is_some());
        if live {
            self.unlink(id.index);
            self.release(id.index);
        }
    }

    /// When the next timer fires, or a little before where one was cancelled; `None` without timers.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let origin = self.origin?;
        let tick = self.levels.iter().enumerate().find_map(|(n, level)| {
            let slot = self.first_occupied(n, level)?;
            Some(level.slots[slot].earliest)
        })?;
        Some(origin + from_ticks(tick))
    }

    /// Takes out one timer that is due at `now`, the earliest first; call until `None`.
    pub(super) fn fire(&mut self, now: Instant) -> Option<T> {
        let until = (now.saturating_duration_since(self.origin?).as_nanos() / TICK.as_nanos())
            .try_into()
            .unwrap_or(u64::MAX);
        loop {
            let Some((level, slot)) = self
                .levels
                .iter()
                .enumerate()
                .find_map(|(n, level)| Some((n, self.first_occupied(n, level)?)))
            else {
                self.elapsed = self.elapsed.max(until);
                return None;
            };
            let list = self.levels[level].slots[slot];
            if list.earliest > until {
                self.enter(until);
                return None;
            }
            // From a higher level this brings the slot down, from level 0 it changes the present slot only.
            self.enter(list.earliest);
            if level == 0 {
                self.unlink(list.head);
                return self.release(list.head);
            }
        }
    }

    /// Moves time on to a tick before which nothing is due, and brings down the slots it lies in.
    fn enter(&mut self, tick: u64) {
        self.elapsed = self.elapsed.max(tick);
        for level in (1..LEVELS).rev() {
            let slot = slot_of(self.elapsed, level);
            if self.levels[level].occupied & (1 << slot) != 0 {
                self.cascade(level, slot);
            }
        }
    }

    /// Puts every timer of a slot where it belongs now, in order.
    fn cascade(&mut self, level: usize, slot: usize) {
        let list = std::mem::replace(&mut self.levels[level].slots[slot], EMPTY);
        self.levels[level].occupied &= !(1 << slot);
        let mut index = list.head;
        while index != NIL {
            let next = self.entries[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    /// The first occupied slot of a level from the present one on. Slots behind it are always empty: timers go to
    /// a level because they share all higher bits with the present tick and are ahead of it.
    fn first_occupied(&self, level: usize, l: &Level) -> Option<usize> {
        if l.occupied == 0 {
            return None;
        }
        let here = slot_of(self.elapsed, level) as u32;
        // Only the highest level can wrap around.
        let rotated = l.occupied.rotate_right(here);
        Some(((rotated.trailing_zeros() + here) as usize) % SLOTS)
    }

    fn link(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let level = level_of(self.elapsed, tick);
        let slot = slot_of(tick, level);
        let list = &mut self.levels[level].slots[slot];
        let tail = list.tail;
        list.tail = index;
        list.earliest = list.earliest.min(tick);
        if tail == NIL {
            list.head = index;
        } else {
            self.entries[tail as usize].next = index;
        }
        self.levels[level].occupied |= 1 << slot;
        let entry = &mut self.entries[index as usize];
        entry.level = level as u8;
        entry.slot = slot as u8;
        entry.previous = tail;
        entry.next = NIL;
    }

    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (level, slot) = (usize::from(entry.level), usize::from(entry.slot));
        let (previous, next) = (entry.previous, entry.next);
        if previous != NIL {
            self.entries[previous as usize].next = next;
        }
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        let list = &mut self.levels[level].slots[slot];
        if list.head == index {
            list.head = next;
        }
        if list.tail == index {
            list.tail = previous;
        }
        if list.head == NIL {
            *list = EMPTY;
            self.levels[level].occupied &= !(1 << slot);
        }
    }

    fn allocate(&mut self, value: T, tick: u64) -> u32 {
        if self.free != NIL {
            let index = self.free;
            let entry = &mut self.entries[index as usize];
            self.free = entry.next;
            entry.value = Some(value);
            entry.tick = tick;
            return index;
        }
        let index = u32::try_from(self.entries.len())
            .ok()
            .filter(|i| *i != NIL)
            .expect(
                "each transaction has two timers and the table limits keep them far below 2^32",
            );
        self.entries.push(Entry {
            value: Some(value),
            tick,
            generation: 0,
            level: 0,
            slot: 0,
            previous: NIL,
            next: NIL,
        });
        index
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        entry.value.take()
    }
}

fn ticks_up(after: Duration) -> u64 {
    after
        .as_nanos()
        .div_ceil(TICK.as_nanos())
        .try_into()
        .unwrap_or(u64::MAX)
}

/// Ticks fit: nothing is further ahead than [`MAX_AHEAD`] of a moment that was an [`Instant`].
fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks)
}

fn slot_of(tick: u64, level: usize) -> usize {
    ((tick >> (BITS as usize * level)) as usize) % SLOTS
}

fn level_of(elapsed: u64, tick: u64) -> usize {
    let differing = elapsed ^ tick;
    if differing == 0 {
        return 0;
    }
    ((63 - differing.leading_zeros()) / BITS).min(LEVELS as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn drain(wheel: &mut Wheel<u64>, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| wheel.fire(now)).collect()
    }

    #[test]
    fn a_timer_fires_at_its_moment_and_not_before() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new();
        wheel.insert(t0, t0 + ms(500), 1);
        assert_eq!(wheel.next_deadline(), Some(t0 + ms(500)));
        assert!(drain(&mut wheel, t0 + ms(499)).is_empty());
        assert_eq!(drain(&mut wheel, t0 + ms(500)), [1]);
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_part_of_a_tick_is_rounded_up() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new();
        wheel.insert(t0, t0 + Duration::from_micros(1_200), 1);
        assert!(drain(&mut wheel, t0 + Duration::from_micros(1_999)).is_empty());
        assert_eq!(drain(&mut wheel, t0 + ms(2)), [1]);
    }

    #[test]
    fn cancelled_timers_never_fire_and_a_stale_id_cancels_nothing() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new();
        let a = wheel.insert(t0, t0 + ms(10), 1);
        let b = wheel.insert(t0, t0 + ms(10), 2);
        wheel.insert(t0, t0 + ms(10), 3);
        wheel.cancel(b);
        wheel.cancel(b);
        assert_eq!(drain(&mut wheel, t0 + ms(10)), [1, 3]);
        wheel.insert(t0, t0 + ms(20), 4);
        wheel.cancel(a);
        assert_eq!(drain(&mut wheel, t0 + ms(20)), [4]);
    }

    #[test]
    fn a_timer_started_in_the_past_fires_with_the_next_tick() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new();
        wheel.insert(t0, t0 + ms(1), 0);
        assert_eq!(drain(&mut wheel, t0 + ms(100)), [0]);
        wheel.insert(t0 + ms(100), t0 + ms(3), 1);
        assert_eq!(drain(&mut wheel, t0 + ms(101)), [1]);
    }

    #[test]
    fn a_distant_deadline_is_capped_instead_of_overflowing() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new();
        wheel.insert(t0, t0 + Duration::from_secs(100 * 365 * 86_400), 1);
        assert!(drain(&mut wheel, t0 + Duration::from_secs(365 * 86_400)).is_empty());
        assert_eq!(
            drain(&mut wheel, t0 + Duration::from_secs(3 * 365 * 86_400)),
            [1]
        );
    }

    /// Random insertions, cancellations and steps, small and large, against a sorted list.
    #[test]
    fn it_fires_exactly_what_a_sorted_list_would() {
        for seed in 0..20 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let t0 = Instant::now();
            let mut now = 0u64;
            let mut wheel = Wheel::new();
            let mut model: Vec<(u64, u64, TimerId)> = Vec::new();
            for id in 0..4_000u64 {
                for _ in 0..rng.random_range(0..3) {
                    let ahead = 1u64 << rng.random_range(0..22);
                    let at = now + rng.random_range(1..=ahead);
                    let timer = wheel.insert(t0 + ms(now), t0 + ms(at), id);
                    model.push((at, id, timer));
                }
                if rng.random_bool(0.3) && !model.is_empty() {
                    let victim = model.swap_remove(rng.random_range(0..model.len()));
                    wheel.cancel(victim.2);
                }
                let next = model.iter().map(|m| m.0).min();
                let told = wheel.next_deadline();
                assert_eq!(told.is_some(), next.is_some());
                if let (Some(told), Some(next)) = (told, next) {
                    assert!(told <= t0 + ms(next), "never later than the next timer");
                }
                now += 1 << rng.random_range(0..16);
                let mut fired: Vec<u64> = drain(&mut wheel, t0 + ms(now));
                let mut due: Vec<u64> = model.iter().filter(|m| m.0 <= now).map(|m| m.1).collect();
                model.retain(|m| m.0 > now);
                fired.sort_unstable();
                due.sort_unstable();
                assert_eq!(fired, due, "seed {seed} step {id}");
                assert_eq!(wheel.len(), model.len());
            }
        }
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new();
        for at in [70_000u64, 3, 64, 65, 4_096, 5_000, 300_000, 1, 63, 4_095] {
            wheel.insert(t0, t0 + ms(at), at);
        }
        let fired = drain(&mut wheel, t0 + ms(400_000));
        assert_eq!(
            fired,
            [1, 3, 63, 64, 65, 4_095, 4_096, 5_000, 70_000, 300_000]
        );
    }

    #[test]
    fn without_cancellation_the_told_deadline_is_exact() {
        let t0 = Instant::now();
        let mut wheel = Wheel::new();
        wheel.insert(t0, t0, 0);
        drain(&mut wheel, t0 + ms(1));
        for at in [90_000u64, 32_000, 700] {
            wheel.insert(t0 + ms(1), t0 + ms(at), at);
            assert_eq!(wheel.next_deadline(), Some(t0 + ms(at)));
        }
    }
}
