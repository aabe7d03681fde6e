//! SRTP of the switch: one packet sealed for one receiver, one packet opened. Keys rotate among 500 receivers, as in
//! a large meeting, so that they come from the cache level they would come from there.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use switch_core::srtp::{MAX_OVERHEAD, Opener, Profile, Sealer};

const RECEIVERS: usize = 500;

const PROFILES: [Profile; 3] = [
    Profile::Aes128CmSha1_80,
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
];

/// Payload octets: an Opus frame, a full video packet.
const SIZES: [usize; 2] = [160, 1200];

fn key(profile: Profile, receiver: usize) -> Vec<u8> {
    (0..profile.key_len() + profile.salt_len())
        .map(|at| (at * 7 + receiver * 13) as u8)
        .collect()
}

fn packet(sequence: u16, size: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 9]);
    packet.resize(12 + size, 0x5c);
    packet
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp_seal");
    group.throughput(Throughput::Elements(1));
    for profile in PROFILES {
        for size in SIZES {
            let mut sealers: Vec<_> = (0..RECEIVERS)
                .map(|receiver| Sealer::new(profile, &key(profile, receiver)).expect("a key"))
                .collect();
            let clear = packet(0, size);
            let mut buffer = vec![0u8; clear.len() + MAX_OVERHEAD];
            let mut count = 0usize;
            group.bench_function(BenchmarkId::new(profile.name(), size), |b| {
                b.iter(|| {
                    // The copy belongs to it: the same packet is sealed for each receiver.
                    buffer[..clear.len()].copy_from_slice(&clear);
                    let sequence = (count / RECEIVERS) as u16;
                    buffer[2..4].copy_from_slice(&sequence.to_be_bytes());
                    let sealer = &mut sealers[count % RECEIVERS];
                    count += 1;
                    let sealed = sealer.seal_rtp(black_box(&mut buffer), clear.len());
                    sealed.expect("room for the tag")
                });
            });
        }
    }
    group.finish();
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp_open");
    group.throughput(Throughput::Elements(1));
    for profile in PROFILES {
        for size in SIZES {
            let key = key(profile, 0);
            let mut sealer = Sealer::new(profile, &key).expect("a key");
            let mut opener = Opener::new(profile, &key).expect("a key");
            // Several rounds of the sequence number would need several counters: seal as we go,
            // a block at a time and outside the measurement.
            let mut sequence = 0u16;
            let mut next = || {
                let clear = packet(sequence, size);
                sequence = sequence.wrapping_add(1);
                let mut buffer = clear.clone();
                buffer.resize(clear.len() + MAX_OVERHEAD, 0);
                let len = sealer.seal_rtp(&mut buffer, clear.len()).expect("room");
                buffer.truncate(len);
                buffer
            };
            group.bench_function(BenchmarkId::new(profile.name(), size), |b| {
                b.iter_batched(
                    &mut next,
                    |mut sealed| {
                        opener.open_rtp(black_box(&mut sealed)).expect("authentic");
                        sealed
                    },
                    criterion::BatchSize::NumIterations(1000),
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
