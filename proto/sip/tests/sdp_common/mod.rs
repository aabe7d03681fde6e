//! What the SDP tests share.
#![allow(dead_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sip::offer_answer::{
    Direction, LocalMedia, LocalTransport, MediaPlan, Plan, Policy, Random, Unacceptable, answer,
    describe,
};
use sip::sdp::attributes::{ExtMap, parse_group};
use sip::sdp::{MediaDescription, SessionDescription};

pub struct Seeded(ChaCha8Rng);

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

pub fn random(seed: u64) -> Seeded {
    Seeded(ChaCha8Rng::seed_from_u64(seed))
}

/// Captures of real clients, kept outside of the repository.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROSTRUM_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is missing",
        path.display()
    );
    eprintln!("skipped: {} is missing", path.display());
    None
}

pub fn fixture(name: &str) -> Option<SessionDescription> {
    let path = shared("sdp")?.join(name);
    let text = std::fs::read(&path).expect("the capture can be read");
    Some(SessionDescription::parse(&text).expect("a real client's SDP parses"))
}

pub fn sdp(text: &str) -> SessionDescription {
    SessionDescription::parse(text.as_bytes()).expect("the test's SDP parses")
}

/// A switch that listens on 198.51.100.1 and 2001:db8::1, RTP on 40000 + 2 x transport.
pub fn local(plan: &Plan) -> LocalMedia {
    let v4: IpAddr = "198.51.100.1".parse().unwrap();
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    LocalMedia {
        transports: plan
            .transports
            .iter()
            .map(|transport| {
                let port = 40_000 + 2 * u16::try_from(transport.index).unwrap();
                LocalTransport {
                    index: transport.index,
                    addresses: vec![(v4, port), (v6, port)],
                    rtcp_port: (!transport.rtcp_mux).then_some(port + 1),
                }
            })
            .collect(),
        fingerprints: vec![("sha-256".to_owned(), (0..32).collect())],
    }
}

pub fn answered(
    offer: &SessionDescription,
    policy: &Policy,
    previous: Option<&Plan>,
) -> Result<(Plan, SessionDescription), Unacceptable> {
    // Other numbers for each exchange, as in life.
    let seed = previous.map_or(1, |plan| plan.session_version + 100);
    let plan = answer(offer, policy, previous, &mut random(seed))?;
    let text = describe(&plan, &local(&plan), false).to_string();
    let ours = sdp(&text);
    assert_fits(offer, &ours, &plan);
    Ok((plan, ours))
}

/// Answers a captured offer under the default policy with three video slots.
pub fn answered_fixture(name: &str) -> Option<(SessionDescription, Plan, SessionDescription)> {
    let offer = fixture(name)?;
    let policy = Policy {
        video_slots: 3,
        ..Policy::default()
    };
    let (plan, ours) = answered(&offer, &policy, None).expect("a real client's offer is answered");
    Some((offer, plan, ours))
}

pub fn direction(sdp: &SessionDescription, media: &MediaDescription) -> Direction {
    media
        .section
        .attributes()
        .chain(sdp.session.attributes())
        .find_map(|(name, _)| Direction::parse(name))
        .unwrap_or(Direction::SendRecv)
}

/// What every answer owes to its offer (RFC 3264 §6, RFC 8843 §7.3, RFC 8285 §6).
pub fn assert_fits(offer: &SessionDescription, answer: &SessionDescription, plan: &Plan) {
    assert_eq!(offer.media.len(), answer.media.len(), "as many m-lines");
    let group = |sdp: &SessionDescription| -> Vec<String> {
        sdp.session
            .all("group")
            .filter_map(parse_group)
            .find(|(semantics, _)| *semantics == "BUNDLE")
            .map(|(_, mids)| mids.into_iter().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let bundled = group(answer);
    assert!(bundled.iter().all(|mid| group(offer).contains(mid)));
    for ((theirs, ours), media) in offer.media.iter().zip(&answer.media).zip(&plan.media) {
        assert_eq!(theirs.kind, ours.kind);
        assert_eq!(theirs.protocol, ours.protocol);
        assert_eq!(theirs.mid(), ours.mid());
        assert!(!ours.section.has("simulcast") && !ours.section.has("rid"));
        assert!(!ours.section.has("bundle-only"));
        if ours.port == 0 {
            assert!(media.rejected);
            assert_eq!(
                theirs.formats, ours.formats,
                "a rejected line echoes its formats"
            );
            assert!(
                ours.mid()
                    .is_none_or(|mid| !bundled.iter().any(|m| m == mid))
            );
            continue;
        }
        assert!(!media.rejected);
        assert!(theirs.port != 0 || theirs.section.has("bundle-only"));
        assert!(!ours.formats.is_empty());
        assert!(
            ours.formats.iter().all(|f| theirs.formats.contains(f)),
            "formats are a subset"
        );
        let (of_offer, of_answer) = (direction(offer, theirs), direction(answer, ours));
        assert!(!of_answer.sends() || of_offer.receives());
        assert!(!of_answer.receives() || of_offer.sends());
        for map in ours
            .section
            .all("extmap")
            .map(|v| ExtMap::parse(v).unwrap())
        {
            let same = offer
                .all_inherited(theirs, "extmap")
                .into_iter()
                .filter_map(ExtMap::parse)
                .any(|m| m.id == map.id && m.uri == map.uri);
            assert!(same, "an extension keeps the offer's id");
        }
        if ours.section.has("rtcp-mux") {
            assert!(theirs.section.has("rtcp-mux") || theirs.section.has("rtcp-mux-only"));
        }
        if let Some(setup) = ours.section.attribute("setup") {
            assert!(matches!(setup, "active" | "passive"));
        }
        assert_transport_exists(plan, media);
    }
}

fn assert_transport_exists(plan: &Plan, media: &MediaPlan) {
    let transport = &plan.transports[media.transport];
    assert_eq!(transport.index, media.transport);
}

pub fn names(media: &MediaPlan) -> Vec<String> {
    media
        .codecs
        .iter()
        .map(|c| format!("{} {}/{}", c.payload_type, c.name, c.clock_rate))
        .collect()
}
