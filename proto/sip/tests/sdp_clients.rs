//! Offers of real clients, each answered as that client needs it.

mod sdp_common;

use sdp_common::{answered, answered_fixture, fixture, names};
use sip::offer_answer::{Direction, Plan, Policy, Security, SrtpSuite};
use sip::sdp::attributes::Candidate;

const LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

fn client_of(plan: &Plan, transport: usize) -> bool {
    match &plan.transports[transport].security {
        Security::Dtls { client, .. } => *client,
        other => panic!("DTLS, not {other:?}"),
    }
}

#[test]
fn baresip_plain_gets_two_ports_and_no_keys() {
    let Some((_, plan, ours)) = answered_fixture("baresip1.0-offer-plain.sdp") else {
        return;
    };
    assert_eq!(plan.transports.len(), 2);
    for (transport, port) in plan.transports.iter().zip([41_126, 41_146]) {
        assert_eq!(transport.security, Security::Plain);
        assert!(transport.ice.is_none() && !transport.rtcp_mux);
        assert_eq!(transport.remote, Some(("192.0.2.2".parse().unwrap(), port)));
        assert_eq!(transport.remote_rtcp_port, Some(port + 1));
    }
    let [audio, video] = &plan.media[..] else {
        panic!("two m-lines")
    };
    assert_eq!(
        names(audio),
        ["96 opus/48000", "0 PCMU/8000", "101 telephone-event/8000"]
    );
    assert_eq!(audio.codecs[0].fmtp, "minptime=10;useinbandfec=1");
    assert_eq!(audio.extensions, [(1, LEVEL.to_owned())]);
    assert_eq!(audio.ptime, Some(20));
    assert_eq!(audio.remote_ssrcs, [1_182_474_113]);
    // H.264 in packetization mode 1 goes before mode 0; H.263, MPEG-4 and H.265 are left out.
    assert_eq!(
        names(video),
        ["96 VP8/90000", "98 H264/90000", "97 H264/90000"]
    );
    assert_eq!(
        video.codecs[1].fmtp,
        "packetization-mode=1;profile-level-id=42e01f"
    );
    assert_eq!(video.codecs[0].feedback, ["nack pli"]);
    assert_eq!(ours.media[0].port, 40_000);
    assert_eq!(ours.media[0].section.attribute("rtcp"), Some("40001"));
    assert_eq!(ours.media[1].port, 40_002);
    assert_eq!(ours.media[0].protocol, "RTP/AVP");
    assert!(!ours.session.has("ice-lite") && !ours.session.has("group"));
    assert!(!ours.media[0].section.has("msid") && !ours.media[0].section.has("ssrc"));
}

#[test]
fn baresip_optional_crypto_is_taken_on_the_plain_profile() {
    let Some((_, plan, ours)) = answered_fixture("baresip1.0-offer-sdes.sdp") else {
        return;
    };
    let Security::Sdes {
        suite,
        tag,
        local_key,
        remote_key,
    } = &plan.transports[0].security
    else {
        panic!("SDES")
    };
    assert_eq!((*suite, *tag), (SrtpSuite::AesCm128HmacSha1_80, 1));
    assert_eq!((local_key.len(), remote_key.len()), (30, 30));
    assert_ne!(local_key, remote_key);
    assert_eq!(ours.media[0].protocol, "RTP/AVP");
    let crypto = ours.media[0].section.attribute("crypto").unwrap();
    assert!(crypto.starts_with("1 AES_CM_128_HMAC_SHA1_80 inline:"));
    let keys: Vec<_> = ours
        .media
        .iter()
        .map(|m| m.section.attribute("crypto"))
        .collect();
    assert_ne!(keys[0], keys[1], "each transport has its own key");
}

