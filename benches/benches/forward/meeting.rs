//! A meeting on a real switch: one who speaks, many who listen. Legs with SRTP share the port for browsers; plain ones
//! have a port each.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::{Entry, LeaseId, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch};
use control::switch_client::SwitchClient;
use control::{ApplyRequest, Codec, Ice, Leg, Media, MediaKind, Sdes, Security, Slot, Transport};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt};
use switch::{Config, Switch};
use switch_core::srtp::{MAX_OVERHEAD, Profile, Sealer};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::Case;
use crate::peer::IcePeer;

/// A store that agrees to everything: the cluster is no part of this.
pub struct NoStore;

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

/// The key of one direction, the same for all legs.
pub fn key(profile: Profile, ours: bool) -> Vec<u8> {
    (0..profile.key_len() + profile.salt_len())
        .map(|at| at as u8 ^ u8::from(ours))
        .collect()
}

/// What a leg's checks are authenticated with.
pub fn ice(number: u32) -> Ice {
    Ice {
        local_ufrag: format!("local{number}"),
        local_pwd: format!("local-password-of-{number:08}"),
        remote_ufrag: format!("remote{number}"),
        remote_pwd: format!("remote-password-of-{number:08}"),
    }
}

/// A leg of one audio or one video line.
pub fn leg(case: Case, number: u32, address: SocketAddr) -> Leg {
    let mut transport = Transport {
        security: Security::Plain.into(),
        rtcp_mux: true,
        remote_address: address.ip().to_string(),
        remote_port: u32::from(address.port()),
        ..Default::default()
    };
    if let Some((suite, profile)) = case.suite {
        transport.security = Security::Sdes.into();
        transport.ice = Some(ice(number));
        transport.sdes = Some(Sdes {
            suite: suite.into(),
            local_key: key(profile, true).into(),
            remote_key: key(profile, false).into(),
        });
    }
    let (kind, name, clock_rate) = match case.burst {
        1 => (MediaKind::Audio, "PCMU", 8_000),
        _ => (MediaKind::Video, "VP8", 90_000),
    };
    Leg {
        id: format!("leg-{number}"),
        source: number,
        cname: "bench".into(),
        transports: vec![transport],
        media: vec![Media {
            kind: kind.into(),
            codecs: vec![Codec {
                payload_type: PAYLOAD_TYPE.into(),
                name: name.into(),
                clock_rate,
                channels: 1,
                ..Default::default()
            }],
            receive: true,
            send: true,
            slot: Some(Slot {
                ssrc: SLOTS + number,
                ..Default::default()
            }),
            ..Default::default()
        }],
    }
}

/// Of all packets.
pub const PAYLOAD_TYPE: u8 = 96;

/// What a leg is sent has this SSRC and its number.
pub const SLOTS: u32 = 0x5000_0000;

/// Has the kernel keep so many octets for a slow reader: beyond the system's limit where we may, else up to it.
pub fn receive_buffer(socket: &impl AsFd, octets: usize) {
    if setsockopt(socket, RcvBufForce, &octets).is_err() {
        // the kernel grants what it may
        let _ = setsockopt(socket, RcvBuf, &octets);
    }
}

/// Starts a switch of so many workers.
pub async fn start_switch(workers: usize) -> Switch {
    let config = Config {
        control: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        listen: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        advertise: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        webrtc_port: 0,
        plain_ports: [0, 0],
        workers,
        capacity: 20_000,
        ..Config::default()
    };
    let switch = Switch::start(config, Arc::new(NoStore)).await;
    switch.expect("a switch")
}

/// All legs of a meeting, for the first time.
pub fn join(meeting: &str, legs: Vec<Leg>) -> ApplyRequest {
    ApplyRequest {
        version: control::VERSION,
        member: "bench".into(),
        meeting: meeting.into(),
        epoch: 1,
        full: true,
        legs,
        ..Default::default()
    }
}

/// What one who speaks sends.
pub struct Speaker {
    case: Case,
    /// Of its packets.
    pub payload_type: u8,
    /// Of its packets.
    pub ssrc: u32,
    sealer: Option<Sealer>,
    /// Packets so far; the low 16 bits are the next one's sequence number, and all of it ends its payload.
    pub packets: u64,
    frames: u16,
}

impl Speaker {
    /// One who has said nothing yet.
    pub fn new(case: Case) -> Self {
        Self {
            case,
            payload_type: PAYLOAD_TYPE,
            ssrc: 7,
            sealer: case
                .suite
                .map(|(_, profile)| Sealer::new(profile, &key(profile, false)).expect("a key")),
            packets: 0,
            frames: 0,
        }
    }

    /// The packets of one burst, and the length of each.
    pub fn burst(&mut self) -> (Vec<u8>, u16) {
        let mut burst = Vec::new();
        for number in 0..self.case.burst {
            burst.extend(self.packet(number));
        }
        self.frames = self.frames.wrapping_add(1);
        let segment = (burst.len() / self.case.burst as usize) as u16;
        (burst, segment)
    }

