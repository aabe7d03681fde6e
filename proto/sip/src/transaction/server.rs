//! Non-INVITE server transaction (RFC 3261 §17.2.2 as changed by RFC 4320).
//!
//! ```text
//!              | request: deliver
//!              v
//!          +--------+  request: absorb
//!          | Trying |------------------------+
//!          +--------+                        |
//!  100, or      |     | 200-699: send, J     | Expiry: the client
//!  waited: send v     |                      | has given up
//!    +------------+   |                      |
//!    | Proceeding |---+----------------------+
//!    +------------+   v                      v
//!     request:      +-----------+  J   +------------+
//!     100 again     | Completed |----->| Terminated |
//!                   +-----------+      +------------+
//!                    request: response again
//! ```
//!
//! RFC 4320 §4 in three rules: no provisional response but 100; no 100 over UDP before the client's timer E has
//! reached T2, then always one; no 408, and nothing at all once the client has given up.

use std::time::Duration;

use smallvec::smallvec;

use super::Timers;
use super::effect::{Effect, Effects, Timer};
use crate::message::StatusCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// The machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    state: State,
    reliable: bool,
}

/// How long the client takes until its timer E is set to T2: T1 + 2*T1 + 4*T1 + ... (3.5 s by default).
fn trying_after(timers: &Timers) -> Duration {
    let mut interval = timers.t1;
    let mut sum = Duration::ZERO;
    // A T1 of zero would never reach T2.
    while !interval.is_zero() && interval < timers.t2 {
        sum = sum.saturating_add(interval);
        interval = interval.saturating_mul(2);
    }
    sum
}

impl Server {
    /// A request other than INVITE and ACK came.
    pub(super) fn new(reliable: bool, timers: &Timers) -> (Self, Effects) {
        let machine = Self {
            state: State::Trying,
            reliable,
        };
        (
            machine,
            smallvec![
                Effect::Deliver,
                Effect::Start(Timer::Trying, trying_after(timers)),
                Effect::Start(Timer::Expiry, timers.give_up()),
            ],
        )
    }

    #[cfg(test)]
    fn state(&self) -> State {
        self.state
    }

    /// The request came again.
    pub(super) fn on_request(&mut self) -> Effects {
        match self.state {
            State::Proceeding | State::Completed => smallvec![Effect::SendResponse],
            State::Trying | State::Terminated => Effects::new(),
        }
    }

    /// The user sends a response; nothing comes back where it may not be sent.
    pub(super) fn on_response(&mut self, status: StatusCode, timers: &Timers) -> Effects {
        match self.state {
            State::Trying | State::Proceeding if status.is_provisional() => {
                // RFC 4320 §4.1: 100 only, and on UDP not before the Trying timer sends it.
                if status.get() == 100 && self.reliable {
                    self.state = State::Proceeding;
                    smallvec![Effect::Stop(Timer::Trying), Effect::SendResponse]
                } else {
                    Effects::new()
                }
            }
            // RFC 4320 §4.2: no 408; what is left is to absorb repetitions until Expiry.
            State::Trying | State::Proceeding if status.get() == 408 => {
                smallvec![Effect::Stop(Timer::Trying)]
            }
            State::Trying | State::Proceeding if self.reliable => {
                // Timer J is zero.
                self.state = State::Terminated;
                smallvec![Effect::SendResponse, Effect::End]
            }
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                smallvec![
                    Effect::Stop(Timer::Trying),
                    Effect::SendResponse,
                    Effect::Start(Timer::J, timers.give_up()),
                ]
            }
            State::Completed | State::Terminated => Effects::new(),
        }
    }

    /// A timer of this transaction fired.
    pub(super) fn on_timer(&mut self, timer: Timer) -> Effects {
        match (self.state, timer) {
            (State::Trying, Timer::Trying) => {
                self.state = State::Proceeding;
                smallvec![Effect::SendTrying]
            }
            (State::Trying | State::Proceeding, Timer::Expiry) | (State::Completed, Timer::J) => {
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

    fn apply(machine: &mut Server, event: &str) -> Effects {
        let timers = Timers::default();
        match event {
            "request" => machine.on_request(),
            "Trying" => machine.on_timer(Timer::Trying),
            "Expiry" => machine.on_timer(Timer::Expiry),
            "J" => machine.on_timer(Timer::J),
            status => {
                let code = status.parse().expect("a test event is a status or a name");
                let status = StatusCode::new(code).expect("a test status is in range");
                machine.on_response(status, &timers)
            }
        }
    }

    fn table(reliable: bool) -> String {
        let paths: [(&str, &[&str]); 4] = [
            ("Trying", &[]),
            ("Proceeding", &["Trying"]),
            ("Completed", &["200"]),
            ("Terminated", &["Expiry"]),
        ];
        let mut out = String::new();
        for (name, path) in paths {
            for event in [
                "request", "100", "180", "200", "404", "408", "Trying", "Expiry", "J",
            ] {
                let (mut machine, _) = Server::new(reliable, &Timers::default());
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
Trying 200 -> Completed Trying=off SendResponse J=32000
Trying 404 -> Completed Trying=off SendResponse J=32000
Trying 408 -> Trying Trying=off
Trying Trying -> Proceeding SendTrying
Trying Expiry -> Terminated End
Proceeding request -> Proceeding SendResponse
Proceeding 200 -> Completed Trying=off SendResponse J=32000
Proceeding 404 -> Completed Trying=off SendResponse J=32000
Proceeding 408 -> Proceeding Trying=off
Proceeding Expiry -> Terminated End
Completed request -> Completed SendResponse
Completed J -> Terminated End
"
        );
    }

    #[test]
    fn over_streams_a_100_may_go_at_any_time_and_a_final_response_ends_it() {
        let table = table(true);
        assert!(table.contains("Trying 100 -> Proceeding Trying=off SendResponse\n"));
        assert!(table.contains("Trying 200 -> Terminated SendResponse End\n"));
        assert!(!table.contains("180"));
    }

    #[test]
    fn the_100_waits_until_the_clients_timer_e_is_t2() {
        let (_, effects) = Server::new(false, &Timers::default());
        assert_eq!(render(&effects), "Deliver Trying=3500 Expiry=32000");
    }
}
