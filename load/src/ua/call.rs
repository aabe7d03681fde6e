//! One participant's call (RFC 3261 §13), as the client sees it.
//!
//! ```text
//!   join    +----------+  2xx, ACK sent   +--------+  leave, BYE sent   +---------+  answered   +------+
//! --------> | Inviting | ---------------> | Joined | -----------------> | Leaving | ----------> | Gone |
//!           +----------+                  +--------+                    +---------+             +------+
//!             |   ^   |                       | BYE of the peer's, 408 or 481, session expired      ^
//!   401, 407, |   |   | 300-699, timeout      +-----------------------------------------------------+
//!   422       +---+   +--------------------------------------------------------------------------- -+
//! ```
//!
//! Who leaves while inviting sends CANCEL; a 2xx that comes all the same is acknowledged and ended by BYE (§15).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::RngCore;
use rand_chacha::ChaCha12Rng;
use sip::accepted::{self, Accepted};
use sip::dialog::Dialog;
use sip::message::Message;
use sip::session_timer::{self, SessionTimer};
use sip::transaction::{ClientKey, ServerKey, TransactionLayer};
use sip::{HeaderName, Method, StatusCode};

use super::account::{Account, Challenges};
use super::description::Description;
use super::home::{self, ALLOW, Home};
use crate::leg::{Keys, Remote};

/// What became of a participant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Registered.
    Registered {
        /// Account.
        user: String,
    },
    /// Not registered.
    NotRegistered {
        /// Account.
        user: String,
        /// Why.
        refusal: Refusal,
    },
    /// In the meeting.
    Joined {
        /// Who.
        participant: u32,
        /// What was agreed on.
        remote: Remote,
        /// From the first INVITE sent to the ACK sent.
        took: Duration,
    },
    /// Not let in.
    Refused {
        /// Who.
        participant: u32,
        /// Why.
        refusal: Refusal,
    },
    /// The peer changed the session, or gave us new keys.
    Changed {
        /// Who.
        participant: u32,
        /// What is agreed on now.
        remote: Remote,
    },
    /// The session ended, and not by us.
    Ended {
        /// Who.
        participant: u32,
        /// Why.
        reason: String,
    },
    /// A request within the call was answered, or not.
    Answered {
        /// Who had asked.
        participant: u32,
        /// SIP status; `None` where no answer came, or the participant is in no call.
        status: Option<u16>,
    },
    /// We left.
    Left {
        /// Who.
        participant: u32,
    },
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// SIP status; `None` where none came.
    pub status: Option<u16>,
    /// For people.
    pub reason: String,
    /// Retry-After, seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    pub(super) fn of(response: &Message) -> Self {
        Self {
            status: response.status().map(StatusCode::get),
            reason: response.reason().to_owned(),
            retry_after: response.number(HeaderName::RetryAfter).ok().flatten(),
        }
    }

    pub(super) fn without_status(reason: impl Into<String>) -> Self {
        Self {
            status: None,
            reason: reason.into(),
            retry_after: None,
        }
    }
}

/// Why there is no final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Timer B or F.
    Timeout,
    /// The transport could not send.
    Transport,
}

impl Failure {
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::Timeout => "no answer",
            Self::Transport => "the server cannot be reached",
        }
    }
}

/// What a call works with.
pub(super) struct Cx<'a> {
    pub now: Instant,
    /// For session timers: any clock will do that goes on.
    pub wall: Duration,
    pub layer: &'a mut TransactionLayer,
    pub home: &'a Home,
    pub rng: &'a mut ChaCha12Rng,
    pub events: &'a mut VecDeque<Event>,
    /// Whose client transactions are whose.
    pub owners: &'a mut HashMap<ClientKey, super::agent::Owner>,
    /// Routes that registering gave (RFC 3608).
    pub service_route: &'a [String],
}

impl Cx<'_> {
    pub(super) fn token(&mut self) -> String {
        format!("{:016x}", self.rng.next_u64())
    }
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Inviting,
    Joined,
    Leaving,
    Gone,
}

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Join,
    Refresh,
    Leave,
    Ask,
}

