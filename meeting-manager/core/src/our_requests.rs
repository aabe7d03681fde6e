//! Requests of ours in an INVITE dialog: a re-INVITE where the media have moved, and session refreshes.
//!
//! ```text
//!   moved, or refresh due and no UPDATE             2xx: answer applied, record durable: ACK
//!  Idle ───────────────────────────────► Calling ──────────────────────────────────────────► Idle
//!   ▲  ▲                                  │  │ │ 481, 408, no answer, new path refused
//!   │  └── 491: after 0 to 2 s; 500, 503: ──┘  │ └──────────────────────────────────────────► leave
//!   │      after its Retry-After             │
//!   └─────── refresh refused: later ─────────┘
//! ```

use std::time::Duration;

use sip::offer_answer::{self, LocalMedia, Plan, Security};
use sip::{HeaderName, Message, Method, StatusCode};

use crate::exchange::{Body, Carrier, Exchange, OFFER_AGAIN, Stage, body_of};
use crate::participant::{Cx, Leave, Participant, Phase};
use crate::shared::{ParticipantTimer, Purpose, SDP, advertise};

/// Retry of a refresh that found the dialog busy.
const REFRESH_RETRY: Duration = Duration::from_secs(5);

/// How long after a request that could not be sent it is tried again.
const UNSENT_RETRY: Duration = Duration::from_secs(1);

/// Least time after a refusal with Retry-After, which may be zero.
const LEAST_RETRY: Duration = Duration::from_millis(500);

/// Our request without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    Reinvite { cseq: u32, refresh: bool },
    Update,
}

/// How a request of ours ended.
pub(crate) enum Answer<'a> {
    Response(&'a Message, StatusCode),
    /// No answer.
    None,
    /// It could not be sent: as a 503 of somebody on the way (RFC 3261 §8.1.3.1), which ends no dialog.
    Unsent,
}

impl Participant {
    // ---- our re-INVITE and UPDATE

    /// The switch has the leg at other addresses than the peer was told.
    pub(crate) fn on_moved(&mut self, cx: &mut Cx<'_>, local: LocalMedia) {
        let told_otherwise = self.exchange.as_mut().filter(|e| {
            let told = e.told.is_some() && e.stage == Stage::AwaitingAnswer;
            told && e.local.as_ref().is_some_and(|was| *was != local)
        });
        if let Some(exchange) = told_otherwise {
            // Its end compares what it has told with this.
            exchange.local = Some(local.clone());
        } else if self.local.as_ref() == Some(&local) && !self.has_untold_keys() {
            self.moved = None;
            return;
        }
        self.moved = Some(local);
        self.on_idle(cx);
    }

    /// The switch has lost what it knew: it sends with new keys, and the peer is told them.
    pub(crate) fn on_switch_restarted(&mut self, cx: &mut Cx<'_>, change: u64) {
        self.leg_change = change;
        if self.draw_keys(cx) {
            self.want_latest_leg(cx);
        }
    }

    /// Draws SDES keys that no switch had before, for the media in force and for those that an exchange under
    /// way agrees on. `false` where there are none.
    pub(crate) fn draw_keys(&mut self, cx: &mut Cx<'_>) -> bool {
        let rng = &mut cx.sh.rng;
        let mut drawn = false;
        if let Some(plan) = &mut self.plan {
            drawn |= offer_answer::renew_keys(plan, rng);
        }
        if let Some(exchange) = &mut self.exchange {
            drawn |= offer_answer::renew_keys(&mut exchange.target, rng);
            // Should the exchange come to nothing, the switch has the right ones all the same.
            for target in &mut exchange.target.transports {
                let mut ours = self.plan.iter().flat_map(|p| &p.transports);
                let same = ours.find(|t| t.index == target.index);
                take_local_key(&mut target.security, same.map(|t| &t.security));
            }
        }
        if drawn {
            self.keys_drawn += 1;
        }
        drawn
    }

