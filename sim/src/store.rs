//! The store, in memory and on virtual time: revisions, guarded transactions, leases, watches with a history.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cluster::records::{Owner, keys};
use cluster::{Compare, Entry, LeaseId, Op, Range, Revision, StoreError, Txn, TxnOutcome};

use crate::net::{Msg, News, Node, Time};
use crate::remote_store::{Reply, Request};

/// How often a watch is told that it lives.
const PROGRESS: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Value {
    bytes: Bytes,
    modified: Revision,
    lease: Option<LeaseId>,
}

#[derive(Clone, Debug)]
struct Watcher {
    node: Node,
    id: u64,
    prefix: String,
}

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Well.
    Well,
    /// It refuses everything.
    Unavailable,
    /// It does everything, and of three answers one does not come.
    Flaky,
}

/// The store.
#[derive(Debug)]
pub struct StoreModel {
    values: BTreeMap<String, Value>,
    revision: u64,
    leases: BTreeMap<u64, (Time, Duration)>,
    next_lease: u64,
    history: Vec<(Revision, String, News)>,
    /// Revisions up to this are no longer in the history.
    compacted: Revision,
    watchers: Vec<Watcher>,
    next_progress: Time,
    answers: u64,
    /// How it is.
    pub health: Health,
    /// What is to be sent.
    pub out: Vec<(Node, Msg)>,
    /// Rules that were broken.
    pub broken: Vec<String>,
}

impl Default for StoreModel {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            revision: 1,
            leases: BTreeMap::new(),
            next_lease: 0,
            history: Vec::new(),
            compacted: Revision(0),
            watchers: Vec::new(),
            next_progress: PROGRESS,
            answers: 0,
            health: Health::Well,
            out: Vec::new(),
            broken: Vec::new(),
        }
    }
}

