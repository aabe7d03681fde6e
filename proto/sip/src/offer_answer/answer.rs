//! Our half of a peer's offer.
//!
//! The steps, each over all m-lines, since what one line gets depends on the others:
//!
//! ```text
//! assess      kind, codecs                       ─┐ a line may drop out at each of these,
//! read        its transport, alone or in a BUNDLE │ with a text for people;
//! hand out    slots and directions               ─┘ what drops out keeps its place with port 0
//! place       transports where they were before
//! number      o= version up if the print differs
//! ```

use super::codec::{choose, nothing_in_common, peer_formats};
use super::line::{
    TRANSPORT_CC, direction_of, extensions, fresh_ssrc, held_by_address, identity, ptime, rejected,
    ssrcs,
};
use super::transport::{PeerTransport, read, settle};
use super::{Direction, MediaKind, MediaPlan, Plan, Policy, Random, TransportPlan, Unacceptable};
use crate::sdp::attributes::parse_group;
use crate::sdp::{MAX_LINES, MediaDescription, SessionDescription};

/// Makes our half of a peer's offer. With `previous` (the plan in force) it is a re-offer: slots, SSRCs, keys,
/// credentials of unchanged m-lines stay; ICE restart is noticed by a changed ufrag. An offer in which every
/// m-line ends up rejected is [`Unacceptable`].
///
/// # Errors
/// [`Unacceptable`], with the text for the 488's Warning and reason.
pub fn answer(
    offer: &SessionDescription,
    policy: &Policy,
    previous: Option<&Plan>,
    random: &mut dyn Random,
) -> Result<Plan, Unacceptable> {
    check_rules(offer, previous)?;
    let mut lines: Vec<Line<'_>> = offer
        .media
        .iter()
        .enumerate()
        .map(|(index, media)| Line::assess(offer, index, media, policy, previous))
        .collect();
    let group = bundle_group(offer, policy, &lines);
    let members = group.as_ref().map_or(&[][..], |group| &group.members);
    read_separate(offer, policy, &mut lines, members);
    // Only now: a slot for a line that cannot be reached would be lost to the others.
    for kind in [MediaKind::Audio, MediaKind::Video] {
        hand_out_slots(&mut lines, kind, policy);
    }
    let mut transports = Transports::new(previous);
    let bundled = transports.bundle(&mut lines, group, random);
    transports.separate(&mut lines, random);
    if lines.iter().all(|line| line.refused.is_some()) {
        return Err(Unacceptable::NotAcceptable(why(&lines)));
    }
    let bundle = bundled
        .iter()
        .filter_map(|&at| lines[at].media.mid().map(str::to_owned))
        .collect();
    let media = finish(lines, previous, random);
    let (session_id, cname) = match previous {
        Some(plan) => (plan.session_id, plan.cname.clone()),
        None => identity(random),
    };
    let transports = transports.in_use(&media);
    let mut plan = Plan {
        transports,
        media,
        bundle,
        session_id,
        session_version: previous.map_or(1, |p| p.session_version),
        cname,
    };
    if let Some(previous) = previous
        && !plan.prints_as(previous, false)
    {
        plan.session_version += 1;
    }
    Ok(plan)
}

/// RFC 3264 §8: lines are never removed or reordered, and one in use keeps its media type.
fn check_rules(offer: &SessionDescription, previous: Option<&Plan>) -> Result<(), Unacceptable> {
    if offer.media.is_empty() {
        return Err(Unacceptable::NotAcceptable(
            "the offer has no media".to_owned(),
        ));
    }
    let mut mids: Vec<&str> = offer.media.iter().filter_map(|m| m.mid()).collect();
    mids.sort_unstable();
    if mids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Unacceptable::Violation("two m-lines with the same mid"));
    }
    let Some(previous) = previous else {
        return Ok(());
    };
    if offer.media.len() < previous.media.len() {
        return Err(Unacceptable::Violation("m-lines were removed"));
    }
    let moved = previous
        .media
        .iter()
        .zip(&offer.media)
        .any(|(old, new)| !old.rejected && !old.raw_kind.eq_ignore_ascii_case(&new.kind));
    if moved {
        return Err(Unacceptable::Violation(
            "an m-line in use changed its media type",
        ));
    }
    // A new mid is no harm; that of another line says that the two have changed places.
    let swapped = previous
        .media
        .iter()
        .zip(&offer.media)
        .filter(|(old, _)| !old.rejected && old.mid.is_some())
        .any(|(old, _)| {
            let elsewhere = |new: &MediaDescription| new.mid() == old.mid.as_deref();
            offer
                .media
                .iter()
                .position(elsewhere)
                .is_some_and(|at| at != old.index)
        });
    if swapped {
        return Err(Unacceptable::Violation(
            "an m-line in use changed its place",
        ));
    }
    Ok(())
}

