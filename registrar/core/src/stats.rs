//! Counters of the core, read by the shell's metrics.

/// Totals since the start, except where said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests seen.
    pub requests: u64,
    /// Requests answered 4xx/5xx for being malformed or unsupported.
    pub rejected: u64,
    /// Challenges sent (401 and 407).
    pub challenges: u64,
    /// Wrong passwords, unknown users, replays.
    pub authentication_failures: u64,
    /// REGISTERs that were answered 200.
    pub registrations: u64,
    /// Requests refused for overload (503).
    pub overload: u64,
    /// Requests proxied.
    pub forwarded: u64,
    /// Loops found (482).
    pub loops: u64,
    /// Proxied requests kept now, those that are only kept for repeated 2xx included.
    pub contexts: u64,
    /// Requests now that no final response was given to: proxied, registering or parked.
    pub pending: u64,
    /// Client transactions now.
    pub client_transactions: u64,
    /// Server transactions now.
    pub server_transactions: u64,
    /// Flows known now.
    pub flows: u64,
    /// Bindings in the cache now.
    pub bindings: u64,
    /// In-dialog requests waiting for an owner now.
    pub parked: u64,
}
