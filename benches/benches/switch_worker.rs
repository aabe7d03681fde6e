//! A worker without its shell: from the datagrams that were read together to the batch that is to be sent. What a burst
//! costs with opening, forwarding and sealing for all listeners; a check; a stranger; a level that must be decoded.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::SrtpSuite;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use switch_core::codec::{Decoder, MOST_SAMPLES, dbov};
use switch_core::dtls::Identity;
use switch_core::srtp::Profile;
use switch_core::transmit::{Job, Outlet};
use switch_core::worker::{PlainPorts, Ports, SocketId, Worker, WorkerConfig};
use switch_core::{AudioCodec, Batch, WallClock};

#[path = "forward/meeting.rs"]
#[allow(dead_code)] // other benches use the rest
mod meeting;
#[path = "../../switch/core/tests/peer/mod.rs"]
mod peer;

use meeting::Speaker;
use peer::IcePeer;

const SHARED: SocketId = SocketId(0);

/// What is sent; the meeting of the bench `forward` takes it.
#[derive(Clone, Copy)]
struct Case {
    suite: Option<(SrtpSuite, Profile)>,
    payload: usize,
    listeners: u32,
    burst: u32,
}

impl Case {
    fn pause(self) -> Duration {
        Duration::from_millis(20)
    }
}

/// The port for browsers only.
struct OnePort;

impl Ports for OnePort {
    fn webrtc(&self) -> Vec<(SocketId, Vec<SocketAddr>)> {
        vec![(
            SHARED,
            vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000))],
        )]
    }
    fn advertised(&self, _: bool, _: Option<IpAddr>) -> Option<IpAddr> {
        None
    }
    fn open(&mut self, _: bool, _: Option<IpAddr>, _: bool) -> Option<PlainPorts> {
        None
    }
    fn close(&mut self, _: SocketId) {}
}

/// Sends as the shell does, but nowhere.
#[derive(Default)]
struct Nowhere {
    sent: usize,
}

impl Outlet for Nowhere {
    fn send(&mut self, batch: &mut Batch) {
        batch.group();
        self.sent += black_box(&*batch).len();
        batch.clear();
    }
    fn lanes(&self) -> usize {
        1
    }
    fn spread(&mut self, jobs: Vec<Job<'_>>) {
        assert!(jobs.is_empty(), "one lane");
    }
}

fn address(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x7f01_0000 + number), 5000))
}

/// A worker with one meeting; leg 1 speaks.
fn worker(case: Case) -> (Worker, Instant) {
    let now = Instant::now();
    let config = WorkerConfig {
        clock: WallClock {
            origin: now,
            unix: Duration::from_secs(1_800_000_000),
        },
        video_bitrate: 1_000_000,
        speaker_interval: Duration::from_millis(40),
        max_legs: 2_000,
    };
    let identity = Arc::new(Identity::generate().expect("an identity"));
    let mut worker = Worker::new(config, identity, [1; 32]);
    let numbers = 1..=case.listeners + 1;
    let legs = numbers
        .clone()
        .map(|number| meeting::leg(case, number, address(number)))
        .collect();
    let applied = worker.apply(now, &meeting::join("bench", legs), &mut OnePort);
    assert!(
        applied
            .expect("legs")
            .iter()
            .all(|leg| leg.refused.is_empty())
    );
    for number in numbers {
        let mut check = IcePeer::new(&meeting::ice(number)).request(true);
        worker.handle_datagram(now, SHARED, address(number), &mut check);
        worker.clear_batch();
    }
    (worker, now)
}

fn burst(c: &mut Criterion) {
    let suites = [
        (SrtpSuite::AesCm128HmacSha180, Profile::Aes128CmSha1_80),
        (SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm),
        (SrtpSuite::AeadAes256Gcm, Profile::AeadAes256Gcm),
    ];
    let mut group = c.benchmark_group("worker_burst");
    for suite in suites {
        for (payload, burst) in [(160, 1), (1200, 4)] {
            for listeners in [10, 100, 500] {
                let case = Case {
                    suite: Some(suite),
                    payload,
                    listeners,
                    burst,
                };
                let (mut worker, mut now) = worker(case);
                let mut speaker = Speaker::new(case);
                let mut outlet = Nowhere::default();
                group.throughput(Throughput::Elements(u64::from(listeners * burst)));
                let name = format!("{}_{payload}x{burst}", suite.1.name());
                group.bench_function(BenchmarkId::new(name, listeners), |b| {
                    b.iter_batched(
                        || speaker.burst(),
                        |(mut bytes, segment)| {
                            now += case.pause();
                            let packets = bytes.chunks_mut(segment.into());
                            outlet.sent = 0;
                            worker.handle_datagrams(now, SHARED, address(1), packets, &mut outlet);
                            outlet.sent += black_box(worker.batch()).len(); // what was not sent meanwhile
                            worker.clear_batch();
                            bytes
                        },
                        BatchSize::NumIterations(64),
                    );
                });
                assert!(outlet.sent >= (listeners * burst) as usize, "all are fed");
            }
        }
    }
    group.finish();
}

fn others(c: &mut Criterion) {
    let case = Case {
        suite: Some((SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm)),
        payload: 160,
        listeners: 500,
        burst: 1,
    };
    let (mut worker, now) = worker(case);
    let mut group = c.benchmark_group("worker_datagram");
    let checks: HashMap<u32, Vec<u8>> = (1..=500)
        .map(|number| (number, IcePeer::new(&meeting::ice(number)).request(true)))
        .collect();
    let mut number = 0;
    group.bench_function("check", |b| {
        b.iter(|| {
            number = number % 500 + 1;
            let mut check = checks[&number].clone();
            worker.handle_datagram(now, SHARED, address(number), &mut check);
            assert!(!worker.is_batch_empty(), "answered");
            worker.clear_batch();
        });
    });
    let (packet, _) = Speaker::new(case).burst();
    group.bench_function("stranger", |b| {
        b.iter_batched(
            || packet.clone(),
            |mut packet| {
                worker.handle_datagram(now, SHARED, address(60_000), &mut packet);
                packet
            },
            BatchSize::NumIterations(64),
        );
    });
    group.finish();
}

/// Where a phone says no level: 20 ms are decoded.
fn level(c: &mut Criterion) {
    let mut group = c.benchmark_group("level");
    let payload: Vec<u8> = (0..160).map(|at| (at * 37) as u8).collect();
    for (name, codec) in [
        ("PCMU", AudioCodec::Pcmu),
        ("PCMA", AudioCodec::Pcma),
        ("G722", AudioCodec::G722),
    ] {
        let mut decoder = Decoder::new(codec).expect("a decoder");
        let mut pcm = [0; MOST_SAMPLES];
        group.bench_function(name, |b| {
            b.iter(|| {
                let samples = decoder.decode(black_box(&payload), &mut pcm);
                dbov(&pcm[..samples.expect("a frame")])
            });
        });
    }
    group.finish();
}

criterion_group!(benches, burst, others, level);
criterion_main!(benches);
