//! Knowing of a killed process sooner than by its lease: every process keeps a silent TCP link to its peers, and ends
//! the lease of one whose link broke and whose port refuses a new one.
//!
//! ```text
//!   peer killed ─► its kernel ends the link ─► reconnect refused ─► its record and lease read ─► refused again
//!                                                                        ─► lease revoked ─► everyone's watch
//! ```
//!
//! Only a refusal counts, never silence. A refusal comes from the kernel of a host that lives, and says that nobody
//! listens there; silence may as well be a slow peer, or our own network. A stopped process or a vanished host is left
//! to its lease, which ends at nearly the same time as three unanswered pings would have. Nothing is sent over a link,
//! so that one who is cut off from a peer has no reason to suspect it: its link does not break.
//!
//! The lease's end stays the one event that all act on. Should a living peer be declared dead after all, its keeper
//! takes a new lease at its next renewal, and what was taken over meanwhile is safe by its epoch.

mod core;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::records::{Member, SwitchRecord, keys};
use crate::registry::{Cache, Change, Changes};
use crate::store::{Store, StoreError};

pub use self::core::{Action, Core, Event};

/// Longest wait for a connection: one that is neither accepted nor refused in this time says nothing.
const CONNECT: Duration = Duration::from_millis(300);
/// Longest wait for the store while a dead peer's lease is ended.
const SETTLE: Duration = Duration::from_secs(2);
/// Events of links that may wait.
const EVENTS: usize = 256;

/// Watches all peers of a process until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    revoked: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Watchdog {
    /// Starts; must be called inside a tokio runtime. `self_id` is the id of the member that watches, which is no peer
    /// of itself. Members are reached at their first SIP address over a stream transport, or else at that of their
    /// API; switches at that of their control server.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        self_id: &str,
        members: Cache<Member>,
        switches: Cache<SwitchRecord>,
    ) -> Self {
        let revoked = Arc::new(AtomicU64::new(0));
        let (events, received) = mpsc::channel(EVENTS);
        let shell = Shell {
            store,
            own: keys::member(self_id),
            members,
            switches,
            core: Core::default(),
            tasks: JoinSet::new(),
            links: BTreeMap::new(),
            events,
            revoked: Arc::clone(&revoked),
        };
        let task = tokio::spawn(shell.run(received)).abort_handle();
        Self { revoked, task }
    }

    /// How many leases were ended so far.
    #[must_use]
    pub fn revoked(&self) -> u64 {
        self.revoked.load(Ordering::Relaxed)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What became of a link, told by its task.
type Told = (String, SocketAddr, Event);

struct Shell {
    store: Arc<dyn Store>,
    own: String,
    members: Cache<Member>,
    switches: Cache<SwitchRecord>,
    core: Core,
    tasks: JoinSet<()>,
    /// The task that holds the link of a peer; at most one.
    links: BTreeMap<String, (SocketAddr, AbortHandle)>,
    events: mpsc::Sender<Told>,
    revoked: Arc<AtomicU64>,
}

impl Shell {
    async fn run(mut self, mut received: mpsc::Receiver<Told>) {
        let (mut members, mut switches) = (self.members.subscribe(), self.switches.subscribe());
        loop {
            let now = Instant::now();
            self.core.set_peers(now, self.peers());
            let core = &self.core;
            self.links.retain(|key, (address, task)| {
                let stays = core.address(key) == Some(*address);
                if !stays {
                    task.abort();
                }
                stays
            });
            while let Some(action) = self.core.poll(now) {
                self.act(action);
            }
            let timer = self.core.timer();
            tokio::select! {
                open = next(&mut members) => if !open { return },
                open = next(&mut switches) => if !open { return },
                Some((key, address, event)) = received.recv() => {
                    self.core.handle(Instant::now(), &key, address, event);
                }
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(timer.unwrap_or(now)), if timer.is_some() => {}
            }
        }
    }

    fn peers(&self) -> BTreeMap<String, SocketAddr> {
        let members = self.members.snapshot();
        let members = members
            .iter()
            .map(|(id, record)| (keys::member(id), member_address(&record.value)));
        let switches = self.switches.snapshot();
        let switches = switches
            .iter()
            .map(|(id, record)| (keys::switch(id), url_address(&record.value.control)));
        members
            .chain(switches)
            .filter(|(key, _)| *key != self.own)
            .filter_map(|(key, address)| Some((key, address?)))
            .collect()
    }

    fn act(&mut self, action: Action) {
        let events = self.events.clone();
        match action {
            Action::Connect(key, address) => {
                let task = self.tasks.spawn(link(key.clone(), address, events));
                if let Some((_, former)) = self.links.insert(key, (address, task)) {
                    former.abort();
                }
            }
            // Not ended with the peer: the news that it is gone comes before the answer that made it so.
            Action::Convict(key, address) => {
                let (store, revoked) = (Arc::clone(&self.store), Arc::clone(&self.revoked));
                self.tasks.spawn(async move {
                    match timeout(SETTLE, convict(&*store, &key, address)).await {
                        Ok(Ok(true)) => drop(revoked.fetch_add(1, Ordering::Relaxed)),
                        Ok(Ok(false)) => {}
                        Ok(Err(e)) => {
                            tracing::warn!(peer = key, error = %e, "a dead peer's lease was not ended");
                        }
                        Err(_) => tracing::warn!(peer = key, "the store did not end a dead peer's lease in time"),
                    }
                    let _ = events.send((key, address, Event::Settled)).await;
                });
            }
        }
    }
}

/// Waits for a change of a cache; `false` when there will be none any more.
async fn next<T>(changes: &mut Changes<T>) -> bool {
    let change: Option<Change<T>> = changes.next().await;
    change.is_some()
}

/// Connects, and holds the link until the other side ends it.
async fn link(key: String, address: SocketAddr, events: mpsc::Sender<Told>) {
    let event = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(mut stream)) => {
            if events
                .send((key.clone(), address, Event::Connected))
                .await
                .is_err()
            {
                return;
            }
            let mut ignored = [0_u8; 512];
            while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
            Event::Closed
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Event::Refused,
        Ok(Err(_)) | Err(_) => Event::Unclear,
    };
    let _ = events.send((key, address, event)).await;
}

