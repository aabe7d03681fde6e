//! What every process of the cluster has around its core here: its end of the store, a lease, and watches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{LeaseId, Op, Revision, Store, StoreError, Txn};
use meeting_core::{Claimed, OpId, StoreFailure, Stored};

use crate::net::{Msg, News, Node, Time};
use crate::remote_store::{RemoteStore, Tasks};

/// As [`cluster::LeaseTimes`].
const TTL: Duration = Duration::from_millis(1_000);
const RENEW: Duration = Duration::from_millis(300);
const RETRY: Duration = Duration::from_millis(50);
/// A watch of which nothing was heard for so long is opened anew.
const SILENT: Duration = Duration::from_secs(3);
/// Every so many renewals it is looked whether the key is still there.
const VERIFY: u32 = 3;

/// Virtual time as cores want it.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub Instant);

impl Clock {
    /// An instant of a time.
    #[must_use]
    pub fn at(self, now: Time) -> Instant {
        self.0 + now
    }

    /// A time of an instant.
    #[must_use]
    pub fn of(self, at: Instant) -> Time {
        at.saturating_duration_since(self.0)
    }
}

/// What a task of a node came to.
#[derive(Debug)]
pub enum Done {
    /// The lease after a renewal.
    Lease(Option<LeaseId>),
    /// A claim for the focus.
    Claimed(OpId, Result<Claimed, StoreFailure>),
    /// A write for the focus.
    Stored(OpId, Result<Stored, StoreFailure>),
}

#[derive(Debug)]
struct Watching {
    id: u64,
    from: Option<Revision>,
    heard: Time,
}

/// A lease with its one key.
#[derive(Debug)]
struct Lease {
    key: String,
    value: Bytes,
    held: Option<LeaseId>,
    busy: bool,
    next: Time,
    renewals: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Shell {
    /// The store.
    pub store: RemoteStore,
    /// Tasks.
    pub tasks: Tasks<Done>,
    /// What is to be sent.
    pub out: Vec<(Node, Msg)>,
    lease: Option<Lease>,
    watches: BTreeMap<String, Watching>,
    next_watch: u64,
}

impl Shell {
    /// Watches prefixes from the beginning.
    #[must_use]
    pub fn new(now: Time, prefixes: &[String]) -> Self {
        let store = RemoteStore::default();
        store.at(now);
        let mut shell = Self {
            store,
            tasks: Tasks::default(),
            out: Vec::new(),
            lease: None,
            watches: BTreeMap::new(),
            next_watch: 0,
        };
        for prefix in prefixes {
            shell.watch(now, prefix, None);
        }
        shell
    }

    /// Keeps a key alive from now on.
    pub fn keep(&mut self, now: Time, key: String, value: Vec<u8>) {
        self.lease = Some(Lease {
            key,
            value: value.into(),
            held: None,
            busy: false,
            next: now,
            renewals: 0,
        });
    }

    /// Whether the lease is held, as far as known here.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.lease.as_ref().is_some_and(|l| l.held.is_some())
    }

    fn watch(&mut self, now: Time, prefix: &str, from: Option<Revision>) {
        self.next_watch += 1;
        let id = self.next_watch;
        let watching = Watching {
            id,
            from,
            heard: now,
        };
        self.watches.insert(prefix.to_owned(), watching);
        let prefix = prefix.to_owned();
        self.out
            .push((Node::Store, Msg::Watch { id, prefix, from }));
    }

    /// Takes news in; the prefix they are about, where they are to be acted on.
    pub fn news(&mut self, now: Time, id: u64, news: &News) -> Option<String> {
        let (prefix, watching) = self.watches.iter_mut().find(|(_, w)| w.id == id)?;
        watching.heard = now;
        let prefix = prefix.clone();
        match news {
            News::All(_, revision) | News::Gone(_, revision) => watching.from = Some(*revision),
            News::Put(entry) => watching.from = Some(entry.modified),
            // A progress before the first reading says nothing.
            News::Progress(revision) => {
                if watching.from.is_some() {
                    watching.from = Some(*revision);
                }
                return None;
            }
            News::Lost => {
                self.watch(now, &prefix, None);
                return None;
            }
        }
        Some(prefix)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let lease = self.lease.as_ref().filter(|l| !l.busy).map(|l| l.next);
        let watches = self.watches.values().map(|w| w.heard + SILENT);
        watches.chain(lease).chain(self.store.due()).min()
    }

    /// Renews what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.store.expire(now);
        let silent: Vec<(String, Option<Revision>)> = self
            .watches
            .iter()
            .filter(|(_, w)| w.heard + SILENT <= now)
            .map(|(prefix, w)| (prefix.clone(), w.from))
            .collect();
        for (prefix, from) in silent {
            self.watch(now, &prefix, from);
        }
        if let Some(lease) = self.lease.as_mut().filter(|l| !l.busy && l.next <= now) {
            lease.busy = true;
            lease.renewals += 1;
            let verify = lease.renewals.is_multiple_of(VERIFY);
            let (held, key, value) = (lease.held, lease.key.clone(), lease.value.clone());
            let store = self.store.clone();
            self.tasks
                .spawn(async move { Done::Lease(renew(&store, held, key, value, verify).await) });
        }
    }

    /// A renewal ended.
    pub fn renewed(&mut self, now: Time, held: Option<LeaseId>) {
        if let Some(lease) = &mut self.lease {
            lease.busy = false;
            lease.held = held;
            lease.next = now + if held.is_some() { RENEW } else { RETRY };
        }
    }

    /// Sends what tasks ask of the store.
    pub fn flush(&mut self) {
        for (id, request) in self.store.take() {
            self.out.push((Node::Store, Msg::Request(id, request)));
        }
    }
}

/// As the lease keeper does it: the lease that is held then.
async fn renew(
    store: &RemoteStore,
    held: Option<LeaseId>,
    key: String,
    value: Bytes,
    verify: bool,
) -> Option<LeaseId> {
    let Some(held) = held else {
        let lease = store.grant(TTL).await.ok()?;
        let ops = vec![Op::Put(key, value, Some(lease))];
        let put = Txn {
            compares: Vec::new(),
            ops,
        };
        return store.txn(put).await.ok().map(|_| lease);
    };
    match store.keep_alive(held).await {
        Err(StoreError::LeaseExpired) => None,
        Ok(()) if verify && matches!(store.get(&key).await, Ok(None)) => None,
        Ok(()) | Err(_) => Some(held),
    }
}
