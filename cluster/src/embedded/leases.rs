//! Leases of the embedded engine. They live in memory: a restart ends them all.
//!
//! Renewing never waits for the disk, so that a slow commit cannot make a living holder look dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::store::{LeaseId, StoreError};

/// Leases there may be at once.
const MAX_LEASES: usize = 65_536;

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: BTreeMap<u64, Lease>,
    /// Which lease holds a key.
    holders: BTreeMap<String, u64>,
}

impl Leases {
    /// Enters a lease under `id`, which must be random and not 0.
    pub(super) fn grant(
        &mut self,
        id: u64,
        ttl: Duration,
        now: Instant,
    ) -> Result<LeaseId, StoreError> {
        if self.leases.len() >= MAX_LEASES {
            return Err(StoreError::Refused("too many leases".into()));
        }
        self.leases.insert(
            id,
            Lease {
                ttl,
                deadline: now + ttl,
                keys: BTreeSet::new(),
            },
        );
        Ok(LeaseId(id))
    }

    pub(super) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> Result<(), StoreError> {
        match self.leases.get_mut(&id.0) {
            Some(lease) if lease.deadline > now => {
                lease.deadline = now + lease.ttl;
                Ok(())
            }
            _ => Err(StoreError::LeaseExpired),
        }
    }

    pub(super) fn is_alive(&self, id: LeaseId, now: Instant) -> bool {
        self.leases
            .get(&id.0)
            .is_some_and(|lease| lease.deadline > now)
    }

    /// A key was written: bound to this lease now, and to no other.
    pub(super) fn bind(&mut self, key: &str, lease: Option<LeaseId>) {
        self.unbind(key);
        if let Some(lease) = lease
            && let Some(held) = self.leases.get_mut(&lease.0)
        {
            held.keys.insert(key.to_owned());
            self.holders.insert(key.to_owned(), lease.0);
        }
    }

    /// A key was deleted.
    pub(super) fn unbind(&mut self, key: &str) {
        if let Some(holder) = self.holders.remove(key)
            && let Some(lease) = self.leases.get_mut(&holder)
        {
            lease.keys.remove(key);
        }
    }

    /// The lease a key is bound to.
    pub(super) fn holder(&self, key: &str) -> Option<LeaseId> {
        self.holders.get(key).copied().map(LeaseId)
    }

    /// Keys of one lease.
    pub(super) fn keys(&self, id: LeaseId) -> Vec<String> {
        self.leases
            .get(&id.0)
            .map_or_else(Vec::new, |l| l.keys.iter().cloned().collect())
    }

    pub(super) fn expired(&self, now: Instant) -> Vec<LeaseId> {
        let over = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.deadline <= now);
        over.map(|(id, _)| LeaseId(*id)).collect()
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id.0) {
            for key in lease.keys {
                self.holders.remove(&key);
            }
        }
    }

    /// When the next lease ends, as of now.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lives_from_one_renewal_to_its_deadline() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let id = leases.grant(7, Duration::from_millis(1000), start).unwrap();
        leases.keep_alive(id, at(900)).unwrap();
        assert!(leases.is_alive(id, at(1899)));
        assert!(!leases.is_alive(id, at(1900)));
        assert_eq!(
            leases.keep_alive(id, at(1900)),
            Err(StoreError::LeaseExpired),
            "too late is too late"
        );
        assert_eq!(leases.expired(at(1900)), [id]);
    }

    #[test]
    fn a_key_belongs_to_the_lease_of_its_last_put() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let a = leases.grant(1, Duration::from_secs(1), now).unwrap();
        let b = leases.grant(2, Duration::from_secs(1), now).unwrap();
        leases.bind("k", Some(a));
        leases.bind("k", Some(b));
        assert!(leases.keys(a).is_empty());
        assert_eq!(leases.keys(b), ["k"]);
        assert_eq!(leases.holder("k"), Some(b));
        leases.bind("k", None);
        assert!(leases.keys(b).is_empty());
    }
}
