//! Deadlines by key, at most one a key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A set of deadlines; setting one again moves it.
#[derive(Debug)]
pub(crate) struct TimerQueue<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> TimerQueue<K> {
    pub(crate) fn new() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        self.clear(&key);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    /// Forgets a deadline.
    pub(crate) fn clear(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// How many are set.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_that_is_moved_fires_once_at_its_new_time() {
        let start = Instant::now();
        let mut queue = TimerQueue::new();
        queue.set("a", start + Duration::from_secs(1));
        queue.set("a", start + Duration::from_secs(3));
        queue.set("b", start + Duration::from_secs(2));
        assert_eq!(queue.pop_due(start + Duration::from_secs(1)), None);
        assert_eq!(queue.pop_due(start + Duration::from_secs(3)), Some("b"));
        assert_eq!(queue.pop_due(start + Duration::from_secs(3)), Some("a"));
        assert_eq!(queue.len(), 0);
    }
}
