//! In-dialog requests that wait for a meeting's new owner while a takeover runs.

use std::time::Instant;

use sip::transaction::ServerKey;
use sip::{HeaderName, Hop, Message};

use crate::Refusal;
use crate::authentication::Identity;
use crate::core::{Core, Timer};
use crate::loops;
use crate::router::Decision;

/// An in-dialog request whose meeting has no living owner.
#[derive(Debug)]
pub(crate) struct Parked {
    /// `None`: an ACK.
    key: Option<ServerKey>,
    message: Message,
    hop: Hop,
    identity: Identity,
}

impl Core {
    pub(crate) fn park(
        &mut self,
        now: Instant,
        key: Option<ServerKey>,
        message: Message,
        hop: Hop,
        identity: Identity,
    ) {
        if self.parked.len() >= self.settings.limits.parked {
            if let Some(key) = key {
                let refusal = Refusal::new(503, "No Meeting Manager Available")
                    .with(HeaderName::RetryAfter, "2");
                self.refuse(now, key, &message, &refusal);
            }
            return;
        }
        let id = self.next_id();
        self.parked.insert(
            id,
            Parked {
                key,
                message,
                hop,
                identity,
            },
        );
        self.arm(now + self.settings.park, Timer::Park(id));
    }

    pub(crate) fn unpark(&mut self, now: Instant) {
        for (id, parked) in std::mem::take(&mut self.parked) {
            let mut routed = parked.message.clone();
            let decision = self
                .router()
                .route(&mut routed, &parked.hop, &parked.identity);
            match (decision, parked.key) {
                (Decision::Park, _) => {
                    self.parked.insert(id, parked);
                }
                (_, Some(key)) => {
                    self.decide(now, key, parked.message, parked.hop, parked.identity);
                }
                (_, None) => self.on_ack(now, parked.message, parked.hop),
            }
        }
    }

    pub(crate) fn on_ack(&mut self, now: Instant, message: Message, hop: Hop) {
        let router = self.router();
        let identity = if self.is_trusted_source(&hop) {
            Identity::Trusted
        } else if router.has_dialog_token(&message) {
            Identity::Dialog
        } else if router.is_for_meeting(&message) {
            Identity::MeetingDialog
        } else {
            return;
        };
        let spent = message.number(HeaderName::MaxForwards) == Ok(Some(0));
        let part = loops::loop_part(&self.key, &message);
        if spent || loops::is_loop(&part, &message) {
            return;
        }
        let mut routed = message.clone();
        match self.router().route(&mut routed, &hop, &identity) {
            Decision::Forward(groups) => self.forward_ack(now, routed, &part, groups),
            Decision::Park => self.park(now, None, message, hop, identity),
            _ => {}
        }
    }

    /// Nobody took over in time.
    pub(crate) fn on_parked_too_long(&mut self, now: Instant, id: u64) {
        if let Some(parked) = self.parked.remove(&id)
            && let Some(key) = parked.key
        {
            let refusal =
                Refusal::new(503, "No Meeting Manager Took Over").with(HeaderName::RetryAfter, "2");
            self.refuse(now, key, &parked.message, &refusal);
        }
    }

    /// Ends a parked INVITE; false where that key is not parked.
    pub(crate) fn cancel_parked(&mut self, now: Instant, key: ServerKey) -> bool {
        let id = self
            .parked
            .iter()
            .find(|(_, p)| p.key == Some(key))
            .map(|(id, _)| *id);
        let Some(parked) = id.and_then(|id| self.parked.remove(&id)) else {
            return false;
        };
        let refusal = Refusal::new(487, "Request Terminated");
        self.refuse(now, key, &parked.message, &refusal);
        true
    }
}
