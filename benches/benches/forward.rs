//! CPU time of a switch worker per forwarded packet, end to end: one speaker, 10, 100 and 500 listeners, through real
//! loopback sockets. The worker's thread is charged for reading, forwarding, sealing and sending, and, as the loopback
//! device works, for the kernel's receiving half of every packet too.
//!
//! `cargo bench --bench forward` prints one line a case; an argument keeps the cases whose line contains it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::{Entry, LeaseId, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch};
use control::switch_client::SwitchClient;
use control::{
    ApplyRequest, Codec, Leg, Media, MediaKind, Sdes, Security, Slot, SrtpSuite, Transport,
};
use switch::{Config, Switch};
use switch_core::srtp::{MAX_OVERHEAD, Profile, Sealer};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

/// Forwarded packets a second: far below what a core does, so that nothing waits in buffers.
const RATE: u32 = 20_000;

/// How long a case is measured.
const MEASURED: Duration = Duration::from_secs(3);

/// RTP payload octets, as in a video packet.
const PAYLOAD: usize = 1200;

/// A store that agrees to everything: the cluster is no part of this.
struct NoStore;

#[async_trait]
impl Store for NoStore {
    async fn get(&self, _: &str) -> Result<Option<Entry>, StoreError> {
        Ok(None)
    }
    async fn range(&self, _: &str, _: usize, _: Option<&str>) -> Result<Range, StoreError> {
        Ok(Range::default())
    }
    async fn txn(&self, _: Txn) -> Result<TxnOutcome, StoreError> {
        Ok(TxnOutcome::Committed(Revision(1)))
    }
    async fn watch(&self, _: &str, _: Revision) -> Result<Watch, StoreError> {
        Err(StoreError::Refused("no watches here".into()))
    }
    async fn grant(&self, _: Duration) -> Result<LeaseId, StoreError> {
        Ok(LeaseId(1))
    }
    async fn keep_alive(&self, _: LeaseId) -> Result<(), StoreError> {
        Ok(())
    }
    async fn revoke(&self, _: LeaseId) -> Result<(), StoreError> {
        Ok(())
    }
    async fn status(&self) -> Result<Revision, StoreError> {
        Ok(Revision(1))
    }
}

#[derive(Clone, Copy)]
struct Case {
    suite: Option<(SrtpSuite, Profile)>,
    listeners: u32,
    /// Packets the speaker sends back to back, like those of a video frame.
    burst: u32,
}

impl Case {
    fn name(&self) -> String {
        let suite = self.suite.map_or("plain", |(_, profile)| profile.name());
        format!(
            "forward {suite:<24} {:>4} receivers, bursts of {}",
            self.listeners, self.burst
        )
    }
}

fn key(profile: Profile, ours: bool) -> Vec<u8> {
    (0..profile.key_len() + profile.salt_len())
        .map(|at| at as u8 ^ u8::from(ours))
        .collect()
}

fn leg(case: Case, number: u32, address: SocketAddr) -> Leg {
    let mut transport = Transport {
        security: Security::Plain.into(),
        rtcp_mux: true,
        remote_address: address.ip().to_string(),
        remote_port: u32::from(address.port()),
        ..Default::default()
    };
    if let Some((suite, profile)) = case.suite {
        transport.security = Security::Sdes.into();
        transport.sdes = Some(Sdes {
            suite: suite.into(),
            local_key: key(profile, true).into(),
            remote_key: key(profile, false).into(),
        });
    }
    Leg {
        id: format!("leg-{number}"),
        source: number,
        cname: "bench".into(),
        transports: vec![transport],
        media: vec![Media {
            kind: MediaKind::Audio.into(),
            codecs: vec![Codec {
                payload_type: 0,
                name: "PCMU".into(),
                clock_rate: 8000,
                channels: 1,
                ..Default::default()
            }],
            receive: true,
            send: true,
            slot: Some(Slot {
                ssrc: 0x5000_0000 + number,
                ..Default::default()
            }),
            ..Default::default()
        }],
    }
}

