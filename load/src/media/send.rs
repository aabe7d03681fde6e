//! The thread that sends for all participants, each packet at its time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use switch_core::srtp::{Profile, Sealer};

use super::outgoing::{Line, Outgoing, PICTURE_STEP, Report, Studio, VOICE_STEP, Way};
use super::rtcp::OwnStream;
use super::schedule::{Schedule, Spurt};
use super::socket::{Clock, MediaSocket};
use super::tally::Tally;
use crate::leg::Kind;

/// When packets that open the path leave, µs after the answer: two at once, as some servers want two in a row.
const OPENING: [u64; 4] = [0, 20_000, 40_000, 600_000];

/// Longest wait without anything due, µs: for orders it is woken.
const IDLE: u64 = 100_000;

/// Cameras begin so far apart, µs, so that not all frames are sent at the same moment.
const CAMERA_STAGGER: u64 = 7_000;

/// One m-line of a connected leg.
pub struct SendLine {
    /// Audio or video.
    pub kind: Kind,
    /// From the answer.
    pub way: Way,
    /// Its socket.
    pub socket: Arc<MediaSocket>,
    /// Where others read what was sent.
    pub own: Arc<OwnStream>,
    /// SDES: profile and our key.
    pub key: Option<(Profile, Vec<u8>)>,
    /// For its first number, timestamp and picture id.
    pub random: u64,
}

/// A leg, after an answer.
pub struct SendLeg {
    /// Whose.
    pub participant: u32,
    /// Its CNAME.
    pub cname: String,
    /// m-lines by their place in the offer; `None` for those refused.
    pub lines: Vec<Option<SendLine>>,
    /// One transport, whose keys come from DTLS.
    pub bundled: bool,
}

/// What the thread is told.
pub enum SendOrder {
    /// A leg was answered, or answered anew.
    Connect(Box<SendLeg>),
    /// DTLS gave keys: send there, with this.
    Keys(u32, SocketAddr, Box<Sealer>),
    /// Consent was lost.
    Silence(u32),
    /// A report of an m-line is due.
    Report(u32, usize, Report),
    /// Somebody needs a key frame of that SSRC.
    Keyframe(u32, u32),
    /// A packet is missed: SSRC and number.
    Missing(u32, u32, u16),
    /// Another schedule, instead of the one it was made with.
    Schedule(Box<Schedule>),
    /// The schedule begins at that time.
    Begin(u64),
    /// A leg ends.
    Close(u32),
    /// All ends.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Open(u32),
    Voice(u32),
    Picture(u32),
}

/// The thread.
pub struct SendThread {
    clock: Clock,
    orders: Receiver<SendOrder>,
    schedule: Schedule,
    next_spurt: Option<(Spurt, u64)>,
    begun: Option<u64>,
    speakers: u32,
    legs: HashMap<u32, Outgoing>,
    tasks: BinaryHeap<Reverse<(u64, Task)>>,
    studio: Studio,
    tally: Tally,
    sent: Arc<AtomicU64>,
}

impl SendThread {
    /// One without legs. `sent` is kept up with the packets sent.
    #[must_use]
    pub fn new(
        clock: Clock,
        orders: Receiver<SendOrder>,
        schedule: Schedule,
        speakers: u32,
        studio: Studio,
        sent: Arc<AtomicU64>,
    ) -> Self {
        Self {
            clock,
            orders,
            schedule,
            next_spurt: None,
            begun: None,
            speakers,
            legs: HashMap::new(),
            tasks: BinaryHeap::new(),
            studio,
            tally: Tally::default(),
            sent,
        }
    }

