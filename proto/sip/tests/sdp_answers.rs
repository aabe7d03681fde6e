//! Answers, one rule each, on offers written for it.

mod sdp_common;

use sdp_common::{answered, names, sdp};
use sip::offer_answer::{Direction, MediaPlan, Plan, Policy, Security, SrtpSuite, Unacceptable};
use sip::sdp::SessionDescription;

const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
const PHONE: &str = "m=audio 4000 RTP/AVP 0 8\r\n";
const PHONE_VIDEO: &str = "m=video 4002 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n";
const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
const GCM_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const GCM256_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const FINGERPRINT: &str = "a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:\
    10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n";

fn offer(media: &str) -> SessionDescription {
    sdp(&format!("{HEAD}{media}"))
}

fn take(media: &str) -> (Plan, SessionDescription) {
    answered(&offer(media), &Policy::default(), None).expect("agreed")
}

fn retake(media: &str, previous: &Plan) -> (Plan, SessionDescription) {
    answered(&offer(media), &Policy::default(), Some(previous)).expect("agreed")
}

fn refusal(media: &str) -> String {
    answered(&offer(media), &Policy::default(), None)
        .expect_err("refused")
        .to_string()
}

/// A browser's m-line.
fn web(kind: &str, mid: &str, port: u16, more: &str) -> String {
    let codec = if kind == "audio" {
        "opus/48000/2"
    } else {
        "VP8/90000"
    };
    format!(
        "m={kind} {port} UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 {codec}\r\na=mid:{mid}\r\na=rtcp-mux\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n{FINGERPRINT}{more}"
    )
}

fn bundled(mids: &str, media: &[String]) -> String {
    format!("a=group:BUNDLE {mids}\r\n{}", media.concat())
}

fn slots(plan: &Plan) -> Vec<(Direction, usize, bool)> {
    plan.media
        .iter()
        .map(|m: &MediaPlan| (m.direction, m.slot, m.has_slot()))
        .collect()
}

// ---- codecs

#[test]
fn static_payload_types_need_no_rtpmap() {
    let (plan, ours) = take("m=audio 4000 RTP/AVP 8 9 0\r\n");
    assert_eq!(
        names(&plan.media[0]),
        ["9 G722/8000", "0 PCMU/8000", "8 PCMA/8000"]
    );
    assert!(
        ours.media[0]
            .section
            .all("rtpmap")
            .any(|m| m == "9 G722/8000")
    );
}

#[test]
fn no_common_codec_says_what_either_side_speaks() {
    let text = refusal(
        "m=audio 4000 RTP/AVP 18 97 101\r\na=rtpmap:97 iLBC/8000\r\na=rtpmap:101 telephone-event/8000\r\n",
    );
    assert_eq!(
        text,
        "no common audio codec: offered G729, iLBC; we speak opus, G722, PCMU, PCMA"
    );
}

#[test]
fn texts_of_refusals_hold_no_quotes_and_stay_short() {
    let name = format!("<\"\\{}", "é\u{1}x".repeat(500));
    let mut media = "m=audio 4000 RTP/AVP".to_owned();
    let mut maps = String::new();
    for payload_type in 96..128 {
        media += &format!(" {payload_type}");
        maps += &format!("a=rtpmap:{payload_type} {payload_type}{name}/8000\r\n");
    }
    let text = refusal(&format!("{media}\r\n{maps}"));
    assert!(text.is_ascii() && !text.contains(['"', '\\', '\u{1}']));
    assert!(text.len() < 600, "{text}");
}

#[test]
fn one_line_without_common_codec_is_rejected_with_its_formats_echoed() {
    let (plan, ours) = take(&format!("{PHONE}m=video 4002 RTP/AVP 31 34\r\na=mid:v\r\n"));
    assert!(plan.media[1].rejected);
    assert_eq!(
        ours.media[1].to_string(),
        "m=video 0 RTP/AVP 31 34\r\na=mid:v\r\na=inactive\r\n"
    );
}

