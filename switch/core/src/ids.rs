//! Names of things inside one meeting, as types that cannot be mixed up.

use std::fmt;

/// A leg of one meeting: a dense index, so that a worker may keep a plain table,
/// and a generation, so that a key of a removed leg names nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LegKey {
    index: u32,
    generation: u32,
}

impl LegKey {
    /// A key; made by the meeting, and by tests.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// Place in the meeting's table of legs; reused after a leg is gone.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// How many legs had this place before.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// What names a participant in the CSRC list of what others receive. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SourceId(pub u32);

/// Synchronisation source of an RTP stream (RFC 3550 §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ssrc(pub u32);

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One 5-tuple of a leg, as numbered by the owner (`control::Transport::index`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TransportIndex(pub u32);
