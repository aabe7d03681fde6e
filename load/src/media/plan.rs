//! From an answer to what the threads are told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rand::distr::Alphanumeric;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use switch_core::dtls::{Fingerprint, Identity};
use switch_core::srtp::Profile;

use super::EngineConfig;
use super::check::Format;
use super::ice::Credentials;
use super::incoming::{ReceiveLeg, ReceiveSocket, Secure};
use super::outgoing::Way;
use super::rtcp::OwnStream;
use super::send::{SendLeg, SendLine};
use super::socket::MediaSocket;
use super::speech::Codec;
use crate::leg::{Keys, Kind, Local, LocalMedia, Protection, Remote, RemoteMedia};

/// SDES profiles offered, best first.
const PROFILES: [Profile; 3] = [
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
    Profile::Aes128CmSha1_80,
];

/// RFC 8445 §5.3 wants at least 4 and 22 characters.
const UFRAG: usize = 8;
const PASSWORD: usize = 24;

/// RTP clock of VP8.
const VIDEO_CLOCK: u32 = 90_000;

/// A participant's sockets and what its offer says.
pub struct Opened {
    /// What the signalling half knows.
    pub local: Local,
    participant: u32,
    sockets: Vec<Arc<MediaSocket>>,
    /// Ports for RTCP of m-lines whose answer has it apart.
    rtcp: Vec<Option<Arc<MediaSocket>>>,
    own: Vec<Arc<OwnStream>>,
    random: Vec<u64>,
}

fn text(length: usize) -> String {
    let drawn = rand::rng().sample_iter(Alphanumeric);
    drawn.take(length).map(char::from).collect()
}

