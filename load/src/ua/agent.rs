//! All participants' calls over one transaction layer, without IO.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use sip::message::Message;
use sip::transaction::{self, ClientKey, Timers, TransactionLayer, Transmit};
use sip::{HeaderName, Hop, Method};

use super::account::Account;
use super::call::{Call, Cx, Event, Failure};
use super::description::Description;
use super::home::Home;
use super::inside;
use super::registration::Registration;

/// Whose a client transaction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A participant's.
    Call(u32),
    /// An account's.
    Registration(String),
}

/// A user agent with many calls.
#[derive(Debug)]
pub struct Agent {
    layer: TransactionLayer,
    home: Home,
    start: Instant,
    rng: ChaCha12Rng,
    calls: BTreeMap<u32, Call>,
    by_call_id: HashMap<String, u32>,
    registrations: BTreeMap<String, Registration>,
    owners: HashMap<ClientKey, Owner>,
    events: VecDeque<Event>,
}

/// Runs `$body` with the context of everything but `$field`s taken apart.
macro_rules! with_cx {
    ($agent:ident, $now:expr, $route:expr, |$cx:ident| $body:expr) => {{
        let mut cx = Cx {
            now: $now,
            wall: $now.saturating_duration_since($agent.start),
            layer: &mut $agent.layer,
            home: &$agent.home,
            rng: &mut $agent.rng,
            events: &mut $agent.events,
            owners: &mut $agent.owners,
            service_route: $route,
        };
        let $cx = &mut cx;
        $body
    }};
}