#[test]
fn baresip_dtls_takes_session_level_keys_and_rtcp_candidates() {
    let Some((_, plan, ours)) = answered_fixture("baresip1.0-offer-dtlsice.sdp") else {
        return;
    };
    assert_eq!(plan.transports.len(), 2, "no BUNDLE");
    for transport in &plan.transports {
        let ice = transport.ice.as_ref().expect("session-level ICE");
        assert_eq!(ice.remote_ufrag, "YrkaKHK");
        assert!(!transport.rtcp_mux);
        let Security::Dtls {
            remote_fingerprints,
            client,
        } = &transport.security
        else {
            panic!("DTLS")
        };
        assert_eq!(remote_fingerprints[0].0, "sha-256");
        assert_eq!(remote_fingerprints[0].1[..2], [0xFC, 0xFC]);
        assert!(!client);
    }
    let candidates: Vec<Candidate> = ours.media[0]
        .section
        .all("candidate")
        .map(|c| Candidate::parse(c).unwrap())
        .collect();
    let summary: Vec<_> = candidates
        .iter()
        .map(|c| (c.component, c.host.as_str(), c.port))
        .collect();
    assert_eq!(
        summary,
        [
            (1, "198.51.100.1", 40_000),
            (2, "198.51.100.1", 40_001),
            (1, "2001:db8::1", 40_000),
            (2, "2001:db8::1", 40_001),
        ]
    );
    assert!(candidates.windows(2).all(|w| w[0].priority > w[1].priority));
    assert_eq!(candidates[0].priority, 2_130_706_431);
    assert_eq!(ours.media[1].section.all("candidate").count(), 4);
    assert_eq!(ours.media[0].section.attribute("setup"), Some("passive"));
    assert_eq!(ours.media[0].section.attribute("rtcp"), Some("40001"));
    assert!(ours.session.has("ice-lite"));
    assert!(ours.media[0].section.has("end-of-candidates"));
}

#[test]
fn linphone_plain_keeps_avp_and_does_ice() {
    let Some((_, plan, ours)) = answered_fixture("linphone5.1-offer-plain.sdp") else {
        return;
    };
    assert_eq!(plan.transports.len(), 2);
    assert_eq!(plan.transports[0].security, Security::Plain);
    let ice = plan.transports[0].ice.as_ref().unwrap();
    assert_eq!(ice.remote_ufrag, "6f2d8f6f");
    assert_eq!(
        names(&plan.media[0]),
        [
            "96 opus/48000",
            "0 PCMU/8000",
            "8 PCMA/8000",
            "99 telephone-event/48000",
            "101 telephone-event/8000"
        ]
    );
    assert_eq!(plan.media[1].codecs[0].feedback, ["nack pli", "ccm fir"]);
    assert!(plan.media[0].extensions.is_empty());
    assert_eq!(ours.media[1].protocol, "RTP/AVP");
    assert_eq!(ours.media[1].formats, ["96"]);
    assert_eq!(ours.media[0].section.all("candidate").count(), 4);
}

#[test]
fn linphone_sdes_gets_the_strongest_suite_both_have() {
    let Some((_, plan, ours)) = answered_fixture("linphone5.1-offer-sdes.sdp") else {
        return;
    };
    for transport in &plan.transports {
        assert!(matches!(
            transport.security,
            Security::Sdes {
                suite: SrtpSuite::AesCm128HmacSha1_80,
                tag: 1,
                ..
            }
        ));
    }
    assert_eq!(ours.media[0].protocol, "RTP/SAVP");
    assert!(ours.media[0].section.has("crypto"));
}

#[test]
fn linphone_sdes_can_be_asked_for_the_short_tag() {
    let Some(offer) = fixture("linphone5.1-offer-sdes.sdp") else {
        return;
    };
    let policy = Policy {
        suites: vec![SrtpSuite::AesCm128HmacSha1_32],
        ..Policy::default()
    };
    let (plan, ours) = answered(&offer, &policy, None).unwrap();
    assert!(matches!(
        plan.transports[0].security,
        Security::Sdes { tag: 2, .. }
    ));
    let crypto = ours.media[0].section.attribute("crypto").unwrap();
    assert!(crypto.starts_with("2 AES_CM_128_HMAC_SHA1_32 "));
}

