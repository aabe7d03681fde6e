//! A 2xx to INVITE that waits for its ACK (RFC 3261 §13.3.1.4).
//!
//! ```text
//!   2xx sent     +---------+  timer: send again, T1 doubling up to T2
//! -------------->| Waiting |
//!                +---------+
//!           ACK:   |     |  64*T1: no ACK, the session is ended by BYE
//!                  v     v
//!     +--------------+ +-----------+
//!     | Acknowledged | | Abandoned |
//!     +--------------+ +-----------+
//! ```
//!
//! It is the UAS core's own: the transaction layer knows nothing of it beyond letting repeated 2xx pass
//! (RFC 6026), and it also runs over streams, since a hop further on may be UDP.

use std::time::{Duration, Instant};

use crate::message::{Message, Method};
use crate::transaction::Timers;

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The 2xx has gone, the ACK has not come.
    Waiting,
    /// The ACK came.
    Acknowledged,
    /// The ACK did not come in 64*T1.
    Abandoned,
}

/// What to do now.
#[derive(Clone, Debug)]
pub enum Due {
    /// Hand this 2xx to [`crate::transaction::TransactionLayer::respond`] again.
    Resend(Message),
    /// Nobody acknowledged: the dialog stays confirmed, and the session "SHOULD be terminated" by a BYE.
    GiveUp,
}

/// One 2xx.
#[derive(Clone, Debug)]
pub struct Accepted {
    state: State,
    response: Message,
    cseq: u32,
    interval: Duration,
    longest: Duration,
    next: Instant,
    end: Instant,
}

impl Accepted {
    /// The 2xx has just been sent for the first time.
    #[must_use]
    pub fn new(now: Instant, response: Message, timers: &Timers) -> Self {
        Self {
            state: State::Waiting,
            // An unreadable CSeq cannot be: the response's was copied from a request that made a dialog.
            cseq: response.cseq().map(|c| c.number).unwrap_or(0),
            response,
            interval: timers.t1,
            longest: timers.t2,
            next: now + timers.t1,
            end: now + timers.give_up(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// CSeq number of the INVITE.
    #[must_use]
    pub fn cseq(&self) -> u32 {
        self.cseq
    }

    /// An ACK came in the dialog. True when it is the first for this 2xx (its CSeq number is the INVITE's), so that
    /// an answer in it is to be read.
    pub fn on_ack(&mut self, ack: &Message) -> bool {
        let fits = *ack.method() == Method::Ack && ack.cseq().is_ok_and(|c| c.number == self.cseq);
        if self.state != State::Waiting || !fits {
            return false;
        }
        self.state = State::Acknowledged;
        true
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` once it is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.state == State::Waiting).then(|| self.next.min(self.end))
    }

    /// What is due at `now`, at most one thing.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        if self.state != State::Waiting {
            return None;
        }
        if now >= self.end {
            self.state = State::Abandoned;
            return Some(Due::GiveUp);
        }
        if now < self.next {
            return None;
        }
        self.interval = self.interval.saturating_mul(2).min(self.longest);
        self.next = now + self.interval;
        Some(Due::Resend(self.response.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{HeaderName, StatusCode};

    fn response() -> Message {
        let mut invite = Message::request(Method::Invite, "sip:m@x");
        invite.push_back(HeaderName::CSeq, "5 INVITE");
        Message::response(&invite, StatusCode::of(200), None, None)
    }

    fn ack(cseq: u32) -> Message {
        let mut ack = Message::request(Method::Ack, "sip:m@x");
        ack.push_back(HeaderName::CSeq, format!("{cseq} ACK"));
        ack
    }

    #[test]
    fn the_2xx_is_repeated_from_t1_up_to_t2_and_given_up_after_64_t1() {
        let t0 = Instant::now();
        let mut accepted = Accepted::new(t0, response(), &Timers::default());
        let mut sent = Vec::new();
        let given_up = loop {
            let now = accepted.poll_timeout().expect("waits for the ACK");
            match accepted.handle_timeout(now) {
                Some(Due::Resend(_)) => sent.push((now - t0).as_millis()),
                Some(Due::GiveUp) => break now - t0,
                None => panic!("woken for nothing"),
            }
        };
        assert_eq!(
            sent,
            [
                500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
            ]
        );
        assert_eq!(given_up, Duration::from_secs(32));
        assert_eq!(accepted.state(), State::Abandoned);
        assert_eq!(accepted.poll_timeout(), None);
        assert!(!accepted.on_ack(&ack(5)));
    }

    #[test]
    fn every_transition() {
        let t0 = Instant::now();
        let late = t0 + Duration::from_secs(32);
        let fresh = || Accepted::new(t0, response(), &Timers::default());
        let mut table = String::new();
        for (name, prepare) in [
            ("Waiting", (|_: &mut Accepted| {}) as fn(&mut Accepted)),
            ("Acknowledged", |a| assert!(a.on_ack(&ack(5)))),
        ] {
            for (event, apply) in [
                (
                    "ack",
                    (|a, _| format!("{}", a.on_ack(&ack(5))))
                        as fn(&mut Accepted, Instant) -> String,
                ),
                ("ack of another", |a, _| format!("{}", a.on_ack(&ack(4)))),
                ("T1", |a, t| {
                    kind(a.handle_timeout(t - Duration::from_millis(31_500)).as_ref())
                }),
                ("64*T1", |a, t| kind(a.handle_timeout(t).as_ref())),
            ] {
                let mut machine = fresh();
                prepare(&mut machine);
                let outcome = apply(&mut machine, late);
                table += &format!("{name} {event} -> {:?} {outcome}\n", machine.state());
            }
        }
        assert_eq!(
            table,
            "\
Waiting ack -> Acknowledged true
Waiting ack of another -> Waiting false
Waiting T1 -> Waiting Resend
Waiting 64*T1 -> Abandoned GiveUp
Acknowledged ack -> Acknowledged false
Acknowledged ack of another -> Acknowledged false
Acknowledged T1 -> Acknowledged -
Acknowledged 64*T1 -> Acknowledged -
"
        );
    }

    fn kind(due: Option<&Due>) -> String {
        match due {
            Some(Due::Resend(_)) => "Resend",
            Some(Due::GiveUp) => "GiveUp",
            None => "-",
        }
        .to_owned()
    }
}
