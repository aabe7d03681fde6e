//! Which payload formats two sides share.

use std::cmp::Reverse;

use super::{Codec, MediaKind, Policy};
use crate::sdp::MediaDescription;
use crate::sdp::attributes::{RtpMap, fmtp_parameter, parse_fmtp, parse_rtcp_fb, payload_type_of};

/// RTCP feedback we can do; everything else a peer offers is left out.
pub(super) const FEEDBACK: [&str; 5] = ["nack", "nack pli", "ccm fir", "transport-cc", "goog-remb"];

/// Named in RFC 4733; always taken next to a codec, whatever the policy says.
pub(super) const TELEPHONE_EVENT: &str = "telephone-event";

/// Digits, `*`, `#`, A to D: what the switch reports.
pub(super) const EVENTS: &str = "0-15";

/// What we want to be sent: error correction against loss; mono, which is Opus' default, since
/// forwarded speech gains nothing from stereo (RFC 7587 §6.1).
pub(super) const OPUS_FMTP: &str = "minptime=10;useinbandfec=1";

/// Payload formats that are helpers of others and never counted as a codec.
const HELPERS: [&str; 6] = ["rtx", "red", "ulpfec", "flexfec-03", "CN", TELEPHONE_EVENT];

/// One payload format as the peer wrote it.
#[derive(Clone, Debug)]
pub(super) struct PeerFormat {
    pub payload_type: u8,
    pub name: String,
    pub clock_rate: u32,
    pub channels: u8,
    pub fmtp: String,
    pub feedback: Vec<String>,
    pub rtx: Option<u8>,
}

