//! INVITE server transaction (RFC 3261 §17.2.1 as changed by RFC 6026 §7.1).
//!
//! ```text
//!                  | INVITE: deliver, 200 ms to a 100
//!                  v
//!           +------------+  INVITE: last 1xx again
//!           | Proceeding |  1xx of the user: send
//!           +------------+
//!  300-699: |            | 2xx: send, L
//!  send,G,H v            v
//!     +-----------+   +----------+
//!     | Completed |   | Accepted |  INVITE: absorb; ACK: deliver; 2xx of the user: send
//!     +-----------+   +----------+
//!   G, INVITE:  |  | H: tell the user  | L
//!   send again  |  +---------+---------+
//!          ACK: |            |
//!               v            v
//!     +-----------+  I  +------------+
//!     | Confirmed |---->| Terminated |
//!     +-----------+     +------------+
//! ```

use std::time::Duration;

use smallvec::smallvec;

use super::Timers;
use super::effect::{Effect, Effects, Timer};
use crate::message::StatusCode;

/// §17.2.1: 100 "MUST" go out when the user will not answer within 200 ms. Raising it lets clients retransmit.
const TRYING_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    Terminated,
}

/// The machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct InviteServer {
    state: State,
    reliable: bool,
    /// A provisional response has gone, so a repeated INVITE has something to be answered with.
    answered: bool,
    /// Timer G's present value.
    interval: Duration,
}

