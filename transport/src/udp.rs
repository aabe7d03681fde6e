//! UDP sockets: datagrams in and out, keepalives, and flow ids that need no table.
//!
//! The id of a UDP flow is a keyed hash of its socket and remote address: as stable as the process, checked
//! against the hop when sending, and it costs a flood of spoofed sources nothing to remember.
//!
//! Where all cards are listened on by one socket, the kernel says which of them a datagram came to (IP_PKTINFO, RFC 3542
//! §6), and answers leave from there: the peer knows no other.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use bytes::Bytes;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use sip::{FlowId, Hop, Transport};
use socket2::SockRef;
use tokio::io::Interest;
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

impl Socket {
    /// Whether a datagram can leave from this address of ours.
    fn has(&self, local: SocketAddr) -> bool {
        let own = self.local.ip();
        local.port() == self.local.port()
            && local.is_ipv4() == self.local.is_ipv4()
            && (own == local.ip() || own.is_unspecified())
    }

    /// A datagram, who sent it, and which address of ours it came to.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
        if !self.local.ip().is_unspecified() {
            let (length, remote) = self.socket.recv_from(buffer).await?;
            return Ok((length, remote, self.local));
        }
        let receive = || receive_told(&self.socket, buffer, self.local);
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// The address to name as the source; `None`: the kernel's choice is the only one, or as good.
    fn source(&self, hop: &Hop) -> Option<IpAddr> {
        let local = hop.local?.ip();
        (self.local.ip().is_unspecified() && !local.is_unspecified()).then_some(local)
    }

    fn try_send(&self, bytes: &[u8], hop: &Hop) -> io::Result<()> {
        if let Some(source) = self.source(hop) {
            let send = || send_from(&self.socket, bytes, hop.remote, source);
            let sent = self.socket.try_io(Interest::WRITABLE, send);
            let waits = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
            // Else the card has lost that address since, or it is as bad from any.
            if sent.as_ref().err().is_none_or(waits) {
                return sent;
            }
        }
        self.socket.try_send_to(bytes, hop.remote).map(drop)
    }

    async fn send(&self, bytes: &[u8], hop: &Hop) -> io::Result<()> {
        loop {
            self.socket.writable().await?;
            match self.try_send(bytes, hop) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

fn receive_told(
    socket: &UdpSocket,
    buffer: &mut [u8],
    bound: SocketAddr,
) -> io::Result<(usize, SocketAddr, SocketAddr)> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let told = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let remote = told.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|a| SocketAddrV4::from(*a));
        let v6 = address.as_sockaddr_in6().map(|a| SocketAddrV6::from(*a));
        v4.map(SocketAddr::V4).or(v6.map(SocketAddr::V6))
    });
    let remote = remote.ok_or(io::ErrorKind::InvalidData)?;
    let local = told.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let local = SocketAddr::new(local.unwrap_or(bound.ip()), bound.port());
    Ok((told.bytes, remote, local))
}

fn send_from(
    socket: &UdpSocket,
    bytes: &[u8],
    remote: SocketAddr,
    source: IpAddr,
) -> io::Result<()> {
    let to = SockaddrStorage::from(remote);
    let parts = [IoSlice::new(bytes)];
    let send = |told: ControlMessage<'_>| {
        let flags = MsgFlags::empty();
        sendmsg(socket.as_raw_fd(), &parts, &[told], flags, Some(&to))
    };
    match source {
        IpAddr::V4(ip) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from_ne_bytes(ip.octets()),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        }))?,
        IpAddr::V6(ip) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: ip.octets(),
            },
            ipi6_ifindex: 0,
        }))?,
    };
    Ok(())
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
                && hop.local.is_none_or(|local| s.has(local))
                && hop
                    .flow
                    .is_none_or(|flow| flow == self.flow(s.local, hop.remote))
        })
    }

    pub(crate) fn send(&self, shared: &Shared, id: u64, hop: Hop, bytes: Bytes) {
        let Some(socket) = self.select(&hop) else {
            return shared.send_failed(id, hop);
        };
        match socket.try_send(&bytes, &hop) {
            Ok(()) => metrics::sent(Transport::Udp),
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
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
    }
    // Beyond the kernel's limit where that is allowed, else cut to it; a small buffer is no reason not to start.
    if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
        let _ = SockRef::from(&socket).set_recv_buffer_size(receive_buffer);
    }
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
                match socket.send(&bytes, &hop).await {
                    Ok(()) => metrics::sent(Transport::Udp),
                    Err(_) => shared.send_failed(id, hop),
                }
            }
            received = socket.receive(&mut buffer) => match received {
                Ok((length, remote, local)) => {
                    received_one(&shared, &socket, &buffer[..length], remote, local);
                }
                // An ICMP error of some earlier datagram: says nothing about this socket.
                Err(e) => tracing::trace!(error = %e, "receive error"),
            },
        }
    }
}

fn received_one(
    shared: &Shared,
    socket: &Socket,
    datagram: &[u8],
    remote: SocketAddr,
    local: SocketAddr,
) {
    let hop = Hop {
        transport: Transport::Udp,
        remote,
        local: Some(local),
        flow: Some(shared.udp.flow(socket.local, remote)),
    };
    if stun::is_stun(datagram) {
        if let Some(answer) = stun::answer(datagram, remote)
            && socket.try_send(&answer, &hop).is_ok()
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
