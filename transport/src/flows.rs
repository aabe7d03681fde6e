//! The table of connections: who is connected, how to reach each, and how many there may be.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sip::{FlowId, Hop, Transport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Set in the ids of UDP flows, never in those of connections.
pub(crate) const UDP_BIT: u64 = 1 << 63;

/// Why a connection is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// `max_connections` are open.
    #[error("too many connections")]
    TooMany,
    /// `max_connections_per_source` are open from there.
    #[error("too many connections from this source")]
    TooManyFromSource,
    /// The transports are shutting down.
    #[error("shutting down")]
    Closing,
}

impl Refused {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::TooManyFromSource => "too_many_from_source",
            Self::Closing => "closing",
        }
    }
}

/// What waits to be written to one connection.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The caller's id; `None` for our own keepalive answers and refusals.
    pub(crate) id: Option<u64>,
    /// As the caller gave it, for [`crate::Input::SendFailed`].
    pub(crate) hop: Hop,
    pub(crate) bytes: Bytes,
}

/// What a connection is looked up by when no flow is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) transport: Transport,
    pub(crate) remote: SocketAddr,
    /// Name its certificate was verified against; `None`: by address, or an accepted connection.
    pub(crate) name: Option<Box<str>>,
}

/// The sending end of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    queue: mpsc::Sender<Outgoing>,
    queued: Arc<AtomicUsize>,
    max_bytes: usize,
    slow: Arc<AtomicBool>,
    pub(crate) closing: CancellationToken,
}

impl Handle {
    /// Queues without waiting. A full queue closes the connection.
    pub(crate) fn push(&self, outgoing: Outgoing) -> Result<(), Rejected> {
        let size = outgoing.bytes.len();
        if self.queued.fetch_add(size, Ordering::Relaxed) + size > self.max_bytes {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            return Err(self.too_slow());
        }
        self.queue.try_send(outgoing).map_err(|e| {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            match e {
                mpsc::error::TrySendError::Full(_) => self.too_slow(),
                mpsc::error::TrySendError::Closed(_) => Rejected,
            }
        })
    }

    fn too_slow(&self) -> Rejected {
        self.slow.store(true, Ordering::Relaxed);
        self.closing.cancel();
        Rejected
    }
}

/// A message could not be queued: the peer is gone or does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected;

/// The receiving end of one connection's queue, held by its task.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) queue: mpsc::Receiver<Outgoing>,
    queued: Arc<AtomicUsize>,
    slow: Arc<AtomicBool>,
    /// Being written now: failed with the rest if the connection breaks.
    pub(crate) current: Option<Outgoing>,
}

impl Outbox {
    /// Notes that `outgoing` left the queue.
    pub(crate) fn taken(&mut self, outgoing: Outgoing) -> Bytes {
        self.queued
            .fetch_sub(outgoing.bytes.len(), Ordering::Relaxed);
        let bytes = outgoing.bytes.clone();
        self.current = Some(outgoing);
        bytes
    }

    pub(crate) fn was_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Everything that was not written, in order; nothing can be queued any more.
    pub(crate) fn unsent(&mut self) -> Vec<Outgoing> {
        self.queue.close();
        let mut unsent: Vec<_> = self.current.take().into_iter().collect();
        while let Ok(outgoing) = self.queue.try_recv() {
            unsent.push(outgoing);
        }
        unsent
    }
}

/// A place among the connections, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    flows: Arc<Flows>,
    source: Option<IpAddr>,
}

impl Permit {
    /// Counts the connection under its source, once that is known.
    pub(crate) fn attribute(&mut self, source: IpAddr) -> Result<(), Refused> {
        let source = source_key(source);
        let mut table = self.flows.table.lock();
        let count = table.per_source.entry(source).or_default();
        if *count >= self.flows.max_per_source {
            return Err(Refused::TooManyFromSource);
        }
        *count += 1;
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.flows.table.lock();
        table.total -= 1;
        if let Some(source) = self.source
            && let Some(count) = table.per_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                table.per_source.remove(&source);
            }
        }
    }
}

/// All connections of one element.
#[derive(Debug)]
pub(crate) struct Flows {
    table: Mutex<Table>,
    max: usize,
    max_per_source: usize,
    max_messages: usize,
    max_bytes: usize,
    root: CancellationToken,
}

#[derive(Debug)]
struct Table {
    connections: HashMap<FlowId, (Handle, Target)>,
    by_target: HashMap<Target, FlowId>,
    per_source: HashMap<IpAddr, usize>,
    total: usize,
    next: u64,
}

impl Flows {
    pub(crate) fn new(options: &crate::Options, root: CancellationToken) -> Self {
        // Ids begin somewhere else in every process, so that one kept over a restart names nothing;
        // below 2^53, so that it survives JSON readers with floating numbers.
        let start = RandomState::new().hash_one(0_u8) >> 44;
        Self {
            table: Mutex::new(Table {
                connections: HashMap::new(),
                by_target: HashMap::new(),
                per_source: HashMap::new(),
                total: 0,
                next: (start << 32) | 1,
            }),
            max: options.max_connections,
            max_per_source: options.max_connections_per_source,
            max_messages: options.write_queue.max(1),
            max_bytes: options.write_queue_bytes.max(options.limits.message),
            root,
        }
    }

