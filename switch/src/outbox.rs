//! Sends what a worker has to send in as few system calls as the kernel lets it: what goes to one receiver as one
//! segmented send (UDP_SEGMENT), and many receivers of a socket in one call (sendmmsg).

use std::io;

use switch_core::worker::{Job, Outlet};
use switch_core::{Batch, Transmit};

use crate::mmsg::{Message, Room};
use crate::sockets::{Media, Sockets};

/// Receivers a system call. More gain nothing: by then the call itself is a hundredth of the cost.
const TOGETHER: usize = 64;

/// Datagrams to one receiver at once.
const MOST_SEGMENTS: usize = 64;

/// Datagrams a system call.
const PARTS: usize = 512;

/// Bytes to one receiver at once: a segmented send is no longer than a datagram may be.
const MOST_SENT: usize = 60_000;

/// What came of sending a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Datagrams the kernel took.
    pub sent: usize,
    /// Datagrams it did not take: a buffer is full, or nothing leads there.
    pub failed: usize,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed += other.failed;
    }
}

/// Sends for a worker that is still making more.
pub struct Outbox<'a> {
    /// For the calls of the worker's own thread.
    pub room: &'a mut Room,
    /// The worker's.
    pub sockets: &'a Sockets,
    /// A batch for each thread that may help with a burst.
    pub lanes: &'a mut [Batch],
    /// What came of it so far.
    pub outcome: &'a mut Outcome,
}

impl Outlet for Outbox<'_> {
    fn send(&mut self, batch: &mut Batch) {
        batch.group();
        self.outcome.add(send(self.room, batch, self.sockets));
        batch.clear();
    }

    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    fn spread(&mut self, mut jobs: Vec<Job<'_>>) {
        let sockets = self.sockets;
        let run = |job: Job<'_>, batch: &mut Batch, room: &mut Room| {
            let mut outcome = Outcome::default();
            job(batch, &mut |batch: &mut Batch| {
                batch.group();
                outcome.add(send(room, batch, sockets));
                batch.clear();
            });
            outcome
        };
        let own = jobs.pop();
        let mut batches = self.lanes.iter_mut();
        let first = batches.next();
        let others = std::thread::scope(|scope| {
            let started: Vec<_> = jobs
                .into_iter()
                .zip(batches)
                .map(|(job, batch)| scope.spawn(move || run(job, batch, &mut Room::default())))
                .collect();
            if let Some((job, batch)) = own.zip(first) {
                self.outcome.add(run(job, batch, self.room));
            }
            // A panic there is this worker's.
            let ends = started.into_iter().map(|thread| thread.join());
            ends.collect::<Result<Vec<_>, _>>()
        });
        match others {
            Ok(outcomes) => outcomes.into_iter().for_each(|o| self.outcome.add(o)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Sends all of a batch whose datagrams are grouped by receiver.
pub fn send(room: &mut Room, batch: &Batch, sockets: &Sockets) -> Outcome {
    let mut outcome = Outcome::default();
    let mut at = 0;
    while let Some(first) = batch.get(at) {
        let Some((media, source)) = sockets.get(first.socket) else {
            outcome.failed += 1; // closed meanwhile
            at += 1;
            continue;
        };
        let mut parts = [&[][..]; PARTS];
        // Datagrams and parts of each receiver.
        let mut counts = [(0, 0); TOGETHER];
        let (mut receivers, mut filled, mut taken) = (0, 0, 0);
        while receivers < TOGETHER
            && let Some(next) = batch.get(at + taken)
            && next.socket == first.socket
        {
            let most = media.segments().min(MOST_SEGMENTS).min(PARTS - filled);
            if most == 0 {
                break;
            }
            let room = &mut parts[filled..filled + most];
            let count = run(batch, at + taken, next, room);
            let mut pieces = count;
            // One piece where they lie in one: the kernel is told less.
            if count > 1
                && let Some(span) = batch.span(at + taken, count)
            {
                room[0] = span;
                pieces = 1;
            }
            counts[receivers] = (count, pieces);
            filled += pieces;
            taken += count;
            receivers += 1;
        }
        let mut messages = [Message {
            remote: first.remote,
            source,
            segment: 0,
            datagrams: 1,
            parts: &[],
        }; TOGETHER];
        let mut begin = 0;
        for (message, (count, pieces)) in messages.iter_mut().zip(&counts[..receivers]) {
            message.parts = &parts[begin..begin + pieces];
            message.datagrams = *count;
            if let Some(transmit) = batch.get(at) {
                message.remote = transmit.remote;
                if *count > 1 {
                    message.segment = transmit.bytes.len() as u16;
                }
            }
            begin += pieces;
            at += count;
        }
        send_all(room, media, &messages[..receivers], &mut outcome);
    }
    outcome
}

/// Collects what goes to the receiver of `first`, the datagram at `at`: all of one length but the last, which may be
/// shorter. How many they are, as many as `parts` at most.
fn run<'a>(batch: &'a Batch, at: usize, first: Transmit<'a>, parts: &mut [&'a [u8]]) -> usize {
    let segment = first.bytes.len();
    let mut total = 0;
    for (count, part) in parts.iter_mut().enumerate() {
        let next = batch.get(at + count).filter(|next| {
            (next.socket, next.remote) == (first.socket, first.remote)
                && next.bytes.len() <= segment
                && total == segment * count
                && (count == 0 || total + next.bytes.len() <= MOST_SENT)
        });
        let Some(next) = next else { return count };
        *part = next.bytes;
        total += next.bytes.len();
    }
    parts.len()
}

fn send_all(room: &mut Room, media: &Media, messages: &[Message<'_>], outcome: &mut Outcome) {
    let datagrams = |messages: &[Message<'_>]| messages.iter().map(|m| m.datagrams).sum::<usize>();
    let mut rest = messages;
    while let Some(next) = rest.first() {
        match media.send(room, rest) {
            Ok(sent) if sent > 0 => {
                let (done, left) = rest.split_at(sent.min(rest.len()));
                outcome.sent += datagrams(done);
                rest = left;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                outcome.failed += datagrams(rest);
                return;
            }
            // Only this receiver's: nothing leads there, or the way there cannot segment, which is not tried again.
            Ok(_) | Err(_) => {
                if next.segment > 0 {
                    media.on_segments_refused();
                }
                outcome.failed += next.datagrams;
                rest = &rest[1..];
            }
        }
    }
}
