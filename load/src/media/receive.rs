//! A thread that reads the sockets of its legs: epoll, then whole batches (recvmmsg, GRO) of each socket that has some.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use quinn_udp::RecvMeta;

use super::incoming::{Desk, Incoming, Port, ReceiveLeg};
use super::tally::Tally;

/// Buffers a system call may fill. More would be filled only by a socket that has waited for long.
const BATCH: usize = 16;

/// What the kernel may have joined into one buffer (GRO): 64 datagrams, at most what UDP can carry.
const BUFFER: usize = 1 << 16;

/// Sockets told of at once.
const EVENTS: usize = 256;

/// Batches of one socket before the others have their turn.
const MOST_BATCHES: usize = 4;

/// Legs do what is due this often, µs: as often as the fastest of it, ICE checks.
const TICK: u64 = 50_000;

/// Numbers for others are brought up to date this often, µs.
const PUBLISH: u64 = 250_000;

/// The token of the thread's own wake-up.
const WAKE: u64 = u64::MAX;

/// A thread's numbers for [`super::Engine::progress`].
#[derive(Debug, Default)]
pub struct Shared {
    /// Legs with keys.
    pub connected: AtomicU64,
    /// Legs that got RTP.
    pub with_media: AtomicU64,
    /// RTP packets received.
    pub received: AtomicU64,
    /// Missing.
    pub lost: AtomicU64,
    /// Received a second.
    pub rate: AtomicU64,
}

/// What the thread is told.
pub enum ReceiveOrder {
    /// A leg was answered, or answered anew.
    Connect(Box<ReceiveLeg>),
    /// The schedule begins at that time.
    Begin(u64),
    /// Calls are about to be ended.
    Leaving,
    /// A leg ends.
    Close(u32),
    /// All ends.
    Stop,
}

struct Open {
    port: Port,
    leg: usize,
}

/// The thread.
pub struct ReceiveThread {
    epoll: Epoll,
    wake: Arc<EventFd>,
    orders: Receiver<ReceiveOrder>,
    desk: Desk,
    speakers: usize,
    ports: Vec<Option<Open>>,
    /// Legs, and their first port.
    legs: Vec<Option<(Incoming, usize)>>,
    by_participant: HashMap<u32, usize>,
    shared: Arc<Shared>,
    buffers: Vec<u8>,
    next_tick: u64,
    published: (u64, u64),
}

/// The wake-up of a thread, to be rung after an order.
///
/// # Errors
/// What the system says.
pub fn wake() -> io::Result<Arc<EventFd>> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    Ok(Arc::new(EventFd::from_value_and_flags(0, flags)?))
}

