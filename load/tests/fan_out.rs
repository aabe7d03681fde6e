//! The media half against a little fan-out on loopback, which does as a test tells it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use load::leg::{Keys, Kind, Protection, Remote, RemoteMedia};
use load::media::{Engine, EngineConfig, MediaReport, Progress, Resolution};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn config(video: Option<Resolution>) -> EngineConfig {
    EngineConfig {
        protection: Protection::Plain,
        video,
        speakers: 1,
        participants: 4,
        threads: 1,
        seed: 3,
        bind: ANY.ip(),
    }
}

/// What becomes of a packet: sent so many times.
type Fate = Box<dyn FnMut(&mut [u8]) -> usize + Send>;

/// Receives on one port and sends to all listeners.
struct FanOut {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl FanOut {
    fn start(socket: UdpSocket, listeners: Vec<SocketAddr>, mut fate: Fate) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        let address = socket.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            let mut packets = 0;
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, _)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let rtcp = (192..224).contains(&buffer[1]);
                let times = if rtcp { 1 } else { fate(&mut buffer[..len]) };
                packets += u64::from(!rtcp);
                for listener in &listeners {
                    for _ in 0..times {
                        socket.send_to(&buffer[..len], listener).expect("loopback");
                    }
                }
            }
            packets
        });
        Self {
            address,
            stop,
            thread,
        }
    }

    /// RTP packets that came in.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the fan-out")
    }
}

