//! Forwarding allocates nothing: no packet in steady state, no change of the speaker's picture.
#![allow(unsafe_code)]

mod common;
mod peer;
mod rig;

use common::*;
use control::{DtlsRole, SrtpSuite};
use rig::{Client, Kind, LOUD, meet};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};
use switch_core::srtp::Profile;
use switch_core::worker::{Job, Outlet};
use switch_core::{
    AudioCodec, Batch, Egress, LegKey, Level, MediaFrame, RenditionFrame, RtpOut, SourceId,
    Transcoder, TransportIndex,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    f();
    COUNT.with(Cell::get) - before
}

#[derive(Default)]
struct Sink {
    packets: u64,
    octets: u64,
}

impl Egress for Sink {
    fn rtp(&mut self, _: LegKey, _: TransportIndex, packet: RtpOut<'_>) {
        self.packets += 1;
        self.octets += packet.len() as u64;
    }

    fn rtcp(&mut self, _: LegKey, _: TransportIndex, compound: &[u8]) {
        self.octets += compound.len() as u64;
    }
}

/// An outlet that sends nothing.
struct Discard;

impl Outlet for Discard {
    fn send(&mut self, batch: &mut Batch) {
        batch.clear();
    }

    fn lanes(&self) -> usize {
        1
    }

    fn spread(&mut self, _: Vec<Job<'_>>) {
        unreachable!("one lane")
    }
}

struct NoCodecs;

impl Transcoder for NoCodecs {
    fn want(&mut self, _: SourceId, _: &[AudioCodec]) {}
    fn push(&mut self, _: Instant, _: MediaFrame<'_>) {}
    fn poll(&mut self, _: Instant) -> Option<RenditionFrame<'_>> {
        None
    }
    fn level(&mut self, _: SourceId, _: AudioCodec, _: &[u8]) -> Option<Level> {
        None
    }
    fn forget(&mut self, _: SourceId) {}
}

#[test]
fn the_allocator_is_counted() {
    assert!(allocations(|| drop(std::hint::black_box(Box::new(5)))) > 0);
}

#[test]
fn forwarding_audio_and_video_allocates_nothing() {
    let shape = Shape {
        audio_slots: 3,
        video_slots: 2,
        rtx: true,
        ..Shape::default()
    };
    let mut b = Bench::with(&["a", "b", "c", "d"], &shape);
    for speaker in ["a", "b", "c", "d", "a", "b"] {
        b.talk(speaker, 60);
    }
    b.talk("a", 100);
    // What is sent from here on is made beforehand.
    let mut packets = Vec::new();
    for f in 0..250 {
        for id in ["a", "b", "c", "d"] {
            let level = if id == "a" { SPEECH } else { SILENCE };
            packets.push((f, b.keys[id], b.audio_packet(id, 111, 960, Some(level))));
            for n in 0..3 {
                packets.push((f, b.keys[id], b.vp8_packet(id, f % 50 == 0, n == 0, n == 2)));
            }
        }
    }
    // Loss and its repair are part of it.
    packets.retain(|(f, _, p)| f % 10 != 5 || p[3] % 7 != 0);
    let start = b.now;
    let mut sink = Sink::default();
    let meeting = &mut b.meeting;
    let mut forwarded = 0;
    let counted = allocations(|| {
        for (f, key, packet) in &mut packets {
            let now = start + Duration::from_millis(20 * (*f as u64 + 1));
            while meeting.poll_timeout().is_some_and(|at| at <= now) {
                meeting.handle_timeout(now, &mut sink, &mut NoCodecs);
            }
            meeting.handle_rtp(now, *key, T0, packet, &mut sink, &mut NoCodecs);
        }
        forwarded = sink.packets;
    });
    assert!(forwarded > 2_000, "{forwarded}");
    assert_eq!(counted, 0, "for {forwarded} packets sent");
}

#[test]
fn a_worker_allocates_nothing_from_the_datagram_to_the_batch() {
    let mut rig = rig::Rig::new();
    let gcm = Profile::AeadAes128Gcm;
    let mut clients: Vec<Client> = (1..=40)
        .map(|number| match number % 4 {
            0 => Client::new(number, Kind::Plain),
            1 => Client::new(number, Kind::Sdes(SrtpSuite::AeadAes128Gcm, gcm)),
            2 => Client::new(number, Kind::SdesIce),
            _ => Client::new(number, Kind::DtlsIce(DtlsRole::Server)),
        })
        .collect();
    meet(&mut rig, &mut clients);
    for _ in 0..100 {
        clients[3].say(&mut rig, LOUD);
        rig.step(&mut clients);
    }
    let speaker = &clients[3];
    assert!(matches!(speaker.kind, Kind::Plain));
    let mut packets: Vec<Vec<u8>> = (0..500u16)
        .map(|n| {
            let sequence = speaker.sequence.wrapping_add(n);
            let source = 0x1000 + speaker.source;
            peer::rtp(source, sequence, u32::from(sequence) * 160, &[LOUD; 160])
        })
        .collect();
    let mut sent = 0;
    let counted = allocations(|| {
        for pair in packets.chunks_mut(2) {
            rig.now += Duration::from_millis(40);
            while rig.worker.poll_timeout().is_some_and(|at| at <= rig.now) {
                rig.worker.handle_timeout(rig.now);
            }
            let datagrams = pair.iter_mut().map(Vec::as_mut_slice);
            let (now, from) = (rig.now, speaker.address);
            rig.worker
                .handle_datagrams(now, speaker.socket, from, datagrams, &mut Discard);
            sent += rig.worker.batch().len();
            rig.worker.clear_batch();
        }
    });
    assert!(sent >= 500 * 39, "{sent}");
    assert_eq!(counted, 0, "for {sent} packets sent");
}