#[test]
fn telephone_event_is_taken_for_each_clock_rate_in_use() {
    let events = "a=rtpmap:100 telephone-event/16000\r\na=rtpmap:101 telephone-event/8000\r\n\
                  a=rtpmap:102 telephone-event/48000\r\na=fmtp:101 0-16\r\n";
    let (plan, ours) = take(&format!("m=audio 4000 RTP/AVP 0 100 101 102\r\n{events}"));
    assert_eq!(
        names(&plan.media[0]),
        ["0 PCMU/8000", "101 telephone-event/8000"]
    );
    assert!(ours.media[0].section.all("fmtp").any(|f| f == "101 0-15"));
    let both = format!("m=audio 4000 RTP/AVP 96 0 101 102\r\na=rtpmap:96 opus/48000/2\r\n{events}");
    let (plan, _) = take(&both);
    assert_eq!(plan.media[0].codecs.len(), 4);
}

#[test]
fn telephone_event_alone_is_no_codec() {
    let text = refusal("m=audio 4000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\n");
    assert!(text.starts_with("no common audio codec: offered none;"));
}

#[test]
fn opus_is_48000_with_two_channels_or_nothing() {
    let (plan, ours) = take(
        "m=audio 4000 RTP/AVP 96 97 98\r\na=rtpmap:96 opus/48000\r\na=rtpmap:97 opus/16000/2\r\n\
         a=rtpmap:98 OPUS/48000/2\r\na=fmtp:98 stereo=1;maxaveragebitrate=20000;cbr=1\r\n",
    );
    assert_eq!(names(&plan.media[0]), ["98 opus/48000"]);
    assert_eq!(
        ours.media[0].section.attribute("fmtp"),
        Some("98 minptime=10;useinbandfec=1"),
        "mono is the default, so stereo is not asked for"
    );
}

#[test]
fn red_comfort_noise_and_fec_are_left_out() {
    let (plan, _) = take(
        "m=audio 4000 RTP/AVP 63 13 96 0\r\na=rtpmap:63 red/48000/2\r\na=rtpmap:96 ulpfec/8000\r\n",
    );
    assert_eq!(names(&plan.media[0]), ["0 PCMU/8000"]);
}

#[test]
fn h264_keeps_baseline_and_puts_mode_1_first() {
    let (plan, _) = take(
        "m=video 4002 RTP/AVP 96 97 98 99 100\r\na=rtpmap:96 H264/90000\r\n\
         a=rtpmap:97 H264/90000\r\na=fmtp:97 packetization-mode=1;profile-level-id=640028\r\n\
         a=rtpmap:98 h264/90000\r\na=fmtp:98 profile-level-id=42e01f; packetization-mode=1\r\n\
         a=rtpmap:99 H264/90000\r\na=fmtp:99 packetization-mode=2\r\n",
    );
    let video = &plan.media[0];
    assert_eq!(names(video), ["98 H264/90000", "96 H264/90000"]);
    assert_eq!(
        video.codecs[0].fmtp,
        "packetization-mode=1;profile-level-id=42e01f"
    );
    assert_eq!(video.codecs[1].fmtp, "");
}

#[test]
fn h264_high_profile_is_better_than_no_video() {
    let (plan, _) = take(
        "m=video 4002 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n\
         a=fmtp:97 packetization-mode=1;profile-level-id=640028\r\n",
    );
    assert_eq!(names(&plan.media[0]), ["97 H264/90000"]);
}

#[test]
fn vp9_takes_profile_0_wherever_it_stands() {
    let (plan, ours) = take(
        "m=video 4002 RTP/AVP 100 98\r\na=rtpmap:100 VP9/90000\r\na=fmtp:100 profile-id=2\r\n\
         a=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\n",
    );
    assert_eq!(names(&plan.media[0]), ["98 VP9/90000"]);
    assert_eq!(
        ours.media[0].section.attribute("fmtp"),
        Some("98 profile-id=0")
    );
}

#[test]
fn rtx_goes_with_its_codec_and_only_with_nack() {
    let video = |feedback: &str| {
        format!(
            "m=video 4002 RTP/AVPF 97 96 98 99\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96;rtx-time=200\r\n\
             a=rtpmap:96 VP8/90000\r\n{feedback}a=rtpmap:98 rtx/90000\r\na=fmtp:98 apt=55\r\n\
             a=rtpmap:99 rtx/90000\r\n"
        )
    };
    let (plan, ours) = take(&video("a=rtcp-fb:96 nack\r\n"));
    assert_eq!(plan.media[0].codecs[0].rtx, Some(97));
    assert!(plan.media[0].rtx_ssrc.is_some());
    assert_eq!(ours.media[0].formats, ["96", "97"]);
    let (plan, _) = take(&video("a=rtcp-fb:* nack pli\r\n"));
    assert_eq!(
        (plan.media[0].codecs[0].rtx, plan.media[0].rtx_ssrc),
        (None, None)
    );
}

