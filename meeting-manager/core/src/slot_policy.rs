//! Which m-line gets which slot, and the numbers that name streams and sources.
//!
//! Slots and sources are numbered by the owner of the meeting and not by the switch, so that they survive
//! both a takeover and a change of switch.

use std::collections::BTreeSet;

use sip::offer_answer::{Direction, MediaKind, Plan};

use crate::ids::SourceId;
use crate::rng::Rng;

/// A source id that nobody in the meeting has.
pub(crate) fn allocate_source(taken: &BTreeSet<SourceId>, rng: &mut Rng) -> SourceId {
    loop {
        #[allow(clippy::cast_possible_truncation, reason = "any 32 bits of the 64 will do")]
        let candidate = SourceId(rng.bits() as u32);
        if candidate.0 != 0 && !taken.contains(&candidate) {
            return candidate;
        }
    }
}

/// Numbers the slots of a plan: every accepted m-line of a kind, in order, has one, held or not, so that a
/// hold changes no number. A line keeps the slot it had in `previous`. SSRCs that collide with another of
/// the leg (ours or the peer's, RFC 3550 §8) are drawn anew; an unchanged line never changes its SSRC.
pub(crate) fn number_slots(plan: &mut Plan, previous: Option<&Plan>, rng: &mut Rng) {
    for kind in [MediaKind::Audio, MediaKind::Video] {
        let kept = |index: usize| {
            previous
                .and_then(|p| p.media.get(index))
                .filter(|m| m.kind == Some(kind) && !m.rejected)
                .map(|m| m.slot)
        };
        let mut taken: BTreeSet<usize> = plan
            .media
            .iter()
            .filter(|m| m.kind == Some(kind) && !m.rejected)
            .filter_map(|m| kept(m.index))
            .collect();
        for media in &mut plan.media {
            if media.kind != Some(kind) || media.rejected {
                continue;
            }
            media.slot = kept(media.index).unwrap_or_else(|| {
                let free = (0..).find(|n| !taken.contains(n)).unwrap_or_default();
                taken.insert(free);
                free
            });
        }
    }
    resolve_collisions(plan, previous, rng);
}

fn resolve_collisions(plan: &mut Plan, previous: Option<&Plan>, rng: &mut Rng) {
    let mut taken: BTreeSet<u32> = plan
        .media
        .iter()
        .flat_map(|m| m.remote_ssrcs.iter().chain(&m.remote_rtx_ssrcs).copied())
        .collect();
    // Streams that are already flowing keep their SSRC, so they go first.
    for old in previous.iter().flat_map(|p| &p.media).filter(|m| !m.rejected) {
        taken.insert(old.ssrc);
        taken.extend(old.rtx_ssrc);
    }
    for media in plan.media.iter_mut().filter(|m| !m.rejected) {
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
        #[allow(clippy::cast_possible_truncation, reason = "any 32 bits of the 64 will do")]
        {
            candidate = rng.bits() as u32;
        }
    }
    candidate
}

/// Whether the switch sends on an m-line of that direction (ours).
pub(crate) fn sends(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::SendOnly)
}

/// Whether the switch receives on an m-line of that direction (ours).
pub(crate) fn receives(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::RecvOnly)
}

/// The peer put every accepted audio line on hold: it takes nothing from us (RFC 3264 §8.4).
pub(crate) fn on_hold(plan: &Plan) -> bool {
    let mut audio = plan
        .media
        .iter()
        .filter(|m| m.kind == Some(MediaKind::Audio) && !m.rejected)
        .peekable();
    audio.peek().is_some() && audio.all(|m| !sends(m.direction))
}

#[cfg(test)]
pub(crate) mod tests {
    use sip::offer_answer::MediaPlan;

    use super::*;

    pub(crate) fn line(index: usize, kind: MediaKind, ssrc: u32) -> MediaPlan {
        MediaPlan {
            index,
            mid: None,
            kind: Some(kind),
            raw_kind: if kind == MediaKind::Audio { "audio" } else { "video" }.into(),
            protocol: "RTP/AVP".into(),
            formats: vec!["0".into()],
            rejected: false,
            transport: index,
            direction: Direction::SendRecv,
            codecs: Vec::new(),
            extensions: Vec::new(),
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
    fn slots_are_numbered_by_kind_in_order_of_the_lines() {
        use MediaKind::{Audio, Video};
        let mut rng = Rng::new([1; 32]);
        let mut p = plan(vec![line(0, Audio, 1), line(1, Video, 2), line(2, Audio, 3), line(3, Video, 4)]);
        number_slots(&mut p, None, &mut rng);
        let slots: Vec<_> = p.media.iter().map(|m| m.slot).collect();
        assert_eq!(slots, [0, 0, 1, 1]);
    }

    #[test]
    fn a_line_keeps_its_slot_when_another_goes_and_comes() {
        use MediaKind::Audio;
        let mut rng = Rng::new([1; 32]);
        let mut first = plan(vec![line(0, Audio, 1), line(1, Audio, 2), line(2, Audio, 3)]);
        number_slots(&mut first, None, &mut rng);
        let mut second = first.clone();
        second.media[0].rejected = true;
        number_slots(&mut second, Some(&first), &mut rng);
        assert_eq!((second.media[1].slot, second.media[2].slot), (1, 2));
        let mut third = second.clone();
        third.media[0].rejected = false;
        number_slots(&mut third, Some(&second), &mut rng);
        assert_eq!(third.media[0].slot, 0);
    }

    #[test]
    fn colliding_ssrcs_of_a_leg_are_drawn_anew_and_flowing_ones_stay() {
        use MediaKind::Audio;
        let mut rng = Rng::new([1; 32]);
        let mut before = plan(vec![line(0, Audio, 7)]);
        number_slots(&mut before, None, &mut rng);
        let mut after = plan(vec![line(0, Audio, 7), line(1, Audio, 7)]);
        after.media[1].remote_ssrcs = vec![9];
        number_slots(&mut after, Some(&before), &mut rng);
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
