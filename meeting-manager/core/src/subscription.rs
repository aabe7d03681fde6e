//! A subscription to the conference event package (RFC 6665, RFC 4575), in the INVITE dialog or one of its own.
//!
//! ```text
//!   SUBSCRIBE          record is durable: 200, NOTIFY full
//!  ───────────► Storing ───────────► Active ◄──────────────┐
//!                  │ no record: 503    │ └─────────────────┘ refresh: recorded, 200, NOTIFY full
//!                  ▼                   │
//!          Gone, or Ending             │ Expires 0, not refreshed, meeting over: NOTIFY terminated
//!                                      │ NOTIFY refused (481) or not answered
//!                                      ▼
//!                                    Ending ──── its record is deleted ───► Gone
//! ```
//!
//! The record of one in the INVITE dialog is the participant's: `watchers.rs` tells when that is durable.
//!
//! One NOTIFY at a time is under way, and none is queued: when it is answered the next one tells what
//! differs by then from what the subscriber knows. A long list goes out in parts (see `conference_info`).
//!
//! ```text
//!            known state, or none, differs from what is published
//!   Knows ─────────────────────────────────────────────────────────► Telling ─┐ 200, more parts: the next one
//!     ▲ ▲                                                             │   │ ▲ │
//!     │ └─────────────── 200 to the last part: it knows ──────────────┘   │ └─┘
//!     └── Retry-After is over: knows nothing ◄── Waiting ◄──── 5xx ───────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::records::{RECORD_VERSION, keys};
use cluster::{Op, Txn};
use sip::dialog::Dialog;
use sip::transaction::ServerKey;
use sip::{HeaderName, Message, Method, StatusCode, Transport, Uri};

use crate::command::{StoreFailure, Stored};
use crate::conference_info::{self, CONTENT_TYPE, Conference, Document, Part, Reached};
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

/// How long after a 5xx without a Retry-After a subscriber is told again, and the longest it may ask for.
const NOTIFY_RETRY: Duration = Duration::from_secs(5);
const MAX_NOTIFY_RETRY: Duration = Duration::from_secs(60);

/// About how long a document is, bytes, to a subscriber on a stream. Raising it saves round trips where a meeting
/// is large, and costs so much for each subscriber at once when a meeting is taken over.
const STREAM_ROOM: usize = 16_384;

/// To a subscriber on UDP: with its header section below 8 kB, which the receive buffers of phones take.
const DATAGRAM_ROOM: usize = 4_096;

/// Where a list is fetched with one NOTIFY, and no second one may follow: below the 64 kB that everybody takes.
const FETCH_ROOM: usize = 49_152;

/// Retry-After where the record could not be written.
const RETRY_UNRECORDED: Duration = Duration::from_secs(5);

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
    /// Its first SUBSCRIBE waits for the record.
    Storing,
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

