//! An account's registration (RFC 3261 §10.2): before the first join, refreshed on long runs, taken back at the end.
//!
//! ```text
//!  register  +-------------+  2xx   +------------+  at 9/10 of its time: again
//! ---------> | Registering | -----> | Registered | -----> Registering
//!            +-------------+        +------------+
//!               |   ^   |               | leave: Expires 0
//!      401, 407 +---+   v other         v
//!                   +--------+      +---------+
//!                   | Failed |      | Leaving |
//!                   +--------+      +---------+
//! ```

use std::time::{Duration, Instant};

use sip::message::Message;
use sip::transaction::ClientKey;
use sip::{HeaderName, Method};

use super::account::{Account, Challenges};
use super::agent::Owner;
use super::call::{Cx, Event, Failure, Refusal};

/// Seconds asked for.
const EXPIRES: u32 = 3_600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Registering,
    Registered,
    Failed,
    Leaving,
}

/// One registration.
#[derive(Debug)]
pub(super) struct Registration {
    account: Account,
    state: State,
    call_id: String,
    tag: String,
    cseq: u32,
    pending: Option<(ClientKey, Message, Challenges)>,
    /// Told of the outcome of the first one.
    told: bool,
    refresh_at: Option<Instant>,
    /// Service-Route (RFC 3608 §5).
    pub service_route: Vec<String>,
}

impl Registration {
    /// Not begun.
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            state: State::Failed,
            call_id: String::new(),
            tag: String::new(),
            cseq: 0,
            pending: None,
            told: false,
            refresh_at: None,
            service_route: Vec::new(),
        }
    }

    /// Sends REGISTER.
    pub(super) fn register(&mut self, cx: &mut Cx<'_>) {
        self.state = State::Registering;
        if self.call_id.is_empty() {
            self.call_id = format!("{}{}@load", cx.token(), cx.token());
            self.tag = cx.token();
        }
        self.send(cx, EXPIRES);
    }

    /// Takes it back, where there is one.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>) {
        if self.state == State::Registered {
            self.state = State::Leaving;
            self.refresh_at = None;
            self.send(cx, 0);
        }
    }

    /// Nothing is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_none()
    }

    fn send(&mut self, cx: &mut Cx<'_>, expires: u32) {
        self.cseq += 1;
        let own = cx.home.address(&self.account.user);
        let from = format!("<{own}>;tag={}", self.tag);
        let to = format!("<{own}>");
        let domain = cx.home.domain();
        let parties = (from.as_str(), to.as_str());
        let method = Method::Register;
        let mut request = cx
            .home
            .request(method, &domain, parties, &self.call_id, self.cseq);
        request.push_back(HeaderName::Contact, cx.home.contact(&self.account.user));
        request.push_back(HeaderName::Expires, expires.to_string());
        self.transmit(cx, request, Challenges::default());
    }

    fn transmit(&mut self, cx: &mut Cx<'_>, request: Message, challenges: Challenges) {
        let key = cx.layer.send_request_to_host(
            cx.now,
            request.clone(),
            cx.home.hop(),
            cx.home.host.clone(),
            &cx.home.sent_by(),
            None,
        );
        let owner = Owner::Registration(self.account.user.clone());
        cx.owners.insert(key, owner);
        self.pending = Some((key, request, challenges));
    }

    pub(super) fn on_response(&mut self, cx: &mut Cx<'_>, key: ClientKey, response: &Message) {
        let Some(status) = response.status().filter(|s| s.is_final()) else {
            return;
        };
        let Some((_, mut request, mut challenges)) = self.pending.take_if(|p| p.0 == key) else {
            return;
        };
        cx.owners.remove(&key);
        if matches!(status.get(), 401 | 407) {
            let cnonce = cx.token();
            if challenges.answer(Some(&self.account), response, &mut request, &cnonce) {
                self.cseq += 1;
                request.set(HeaderName::CSeq, format!("{} REGISTER", self.cseq));
                return self.transmit(cx, request, challenges);
            }
        }
        match (self.state, status.is_success()) {
            (State::Leaving, _) => {}
            (_, true) => self.on_registered(cx, response),
            (_, false) => self.on_failed(cx, Refusal::of(response)),
        }
    }

    pub(super) fn on_failure(&mut self, cx: &mut Cx<'_>, key: ClientKey, failure: Failure) {
        cx.owners.remove(&key);
        if self.pending.take_if(|p| p.0 == key).is_some() && self.state != State::Leaving {
            self.on_failed(cx, Refusal::without_status(failure.told()));
        }
    }

    fn on_registered(&mut self, cx: &mut Cx<'_>, response: &Message) {
        self.state = State::Registered;
        let routes = response.values(HeaderName::ServiceRoute);
        self.service_route = routes.map(str::to_owned).collect();
        // §10.2.4: the Contact's own time goes before that of the whole answer.
        let of_contact = response
            .contacts()
            .into_iter()
            .flatten()
            .filter_map(|contact| contact.params.get("expires")?.parse::<u32>().ok())
            .min();
        let of_all = response.number(HeaderName::Expires).ok().flatten();
        let seconds = of_contact.or(of_all).unwrap_or(EXPIRES).max(10);
        self.refresh_at = Some(cx.now + Duration::from_secs(u64::from(seconds)) * 9 / 10);
        if !std::mem::replace(&mut self.told, true) {
            let user = self.account.user.clone();
            cx.events.push_back(Event::Registered { user });
        }
    }

    fn on_failed(&mut self, cx: &mut Cx<'_>, refusal: Refusal) {
        self.state = State::Failed;
        self.refresh_at = None;
        self.told = true;
        cx.events.push_back(Event::NotRegistered {
            user: self.account.user.clone(),
            refusal,
        });
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.refresh_at
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        if self.refresh_at.is_some_and(|at| cx.now >= at) {
            self.refresh_at = None;
            self.register(cx);
        }
    }
}