#[test]
fn transport_cc_feedback_needs_its_extension() {
    let uri = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    let media = web(
        "audio",
        "0",
        9,
        &format!("a=extmap:3 {uri}\r\na=rtcp-fb:96 transport-cc\r\n"),
    );
    let (plan, _) = take(&media);
    assert!(plan.media[0].codecs[0].feedback.is_empty());
    let policy = Policy {
        extensions: vec![uri.to_owned()],
        ..Policy::default()
    };
    let (plan, ours) = answered(&offer(&media), &policy, None).unwrap();
    assert_eq!(plan.media[0].codecs[0].feedback, ["transport-cc"]);
    assert_eq!(plan.media[0].extensions, [(3, uri.to_owned())]);
    assert!(ours.media[0].section.has("rtcp-fb"));
}

#[test]
fn mixed_forms_of_header_extensions_are_agreed_or_their_high_ids_left_out() {
    let level = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
    let mid = "urn:ietf:params:rtp-hdrext:sdes:mid";
    let lines = format!("a=extmap:3 {level}\r\na=extmap:20 {mid}\r\n");
    let (plan, ours) = take(&web("audio", "0", 9, &lines));
    assert_eq!(plan.media[0].extensions, [(3, level.to_owned())]);
    assert!(!ours.media[0].section.has("extmap-allow-mixed"));
    let lines = format!("{lines}a=extmap-allow-mixed\r\n");
    let (plan, ours) = take(&web("audio", "0", 9, &lines));
    assert_eq!(plan.media[0].extensions.len(), 2);
    assert!(ours.media[0].section.has("extmap-allow-mixed"));
}

#[test]
fn bandwidth_and_packet_time_are_read() {
    let (plan, ours) = take("m=audio 4000 RTP/AVP 0\r\nb=AS:80\r\na=ptime:30\r\n");
    assert_eq!(
        (plan.media[0].bandwidth, plan.media[0].ptime),
        (Some(80_000), Some(30))
    );
    assert_eq!(ours.media[0].section.attribute("ptime"), Some("30"));
    let (plan, _) = take("m=audio 4000 RTP/AVP 0\r\nb=TIAS:64000\r\nb=AS:80\r\na=ptime:0\r\n");
    assert_eq!(
        (plan.media[0].bandwidth, plan.media[0].ptime),
        (Some(64_000), None)
    );
}

// ---- keys

#[test]
fn gcm_is_chosen_before_aes_cm_wherever_it_stands() {
    let (plan, ours) = take(&format!(
        "m=audio 4000 RTP/SAVPF 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n\
         a=crypto:7 AEAD_AES_256_GCM inline:{GCM256_KEY}\r\na=crypto:9 AEAD_AES_128_GCM inline:{GCM_KEY}\r\n"
    ));
    let Security::Sdes {
        suite,
        tag,
        local_key,
        ..
    } = &plan.transports[0].security
    else {
        panic!("SDES")
    };
    assert_eq!(
        (*suite, *tag, local_key.len()),
        (SrtpSuite::AeadAes128Gcm, 9, 28)
    );
    assert_eq!(ours.media[0].protocol, "RTP/SAVPF");
    let (plan, _) = take(&format!(
        "m=audio 4000 RTP/SAVP 0\r\na=crypto:7 AEAD_AES_256_GCM inline:{GCM256_KEY}\r\n"
    ));
    assert!(matches!(
        &plan.transports[0].security,
        Security::Sdes { suite: SrtpSuite::AeadAes256Gcm, local_key, .. } if local_key.len() == 44
    ));
}

