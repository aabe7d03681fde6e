//! The focus (RFC 4353, RFC 4579) without IO: meetings, participants, their dialogs, and the switch they are on.
//!
//! [`Focus`] takes messages, answers and the time in by `handle_*`, and is polled for [`Command`]s. It owns a
//! transaction layer; everything else of the world (sockets, store, switches, names) is its shell's.
//!
//! ```text
//! focus ─┬─ succession
//!        └─ meeting ─┬─ participant ── invite_usage, our_requests, unacknowledged ── exchange ── leg_mapping
//!                    ├─ switch_link ── switch_choice
//!                    ├─ roster ── conference_info
//!                    └─ watchers ── subscription
//! ```
//!
//! What must outlive a process is in [`record`]s: a dialog's is durable before its 200 goes out.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod admission;
mod caller;
mod command;
pub mod conference_info;
mod config;
mod exchange;
mod focus;
mod ids;
mod invite_usage;
mod leg_mapping;
mod meeting;
mod our_requests;
mod participant;
pub mod record;
mod refusal;
mod registrars;
mod rng;
mod roster;
mod shared;
mod slot_policy;
mod subscription;
mod succession;
mod sweep;
mod switch_choice;
mod switch_link;
mod timer_queue;
mod unacknowledged;
mod view;
mod watchers;

pub use admission::{Identity, MeetingKind};
pub use command::{ApplyFailure, Claimed, Command, StoreFailure, Stored};
pub use config::{FocusConfig, MeetingConfig, SessionTimerConfig, SubscriptionConfig};
pub use focus::Focus;
pub use ids::{MeetingId, OpId, ParticipantId, SourceId, SubscriptionId, SwitchId};
pub use succession::{Ownership, Peer};
pub use sweep::{Held, Orphans};
pub use switch_choice::SwitchInfo;
pub use view::{Counts, DialogView, MediaView, MeetingView, ParticipantView};
