//! UDP sockets of one worker: opened, advertised, read in batches, and closed so that their ports are free again.
//!
//! A socket on 0.0.0.0 or :: stands for every address of the machine, and what reached one of them is answered from
//! that one: a check answered from another is no answer (RFC 8445 §7.2.5.2.1). So the core is told of one shared
//! socket for each address that is reached, and a plain port sends from the address its peer was told.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use switch_core::worker::{PlainPorts, Ports, SocketId};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::config::{Card, Config, source_towards};
use crate::mmsg::{Message, Room, overruns};

/// One media socket.
#[derive(Debug)]
pub struct Media {
    socket: UdpSocket,
    state: UdpSocketState,
    port: u16,
    /// Datagrams one send may hold.
    segments: AtomicUsize,
    /// Datagrams it had no room for, when last asked.
    overruns: AtomicU32,
    /// On every address of the machine.
    any: bool,
    /// Told when the worker has read: only then may the socket be announced again, so that the
    /// queue of readable sockets never holds one twice.
    served: Notify,
}

impl Media {
    fn open(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // the kernel grants what it may, and the administrator more; less is a risk of loss, not an error
        if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
            let _ = socket.set_recv_buffer_size(buffer);
        }
        if setsockopt(&socket, sockopt::SndBufForce, &buffer).is_err() {
            let _ = socket.set_send_buffer_size(buffer);
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let port = socket.local_addr()?.port();
        Ok(Self {
            segments: AtomicUsize::new(state.max_gso_segments()),
            overruns: AtomicU32::new(0),
            socket,
            state,
            port,
            any: address.ip().is_unspecified(),
            served: Notify::new(),
        })
    }

    /// Waits until something can be read.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads a batch; `WouldBlock` when there is none.
    pub fn receive(
        &self,
        buffers: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let result = self.socket.try_io(Interest::READABLE, || {
            self.state
                .recv(UdpSockRef::from(&self.socket), buffers, meta)
        });
        self.served.notify_one();
        result
    }

    /// Sends messages; how many of them, from the first, the kernel took.
    ///
    /// # Errors
    /// Why the first was not taken; `WouldBlock` where the buffer is full.
    pub fn send(&self, room: &mut Room, messages: &[Message<'_>]) -> io::Result<usize> {
        self.socket.try_io(Interest::WRITABLE, || {
            room.send(self.socket.as_fd(), messages)
        })
    }

    /// A segmented send was refused: from now on datagrams go one by one.
    pub fn on_segments_refused(&self) {
        self.segments.store(1, Ordering::Relaxed);
    }

    /// Datagrams it had no room for since this was asked last.
    fn overruns(&self) -> u32 {
        let now = overruns(self.socket.as_fd());
        now.wrapping_sub(self.overruns.swap(now, Ordering::Relaxed))
    }

    /// How many datagrams one send may hold.
    pub fn segments(&self) -> usize {
        self.segments.load(Ordering::Relaxed)
    }
}

/// Ports for phones, shared by all workers.
#[derive(Debug)]
pub struct PortRange {
    range: Option<(u16, u16)>,
    next: Mutex<u16>,
}

impl PortRange {
    /// The configured range; even ports are for RTP (RFC 3550 §11).
    #[must_use]
    pub fn new([first, last]: [u16; 2]) -> Self {
        let first = first.next_multiple_of(2);
        Self {
            range: (first != 0).then_some((first, last)),
            next: Mutex::new(first),
        }
    }

