//! SRTP and SRTCP contexts (RFC 3711, RFC 7714) that work in place and never allocate per packet.
//!
//! A [`Sealer`] protects what the switch sends on one transport, an [`Opener`] checks and opens
//! what it receives. Both keep a little state per SSRC; the opener makes it only *after* a packet
//! has been authenticated, so a stranger cannot fill it.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use smallvec::SmallVec;

/// Most bytes protection adds to a packet: a 16-byte tag and the SRTCP index word.
pub const MAX_OVERHEAD: usize = 20;

/// SSRCs an [`Opener`] remembers at once; beyond it the least recently heard is forgotten.
/// Raising it costs about 90 bytes each.
pub const MAX_RECEIVE_SSRCS: usize = 64;

/// SSRCs a [`Sealer`] sends with over its life. Never evicted: forgetting one would repeat its
/// indices under the same key.
pub const MAX_SEND_SSRCS: usize = 1024;

/// Packets behind the newest that are still told apart from replays. A NACKed video packet comes
/// back some hundred packets late.
pub const REPLAY_WINDOW: u64 = 512;

/// Highest packet index (RFC 3711 §3.3.1): 32 bits of roll-over counter, 16 of sequence number.
const MAX_INDEX: u64 = (1 << 48) - 1;

/// Highest SRTCP index (RFC 3711 §3.4): 31 bits.
const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;

/// Roll-over counters tried with one packet of a stream not heard yet.
const ROCS_AT_ONCE: u32 = 4;

/// Highest roll-over counter tried: 16 days of audio, 50 packets a second.
const MOST_ROCS: u32 = 1024;

/// A protection profile: cipher, authentication and tag length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AES_CM_128_HMAC_SHA1_80 (RFC 3711).
    Aes128CmSha1_80,
    /// AES_CM_128_HMAC_SHA1_32: 32-bit tag on RTP, 80-bit on RTCP (RFC 4568 §6.2).
    Aes128CmSha1_32,
    /// AEAD_AES_128_GCM (RFC 7714).
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM (RFC 7714).
    AeadAes256Gcm,
}

impl Profile {
    /// Master key length in bytes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            _ => 16,
        }
    }

    /// Master salt length in bytes.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Bytes added to an RTP packet.
    #[must_use]
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 10,
            Self::Aes128CmSha1_32 => 4,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }

    /// Bytes added to an RTCP packet: tag and index word.
    #[must_use]
    pub const fn rtcp_overhead(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 20,
        }
    }

    /// Its registered name (RFC 4568, RFC 7714 §14.1).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128CmSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Aes128CmSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }
}

/// Why a packet was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SrtpError {
    /// Key material of the wrong length for the profile.
    #[error("SRTP key material has the wrong length")]
    BadKey,
    /// Not an RTP or RTCP packet, or cut short.
    #[error("not a whole RTP or RTCP packet")]
    BadPacket,
    /// The buffer has no room for the tag.
    #[error("no room for the SRTP tag")]
    NoRoom,
    /// The tag does not match, or RTCP came unencrypted.
    #[error("SRTP authentication failed")]
    NotAuthentic,
    /// Seen before, or older than the window.
    #[error("SRTP packet replayed or too old")]
    Replayed,
    /// The key has protected all packets it may; a new one must be negotiated.
    #[error("SRTP key exhausted")]
    Exhausted,
    /// More than [`MAX_SEND_SSRCS`] sent with one key.
    #[error("too many SSRCs under one SRTP key")]
    TooManySsrcs,
}

/// Session keys of one direction.
enum Cipher {
    Cm(Box<CounterMode>),
    Gcm(Box<Gcm>),
}

struct CounterMode {
    rtp: EncryptingKey,
    rtp_salt: [u8; 14],
    rtp_auth: hmac::Key,
    rtp_tag: usize,
    rtcp: EncryptingKey,
    rtcp_salt: [u8; 14],
    rtcp_auth: hmac::Key,
}

struct Gcm {
    rtp: LessSafeKey,
    rtp_salt: [u8; 12],
    rtcp: LessSafeKey,
    rtcp_salt: [u8; 12],
}

