//! Everybody who is in the meetings, in one socket.
//!
//! A switch tells legs apart by their addresses, and a socket on 0.0.0.0 has all of 127.0.0.0/8: each participant has
//! an address, all have the port. What they are sent is told apart by SSRC, which is the switch's slot. The thread that
//! reads does not wait on the socket but looks every half millisecond, so that the switch pays for no wake-ups, and
//! reads many packets a system call; when a packet came, the kernel has noted (SO_TIMESTAMPNS).
//!
//! Delay is from just before the speaker's send call to the arrival at the listener's socket. Which packet it was tells
//! the sequence number: the switch keeps the distance between a speaker's numbers and a slot's, and the distance is
//! learned from one packet of each listener, opened, with the speaker's count at its end.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control::Leg;
use control::switch_client::SwitchClient;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmsg, setsockopt,
};
use switch_core::srtp::Opener;
use tokio::runtime::Runtime;

use crate::meeting::{self, PAYLOAD_TYPE, SLOTS, Speaker};
use crate::peer::IcePeer;
use crate::{Case, Ran, workers};

/// Packets a system call.
const TOGETHER: usize = 64;

/// Send times kept of a speaker.
const KEPT: usize = 4096;

/// A check and its answer are that long apart at most before consent would be lost.
const FRESH: Duration = Duration::from_secs(8);

/// All is there, or lost, when nothing more has come for so long …
const LINGER: Duration = Duration::from_millis(200);

/// … and at most so long after the last burst.
const PATIENCE: Duration = Duration::from_secs(10);

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64
}

/// What a listener hears.
#[derive(Clone, Copy, Default)]
struct Hearing {
    /// The switch's sequence numbers are so far from the speaker's.
    distance: Option<u16>,
    /// The packet before, and its delay.
    last: Option<(u16, u64)>,
}

/// What all heard.
#[derive(Default)]
struct Heard {
    listeners: Vec<Hearing>,
    received: u64,
    /// When the last came.
    last: u64,
    answers: usize,
    delays: Vec<u32>,
    jitters: Vec<u32>,
}

struct Shared {
    case: Case,
    /// Participants of a meeting.
    size: usize,
    socket: UdpSocket,
    heard: Mutex<Heard>,
    /// When each speaker's last packets were sent.
    sent: Vec<[AtomicU64; KEPT]>,
    stop: AtomicBool,
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("the listener lives")
    }

    /// Reads until told to stop.
    fn listen(&self) {
        let mut buffers = vec![[0u8; 1500]; TOGETHER];
        let control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let mut headers = MultiHeaders::<()>::preallocate(TOGETHER, Some(control));
        while !self.stop.load(Ordering::Relaxed) {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let read = recvmmsg(
                self.socket.as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            let Ok(messages) = read else {
                std::thread::sleep(Duration::from_micros(500));
                continue;
            };
            let mut heard = self.heard();
            for message in messages {
                let at = message.cmsgs().ok().and_then(|mut all| {
                    all.find_map(|one| match one {
                        ControlMessageOwned::ScmTimestampns(at) => {
                            Some(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64)
                        }
                        _ => None,
                    })
                });
                if let Some(bytes) = message.iovs().next() {
                    self.take(
                        &mut heard,
                        &bytes[..message.bytes],
                        at.unwrap_or_else(unix_ns),
                    );
                }
            }
        }
    }

    fn take(&self, heard: &mut Heard, bytes: &[u8], at: u64) {
        if bytes.starts_with(&[1, 1]) {
            heard.answers += 1; // to a check (RFC 8489 §5)
        }
        if bytes.len() <= self.case.payload || bytes[1] & 0x7f != PAYLOAD_TYPE {
            return;
        }
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
        let number = word(8).wrapping_sub(SLOTS) as usize;
        if number == 0 || number > heard.listeners.len() {
            return;
        }
        heard.received += 1;
        heard.last = at;
        let sequence = word(0) as u16;
        let hearing = &mut heard.listeners[number - 1];
        let distance = match hearing.distance {
            Some(distance) => distance,
            None => {
                let Some(count) = self.count(bytes) else {
                    return;
                };
                let distance = sequence.wrapping_sub(count as u16);
                *hearing.distance.insert(distance)
            }
        };
        let sequence = sequence.wrapping_sub(distance);
        let meeting = (number - 1) / self.size;
        let sent = self.sent[meeting][usize::from(sequence) % KEPT].load(Ordering::Relaxed);
        let delay = at.saturating_sub(sent);
        if delay > 2_000_000_000 {
            hearing.distance = None; // not what it was: the slot began anew
            return;
        }
        if let Some((before, its)) = hearing.last
            && sequence == before.wrapping_add(1)
        {
            heard.jitters.push(delay.abs_diff(its) as u32);
        }
        hearing.last = Some((sequence, delay));
        heard.delays.push(delay as u32);
    }

    /// The speaker's count of a packet as a listener got it.
    fn count(&self, bytes: &[u8]) -> Option<u64> {
        let mut packet = bytes.to_vec();
        if let Some((_, profile)) = self.case.suite {
            let key = meeting::key(profile, true);
            let len = Opener::new(profile, &key)
                .ok()?
                .open_rtp(&mut packet)
                .ok()?;
            packet.truncate(len);
        }
        Some(u64::from_be_bytes(*packet.last_chunk()?))
    }

    /// Sends from a participant's address.
    fn send(&self, number: usize, bytes: &[u8], segment: Option<u16>, towards: SocketAddr) {
        let from = in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr {
                s_addr: u32::from(address(number)).to_be(),
            },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let all = [
            ControlMessage::Ipv4PacketInfo(&from),
            ControlMessage::UdpGsoSegments(segment.as_ref().unwrap_or(&0)),
        ];
        let control = &all[..1 + usize::from(segment.is_some())];
        let to = SockaddrStorage::from(towards);
        let slices = [IoSlice::new(bytes)];
        let fd = self.socket.as_raw_fd();
        sendmsg(fd, &slices, control, MsgFlags::empty(), Some(&to)).expect("sent");
    }
}

