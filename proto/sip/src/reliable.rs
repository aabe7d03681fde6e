//! Reliable provisional responses, the UAS side (RFC 3262 §3).
//!
//! ```text
//!            send: RSeq, Require: 100rel
//!  +------+ ----------------------------> +----------------+  timer: send again, T1 doubling
//!  | Idle |                               | Unacknowledged |  send: keep for later
//!  +------+ <---------------------------- +----------------+
//!     |       PRACK, nothing kept           |   |        ^ |
//!     |                                     |   |        +-+ PRACK: send what was kept
//!     |  final response    final response   |   | 64*T1: tell the user
//!     +-------------> +------+ <------------+   v
//!                     | Over | <----------------+
//!                     +------+
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::message::{HeaderName, Message, Method};
use crate::transaction::Timers;

/// How many responses may wait for the one before them. Raising it costs a message each.
const MAX_KEPT: usize = 8;

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing waits for a PRACK.
    Idle,
    /// A response waits for its PRACK.
    Unacknowledged,
    /// A final response was sent, or the peer never answered.
    Over,
}

/// RAck (RFC 3262 §7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RAck {
    /// RSeq of the response.
    pub rseq: u32,
    /// CSeq number of the request that was responded to.
    pub cseq: u32,
    /// Its method.
    pub method: Method,
}

impl RAck {
    /// Parses `776656 1 INVITE`; `None` where it is not that.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split_ascii_whitespace();
        let (rseq, cseq, method) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())?
        };
        (parts.next().is_none()).then_some(())?;
        Some(Self {
            rseq: number(rseq)?,
            cseq: number(cseq)?,
            method: Method::from_token(method),
        })
    }
}

/// What to do with a PRACK.
#[derive(Clone, Debug)]
pub enum Prack {
    /// It acknowledges our response: answer it 200, and send the next one, where there is one, through
    /// [`crate::transaction::TransactionLayer::respond`].
    Matched(Option<Message>),
    /// It acknowledges nothing that is open: answer it 481 (§3).
    Unmatched,
}

/// What to do now.
#[derive(Clone, Debug)]
pub enum Due {
    /// Hand this response to [`crate::transaction::TransactionLayer::respond`] again.
    Resend(Message),
    /// No PRACK for 64*T1: the INVITE "SHOULD" be rejected with a 5xx (§3).
    GiveUp,
}

/// Too many responses wait for a PRACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many provisional responses wait for a PRACK")]
pub struct Full;

#[derive(Clone, Debug)]
struct Open {
    response: Message,
    rseq: u32,
    /// It carries a session description.
    described: bool,
    interval: Duration,
    next: Instant,
    end: Instant,
}

/// The reliable provisional responses to one INVITE.
#[derive(Clone, Debug)]
pub struct Reliable {
    timers: Timers,
    invite_cseq: u32,
    next_rseq: u32,
    open: Option<Open>,
    kept: VecDeque<Message>,
    over: bool,
}

impl Reliable {
    /// For an INVITE with that CSeq number. `first_rseq` is random; it is brought into 1..2^31 (§3).
    #[must_use]
    pub fn new(invite_cseq: u32, first_rseq: u32, timers: Timers) -> Self {
        Self {
            timers,
            invite_cseq,
            next_rseq: (first_rseq % 0x7fff_ffff).max(1),
            open: None,
            kept: VecDeque::new(),
            over: false,
        }
    }

    /// Whether the INVITE allows them: `100rel` in Supported or Require.
    #[must_use]
    pub fn is_supported(invite: &Message) -> bool {
        invite.has_token(HeaderName::Supported, "100rel") || Self::is_required(invite)
    }

    /// Whether the INVITE insists: every provisional response but 100 must then be reliable (§3).
    #[must_use]
    pub fn is_required(invite: &Message) -> bool {
        invite.has_token(HeaderName::Require, "100rel")
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match (&self.open, self.over) {
            (_, true) => State::Over,
            (Some(_), false) => State::Unacknowledged,
            (None, false) => State::Idle,
        }
    }