impl Agent {
    /// Nobody in it yet. `seed` feeds tags, branches and Call-IDs.
    #[must_use]
    pub fn new(home: Home, now: Instant, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut of_layer = [0; 32];
        rand::RngCore::fill_bytes(&mut rng, &mut of_layer);
        Self {
            layer: TransactionLayer::new(Timers::default(), of_layer),
            home,
            start: now,
            rng,
            calls: BTreeMap::new(),
            by_call_id: HashMap::new(),
            registrations: BTreeMap::new(),
            owners: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    // ---- what we want

    /// Registers an account.
    pub fn register(&mut self, now: Instant, account: Account) {
        let registration = self
            .registrations
            .entry(account.user.clone())
            .or_insert_with(|| Registration::new(account));
        with_cx!(self, now, &[], |cx| registration.register(cx));
    }

    /// A participant joins.
    pub fn join(
        &mut self,
        now: Instant,
        participant: u32,
        account: Option<Account>,
        description: Description,
    ) {
        self.calls
            .entry(participant)
            .or_insert_with(|| Call::new(participant, description, account));
        self.join_again(now, participant);
    }

    /// A participant who was refused, or whose call ended, joins once more.
    pub fn join_again(&mut self, now: Instant, participant: u32) {
        let Some(call) = self.calls.get_mut(&participant) else {
            return;
        };
        if !call.is_over() {
            return;
        }
        let registration = call.account().and_then(|a| self.registrations.get(&a.user));
        let route = registration.map_or_else(Vec::new, |r| r.service_route.clone());
        self.by_call_id.remove(&call.call_id);
        with_cx!(self, now, &route, |cx| call.join(cx));
        self.by_call_id.insert(call.call_id.clone(), participant);
    }

    /// A participant leaves; [`Event::Left`] follows.
    pub fn leave(&mut self, now: Instant, participant: u32) {
        if let Some(call) = self.calls.get_mut(&participant) {
            with_cx!(self, now, &[], |cx| call.leave(cx));
        }
    }

    /// A participant asks for an answer within its call; [`Event::Answered`] follows.
    pub fn ask(&mut self, now: Instant, participant: u32) {
        if let Some(call) = self.calls.get_mut(&participant) {
            with_cx!(self, now, &[], |cx| call.ask(cx));
        }
    }

    /// Takes all registrations back.
    pub fn unregister(&mut self, now: Instant) {
        for registration in self.registrations.values_mut() {
            with_cx!(self, now, &[], |cx| registration.leave(cx));
        }
    }

    /// Whether no registration waits for an answer.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.registrations.values().all(Registration::is_settled)
    }

    // ---- what comes

    /// A message came over `hop`.
    pub fn handle_message(&mut self, now: Instant, message: Message, hop: Hop) {
        self.layer.handle_message(now, message, hop);
        self.handle_events(now);
    }

    /// The transport could not send for that client transaction.
    pub fn handle_transport_error(&mut self, now: Instant, key: ClientKey) {
        self.layer.handle_transport_error(now, key);
        self.handle_events(now);
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                transaction::Event::Request { key, message, .. } => {
                    self.on_request(now, key, &message);
                }
                transaction::Event::Ack { message, .. } => {
                    if let Some(call) = call_of(&mut self.calls, &self.by_call_id, &message) {
                        with_cx!(self, now, &[], |cx| call.on_ack(cx, &message));
                    }
                }
                transaction::Event::Response { key, message, .. } => {
                    self.on_response(now, key, &message);
                }
                transaction::Event::Timeout { key } => self.on_failure(now, key, Failure::Timeout),
                transaction::Event::TransportFailed { key } => {
                    self.on_failure(now, key, Failure::Transport);
                }
                // Overloaded cannot be with so few; the others concern servers that ring.
                _ => {}
            }
        }
    }

    fn on_request(&mut self, now: Instant, key: transaction::ServerKey, message: &Message) {
        let in_dialog = message.to_ref().is_ok_and(|to| to.tag().is_some());
        if in_dialog && let Some(call) = call_of(&mut self.calls, &self.by_call_id, message) {
            return with_cx!(self, now, &[], |cx| call.on_request(cx, key, message));
        }
        let status = match message.method() {
            _ if in_dialog => 481,
            Method::Options => 200,
            // Nobody is at home to be called.
            Method::Invite => 603,
            Method::Message | Method::Notify => 200,
            _ => 405,
        };
        with_cx!(self, now, &[], |cx| inside::refuse(
            cx, key, message, status
        ));
    }

    fn on_response(&mut self, now: Instant, key: ClientKey, message: &Message) {
        match self.owners.get(&key).cloned() {
            Some(Owner::Call(participant)) => {
                if let Some(call) = self.calls.get_mut(&participant) {
                    with_cx!(self, now, &[], |cx| call.on_response(cx, key, message));
                }
            }
            Some(Owner::Registration(user)) => {
                if let Some(registration) = self.registrations.get_mut(&user) {
                    with_cx!(self, now, &[], |cx| registration
                        .on_response(cx, key, message));
                }
            }
            None => {}
        }
    }

    fn on_failure(&mut self, now: Instant, key: ClientKey, failure: Failure) {
        match self.owners.get(&key).cloned() {
            Some(Owner::Call(participant)) => {
                if let Some(call) = self.calls.get_mut(&participant) {
                    with_cx!(self, now, &[], |cx| call.on_failure(cx, key, failure));
                }
            }
            Some(Owner::Registration(user)) => {
                if let Some(registration) = self.registrations.get_mut(&user) {
                    with_cx!(self, now, &[], |cx| registration
                        .on_failure(cx, key, failure));
                }
            }
            None => {}
        }
    }

    // ---- time, and what goes out

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let calls = self.calls.values().flat_map(|call| {
            let (clock, session) = call.poll_timeout();
            [clock, session.map(|at| self.start + at)]
        });
        let registrations = self.registrations.values().map(Registration::poll_timeout);
        calls
            .chain(registrations)
            .chain([self.layer.poll_timeout()])
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        self.handle_events(now);
        for call in self.calls.values_mut() {
            with_cx!(self, now, &[], |cx| call.handle_timeout(cx));
        }
        for registration in self.registrations.values_mut() {
            with_cx!(self, now, &[], |cx| registration.handle_timeout(cx));
        }
        self.handle_events(now);
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.layer.poll_transmit()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

fn call_of<'a>(
    calls: &'a mut BTreeMap<u32, Call>,
    by_call_id: &HashMap<String, u32>,
    message: &Message,
) -> Option<&'a mut Call> {
    let participant = by_call_id.get(message.header(HeaderName::CallId)?)?;
    calls.get_mut(participant)
}
