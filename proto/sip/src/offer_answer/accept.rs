//! The peer's answer to an offer of ours.

use super::codec::{nothing_in_common, peer_formats, taken};
use super::line::{direction_of, extensions, held_by_address, ptime, rejected, ssrcs};
use super::transport::{PeerSecurity, PeerTransport, Setup, read};
use super::{
    Direction, Ice, MediaKind, MediaPlan, Plan, Policy, Security, TransportPlan, Unacceptable,
};
use crate::sdp::attributes::parse_group;
use crate::sdp::{MediaDescription, SessionDescription};

/// Takes in the peer's answer to our offer.
///
/// # Errors
/// [`Unacceptable`] where the answer does not fit the offer.
pub fn accept_answer(
    offered: &Plan,
    answer: &SessionDescription,
    policy: &Policy,
) -> Result<Plan, Unacceptable> {
    if answer.media.len() != offered.media.len() {
        return Err(Unacceptable::Violation(
            "the answer has not as many m-lines as the offer",
        ));
    }
    let bundled = bundled(offered, answer)?;
    let mut plan = offered.clone();
    plan.bundle.clone_from(&bundled);
    let mut reasons: Vec<String> = Vec::new();
    let mut settled = vec![false; offered.transports.len()];
    for (media, line) in plan.media.iter_mut().zip(&answer.media) {
        if !media.raw_kind.eq_ignore_ascii_case(&line.kind) {
            return Err(Unacceptable::Violation(
                "the answer has another media type than the offer",
            ));
        }
        if line.port == 0 || media.rejected {
            *media = switched_off(media, line);
            continue;
        }
        if !media.protocol.eq_ignore_ascii_case(&line.protocol) {
            return Err(Unacceptable::Violation(
                "the answer has another transport protocol than the offer",
            ));
        }
        if let Err(reason) = take_in(media, answer, line, policy) {
            reasons.push(reason);
            *media = switched_off(media, line);
            continue;
        }
        let Some(settled) = settled.get_mut(media.transport) else {
            return Err(Unacceptable::Violation(
                "the offered plan lacks a transport",
            ));
        };
        // With BUNDLE the first accepted line of the group describes the transport (RFC 8843 §7.3.1).
        if !std::mem::replace(settled, true) {
            let peer = read(answer, line, policy).map_err(Unacceptable::NotAcceptable)?;
            conclude(&mut plan.transports[media.transport], peer)?;
        }
    }
    plan.bundle.retain(|mid| {
        let mut media = plan.media.iter();
        media.any(|m| !m.rejected && m.mid.as_ref() == Some(mid))
    });
    if plan.accepted().next().is_none() {
        reasons.dedup();
        return Err(Unacceptable::NotAcceptable(if reasons.is_empty() {
            "the answer rejects every medium".to_owned()
        } else {
            reasons.join("; ")
        }));
    }
    // What an answer of ours would say differs from the offer just sent: the next one counts on.
    if !plan.prints_like_offer(offered) {
        plan.session_version += 1;
    }
    Ok(plan)
}

impl Plan {
    fn prints_like_offer(&self, offered: &Plan) -> bool {
        self.prints_as(offered, true) && self.prints_as(offered, false) && self.bundle.is_empty()
    }
}

/// The answer's BUNDLE group; every line of ours that shares a transport must be in it or be rejected.
fn bundled(offered: &Plan, answer: &SessionDescription) -> Result<Vec<String>, Unacceptable> {
    if offered.bundle.is_empty() {
        return Ok(Vec::new());
    }
    let group: Vec<String> = answer
        .session
        .all("group")
        .filter_map(parse_group)
        .find(|(semantics, _)| *semantics == "BUNDLE")
        .map(|(_, mids)| mids)
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    if group.iter().any(|mid| !offered.bundle.contains(mid)) {
        return Err(Unacceptable::Violation(
            "the answer's BUNDLE group has a mid that was not offered",
        ));
    }
    let outside = offered
        .media
        .iter()
        .zip(&answer.media)
        .filter(|(ours, theirs)| !ours.rejected && theirs.port != 0)
        .filter(|(ours, _)| ours.mid.as_ref().is_none_or(|mid| !group.contains(mid)))
        .count();
    // One line alone needs no group.
    let accepted = answer.media.iter().filter(|m| m.port != 0).count();
    if outside > 0 && accepted > 1 {
        return Err(Unacceptable::Violation(
            "the answer takes a bundle-only m-line outside of the BUNDLE group",
        ));
    }
    Ok(group)
}