    /// A 101-199 is to go out reliably. Comes back with RSeq and Require, to be sent now; or `None` when it has to
    /// wait for the PRACK of the one before (§3), or is too late.
    ///
    /// # Errors
    /// [`Full`] when too many wait already.
    pub fn send(&mut self, now: Instant, response: Message) -> Result<Option<Message>, Full> {
        if self.over {
            return Ok(None);
        }
        if self.open.is_some() {
            if self.kept.len() >= MAX_KEPT {
                return Err(Full);
            }
            self.kept.push_back(response);
            return Ok(None);
        }
        Ok(Some(self.begin(now, response)))
    }

    fn begin(&mut self, now: Instant, mut response: Message) -> Message {
        let rseq = self.next_rseq;
        // §3: RSeq "MUST be greater by exactly one"; from 2^31 upwards there are two thousand million left.
        self.next_rseq = self.next_rseq.saturating_add(1);
        response.set(HeaderName::RSeq, rseq.to_string());
        if !response.has_token(HeaderName::Require, "100rel") {
            response.push_back(HeaderName::Require, "100rel");
        }
        self.open = Some(Open {
            described: !response.body().is_empty(),
            response: response.clone(),
            rseq,
            interval: self.timers.t1,
            next: now + self.timers.t1,
            end: now + self.timers.give_up(),
        });
        response
    }

    /// A PRACK came in the dialog.
    pub fn on_prack(&mut self, now: Instant, prack: &Message) -> Prack {
        let rack = prack.header(HeaderName::RAck).and_then(RAck::parse);
        let fits = matches!((&self.open, rack), (Some(open), Some(rack))
            if rack.rseq == open.rseq
                && rack.cseq == self.invite_cseq
                && rack.method == Method::Invite);
        if !fits {
            return Prack::Unmatched;
        }
        self.open = None;
        if self.over {
            return Prack::Matched(None);
        }
        let next = self.kept.pop_front();
        Prack::Matched(next.map(|response| self.begin(now, response)))
    }

    /// Whether a 2xx may be sent now: not while a response with a session description is unacknowledged (§3).
    #[must_use]
    pub fn may_accept(&self) -> bool {
        !self.open.as_ref().is_some_and(|open| open.described)
    }

    /// A final response was sent: nothing is repeated any more, but a late PRACK still finds its response (§3).
    pub fn on_final_response(&mut self) {
        self.over = true;
        self.kept.clear();
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        self.open.as_ref().map(|open| open.next.min(open.end))
    }

