//! CPU time of the load generator's receiving thread a packet, beside the floor: a loop that only reads the same packets
//! from as many sockets (epoll, recvmmsg with GRO, as the thread does) and looks at none.
//!
//! 200 legs on loopback are sent 200,000 packets a second: pictures as a switch sends them, the packets of a frame in
//! one segmented send, and voice, one packet a send. The kernel's receiving half of a loopback packet is paid by its
//! sender, another thread; what is measured is a system call's share, the copy, SRTP, and all checks. Both run in turn,
//! several times; the least of each counts.
//!
//! `cargo bench --bench load_receive` prints a line a case: ns a packet, and packets a second on one core; an argument
//! keeps the cases whose name contains it.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use load::leg::{Keys, Kind, Protection, Remote, RemoteMedia};
use load::media::picture::{Camera, Clip};
use load::media::speech::{Codec, MAX_AUDIO, Speech};
use load::media::stamp::Stamp;
use load::media::{Engine, EngineConfig, Resolution};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use switch_core::rtp::{Fixed, HeaderBuf};
use switch_core::srtp::{Profile, Sealer};

const LEGS: usize = 200;
const RATE: u64 = 200_000;
const ROUND: Duration = Duration::from_millis(1000);
const ROUNDS: usize = 5;
/// Until all that was sent is read, and counted: the engine tells of its numbers four times a second.
const SETTLE: Duration = Duration::from_millis(400);
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// A packet with header, CSRC and tag.
const ROOM: usize = 1300;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    kind: Kind,
    profile: Option<Profile>,
}

