//! One offer/answer exchange (RFC 3264) of a dialog, whatever carries it.
//!
//! ```text
//!  offer of the peer: answer made          the switch says where    record is durable
//!  ─────────────────────────────► Applying ────────────────► Storing ──────────────► answered, over
//!  offer of ours made ──► Applying ──► Storing ──► (offer sent) AwaitingAnswer
//!                          ▲    │ no address of        │ answer: Applying ──► Storing ──► over
//!                          └────┘ that family: the other
//! ```
//!
//! With a reliable provisional response (RFC 3262) the offer or answer goes out before anything is stored:
//! there is no dialog to go on with until the 200. A failure anywhere leaves the media as they were.

use std::time::Duration;

use sip::body::{self, Unusable};
use sip::offer_answer::{self, LocalMedia, OfferKind, Plan, Policy, Unacceptable};
use sip::sdp::SessionDescription;
use sip::session_timer::Agreement;
use sip::transaction::ServerKey;
use sip::{HeaderName, Message};

use crate::config::EXTENSIONS;
use crate::leg_mapping::{self, LegFacts};
use crate::participant::{Cx, Leave, Participant, Phase};
use crate::refusal::Refusal;
use crate::shared::{ACCEPT, ParticipantTimer, SDP};
use crate::slot_policy;
use crate::switch_link::LegFailure;

/// How long after no switch took a leg it is wanted again.
const LEG_RETRY: Duration = Duration::from_secs(1);

/// An offer of media in force is of the kind they are.
pub(crate) const OFFER_AGAIN: OfferKind = OfferKind::Phone {
    video: false,
    ipv6: false,
};

/// Which messages carry our side of an exchange.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// Responses to the peer's INVITE.
    Invite,
    /// The 2xx of the peer's UPDATE (RFC 3311).
    Update {
        key: ServerKey,
        request: Message,
        agreement: Agreement,
    },
    /// The 2xx of the peer's PRACK (RFC 3262 §5).
    Prack { key: ServerKey, request: Message },
    /// The peer's ACK brought the answer to our offer in the 200: nothing more goes out.
    AckTaken,
    /// A re-INVITE of ours.
    Reinvite,
}

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The switch is told.
    Applying,
    /// The record is written.
    Storing,
    /// Our offer is out.
    AwaitingAnswer,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) carrier: Carrier,
    pub(crate) stage: Stage,
    /// Media in force once it is over.
    pub(crate) target: Plan,
    pub(crate) local: Option<LocalMedia>,
    /// We make the offer.
    pub(crate) our_offer: bool,
    /// The carrier has a body: `false` for a session refresh.
    pub(crate) described: bool,
    /// The leg was changed for it.
    pub(crate) leg_touched: bool,
    /// Our offer has been made of the other address family already.
    pub(crate) other_family: bool,
    /// What our description told the peer, once it is out.
    pub(crate) told: Option<Told>,
}

/// What a description of ours says of the switch.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Which keys it sends with: [`Participant::keys_drawn`] then.
    pub(crate) keys: u32,
    /// Where it listens.
    pub(crate) local: LocalMedia,
}

impl Told {
    /// Whether that is how things are with media that may be fewer by now.
    fn is_true_of(&self, local: &LocalMedia) -> bool {
        self.local.fingerprints == local.fingerprints
            && local
                .transports
                .iter()
                .all(|t| self.local.transports.contains(t))
    }
}

/// What a body says.
pub(crate) enum Body {
    Nothing,
    Sdp(Box<SessionDescription>),
}

/// Reads the session description of a request or response.
///
/// # Errors
/// 415 for what is not SDP and must be understood, 400 for SDP that does not parse.
pub(crate) fn body_of(message: &Message) -> Result<Body, Refusal> {
    let found = body::find(message, SDP, "session").map_err(|why| match why {
        Unusable::Encoding => Refusal::new(415, "Bodies are not taken in any encoding")
            .with(HeaderName::AcceptEncoding, "identity"),
        Unusable::Type => {
            Refusal::new(415, "Bodies must be application/sdp").with(HeaderName::Accept, ACCEPT)
        }
        Unusable::Malformed(text) => Refusal::new(400, format!("Bad body: {text}")),
    })?;
    let Some(text) = found else {
        return Ok(Body::Nothing);
    };
    match SessionDescription::parse(text) {
        Ok(sdp) => Ok(Body::Sdp(Box::new(sdp))),
        Err(e) => Err(Refusal::new(400, format!("Bad session description: {e}"))),
    }
}