/// One m-line on its way to a [`MediaPlan`].
struct Line<'a> {
    media: &'a MediaDescription,
    /// In force before, not rejected then.
    previous: Option<&'a MediaPlan>,
    /// As far as it is known; complete when the line is not refused.
    plan: MediaPlan,
    /// From the peer's side.
    peer: Direction,
    /// The peer's half of a transport of its own; `None` for lines in the BUNDLE group.
    transport: Option<PeerTransport>,
    has_slot: bool,
    /// Why it is rejected; empty where the peer itself switched it off.
    refused: Option<String>,
}

impl<'a> Line<'a> {
    fn assess(
        offer: &SessionDescription,
        index: usize,
        media: &'a MediaDescription,
        policy: &Policy,
        previous: Option<&'a Plan>,
    ) -> Self {
        let previous = previous
            .and_then(|plan| plan.media.get(index))
            .filter(|old| !old.rejected);
        let mut line = Self {
            media,
            previous,
            plan: rejected(index, media),
            peer: direction_of(offer, media),
            transport: None,
            has_slot: false,
            refused: None,
        };
        if held_by_address(offer, media) {
            line.peer = Direction::new(line.peer.sends(), false);
        }
        line.refused = line.take_in(offer, policy).err();
        line
    }

    fn take_in(&mut self, offer: &SessionDescription, policy: &Policy) -> Result<(), String> {
        let media = self.media;
        if media.port == 0 && !media.section.has("bundle-only") {
            return Err(String::new());
        }
        let Some(kind) = self.plan.kind else {
            let kind = super::line::harmless(&media.kind);
            return Err(format!("{kind} is not supported"));
        };
        if policy.slots(kind) == 0 {
            return Err(format!("this meeting has no {}", kind.as_str()));
        }
        let extensions = extensions(offer, media, policy);
        let transport_cc = extensions.both.iter().any(|(_, uri)| uri == TRANSPORT_CC);
        let formats = peer_formats(media);
        let codecs = choose(kind, &formats, policy, transport_cc);
        if codecs.is_empty() {
            return Err(nothing_in_common(kind, &formats, policy));
        }
        let (remote_ssrcs, remote_rtx_ssrcs) = ssrcs(media);
        self.plan.codecs = codecs;
        self.plan.extensions = extensions.both;
        self.plan.one_way_extensions = extensions.one_way;
        self.plan.extmap_allow_mixed = extensions.mixed;
        self.plan.remote_ssrcs = remote_ssrcs;
        self.plan.remote_rtx_ssrcs = remote_rtx_ssrcs;
        self.plan.ptime = ptime(media).filter(|_| kind == MediaKind::Audio);
        self.plan.bandwidth = media.section.bandwidth();
        self.plan.rtcp_rsize = media.section.has("rtcp-rsize");
        Ok(())
    }

    fn wanted(&self, kind: MediaKind) -> bool {
        self.refused.is_none() && self.plan.kind == Some(kind)
    }
}

