//! A switch on loopback with a store of its own, and what meeting managers and phones do with it.
#![allow(dead_code)] // each test file uses a part

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Entry, LeaseId, Op, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch};
use control::switch_client::SwitchClient;
use control::{ApplyRequest, Codec, Leg, Media, MediaKind, Security, Slot, Transport};
use switch::{Config, Switch};
use tokio::net::UdpSocket;
use tonic::transport::Channel;

/// Keys in memory; leases live until revoked or broken.
#[derive(Default)]
pub struct MemoryStore {
    keys: Mutex<BTreeMap<String, Bytes>>,
    leases: Mutex<Vec<(u64, Vec<String>)>>,
    /// Everything fails.
    pub down: std::sync::atomic::AtomicBool,
}

impl MemoryStore {
    fn up(&self) -> Result<(), StoreError> {
        if self.down.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Unavailable("down".into()));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.up()?;
        Ok(self.keys.lock().unwrap().get(key).map(|value| Entry {
            key: key.to_owned(),
            value: value.clone(),
            modified: Revision(1),
        }))
    }

    async fn range(&self, _: &str, _: usize, _: Option<&str>) -> Result<Range, StoreError> {
        Err(StoreError::Refused("not needed here".into()))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.up()?;
        for op in txn.ops {
            match op {
                Op::Put(key, value, lease) => {
                    if let Some(LeaseId(id)) = lease {
                        let mut leases = self.leases.lock().unwrap();
                        let lease = leases.iter_mut().find(|(known, _)| *known == id);
                        lease.ok_or(StoreError::LeaseExpired)?.1.push(key.clone());
                    }
                    self.keys.lock().unwrap().insert(key, value);
                }
                Op::Delete(key) => {
                    self.keys.lock().unwrap().remove(&key);
                }
            }
        }
        Ok(TxnOutcome::Committed(Revision(1)))
    }

    async fn watch(&self, _: &str, _: Revision) -> Result<Watch, StoreError> {
        Err(StoreError::Refused("not needed here".into()))
    }

    async fn grant(&self, _: Duration) -> Result<LeaseId, StoreError> {
        self.up()?;
        let mut leases = self.leases.lock().unwrap();
        let id = leases.last().map_or(1, |(id, _)| id + 1);
        leases.push((id, Vec::new()));
        Ok(LeaseId(id))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.up()?;
        let leases = self.leases.lock().unwrap();
        let known = leases.iter().any(|(id, _)| *id == lease.0);
        known.then_some(()).ok_or(StoreError::LeaseExpired)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut leases = self.leases.lock().unwrap();
        if let Some(at) = leases.iter().position(|(id, _)| *id == lease.0) {
            for key in leases.remove(at).1 {
                self.keys.lock().unwrap().remove(&key);
            }
        }
        Ok(())
    }

    async fn status(&self) -> Result<Revision, StoreError> {
        self.up()?;
        Ok(Revision(1))
    }
}

/// A running switch and a manager's link to it.
pub struct Rig {
    pub switch: Switch,
    pub store: Arc<MemoryStore>,
    pub client: SwitchClient<Channel>,
}

/// Free ports, loopback only.
pub fn config() -> Config {
    Config {
        control: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        listen: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        advertise: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        webrtc_port: 0,
        plain_ports: [0, 0],
        workers: 2,
        ..Config::default()
    }
}

impl Rig {
    pub async fn start() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: Config) -> Self {
        let store = Arc::new(MemoryStore::default());
        let shared: Arc<dyn Store> = store.clone();
        let switch = Switch::start(config, shared).await.unwrap();
        let url = format!("http://{}", switch.control_address());
        let client = SwitchClient::connect(url).await.unwrap();
        Self {
            switch,
            store,
            client,
        }
    }

    /// Applies; the response or the error.
    pub async fn apply(
        &mut self,
        request: ApplyRequest,
    ) -> Result<control::ApplyResponse, tonic::Status> {
        Ok(self.client.apply(request).await?.into_inner())
    }

    pub async fn inspect(&mut self) -> control::InspectResponse {
        let request = control::InspectRequest::default();
        self.client.inspect(request).await.unwrap().into_inner()
    }
}

/// A request of member m for a meeting.
pub fn request(meeting: &str, epoch: u64, legs: Vec<Leg>) -> ApplyRequest {
    ApplyRequest {
        version: control::VERSION,
        member: "m".into(),
        meeting: meeting.into(),
        epoch,
        full: true,
        legs,
        ..Default::default()
    }
}

/// A phone with PCMU on a plain port of its own.
pub struct Phone {
    pub id: String,
    pub source: u32,
    pub socket: UdpSocket,
    /// Where the switch takes its media.
    pub switch: Option<SocketAddr>,
    sequence: u16,
}

impl Phone {
    pub async fn new(number: u32) -> Self {
        Self {
            id: format!("phone-{number}"),
            source: number,
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            switch: None,
            sequence: 0,
        }
    }

    /// As its owner describes it to the switch.
    pub fn leg(&self) -> Leg {
        let address = self.socket.local_addr().unwrap();
        Leg {
            id: self.id.clone(),
            source: self.source,
            cname: format!("{}@switch", self.id),
            transports: vec![Transport {
                security: Security::Plain.into(),
                remote_address: address.ip().to_string(),
                remote_port: u32::from(address.port()),
                ..Default::default()
            }],
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

    /// Takes its port from the response.
    pub fn learn(&mut self, response: &control::ApplyResponse) {
        let state = response.legs.iter().find(|leg| leg.id == self.id).unwrap();
        assert_eq!(state.refused, "");
        let address = &state.transports[0].addresses[0];
        self.switch = Some(SocketAddr::new(
            address.ip.parse().unwrap(),
            address.port as u16,
        ));
    }

    /// Sends 20 ms of sound that alternates between ±`amplitude`, as µ-law octet and its negative.
    pub async fn say(&mut self, octet: u8) {
        let mut packet = vec![0x80, 0];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend_from_slice(&(0x1000 + self.source).to_be_bytes());
        packet.extend((0..160).map(|at| if at / 4 % 2 == 0 { octet } else { octet ^ 0x80 }));
        self.sequence = self.sequence.wrapping_add(1);
        self.socket
            .send_to(&packet, self.switch.unwrap())
            .await
            .unwrap();
    }

    /// The next RTP packet within `limit`: CSRCs and payload.
    pub async fn hear(&self, limit: Duration) -> Option<(Vec<u32>, Vec<u8>)> {
        let mut buffer = [0u8; 2048];
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let received = self.socket.recv_from(&mut buffer);
            let (len, _) = tokio::time::timeout_at(deadline, received)
                .await
                .ok()?
                .unwrap();
            let packet = &buffer[..len];
            if packet.len() < 12 || packet[1] & 0x7f >= 64 && packet[1] & 0x7f < 96 {
                continue;
            }
            let count = usize::from(packet[0] & 15);
            let csrcs = packet[12..12 + 4 * count].chunks(4);
            let csrcs = csrcs
                .map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]))
                .collect();
            return Some((csrcs, packet[12 + 4 * count..].to_vec()));
        }
    }
}
