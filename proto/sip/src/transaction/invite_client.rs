//! INVITE client transaction (RFC 3261 §17.1.1 as changed by RFC 6026 §7.2).
//!
//! ```text
//!                 | INVITE: send, A, B
//!                 v
//!            +---------+  A: send again
//!     +------| Calling |------------------+----------------+
//!     |      +---------+                  |                |
//!     | 1xx: deliver   | 300-699          | 2xx            | B, transport error:
//!     v                | deliver, ACK     | deliver        | tell the user
//! +------------+       v                  v                v
//! | Proceeding |-->+-----------+      +----------+   +------------+
//! +------------+   | Completed |      | Accepted |   | Terminated |
//!   |   1xx:       +-----------+      +----------+   +------------+
//!   |   deliver     300-699: ACK       2xx: deliver        ^
//!   |               D, transport error | M                 |
//!   |                       +----------+-------------------+
//!   +-- 2xx --> Accepted
//! ```
//!
//! Cancelling (§9.1) is part of it: the CANCEL waits for a provisional response, and once it has gone the
//! INVITE is given up after 64*T1 without a final response.

use std::time::Duration;

use smallvec::smallvec;

use super::Timers;
use super::effect::{Effect, Effects, Timer};
use crate::message::StatusCode;

/// §17.1.1.2: timer D is "at least 32 seconds for unreliable transports". Lowering it lets the last
/// retransmissions of a final response find no transaction.
const TIMER_D_MIN: Duration = Duration::from_secs(32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Calling,
    Proceeding,
    Completed,
    Accepted,
    Terminated,
}

/// The machine: its state, and what a state needs to remember.
#[derive(Clone, Copy, Debug)]
pub(super) struct InviteClient {
    state: State,
    reliable: bool,
    /// The user wants it cancelled; the CANCEL has not gone yet.
    cancel_wanted: bool,
    /// The CANCEL has gone.
    cancelled: bool,
    /// Timer A's present value.
    interval: Duration,
}

impl InviteClient {
    /// The user sends an INVITE. `reliable`: the transport retransmits by itself.
    pub(super) fn new(reliable: bool, timers: &Timers) -> (Self, Effects) {
        let machine = Self {
            state: State::Calling,
            reliable,
            cancel_wanted: false,
            cancelled: false,
            interval: timers.t1,
        };
        let mut effects: Effects = smallvec![Effect::SendRequest];
        if !reliable {
            effects.push(Effect::Start(Timer::A, timers.t1));
        }
        effects.push(Effect::Start(Timer::B, timers.give_up()));
        (machine, effects)
    }

    #[cfg(test)]
    fn state(&self) -> State {
        self.state
    }

    /// A response came whose top Via names this transaction.
    pub(super) fn on_response(&mut self, status: StatusCode, timers: &Timers) -> Effects {
        match self.state {
            State::Calling | State::Proceeding => {
                if status.is_provisional() {
                    self.on_provisional(timers)
                } else if status.is_success() {
                    self.state = State::Accepted;
                    smallvec![
                        Effect::Stop(Timer::A),
                        Effect::Deliver,
                        Effect::Start(Timer::M, timers.give_up()),
                    ]
                } else {
                    self.on_failure(timers)
                }
            }
            // §17.1.1.2: "Any retransmissions of the final response ... MUST cause the ACK to be re-passed".
            State::Completed if !status.is_provisional() && !status.is_success() => {
                smallvec![Effect::SendAck]
            }
            // RFC 6026 §7.2: 2xx, of any fork, go up until timer M fires.
            State::Accepted if status.is_success() => smallvec![Effect::Deliver],
            State::Completed | State::Accepted | State::Terminated => Effects::new(),
        }
    }

    fn on_provisional(&mut self, timers: &Timers) -> Effects {
        let mut effects = Effects::new();
        if self.state == State::Calling {
            self.state = State::Proceeding;
            effects.push(Effect::Stop(Timer::A));
            effects.push(Effect::Stop(Timer::B));
        }
        effects.push(Effect::Deliver);
        if self.cancel_wanted {
            self.send_cancel(timers, &mut effects);
        }
        effects
    }