    /// The peer does not know the keys that the switch sends with.
    pub(crate) fn has_untold_keys(&self) -> bool {
        self.keys_told != self.keys_drawn
    }

    /// Nothing is under way: what waited for that begins.
    pub(crate) fn on_idle(&mut self, cx: &mut Cx<'_>) {
        if !self.is_idle() || self.phase != Phase::Joined {
            return;
        }
        let due = self.reoffer_due.then(|| self.local.clone()).flatten();
        let (Some(local), Some(plan)) = (self.moved.clone().or(due), self.plan.clone()) else {
            return;
        };
        let mut target = self.make_offer(cx, OFFER_AGAIN);
        // What is printed differs from what was last (RFC 3264 §8), by the addresses or keys at least.
        target.session_version = plan.session_version + 1;
        let restarted = restart_ice(&mut target, cx);
        if offer_answer::renew_keys(&mut target, &mut cx.sh.rng) || restarted {
            // The switch must know the new credentials and keys before the peer does.
            self.begin(cx, Carrier::Reinvite, target, true, true);
        } else {
            self.send_reinvite(cx, target, local, false);
        }
    }

    /// The switch knows the offer's credentials: the offer goes out.
    pub(crate) fn send_offer(&mut self, cx: &mut Cx<'_>) {
        if let Some(exchange) = self.exchange.take()
            && let Some(local) = exchange.local
        {
            self.moved = Some(local.clone());
            self.send_reinvite(cx, exchange.target, local, false);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.exchange.is_none()
            && self.incoming.is_none()
            && self.ours.is_none()
            && self.accepted.is_none()
    }

    pub(crate) fn send_reinvite(
        &mut self,
        cx: &mut Cx<'_>,
        target: Plan,
        local: LocalMedia,
        refresh: bool,
    ) {
        self.exchange = Some(Exchange {
            carrier: Carrier::Reinvite,
            stage: Stage::AwaitingAnswer,
            target,
            local: Some(local),
            our_offer: true,
            described: true,
            leg_touched: false,
            other_family: false,
            told: None,
        });
        let mut request = self.dialog.request(Method::Invite);
        advertise(&mut request);
        // Without 100rel: provisional responses to a re-INVITE tell us nothing.
        request.set(HeaderName::Supported, "timer");
        self.timer.stamp(&mut request);
        if let Some(sdp) = self.description(true) {
            request.set_body(SDP, sdp.into_bytes());
        }
        let cseq = request.cseq().map(|c| c.number).unwrap_or(0);
        self.ours = Some(Ours::Reinvite { cseq, refresh });
        let purpose = Purpose::Reinvite(self.id.clone());
        cx.sh
            .send(cx.now, &self.dialog, request, &cx.facts.id, purpose);
        self.on_cseq_used(cx);
    }

    /// Our re-INVITE was answered.
    pub(crate) fn on_reinvite_answered(&mut self, cx: &mut Cx<'_>, answer: &Answer<'_>) {
        if let Answer::Response(response, status) = answer
            && status.is_success()
        {
            self.on_reinvite_accepted(cx, response);
            return;
        }
        let Some(Ours::Reinvite { refresh, .. }) = self.ours.take() else {
            return;
        };
        let exchange = self
            .exchange
            .take_if(|e| matches!(e.carrier, Carrier::Reinvite));
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            return;
        }
        match answer {
            Answer::Response(response, status) if status.get() == 422 => {
                if self.timer.on_interval_too_small(response)
                    && let Some(old) = exchange
                    && let Some(local) = old.local
                {
                    self.send_reinvite(cx, old.target, local, refresh);
                    return;
                }
                self.timer.on_refresh_failed(cx.unix(), REFRESH_RETRY);
                self.arm_session(cx);
            }
            Answer::Response(_, status) if status.get() == 491 => {
                // The Call-ID is the peer's: 0 to 2 s in steps of 10 ms (§14.1).
                let wait = Duration::from_millis(10 * cx.sh.rng.below(201));
                let key = self.timer_key(cx, ParticipantTimer::Glare);
                cx.sh.timers.set(key, cx.now + wait);
                if refresh {
                    self.timer.on_refresh_failed(cx.unix(), wait);
                    self.arm_session(cx);
                }
            }
            Answer::Response(_, status) if status.get() == 481 => self.leave(cx, &Leave::Lost),
            Answer::None => self.leave(cx, &Leave::Ended("No answer to a re-INVITE")),
            Answer::Unsent if self.must_tell() => {
                if !self.tell_after(cx, UNSENT_RETRY) {
                    self.leave(cx, &Leave::Ended("The new media path could not be told"));
                }
            }
            Answer::Unsent => {
                self.timer.on_refresh_failed(cx.unix(), REFRESH_RETRY);
                self.arm_session(cx);
            }
            Answer::Response(_, status) if status.get() == 408 => {
                self.leave(cx, &Leave::Ended("No answer to a re-INVITE"));
            }
            Answer::Response(response, status)
                if self.must_tell()
                    && matches!(status.get(), 500 | 503)
                    && self.tell_later(cx, response) => {}
            Answer::Response(..) if self.must_tell() => {
                self.leave(cx, &Leave::Ended("The new media path was refused"));
            }
            Answer::Response(..) => {
                self.timer.on_refresh_failed(cx.unix(), REFRESH_RETRY);
                self.arm_session(cx);
            }
        }
    }

