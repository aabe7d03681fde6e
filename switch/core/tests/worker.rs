//! A worker with a client at each leg's other end: every kind of security in one meeting.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{
    ApplyRequest, Codec, Dtls, DtlsRole, Ice, Leg, Media, MediaKind, Sdes, Security, Slot,
    SrtpSuite, Transport,
};
use switch_core::dtls::{Association, Event, Fingerprint, Identity, Role};
use switch_core::srtp::{MAX_OVERHEAD, Opener, Profile, Sealer};
use switch_core::worker::{ApplyError, PlainPorts, Ports, SocketId, Worker, WorkerConfig};
use switch_core::{WallClock, link};

mod peer;
use peer::{IcePeer, rtp};

const SHARED: SocketId = SocketId(0);

const ADVERTISED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Sockets that are only numbers; port = 20000 + number.
struct FakePorts {
    open: BTreeSet<u32>,
    next: u32,
    most: usize,
}

impl FakePorts {
    fn new() -> Self {
        Self {
            open: BTreeSet::new(),
            next: 1,
            most: 100,
        }
    }

    fn socket(&mut self) -> SocketId {
        let id = self.next;
        self.next += 1;
        self.open.insert(id);
        SocketId(id)
    }
}

impl Ports for FakePorts {
    fn webrtc(&self) -> Vec<(SocketId, Vec<SocketAddr>)> {
        vec![(SHARED, vec!["198.51.100.1:40000".parse().unwrap()])]
    }

    fn advertised(&self, ipv6: bool, _peer: Option<IpAddr>) -> Option<IpAddr> {
        (!ipv6).then_some(ADVERTISED)
    }

    fn open(&mut self, _ipv6: bool, _peer: Option<IpAddr>, with_rtcp: bool) -> Option<PlainPorts> {
        if self.open.len() + 1 + usize::from(with_rtcp) > self.most {
            return None;
        }
        let rtp = self.socket();
        let rtcp = with_rtcp.then(|| self.socket());
        Some(PlainPorts {
            rtp,
            rtcp,
            advertised: ADVERTISED,
            rtp_port: 20_000 + rtp.0 as u16,
            rtcp_port: rtcp.map_or(0, |socket| 20_000 + socket.0 as u16),
        })
    }

    fn close(&mut self, socket: SocketId) {
        assert!(self.open.remove(&socket.0), "{socket:?} closed twice");
    }
}

struct Rig {
    worker: Worker,
    ports: FakePorts,
    identity: Arc<Identity>,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        let identity = Arc::new(Identity::generate().unwrap());
        let config = WorkerConfig {
            clock: WallClock {
                origin: now,
                unix: Duration::from_secs(1_700_000_000),
            },
            video_bitrate: 1_000_000,
            speaker_interval: Duration::from_millis(100),
            max_legs: 100,
        };
        Self {
            worker: Worker::new(config, Arc::clone(&identity), [1; 32]),
            ports: FakePorts::new(),
            identity,
            now,
        }
    }

    fn apply(&mut self, request: &ApplyRequest) -> Vec<control::LegState> {
        self.worker
            .apply(self.now, request, &mut self.ports)
            .unwrap()
    }

    fn drain(&mut self) -> Vec<(SocketId, SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(transmit) = self.worker.poll_transmit() {
            sent.push((transmit.socket, transmit.remote, transmit.bytes.to_vec()));
        }
        sent
    }

    /// Delivers what the worker sends to whom it is for.
    fn deliver(&mut self, clients: &mut [Client]) {
        for _ in 0..20 {
            let sent = self.drain();
            if sent.is_empty() {
                return;
            }
            for (_, remote, bytes) in sent {
                let client = clients.iter_mut().find(|c| c.owns(remote));
                let client = client.expect("sent to a client");
                for answer in client.take(remote, bytes, self.now) {
                    self.give(client.socket, client.address, &answer);
                }
            }
        }
    }

    fn give(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.worker
            .handle_datagram(self.now, socket, from, &mut bytes);
    }

    fn step(&mut self, clients: &mut [Client]) {
        self.now += Duration::from_millis(20);
        if self.worker.poll_timeout().is_some_and(|at| at <= self.now) {
            self.worker.handle_timeout(self.now);
        }
        self.deliver(clients);
    }

    fn events(&mut self) -> Vec<(String, control::leg_event::Kind)> {
        let mut all = Vec::new();
        while let Some(event) = self.worker.poll_event() {
            if let Some(control::event::Event::Leg(leg)) = event.event {
                all.push((leg.leg.clone(), leg.kind()));
            }
        }
        all
    }
}