/// Gives lines their slots (what we send) and finds the one line on which the peer is heard or seen; from
/// both follows our direction.
fn hand_out_slots(lines: &mut [Line<'_>], kind: MediaKind, policy: &Policy) {
    let mut free: Vec<usize> = (0..policy.slots(kind)).rev().collect();
    // A slot outlives a hold: who had one keeps it, whatever direction is offered now.
    for line in lines.iter_mut().filter(|line| line.wanted(kind)) {
        if let Some(old) = line.previous.filter(|old| old.has_slot()) {
            line.has_slot = true;
            line.plan.slot = old.slot;
            free.retain(|slot| *slot != old.slot);
        }
    }
    // A participant is one source of a kind: the first line on which the peer sends.
    let mut publishing = false;
    for line in lines.iter_mut().filter(|line| line.wanted(kind)) {
        if !line.has_slot
            && line.peer.receives()
            && let Some(slot) = free.pop()
        {
            line.has_slot = true;
            line.plan.slot = slot;
        }
        let publishes = line.peer.sends() && !publishing;
        publishing |= publishes;
        line.plan.direction = Direction::new(line.has_slot && line.peer.receives(), publishes);
        let idle = line.plan.direction == Direction::Inactive;
        if idle && line.peer != Direction::Inactive && line.previous.is_none() {
            line.refused = Some(format!("no more {} streams", kind.as_str()));
        }
    }
}

/// The m-lines that may share a transport.
struct Group {
    /// As the offerer-tagged line describes it, even where we reject that line (RFC 8843 §7.3).
    peer: PeerTransport,
    /// Their positions, in the order of the group.
    members: Vec<usize>,
}

fn bundle_group(offer: &SessionDescription, policy: &Policy, lines: &[Line<'_>]) -> Option<Group> {
    let (_, mids) = offer
        .session
        .all("group")
        .filter_map(parse_group)
        .find(|(semantics, _)| *semantics == "BUNDLE")?;
    let at = |mid: &str| lines.iter().position(|line| line.media.mid() == Some(mid));
    // A group of more mids than an SDP has lines can only be repetition.
    let mids = mids.into_iter().take(MAX_LINES);
    let positions: Vec<usize> = mids.filter_map(at).collect();
    let mut members: Vec<usize> = Vec::new();
    for &position in &positions {
        let line = &lines[position];
        // Without it RTCP would need a port of its own (RFC 8843 §9.3).
        let muxed = line.media.section.has("rtcp-mux") || line.media.section.has("rtcp-mux-only");
        if line.refused.is_none() && muxed && !members.contains(&position) {
            members.push(position);
        }
    }
    let mut peer = positions
        .first()
        .into_iter()
        .chain(&members)
        .find_map(|&at| read(offer, lines[at].media, policy).ok())?;
    peer.rtcp_mux = true;
    peer.remote_rtcp_port = None;
    Some(Group { peer, members })
}

/// Reads the transports of the lines outside of the group.
fn read_separate(
    offer: &SessionDescription,
    policy: &Policy,
    lines: &mut [Line<'_>],
    members: &[usize],
) {
    for (at, line) in lines.iter_mut().enumerate() {
        if line.refused.is_some() || members.contains(&at) {
            continue;
        }
        if line.media.port == 0 {
            line.refused = Some("bundle-only outside of a usable BUNDLE group".to_owned());
            continue;
        }
        match read(offer, line.media, policy) {
            Ok(peer) => line.transport = Some(peer),
            Err(text) => line.refused = Some(text),
        }
    }
}

/// The transports of the new plan. Positions of the old one stay, so that a 5-tuple keeps its index.
struct Transports<'a> {
    previous: Option<&'a Plan>,
    settled: Vec<Option<TransportPlan>>,
}

impl<'a> Transports<'a> {
    fn new(previous: Option<&'a Plan>) -> Self {
        let count = previous.map_or(0, |plan| plan.transports.len());
        Self {
            previous,
            settled: vec![None; count],
        }
    }

    /// Where the transport for a line goes: where it was, if that is not taken; else a place nobody used.
    fn place(&self, line: &Line<'_>) -> usize {
        let before = line.previous.map(|old| old.transport);
        if let Some(index) = before
            && self.settled.get(index).is_some_and(Option::is_none)
        {
            return index;
        }
        let used_before = |index: usize| {
            self.previous
                .is_some_and(|plan| plan.accepted().any(|m| m.transport == index))
        };
        (0..self.settled.len())
            .find(|&index| self.settled[index].is_none() && !used_before(index))
            .unwrap_or(self.settled.len())
    }

    fn put(&mut self, line: &Line<'_>, peer: PeerTransport, random: &mut dyn Random) -> usize {
        let index = self.place(line);
        let stays = line.previous.is_some_and(|old| old.transport == index);
        let previous = self
            .previous
            .filter(|_| stays)
            .and_then(|plan| plan.transports.get(index));
        let transport = settle(index, peer, previous, random);
        if index == self.settled.len() {
            self.settled.push(None);
        }
        self.settled[index] = Some(transport);
        index
    }

    /// Puts the members of the group that are still in on one transport. Returns them.
    fn bundle(
        &mut self,
        lines: &mut [Line<'_>],
        group: Option<Group>,
        random: &mut dyn Random,
    ) -> Vec<usize> {
        let Some(Group { peer, mut members }) = group else {
            return Vec::new();
        };
        members.retain(|&at| lines[at].refused.is_none());
        // The tagged line may be new or gone; then any member that was on the transport finds it.
        let known = |at: &&usize| lines[**at].previous.is_some();
        let Some(&anchor) = members.iter().find(known).or(members.first()) else {
            return Vec::new();
        };
        let index = self.put(&lines[anchor], peer, random);
        for &at in &members {
            lines[at].plan.transport = index;
            lines[at].plan.rejected = false;
        }
        members
    }

    /// Gives every line outside of the group a transport of its own.
    fn separate(&mut self, lines: &mut [Line<'_>], random: &mut dyn Random) {
        for line in lines.iter_mut().filter(|line| line.refused.is_none()) {
            if let Some(peer) = line.transport.take() {
                line.plan.transport = self.put(line, peer, random);
                line.plan.rejected = false;
            }
        }
    }

    /// Drops what is unused at the end; in the middle the old one stays as a placeholder.
    fn in_use(mut self, media: &[MediaPlan]) -> Vec<TransportPlan> {
        let count = media
            .iter()
            .filter(|m| !m.rejected)
            .map(|m| m.transport + 1)
            .max()
            .unwrap_or(0);
        self.settled.truncate(count);
        let previous = self.previous;
        self.settled
            .into_iter()
            .enumerate()
            .map(|(index, settled)| {
                settled
                    .or_else(|| previous?.transports.get(index).cloned())
                    .expect("a place without new transport is one of the previous plan")
            })
            .collect()
    }
}

/// SSRCs, kept where there were some.
fn finish(
    lines: Vec<Line<'_>>,
    previous: Option<&Plan>,
    random: &mut dyn Random,
) -> Vec<MediaPlan> {
    let mut used: Vec<u32> = lines
        .iter()
        .flat_map(|line| [&line.plan.remote_ssrcs, &line.plan.remote_rtx_ssrcs])
        .flatten()
        .copied()
        .collect();
    for old in previous.iter().flat_map(|plan| &plan.media) {
        used.push(old.ssrc);
        used.extend(old.rtx_ssrc);
    }
    lines
        .into_iter()
        .map(|line| {
            if line.refused.is_some() {
                return rejected(line.plan.index, line.media);
            }
            let mut plan = line.plan;
            if line.has_slot {
                let old = line.previous.filter(|old| old.has_slot());
                plan.ssrc = match old {
                    Some(old) => old.ssrc,
                    None => fresh_ssrc(random, &mut used),
                };
                if plan.codecs.iter().any(|codec| codec.rtx.is_some()) {
                    plan.rtx_ssrc = old
                        .and_then(|old| old.rtx_ssrc)
                        .or_else(|| Some(fresh_ssrc(random, &mut used)));
                }
            }
            plan
        })
        .collect()
}

/// The text of a 488: each reason once.
fn why(lines: &[Line<'_>]) -> String {
    /// Reasons told at most; they go into a header.
    const REASONS: usize = 4;
    let mut reasons: Vec<&str> = Vec::new();
    for reason in lines.iter().filter_map(|line| line.refused.as_deref()) {
        if !reason.is_empty() && !reasons.contains(&reason) && reasons.len() < REASONS {
            reasons.push(reason);
        }
    }
    if reasons.is_empty() {
        return "the offer switches off every medium".to_owned();
    }
    reasons.join("; ")
}
