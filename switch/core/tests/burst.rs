//! Packets that come together go to each listener together; to thousands of listeners by several threads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;

use control::SrtpSuite;
use switch_core::Batch;
use switch_core::srtp::Profile;
use switch_core::worker::{Job, Outlet, SPREAD_FROM};

mod peer;
mod rig;
use peer::rtp;
use rig::*;

/// Keeps what was sent, in order.
struct Sent {
    lanes: usize,
    spread: usize,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

impl Sent {
    fn with(lanes: usize) -> Self {
        Self {
            lanes,
            spread: 0,
            datagrams: Vec::new(),
        }
    }

    fn by_remote(&self) -> BTreeMap<SocketAddr, Vec<Vec<u8>>> {
        let mut all: BTreeMap<SocketAddr, Vec<Vec<u8>>> = BTreeMap::new();
        for (remote, bytes) in &self.datagrams {
            all.entry(*remote).or_default().push(bytes.clone());
        }
        all
    }
}

fn take(batch: &mut Batch) -> Vec<(SocketAddr, Vec<u8>)> {
    let all = (0..batch.len()).filter_map(|at| batch.get(at));
    let all = all.map(|t| (t.remote, t.bytes.to_vec())).collect();
    batch.clear();
    all
}

impl Outlet for Sent {
    fn send(&mut self, batch: &mut Batch) {
        self.datagrams.extend(take(batch));
    }

    fn lanes(&self) -> usize {
        self.lanes
    }

    fn spread(&mut self, jobs: Vec<Job<'_>>) {
        self.spread += jobs.len();
        assert!(jobs.len() <= self.lanes);
        let run = |job: Job<'_>| {
            let (mut batch, mut sent) = (Batch::new(), Vec::new());
            job(&mut batch, &mut |batch| sent.extend(take(batch)));
            assert!(batch.is_empty(), "all was handed over");
            sent
        };
        let parts: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = jobs
                .into_iter()
                .map(|job| scope.spawn(|| run(job)))
                .collect();
            started.into_iter().map(|t| t.join().unwrap()).collect()
        });
        self.datagrams.extend(parts.into_iter().flatten());
    }
}

/// A meeting of plain legs, and one with SRTP in between; the first has spoken already.
fn meeting(listeners: u32) -> (Rig, Vec<Client>) {
    let mut rig = Rig::new();
    rig.worker.set_max_legs(10_000);
    let mut clients: Vec<Client> = (1..=listeners + 1)
        .map(|number| match number % 8 {
            5 => Client::new(
                number,
                Kind::Sdes(SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm),
            ),
            _ => Client::new(number, Kind::Plain),
        })
        .collect();
    let states = rig.apply(&request(1, &clients));
    clients
        .iter_mut()
        .for_each(|c| c.connect(&mut rig, &states));
    clients[0].say(&mut rig, LOUD);
    rig.drain();
    (rig, clients)
}

/// Four packets of the speaker in one go; what was sent because of them.
fn burst(rig: &mut Rig, speaker: &Client, lanes: usize) -> Sent {
    let mut packets: Vec<Vec<u8>> = (1..=4u16)
        .map(|n| rtp(0x1000 + speaker.source, n, u32::from(n) * 160, &[LOUD; 160]))
        .collect();
    let datagrams = packets.iter_mut().map(Vec::as_mut_slice);
    let mut sent = Sent::with(lanes);
    rig.worker.handle_datagrams(
        rig.now,
        speaker.socket,
        speaker.address,
        datagrams,
        &mut sent,
    );
    sent.datagrams.extend(
        rig.drain()
            .into_iter()
            .map(|(_, remote, bytes)| (remote, bytes)),
    );
    sent
}

#[test]
fn a_burst_goes_to_each_listener_in_a_row() {
    let (mut rig, clients) = meeting(30);
    let sent = burst(&mut rig, &clients[0], 4);
    assert_eq!(sent.spread, 0, "not worth a thread");
    assert_eq!(sent.datagrams.len(), 30 * 4);
    for run in sent.datagrams.chunks(4) {
        assert!(run.iter().all(|(remote, _)| *remote == run[0].0));
        let sequences: Vec<u8> = run.iter().map(|(_, bytes)| bytes[3]).collect();
        assert!(sequences.windows(2).all(|w| w[1] == w[0].wrapping_add(1)));
    }
}

#[test]
fn threads_that_share_a_burst_send_the_same_as_one_does() {
    let listeners = SPREAD_FROM as u32 + 100;
    let (mut alone, clients) = meeting(listeners);
    let one = burst(&mut alone, &clients[0], 1);
    assert_eq!(one.spread, 0);
    let (mut rig, clients) = meeting(listeners);
    let many = burst(&mut rig, &clients[0], 3);
    assert_eq!(many.spread, 3);
    assert_eq!(many.datagrams.len(), listeners as usize * 4);
    assert_eq!(many.by_remote(), one.by_remote());
    // And go on from there.
    let next = burst(&mut rig, &clients[0], 3);
    assert!(next.datagrams.is_empty(), "these were heard already");
    assert_eq!(rig.worker.stats().unsendable, 0);
}