/// How a client is protected.
enum Kind {
    Plain,
    Sdes(SrtpSuite, Profile),
    DtlsIce(DtlsRole),
    SdesIce,
    DtlsAlone,
}

/// The other end of a leg.
struct Client {
    id: String,
    source: u32,
    kind: Kind,
    address: SocketAddr,
    socket: SocketId,
    identity: Identity,
    association: Option<Association>,
    sealer: Option<Sealer>,
    opener: Option<Opener>,
    sequence: u16,
    heard: Vec<Vec<u8>>,
    reports: usize,
    other: Vec<Vec<u8>>,
}

impl Client {
    fn new(number: u32, kind: Kind) -> Self {
        Self {
            id: format!("leg-{number}"),
            source: number,
            kind,
            address: SocketAddr::from(([192, 0, 2, 1], 10_000 + 2 * number as u16)),
            socket: SHARED,
            identity: Identity::generate().unwrap(),
            association: None,
            sealer: None,
            opener: None,
            sequence: 65_500,
            heard: Vec::new(),
            reports: 0,
            other: Vec::new(),
        }
    }

    fn owns(&self, remote: SocketAddr) -> bool {
        remote.ip() == self.address.ip()
            && (remote.port() == self.address.port() || remote.port() == self.address.port() + 1)
    }

    fn ice(&self) -> Ice {
        Ice {
            local_ufrag: format!("sw{:02}", self.source),
            local_pwd: "switchswitchswitchswitch".into(),
            remote_ufrag: "peer".into(),
            remote_pwd: "peerpeerpeerpeerpeerpeer".into(),
        }
    }

    fn key(&self, profile: Profile, ours: bool) -> Vec<u8> {
        (0..profile.key_len() + profile.salt_len())
            .map(|at| at as u8 ^ (self.source as u8 * 2 + u8::from(ours)))
            .collect()
    }

    fn transport(&self) -> Transport {
        let mut transport = Transport {
            security: Security::Plain.into(),
            remote_address: self.address.ip().to_string(),
            remote_port: u32::from(self.address.port()),
            ..Default::default()
        };
        let sdes = |suite: SrtpSuite, profile| Sdes {
            suite: suite.into(),
            local_key: self.key(profile, true).into(),
            remote_key: self.key(profile, false).into(),
        };
        let dtls = |role: DtlsRole| Dtls {
            role: role.into(),
            remote: vec![control::Fingerprint {
                algorithm: "sha-256".into(),
                value: self.identity.fingerprint().to_vec().into(),
            }],
        };
        match self.kind {
            Kind::Plain => {}
            Kind::Sdes(suite, profile) => {
                transport.security = Security::Sdes.into();
                transport.sdes = Some(sdes(suite, profile));
            }
            Kind::SdesIce => {
                transport.security = Security::Sdes.into();
                transport.sdes = Some(sdes(
                    SrtpSuite::AesCm128HmacSha180,
                    Profile::Aes128CmSha1_80,
                ));
                transport.rtcp_mux = true;
                transport.ice = Some(self.ice());
            }
            Kind::DtlsIce(role) => {
                transport.security = Security::Dtls.into();
                transport.dtls = Some(dtls(role));
                transport.rtcp_mux = true;
                transport.ice = Some(self.ice());
                transport.remote_address = String::new();
            }
            Kind::DtlsAlone => {
                transport.security = Security::Dtls.into();
                transport.dtls = Some(dtls(DtlsRole::Client));
                transport.rtcp_mux = true;
            }
        }
        transport
    }