/// A participant's, by number.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f01_0000 + number as u32)
}

/// What a time of speaking came to.
pub struct Round {
    /// Packets the listeners should get, and packets they got.
    pub due: u64,
    pub arrived: u64,
    /// Forwarded packets a second that were asked for by what was really sent.
    pub rate: f64,
    /// What all workers did, until the last packet.
    pub ran: Ran,
    /// From the last burst to the last packet, in ns: what had queued up.
    pub behind: u64,
    /// Datagrams that had no room at the listeners' socket, and at the switch's.
    pub dropped: (u64, u64),
    /// One-way delays, and differences between those of neighbours (RFC 3550 §6.4.1), in ns, sorted.
    pub delays: Vec<u32>,
    pub jitters: Vec<u32>,
}

/// Of sorted ns, in µs.
pub fn percentile(sorted: &[u32], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted
        .get(at)
        .map_or(f64::NAN, |ns| f64::from(*ns) / 1000.0)
}

/// Meetings of one who speaks and some who listen.
pub struct Crowd {
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
    checks: Vec<Vec<u8>>,
    checked: Instant,
    /// Where each leg sends.
    pub towards: Vec<SocketAddr>,
    speakers: Vec<Speaker>,
    next: usize,
}

impl Crowd {
    /// So many meetings, which `leg` makes the legs of, come to the switch with this control address.
    pub fn join(
        runtime: &Runtime,
        control: SocketAddr,
        case: Case,
        meetings: usize,
        leg: impl Fn(u32, SocketAddr) -> Leg,
    ) -> Self {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let size = case.listeners as usize + 1;
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        meeting::receive_buffer(&socket, 64 << 20);
        setsockopt(&socket, ReceiveTimestampns, &true).expect("a timestamp");
        let port = socket.local_addr().expect("bound").port();
        let mut towards = Vec::new();
        let first = 1 + (NAMES.load(Ordering::Relaxed) as u32) * 100_000;
        runtime.block_on(async {
            let url = format!("http://{control}");
            let mut client = SwitchClient::connect(url).await.expect("its control port");
            for place in 0..meetings {
                let legs = (place * size..(place + 1) * size)
                    .map(|number| {
                        let mut leg = leg(
                            number as u32 + 1,
                            SocketAddr::from((address(number + 1), port)),
                        );
                        // Names of users are a switch's, not a meeting's.
                        if let Some(ice) = &mut leg.transports[0].ice {
                            *ice = meeting::ice(first + number as u32);
                        }
                        leg
                    })
                    .collect();
                let name = format!("bench-{}", NAMES.fetch_add(1, Ordering::Relaxed));
                let response = client.apply(meeting::join(&name, legs)).await;
                for state in response.expect("legs").into_inner().legs {
                    assert_eq!(state.refused, "");
                    towards.push(meeting::address(&state));
                }
            }
        });
        let checks = (0..meetings * size)
            .filter(|_| case.suite.is_some())
            .map(|number| IcePeer::new(&meeting::ice(first + number as u32)).request(true))
            .collect();
        let shared = Arc::new(Shared {
            case,
            size,
            socket,
            heard: Mutex::new(Heard {
                listeners: vec![Hearing::default(); meetings * size],
                ..Heard::default()
            }),
            sent: (0..meetings)
                .map(|_| std::array::from_fn(|_| AtomicU64::new(0)))
                .collect(),
            stop: AtomicBool::new(false),
        });
        let ears = Arc::clone(&shared);
        let mut crowd = Self {
            shared,
            listener: Some(std::thread::spawn(move || ears.listen())),
            checks,
            checked: Instant::now(),
            towards,
            speakers: (0..meetings).map(|_| Speaker::new(case)).collect(),
            next: 0,
        };
        crowd.check();
        crowd
    }