/// The key derivation of RFC 3711 §4.3 with a derivation rate of 0: AES in counter mode over the
/// master salt with the label in its eighth byte.
fn derive(
    profile: Profile,
    master_key: &[u8],
    master_salt: &[u8],
    label: u8,
    out: &mut [u8],
) -> Result<(), SrtpError> {
    let mut iv = [0u8; 16];
    // RFC 7714 §11: the 96-bit salt is taken as the upper bits of a 112-bit one.
    iv[..master_salt.len()].copy_from_slice(master_salt);
    iv[7] ^= label;
    out.fill(0);
    counter_key(profile, master_key)?
        .less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(&iv)))
        .map_err(|_| SrtpError::BadKey)?;
    Ok(())
}

fn counter_key(profile: Profile, key: &[u8]) -> Result<EncryptingKey, SrtpError> {
    let algorithm = if profile.key_len() == 32 {
        &AES_256
    } else {
        &AES_128
    };
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::ctr)
        .map_err(|_| SrtpError::BadKey)
}

fn gcm_key(profile: Profile, key: &[u8]) -> Result<LessSafeKey, SrtpError> {
    let algorithm = if profile.key_len() == 32 {
        &aead::AES_256_GCM
    } else {
        &aead::AES_128_GCM
    };
    UnboundKey::new(algorithm, key)
        .map(LessSafeKey::new)
        .map_err(|_| SrtpError::BadKey)
}

impl Cipher {
    fn new(profile: Profile, key_and_salt: &[u8]) -> Result<Self, SrtpError> {
        if key_and_salt.len() != profile.key_len() + profile.salt_len() {
            return Err(SrtpError::BadKey);
        }
        let (key, salt) = key_and_salt.split_at(profile.key_len());
        let mut rtp_key = [0u8; 32];
        let rtp_key = &mut rtp_key[..profile.key_len()];
        let mut rtcp_key = [0u8; 32];
        let rtcp_key = &mut rtcp_key[..profile.key_len()];
        derive(profile, key, salt, 0, rtp_key)?;
        derive(profile, key, salt, 3, rtcp_key)?;
        match profile {
            Profile::Aes128CmSha1_80 | Profile::Aes128CmSha1_32 => {
                let (mut rtp_auth, mut rtcp_auth) = ([0u8; 20], [0u8; 20]);
                let (mut rtp_salt, mut rtcp_salt) = ([0u8; 14], [0u8; 14]);
                derive(profile, key, salt, 1, &mut rtp_auth)?;
                derive(profile, key, salt, 2, &mut rtp_salt)?;
                derive(profile, key, salt, 4, &mut rtcp_auth)?;
                derive(profile, key, salt, 5, &mut rtcp_salt)?;
                let sha1 = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
                Ok(Self::Cm(Box::new(CounterMode {
                    rtp: counter_key(profile, rtp_key)?,
                    rtp_salt,
                    rtp_auth: hmac::Key::new(sha1, &rtp_auth),
                    rtp_tag: profile.rtp_overhead(),
                    rtcp: counter_key(profile, rtcp_key)?,
                    rtcp_salt,
                    rtcp_auth: hmac::Key::new(sha1, &rtcp_auth),
                })))
            }
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                let (mut rtp_salt, mut rtcp_salt) = ([0u8; 12], [0u8; 12]);
                derive(profile, key, salt, 2, &mut rtp_salt)?;
                derive(profile, key, salt, 5, &mut rtcp_salt)?;
                Ok(Self::Gcm(Box::new(Gcm {
                    rtp: gcm_key(profile, rtp_key)?,
                    rtp_salt,
                    rtcp: gcm_key(profile, rtcp_key)?,
                    rtcp_salt,
                })))
            }
        }
    }
}

/// The counter-mode IV of RFC 3711 §4.1.1.
fn counter_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = [0u8; 16];
    iv[4..8].copy_from_slice(&ssrc.to_be_bytes());
    iv[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
    for (a, b) in iv.iter_mut().zip(salt) {
        *a ^= b;
    }
    iv
}

