//! Watches of the embedded engine: a bounded history of committed changes, and who is told of new ones.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::store::{Revision, Watch, WatchEvent};

/// Events a watcher may be behind before it is cut off with [`WatchEvent::Lost`]. Raising it costs memory
/// while a consumer is slow, lowering it makes it read everything again sooner.
const WATCHER_QUEUE: usize = 4_096;

/// The watches and what they may still ask for.
#[derive(Debug)]
pub(super) struct Hub {
    history: VecDeque<WatchEvent>,
    history_bytes: usize,
    limits: HistoryLimits,
    watchers: Vec<Watcher>,
    /// Changes up to this one are no longer in the history.
    floor: Revision,
    revision: Revision,
}

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct HistoryLimits {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    queue: mpsc::Sender<WatchEvent>,
    /// Kept back so that a full queue can still be told that it lost something.
    last_word: mpsc::OwnedPermit<WatchEvent>,
}

impl Hub {
    pub(super) fn new(revision: Revision, limits: HistoryLimits) -> Self {
        Self {
            history: VecDeque::new(),
            history_bytes: 0,
            limits,
            watchers: Vec::new(),
            floor: revision,
            revision,
        }
    }

    /// Starts a watch with what the history has after `from`.
    pub(super) fn watch(&mut self, prefix: &str, from: Revision) -> Watch {
        let known = from >= self.floor;
        let missed: Vec<_> = self
            .history
            .iter()
            .filter(|e| known && revision_of(e) > from && key_of(e).starts_with(prefix))
            .cloned()
            .collect();
        let (queue, watch) = mpsc::channel(missed.len() + WATCHER_QUEUE);
        let last_word = queue
            .clone()
            .try_reserve_owned()
            .unwrap_or_else(|_| unreachable!("a new queue with a reader has room"));
        if !known {
            last_word.send(WatchEvent::Lost);
            return watch;
        }
        for event in missed {
            // Cannot fail: the queue has room for all of them and more.
            let _ = queue.try_send(event);
        }
        self.watchers.push(Watcher {
            prefix: prefix.to_owned(),
            queue,
            last_word,
        });
        watch
    }

    /// Takes in the changes of one revision, in order.
    pub(super) fn committed(&mut self, revision: Revision, changes: Vec<WatchEvent>) {
        self.revision = revision;
        for change in changes {
            self.tell(&change);
            self.history_bytes += size_of(&change);
            self.history.push_back(change);
        }
        while self.history.len() > self.limits.events || self.history_bytes > self.limits.bytes {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= size_of(&oldest);
            // Its whole revision counts as gone, so that none is ever replayed in part.
            self.floor = revision_of(&oldest);
        }
    }

    fn tell(&mut self, change: &WatchEvent) {
        let mut kept = Vec::with_capacity(self.watchers.len());
        for watcher in self.watchers.drain(..) {
            if !key_of(change).starts_with(&watcher.prefix) {
                kept.push(watcher);
                continue;
            }
            match watcher.queue.try_send(change.clone()) {
                Ok(()) => kept.push(watcher),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watcher.last_word.send(WatchEvent::Lost);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        self.watchers = kept;
    }

    /// Tells all watchers that they are up to date, and forgets those that are gone.
    pub(super) fn progress(&mut self) {
        let revision = self.revision;
        self.watchers.retain(|w| {
            // A full queue has news enough.
            let _ = w.queue.try_send(WatchEvent::Progress(revision));
            !w.queue.is_closed()
        });
    }

    /// The state is not the one the watchers were told of any more: everyone reads again.
    pub(super) fn lost(&mut self, revision: Revision) {
        for watcher in self.watchers.drain(..) {
            watcher.last_word.send(WatchEvent::Lost);
        }
        *self = Self::new(revision, self.limits);
    }
}

fn key_of(event: &WatchEvent) -> &str {
    match event {
        WatchEvent::Put(entry) => &entry.key,
        WatchEvent::Delete { key, .. } => key,
        WatchEvent::Progress(_) | WatchEvent::Lost => "",
    }
}

fn revision_of(event: &WatchEvent) -> Revision {
    match event {
        WatchEvent::Put(entry) => entry.modified,
        WatchEvent::Delete { revision, .. } | WatchEvent::Progress(revision) => *revision,
        WatchEvent::Lost => Revision(0),
    }
}

fn size_of(event: &WatchEvent) -> usize {
    let value = match event {
        WatchEvent::Put(entry) => entry.value.len(),
        WatchEvent::Delete { previous, .. } => previous.as_ref().map_or(0, bytes::Bytes::len),
        WatchEvent::Progress(_) | WatchEvent::Lost => 0,
    };
    std::mem::size_of::<WatchEvent>() + key_of(event).len() + value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;
    use bytes::Bytes;

    fn put(revision: u64) -> Vec<WatchEvent> {
        vec![WatchEvent::Put(Entry {
            key: "a".into(),
            value: Bytes::from_static(b"v"),
            modified: Revision(revision),
        })]
    }

    fn hub(events: usize) -> Hub {
        Hub::new(
            Revision(0),
            HistoryLimits {
                events,
                bytes: 1 << 20,
            },
        )
    }

    #[test]
    fn history_is_replayed_until_it_is_too_old() {
        let mut hub = hub(3);
        for r in 1..=5 {
            hub.committed(Revision(r), put(r));
        }
        let mut watch = hub.watch("a", Revision(2));
        for r in 3..=5 {
            assert_eq!(watch.try_recv().ok(), put(r).pop());
        }
        assert!(watch.try_recv().is_err());
        let mut late = hub.watch("a", Revision(1));
        assert_eq!(late.try_recv(), Ok(WatchEvent::Lost));
        assert_eq!(
            late.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        );
    }

    #[test]
    fn a_slow_watcher_is_told_that_it_lost() {
        let mut hub = hub(10);
        let mut slow = hub.watch("a", Revision(0));
        let mut other = hub.watch("b", Revision(0));
        for r in 1..=(WATCHER_QUEUE as u64 + 5) {
            hub.committed(Revision(r), put(r));
        }
        let mut got = Vec::new();
        while let Ok(event) = slow.try_recv() {
            got.push(event);
        }
        assert_eq!(got.pop(), Some(WatchEvent::Lost));
        assert_eq!(got.len(), WATCHER_QUEUE - 1);
        assert_eq!(
            other.try_recv(),
            Err(mpsc::error::TryRecvError::Empty),
            "others are not disturbed"
        );
    }
}
