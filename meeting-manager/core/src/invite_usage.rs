//! The INVITE usage of a dialog (RFC 3261 §13-15, RFC 3262, RFC 3311, RFC 4028): the peer's requests, and ours.
//!
//! ```text
//!              INVITE: exchange      200 (record durable)       ACK
//!   ─────────► Proceeding ────────────────► Accepted ─────────────────► Idle
//!                │    ▲ PRACK                  │ 64*T1: BYE              │ ▲
//!   183 reliable └────┘                                                 │ │ 200/ACK, or failed: as before
//!                          re-INVITE, UPDATE of the peer, or ours       ▼ │
//!                                                                    Modifying
//! ```
//!
//! At most one exchange is under way. A request that meets one of the peer's own is answered 500 with
//! Retry-After, one that meets ours 491 (§14.2, RFC 3311 §5.2). In an early dialog the 200 waits for the PRACK
//! and for every exchange that began after the INVITE's, in whatever order these end.

use std::time::Duration;

use sip::accepted::{self, Accepted};
use sip::dialog::DialogState;
use sip::offer_answer::OfferKind;
use sip::reliable::{self, Prack, Reliable};
use sip::session_timer::{self, Agreement};
use sip::transaction::ServerKey;
use sip::{HeaderName, Message, Method, StatusCode};

use crate::exchange::{Body, Carrier, OFFER_AGAIN, Stage, body_of};
use crate::our_requests::Ours;
use crate::participant::{Cx, Leave, Participant, Phase};
use crate::refusal::Refusal;
use crate::roster;
use crate::shared::{ParticipantTimer, SDP, advertise};

/// The peer's INVITE that has no final response yet.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) key: ServerKey,
    pub(crate) request: Message,
    /// It makes the dialog.
    pub(crate) initial: bool,
    /// The peer insists on reliable provisional responses.
    pub(crate) reliable: bool,
    /// Our SDP has gone out in one.
    pub(crate) described: bool,
    /// What the session timer will be.
    pub(crate) agreement: Agreement,
}

/// What the session timers say to a request.
pub(crate) fn agree(
    timer: &session_timer::SessionTimer,
    request: &Message,
) -> Result<Agreement, Refusal> {
    timer.agree(request).map_err(|why| match why {
        session_timer::Refusal::TooSmall(min) => {
            Refusal::new(422, "Session Interval Too Small").with(HeaderName::MinSe, min.to_string())
        }
        session_timer::Refusal::Malformed(e) => Refusal::new(400, e.to_string()),
    })
}

impl Participant {
    // ---- INVITE

    /// The INVITE that makes the dialog.
    ///
    /// # Errors
    /// How it is refused; nothing was allocated then.
    pub(crate) fn on_initial_invite(
        &mut self,
        cx: &mut Cx<'_>,
        key: ServerKey,
        request: Message,
        kind: OfferKind,
    ) -> Result<(), Refusal> {
        self.peer_update = request.has_token(HeaderName::Allow, "UPDATE");
        self.on_invite(cx, key, request, true, kind)
    }

    fn on_invite(
        &mut self,
        cx: &mut Cx<'_>,
        key: ServerKey,
        request: Message,
        initial: bool,
        kind: OfferKind,
    ) -> Result<(), Refusal> {
        let agreement = agree(&self.timer, &request)?;
        let (target, our_offer) = match body_of(&request)? {
            Body::Sdp(offer) => (self.answer_to(cx, &offer)?, false),
            Body::Nothing => (self.make_offer(cx, kind), true),
        };
        let reliable = initial && Reliable::is_required(&request);
        self.incoming = Some(Incoming {
            key,
            request,
            initial,
            reliable,
            described: false,
            agreement,
        });
        self.begin(cx, Carrier::Invite, target, our_offer, true);
        Ok(())
    }

    /// A re-INVITE (§14.2).
    fn on_reinvite(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: Message) {
        let refusal = if self.incoming.is_some() {
            Some(Refusal::overlapping(&mut cx.sh.rng))
        } else if matches!(self.ours, Some(Ours::Reinvite { .. })) {
            Some(Refusal::glare())
        } else {
            self.busy(cx)
        };
        if let Some(why) = refusal {
            cx.sh.refuse_in(cx.now, key, &self.dialog, &request, &why);
            return;
        }
        self.note_allow(&request);
        // Who sends this has our 2xx, even if the ACK was lost.
        self.stop_repeating(cx);
        if let Err(why) = self.on_invite(cx, key, request.clone(), false, OFFER_AGAIN) {
            cx.sh.refuse_in(cx.now, key, &self.dialog, &request, &why);
        }
    }

