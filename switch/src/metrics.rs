//! The switch's metrics, each defined once.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const RECEIVED: &str = "rostrum_switch_datagrams_received_total";
const SENT: &str = "rostrum_switch_datagrams_sent_total";
const DROPPED: &str = "rostrum_switch_datagrams_not_sent_total";
const ERRORS: &str = "rostrum_switch_receive_errors_total";
const LEGS: &str = "rostrum_switch_legs";
const PORTS: &str = "rostrum_switch_plain_ports";
const MEETINGS: &str = "rostrum_switch_meetings";

/// Says what each is.
pub fn describe() {
    describe_counter!(RECEIVED, Unit::Count, "Media datagrams received");
    describe_counter!(SENT, Unit::Count, "Media datagrams sent");
    describe_counter!(
        DROPPED,
        Unit::Count,
        "Media datagrams the kernel did not take (buffer full, peer gone)"
    );
    describe_counter!(ERRORS, Unit::Count, "Errors reading media sockets");
    describe_gauge!(LEGS, Unit::Count, "Legs on this switch");
    describe_gauge!(PORTS, Unit::Count, "UDP ports of plain RTP legs in use");
    describe_gauge!(MEETINGS, Unit::Count, "Meetings on this switch");
}

/// Datagrams came in.
pub fn received(datagrams: u64) {
    counter!(RECEIVED).increment(datagrams);
}

/// Datagrams went out, or did not.
pub fn sent(datagrams: usize, failed: usize) {
    if datagrams > 0 {
        counter!(SENT).increment(datagrams as u64);
    }
    if failed > 0 {
        counter!(DROPPED).increment(failed as u64);
    }
}

/// A socket could not be read.
pub fn receive_error() {
    counter!(ERRORS).increment(1);
}

/// What the switch holds now.
pub fn holds(meetings: usize, legs: usize, ports: usize) {
    gauge!(MEETINGS).set(meetings as f64);
    gauge!(LEGS).set(legs as f64);
    gauge!(PORTS).set(ports as f64);
}