/// The RTP nonce of RFC 7714 §8.1.
fn rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut iv = [0u8; 12];
    iv[2..6].copy_from_slice(&ssrc.to_be_bytes());
    iv[6..12].copy_from_slice(&index.to_be_bytes()[2..]);
    for (a, b) in iv.iter_mut().zip(salt) {
        *a ^= b;
    }
    Nonce::assume_unique_for_key(iv)
}

/// The RTCP nonce of RFC 7714 §9.1.
fn rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> Nonce {
    let mut iv = [0u8; 12];
    iv[2..6].copy_from_slice(&ssrc.to_be_bytes());
    iv[8..12].copy_from_slice(&index.to_be_bytes());
    for (a, b) in iv.iter_mut().zip(salt) {
        *a ^= b;
    }
    Nonce::assume_unique_for_key(iv)
}

fn xor_stream(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), SrtpError> {
    if data.is_empty() {
        return Ok(());
    }
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(&iv)))
        .map(|_| ())
        .map_err(|_| SrtpError::BadPacket)
}

fn mac(key: &hmac::Key, data: &[u8], more: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(data);
    context.update(more);
    context.sign()
}

/// Length of the RTP header with CSRCs and extension, SSRC and sequence number.
fn rtp_header(packet: &[u8]) -> Result<(usize, u32, u16), SrtpError> {
    if packet.len() < 12 || packet[0] >> 6 != 2 {
        return Err(SrtpError::BadPacket);
    }
    let mut header = 12 + 4 * usize::from(packet[0] & 0x0f);
    if packet[0] & 0x10 != 0 {
        let Some(extension) = packet.get(header..header + 4) else {
            return Err(SrtpError::BadPacket);
        };
        header += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
    }
    if packet.len() < header {
        return Err(SrtpError::BadPacket);
    }
    let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
    Ok((header, ssrc, u16::from_be_bytes([packet[2], packet[3]])))
}

fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    if packet.len() < 8 || packet[0] >> 6 != 2 {
        return Err(SrtpError::BadPacket);
    }
    Ok(u32::from_be_bytes([
        packet[4], packet[5], packet[6], packet[7],
    ]))
}

/// The index nearest to the highest seen (RFC 3711 §3.3.1); `None` where it would lie before the
/// first packet or after the last a key may protect.
fn estimate(highest: u64, sequence: u16) -> Option<u64> {
    let distance = i64::from(sequence.wrapping_sub(highest as u16) as i16);
    highest
        .checked_add_signed(distance)
        .filter(|index| *index <= MAX_INDEX)
}

/// Which of the last [`REPLAY_WINDOW`] indices were seen.
#[derive(Clone, Debug)]
struct Replay {
    highest: u64,
    seen: [u64; (REPLAY_WINDOW / 64) as usize],
}

impl Replay {
    fn new(first: u64) -> Self {
        let mut replay = Self {
            highest: first,
            seen: [0; (REPLAY_WINDOW / 64) as usize],
        };
        replay.mark(first);
        replay
    }