#[test]
fn linphone_dtls_keeps_savp_without_f_and_two_transports() {
    let Some((_, plan, ours)) = answered_fixture("linphone5.1-offer-dtls.sdp") else {
        return;
    };
    assert_eq!(plan.transports.len(), 2);
    assert!(plan.bundle.is_empty());
    for (transport, media) in plan.transports.iter().zip(&ours.media) {
        assert!(!client_of(&plan, transport.index));
        assert!(transport.ice.is_some() && !transport.rtcp_mux);
        assert_eq!(media.protocol, "UDP/TLS/RTP/SAVP");
        assert_eq!(media.section.attribute("setup"), Some("passive"));
        assert!(!media.section.has("rtcp-mux"));
        assert!(
            media
                .section
                .attribute("fingerprint")
                .unwrap()
                .starts_with("sha-256 00:01:02:")
        );
        assert!(!media.section.has("msid"), "no mid, no msid");
    }
    assert_eq!(
        plan.transports[0].remote_rtcp_port,
        Some(43_001),
        "RTCP one above RTP"
    );
}

/// What every bundled browser offer shares.
fn assert_one_bundle(plan: &Plan, mids: &[&str]) {
    assert_eq!(plan.transports.len(), 1);
    assert_eq!(plan.bundle, mids);
    let transport = &plan.transports[0];
    assert!(transport.rtcp_mux && transport.remote_rtcp_port.is_none());
    let ice = transport.ice.as_ref().unwrap();
    assert_eq!((ice.local_ufrag.len(), ice.local_pwd.len()), (8, 24));
    assert!(!client_of(plan, 0));
    assert!(plan.accepted().all(|media| media.transport == 0));
}

fn assert_chromium_av(name: &str) {
    let Some((_, plan, ours)) = answered_fixture(name) else {
        return;
    };
    assert_one_bundle(&plan, &["0", "1"]);
    let [audio, video] = &plan.media[..] else {
        panic!("two m-lines")
    };
    assert_eq!(
        names(audio),
        [
            "111 opus/48000",
            "9 G722/8000",
            "0 PCMU/8000",
            "8 PCMA/8000",
            "110 telephone-event/48000",
            "126 telephone-event/8000"
        ]
    );
    // Transport-wide congestion control is not in the policy, so neither is its feedback.
    assert!(audio.codecs[0].feedback.is_empty());
    let extensions = [(1, LEVEL), (2, SEND_TIME), (4, MID)].map(|(id, uri)| (id, uri.to_owned()));
    assert_eq!(audio.extensions, extensions);
    assert_eq!(
        names(video),
        [
            "96 VP8/90000",
            "98 VP9/90000",
            "102 H264/90000",
            "108 H264/90000",
            "104 H264/90000",
            "114 H264/90000",
            "45 AV1/90000"
        ]
    );
    let rtx: Vec<_> = video.codecs.iter().filter_map(|c| c.rtx).collect();
    assert_eq!(rtx, [97, 99, 103, 109, 107, 115, 46]);
    assert_eq!(
        video.codecs[0].feedback,
        ["goog-remb", "ccm fir", "nack", "nack pli"]
    );
    assert_eq!(video.codecs[1].fmtp, "profile-id=0");
    assert_eq!(
        video.codecs[2].fmtp,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"
    );
    assert_eq!(video.codecs[6].fmtp, "level-idx=5;profile=0;tier=0");
    assert_eq!((audio.remote_ssrcs.len(), video.remote_ssrcs.len()), (1, 1));
    assert_eq!(video.remote_rtx_ssrcs.len(), 1);
    assert!(audio.rtcp_rsize && video.rtcp_rsize);

    let section = &ours.media[1].section;
    assert_eq!(section.attribute("mid"), Some("1"));
    assert_eq!(section.attribute("msid"), Some("slot0 video0"));
    assert!(section.has("rtcp-mux") && section.has("rtcp-rsize") && section.has("ice-ufrag"));
    let group = format!("FID {} {}", video.ssrc, video.rtx_ssrc.unwrap());
    assert_eq!(section.attribute("ssrc-group"), Some(group.as_str()));
    assert_eq!(section.all("ssrc").count(), 2);
    assert!(section.all("fmtp").any(|f| f == "97 apt=96"));
    for helper in ["red/", "ulpfec/", "CN/"] {
        assert!(!ours.to_string().contains(helper));
    }
    assert!(ours.session.has("ice-lite"));
    assert_eq!(ours.session.attribute("group"), Some("BUNDLE 0 1"));
    let candidates: Vec<_> = ours
        .media
        .iter()
        .map(|m| m.section.all("candidate").count())
        .collect();
    assert_eq!(
        candidates,
        [2, 0],
        "candidates stand at the tagged line only"
    );
    assert_eq!(ours.media[0].port, ours.media[1].port);
}