#[test]
fn a_key_of_the_wrong_length_is_no_key() {
    let text = refusal(&format!(
        "m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{GCM_KEY}\r\n\
         a=crypto:2 F8_128_HMAC_SHA1_80 inline:{KEY}\r\n"
    ));
    assert_eq!(
        text,
        "no usable SRTP suite: offered AES_CM_128_HMAC_SHA1_80, F8_128_HMAC_SHA1_80; we speak \
         AEAD_AES_128_GCM, AEAD_AES_256_GCM, AES_CM_128_HMAC_SHA1_80, AES_CM_128_HMAC_SHA1_32"
    );
}

#[test]
fn savp_without_keys_is_refused_and_never_plain() {
    assert_eq!(
        refusal("m=audio 4000 RTP/SAVP 0\r\n"),
        "RTP/SAVP without a=crypto or a=fingerprint"
    );
    assert_eq!(
        refusal("m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\na=fingerprint:md5 00:01\r\n"),
        "UDP/TLS/RTP/SAVPF without a usable a=fingerprint"
    );
}

#[test]
fn rtp_savpf_with_fingerprint_is_dtls() {
    let (plan, ours) = take(&format!(
        "m=audio 4000 RTP/SAVPF 0\r\n{FINGERPRINT}a=setup:actpass\r\n"
    ));
    assert!(plan.transports[0].security.is_dtls());
    assert!(plan.transports[0].ice.is_none());
    assert_eq!(ours.media[0].protocol, "RTP/SAVPF");
    assert!(ours.media[0].section.has("fingerprint"));
}

#[test]
fn policy_can_demand_srtp() {
    let policy = Policy {
        require_srtp: true,
        ..Policy::default()
    };
    let refused = answered(&offer(PHONE), &policy, None).unwrap_err();
    assert_eq!(
        refused,
        Unacceptable::NotAcceptable(
            "unencrypted RTP/AVP offered, but this meeting takes only SRTP".to_owned()
        )
    );
    let keyed = format!("{PHONE}a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n");
    assert!(answered(&offer(&keyed), &policy, None).is_ok());
}

#[test]
fn setup_is_answered_with_the_other_role() {
    for (theirs, ours, client) in [
        ("actpass", "passive", false),
        ("active", "passive", false),
        ("passive", "active", true),
    ] {
        let media =
            web("audio", "0", 4000, "").replace("setup:actpass", &format!("setup:{theirs}"));
        let (plan, answer) = take(&media);
        assert_eq!(answer.media[0].section.attribute("setup"), Some(ours));
        assert!(
            matches!(plan.transports[0].security, Security::Dtls { client: c, .. } if c == client)
        );
    }
}

#[test]
fn dtls_roles_stay_over_a_re_offer() {
    let passive = web("audio", "0", 4000, "").replace("setup:actpass", "setup:passive");
    let (first, _) = take(&passive);
    let (second, ours) = retake(&web("audio", "0", 4000, ""), &first);
    assert_eq!(ours.media[0].section.attribute("setup"), Some("active"));
    assert_eq!(second.transports, first.transports);
}

#[test]
fn unknown_transport_protocols_are_refused_by_name() {
    assert_eq!(
        refusal("m=audio 4000 TCP/RTP/AVP 0\r\n"),
        "transport TCP/RTP/AVP is not supported"
    );
    assert_eq!(
        refusal("m=image 4000 udptl t38\r\n"),
        "image is not supported"
    );
}

// ---- addresses and ICE

#[test]
fn rtcp_goes_where_the_peer_says_or_to_the_next_port() {
    let rtcp = |media: &str| take(media).0.transports[0].remote_rtcp_port;
    assert_eq!(rtcp(PHONE), Some(4001));
    assert_eq!(
        rtcp(&format!("{PHONE}a=rtcp:5005 IN IP4 192.0.2.1\r\n")),
        Some(5005)
    );
    assert_eq!(rtcp(&format!("{PHONE}a=rtcp-mux\r\n")), None);
    assert_eq!(rtcp("m=audio 65535 RTP/AVP 0\r\n"), None);
}

#[test]
fn ipv6_phone_gets_an_ipv6_address() {
    let (plan, ours) = take(&format!("{PHONE}c=IN IP6 2001:db8::5\r\n"));
    assert!(plan.transports[0].ipv6);
    assert_eq!(
        plan.transports[0].remote,
        Some(("2001:db8::5".parse().unwrap(), 4000))
    );
    assert_eq!(ours.session.line('c'), Some("IN IP6 2001:db8::1"));
}

