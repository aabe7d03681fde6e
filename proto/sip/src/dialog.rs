//! Dialogs (RFC 3261 §12) that can be stored and gone on with elsewhere.
//!
//! ```text
//!   1xx with a tag   +-------+  2xx   +-----------+
//! -----------------> | Early | -----> | Confirmed | <---- 2xx at once
//!                    +-------+        +-----------+
//!           300-699, BYE |                 | BYE, 408 or 481 to a request of ours
//!                        v                 v
//!                      +---------------------+
//!                      |      Terminated     |
//!                      +---------------------+
//! ```

use serde::{Deserialize, Serialize};

use crate::header::{HeaderError, NameAddr};
use crate::message::{HeaderName, Message, Method, StatusCode};
use crate::uri::Uri;

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
    pub fn of_request(request: &Message) -> Option<Self> {
        let to = request.to().ok()?;
        let from = request.from().ok()?;
        Some(Self {
            call_id: request.call_id().to_owned(),
            local_tag: to.tag()?.to_owned(),
            // A peer from before RFC 3261 may have none (§12.1.1).
            remote_tag: from.tag().unwrap_or("").to_owned(),
        })
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

/// Largest CSeq number (§8.1.1.5).
const CSEQ_MAX: u32 = 0x7fff_ffff;

/// Whether a 2xx to it, or it itself, moves the remote target (§12.2, RFC 3311, RFC 6665).
fn refreshes_target(method: &Method) -> bool {
    matches!(
        method,
        Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer
    )
}

/// Whether a 2xx to it makes a dialog, or confirms an early one.
fn creates_dialog(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Subscribe | Method::Refer)
}

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
        let from = request.from()?;
        let remote_tag = from.tag().unwrap_or("").to_owned();
        let route_set = request
            .addresses(HeaderName::RecordRoute)?
            .iter()
            .map(NameAddr::to_string)
            .collect();
        Ok(Self {
            id: DialogId {
                call_id: call_id(request)?,
                local_tag: local_tag.to_owned(),
                remote_tag,
            },
            state,
            local: without_tag(request.to()?),
            remote: without_tag(from),
            remote_target: contact_uri(request)?,
            contact: contact.to_owned(),
            route_set,
            local_cseq: 0,
            remote_cseq: Some(request.cseq()?.number),
            secure: is_secure(request.request_uri()),
        })
    }

    /// The UAC side, from our request and a response with a To tag (§12.1.2).
    ///
    /// # Errors
    /// A header it needs is missing or malformed.
    pub fn uac(request: &Message, response: &Message) -> Result<Self, HeaderError> {
        let from = request.from()?;
        let to = response.to()?;
        let confirmed = response.status().is_some_and(StatusCode::is_success);
        let remote_target = match contact_uri(response) {
            Ok(uri) => uri,
            // Without a Contact in a provisional response the request's own target is the best there is.
            Err(HeaderError::Missing(_)) if !confirmed => request.request_uri().to_owned(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            id: DialogId {
                call_id: call_id(request)?,
                local_tag: from.tag().unwrap_or("").to_owned(),
                remote_tag: to.tag().unwrap_or("").to_owned(),
            },
            state: if confirmed {
                DialogState::Confirmed
            } else {
                DialogState::Early
            },
            local: without_tag(from),
            remote: without_tag(request.to()?),
            remote_target,
            contact: request.header(HeaderName::Contact).unwrap_or("").to_owned(),
            route_set: reversed_record_route(response)?,
            local_cseq: request.cseq()?.number,
            remote_cseq: None,
            secure: is_secure(request.request_uri()),
        })
    }

    /// Checks and counts an in-dialog request of the peer: CSeq order, ACK and CANCEL exempt. A target-refresh
    /// request (INVITE, UPDATE, SUBSCRIBE, NOTIFY, REFER) takes over its Contact. BYE terminates the dialog (§15.1.2).
    ///
    /// # Errors
    /// How to refuse it.
    pub fn accept(&mut self, request: &Message) -> Result<(), Reject> {
        let ours = DialogId::of_request(request).is_some_and(|id| id == self.id);
        if !ours || self.state == DialogState::Terminated {
            return Err(Reject {
                status: StatusCode::of(481),
                reason: "Call/Transaction Does Not Exist",
            });
        }
        let method = request.method().clone();
        if matches!(method, Method::Ack | Method::Cancel) {
            return Ok(());
        }
        let Ok(cseq) = request.cseq() else {
            return Err(Reject {
                status: StatusCode::of(400),
                reason: "Bad CSeq",
            });
        };
        // §12.2.2: lower is out of order; any gap upwards is allowed.
        if self.remote_cseq.is_some_and(|last| cseq.number < last) {
            return Err(Reject {
                status: StatusCode::of(500),
                reason: "CSeq Out Of Order",
            });
        }
        if refreshes_target(&method) {
            match contact_uri(request) {
                Ok(target) => self.remote_target = target,
                // Nothing to take over: the old target stays.
                Err(HeaderError::Missing(_)) => {}
                Err(HeaderError::Malformed(..)) => {
                    return Err(Reject {
                        status: StatusCode::of(400),
                        reason: "Bad Contact",
                    });
                }
            }
        }
        self.remote_cseq = Some(cseq.number);
        if method == Method::Bye {
            self.state = DialogState::Terminated;
        }
        Ok(())
    }

    /// A response to a request of ours in the dialog. A 2xx to a target-refresh request takes over its Contact; one
    /// to the request that made an early dialog confirms it, with the route set of the 2xx (§13.2.2.4); other final
    /// responses to that one end an early dialog (§12.3). 408 and 481 end a confirmed one (§12.2.1.2).
    pub fn accept_response(&mut self, response: &Message) {
        let Some(status) = response.status() else {
            return;
        };
        let method = response.method();
        if status.is_success() {
            if refreshes_target(method)
                && let Ok(target) = contact_uri(response)
            {
                self.remote_target = target;
            }
            if self.state == DialogState::Early && creates_dialog(method) {
                self.state = DialogState::Confirmed;
                if let Ok(route_set) = reversed_record_route(response) {
                    self.route_set = route_set;
                }
            }
        } else if status.is_final() {
            let over = match self.state {
                DialogState::Early => creates_dialog(method),
                DialogState::Confirmed => matches!(status.get(), 408 | 481),
                DialogState::Terminated => false,
            };
            if over {
                self.state = DialogState::Terminated;
            }
        }
    }

    /// A new request in the dialog: Request-URI, Route (loose and strict, §12.2.1.1), From, To, Call-ID, CSeq
    /// (counted up), Max-Forwards 70, Contact; no Via. ACK and CANCEL are not made this way.
    pub fn request(&mut self, method: Method) -> Message {
        self.local_cseq = self.local_cseq.saturating_add(1).min(CSEQ_MAX);
        let number = self.local_cseq;
        let with_contact = refreshes_target(&method);
        let mut message = self.skeleton(method, number);
        if with_contact && !self.contact.is_empty() {
            message.push_back(HeaderName::Contact, self.contact.as_str());
        }
        message
    }

    /// The ACK of a 2xx to the INVITE with that CSeq number (§13.2.2.4).
    #[must_use]
    pub fn ack(&self, cseq: u32) -> Message {
        self.skeleton(Method::Ack, cseq)
    }

    fn skeleton(&self, method: Method, cseq: u32) -> Message {
        // §12.2.1.1: a first route without lr is a strict router: it wants to be the Request-URI, and the target
        // then travels as the last route.
        let strict = self
            .route_set
            .first()
            .and_then(|first| Uri::parse(uri_of(first)).ok())
            .filter(|uri| !uri.is_loose_router());
        let cseq = format!("{cseq} {method}");
        let mut message = match &strict {
            Some(uri) => Message::request(method, &as_request_uri(uri.clone())),
            None => Message::request(method, &self.remote_target),
        };
        let skipped = usize::from(strict.is_some());
        for route in self.route_set.iter().skip(skipped) {
            message.push_back(HeaderName::Route, route.as_str());
        }
        if strict.is_some() {
            message.push_back(HeaderName::Route, format!("<{}>", self.remote_target));
        }
        message.push_back(HeaderName::MaxForwards, "70");
        message.push_back(HeaderName::From, with_tag(&self.local, &self.id.local_tag));
        message.push_back(HeaderName::To, with_tag(&self.remote, &self.id.remote_tag));
        message.push_back(HeaderName::CallId, self.id.call_id.as_str());
        message.push_back(HeaderName::CSeq, cseq);
        message
    }

    /// A response to a request in (or creating) this dialog: like [`Message::response`], with our tag, Contact,
    /// and Record-Route copied where it creates the dialog.
    #[must_use]
    pub fn response(&self, request: &Message, status: StatusCode, reason: Option<&str>) -> Message {
        let mut response = Message::response(request, status, reason, Some(&self.id.local_tag));
        let establishes = status.get() > 100 && status.get() < 300;
        if establishes
            && creates_dialog(request.method())
            && DialogId::of_request(request).is_none()
        {
            for route in request.headers(HeaderName::RecordRoute) {
                response.push_back(HeaderName::RecordRoute, route);
            }
        }
        if establishes && refreshes_target(request.method()) && !self.contact.is_empty() {
            response.push_back(HeaderName::Contact, self.contact.as_str());
        }
        response
    }

    /// The URI the next request physically goes to: first route, else remote target.
    #[must_use]
    pub fn next_hop_uri(&self) -> &str {
        self.route_set
            .first()
            .map_or(self.remote_target.as_str(), |first| uri_of(first))
    }
}