/// Ends the lease of a peer, if its record still names the address that refused, and refuses still. In this order a
/// process that was started anew is never taken for its dead predecessor: it listens before it registers.
async fn convict(store: &dyn Store, key: &str, address: SocketAddr) -> Result<bool, StoreError> {
    let Some((entry, lease)) = store.leased(key).await? else {
        return Ok(false);
    };
    if recorded_address(key, &entry.value) != Some(address) {
        return Ok(false);
    }
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => return Ok(false),
    }
    store.revoke(lease).await?;
    tracing::warn!(peer = key, %address, "declared dead: its connection broke, and a new one is refused");
    Ok(true)
}

fn recorded_address(key: &str, value: &[u8]) -> Option<SocketAddr> {
    if key.starts_with(&keys::switches()) {
        let record: SwitchRecord = serde_json::from_slice(value).ok()?;
        url_address(&record.control)
    } else {
        member_address(&serde_json::from_slice(value).ok()?)
    }
}

fn member_address(member: &Member) -> Option<SocketAddr> {
    let streams = ["tcp", "tls", "ws", "wss"];
    let stream = streams
        .iter()
        .find_map(|wanted| member.sip.iter().find(|(transport, _)| transport == wanted));
    stream
        .map(|(_, address)| *address)
        .or_else(|| url_address(&member.api))
}

/// The address in `http://ip:port` or `https://ip:port`.
fn url_address(url: &str) -> Option<SocketAddr> {
    let (_, rest) = url.split_once("://")?;
    rest.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_records() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(url_address("http://127.0.0.1:80"), Some(at("127.0.0.1:80")));
        assert_eq!(url_address("https://[::1]:443/x"), Some(at("[::1]:443")));
        assert_eq!(url_address("http://name:80"), None);
        assert_eq!(url_address(""), None);
        let mut member = Member {
            version: 1,
            id: "a".into(),
            sip: vec![
                ("udp".into(), at("127.0.0.1:1")),
                ("tls".into(), at("127.0.0.1:3")),
                ("tcp".into(), at("127.0.0.1:2")),
            ],
            api: "http://127.0.0.1:4".into(),
            load: 0,
            draining: false,
        };
        assert_eq!(member_address(&member), Some(at("127.0.0.1:2")));
        member.sip.truncate(1);
        assert_eq!(member_address(&member), Some(at("127.0.0.1:4")));
        member.api.clear();
        assert_eq!(member_address(&member), None);
    }
}
