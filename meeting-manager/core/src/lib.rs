//! The focus without IO.

pub mod conference_info;
