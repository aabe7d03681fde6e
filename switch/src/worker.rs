//! One worker: a thread with its own sockets and meetings, sharing nothing with the others.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quinn_udp::RecvMeta;
use smallvec::SmallVec;
use switch_core::Batch;
use switch_core::dtls::Identity;
use switch_core::worker::{ApplyError, Ports as _, SocketId, Worker, WorkerConfig, WorkerStats};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::busy::Busy;
use crate::config::Config;
use crate::fair::{Fair, Waiting};
use crate::metrics::Counters;
use crate::mmsg::Room;
use crate::outbox::{self, Outbox, Outcome};
use crate::sockets::{Media, PortRange, Sockets};

/// Datagrams read at once.
const BATCH: usize = quinn_udp::BATCH_SIZE;
/// How long a round is in which each meeting has a quantum of the worker's time, should nobody have to wait.
const ROUND: Duration = Duration::from_millis(10);

/// Batches read before those who wait have their turn.
const BATCHES_A_ROUND: u32 = 8;

/// Room for one read: the kernel may put several datagrams of a sender into one (GRO).
const BUFFER: usize = 65_536;

/// What a worker is asked.
pub enum Command {
    /// Bring a meeting to the desired state; the worker may hold so many legs.
    Apply(
        Box<control::ApplyRequest>,
        usize,
        oneshot::Sender<Result<Vec<control::LegState>, ApplyError>>,
    ),
    /// End a meeting whose legs are all silent for so long; the flag says that its owner is gone too.
    Reap(String, Duration, bool, oneshot::Sender<bool>),
    /// Tell again what stands in these meetings.
    Retell(Vec<String>),
    /// Show a meeting, or all.
    Inspect(Option<String>, oneshot::Sender<Vec<control::MeetingView>>),
    /// End: close all sockets.
    Stop,
    /// Panic, as a fault of ours would make it.
    #[cfg(test)]
    Panic,
}

/// What others may know of a worker without asking it.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Legs it holds.
    pub legs: AtomicUsize,
    /// Plain ports it holds.
    pub ports: AtomicUsize,
    /// Per mille of the last second that its thread computed.
    pub busy: AtomicU32,
}

impl Gauges {
    /// No time is left for more: packets would be lost soon.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.busy.load(Ordering::Relaxed) >= SATURATED
    }
}

/// Per mille of its time from which on a worker takes no more legs. Higher: a burst finds no time left; lower: the
/// machine is never used up.
pub const SATURATED: u32 = 850;

/// A running worker.
pub struct WorkerHandle {
    /// Asks it something.
    pub commands: mpsc::UnboundedSender<Command>,
    /// Its load.
    pub gauges: Arc<Gauges>,
    /// Where browsers are told to send, on all cards.
    pub webrtc: Vec<SocketAddr>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WorkerHandle {
    /// Starts the thread; returns when its sockets are open. `broken` is cancelled should it panic.
    ///
    /// # Errors
    /// The address that could not be opened, and why.
    pub async fn start(
        config: &Config,
        number: usize,
        identity: Arc<Identity>,
        range: Arc<PortRange>,
        events: mpsc::UnboundedSender<control::Event>,
        broken: CancellationToken,
    ) -> Result<Self, String> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (started, result) = oneshot::channel();
        let gauges = Arc::new(Gauges::default());
        let shared = Arc::clone(&gauges);
        let config = config.clone();
        let thread = std::thread::Builder::new()
            .name(format!("switch-worker-{number}"))
            .spawn(move || {
                let _watch = PanicWatch(broken);
                run(
                    config, number, identity, range, shared, inbox, events, started,
                )
            })
            .map_err(|e| format!("worker thread: {e}"))?;
        let webrtc = result
            .await
            .map_err(|_| "worker thread ended at its start".to_owned())??;
        Ok(Self {
            commands,
            gauges,
            webrtc,
            thread: Some(thread),
        })
    }

    /// A worker that is somebody else's: what it is asked goes to `commands`.
    #[cfg(test)]
    pub fn stand_in(commands: mpsc::UnboundedSender<Command>, gauges: Arc<Gauges>) -> Self {
        Self {
            commands,
            gauges,
            webrtc: Vec::new(),
            thread: None,
        }
    }

    /// Ends the thread and waits for it.
    pub async fn stop(mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Tells of a panic of the thread it lives on.
struct PanicWatch(CancellationToken);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

#[allow(clippy::too_many_arguments)] // handed over once, from one place
fn run(
    config: Config,
    number: usize,
    identity: Arc<Identity>,
    range: Arc<PortRange>,
    gauges: Arc<Gauges>,
    inbox: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<control::Event>,
    started: oneshot::Sender<Result<Vec<SocketAddr>, String>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            let _ = started.send(Err(format!("worker runtime: {e}")));
            return;
        }
    };
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async move {
        let (ready, readable) = mpsc::unbounded_channel();
        let sockets = match Sockets::open(&config, number, range, ready) {
            Ok(sockets) => sockets,
            Err((address, e)) => {
                let _ = started.send(Err(format!("cannot open UDP {address} for media: {e}")));
                return;
            }
        };
        let told = sockets.webrtc().into_iter().flat_map(|(_, told)| told);
        let told = told.collect();
        let lanes = config.workers();
        let core = Worker::new(worker_config(&config), identity, rand::random());
        let shell = Shell {
            core: RefCell::new(core),
            sockets: RefCell::new(sockets),
            received: RefCell::new(Inbox::new()),
            room: RefCell::default(),
            lanes: RefCell::new((0..lanes).map(|_| Batch::new()).collect()),
            told: Cell::default(),
            counters: Counters::default(),
            fair: RefCell::default(),
            round_began: Cell::new(Instant::now()),
            batches: Cell::new(0),
            gauges,
            events,
        };
        let _ = started.send(Ok(told));
        shell.run(inbox, readable).await;
    });
}

