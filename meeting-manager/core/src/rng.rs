//! The core's randomness: a seeded stream, so that a run can be repeated.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use sip::offer_answer::Random;

/// ChaCha12 from the seed the shell gave.
#[derive(Debug)]
pub(crate) struct Rng(ChaCha12Rng);

impl Rng {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound` (which is small against 2^64, so that the bias does not matter here).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// A tag: at least 32 random bits (RFC 3261 §19.3).
    pub(crate) fn tag(&mut self) -> String {
        format!("{:016x}", self.bits())
    }

    /// A seed for something else.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}

impl Random for Rng {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}