impl Case {
    fn codec(self) -> (u8, String, u32) {
        match self.kind {
            Kind::Audio => (0, "PCMU".to_owned(), 8_000),
            Kind::Video => (96, "VP8".to_owned(), 90_000),
        }
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

/// What one leg is sent.
struct Stream {
    to: SocketAddr,
    sealer: Option<Sealer>,
    sequence: u16,
}

/// Sends to all legs.
struct Blaster {
    case: Case,
    socket: UdpSocket,
    state: UdpSocketState,
    streams: Vec<Stream>,
    speech: Speech,
    clip: Clip,
    camera: Camera,
    begin: Instant,
    counter: u32,
}

impl Blaster {
    fn new(case: Case) -> Self {
        let socket = UdpSocket::bind((LOCALHOST, 0)).expect("a port");
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("a socket");
        Self {
            case,
            socket,
            state,
            streams: Vec::new(),
            speech: Speech::new().expect("Opus"),
            clip: Clip::new(Resolution::P720),
            camera: Camera::new(0),
            begin: Instant::now(),
            counter: 0,
        }
    }

    /// The payloads of the next frame.
    fn frame(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let stamp = Stamp {
            sender: 0,
            sent: (now - self.begin).as_micros() as u64,
            counter: self.counter,
            spurt: 0,
            since: Some(0),
        };
        self.counter += 1;
        let mut payloads = Vec::new();
        match self.case.kind {
            Kind::Audio => {
                let mut payload = [0; MAX_AUDIO];
                let (len, _) = self
                    .speech
                    .write(Some(50), Codec::Pcmu, stamp, &mut payload);
                payloads.push(payload[..len].to_vec());
            }
            Kind::Video => {
                let mut scratch = Vec::new();
                self.camera
                    .next_frame(&self.clip, now, stamp, &mut scratch, |payload, _| {
                        payloads.push(payload.to_vec());
                    });
            }
        }
        payloads
    }

    /// Sends for a while; how many packets.
    fn run(&mut self, time: Duration) -> u64 {
        let end = Instant::now() + time;
        let mut next = Instant::now();
        let mut sent = 0;
        let mut buffer = vec![0; 64 * ROOM];
        let mut header = HeaderBuf::default();
        while next < end {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            let payloads = self.frame(now);
            let (payload_type, _, clock) = self.case.codec();
            let elapsed = (now - self.begin).as_micros() as u64;
            let timestamp = (elapsed * u64::from(clock) / 1_000_000) as u32;
            for stream in &mut self.streams {
                let (mut at, mut segment) = (0, 0);
                for (nth, payload) in payloads.iter().enumerate() {
                    let fixed = Fixed {
                        marker: nth + 1 == payloads.len(),
                        payload_type,
                        sequence: stream.sequence,
                        timestamp,
                        ssrc: 7,
                        csrc: Some(9),
                    };
                    stream.sequence = stream.sequence.wrapping_add(1);
                    let head = header.write(fixed, &[]);
                    let len = head.len() + payload.len();
                    buffer[at..at + head.len()].copy_from_slice(head);
                    buffer[at + head.len()..at + len].copy_from_slice(payload);
                    let len = match &mut stream.sealer {
                        Some(sealer) => sealer
                            .seal_rtp(&mut buffer[at..at + ROOM], len)
                            .expect("room"),
                        None => len,
                    };
                    segment = segment.max(len);
                    at += len;
                }
                let transmit = Transmit {
                    destination: stream.to,
                    ecn: None,
                    contents: &buffer[..at],
                    segment_size: (payloads.len() > 1).then_some(segment),
                    src_ip: None,
                };
                self.state
                    .try_send(UdpSockRef::from(&self.socket), &transmit)
                    .expect("loopback");
                sent += payloads.len() as u64;
            }
            next += Duration::from_micros(1_000_000 * (LEGS * payloads.len()) as u64 / RATE);
        }
        sent
    }

    /// The least CPU time of a thread a packet, in ns; `received` tells how many it has had. Rounds in which the machine
    /// was too busy, so that packets were lost, do not count; infinity: none did.
    fn measure(&mut self, thread: &str, received: impl Fn() -> u64) -> f64 {
        self.run(ROUND / 2);
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            std::thread::sleep(SETTLE);
            let before = (cpu_ns(thread), received());
            let sent = self.run(ROUND);
            std::thread::sleep(SETTLE);
            let came = received() - before.1;
            if came * 100 >= sent * 99 {
                least = least.min((cpu_ns(thread) - before.0) as f64 / came as f64);
            }
        }
        least
    }
}

fn engine(case: Case) -> f64 {
    let engine = Engine::start(EngineConfig {
        protection: match case.profile {
            None => Protection::Plain,
            Some(_) => Protection::Sdes,
        },
        video: (case.kind == Kind::Video).then_some(Resolution::P720),
        speakers: 2,
        participants: LEGS,
        threads: 1,
        seed: 1,
        bind: LOCALHOST.into(),
    })
    .expect("an engine");
    let mut blaster = Blaster::new(case);
    let from = blaster.socket.local_addr().expect("an address");
    for participant in 0..LEGS as u32 {
        let local = engine.open(participant).expect("sockets");
        let index = local.media.len() - 1;
        let key = |profile: Profile| {
            let length = profile.key_len() + profile.salt_len();
            vec![participant as u8 + 1; length]
        };
        let media = RemoteMedia {
            kind: case.kind,
            index,
            address: from,
            rtcp: None,
            codec: case.codec(),
            accepted: vec![case.codec()],
            audio_level: None,
            mid: None,
            sends: false,
            receives: true,
            ssrcs: Vec::new(),
            keys: case.profile.map_or(Keys::Plain, |profile| Keys::Sdes {
                profile,
                remote: key(profile),
            }),
        };
        blaster.streams.push(Stream {
            to: local.media[index].address,
            sealer: case
                .profile
                .map(|p| Sealer::new(p, &key(p)).expect("a key")),
            sequence: 1,
        });
        let media = vec![media];
        let remote = Remote { media, ice: None };
        engine.connect(participant, remote).expect("an answer");
    }
    while engine.progress().connected < LEGS as u64 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ns = blaster.measure("load-receive-0", || engine.progress().received);
    let report = engine.finish();
    assert_eq!(report.not_authentic + report.malformed, 0);
    ns
}

struct Floor {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Floor {
    /// Reads from these sockets and counts.
    fn start(sockets: Vec<(UdpSocket, UdpSocketState)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let run = move || {
            const BATCH: usize = 16;
            let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
            for (at, (socket, _)) in sockets.iter().enumerate() {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
                epoll.add(socket, event).expect("epoll");
            }
            let mut buffers = vec![0; BATCH << 16];
            let mut events = [EpollEvent::empty(); 256];
            while !stopped.load(Ordering::Relaxed) {
                let ready = epoll.wait(&mut events, 50u8).unwrap_or(0);
                for event in &events[..ready] {
                    let (socket, state) = &sockets[event.data() as usize];
                    let mut metas = [RecvMeta::default(); BATCH];
                    let mut free = buffers.chunks_exact_mut(1 << 16);
                    let mut slices: [IoSliceMut<'_>; BATCH] =
                        std::array::from_fn(|_| IoSliceMut::new(free.next().expect("a buffer")));
                    let read = state.recv(UdpSockRef::from(socket), &mut slices, &mut metas);
                    for meta in &metas[..read.unwrap_or(0)] {
                        let packets = meta.len.div_ceil(meta.stride.max(1)) as u64;
                        counted.fetch_add(packets, Ordering::Relaxed);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("floor".to_owned())
            .spawn(run)
            .expect("a thread");
        Self {
            stop,
            count,
            thread,
        }
    }
}

fn floor(case: Case) -> f64 {
    let mut blaster = Blaster::new(case);
    let mut sockets = Vec::new();
    for _ in 0..LEGS {
        let socket = UdpSocket::bind((LOCALHOST, 0)).expect("a port");
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("a socket");
        blaster.streams.push(Stream {
            to: socket.local_addr().expect("an address"),
            // the octets are as many, whatever they are
            sealer: case.profile.map(|p| {
                let key = vec![1; p.key_len() + p.salt_len()];
                Sealer::new(p, &key).expect("a key")
            }),
            sequence: 1,
        });
        sockets.push((socket, state));
    }
    let floor = Floor::start(sockets);
    let ns = blaster.measure("floor", || floor.count.load(Ordering::Relaxed));
    floor.stop.store(true, Ordering::Relaxed);
    floor.thread.join().expect("the floor");
    ns
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` --test: then nothing is measured.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let gcm = Some(Profile::AeadAes128Gcm);
    let cm = Some(Profile::Aes128CmSha1_80);
    let case = |name, kind, profile| Case {
        name,
        kind,
        profile,
    };
    let cases = [
        case("plain-720p", Kind::Video, None),
        case("gcm-720p", Kind::Video, gcm),
        case("cm-720p", Kind::Video, cm),
        case("plain-voice", Kind::Audio, None),
        case("gcm-voice", Kind::Audio, gcm),
        case("cm-voice", Kind::Audio, cm),
    ];
    for case in cases {
        if wanted.is_some_and(|wanted| !case.name.contains(wanted.as_str())) {
            continue;
        }
        let (floor, load) = (floor(case), engine(case));
        println!(
            "{}: floor {floor:.0} ns, load {load:.0} ns a packet: {:.0} packets/s on one core, load/floor {:.2}",
            case.name,
            1e9 / load,
            load / floor
        );
    }
}