impl StoreModel {
    /// What stands under a prefix.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Entry> + 'a {
        self.values
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| Entry {
                key: key.clone(),
                value: value.bytes.clone(),
                modified: value.modified,
            })
    }

    /// Who owns a meeting.
    #[must_use]
    pub fn owner(&self, meeting: &str) -> Option<String> {
        let value = self.values.get(&keys::owner(meeting))?;
        let owner: Owner = serde_json::from_slice(&value.bytes).ok()?;
        Some(owner.member)
    }

    /// Forgets the history: whoever resumes a watch has to read everything.
    pub fn compact(&mut self) {
        self.history.clear();
        self.compacted = Revision(self.revision);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let ends = self.leases.values().map(|(at, _)| *at);
        ends.chain([self.next_progress]).min().unwrap_or_default()
    }

    /// Ends leases, and tells watches that they live.
    pub fn handle_timeout(&mut self, now: Time) {
        // While it is down nobody can renew: as etcd does, leases end only where they can be renewed.
        if self.health == Health::Unavailable {
            for (at, ttl) in self.leases.values_mut() {
                *at = (*at).max(now + *ttl);
            }
        }
        let over: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.end_lease(LeaseId(id));
        }
        if self.next_progress <= now {
            self.next_progress = now + PROGRESS;
            let at = Revision(self.revision);
            if self.health != Health::Unavailable {
                for watcher in &self.watchers {
                    let news = Msg::News(watcher.id, News::Progress(at));
                    self.out.push((watcher.node, news));
                }
            }
        }
    }

    fn end_lease(&mut self, lease: LeaseId) {
        self.leases.remove(&lease.0);
        let keys: Vec<String> = self
            .values
            .iter()
            .filter(|(_, v)| v.lease == Some(lease))
            .map(|(key, _)| key.clone())
            .collect();
        if !keys.is_empty() {
            self.revision += 1;
            keys.iter().for_each(|key| self.delete(key));
        }
    }

    fn delete(&mut self, key: &str) {
        if self.values.remove(key).is_some() {
            let revision = Revision(self.revision);
            self.tell(key, News::Gone(key.to_owned(), revision));
        }
    }

    fn tell(&mut self, key: &str, news: News) {
        let revision = Revision(self.revision);
        for watcher in &self.watchers {
            if key.starts_with(&watcher.prefix) {
                self.out
                    .push((watcher.node, Msg::News(watcher.id, news.clone())));
            }
        }
        self.history.push((revision, key.to_owned(), news));
    }

    /// A node that died watches nothing.
    pub fn forget(&mut self, node: Node) {
        self.watchers.retain(|w| w.node != node);
    }

    /// A message came.
    pub fn handle(&mut self, now: Time, from: Node, msg: Msg) {
        match msg {
            Msg::Request(id, request) => {
                let reply = match self.health {
                    Health::Unavailable => {
                        Reply::Failed(StoreError::Unavailable("no leader".into()))
                    }
                    Health::Well | Health::Flaky => self.answer(now, from, request),
                };
                self.answers += 1;
                if self.health != Health::Flaky || !self.answers.is_multiple_of(3) {
                    self.out.push((from, Msg::Reply(id, reply)));
                }
            }
            Msg::Watch {
                id,
                prefix,
                from: after,
            } if self.health != Health::Unavailable => self.watch(from, id, prefix, after),
            _ => {}
        }
    }

    fn watch(&mut self, node: Node, id: u64, prefix: String, after: Option<Revision>) {
        self.watchers
            .retain(|w| w.node != node || w.prefix != prefix);
        match after {
            Some(after) if after < self.compacted => {
                self.out.push((node, Msg::News(id, News::Lost)));
                return;
            }
            Some(after) => {
                for (revision, key, news) in &self.history {
                    if *revision > after && key.starts_with(&prefix) {
                        self.out.push((node, Msg::News(id, news.clone())));
                    }
                }
            }
            None => {
                let all = self.under(&prefix).collect();
                let news = News::All(all, Revision(self.revision));
                self.out.push((node, Msg::News(id, news)));
            }
        }
        self.watchers.push(Watcher { node, id, prefix });
    }

    fn answer(&mut self, now: Time, from: Node, request: Request) -> Reply {
        match request {
            Request::Get(key) => Reply::Entry(self.values.get(&key).map(|value| Entry {
                key: key.clone(),
                value: value.bytes.clone(),
                modified: value.modified,
            })),
            Request::Range(prefix, limit, after) => {
                let mut entries: Vec<Entry> = self
                    .under(&prefix)
                    .filter(|e| after.as_ref().is_none_or(|after| e.key > *after))
                    .take(limit + 1)
                    .collect();
                let more = entries.len() > limit;
                entries.truncate(limit);
                Reply::Range(Range {
                    entries,
                    revision: Revision(self.revision),
                    more,
                })
            }
            Request::Txn(txn) => self.commit(from, &txn),
            Request::Grant(ttl) => {
                self.next_lease += 1;
                self.leases.insert(self.next_lease, (now + ttl, ttl));
                Reply::Lease(LeaseId(self.next_lease))
            }
            Request::KeepAlive(lease) => match self.leases.get_mut(&lease.0) {
                Some((at, ttl)) => {
                    *at = now + *ttl;
                    Reply::Done
                }
                None => Reply::Failed(StoreError::LeaseExpired),
            },
            Request::Revoke(lease) => {
                self.end_lease(lease);
                Reply::Done
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Unchanged(key, revision) => self
                .values
                .get(key)
                .is_some_and(|v| v.modified == *revision),
            Compare::Absent(key) => !self.values.contains_key(key),
            Compare::Present(key) => self.values.contains_key(key),
        }
    }

    fn commit(&mut self, from: Node, txn: &Txn) -> Reply {
        if let Err(error) = txn.check() {
            return Reply::Failed(error);
        }
        let leases = txn.ops.iter().filter_map(|op| match op {
            Op::Put(_, _, lease) => *lease,
            Op::Delete(_) => None,
        });
        for lease in leases {
            if !self.leases.contains_key(&lease.0) {
                return Reply::Failed(StoreError::LeaseExpired);
            }
        }
        if !txn.compares.iter().all(|compare| self.holds(compare)) {
            return Reply::Outcome(TxnOutcome::Conflict);
        }
        self.check_owner(from, txn);
        self.revision += 1;
        let revision = Revision(self.revision);
        for op in &txn.ops {
            match op {
                Op::Put(key, bytes, lease) => {
                    let value = Value {
                        bytes: bytes.clone(),
                        modified: revision,
                        lease: *lease,
                    };
                    self.values.insert(key.clone(), value);
                    let entry = Entry {
                        key: key.clone(),
                        value: bytes.clone(),
                        modified: revision,
                    };
                    self.tell(key, News::Put(entry));
                }
                Op::Delete(key) => self.delete(key),
            }
        }
        Reply::Outcome(TxnOutcome::Committed(revision))
    }

    /// What belongs to a meeting is written by its owner alone.
    fn check_owner(&mut self, from: Node, txn: &Txn) {
        let (dialogs, meetings) = (keys::dialogs(""), keys::meeting(""));
        let dialogs = dialogs.trim_end_matches('/');
        for op in &txn.ops {
            let (Op::Put(key, ..) | Op::Delete(key)) = op;
            let rest = key
                .strip_prefix(dialogs)
                .map(|rest| rest.trim_start_matches('/'))
                .or_else(|| key.strip_prefix(&meetings));
            let Some(meeting) = rest.and_then(|rest| rest.split('/').next()) else {
                continue;
            };
            // Who makes a meeting becomes its owner by the same transaction.
            let owner_key = keys::owner(meeting);
            let claims = txn
                .ops
                .iter()
                .any(|op| matches!(op, Op::Put(key, ..) if *key == owner_key));
            if claims && txn.compares.contains(&Compare::Absent(owner_key)) {
                continue;
            }
            let owner = self.owner(meeting);
            if owner.as_deref() != Some(from.to_string().as_str()) {
                self.broken.push(format!(
                    "{from} wrote {key}, and the owner is {owner:?}: a deposed owner's write was accepted"
                ));
            }
        }
    }
}