    /// How a new offer is refused while an exchange is under way (RFC 3261 §14.2, RFC 3311 §5.2).
    fn busy(&self, cx: &mut Cx<'_>) -> Option<Refusal> {
        let exchange = self.exchange.as_ref()?;
        if exchange.our_offer || matches!(exchange.carrier, Carrier::Reinvite) {
            Some(Refusal::glare())
        } else {
            Some(Refusal::overlapping(&mut cx.sh.rng))
        }
    }

    fn note_allow(&mut self, request: &Message) {
        if request.header(HeaderName::Allow).is_some() {
            self.peer_update = request.has_token(HeaderName::Allow, "UPDATE");
        }
    }

    /// Refuses the pending INVITE; one that would have made the dialog takes everything with it.
    pub(crate) fn refuse_incoming(&mut self, cx: &mut Cx<'_>, why: &Refusal) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        cx.sh
            .refuse_in(cx.now, incoming.key, &self.dialog, &incoming.request, why);
        if incoming.initial {
            self.leave(cx, &Leave::Refused);
        }
    }

    /// CANCEL: 487 (§9.2); a re-INVITE leaves the dialog as it was.
    pub(crate) fn on_cancel(&mut self, cx: &mut Cx<'_>, key: ServerKey) {
        let Some(incoming) = self.incoming.as_ref().filter(|i| i.key == key) else {
            return;
        };
        let why = Refusal::new(487, "Request Terminated");
        if incoming.initial {
            // An UPDATE or PRACK under way goes with the call.
            self.refuse_incoming(cx, &why);
        } else {
            self.fail(cx, &why);
        }
    }