#[test]
fn chromium_audio_and_video_share_one_transport() {
    assert_chromium_av("chromium156-offer-av.sdp");
}

#[test]
fn chromium_with_jssip_is_answered_like_chromium() {
    assert_chromium_av("chromium156-jssip-invite.sdp");
}

#[test]
fn chromium_simulcast_is_taken_as_one_layer() {
    let Some((offer, plan, ours)) = answered_fixture("chromium156-offer-simulcast.sdp") else {
        return;
    };
    assert!(offer.media[1].section.has("simulcast"));
    assert_one_bundle(&plan, &["0", "1"]);
    assert_eq!(plan.media[1].direction, Direction::RecvOnly);
    assert_eq!(
        plan.media[1].ssrc, 0,
        "no slot where the peer does not listen"
    );
    assert!(!ours.media[1].section.has("ssrc") && !ours.media[1].section.has("msid"));
    assert!(
        plan.media[1]
            .extensions
            .iter()
            .any(|(id, uri)| *id == 12 && uri.contains("dependency-descriptor"))
    );
}

#[test]
fn chromium_recvonly_lines_become_slots_and_data_is_refused() {
    let Some((_, plan, ours)) = answered_fixture("chromium156-offer-recvonly-data.sdp") else {
        return;
    };
    assert_one_bundle(&plan, &["0", "1", "2", "3"]);
    let slots: Vec<_> = plan.media[..4]
        .iter()
        .map(|m| (m.direction, m.slot))
        .collect();
    assert_eq!(
        slots,
        [
            (Direction::SendOnly, 0),
            (Direction::SendOnly, 1),
            (Direction::SendOnly, 2),
            (Direction::SendOnly, 0),
        ]
    );
    let mut ssrcs: Vec<_> = plan.media[..4].iter().map(|m| m.ssrc).collect();
    ssrcs.sort_unstable();
    ssrcs.dedup();
    assert_eq!(ssrcs.len(), 4);
    assert_eq!(
        ours.media[2].section.attribute("msid"),
        Some("slot2 video2")
    );
    let data = &ours.media[4];
    assert_eq!((data.kind.as_str(), data.port), ("application", 0));
    assert_eq!(data.protocol, "UDP/DTLS/SCTP");
    assert_eq!(data.formats, ["webrtc-datachannel"]);
    assert_eq!(data.mid(), Some("4"));
}

#[test]
fn chromium_lines_beyond_the_slots_are_refused() {
    let Some(offer) = fixture("chromium156-offer-recvonly-data.sdp") else {
        return;
    };
    let (plan, _) = answered(&offer, &Policy::default(), None).unwrap();
    let rejected: Vec<_> = plan.media.iter().map(|m| m.rejected).collect();
    assert_eq!(rejected, [false, true, true, false, true]);
    assert_eq!(plan.bundle, ["0", "3"]);
}

#[test]
fn chromium_audio_stays_when_its_bundle_tag_is_refused() {
    let Some(offer) = fixture("chromium156-offer-recvonly-data.sdp") else {
        return;
    };
    let policy = Policy {
        video_slots: 0,
        ..Policy::default()
    };
    let (plan, ours) = answered(&offer, &policy, None).unwrap();
    assert_one_bundle(&plan, &["3"]);
    assert_eq!(ours.media[3].section.all("candidate").count(), 2);
    assert_eq!(
        plan.transports[0].remote,
        Some(("192.0.2.2".parse().unwrap(), 51_090)),
        "the offerer-tagged line describes the transport"
    );
}

