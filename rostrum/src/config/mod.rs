//! The configuration file of every role.
pub mod check;
pub mod template;