    /// The first provisional response with our SDP, reliably (RFC 3262 §3).
    pub(crate) fn send_progress(&mut self, cx: &mut Cx<'_>) {
        let our_offer = self.exchange.as_ref().is_some_and(|e| e.our_offer);
        let sdp = self.description(our_offer);
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let mut response = self
            .dialog
            .response(&incoming.request, StatusCode::of(183), None);
        advertise(&mut response);
        if let Some(sdp) = sdp {
            response.set_body(SDP, sdp.into_bytes());
        }
        let cseq = incoming.request.cseq().map(|c| c.number).unwrap_or(0);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any 32 bits of the 64 will do"
        )]
        let first = cx.sh.rng.bits() as u32;
        let mut reliable = Reliable::new(cseq, first, cx.sh.config.timers);
        if let Ok(Some(response)) = reliable.send(cx.now, response) {
            cx.sh.respond(cx.now, incoming.key, response);
        }
        incoming.described = true;
        self.reliable = Some(reliable);
        self.arm_reliable(cx);
        if our_offer {
            if let Some(exchange) = &mut self.exchange {
                exchange.stage = Stage::AwaitingAnswer;
            }
        } else {
            self.conclude(cx);
        }
    }

    /// A PRACK (RFC 3262 §3, §5).
    fn on_prack(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: Message) {
        let matched = self.reliable.as_mut().map(|r| r.on_prack(cx.now, &request));
        let Some(Prack::Matched(next)) = matched else {
            let why = Refusal::new(481, "This PRACK acknowledges nothing");
            cx.sh.refuse_in(cx.now, key, &self.dialog, &request, &why);
            return;
        };
        self.arm_reliable(cx);
        if let (Some(next), Some(incoming)) = (next, &self.incoming) {
            cx.sh.respond(cx.now, incoming.key, next);
        }
        let answer_due = self
            .exchange
            .as_ref()
            .is_some_and(|e| e.stage == Stage::AwaitingAnswer);
        let outcome = match (body_of(&request), answer_due) {
            (Ok(Body::Sdp(answer)), true) => {
                let carrier = Carrier::Prack {
                    key,
                    request: request.clone(),
                };
                self.on_answer(cx, carrier, &answer)
            }
            (Ok(Body::Sdp(offer)), false) => match self.busy(cx) {
                // An UPDATE is under way; what the PRACK acknowledges stays acknowledged.
                Some(why) => Err(why),
                None => self.answer_to(cx, &offer).map(|target| {
                    let request = request.clone();
                    self.begin(cx, Carrier::Prack { key, request }, target, false, true);
                }),
            },
            (Ok(Body::Nothing), true) => {
                Err(Refusal::new(400, "The PRACK lacks the answer to our offer"))
            }
            (Ok(Body::Nothing), false) => {
                cx.sh.accept_in(cx.now, key, &self.dialog, &request);
                self.accept_incoming(cx);
                Ok(())
            }
            (Err(why), _) => Err(why),
        };
        if let Err(why) = outcome {
            cx.sh.refuse_in(cx.now, key, &self.dialog, &request, &why);
            if answer_due {
                self.refuse_incoming(cx, &why);
            } else {
                self.accept_incoming(cx);
            }
        }
    }

    /// The media that a PRACK asked for are there.
    pub(crate) fn answer_prack(&mut self, cx: &mut Cx<'_>) {
        // An offer in the PRACK is answered in its 2xx; where the PRACK brought an answer nothing is due.
        let sdp = self
            .plan
            .is_some()
            .then(|| self.description(false))
            .flatten();
        if let Some(exchange) = &self.exchange
            && let Carrier::Prack { key, request } = &exchange.carrier
        {
            let mut response = self.dialog.response(request, StatusCode::of(200), None);
            if let Some(sdp) = sdp {
                response.set_body(SDP, sdp.into_bytes());
            }
            cx.sh.respond(cx.now, *key, response);
        }
        self.conclude(cx);
    }

    /// Where nothing is left to agree on before the 200 of a pending INVITE its record is written.
    pub(crate) fn accept_incoming(&mut self, cx: &mut Cx<'_>) {
        let described = self.incoming.as_ref().is_some_and(|i| i.described);
        let acknowledged = self
            .reliable
            .as_ref()
            .is_some_and(|r| r.state() == reliable::State::Idle);
        if described && acknowledged && self.exchange.is_none() {
            self.write_step(cx);
        }
    }

    // ---- the record is durable, or not

    /// What waited for the record goes out.
    pub(crate) fn on_step_stored(&mut self, cx: &mut Cx<'_>) {
        let Some(exchange) = &self.exchange else {
            self.send_accept(cx);
            return;
        };
        if exchange.stage != Stage::Storing {
            return;
        }
        match &exchange.carrier {
            Carrier::Invite => self.send_accept(cx),
            Carrier::Update { .. } => self.answer_update(cx),
            Carrier::Reinvite => {
                self.acknowledge_reinvite(cx);
                self.conclude(cx);
                self.arm_session(cx);
            }
            Carrier::AckTaken | Carrier::Prack { .. } => self.conclude(cx),
        }
    }

    /// The store did not take the record.
    pub(crate) fn on_step_failed(&mut self, cx: &mut Cx<'_>) {
        let why = Refusal::unavailable("The call could not be recorded", Duration::from_secs(5));
        if self.exchange.is_some() {
            self.fail(cx, &why);
        } else {
            self.refuse_incoming(cx, &why);
        }
    }

    /// The 200 to the pending INVITE.
    fn send_accept(&mut self, cx: &mut Cx<'_>) {
        let our_offer = self.exchange.as_ref().is_some_and(|e| e.our_offer);
        let sdp = self.description(our_offer);
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        self.unacknowledged = Some(self.to_acknowledge(cx, &incoming));
        let mut response = self.acceptance(&incoming);
        if let Some(sdp) = sdp.filter(|_| !incoming.described) {
            response.set_body(SDP, sdp.into_bytes());
        }
        if let Some(reliable) = &mut self.reliable {
            reliable.on_final_response();
        }
        self.reliable = None;
        self.arm_reliable(cx);
        self.timer.on_agreed(cx.unix(), &incoming.agreement);
        cx.sh.respond(cx.now, incoming.key, response.clone());
        self.accepted_key = Some(incoming.key);
        self.accepted = Some(Accepted::new(cx.now, response, &cx.sh.config.timers));
        self.arm_accepted(cx);
        self.phase = Phase::Joined;
        self.dialog.state = DialogState::Confirmed;
        self.arm_session(cx);
        if our_offer {
            if let Some(exchange) = &mut self.exchange {
                exchange.stage = Stage::AwaitingAnswer;
            }
        } else {
            self.conclude(cx);
        }
    }

    /// The ACK of our 2xx.
    pub(crate) fn on_ack(&mut self, cx: &mut Cx<'_>, ack: &Message) {
        if !self.accepted.as_mut().is_some_and(|a| a.on_ack(ack)) {
            return;
        }
        self.stop_repeating(cx);
        if self.bye_waits.is_some() {
            self.send_due_bye(cx);
            return;
        }
        let answer_due = self.exchange.as_ref().is_some_and(|e| {
            e.stage == Stage::AwaitingAnswer && matches!(e.carrier, Carrier::Invite)
        });
        if !answer_due {
            self.on_idle(cx);
            return;
        }
        let outcome = match body_of(ack) {
            Ok(Body::Sdp(answer)) => self.on_answer(cx, Carrier::AckTaken, &answer).is_ok(),
            _ => false,
        };
        if !outcome {
            self.leave(cx, &Leave::Ended("The ACK brought no usable answer"));
        }
    }

    // ---- UPDATE

    /// UPDATE with an offer, or as a refresh (RFC 3311 §5.2, RFC 4028 §9).
    fn on_update(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: Message) {
        self.note_allow(&request);
        let outcome = match body_of(&request) {
            Err(why) => Err(why),
            Ok(what) => match self.busy(cx) {
                Some(why) => Err(why),
                None => agree(&self.timer, &request).and_then(|agreement| {
                    let (target, described) = match what {
                        Body::Sdp(offer) => (self.answer_to(cx, &offer)?, true),
                        Body::Nothing => (
                            self.plan
                                .clone()
                                .ok_or_else(|| Refusal::overlapping(&mut cx.sh.rng))?,
                            false,
                        ),
                    };
                    let carrier = Carrier::Update {
                        key,
                        request: request.clone(),
                        agreement,
                    };
                    Ok((carrier, target, described))
                }),
            },
        };
        match outcome {
            Ok((carrier, target, described)) => self.begin(cx, carrier, target, false, described),
            Err(why) => cx.sh.refuse_in(cx.now, key, &self.dialog, &request, &why),
        }
    }

    fn answer_update(&mut self, cx: &mut Cx<'_>) {
        let described = self.exchange.as_ref().is_some_and(|e| e.described);
        let sdp = described.then(|| self.description(false)).flatten();
        if let Some(exchange) = &self.exchange
            && let Carrier::Update {
                key,
                request,
                agreement,
            } = &exchange.carrier
        {
            let mut response = self.dialog.response(request, StatusCode::of(200), None);
            advertise(&mut response);
            agreement.stamp(&mut response);
            if let Some(sdp) = sdp {
                response.set_body(SDP, sdp.into_bytes());
            }
            cx.sh.respond(cx.now, *key, response);
            // Before the 200 of the INVITE there is no session to time.
            if self.phase == Phase::Joined {
                self.timer.on_agreed(cx.unix(), agreement);
            }
        }
        self.arm_session(cx);
        self.conclude(cx);
    }

    // ---- requests in the dialog

    /// A request in the dialog, of a method of ours; SUBSCRIBE goes elsewhere.
    pub(crate) fn on_request(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: Message) {
        let bye = *request.method() == Method::Bye;
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            if bye {
                cx.sh.accept_in(cx.now, key, &self.dialog, &request);
                self.on_bye_done(cx);
            } else {
                let why = Refusal::new(481, "This call is over");
                cx.sh.refuse_in(cx.now, key, &self.dialog, &request, &why);
            }
            return;
        }
        if let Err(reject) = self.dialog.accept(&request) {
            let why = Refusal::new(reject.status.get(), reject.reason);
            cx.sh.refuse_in(cx.now, key, &self.dialog, &request, &why);
            return;
        }
        match request.method() {
            Method::Invite => self.on_reinvite(cx, key, request),
            Method::Update => self.on_update(cx, key, request),
            Method::Prack => self.on_prack(cx, key, request),
            Method::Bye => {
                cx.sh.accept_in(cx.now, key, &self.dialog, &request);
                self.leave(cx, &Leave::ByPeer);
            }
            _ => self.on_info(cx, key, &request),
        }
    }

    /// INFO of the kind from before packages is taken, whatever it carries: digits come as RFC 4733 events. Packages
    /// are not taken, none being advertised (RFC 6086 §4.2.2).
    fn on_info(&mut self, cx: &mut Cx<'_>, key: ServerKey, request: &Message) {
        if request.header(HeaderName::Other("Info-Package")).is_none() {
            cx.sh.accept_in(cx.now, key, &self.dialog, request);
            return;
        }
        let why = Refusal::new(469, "Bad Info Package").with(HeaderName::Other("Recv-Info"), "");
        cx.sh.refuse_in(cx.now, key, &self.dialog, request, &why);
    }

    // ---- time

    /// A deadline of this dialog.
    pub(crate) fn on_timer(&mut self, cx: &mut Cx<'_>, timer: ParticipantTimer) {
        match timer {
            ParticipantTimer::Accepted => self.on_accepted_due(cx),
            ParticipantTimer::Reliable => self.on_reliable_due(cx),
            ParticipantTimer::Session => self.on_session_due(cx),
            ParticipantTimer::Glare => self.on_idle(cx),
            ParticipantTimer::Delete => self.on_delete_again(cx),
            ParticipantTimer::Leg => self.on_leg_again(cx),
            ParticipantTimer::Tidy => self.on_tidy_due(cx),
        }
    }

    fn on_accepted_due(&mut self, cx: &mut Cx<'_>) {
        match self
            .accepted
            .as_mut()
            .and_then(|a| a.handle_timeout(cx.now))
        {
            Some(accepted::Due::Resend(response)) => self.repeat(cx, response),
            Some(accepted::Due::GiveUp) => {
                let adopted = self.accepted_key.is_none();
                self.stop_repeating(cx);
                if self.bye_waits.is_some() {
                    self.send_due_bye(cx);
                } else if adopted {
                    self.ask_again(cx);
                } else {
                    self.leave(cx, &Leave::Ended("No ACK came"));
                }
            }
            None => {}
        }
        self.arm_accepted(cx);
    }

    fn repeat(&mut self, cx: &mut Cx<'_>, response: Message) {
        match self.accepted_key {
            Some(key) => cx.sh.respond(cx.now, key, response),
            None => cx.sh.respond_again(response),
        }
    }

    fn on_reliable_due(&mut self, cx: &mut Cx<'_>) {
        match self
            .reliable
            .as_mut()
            .and_then(|r| r.handle_timeout(cx.now))
        {
            Some(reliable::Due::Resend(response)) => {
                if let Some(incoming) = &self.incoming {
                    cx.sh.respond(cx.now, incoming.key, response);
                }
                self.arm_reliable(cx);
            }
            Some(reliable::Due::GiveUp) => {
                self.refuse_incoming(cx, &Refusal::new(504, "No PRACK came"));
            }
            None => self.arm_reliable(cx),
        }
    }

    fn on_session_due(&mut self, cx: &mut Cx<'_>) {
        match self.timer.due(cx.unix()) {
            Some(session_timer::Due::Refresh) => self.send_refresh(cx),
            Some(session_timer::Due::Expired) => {
                self.leave(cx, &Leave::Ended("The session was not refreshed in time"));
            }
            None => self.arm_session(cx),
        }
    }

    fn arm(&self, cx: &mut Cx<'_>, timer: ParticipantTimer, at: Option<std::time::Instant>) {
        let key = self.timer_key(cx, timer);
        match at {
            Some(at) => cx.sh.timers.set(key, at),
            None => cx.sh.timers.clear(&key),
        }
    }

    pub(crate) fn arm_accepted(&self, cx: &mut Cx<'_>) {
        let at = self.accepted.as_ref().and_then(Accepted::poll_timeout);
        self.arm(cx, ParticipantTimer::Accepted, at);
    }

    fn arm_reliable(&self, cx: &mut Cx<'_>) {
        let at = self.reliable.as_ref().and_then(Reliable::poll_timeout);
        self.arm(cx, ParticipantTimer::Reliable, at);
    }

    pub(crate) fn arm_session(&self, cx: &mut Cx<'_>) {
        if self.phase != Phase::Joined {
            return;
        }
        let at = self
            .timer
            .poll_timeout()
            .map(|unix| u64::try_from(unix.as_millis()).unwrap_or(u64::MAX / 2))
            .map(|unix| cx.sh.instant_of(unix, cx.now));
        self.arm(cx, ParticipantTimer::Session, at);
    }

    // ---- what others see

    /// As the roster lists it.
    pub(crate) fn entry(&self, cx: &Cx<'_>) -> roster::Entry {
        roster::Entry::of(self, cx.facts, cx.roster.domain())
    }
}
