//! A watch that outlives the etcd member it runs on.
//!
//! ```text
//!   watching ── stream ends, or silent for two probes ──► resuming (next member, after the last revision)
//!      │  ▲                                                  │   │
//!      │  └──────────────────────────────────────────────────┘   │ no member takes it for a while
//!      └─ compacted, or the consumer is too slow ──► Lost ◄──────┘
//! ```
//!
//! A member without a leader ends its watches by itself, so that none goes on in silence on the wrong side of a
//! partition.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::endpoint::{Endpoints, Kind};
use super::{MAX_ANSWER, entry, signed, unsigned};
use crate::store::{Revision, StoreError, Watch, WatchEvent};

/// Events that may wait for the consumer.
const QUEUE: usize = 4_096;
/// How often the member is asked whether it is still there; after two without an answer it is left.
const PROBE: Duration = Duration::from_secs(1);
/// How long the consumer may leave its queue full.
const CONSUMER: Duration = Duration::from_secs(10);
/// Pause between tries to resume.
const RESUME: Duration = Duration::from_millis(200);
/// A watch that could not be resumed for so long is given up, so that its consumer knows that it is out of date.
const GIVE_UP: Duration = Duration::from_secs(3);

/// Why a watch stream is not read on.
enum End {
    /// Resume elsewhere.
    Broken,
    /// The history is gone, or the consumer did not keep up.
    Lost,
    /// The consumer is gone.
    Dropped,
}

struct Task {
    endpoints: Arc<Endpoints>,
    prefix: String,
    /// Everything up to here was handed on.
    seen: Revision,
    events: mpsc::Sender<WatchEvent>,
}

pub(super) async fn start(
    endpoints: Arc<Endpoints>,
    prefix: String,
    from: Revision,
) -> Result<Watch, StoreError> {
    let (events, watch) = mpsc::channel(QUEUE);
    let mut task = Task {
        endpoints,
        prefix,
        seen: from,
        events,
    };
    let (stream, at) = task.open().await?;
    tokio::spawn(async move { task.run(stream, at).await });
    Ok(watch)
}

impl Task {
    async fn open(&self) -> Result<(WatchStream, usize), StoreError> {
        let at = self.endpoints.current();
        let request = |client: Client| async move {
            let options = WatchOptions::new()
                .with_prefix()
                .with_prev_key()
                .with_start_revision(signed(self.seen.0.saturating_add(1)));
            let mut watches = client.watch_client().max_decoding_message_size(MAX_ANSWER);
            watches.watch(self.prefix.as_str(), Some(options)).await
        };
        Ok((self.endpoints.call(Kind::Read, request).await?, at))
    }

    async fn run(&mut self, mut stream: WatchStream, mut at: usize) {
        loop {
            let end = match self.follow(stream).await {
                End::Broken => {
                    self.endpoints.move_on(at);
                    self.resume().await
                }
                end => Err(end),
            };
            (stream, at) = match end {
                Ok(opened) => opened,
                Err(End::Dropped) => return,
                Err(End::Lost | End::Broken) => {
                    let _ = timeout(CONSUMER, self.events.send(WatchEvent::Lost)).await;
                    return;
                }
            };
        }
    }

    /// Opens the stream again where some member takes it.
    async fn resume(&self) -> Result<(WatchStream, usize), End> {
        let broken = Instant::now();
        loop {
            match self.open().await {
                Ok(opened) => return Ok(opened),
                Err(e) => tracing::debug!(error = %e, "watch not resumed yet"),
            }
            if broken.elapsed() >= GIVE_UP {
                return Err(End::Lost);
            }
            tokio::select! {
                () = sleep(RESUME) => {}
                () = self.events.closed() => return Err(End::Dropped),
            }
        }
    }

    /// Hands on what one stream tells.
    async fn follow(&mut self, mut stream: WatchStream) -> End {
        let mut heard = Instant::now();
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.events.closed() => return End::Dropped,
                message = stream.message() => match message {
                    Ok(Some(response)) => {
                        heard = Instant::now();
                        if let Err(end) = self.hand_on(&response).await {
                            return end;
                        }
                    }
                    Ok(None) | Err(_) => return End::Broken,
                },
                _ = probe.tick() => {
                    if heard.elapsed() > PROBE * 2 + PROBE / 2 {
                        return End::Broken;
                    }
                    if stream.request_progress().await.is_err() {
                        return End::Broken;
                    }
                }
            }
        }
    }

    async fn hand_on(&mut self, response: &WatchResponse) -> Result<(), End> {
        if response.compact_revision() > 0 {
            return Err(End::Lost);
        }
        if response.canceled() {
            return Err(End::Broken);
        }
        let mut newest = self.seen;
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = Revision(unsigned(kv.mod_revision()));
            newest = newest.max(revision);
            let event = match event.event_type() {
                EventType::Put => entry(kv.clone()).map(WatchEvent::Put),
                EventType::Delete => kv.key_str().ok().map(|key| WatchEvent::Delete {
                    key: key.to_owned(),
                    previous: event.prev_kv().map(|p| p.value().to_vec().into()),
                    revision,
                }),
            };
            if let Some(event) = event {
                self.send(event).await?;
            }
        }
        if response.events().is_empty() && !response.created() {
            // Before etcd 3.4.25 the revision of a progress answer may run ahead of events still to come,
            // so only what was seen in events is told and resumed from.
            self.send(WatchEvent::Progress(self.seen)).await?;
        }
        self.seen = newest;
        Ok(())
    }

    async fn send(&self, event: WatchEvent) -> Result<(), End> {
        match timeout(CONSUMER, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Dropped),
            Err(_) => Err(End::Lost),
        }
    }
}