/// Waits until the engine has come so far.
fn wait(engine: &Engine, so_far: impl Fn(&Progress) -> bool) {
    let begin = Instant::now();
    while !so_far(&engine.progress()) {
        let progress = engine.progress();
        assert!(begin.elapsed() < Duration::from_secs(40), "{progress:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs one speaker and three listeners until so many packets were received.
fn run(video: Option<Resolution>, received: u64, fate: Fate) -> (MediaReport, u64) {
    let engine = Engine::start(config(video)).expect("an engine");
    let socket = UdpSocket::bind(ANY).expect("a port");
    let to = socket.local_addr().expect("an address");
    let listeners = engine.fan_out(to, &[ANY; 3]).expect("listeners");
    assert_eq!(listeners.len(), 3);
    let fan_out = FanOut::start(socket, listeners, fate);
    assert_eq!(fan_out.address, to);
    engine.begin();
    wait(&engine, |p| p.received >= received);
    let report = engine.finish();
    (report, fan_out.stop())
}

#[test]
fn a_clean_fan_out_is_found_clean() {
    let (report, sent) = run(Some(Resolution::P180), 1000, Box::new(|_| 1));
    for (kind, name) in [(&report.audio, "audio"), (&report.video, "video")] {
        assert!(kind.received > 100, "{name}: {kind:?}");
        let wrong = [
            kind.lost,
            kind.duplicates,
            kind.doubled,
            kind.skipped,
            kind.sequence_jumps,
            kind.timestamp_breaks,
            kind.undecodable_starts,
            kind.picture_breaks,
            kind.echoes,
        ];
        assert_eq!(wrong, [0; 9], "{name}: {:?}", report.findings);
        let delay = kind.delay.expect("stamps came");
        assert!(delay.count > 50 && delay.p50 < 100_000, "{delay:?}");
    }
    assert!(report.audio.switch_delay.is_some());
    assert!(report.video.keyframes >= 3, "one a listener");
    assert_eq!(report.legs, 4);
    assert_eq!(report.without_media, [0; 0]);
    assert_eq!(
        report.malformed + report.not_authentic + report.send_errors,
        0
    );
    assert!(report.audio.sent + report.video.sent >= sent);
    assert!(
        report.rtcp.findings.is_empty(),
        "{:?}",
        report.rtcp.findings
    );
    let series: u64 = report.series.iter().map(|s| s.received).sum();
    assert_eq!(series, report.audio.received + report.video.received);
    assert!(report.series.iter().any(|s| s.delay_p50.is_some()));
}

#[test]
fn loss_and_duplicates_are_counted_one_by_one() {
    let mut number = 0;
    let mut dropped = 0u64;
    let (mut losses, mut doubles) = (0, 0);
    let counts = Arc::new(parking_lot::Mutex::new((0u64, 0u64)));
    let told = Arc::clone(&counts);
    let fate = move |_: &mut [u8]| {
        number += 1;
        // what is lost or doubled is followed by others, so that it can be seen
        let times = match number % 40 {
            11 | 12 | 27 => 0,
            33 => 2,
            _ => 1,
        };
        dropped += u64::from(times == 0);
        if times == 1 {
            losses += std::mem::take(&mut dropped);
        }
        doubles += u64::from(times == 2);
        *told.lock() = (losses, doubles);
        times
    };
    let (report, _) = run(None, 600, Box::new(fate));
    let (losses, doubles) = *counts.lock();
    let audio = &report.audio;
    assert!(losses >= 9 && doubles >= 4, "{losses} {doubles}");
    // packets may still be on their way at the end
    let lost = (losses - 3) * 3..=losses * 3;
    assert!(lost.contains(&audio.lost), "{} of {losses}", audio.lost);
    let duplicates = (doubles - 1) * 3..=doubles * 3;
    assert!(duplicates.contains(&audio.duplicates), "{audio:?}");
    assert_eq!(audio.doubled, 0);
}

#[test]
fn a_fan_out_that_spoils_timestamps_is_found_out() {
    let mut number = 0u32;
    let fate = move |packet: &mut [u8]| {
        number += 1;
        if number.is_multiple_of(100) {
            packet[4] ^= 0x40;
        }
        1
    };
    let (report, _) = run(None, 900, Box::new(fate));
    assert!(report.audio.timestamp_breaks >= 3, "{report:?}");
    assert!(report.findings.contains_key("timestamp break"));
}

/// Two participants by offer and answer, each told that the other's port is the server's: packets go straight.
#[test]
fn answered_legs_talk_to_each_other() {
    let engine = Engine::start(EngineConfig {
        speakers: 2,
        participants: 2,
        ..config(Some(Resolution::P180))
    })
    .expect("an engine");
    let locals: Vec<_> = (0..2)
        .map(|participant| engine.open(participant).expect("sockets"))
        .collect();
    for (participant, other) in [(0, 1), (1, 0)] {
        let media = &locals[other].media;
        let media = media.iter().enumerate().map(|(index, line)| {
            let codec = match line.kind {
                Kind::Audio => (0, "PCMU".to_owned(), 8000),
                Kind::Video => (96, "VP8".to_owned(), 90_000),
            };
            RemoteMedia {
                kind: line.kind,
                index,
                address: line.address,
                rtcp: None,
                accepted: vec![codec.clone()],
                codec,
                audio_level: Some(1),
                mid: Some((4, index.to_string())),
                sends: true,
                receives: true,
                ssrcs: Vec::new(),
                keys: Keys::Plain,
            }
        });
        let media = media.collect();
        let remote = Remote { media, ice: None };
        engine.connect(participant, remote).expect("an answer");
    }
    engine.begin();
    // some RTCP has gone both ways after this: its interval is below four seconds
    wait(&engine, |p| p.received >= 700 && p.connected == 2);
    let begin = Instant::now();
    wait(&engine, |_| begin.elapsed() > Duration::from_secs(4));
    engine.close(1);
    let report = engine.finish();
    for kind in [&report.audio, &report.video] {
        assert_eq!(kind.lost + kind.duplicates + kind.timestamp_breaks, 0);
        assert_eq!(kind.picture_breaks + kind.undecodable_starts, 0);
        assert!(kind.stamped > 0);
    }
    assert!(report.rtcp.sender_reports > 0 && report.rtcp.report_blocks > 0);
    assert!(
        report.rtcp.findings.is_empty(),
        "{:?}",
        report.rtcp.findings
    );
    assert_eq!(report.failed.len(), 0);
    assert!(engine_said_bye(&report), "{:?}", report.rtcp);
}

fn engine_said_bye(report: &MediaReport) -> bool {
    report.rtcp.byes > 0
}

#[test]
fn an_answer_that_makes_no_sense_is_refused() {
    let engine = Engine::start(config(None)).expect("an engine");
    let nothing = Remote {
        media: Vec::new(),
        ice: None,
    };
    assert!(engine.connect(7, nothing).is_err(), "not open");
    let local = engine.open(0).expect("sockets");
    let strange = RemoteMedia {
        kind: Kind::Audio,
        index: 0,
        address: local.media[0].address,
        rtcp: None,
        codec: (9, "G722".to_owned(), 8000),
        accepted: Vec::new(),
        audio_level: None,
        mid: None,
        sends: true,
        receives: true,
        ssrcs: Vec::new(),
        keys: Keys::Plain,
    };
    let remote = Remote {
        media: vec![strange],
        ice: None,
    };
    let refused = engine.connect(0, remote);
    assert_eq!(refused, Err("cannot send G722".to_owned()));
    drop(engine.finish());
}

/// A server's port that one leg sends to.
struct Server(UdpSocket);

impl Server {
    fn new() -> Self {
        let socket = UdpSocket::bind(ANY).expect("a port");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// The next packet for which that holds, and where it came from.
    fn receive(&self, wanted: impl Fn(&[u8]) -> bool) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = self.0.recv_from(&mut buffer).expect("a packet in time");
            if wanted(&buffer[..len]) {
                return (buffer[..len].to_vec(), from);
            }
        }
    }
}

fn is_rtp(packet: &[u8]) -> bool {
    !(192..224).contains(&packet[1])
}

/// Begins a VP8 key frame, with a 4-octet descriptor behind a header without extensions.
fn is_keyframe(packet: &[u8]) -> bool {
    is_rtp(packet) && packet.len() > 17 && packet[12] & 0x10 != 0 && packet[16] & 1 == 0
}

fn number(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

#[test]
fn a_camera_answers_nacks_and_requests_and_follows_a_new_answer() {
    let engine = Engine::start(config(Some(Resolution::P360))).expect("an engine");
    let local = engine.open(0).expect("sockets");
    let ssrc = local.media[1].ssrc;
    let (video, rtcp, elsewhere) = (Server::new(), Server::new(), Server::new());
    let answer = |address: SocketAddr| {
        let media = RemoteMedia {
            kind: Kind::Video,
            index: 1,
            address,
            rtcp: Some(rtcp.address()),
            codec: (96, "VP8".to_owned(), 90_000),
            accepted: Vec::new(),
            audio_level: None,
            mid: None,
            sends: true,
            receives: true,
            ssrcs: Vec::new(),
            keys: Keys::Plain,
        };
        Remote {
            media: vec![media],
            ice: None,
        }
    };
    engine
        .connect(0, answer(video.address()))
        .expect("an answer");
    let (first, from) = video.receive(is_rtp);
    assert!(is_keyframe(&first), "the camera begins with a key frame");
    assert_eq!(from, local.media[1].address);
    assert_eq!(first[8..12], ssrc.to_be_bytes());
    // RTCP has a port of its own here
    let (report, _) = rtcp.receive(|packet| packet[1] == 200);
    assert_eq!(report[4..8], ssrc.to_be_bytes());

    let (missed, _) = video.receive(|packet| is_rtp(packet) && !is_keyframe(packet));
    let mut compound = switch_core::rtcp::CompoundBuf::default();
    compound.receiver_report(1, &[]);
    compound.cname(1, "server");
    compound.nack(1, ssrc, &[number(&missed)]);
    video.0.send_to(compound.bytes(), from).expect("loopback");
    let (again, _) = video.receive(|packet| packet[2..4] == missed[2..4]);
    assert_eq!(again, missed, "the same octets");

    // beyond the guard time after the first key frame, since RTCP took its time
    compound.clear();
    compound.receiver_report(1, &[]);
    compound.cname(1, "server");
    compound.pli(1, ssrc);
    video.0.send_to(compound.bytes(), from).expect("loopback");
    let (key, _) = video.receive(is_keyframe);
    assert!(number(&key).wrapping_sub(number(&missed)) < 1000);

    engine
        .connect(0, answer(elsewhere.address()))
        .expect("a new answer");
    let (moved, _) = elsewhere.receive(is_rtp);
    let step = number(&moved).wrapping_sub(number(&key));
    assert!((1..1000).contains(&step), "numbers go on: {step}");
    engine.close(0);
    let (bye, _) = rtcp.receive(|packet| packet.ends_with(&ssrc.to_be_bytes()) && packet[1] == 200);
    assert_eq!(bye[bye.len() - 8..bye.len() - 4], [0x81, 203, 0, 1]);
    let report = engine.finish();
    assert_eq!(report.rtcp.retransmitted, 1);
    assert_eq!(report.rtcp.keyframe_requests, 1);
}
