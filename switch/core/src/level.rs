//! Audio levels (RFC 6464).

/// A level as RFC 6464 sends it: 0 is the loudest (0 dBov), 127 is silence (−127 dBov).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Level {
    dbov: u8,
    voice: bool,
}

impl Level {
    /// Digital silence.
    pub const SILENCE: Self = Self {
        dbov: 127,
        voice: false,
    };

    /// A level of −`dbov` dBov (capped at 127) and whether its sender takes it for voice.
    pub const fn new(dbov: u8, voice: bool) -> Self {
        Self {
            dbov: if dbov > 127 { 127 } else { dbov },
            voice,
        }
    }

    /// The octet of the header extension: V bit, then level.
    pub const fn from_octet(octet: u8) -> Self {
        Self {
            dbov: octet & 0x7f,
            voice: octet & 0x80 != 0,
        }
    }

    /// The octet of the header extension.
    pub const fn octet(self) -> u8 {
        self.dbov | if self.voice { 0x80 } else { 0 }
    }

    /// −dBov, 0 (loudest) to 127.
    pub const fn dbov(self) -> u8 {
        self.dbov
    }

    /// Loudness that grows with sound: 127 − value.
    pub const fn loudness(self) -> u8 {
        127 - self.dbov
    }

    /// The sender's voice activity flag; false where the sender does not say.
    pub const fn voice(self) -> bool {
        self.voice
    }
}
