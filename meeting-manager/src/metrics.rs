//! The meeting manager's metrics, each described once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meeting_core::{Counts, Orphans};
use sip::Message;

/// Describes them; call once a recorder is installed.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(
        "rostrum_manager_messages_total",
        Unit::Count,
        "SIP messages received, by kind"
    );
    describe_gauge!(
        "rostrum_manager_meetings",
        Unit::Count,
        "Meetings served here"
    );
    describe_gauge!(
        "rostrum_manager_participants",
        Unit::Count,
        "Participants of them"
    );
    describe_gauge!(
        "rostrum_manager_dialogs",
        Unit::Count,
        "Dialogs of calls and subscriptions"
    );
    describe_gauge!(
        "rostrum_manager_subscriptions",
        Unit::Count,
        "Subscriptions to participant lists"
    );
    describe_gauge!(
        "rostrum_manager_transactions",
        Unit::Count,
        "SIP transactions under way"
    );
    describe_gauge!(
        "rostrum_manager_operations",
        Unit::Count,
        "Operations of store and switches under way"
    );
    describe_histogram!(
        TAKEOVER,
        Unit::Seconds,
        "From the notice that a meeting's owner is gone until the meeting is served here, one value a meeting"
    );
    describe_counter!(
        ORPHANS,
        Unit::Count,
        "What belonged to nothing and was put right, by kind: legs, dialogs without one, meetings on switches, records"
    );
    describe_counter!(
        FENCED,
        Unit::Count,
        "Writes refused because the meeting is no longer this manager's, by who refused: store, switch"
    );
    describe_gauge!(
        EPOCH,
        Unit::Count,
        "Highest epoch under which this manager owns or owned a meeting"
    );
}

const TAKEOVER: &str = "rostrum_manager_takeover_seconds";
const ORPHANS: &str = "rostrum_manager_orphans_total";
const FENCED: &str = "rostrum_manager_fenced_writes_total";
const EPOCH: &str = "rostrum_manager_highest_epoch";

static HIGHEST: AtomicU64 = AtomicU64::new(0);

/// A meeting of a member that is gone is served here, so long after it was noticed.
pub(crate) fn takeover(duration: Duration) {
    metrics::histogram!(TAKEOVER).record(duration);
}

/// What a sweep has put right.
pub(crate) fn orphans(found: &Orphans) {
    let count = |kind: &'static str, n: usize| {
        if n > 0 {
            tracing::warn!(kind, n, "something belonged to nothing and was put right");
        }
        metrics::counter!(ORPHANS, "kind" => kind).increment(n as u64);
    };
    count("leg", found.legs);
    count("dialog", found.dialogs);
    count("meeting", found.meetings);
    count("record", found.records);
}

/// A write was refused to a manager that is no longer the owner; `by` is "store" or "switch".
pub(crate) fn fenced_write(by: &'static str) {
    metrics::counter!(FENCED, "by" => by).increment(1);
}

/// A meeting is owned under this epoch.
#[allow(
    clippy::cast_precision_loss,
    reason = "a store's revision stays far below 2^52"
)]
pub(crate) fn epoch(epoch: u64) {
    if HIGHEST.fetch_max(epoch, Ordering::Relaxed) < epoch {
        metrics::gauge!(EPOCH).set(epoch as f64);
    }
}

pub(crate) fn message_received(message: &Message) {
    let kind = if message.is_request() {
        "request"
    } else {
        "response"
    };
    metrics::counter!("rostrum_manager_messages_total", "kind" => kind).increment(1);
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of things in memory are far below 2^52"
)]
pub(crate) fn counts(counts: &Counts) {
    let gauge = |name: &'static str, value: usize| metrics::gauge!(name).set(value as f64);
    gauge("rostrum_manager_meetings", counts.meetings);
    gauge("rostrum_manager_participants", counts.participants);
    gauge("rostrum_manager_dialogs", counts.dialogs);
    gauge("rostrum_manager_subscriptions", counts.subscriptions);
    gauge(
        "rostrum_manager_transactions",
        counts.client_transactions + counts.server_transactions,
    );
    gauge("rostrum_manager_operations", counts.pending_operations);
}
