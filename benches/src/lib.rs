//! Loads shared by the benches and the tests that keep their budgets.

pub mod sip_load;
