//! A whole cluster in one process on virtual time, from one seed.
//!
//! Registrars, meeting managers and switches are the real cores; the store is a model with the semantics of
//! [`cluster::Store`]; phones are made of the `sip` crate. The network between them loses, delays, repeats and reorders,
//! processes die, stand still and come back, ways are cut. All of it is drawn from the seed: a seed that fails fails
//! again, and shows a ladder.

#![forbid(unsafe_code)]

pub mod check;
pub mod client;
mod ladder;
pub mod manager;
pub mod net;
pub mod plan;
pub mod registrar;
pub mod remote_store;
pub mod shell;
pub mod store;
pub mod switch;
mod takeover;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use world::World;

/// The domain of the cluster.
pub const DOMAIN: &str = "example.org";

/// What became of a seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Rules that were broken; empty: all is well.
    pub broken: Vec<String>,
    /// The ladder, where it was asked for.
    pub ladder: Vec<String>,
    /// Of everything that was delivered and when.
    pub trace: u64,
    /// How many messages were delivered.
    pub delivered: u64,
    /// How often a phone got in.
    pub joins: u32,
    /// How many media packets the switches of the end have sent.
    pub media: u64,
}

/// Runs the world of a seed.
#[must_use]
pub fn run(seed: u64, ladder: bool) -> Outcome {
    // Only differences of instants reach anybody.
    let mut world = World::new(seed, Instant::now(), ladder);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut broken = std::mem::take(&mut world.broken);
    match ended {
        Ok(()) if broken.is_empty() => broken = check::end(&world),
        Ok(()) => {}
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            broken.push(format!("panic: {}", text.unwrap_or_default()));
        }
    }
    let mut ladder = world.log.take().unwrap_or_default();
    if !ladder.is_empty() {
        let switches = world.switches.values();
        ladder.extend(switches.flat_map(|s| s.picture(world.now)));
        ladder.extend(world.clients.iter().map(|(n, client)| {
            let (state, hold, heard) = (client.state, client.is_on_hold(), client.heard);
            let call = client.call_id();
            format!("c{n} is {state:?} in {call}, on hold {hold}, heard {heard:?}")
        }));
    }
    Outcome {
        seed,
        broken,
        trace: world.trace,
        delivered: world.delivered,
        joins: world.clients.values().map(|c| c.joins).sum(),
        media: world.switches.values().map(|s| s.sent).sum(),
        ladder,
    }
}