    fn bit(index: u64) -> (usize, u64) {
        let bit = index % REPLAY_WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn mark(&mut self, index: u64) {
        let (word, bit) = Self::bit(index);
        self.seen[word] |= bit;
    }

    fn is_fresh(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        let (word, bit) = Self::bit(index);
        self.highest - index < REPLAY_WINDOW && self.seen[word] & bit == 0
    }

    fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= REPLAY_WINDOW {
                self.seen.fill(0);
            } else {
                for passed in self.highest + 1..=index {
                    let (word, bit) = Self::bit(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }
}

/// What an opener knows of one SSRC.
struct Heard {
    ssrc: u32,
    used: u64,
    rtp: Option<Replay>,
    rtcp: Option<Replay>,
}

/// Opens what a peer protected.
pub struct Opener {
    cipher: Cipher,
    profile: Profile,
    heard: SmallVec<[Heard; 2]>,
    clock: u64,
    /// Where the search for a stream's roll-over counter goes on.
    next_roc: u32,
}

impl Opener {
    /// From master key and master salt, concatenated.
    ///
    /// # Errors
    /// [`SrtpError::BadKey`] if the length does not fit the profile.
    pub fn new(profile: Profile, key_and_salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self {
            cipher: Cipher::new(profile, key_and_salt)?,
            profile,
            heard: SmallVec::new(),
            next_roc: 1,
            clock: 0,
        })
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    fn find(&self, ssrc: u32) -> Option<usize> {
        self.heard.iter().position(|heard| heard.ssrc == ssrc)
    }

    /// The entry of an authenticated SSRC; the least recently used one makes room.
    fn entry(&mut self, ssrc: u32) -> &mut Heard {
        self.clock += 1;
        let at = match self.find(ssrc) {
            Some(at) => at,
            None => {
                if self.heard.len() >= MAX_RECEIVE_SSRCS {
                    let oldest = (0..self.heard.len())
                        .min_by_key(|at| self.heard[*at].used)
                        .unwrap_or(0);
                    self.heard.swap_remove(oldest);
                }
                self.heard.push(Heard {
                    ssrc,
                    used: 0,
                    rtp: None,
                    rtcp: None,
                });
                self.heard.len() - 1
            }
        };
        let heard = &mut self.heard[at];
        heard.used = self.clock;
        heard
    }

    /// Checks and decrypts an RTP packet in place; its new length.
    ///
    /// # Errors
    /// [`SrtpError::BadPacket`], [`SrtpError::NotAuthentic`], [`SrtpError::Replayed`]. After an
    /// error the bytes are undefined.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let (header, ssrc, sequence) = rtp_header(packet)?;
        let tag = self.profile.rtp_overhead();
        let end = packet
            .len()
            .checked_sub(tag)
            .filter(|end| *end >= header)
            .ok_or(SrtpError::BadPacket)?;
        let known = self.find(ssrc).and_then(|at| self.heard[at].rtp.as_ref());
        let index = match known {
            Some(replay) => {
                let index = estimate(replay.highest, sequence).ok_or(SrtpError::Replayed)?;
                if !replay.is_fresh(index) {
                    return Err(SrtpError::Replayed);
                }
                index
            }
            None => self.first_index(ssrc, sequence, packet, header),
        };
        match &self.cipher {
            Cipher::Cm(cm) => {
                let roc = ((index >> 16) as u32).to_be_bytes();
                let expected = mac(&cm.rtp_auth, &packet[..end], &roc);
                verify_slices_are_equal(&expected.as_ref()[..tag], &packet[end..])
                    .map_err(|_| SrtpError::NotAuthentic)?;
                let iv = counter_iv(&cm.rtp_salt, ssrc, index);
                xor_stream(&cm.rtp, iv, &mut packet[header..end])?;
            }
            Cipher::Gcm(gcm) => {
                let (aad, body) = packet.split_at_mut(header);
                let nonce = rtp_nonce(&gcm.rtp_salt, ssrc, index);
                gcm.rtp
                    .open_in_place(nonce, Aad::from(&*aad), body)
                    .map_err(|_| SrtpError::NotAuthentic)?;
            }
        }
        let heard = self.entry(ssrc);
        match &mut heard.rtp {
            Some(replay) => replay.accept(index),
            none => *none = Some(Replay::new(index)),
        }
        Ok(end)
    }

    /// The index of the first packet heard of a stream. A sender that was under way before us, as when a
    /// switch starts anew under a call with SDES, may have rolled over, and nobody tells how often
    /// (RFC 4568 §6.4 leaves it to the sender to begin at zero): counters are tried, a few each time.
    fn first_index(&mut self, ssrc: u32, sequence: u16, packet: &[u8], header: usize) -> u64 {
        let index = |roc: u32| u64::from(roc) << 16 | u64::from(sequence);
        let fits = |roc: u32| match &self.cipher {
            Cipher::Cm(cm) => {
                let (packet, tag) = packet.split_at(packet.len() - cm.rtp_tag);
                let expected = mac(&cm.rtp_auth, packet, &roc.to_be_bytes());
                verify_slices_are_equal(&expected.as_ref()[..tag.len()], tag).is_ok()
            }
            Cipher::Gcm(gcm) => {
                let (aad, body) = packet.split_at(header);
                let nonce = rtp_nonce(&gcm.rtp_salt, ssrc, index(roc));
                let mut copy = body.to_vec();
                gcm.rtp
                    .open_in_place(nonce, Aad::from(aad), &mut copy)
                    .is_ok()
            }
        };
        let mut roc = 0;
        if !fits(0) {
            let tried = self.next_roc..self.next_roc + ROCS_AT_ONCE;
            roc = tried.clone().find(|roc| fits(*roc)).unwrap_or(0);
            self.next_roc = if tried.end > MOST_ROCS { 1 } else { tried.end };
        }
        index(roc)
    }

    /// Checks and decrypts a compound RTCP packet in place; its new length.
    ///
    /// # Errors
    /// As [`Opener::open_rtp`]. Unencrypted SRTCP is refused: nothing negotiates it.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        let end = packet
            .len()
            .checked_sub(self.profile.rtcp_overhead())
            .filter(|end| *end >= 8)
            .ok_or(SrtpError::BadPacket)?;
        // RFC 3711 §3.4: index, then tag. RFC 7714 §9: tag, then index.
        let word_at = match self.cipher {
            Cipher::Cm(_) => end,
            Cipher::Gcm(_) => packet.len() - 4,
        };
        let mut word = [0u8; 4];
        word.copy_from_slice(&packet[word_at..word_at + 4]);
        if word[0] & 0x80 == 0 {
            return Err(SrtpError::NotAuthentic);
        }
        let index = u32::from_be_bytes(word) & MAX_RTCP_INDEX;
        let known = self.find(ssrc).and_then(|at| self.heard[at].rtcp.as_ref());
        if known.is_some_and(|replay| !replay.is_fresh(u64::from(index))) {
            return Err(SrtpError::Replayed);
        }
        match &self.cipher {
            Cipher::Cm(cm) => {
                let expected = mac(&cm.rtcp_auth, &packet[..end + 4], &[]);
                verify_slices_are_equal(&expected.as_ref()[..10], &packet[end + 4..])
                    .map_err(|_| SrtpError::NotAuthentic)?;
                let iv = counter_iv(&cm.rtcp_salt, ssrc, u64::from(index));
                xor_stream(&cm.rtcp, iv, &mut packet[8..end])?;
            }
            Cipher::Gcm(gcm) => {
                let mut aad = [0u8; 12];
                aad[..8].copy_from_slice(&packet[..8]);
                aad[8..].copy_from_slice(&word);
                let nonce = rtcp_nonce(&gcm.rtcp_salt, ssrc, index);
                gcm.rtcp
                    .open_in_place(nonce, Aad::from(aad), &mut packet[8..word_at])
                    .map_err(|_| SrtpError::NotAuthentic)?;
            }
        }
        let heard = self.entry(ssrc);
        match &mut heard.rtcp {
            Some(replay) => replay.accept(u64::from(index)),
            none => *none = Some(Replay::new(u64::from(index))),
        }
        Ok(end)
    }
}

/// Protects what the switch sends.
pub struct Sealer {
    cipher: Cipher,
    profile: Profile,
    /// SSRC and the highest index sent with it.
    sent: SmallVec<[(u32, u64); 8]>,
    rtcp_index: u32,
}

impl Sealer {
    /// From master key and master salt, concatenated.
    ///
    /// # Errors
    /// [`SrtpError::BadKey`] if the length does not fit the profile.
    pub fn new(profile: Profile, key_and_salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self {
            cipher: Cipher::new(profile, key_and_salt)?,
            profile,
            sent: SmallVec::new(),
            rtcp_index: 0,
        })
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    fn index(&mut self, ssrc: u32, sequence: u16) -> Result<u64, SrtpError> {
        if let Some((_, highest)) = self.sent.iter_mut().find(|(known, _)| *known == ssrc) {
            let index = estimate(*highest, sequence).ok_or(SrtpError::Exhausted)?;
            *highest = index.max(*highest);
            return Ok(index);
        }
        if self.sent.len() >= MAX_SEND_SSRCS {
            return Err(SrtpError::TooManySsrcs);
        }
        self.sent.push((ssrc, u64::from(sequence)));
        Ok(u64::from(sequence))
    }

