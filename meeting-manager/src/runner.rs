//! The loop around the core: what comes in goes to the focus, and its commands are done.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use cluster::Store;
use control::v1 as ctl;
use meeting_core::{
    ApplyFailure, Claimed, Command, Focus, MeetingId, OpId, StoreFailure, Stored, SwitchId,
    SwitchInfo,
};
use parking_lot::Mutex;
use sip::transaction::ClientKey;
use sip::{Limits, Message};
use tokio::sync::mpsc;
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
    Adopt(MeetingId, Claimed),
    Lost(MeetingId),
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
        loop {
            let deadline = self.focus.lock().poll_timeout();
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
                () = sleep => self.focus.lock().handle_timeout(Instant::now()),
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
            Input::Switches(switches) => focus.handle_switches(switches),
            Input::SwitchEvent(id, event) => focus.handle_switch_event(now, &id, event),
            Input::Adopt(meeting, claimed) => focus.adopt(now, &meeting, claimed),
            Input::Lost(meeting) => focus.handle_lost(now, &meeting),
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
            } => {
                let store = Arc::clone(&self.store);
                let member = self.member.clone();
                tokio::spawn(async move {
                    let result = store_ops::claim(&*store, meeting.as_str(), &member, record).await;
                    answer(&inputs, Input::Claimed(op, result)).await;
                });
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
