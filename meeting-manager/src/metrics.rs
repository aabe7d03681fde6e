//! The meeting manager's metrics, each described once.

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
    describe_counter!(
        "rostrum_manager_orphans_total",
        Unit::Count,
        "What belonged to nothing and was put right, by kind: legs, dialogs without one, meetings on switches, records"
    );
    describe_histogram!(
        "rostrum_manager_takeover_seconds",
        Unit::Seconds,
        "From a member's end to its meeting going on here, one value a meeting"
    );
}

/// What a sweep has put right.
pub(crate) fn orphans(found: &Orphans) {
    let count = |kind: &'static str, n: usize| {
        if n > 0 {
            tracing::warn!(kind, n, "something belonged to nothing and was put right");
        }
        metrics::counter!("rostrum_manager_orphans_total", "kind" => kind).increment(n as u64);
    };
    count("leg", found.legs);
    count("dialog", found.dialogs);
    count("meeting", found.meetings);
    count("record", found.records);
}

/// A meeting of a member that is gone goes on here.
pub(crate) fn took_over(after: Duration) {
    metrics::histogram!("rostrum_manager_takeover_seconds").record(after.as_secs_f64());
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