    /// Runs until it is stopped; what it counted.
    pub fn run(mut self) -> Tally {
        loop {
            self.run_due();
            let counts = [&self.tally.audio.counts, &self.tally.video.counts];
            let sent = counts.iter().map(|c| c.sent).sum();
            self.sent.store(sent, Ordering::Relaxed);
            let now = self.clock.now();
            let due = self.due().min(now + IDLE);
            let wait = Duration::from_micros(due.saturating_sub(now));
            match self.orders.recv_timeout(wait) {
                Ok(SendOrder::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(order) => self.on_order(order),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        let mut all: Vec<u32> = self.legs.keys().copied().collect();
        all.sort_unstable();
        all.into_iter()
            .for_each(|participant| self.close(participant));
        self.tally
    }

    fn due(&self) -> u64 {
        let task = self.tasks.peek().map(|Reverse((due, _))| *due);
        let spurt = self.next_spurt.map(|(_, begin)| begin);
        task.unwrap_or(u64::MAX).min(spurt.unwrap_or(u64::MAX))
    }

    fn run_due(&mut self) {
        loop {
            let now = self.clock.now();
            if let Some((spurt, begin)) = self.next_spurt.filter(|(_, begin)| *begin <= now) {
                self.on_spurt(spurt, begin);
                continue;
            }
            let Some(Reverse((due, task))) = self.tasks.peek().copied() else {
                return;
            };
            if due > now {
                return;
            }
            self.tasks.pop();
            self.run_task(due, task, now);
        }
    }

    fn on_spurt(&mut self, spurt: Spurt, begin: u64) {
        let end = begin + (spurt.end - spurt.begin).as_micros() as u64;
        if let Some(leg) = self.legs.get_mut(&spurt.speaker) {
            leg.begin(spurt, begin, end, &self.studio);
            self.tasks
                .push(Reverse((begin, Task::Voice(spurt.speaker))));
        }
        self.draw_spurt();
    }

    fn draw_spurt(&mut self) {
        let Some(begun) = self.begun else {
            return;
        };
        let next = self.schedule.next();
        self.next_spurt = next.map(|spurt| (spurt, begun + spurt.begin.as_micros() as u64));
    }

    fn run_task(&mut self, due: u64, task: Task, now: u64) {
        let (Task::Open(participant) | Task::Voice(participant) | Task::Picture(participant)) =
            task;
        let Some(leg) = self.legs.get_mut(&participant) else {
            return;
        };
        let (studio, tally) = (&mut self.studio, &mut self.tally);
        let again = match task {
            Task::Open(_) => {
                leg.open_path(due, now, studio, tally);
                return;
            }
            Task::Voice(_) => leg.voice(due, now, studio, tally).then_some(VOICE_STEP),
            Task::Picture(_) => {
                if leg.ready {
                    let instant = self.clock.instant(now);
                    leg.picture(due, now, instant, studio, tally);
                }
                Some(PICTURE_STEP)
            }
        };
        tally.send_lag.record(now - due);
        if let Some(step) = again {
            self.tasks.push(Reverse((due + step, task)));
        }
    }

    fn on_order(&mut self, order: SendOrder) {
        let now = self.clock.now();
        match order {
            SendOrder::Connect(leg) => self.connect(*leg),
            SendOrder::Keys(participant, to, sealer) => {
                if let Some(leg) = self.legs.get_mut(&participant) {
                    for line in leg.lines.iter_mut().flatten() {
                        line.way.to = to;
                        line.way.rtcp_to = to;
                    }
                    leg.sealers = vec![Some(*sealer)];
                    self.on_ready(participant);
                }
            }
            SendOrder::Silence(participant) => {
                if let Some(leg) = self.legs.get_mut(&participant) {
                    leg.ready = false;
                }
            }
            SendOrder::Report(participant, line, report) => {
                if let Some(leg) = self.legs.get_mut(&participant) {
                    leg.report(line, now, &report, &mut self.tally);
                }
            }
            SendOrder::Keyframe(participant, ssrc) => {
                if let Some(leg) = self.legs.get_mut(&participant) {
                    leg.request_keyframe(ssrc);
                }
            }
            SendOrder::Missing(participant, ssrc, number) => {
                if let Some(leg) = self.legs.get_mut(&participant) {
                    leg.send_again(ssrc, number, &mut self.studio, &mut self.tally);
                }
            }
            SendOrder::Schedule(schedule) => self.schedule = *schedule,
            SendOrder::Begin(at) => {
                if self.begun.is_none() {
                    self.begun = Some(at);
                    self.draw_spurt();
                }
            }
            SendOrder::Close(participant) => self.close(participant),
            SendOrder::Stop => {}
        }
    }

    fn connect(&mut self, new: SendLeg) {
        let participant = new.participant;
        let bundled = new.bundled;
        let leg = self
            .legs
            .entry(participant)
            .or_insert_with(|| Outgoing::new(participant, new.cname, bundled));
        leg.lines
            .resize_with(new.lines.len().max(leg.lines.len()), || None);
        if !bundled {
            leg.sealers.resize_with(leg.lines.len(), || None);
        }
        for (at, line) in new.lines.into_iter().enumerate() {
            let Some(line) = line else {
                leg.lines[at] = None;
                continue;
            };
            if !bundled {
                // The same key goes on with its sealer: a new one would begin its indices anew.
                let same =
                    leg.sealers[at].as_ref().map(Sealer::profile) == line.key.as_ref().map(|k| k.0);
                if !same {
                    // the length was checked when the answer came
                    leg.sealers[at] = line
                        .key
                        .and_then(|(profile, key)| Sealer::new(profile, &key).ok());
                }
            }
            match &mut leg.lines[at] {
                Some(known) if known.ssrc() == line.own.ssrc => {
                    let mut way = line.way;
                    if bundled {
                        (way.to, way.rtcp_to) = (known.way.to, known.way.rtcp_to);
                    }
                    known.way = way;
                }
                place => {
                    let (way, socket) = (line.way, line.socket);
                    *place = Some(Line::new(line.kind, way, socket, line.own, line.random));
                }
            }
        }
        if !bundled || leg.ready {
            self.on_ready(participant);
        }
    }

    /// A leg may send: it opens the path, and its camera goes on.
    fn on_ready(&mut self, participant: u32) {
        let now = self.clock.now();
        let Some(leg) = self.legs.get_mut(&participant) else {
            return;
        };
        let first = !std::mem::replace(&mut leg.ready, true);
        if participant < self.speakers
            && leg.has_camera()
            && !leg.filming
            && self.studio.clip.is_some()
        {
            leg.filming = true;
            let begin = now + u64::from(participant % 8) * CAMERA_STAGGER;
            self.tasks
                .push(Reverse((begin, Task::Picture(participant))));
        }
        if first {
            for after in OPENING {
                self.tasks
                    .push(Reverse((now + after, Task::Open(participant))));
            }
        }
    }

    fn close(&mut self, participant: u32) {
        let now = self.clock.now();
        if let Some(mut leg) = self.legs.remove(&participant) {
            let bye = Report {
                bye: true,
                ..Report::default()
            };
            for line in 0..leg.lines.len() {
                leg.report(line, now, &bye, &mut self.tally);
            }
        }
    }
}
