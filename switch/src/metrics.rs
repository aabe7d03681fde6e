//! The switch's metrics, each defined once.

use switch_core::worker::WorkerStats;

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};

const RECEIVED: &str = "rostrum_switch_datagrams_received_total";
const SENT: &str = "rostrum_switch_datagrams_sent_total";
const DROPPED: &str = "rostrum_switch_datagrams_not_sent_total";
const ERRORS: &str = "rostrum_switch_receive_errors_total";
const STRANGERS: &str = "rostrum_switch_datagrams_from_strangers_total";
const BAD: &str = "rostrum_switch_datagrams_bad_total";
const UNSENDABLE: &str = "rostrum_switch_packets_unsendable_total";
const OVERFLOWED: &str = "rostrum_switch_packets_overflowed_total";
const OVERRUN: &str = "rostrum_switch_receive_overruns_total";
const UNFAIR: &str = "rostrum_switch_datagrams_of_busy_meetings_dropped_total";
const BUSY: &str = "rostrum_switch_busy_ratio";
const LEGS: &str = "rostrum_switch_legs";
const PORTS: &str = "rostrum_switch_plain_ports";
const MEETINGS: &str = "rostrum_switch_meetings";
const REFUSED: &str = "rostrum_switch_control_refused_total";
const STALE: &str = "rostrum_switch_stale_epochs_refused_total";
const EPOCH: &str = "rostrum_switch_highest_epoch";

/// Says what each is.
pub fn describe() {
    describe_counter!(
        REFUSED,
        Unit::Count,
        "Connections and orders refused on the control port, by reason: handshake, no-certificate, untrusted, name"
    );
    describe_counter!(
        STALE,
        Unit::Count,
        "Orders refused because a later owner of the meeting has spoken: a deposed manager's"
    );
    describe_gauge!(
        EPOCH,
        Unit::Count,
        "Highest epoch of an owner that gave an order here"
    );
    describe_counter!(RECEIVED, Unit::Count, "Media datagrams received");
    describe_counter!(SENT, Unit::Count, "Media datagrams sent");
    describe_counter!(
        DROPPED,
        Unit::Count,
        "Media datagrams the kernel did not take (buffer full, peer gone)"
    );
    describe_counter!(
        STRANGERS,
        Unit::Count,
        "Datagrams from addresses that may not speak, or to sockets nobody owns"
    );
    describe_counter!(
        BAD,
        Unit::Count,
        "Media datagrams replayed, malformed or not authentic"
    );
    describe_counter!(
        UNSENDABLE,
        Unit::Count,
        "Packets for legs that cannot be sent to yet, or no longer"
    );
    describe_counter!(
        OVERFLOWED,
        Unit::Count,
        "Packets dropped because one burst made more than a worker sends at once"
    );
    describe_counter!(ERRORS, Unit::Count, "Errors reading media sockets");
    describe_counter!(
        OVERRUN,
        Unit::Count,
        "Media datagrams that the kernel had no room for before they could be read"
    );
    describe_counter!(
        UNFAIR,
        Unit::Count,
        "Media datagrams dropped of meetings that send more than their share of a busy worker"
    );
    describe_gauge!(
        BUSY,
        Unit::Count,
        "Share of the last second in which the busiest worker computed, 0..=1"
    );
    describe_gauge!(LEGS, Unit::Count, "Legs on this switch");
    describe_gauge!(PORTS, Unit::Count, "UDP ports of plain RTP legs in use");
    describe_gauge!(MEETINGS, Unit::Count, "Meetings on this switch");
}

/// A worker's counters: found once, so that counting is an addition and no look-up.
pub struct Counters {
    received: Counter,
    sent: Counter,
    not_sent: Counter,
    receive_errors: Counter,
    overruns: Counter,
    unfair: Counter,
    strangers: Counter,
    bad: Counter,
    unsendable: Counter,
    overflowed: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: counter!(RECEIVED),
            sent: counter!(SENT),
            not_sent: counter!(DROPPED),
            receive_errors: counter!(ERRORS),
            overruns: counter!(OVERRUN),
            unfair: counter!(UNFAIR),
            strangers: counter!(STRANGERS),
            bad: counter!(BAD),
            unsendable: counter!(UNSENDABLE),
            overflowed: counter!(OVERFLOWED),
        }
    }
}

impl Counters {
    /// Datagrams came in.
    pub fn received(&self, datagrams: u64) {
        self.received.increment(datagrams);
    }

    /// Datagrams went out, or did not.
    pub fn sent(&self, datagrams: usize, failed: usize) {
        self.sent.increment(datagrams as u64);
        self.not_sent.increment(failed as u64);
    }

    /// What a worker dropped, and why, since the last time.
    pub fn dropped(&self, now: WorkerStats, before: WorkerStats) {
        self.strangers.increment(now.strangers - before.strangers);
        self.bad.increment(now.bad - before.bad);
        self.unsendable
            .increment(now.unsendable - before.unsendable);
        self.overflowed
            .increment(now.overflowed - before.overflowed);
    }

    /// A socket could not be read.
    pub fn receive_error(&self) {
        self.receive_errors.increment(1);
    }

    /// The kernel had no room for datagrams that came.
    pub fn overrun(&self, datagrams: u64) {
        self.overruns.increment(datagrams);
    }

    /// Datagrams of meetings beyond their share were dropped.
    pub fn unfair(&self, datagrams: u64) {
        self.unfair.increment(datagrams);
    }
}

/// How busy the busiest worker is, per mille.
pub fn busy(per_mille: u32) {
    gauge!(BUSY).set(f64::from(per_mille) / 1_000.0);
}

/// What the switch holds now.
pub fn holds(meetings: usize, legs: usize, ports: usize) {
    gauge!(MEETINGS).set(meetings as f64);
    gauge!(LEGS).set(legs as f64);
    gauge!(PORTS).set(ports as f64);
}

/// Whoever it was may not give orders.
pub fn control_refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A deposed manager gave an order.
pub fn stale_epoch() {
    counter!(STALE).increment(1);
}

/// An owner of this epoch gave an order.
#[allow(
    clippy::cast_precision_loss,
    reason = "a store's revision stays far below 2^52"
)]
pub fn highest_epoch(epoch: u64) {
    gauge!(EPOCH).set(epoch as f64);
}
