//! The signalling half: a SIP user agent with many participants.
//!
//! [`Agent`] is all of it without IO: calls and registrations over one transaction layer. [`Phone`] gives it sockets.

mod account;
mod agent;
mod call;
mod description;
mod home;
mod inside;
mod phone;
mod read;
mod registration;

pub use account::{Account, AccountError, read_accounts};
pub use agent::Agent;
pub use call::{Event, Refusal};
pub use description::{Description, DescriptionError};
pub use home::Home;
pub use phone::{Phone, PhoneError, SipOptions, towards};
pub use sip::Transport;

/// Reads a meeting's URI.
///
/// # Errors
/// What is wrong with it, for people.
pub fn meeting(text: &str) -> Result<sip::Uri, String> {
    let uri = sip::Uri::parse(text).map_err(|e| e.to_string())?;
    match uri.scheme.as_str() {
        "sip" | "sips" if !uri.host.is_empty() => Ok(uri),
        _ => Err("not a SIP URI".to_owned()),
    }
}