fn refusal_of(why: Unacceptable, cx: &Cx<'_>) -> Refusal {
    match why {
        Unacceptable::Violation(text) => Refusal::new(400, text),
        other => Refusal::not_acceptable(&other.to_string(), &cx.sh.config.domain),
    }
}

impl Participant {
    pub(crate) fn policy(cx: &Cx<'_>) -> Policy {
        let config = &cx.sh.config;
        Policy {
            audio_codecs: config.audio_codecs.clone(),
            video_codecs: config.video_codecs.clone(),
            suites: config.suites.clone(),
            extensions: EXTENSIONS.iter().map(|e| (*e).to_owned()).collect(),
            audio_slots: cx.facts.config.audio_slots,
            video_slots: cx.facts.config.video_slots,
            require_srtp: config.require_srtp,
        }
    }

    /// Our answer to an offer.
    ///
    /// # Errors
    /// 488 or 400.
    pub(crate) fn answer_to(
        &self,
        cx: &mut Cx<'_>,
        offer: &SessionDescription,
    ) -> Result<Plan, Refusal> {
        let policy = Self::policy(cx);
        let mut plan = offer_answer::answer(offer, &policy, self.plan.as_ref(), &mut cx.sh.rng)
            .map_err(|e| refusal_of(e, cx))?;
        slot_policy::resolve_collisions(
            &mut plan,
            self.plan.as_ref(),
            &cx.facts.sources,
            &mut cx.sh.rng,
        );
        Ok(plan)
    }

    /// Our offer: of the media in force, or a first one.
    pub(crate) fn make_offer(&self, cx: &mut Cx<'_>, kind: OfferKind) -> Plan {
        let policy = Self::policy(cx);
        let mut plan = offer_answer::offer(kind, &policy, self.plan.as_ref(), &mut cx.sh.rng);
        slot_policy::resolve_collisions(
            &mut plan,
            self.plan.as_ref(),
            &cx.facts.sources,
            &mut cx.sh.rng,
        );
        plan
    }

    fn leg_of(&self, plan: &Plan) -> control::Leg {
        let facts = LegFacts {
            id: &self.id,
            source: self.source,
            latch: self.latch,
        };
        leg_mapping::leg(plan, facts)
    }

    /// Tells the switch the leg in force (again).
    pub(crate) fn want_leg(&mut self, cx: &mut Cx<'_>) {
        if let Some(plan) = &self.plan {
            let leg = self.leg_of(plan);
            self.leg_change = cx.link.want(&self.id, leg);
        }
    }

    /// Tells the switch what an exchange under way agrees on, which stays where it is, or the leg in force.
    pub(crate) fn want_latest_leg(&mut self, cx: &mut Cx<'_>) {
        let Some(exchange) = &mut self.exchange else {
            self.want_leg(cx);
            return;
        };
        exchange.leg_touched = true;
        if let Some(exchange) = &self.exchange {
            let leg = self.leg_of(&exchange.target);
            self.leg_change = cx.link.want(&self.id, leg);
        }
    }

    /// A leg that no switch took is wanted again, unless an exchange wants another one anyway.
    pub(crate) fn on_leg_again(&mut self, cx: &mut Cx<'_>) {
        if self
            .exchange
            .as_ref()
            .is_none_or(|e| e.stage != Stage::Applying)
        {
            self.want_leg(cx);
        }
    }

    /// Begins an exchange with its target known.
    pub(crate) fn begin(
        &mut self,
        cx: &mut Cx<'_>,
        carrier: Carrier,
        target: Plan,
        our_offer: bool,
        described: bool,
    ) {
        self.exchange = Some(Exchange {
            carrier,
            stage: Stage::Applying,
            target,
            local: None,
            our_offer,
            described,
            leg_touched: false,
            other_family: false,
            told: None,
        });
        self.apply(cx);
    }

