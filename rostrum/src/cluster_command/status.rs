//! `rostrum cluster status`: what the store says of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use cluster::records::{Kind, Owner, keys};
use cluster::store::MAX_PAGE;
use cluster::{Entry, Store};
use serde::Serialize;
use serde_json::Value;

/// Everything there is to say.
#[derive(Debug, Serialize)]
struct Status {
    store: StoreHealth,
    /// Living ones, and those that are missed.
    processes: Vec<Process>,
    /// Meetings that have an owner.
    meetings: usize,
    /// Those whose owner is not alive.
    meetings_without_owner: usize,
}

#[derive(Debug, Serialize)]
struct StoreHealth {
    /// A majority of the store answers.
    healthy: bool,
    /// Of the last change.
    revision: u64,
    /// ms that the answer took.
    answered_ms: f64,
}

#[derive(Debug, Serialize)]
struct Process {
    kind: &'static str,
    id: String,
    /// Its lease lives: its record is there.
    alive: bool,
    /// As its record says.
    draining: bool,
    /// An operator wants it empty.
    ordered_to_drain: bool,
    /// Of 1000; `None` for a registrar, which says none.
    load: Option<u64>,
    /// Meetings it owns; `None` for others than meeting managers.
    meetings: Option<usize>,
    /// Highest epoch of these.
    epoch: Option<u64>,
    /// Version of its record.
    version: Option<u64>,
    /// Where it is reached.
    address: String,
}

/// All entries of a prefix.
pub async fn all(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map(|e| e.key.clone());
        let page = super::ask(store.range(prefix, MAX_PAGE, after.as_deref())).await?;
        entries.extend(page.entries);
        if !page.more {
            return Ok(entries);
        }
    }
}

/// Reads and prints.
pub async fn run(store: &dyn Store, json: bool) -> Result<(), String> {
    let status = match read(store).await {
        Ok(status) => status,
        Err(error) if json => {
            println!(
                "{}",
                serde_json::json!({"store": {"healthy": false, "error": error}})
            );
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if json {
        let text = serde_json::to_string(&status).map_err(|e| e.to_string())?;
        println!("{text}");
    } else {
        print!("{}", table(&status));
    }
    Ok(())
}

async fn read(store: &dyn Store) -> Result<Status, String> {
    let asked = Instant::now();
    let revision = super::ask(store.status()).await?;
    let health = StoreHealth {
        healthy: true,
        revision: revision.0,
        answered_ms: asked.elapsed().as_secs_f64() * 1_000.0,
    };
    let mut owned: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    let owners = all(store, &keys::owners()).await?;
    for entry in &owners {
        let Ok(owner) = serde_json::from_slice::<Owner>(&entry.value) else {
            continue;
        };
        let (meetings, epoch) = owned.entry(owner.member).or_default();
        *meetings += 1;
        *epoch = (*epoch).max(entry.modified.0);
    }
    let mut processes = Vec::new();
    for kind in Kind::ALL {
        let orders = all(store, &keys::drains(kind)).await?;
        let mut orders: BTreeSet<String> = names(&orders, &keys::drains(kind)).collect();
        let prefix = super::prefix(kind);
        let records = all(store, &prefix).await?;
        for (id, entry) in names(&records, &prefix).zip(&records) {
            let record = serde_json::from_slice(&entry.value).unwrap_or(Value::Null);
            let is_manager = kind == Kind::MeetingManager;
            let has = owned.remove(&id).filter(|_| is_manager);
            processes.push(Process {
                kind: kind.as_str(),
                alive: true,
                draining: record["draining"] == true,
                ordered_to_drain: orders.remove(&id),
                load: record["load"].as_u64(),
                meetings: is_manager.then(|| has.map_or(0, |(meetings, _)| meetings)),
                epoch: has.map(|(_, epoch)| epoch),
                version: record["version"].as_u64(),
                address: address(kind, &record),
                id,
            });
        }
        let mut missed = orders.clone();
        if kind == Kind::MeetingManager {
            missed.extend(owned.keys().cloned());
        }
        for id in missed {
            let has = owned.get(&id).filter(|_| kind == Kind::MeetingManager);
            processes.push(Process {
                kind: kind.as_str(),
                alive: false,
                draining: false,
                ordered_to_drain: orders.contains(&id),
                load: None,
                meetings: has.map(|(meetings, _)| *meetings),
                epoch: has.map(|(_, epoch)| *epoch),
                version: None,
                address: String::new(),
                id,
            });
        }
    }
    let without = |p: &&Process| !p.alive;
    let missing = processes.iter().filter(without).filter_map(|p| p.meetings);
    Ok(Status {
        store: health,
        meetings: owners.len(),
        meetings_without_owner: missing.sum(),
        processes,
    })
}

fn names<'e>(entries: &'e [Entry], prefix: &'e str) -> impl Iterator<Item = String> + 'e {
    let name = move |entry: &Entry| {
        entry
            .key
            .strip_prefix(prefix)
            .unwrap_or_default()
            .to_owned()
    };
    entries.iter().map(name)
}

fn address(kind: Kind, record: &Value) -> String {
    let told = match kind {
        Kind::MeetingManager => &record["sip"][0][1],
        Kind::Switch => &record["control"],
        Kind::Registrar => &record["routes"][0],
    };
    let told = told.as_str().unwrap_or_default();
    match kind {
        // the rest lets whoever knows it through without a password
        Kind::Registrar => {
            let host = told.rsplit_once('@').map_or("", |(_, host)| host);
            host.split(';').next().unwrap_or_default().to_owned()
        }
        _ => told.to_owned(),
    }
}

fn table(status: &Status) -> String {
    let number = |n: Option<String>| n.unwrap_or_else(|| "-".to_owned());
    let head = [
        "ROLE", "ID", "STATE", "LOAD", "MEETINGS", "EPOCH", "VERSION", "ADDRESS",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for p in &status.processes {
        let state = match (p.alive, p.draining, p.ordered_to_drain) {
            (false, _, true) => "gone, to drain",
            (false, _, false) => "gone",
            (true, true, _) => "draining",
            (true, false, true) => "to drain",
            (true, false, false) => "alive",
        };
        let percent = |load: u64| format!("{}.{} %", load / 10, load % 10);
        rows.push([
            p.kind.to_owned(),
            p.id.clone(),
            state.to_owned(),
            number(p.load.map(percent)),
            number(p.meetings.map(|n| n.to_string())),
            number(p.epoch.map(|n| n.to_string())),
            number(p.version.map(|n| n.to_string())),
            p.address.clone(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|r| r[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = format!(
        "store: healthy, revision {}, answered in {:.1} ms\nmeetings: {}, of which without a living owner: {}\n\n",
        status.store.revision,
        status.store.answered_ms,
        status.meetings,
        status.meetings_without_owner
    );
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
