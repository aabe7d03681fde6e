//! A 2xx to INVITE that waits for its ACK (RFC 3261 §13.3.1.4), over restarts of this process.
//!
//! ```text
//!   record: the 2xx     2xx sent            ACK           2 s, or any write: record without it
//!  ─────────────► Storing ─────► Accepted ─────► Idle ─────────────────────────────────────► Idle
//!                     │             │               │
//!     restart         └─────────────┴───────────────┘
//!        younger than 64*T1 ▼            older │
//!                 Accepted: 2xx again          ├──── answer due: offered again by re-INVITE
//!                   │ ACK      │ 64*T1         └──── else taken for acknowledged
//!                   ▼          ▼
//!                 Idle    offered again by re-INVITE
//! ```
//!
//! The record is one write behind: the ACK may have come to the process before. So the 2xx is repeated, which has
//! the peer acknowledge again (§13.2.2.4), and where no ACK comes even so the peer is asked by a re-INVITE instead of
//! being hung up on. Who is not there does not answer that, or answers 481, and the call ends.

use std::time::Duration;

use sip::accepted::Accepted;
use sip::offer_answer;
use sip::transaction::ServerKey;
use sip::{HeaderName, Limits, Message, Method, StatusCode};

use crate::exchange::{Carrier, Exchange, Stage, Told};
use crate::invite_usage::Incoming;
use crate::participant::{Cx, Participant, Phase};
use crate::record::{DialogRecord, Unacknowledged};
use crate::shared::{ACCEPT, ParticipantTimer, SDP, advertise};

/// How long after the ACK the record is rid of the 2xx, unless something else is written meanwhile. A browser
/// subscribes within that time, which saves it a write.
const TIDY_AFTER: Duration = Duration::from_secs(2);

impl Participant {
    /// The 2xx to a pending INVITE, without a body.
    pub(crate) fn acceptance(&self, incoming: &Incoming) -> Message {
        let mut response = self
            .dialog
            .response(&incoming.request, StatusCode::of(200), None);
        advertise(&mut response);
        response.set(HeaderName::Accept, ACCEPT);
        incoming.agreement.stamp(&mut response);
        response
    }

    /// The 2xx to a pending INVITE, for the record.
    pub(crate) fn to_acknowledge(&self, cx: &Cx<'_>, incoming: &Incoming) -> Unacknowledged {
        let head = self.acceptance(incoming).to_bytes();
        Unacknowledged {
            head: String::from_utf8_lossy(&head).into_owned(),
            described: !incoming.described,
            answer_due: self.exchange.as_ref().is_some_and(|e| e.our_offer),
            sent_at: cx.sh.unix_ms(cx.now),
        }
    }

    /// What a record that is written now says.
    pub(crate) fn still_unacknowledged(&self, cx: &Cx<'_>) -> Option<Unacknowledged> {
        let accepts = match &self.exchange {
            Some(exchange) => {
                exchange.stage == Stage::Storing && matches!(exchange.carrier, Carrier::Invite)
            }
            None => true,
        };
        match &self.incoming {
            Some(incoming) if accepts => Some(self.to_acknowledge(cx, incoming)),
            _ => self.unacknowledged.clone(),
        }
    }

    /// A record is about to be written.
    pub(crate) fn on_record_made(&mut self, cx: &mut Cx<'_>, record: &DialogRecord) {
        self.stored_unacknowledged =
            matches!(record, DialogRecord::Participant(p) if p.unacknowledged.is_some());
        let key = self.timer_key(cx, ParticipantTimer::Tidy);
        cx.sh.timers.clear(&key);
    }

    /// Our 2xx needs no repeating any more.
    pub(crate) fn stop_repeating(&mut self, cx: &mut Cx<'_>) {
        self.accepted = None;
        self.accepted_key = None;
        self.unacknowledged = None;
        self.arm_accepted(cx);
        if self.stored_unacknowledged && self.phase == Phase::Joined {
            let key = self.timer_key(cx, ParticipantTimer::Tidy);
            cx.sh.timers.set(key, cx.now + TIDY_AFTER);
        }
    }