    fn leg(&self) -> Leg {
        Leg {
            id: self.id.clone(),
            source: self.source,
            cname: "switch".into(),
            transports: vec![self.transport()],
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
                    ssrc: 0x5000_0000 + self.source,
                    ..Default::default()
                }),
                ..Default::default()
            }],
        }
    }

    /// Learns its port, makes its checks and begins its handshake.
    fn connect(&mut self, rig: &mut Rig, states: &[control::LegState]) {
        let state = states.iter().find(|state| state.id == self.id).unwrap();
        assert_eq!(state.refused, "");
        let port = state.transports[0].addresses[0].port;
        self.socket = if port == 40_000 {
            SHARED
        } else {
            SocketId(port - 20_000)
        };
        match self.kind {
            Kind::Plain => {}
            Kind::Sdes(_, profile) => self.set_keys(profile),
            Kind::SdesIce => self.set_keys(Profile::Aes128CmSha1_80),
            Kind::DtlsIce(DtlsRole::Server) => self.associate(rig, Role::Client),
            Kind::DtlsIce(_) | Kind::DtlsAlone => self.associate(rig, Role::Server),
        }
        if matches!(self.kind, Kind::SdesIce | Kind::DtlsIce(_)) {
            let check = IcePeer::new(&self.ice()).request(true);
            rig.give(self.socket, self.address, &check);
        }
        if let Some(association) = &mut self.association {
            association.start(rig.now);
            while let Some(datagram) = association.poll_transmit() {
                rig.give(self.socket, self.address, &datagram);
            }
        }
    }

    fn set_keys(&mut self, profile: Profile) {
        self.sealer = Some(Sealer::new(profile, &self.key(profile, false)).unwrap());
        self.opener = Some(Opener::new(profile, &self.key(profile, true)).unwrap());
    }

    fn associate(&mut self, rig: &Rig, role: Role) {
        let ours = Fingerprint::new("sha-256", rig.identity.fingerprint()).unwrap();
        self.association = Some(Association::new(&self.identity, role, vec![ours]).unwrap());
    }

    /// Takes a datagram of the switch; what it answers.
    fn take(&mut self, to: SocketAddr, mut bytes: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
        match bytes[0] {
            0..=3 => {}
            20..=63 => {
                let association = self.association.as_mut().expect("a DTLS client");
                if let Some(event) = association.handle_datagram(&bytes, now) {
                    let Event::Connected(keys) = event else {
                        panic!("{event:?}")
                    };
                    self.sealer = Some(Sealer::new(keys.profile, &keys.local).unwrap());
                    self.opener = Some(Opener::new(keys.profile, &keys.remote).unwrap());
                }
                return std::iter::from_fn(|| association.poll_transmit())
                    .map(|datagram| datagram.to_vec())
                    .collect();
            }
            _ if link::is_rtcp(&bytes) => {
                if let Some(opener) = &mut self.opener {
                    opener.open_rtcp(&mut bytes).expect("authentic RTCP");
                }
                self.reports += 1;
            }
            _ => {
                assert_eq!(to, self.address);
                if let Some(opener) = &mut self.opener {
                    let len = opener.open_rtp(&mut bytes).expect("authentic RTP");
                    bytes.truncate(len);
                }
                self.heard.push(bytes);
                return Vec::new();
            }
        }
        self.other.push(bytes);
        Vec::new()
    }

    /// 20 ms of sound or of silence.
    fn say(&mut self, rig: &mut Rig, octet: u8) {
        let payload: Vec<u8> = (0..160)
            .map(|at| if at / 4 % 2 == 0 { octet } else { octet ^ 0x80 })
            .collect();
        let timestamp = u32::from(self.sequence) * 160;
        let mut packet = rtp(0x1000 + self.source, self.sequence, timestamp, &payload);
        self.sequence = self.sequence.wrapping_add(1);
        if let Some(sealer) = &mut self.sealer {
            let len = packet.len();
            packet.resize(len + MAX_OVERHEAD, 0);
            let len = sealer.seal_rtp(&mut packet, len).unwrap();
            packet.truncate(len);
        }
        rig.give(self.socket, self.address, &packet);
    }
}

const LOUD: u8 = 0x90;
const QUIET: u8 = 0xff;

fn request(epoch: u64, clients: &[Client]) -> ApplyRequest {
    ApplyRequest {
        version: control::VERSION,
        member: "m".into(),
        meeting: "a".into(),
        epoch,
        full: true,
        legs: clients.iter().map(Client::leg).collect(),
        ..Default::default()
    }
}

