//! Transactions per second of one core: what a registrar and what a call cost, without sockets.
//!
//! Each iteration is parse, transaction layer, answer and print, as a shell drives it. Time moves on with the
//! iterations, so that the tables hold what a server under that load holds (timers J, K and L keep a transaction
//! for 32 s or 5 s) and timers fire all the time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sip::transaction::{Event, TableLimits, Timers, TransactionLayer};
use sip::{FlowId, Hop, Limits, Message, Method, StatusCode, Transport};

/// Virtual time between two transactions: a load of 2,000 a second, 64,000 kept for timer J.
const STEP: Duration = Duration::from_micros(500);

fn hop(transport: Transport) -> Hop {
    Hop {
        transport,
        remote: ([192, 0, 2, 1], 5060).into(),
        local: Some(([192, 0, 2, 100], 5060).into()),
        flow: Some(FlowId(1)),
    }
}

fn request(method: &str, n: u64) -> Bytes {
    Bytes::from(format!(
        "{method} sip:rostrum.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{n:016x};rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Alice\" <sip:alice@rostrum.example>;tag=a{n:x}\r\n\
         To: <sip:alice@rostrum.example>\r\n\
         Call-ID: {n:x}@192.0.2.1\r\n\
         CSeq: 1 {method}\r\n\
         Contact: <sip:alice@192.0.2.1:5060>\r\n\
         User-Agent: bench\r\n\
         Expires: 3600\r\n\
         Content-Length: 0\r\n\r\n"
    ))
}

fn parse(bytes: Bytes) -> Message {
    Message::parse(bytes, &Limits::default()).expect("a message of the benchmark")
}

struct Server {
    layer: TransactionLayer,
    now: Instant,
    count: u64,
    hop: Hop,
}

impl Server {
    fn new(transport: Transport) -> Self {
        Self {
            layer: TransactionLayer::with_limits(
                Timers::default(),
                TableLimits {
                    servers: 10_000_000,
                    clients: 10_000_000,
                },
                [1; 32],
            ),
            now: Instant::now(),
            count: 0,
            hop: hop(transport),
        }
    }

    fn pass_time(&mut self) {
        self.now += STEP;
        self.count += 1;
        if self.layer.poll_timeout().is_some_and(|at| at <= self.now) {
            self.layer.handle_timeout(self.now);
        }
    }

    /// Takes a request in and answers it with each status; the number of messages sent.
    fn serve(&mut self, bytes: Bytes, statuses: &[u16]) -> usize {
        self.layer.handle_message(self.now, parse(bytes), self.hop);
        while let Some(event) = self.layer.poll_event() {
            if let Event::Request { key, message, .. } = event {
                for status in statuses {
                    let response =
                        Message::response(&message, StatusCode::of(*status), None, Some("tag"));
                    self.layer.respond(self.now, key, response);
                }
            }
        }
        self.sent()
    }

    fn sent(&mut self) -> usize {
        let mut sent = 0;
        while let Some(transmit) = self.layer.poll_transmit() {
            black_box(&transmit.bytes);
            sent += 1;
        }
        sent
    }
}

/// REGISTER in, 200 out.
fn register(server: &mut Server) {
    server.pass_time();
    let sent = server.serve(request("REGISTER", server.count), &[200]);
    assert_eq!(sent, 1);
}

/// INVITE in, 180 and 200 out, ACK in, BYE in, 200 out: two transactions, the server's side of a call.
fn call(server: &mut Server) {
    server.pass_time();
    let n = server.count * 4;
    assert_eq!(server.serve(request("INVITE", n), &[180, 200]), 2);
    assert_eq!(server.serve(request("ACK", n + 1), &[]), 0);
    assert_eq!(server.serve(request("BYE", n + 2), &[200]), 1);
}

/// OPTIONS out, 200 in.
fn ask(server: &mut Server, template: &Message) {
    server.pass_time();
    server.layer.send_request(
        server.now,
        template.clone(),
        server.hop,
        "192.0.2.100",
        None,
    );
    let sent = server.layer.poll_transmit().expect("sent at once");
    let response = Message::response(&parse(sent.bytes), StatusCode::of(200), None, Some("t"));
    server
        .layer
        .handle_message(server.now, parse(response.to_bytes()), server.hop);
    assert!(matches!(
        server.layer.poll_event(),
        Some(Event::Response { .. })
    ));
}

fn transactions(c: &mut Criterion) {
    let mut group = c.benchmark_group("transaction");
    for transport in [Transport::Udp, Transport::Tcp] {
        group.throughput(Throughput::Elements(1));
        let mut server = Server::new(transport);
        group.bench_function(format!("register/{transport}"), |b| {
            b.iter(|| register(&mut server));
        });
        let mut server = Server::new(transport);
        let template = parse(request("OPTIONS", 0));
        assert_eq!(*template.method(), Method::Options);
        group.bench_function(format!("client/{transport}"), |b| {
            b.iter(|| ask(&mut server, &template));
        });
        group.throughput(Throughput::Elements(2));
        let mut server = Server::new(transport);
        group.bench_function(format!("invite/{transport}"), |b| {
            b.iter(|| call(&mut server));
        });
    }
    group.finish();
}

criterion_group!(benches, transactions);
criterion_main!(benches);