impl Opened {
    /// Opens a socket an m-line, or one for all with DTLS.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(
        config: &EngineConfig,
        participant: u32,
        fingerprint: Option<[u8; 32]>,
    ) -> io::Result<Self> {
        let mut random = seeded(config.seed, participant);
        let kinds = [Some(Kind::Audio), config.video.map(|_| Kind::Video)];
        let mut opened = Self {
            local: Local {
                media: Vec::new(),
                ice: fingerprint.map(|_| (text(UFRAG), text(PASSWORD))),
                fingerprint,
                cname: format!("load-{participant}-{}", text(UFRAG)),
            },
            participant,
            sockets: Vec::new(),
            rtcp: Vec::new(),
            own: Vec::new(),
            random: Vec::new(),
        };
        for kind in kinds.into_iter().flatten() {
            let socket = match (config.protection, opened.sockets.first()) {
                (Protection::Dtls, Some(first)) => Arc::clone(first),
                _ => Arc::new(MediaSocket::bind(SocketAddr::new(config.bind, 0))?),
            };
            let ssrc = random.next_u32();
            let keys = match config.protection {
                Protection::Sdes => PROFILES.map(|profile| (profile, key(profile))).to_vec(),
                _ => Vec::new(),
            };
            opened.local.media.push(LocalMedia {
                kind,
                address: socket.local(),
                ssrc,
                keys,
            });
            opened.own.push(Arc::new(OwnStream::new(ssrc)));
            opened.random.push(random.next_u64());
            opened.sockets.push(socket);
            opened.rtcp.push(None);
        }
        Ok(opened)
    }

    /// What the threads are to do after this answer.
    ///
    /// # Errors
    /// What makes no sense in it, for people.
    pub fn plan(
        &mut self,
        config: &EngineConfig,
        identity: Option<&Identity>,
        remote: &Remote,
        now: u64,
    ) -> Result<(ReceiveLeg, SendLeg), String> {
        let bundled = config.protection == Protection::Dtls;
        let mut lines: Vec<Option<SendLine>> = (0..self.sockets.len()).map(|_| None).collect();
        let mut sockets: Vec<ReceiveSocket> = Vec::new();
        for media in &remote.media {
            let at = media.index;
            let local = self.local.media.get(at).filter(|l| l.kind == media.kind);
            let local = local.ok_or_else(|| format!("m-line {at} was not offered so"))?;
            let (send_key, receive_key) = sdes(local, &media.keys)?;
            lines[at] = Some(SendLine {
                kind: media.kind,
                way: way(media)?,
                socket: Arc::clone(&self.sockets[at]),
                own: Arc::clone(&self.own[at]),
                key: send_key,
                random: self.random[at],
            });
            let formats = formats(media);
            match sockets.first_mut() {
                Some(first) if bundled => first.formats.extend(formats),
                _ => {
                    if !bundled && media.rtcp.is_some() && self.rtcp[at].is_none() {
                        self.rtcp[at] = neighbour(&self.sockets[at]);
                    }
                    sockets.extend(self.rtcp[at].iter().map(|socket| ReceiveSocket {
                        socket: Arc::clone(socket),
                        formats: Vec::new(),
                        key: receive_key.clone(),
                    }));
                    let socket = ReceiveSocket {
                        socket: Arc::clone(&self.sockets[at]),
                        formats,
                        key: receive_key,
                    };
                    sockets.insert(0, socket);
                }
            }
        }
        let secure = match identity {
            Some(identity) => Some(self.secure(identity, remote)?),
            None => None,
        };
        let own = lines.iter().map(|l| l.as_ref().map(|l| Arc::clone(&l.own)));
        let receive = ReceiveLeg {
            participant: self.participant,
            sockets,
            own: own.collect(),
            secure,
            expects: remote.media.iter().any(|m| m.receives)
                && has_others(config, self.participant),
            connected: now,
        };
        let send = SendLeg {
            participant: self.participant,
            cname: self.local.cname.clone(),
            lines,
            bundled,
        };
        Ok((receive, send))
    }

    fn secure(&self, identity: &Identity, remote: &Remote) -> Result<Secure, String> {
        let media = remote.media.first().ok_or("no m-line was accepted")?;
        let Keys::Dtls {
            client,
            fingerprint: (algorithm, digest),
        } = &media.keys
        else {
            return Err("the answer has no DTLS fingerprint".to_owned());
        };
        let (local, remote) = (self.local.ice.clone(), remote.ice.clone());
        let (Some(local), Some(remote)) = (local, remote) else {
            return Err("the answer has no ICE credentials".to_owned());
        };
        Ok(Secure {
            credentials: Credentials { local, remote },
            remote: media.address,
            client: *client,
            fingerprint: Fingerprint::new(algorithm, digest).map_err(|e| e.to_string())?,
            identity: identity.clone(),
        })
    }
}

/// Whether anybody else ever talks or films.
fn has_others(config: &EngineConfig, participant: u32) -> bool {
    config.speakers > usize::from((participant as usize) < config.speakers)
}

/// What is drawn for a participant, the same for the same seed.
fn seeded(seed: u64, participant: u32) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // stream 0 is the schedule's
    random.set_stream(u64::from(participant) + 1);
    random
}

fn key(profile: Profile) -> Vec<u8> {
    let mut key = vec![0; profile.key_len() + profile.salt_len()];
    rand::rng().fill_bytes(&mut key);
    key
}

/// The port above, for RTCP apart (RFC 3550 §11), if it is free.
fn neighbour(socket: &MediaSocket) -> Option<Arc<MediaSocket>> {
    let mut address = socket.local();
    address.set_port(address.port().checked_add(1)?);
    MediaSocket::bind(address).ok().map(Arc::new)
}

type Key = Option<(Profile, Vec<u8>)>;

/// Our key and the peer's.
fn sdes(local: &LocalMedia, keys: &Keys) -> Result<(Key, Key), String> {
    let Keys::Sdes { profile, remote } = keys else {
        return Ok((None, None));
    };
    let own = local.keys.iter().find(|(offered, _)| offered == profile);
    let (_, own) = own.ok_or_else(|| format!("{} was not offered", profile.name()))?;
    if remote.len() != profile.key_len() + profile.salt_len() {
        return Err(format!(
            "a key of {} octets for {}",
            remote.len(),
            profile.name()
        ));
    }
    Ok((
        Some((*profile, own.clone())),
        Some((*profile, remote.clone())),
    ))
}