impl ReceiveThread {
    /// One without legs.
    ///
    /// # Errors
    /// What the system says to epoll.
    pub fn new(
        desk: Desk,
        orders: Receiver<ReceiveOrder>,
        wake: Arc<EventFd>,
        speakers: usize,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            wake,
            orders,
            desk,
            speakers,
            ports: Vec::new(),
            legs: Vec::new(),
            by_participant: HashMap::new(),
            shared,
            buffers: vec![0; BATCH * BUFFER],
            next_tick: 0,
            published: (0, 0),
        })
    }

    /// Runs until it is stopped; what it counted.
    pub fn run(mut self) -> Tally {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let now = self.desk.clock.now();
            if now >= self.next_tick {
                self.tick(now);
            }
            let wait = self.next_tick.saturating_sub(now).div_ceil(1000);
            let wait = EpollTimeout::try_from(Duration::from_millis(wait));
            let wait = wait.unwrap_or(EpollTimeout::ZERO);
            // interrupted by a signal: as if nothing came
            let ready = self.epoll.wait(&mut events, wait).unwrap_or(0);
            for event in &events[..ready] {
                match event.data() {
                    WAKE => {
                        let _ = self.wake.read();
                        if self.take_orders() {
                            return self.finish();
                        }
                    }
                    port => self.read(port as usize),
                }
            }
        }
    }

    /// Whether all ends.
    fn take_orders(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                ReceiveOrder::Connect(leg) => self.connect(*leg),
                ReceiveOrder::Begin(at) => self.desk.watch.begin(Duration::from_micros(at)),
                ReceiveOrder::Leaving => self.desk.leaving = true,
                ReceiveOrder::Close(participant) => self.close(participant),
                ReceiveOrder::Stop => return true,
            }
        }
        false
    }

    fn connect(&mut self, mut leg: ReceiveLeg) {
        let secure = leg.secure.is_some();
        let at = match self.by_participant.get(&leg.participant) {
            Some(at) => *at,
            None => {
                let incoming = Incoming::new(&leg, self.speakers, &mut self.desk);
                self.by_participant.insert(leg.participant, self.legs.len());
                self.legs.push(Some((incoming, self.ports.len())));
                self.legs.len() - 1
            }
        };
        for socket in std::mem::take(&mut leg.sockets) {
            let known = self
                .ports
                .iter_mut()
                .flatten()
                .find(|open| Arc::ptr_eq(&open.port.socket, &socket.socket));
            if let Some(known) = known {
                known.port.update(socket);
                continue;
            }
            let event = EpollEvent::new(EpollFlags::EPOLLIN, self.ports.len() as u64);
            let port = Port::new(socket, secure);
            match self.epoll.add(&*port.socket, event) {
                Ok(()) => self.ports.push(Some(Open { port, leg: at })),
                Err(e) => {
                    let failed = &mut self.desk.tally.failed;
                    failed
                        .entry(leg.participant)
                        .or_insert(format!("epoll: {e}"));
                }
            }
        }
        if let Some(Some((incoming, _))) = self.legs.get_mut(at) {
            incoming.update(&mut leg, &mut self.desk);
        }
    }

    fn close(&mut self, participant: u32) {
        let Some(at) = self.by_participant.remove(&participant) else {
            return;
        };
        let mine = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.leg == at);
        let mine: Vec<usize> = (0..self.ports.len())
            .filter(|port| mine(&self.ports[*port]))
            .collect();
        // what came before the end counts
        mine.iter().for_each(|port| self.read(*port));
        if let Some((leg, port)) = self.legs[at].take()
            && let Some(Some(open)) = self.ports.get(port)
        {
            leg.finish(&open.port, &mut self.desk);
        }
        for port in mine {
            if let Some(open) = self.ports[port].take() {
                let _ = self.epoll.delete(&*open.port.socket);
            }
        }
    }

    /// Reads what a socket has.
    #[inline]
    fn read(&mut self, index: usize) {
        let Some(Some(open)) = self.ports.get_mut(index) else {
            return;
        };
        let Some(Some((leg, _))) = self.legs.get_mut(open.leg) else {
            return;
        };
        let desk = &mut self.desk;
        for _ in 0..MOST_BATCHES {
            let mut metas = [RecvMeta::default(); BATCH];
            let mut free = self.buffers.chunks_exact_mut(BUFFER);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(free.next().unwrap_or_default()));
            // other errors are ICMP's: what was sent did not arrive, which the server's silence shows
            let Ok(count) = open.port.socket.receive(&mut slices, &mut metas) else {
                return;
            };
            let now = desk.clock.now();
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let filled = self.buffers.chunks_exact_mut(BUFFER).zip(&metas);
            for (buffer, meta) in filled.take(count) {
                // The kernel's time of arrival: how long the datagram lay here is not the server's delay.
                let lay = match (meta.timestamp, &wall) {
                    (Some(arrived), Ok(wall)) => wall.saturating_sub(arrived).as_micros() as u64,
                    _ => 0,
                };
                desk.tally.queued.record(lay);
                let at = now.saturating_sub(lay);
                for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                    leg.on_datagram(&mut open.port, datagram, meta.addr, at, desk);
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    fn tick(&mut self, now: u64) {
        self.next_tick = now + TICK;
        for (leg, port) in self.legs.iter_mut().flatten() {
            if let Some(Some(open)) = self.ports.get_mut(*port) {
                leg.on_tick(&mut open.port, &mut self.desk);
            }
        }
        let (last, received_then) = self.published;
        if now.saturating_sub(last) >= PUBLISH {
            let (received, lost) = self.desk.tally.received_and_lost();
            let rate = (received - received_then) * 1_000_000 / (now - last).max(1);
            self.published = (now, received);
            let shared = &self.shared;
            let tally = &self.desk.tally;
            shared.connected.store(tally.connected, Ordering::Relaxed);
            shared.with_media.store(tally.with_media, Ordering::Relaxed);
            shared.received.store(received, Ordering::Relaxed);
            shared.lost.store(lost, Ordering::Relaxed);
            shared.rate.store(rate, Ordering::Relaxed);
        }
    }

    fn finish(mut self) -> Tally {
        let mut all: Vec<u32> = self.by_participant.keys().copied().collect();
        all.sort_unstable();
        all.into_iter()
            .for_each(|participant| self.close(participant));
        self.desk.tally
    }
}