    /// All legs show that they are there: the first time this makes their pairs known. Where not all are answered, all of
    /// that batch do it again.
    fn check(&mut self) {
        for (place, checks) in self.checks.chunks(200).enumerate() {
            let answered = (0..10).any(|_| {
                let before = self.shared.heard().answers;
                for (at, check) in checks.iter().enumerate() {
                    let number = place * 200 + at;
                    self.shared
                        .send(number + 1, check, None, self.towards[number]);
                }
                let patience = Instant::now() + Duration::from_secs(2);
                while self.shared.heard().answers < before + checks.len() {
                    if Instant::now() > patience {
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                true
            });
            assert!(answered, "checks are answered");
        }
        self.checked = Instant::now();
    }

    /// Sends from a leg, by its number from zero.
    pub fn send(&self, leg: usize, bytes: &[u8], segment: u16) {
        let towards = self.towards[leg];
        self.shared.send(leg + 1, bytes, Some(segment), towards);
    }

    /// The speakers take turns for so long, so that the listeners get so many packets a second.
    pub fn speak(&mut self, rate: f64, length: Duration) -> Round {
        if self.checked.elapsed() > FRESH {
            self.check();
        }
        let case = self.shared.case;
        let ports = self.ports();
        let dropped = ports.map(dropped);
        {
            let heard = &mut *self.shared.heard();
            (heard.received, heard.delays, heard.jitters) = (0, Vec::new(), Vec::new());
            heard.listeners.iter_mut().for_each(|one| one.last = None);
        }
        let ran = workers();
        let each = f64::from(case.listeners * case.burst);
        let start = Instant::now();
        let mut bursts = 0u32;
        while start.elapsed() < length {
            let speaker = &mut self.speakers[self.next];
            let first = speaker.packets;
            let (burst, segment) = speaker.burst();
            let due = start + Duration::from_secs_f64(f64::from(bursts) * each / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let now = unix_ns();
            for count in first..speaker.packets {
                self.shared.sent[self.next][count as usize % KEPT].store(now, Ordering::Relaxed);
            }
            self.send(self.next * self.shared.size, &burst, segment);
            self.next = (self.next + 1) % self.speakers.len();
            bursts += 1;
        }
        let took = start.elapsed();
        let end = unix_ns();
        let ran = self.settle() - ran;
        let now = ports.map(self::dropped);
        let mut heard = self.shared.heard();
        let mut delays = std::mem::take(&mut heard.delays);
        let mut jitters = std::mem::take(&mut heard.jitters);
        delays.sort_unstable();
        jitters.sort_unstable();
        Round {
            due: u64::from(bursts) * each as u64,
            arrived: heard.received,
            rate: f64::from(bursts) * each / took.as_secs_f64(),
            ran,
            behind: heard.last.saturating_sub(end),
            dropped: (now[0] - dropped[0], now[1] - dropped[1]),
            delays,
            jitters,
        }
    }

    /// Waits for what is under way; what the workers did until then.
    fn settle(&self) -> Ran {
        let end = Instant::now();
        let (mut seen, mut since, mut ran) = (u64::MAX, end, workers());
        while since.elapsed() < LINGER && end.elapsed() < PATIENCE {
            let received = self.shared.heard().received;
            if received != seen {
                (seen, since, ran) = (received, Instant::now(), workers());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        ran
    }

    /// Nanoseconds a second that the workers run while nobody speaks.
    pub fn idle(&self, length: Duration) -> f64 {
        let ran = workers();
        std::thread::sleep(length);
        (workers() - ran).ns as f64 / length.as_secs_f64()
    }

    /// Of the listeners' socket, and of the switch's.
    fn ports(&self) -> [u16; 2] {
        let local = self.shared.socket.local_addr().expect("bound");
        [local.port(), self.towards[0].port()]
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Datagrams for which the socket on a port had no room.
fn dropped(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp").expect("procfs");
    let port = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|local| local.ends_with(&port))
        })
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .sum()
}