#[test]
fn a_host_name_or_multicast_group_is_no_address() {
    for c in [
        "IN IP4 phone.example.com",
        "IN IP4 224.2.1.1/127",
        "IN IP6 ff15::101",
    ] {
        let (plan, _) = take(&format!("{PHONE}c={c}\r\n"));
        assert_eq!(plan.transports[0].remote, None, "{c}");
    }
}

#[test]
fn ice_works_without_any_candidate() {
    let (plan, ours) = take(&web(
        "audio",
        "0",
        9,
        "c=IN IP4 0.0.0.0\r\na=ice-options:trickle\r\n",
    ));
    let transport = &plan.transports[0];
    assert_eq!(transport.remote, None);
    assert_eq!(transport.ice.as_ref().unwrap().remote_ufrag, "abcd");
    assert_eq!(plan.media[0].direction, Direction::SendRecv);
    assert_eq!(ours.media[0].section.all("candidate").count(), 2);
}

#[test]
fn an_address_changed_on_the_way_turns_ice_off() {
    let candidate = |ip: &str, port: u16| format!("a=candidate:1 1 udp 1 {ip} {port} typ host\r\n");
    let ice = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    let changed = format!("{PHONE}{ice}{}", candidate("10.0.0.1", 7000));
    let (plan, ours) = take(&changed);
    assert!(plan.transports[0].ice.is_none());
    assert!(!ours.session.has("ice-lite") && !ours.media[0].section.has("candidate"));
    let kept = format!("{changed}{}", candidate("192.0.2.1", 4000));
    assert!(take(&kept).0.transports[0].ice.is_some());
    let trickled = format!("{changed}a=ice-options:trickle\r\n");
    assert!(take(&trickled).0.transports[0].ice.is_some());
    let named = format!("{PHONE}{ice}a=candidate:1 1 udp 1 x.local 7000 typ host\r\n");
    assert!(take(&named).0.transports[0].ice.is_some());
}

#[test]
fn two_lite_agents_use_the_signalled_address() {
    let (plan, ours) = take(&format!("a=ice-lite\r\n{}", web("audio", "0", 4000, "")));
    assert!(plan.transports[0].ice.is_none());
    assert!(plan.transports[0].security.is_dtls());
    assert_eq!(plan.transports[0].remote.unwrap().1, 4000);
    assert!(!ours.media[0].section.has("ice-ufrag"));
}

#[test]
fn chromium_that_offered_simulcast_keeps_the_extension_it_insists_on() {
    let rid = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
    let simulcast =
        format!("a=extmap:10 {rid}\r\na=rid:q send\r\na=rid:f send\r\na=simulcast:send q;f\r\n");
    let (plan, ours) = take(&web("video", "0", 9, &simulcast));
    assert_eq!(plan.media[0].extensions, [(10, rid.to_owned())]);
    assert!(!ours.media[0].section.has("rid") && !ours.media[0].section.has("simulcast"));
}

// ---- BUNDLE

#[test]
fn bundle_without_mux_is_not_bundled() {
    let audio = web("audio", "a", 4000, "").replace("a=rtcp-mux\r\n", "");
    let video = web("video", "v", 4002, "");
    let (plan, ours) = take(&bundled("a v", &[audio, video]));
    assert_eq!(plan.bundle, ["v"]);
    assert_eq!(plan.transports.len(), 2);
    assert_eq!(ours.session.attribute("group"), Some("BUNDLE v"));
}

#[test]
fn bundle_only_outside_of_a_group_is_rejected() {
    let only = web("video", "v", 0, "a=bundle-only\r\n");
    let (plan, _) = take(&format!("{}{only}", web("audio", "a", 4000, "")));
    assert!(plan.media[1].rejected);
}

#[test]
fn port_zero_in_a_group_without_bundle_only_is_switched_off() {
    let media = [web("audio", "a", 4000, ""), web("video", "v", 0, "")];
    let (plan, _) = take(&bundled("a v", &media));
    assert!(plan.media[1].rejected);
    assert_eq!(plan.bundle, ["a"]);
}

