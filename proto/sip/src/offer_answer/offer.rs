//! Offers of ours: delayed offer, dial-out, and re-offers of a plan in force.

use serde::{Deserialize, Serialize};

use super::codec::{EVENTS, OPUS_FMTP, TELEPHONE_EVENT};
use super::line::{TRANSPORT_CC, fresh_ssrc, identity};
use super::transport::{ice_text, random_key};
use super::{
    Codec, Direction, Ice, MediaKind, MediaPlan, Plan, Policy, Profile, Random, Security,
    SrtpSuite, TransportPlan,
};

/// What kind of leg an offer of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OfferKind {
    /// RTP/AVP, one m-line a kind: what every phone understands (delayed offer, dial-out). RTP/SAVP with
    /// keys where the policy wants SRTP. Over IPv6 or IPv4: there is one address for each line (RFC 4566 §5.7).
    Phone { video: bool, ipv6: bool },
    /// UDP/TLS/RTP/SAVPF, BUNDLE, ICE-lite, setup:actpass.
    WebRtc {
        audio_slots: usize,
        video_slots: usize,
    },
}

/// A fresh offer of ours (delayed offer, dial-out), or with `previous` a re-offer of the plan in force:
/// same lines, keys and credentials, in the directions in force; `kind` is not looked at then.
///
/// The remote half of a fresh plan (addresses, keys, fingerprints, ICE) is empty until
/// [`accept_answer`](super::accept_answer).
pub fn offer(
    kind: OfferKind,
    policy: &Policy,
    previous: Option<&Plan>,
    random: &mut dyn Random,
) -> Plan {
    if let Some(previous) = previous {
        return again(previous);
    }
    let (session_id, cname) = identity(random);
    let mut plan = Plan {
        transports: Vec::new(),
        media: Vec::new(),
        bundle: Vec::new(),
        session_id,
        session_version: 1,
        cname,
    };
    match kind {
        OfferKind::Phone { video, ipv6 } => phone(&mut plan, video, ipv6, policy, random),
        OfferKind::WebRtc {
            audio_slots,
            video_slots,
        } => webrtc(&mut plan, audio_slots, video_slots, policy, random),
    }
    plan
}

/// The version counts on where the text differs from what was last printed. What that was is not known
/// here: an answer says setup:passive where an offer says actpass. A version counted up without need harms
/// nobody; one kept in spite of a change makes peers ignore it (RFC 3264 §8).
fn again(previous: &Plan) -> Plan {
    let mut plan = previous.clone();
    if !printed_alike(previous) {
        plan.session_version += 1;
    }
    plan
}

/// Does the plan read the same as offer and as answer?
fn printed_alike(plan: &Plan) -> bool {
    plan.bundle.is_empty() && !plan.transports_in_use().any(|t| t.security.is_dtls())
}

fn phone(plan: &mut Plan, video: bool, ipv6: bool, policy: &Policy, random: &mut dyn Random) {
    let suite = phone_suite(policy).filter(|_| policy.require_srtp);
    let profile = match suite {
        Some(_) => Profile::Savp,
        None => Profile::Avp,
    };
    let mut numbers = Numbers::phone();
    let mut used = Vec::new();
    for kind in [MediaKind::Audio, MediaKind::Video] {
        let wanted = kind == MediaKind::Audio || video;
        if !wanted || policy.slots(kind) == 0 {
            continue;
        }
        let index = plan.transports.len();
        plan.transports.push(TransportPlan {
            index,
            security: match suite {
                Some(suite) => Security::Sdes {
                    suite,
                    tag: 1,
                    local_key: random_key(random, suite),
                    remote_key: Vec::new(),
                },
                None => Security::Plain,
            },
            ice: None,
            rtcp_mux: false,
            remote: None,
            remote_rtcp_port: None,
            ipv6,
        });
        let mut media = line(plan.media.len(), kind, &profile);
        media.transport = index;
        media.codecs = codecs(kind, policy, &mut numbers, false);
        media.ssrc = fresh_ssrc(random, &mut used);
        media.ptime = (kind == MediaKind::Audio).then_some(20);
        plan.media.push(media);
    }
}

/// One suite is offered, since a plan holds one: the one every SRTP phone has, where the policy allows it.
fn phone_suite(policy: &Policy) -> Option<SrtpSuite> {
    let common = SrtpSuite::AesCm128HmacSha1_80;
    if policy.suites.contains(&common) {
        return Some(common);
    }
    policy.suites.first().copied()
}

fn webrtc(
    plan: &mut Plan,
    audio_slots: usize,
    video_slots: usize,
    policy: &Policy,
    random: &mut dyn Random,
) {
    plan.transports.push(TransportPlan {
        index: 0,
        security: Security::Dtls {
            remote_fingerprints: Vec::new(),
            client: false,
        },
        ice: Some(Ice {
            local_ufrag: ice_text(random, 8),
            local_pwd: ice_text(random, 24),
            remote_ufrag: String::new(),
            remote_pwd: String::new(),
        }),
        rtcp_mux: true,
        remote: None,
        remote_rtcp_port: None,
        ipv6: false,
    });
    let mut numbers = Numbers::default();
    let mut used = Vec::new();
    let extensions: Vec<(u8, String)> = (1..=14).zip(policy.extensions.iter().cloned()).collect();
    let transport_cc = extensions.iter().any(|(_, uri)| uri == TRANSPORT_CC);
    for (kind, slots) in [
        (MediaKind::Audio, audio_slots),
        (MediaKind::Video, video_slots),
    ] {
        let codecs = codecs(kind, policy, &mut numbers, transport_cc);
        for slot in 0..slots.min(policy.slots(kind)) {
            let mut media = line(plan.media.len(), kind, &Profile::UdpTlsSavpf);
            let mid = media.index.to_string();
            plan.bundle.push(mid.clone());
            media.mid = Some(mid);
            media.slot = slot;
            // The participant publishes on the first line of a kind; the others are for listening only.
            media.direction = Direction::new(true, slot == 0);
            media.extensions = extensions
                .iter()
                .filter(|(_, uri)| useful(kind, uri))
                .cloned()
                .collect();
            media.ssrc = fresh_ssrc(random, &mut used);
            if codecs.iter().any(|codec| codec.rtx.is_some()) {
                media.rtx_ssrc = Some(fresh_ssrc(random, &mut used));
            }
            media.codecs.clone_from(&codecs);
            media.rtcp_rsize = true;
            plan.media.push(media);
        }
    }
}

