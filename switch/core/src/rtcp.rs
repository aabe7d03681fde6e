//! RTCP compounds read and written in place (RFC 3550 §6, 4585, 5104, REMB).
//!
//! Reading never trusts a length: an element that says it is longer than what is left
//! ends the compound. Writing is bounded by [`MAX_COMPOUND`].

/// Largest compound written; fits any path with room for SRTCP.
pub const MAX_COMPOUND: usize = 1_200;

/// Most report blocks of an SR or RR.
pub const MAX_BLOCKS: usize = 31;

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const RTPFB: u8 = 205;
const PSFB: u8 = 206;

/// One reception report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// Stream reported on.
    pub ssrc: u32,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all, 24 bits signed.
    pub cumulative_lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Jitter in clock units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP timestamp of the last SR.
    pub last_sr: u32,
    /// Time since that SR in 1/65536 s.
    pub delay: u32,
}

impl ReportBlock {
    fn parse(b: &[u8]) -> Option<Self> {
        let lost = word(b, 4)? & 0x00ff_ffff;
        // Sign-extend 24 bits.
        let cumulative_lost = ((lost << 8) as i32) >> 8;
        Some(Self {
            ssrc: word(b, 0)?,
            fraction_lost: *b.get(4)?,
            cumulative_lost,
            highest: word(b, 8)?,
            jitter: word(b, 12)?,
            last_sr: word(b, 16)?,
            delay: word(b, 20)?,
        })
    }
}

/// One element of a compound.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Element<'a> {
    /// SR.
    SenderReport {
        /// Sender.
        ssrc: u32,
        /// NTP timestamp, 32.32.
        ntp: u64,
        /// RTP timestamp of the same instant.
        rtp: u32,
        /// Report blocks.
        blocks: Blocks<'a>,
    },
    /// RR.
    ReceiverReport {
        /// Sender of the report.
        ssrc: u32,
        /// Report blocks.
        blocks: Blocks<'a>,
    },
    /// BYE, with the raw list of SSRCs.
    Bye(Words<'a>),
    /// Generic NACK (RFC 4585 §6.2.1).
    Nack {
        /// Stream that misses packets.
        media: u32,
        /// PID and BLP pairs.
        pairs: Words<'a>,
    },
    /// PLI (RFC 4585 §6.3.1).
    Pli {
        /// Stream that needs a key frame.
        media: u32,
    },
    /// FIR (RFC 5104 §4.3.1).
    Fir {
        /// Entries: SSRC, then sequence number in the top octet.
        entries: Words<'a>,
    },
    /// REMB: bit/s.
    Remb {
        /// The estimate.
        bitrate: u64,
    },
    /// SDES, APP, XR, other feedback: nothing for us.
    Other,
}

fn word(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)
        .and_then(<[u8]>::first_chunk)
        .map(|c| u32::from_be_bytes(*c))
}

/// 32-bit words of an element.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a>(&'a [u8]);

impl Iterator for Words<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }
}

/// Report blocks of an element, as many as are really there.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
    left: u8,
}

impl Iterator for Blocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        self.left = self.left.checked_sub(1)?;
        let (head, rest) = self.rest.split_at_checked(24)?;
        self.rest = rest;
        ReportBlock::parse(head)
    }
}

/// The sequence numbers of one PID/BLP pair.
pub fn nack_numbers(pair: u32) -> impl Iterator<Item = u16> {
    let (pid, mask) = ((pair >> 16) as u16, pair as u16);
    std::iter::once(pid).chain(
        (0..16u16)
            .filter(move |i| mask & (1 << i) != 0)
            .map(move |i| pid.wrapping_add(i + 1)),
    )
}

/// The elements of a compound.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    malformed: bool,
}

impl<'a> Elements<'a> {
    /// Reads `compound` element by element.
    pub const fn new(compound: &'a [u8]) -> Self {
        Self {
            rest: compound,
            malformed: false,
        }
    }

    /// Something did not fit; what came before it was given.
    pub const fn malformed(&self) -> bool {
        self.malformed
    }