fn everyone() -> Vec<Client> {
    vec![
        Client::new(1, Kind::Plain),
        Client::new(
            2,
            Kind::Sdes(SrtpSuite::AesCm128HmacSha180, Profile::Aes128CmSha1_80),
        ),
        Client::new(
            3,
            Kind::Sdes(SrtpSuite::AesCm128HmacSha132, Profile::Aes128CmSha1_32),
        ),
        Client::new(
            4,
            Kind::Sdes(SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm),
        ),
        Client::new(
            5,
            Kind::Sdes(SrtpSuite::AeadAes256Gcm, Profile::AeadAes256Gcm),
        ),
        Client::new(6, Kind::DtlsIce(DtlsRole::Server)),
        Client::new(7, Kind::DtlsIce(DtlsRole::Client)),
        Client::new(8, Kind::SdesIce),
        Client::new(9, Kind::DtlsAlone),
    ]
}

fn meet(rig: &mut Rig, clients: &mut [Client]) -> Vec<control::LegState> {
    let states = rig.apply(&request(1, clients));
    for client in clients.iter_mut() {
        client.connect(rig, &states);
    }
    rig.deliver(clients);
    for _ in 0..10 {
        rig.step(clients);
    }
    states
}

#[test]
fn each_kind_of_leg_is_heard_by_every_other_kind() {
    let mut rig = Rig::new();
    let mut clients = everyone();
    meet(&mut rig, &mut clients);
    for speaker in 0..clients.len() {
        clients.iter_mut().for_each(|client| client.heard.clear());
        // The one before keeps the slot for a hangover of 40 frames.
        for _ in 0..110 {
            for at in 0..clients.len() {
                let octet = if at == speaker { LOUD } else { QUIET };
                let (mut client, rest) = (clients.remove(at), &mut clients);
                client.say(&mut rig, octet);
                rest.insert(at, client);
            }
            rig.step(&mut clients);
        }
        let source = clients[speaker].source;
        for (at, client) in clients.iter().enumerate() {
            let loud = client
                .heard
                .iter()
                .filter(|p| p[0] & 15 == 1 && p[12..16] == source.to_be_bytes() && p[16] == LOUD)
                .count();
            if at == speaker {
                assert_eq!(loud, 0, "nobody receives themself");
            } else {
                assert!(loud > 50, "{} hears {source} {loud} times", client.id);
            }
            // One unbroken stream, across the sealer's roll-over too.
            let numbers: Vec<u16> = client
                .heard
                .iter()
                .map(|p| u16::from_be_bytes([p[2], p[3]]))
                .collect();
            assert!(
                numbers.windows(2).all(|w| w[1] == w[0].wrapping_add(1)),
                "{}: gaps",
                client.id
            );
        }
    }
    assert!(clients.iter().all(|client| client.reports > 0), "RTCP too");
    let connected = rig.events();
    for client in &clients {
        let kind = control::leg_event::Kind::Connected;
        assert!(
            connected.contains(&(client.id.clone(), kind)),
            "{}",
            client.id
        );
    }
    let view = &rig.worker.inspect(rig.now, None)[0];
    let profiles: Vec<_> = view.legs.iter().map(|l| l.srtp_profile.as_str()).collect();
    assert_eq!(profiles[0], "");
    assert_eq!(profiles[1], "AES_CM_128_HMAC_SHA1_80");
    assert_eq!(profiles[5], "AEAD_AES_128_GCM");
    assert_eq!(view.legs[6].remote, clients[6].address.to_string());
    assert_eq!(rig.worker.stats().bad, 0);
    assert_eq!(rig.worker.stats().strangers, 0);
}

#[test]
fn the_same_request_again_and_a_takeover_disturb_no_packet() {
    let mut rig = Rig::new();
    let mut clients = everyone();
    let states = meet(&mut rig, &mut clients);
    for round in 0..100u64 {
        if round % 20 == 0 {
            assert_eq!(rig.apply(&request(1 + round, &clients)), states);
        }
        for at in 0..clients.len() {
            let mut client = clients.remove(at);
            client.say(&mut rig, if at == 5 { LOUD } else { QUIET });
            clients.insert(at, client);
        }
        rig.step(&mut clients);
    }
    for client in &clients {
        let numbers: Vec<u16> = client
            .heard
            .iter()
            .map(|p| u16::from_be_bytes([p[2], p[3]]))
            .collect();
        assert!(numbers.len() > 50 || client.source == 6, "{}", client.id);
        assert!(numbers.windows(2).all(|w| w[1] == w[0].wrapping_add(1)));
    }
    assert_eq!(rig.worker.stats().bad, 0);
}

