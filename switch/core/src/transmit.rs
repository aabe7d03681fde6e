//! What a worker wants sent: one buffer for the bytes of many datagrams, reused for ever.

use std::net::SocketAddr;

/// A UDP socket of a worker, as the shell numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SocketId(pub u32);

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// From this socket.
    pub socket: SocketId,
    /// To this address.
    pub remote: SocketAddr,
    /// These bytes.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The socket, and the order of the receiver: the same for all datagrams of a link.
    receiver: (SocketId, u32),
    remote: SocketAddr,
    start: u32,
    len: u32,
}

/// Datagrams a [`Batch`] holds at most; a packet more is dropped, like one the kernel's buffer has
/// no room for. A meeting of a thousand makes a thousand of one packet.
pub const MAX_BATCH: usize = 32_768;

/// See [`Batch::is_enough`]. Higher: more is read back from further away; lower: more system calls.
const ENOUGH: usize = 256 << 10;

/// Bytes a [`Batch`] holds at most.
const MAX_BATCH_BYTES: usize = 48 << 20;

/// Where a worker sends while it is still making more: what was just sealed is then still in the processor's cache, and
/// a meeting of thousands may be made by several threads.
pub trait Outlet {
    /// Sends all of a batch; it is empty then.
    fn send(&mut self, batch: &mut Batch);
    /// How many threads may make and send one burst together.
    fn lanes(&self) -> usize;
    /// Does jobs at once, as many as there are lanes at most; all are done when it returns.
    fn spread(&mut self, jobs: Vec<Job<'_>>);
}

/// A part of a burst: made into the batch, which is sent with the other argument and empty then.
pub type Job<'a> = Box<dyn FnOnce(&mut Batch, &mut dyn FnMut(&mut Batch)) + Send + 'a>;

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// Datagrams gathered since the last [`Batch::clear`].
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    dropped: u64,
    grouped: bool,
}

