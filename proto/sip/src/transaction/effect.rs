//! What a transaction state machine asks its surroundings to do.

use std::time::Duration;

use smallvec::SmallVec;

/// The timers by the letters of RFC 3261 table 4 and RFC 6026, and three that the RFCs describe without naming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// When the INVITE must be sent again.
    A,
    /// When no response to the INVITE came at all.
    B,
    /// When repeated final responses to the INVITE need no ACK any more.
    D,
    /// When the request must be sent again.
    E,
    /// When no final response to the request came.
    F,
    /// When the final response to the INVITE must be sent again.
    G,
    /// When the ACK did not come.
    H,
    /// When repeated ACKs need not be absorbed any more.
    I,
    /// When repeated requests need not be answered any more.
    J,
    /// When repeated responses need not be absorbed any more.
    K,
    /// When repeated INVITEs need not be absorbed any more after a 2xx (RFC 6026).
    L,
    /// When repeated 2xx are not handed up any more (RFC 6026).
    M,
    /// When the user has kept the client waiting so long that it needs a 100 (§17.2.1, RFC 4320 §4.1).
    Trying,
    /// When a cancelled INVITE is given up (§9.1).
    Cancelled,
    /// When the client of a non-INVITE transaction has given up, so that no answer helps any more (RFC 4320 §4.2).
    Expiry,
}

/// Each transaction has room for one timer of each kind; starting one replaces the other of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Something is sent again (or, for `Trying`, sent at last).
    Again = 0,
    /// The state is left.
    Leave = 1,
}

impl Timer {
    pub(super) fn slot(self) -> Slot {
        match self {
            Self::A | Self::E | Self::G | Self::Trying => Slot::Again,
            _ => Slot::Leave,
        }
    }
}

/// One step to carry out, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send the request (again).
    SendRequest,
    /// Send the ACK of a non-2xx final response (§17.1.1.3).
    SendAck,
    /// Send the CANCEL that the user asked for.
    SendCancel,
    /// Send the last response (again).
    SendResponse,
    /// Send a 100 of the layer's own.
    SendTrying,
    /// Hand the message at hand to the user.
    Deliver,
    /// Tell the user that the ACK came.
    Acknowledged,
    /// Tell the user that the ACK never came.
    NotAcknowledged,
    /// Tell the user that no response came.
    TimedOut,
    /// Tell the user that the transport failed.
    TransportFailed,
    /// Start a timer; it replaces the one in its slot.
    Start(Timer, Duration),
    /// Stop a timer.
    Stop(Timer),
    /// The transaction is terminated: forget it.
    End,
}

/// The steps of one transition.
pub(super) type Effects = SmallVec<[Effect; 4]>;

/// Renders transitions for the snapshot tests: one line each, durations in ms.
#[cfg(test)]
pub(super) fn render(effects: &Effects) -> String {
    let steps: Vec<String> = effects
        .iter()
        .map(|e| match e {
            Effect::Start(timer, after) => format!("{timer:?}={}", after.as_millis()),
            Effect::Stop(timer) => format!("{timer:?}=off"),
            other => format!("{other:?}"),
        })
        .collect();
    if steps.is_empty() {
        "-".to_owned()
    } else {
        steps.join(" ")
    }
}