#[test]
fn a_stale_owner_is_refused_before_any_port_is_touched() {
    let mut rig = Rig::new();
    let clients = everyone();
    rig.apply(&request(5, &clients));
    let open = rig.ports.open.clone();
    let stale = rig
        .worker
        .apply(rig.now, &request(4, &clients[..1]), &mut rig.ports);
    assert_eq!(stale, Err(ApplyError::Stale { highest: 5 }));
    assert_eq!(rig.ports.open, open);
    assert_eq!(rig.worker.legs(), clients.len());
}

#[test]
fn ports_and_legs_are_all_gone_when_the_meeting_ends() {
    let mut rig = Rig::new();
    let mut clients = everyone();
    meet(&mut rig, &mut clients);
    // 5 legs with a pair, one with a mux port; ICE legs share.
    assert_eq!(rig.ports.open.len(), 5 * 2 + 1);
    rig.apply(&request(1, &clients[..3]));
    assert_eq!(rig.ports.open.len(), 3 * 2);
    assert_eq!(rig.worker.legs(), 3);
    let gone = clients[5].sealer.is_some();
    assert!(gone);
    let end = ApplyRequest {
        end: true,
        ..request(1, &[])
    };
    rig.apply(&end);
    assert!(rig.ports.open.is_empty());
    assert_eq!((rig.worker.legs(), rig.worker.meetings()), (0, 0));
    assert_eq!(rig.worker.poll_timeout(), None);
    // What still arrives finds nobody.
    let before = rig.worker.stats().strangers;
    let check = IcePeer::new(&clients[5].ice()).request(true);
    rig.drain();
    rig.give(SHARED, clients[5].address, &check);
    rig.give(SocketId(1), clients[0].address, &rtp(1, 1, 1, &[0; 20]));
    assert_eq!(rig.worker.stats().strangers, before + 2);
    assert!(rig.drain().is_empty());
}

#[test]
fn a_leg_without_a_port_or_with_nonsense_is_refused_alone_and_leaks_nothing() {
    let mut rig = Rig::new();
    rig.ports.most = 3;
    let clients = everyone();
    let mut wanted = request(1, &clients[..3]);
    wanted.legs[2].transports[0].security = Security::Unspecified.into();
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "");
    assert_eq!(states[1].refused, "no free media port");
    assert!(!states[1].unsupported, "it may be there later");
    assert!(states[2].refused.contains("security"));
    assert_eq!(rig.ports.open.len(), 2);
    assert_eq!(rig.worker.legs(), 1);
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_leg_as_it_was() {
    let mut rig = Rig::new();
    let clients = everyone();
    let first = rig.apply(&request(1, &clients[..2]));
    let mut wanted = request(1, &clients[..2]);
    wanted.legs[0].transports[0].ipv6 = true;
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "the media server has no IPv6 address");
    assert_eq!(rig.worker.legs(), 2, "its dialog goes on, so it does too");
    let again = rig.apply(&request(1, &clients[..1]));
    assert_eq!(again[0], first[0], "on its ports");
}

#[test]
fn a_plain_leg_of_a_family_that_the_switch_has_not_is_refused_for_good() {
    let mut rig = Rig::new();
    let clients = everyone();
    let mut wanted = request(1, &clients[..1]);
    wanted.legs[0].transports[0].ipv6 = true;
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "the media server has no IPv6 address");
    assert!(states[0].unsupported);
    assert!(rig.ports.open.is_empty());
}

#[test]
fn two_legs_cannot_claim_one_ufrag() {
    let mut rig = Rig::new();
    let clients = [
        Client::new(6, Kind::DtlsIce(DtlsRole::Server)),
        Client::new(7, Kind::DtlsIce(DtlsRole::Server)),
    ];
    let mut wanted = request(1, &clients);
    wanted.legs[1].transports[0].ice = Some(clients[0].ice());
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "");
    assert!(states[1].refused.contains("ufrag"), "{}", states[1].refused);
}