    /// There is something that the peer has to know, or the call is without media.
    fn must_tell(&self) -> bool {
        self.moved.is_some() || self.reoffer_due
    }

    /// The peer could not take our re-INVITE and says when it can, as it does while it is busy with an earlier one
    /// (RFC 3261 §14.2): it is told then. `false` where that is longer than media may be missing.
    fn tell_later(&mut self, cx: &mut Cx<'_>, response: &Message) -> bool {
        let Ok(Some(seconds)) = response.number(HeaderName::RetryAfter) else {
            return false;
        };
        self.tell_after(cx, Duration::from_secs(seconds.into()).max(LEAST_RETRY))
    }

    /// Tells it after that time. `false` where that is longer than media may be missing.
    fn tell_after(&mut self, cx: &mut Cx<'_>, wait: Duration) -> bool {
        let at = cx.now + wait;
        let since = *self.untold_since.get_or_insert(cx.now);
        if at - since > cx.sh.config.media_timeout {
            return false;
        }
        let key = self.timer_key(cx, ParticipantTimer::Glare);
        cx.sh.timers.set(key, at);
        true
    }

    pub(crate) fn on_reinvite_accepted(&mut self, cx: &mut Cx<'_>, response: &Message) {
        let cseq = response.cseq().map(|c| c.number).unwrap_or(0);
        if self.acked == Some(cseq) {
            // A repeated 2xx: the ACK was lost (§13.2.2.4).
            let ack = self.dialog.ack(cseq);
            cx.sh.send_ack(cx.now, &self.dialog, ack);
            return;
        }
        if self
            .ours
            .is_none_or(|o| !matches!(o, Ours::Reinvite { cseq: c, .. } if c == cseq))
        {
            return;
        }
        self.dialog.accept_response(response);
        if matches!(self.phase, Phase::Leaving | Phase::Gone) {
            self.acknowledge_reinvite(cx);
            return;
        }
        self.timer.on_success(cx.unix(), response);
        let outcome = match body_of(response) {
            Ok(Body::Sdp(answer)) => self.on_answer(cx, Carrier::Reinvite, &answer).is_ok(),
            _ => false,
        };
        if !outcome {
            self.acknowledge_reinvite(cx);
            self.leave(cx, &Leave::Ended("The answer to a re-INVITE was unusable"));
        }
    }