impl PeerFormat {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Static payload types (RFC 3551 §6) that may come without rtpmap.
fn static_map(payload_type: u8) -> Option<RtpMap> {
    let (name, clock_rate) = match payload_type {
        0 => ("PCMU", 8_000),
        3 => ("GSM", 8_000),
        4 => ("G723", 8_000),
        8 => ("PCMA", 8_000),
        // 8000 by an old mistake that became the rule (RFC 3551 §4.5.2); samples are 16 kHz.
        9 => ("G722", 8_000),
        13 => ("CN", 8_000),
        15 => ("G728", 8_000),
        18 => ("G729", 8_000),
        26 => ("JPEG", 90_000),
        31 => ("H261", 90_000),
        34 => ("H263", 90_000),
        _ => return None,
    };
    Some(RtpMap {
        payload_type,
        name: name.to_owned(),
        clock_rate,
        channels: 1,
    })
}

/// The formats of an m-line in the peer's order, rtx folded into the codec it belongs to. One pass over
/// the attributes, whatever the peer wrote how often.
pub(super) fn peer_formats(media: &MediaDescription) -> Vec<PeerFormat> {
    let mut maps: Vec<Option<RtpMap>> = (0..128).map(static_map).collect();
    let mut fmtps = [""; 128];
    let mut feedback: Vec<(Option<u8>, String)> = Vec::new();
    for (name, value) in media.section.attributes() {
        let value = value.unwrap_or_default();
        match name {
            "rtpmap" => {
                if let Some(map) = RtpMap::parse(value) {
                    let slot = usize::from(map.payload_type);
                    maps[slot] = Some(map);
                }
            }
            "fmtp" => {
                if let Some((payload_type, parameters)) = parse_fmtp(value) {
                    fmtps[usize::from(payload_type)] = parameters;
                }
            }
            "rtcp-fb" => feedback
                .extend(parse_rtcp_fb(value).filter(|(_, text)| FEEDBACK.contains(&text.as_str()))),
            _ => {}
        }
    }
    let mut formats: Vec<PeerFormat> = Vec::new();
    let mut retransmissions: Vec<(u8, u8)> = Vec::new();
    for payload_type in media.formats.iter().filter_map(|f| payload_type_of(f)) {
        let slot = usize::from(payload_type);
        // Taken, so that a format written twice counts once.
        let Some(map) = maps[slot].take() else {
            continue;
        };
        if map.name.eq_ignore_ascii_case("rtx") {
            let target = fmtp_parameter(fmtps[slot], "apt").and_then(payload_type_of);
            retransmissions.extend(target.map(|target| (target, payload_type)));
            continue;
        }
        let mut agreed: Vec<String> = Vec::new();
        for (_, text) in feedback
            .iter()
            .filter(|(pt, _)| pt.is_none_or(|pt| pt == payload_type))
        {
            if !agreed.contains(text) {
                agreed.push(text.clone());
            }
        }
        formats.push(PeerFormat {
            payload_type,
            name: map.name,
            clock_rate: map.clock_rate,
            channels: map.channels,
            fmtp: fmtps[slot].to_owned(),
            feedback: agreed,
            rtx: None,
        });
    }
    for (target, payload_type) in retransmissions {
        if let Some(format) = formats.iter_mut().find(|f| f.payload_type == target) {
            format.rtx.get_or_insert(payload_type);
        }
    }
    formats
}

/// What of an offer we take, in the order we print it: our preference between codecs, the peer's within
/// one.
pub(super) fn choose(
    kind: MediaKind,
    formats: &[PeerFormat],
    policy: &Policy,
    transport_cc: bool,
) -> Vec<Codec> {
    let mut chosen: Vec<Codec> = Vec::new();
    for name in policy.codecs(kind) {
        if name.eq_ignore_ascii_case(TELEPHONE_EVENT) {
            continue;
        }
        let fitting = formats.iter().filter(|f| f.is(name) && fits(kind, f));
        let fitting = match name.to_ascii_uppercase().as_str() {
            "H264" => best_h264(fitting),
            "VP9" => best_profile(fitting, "profile-id"),
            "AV1" => best_profile(fitting, "profile"),
            _ => fitting.take(1).collect(),
        };
        chosen.extend(
            fitting
                .into_iter()
                .map(|format| codec(name, kind, format, transport_cc)),
        );
    }
    if kind == MediaKind::Audio && !chosen.is_empty() {
        let events = events(formats, &chosen);
        chosen.extend(events);
    }
    chosen
}

/// Clock rate and channels as the codec's payload format demands.
fn fits(kind: MediaKind, format: &PeerFormat) -> bool {
    match kind {
        MediaKind::Video => format.clock_rate == 90_000,
        // RFC 7587 §7: always 48000/2, whatever is inside.
        MediaKind::Audio if format.is("opus") => {
            format.clock_rate == 48_000 && format.channels == 2
        }
        MediaKind::Audio => format.clock_rate == 8_000 && format.channels == 1,
    }
}

fn codec(name: &str, kind: MediaKind, format: &PeerFormat, transport_cc: bool) -> Codec {
    let mut feedback = format.feedback.clone();
    // Without the header extension there is nothing to feed back on.
    feedback.retain(|text| text != "transport-cc" || transport_cc);
    let nack = feedback.iter().any(|text| text == "nack");
    Codec {
        payload_type: format.payload_type,
        // Our spelling: names are compared without case, and nobody after this needs to.
        name: name.to_owned(),
        clock_rate: format.clock_rate,
        channels: match kind {
            MediaKind::Audio => format.channels,
            MediaKind::Video => 0,
        },
        fmtp: answer_fmtp(format),
        rtx: format.rtx.filter(|_| nack),
        feedback,
    }
}

fn answer_fmtp(format: &PeerFormat) -> String {
    let echo = |names: &[&str]| {
        names
            .iter()
            .filter_map(|name| Some(format!("{name}={}", fmtp_parameter(&format.fmtp, name)?)))
            .collect::<Vec<_>>()
            .join(";")
    };
    match format.name.to_ascii_lowercase().as_str() {
        "opus" => OPUS_FMTP.to_owned(),
        // Profile and mode must be the offer's; the level may differ only with asymmetry (RFC 6184 §8.2.2).
        // Media is forwarded as it comes, so the peer's own level is the one thing surely decodable there.
        "h264" => echo(&[
            "level-asymmetry-allowed",
            "packetization-mode",
            "profile-level-id",
        ]),
        "vp9" => echo(&["profile-id"]),
        "av1" => echo(&["level-idx", "profile", "tier"]),
        _ => String::new(),
    }
}

/// `profile_idc` of a profile-level-id; Baseline where it is not written (RFC 6184 §8.1).
fn h264_profile(fmtp: &str) -> u8 {
    fmtp_parameter(fmtp, "profile-level-id")
        .and_then(|id| u8::from_str_radix(id.get(..2)?, 16).ok())
        .unwrap_or(0x42)
}

fn h264_mode(fmtp: &str) -> u8 {
    fmtp_parameter(fmtp, "packetization-mode")
        .and_then(|mode| mode.parse().ok())
        .unwrap_or(0)
}

/// Baseline forms only where there are any, since everyone can decode those and nothing is transcoded;
/// packetization mode 1 first, since it alone can carry every size of frame.
fn best_h264<'a>(formats: impl Iterator<Item = &'a PeerFormat>) -> Vec<&'a PeerFormat> {
    let mut usable: Vec<_> = formats.filter(|f| h264_mode(&f.fmtp) < 2).collect();
    if usable.iter().any(|f| h264_profile(&f.fmtp) == 0x42) {
        usable.retain(|f| h264_profile(&f.fmtp) == 0x42);
    }
    usable.sort_by_key(|f| Reverse(h264_mode(&f.fmtp)));
    usable
}