/// A line the peer declines; protocol and formats stay what the peer last wrote.
fn switched_off(ours: &MediaPlan, theirs: &MediaDescription) -> MediaPlan {
    MediaPlan {
        mid: ours.mid.clone(),
        protocol: ours.protocol.clone(),
        ..rejected(ours.index, theirs)
    }
}

fn take_in(
    media: &mut MediaPlan,
    answer: &SessionDescription,
    line: &MediaDescription,
    policy: &Policy,
) -> Result<(), String> {
    let kind = media.kind.unwrap_or(MediaKind::Audio);
    let formats = peer_formats(line);
    let codecs = taken(&media.codecs, &formats);
    let speaks = codecs
        .iter()
        .any(|codec| codec.name != super::codec::TELEPHONE_EVENT);
    if !speaks {
        return Err(nothing_in_common(kind, &formats, policy));
    }
    let extensions = extensions(answer, line, policy);
    let (remote_ssrcs, remote_rtx_ssrcs) = ssrcs(line);
    let mut peer = direction_of(answer, line);
    if held_by_address(answer, line) {
        peer = Direction::new(peer.sends(), false);
    }
    let ours = peer.reversed();
    media.direction = Direction::new(
        media.direction.sends() && ours.sends(),
        media.direction.receives() && ours.receives(),
    );
    if !codecs.iter().any(|codec| codec.rtx.is_some()) {
        media.rtx_ssrc = None;
    }
    media.codecs = codecs;
    media.formats.clone_from(&line.formats);
    media.extensions = extensions
        .both
        .into_iter()
        .filter(|(_, uri)| media.extensions.iter().any(|(_, ours)| ours == uri))
        .collect();
    media.one_way_extensions = extensions.one_way;
    media.extmap_allow_mixed = extensions.mixed;
    media.remote_ssrcs = remote_ssrcs;
    media.remote_rtx_ssrcs = remote_rtx_ssrcs;
    media.ptime = ptime(line).or(media.ptime);
    media.bandwidth = line.section.bandwidth();
    media.rtcp_rsize &= line.section.has("rtcp-rsize");
    Ok(())
}

fn conclude(transport: &mut TransportPlan, peer: PeerTransport) -> Result<(), Unacceptable> {
    match (&mut transport.security, peer.security) {
        // Keys we did not ask for are not used.
        (Security::Plain, _) => {}
        (
            Security::Sdes {
                suite,
                tag,
                remote_key,
                ..
            },
            PeerSecurity::Sdes {
                suite: theirs,
                tag: their_tag,
                key,
            },
        ) => {
            if *suite != theirs || *tag != their_tag {
                return Err(Unacceptable::Violation(
                    "the answer's a=crypto is none that was offered",
                ));
            }
            *remote_key = key;
        }
        (
            Security::Dtls {
                remote_fingerprints,
                client,
            },
            PeerSecurity::Dtls {
                fingerprints,
                setup,
            },
        ) => {
            // An answer without setup is an active one (RFC 4145 §4.1).
            *client = setup == Setup::Passive;
            *remote_fingerprints = fingerprints;
        }
        _ => {
            return Err(Unacceptable::Violation(
                "the answer secures media in another way than was offered",
            ));
        }
    }
    transport.ice = match (transport.ice.take(), peer.ice) {
        (Some(ice), Some((remote_ufrag, remote_pwd))) => Some(Ice {
            remote_ufrag,
            remote_pwd,
            ..ice
        }),
        _ => None,
    };
    transport.rtcp_mux &= peer.rtcp_mux;
    transport.remote = peer.remote;
    transport.remote_rtcp_port = peer.remote_rtcp_port;
    transport.ipv6 = peer.ipv6;
    Ok(())
}
