//! Names of things, as newtypes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest meeting name, bytes: it stands in URIs, store keys and logs.
const MAX_MEETING_NAME: usize = 64;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A meeting: the user part of its URI, which is case-sensitive (RFC 3261 §19.1.4).
    MeetingId
}
text_id! {
    /// A participant of a meeting; also the id of the leg on the switch and of the dialog record.
    ParticipantId
}
text_id! {
    /// A standalone subscription of a meeting.
    SubscriptionId
}
text_id! {
    /// A switch.
    SwitchId
}

impl MeetingId {
    /// Reads the user part of a URI, escapes decoded.
    ///
    /// `None`: empty, longer than 64 bytes, or with anything but letters, digits, `.`, `_`, `-` and `+`.
    #[must_use]
    pub fn new(user: &str) -> Option<Self> {
        let fits = !user.is_empty()
            && user.len() <= MAX_MEETING_NAME
            && user
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+'));
        fits.then(|| Self(user.into()))
    }
}

impl ParticipantId {
    pub(crate) fn from_random(bits: u64) -> Self {
        Self(format!("p{bits:016x}").into())
    }

    /// A leg id as a switch names it.
    pub(crate) fn from_leg(leg: &str) -> Self {
        Self(leg.into())
    }
}

impl SubscriptionId {
    pub(crate) fn from_random(bits: u64) -> Self {
        Self(format!("s{bits:016x}").into())
    }
}

impl SwitchId {
    /// Any text the registry of switches uses.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }
}

/// Names an operation the core asked for; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// Names a participant in the media: the CSRC of what others receive (RFC 3550 §5.1). Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meeting_names_refuse_what_cannot_stand_in_a_uri() {
        assert_eq!(MeetingId::new("Team.One").unwrap().as_str(), "Team.One");
        for bad in ["", "a b", "a/b", "a@b", "ä", &"x".repeat(65)] {
            assert!(MeetingId::new(bad).is_none(), "{bad}");
        }
    }
}