    /// Tells the switch the target, where that changes anything for it.
    fn apply(&mut self, cx: &mut Cx<'_>) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        let leg = self.leg_of(&exchange.target);
        let unchanged = self.plan.as_ref().is_some_and(|p| self.leg_of(p) == leg);
        let touched = exchange.leg_touched;
        let in_force = self.local.clone();
        if unchanged && !touched && in_force.is_some() && self.moved.is_none() {
            self.on_media_ready(cx, in_force);
            return;
        }
        let change = cx.link.want(&self.id, leg);
        self.leg_change = change;
        if let Some(exchange) = &mut self.exchange {
            exchange.leg_touched = true;
            exchange.stage = Stage::Applying;
        }
    }

    /// The switch has made a leg, or not.
    pub(crate) fn on_leg_outcome(
        &mut self,
        cx: &mut Cx<'_>,
        change: u64,
        result: Result<(control::Leg, control::LegState), LegFailure>,
    ) {
        if change != self.leg_change || matches!(self.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        let waits = self
            .exchange
            .as_ref()
            .is_some_and(|e| e.stage == Stage::Applying);
        let local = result.map(|(leg, state)| {
            let fingerprints = cx
                .link
                .switch()
                .and_then(|id| cx.sh.switches.get(id))
                .map(|info| info.fingerprints.clone())
                .unwrap_or_default();
            leg_mapping::local_media(&leg, &state, &fingerprints)
        });
        if matches!(local, Ok(Some(_))) {
            self.legless_since = None;
        }
        match (waits, local) {
            (true, Ok(Some(local))) => self.on_media_ready(cx, Some(local)),
            (true, Ok(None)) => {
                self.fail(cx, &Refusal::new(500, "The switch names no usable address"));
            }
            (true, Err(LegFailure::Unsupported(_))) if self.offer_other_family(cx) => {}
            (true, Err(failure)) => {
                let why = leg_refusal(&failure, &cx.sh.config.domain);
                self.fail(cx, &why);
            }
            (false, Ok(Some(local))) => self.on_moved(cx, local),
            (false, Ok(None) | Err(LegFailure::Refused(_) | LegFailure::Unsupported(_))) => {
                self.leave(cx, &Leave::Ended("The media server could not carry on"));
            }
            (false, Err(LegFailure::NoSwitch)) => self.on_legless(cx),
        }
    }

    /// The switch has no address of the family that was to be offered. A first offer of ours, which nobody has seen
    /// yet, is made of the other one, once. `false` where that cannot help.
    fn offer_other_family(&mut self, cx: &mut Cx<'_>) -> bool {
        let Some(exchange) = &mut self.exchange else {
            return false;
        };
        let fresh = self.plan.is_none() && exchange.our_offer && exchange.told.is_none();
        if !fresh || std::mem::replace(&mut exchange.other_family, true) {
            return false;
        }
        for transport in &mut exchange.target.transports {
            transport.ipv6 = !transport.ipv6;
        }
        self.apply(cx);
        true
    }

    /// No switch takes the leg of a call that is: tried again for as long as media may be missing.
    fn on_legless(&mut self, cx: &mut Cx<'_>) {
        if cx.link.has(&self.id) {
            // Its switch is told again when it answers again.
            return;
        }
        let since = *self.legless_since.get_or_insert(cx.now);
        if cx.now.saturating_duration_since(since) >= cx.sh.config.media_timeout {
            self.leave(cx, &Leave::Ended("No media server answers"));
            return;
        }
        let key = self.timer_key(cx, ParticipantTimer::Leg);
        cx.sh.timers.set(key, cx.now + LEG_RETRY);
    }

    /// The switch carries the target.
    fn on_media_ready(&mut self, cx: &mut Cx<'_>, local: Option<LocalMedia>) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        exchange.local = local;
        let reliably = self
            .incoming
            .as_ref()
            .is_some_and(|i| i.initial && i.reliable && !i.described);
        match exchange.carrier {
            Carrier::Invite if reliably => self.send_progress(cx),
            Carrier::Prack { .. } => self.answer_prack(cx),
            Carrier::Reinvite if exchange.our_offer => self.send_offer(cx),
            _ => {
                exchange.stage = Stage::Storing;
                self.write_step(cx);
            }
        }
    }

    /// The peer's answer to our offer came in `carrier`.
    pub(crate) fn on_answer(
        &mut self,
        cx: &mut Cx<'_>,
        carrier: Carrier,
        answer: &SessionDescription,
    ) -> Result<(), Refusal> {
        let policy = Self::policy(cx);
        let Some(exchange) = &mut self.exchange else {
            return Ok(());
        };
        let plan = offer_answer::accept_answer(&exchange.target, answer, &policy)
            .map_err(|e| refusal_of(e, cx))?;
        let same_leg = {
            let facts = LegFacts {
                id: &self.id,
                source: self.source,
                latch: self.latch,
            };
            leg_mapping::leg(&plan, facts) == leg_mapping::leg(&exchange.target, facts)
        };
        exchange.carrier = carrier;
        exchange.our_offer = false;
        exchange.target = plan;
        if same_leg {
            let local = exchange.local.clone();
            self.on_media_ready(cx, local);
            return Ok(());
        }
        exchange.leg_touched = true;
        self.apply(cx);
        Ok(())
    }

    /// Our side of the exchange as text, which goes out.
    pub(crate) fn description(&mut self, is_offer: bool) -> Option<String> {
        let exchange = self.exchange.as_mut()?;
        let local = exchange.local.as_ref()?;
        exchange.told = Some(Told {
            keys: self.keys_drawn,
            local: local.clone(),
        });
        Some(offer_answer::describe(&exchange.target, local, is_offer).to_string())
    }

    /// What the exchange agreed on is in force.
    pub(crate) fn conclude(&mut self, cx: &mut Cx<'_>) {
        if let Some(exchange) = self.exchange.take() {
            if let Some(told) = &exchange.told {
                self.keys_told = told.keys;
            }
            let outdated = exchange.told.as_ref().zip(exchange.local.as_ref());
            let outdated = outdated.is_some_and(|(told, local)| !told.is_true_of(local));
            if self.has_untold_keys() || outdated {
                // New keys were drawn, or the answer had the leg made anew (it is of the other address family), after
                // our description was out: another one tells.
                self.moved = self.moved.take().or_else(|| exchange.local.clone());
            } else if exchange.told.is_some() && self.moved == exchange.local {
                self.moved = None;
            }
            self.plan = Some(exchange.target);
            self.local = exchange.local;
            self.reoffer_due = false;
            self.untold_since = None;
        }
        if self.phase == Phase::Joined {
            let entry = self.entry(cx);
            cx.roster.on_changed(entry);
        }
        self.on_idle(cx);
        self.accept_incoming(cx);
    }

    /// The exchange cannot be: whoever waits is told, and the media stay as they were.
    pub(crate) fn fail(&mut self, cx: &mut Cx<'_>, why: &Refusal) {
        let Some(exchange) = self.exchange.take() else {
            return;
        };
        match &exchange.carrier {
            Carrier::Invite => {
                self.refuse_incoming(cx, why);
            }
            Carrier::Update { key, request, .. } => {
                cx.sh.refuse_in(cx.now, *key, &self.dialog, request, why);
            }
            Carrier::Prack { key, request } => {
                cx.sh.refuse_in(cx.now, *key, &self.dialog, request, why);
                // It brought the answer to our first offer: there are no media to go back to.
                if self.plan.is_none() {
                    self.refuse_incoming(cx, why);
                }
            }
            Carrier::AckTaken => {
                self.leave(cx, &Leave::Ended("The media could not be set up"));
                return;
            }
            Carrier::Reinvite => {
                self.acknowledge_reinvite(cx);
                self.leave(cx, &Leave::Ended("The media could not be changed"));
                return;
            }
        }
        if !matches!(self.phase, Phase::Leaving | Phase::Gone) {
            self.roll_back(cx, &exchange);
            self.write_upkeep(cx);
            self.on_idle(cx);
            self.accept_incoming(cx);
        }
    }

    /// The leg goes back to the media in force, where it was touched.
    pub(crate) fn roll_back(&mut self, cx: &mut Cx<'_>, exchange: &Exchange) {
        if exchange.leg_touched {
            self.want_leg(cx);
        }
    }
}

fn leg_refusal(failure: &LegFailure, agent: &str) -> Refusal {
    const RETRY: Duration = Duration::from_secs(5);
    match failure {
        LegFailure::NoSwitch => Refusal::unavailable("No media server answers", RETRY),
        LegFailure::Unsupported(text) => Refusal::incompatible_address(text, agent),
        LegFailure::Refused(text) => Refusal::unavailable(
            &format!("The media server cannot take the call: {text}"),
            RETRY,
        ),
    }
}