    /// ACKs the 2xx of our re-INVITE, once the record is durable.
    pub(crate) fn acknowledge_reinvite(&mut self, cx: &mut Cx<'_>) {
        if let Some(Ours::Reinvite { cseq, .. }) = self.ours.take() {
            self.acked = Some(cseq);
            let ack = self.dialog.ack(cseq);
            cx.sh.send_ack(cx.now, &self.dialog, ack);
        }
    }

    /// Our UPDATE was answered (RFC 4028 §7.2, §10).
    pub(crate) fn on_update_answered(&mut self, cx: &mut Cx<'_>, answer: &Answer<'_>) {
        if self.ours.take_if(|o| *o == Ours::Update).is_none() || self.phase != Phase::Joined {
            return;
        }
        match answer {
            Answer::Response(response, status) if status.is_success() => {
                self.dialog.accept_response(response);
                self.timer.on_success(cx.unix(), response);
                self.write_upkeep(cx);
            }
            Answer::Response(response, status) if status.get() == 422 => {
                if self.timer.on_interval_too_small(response) {
                    self.send_refresh(cx);
                    return;
                }
                self.timer.on_refresh_failed(cx.unix(), REFRESH_RETRY);
            }
            Answer::Response(_, status) if matches!(status.get(), 405 | 501) => {
                self.peer_update = false;
                self.timer.on_refresh_failed(cx.unix(), Duration::ZERO);
            }
            Answer::Response(_, status) if status.get() == 481 => {
                self.leave(cx, &Leave::Lost);
                return;
            }
            Answer::Response(_, status) if status.get() == 408 => {
                self.leave(cx, &Leave::Ended("No answer to a session refresh"));
                return;
            }
            Answer::None => {
                self.leave(cx, &Leave::Ended("No answer to a session refresh"));
                return;
            }
            Answer::Response(..) | Answer::Unsent => {
                self.timer.on_refresh_failed(cx.unix(), REFRESH_RETRY);
            }
        }
        self.arm_session(cx);
        self.on_idle(cx);
    }

    pub(crate) fn send_refresh(&mut self, cx: &mut Cx<'_>) {
        if !self.is_idle() {
            self.timer.on_refresh_failed(cx.unix(), REFRESH_RETRY);
            self.arm_session(cx);
            return;
        }
        self.timer.on_refresh_sent();
        self.arm_session(cx);
        if self.peer_update {
            let mut request = self.dialog.request(Method::Update);
            advertise(&mut request);
            self.timer.stamp(&mut request);
            self.ours = Some(Ours::Update);
            let purpose = Purpose::Update(self.id.clone());
            cx.sh
                .send(cx.now, &self.dialog, request, &cx.facts.id, purpose);
            self.on_cseq_used(cx);
        } else if let Some(local) = self.local.clone() {
            let target = self.make_offer(cx, OFFER_AGAIN);
            self.send_reinvite(cx, target, local, true);
        }
    }
}

/// The other's key for what we send, where both are SDES with one suite.
fn take_local_key(security: &mut Security, other: Option<&Security>) {
    if let Security::Sdes {
        suite, local_key, ..
    } = security
        && let Some(Security::Sdes {
            suite: theirs,
            local_key: key,
            ..
        }) = other
        && suite == theirs
    {
        local_key.clone_from(key);
    }
}

/// New ICE credentials (RFC 8445 §9): the media go to another place. `false` where the leg has no ICE.
fn restart_ice(plan: &mut Plan, cx: &mut Cx<'_>) -> bool {
    let mut restarted = false;
    for ice in plan.transports.iter_mut().filter_map(|t| t.ice.as_mut()) {
        ice.local_ufrag = cx.sh.rng.tag();
        // 128 bits and more, as RFC 8839 §5.4 asks for.
        ice.local_pwd = format!("{}{}", cx.sh.rng.tag(), cx.sh.rng.tag());
        restarted = true;
    }
    restarted
}