fn worker_config(config: &Config) -> WorkerConfig {
    let unix = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    WorkerConfig {
        clock: switch_core::WallClock {
            origin: Instant::now(),
            unix,
        },
        video_bitrate: config.video_bitrate,
        speaker_interval: config.speaker_interval(),
        max_legs: config.capacity,
    }
}

/// Where datagrams are received.
struct Inbox {
    buffers: Vec<Vec<u8>>,
    meta: Vec<RecvMeta>,
}

impl Inbox {
    fn new() -> Self {
        Self {
            buffers: (0..BATCH).map(|_| vec![0; BUFFER]).collect(),
            meta: vec![RecvMeta::default(); BATCH],
        }
    }
}

struct Shell {
    core: RefCell<Worker>,
    sockets: RefCell<Sockets>,
    received: RefCell<Inbox>,
    room: RefCell<Room>,
    /// Batches of the threads that make a burst for thousands together; one of them is the worker's own.
    lanes: RefCell<Vec<Batch>>,
    /// What the metrics know of the core's counters.
    told: Cell<WorkerStats>,
    counters: Counters,
    fair: RefCell<Fair>,
    round_began: Cell<Instant>,
    /// Batches read in this round while somebody waits.
    batches: Cell<u32>,
    gauges: Arc<Gauges>,
    events: mpsc::UnboundedSender<control::Event>,
}

/// Handles datagrams of one peer, and charges their meeting with what was sent because of them.
fn serve<'a>(
    now: Instant,
    core: &mut Worker,
    (socket, remote): (SocketId, SocketAddr),
    datagrams: impl IntoIterator<Item = &'a mut [u8]>,
    outbox: &mut Outbox<'_>,
    fair: &mut Fair,
) {
    let sent = |core: &Worker, outcome: &Outcome| core.waiting() + outcome.sent + outcome.failed;
    let before = sent(core, outbox.outcome);
    let meeting = core.handle_datagrams(now, socket, remote, datagrams, outbox);
    if let Some(meeting) = meeting {
        let cost = sent(core, outbox.outcome) - before;
        fair.charge(meeting, u32::try_from(cost).unwrap_or(u32::MAX));
    }
}

