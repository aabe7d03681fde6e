//! Non-INVITE client transaction (RFC 3261 §17.1.2).
//!
//! ```text
//!              | request: send, E, F
//!              v
//!          +--------+  E: send again
//!          | Trying |----------------------+
//!          +--------+                      |
//!     1xx: |     | 200-699: deliver, K     | F, transport error:
//!  deliver v     |                         | tell the user
//!    +------------+  200-699: deliver, K   |
//!    | Proceeding |-----+------------------+
//!    +------------+     v                  v
//!     E: send again   +-----------+ K  +------------+
//!     1xx: deliver    | Completed |--->| Terminated |
//!                     +-----------+    +------------+
//! ```

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
pub(super) struct Client {
    state: State,
    reliable: bool,
    /// Timer E's present value.
    interval: Duration,
}

impl Client {
    /// The user sends a request other than INVITE and ACK.
    pub(super) fn new(reliable: bool, timers: &Timers) -> (Self, Effects) {
        let machine = Self {
            state: State::Trying,
            reliable,
            interval: timers.t1,
        };
        let mut effects: Effects = smallvec![Effect::SendRequest];
        if !reliable {
            effects.push(Effect::Start(Timer::E, timers.t1));
        }
        effects.push(Effect::Start(Timer::F, timers.give_up()));
        (machine, effects)
    }

    #[cfg(test)]
    fn state(&self) -> State {
        self.state
    }

    /// A response came whose top Via and CSeq method name this transaction.
    pub(super) fn on_response(&mut self, status: StatusCode, timers: &Timers) -> Effects {
        match self.state {
            State::Trying | State::Proceeding if status.is_provisional() => {
                self.state = State::Proceeding;
                smallvec![Effect::Deliver]
            }
            State::Trying | State::Proceeding if self.reliable => {
                // Timer K is zero.
                self.state = State::Terminated;
                smallvec![Effect::Deliver, Effect::End]
            }
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                smallvec![
                    Effect::Stop(Timer::E),
                    Effect::Deliver,
                    Effect::Start(Timer::K, timers.t4),
                ]
            }
            State::Completed | State::Terminated => Effects::new(),
        }
    }

    /// A timer of this transaction fired.
    pub(super) fn on_timer(&mut self, timer: Timer, timers: &Timers) -> Effects {
        match (self.state, timer) {
            (State::Trying, Timer::E) => {
                self.interval = self.interval.saturating_mul(2).min(timers.t2);
                smallvec![Effect::SendRequest, Effect::Start(Timer::E, self.interval)]
            }
            // §17.1.2.2: in Proceeding timer E is always T2.
            (State::Proceeding, Timer::E) => {
                smallvec![Effect::SendRequest, Effect::Start(Timer::E, timers.t2)]
            }
            (State::Trying | State::Proceeding, Timer::F) => {
                self.state = State::Terminated;
                smallvec![Effect::TimedOut, Effect::End]
            }
            (State::Completed, Timer::K) => {
                self.state = State::Terminated;
                smallvec![Effect::End]
            }
            _ => Effects::new(),
        }
    }

    /// The transport could not send the request.
    pub(super) fn on_transport_error(&mut self) -> Effects {
        match self.state {
            State::Trying | State::Proceeding => {
                self.state = State::Terminated;
                smallvec![Effect::TransportFailed, Effect::End]
            }
            State::Completed | State::Terminated => Effects::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::effect::render;

    fn apply(machine: &mut Client, event: &str) -> Effects {
        let timers = Timers::default();
        match event {
            "error" => machine.on_transport_error(),
            "E" => machine.on_timer(Timer::E, &timers),
            "F" => machine.on_timer(Timer::F, &timers),
            "K" => machine.on_timer(Timer::K, &timers),
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
            ("Proceeding", &["100"]),
            ("Completed", &["200"]),
            ("Terminated", &["error"]),
        ];
        let mut out = String::new();
        for (name, path) in paths {
            for event in ["100", "200", "404", "E", "F", "K", "error"] {
                let (mut machine, _) = Client::new(reliable, &Timers::default());
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
Trying 100 -> Proceeding Deliver
Trying 200 -> Completed E=off Deliver K=5000
Trying 404 -> Completed E=off Deliver K=5000
Trying E -> Trying SendRequest E=1000
Trying F -> Terminated TimedOut End
Trying error -> Terminated TransportFailed End
Proceeding 100 -> Proceeding Deliver
Proceeding 200 -> Completed E=off Deliver K=5000
Proceeding 404 -> Completed E=off Deliver K=5000
Proceeding E -> Proceeding SendRequest E=4000
Proceeding F -> Terminated TimedOut End
Proceeding error -> Terminated TransportFailed End
Completed K -> Terminated End
"
        );
    }

    #[test]
    fn over_streams_nothing_is_sent_twice_and_a_final_response_ends_it() {
        let (_, first) = Client::new(true, &Timers::default());
        assert_eq!(render(&first), "SendRequest F=32000");
        assert!(table(true).contains("Trying 200 -> Terminated Deliver End\n"));
    }

    #[test]
    fn timer_e_doubles_up_to_t2() {
        let timers = Timers::default();
        let (mut machine, first) = Client::new(false, &timers);
        assert_eq!(render(&first), "SendRequest E=500 F=32000");
        let seen: Vec<String> = (0..5)
            .map(|_| render(&machine.on_timer(Timer::E, &timers)))
            .collect();
        assert_eq!(
            seen,
            ["E=1000", "E=2000", "E=4000", "E=4000", "E=4000"].map(|e| format!("SendRequest {e}"))
        );
    }
}
