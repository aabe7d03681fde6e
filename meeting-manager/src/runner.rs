//! The loop around the core: what comes in goes to the focus, and its commands are done.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use cluster::{LeaseKeeper, Store};
use control::v1 as ctl;
use meeting_core::{
    ApplyFailure, Claimed, Command, Focus, Held, MeetingId, OpId, Ownership, Peer, StoreFailure,
    Stored, SwitchId, SwitchInfo,
};
use parking_lot::Mutex;
use sip::transaction::ClientKey;
use sip::{Limits, Message};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use transport::Transports;

use crate::metrics;
use crate::store_ops;
use crate::switches::Switches;

/// What the loop is told besides SIP.
#[derive(Debug)]
pub(crate) enum Input {
    Claimed(OpId, Result<Claimed, StoreFailure>),
    Stored(OpId, Result<Stored, StoreFailure>),
    Applied(OpId, Result<ctl::ApplyResponse, ApplyFailure>),
    Resolved(OpId, Vec<SocketAddr>),
    Switches(BTreeMap<SwitchId, SwitchInfo>),
    SwitchEvent(SwitchId, ctl::Event),
    /// The registrars that live, with their routes.
    Registrars(BTreeMap<String, Vec<String>>),
    /// The members that live.
    Members(BTreeMap<String, Peer>),
    /// An owner record was written, or is gone.
    Owner(MeetingId, Option<Ownership>),
    /// All owner records, where changes may have been missed.
    Owners(BTreeMap<MeetingId, Ownership>),
    /// What a switch holds.
    Inventory(SwitchId, Vec<Held>),
    /// The dialog records of a meeting, by their keys after its prefix.
    Records(MeetingId, Vec<String>),
    Drain,
    Undrain,
    Shutdown,
}

/// Everything the loop works with.
pub(crate) struct Runner {
    pub(crate) focus: Arc<Mutex<Focus>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) transports: Transports,
    pub(crate) switches: Arc<Switches>,
    pub(crate) member: String,
    pub(crate) lease: Arc<LeaseKeeper>,
    /// Meetings claimed at once: a dead member may have had a thousand.
    pub(crate) claims: Arc<Semaphore>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) stop: CancellationToken,
}

impl Runner {
    /// Runs until stopped.
    pub(crate) async fn run(
        self,
        mut sip: mpsc::Receiver<transport::Input>,
        mut inputs: mpsc::Receiver<Input>,
    ) {
        let limits = Limits::default();
        let mut standing = self.lease.standing();
        loop {
            // Before anything is done: this process may have been stopped for a while.
            let fenced = self.lease.is_fenced();
            let deadline = {
                let mut focus = self.focus.lock();
                focus.handle_standing(Instant::now(), !fenced);
                focus.poll_timeout()
            };
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Answers to what is under way go before new work.
                biased;
                () = self.stop.cancelled() => return,
                Some(input) = inputs.recv() => self.on_input(input),
                () = sleep => {
                    let mut focus = self.focus.lock();
                    focus.handle_standing(Instant::now(), !self.lease.is_fenced());
                    focus.handle_timeout(Instant::now());
                }
                Ok(()) = standing.changed() => {}
                Some(input) = sip.recv() => self.on_sip(input, &limits),
                else => return,
            }
            self.pump();
        }
    }

    fn on_sip(&self, input: transport::Input, limits: &Limits) {
        match input {
            transport::Input::Message { hop, bytes } => match Message::parse(bytes, limits) {
                Ok(message) => {
                    metrics::message_received(&message);
                    self.focus
                        .lock()
                        .handle_message(Instant::now(), message, hop);
                }
                Err(e) => tracing::debug!(remote = %hop.remote, error = %e, "not SIP"),
            },
            transport::Input::SendFailed { id, .. } if id != 0 => {
                let key = ClientKey(id - 1);
                self.focus
                    .lock()
                    .handle_transport_error(Instant::now(), key);
            }
            _ => {}
        }
    }

    fn on_input(&self, input: Input) {
        let now = Instant::now();
        let mut focus = self.focus.lock();
        match input {
            Input::Claimed(op, result) => focus.handle_claimed(now, op, result),
            Input::Stored(op, result) => focus.handle_store(now, op, result),
            Input::Applied(op, result) => focus.handle_applied(now, op, result),
            Input::Resolved(op, addresses) => focus.handle_resolved(now, op, &addresses),
            Input::Switches(switches) => focus.handle_switches(now, switches),
            Input::SwitchEvent(id, event) => focus.handle_switch_event(now, &id, event),
            Input::Registrars(living) => focus.handle_registrars(now, &living),
            Input::Members(members) => focus.handle_members(now, members),
            Input::Owner(meeting, owner) => focus.handle_owner(now, &meeting, owner),
            Input::Owners(owners) => focus.handle_owners(now, owners),
            Input::Inventory(switch, held) => {
                metrics::orphans(&focus.handle_inventory(now, &switch, &held));
            }
            Input::Records(meeting, keys) => {
                metrics::orphans(&focus.handle_records(&meeting, &keys));
            }
            Input::Drain => focus.drain(),
            Input::Undrain => focus.undrain(),
            Input::Shutdown => focus.shutdown(now),
        }
    }

    /// Does what the focus asks for.
    fn pump(&self) {
        let mut focus = self.focus.lock();
        while let Some(command) = focus.poll_command() {
            self.perform(command);
        }
        metrics::counts(&focus.counts());
    }

    fn perform(&self, command: Command) {
        let inputs = self.inputs.clone();
        match command {
            Command::Transmit(transmit) => {
                // 0 stands for what no transaction waits for.
                let id = transmit.client.map_or(0, |key| key.0 + 1);
                self.transports.send(id, transmit.hop, transmit.bytes);
            }
            Command::Claim {
                op,
                meeting,
                record,
                from,
            } => {
                let store = Arc::clone(&self.store);
                let member = self.member.clone();
                let claims = Arc::clone(&self.claims);
                tokio::spawn(async move {
                    // Never closed.
                    let _turn = claims.acquire().await;
                    let meeting = meeting.as_str();
                    let result = store_ops::claim(&*store, meeting, &member, record, from).await;
                    answer(&inputs, Input::Claimed(op, result)).await;
                });
            }
            Command::TookOver {
                meeting,
                from,
                epoch,
                after,
                dialogs,
            } => {
                tracing::warn!(%meeting, from, epoch = epoch.0, ?after, dialogs, "took a meeting over");
                metrics::takeover(after);
            }
            Command::Store { op, txn } => {
                let store = Arc::clone(&self.store);
                tokio::spawn(async move {
                    let result = store_ops::write(&*store, txn).await;
                    answer(&inputs, Input::Stored(op, result)).await;
                });
            }
            Command::Apply {
                op,
                switch,
                request,
            } => {
                let switches = Arc::clone(&self.switches);
                tokio::spawn(async move {
                    let result = switches.apply(&switch, request).await;
                    answer(&inputs, Input::Applied(op, result)).await;
                });
            }
            Command::Resolve { op, host, port } => {
                tokio::spawn(async move {
                    let found = tokio::net::lookup_host((host.as_str(), port.unwrap_or(0))).await;
                    let addresses = found.map(Iterator::collect).unwrap_or_default();
                    answer(&inputs, Input::Resolved(op, addresses)).await;
                });
            }
            other => tracing::error!(?other, "a command this shell does not know"),
        }
    }
}

/// The loop may be gone already at a shutdown; nobody waits then.
async fn answer(inputs: &mpsc::Sender<Input>, input: Input) {
    let _ = inputs.send(input).await;
}