    fn on_failure(&mut self, timers: &Timers) -> Effects {
        let mut effects: Effects =
            smallvec![Effect::Stop(Timer::A), Effect::Deliver, Effect::SendAck];
        if self.reliable {
            // Timer D is zero.
            self.state = State::Terminated;
            effects.push(Effect::End);
        } else {
            self.state = State::Completed;
            let linger = timers.give_up().max(TIMER_D_MIN);
            effects.push(Effect::Start(Timer::D, linger));
        }
        effects
    }

    /// The user no longer wants an answer (§9.1).
    pub(super) fn on_cancel_requested(&mut self, timers: &Timers) -> Effects {
        let mut effects = Effects::new();
        match self.state {
            State::Calling => self.cancel_wanted = true,
            State::Proceeding if !self.cancelled => self.send_cancel(timers, &mut effects),
            State::Proceeding | State::Completed | State::Accepted | State::Terminated => {}
        }
        effects
    }

    fn send_cancel(&mut self, timers: &Timers, effects: &mut Effects) {
        self.cancel_wanted = false;
        self.cancelled = true;
        effects.push(Effect::SendCancel);
        effects.push(Effect::Start(Timer::Cancelled, timers.give_up()));
    }

    fn give_up(&mut self) -> Effects {
        self.state = State::Terminated;
        smallvec![Effect::TimedOut, Effect::End]
    }

    /// A timer of this transaction fired.
    pub(super) fn on_timer(&mut self, timer: Timer) -> Effects {
        match (self.state, timer) {
            (State::Calling, Timer::A) => {
                self.interval = self.interval.saturating_mul(2);
                smallvec![Effect::SendRequest, Effect::Start(Timer::A, self.interval)]
            }
            (State::Calling, Timer::B) => self.give_up(),
            (State::Proceeding, Timer::Cancelled) if self.cancelled => self.give_up(),
            (State::Completed, Timer::D) | (State::Accepted, Timer::M) => {
                self.state = State::Terminated;
                smallvec![Effect::End]
            }
            _ => Effects::new(),
        }
    }

