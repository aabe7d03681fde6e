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
    socket: SocketId,
    remote: SocketAddr,
    start: u32,
    len: u32,
}

/// Datagrams a [`Batch`] holds at most; a packet more is dropped, like one the kernel's buffer has
/// no room for. A meeting of a thousand makes a thousand of one packet.
pub const MAX_BATCH: usize = 32_768;

/// Bytes a [`Batch`] holds at most.
const MAX_BATCH_BYTES: usize = 48 << 20;

/// Datagrams gathered since the last [`Batch::clear`].
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    dropped: u64,
}

impl Batch {
    /// An empty one with room for an ordinary burst.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(1 << 20),
            entries: Vec::with_capacity(1024),
            dropped: 0,
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
            socket: entry.socket,
            remote: entry.remote,
            bytes: &self.bytes[start..start + entry.len as usize],
        })
    }

    /// Forgets all; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Adds a datagram made of `parts` with room for `extra` bytes behind; `finish` gets the whole
    /// buffer and the length of the parts, and says how long the datagram has become. `None` from
    /// it takes the datagram back.
    pub(crate) fn push_with(
        &mut self,
        socket: SocketId,
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
        self.entries.push(Entry {
            socket,
            remote,
            start: start as u32,
            len: finished as u32,
        });
        true
    }

    /// Adds a datagram as it is.
    pub(crate) fn push(&mut self, socket: SocketId, remote: SocketAddr, bytes: &[u8]) -> bool {
        self.push_with(socket, remote, &[bytes], 0, |_, len| Some(len))
    }
}