/// A request of ours without a final response.
#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    /// Without Via.
    request: Message,
    challenges: Challenges,
}

/// A retry of a refresh that collided with the peer's (RFC 3261 §14.1: we own the Call-ID).
const AFTER_GLARE: Duration = Duration::from_millis(2_500);
/// A retry of a refresh that the peer was too busy for.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub participant: u32,
    pub description: Description,
    account: Option<Account>,
    pub state: State,
    pub call_id: String,
    tag: String,
    cseq: u32,
    invited: Option<Instant>,
    pending: HashMap<ClientKey, Pending>,
    pub dialog: Option<Dialog>,
    pub timer: SessionTimer,
    /// The ACK of our last INVITE, repeated for every repeated 2xx (§13.2.2.4).
    ack: Option<(u32, Message)>,
    /// Our 2xx to the peer's INVITE that waits for its ACK; true: its offer was ours.
    pub accepted: Option<(ServerKey, Accepted, bool)>,
    pub dtls_client: bool,
    peer_updates: bool,
}

impl Call {
    pub(super) fn new(
        participant: u32,
        description: Description,
        account: Option<Account>,
    ) -> Self {
        let policy = session_timer::Policy {
            without_support: false,
            ..session_timer::Policy::default()
        };
        Self {
            participant,
            description,
            account,
            state: State::Idle,
            call_id: String::new(),
            tag: String::new(),
            cseq: 0,
            invited: None,
            pending: HashMap::new(),
            dialog: None,
            timer: SessionTimer::new(policy),
            ack: None,
            accepted: None,
            dtls_client: false,
            peer_updates: false,
        }
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Idle | State::Gone)
    }

    /// Waits for a final response to an INVITE or UPDATE of ours.
    pub(super) fn is_offering(&self) -> bool {
        let mut pending = self.pending.values();
        pending.any(|p| p.purpose == Purpose::Refresh)
    }

    // ---- what we want

    /// Sends the INVITE, in a call of its own each time.
    pub(super) fn join(&mut self, cx: &mut Cx<'_>) {
        self.call_id = format!("{}{}@load", cx.token(), cx.token());
        self.tag = cx.token();
        self.cseq = 1;
        self.dialog = None;
        let user = home::user(self.account.as_ref(), self.participant);
        let name = home::guest_name(self.participant);
        let from = format!("\"{name}\" <{}>;tag={}", cx.home.address(&user), self.tag);
        let uri = cx.home.meeting.to_string();
        let to = format!("<{uri}>");
        let mut invite =
            cx.home
                .request(Method::Invite, &uri, (&from, &to), &self.call_id, self.cseq);
        for route in cx.service_route.iter().rev() {
            invite.push_front(HeaderName::Route, route);
        }
        invite.push_back(HeaderName::Contact, cx.home.contact(&name));
        invite.push_back(HeaderName::Allow, ALLOW);
        self.timer.stamp(&mut invite);
        invite.set_body("application/sdp", self.description.offer());
        self.invited = Some(cx.now);
        self.state = State::Inviting;
        self.send(cx, Purpose::Join, invite, Challenges::default());
    }

    /// Ends it, whatever it is at.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>) {
        match self.state {
            State::Idle => {
                self.state = State::Gone;
                self.tell_left(cx);
            }
            State::Inviting => {
                self.state = State::Leaving;
                let invites = self.pending.iter();
                let keys: Vec<ClientKey> = invites
                    .filter(|(_, p)| p.purpose == Purpose::Join)
                    .map(|(key, _)| *key)
                    .collect();
                for key in keys {
                    cx.layer.cancel(cx.now, key, None);
                }
            }
            State::Joined => {
                self.state = State::Leaving;
                self.bye(cx);
            }
            State::Leaving | State::Gone => {}
        }
    }

    fn bye(&mut self, cx: &mut Cx<'_>) {
        self.accepted = None;
        let Some(dialog) = &mut self.dialog else {
            self.state = State::Gone;
            return self.tell_left(cx);
        };
        let mut bye = dialog.request(Method::Bye);
        home::stamp(&mut bye);
        self.send(cx, Purpose::Leave, bye, Challenges::default());
    }

    /// Asks for an answer within the call that changes nothing (INFO, RFC 6086); [`Event::Answered`] follows.
    pub(super) fn ask(&mut self, cx: &mut Cx<'_>) {
        let (State::Joined, Some(dialog)) = (self.state, &mut self.dialog) else {
            return self.tell_answered(cx, None);
        };
        let mut info = dialog.request(Method::Info);
        home::stamp(&mut info);
        self.send(cx, Purpose::Ask, info, Challenges::default());
    }

    fn tell_answered(&self, cx: &mut Cx<'_>, status: Option<u16>) {
        cx.events.push_back(Event::Answered {
            participant: self.participant,
            status,
        });
    }

    fn refresh(&mut self, cx: &mut Cx<'_>) {
        let Some(dialog) = &mut self.dialog else {
            return;
        };
        let method = match self.peer_updates {
            true => Method::Update,
            false => Method::Invite,
        };
        let mut request = dialog.request(method.clone());
        home::stamp(&mut request);
        request.push_back(HeaderName::Allow, ALLOW);
        self.timer.stamp(&mut request);
        if method == Method::Invite {
            request.set_body("application/sdp", self.description.offer());
        }
        self.timer.on_refresh_sent();
        self.send(cx, Purpose::Refresh, request, Challenges::default());
    }

    fn send(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        request: Message,
        challenges: Challenges,
    ) {
        let hop = match &self.dialog {
            Some(dialog) => cx.home.hop_of(dialog.next_hop_uri()),
            None => cx.home.hop(),
        };
        let key = cx.layer.send_request_to_host(
            cx.now,
            request.clone(),
            hop,
            cx.home.host.clone(),
            &cx.home.sent_by(),
            None,
        );
        cx.owners
            .insert(key, super::agent::Owner::Call(self.participant));
        self.pending.insert(
            key,
            Pending {
                purpose,
                request,
                challenges,
            },
        );
    }

    /// The same request once more, as a new one (§8.1.3.5).
    fn send_again(&mut self, cx: &mut Cx<'_>, mut pending: Pending) {
        let number = match &mut self.dialog {
            Some(dialog) => {
                dialog.local_cseq += 1;
                dialog.local_cseq
            }
            None => {
                self.cseq += 1;
                self.cseq
            }
        };
        let method = pending.request.method().clone();
        pending
            .request
            .set(HeaderName::CSeq, format!("{number} {method}"));
        self.send(cx, pending.purpose, pending.request, pending.challenges);
    }

    // ---- what comes back

    pub(super) fn on_response(&mut self, cx: &mut Cx<'_>, key: ClientKey, response: &Message) {
        let Some(status) = response.status() else {
            return;
        };
        if status.is_provisional() {
            return;
        }
        let Some(mut pending) = self.pending.remove(&key) else {
            // every repeated 2xx is acknowledged anew
            if status.is_success() && *response.method() == Method::Invite {
                self.on_repeated_success(cx, response);
            }
            return;
        };
        if !status.is_success() || *response.method() != Method::Invite {
            cx.owners.remove(&key);
        }
        // Who wants to leave does not knock again.
        let wanted = self.state != State::Leaving || pending.purpose == Purpose::Leave;
        if wanted && matches!(status.get(), 401 | 407) {
            let cnonce = cx.token();
            let (account, challenges) = (self.account.as_ref(), &mut pending.challenges);
            if challenges.answer(account, response, &mut pending.request, &cnonce) {
                return self.send_again(cx, pending);
            }
        }
        if wanted && status.get() == 422 && self.timer.on_interval_too_small(response) {
            self.timer.stamp(&mut pending.request);
            return self.send_again(cx, pending);
        }
        match pending.purpose {
            Purpose::Join if status.is_success() => self.on_accepted(cx, &pending, response),
            Purpose::Join => self.on_refused(cx, Refusal::of(response)),
            Purpose::Refresh => self.on_refreshed(cx, response),
            Purpose::Leave => self.on_left(cx),
            Purpose::Ask => self.tell_answered(cx, Some(status.get())),
        }
    }

    pub(super) fn on_failure(&mut self, cx: &mut Cx<'_>, key: ClientKey, failure: Failure) {
        cx.owners.remove(&key);
        let Some(pending) = self.pending.remove(&key) else {
            return;
        };
        match pending.purpose {
            Purpose::Join => self.on_refused(cx, Refusal::without_status(failure.told())),
            // RFC 4028 §10: no answer to a refresh is the end.
            Purpose::Refresh => self.end(cx, "no answer to a refresh"),
            Purpose::Leave => self.on_left(cx),
            Purpose::Ask => self.tell_answered(cx, None),
        }
    }

    fn on_accepted(&mut self, cx: &mut Cx<'_>, pending: &Pending, response: &Message) {
        let refused = |reason: String| Refusal {
            status: Some(200),
            reason,
            retry_after: None,
        };
        let dialog = match Dialog::uac(&pending.request, response) {
            Ok(dialog) => dialog,
            Err(e) => {
                let refusal = refused(format!("accepted, but the answer cannot be used: {e}"));
                return self.on_refused(cx, refusal);
            }
        };
        self.dialog = Some(dialog);
        self.acknowledge(cx, response, None);
        self.timer.on_success(cx.wall, response);
        self.peer_updates = response.has_token(HeaderName::Allow, "UPDATE");
        if self.state == State::Leaving {
            return self.bye(cx);
        }
        match self.description.read_answer(response.body()) {
            Ok(remote) => {
                self.state = State::Joined;
                self.take_over(&remote);
                let took = self
                    .invited
                    .map_or(Duration::ZERO, |at| cx.now.saturating_duration_since(at));
                cx.events.push_back(Event::Joined {
                    participant: self.participant,
                    remote,
                    took,
                });
            }
            Err(e) => {
                // §13.2.2.4: an answer that is not acceptable is acknowledged, and the call ended.
                self.state = State::Leaving;
                cx.events.push_back(Event::Refused {
                    participant: self.participant,
                    refusal: refused(format!("accepted, but the answer cannot be used: {e}")),
                });
                self.bye(cx);
            }
        }
    }

    pub(super) fn take_over(&mut self, remote: &Remote) {
        if let Some(media) = remote.media.first()
            && let Keys::Dtls { client, .. } = media.keys
        {
            self.dtls_client = client;
        }
    }

    fn acknowledge(&mut self, cx: &mut Cx<'_>, response: &Message, body: Option<String>) {
        let (Some(dialog), Ok(cseq)) = (&self.dialog, response.cseq()) else {
            return;
        };
        let mut ack = dialog.ack(cseq.number);
        home::stamp(&mut ack);
        if let Some(body) = body {
            ack.set_body("application/sdp", body);
        }
        self.ack = Some((cseq.number, ack.clone()));
        self.send_ack(cx, dialog, ack);
    }

    fn send_ack(&self, cx: &mut Cx<'_>, dialog: &Dialog, ack: Message) {
        let hop = cx.home.hop_of(dialog.next_hop_uri());
        let (host, sent_by) = (cx.home.host.clone(), cx.home.sent_by());
        cx.layer
            .send_stateless_to_host(ack, hop, host, &sent_by, None);
    }

    fn on_repeated_success(&mut self, cx: &mut Cx<'_>, response: &Message) {
        let ours = self.dialog.as_ref().is_some_and(|dialog| {
            let tag = response
                .to()
                .ok()
                .and_then(|to| to.tag().map(str::to_owned));
            tag.as_deref() == Some(dialog.id.remote_tag.as_str())
        });
        let number = response.cseq().map(|c| c.number).ok();
        if let (true, Some(dialog), Some((cseq, ack))) = (ours, &self.dialog, &self.ack)
            && number == Some(*cseq)
        {
            self.send_ack(cx, dialog, ack.clone());
        }
    }

    fn on_refused(&mut self, cx: &mut Cx<'_>, refusal: Refusal) {
        let leaving = self.state == State::Leaving;
        self.state = State::Gone;
        if leaving {
            return self.tell_left(cx);
        }
        cx.events.push_back(Event::Refused {
            participant: self.participant,
            refusal,
        });
    }

    fn on_refreshed(&mut self, cx: &mut Cx<'_>, response: &Message) {
        let status = response.status().map_or(0, StatusCode::get);
        if let Some(dialog) = &mut self.dialog {
            dialog.accept_response(response);
        }
        let is_invite = *response.method() == Method::Invite;
        match status {
            200..300 => {
                self.timer.on_success(cx.wall, response);
                if is_invite {
                    self.acknowledge(cx, response, None);
                    if let Ok(remote) = self.description.read_answer(response.body()) {
                        self.tell_changed(cx, remote);
                    }
                }
            }
            408 | 481 => self.end(cx, "the server knows nothing of the call any more"),
            // RFC 3311 §5.2: it may be offered as a re-INVITE instead.
            405 | 501 if !is_invite => {
                self.peer_updates = false;
                self.timer.on_refresh_failed(cx.wall, Duration::ZERO);
            }
            491 => self.timer.on_refresh_failed(cx.wall, AFTER_GLARE),
            _ => self.timer.on_refresh_failed(cx.wall, AFTER_FAILURE),
        }
    }

    fn on_left(&mut self, cx: &mut Cx<'_>) {
        let told = self.state == State::Gone;
        self.state = State::Gone;
        if !told {
            self.tell_left(cx);
        }
    }

    /// The session is over; BYE goes out for the sake of whoever still believes in it.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, reason: &str) {
        if self.state == State::Leaving {
            return;
        }
        self.bye(cx);
        self.gone(cx, reason);
    }

    /// The peer ended it.
    pub(super) fn gone(&mut self, cx: &mut Cx<'_>, reason: &str) {
        let leaving = self.state == State::Leaving;
        self.state = State::Gone;
        self.accepted = None;
        cx.events.push_back(match leaving {
            true => Event::Left {
                participant: self.participant,
            },
            false => Event::Ended {
                participant: self.participant,
                reason: reason.to_owned(),
            },
        });
    }

    fn tell_left(&self, cx: &mut Cx<'_>) {
        cx.events.push_back(Event::Left {
            participant: self.participant,
        });
    }

    pub(super) fn tell_changed(&mut self, cx: &mut Cx<'_>, remote: Remote) {
        self.take_over(&remote);
        cx.events.push_back(Event::Changed {
            participant: self.participant,
            remote,
        });
    }

    // ---- time

    /// When [`Self::handle_timeout`] has something to do: of the clock, and of the session timer's.
    pub(super) fn poll_timeout(&self) -> (Option<Instant>, Option<Duration>) {
        let accepted = self.accepted.as_ref();
        let session = match self.state {
            State::Joined => self.timer.poll_timeout(),
            _ => None,
        };
        (accepted.and_then(|(_, a, _)| a.poll_timeout()), session)
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let due = match &mut self.accepted {
            Some((key, accepted, _)) => accepted.handle_timeout(cx.now).map(|due| (*key, due)),
            None => None,
        };
        match due {
            Some((key, accepted::Due::Resend(response))) => {
                cx.layer.respond(cx.now, key, response);
            }
            Some((_, accepted::Due::GiveUp)) => self.end(cx, "a re-INVITE was never acknowledged"),
            None => {}
        }
        if self.state != State::Joined {
            return;
        }
        match self.timer.due(cx.wall) {
            Some(session_timer::Due::Refresh) => self.refresh(cx),
            Some(session_timer::Due::Expired) => self.end(cx, "the session timer ran out"),
            None => {}
        }
    }
}