#[test]
fn the_tagged_line_describes_the_transport_of_all() {
    let bare =
        "m=video 4002 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=mid:v\r\na=rtcp-mux\r\n";
    let media = [web("audio", "a", 4000, ""), bare.to_owned()];
    let (plan, ours) = take(&bundled("a v", &media));
    assert_eq!((plan.transports.len(), plan.media[1].transport), (1, 0));
    assert!(!plan.media[1].rejected);
    assert!(ours.media[0].section.has("candidate") && !ours.media[1].section.has("candidate"));
}

#[test]
fn only_grouped_lines_share() {
    let media = [web("audio", "a", 4000, ""), web("video", "v", 4002, "")];
    let (plan, ours) = take(&media.concat());
    assert_eq!(plan.transports.len(), 2);
    assert!(plan.bundle.is_empty() && !ours.session.has("group"));
    assert!(ours.media.iter().all(|m| m.section.has("candidate")));
    let ufrags: Vec<_> = ours
        .media
        .iter()
        .map(|m| m.section.attribute("ice-ufrag"))
        .collect();
    assert_ne!(ufrags[0], ufrags[1]);
}

// ---- slots

#[test]
fn extra_recvonly_lines_become_slots_up_to_the_policy() {
    let listen = |mid: &str| web("audio", mid, 9, "a=recvonly\r\n");
    let media = [
        web("audio", "0", 9, ""),
        listen("1"),
        listen("2"),
        listen("3"),
    ];
    let (plan, _) = take(&bundled("0 1 2 3", &media));
    assert_eq!(
        slots(&plan)[..3],
        [
            (Direction::SendRecv, 0, true),
            (Direction::SendOnly, 1, true),
            (Direction::SendOnly, 2, true)
        ]
    );
    assert!(plan.media[3].rejected, "three audio slots");
}

#[test]
fn an_unreachable_line_takes_no_slot_from_the_others() {
    let keyless = "m=video 4000 RTP/SAVP 96\r\na=rtpmap:96 VP8/90000\r\n";
    let (plan, _) = take(&format!("{keyless}{PHONE_VIDEO}"));
    assert!(plan.media[0].rejected);
    assert_eq!(slots(&plan)[1], (Direction::SendRecv, 0, true));
}

#[test]
fn a_participant_publishes_on_its_first_sending_line_of_a_kind() {
    let media = [
        web("video", "0", 9, "a=sendonly\r\n"),
        web("video", "1", 9, ""),
    ];
    let (plan, _) = take(&bundled("0 1", &media));
    assert_eq!(
        slots(&plan),
        [
            (Direction::RecvOnly, 0, false),
            (Direction::SendOnly, 0, true)
        ]
    );
}

// ---- hold, re-offers

#[test]
fn hold_and_resume_keep_slot_and_ssrc() {
    let (first, _) = take(PHONE);
    assert_eq!(first.session_version, 1);
    let ssrc = first.media[0].ssrc;
    let (held, ours) = retake(&format!("{PHONE}a=sendonly\r\n"), &first);
    assert_eq!(held.media[0].direction, Direction::RecvOnly);
    assert!(ours.media[0].section.has("recvonly"));
    assert_eq!((held.media[0].ssrc, held.session_version), (ssrc, 2));
    let (inactive, _) = retake(&format!("{PHONE}a=inactive\r\n"), &held);
    assert_eq!(inactive.media[0].direction, Direction::Inactive);
    assert_eq!(inactive.session_version, 3);
    let (resumed, _) = retake(PHONE, &inactive);
    assert_eq!((resumed.media[0].ssrc, resumed.session_version), (ssrc, 4));
    assert_eq!(resumed.media, first.media);
    assert_eq!(resumed.transports, first.transports);
}

#[test]
fn hold_by_address_of_old_phones_is_hold() {
    let (first, _) = take(PHONE);
    let (held, ours) = retake(&format!("{PHONE}c=IN IP4 0.0.0.0\r\n"), &first);
    assert_eq!(held.media[0].direction, Direction::RecvOnly);
    assert_eq!(held.transports[0].remote, None);
    assert_ne!(ours.media[0].port, 0);
    assert_eq!(held.media[0].ssrc, first.media[0].ssrc);
}