#[test]
fn agreeing_on_rtcp_mux_later_gives_the_second_port_back_and_keeps_the_first() {
    let mut rig = Rig::new();
    let clients = [Client::new(1, Kind::Plain)];
    let first = rig.apply(&request(1, &clients));
    assert_eq!(rig.ports.open.len(), 2);
    let mut wanted = request(1, &clients);
    wanted.legs[0].transports[0].rtcp_mux = true;
    let second = rig.apply(&wanted);
    assert_eq!(rig.ports.open.len(), 1);
    assert_eq!(
        first[0].transports[0].addresses,
        second[0].transports[0].addresses
    );
    assert_eq!(second[0].transports[0].rtcp_port, 0);
}

#[test]
fn a_check_with_anothers_address_takes_nothing_from_that_one() {
    let mut rig = Rig::new();
    let mut clients = vec![
        Client::new(6, Kind::DtlsIce(DtlsRole::Server)),
        Client::new(8, Kind::SdesIce),
    ];
    meet(&mut rig, &mut clients);
    let victim = clients[0].address;
    let forged = IcePeer::new(&clients[1].ice()).request(true);
    let before = rig.worker.stats();
    rig.give(SHARED, victim, &forged);
    assert!(rig.drain().is_empty(), "no answer");
    for _ in 0..30 {
        let mut client = clients.remove(0);
        client.say(&mut rig, LOUD);
        clients.insert(0, client);
        rig.step(&mut clients);
    }
    let after = rig.worker.stats();
    assert_eq!(
        (after.strangers, after.bad),
        (before.strangers + 1, before.bad)
    );
    assert!(clients[1].heard.len() > 20, "{}", clients[1].heard.len());
    // Who goes makes room, on every address of ours that he reached.
    let other = SocketId(9_999);
    let check = IcePeer::new(&clients[0].ice()).request(false);
    rig.give(other, victim, &check);
    assert_eq!(rig.drain().len(), 1, "answered");
    rig.apply(&request(1, &clients[1..]));
    rig.drain();
    for socket in [SHARED, other] {
        rig.give(socket, victim, &forged);
        assert_eq!(rig.drain().len(), 1, "answered");
    }
}

#[test]
fn a_phone_that_died_gets_its_address_back_in_seconds() {
    let mut rig = Rig::new();
    let mut clients = vec![Client::new(6, Kind::SdesIce), Client::new(8, Kind::SdesIce)];
    meet(&mut rig, &mut clients);
    let again = IcePeer::new(&clients[1].ice()).request(true);
    let address = clients[0].address;
    rig.drain();
    rig.give(SHARED, address, &again);
    assert!(rig.drain().is_empty(), "its owner was just heard");
    rig.now += Duration::from_secs(6);
    rig.give(SHARED, address, &again);
    assert_eq!(rig.drain().len(), 1, "answered");
}

#[test]
fn consent_lost_is_reported_to_the_owner() {
    let mut rig = Rig::new();
    let mut clients = vec![Client::new(8, Kind::SdesIce)];
    meet(&mut rig, &mut clients);
    rig.events();
    for _ in 0..40 {
        rig.now += Duration::from_secs(1);
        rig.worker.handle_timeout(rig.now);
        rig.drain();
    }
    let lost = control::leg_event::Kind::ConsentLost;
    let told = rig.events();
    let count = told.iter().filter(|(_, kind)| *kind == lost).count();
    assert_eq!(count, 1, "{told:?}");
}

#[test]
fn garbage_on_every_socket_is_counted_and_answered_by_nothing() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
    let mut rig = Rig::new();
    let mut clients = everyone();
    meet(&mut rig, &mut clients);
    rig.drain();
    for _ in 0..20_000 {
        let client = &clients[rng.random_range(0..clients.len())];
        let len = rng.random_range(0..200);
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0, 1, 20, 22, 23, 63, 0x80, 0x90, 0xb0, *first][rng.random_range(0..10)];
        }
        let stranger = SocketAddr::from(([203, 0, 113, 1], 1));
        let from = if rng.random() {
            client.address
        } else {
            stranger
        };
        rig.give(client.socket, from, &bytes);
        for (_, remote, _) in rig.drain() {
            assert_ne!(remote, stranger);
        }
    }
    rig.step(&mut []);
}