    /// The packet of that number in a burst: a video frame of so many packets, or a loud square wave in µ-law.
    fn packet(&mut self, number: u32) -> Vec<u8> {
        let last = u8::from(number + 1 == self.case.burst && self.case.burst > 1);
        let mut packet = vec![0x80, self.payload_type | last << 7];
        packet.extend_from_slice(&(self.packets as u16).to_be_bytes());
        packet.extend_from_slice(&(u32::from(self.frames) * 160).to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        let end = packet.len() + self.case.payload;
        if self.case.burst > 1 {
            // RFC 7741: a 15-bit picture id; the first packet of all begins a key frame.
            let start = if number == 0 { 0x10 } else { 0 };
            let [high, low] = (self.frames & 0x7fff).to_be_bytes();
            let inter = u8::from(self.frames > 0);
            packet.extend_from_slice(&[0x80 | start, 0x80, 0x80 | high, low, inter]);
        }
        packet.extend((packet.len()..end).map(|at| if at / 4 % 2 == 0 { 0x90 } else { 0x10 }));
        packet[end - 8..].copy_from_slice(&self.packets.to_be_bytes());
        self.packets += 1;
        if let Some(sealer) = &mut self.sealer {
            let len = packet.len();
            packet.resize(len + MAX_OVERHEAD, 0);
            let len = sealer.seal_rtp(&mut packet, len).expect("room for the tag");
            packet.truncate(len);
        }
        packet
    }
}

/// Counts what comes to a listener.
async fn listen(socket: UdpSocket, payload: usize, heard: Arc<AtomicU64>) {
    let mut buffer = [0u8; 2048];
    while let Ok(len) = socket.recv(&mut buffer).await {
        if len > payload {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Everything that runs.
pub struct Meeting {
    case: Case,
    switch: Switch,
    speaker: UdpSocket,
    towards: SocketAddr,
    voice: Speaker,
    remotes: Vec<SocketAddr>,
    heard: Arc<AtomicU64>,
    listeners: Vec<JoinHandle<()>>,
}

impl Meeting {
    /// Starts a switch and lets all join.
    pub async fn begin(case: Case) -> Self {
        let switch = start_switch(1).await;
        let url = format!("http://{}", switch.control_address());
        let mut client = SwitchClient::connect(url).await.expect("its control port");
        let mut sockets = Vec::new();
        let mut legs = Vec::new();
        for number in 1..=case.listeners + 1 {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            receive_buffer(&socket, 4 << 20);
            legs.push(leg(case, number, socket.local_addr().expect("bound")));
            sockets.push(socket);
        }
        let request = join("bench", legs);
        let response = client.apply(request).await.expect("legs").into_inner();
        for (number, (socket, state)) in (1..).zip(sockets.iter().zip(&response.legs)) {
            assert_eq!(state.refused, "");
            if case.suite.is_some() {
                let check = IcePeer::new(&ice(number)).request(true);
                let mut answer = [0; 200];
                let towards = address(state);
                socket.send_to(&check, towards).await.expect("a check");
                socket.recv(&mut answer).await.expect("an answer");
            }
        }
        let towards = address(&response.legs[0]);
        let mut sockets = sockets.into_iter();
        let speaker = sockets.next().expect("the speaker");
        let heard = Arc::new(AtomicU64::new(0));
        let mut remotes = Vec::new();
        let mut listeners = Vec::new();
        for socket in sockets {
            remotes.push(socket.local_addr().expect("bound"));
            let task = listen(socket, case.payload, Arc::clone(&heard));
            listeners.push(tokio::spawn(task));
        }
        Self {
            case,
            switch,
            speaker,
            towards,
            voice: Speaker::new(case),
            remotes,
            heard,
            listeners,
        }
    }

    /// Where the listeners are.
    pub fn remotes(&self) -> Vec<SocketAddr> {
        self.remotes.clone()
    }

    /// Does something, and says besides how many packets arrived meanwhile.
    pub async fn count<T>(&self, something: impl Future<Output = T>) -> (T, u64) {
        let before = self.heard.load(Ordering::Relaxed);
        let done = something.await;
        tokio::time::sleep(Duration::from_millis(100)).await; // for what is under way
        (done, self.heard.load(Ordering::Relaxed) - before)
    }

    /// Speaks for so long: packets the listeners should get, and packets they got.
    pub async fn speak(&mut self, length: Duration) -> (u64, u64) {
        let before = self.heard.load(Ordering::Relaxed);
        let mut tick = tokio::time::interval(self.case.pause());
        let start = Instant::now();
        let mut packets = 0;
        while start.elapsed() < length {
            tick.tick().await;
            self.say();
            packets += u64::from(self.case.burst);
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // for what is under way
        let due = packets * u64::from(self.case.listeners);
        (due, self.heard.load(Ordering::Relaxed) - before)
    }

    /// One burst.
    fn say(&mut self) {
        let (burst, segment) = self.voice.burst();
        let _ = sendmsg(
            self.speaker.as_raw_fd(),
            &[IoSlice::new(&burst)],
            &[ControlMessage::UdpGsoSegments(&segment)],
            MsgFlags::empty(),
            Some(&SockaddrStorage::from(self.towards)),
        );
    }

    /// All leave.
    pub async fn end(self) {
        self.listeners.iter().for_each(JoinHandle::abort);
        self.switch.shutdown().await;
    }
}

/// Where the switch takes a leg's media.
pub fn address(state: &control::LegState) -> SocketAddr {
    let local = &state.transports[0].addresses[0];
    SocketAddr::new(local.ip.parse().expect("an address"), local.port as u16)
}