    /// Opens a socket, or a pair on neighbouring ports, on the next free ports. `None`: all are taken.
    fn open(&self, ip: IpAddr, pair: bool, buffer: usize) -> Option<(Media, Option<Media>)> {
        let try_at = |port: u16| -> Option<(Media, Option<Media>)> {
            let rtp = Media::open(SocketAddr::new(ip, port), buffer).ok()?;
            let rtcp = match pair {
                true => {
                    Some(Media::open(SocketAddr::new(ip, rtp.port.checked_add(1)?), buffer).ok()?)
                }
                false => None,
            };
            Some((rtp, rtcp))
        };
        let Some((first, last)) = self.range else {
            // the kernel chooses; a pair needs luck with the neighbour
            return (0..64).find_map(|_| try_at(0));
        };
        let mut next = self.next.lock();
        for _ in 0..=(last - first) / 2 {
            let port = *next;
            *next = if port >= last.saturating_sub(2) {
                first
            } else {
                port + 2
            };
            if let Some(opened) = try_at(port) {
                return Some(opened);
            }
        }
        None
    }
}

/// A socket, and the task that reads it.
struct Reader {
    media: Arc<Media>,
    task: JoinHandle<()>,
    /// What leaves it leaves from here.
    source: Option<IpAddr>,
}

/// Addresses of the machine that one shared socket is told apart by; those beyond share its own number.
const MOST_LOCAL: usize = 256;

/// Whether this is an address of this machine.
fn is_local(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// All sockets of one worker. Implements what the worker's core asks for when legs come and go.
pub struct Sockets {
    open: HashMap<SocketId, Reader>,
    next: u32,
    webrtc: Vec<(SocketId, Vec<SocketAddr>)>,
    /// Shared sockets on every address of the machine, as they were reached, and what they are called then.
    reached: HashMap<(SocketId, IpAddr), SocketId>,
    /// The other way round.
    called: HashMap<SocketId, (SocketId, IpAddr)>,
    plain: usize,
    range: Arc<PortRange>,
    cards: Vec<Card>,
    buffer: usize,
    /// Sockets that have something to read.
    ready: mpsc::UnboundedSender<(SocketId, Arc<Media>)>,
}

impl Sockets {
    /// Opens the worker's port for browsers on every listening address.
    ///
    /// # Errors
    /// The address and what the system says.
    pub fn open(
        config: &Config,
        worker: usize,
        range: Arc<PortRange>,
        ready: mpsc::UnboundedSender<(SocketId, Arc<Media>)>,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let mut sockets = Self {
            open: HashMap::new(),
            next: 0,
            webrtc: Vec::new(),
            reached: HashMap::new(),
            called: HashMap::new(),
            plain: 0,
            range,
            cards: config.cards(),
            buffer: config.socket_buffer,
            ready,
        };
        for card in config.cards() {
            let port = match config.webrtc_port {
                0 => 0,
                first => first.saturating_add(u16::try_from(worker).unwrap_or(u16::MAX)),
            };
            let address = SocketAddr::new(card.listen, port);
            let media = Media::open(address, config.socket_buffer).map_err(|e| (address, e))?;
            let port = media.port;
            let told = card.told.iter().map(|a| SocketAddr::new(*a, port));
            let told = told.collect();
            let id = sockets.add(media, None);
            sockets.webrtc.push((id, told));
        }
        Ok(sockets)
    }

    /// The socket of that id, and the address to send from.
    pub fn get(&self, id: SocketId) -> Option<(&Arc<Media>, Option<IpAddr>)> {
        if let Some((shared, local)) = self.called.get(&id) {
            let reader = self.open.get(shared)?;
            return Some((&reader.media, Some(*local)));
        }
        self.open.get(&id).map(|r| (&r.media, r.source))
    }

    /// What the core calls a socket that was reached at this address of the machine.
    pub fn reached_at(&mut self, id: SocketId, local: Option<IpAddr>) -> SocketId {
        let Some(local) = local else {
            return id;
        };
        if let Some(known) = self.reached.get(&(id, local)) {
            return *known;
        }
        let shared = self.webrtc.iter().any(|(socket, _)| *socket == id);
        let any = self.open.get(&id).is_some_and(|reader| reader.media.any);
        if !(shared && any) || self.reached.len() >= MOST_LOCAL {
            return id;
        }
        let called = SocketId(self.next);
        self.next += 1;
        self.reached.insert((id, local), called);
        self.called.insert(called, (id, local));
        called
    }

    /// Datagrams that the kernel had no room for since this was asked last.
    pub fn overruns(&self) -> u64 {
        let all = self.open.values();
        all.map(|reader| u64::from(reader.media.overruns())).sum()
    }

    /// UDP ports of the plain range in use.
    pub fn plain(&self) -> usize {
        self.plain
    }

    fn add(&mut self, media: Media, source: Option<IpAddr>) -> SocketId {
        let id = SocketId(self.next);
        self.next += 1;
        let media = Arc::new(media);
        let ready = self.ready.clone();
        let read = Arc::clone(&media);
        let task = tokio::task::spawn_local(async move {
            while read.readable().await.is_ok() && ready.send((id, Arc::clone(&read))).is_ok() {
                read.served.notified().await;
            }
        });
        let reader = Reader {
            media,
            task,
            source,
        };
        self.open.insert(id, reader);
        id
    }
}

/// The card of the family from which packets to the peer leave; the first where that is none of them, or nobody
/// knows the peer yet.
fn card_for(cards: &[Card], ipv6: bool, peer: Option<IpAddr>) -> Option<&Card> {
    let mut of_family = cards
        .iter()
        .filter(|c| c.listen.is_ipv6() == ipv6 && !c.told.is_empty());
    let first = of_family.next()?;
    if of_family.next().is_none() {
        return Some(first);
    }
    let source = peer
        .filter(|peer| peer.is_ipv6() == ipv6)
        .and_then(source_towards);
    let towards = cards.iter().find(|c| Some(c.listen) == source);
    Some(towards.filter(|c| !c.told.is_empty()).unwrap_or(first))
}

impl Ports for Sockets {
    fn webrtc(&self) -> Vec<(SocketId, Vec<SocketAddr>)> {
        self.webrtc.clone()
    }

    fn advertised(&self, ipv6: bool, peer: Option<IpAddr>) -> Option<IpAddr> {
        card_for(&self.cards, ipv6, peer)?.told.first().copied()
    }

    fn open(&mut self, ipv6: bool, peer: Option<IpAddr>, with_rtcp: bool) -> Option<PlainPorts> {
        let card = card_for(&self.cards, ipv6, peer)?;
        let (listen, advertised) = (card.listen, *card.told.first()?);
        let (rtp, rtcp) = self.range.open(listen, with_rtcp, self.buffer)?;
        let rtp_port = rtp.port;
        let rtcp_port = rtcp.as_ref().map_or(0, |m| m.port);
        self.plain += 1 + usize::from(rtcp.is_some());
        // Behind NAT the told address is another's, and the system knows best.
        let source = Some(advertised).filter(|ip| listen.is_unspecified() && is_local(*ip));
        let rtp = self.add(rtp, source);
        let rtcp = rtcp.map(|m| self.add(m, source));
        Some(PlainPorts {
            rtp,
            rtcp,
            advertised,
            rtp_port,
            rtcp_port,
        })
    }

    fn close(&mut self, socket: SocketId) {
        if let Some(reader) = self.open.remove(&socket) {
            reader.task.abort();
            self.plain -= 1;
        }
    }
}
