//! A subscription to the conference event package (RFC 6665, RFC 4575), in the INVITE dialog or one of its own.
//!
//! ```text
//!   SUBSCRIBE: 200, NOTIFY full       refresh: 200, NOTIFY full
//!  ───────────────► Active ◄────────────────────────────────────┐
//!                     │ └───────────────────────────────────────┘
//!                     │ Expires 0, not refreshed, meeting over: NOTIFY terminated
//!                     │ NOTIFY refused (481) or not answered
//!                     ▼
//!                   Ending ──── its record is deleted ───► Gone
//! ```
//!
//! One NOTIFY at a time is under way. A document that comes meanwhile is not queued: the next NOTIFY has
//! the whole list, which a subscriber may always be given (RFC 4575 §4.3).

use std::time::{Duration, Instant};

use cluster::records::{RECORD_VERSION, keys};
use cluster::{Op, Txn};
use sip::dialog::Dialog;
use sip::transaction::ServerKey;
use sip::{HeaderName, Message, Method, StatusCode};

use crate::command::{StoreFailure, Stored};
use crate::conference_info::CONTENT_TYPE;
use crate::config::SubscriptionConfig;
use crate::ids::{ParticipantId, SubscriptionId};
use crate::our_requests::Answer;
use crate::participant::Facts;
use crate::record::{DialogRecord, SubscriptionRecord, SubscriptionState, to_bytes};
use crate::refusal::Refusal;
use crate::roster::Roster;
use crate::shared::{EVENT, OpUse, Purpose, Shared, SubscriptionTimer, TimerKey};

/// How long after a deletion that the store refused it is tried again.
const DELETE_RETRY: Duration = Duration::from_secs(1);

/// Longest Event id kept, bytes.
const MAX_EVENT_ID: usize = 64;

/// Whose dialog a subscription uses.
#[derive(Debug)]
pub(crate) enum Holder {
    Own(Box<Dialog>),
    Participant(ParticipantId),
    /// Its own, in the hands of who calls it now.
    Lent,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Ending,
    Gone,
}

/// What a SUBSCRIBE asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) event_id: Option<String>,
    pub(crate) expires: Duration,
}

/// Reads a SUBSCRIBE.
///
/// # Errors
/// 489, 406, 423 or 400.
pub(crate) fn wish(request: &Message, config: &SubscriptionConfig) -> Result<Wish, Refusal> {
    let event = request.header(HeaderName::Event).unwrap_or("");
    let mut parts = event.split(';').map(str::trim);
    if !parts.next().is_some_and(|p| p.eq_ignore_ascii_case(EVENT)) {
        return Err(Refusal::new(489, "Bad Event").with(HeaderName::AllowEvents, EVENT));
    }
    let event_id = parts
        .find_map(|p| p.strip_prefix("id="))
        .map(ToOwned::to_owned);
    if event_id.as_ref().is_some_and(|id| id.len() > MAX_EVENT_ID) {
        return Err(Refusal::new(400, "The Event id is too long"));
    }
    let mut accept = request.values(HeaderName::Accept).peekable();
    let takes = |value: &str| {
        let kind = value.split(';').next().unwrap_or("").trim();
        ["*/*", "application/*", CONTENT_TYPE]
            .iter()
            .any(|k| kind.eq_ignore_ascii_case(k))
    };
    if accept.peek().is_some() && !accept.any(takes) {
        return Err(
            Refusal::new(406, "Notifications are application/conference-info+xml")
                .with(HeaderName::Accept, CONTENT_TYPE),
        );
    }
    let asked = request
        .number(HeaderName::Expires)
        .map_err(|e| Refusal::new(400, e.to_string()))?
        .map_or(config.max_expires, |s| Duration::from_secs(s.into()));
    if !asked.is_zero() && asked < config.min_expires {
        return Err(Refusal::new(423, "Interval Too Brief").with(
            HeaderName::MinExpires,
            config.min_expires.as_secs().to_string(),
        ));
    }
    Ok(Wish {
        event_id,
        expires: asked.min(config.max_expires),
    })
}

