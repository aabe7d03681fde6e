//! Which m-line gets which slot, and the numbers that name streams and sources.
//!
//! Slots and sources are numbered by the owner of the meeting and not by the switch, so that they survive
//! both a takeover and a change of switch.

use std::collections::BTreeSet;

use sip::offer_answer::{MediaKind, Plan};

use crate::ids::SourceId;
use crate::rng::Rng;

/// A source id that nobody in the meeting has.
pub(crate) fn allocate_source(taken: &BTreeSet<SourceId>, rng: &mut Rng) -> SourceId {
    loop {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any 32 bits of the 64 will do"
        )]
        let candidate = SourceId(rng.bits() as u32);
        if candidate.0 != 0 && !taken.contains(&candidate) {
            return candidate;
        }
    }
}

/// SSRCs of a plan that collide with another of the leg (ours or the peer's, RFC 3550 §8) or name a source
/// of the meeting are drawn anew. A stream that is already flowing never changes its SSRC.
///
/// Which line has which slot is a matter of offer/answer (`sip::offer_answer`): a line keeps its slot as long
/// as it is accepted, held or not.
pub(crate) fn resolve_collisions(
    plan: &mut Plan,
    previous: Option<&Plan>,
    sources: &BTreeSet<SourceId>,
    rng: &mut Rng,
) {
    let mut taken: BTreeSet<u32> = plan
        .media
        .iter()
        .flat_map(|m| m.remote_ssrcs.iter().chain(&m.remote_rtx_ssrcs).copied())
        .chain(sources.iter().map(|s| s.0))
        .collect();
    // Streams that are already flowing keep their SSRC, so they go first.
    for old in previous.iter().flat_map(|p| p.accepted()) {
        taken.insert(old.ssrc);
        taken.extend(old.rtx_ssrc);
    }
    for media in plan.media.iter_mut().filter(|m| m.has_slot()) {
        let old = previous.and_then(|p| p.media.get(media.index));
        if old.is_none_or(|o| o.rejected || o.ssrc != media.ssrc) {
            media.ssrc = fresh(&mut taken, media.ssrc, rng);
        }
        if let Some(rtx) = media.rtx_ssrc
            && old.is_none_or(|o| o.rejected || o.rtx_ssrc != Some(rtx))
        {
            media.rtx_ssrc = Some(fresh(&mut taken, rtx, rng));
        }
    }
}

fn fresh(taken: &mut BTreeSet<u32>, wanted: u32, rng: &mut Rng) -> u32 {
    let mut candidate = wanted;
    while candidate == 0 || !taken.insert(candidate) {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any 32 bits of the 64 will do"
        )]
        {
            candidate = rng.bits() as u32;
        }
    }
    candidate
}

/// The peer put every accepted audio line on hold: it takes nothing from us (RFC 3264 §8.4).
pub(crate) fn on_hold(plan: &Plan) -> bool {
    let mut audio = plan
        .media
        .iter()
        .filter(|m| m.kind == Some(MediaKind::Audio) && !m.rejected)
        .peekable();
    audio.peek().is_some() && audio.all(|m| !m.direction.sends())
}

#[cfg(test)]
pub(crate) mod tests {
    use sip::offer_answer::{Direction, MediaPlan};

    use super::*;

    pub(crate) fn line(index: usize, kind: MediaKind, ssrc: u32) -> MediaPlan {
        MediaPlan {
            index,
            mid: None,
            kind: Some(kind),
            raw_kind: if kind == MediaKind::Audio {
                "audio"
            } else {
                "video"
            }
            .into(),
            protocol: "RTP/AVP".into(),
            formats: vec!["0".into()],
            rejected: false,
            transport: index,
            direction: Direction::SendRecv,
            codecs: Vec::new(),
            extensions: Vec::new(),
            one_way_extensions: Vec::new(),
            extmap_allow_mixed: false,
            ssrc,
            rtx_ssrc: None,
            slot: 0,
            remote_ssrcs: Vec::new(),
            remote_rtx_ssrcs: Vec::new(),
            ptime: None,
            bandwidth: None,
            rtcp_rsize: false,
        }
    }

    pub(crate) fn plan(media: Vec<MediaPlan>) -> Plan {
        Plan {
            transports: Vec::new(),
            media,
            bundle: Vec::new(),
            session_id: 1,
            session_version: 1,
            cname: "c".into(),
        }
    }

    #[test]
    fn colliding_ssrcs_of_a_leg_are_drawn_anew_and_flowing_ones_stay() {
        use MediaKind::Audio;
        let mut rng = Rng::new([1; 32]);
        let mut before = plan(vec![line(0, Audio, 7)]);
        resolve_collisions(&mut before, None, &BTreeSet::new(), &mut rng);
        let mut after = plan(vec![line(0, Audio, 7), line(1, Audio, 7)]);
        after.media[1].remote_ssrcs = vec![9];
        resolve_collisions(
            &mut after,
            Some(&before),
            &BTreeSet::from([SourceId(11)]),
            &mut rng,
        );
        assert_eq!(after.media[0].ssrc, 7);
        assert!(![0, 7, 9].contains(&after.media[1].ssrc));
    }

    #[test]
    fn sources_are_unique_and_never_zero() {
        let mut rng = Rng::new([3; 32]);
        let mut taken = BTreeSet::new();
        for _ in 0..1_000 {
            let id = allocate_source(&taken, &mut rng);
            assert!(id.0 != 0 && taken.insert(id));
        }
    }
}