fn way(media: &RemoteMedia) -> Result<Way, String> {
    let (payload_type, name, clock_rate) = media.codec.clone();
    let codec = match media.kind {
        Kind::Audio => Some(Codec::named(&name).ok_or_else(|| format!("cannot send {name}"))?),
        Kind::Video if name.eq_ignore_ascii_case("VP8") => None,
        Kind::Video => return Err(format!("cannot send {name}")),
    };
    Ok(Way {
        to: media.address,
        rtcp_to: media.rtcp.unwrap_or(media.address),
        payload_type,
        clock_rate,
        codec,
        level: media.audio_level,
        mid: media.mid.clone(),
        sends: media.sends,
    })
}

fn formats(media: &RemoteMedia) -> Vec<Format> {
    const NOT_PROPER: [&str; 5] = ["telephone-event", "CN", "rtx", "red", "ulpfec"];
    let all = media.accepted.iter().chain([&media.codec]);
    all.map(|(payload_type, name, clock_rate)| Format {
        payload_type: *payload_type,
        kind: media.kind,
        media: media.index,
        clock_rate: *clock_rate,
        vp8: name.eq_ignore_ascii_case("VP8"),
        proper: !NOT_PROPER.iter().any(|n| n.eq_ignore_ascii_case(name)),
    })
    .collect()
}

/// A speaker (`to`) or listener of a fan-out without SIP, at an address of ours; the address it got.
///
/// # Errors
/// What the system says to its socket.
pub fn fan_out(
    config: &EngineConfig,
    participant: u32,
    address: SocketAddr,
    to: Option<SocketAddr>,
    now: u64,
) -> io::Result<(SocketAddr, ReceiveLeg, Option<SendLeg>)> {
    const OPUS: (u8, &str, u32) = (111, "opus", 48_000);
    const VP8: (u8, &str, u32) = (96, "VP8", VIDEO_CLOCK);
    let socket = Arc::new(MediaSocket::bind(address)?);
    let mut random = seeded(config.seed, participant);
    let kinds = [
        Some((Kind::Audio, OPUS)),
        config.video.map(|_| (Kind::Video, VP8)),
    ];
    let media = kinds.into_iter().flatten().enumerate();
    let media = media.map(
        |(index, (kind, (payload_type, name, clock_rate)))| RemoteMedia {
            kind,
            index,
            address: to.unwrap_or(address),
            rtcp: None,
            codec: (payload_type, name.to_owned(), clock_rate),
            accepted: Vec::new(),
            audio_level: None,
            mid: None,
            sends: to.is_some(),
            receives: to.is_none(),
            ssrcs: Vec::new(),
            keys: Keys::Plain,
        },
    );
    let media: Vec<RemoteMedia> = media.collect();
    let mut lines = Vec::new();
    for media in media.iter().filter(|_| to.is_some()) {
        lines.push(Some(SendLine {
            kind: media.kind,
            way: way(media).map_err(io::Error::other)?,
            socket: Arc::clone(&socket),
            own: Arc::new(OwnStream::new(random.next_u32())),
            key: None,
            random: random.next_u64(),
        }));
    }
    let receive = ReceiveLeg {
        participant,
        sockets: vec![ReceiveSocket {
            socket: Arc::clone(&socket),
            formats: media.iter().flat_map(formats).collect(),
            key: None,
        }],
        // a fan-out has no use for reports
        own: Vec::new(),
        secure: None,
        expects: to.is_none() && config.speakers > 0,
        connected: now,
    };
    let send = to.map(|_| SendLeg {
        participant,
        cname: format!("load-{participant}"),
        lines,
        bundled: false,
    });
    Ok((socket.local(), receive, send))
}
