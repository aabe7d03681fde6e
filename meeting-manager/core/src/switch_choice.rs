//! Which switch carries a meeting: the least loaded that answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::SwitchId;

/// What is known of a switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchInfo {
    /// Per mille of its capacity.
    pub load: u32,
    /// Takes no new meetings.
    pub draining: bool,
    /// It is there, but the registry does not know it: it takes no new meetings and keeps those it has.
    pub leaseless: bool,
    /// Random per start; empty while nobody has heard it.
    pub instance: String,
    /// (algorithm in lower case, digest) of its DTLS certificate.
    pub fingerprints: Vec<(String, Vec<u8>)>,
}

/// Why a meeting leaves a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// It is gone, and with it the media.
    Dead,
    /// It takes nothing new; it goes on forwarding until everybody has been told the new place.
    Draining,
}

#[derive(Debug, Default)]
struct Known {
    info: SwitchInfo,
    /// In the registry: its lease lives.
    registered: bool,
    /// Meetings of ours on it: breaks ties between equal loads, which are reported late.
    meetings: usize,
}

/// All switches of the registry, and those that left it while a meeting of ours is on them.
#[derive(Debug, Default)]
pub(crate) struct SwitchTable {
    known: BTreeMap<SwitchId, Known>,
}

impl SwitchTable {
    /// The registry as it is now.
    pub(crate) fn snapshot(&mut self, switches: BTreeMap<SwitchId, SwitchInfo>) {
        for known in self.known.values_mut() {
            known.registered = false;
        }
        for (id, info) in switches {
            let known = self.known.entry(id).or_default();
            known.info = info;
            known.registered = true;
        }
        self.known.retain(|_, k| k.registered || k.meetings > 0);
    }

    pub(crate) fn get(&self, id: &SwitchId) -> Option<&SwitchInfo> {
        self.known.get(id).map(|k| &k.info)
    }

    pub(crate) fn get_mut(&mut self, id: &SwitchId) -> Option<&mut SwitchInfo> {
        self.known.get_mut(id).map(|k| &mut k.info)
    }

    pub(crate) fn is_registered(&self, id: &SwitchId) -> bool {
        self.known.get(id).is_some_and(|k| k.registered)
    }

    /// A meeting on it is to be moved: it is gone, or drains and another one takes meetings.
    pub(crate) fn is_to_be_left(&self, id: &SwitchId) -> Option<Departure> {
        let known = self.known.get(id)?;
        if !known.registered {
            return Some(Departure::Dead);
        }
        let others = BTreeSet::from([id.clone()]);
        (known.info.draining && self.choose(&others).is_some()).then_some(Departure::Draining)
    }

    /// A meeting is on it now.
    pub(crate) fn occupy(&mut self, id: &SwitchId) {
        self.known.entry(id.clone()).or_default().meetings += 1;
    }

    /// It no longer is.
    pub(crate) fn vacate(&mut self, id: &SwitchId) {
        if let Some(known) = self.known.get_mut(id) {
            known.meetings = known.meetings.saturating_sub(1);
        }
        self.known.retain(|_, k| k.registered || k.meetings > 0);
    }

    /// The least loaded that is registered, not draining and not in `tried`; among equals the one with
    /// fewest of our meetings, then the first by name.
    pub(crate) fn choose(&self, tried: &BTreeSet<SwitchId>) -> Option<SwitchId> {
        self.known
            .iter()
            .filter(|(id, k)| k.registered && !tried.contains(*id))
            .filter(|(_, k)| !k.info.draining && !k.info.leaseless)
            .min_by_key(|(id, k)| (k.info.load, k.meetings, (*id).clone()))
            .map(|(id, _)| id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(loads: &[(&str, u32, bool)]) -> SwitchTable {
        let mut table = SwitchTable::default();
        table.snapshot(
            loads
                .iter()
                .map(|(id, load, draining)| {
                    let info = SwitchInfo {
                        load: *load,
                        draining: *draining,
                        ..SwitchInfo::default()
                    };
                    (SwitchId::new(id), info)
                })
                .collect(),
        );
        table
    }

    #[test]
    fn least_loaded_that_does_not_drain_is_chosen() {
        let table = table(&[("a", 300, false), ("b", 100, true), ("c", 200, false)]);
        assert_eq!(table.choose(&BTreeSet::new()), Some(SwitchId::new("c")));
    }

    #[test]
    fn meetings_are_left_on_a_switch_without_a_lease_and_moved_from_one_that_drains() {
        let id = SwitchId::new("a");
        let mut table = table(&[("a", 0, false), ("b", 0, false)]);
        table.get_mut(&id).unwrap().leaseless = true;
        assert_eq!(table.choose(&BTreeSet::new()), Some(SwitchId::new("b")));
        assert_eq!(table.is_to_be_left(&id), None);
        table.get_mut(&id).unwrap().draining = true;
        assert_eq!(table.is_to_be_left(&id), Some(Departure::Draining));
        table.known.remove(&id);
        table.occupy(&id);
        assert_eq!(table.is_to_be_left(&id), Some(Departure::Dead));
    }

    #[test]
    fn next_is_chosen_when_one_did_not_answer_and_none_when_all_did_not() {
        let table = table(&[("a", 300, false), ("c", 200, false)]);
        let mut tried = BTreeSet::from([SwitchId::new("c")]);
        assert_eq!(table.choose(&tried), Some(SwitchId::new("a")));
        tried.insert(SwitchId::new("a"));
        assert_eq!(table.choose(&tried), None);
    }

    #[test]
    fn meetings_spread_over_switches_of_equal_load() {
        let mut table = table(&[("a", 0, false), ("b", 0, false)]);
        table.occupy(&SwitchId::new("a"));
        assert_eq!(table.choose(&BTreeSet::new()), Some(SwitchId::new("b")));
    }

    #[test]
    fn a_switch_that_left_the_registry_is_remembered_while_a_meeting_is_on_it() {
        let mut table = table(&[("a", 0, false)]);
        table.occupy(&SwitchId::new("a"));
        table.snapshot(BTreeMap::new());
        assert!(table.get(&SwitchId::new("a")).is_some());
        assert_eq!(table.choose(&BTreeSet::new()), None);
        table.vacate(&SwitchId::new("a"));
        assert!(table.get(&SwitchId::new("a")).is_none());
    }
}