    /// What is due at `now`, at most one thing.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        if self.over {
            return None;
        }
        let open = self.open.as_mut()?;
        if now >= open.end {
            self.open = None;
            self.on_final_response();
            return Some(Due::GiveUp);
        }
        if now < open.next {
            return None;
        }
        // §3: "an exponential backoff": unlike elsewhere without a ceiling.
        open.interval = open.interval.saturating_mul(2);
        open.next = now + open.interval;
        Some(Due::Resend(open.response.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::StatusCode;

    fn ringing(body: bool) -> Message {
        let mut invite = Message::request(Method::Invite, "sip:m@x");
        invite.push_back(HeaderName::CSeq, "5 INVITE");
        let mut response = Message::response(&invite, StatusCode::of(183), None, None);
        if body {
            response.set_body("application/sdp", "v=0\r\n");
        }
        response
    }

    fn prack(rack: &str) -> Message {
        let mut prack = Message::request(Method::Prack, "sip:m@x");
        prack.push_back(HeaderName::RAck, rack);
        prack
    }

    fn machine() -> Reliable {
        Reliable::new(5, 100, Timers::default())
    }

    fn rseq(message: &Message) -> Option<u32> {
        message.number(HeaderName::RSeq).expect("a number of ours")
    }

    #[test]
    fn rack_is_two_numbers_and_a_method() {
        let good = RAck::parse(" 776656 1  INVITE ").expect("good");
        assert_eq!(
            (good.rseq, good.cseq, good.method),
            (776_656, 1, Method::Invite)
        );
        for bad in [
            "",
            "1 INVITE",
            "1 2 INVITE x",
            "+1 2 INVITE",
            "1 99999999999 INVITE",
            "a b c",
        ] {
            assert_eq!(RAck::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_rseq_is_brought_into_range() {
        for (random, first) in [(0, 1), (0x7fff_ffff, 1), (u32::MAX, 1), (77, 77)] {
            let mut machine = Reliable::new(5, random, Timers::default());
            let sent = machine.send(Instant::now(), ringing(false)).expect("room");
            assert_eq!(rseq(&sent.expect("first goes at once")), Some(first));
        }
    }

    #[test]
    fn a_response_is_repeated_with_doubling_intervals_and_given_up_after_64_t1() {
        let t0 = Instant::now();
        let mut machine = machine();
        let sent = machine
            .send(t0, ringing(false))
            .expect("room")
            .expect("at once");
        assert!(sent.has_token(HeaderName::Require, "100rel"));
        assert_eq!(rseq(&sent), Some(100));
        let mut times = Vec::new();
        let given_up = loop {
            let now = machine.poll_timeout().expect("waits for the PRACK");
            match machine.handle_timeout(now) {
                Some(Due::Resend(again)) => {
                    assert_eq!(again.to_bytes(), sent.to_bytes());
                    times.push((now - t0).as_millis());
                }
                Some(Due::GiveUp) => break now - t0,
                None => panic!("woken for nothing"),
            }
        };
        assert_eq!(times, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
        assert_eq!(given_up, Duration::from_secs(32));
        assert_eq!(machine.state(), State::Over);
        assert_eq!(machine.poll_timeout(), None);
    }

    #[test]
    fn the_second_waits_for_the_prack_of_the_first() {
        let t0 = Instant::now();
        let mut machine = machine();
        machine
            .send(t0, ringing(true))
            .expect("room")
            .expect("at once");
        assert!(!machine.may_accept());
        assert!(machine.send(t0, ringing(false)).expect("room").is_none());
        for wrong in ["101 5 INVITE", "100 6 INVITE", "100 5 UPDATE", "nonsense"] {
            assert!(matches!(
                machine.on_prack(t0, &prack(wrong)),
                Prack::Unmatched
            ));
        }
        let Prack::Matched(Some(second)) = machine.on_prack(t0, &prack("100 5 INVITE")) else {
            panic!("the second was kept");
        };
        assert_eq!(rseq(&second), Some(101));
        assert!(machine.may_accept(), "the second has no description");
        assert!(matches!(
            machine.on_prack(t0, &prack("100 5 INVITE")),
            Prack::Unmatched
        ));
        assert!(matches!(
            machine.on_prack(t0, &prack("101 5 INVITE")),
            Prack::Matched(None)
        ));
        assert_eq!(machine.state(), State::Idle);
        assert_eq!(machine.poll_timeout(), None);
    }

    #[test]
    fn after_a_final_response_nothing_is_repeated_but_a_late_prack_is_matched() {
        let t0 = Instant::now();
        let mut machine = machine();
        machine
            .send(t0, ringing(false))
            .expect("room")
            .expect("at once");
        machine.on_final_response();
        assert_eq!(machine.state(), State::Over);
        assert!(
            machine
                .handle_timeout(t0 + Duration::from_secs(60))
                .is_none()
        );
        assert!(matches!(
            machine.on_prack(t0, &prack("100 5 INVITE")),
            Prack::Matched(None)
        ));
        assert!(
            machine
                .send(t0, ringing(false))
                .expect("not full")
                .is_none()
        );
        assert_eq!(machine.state(), State::Over);
    }

    #[test]
    fn what_waits_is_bounded() {
        let t0 = Instant::now();
        let mut machine = machine();
        for _ in 0..=MAX_KEPT {
            assert!(machine.send(t0, ringing(false)).is_ok());
        }
        assert!(matches!(machine.send(t0, ringing(false)), Err(Full)));
    }
}
