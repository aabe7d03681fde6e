//! The messages that the layer makes by itself: 100, ACK of a failure, CANCEL.

use crate::message::{HeaderName, Message, Method, StatusCode};

/// §8.2.6.1: a 100 of the layer's own; a Timestamp goes back as it came.
pub(super) fn trying(request: &Message) -> Message {
    let mut response = Message::response(request, StatusCode::of(100), None, None);
    if let Some(timestamp) = request.header(HeaderName::Other("Timestamp")) {
        response.push_back(HeaderName::Other("Timestamp"), timestamp);
    }
    response
}

/// Copies what ACK and CANCEL have in common with their INVITE (§17.1.1.3, §9.1): Request-URI, its top Via only,
/// Route, From, Call-ID, and To unless it is another.
fn in_the_way_of(invite: &Message, method: Method, to: Option<&str>) -> Message {
    let number = invite.cseq().map(|c| c.number).unwrap_or(0);
    let cseq = format!("{number} {method}");
    let mut message = Message::request(method, invite.request_uri());
    if let Some(via) = invite.values(HeaderName::Via).next() {
        message.push_back(HeaderName::Via, via);
    }
    message.push_back(HeaderName::MaxForwards, "70");
    for route in invite.headers(HeaderName::Route) {
        message.push_back(HeaderName::Route, route);
    }
    if let Some(from) = invite.header(HeaderName::From) {
        message.push_back(HeaderName::From, from);
    }
    if let Some(to) = to.or_else(|| invite.header(HeaderName::To)) {
        message.push_back(HeaderName::To, to);
    }
    message.push_back(HeaderName::CallId, invite.call_id());
    message.push_back(HeaderName::CSeq, cseq);
    message
}

/// §17.1.1.3: the ACK of a non-2xx final response.
pub(super) fn ack_of_failure(invite: &Message, response: &Message) -> Message {
    in_the_way_of(invite, Method::Ack, response.header(HeaderName::To))
}

/// §9.1: the CANCEL of a pending INVITE.
pub(super) fn cancel_of(invite: &Message, reason: Option<&str>) -> Message {
    let mut cancel = in_the_way_of(invite, Method::Cancel, None);
    if let Some(reason) = reason {
        cancel.push_back(HeaderName::Reason, reason);
    }
    cancel
}