    /// Protects the RTP packet in `buffer[..len]` in place; its new length.
    ///
    /// The same sequence number may be sealed again only with the very same bytes (a
    /// retransmission): two plaintexts under one index break the cipher.
    ///
    /// # Errors
    /// [`SrtpError::BadPacket`], [`SrtpError::NoRoom`], [`SrtpError::Exhausted`],
    /// [`SrtpError::TooManySsrcs`].
    pub fn seal_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let (header, ssrc, sequence) = rtp_header(buffer.get(..len).ok_or(SrtpError::BadPacket)?)?;
        let sealed = len + self.profile.rtp_overhead();
        if buffer.len() < sealed {
            return Err(SrtpError::NoRoom);
        }
        let index = self.index(ssrc, sequence)?;
        match &self.cipher {
            Cipher::Cm(cm) => {
                let iv = counter_iv(&cm.rtp_salt, ssrc, index);
                xor_stream(&cm.rtp, iv, &mut buffer[header..len])?;
                let roc = ((index >> 16) as u32).to_be_bytes();
                let tag = mac(&cm.rtp_auth, &buffer[..len], &roc);
                buffer[len..sealed].copy_from_slice(&tag.as_ref()[..cm.rtp_tag]);
            }
            Cipher::Gcm(gcm) => {
                let (aad, body) = buffer[..len].split_at_mut(header);
                let nonce = rtp_nonce(&gcm.rtp_salt, ssrc, index);
                let tag = gcm
                    .rtp
                    .seal_in_place_separate_tag(nonce, Aad::from(&*aad), body)
                    .map_err(|_| SrtpError::BadPacket)?;
                buffer[len..sealed].copy_from_slice(tag.as_ref());
            }
        }
        Ok(sealed)
    }

