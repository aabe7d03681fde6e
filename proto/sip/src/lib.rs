//! SIP without IO: messages, transactions, dialogs, digest, SDP and offer/answer.
//!
//! Nothing here opens a socket, reads a clock or draws randomness of its own:
//! time comes in as `now`, randomness as a seed, and what should go out is polled.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod accepted;
pub mod body;
pub mod dialog;
pub mod digest;
pub mod frame;
pub mod header;
pub mod hop;
mod lex;
pub mod message;
pub mod offer_answer;
pub mod reliable;
pub mod sdp;
pub mod session_timer;
pub mod transaction;
pub mod uri;

pub use hop::{FlowId, Hop, Transport};
pub use message::{HeaderName, Limits, Message, Method, ParseError, StatusCode};
pub use uri::Uri;
