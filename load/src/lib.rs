//! A load generator for conference servers: SIP user agents that join a meeting, speak into it by a schedule, and check
//! all they are sent.

#![forbid(unsafe_code)]

pub mod leg;
pub mod machine;
pub mod media;
pub mod report;
pub mod run;
pub mod ua;