    /// Time to take the 2xx out of the record.
    pub(crate) fn on_tidy_due(&mut self, cx: &mut Cx<'_>) {
        if self.stored_unacknowledged && self.unacknowledged.is_none() {
            self.write_upkeep(cx);
        }
    }

    /// After an adoption: goes on waiting for the ACK. The plan is still as the record has it.
    pub(crate) fn resume_waiting(&mut self, cx: &mut Cx<'_>) {
        let Some(waiting) = self.unacknowledged.clone() else {
            return;
        };
        let age = cx.sh.unix_ms(cx.now).saturating_sub(waiting.sent_at);
        let response = self.response_again(&waiting);
        let (Some(response), true) = (
            response,
            Duration::from_millis(age) < cx.sh.config.timers.give_up(),
        ) else {
            self.reoffer_due = waiting.answer_due;
            self.stop_repeating(cx);
            return;
        };
        let media = self.plan.clone().zip(self.local.clone());
        if let (true, Some((target, local))) = (waiting.answer_due, media) {
            self.exchange = Some(Exchange {
                carrier: Carrier::Invite,
                stage: Stage::AwaitingAnswer,
                target,
                local: Some(local.clone()),
                our_offer: true,
                described: true,
                leg_touched: false,
                other_family: false,
                told: Some(Told {
                    keys: self.keys_drawn,
                    local,
                }),
            });
        }
        cx.sh.respond_again(response.clone());
        self.accepted = Some(Accepted::new(cx.now, response, &cx.sh.config.timers));
        self.arm_accepted(cx);
    }

    /// Whether the request is the INVITE that made this dialog, come on another path.
    pub(crate) fn is_made_by(&self, request: &Message) -> bool {
        let id = &self.dialog.id;
        let tag = request.from().ok();
        *request.method() == Method::Invite
            && request.call_id() == id.call_id
            && tag.is_some_and(|from| from.tag().unwrap_or("") == id.remote_tag)
            && request.cseq().ok().map(|c| c.number) == self.dialog.remote_cseq
    }

    /// Answers an INVITE, come again, with the 2xx that waits for its ACK. `false` where none does.
    pub(crate) fn accept_again(
        &mut self,
        cx: &mut Cx<'_>,
        key: ServerKey,
        request: &Message,
    ) -> bool {
        let waiting = self.unacknowledged.clone();
        let response = waiting.and_then(|waiting| self.response_again(&waiting));
        let (Some(mut response), true) = (response, self.accepted.is_some()) else {
            return false;
        };
        // It goes back the way that this one came.
        response.remove(HeaderName::Via);
        let vias: Vec<String> = request.values(HeaderName::Via).map(str::to_owned).collect();
        for via in vias.into_iter().rev() {
            response.push_front(HeaderName::Via, via);
        }
        cx.sh.respond(cx.now, key, response.clone());
        self.accepted = Some(Accepted::new(cx.now, response, &cx.sh.config.timers));
        self.accepted_key = Some(key);
        self.arm_accepted(cx);
        true
    }

    /// `None` where the record's text is none.
    fn response_again(&self, waiting: &Unacknowledged) -> Option<Message> {
        let head = waiting.head.clone().into_bytes().into();
        let mut response = Message::parse(head, &Limits::default()).ok()?;
        response.status()?;
        if waiting.described {
            let (plan, local) = self.plan.as_ref().zip(self.local.as_ref())?;
            let sdp = offer_answer::describe(plan, local, waiting.answer_due).to_string();
            response.set_body(SDP, sdp.into_bytes());
        }
        Some(response)
    }

    /// The 2xx of an earlier process was repeated in vain: the peer is asked whether it is there.
    pub(crate) fn ask_again(&mut self, cx: &mut Cx<'_>) {
        self.exchange
            .take_if(|e| e.stage == Stage::AwaitingAnswer && matches!(e.carrier, Carrier::Invite));
        self.reoffer_due = true;
        self.on_idle(cx);
    }
}
