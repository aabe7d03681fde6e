//! Looks now and then for legs, dialogs and records that belong to nothing; the focus decides which those are.

use std::sync::Arc;
use std::time::Duration;

use cluster::Store;
use cluster::records::keys;
use cluster::store::MAX_PAGE;
use meeting_core::{Focus, Held, MeetingId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::runner::Input;
use crate::switches::Switches;

/// How often; what is found twice running is put right.
const INTERVAL: Duration = Duration::from_secs(10);

/// Meetings whose records are read each time; the others have their turn.
const MEETINGS: usize = 50;

/// Runs until nobody listens any more.
pub(crate) async fn run(
    focus: Arc<Mutex<Focus>>,
    switches: Arc<Switches>,
    store: Arc<dyn Store>,
    inputs: mpsc::Sender<Input>,
) {
    let mut last: Option<String> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        for id in switches.ids() {
            let Some(answer) = switches.inspect(&id, "").await else {
                continue;
            };
            let held = answer.meetings.into_iter().map(|view| Held {
                meeting: view.meeting,
                epoch: view.epoch,
                legs: view.legs.into_iter().map(|leg| leg.id).collect(),
            });
            let input = Input::Inventory(id, held.collect());
            if inputs.send(input).await.is_err() {
                return;
            }
        }
        let after = last.take().unwrap_or_default();
        let ids: Vec<String> = {
            let focus = focus.lock();
            let meetings = focus.meetings().map(|m| m.id);
            meetings.filter(|id| *id > after).take(MEETINGS).collect()
        };
        for id in ids {
            if let Some(keys) = records(&*store, &id).await
                && let Some(meeting) = MeetingId::new(&id)
                && inputs.send(Input::Records(meeting, keys)).await.is_err()
            {
                return;
            }
            last = Some(id);
        }
    }
}

/// Keys of the dialog records of a meeting; `None` where the store does not tell.
async fn records(store: &dyn Store, meeting: &str) -> Option<Vec<String>> {
    let prefix = keys::dialogs(meeting);
    let mut found: Vec<String> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store
            .range(&prefix, MAX_PAGE, after.as_deref())
            .await
            .ok()?;
        let own = page
            .entries
            .iter()
            .filter_map(|e| e.key.strip_prefix(&prefix));
        found.extend(own.map(str::to_owned));
        after = page.entries.last().map(|e| e.key.clone());
        if !page.more {
            return Some(found);
        }
    }
}
