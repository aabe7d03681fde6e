//! The media half: sockets, what is sent, and the checks of what comes.
//!
//! ```text
//!             orders    ┌─────────────────────────────────────┐ reports, feedback, keys
//!  Engine ────────┬────►│ receive threads (epoll, recvmmsg)   ├─────────┐
//!                 │     │ Incoming: SRTP, checks, ICE, DTLS   │         ▼
//!                 │     └─────────────────────────────────────┘  ┌──────────────────┐
//!                 └──────────────────────────────────────────────► send thread (one)│
//!                                                                │ Outgoing, paced  │
//!                                                                └──────────────────┘
//! ```
//!
//! Threads share nothing but sockets and a few counters: each counts into a [`tally::Tally`] of its own, merged at the
//! end. What decides, [`schedule`], [`check`], [`sequence`], [`rtcp`], [`ice`], [`stamp`], [`picture`], is without IO.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use serde::Serialize;
use switch_core::dtls::Identity;

use crate::leg::{Local, Protection, Remote};

pub mod check;
pub mod ice;
mod incoming;
mod outgoing;
pub mod picture;
mod plan;
mod receive;
pub mod report;
pub mod rtcp;
pub mod schedule;
mod send;
pub mod sequence;
mod socket;
pub mod speech;
pub mod stamp;
pub mod tally;

pub use report::{
    Finding, Findings, KindReport, MediaReport, Percentiles, Progress, RtcpReport, Second,
};

use incoming::Desk;
use outgoing::Studio;
use picture::Clip;
use plan::Opened;
use receive::{ReceiveOrder, ReceiveThread, Shared};
use schedule::{Schedule, Watch};
use send::{SendOrder, SendThread};
use socket::Clock;
use speech::Speech;
use tally::Tally;

/// Size of the picture, and with it the bitrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Resolution {
    /// 320×180 at 150 kbit/s.
    #[serde(rename = "180p")]
    P180,
    /// 640×360 at 600 kbit/s.
    #[serde(rename = "360p")]
    P360,
    /// 1280×720 at 1.8 Mbit/s.
    #[serde(rename = "720p")]
    P720,
}

/// What the engine is to do.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How media is protected.
    pub protection: Protection,
    /// The picture of those who speak; `None` without video.
    pub video: Option<Resolution>,
    /// Participants that talk by the schedule: the first of them.
    pub speakers: usize,
    /// Participants in all.
    pub participants: usize,
    /// Receiving threads, at least 1; legs are dealt out in turn.
    pub threads: usize,
    /// What the schedule, SSRCs and first numbers are drawn from. Keys are not.
    pub seed: u64,
    /// Address of this machine to bind to.
    pub bind: IpAddr,
}

/// A receiving thread from outside.
struct Receiver {
    orders: Sender<ReceiveOrder>,
    wake: Arc<EventFd>,
    shared: Arc<Shared>,
    thread: JoinHandle<Tally>,
}

