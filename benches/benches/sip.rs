//! SIP messages on one core: parse, read, edit and print.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rostrum_benches::sip_load::{INVITE, proxy};
use sip::frame::{Frame, Framer};
use sip::{Limits, Message, StatusCode, Uri};

fn messages(c: &mut Criterion) {
    let limits = Limits::default();
    let invite = Bytes::from_static(INVITE);
    let mut group = c.benchmark_group("sip");
    group.throughput(Throughput::Elements(1));
    group.bench_function("invite parse", |b| {
        b.iter(|| Message::parse(black_box(invite.clone()), &limits));
    });
    group.bench_function("invite parse, print", |b| {
        b.iter(|| {
            let m = Message::parse(black_box(invite.clone()), &limits).expect("an INVITE");
            m.to_bytes()
        });
    });
    group.bench_function("invite parse, check", |b| {
        b.iter(|| {
            let m = Message::parse(black_box(invite.clone()), &limits).expect("an INVITE");
            m.defect()
        });
    });
    group.bench_function("invite parse, read, proxy edits, print", |b| {
        b.iter(|| proxy(black_box(invite.clone()), &limits, false));
    });
    group.bench_function("invite parse, check, read, proxy edits, print", |b| {
        b.iter(|| proxy(black_box(invite.clone()), &limits, true));
    });
    group.bench_function("invite parse, 200 printed", |b| {
        b.iter(|| {
            let m = Message::parse(black_box(invite.clone()), &limits).expect("an INVITE");
            Message::response(&m, StatusCode::of(200), None, Some("a7c9d3")).to_bytes()
        });
    });
    group.bench_function("uri parse", |b| {
        b.iter(|| Uri::parse(black_box("sip:alice@192.0.2.33:5060;transport=udp")));
    });
    group.finish();
}

/// What a TCP connection of a busy proxy does: 32 messages in one read.
fn stream(c: &mut Criterion) {
    let many = INVITE.repeat(32);
    let mut group = c.benchmark_group("sip stream");
    group.throughput(Throughput::Elements(32));
    group.bench_function("frame 32 invites", |b| {
        b.iter(|| {
            let mut framer = Framer::new(Limits::default());
            *framer.buffer_mut() = BytesMut::from(&many[..]);
            let mut cut = 0;
            while let Ok(Some(Frame::Message(m))) = framer.next_frame() {
                cut += black_box(m).len();
            }
            assert_eq!(cut, many.len());
        });
    });
    group.finish();
}

criterion_group!(benches, messages, stream);
criterion_main!(benches);