/// A SUBSCRIBE that is answered when the record is durable.
#[derive(Debug)]
pub(crate) struct Asked {
    key: ServerKey,
    request: Message,
    expires: Duration,
    /// Which change of the participant's record tells of it, where the dialog is the participant's.
    pub(crate) mirrored: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: SubscriptionId,
    pub(crate) event_id: Option<String>,
    pub(crate) holder: Holder,
    pub(crate) state: State,
    expires_at: Instant,
    pub(crate) asked: Option<Asked>,
    /// A NOTIFY is under way.
    notifying: bool,
    /// It could not take the last one, and waits.
    waiting: bool,
    /// Version of the last document.
    version: u32,
    /// What it knows; `None`: nothing that could be built on.
    told: Option<Arc<Conference>>,
    /// What it is being told: the state, and how far, where more of it follows.
    telling: Option<(Arc<Conference>, Option<Reached>)>,
    stored: bool,
    writing: bool,
    /// It ended while its record was being written.
    delete_next: bool,
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
            state: State::Storing,
            expires_at: now,
            asked: None,
            notifying: false,
            waiting: false,
            version: 0,
            told: None,
            telling: None,
            stored: false,
            writing: false,
            delete_next: false,
        }
    }

    /// From a record, of which `version` is above every document that went out since.
    pub(crate) fn adopt(
        state: &SubscriptionState,
        holder: Holder,
        expires_at: Instant,
        version: u32,
    ) -> Self {
        let own = matches!(holder, Holder::Own(_));
        Self {
            expires_at,
            version,
            state: State::Active,
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

    /// It has not ended.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Storing | State::Active)
    }

    /// A SUBSCRIBE, the first or another one. `true`: it is answered when the record is durable, by
    /// [`Self::on_recorded`] or [`Self::on_unrecorded`].
    #[must_use]
    pub(crate) fn on_subscribe(
        &mut self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        key: ServerKey,
        request: &Message,
        wish: &Wish,
    ) -> bool {
        if self.asked.is_some() {
            let why = Refusal::overlapping(&mut cx.sh.rng);
            cx.sh.refuse_in(cx.now, key, dialog, request, &why);
            return false;
        }
        if wish.expires.is_zero() {
            self.state = State::Active;
            self.expires_at = cx.now;
            self.grant(cx, dialog, key, request, wish.expires);
            let room = room(dialog, FETCH_ROOM);
            let full = conference_info::part(None, cx.roster.published(), None, room);
            self.end(cx, dialog, "timeout", full.map(|part| part.document));
            return false;
        }
        self.asked = Some(Asked {
            key,
            request: request.clone(),
            expires: wish.expires,
            mirrored: 0,
        });
        self.write(cx, dialog);
        true
    }

    fn grant(
        &self,
        cx: &mut SubCx<'_>,
        dialog: &Dialog,
        key: ServerKey,
        request: &Message,
        expires: Duration,
    ) {
        let mut response = dialog.response(request, StatusCode::of(200), None);
        response.set(HeaderName::Expires, expires.as_secs().to_string());
        response.set(HeaderName::AllowEvents, EVENT);
        cx.sh.respond(cx.now, key, response);
    }

    /// The SUBSCRIBE that waits is in a durable record: 200, then the whole list.
    pub(crate) fn on_recorded(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        self.state = State::Active;
        self.expires_at = cx.now + asked.expires;
        self.grant(cx, dialog, asked.key, &asked.request, asked.expires);
        self.arm(cx);
        self.notify_full(cx, dialog);
    }

    /// The store did not take the record: a first SUBSCRIBE comes to nothing, another one changes nothing.
    pub(crate) fn on_unrecorded(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        let why = Refusal::unavailable("The subscription could not be recorded", RETRY_UNRECORDED);
        self.refuse_asked(cx, dialog, &why);
        match self.state {
            State::Storing => self.drop_silently(cx),
            State::Active if self.expires_at <= cx.now => self.on_expired(cx, dialog),
            _ => {}
        }
    }

    /// The SUBSCRIBE that waits, if one does, comes to nothing.
    pub(crate) fn refuse_asked(&mut self, cx: &mut SubCx<'_>, dialog: &Dialog, why: &Refusal) {
        if let Some(asked) = self.asked.take() {
            cx.sh
                .refuse_in(cx.now, asked.key, dialog, &asked.request, why);
        }
    }

    /// The whole list, now or when the NOTIFY under way is answered.
    pub(crate) fn notify_full(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        self.told = None;
        self.telling = None;
        self.waiting = false;
        self.go_on(cx, dialog);
    }

    /// Tells what there is to tell, unless a NOTIFY is under way.
    pub(crate) fn go_on(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        if self.state != State::Active || self.notifying || self.waiting {
            return;
        }
        let Some(part) = self.next_part(cx, dialog) else {
            return;
        };
        let left = self.expires_at.saturating_duration_since(cx.now).as_secs();
        self.notifying = true;
        let purpose = Purpose::Notify(self.id.clone());
        self.send(
            cx,
            dialog,
            &format!("active;expires={left}"),
            Some(&part.document),
            purpose,
        );
    }

    fn next_part(&mut self, cx: &SubCx<'_>, dialog: &Dialog) -> Option<Part> {
        let room = room(dialog, STREAM_ROOM);
        if let Some((target, rest @ Some(_))) = &mut self.telling {
            let told = self.told.as_deref();
            let part = conference_info::part(told, target, rest.as_ref(), room);
            *rest = part.as_ref().and_then(|part| part.rest.clone());
            if part.is_some() {
                return part;
            }
        }
        if let Some((target, _)) = self.telling.take() {
            self.told = Some(target);
        }
        let published = cx.roster.published();
        if self
            .told
            .as_ref()
            .is_some_and(|t| Arc::ptr_eq(t, published))
        {
            return None;
        }
        let Some(part) = cx.roster.first_part(self.told.as_ref(), room) else {
            self.told = Some(Arc::clone(published));
            return None;
        };
        self.telling = Some((Arc::clone(published), part.rest.clone()));
        Some(part)
    }

    fn send(
        &mut self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        state: &str,
        document: Option<&Document>,
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
            self.version = self.version.wrapping_add(1);
            notify.set_body(CONTENT_TYPE, document.with_version(self.version));
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
                self.go_on(cx, dialog);
            }
            Answer::Unsent => self.tell_again(cx, NOTIFY_RETRY),
            Answer::Response(response, status)
                if status.get() >= 500 && status.get() != 501 && status.get() < 600 =>
            {
                let asked = response.number(HeaderName::RetryAfter).ok().flatten();
                let wait = asked.map_or(NOTIFY_RETRY, |s| Duration::from_secs(s.into()));
                self.tell_again(cx, wait);
            }
            Answer::Response(..) | Answer::None => {
                let over = Refusal::new(481, "This subscription is over");
                self.refuse_asked(cx, dialog, &over);
                self.drop_silently(cx);
            }
        }
    }

    /// A NOTIFY was not taken, or may not have been: after that time all is told.
    fn tell_again(&mut self, cx: &mut SubCx<'_>, wait: Duration) {
        // What it took in is not known.
        self.told = None;
        self.telling = None;
        self.waiting = true;
        let timer = self.timer(cx, SubscriptionTimer::Notify);
        cx.sh.timers.set(timer, cx.now + wait.min(MAX_NOTIFY_RETRY));
    }

    /// A subscriber that could not take a NOTIFY is told again.
    pub(crate) fn on_notify_again(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        self.waiting = false;
        self.go_on(cx, dialog);
    }

    /// It was not refreshed in time; a refresh that waits for the record came in time.
    pub(crate) fn on_expired(&mut self, cx: &mut SubCx<'_>, dialog: &mut Dialog) {
        if self.asked.is_some() {
            return;
        }
        self.end(cx, dialog, "timeout", None);
    }

    /// Ends it with a last NOTIFY that nobody waits for.
    pub(crate) fn end(
        &mut self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        reason: &str,
        document: Option<Document>,
    ) {
        let over = Refusal::new(481, "This subscription is over");
        self.refuse_asked(cx, dialog, &over);
        match self.state {
            State::Active => {}
            State::Storing => {
                self.drop_silently(cx);
                return;
            }
            State::Ending | State::Gone => return,
        }
        let state = format!("terminated;reason={reason}");
        self.send(cx, dialog, &state, document.as_ref(), Purpose::Farewell);
        self.drop_silently(cx);
    }

    /// Ends it without a word.
    pub(crate) fn drop_silently(&mut self, cx: &mut SubCx<'_>) {
        for timer in [SubscriptionTimer::Expiry, SubscriptionTimer::Notify] {
            let timer = self.timer(cx, timer);
            cx.sh.timers.clear(&timer);
        }
        self.told = None;
        self.telling = None;
        self.state = State::Ending;
        if self.writing {
            self.delete_next = true;
        } else {
            self.delete(cx);
        }
    }

    // ---- the record, of a subscription with a dialog of its own

    /// As the record has it.
    pub(crate) fn snapshot(&self, sh: &Shared, now: Instant) -> SubscriptionState {
        let left = match &self.asked {
            Some(asked) => asked.expires,
            None => self.expires_at.saturating_duration_since(now),
        };
        let unix = sh.unix_ms(now);
        SubscriptionState {
            id: self.id.clone(),
            event_id: self.event_id.clone(),
            expires_at: unix + u64::try_from(left.as_millis()).unwrap_or(0),
            document: self.version,
            written_at: unix,
        }
    }

    fn write(&mut self, cx: &mut SubCx<'_>, dialog: &Dialog) {
        if matches!(self.holder, Holder::Participant(_)) {
            return;
        }
        let record = DialogRecord::Subscription(Box::new(SubscriptionRecord {
            version: RECORD_VERSION,
            dialog: dialog.clone(),
            state: self.snapshot(cx.sh, cx.now),
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

    /// A write or deletion of its own record ended. `false`: the meeting is no longer ours.
    #[must_use]
    pub(crate) fn on_stored(
        &mut self,
        cx: &mut SubCx<'_>,
        dialog: &mut Dialog,
        result: Result<Stored, StoreFailure>,
    ) -> bool {
        self.writing = false;
        if result == Ok(Stored::Conflict) {
            return false;
        }
        let delete = std::mem::take(&mut self.delete_next);
        match (self.state, result) {
            (State::Storing | State::Active, Ok(_)) => self.on_recorded(cx, dialog),
            (State::Storing | State::Active, Err(failure)) => {
                if self.state == State::Storing && failure == StoreFailure::Unavailable {
                    self.stored = false;
                }
                self.on_unrecorded(cx, dialog);
            }
            (_, _) if delete => self.delete(cx),
            (_, Ok(_)) => self.state = State::Gone,
            (_, Err(_)) => {
                let timer = self.timer(cx, SubscriptionTimer::Delete);
                cx.sh.timers.set(timer, cx.now + DELETE_RETRY);
            }
        }
        true
    }

    /// No deadline is left.
    pub(crate) fn forget_timers(&self, cx: &mut SubCx<'_>) {
        for timer in [
            SubscriptionTimer::Expiry,
            SubscriptionTimer::Delete,
            SubscriptionTimer::Notify,
        ] {
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

/// About how long documents to the holder of a dialog may be: `stream`, unless its Contact is one of UDP.
fn room(dialog: &Dialog, stream: usize) -> usize {
    let transport = Uri::parse(&dialog.remote_target)
        .ok()
        .and_then(|uri| uri.transport());
    match transport {
        None | Some(Transport::Udp) => DATAGRAM_ROOM,
        Some(_) => stream,
    }
}