    fn element(head: u8, kind: u8, body: &'a [u8]) -> Option<Element<'a>> {
        let count = head & 0x1f;
        Some(match (kind, count) {
            (SR, _) => Element::SenderReport {
                ssrc: word(body, 0)?,
                ntp: (u64::from(word(body, 4)?) << 32) | u64::from(word(body, 8)?),
                rtp: word(body, 12)?,
                blocks: Blocks {
                    rest: body.get(24..)?,
                    left: count,
                },
            },
            (RR, _) => Element::ReceiverReport {
                ssrc: word(body, 0)?,
                blocks: Blocks {
                    rest: body.get(4..)?,
                    left: count,
                },
            },
            (BYE, _) => Element::Bye(Words(body.get(..4 * usize::from(count))?)),
            (RTPFB, 1) => Element::Nack {
                media: word(body, 4)?,
                pairs: Words(body.get(8..)?),
            },
            (PSFB, 1) => Element::Pli {
                media: word(body, 4)?,
            },
            (PSFB, 4) => Element::Fir {
                entries: Words(body.get(8..)?),
            },
            (PSFB, 15) if body.get(8..12) == Some(b"REMB") => {
                let rate = word(body, 12)?;
                let (exponent, mantissa) = ((rate >> 18) & 0x3f, u64::from(rate & 0x3_ffff));
                let shifted = mantissa.checked_shl(exponent).unwrap_or(u64::MAX);
                Element::Remb { bitrate: shifted }
            }
            _ => Element::Other,
        })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let element = self.rest.split_first_chunk::<4>().and_then(|(h, _)| {
            let len = 4 * (usize::from(u16::from_be_bytes([h[2], h[3]])) + 1);
            let (whole, rest) = self.rest.split_at_checked(len)?;
            if h[0] >> 6 != 2 {
                return None;
            }
            let mut body = &whole[4..];
            if h[0] & 0x20 != 0 {
                let padding = usize::from(*body.last()?);
                body = body.get(..body.len().checked_sub(padding)?)?;
            }
            self.rest = rest;
            Self::element(h[0], h[1], body)
        });
        if element.is_none() {
            self.malformed = true;
            self.rest = &[];
        }
        element
    }
}

/// A compound being written. Every writer says whether it still fitted.
#[derive(Clone, Debug)]
pub struct CompoundBuf {
    bytes: [u8; MAX_COMPOUND],
    len: usize,
}

impl Default for CompoundBuf {
    fn default() -> Self {
        Self {
            bytes: [0; MAX_COMPOUND],
            len: 0,
        }
    }
}

impl CompoundBuf {
    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts again.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// An element with room for `body` octets (a multiple of 4).
    fn element(&mut self, count: u8, kind: u8, body: usize) -> Option<&mut [u8]> {
        let start = self.len;
        let end = start + 4 + body;
        if end > MAX_COMPOUND || !body.is_multiple_of(4) {
            return None;
        }
        self.len = end;
        let words = (body / 4) as u16;
        self.bytes[start] = 0x80 | count;
        self.bytes[start + 1] = kind;
        self.bytes[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
        Some(&mut self.bytes[start + 4..end])
    }

    /// An SR with its report blocks (at most [`MAX_BLOCKS`] are taken).
    pub fn sender_report(
        &mut self,
        ssrc: u32,
        ntp: u64,
        rtp: u32,
        packets: u32,
        octets: u32,
        blocks: &[ReportBlock],
    ) -> bool {
        let blocks = &blocks[..blocks.len().min(MAX_BLOCKS)];
        let Some(b) = self.element(blocks.len() as u8, SR, 24 + 24 * blocks.len()) else {
            return false;
        };
        b[0..4].copy_from_slice(&ssrc.to_be_bytes());
        b[4..12].copy_from_slice(&ntp.to_be_bytes());
        b[12..16].copy_from_slice(&rtp.to_be_bytes());
        b[16..20].copy_from_slice(&packets.to_be_bytes());
        b[20..24].copy_from_slice(&octets.to_be_bytes());
        put_blocks(&mut b[24..], blocks);
        true
    }

    /// An RR with its report blocks (at most [`MAX_BLOCKS`] are taken).
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> bool {
        let blocks = &blocks[..blocks.len().min(MAX_BLOCKS)];
        let Some(b) = self.element(blocks.len() as u8, RR, 4 + 24 * blocks.len()) else {
            return false;
        };
        b[0..4].copy_from_slice(&ssrc.to_be_bytes());
        put_blocks(&mut b[4..], blocks);
        true
    }

    /// An SDES with the CNAME of one SSRC.
    pub fn cname(&mut self, ssrc: u32, cname: &str) -> bool {
        let cname = &cname.as_bytes()[..cname.len().min(255)];
        // SSRC, item, and at least one null octet to the next word.
        let body = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        let Some(b) = self.element(1, SDES, body) else {
            return false;
        };
        b.fill(0);
        b[0..4].copy_from_slice(&ssrc.to_be_bytes());
        b[4] = 1;
        b[5] = cname.len() as u8;
        b[6..6 + cname.len()].copy_from_slice(cname);
        true
    }

    /// A PLI.
    pub fn pli(&mut self, sender: u32, media: u32) -> bool {
        let Some(b) = self.element(1, PSFB, 8) else {
            return false;
        };
        b[0..4].copy_from_slice(&sender.to_be_bytes());
        b[4..8].copy_from_slice(&media.to_be_bytes());
        true
    }

    /// A FIR with the command's sequence number.
    pub fn fir(&mut self, sender: u32, media: u32, sequence: u8) -> bool {
        let Some(b) = self.element(4, PSFB, 16) else {
            return false;
        };
        b.fill(0);
        b[0..4].copy_from_slice(&sender.to_be_bytes());
        b[8..12].copy_from_slice(&media.to_be_bytes());
        b[12] = sequence;
        true
    }

    /// A generic NACK of numbers in their order.
    pub fn nack(&mut self, sender: u32, media: u32, numbers: &[u16]) -> bool {
        let mut pairs = [0u32; 64];
        let mut n = 0;
        for &number in numbers {
            if n > 0 {
                let pid = (pairs[n - 1] >> 16) as u16;
                let after = number.wrapping_sub(pid);
                if (1..=16).contains(&after) {
                    pairs[n - 1] |= 1 << (after - 1);
                    continue;
                }
            }
            if n == pairs.len() {
                break;
            }
            pairs[n] = u32::from(number) << 16;
            n += 1;
        }
        if n == 0 {
            return true;
        }
        let Some(b) = self.element(1, RTPFB, 8 + 4 * n) else {
            return false;
        };
        b[0..4].copy_from_slice(&sender.to_be_bytes());
        b[4..8].copy_from_slice(&media.to_be_bytes());
        for (chunk, pair) in b[8..].chunks_exact_mut(4).zip(&pairs[..n]) {
            chunk.copy_from_slice(&pair.to_be_bytes());
        }
        true
    }

    /// A REMB for one stream.
    pub fn remb(&mut self, sender: u32, media: u32, bitrate: u32) -> bool {
        let Some(b) = self.element(15, PSFB, 20) else {
            return false;
        };
        let mut exponent = 0;
        while bitrate >> exponent > 0x3_ffff {
            exponent += 1;
        }
        b[0..4].copy_from_slice(&sender.to_be_bytes());
        b[4..8].fill(0);
        b[8..12].copy_from_slice(b"REMB");
        b[12..16]
            .copy_from_slice(&((1 << 24) | (exponent << 18) | (bitrate >> exponent)).to_be_bytes());
        b[16..20].copy_from_slice(&media.to_be_bytes());
        true
    }
}

fn put_blocks(out: &mut [u8], blocks: &[ReportBlock]) {
    for (b, r) in out.chunks_exact_mut(24).zip(blocks) {
        b[0..4].copy_from_slice(&r.ssrc.to_be_bytes());
        let lost = (r.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32) & 0x00ff_ffff;
        b[4..8].copy_from_slice(&((u32::from(r.fraction_lost) << 24) | lost).to_be_bytes());
        b[8..12].copy_from_slice(&r.highest.to_be_bytes());
        b[12..16].copy_from_slice(&r.jitter.to_be_bytes());
        b[16..20].copy_from_slice(&r.last_sr.to_be_bytes());
        b[20..24].copy_from_slice(&r.delay.to_be_bytes());
    }
}

/// An NTP timestamp (32.32, since 1900) of a time since the Unix epoch.
pub fn ntp(unix: std::time::Duration) -> u64 {
    const UNIX_TO_NTP: u64 = 2_208_988_800;
    let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
    (unix.as_secs().wrapping_add(UNIX_TO_NTP) << 32) | fraction
}

/// The round-trip time a report block shows (RFC 3550 §6.4.1), where it is plausible.
pub fn round_trip(now_ntp: u64, block: &ReportBlock) -> Option<std::time::Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let now = (now_ntp >> 16) as u32;
    let rtt = now.wrapping_sub(block.last_sr).wrapping_sub(block.delay);
    // More than half a minute is a liar's or a wrapped value.
    (rtt < 30 << 16).then(|| std::time::Duration::from_micros((u64::from(rtt) * 1_000_000) >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::time::Duration;

    fn block() -> ReportBlock {
        ReportBlock {
            ssrc: 9,
            fraction_lost: 64,
            cumulative_lost: -3,
            highest: 0x1_0005,
            jitter: 77,
            last_sr: 5,
            delay: 6,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut c = CompoundBuf::default();
        assert!(c.sender_report(1, 0x1122_3344_5566_7788, 99, 10, 1000, &[block()]));
        assert!(c.cname(1, "focus@example"));
        assert!(c.pli(1, 2) && c.fir(1, 3, 4) && c.nack(1, 2, &[5, 6, 21, 22, 65_535]));
        assert!(c.remb(1, 2, 2_500_000));
        let got: Vec<_> = Elements::new(c.bytes()).collect();
        assert_eq!(got.len(), 6);
        let Element::SenderReport {
            ssrc: 1,
            ntp: 0x1122_3344_5566_7788,
            rtp: 99,
            blocks,
        } = got[0]
        else {
            panic!("{:?}", got[0])
        };
        assert_eq!(blocks.collect::<Vec<_>>(), [block()]);
        assert!(matches!(got[2], Element::Pli { media: 2 }));
        let Element::Fir { entries } = got[3] else {
            panic!()
        };
        assert_eq!(entries.collect::<Vec<_>>(), [3, 4 << 24]);
        let Element::Nack { media: 2, pairs } = got[4] else {
            panic!()
        };
        let numbers: Vec<u16> = pairs.flat_map(nack_numbers).collect();
        assert_eq!(numbers, [5, 6, 21, 22, 65_535]);
        let Element::Remb { bitrate } = got[5] else {
            panic!()
        };
        assert!((2_499_000..=2_500_000).contains(&bitrate));
    }

    #[test]
    fn the_field_s_own_parser_reads_what_is_written() {
        let mut c = CompoundBuf::default();
        c.sender_report(1, 2, 99, 10, 1000, &[block()]);
        c.cname(1, "a");
        c.pli(1, 2);
        c.fir(1, 3, 4);
        c.nack(1, 2, &[5, 6]);
        c.remb(1, 2, 900_000);
        c.receiver_report(1, &[block()]);
        let packets = rtcp::packet::unmarshal(&mut Bytes::copy_from_slice(c.bytes())).unwrap();
        assert_eq!(packets.len(), 7);
        let again = rtcp::packet::marshal(&packets).unwrap();
        assert_eq!(again.as_ref(), c.bytes());
    }

    #[test]
    fn lengths_that_lie_end_the_compound() {
        let mut c = CompoundBuf::default();
        c.pli(1, 2);
        let mut bytes = c.bytes().to_vec();
        bytes.extend_from_slice(&[0x81, 200, 0xff, 0xff, 1, 2, 3, 4]);
        let mut e = Elements::new(&bytes);
        assert!(matches!(e.next(), Some(Element::Pli { .. })));
        assert!(e.next().is_none());
        assert!(e.malformed());
    }

    #[test]
    fn more_blocks_announced_than_there_are_gives_those_there_are() {
        let mut c = CompoundBuf::default();
        c.receiver_report(1, &[block()]);
        let mut bytes = c.bytes().to_vec();
        bytes[0] |= 0x1f;
        let Some(Element::ReceiverReport { blocks, .. }) = Elements::new(&bytes).next() else {
            panic!()
        };
        assert_eq!(blocks.count(), 1);
    }

    #[test]
    fn the_round_trip_comes_from_the_echoed_report_and_liars_are_ignored() {
        let sent = ntp(Duration::from_secs(1_700_000_000));
        let now = ntp(Duration::from_millis(1_700_000_000_250));
        let mut b = block();
        b.last_sr = (sent >> 16) as u32;
        b.delay = 65_536 / 10;
        let rtt = round_trip(now, &b).unwrap().as_millis();
        assert!((149..=151).contains(&rtt), "{rtt}");
        b.delay = 65_536;
        assert_eq!(round_trip(now, &b), None);
        b.last_sr = 0;
        assert_eq!(round_trip(now, &b), None);
    }

    proptest! {
        #[test]
        fn no_compound_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for e in Elements::new(&bytes) {
                match e {
                    Element::SenderReport { blocks, .. } | Element::ReceiverReport { blocks, .. } => {
                        let _ = blocks.count();
                    }
                    Element::Nack { pairs, .. } => { let _ = pairs.flat_map(nack_numbers).count(); }
                    Element::Fir { entries } => { let _ = entries.count(); }
                    _ => {}
                }
            }
        }
    }
}
