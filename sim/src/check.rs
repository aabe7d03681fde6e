//! What must hold when it has been calm for long enough.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meeting_core::record::DialogRecord;

use crate::client::State;
use crate::world::World;

/// Who listens heard something in the last so long.
const HEARD: Duration = Duration::from_secs(20);
/// A request sent so soon after the last fault may still meet its traces.
const AFTERMATH: Duration = Duration::from_secs(8);

/// A dialog's record: its meeting, its leg, its Call-ID.
struct Record {
    meeting: String,
    leg: String,
    call_id: String,
}

/// What is broken in a world that has come to its end.
#[must_use]
pub fn end(world: &World) -> Vec<String> {
    let mut broken = Vec::new();
    let records = records(world, &mut broken);
    let wanted = calls(world, &records, &mut broken);
    owners(world, &records, &mut broken);
    legs(world, &records, &mut broken);
    answers(world, &mut broken);
    media(world, &wanted, &mut broken);
    broken
}

fn records(world: &World, broken: &mut Vec<String>) -> Vec<Record> {
    let prefix = format!("{}dialog/", cluster::records::ROOT);
    let mut records = Vec::new();
    for entry in world.store.under(&prefix) {
        let rest = &entry.key[prefix.len()..];
        let meeting = rest.split('/').next().unwrap_or_default().to_owned();
        match serde_json::from_slice(&entry.value) {
            Ok(DialogRecord::Participant(record)) => records.push(Record {
                meeting,
                leg: record.id.to_string(),
                call_id: record.dialog.id.call_id.clone(),
            }),
            Ok(DialogRecord::Subscription(_)) => {}
            Err(e) => broken.push(format!("{} is no record: {e}", entry.key)),
        }
    }
    records
}

/// Everybody who is in a call has a record, and the other way round. The meetings with those in them.
fn calls(
    world: &World,
    records: &[Record],
    broken: &mut Vec<String>,
) -> BTreeMap<String, BTreeSet<u8>> {
    let mut wanted: BTreeMap<String, BTreeSet<u8>> = BTreeMap::new();
    for (n, client) in &world.clients {
        let call_id = client.call_id();
        let record = records.iter().find(|r| r.call_id == call_id);
        match client.state {
            State::Joined => match record {
                Some(record) => {
                    let meeting = wanted.entry(record.meeting.clone()).or_default();
                    meeting.insert(*n);
                }
                None => broken.push(format!(
                    "c{n} was let in by call {call_id}, was told nothing since, and nobody knows of it"
                )),
            },
            state if client.wants.is_some() => broken.push(format!(
                "c{n} wants to be in {:?}, and after all this calm is {state:?}",
                client.wants
            )),
            State::Idle => {}
            state => broken.push(format!("c{n} hung up, and is still {state:?}")),
        }
    }
    for record in records {
        let mut clients = world.clients.values();
        let is_there = clients.any(|c| c.state == State::Joined && c.call_id() == record.call_id);
        if !is_there {
            broken.push(format!(
                "orphan: dialog record {} of {} is of nobody's call ({})",
                record.leg, record.meeting, record.call_id
            ));
        }
    }
    wanted
}

/// Each meeting with records has a living owner, whose focus knows just those dialogs.
fn owners(world: &World, records: &[Record], broken: &mut Vec<String>) {
    let mut by_meeting: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in records {
        let legs = by_meeting.entry(&record.meeting).or_default();
        legs.insert(&record.leg);
    }
    for meeting in by_meeting.keys() {
        let owner = world.store.owner(meeting);
        let mut managers = world.managers.keys();
        if !managers.any(|n| owner.as_deref() == Some(format!("m{n}").as_str())) {
            broken.push(format!("{meeting} has dialogs, and its owner is {owner:?}"));
        }
    }
    for (n, manager) in &world.managers {
        for view in manager.focus.meetings() {
            let owner = world.store.owner(&view.id);
            if owner.as_deref() != Some(format!("m{n}").as_str()) {
                broken.push(format!(
                    "m{n} takes itself for the owner of {}, and that is {owner:?}",
                    view.id
                ));
                continue;
            }
            let known: BTreeSet<&str> = view.participants.iter().map(|p| p.id.as_str()).collect();
            let stored = by_meeting.remove(view.id.as_str()).unwrap_or_default();
            if known != stored {
                broken.push(format!(
                    "orphan: m{n} has in {} the dialogs {known:?}, and the store {stored:?}",
                    view.id
                ));
            }
        }
    }
    for (meeting, legs) in by_meeting {
        broken.push(format!(
            "orphan: nobody serves the dialogs {legs:?} of {meeting}"
        ));
    }
}

/// Each leg has a dialog, and each dialog one leg, on one switch.
fn legs(world: &World, records: &[Record], broken: &mut Vec<String>) {
    let mut seen: BTreeMap<(String, String), u8> = BTreeMap::new();
    for (n, switch) in &world.switches {
        for (meeting, legs) in switch.legs(world.now) {
            for leg in legs {
                let mut all = records.iter();
                if !all.any(|r| r.meeting == meeting && r.leg == leg) {
                    broken.push(format!(
                        "orphan: leg {leg} of {meeting} on s{n} has no dialog"
                    ));
                }
                if let Some(other) = seen.insert((meeting.clone(), leg.clone()), *n) {
                    broken.push(format!(
                        "orphan: leg {leg} of {meeting} is on s{other} and on s{n}"
                    ));
                }
            }
        }
    }
    for record in records {
        if !seen.contains_key(&(record.meeting.clone(), record.leg.clone())) {
            broken.push(format!(
                "dialog {} of {} has no leg on any switch",
                record.leg, record.meeting
            ));
        }
    }
}

/// Nobody was left without an answer, but where something was broken while they waited.
fn answers(world: &World, broken: &mut Vec<String>) {
    for (n, client) in &world.clients {
        for unanswered in &client.unanswered {
            let give_up = unanswered.sent + Duration::from_secs(32);
            let mut faults = world.plan.faults.iter();
            let disturbed = faults.any(|(at, fault)| {
                *at <= give_up && unanswered.sent <= *at + fault.lasts() + AFTERMATH
            });
            if !disturbed {
                broken.push(format!(
                    "c{n} got no final answer to {}, sent at {:.3}, with nothing broken",
                    unanswered.what,
                    unanswered.sent.as_secs_f64()
                ));
            }
        }
    }
}

/// Who is not alone hears somebody.
fn media(world: &World, wanted: &BTreeMap<String, BTreeSet<u8>>, broken: &mut Vec<String>) {
    for (meeting, there) in wanted {
        for n in there {
            let client = &world.clients[n];
            let others = there.iter().filter(|other| *other != n);
            if client.is_on_hold() || others.count() == 0 {
                continue;
            }
            if client.heard.is_none_or(|at| at + HEARD < world.now) {
                broken.push(format!(
                    "c{n} is in {meeting} with others and has heard nothing since {:?}",
                    client.heard
                ));
            }
        }
    }
}
