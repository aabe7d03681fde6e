//! The speaker and the listeners of a peer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use switch_core::srtp::{MAX_OVERHEAD, Opener, Sealer};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::process::Process;
use crate::{Case, Result};

/// Octets of an RTP header without CSRC and extension.
const HEADER: usize = 12;

/// The speaker's SSRC.
pub const SSRC: u32 = 7;

/// What is said: a loud square wave in µ-law, as in the switch's meeting.
fn payload(case: Case) -> impl Iterator<Item = u8> {
    (0..case.payload).map(|at| if at / 4 % 2 == 0 { 0x90 } else { 0x10 })
}

/// Who sends, PCMU, to one address or to several in turn.
pub struct Speaker {
    pub socket: UdpSocket,
    pub towards: Vec<SocketAddr>,
    pub sealer: Option<Sealer>,
    pub sequence: u16,
}

impl Speaker {
    fn say(&mut self, case: Case) {
        let mut packet = vec![0x80, 0];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend_from_slice(&SSRC.to_be_bytes());
        packet.extend(payload(case));
        self.sequence = self.sequence.wrapping_add(1);
        if let Some(sealer) = &mut self.sealer {
            let len = packet.len();
            packet.resize(len + MAX_OVERHEAD, 0);
            let len = sealer.seal_rtp(&mut packet, len).expect("room for the tag");
            packet.truncate(len);
        }
        for towards in &self.towards {
            // What is not sent does not arrive, and that is counted.
            let _ = self.socket.try_send_to(&packet, *towards);
        }
    }
}

#[derive(Default)]
struct Counts {
    heard: AtomicU64,
    /// First packets that were not what was said.
    wrong: AtomicU64,
}

/// Who receives. Dropping it ends all.
pub struct Listeners {
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

/// A socket for each listener of a case, and its port.
pub async fn bind(case: Case) -> Result<Vec<(UdpSocket, u16)>> {
    let mut sockets = Vec::new();
    for _ in 0..case.listeners {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = socket.local_addr()?.port();
        sockets.push((socket, port));
    }
    Ok(sockets)
}

impl Listeners {
    /// Nobody yet.
    pub fn new() -> Self {
        Self {
            counts: Arc::default(),
            tasks: Vec::new(),
        }
    }

    /// One more, with the key of what it is sent.
    pub fn add(&mut self, case: Case, socket: UdpSocket, key: Option<&[u8]>) -> Result<()> {
        let opener = match (case.profile(), key) {
            (Some(profile), Some(key)) => Some(Opener::new(profile, key)?),
            (None, None) => None,
            _ => return Err("a key where none is wanted, or none where one is".into()),
        };
        let task = listen(case, socket, opener, Arc::clone(&self.counts));
        self.tasks.push(tokio::spawn(task));
        Ok(())
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Counts RTP packets; the first one must be what was said. The others are only counted, since opening all of them
/// would take the time that the server is to have.
async fn listen(case: Case, socket: UdpSocket, mut opener: Option<Opener>, counts: Arc<Counts>) {
    let len = HEADER + case.payload + case.profile().map_or(0, |profile| profile.rtp_overhead());
    let mut buffer = [0u8; 2048];
    let mut first = true;
    while let Ok(got) = socket.recv(&mut buffer).await {
        if got != len {
            continue; // RTCP
        }
        counts.heard.fetch_add(1, Ordering::Relaxed);
        if std::mem::take(&mut first) && !is_said(case, &mut buffer[..got], opener.as_mut()) {
            counts.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn is_said(case: Case, packet: &mut [u8], opener: Option<&mut Opener>) -> bool {
    let len = match opener {
        None => packet.len(),
        Some(opener) => match opener.open_rtp(packet) {
            Ok(len) => len,
            Err(_) => return false,
        },
    };
    packet[HEADER..len].iter().copied().eq(payload(case))
}

/// A peer with all of it.
pub struct Fanout {
    process: Process,
    speaker: Speaker,
    listeners: Listeners,
}

impl Fanout {
    pub fn new(process: Process, speaker: Speaker, listeners: Listeners) -> Self {
        Self {
            process,
            speaker,
            listeners,
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Speaks for so long: packets the listeners should get, and packets they got.
    pub async fn speak(&mut self, case: Case, length: Duration) -> (u64, u64) {
        let heard = &self.listeners.counts.heard;
        let before = heard.load(Ordering::Relaxed);
        let mut tick = tokio::time::interval(case.pause());
        let start = Instant::now();
        let mut due = 0;
        while start.elapsed() < length {
            tick.tick().await;
            self.speaker.say(case);
            due += u64::from(case.listeners);
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // for what is under way
        (due, heard.load(Ordering::Relaxed) - before)
    }

    /// Why what it forwards counts for nothing.
    pub fn fault(&mut self) -> Option<String> {
        if let Some(ended) = self.process.ended() {
            return Some(ended);
        }
        let counts = &self.listeners.counts;
        if counts.heard.load(Ordering::Relaxed) == 0 {
            return Some(format!("nothing arrived; its log: {}", self.process.log()));
        }
        match counts.wrong.load(Ordering::Relaxed) {
            0 => None,
            wrong => Some(format!("{wrong} listeners were not sent what was said")),
        }
    }
}