/// Nanoseconds a thread of this process has run, by its name.
fn cpu_ns(thread: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    tasks
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.trim() == thread)
        })
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Reads a listener's socket until told to stop.
async fn listen(socket: UdpSocket, heard: Arc<AtomicU64>, mut stop: oneshot::Receiver<()>) {
    let mut buffer = [0u8; 2048];
    loop {
        tokio::select! {
            _ = &mut stop => return,
            received = socket.recv(&mut buffer) => {
                if received.is_ok_and(|len| len > PAYLOAD) {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

struct Speaker {
    socket: UdpSocket,
    switch: SocketAddr,
    sealer: Option<Sealer>,
    sequence: u16,
}

impl Speaker {
    async fn say(&mut self) {
        let mut packet = vec![0x80, 0];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend_from_slice(&7u32.to_be_bytes());
        // A loud square wave in µ-law.
        packet.extend((0..PAYLOAD).map(|at| if at / 4 % 2 == 0 { 0x90 } else { 0x10 }));
        self.sequence = self.sequence.wrapping_add(1);
        if let Some(sealer) = &mut self.sealer {
            let len = packet.len();
            packet.resize(len + MAX_OVERHEAD, 0);
            let len = sealer.seal_rtp(&mut packet, len).expect("room for the tag");
            packet.truncate(len);
        }
        let _ = self.socket.send_to(&packet, self.switch).await;
    }

    /// Speaks in bursts for so long; the number of packets.
    async fn speak(&mut self, case: Case, length: Duration) -> u64 {
        let pause = Duration::from_secs(1) * (case.listeners * case.burst) / RATE;
        let mut tick = tokio::time::interval(pause.max(Duration::from_micros(200)));
        let start = Instant::now();
        let mut packets = 0;
        while start.elapsed() < length {
            tick.tick().await;
            for _ in 0..case.burst {
                self.say().await;
                packets += 1;
            }
        }
        packets
    }
}

async fn measure(case: Case) {
    let config = Config {
        control: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        listen: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        advertise: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        webrtc_port: 0,
        plain_ports: [0, 0],
        workers: 1,
        ..Config::default()
    };
    let switch = Switch::start(config, Arc::new(NoStore))
        .await
        .expect("a switch");
    let url = format!("http://{}", switch.control_address());
    let mut client = SwitchClient::connect(url).await.expect("its control port");
    let speaker = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let mut legs = vec![leg(case, 1, speaker.local_addr().expect("bound"))];
    let heard = Arc::new(AtomicU64::new(0));
    let mut stops = Vec::new();
    for number in 0..case.listeners {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        legs.push(leg(case, number + 2, socket.local_addr().expect("bound")));
        let (stop, stopped) = oneshot::channel();
        stops.push(stop);
        tokio::spawn(listen(socket, Arc::clone(&heard), stopped));
    }
    let request = ApplyRequest {
        version: control::VERSION,
        member: "bench".into(),
        meeting: "bench".into(),
        epoch: 1,
        full: true,
        legs,
        ..Default::default()
    };
    let response = client.apply(request).await.expect("legs").into_inner();
    let local = &response.legs[0].transports[0].addresses[0];
    let mut speaker = Speaker {
        socket: speaker,
        switch: SocketAddr::new(local.ip.parse().expect("an address"), local.port as u16),
        sealer: case
            .suite
            .map(|(_, profile)| Sealer::new(profile, &key(profile, false)).expect("a key")),
        sequence: 0,
    };
    speaker.speak(case, Duration::from_millis(700)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (before, ran) = (heard.load(Ordering::Relaxed), cpu_ns("switch-worker-0"));
    let packets = speaker.speak(case, MEASURED).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ran = cpu_ns("switch-worker-0") - ran;
    let arrived = heard.load(Ordering::Relaxed) - before;
    let due = packets * u64::from(case.listeners);
    println!(
        "{}: {:.2} µs CPU per forwarded packet ({arrived} of {due} arrived)",
        case.name(),
        ran as f64 / 1000.0 / arrived.max(1) as f64
    );
    stops.clear();
    switch.shutdown().await;
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` --test: then nothing is measured.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let suites = [
        None,
        Some((SrtpSuite::AesCm128HmacSha180, Profile::Aes128CmSha1_80)),
        Some((SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm)),
    ];
    for suite in suites {
        for burst in [1, 4] {
            for listeners in [10, 100, 500] {
                let case = Case {
                    suite,
                    listeners,
                    burst,
                };
                if wanted.is_some_and(|wanted| !case.name().contains(wanted.as_str())) {
                    continue;
                }
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(measure(case));
            }
        }
    }
}