/// What a subscription works with.
pub(crate) struct SubCx<'a> {
    pub(crate) now: Instant,
    pub(crate) sh: &'a mut Shared,
    pub(crate) roster: &'a Roster,
    pub(crate) facts: &'a Facts,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    pub(crate) event_id: Option<String>,
    pub(crate) holder: Holder,
    pub(crate) state: State,
    expires_at: Instant,
    /// A NOTIFY is under way.
    notifying: bool,
    /// Something was not told while it was.
    behind: bool,
    stored: bool,
    writing: bool,
    write_again: bool,
}

impl Subscription {
    pub(crate) fn new(
        id: SubscriptionId,
        event_id: Option<String>,
        holder: Holder,
        now: Instant,
    ) -> Self {
        Self {
            id,
            event_id,
            holder,
            state: State::Active,
            expires_at: now,
            notifying: false,
            behind: false,
            stored: false,
            writing: false,
            write_again: false,
        }
    }

    /// From a record.
    pub(crate) fn adopt(state: &SubscriptionState, holder: Holder, expires_at: Instant) -> Self {
        let own = matches!(holder, Holder::Own(_));
        Self {
            expires_at,
            stored: own,
            ..Self::new(state.id.clone(), state.event_id.clone(), holder, expires_at)
        }
    }

    pub(crate) fn participant(&self) -> Option<&ParticipantId> {
        match &self.holder {
            Holder::Own(_) | Holder::Lent => None,
            Holder::Participant(id) => Some(id),
        }
    }

    fn timer(&self, cx: &SubCx<'_>, timer: SubscriptionTimer) -> TimerKey {
        TimerKey::Subscription(cx.facts.id.clone(), self.id.clone(), timer)
    }

    /// A SUBSCRIBE, the first or another one: 200, then the whole list.
    pub(crate) fn on_subscribe(
        &mut self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        key: ServerKey,
        request: &Message,
        wish: &Wish,
    ) {
        self.expires_at = cx.now + wish.expires;
        let mut response = dialog.response(request, StatusCode::of(200), None);
        response.set(HeaderName::Expires, wish.expires.as_secs().to_string());
        response.set(HeaderName::AllowEvents, EVENT);
        cx.sh.respond(cx.now, key, response);
        if wish.expires.is_zero() {
            let full = cx.roster.full();
            self.end(cx, dialog, "timeout", Some(full));
            return;
        }
        let timer = self.timer(cx, SubscriptionTimer::Expiry);
        cx.sh.timers.set(timer, self.expires_at);
        self.notify_full(cx, dialog);
        self.write(cx, dialog);
    }

    /// The whole list, now or when the NOTIFY under way is answered.
    pub(crate) fn notify_full(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        let full = cx.roster.full();
        self.on_document(cx, dialog, &full);
    }

    /// A document for every subscriber.
    pub(crate) fn on_document(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog, document: &str) {
        if self.state != State::Active {
            return;
        }
        if self.notifying {
            self.behind = true;
            return;
        }
        let left = self.expires_at.saturating_duration_since(cx.now).as_secs();
        self.notifying = true;
        let purpose = Purpose::Notify(self.id.clone());
        self.send(
            cx,
            dialog,
            &format!("active;expires={left}"),
            Some(document),
            purpose,
        );
    }

    fn send(
        &self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        state: &str,
        document: Option<&str>,
        purpose: Purpose,
    ) {
        let mut notify = dialog.request(Method::Notify);
        let event = match &self.event_id {
            Some(id) => format!("{EVENT};id={id}"),
            None => EVENT.to_owned(),
        };
        notify.set(HeaderName::Event, event);
        notify.set(HeaderName::SubscriptionState, state);
        if let Some(document) = document {
            notify.set_body(CONTENT_TYPE, document.to_owned().into_bytes());
        }
        cx.sh.send(cx.now, dialog, notify, &cx.facts.id, purpose);
    }

    /// Our NOTIFY was answered, or not (RFC 6665 §4.2.2).
    pub(crate) fn on_notify_answered(
        &mut self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        answer: &Answer<'_>,
    ) {
        self.notifying = false;
        if self.state != State::Active {
            return;
        }
        match answer {
            Answer::Response(response, status) if status.is_success() => {
                dialog.accept_response(response);
                if std::mem::take(&mut self.behind) {
                    self.notify_full(cx, dialog);
                }
            }
            Answer::Response(_, status)
                if status.get() >= 500 && status.get() != 501 && status.get() < 600 =>
            {
                // For a while: the next document is the whole list.
                self.behind = true;
            }
            Answer::Response(..) | Answer::None => self.drop_silently(cx),
        }
    }

