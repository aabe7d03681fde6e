//! A WebRTC peer that sends audio: full ICE towards a lite agent, DTLS as the client, SRTP.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message};
use stun::xoraddr::XorMappedAddress;
use switch_core::dtls::{Association, Event, Fingerprint, Identity, Role, is_dtls};
use switch_core::srtp::Sealer;
use tokio::net::UdpSocket;

use crate::Result;
use crate::fanout::{SSRC, Speaker};
use crate::peer::IcePeer;

/// How long it may take until media can flow.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a check is repeated.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The type of a success response to a check (RFC 8489 §5).
const BINDING_SUCCESS: [u8; 2] = [1, 1];

const UFRAG: &str = "bench";
const PWD: &str = "password-of-the-bench-0001";

/// A publisher that has not published.
pub struct Publisher {
    socket: UdpSocket,
    identity: Identity,
}

impl Publisher {
    /// At an address of this machine.
    pub async fn new(address: IpAddr) -> Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind((address, 0)).await?,
            identity: Identity::generate()?,
        })
    }

    /// What it offers. It has no candidates: the other side learns its address from its checks.
    pub fn offer(&self) -> String {
        let mut fingerprint = String::new();
        for byte in self.identity.fingerprint() {
            let colon = if fingerprint.is_empty() { "" } else { ":" };
            let _ = write!(fingerprint, "{colon}{byte:02X}");
        }
        [
            "v=0",
            "o=- 1 1 IN IP4 127.0.0.1",
            "s=-",
            "t=0 0",
            "a=group:BUNDLE 0",
            "m=audio 9 UDP/TLS/RTP/SAVPF 0",
            "c=IN IP4 0.0.0.0",
            "a=mid:0",
            "a=sendonly",
            "a=rtcp-mux",
            &format!("a=ice-ufrag:{UFRAG}"),
            &format!("a=ice-pwd:{PWD}"),
            &format!("a=fingerprint:sha-256 {fingerprint}"),
            "a=setup:active",
            "a=rtpmap:0 PCMU/8000",
            &format!("a=ssrc:{SSRC} cname:bench"),
            "a=end-of-candidates",
            "",
        ]
        .join("\r\n")
    }

    /// Connects to whoever answered.
    pub async fn connect(self, answer: &str) -> Result<Speaker> {
        tokio::time::timeout(PATIENCE, self.connect_patiently(answer))
            .await
            .map_err(|_| "no ICE and DTLS in time")?
    }

    async fn connect_patiently(self, answer: &str) -> Result<Speaker> {
        let attribute = |name: &str| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix("a=")?.strip_prefix(name))
                .ok_or_else(|| format!("no {name} in the answer"))
        };
        let towards = candidate(attribute("candidate:")?).ok_or("a strange candidate")?;
        self.socket.connect(towards).await?;
        let mut checks = IcePeer::new(&control::Ice {
            local_ufrag: attribute("ice-ufrag:")?.into(),
            local_pwd: attribute("ice-pwd:")?.into(),
            remote_ufrag: UFRAG.into(),
            remote_pwd: PWD.into(),
        });
        let mut buffer = [0u8; 2048];
        loop {
            self.socket.send(&checks.request(true)).await?;
            let datagram = self.socket.recv(&mut buffer);
            match tokio::time::timeout(CHECK_INTERVAL, datagram).await {
                Ok(Ok(_)) if buffer[..2] == BINDING_SUCCESS => break,
                Ok(Ok(len)) => answer_check(&self.socket, &buffer[..len]).await?,
                _ => {}
            }
        }
        let (algorithm, value) = attribute("fingerprint:")?
            .split_once(' ')
            .ok_or("a strange fingerprint")?;
        let value: Result<Vec<u8>, _> = value
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect();
        let fingerprint = Fingerprint::new(algorithm, &value?)?;
        let sealer = handshake(&self.socket, &self.identity, fingerprint).await?;
        Ok(Speaker {
            socket: self.socket,
            towards: vec![towards],
            sealer: Some(sealer),
            sequence: 0,
        })
    }
}

/// The address in a candidate (RFC 8839 §5.1).
fn candidate(value: &str) -> Option<SocketAddr> {
    let mut fields = value.split(' ').skip(4);
    let address = fields.next()?.parse().ok()?;
    Some(SocketAddr::new(address, fields.next()?.parse().ok()?))
}

/// Answers a check. A lite agent has no need of it (RFC 8445 §7), but Janus begins DTLS only once a check of its own,
/// made in return for ours, is answered.
async fn answer_check(socket: &UdpSocket, datagram: &[u8]) -> Result<()> {
    let mut request = Message::new();
    if request.unmarshal_binary(datagram).is_err() || request.typ != BINDING_REQUEST {
        return Ok(());
    }
    let towards = socket.peer_addr()?;
    let mapped = XorMappedAddress {
        ip: towards.ip(),
        port: towards.port(),
    };
    let provider = srtp::crypto::default_provider()?;
    let integrity =
        MessageIntegrity::new_short_term_integrity_with_provider(PWD.to_owned(), provider.crypto());
    let mut answer = Message::new();
    answer.build(&[
        Box::new(request.transaction_id),
        Box::new(stun::message::BINDING_SUCCESS),
        Box::new(mapped),
        Box::new(integrity),
        Box::new(FINGERPRINT),
    ])?;
    socket.send(&answer.raw).await?;
    Ok(())
}

/// Shakes hands; what seals with the keys that gives.
async fn handshake(
    socket: &UdpSocket,
    identity: &Identity,
    fingerprint: Fingerprint,
) -> Result<Sealer> {
    let mut association = Association::new(identity, Role::Client, vec![fingerprint])?;
    let mut event = association.start(Instant::now());
    let mut buffer = [0u8; 2048];
    loop {
        while let Some(datagram) = association.poll_transmit() {
            socket.send(&datagram).await?;
        }
        match event {
            Some(Event::Connected(keys)) => return Ok(Sealer::new(keys.profile, &keys.local)?),
            Some(Event::Failed(reason)) => return Err(reason.into()),
            None => {}
        }
        let due = association.poll_timeout().unwrap_or_else(Instant::now);
        event = match tokio::time::timeout_at(due.into(), socket.recv(&mut buffer)).await {
            Ok(len) => {
                let datagram = &buffer[..len?];
                if is_dtls(datagram) {
                    association.handle_datagram(datagram, Instant::now())
                } else {
                    answer_check(socket, datagram).await?;
                    None
                }
            }
            Err(_) => association.handle_timeout(Instant::now()),
        };
    }
}
