//! Who watches a meeting: subscriptions with a dialog of their own, those that share a participant's, and the
//! documents that go to all of them. One subscription by itself is in `subscription.rs`.

use std::time::Instant;

use sip::Message;
use sip::dialog::{Dialog, DialogState};
use sip::transaction::ServerKey;

use crate::caller;
use crate::ids::{ParticipantId, SubscriptionId};
use crate::meeting::{Meeting, State, Waiting};
use crate::participant::{Participant, Phase};
use crate::refusal::Refusal;
use crate::shared::{DialogUser, MeetingTimer, Shared, TimerKey};
use crate::subscription::{self, Holder, SubCx, Subscription};

/// Subscriptions in one INVITE dialog.
const MAX_SHARED_SUBSCRIPTIONS: usize = 4;

impl Meeting {
    /// Runs `f` on one subscription and the dialog it uses.
    pub(crate) fn with_subscription<R>(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: &SubscriptionId,
        f: impl FnOnce(&mut Subscription, &mut SubCx<'_>, &mut Dialog) -> R,
    ) -> Option<R> {
        let subscription = self.subscriptions.get_mut(id)?;
        let mut cx = SubCx {
            now,
            sh,
            roster: &self.roster,
            facts: &self.facts,
        };
        match std::mem::replace(&mut subscription.holder, Holder::Lent) {
            Holder::Own(mut dialog) => {
                let result = f(subscription, &mut cx, &mut dialog);
                subscription.holder = Holder::Own(dialog);
                Some(result)
            }
            Holder::Participant(participant) => {
                let dialog = self
                    .participants
                    .get_mut(&participant)
                    .map(|p| &mut p.dialog);
                let result = dialog.map(|dialog| {
                    subscription.holder = Holder::Participant(participant.clone());
                    f(subscription, &mut cx, dialog)
                });
                subscription.holder = Holder::Participant(participant.clone());
                self.with_participant(sh, now, &participant, Participant::on_cseq_used);
                result
            }
            Holder::Lent => None,
        }
    }

    pub(crate) fn on_first_subscribe(&mut self, sh: &mut Shared, now: Instant, waiting: &Waiting) {
        let standalone = |s: &&Subscription| s.participant().is_none();
        let outcome =
            subscription::wish(&waiting.request, &sh.config.subscription).and_then(|wish| {
                if self.subscriptions.values().filter(standalone).count()
                    >= sh.config.subscription.max_standalone
                {
                    return Err(Refusal::new(486, "Too many watch this meeting already"));
                }
                let tag = sh.rng.tag();
                Dialog::uas(
                    &waiting.request,
                    &tag,
                    &caller::contact(&waiting.request, &self.facts.id, &self.facts.domain),
                    DialogState::Confirmed,
                )
                .map(|dialog| (wish, dialog))
                .map_err(|e| Refusal::new(400, e.to_string()))
            });
        let (wish, dialog) = match outcome {
            Ok(found) => found,
            Err(why) => {
                sh.refuse_entry(now, waiting.key, &waiting.request, &why);
                return;
            }
        };
        let id = SubscriptionId::from_random(sh.rng.bits());
        let user = DialogUser::Subscription(id.clone());
        sh.dialogs
            .insert(dialog.id.clone(), (self.facts.id.clone(), user));
        self.catch_up_roster();
        let holder = Holder::Own(Box::new(dialog));
        let subscription = Subscription::new(id.clone(), wish.event_id.clone(), holder, now);
        self.subscriptions.insert(id.clone(), subscription);
        self.with_subscription(sh, now, &id, |s, cx, dialog| {
            s.on_subscribe(cx, dialog, waiting.key, &waiting.request, &wish)
        });
    }

    /// Before the first subscriber nobody is told of changes.
    pub(crate) fn catch_up_roster(&mut self) {
        let active = |s: &Subscription| s.state == subscription::State::Active;
        if !self.subscriptions.values().any(active) {
            self.roster.catch_up();
        }
    }

    pub(crate) fn on_shared_subscribe(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: &ParticipantId,
        key: ServerKey,
        request: &Message,
    ) {
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        let outcome = match participant.phase {
            Phase::Joined => participant
                .dialog
                .accept(request)
                .map_err(|r| Refusal::new(r.status.get(), r.reason))
                .and_then(|()| subscription::wish(request, &sh.config.subscription)),
            _ => Err(Refusal::new(481, "This call is over, or not yet there")),
        };
        let wish = match outcome {
            Ok(wish) => wish,
            Err(why) => {
                sh.refuse_in(now, key, &participant.dialog, request, &why);
                return;
            }
        };
        let shared = |s: &&Subscription| s.participant() == Some(id);
        let known = self
            .subscriptions
            .values()
            .filter(shared)
            .find(|s| s.is_live() && s.event_id == wish.event_id)
            .map(|s| s.id.clone());
        let sub = match known {
            Some(sub) => sub,
            None if self.subscriptions.values().filter(shared).count()
                >= MAX_SHARED_SUBSCRIPTIONS =>
            {
                let why = Refusal::new(486, "Too many subscriptions in this dialog");
                sh.refuse_in(now, key, &participant.dialog, request, &why);
                return;
            }
            None => {
                self.catch_up_roster();
                let sub = SubscriptionId::from_random(sh.rng.bits());
                let holder = Holder::Participant(id.clone());
                let new = Subscription::new(sub.clone(), wish.event_id.clone(), holder, now);
                self.subscriptions.insert(sub.clone(), new);
                sub
            }
        };
        let waits = self.with_subscription(sh, now, &sub, |s, cx, dialog| {
            s.on_subscribe(cx, dialog, key, request, &wish)
        });
        let mirrored = self.mirror_subscriptions(sh, now, id);
        if waits == Some(true) {
            if let Some(asked) = self
                .subscriptions
                .get_mut(&sub)
                .and_then(|s| s.asked.as_mut())
            {
                asked.mirrored = mirrored;
            }
            // Where nothing is written nothing will be reported.
            self.on_mirrored(sh, now, id);
        }
    }

    /// The participant's record tells of the subscriptions that share its dialog. Comes back with the number of this
    /// change of it.
    fn mirror_subscriptions(&mut self, sh: &mut Shared, now: Instant, id: &ParticipantId) -> u64 {
        let states = self
            .subscriptions
            .values()
            .filter(|s| s.participant() == Some(id) && s.is_live())
            .map(|s| s.snapshot(sh, now))
            .collect();
        let change = self.with_participant(sh, now, id, |p, cx| p.mirror(cx, states));
        change.unwrap_or_default()
    }

    /// A participant's record may have become durable, or not: who waits for it to tell of a subscription is answered.
    pub(crate) fn on_mirrored(&mut self, sh: &mut Shared, now: Instant, id: &ParticipantId) {
        let Some((durable, writing)) = self.participants.get(id).map(Participant::mirrored) else {
            return;
        };
        let waiting: Vec<(SubscriptionId, u64)> = self
            .subscriptions
            .values()
            .filter(|s| s.participant() == Some(id))
            .filter_map(|s| Some((s.id.clone(), s.asked.as_ref()?.mirrored)))
            .collect();
        let mut failed = false;
        for (sub, change) in waiting {
            self.with_subscription(sh, now, &sub, |s, cx, dialog| {
                if change <= durable {
                    s.on_recorded(cx, dialog);
                } else if !writing {
                    s.on_unrecorded(cx, dialog);
                    failed = true;
                }
            });
        }
        if failed {
            self.mirror_subscriptions(sh, now, id);
        }
    }

    pub(crate) fn on_resubscribe(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: &SubscriptionId,
        key: ServerKey,
        request: &Message,
    ) {
        let config = sh.config.subscription;
        self.with_subscription(sh, now, id, |s, cx, dialog| {
            let outcome = if !s.is_live() {
                Err(Refusal::new(481, "This subscription is over"))
            } else if *request.method() == sip::Method::Subscribe {
                dialog
                    .accept(request)
                    .map_err(|r| Refusal::new(r.status.get(), r.reason))
                    .and_then(|()| subscription::wish(request, &config))
                    .and_then(|wish| {
                        (wish.event_id == s.event_id)
                            .then_some(wish)
                            .ok_or_else(|| {
                                Refusal::new(481, "There is no such subscription in this dialog")
                            })
                    })
            } else {
                Err(Refusal::new(481, "There is no call in this dialog"))
            };
            match outcome {
                Ok(wish) => {
                    let _ = s.on_subscribe(cx, dialog, key, request, &wish);
                }
                Err(why) => cx.sh.refuse_in(now, key, dialog, request, &why),
            }
        });
    }

    /// With the INVITE usage go the subscriptions that share its dialog; they get a last NOTIFY.
    pub(crate) fn end_shared_subscriptions(&mut self, sh: &mut Shared, now: Instant) {
        let leaving: Vec<SubscriptionId> = self
            .subscriptions
            .values()
            .filter(|s| s.is_live())
            .filter(|s| {
                s.participant().is_some_and(|id| {
                    self.participants
                        .get(id)
                        .is_none_or(|p| matches!(p.phase, Phase::Leaving | Phase::Gone))
                })
            })
            .map(|s| s.id.clone())
            .collect();
        for id in leaving {
            self.with_subscription(sh, now, &id, |s, cx, dialog| {
                s.end(cx, dialog, "noresource", None);
            });
        }
    }

    pub(crate) fn end_subscriptions(&mut self, sh: &mut Shared, now: Instant) {
        if self.subscriptions.values().all(|s| !s.is_live()) {
            return;
        }
        let document = self.roster.end();
        let ids: Vec<SubscriptionId> = self.subscriptions.keys().cloned().collect();
        for id in ids {
            let document = document.clone();
            self.with_subscription(sh, now, &id, |s, cx, dialog| {
                s.end(cx, dialog, "noresource", Some(document));
            });
        }
    }

    pub(crate) fn publish(&mut self, sh: &mut Shared, now: Instant) {
        let key = TimerKey::Meeting(self.facts.id.clone(), MeetingTimer::Feed);
        if self.subscriptions.is_empty() || self.state != State::Active {
            sh.timers.clear(&key);
            return;
        }
        if self.roster.publish(now) {
            let ids: Vec<SubscriptionId> = self.subscriptions.keys().cloned().collect();
            for id in ids {
                self.with_subscription(sh, now, &id, |s, cx, dialog| {
                    s.go_on(cx, dialog);
                });
            }
        }
        match self.roster.poll_timeout(now) {
            Some(at) => sh.timers.set(key, at),
            None => sh.timers.clear(&key),
        }
    }
}
