//! How requests are refused: a status, a reason a person understands, and the headers that go with it.

use std::time::Duration;

use sip::{HeaderName, Message, StatusCode};

use crate::rng::Rng;

/// Longest reason phrase, bytes; what peers sent may be quoted in it.
const MAX_REASON: usize = 200;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
    headers: Vec<(HeaderName<'static>, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: impl Into<String>) -> Self {
        Self {
            status: StatusCode::of(status),
            reason: clean(&reason.into()),
            headers: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: HeaderName<'static>, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 503 with Retry-After.
    pub(crate) fn unavailable(reason: &str, retry: Duration) -> Self {
        Self::new(503, reason).with(HeaderName::RetryAfter, retry.as_secs().max(1).to_string())
    }

    /// 488 with the Warning that RFC 3261 §20.43 asks for (399: text for people).
    pub(crate) fn not_acceptable(reason: &str, agent: &str) -> Self {
        Self::with_warning(399, reason, agent)
    }

    /// 488 where the media cannot be of the peer's address family (301: incompatible network address formats).
    pub(crate) fn incompatible_address(reason: &str, agent: &str) -> Self {
        Self::with_warning(301, reason, agent)
    }

    fn with_warning(warning: u16, reason: &str, agent: &str) -> Self {
        let reason = clean(reason);
        let quoted = reason.replace(['"', '\\'], "'");
        Self::new(488, reason).with(
            HeaderName::Warning,
            format!("{warning} {agent} \"{quoted}\""),
        )
    }

    /// 500 with a Retry-After of 0 to 10 s: an earlier INVITE is not answered yet (RFC 3261 §14.2).
    pub(crate) fn overlapping(rng: &mut Rng) -> Self {
        Self::new(500, "An earlier request of this dialog is not answered yet")
            .with(HeaderName::RetryAfter, rng.below(11).to_string())
    }

    /// 491: we have an offer outstanding (RFC 3261 §14.2).
    pub(crate) fn glare() -> Self {
        Self::new(491, "Request Pending")
    }

    /// Puts the headers on a response made with this status and reason.
    pub(crate) fn decorate(&self, response: &mut Message) {
        for (name, value) in &self.headers {
            response.set(*name, value.clone());
        }
    }

    /// The response outside a dialog.
    pub(crate) fn response(&self, request: &Message, to_tag: &str) -> Message {
        let mut response =
            Message::response(request, self.status, Some(&self.reason), Some(to_tag));
        self.decorate(&mut response);
        response
    }
}

/// No line breaks or other controls in a status line, whatever a peer's SDP said.
fn clean(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if out.len() > MAX_REASON {
        let mut end = MAX_REASON;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_never_breaks_the_status_line() {
        let refusal = Refusal::new(488, "codec \r\nVia: evil");
        assert_eq!(refusal.reason, "codec   Via: evil");
        assert!(Refusal::new(488, "ä".repeat(500)).reason.len() <= MAX_REASON);
    }
}
