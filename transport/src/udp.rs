//! UDP sockets: datagrams in and out, keepalives, and flow ids that need no table.
//!
//! The id of a UDP flow is a keyed hash of its socket and remote address: as stable as the process, checked
//! against the hop when sending, and it costs a flood of spoofed sources nothing to remember.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sip::{FlowId, Hop, Transport};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::flows::UDP_BIT;
use crate::transports::Shared;
use crate::{Input, metrics, stun};

/// Datagrams waiting for a full socket buffer to drain.
const WAITING: usize = 256;

/// One bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    pub(crate) local: SocketAddr,
    waiting: mpsc::Sender<(u64, Hop, Bytes)>,
}

/// All UDP sockets of one element.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) sockets: Vec<Arc<Socket>>,
    key: RandomState,
}

impl Sockets {
    pub(crate) fn new() -> Self {
        Self {
            sockets: Vec::new(),
            key: RandomState::new(),
        }
    }

    /// Takes a bound socket in; the receiver is for [`run`].
    pub(crate) fn add(&mut self, socket: std::net::UdpSocket) -> io::Result<Waiting> {
        let local = socket.local_addr()?;
        let (waiting, rx) = mpsc::channel(WAITING);
        let socket = Arc::new(Socket {
            socket: UdpSocket::from_std(socket)?,
            local,
            waiting,
        });
        self.sockets.push(Arc::clone(&socket));
        Ok(Waiting { socket, queue: rx })
    }

    fn flow(&self, local: SocketAddr, remote: SocketAddr) -> FlowId {
        FlowId(self.key.hash_one((local, remote)) | UDP_BIT)
    }

    /// The socket a hop goes out of: that of its flow, that of its local address, or the first of the family.
    fn select(&self, hop: &Hop) -> Option<&Arc<Socket>> {
        self.sockets.iter().find(|s| {
            s.local.is_ipv4() == hop.remote.is_ipv4()
                && hop.local.is_none_or(|local| local == s.local)
                && hop
                    .flow
                    .is_none_or(|flow| flow == self.flow(s.local, hop.remote))
        })
    }

    pub(crate) fn send(&self, shared: &Shared, id: u64, hop: Hop, bytes: Bytes) {
        let Some(socket) = self.select(&hop) else {
            return shared.send_failed(id, hop);
        };
        match socket.socket.try_send_to(&bytes, hop.remote) {
            Ok(_) => metrics::sent(Transport::Udp),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if socket.waiting.try_send((id, hop, bytes)).is_err() {
                    shared.send_failed(id, hop);
                }
            }
            Err(e) => {
                tracing::debug!(remote = %hop.remote, error = %e, "datagram not sent");
                shared.send_failed(id, hop);
            }
        }
    }
}

/// What one socket's task needs.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) socket: Arc<Socket>,
    queue: mpsc::Receiver<(u64, Hop, Bytes)>,
}

/// Binds a socket, without yet reading from it.
pub(crate) fn bind(address: SocketAddr, receive_buffer: usize) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        // So that [::] and 0.0.0.0 can both be listened on, and no address is ever a mapped one.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // The kernel cuts this to its own limit; a small buffer is no reason not to start.
    let _ = SockRef::from(&socket).set_recv_buffer_size(receive_buffer);
    Ok(socket.into())
}

/// Receives, and sends what had to wait, until the transports close.
pub(crate) async fn run(shared: Arc<Shared>, mut waiting: Waiting) {
    let socket = Arc::clone(&waiting.socket);
    let mut buffer = vec![0; 65_536];
    loop {
        tokio::select! {
            () = shared.root.cancelled() => return,
            Some((id, hop, bytes)) = waiting.queue.recv() => {
                match socket.socket.send_to(&bytes, hop.remote).await {
                    Ok(_) => metrics::sent(Transport::Udp),
                    Err(_) => shared.send_failed(id, hop),
                }
            }
            received = socket.socket.recv_from(&mut buffer) => match received {
                Ok((length, remote)) => received_one(&shared, &socket, &buffer[..length], remote),
                // An ICMP error of some earlier datagram: says nothing about this socket.
                Err(e) => tracing::trace!(error = %e, "receive error"),
            },
        }
    }
}

fn received_one(shared: &Shared, socket: &Socket, datagram: &[u8], remote: SocketAddr) {
    if stun::is_stun(datagram) {
        if let Some(answer) = stun::answer(datagram, remote)
            && socket.socket.try_send_to(&answer, remote).is_ok()
        {
            metrics::stun_answered();
        }
        return;
    }
    // CRLF keepalives, and the zero bytes some phones send to hold a NAT mapping, say nothing.
    let Some(start) = datagram
        .iter()
        .position(|b| !matches!(b, b'\r' | b'\n' | 0 | b' '))
    else {
        return;
    };
    let hop = Hop {
        transport: Transport::Udp,
        remote,
        local: Some(socket.local),
        flow: Some(shared.udp.flow(socket.local, remote)),
    };
    metrics::received(Transport::Udp);
    let bytes = Bytes::copy_from_slice(&datagram[start..]);
    if shared
        .input
        .try_send(Input::Message { hop, bytes })
        .is_err()
    {
        // Retransmission is the sender's, and slows with every try: dropping is how UDP is told to wait.
        metrics::dropped();
    }
}
