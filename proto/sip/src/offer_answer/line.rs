//! What an m-line says besides its codecs and its transport.

use super::{Direction, MediaKind, MediaPlan, Policy, Random};
use crate::sdp::attributes::{ExtMap, parse_group, parse_ssrc};
use crate::sdp::{MediaDescription, SessionDescription};

/// SSRCs kept of one m-line: three simulcast layers with RTX are six.
const MAX_SSRCS: usize = 32;
/// Extensions kept of one m-line.
const MAX_EXTENSIONS: usize = 32;

/// transport-wide congestion control's header extension.
pub(super) const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// A peer's token as it may stand in a reason phrase or a Warning header.
pub(super) fn harmless(token: &str) -> String {
    token
        .chars()
        .filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '<' | '>'))
        .take(32)
        .collect()
}

/// The direction an m-line names, from the peer's side; sendrecv where none is (RFC 8866 §6.7).
pub(super) fn direction_of(sdp: &SessionDescription, media: &MediaDescription) -> Direction {
    let last = |attributes: &mut dyn Iterator<Item = (&str, Option<&str>)>| {
        attributes
            .filter(|(_, value)| value.is_none())
            .filter_map(|(name, _)| Direction::parse(name))
            .next()
    };
    last(&mut media.section.attributes())
        .or_else(|| last(&mut sdp.session.attributes()))
        .unwrap_or(Direction::SendRecv)
}

/// Hold as RFC 2543 had it: c=0.0.0.0 means "send me nothing" (RFC 3264 §8.4). Clients with ICE write it
/// too, before they know an address, and mean nothing by it; they use port 9 then.
pub(super) fn held_by_address(sdp: &SessionDescription, media: &MediaDescription) -> bool {
    let unspecified = sdp
        .connection(media)
        .and_then(|c| c.ip)
        .is_some_and(|ip| ip.is_unspecified());
    unspecified && sdp.inherited(media, "ice-ufrag").is_none()
}

/// Header extensions of an m-line.
pub(super) struct Extensions {
    /// Known to both, with the peer's ids.
    pub both: Vec<(u8, String)>,
    /// Those of them that go one way only, from our side.
    pub one_way: Vec<(u8, Direction)>,
    /// See [`super::MediaPlan::extmap_allow_mixed`].
    pub mixed: bool,
}

/// The header extensions a peer offers and we know.
pub(super) fn extensions(
    sdp: &SessionDescription,
    media: &MediaDescription,
    policy: &Policy,
) -> Extensions {
    let mut taken: Vec<(u8, String)> = Vec::new();
    let mut one_way = Vec::new();
    let mixed = [&media.section, &sdp.session]
        .iter()
        .any(|section| section.has("extmap-allow-mixed"));
    for value in sdp.all_inherited(media, "extmap") {
        let Some(map) = ExtMap::parse(value) else {
            continue;
        };
        let known = policy.extensions.contains(&map.uri);
        let free = !taken
            .iter()
            .any(|(id, uri)| *id == map.id || *uri == map.uri);
        // 15 cannot be told from the stop mark of the one-byte form (RFC 8285 §4.2).
        // Higher ones have the two-byte form only, which may not stand beside the other unless agreed.
        let writable = map.id <= 14 || (mixed && map.id != 15);
        if !known || !free || !writable || taken.len() == MAX_EXTENSIONS {
            continue;
        }
        match map.direction.as_deref().map(Direction::parse) {
            Some(None | Some(Direction::Inactive)) => continue,
            Some(Some(direction)) if direction != Direction::SendRecv => {
                one_way.push((map.id, direction.reversed()));
            }
            _ => {}
        }
        taken.push((map.id, map.uri));
    }
    Extensions {
        both: taken,
        one_way,
        mixed,
    }
}

/// Primary and RTX SSRCs a peer announces (RFC 5576). The second of an FID group is the RTX stream of the
/// first; of a FEC group it is nothing we take.
pub(super) fn ssrcs(media: &MediaDescription) -> (Vec<u32>, Vec<u32>) {
    let mut primary: Vec<u32> = Vec::new();
    let mut rtx: Vec<u32> = Vec::new();
    let mut repair: Vec<u32> = Vec::new();
    for (semantics, members) in media.section.all("ssrc-group").filter_map(parse_group) {
        let second = members.get(1).and_then(|ssrc| ssrc.parse().ok());
        match (semantics, second) {
            ("FID", Some(ssrc)) if rtx.len() < MAX_SSRCS => rtx.push(ssrc),
            ("FEC" | "FEC-FR", Some(ssrc)) if repair.len() < MAX_SSRCS => repair.push(ssrc),
            _ => {}
        }
    }
    for (ssrc, _, _) in media.section.all("ssrc").filter_map(parse_ssrc) {
        let other = [&primary, &rtx, &repair].iter().any(|l| l.contains(&ssrc));
        if !other && primary.len() < MAX_SSRCS {
            primary.push(ssrc);
        }
    }
    (primary, rtx)
}

/// `a=ptime` in ms, where it is a sane packet length.
pub(super) fn ptime(media: &MediaDescription) -> Option<u32> {
    media
        .section
        .attribute("ptime")
        .and_then(|value| value.trim().parse().ok())
        .filter(|ms| (1..=200).contains(ms))
}

/// A line we do not take: port 0, protocol and formats echoed (RFC 3264 §6).
pub(super) fn rejected(index: usize, media: &MediaDescription) -> MediaPlan {
    MediaPlan {
        index,
        mid: media.mid().map(str::to_owned),
        kind: MediaKind::parse(&media.kind),
        raw_kind: media.kind.clone(),
        protocol: media.protocol.clone(),
        formats: media.formats.clone(),
        rejected: true,
        transport: 0,
        direction: Direction::Inactive,
        codecs: Vec::new(),
        extensions: Vec::new(),
        one_way_extensions: Vec::new(),
        extmap_allow_mixed: false,
        ssrc: 0,
        rtx_ssrc: None,
        slot: 0,
        remote_ssrcs: Vec::new(),
        remote_rtx_ssrcs: Vec::new(),
        ptime: None,
        bandwidth: None,
        rtcp_rsize: false,
    }
}

/// An SSRC nobody in the dialog uses. 0 is kept for "none".
pub(super) fn fresh_ssrc(random: &mut dyn Random, used: &mut Vec<u32>) -> u32 {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    let mut ssrc = u32::from_be_bytes(bytes);
    // Counting on instead of drawing again ends even with a source of randomness that is stuck.
    while ssrc == 0 || used.contains(&ssrc) {
        ssrc = ssrc.wrapping_add(1);
    }
    used.push(ssrc);
    ssrc
}

/// Random bits of a new dialog: o= session id and CNAME.
pub(super) fn identity(random: &mut dyn Random) -> (u64, String) {
    let mut id = [0; 4];
    random.fill(&mut id);
    // 31 bits: some phones read o= into a signed 32-bit number.
    let id = u64::from(u32::from_be_bytes(id) >> 1);
    // 96 bits (RFC 7022 §4.2).
    (id, super::transport::ice_text(random, 16))
}