#[test]
fn the_version_counts_only_when_the_print_differs() {
    let (first, _) = take(PHONE);
    // Only the peer's address moves: our text is the same.
    let (moved, ours) = retake("m=audio 6000 RTP/AVP 0 8\r\n", &first);
    assert_eq!(moved.session_version, 1);
    assert_eq!(moved.transports[0].remote.unwrap().1, 6000);
    assert_eq!(ours.origin().unwrap().session_version, "1");
    let (fewer, ours) = retake("m=audio 6000 RTP/AVP 0\r\n", &moved);
    assert_eq!(fewer.session_version, 2);
    assert_eq!(ours.origin().unwrap().session_version, "2");
    assert_eq!(fewer.session_id, first.session_id);
}

#[test]
fn video_added_removed_and_added_again_keeps_its_place() {
    let (audio, _) = take(PHONE);
    let (both, _) = retake(&format!("{PHONE}{PHONE_VIDEO}"), &audio);
    assert_eq!(both.media[0], audio.media[0]);
    assert_eq!(both.transports[0], audio.transports[0]);
    assert_eq!(both.media[1].transport, 1);
    let off = PHONE_VIDEO.replace("4002", "0");
    let (without, ours) = retake(&format!("{PHONE}{off}"), &both);
    assert_eq!(ours.media[1].port, 0);
    assert!(without.media[1].rejected);
    assert_eq!(without.transports.len(), 1, "its transport is gone");
    let (again, _) = retake(&format!("{PHONE}{PHONE_VIDEO}"), &without);
    assert_eq!(again.media[1].transport, 1);
    assert_ne!(again.media[1].ssrc, both.media[1].ssrc, "a new stream");
}

#[test]
fn the_last_transport_keeps_its_index_when_the_first_goes() {
    let (both, _) = take(&format!("{PHONE}{PHONE_VIDEO}"));
    let off = PHONE.replace("4000", "0");
    let (video, _) = retake(&format!("{off}{PHONE_VIDEO}"), &both);
    assert_eq!(video.media[1].transport, 1);
    assert_eq!(video.transports[1], both.transports[1]);
    let used: Vec<_> = video.transports_in_use().map(|t| t.index).collect();
    assert_eq!(used, [1]);
}

#[test]
fn transports_do_not_pile_up_over_many_re_offers() {
    let on = format!("{PHONE}{PHONE_VIDEO}");
    let no_audio = format!("{}{PHONE_VIDEO}", PHONE.replace("4000", "0"));
    let no_video = format!("{PHONE}{}", PHONE_VIDEO.replace("4002", "0"));
    let (mut plan, _) = take(&on);
    for _ in 0..20 {
        for media in [&no_audio, &on, &no_video, &on] {
            plan = retake(media, &plan).0;
            assert!(plan.transports.len() <= 3);
        }
    }
}

#[test]
fn a_switched_off_line_can_come_back_as_another_medium() {
    let off = PHONE_VIDEO.replace("4002", "0");
    let (first, _) = take(&format!("{PHONE}{off}"));
    let (second, _) = retake(
        &format!("{PHONE}m=audio 4002 RTP/AVP 8\r\na=recvonly\r\n"),
        &first,
    );
    assert_eq!(slots(&second)[1], (Direction::SendOnly, 1, true));
}

#[test]
fn lines_of_one_medium_never_change_places() {
    let video = |mid: &str| format!("{PHONE_VIDEO}a=mid:{mid}\r\n");
    let phone = format!("{PHONE}a=mid:0\r\n");
    let (two, _) = take(&format!("{phone}{}{}", video("1"), video("2")));
    let swapped = offer(&format!("{phone}{}{}", video("2"), video("1")));
    assert_eq!(
        answered(&swapped, &Policy::default(), Some(&two)).expect_err("refused"),
        Unacceptable::Violation("an m-line in use changed its place")
    );
    // Somebody else at the other end may call them what they like.
    retake(&format!("{phone}{}{}", video("a"), video("b")), &two);
}

#[test]
fn lines_are_never_removed_and_never_change_their_medium() {
    let (both, _) = take(&format!("{PHONE}{PHONE_VIDEO}"));
    let refuse = |media: &str| {
        answered(&offer(media), &Policy::default(), Some(&both)).expect_err("refused")
    };
    assert_eq!(
        refuse(PHONE),
        Unacceptable::Violation("m-lines were removed")
    );
    assert_eq!(
        refuse(&format!("{PHONE_VIDEO}{PHONE}")),
        Unacceptable::Violation("an m-line in use changed its media type")
    );
}