impl Shell {
    async fn run(
        &self,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut readable: mpsc::UnboundedReceiver<(SocketId, Arc<Media>)>,
    ) {
        let mut busy = Busy::new(Instant::now());
        loop {
            // Before the select, not in it: on a busy worker something is always readable.
            let now = Instant::now();
            if now >= busy.due() {
                let share = busy.measure(now);
                self.gauges.busy.store(share, Ordering::Relaxed);
                self.counters.overrun(self.sockets.borrow().overruns());
            }
            let backlogged = self.fair.borrow().is_backlogged();
            let round = now.duration_since(self.round_began.get()) >= ROUND;
            if round || self.batches.get() >= BATCHES_A_ROUND {
                self.round(now);
                self.flush();
            }
            let mut timeout = self.core.borrow().poll_timeout();
            if timeout.is_some_and(|at| at <= now) {
                self.core.borrow_mut().handle_timeout(now);
                self.flush();
                timeout = self.core.borrow().poll_timeout();
            }
            let wake = timeout.map_or(busy.due(), |at| at.min(busy.due()));
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.command(command),
                },
                Some((id, media)) = readable.recv() => self.receive(id, &media),
                // Nothing is to be read: who waits need not. The sockets are looked at in between, so that what comes
                // for others meanwhile does not wait for all of it.
                () = tokio::task::yield_now(), if backlogged => self.round(Instant::now()),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.flush();
        }
    }

    fn command(&self, command: Command) {
        match command {
            Command::Apply(request, most, reply) => {
                let mut sockets = self.sockets.borrow_mut();
                let mut core = self.core.borrow_mut();
                core.set_max_legs(most);
                let result = core.apply(Instant::now(), &request, &mut *sockets);
                self.gauges.legs.store(core.legs(), Ordering::Relaxed);
                self.gauges.ports.store(sockets.plain(), Ordering::Relaxed);
                let _ = reply.send(result);
            }
            Command::Reap(meeting, patience, unowned, reply) => {
                let mut sockets = self.sockets.borrow_mut();
                let mut core = self.core.borrow_mut();
                let now = Instant::now();
                let over = core.reap(now, &meeting, patience, unowned, &mut *sockets);
                self.gauges.legs.store(core.legs(), Ordering::Relaxed);
                self.gauges.ports.store(sockets.plain(), Ordering::Relaxed);
                let _ = reply.send(over);
            }
            Command::Retell(meetings) => {
                let mut core = self.core.borrow_mut();
                meetings.iter().for_each(|meeting| core.retell(meeting));
            }
            Command::Inspect(meeting, reply) => {
                let _ = reply.send(
                    self.core
                        .borrow()
                        .inspect(Instant::now(), meeting.as_deref()),
                );
            }
            Command::Stop => {}
            #[cfg(test)]
            Command::Panic => panic!("asked to"),
        }
    }

    /// Reads one batch of a socket; others then have their turn.
    fn receive(&self, id: SocketId, media: &Media) {
        let batch = &mut *self.received.borrow_mut();
        let mut buffers = batch.buffers.iter_mut();
        let mut slices: [io::IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| io::IoSliceMut::new(buffers.next().map_or(&mut [], |b| b)));
        let count = match media.receive(&mut slices, &mut batch.meta) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                // a peer's ICMP: its packets are lost, nothing of ours is
                self.counters.receive_error();
                return;
            }
        };
        let now = Instant::now();
        let mut core = self.core.borrow_mut();
        let mut sockets = self.sockets.borrow_mut();
        let mut room = self.room.borrow_mut();
        let mut lanes = self.lanes.borrow_mut();
        let mut outcome = Outcome::default();
        let before = core.stats().received;
        let mut received = batch
            .buffers
            .iter_mut()
            .zip(&batch.meta[..count])
            .peekable();
        let mut fair = self.fair.borrow_mut();
        while let Some((buffer, first)) = received.next() {
            // What one peer sent in a row is handled in one go, in however many pieces it was read.
            let from_same =
                |meta: &RecvMeta| (meta.addr, meta.dst_ip) == (first.addr, first.dst_ip);
            let pieces = std::iter::once((buffer, first)).chain(std::iter::from_fn(|| {
                received.next_if(|(_, meta)| from_same(meta))
            }));
            let id = sockets.reached_at(id, first.dst_ip);
            let mut datagrams: SmallVec<[&mut [u8]; 64]> = pieces
                .flat_map(|(buffer, meta)| buffer[..meta.len].chunks_mut(meta.stride.max(1)))
                .collect();
            if !fair.is_calm() {
                datagrams.retain(|bytes| {
                    let meeting = core.meeting_of(id, first.addr, bytes);
                    let late = meeting.filter(|meeting| fair.must_wait(*meeting));
                    if let Some(meeting) = late {
                        let (socket, remote, bytes) = (id, first.addr, bytes.to_vec());
                        fair.wait(
                            meeting,
                            Waiting {
                                socket,
                                remote,
                                bytes,
                            },
                        );
                    }
                    late.is_none()
                });
            }
            let mut outbox = Outbox {
                room: &mut room,
                sockets: &sockets,
                lanes: &mut lanes,
                outcome: &mut outcome,
            };
            serve(
                now,
                &mut core,
                (id, first.addr),
                datagrams,
                &mut outbox,
                &mut fair,
            );
        }
        self.counters.sent(outcome.sent, outcome.failed);
        self.counters.received(core.stats().received - before);
        if fair.is_backlogged() {
            self.batches.set(self.batches.get() + 1);
        }
    }

    /// Everybody has a quantum again, and who waits is served with it.
    fn round(&self, now: Instant) {
        let mut fair = self.fair.borrow_mut();
        let lost = fair.lost();
        fair.begin_round();
        self.round_began.set(now);
        self.batches.set(0);
        if fair.is_backlogged() {
            let mut core = self.core.borrow_mut();
            let sockets = self.sockets.borrow();
            let mut outcome = Outcome::default();
            while let Some((_, mut late)) = fair.next() {
                let mut outbox = Outbox {
                    room: &mut self.room.borrow_mut(),
                    sockets: &sockets,
                    lanes: &mut self.lanes.borrow_mut(),
                    outcome: &mut outcome,
                };
                let from = (late.socket, late.remote);
                let datagram = [&mut late.bytes[..]];
                serve(now, &mut core, from, datagram, &mut outbox, &mut fair);
            }
            self.counters.sent(outcome.sent, outcome.failed);
        }
        self.counters.unfair(fair.lost() - lost);
    }

    /// Sends what the core has to send, and passes on what it tells.
    fn flush(&self) {
        let sockets = self.sockets.borrow();
        let mut core = self.core.borrow_mut();
        if !core.is_batch_empty() {
            let batch = core.batch();
            let outcome = outbox::send(&mut self.room.borrow_mut(), batch, &sockets);
            core.clear_batch();
            self.counters.sent(outcome.sent, outcome.failed);
        }
        let stats = core.stats();
        self.counters.dropped(stats, self.told.replace(stats));
        while let Some(event) = core.poll_event() {
            let _ = self.events.send(event);
        }
    }
}
