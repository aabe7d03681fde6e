//! The control protocol between a meeting's owner and the switch that carries it.
//!
//! The schema in `proto/rostrum/control/v1/control.proto` is the reference; this
//! crate is its generated types and the version rule.

#![forbid(unsafe_code)]

/// Version of the control protocol spoken by this build.
///
/// Neighbouring versions work together: a version may only add fields and values, whose absence means what the version
/// before it did, and change no meaning. Fields that a peer does not know are skipped.
pub const VERSION: u32 = 1;

/// Oldest version this build still understands: the one before its own.
pub const OLDEST_VERSION: u32 = if VERSION > 1 { VERSION - 1 } else { 1 };

/// Latest version this build still understands: the one after its own, which keeps to what this one knows.
pub const NEWEST_VERSION: u32 = VERSION + 1;

/// Whether a peer of this version is understood.
#[must_use]
pub fn is_understood(version: u32) -> bool {
    (OLDEST_VERSION..=NEWEST_VERSION).contains(&version)
}

/// Octets of the largest message either side takes. A meeting of 4,096 legs, each with the codecs of
/// a browser's bundle, is some 16 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Generated types, client and server.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("rostrum.control.v1");
}

pub use v1::*;