    /// The transport could not send the INVITE or the ACK.
    pub(super) fn on_transport_error(&mut self) -> Effects {
        match self.state {
            State::Calling | State::Completed => {
                self.state = State::Terminated;
                smallvec![Effect::TransportFailed, Effect::End]
            }
            // Nothing of this transaction was being sent: the figure has no such arrow.
            State::Proceeding | State::Accepted | State::Terminated => Effects::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::effect::render;

    const EVENTS: [&str; 13] = [
        "180",
        "200",
        "486",
        "cancel",
        "A",
        "B",
        "D",
        "M",
        "Cancelled",
        "K",
        "error",
        "100",
        "603",
    ];

    fn apply(machine: &mut InviteClient, event: &str) -> Effects {
        let timers = Timers::default();
        match event {
            "cancel" => machine.on_cancel_requested(&timers),
            "error" => machine.on_transport_error(),
            "A" => machine.on_timer(Timer::A),
            "B" => machine.on_timer(Timer::B),
            "D" => machine.on_timer(Timer::D),
            "K" => machine.on_timer(Timer::K),
            "M" => machine.on_timer(Timer::M),
            "Cancelled" => machine.on_timer(Timer::Cancelled),
            status => {
                let code = status.parse().expect("a test event is a status or a name");
                let status = StatusCode::new(code).expect("a test status is in range");
                machine.on_response(status, &timers)
            }
        }
    }

    /// Every state, every event: `state event -> state effects`, those that do nothing left out.
    fn table(reliable: bool) -> String {
        let paths: [(&str, &[&str]); 7] = [
            ("Calling", &[]),
            ("Calling+c", &["cancel"]),
            ("Proceeding", &["180"]),
            ("Proceeding+c", &["180", "cancel"]),
            ("Completed", &["486"]),
            ("Accepted", &["200"]),
            ("Terminated", &["error"]),
        ];
        let mut out = String::new();
        for (name, path) in paths {
            for event in EVENTS {
                let (mut machine, _) = InviteClient::new(reliable, &Timers::default());
                for step in path {
                    apply(&mut machine, step);
                }
                let before = (machine.state(), machine.cancel_wanted);
                let effects = apply(&mut machine, event);
                if (machine.state(), machine.cancel_wanted) != before || !effects.is_empty() {
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
Calling 180 -> Proceeding A=off B=off Deliver
Calling 200 -> Accepted A=off Deliver M=32000
Calling 486 -> Completed A=off Deliver SendAck D=32000
Calling cancel -> Calling -
Calling A -> Calling SendRequest A=1000
Calling B -> Terminated TimedOut End
Calling error -> Terminated TransportFailed End
Calling 100 -> Proceeding A=off B=off Deliver
Calling 603 -> Completed A=off Deliver SendAck D=32000
Calling+c 180 -> Proceeding A=off B=off Deliver SendCancel Cancelled=32000
Calling+c 200 -> Accepted A=off Deliver M=32000
Calling+c 486 -> Completed A=off Deliver SendAck D=32000
Calling+c A -> Calling SendRequest A=1000
Calling+c B -> Terminated TimedOut End
Calling+c error -> Terminated TransportFailed End
Calling+c 100 -> Proceeding A=off B=off Deliver SendCancel Cancelled=32000
Calling+c 603 -> Completed A=off Deliver SendAck D=32000
Proceeding 180 -> Proceeding Deliver
Proceeding 200 -> Accepted A=off Deliver M=32000
Proceeding 486 -> Completed A=off Deliver SendAck D=32000
Proceeding cancel -> Proceeding SendCancel Cancelled=32000
Proceeding 100 -> Proceeding Deliver
Proceeding 603 -> Completed A=off Deliver SendAck D=32000
Proceeding+c 180 -> Proceeding Deliver
Proceeding+c 200 -> Accepted A=off Deliver M=32000
Proceeding+c 486 -> Completed A=off Deliver SendAck D=32000
Proceeding+c Cancelled -> Terminated TimedOut End
Proceeding+c 100 -> Proceeding Deliver
Proceeding+c 603 -> Completed A=off Deliver SendAck D=32000
Completed 486 -> Completed SendAck
Completed D -> Terminated End
Completed error -> Terminated TransportFailed End
Completed 603 -> Completed SendAck
Accepted 200 -> Accepted Deliver
Accepted M -> Terminated End
"
        );
    }

    #[test]
    fn over_streams_nothing_is_sent_twice_and_completed_is_left_at_once() {
        let (_, first) = InviteClient::new(true, &Timers::default());
        assert_eq!(render(&first), "SendRequest B=32000");
        let table = table(true);
        assert!(table.contains("Calling 486 -> Terminated A=off Deliver SendAck End\n"));
        assert!(table.contains("Calling 200 -> Accepted A=off Deliver M=32000\n"));
        assert!(!table.contains("-> Completed"));
    }

    #[test]
    fn timer_a_doubles_without_a_ceiling() {
        let (mut machine, first) = InviteClient::new(false, &Timers::default());
        assert_eq!(render(&first), "SendRequest A=500 B=32000");
        let seen: Vec<String> = (0..6)
            .map(|_| render(&machine.on_timer(Timer::A)))
            .collect();
        assert_eq!(
            seen,
            ["A=1000", "A=2000", "A=4000", "A=8000", "A=16000", "A=32000"]
                .map(|a| format!("SendRequest {a}"))
        );
    }

    #[test]
    fn timer_d_is_never_below_32_seconds() {
        let quick = Timers {
            t1: Duration::from_millis(10),
            ..Timers::default()
        };
        let (mut machine, _) = InviteClient::new(false, &quick);
        let effects = machine.on_response(StatusCode::of(486), &quick);
        assert_eq!(effects.last(), Some(&Effect::Start(Timer::D, TIMER_D_MIN)));
    }
}