impl Batch {
    /// An empty one with room for an ordinary burst.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(1 << 20),
            entries: Vec::with_capacity(1024),
            dropped: 0,
            grouped: true,
        }
    }

    /// Datagrams waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Enough to be sent before there is more: half of what a core's own cache holds.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.bytes.len() >= ENOUGH
    }

    /// Dropped for want of room since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The datagram at `at`, in the order they were made.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Transmit<'_>> {
        let entry = self.entries.get(at)?;
        let start = entry.start as usize;
        Some(Transmit {
            socket: entry.receiver.0,
            remote: entry.remote,
            bytes: &self.bytes[start..start + entry.len as usize],
        })
    }

    /// The bytes of `count` datagrams from `at` on, where they lie in one piece.
    #[must_use]
    pub fn span(&self, at: usize, count: usize) -> Option<&[u8]> {
        let entries = self.entries.get(at..at + count)?;
        let ends = |entry: &Entry| entry.start + entry.len;
        let whole = entries.windows(2).all(|two| ends(&two[0]) == two[1].start);
        let (first, last) = (entries.first()?, entries.last()?);
        whole.then(|| &self.bytes[first.start as usize..ends(last) as usize])
    }

    /// Brings datagrams to one receiver together, in the order they were made: the kernel takes
    /// a run of them in one send (UDP_SEGMENT), a third of the cost at three in a run. One burst is made receiver by
    /// receiver and needs nothing; what several streams have sent does.
    pub fn group(&mut self) {
        if !self.grouped {
            // By place too: a stable sort would allocate.
            self.entries
                .sort_unstable_by_key(|entry| (entry.receiver, entry.start));
            self.grouped = true;
        }
    }

    /// Forgets all; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.grouped = true;
    }

    /// Adds a datagram to the receiver of that order, made of `parts` with room for `extra` bytes behind; `finish` gets the whole
    /// buffer and the length of the parts, and says how long the datagram has become. `None` from
    /// it takes the datagram back.
    pub(crate) fn push_with(
        &mut self,
        socket: SocketId,
        order: u32,
        remote: SocketAddr,
        parts: &[&[u8]],
        extra: usize,
        finish: impl FnOnce(&mut [u8], usize) -> Option<usize>,
    ) -> bool {
        let start = self.bytes.len();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.entries.len() >= MAX_BATCH || start + len + extra > MAX_BATCH_BYTES {
            self.dropped += 1;
            return false;
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.resize(start + len + extra, 0);
        let finished = finish(&mut self.bytes[start..], len).filter(|n| *n <= len + extra);
        let Some(finished) = finished else {
            self.bytes.truncate(start);
            return false;
        };
        self.bytes.truncate(start + finished);
        let receiver = (socket, order);
        self.grouped &= self
            .entries
            .last()
            .is_none_or(|last| last.receiver <= receiver);
        self.entries.push(Entry {
            receiver,
            remote,
            start: start as u32,
            len: finished as u32,
        });
        true
    }

    /// Adds a datagram as it is, behind those to receivers with an order.
    pub(crate) fn push(&mut self, socket: SocketId, remote: SocketAddr, bytes: &[u8]) -> bool {
        self.push_with(socket, u32::MAX, remote, &[bytes], 0, |_, len| Some(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn grouping_brings_receivers_together_and_keeps_each_ones_order() {
        let mut batch = Batch::new();
        for packet in 0..4u8 {
            for port in 1..=50 {
                let bytes = [packet, port as u8];
                let order = u32::from(port);
                assert!(batch.push_with(
                    SocketId(0),
                    order,
                    to(port),
                    &[&bytes],
                    0,
                    |_, len| Some(len)
                ));
            }
        }
        batch.group();
        let all: Vec<_> = (0..batch.len()).filter_map(|at| batch.get(at)).collect();
        assert_eq!(all.len(), 200);
        for run in all.chunks(4) {
            for (packet, transmit) in run.iter().enumerate() {
                assert_eq!(transmit.remote, run[0].remote);
                let expected = [packet as u8, transmit.remote.port() as u8];
                assert_eq!(transmit.bytes, expected);
            }
        }
    }

    #[test]
    fn a_packet_that_cannot_be_finished_leaves_nothing() {
        let mut batch = Batch::new();
        assert!(batch.push(SocketId(0), to(1), b"first"));
        assert!(!batch.push_with(SocketId(0), 1, to(1), &[b"second"], 4, |_, _| None));
        assert!(batch.push_with(
            SocketId(0),
            1,
            to(1),
            &[b"thi", b"", b"rd"],
            4,
            |buffer, len| {
                buffer[len] = b'!';
                Some(len + 1)
            }
        ));
        let all: Vec<_> = (0..batch.len())
            .filter_map(|at| batch.get(at))
            .map(|t| t.bytes.to_vec())
            .collect();
        assert_eq!(all, [b"first".to_vec(), b"third!".to_vec()]);
    }

    #[test]
    fn neighbours_lie_in_one_piece_until_they_are_sorted() {
        let mut batch = Batch::new();
        for order in [2, 1, 2] {
            let bytes = [order as u8; 3];
            batch.push_with(SocketId(0), order, to(1), &[&bytes], 0, |_, len| Some(len));
        }
        assert_eq!(batch.span(0, 2), Some(&[2, 2, 2, 1, 1, 1][..]));
        batch.group();
        assert_eq!(batch.span(0, 1), Some(&[1, 1, 1][..]));
        assert_eq!(batch.span(1, 2), None, "what was between is elsewhere now");
        assert_eq!(batch.span(2, 2), None, "there are not so many");
    }

    #[test]
    fn a_full_batch_drops_and_counts() {
        let mut batch = Batch::new();
        for _ in 0..MAX_BATCH {
            assert!(batch.push(SocketId(0), to(1), b"x"));
        }
        assert!(!batch.push(SocketId(0), to(1), b"x"));
        assert_eq!((batch.len(), batch.dropped()), (MAX_BATCH, 1));
        batch.clear();
        assert!(batch.push(SocketId(0), to(1), b"x"));
    }
}
