//! ICE and DTLS-SRTP of the media half, against the switch core's own halves of both: a server of two legs that sends
//! each what the other says.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use load::leg::{Keys, Kind, Local, Protection, Remote, RemoteMedia};
use load::media::{Engine, EngineConfig, Resolution};
use switch_core::SocketId;
use switch_core::dtls::{Association, Event, Fingerprint, Identity, Role};
use switch_core::ice::{Credentials, IceLite, Outcome};
use switch_core::srtp::{Opener, Sealer};

const PASSWORD: &str = "a password of the server's";

/// One leg of the server.
struct Leg {
    socket: UdpSocket,
    ice: IceLite,
    dtls: Association,
    keys: Option<(Opener, Sealer)>,
}

impl Leg {
    fn new(identity: &Identity, local: &Local, role: Role) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        let fingerprint = local.fingerprint.expect("DTLS");
        let fingerprint = Fingerprint::new("sha-256", &fingerprint).expect("SHA-256");
        let (remote_ufrag, _) = local.ice.clone().expect("ICE");
        Self {
            socket,
            ice: IceLite::new(Credentials {
                local_ufrag: "server".to_owned(),
                local_pwd: PASSWORD.to_owned(),
                remote_ufrag,
            }),
            dtls: Association::new(identity, role, vec![fingerprint]).expect("an association"),
            keys: None,
        }
    }

    /// Handles a datagram; what is to go to the other leg.
    fn on_datagram(&mut self, datagram: &mut [u8], from: SocketAddr) -> Option<usize> {
        let now = Instant::now();
        match datagram[0] {
            0..=3 => {
                let outcome = self.ice.handle_stun(SocketId(0), from, datagram, now);
                if let Outcome::Answer(answer) = outcome {
                    self.socket
                        .send_to(answer.as_bytes(), from)
                        .expect("loopback");
                    let event = self.dtls.start(now);
                    self.on_event(event);
                }
            }
            20..=63 => {
                let event = self.dtls.handle_datagram(datagram, now);
                self.on_event(event);
            }
            _ if (192..224).contains(&datagram[1]) => {
                let (opener, _) = self.keys.as_mut()?;
                opener.open_rtcp(datagram).expect("authentic RTCP");
            }
            _ => {
                let (opener, _) = self.keys.as_mut()?;
                return Some(opener.open_rtp(datagram).expect("authentic RTP"));
            }
        }
        None
    }

    fn on_event(&mut self, event: Option<Event>) {
        if let Some(Event::Connected(keys)) = event {
            let opener = Opener::new(keys.profile, &keys.remote).expect("a key");
            let sealer = Sealer::new(keys.profile, &keys.local).expect("a key");
            self.keys = Some((opener, sealer));
        }
        if let Some((_, to)) = self.ice.selected() {
            while let Some(flight) = self.dtls.poll_transmit() {
                self.socket.send_to(&flight, to).expect("loopback");
            }
        }
    }

    fn send(&mut self, packet: &[u8]) {
        let (Some((_, sealer)), Some((_, to))) = (&mut self.keys, self.ice.selected()) else {
            return;
        };
        let mut buffer = [0; 2048];
        buffer[..packet.len()].copy_from_slice(packet);
        let len = sealer.seal_rtp(&mut buffer, packet.len()).expect("room");
        self.socket.send_to(&buffer[..len], to).expect("loopback");
    }
}

fn remote(leg: &Leg, identity: &Identity, client: bool) -> Remote {
    let lines = [
        (Kind::Audio, (111, "opus".to_owned(), 48_000)),
        (Kind::Video, (96, "VP8".to_owned(), 90_000)),
    ];
    let media = lines
        .into_iter()
        .enumerate()
        .map(|(index, (kind, codec))| RemoteMedia {
            kind,
            index,
            address: leg.socket.local_addr().expect("an address"),
            rtcp: None,
            accepted: vec![codec.clone()],
            codec,
            audio_level: Some(1),
            mid: Some((4, index.to_string())),
            sends: true,
            receives: true,
            ssrcs: Vec::new(),
            keys: Keys::Dtls {
                client,
                fingerprint: ("sha-256".to_owned(), identity.fingerprint().to_vec()),
            },
        });
    Remote {
        media: media.collect(),
        ice: Some(("server".to_owned(), PASSWORD.to_owned())),
    }
}

#[test]
fn legs_in_either_role_join_by_ice_and_dtls_and_hear_each_other() {
    let engine = Engine::start(EngineConfig {
        protection: Protection::Dtls,
        video: Some(Resolution::P180),
        speakers: 2,
        participants: 2,
        threads: 2,
        seed: 1,
        bind: [127, 0, 0, 1].into(),
    })
    .expect("an engine");
    let identity = Identity::generate().expect("a certificate");
    let mut legs: Vec<Leg> = [Role::Server, Role::Client]
        .into_iter()
        .enumerate()
        .map(|(participant, role)| {
            let local = engine.open(participant as u32).expect("sockets");
            assert_eq!(local.media[0].address, local.media[1].address, "one port");
            Leg::new(&identity, &local, role)
        })
        .collect();
    for (participant, leg) in legs.iter().enumerate() {
        // the server waits for the first, and begins towards the second
        let answer = remote(leg, &identity, participant == 0);
        engine
            .connect(participant as u32, answer)
            .expect("an answer");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let server = std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while !stopped.load(Ordering::Relaxed) {
            let mut idle = true;
            for at in 0..legs.len() {
                while let Ok((len, from)) = legs[at].socket.recv_from(&mut buffer) {
                    idle = false;
                    if let Some(len) = legs[at].on_datagram(&mut buffer[..len], from) {
                        let packet = buffer[..len].to_vec();
                        legs[1 - at].send(&packet);
                    }
                }
            }
            if idle {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    engine.begin();
    let begin = Instant::now();
    loop {
        let progress = engine.progress();
        if progress.connected == 2 && progress.with_media == 2 && progress.received > 300 {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{progress:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = engine.finish();
    stop.store(true, Ordering::Relaxed);
    server.join().expect("the server");
    assert_eq!(report.connected, 2);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(report.connect_time.is_some_and(|t| t.count == 2));
    assert_eq!(report.not_authentic + report.malformed, 0);
    for kind in [&report.audio, &report.video] {
        assert!(kind.stamped > 0, "{kind:?}");
        assert_eq!(
            kind.sequence_jumps + kind.timestamp_breaks + kind.duplicates,
            0
        );
    }
}