/// Some extensions speak of one kind of media only.
fn useful(kind: MediaKind, uri: &str) -> bool {
    match kind {
        MediaKind::Audio => !["video", "dependency-descriptor", "playout", "stream-id"]
            .iter()
            .any(|part| uri.contains(part)),
        MediaKind::Video => !uri.contains("audio-level"),
    }
}

fn line(index: usize, kind: MediaKind, profile: &Profile) -> MediaPlan {
    MediaPlan {
        index,
        mid: None,
        kind: Some(kind),
        raw_kind: kind.as_str().to_owned(),
        protocol: profile.as_str().to_owned(),
        formats: Vec::new(),
        rejected: false,
        transport: 0,
        direction: Direction::SendRecv,
        codecs: Vec::new(),
        extensions: Vec::new(),
        one_way_extensions: Vec::new(),
        extmap_allow_mixed: true,
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

/// Hands out dynamic payload types, 96 to 127 (RFC 3551 §6).
struct Numbers {
    next: u8,
    reserved: Option<u8>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            next: 96,
            reserved: None,
        }
    }
}

impl Numbers {
    /// 101 is what phones everywhere expect for telephone-event, and what some insist on.
    fn phone() -> Self {
        Self {
            next: 96,
            reserved: Some(101),
        }
    }

    fn take(&mut self) -> Option<u8> {
        if self.reserved == Some(self.next) {
            self.next += 1;
        }
        let number = self.next;
        self.next = (number + 1).min(128);
        (number < 128).then_some(number)
    }
}

fn codecs(
    kind: MediaKind,
    policy: &Policy,
    numbers: &mut Numbers,
    transport_cc: bool,
) -> Vec<Codec> {
    let retransmit = numbers.reserved.is_none();
    let mut codecs: Vec<Codec> = policy
        .codecs(kind)
        .iter()
        .filter_map(|name| {
            let (number, clock_rate, channels, fmtp) = form(kind, name)?;
            let payload_type = match number {
                Some(number) => number,
                None => numbers.take()?,
            };
            let video = kind == MediaKind::Video;
            let mut feedback: Vec<String> = Vec::new();
            if video {
                feedback.extend(["nack", "nack pli", "ccm fir", "goog-remb"].map(str::to_owned));
            }
            if transport_cc {
                feedback.push("transport-cc".to_owned());
            }
            Some(Codec {
                payload_type,
                name: name.clone(),
                clock_rate,
                channels,
                fmtp: fmtp.to_owned(),
                rtx: if video && retransmit {
                    numbers.take()
                } else {
                    None
                },
                feedback,
            })
        })
        .collect();
    if kind == MediaKind::Audio {
        let events = events(&codecs, numbers);
        codecs.extend(events);
    }
    codecs
}

/// Static payload type, clock rate, channels and fmtp of a codec; `None` for one we know nothing of.
fn form(kind: MediaKind, name: &str) -> Option<(Option<u8>, u32, u8, &'static str)> {
    let known = match (kind, name.to_ascii_lowercase().as_str()) {
        (MediaKind::Audio, "opus") => (None, 48_000, 2, OPUS_FMTP),
        (MediaKind::Audio, "pcmu") => (Some(0), 8_000, 1, ""),
        (MediaKind::Audio, "pcma") => (Some(8), 8_000, 1, ""),
        (MediaKind::Audio, "g722") => (Some(9), 8_000, 1, ""),
        (MediaKind::Video, "vp8") => (None, 90_000, 0, ""),
        (MediaKind::Video, "vp9") => (None, 90_000, 0, "profile-id=0"),
        // Constrained Baseline 3.1: what browsers and phones share.
        (MediaKind::Video, "h264") => (
            None,
            90_000,
            0,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        ),
        (MediaKind::Video, "av1") => (None, 90_000, 0, "level-idx=5;profile=0;tier=0"),
        _ => return None,
    };
    Some(known)
}

fn events(codecs: &[Codec], numbers: &mut Numbers) -> Vec<Codec> {
    let mut rates: Vec<u32> = codecs.iter().map(|codec| codec.clock_rate).collect();
    rates.sort_unstable();
    rates.dedup();
    rates
        .into_iter()
        .filter_map(|clock_rate| {
            let payload_type = match (clock_rate, numbers.reserved) {
                (8_000, Some(number)) => number,
                _ => numbers.take()?,
            };
            Some(Codec {
                payload_type,
                name: TELEPHONE_EVENT.to_owned(),
                clock_rate,
                channels: 1,
                fmtp: EVENTS.to_owned(),
                rtx: None,
                feedback: Vec::new(),
            })
        })
        .collect()
}