#[test]
fn two_lines_with_one_mid_break_the_rules() {
    let media = [web("audio", "a", 9, ""), web("video", "a", 9, "")];
    let refused = answered(&offer(&media.concat()), &Policy::default(), None).unwrap_err();
    assert_eq!(
        refused,
        Unacceptable::Violation("two m-lines with the same mid")
    );
}

#[test]
fn ice_restart_is_answered_with_new_credentials() {
    let (first, _) = take(&web("audio", "0", 9, ""));
    let (same, _) = retake(&web("audio", "0", 9, ""), &first);
    assert_eq!(same, first);
    let restart = web("audio", "0", 9, "").replace("ice-ufrag:abcd", "ice-ufrag:efgh");
    let (second, _) = retake(&restart, &first);
    let (old, new) = (
        first.transports[0].ice.as_ref().unwrap(),
        second.transports[0].ice.as_ref().unwrap(),
    );
    assert_ne!(old.local_ufrag, new.local_ufrag);
    assert_ne!(old.local_pwd, new.local_pwd);
    assert_eq!(new.remote_ufrag, "efgh");
    assert_eq!(second.media, first.media, "streams go on");
    assert_eq!(second.session_version, 2);
}

#[test]
fn sdes_key_of_ours_stays_while_the_suite_does() {
    let line = |suite: &str, key: &str| {
        format!("m=audio 4000 RTP/SAVP 0\r\na=crypto:1 {suite} inline:{key}\r\n")
    };
    let local = |plan: &Plan| match &plan.transports[0].security {
        Security::Sdes { local_key, .. } => local_key.clone(),
        other => panic!("SDES, not {other:?}"),
    };
    let (first, _) = take(&line("AES_CM_128_HMAC_SHA1_80", KEY));
    let rekeyed = KEY.replace("WVNf", "AAAA");
    let (second, _) = retake(&line("AES_CM_128_HMAC_SHA1_80", &rekeyed), &first);
    assert_eq!(local(&second), local(&first));
    assert_ne!(second.transports, first.transports, "the peer's key is new");
    let (third, _) = retake(&line("AEAD_AES_128_GCM", GCM_KEY), &second);
    assert_ne!(local(&third), local(&second));
}

#[test]
fn bundling_later_keeps_the_first_transport() {
    let media = [web("audio", "a", 4000, ""), web("video", "v", 4002, "")];
    let (apart, _) = take(&media.concat());
    let (together, _) = retake(&bundled("a v", &media), &apart);
    assert_eq!(together.transports, apart.transports[..1]);
    assert!(together.media.iter().all(|m| m.transport == 0));
    let (apart_again, _) = retake(&media.concat(), &together);
    assert_eq!(apart_again.transports[0], apart.transports[0]);
    assert_eq!(apart_again.media[1].transport, 1);
}

#[test]
fn all_switched_off_is_refused_with_words() {
    assert_eq!(
        refusal("m=audio 0 RTP/AVP 0\r\n"),
        "the offer switches off every medium"
    );
    assert_eq!(refusal(""), "the offer has no media");
}

#[test]
fn several_reasons_are_told_once_each() {
    let text = refusal(
        "m=audio 4000 RTP/AVP 18\r\nm=application 4002 UDP/DTLS/SCTP webrtc-datachannel\r\n\
         m=application 4004 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    );
    assert_eq!(
        text,
        "no common audio codec: offered G729; we speak opus, G722, PCMU, PCMA; application is not supported"
    );
}

#[test]
fn our_ssrcs_are_none_of_the_peers_and_all_different() {
    let listen = |mid: &str| web("audio", mid, 9, "a=recvonly\r\na=ssrc:1 cname:x\r\n");
    let (plan, _) = take(&bundled("0 1 2", &[listen("0"), listen("1"), listen("2")]));
    let mut ssrcs: Vec<_> = plan.media.iter().map(|m| m.ssrc).collect();
    ssrcs.sort_unstable();
    ssrcs.dedup();
    assert_eq!(ssrcs.len(), 3);
    assert!(!ssrcs.contains(&0) && !ssrcs.contains(&1));
}
