//! The control protocol between a meeting's owner and the switch that carries it.
//!
//! The schema in `proto/rostrum/control/v1/control.proto` is the reference; this
//! crate is its generated types and the version rule.

#![forbid(unsafe_code)]

/// Version of the control protocol spoken by this build.
///
/// A peer that speaks another version is served as long as it is at least
/// [`OLDEST_VERSION`]; fields it does not know are simply absent.
pub const VERSION: u32 = 1;

/// Oldest version this build still understands.
pub const OLDEST_VERSION: u32 = 1;

/// Octets of the largest message either side takes. A meeting of 4,096 legs, each with the codecs of
/// a browser's bundle, is some 16 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Generated types, client and server.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("rostrum.control.v1");
}

pub use v1::*;
