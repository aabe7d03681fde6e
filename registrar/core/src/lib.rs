//! The registrar's decisions, without IO: who a request comes from, where registrations are kept, where a
//! request goes, and what its responses come to.
//!
//! [`Core`] is fed with messages, with what the store's watches tell, and with two clocks; it gives back
//! [`Command`]s. A request runs through a chain of processors, one file each:
//!
//! ```text
//!  sanity -> authentication -> router -> registration (REGISTER for us)
//!                                     -> proxy (everything else): response_context, loops
//! ```
//!
//! Up to and including authentication nothing is kept for a request, so a flood of unauthenticated ones costs
//! no memory.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod authentication;
mod command;
mod core;
mod flow_token;
mod gruu;
mod guest;
mod location;
mod loops;
mod own_requests;
mod parking;
mod proxy;
mod registration;
mod rerouting;
mod response_context;
mod router;
mod sanity;
mod settings;
mod stats;
mod users;

pub use crate::core::{Core, FlowView};
pub use authentication::Identity;
pub use command::{Command, ResolveId, StoreId, StoreReply};
pub use flow_token::{FlowToken, TokenHost, TokenKind, TokenMint};
pub use guest::{GuestMint, GuestName, GuestPass, valid_meeting_name};
pub use location::{Binding, BindingSet, FlowRecord, InvalidRecord, Location};
pub use settings::{Advertised, CoreLimits, Secrets, Settings};
pub use stats::Stats;
pub use users::{User, Users};

/// How a request is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: sip::StatusCode,
    pub reason: &'static str,
    /// Header fields of the response beside those every response has.
    pub headers: Vec<(sip::HeaderName<'static>, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: &'static str) -> Self {
        Self {
            status: sip::StatusCode::of(status),
            reason,
            headers: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: sip::HeaderName<'static>, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