    /// It was not refreshed in time.
    pub(crate) fn on_expired(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        self.end(cx, dialog, "timeout", None);
    }

    /// Ends it with a last NOTIFY that nobody waits for.
    pub(crate) fn end(
        &mut self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        reason: &str,
        document: Option<String>,
    ) {
        if self.state != State::Active {
            return;
        }
        let state = format!("terminated;reason={reason}");
        self.send(cx, dialog, &state, document.as_deref(), Purpose::Farewell);
        self.drop_silently(cx);
    }

    /// Ends it without a word.
    pub(crate) fn drop_silently(&mut self, cx: &mut SubCx<'_>) {
        let timer = self.timer(cx, SubscriptionTimer::Expiry);
        cx.sh.timers.clear(&timer);
        self.state = State::Ending;
        if self.writing {
            self.write_again = true;
        } else {
            self.delete(cx);
        }
    }

    // ---- the record, of a subscription with a dialog of its own

    /// As the record has it.
    pub(crate) fn snapshot(&self, sh: &Shared, now: Instant, document: u32) -> SubscriptionState {
        let left = self.expires_at.saturating_duration_since(now);
        let unix = sh.unix_ms(now);
        SubscriptionState {
            id: self.id.clone(),
            event_id: self.event_id.clone(),
            expires_at: unix + u64::try_from(left.as_millis()).unwrap_or(0),
            document,
            written_at: unix,
        }
    }

    fn write(&mut self, cx: &mut SubCx<'_>, dialog: &Dialog) {
        if matches!(self.holder, Holder::Participant(_)) {
            return;
        }
        if self.writing {
            self.write_again = true;
            return;
        }
        let record = DialogRecord::Subscription(Box::new(SubscriptionRecord {
            version: RECORD_VERSION,
            dialog: dialog.clone(),
            state: self.snapshot(cx.sh, cx.now, cx.roster.version()),
        }));
        let key = keys::dialog(cx.facts.id.as_str(), self.id.as_str());
        self.stored = true;
        self.writing = true;
        let txn = Txn {
            compares: vec![cx.facts.guard()],
            ops: vec![Op::Put(key, to_bytes(&record), None)],
        };
        cx.sh.store(
            OpUse::Subscription(cx.facts.id.clone(), self.id.clone()),
            txn,
        );
    }

    pub(crate) fn delete(&mut self, cx: &mut SubCx<'_>) {
        if !self.stored {
            self.state = State::Gone;
            return;
        }
        self.writing = true;
        let key = keys::dialog(cx.facts.id.as_str(), self.id.as_str());
        let txn = Txn {
            compares: vec![cx.facts.guard()],
            ops: vec![Op::Delete(key)],
        };
        cx.sh.store(
            OpUse::Subscription(cx.facts.id.clone(), self.id.clone()),
            txn,
        );
    }

    /// A write or deletion ended. `false`: the meeting is no longer ours.
    #[must_use]
    pub(crate) fn on_stored(
        &mut self,
        cx: &mut SubCx<'_>,
        result: Result<Stored, StoreFailure>,
    ) -> bool {
        self.writing = false;
        if result == Ok(Stored::Conflict) {
            return false;
        }
        let again = std::mem::take(&mut self.write_again);
        match (self.state, result.is_ok()) {
            (State::Active, _) => {
                if again && let Holder::Own(dialog) = &self.holder {
                    let dialog = dialog.clone();
                    self.write(cx, &dialog);
                }
            }
            (_, _) if again => self.delete(cx),
            (_, true) => self.state = State::Gone,
            (_, false) => {
                let timer = self.timer(cx, SubscriptionTimer::Delete);
                cx.sh.timers.set(timer, cx.now + DELETE_RETRY);
            }
        }
        true
    }

    /// No deadline is left.
    pub(crate) fn forget_timers(&self, cx: &mut SubCx<'_>) {
        for timer in [SubscriptionTimer::Expiry, SubscriptionTimer::Delete] {
            let key = self.timer(cx, timer);
            cx.sh.timers.clear(&key);
        }
    }

    /// The deadline after an adoption.
    pub(crate) fn arm(&self, cx: &mut SubCx<'_>) {
        let key = self.timer(cx, SubscriptionTimer::Expiry);
        cx.sh.timers.set(key, self.expires_at);
    }
}