impl InviteServer {
    /// An INVITE came.
    pub(super) fn new(reliable: bool, timers: &Timers) -> (Self, Effects) {
        let machine = Self {
            state: State::Proceeding,
            reliable,
            answered: false,
            interval: timers.t1,
        };
        (
            machine,
            smallvec![Effect::Deliver, Effect::Start(Timer::Trying, TRYING_AFTER)],
        )
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// The INVITE came again.
    pub(super) fn on_request(&mut self) -> Effects {
        match self.state {
            State::Proceeding if self.answered => smallvec![Effect::SendResponse],
            State::Completed => smallvec![Effect::SendResponse],
            // RFC 6026 §7.1: in Accepted the retransmission of the 2xx is the user's alone.
            State::Proceeding | State::Confirmed | State::Accepted | State::Terminated => {
                Effects::new()
            }
        }
    }

    /// An ACK came that matches the INVITE.
    pub(super) fn on_ack(&mut self, timers: &Timers) -> Effects {
        match self.state {
            State::Completed if self.reliable => {
                // Timer I is zero.
                self.state = State::Terminated;
                smallvec![Effect::Acknowledged, Effect::End]
            }
            State::Completed => {
                self.state = State::Confirmed;
                smallvec![
                    Effect::Stop(Timer::G),
                    Effect::Acknowledged,
                    Effect::Start(Timer::I, timers.t4),
                ]
            }
            // RFC 6026 §7.1: the ACK of the 2xx, from a client that uses the INVITE's branch for it.
            State::Accepted => smallvec![Effect::Deliver],
            State::Proceeding | State::Confirmed | State::Terminated => Effects::new(),
        }
    }

    /// The user sends a response; nothing comes back where it may not be sent any more.
    pub(super) fn on_response(&mut self, status: StatusCode, timers: &Timers) -> Effects {
        match self.state {
            State::Proceeding if status.is_provisional() => {
                self.answered = true;
                smallvec![Effect::Stop(Timer::Trying), Effect::SendResponse]
            }
            State::Proceeding if status.is_success() => {
                self.state = State::Accepted;
                smallvec![
                    Effect::Stop(Timer::Trying),
                    Effect::SendResponse,
                    Effect::Start(Timer::L, timers.give_up()),
                ]
            }
            State::Proceeding => {
                self.state = State::Completed;
                let mut effects: Effects =
                    smallvec![Effect::Stop(Timer::Trying), Effect::SendResponse];
                if !self.reliable {
                    effects.push(Effect::Start(Timer::G, timers.t1));
                }
                effects.push(Effect::Start(Timer::H, timers.give_up()));
                effects
            }
            State::Accepted if status.is_success() => smallvec![Effect::SendResponse],
            State::Completed | State::Confirmed | State::Accepted | State::Terminated => {
                Effects::new()
            }
        }
    }

    /// A timer of this transaction fired.
    pub(super) fn on_timer(&mut self, timer: Timer, timers: &Timers) -> Effects {
        match (self.state, timer) {
            (State::Proceeding, Timer::Trying) if !self.answered => {
                self.answered = true;
                smallvec![Effect::SendTrying]
            }
            (State::Completed, Timer::G) => {
                self.interval = self.interval.saturating_mul(2).min(timers.t2);
                smallvec![Effect::SendResponse, Effect::Start(Timer::G, self.interval)]
            }
            (State::Completed, Timer::H) => {
                self.state = State::Terminated;
                smallvec![Effect::NotAcknowledged, Effect::End]
            }
            (State::Confirmed, Timer::I) | (State::Accepted, Timer::L) => {
                self.state = State::Terminated;
                smallvec![Effect::End]
            }
            _ => Effects::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::effect::render;

    fn apply(machine: &mut InviteServer, event: &str) -> Effects {
        let timers = Timers::default();
        match event {
            "INVITE" => machine.on_request(),
            "ACK" => machine.on_ack(&timers),
            "G" => machine.on_timer(Timer::G, &timers),
            "H" => machine.on_timer(Timer::H, &timers),
            "I" => machine.on_timer(Timer::I, &timers),
            "L" => machine.on_timer(Timer::L, &timers),
            "Trying" => machine.on_timer(Timer::Trying, &timers),
            status => {
                let code = status.parse().expect("a test event is a status or a name");
                let status = StatusCode::new(code).expect("a test status is in range");
                machine.on_response(status, &timers)
            }
        }
    }

    fn table(reliable: bool) -> String {
        let paths: [(&str, &[&str]); 6] = [
            ("Proceeding", &[]),
            ("Proceeding+1xx", &["180"]),
            ("Completed", &["486"]),
            ("Confirmed", &["486", "ACK"]),
            ("Accepted", &["200"]),
            ("Terminated", &["200", "L"]),
        ];
        let mut out = String::new();
        for (name, path) in paths {
            for event in [
                "INVITE", "ACK", "100", "180", "200", "486", "Trying", "G", "H", "I", "L",
            ] {
                let (mut machine, _) = InviteServer::new(reliable, &Timers::default());
                for step in path {
                    apply(&mut machine, step);
                }
                let before = machine.state();
                let effects = apply(&mut machine, event);
                if machine.state() != before || !effects.is_empty() {
                    out += &format!(
                        "{name} {event} -> {:?} {}\n",
                        machine.state(),
                        render(&effects)
                    );
                }
            }
        }
        out
    }

    #[test]
    fn every_transition_over_udp_is_the_one_of_the_figure() {
        assert_eq!(
            table(false),
            "\
Proceeding 100 -> Proceeding Trying=off SendResponse
Proceeding 180 -> Proceeding Trying=off SendResponse
Proceeding 200 -> Accepted Trying=off SendResponse L=32000
Proceeding 486 -> Completed Trying=off SendResponse G=500 H=32000
Proceeding Trying -> Proceeding SendTrying
Proceeding+1xx INVITE -> Proceeding SendResponse
Proceeding+1xx 100 -> Proceeding Trying=off SendResponse
Proceeding+1xx 180 -> Proceeding Trying=off SendResponse
Proceeding+1xx 200 -> Accepted Trying=off SendResponse L=32000
Proceeding+1xx 486 -> Completed Trying=off SendResponse G=500 H=32000
Completed INVITE -> Completed SendResponse
Completed ACK -> Confirmed G=off Acknowledged I=5000
Completed G -> Completed SendResponse G=1000
Completed H -> Terminated NotAcknowledged End
Confirmed I -> Terminated End
Accepted ACK -> Accepted Deliver
Accepted 200 -> Accepted SendResponse
Accepted L -> Terminated End
"
        );
    }

    #[test]
    fn over_streams_the_response_is_sent_once_and_the_ack_ends_it() {
        let table = table(true);
        assert!(
            table.contains("Proceeding 486 -> Completed Trying=off SendResponse H=32000\n"),
            "{table}"
        );
        assert!(table.contains("Completed ACK -> Terminated Acknowledged End\n"));
    }

    #[test]
    fn timer_g_doubles_up_to_t2() {
        let timers = Timers::default();
        let (mut machine, _) = InviteServer::new(false, &timers);
        machine.on_response(StatusCode::of(486), &timers);
        let seen: Vec<String> = (0..5)
            .map(|_| render(&machine.on_timer(Timer::G, &timers)))
            .collect();
        assert_eq!(
            seen,
            ["G=1000", "G=2000", "G=4000", "G=4000", "G=4000"].map(|g| format!("SendResponse {g}"))
        );
    }
}
