//! The one task that owns the focus: everything that happens is handed to it in turn, and what it commands is done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster::records::SwitchRecord;
use cluster::{Cache, Changes, Store};
use meeting_core::Focus;
use meeting_core::{ApplyFailure, Claimed, Command, StoreFailure, Stored};
use meeting_core::{OpId, SwitchId, SwitchInfo};
use sip::transaction::ClientKey;
use sip::{Limits, Message};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use transport::{Input, Transports};

use crate::switches::{News, Switches};
use crate::{metrics, store_ops};

/// Messages worked off before looking at the other queues again.
const BATCH: usize = 64;
/// How often metrics are published.
const TICK: Duration = Duration::from_secs(1);

/// Asks the focus something.
pub type Query = Box<dyn FnOnce(&mut Focus) + Send>;

/// Something that was waited for.
enum Done {
    Claimed(OpId, Result<Claimed, StoreFailure>),
    Stored(OpId, Result<Stored, StoreFailure>),
    Applied(OpId, Result<control::ApplyResponse, ApplyFailure>),
    Resolved(OpId, Vec<SocketAddr>),
}

/// What the task works with.
pub struct Driver {
    pub focus: Focus,
    pub member: String,
    pub transports: Transports,
    pub store: Arc<dyn Store>,
    pub switches: Switches,
    pub registry: Cache<SwitchRecord>,
    pub changes: Changes<SwitchRecord>,
    pub input: mpsc::Receiver<Input>,
    pub news: mpsc::Receiver<News>,
    pub queries: mpsc::Receiver<Query>,
    pub stop: CancellationToken,
}

/// ms since the Unix epoch; zero on a machine whose clock stands before it.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the focus needs of a switch's record.
fn info(record: &SwitchRecord) -> (SwitchId, SwitchInfo) {
    let fingerprints = record
        .fingerprints
        .iter()
        .filter_map(|(algorithm, digest)| {
            hex::decode(digest)
                .ok()
                .map(|digest| (algorithm.clone(), digest))
        });
    let info = SwitchInfo {
        instance: record.instance.clone(),
        load: record.load,
        draining: record.draining,
        fingerprints: fingerprints.collect(),
    };
    (SwitchId::new(&record.id), info)
}

impl Driver {
    /// Runs until told to stop.
    pub async fn run(mut self) {
        let (finished, mut done) = mpsc::unbounded_channel();
        let mut tick = tokio::time::interval(TICK);
        self.switches_changed();
        loop {
            self.execute(&finished);
            let timeout = self.focus.poll_timeout();
            let sleep = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some(finished) = done.recv() => self.finish(finished),
                Some(query) = self.queries.recv() => query(&mut self.focus),
                Some(news) = self.news.recv() => self.hear(news),
                change = self.changes.next() => match change {
                    Some(_) => self.switches_changed(),
                    None => return,
                },
                Some(input) = self.input.recv() => self.take_in(input),
                _ = tick.tick() => metrics::publish(&self.focus.counts()),
                () = sleep => self.focus.handle_timeout(Instant::now()),
            }
        }
    }

    fn take_in(&mut self, first: Input) {
        let now = Instant::now();
        let mut next = Some(first);
        for _ in 0..BATCH {
            match next {
                Some(Input::Message { hop, bytes }) => {
                    match Message::parse(bytes, &Limits::default()) {
                        Ok(message) => self.focus.handle_message(now, message, hop),
                        Err(e) => tracing::debug!("dropped what is not SIP: {e}"),
                    }
                }
                Some(Input::SendFailed { id, .. }) if id != 0 => {
                    self.focus.handle_transport_error(now, ClientKey(id - 1));
                }
                Some(Input::SendFailed { .. } | Input::FlowClosed(_)) => {}
                None => return,
            }
            next = self.input.try_recv().ok();
        }
        if let Some(Input::Message { hop, bytes }) = next {
            if let Ok(message) = Message::parse(bytes, &Limits::default()) {
                self.focus.handle_message(now, message, hop);
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Event(switch, event) => {
                self.focus
                    .handle_switch_event(Instant::now(), &switch, *event)
            }
            // it is opened again; what was missed shows in the instance of its Hello, or in its record
            News::Lost(switch) => tracing::warn!("switch {switch}: event stream broke"),
        }
    }

    fn switches_changed(&mut self) {
        let living: Vec<SwitchRecord> = self
            .registry
            .snapshot()
            .into_iter()
            .map(|(_, c)| c.value.clone())
            .collect();
        self.switches.update(&living);
        self.focus
            .handle_switches(living.iter().map(info).collect());
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Claimed(op, result) => self.focus.handle_claimed(now, op, result),
            Done::Stored(op, result) => self.focus.handle_store(now, op, result),
            Done::Applied(op, result) => self.focus.handle_applied(now, op, result),
            Done::Resolved(op, addresses) => self.focus.handle_resolved(now, op, &addresses),
        }
    }

    /// Does what the focus commands; what takes time is done beside, and told when it is over.
    fn execute(&mut self, finished: &mpsc::UnboundedSender<Done>) {
        while let Some(command) = self.focus.poll_command() {
            match command {
                // ids of the transports are ours to choose: 0 is nobody, else the client transaction
                Command::Transmit(t) => {
                    self.transports
                        .send(t.client.map_or(0, |c| c.0 + 1), t.hop, t.bytes)
                }
                Command::Claim {
                    op,
                    meeting,
                    record,
                } => {
                    let claim = store_ops::claim(
                        Arc::clone(&self.store),
                        self.member.clone(),
                        meeting.to_string(),
                        record,
                    );
                    let finished = finished.clone();
                    tokio::spawn(async move { finished.send(Done::Claimed(op, claim.await)).ok() });
                }
                Command::Store { op, txn } => {
                    let write = store_ops::write(Arc::clone(&self.store), txn);
                    let finished = finished.clone();
                    tokio::spawn(async move { finished.send(Done::Stored(op, write.await)).ok() });
                }
                Command::Apply {
                    op,
                    switch,
                    request,
                } => {
                    let switches = self.switches.clone();
                    let finished = finished.clone();
                    tokio::spawn(async move {
                        finished
                            .send(Done::Applied(op, switches.apply(&switch, request).await))
                            .ok()
                    });
                }
                Command::Resolve { op, host, port } => {
                    let finished = finished.clone();
                    tokio::spawn(async move {
                        let found =
                            tokio::net::lookup_host((host.as_str(), port.unwrap_or(5060))).await;
                        let addresses = found.map(Iterator::collect).unwrap_or_default();
                        finished.send(Done::Resolved(op, addresses)).ok()
                    });
                }
                other => tracing::error!("unknown command of the focus: {other:?}"),
            }
        }
    }
}
