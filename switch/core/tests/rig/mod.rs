//! A worker with a client at each leg's other end, for tests.
#![allow(dead_code)] // each test file uses a part

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
use switch_core::worker::{PlainPorts, Ports, SocketId, Worker, WorkerConfig};
use switch_core::{WallClock, link};

use crate::peer::{IcePeer, rtp};

pub const SHARED: SocketId = SocketId(0);

pub const ADVERTISED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Sockets that are only numbers; port = 20000 + number.
pub struct FakePorts {
    pub open: BTreeSet<u32>,
    pub next: u32,
    pub most: usize,
}

impl FakePorts {
    pub fn new() -> Self {
        Self {
            open: BTreeSet::new(),
            next: 1,
            most: 100,
        }
    }

    pub fn socket(&mut self) -> SocketId {
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

pub struct Rig {
    pub worker: Worker,
    pub ports: FakePorts,
    pub identity: Arc<Identity>,
    pub now: Instant,
}

impl Rig {
    pub fn new() -> Self {
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

    pub fn apply(&mut self, request: &ApplyRequest) -> Vec<control::LegState> {
        self.worker
            .apply(self.now, request, &mut self.ports)
            .unwrap()
    }

    pub fn drain(&mut self) -> Vec<(SocketId, SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(transmit) = self.worker.poll_transmit() {
            sent.push((transmit.socket, transmit.remote, transmit.bytes.to_vec()));
        }
        sent
    }

    /// Delivers what the worker sends to whom it is for.
    pub fn deliver(&mut self, clients: &mut [Client]) {
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

    pub fn give(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.worker
            .handle_datagram(self.now, socket, from, &mut bytes);
    }

    pub fn step(&mut self, clients: &mut [Client]) {
        self.now += Duration::from_millis(20);
        if self.worker.poll_timeout().is_some_and(|at| at <= self.now) {
            self.worker.handle_timeout(self.now);
        }
        self.deliver(clients);
    }

    pub fn events(&mut self) -> Vec<(String, control::leg_event::Kind)> {
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
pub enum Kind {
    Plain,
    Sdes(SrtpSuite, Profile),
    DtlsIce(DtlsRole),
    SdesIce,
    DtlsAlone,
}

/// The other end of a leg.
pub struct Client {
    pub id: String,
    pub source: u32,
    pub kind: Kind,
    pub address: SocketAddr,
    pub socket: SocketId,
    pub identity: Identity,
    pub association: Option<Association>,
    pub sealer: Option<Sealer>,
    pub opener: Option<Opener>,
    pub sequence: u16,
    pub heard: Vec<Vec<u8>>,
    pub reports: usize,
    pub other: Vec<Vec<u8>>,
}

impl Client {
    pub fn new(number: u32, kind: Kind) -> Self {
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

    pub fn owns(&self, remote: SocketAddr) -> bool {
        remote.ip() == self.address.ip()
            && (remote.port() == self.address.port() || remote.port() == self.address.port() + 1)
    }

    pub fn ice(&self) -> Ice {
        Ice {
            local_ufrag: format!("sw{:02}", self.source),
            local_pwd: "switchswitchswitchswitch".into(),
            remote_ufrag: "peer".into(),
            remote_pwd: "peerpeerpeerpeerpeerpeer".into(),
        }
    }

    pub fn key(&self, profile: Profile, ours: bool) -> Vec<u8> {
        (0..profile.key_len() + profile.salt_len())
            .map(|at| at as u8 ^ ((self.source as u8).wrapping_mul(2) + u8::from(ours)))
            .collect()
    }

    pub fn transport(&self) -> Transport {
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

    pub fn leg(&self) -> Leg {
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
    pub fn connect(&mut self, rig: &mut Rig, states: &[control::LegState]) {
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

    pub fn set_keys(&mut self, profile: Profile) {
        self.sealer = Some(Sealer::new(profile, &self.key(profile, false)).unwrap());
        self.opener = Some(Opener::new(profile, &self.key(profile, true)).unwrap());
    }

    pub fn associate(&mut self, rig: &Rig, role: Role) {
        let ours = Fingerprint::new("sha-256", rig.identity.fingerprint()).unwrap();
        self.association = Some(Association::new(&self.identity, role, vec![ours]).unwrap());
    }

    /// Takes a datagram of the switch; what it answers.
    pub fn take(&mut self, to: SocketAddr, mut bytes: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
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
    pub fn say(&mut self, rig: &mut Rig, octet: u8) {
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

pub const LOUD: u8 = 0x90;
pub const QUIET: u8 = 0xff;

pub fn request(epoch: u64, clients: &[Client]) -> ApplyRequest {
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

pub fn everyone() -> Vec<Client> {
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

pub fn meet(rig: &mut Rig, clients: &mut [Client]) -> Vec<control::LegState> {
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
