//! The `rostrum` command.

fn main() {}
