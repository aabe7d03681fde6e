//! The registrar: SIP registrar and edge proxy, and the web page's server.
//!
//! What it decides is in `registrar-core`; here are the sockets, the store's watches, HTTP, and the clocks.

#![forbid(unsafe_code)]

mod admin;
pub mod config;
mod driver;
mod feed;
mod http;
mod metrics;
mod presence;
mod resolver;
mod start;
pub mod users;
mod web;

pub use config::{Config, Invalid, Limits, Meeting};
pub use start::{Addresses, Registrar, StartError};
