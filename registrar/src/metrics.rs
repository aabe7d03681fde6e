//! The registrar's metrics, each defined once.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use registrar_core::Stats;

/// How long the store took for a registration, seconds.
pub(crate) const STORE_SECONDS: &str = "rostrum_registrar_store_seconds";
/// Guests' identities given out.
pub(crate) const GUESTS: &str = "rostrum_registrar_guests_total";

type Read = fn(&Stats) -> u64;

const COUNTERS: [(&str, &str, Read); 8] = [
    (
        "rostrum_registrar_requests_total",
        "SIP requests received",
        |s| s.requests,
    ),
    (
        "rostrum_registrar_rejected_total",
        "Requests refused as malformed or unsupported",
        |s| s.rejected,
    ),
    (
        "rostrum_registrar_challenges_total",
        "Digest challenges sent",
        |s| s.challenges,
    ),
    (
        "rostrum_registrar_authentication_failures_total",
        "Wrong passwords, unknown users and replays",
        |s| s.authentication_failures,
    ),
    (
        "rostrum_registrar_registrations_total",
        "REGISTER requests answered 200",
        |s| s.registrations,
    ),
    (
        "rostrum_registrar_overload_total",
        "Requests refused with 503 for overload",
        |s| s.overload,
    ),
    (
        "rostrum_registrar_forwarded_total",
        "Requests proxied",
        |s| s.forwarded,
    ),
    ("rostrum_registrar_loops_total", "Loops found", |s| s.loops),
];

const GAUGES: [(&str, &str, Read); 7] = [
    (
        "rostrum_registrar_requests_in_progress",
        "Proxied requests kept, answered calls that may be answered again included",
        |s| s.contexts,
    ),
    (
        "rostrum_registrar_pending",
        "Requests that have no final response yet",
        |s| s.pending,
    ),
    (
        "rostrum_registrar_client_transactions",
        "SIP client transactions",
        |s| s.client_transactions,
    ),
    (
        "rostrum_registrar_server_transactions",
        "SIP server transactions",
        |s| s.server_transactions,
    ),
    (
        "rostrum_registrar_flows",
        "Connections that messages came over",
        |s| s.flows,
    ),
    (
        "rostrum_registrar_bindings",
        "Registered contacts in the cluster",
        |s| s.bindings,
    ),
    (
        "rostrum_registrar_parked",
        "In-dialog requests waiting for a meeting's new owner",
        |s| s.parked,
    ),
];

/// Tells the recorder unit and meaning of each.
pub(crate) fn describe() {
    for (name, help, _) in COUNTERS {
        describe_counter!(name, Unit::Count, help);
    }
    for (name, help, _) in GAUGES {
        describe_gauge!(name, Unit::Count, help);
    }
    describe_counter!(GUESTS, Unit::Count, "Guests' identities given out");
    describe_histogram!(
        STORE_SECONDS,
        Unit::Seconds,
        "Time the store took for a registration"
    );
}

/// Sets all from the core's counters.
pub(crate) fn publish(stats: &Stats) {
    for (name, _, read) in COUNTERS {
        counter!(name).absolute(read(stats));
    }
    for (name, _, read) in GAUGES {
        #[allow(clippy::cast_precision_loss)] // counts far below 2^53
        gauge!(name).set(read(stats) as f64);
    }
}