impl Receiver {
    fn order(&self, order: ReceiveOrder) {
        // a thread ends only when it is told to
        if self.orders.send(order).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// Sends and checks the media of all participants.
pub struct Engine {
    config: EngineConfig,
    clock: Clock,
    identity: Option<Identity>,
    opened: Mutex<HashMap<u32, Opened>>,
    legs: AtomicU64,
    receivers: Vec<Receiver>,
    sender: Sender<SendOrder>,
    sending: JoinHandle<Tally>,
    sent: Arc<AtomicU64>,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// What the system says to threads or epoll.
    pub fn start(config: EngineConfig) -> io::Result<Self> {
        let clock = Clock::begin();
        let speakers = config.speakers.min(config.participants);
        let schedule = Schedule::new(config.seed, speakers as u32);
        let identity = match config.protection {
            Protection::Dtls => Some(Identity::generate().map_err(io::Error::other)?),
            _ => None,
        };
        let (sender, orders) = channel();
        let sent = Arc::new(AtomicU64::new(0));
        let studio = Studio::new(Speech::new()?, config.video.map(Clip::new));
        let send_thread = SendThread::new(
            clock,
            orders,
            schedule.clone(),
            speakers as u32,
            studio,
            Arc::clone(&sent),
        );
        let sending = std::thread::Builder::new()
            .name("load-send".to_owned())
            .spawn(move || send_thread.run())?;
        let mut receivers = Vec::new();
        for number in 0..config.threads.max(1) {
            let (orders, receiver) = channel();
            let wake = receive::wake()?;
            let shared = Arc::new(Shared::default());
            let desk = Desk {
                clock,
                tally: Tally::default(),
                watch: Watch::new(schedule.clone()),
                sender: sender.clone(),
                leaving: false,
            };
            let thread = ReceiveThread::new(
                desk,
                receiver,
                Arc::clone(&wake),
                speakers,
                Arc::clone(&shared),
            )?;
            let thread = std::thread::Builder::new()
                .name(format!("load-receive-{number}"))
                .spawn(move || thread.run())?;
            receivers.push(Receiver {
                orders,
                wake,
                shared,
                thread,
            });
        }
        Ok(Self {
            config,
            clock,
            identity,
            opened: Mutex::new(HashMap::new()),
            legs: AtomicU64::new(0),
            receivers,
            sender,
            sending,
            sent,
        })
    }

    /// Opens a participant's sockets and draws what its offer needs.
    ///
    /// # Errors
    /// What the system says to sockets.
    pub fn open(&self, participant: u32) -> io::Result<Local> {
        let fingerprint = self.identity.as_ref().map(|i| *i.fingerprint());
        let opened = Opened::new(&self.config, participant, fingerprint)?;
        let local = opened.local.clone();
        self.opened.lock().insert(participant, opened);
        self.legs.fetch_add(1, Ordering::Relaxed);
        Ok(local)
    }

    /// Begins to send and receive as the answer says. Called again after a re-INVITE, it follows the new answer.
    ///
    /// # Errors
    /// For people: the participant is not open, or the answer makes no sense.
    pub fn connect(&self, participant: u32, remote: Remote) -> Result<(), String> {
        let mut opened = self.opened.lock();
        let opened = opened
            .get_mut(&participant)
            .ok_or_else(|| format!("participant {participant} is not open"))?;
        let plan = opened.plan(
            &self.config,
            self.identity.as_ref(),
            &remote,
            self.clock.now(),
        )?;
        let (receive, send) = plan;
        let receiver = self.receiver(participant);
        // the sender first: what the receiver asks of it must find the leg
        let _ = self.sender.send(SendOrder::Connect(Box::new(send)));
        receiver.order(ReceiveOrder::Connect(Box::new(receive)));
        Ok(())
    }

    fn receiver(&self, participant: u32) -> &Receiver {
        &self.receivers[participant as usize % self.receivers.len()]
    }

    /// The schedule begins to talk.
    pub fn begin(&self) {
        let now = self.clock.now();
        for receiver in &self.receivers {
            receiver.order(ReceiveOrder::Begin(now));
        }
        let _ = self.sender.send(SendOrder::Begin(now));
    }

    /// Calls are about to be ended: a peer that closes DTLS from now on does not fail.
    pub fn leaving(&self) {
        for receiver in &self.receivers {
            receiver.order(ReceiveOrder::Leaving);
        }
    }

    /// Ends a participant's media; what was measured stays.
    pub fn close(&self, participant: u32) {
        if self.opened.lock().remove(&participant).is_some() {
            let _ = self.sender.send(SendOrder::Close(participant));
            self.receiver(participant)
                .order(ReceiveOrder::Close(participant));
        }
    }

    /// Without SIP: participant 0 sends to `to`, plain, Opus as payload type 111 and VP8 (with video) as 96, and
    /// participants 1.. listen on these addresses of ours. However many speakers were asked for, one talks. With port 0
    /// any will do; the addresses bound are returned.
    ///
    /// # Errors
    /// What the system says to sockets.
    pub fn fan_out(&self, to: SocketAddr, listeners: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
        let from = match to {
            SocketAddr::V4(_) if self.config.bind.is_ipv6() => IpAddr::from([0; 4]),
            _ => self.config.bind,
        };
        let sockets = std::iter::once(SocketAddr::new(from, 0)).chain(listeners.iter().copied());
        // the one who talks need not wait for others
        let alone = Box::new(Schedule::new(self.config.seed, 1));
        let _ = self.sender.send(SendOrder::Schedule(alone));
        let mut bound = Vec::with_capacity(listeners.len());
        for (participant, address) in sockets.enumerate() {
            let to = (participant == 0).then_some(to);
            let (local, receive, send) = plan::fan_out(
                &self.config,
                participant as u32,
                address,
                to,
                self.clock.now(),
            )?;
            self.legs.fetch_add(1, Ordering::Relaxed);
            if let Some(send) = send {
                let _ = self.sender.send(SendOrder::Connect(Box::new(send)));
            } else {
                bound.push(local);
            }
            self.receiver(participant as u32)
                .order(ReceiveOrder::Connect(Box::new(receive)));
        }
        Ok(bound)
    }

    /// A look at the numbers so far; cheap.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let sum = |of: fn(&Shared) -> &AtomicU64| {
            let all = self.receivers.iter();
            all.map(|r| of(&r.shared).load(Ordering::Relaxed))
                .sum::<u64>()
        };
        Progress {
            connected: sum(|s| &s.connected),
            with_media: sum(|s| &s.with_media),
            sent: self.sent.load(Ordering::Relaxed),
            received: sum(|s| &s.received),
            lost: sum(|s| &s.lost),
            packets_per_second: sum(|s| &s.rate) as f64,
        }
    }

    /// Ends all and gives the results.
    #[must_use]
    pub fn finish(self) -> MediaReport {
        let seconds = self.clock.now() as f64 / 1e6;
        let mut all = Tally::default();
        let _ = self.sender.send(SendOrder::Stop);
        // a thread that panicked has said so already; the others' numbers are still worth something
        if let Ok(tally) = self.sending.join() {
            all.merge(tally);
        }
        for receiver in self.receivers {
            receiver.order(ReceiveOrder::Stop);
            if let Ok(tally) = receiver.thread.join() {
                all.merge(tally);
            }
        }
        all.report(seconds, self.legs.load(Ordering::Relaxed))
    }
}