#[test]
fn firefox_with_mdns_names_and_port_9_has_no_address_yet() {
    let Some((_, plan, ours)) = answered_fixture("firefox153-offer-offer.sdp") else {
        return;
    };
    assert_one_bundle(&plan, &["0", "1"]);
    assert_eq!(plan.transports[0].remote, None);
    assert_eq!(
        plan.media[0].direction,
        Direction::SendRecv,
        "0.0.0.0 with ICE is no hold"
    );
    assert_eq!(
        names(&plan.media[0]),
        [
            "109 opus/48000",
            "9 G722/8000",
            "0 PCMU/8000",
            "8 PCMA/8000",
            "101 telephone-event/8000"
        ]
    );
    assert_eq!(
        names(&plan.media[1]),
        ["120 VP8/90000", "121 VP9/90000", "99 AV1/90000"]
    );
    let rtx: Vec<_> = plan.media[1].codecs.iter().filter_map(|c| c.rtx).collect();
    assert_eq!(rtx, [124, 125, 100]);
    assert!(
        ours.media[0]
            .section
            .all("rtpmap")
            .any(|m| m == "9 G722/8000")
    );
    assert!(matches!(
        &plan.transports[0].security,
        Security::Dtls { remote_fingerprints, .. } if remote_fingerprints[0].1[0] == 0x65
    ));
}

#[test]
fn firefox_bundle_only_lines_with_port_zero_are_taken() {
    let Some((offer, plan, ours)) = answered_fixture("firefox153-offer-recvonly.sdp") else {
        return;
    };
    assert_eq!((offer.media[1].port, offer.media[2].port), (0, 0));
    assert_one_bundle(&plan, &["0", "1", "2", "3"]);
    assert!(ours.media[..4].iter().all(|m| m.port == 40_000));
    assert_eq!(ours.media[4].port, 0);
    assert_eq!(plan.media[2].slot, 2);
}

#[test]
fn firefox_simulcast_is_taken_as_one_layer_with_one_way_extensions_turned_round() {
    let Some((_, plan, ours)) = answered_fixture("firefox153-offer-simulcast.sdp") else {
        return;
    };
    assert_one_bundle(&plan, &["0", "1"]);
    let video = &plan.media[1];
    assert_eq!(
        video.remote_ssrcs,
        [327_933_735, 2_652_559_314, 2_301_487_322]
    );
    assert_eq!(
        video.remote_rtx_ssrcs,
        [2_183_561_899, 537_815_282, 319_077_474]
    );
    let extmap: Vec<_> = ours.media[1].section.all("extmap").collect();
    assert!(extmap.contains(
        &"8/recvonly https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
    ));
}

#[test]
fn aiortc_video_sender_is_answered_with_recvonly() {
    let Some((_, plan, ours)) = answered_fixture("aiortc1.16-offer.sdp") else {
        return;
    };
    assert_one_bundle(&plan, &["0"]);
    let video = &plan.media[0];
    assert_eq!(video.direction, Direction::RecvOnly);
    assert_eq!(
        names(video),
        ["97 VP8/90000", "99 H264/90000", "101 H264/90000"]
    );
    assert_eq!(video.remote_ssrcs, [1_683_076_943]);
    assert_eq!(video.remote_rtx_ssrcs, [3_803_320_090]);
    let Security::Dtls {
        remote_fingerprints,
        ..
    } = &plan.transports[0].security
    else {
        panic!("DTLS")
    };
    let algorithms: Vec<_> = remote_fingerprints.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(algorithms, ["sha-256", "sha-384", "sha-512"]);
    assert!(
        !ours.media[0].section.has("rtcp-rsize"),
        "it did not offer it"
    );
}

#[test]
fn every_captured_offer_is_answered_the_same_twice() {
    let Some(folder) = sdp_common::shared("sdp") else {
        return;
    };
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.contains("-answer") && name.ends_with(".sdp") {
            let (offer, plan, _) = answered_fixture(&name).unwrap();
            let policy = Policy {
                video_slots: 3,
                ..Policy::default()
            };
            let (again, _) = answered(&offer, &policy, Some(&plan)).unwrap();
            assert_eq!(again, plan, "{name}: a refresh changes nothing");
            let stored = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&stored).unwrap(), plan);
            count += 1;
        }
    }
    assert!(count >= 14, "only {count} captures");
}
