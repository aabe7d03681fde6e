//! Learning where a peer behind NAT is, when its signalled address is not where it sends from.
//!
//! With keys, the first authentic packet says it. Without, anyone can send to our port, so that a
//! stranger could take the media (RFC 7362 §4, "RTP bleed"): there only RTP counts that looks like
//! what was signalled, twice in sequence from one address (RFC 3550 §A.1), and RTCP follows RTP.

use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::rtp::RtpView;

/// Addresses on probation at once; the one that came first makes room.
const MOST_CANDIDATES: usize = 8;

/// What RTP of a peer may look like, from its description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// A bit a payload type; 0: nothing was described, any will do.
    payload_types: u128,
    /// Signalled SSRCs; empty where an m-line signals none, and any will do.
    ssrcs: Vec<u32>,
}

impl Expected {
    /// What these m-lines describe.
    pub(super) fn new<'a>(media: impl Iterator<Item = &'a control::Media>) -> Self {
        let mut expected = Self::default();
        let mut any_ssrc = false;
        for media in media {
            for codec in &media.codecs {
                // 0 is PCMU, but for RTX it stands for none.
                let rtx = Some(codec.rtx_payload_type).filter(|number| *number != 0);
                for payload_type in rtx.into_iter().chain([codec.payload_type]) {
                    expected.payload_types |= 1u128.checked_shl(payload_type).unwrap_or(0);
                }
            }
            any_ssrc |= media.remote_ssrcs.is_empty();
            let signalled = media.remote_ssrcs.iter().chain(&media.remote_rtx_ssrcs);
            expected.ssrcs.extend(signalled.take(64));
        }
        if any_ssrc {
            expected.ssrcs.clear();
        }
        expected
    }

    fn admits(&self, packet: &RtpView<'_>) -> bool {
        let named = self.payload_types == 0 || self.payload_types >> packet.payload_type() & 1 == 1;
        named && (self.ssrcs.is_empty() || self.ssrcs.contains(&packet.ssrc()))
    }
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    remote: SocketAddr,
    ssrc: u32,
    sequence: u16,
}

/// Addresses that have sent one packet that could be the peer's.
#[derive(Debug, Default)]
pub(super) struct Probation {
    candidates: SmallVec<[Candidate; 1]>,
}

impl Probation {
    /// Whether this packet shows that the peer is at `remote`; `known` where that is signalled.
    pub(super) fn passes(
        &mut self,
        remote: SocketAddr,
        packet: &[u8],
        expected: &Expected,
        known: bool,
    ) -> bool {
        let Ok(view) = RtpView::parse(packet) else {
            return false;
        };
        if !expected.admits(&view) {
            return false;
        }
        let now = Candidate {
            remote,
            ssrc: view.ssrc(),
            sequence: view.sequence(),
        };
        let before = self.candidates.iter_mut().find(|c| c.remote == remote);
        let Some(before) = before else {
            if self.candidates.len() >= MOST_CANDIDATES {
                self.candidates.remove(0);
            }
            self.candidates.push(now);
            return known;
        };
        let next = before.ssrc == now.ssrc && before.sequence.wrapping_add(1) == now.sequence;
        *before = now;
        known || next
    }
}

/// Whether this is a compound RTCP packet by its first header (RFC 3550 §A.2).
pub(super) fn is_compound(packet: &[u8]) -> bool {
    packet.len() >= 8
        && packet[0] >> 6 == 2
        && matches!(packet[1], 200 | 201)
        && packet.len() >= 4 * (1 + usize::from(u16::from_be_bytes([packet[2], packet[3]])))
}
