//! The other members and who owns which meeting, as the store's watches tell, for the focus.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::records::{Member, Owner, RegistrarRecord, SwitchRecord, keys};
use cluster::{Cache, Cached, Change, Store, Watchdog};
use meeting_core::{MeetingId, Ownership, Peer};
use tokio::sync::mpsc;

use crate::runner::Input;

/// Watched copies of the member and owner records.
pub(crate) struct Peers {
    members: Cache<Member>,
    owners: Cache<Owner>,
    registrars: Cache<RegistrarRecord>,
}

impl Peers {
    /// Begins to read.
    pub(crate) fn start(store: &Arc<dyn Store>) -> Self {
        Self {
            members: Cache::members(Arc::clone(store)),
            owners: Cache::owners(Arc::clone(store)),
            registrars: Cache::start(Arc::clone(store), keys::registrars()),
        }
    }

    /// Waits until all was read once.
    pub(crate) async fn ready(&self) {
        self.members.ready().await;
        self.owners.ready().await;
        self.registrars.ready().await;
    }

    /// Ends the lease of a member or switch that is killed, sooner than it runs out.
    pub(crate) fn watch_over(
        &self,
        store: &Arc<dyn Store>,
        member: &str,
        switches: Cache<SwitchRecord>,
    ) -> Watchdog {
        Watchdog::start(Arc::clone(store), member, self.members.clone(), switches)
    }

    /// An earlier process of that name has left meetings.
    pub(crate) fn has_meetings_of(&self, member: &str) -> bool {
        let owners = self.owners.snapshot();
        owners.iter().any(|(_, owner)| owner.value.member == member)
    }

    fn living(&self) -> BTreeMap<String, Peer> {
        let peer = |(id, member): (String, Arc<Cached<Member>>)| {
            let Member { load, draining, .. } = member.value;
            (id, Peer { load, draining })
        };
        self.members.snapshot().into_iter().map(peer).collect()
    }

    fn routes(&self) -> BTreeMap<String, Vec<String>> {
        let route = |(id, registrar): (String, Arc<Cached<RegistrarRecord>>)| {
            (id, registrar.value.routes.clone())
        };
        self.registrars.snapshot().into_iter().map(route).collect()
    }

    fn all_owners(&self) -> BTreeMap<MeetingId, Ownership> {
        let owner = |(key, owner): (String, Arc<Cached<Owner>>)| {
            Some((MeetingId::new(&key)?, ownership(&owner)))
        };
        self.owners
            .snapshot()
            .into_iter()
            .filter_map(owner)
            .collect()
    }

    /// Tells the focus of every change. Returns when nobody listens any more.
    pub(crate) async fn follow(self, inputs: mpsc::Sender<Input>) {
        let mut members = self.members.subscribe();
        let mut owners = self.owners.subscribe();
        let mut registrars = self.registrars.subscribe();
        // Owners first, so that a member that is gone already leaves orphans.
        let mut told = inputs.send(Input::Owners(self.all_owners())).await;
        if told.is_ok() {
            told = inputs.send(Input::Members(self.living())).await;
        }
        if told.is_ok() {
            told = inputs.send(Input::Registrars(self.routes())).await;
        }
        while told.is_ok() {
            let input = tokio::select! {
                // A new owner is heard of before the end of the one before it.
                biased;
                change = owners.next() => match change {
                    Some(Change::Put(key, owner)) => owner_input(&key, Some(ownership(&owner))),
                    Some(Change::Deleted(key, _)) => owner_input(&key, None),
                    Some(Change::Resynced) => Some(Input::Owners(self.all_owners())),
                    None => return,
                },
                change = registrars.next() => match change {
                    Some(_) => Some(Input::Registrars(self.routes())),
                    None => return,
                },
                change = members.next() => match change {
                    Some(_) => Some(Input::Members(self.living())),
                    None => return,
                },
            };
            if let Some(input) = input {
                told = inputs.send(input).await;
            }
        }
    }
}

/// `None` for a key that no meeting of ours can have.
fn owner_input(key: &str, owner: Option<Ownership>) -> Option<Input> {
    Some(Input::Owner(MeetingId::new(key)?, owner))
}

fn ownership(owner: &Cached<Owner>) -> Ownership {
    Ownership {
        member: owner.value.member.clone(),
        epoch: owner.modified,
    }
}