    /// A place for one more connection.
    pub(crate) fn reserve(self: &Arc<Self>) -> Result<Permit, Refused> {
        if self.root.is_cancelled() {
            return Err(Refused::Closing);
        }
        let mut table = self.table.lock();
        if table.total >= self.max {
            return Err(Refused::TooMany);
        }
        table.total += 1;
        drop(table);
        Ok(Permit {
            flows: Arc::clone(self),
            source: None,
        })
    }

    /// Enters a connection under a new id.
    pub(crate) fn insert(&self, target: Target) -> (FlowId, Handle, Outbox) {
        let mut table = self.table.lock();
        self.insert_locked(&mut table, target)
    }

    /// The connection of a target, or a new entry for one to be opened, with the end its task needs.
    pub(crate) fn find_or_insert(&self, target: &Target) -> (FlowId, Handle, Option<Outbox>) {
        let mut table = self.table.lock();
        if let Some(flow) = table.by_target.get(target).copied()
            && let Some((handle, _)) = table.connections.get(&flow)
            && !handle.closing.is_cancelled()
            && !handle.queue.is_closed()
        {
            return (flow, handle.clone(), None);
        }
        let (flow, handle, outbox) = self.insert_locked(&mut table, target.clone());
        (flow, handle, Some(outbox))
    }

    fn insert_locked(&self, table: &mut Table, target: Target) -> (FlowId, Handle, Outbox) {
        let flow = FlowId(table.next);
        table.next = (table.next + 1) & !UDP_BIT;
        let (tx, rx) = mpsc::channel(self.max_messages);
        let handle = Handle {
            queue: tx,
            queued: Arc::default(),
            max_bytes: self.max_bytes,
            slow: Arc::default(),
            closing: self.root.child_token(),
        };
        let outbox = Outbox {
            queue: rx,
            queued: Arc::clone(&handle.queued),
            slow: Arc::clone(&handle.slow),
            current: None,
        };
        table.by_target.insert(target.clone(), flow);
        table.connections.insert(flow, (handle.clone(), target));
        (flow, handle, outbox)
    }

    pub(crate) fn get(&self, flow: FlowId) -> Option<Handle> {
        self.table
            .lock()
            .connections
            .get(&flow)
            .map(|(handle, _)| handle.clone())
    }

    pub(crate) fn find(&self, target: &Target) -> Option<Handle> {
        let flow = self.table.lock().by_target.get(target).copied()?;
        self.get(flow)
    }

    pub(crate) fn remove(&self, flow: FlowId) {
        let mut table = self.table.lock();
        if let Some((_, target)) = table.connections.remove(&flow)
            && table.by_target.get(&target) == Some(&flow)
        {
            table.by_target.remove(&target);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.table.lock().total
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 one, which one host owns whole.
fn source_key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn flows(max: usize, per_source: usize) -> Arc<Flows> {
        let options = Options {
            max_connections: max,
            max_connections_per_source: per_source,
            write_queue: 2,
            ..Options::default()
        };
        Arc::new(Flows::new(&options, CancellationToken::new()))
    }

    fn target(port: u16) -> Target {
        Target {
            transport: Transport::Tcp,
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
            name: None,
        }
    }

    #[test]
    fn places_are_given_back_when_connections_end() {
        let flows = flows(2, 1);
        let mut a = flows.reserve().unwrap();
        a.attribute("2001:db8::1".parse().unwrap()).unwrap();
        let mut b = flows.reserve().unwrap();
        assert_eq!(
            b.attribute("2001:db8::2".parse().unwrap()),
            Err(Refused::TooManyFromSource)
        );
        assert_eq!(b.attribute("2001:db8:0:1::2".parse().unwrap()), Ok(()));
        assert_eq!(flows.reserve().unwrap_err(), Refused::TooMany);
        drop((a, b));
        assert_eq!(flows.count(), 0);
        assert!(flows.table.lock().per_source.is_empty());
    }

    #[test]
    fn a_full_queue_closes_the_connection() {
        let flows = flows(2, 2);
        let (flow, handle, mut outbox) = flows.insert(target(1));
        let message = || Outgoing {
            id: Some(7),
            hop: Hop::to(Transport::Tcp, target(1).remote),
            bytes: Bytes::from_static(b"x"),
        };
        handle.push(message()).unwrap();
        handle.push(message()).unwrap();
        assert!(handle.push(message()).is_err());
        assert!(handle.closing.is_cancelled() && outbox.was_slow());
        assert_eq!(outbox.unsent().len(), 2);
        assert!(handle.push(message()).is_err());
        flows.remove(flow);
        assert!(flows.get(flow).is_none() && flows.table.lock().by_target.is_empty());
    }

    #[test]
    fn a_newer_connection_of_the_same_target_outlives_the_older_ones_end() {
        let flows = flows(4, 4);
        let (old, _, _old) = flows.insert(target(1));
        let (new, _, _new) = flows.insert(target(1));
        assert_ne!(old, new);
        flows.remove(old);
        let (found, _, opened) = flows.find_or_insert(&target(1));
        assert_eq!(found, new);
        assert!(opened.is_none());
    }
}