fn call_id(message: &Message) -> Result<String, HeaderError> {
    match message.call_id() {
        "" => Err(HeaderError::Missing("Call-ID")),
        id => Ok(id.to_owned()),
    }
}

fn contact_uri(message: &Message) -> Result<String, HeaderError> {
    let contacts = message.contacts()?;
    match contacts.first() {
        None => Err(HeaderError::Missing("Contact")),
        Some(contact) if contact.is_star() => {
            Err(HeaderError::Malformed("Contact", "* is for REGISTER only"))
        }
        Some(contact) => Ok(contact.uri.to_string()),
    }
}

fn reversed_record_route(response: &Message) -> Result<Vec<String>, HeaderError> {
    Ok(response
        .addresses(HeaderName::RecordRoute)?
        .iter()
        .rev()
        .map(NameAddr::to_string)
        .collect())
}

fn without_tag(mut address: NameAddr) -> String {
    address.params.remove("tag");
    address.to_string()
}

fn with_tag(address: &str, tag: &str) -> String {
    if tag.is_empty() {
        address.to_owned()
    } else {
        format!("{address};tag={tag}")
    }
}

fn is_secure(request_uri: &str) -> bool {
    Uri::parse(request_uri).is_ok_and(|uri| uri.is_secure())
}

/// The URI inside a route value.
fn uri_of(route: &str) -> &str {
    // Our own values are printed NameAddrs: a quoted display name may hold a `<`, so the last one counts.
    match (route.rfind('<'), route.rfind('>')) {
        (Some(open), Some(close)) if open < close => &route[open + 1..close],
        _ => route,
    }
}

/// §12.2.1.1, §19.1.1: what a Request-URI may not carry is left out.
fn as_request_uri(mut uri: Uri) -> String {
    uri.remove_param("method");
    uri.headers.clear();
    uri.to_string()
}

#[cfg(test)]
mod tests;