/// The main profile (0), or else the first there is.
fn best_profile<'a>(
    formats: impl Iterator<Item = &'a PeerFormat>,
    parameter: &str,
) -> Vec<&'a PeerFormat> {
    let all: Vec<_> = formats.collect();
    let main = all
        .iter()
        .find(|f| fmtp_parameter(&f.fmtp, parameter).unwrap_or("0") == "0");
    main.or(all.first()).copied().into_iter().collect()
}

/// One telephone-event for each clock rate of the chosen codecs (RFC 4733 §2.1); a peer that offers only
/// others, such as 8000 next to Opus, gets its first one.
fn events(formats: &[PeerFormat], chosen: &[Codec]) -> Vec<Codec> {
    let offered: Vec<_> = formats.iter().filter(|f| f.is(TELEPHONE_EVENT)).collect();
    let mut rates: Vec<u32> = Vec::new();
    for codec in chosen {
        if !rates.contains(&codec.clock_rate) {
            rates.push(codec.clock_rate);
        }
    }
    let mut taken: Vec<_> = rates
        .iter()
        .filter_map(|rate| offered.iter().find(|f| f.clock_rate == *rate))
        .collect();
    if taken.is_empty() {
        taken.extend(offered.first());
    }
    taken
        .into_iter()
        .map(|format| Codec {
            payload_type: format.payload_type,
            name: TELEPHONE_EVENT.to_owned(),
            clock_rate: format.clock_rate,
            channels: 1,
            fmtp: EVENTS.to_owned(),
            rtx: None,
            feedback: Vec::new(),
        })
        .collect()
}

/// What of our offer an answer takes, in the answer's order (RFC 3264 §6.1: the first is the one to use).
pub(super) fn taken(offered: &[Codec], formats: &[PeerFormat]) -> Vec<Codec> {
    formats
        .iter()
        .filter_map(|format| {
            let same = |c: &&Codec| {
                format.is(&c.name)
                    && c.clock_rate == format.clock_rate
                    && c.channels.max(1) == format.channels
            };
            // The same number first: several forms of one codec differ only there.
            let ours = offered
                .iter()
                .filter(same)
                .find(|c| c.payload_type == format.payload_type)
                .or_else(|| offered.iter().find(same))?;
            let mut feedback = ours.feedback.clone();
            feedback.retain(|text| format.feedback.contains(text));
            Some(Codec {
                payload_type: format.payload_type,
                rtx: ours.rtx.and(format.rtx),
                feedback,
                ..ours.clone()
            })
        })
        .collect()
}

/// "no common audio codec: offered G729, iLBC; we speak opus, PCMU"
pub(super) fn nothing_in_common(
    kind: MediaKind,
    formats: &[PeerFormat],
    policy: &Policy,
) -> String {
    /// Names listed at most; the text goes into a header.
    const NAMES: usize = 12;
    let mut offered: Vec<String> = Vec::new();
    for format in formats {
        if HELPERS.iter().any(|helper| format.is(helper)) {
            continue;
        }
        let name = super::line::harmless(&format.name);
        if !offered.contains(&name) && offered.len() < NAMES {
            offered.push(name);
        }
    }
    if offered.is_empty() {
        offered.push("none".to_owned());
    }
    format!(
        "no common {} codec: offered {}; we speak {}",
        kind.as_str(),
        offered.join(", "),
        policy.codecs(kind).join(", ")
    )
}