    /// Protects the compound RTCP packet in `buffer[..len]` in place; its new length.
    ///
    /// # Errors
    /// [`SrtpError::BadPacket`], [`SrtpError::NoRoom`], [`SrtpError::Exhausted`].
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let ssrc = rtcp_ssrc(buffer.get(..len).ok_or(SrtpError::BadPacket)?)?;
        let sealed = len + self.profile.rtcp_overhead();
        if buffer.len() < sealed {
            return Err(SrtpError::NoRoom);
        }
        if self.rtcp_index >= MAX_RTCP_INDEX {
            return Err(SrtpError::Exhausted);
        }
        // One counter for all SSRCs: indices only have to grow per SSRC.
        self.rtcp_index += 1;
        let index = self.rtcp_index;
        let word = (index | 0x8000_0000).to_be_bytes();
        match &self.cipher {
            Cipher::Cm(cm) => {
                let iv = counter_iv(&cm.rtcp_salt, ssrc, u64::from(index));
                xor_stream(&cm.rtcp, iv, &mut buffer[8..len])?;
                buffer[len..len + 4].copy_from_slice(&word);
                let tag = mac(&cm.rtcp_auth, &buffer[..len + 4], &[]);
                buffer[len + 4..sealed].copy_from_slice(&tag.as_ref()[..10]);
            }
            Cipher::Gcm(gcm) => {
                let mut aad = [0u8; 12];
                aad[..8].copy_from_slice(&buffer[..8]);
                aad[8..].copy_from_slice(&word);
                let nonce = rtcp_nonce(&gcm.rtcp_salt, ssrc, index);
                let tag = gcm
                    .rtcp
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut buffer[8..len])
                    .map_err(|_| SrtpError::BadPacket)?;
                buffer[len..len + 16].copy_from_slice(tag.as_ref());
                buffer[len + 16..sealed].copy_from_slice(&word);
            }
        }
        Ok(sealed)
    }
}
