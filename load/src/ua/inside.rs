//! What the server asks inside a call: answered as a phone would, with the media it has.

use sip::accepted::Accepted;
use sip::message::Message;
use sip::session_timer::Agreement;
use sip::transaction::{ServerKey, Timers};
use sip::{HeaderName, Method, StatusCode};

use super::call::{Call, Cx, State};
use super::home::{self, ALLOW};

impl Call {
    /// A request in the dialog.
    pub(super) fn on_request(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: &Message) {
        let Some(dialog) = &mut self.dialog else {
            return refuse(cx, key, request, 481);
        };
        if let Err(reject) = dialog.accept(request) {
            return refuse(cx, key, request, reject.status.get());
        }
        match request.method() {
            Method::Invite => self.on_invite(cx, key, request),
            Method::Update => self.on_update(cx, key, request),
            Method::Bye => {
                self.respond(cx, key, request, 200, None, None);
                let reason = match request.header(HeaderName::Reason) {
                    Some(reason) => format!("the server ended the call: {reason}"),
                    None => "the server ended the call".to_owned(),
                };
                self.gone(cx, &reason);
            }
            Method::Options | Method::Info | Method::Notify | Method::Message => {
                self.respond(cx, key, request, 200, None, None);
            }
            // No transfers: the load stays where it was sent.
            Method::Refer => self.respond(cx, key, request, 603, None, None),
            _ => self.respond(cx, key, request, 405, None, None),
        }
    }

    fn on_invite(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: &Message) {
        // §14.2: two INVITEs at once.
        if self.is_offering() || self.state != State::Joined {
            return self.respond(cx, key, request, 491, None, None);
        }
        if self.accepted.is_some() {
            let mut busy = self.made(request, 500, None, None);
            busy.push_back(HeaderName::RetryAfter, "1");
            return cx.layer.respond(cx.now, key, busy);
        }
        let Some(agreement) = self.agreed(cx, key, request) else {
            return;
        };
        // Without an offer ours is due (RFC 3261 §14.2), and the answer comes in the ACK.
        let ours = request.body().is_empty();
        let body = match ours {
            true => self.description.offer(),
            false => match self.description.answer(request.body(), self.dtls_client) {
                Ok((body, remote)) => {
                    self.tell_changed(cx, remote);
                    body
                }
                Err(_) => return self.respond(cx, key, request, 488, None, None),
            },
        };
        self.timer.on_agreed(cx.wall, &agreement);
        let response = self.made(request, 200, Some(&agreement), Some(body));
        let accepted = Accepted::new(cx.now, response.clone(), &Timers::default());
        self.accepted = Some((key, accepted, ours));
        cx.layer.respond(cx.now, key, response);
    }

    fn on_update(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: &Message) {
        let offers = !request.body().is_empty();
        // RFC 3311 §5.2
        if offers && self.is_offering() {
            return self.respond(cx, key, request, 491, None, None);
        }
        let Some(agreement) = self.agreed(cx, key, request) else {
            return;
        };
        let body = match offers {
            false => None,
            true => match self.description.answer(request.body(), self.dtls_client) {
                Ok((body, remote)) => {
                    self.tell_changed(cx, remote);
                    Some(body)
                }
                Err(_) => return self.respond(cx, key, request, 488, None, None),
            },
        };
        self.timer.on_agreed(cx.wall, &agreement);
        self.respond(cx, key, request, 200, Some(&agreement), body);
    }

    fn agreed(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: &Message) -> Option<Agreement> {
        match self.timer.agree(request) {
            Ok(agreement) => Some(agreement),
            Err(refusal) => {
                let mut response = self.made(request, refusal.status().get(), None, None);
                refusal.stamp(&mut response);
                cx.layer.respond(cx.now, key, response);
                None
            }
        }
    }

    /// An ACK in the dialog.
    pub(super) fn on_ack(&mut self, cx: &mut Cx<'_>, ack: &Message) {
        let Some((_, accepted, ours)) = &mut self.accepted else {
            return;
        };
        if !accepted.on_ack(ack) {
            return;
        }
        let ours = *ours;
        self.accepted = None;
        if ours && let Ok(remote) = self.description.read_answer(ack.body()) {
            self.tell_changed(cx, remote);
        }
    }

    fn made(
        &self,
        request: &Message,
        status: u16,
        agreement: Option<&Agreement>,
        body: Option<String>,
    ) -> Message {
        let status = StatusCode::of(status);
        let mut response = match &self.dialog {
            Some(dialog) => dialog.response(request, status, None),
            None => Message::response(request, status, None, None),
        };
        home::stamp(&mut response);
        response.push_back(HeaderName::Allow, ALLOW);
        if let Some(agreement) = agreement {
            response.push_back(HeaderName::Supported, "timer");
            agreement.stamp(&mut response);
        }
        if let Some(body) = body {
            response.set_body("application/sdp", body);
        }
        response
    }

    fn respond(
        &self,
        cx: &mut Cx<'_>,
        key: ServerKey,
        request: &Message,
        status: u16,
        agreement: Option<&Agreement>,
        body: Option<String>,
    ) {
        let response = self.made(request, status, agreement, body);
        cx.layer.respond(cx.now, key, response);
    }
}

/// Answers what belongs to no call.
pub(super) fn refuse(cx: &mut Cx<'_>, key: ServerKey, request: &Message, status: u16) {
    let tag = cx.token();
    let mut response = Message::response(request, StatusCode::of(status), None, Some(&tag));
    home::stamp(&mut response);
    response.push_back(HeaderName::Allow, ALLOW);
    cx.layer.respond(cx.now, key, response);
}
