//! The metrics of the transports, each defined here once.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use sip::Transport;

const CONNECTIONS: &str = "sip_transport_connections";
const RECEIVED: &str = "sip_transport_messages_received_total";
const SENT: &str = "sip_transport_messages_sent_total";
const DROPPED: &str = "sip_transport_messages_dropped_total";
const FAILED: &str = "sip_transport_sends_failed_total";
const REFUSED: &str = "sip_transport_connections_refused_total";
const CLOSED: &str = "sip_transport_connections_closed_total";
const STUN: &str = "sip_transport_stun_requests_total";

/// Gives every metric its unit and help text; called by [`crate::Transports::bind`], harmless to repeat.
pub fn describe() {
    describe_gauge!(
        CONNECTIONS,
        Unit::Count,
        "Open SIP connections, by transport"
    );
    describe_counter!(RECEIVED, Unit::Count, "SIP messages received, by transport");
    describe_counter!(
        SENT,
        Unit::Count,
        "SIP messages handed to the kernel, by transport"
    );
    describe_counter!(
        DROPPED,
        Unit::Count,
        "Datagrams dropped because the element was too busy"
    );
    describe_counter!(
        FAILED,
        Unit::Count,
        "SIP messages that could not be sent, by transport"
    );
    describe_counter!(REFUSED, Unit::Count, "Connections refused, by reason");
    describe_counter!(CLOSED, Unit::Count, "Connections closed, by reason");
    describe_counter!(STUN, Unit::Count, "STUN keepalives answered on SIP ports");
}

pub(crate) fn received(transport: Transport) {
    counter!(RECEIVED, "transport" => transport.uri_token()).increment(1);
}

pub(crate) fn sent(transport: Transport) {
    counter!(SENT, "transport" => transport.uri_token()).increment(1);
}

pub(crate) fn dropped() {
    counter!(DROPPED).increment(1);
}

pub(crate) fn failed(transport: Transport) {
    counter!(FAILED, "transport" => transport.uri_token()).increment(1);
}

pub(crate) fn opened(transport: Transport) {
    gauge!(CONNECTIONS, "transport" => transport.uri_token()).increment(1.0);
}

pub(crate) fn closed(transport: Transport, reason: &'static str) {
    gauge!(CONNECTIONS, "transport" => transport.uri_token()).decrement(1.0);
    counter!(CLOSED, "reason" => reason).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn stun_answered() {
    counter!(STUN).increment(1);
}
