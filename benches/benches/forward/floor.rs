//! The floor: copy, seal and send, and nothing else.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use switch_core::srtp::Profile;

use crate::{Case, cpu_ns};

/// Receivers a system call.
const TOGETHER: usize = 64;

/// A fixed header with one CSRC, as the switch sends it.
const HEADER: usize = 16;

/// A receiver's session key.
enum Key {
    Plain,
    Cm(Box<(EncryptingKey, hmac::Key)>),
    Gcm(LessSafeKey),
}

impl Key {
    fn new(case: Case, number: u8) -> Self {
        match case.suite.map(|(_, profile)| profile) {
            None => Self::Plain,
            Some(Profile::AeadAes128Gcm) => {
                let key = UnboundKey::new(&AES_128_GCM, &[number; 16]).expect("a key");
                Self::Gcm(LessSafeKey::new(key))
            }
            Some(_) => {
                let key = UnboundCipherKey::new(&AES_128, &[number; 16]).expect("a key");
                let sha1 = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
                Self::Cm(Box::new((
                    EncryptingKey::ctr(key).expect("a key"),
                    hmac::Key::new(sha1, &[number; 20]),
                )))
            }
        }
    }

    /// Appends the sealed packet.
    fn seal(&self, count: u32, packet: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(packet);
        let (header, payload) = out[start..].split_at_mut(HEADER);
        match self {
            Self::Plain => {}
            Self::Gcm(key) => {
                let mut iv = [0; 12];
                iv[8..].copy_from_slice(&count.to_be_bytes());
                let nonce = Nonce::assume_unique_for_key(iv);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*header), payload)
                    .expect("sealed");
                out.extend_from_slice(tag.as_ref());
            }
            Self::Cm(keys) => {
                let (cipher, auth) = &**keys;
                let mut iv = [0; 16];
                iv[10..14].copy_from_slice(&count.to_be_bytes());
                cipher
                    .less_safe_encrypt(payload, EncryptionContext::Iv128(FixedLength::from(&iv)))
                    .expect("encrypted");
                let mut mac = hmac::Context::with_key(auth);
                mac.update(&out[start..]);
                mac.update(&[0; 4]);
                let tag = mac.sign();
                out.extend_from_slice(&tag.as_ref()[..10]);
            }
        }
    }
}

/// Sends bursts to all receivers for so long; nanoseconds it ran.
pub fn run(case: Case, remotes: &[SocketAddr], length: Duration) -> u64 {
    let remotes = remotes.to_vec();
    let thread = std::thread::Builder::new()
        .name("floor".into())
        .spawn(move || {
            let before = cpu_ns("floor");
            send(case, &remotes, length);
            cpu_ns("floor") - before
        });
    thread.expect("a thread").join().expect("the floor")
}

fn send(case: Case, remotes: &[SocketAddr], length: Duration) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let keys: Vec<Key> = (0..remotes.len())
        .map(|number| Key::new(case, number as u8))
        .collect();
    let addresses: Vec<Option<SockaddrStorage>> = remotes
        .iter()
        .map(|remote| Some((*remote).into()))
        .collect();
    let segmented = case.burst > 1;
    let control = segmented.then(|| nix::cmsg_space!(u16));
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(TOGETHER, control);
    let packet = vec![0x81; HEADER + case.payload];
    let burst = case.burst as usize;
    let most = packet.len() + 16;
    let mut bytes = Vec::with_capacity(TOGETHER * burst * most);
    let start = Instant::now();
    let mut count = 0;
    let mut due = start;
    while start.elapsed() < length {
        due += case.pause();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for (keys, addresses) in keys.chunks(TOGETHER).zip(addresses.chunks(TOGETHER)) {
            // Sent while it is still in the cache.
            bytes.clear();
            for key in keys {
                for number in 0..case.burst {
                    key.seal(count + number, &packet, &mut bytes);
                }
            }
            let each = bytes.len() / keys.len();
            let segment = [(each / burst) as u16];
            let segments = [ControlMessage::UdpGsoSegments(&segment[0])];
            let control = if segmented { &segments[..] } else { &[] };
            let slices: Vec<[IoSlice<'_>; 1]> =
                bytes.chunks(each).map(|one| [IoSlice::new(one)]).collect();
            sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &slices,
                addresses,
                control,
                MsgFlags::empty(),
            )
            .expect("sent");
        }
        count += case.burst;
    }
}
