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
