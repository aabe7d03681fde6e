//! Dialogs (RFC 3261 §12) that can be stored and gone on with elsewhere.

use serde::{Deserialize, Serialize};

use crate::header::HeaderError;
use crate::message::{Message, Method, StatusCode};

/// Identifies a dialog from our side.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DialogId {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag.
    pub remote_tag: String,
}

impl DialogId {
    /// Of a request received in a dialog: local = To tag, remote = From tag. `None` without a To tag.
    #[must_use]
    pub fn of_request(_request: &Message) -> Option<Self> {
        todo!()
    }
}

/// Early until a 2xx, then confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DialogState {
    Early,
    Confirmed,
    Terminated,
}

/// Everything that is needed to go on with a dialog on another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    /// Identity.
    pub id: DialogId,
    /// State.
    pub state: DialogState,
    /// Our URI with display name as From/To carries it, without tag.
    pub local: String,
    /// The peer's, without tag.
    pub remote: String,
    /// The peer's Contact URI, where requests go.
    pub remote_target: String,
    /// Our Contact header value.
    pub contact: String,
    /// Route header values, in the order they go into requests.
    pub route_set: Vec<String>,
    /// CSeq of our last request.
    pub local_cseq: u32,
    /// CSeq of the peer's last request.
    pub remote_cseq: Option<u32>,
    /// sips and TLS all the way.
    pub secure: bool,
}

/// A request that does not fit the dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// What to answer: 500 for a CSeq out of order (§12.2.2), 481, 400.
    pub status: StatusCode,
    /// Reason phrase.
    pub reason: &'static str,
}

#[allow(unused_variables)]
impl Dialog {
    /// The UAS side, from a dialog-creating request (§12.1.1). `contact` is our Contact header value.
    ///
    /// # Errors
    /// A header it needs is missing or malformed.
    pub fn uas(
        request: &Message,
        local_tag: &str,
        contact: &str,
        state: DialogState,
    ) -> Result<Self, HeaderError> {
        todo!()
    }

    /// The UAC side, from our request and a response with a To tag (§12.1.2).
    ///
    /// # Errors
    /// A header it needs is missing or malformed.
    pub fn uac(request: &Message, response: &Message) -> Result<Self, HeaderError> {
        todo!()
    }

    /// Checks and counts an in-dialog request of the peer: CSeq order, ACK and CANCEL exempt. A target-refresh
    /// request (INVITE, UPDATE, SUBSCRIBE, NOTIFY, REFER) takes over its Contact.
    ///
    /// # Errors
    /// How to refuse it.
    pub fn accept(&mut self, request: &Message) -> Result<(), Reject> {
        todo!()
    }

    /// A response to a target-refresh request of ours: takes over its Contact; 2xx confirms an early dialog.
    pub fn accept_response(&mut self, response: &Message) {
        todo!()
    }

    /// A new request in the dialog: Request-URI, Route (loose and strict, §12.2.1.1), From, To, Call-ID, CSeq
    /// (counted up), Max-Forwards 70, Contact; no Via.
    pub fn request(&mut self, method: Method) -> Message {
        todo!()
    }

    /// The ACK of a 2xx to the INVITE with that CSeq number (§13.2.2.4).
    #[must_use]
    pub fn ack(&self, cseq: u32) -> Message {
        todo!()
    }

    /// A response to a request in (or creating) this dialog: like [`Message::response`], with our tag, Contact,
    /// and Record-Route copied where it creates the dialog.
    #[must_use]
    pub fn response(&self, request: &Message, status: StatusCode, reason: Option<&str>) -> Message {
        todo!()
    }

    /// The URI the next request physically goes to: first route, else remote target.
    #[must_use]
    pub fn next_hop_uri(&self) -> &str {
        todo!()
    }
}
