//! Offers of ours, and what peers answer to them.

mod sdp_common;

use sdp_common::{assert_fits, fixture, local, names, random, sdp};
use sip::offer_answer::{
    Direction, OfferKind, Plan, Policy, Security, Unacceptable, accept_answer, answer, describe,
    offer,
};
use sip::sdp::SessionDescription;

const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
const FINGERPRINT: &str = "a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:\
    10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n";
const WEB: OfferKind = OfferKind::WebRtc {
    audio_slots: 3,
    video_slots: 1,
};

fn offered(kind: OfferKind, policy: &Policy) -> (Plan, SessionDescription) {
    let plan = offer(kind, policy, None, &mut random(1));
    let ours = describe(&plan, &local(&plan), true);
    (plan, sdp(&ours.to_string()))
}

fn phone(video: bool) -> (Plan, SessionDescription) {
    offered(OfferKind::Phone { video, ipv6: false }, &Policy::default())
}

fn accept(plan: &Plan, media: &str) -> Result<Plan, Unacceptable> {
    accept_answer(plan, &sdp(&format!("{HEAD}{media}")), &Policy::default())
}

fn refusal(plan: &Plan, media: &str) -> String {
    accept(plan, media).expect_err("refused").to_string()
}

/// A browser's answer to one line of [`WEB`].
fn web(kind: &str, mid: &str, more: &str) -> String {
    let map = match kind {
        "audio" => "96 opus/48000/2",
        _ => "99 VP8/90000",
    };
    let format = &map[..2];
    format!(
        "m={kind} 9 UDP/TLS/RTP/SAVPF {format}\r\na=rtpmap:{map}\r\na=mid:{mid}\r\na=rtcp-mux\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:active\r\n{FINGERPRINT}{more}"
    )
}

#[test]
fn offer_to_a_phone_is_plain_and_simple() {
    let (plan, ours) = phone(true);
    let [audio, video] = &ours.media[..] else {
        panic!("two m-lines")
    };
    assert_eq!(audio.protocol, "RTP/AVP");
    assert_eq!((audio.port, video.port), (40_000, 40_002));
    assert_eq!(
        names(&plan.media[0]),
        [
            "96 opus/48000",
            "9 G722/8000",
            "0 PCMU/8000",
            "8 PCMA/8000",
            "101 telephone-event/8000",
            "97 telephone-event/48000"
        ]
    );
    assert_eq!(
        names(&plan.media[1]),
        [
            "98 VP8/90000",
            "99 VP9/90000",
            "100 H264/90000",
            "102 AV1/90000"
        ]
    );
    for absent in [
        "rtcp-mux",
        "ice-ufrag",
        "fingerprint",
        "crypto",
        "mid",
        "extmap",
        "ssrc",
    ] {
        assert!(!audio.section.has(absent), "{absent}");
    }
    assert!(!ours.session.has("group") && !ours.session.has("ice-lite"));
    assert_eq!(audio.section.attribute("ptime"), Some("20"));
    assert!(audio.section.has("sendrecv"));
    assert!(video.section.all("rtpmap").all(|map| !map.contains("rtx")));
}

#[test]
fn offer_without_video_where_none_is_wanted() {
    assert_eq!(phone(false).1.media.len(), 1);
    let policy = Policy {
        video_slots: 0,
        ..Policy::default()
    };
    let (plan, _) = offered(
        OfferKind::Phone {
            video: true,
            ipv6: false,
        },
        &policy,
    );
    assert_eq!(plan.media.len(), 1);
}

#[test]
fn phone_answers_with_a_subset_and_no_video() {
    let (plan, _) = phone(true);
    let agreed = accept(
        &plan,
        "m=audio 5000 RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\nm=video 0 RTP/AVP 98\r\n",
    )
    .unwrap();
    assert_eq!(
        names(&agreed.media[0]),
        ["8 PCMA/8000", "0 PCMU/8000", "101 telephone-event/8000"],
        "in the answerer's order"
    );
    assert!(agreed.media[1].rejected);
    assert_eq!(
        agreed.transports[0].remote,
        Some(("192.0.2.1".parse().unwrap(), 5000))
    );
    assert_eq!(agreed.transports[0].remote_rtcp_port, Some(5001));
    assert_eq!(agreed.media[0].ssrc, plan.media[0].ssrc);
    let printed = describe(&agreed, &local(&agreed), true);
    assert_eq!(printed.media[1].port, 0);
}

#[test]
fn phone_that_holds_in_its_answer_is_sent_nothing() {
    let (plan, _) = phone(false);
    let agreed = accept(&plan, "m=audio 5000 RTP/AVP 0\r\na=sendonly\r\n").unwrap();
    assert_eq!(agreed.media[0].direction, Direction::RecvOnly);
    let agreed = accept(
        &plan,
        "c=IN IP4 0.0.0.0\r\nm=audio 5000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n",
    )
    .unwrap();
    assert_eq!(agreed.media[0].direction, Direction::RecvOnly);
}

#[test]
fn phone_that_numbers_a_codec_itself_is_followed() {
    let (plan, _) = phone(false);
    let agreed = accept(
        &plan,
        "m=audio 5000 RTP/AVP 120\r\na=rtpmap:120 OPUS/48000/2\r\n",
    )
    .unwrap();
    assert_eq!(names(&agreed.media[0]), ["120 opus/48000"]);
}

#[test]
fn an_answer_with_nothing_we_offered_is_refused_with_words() {
    let (plan, _) = phone(false);
    assert_eq!(
        refusal(&plan, "m=audio 5000 RTP/AVP 18\r\n"),
        "no common audio codec: offered G729; we speak opus, G722, PCMU, PCMA"
    );
    assert_eq!(
        refusal(&plan, "m=audio 0 RTP/AVP 0\r\n"),
        "the answer rejects every medium"
    );
}

#[test]
fn an_answer_that_breaks_the_rules_is_a_violation() {
    let (plan, _) = phone(true);
    for (media, text) in [
        (
            "m=audio 1 RTP/AVP 0\r\n",
            "the answer has not as many m-lines as the offer",
        ),
        (
            "m=video 1 RTP/AVP 98\r\nm=audio 1 RTP/AVP 0\r\n",
            "the answer has another media type than the offer",
        ),
        (
            "m=audio 1 RTP/SAVP 0\r\nm=video 0 RTP/AVP 98\r\n",
            "the answer has another transport protocol than the offer",
        ),
    ] {
        assert_eq!(accept(&plan, media), Err(Unacceptable::Violation(text)));
    }
}

#[test]
fn policy_that_demands_srtp_offers_savp_with_keys() {
    let policy = Policy {
        require_srtp: true,
        ..Policy::default()
    };
    let (plan, ours) = offered(
        OfferKind::Phone {
            video: false,
            ipv6: false,
        },
        &policy,
    );
    assert_eq!(ours.media[0].protocol, "RTP/SAVP");
    let crypto = ours.media[0].section.attribute("crypto").unwrap();
    assert!(crypto.starts_with("1 AES_CM_128_HMAC_SHA1_80 inline:"));
    let key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let answer_with = |tag: u32| {
        format!(
            "m=audio 5000 RTP/SAVP 0\r\na=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n"
        )
    };
    let agreed = accept(&plan, &answer_with(1)).unwrap();
    let Security::Sdes {
        local_key,
        remote_key,
        ..
    } = &agreed.transports[0].security
    else {
        panic!("SDES")
    };
    assert!(crypto.len() > 30 && remote_key.len() == 30 && local_key != remote_key);
    assert_eq!(
        refusal(&plan, &answer_with(2)),
        "the answer's a=crypto is none that was offered"
    );
    assert_eq!(
        refusal(&plan, "m=audio 5000 RTP/SAVP 0\r\n"),
        "RTP/SAVP without a=crypto or a=fingerprint"
    );
}

#[test]
fn offer_to_a_browser_is_one_bundle_with_slots() {
    let (plan, ours) = offered(WEB, &Policy::default());
    assert_eq!(ours.session.attribute("group"), Some("BUNDLE 0 1 2 3"));
    assert_eq!(plan.transports.len(), 1);
    let summary: Vec<_> = ours
        .media
        .iter()
        .map(|m| (m.kind.as_str(), m.port, m.section.has("bundle-only")))
        .collect();
    assert_eq!(
        summary,
        [
            ("audio", 40_000, false),
            ("audio", 0, true),
            ("audio", 0, true),
            ("video", 0, true)
        ]
    );
    let directions: Vec<_> = plan.media.iter().map(|m| m.direction).collect();
    assert_eq!(
        directions,
        [
            Direction::SendRecv,
            Direction::SendOnly,
            Direction::SendOnly,
            Direction::SendRecv
        ]
    );
    for media in &ours.media {
        assert_eq!(media.section.attribute("setup"), Some("actpass"));
        assert!(media.section.has("rtcp-mux") && media.section.has("ice-ufrag"));
        assert!(media.section.has("msid") && media.section.has("ssrc"));
    }
    assert_eq!(ours.media[0].section.all("candidate").count(), 2);
    assert!(!ours.media[3].section.has("candidate"));
    assert!(ours.session.has("ice-lite"));
    assert_eq!(plan.media[3].codecs[0].rtx, Some(100));
    assert!(
        plan.media[0]
            .extensions
            .iter()
            .any(|(_, uri)| uri.contains("ssrc-audio-level"))
    );
    assert!(
        !plan.media[3]
            .extensions
            .iter()
            .any(|(_, uri)| uri.contains("audio-level"))
    );
}

#[test]
fn payload_types_of_one_bundle_do_not_collide() {
    let (plan, _) = offered(WEB, &Policy::default());
    let numbers = |index: usize| -> Vec<u8> {
        let codecs = plan.media[index].codecs.iter();
        codecs
            .flat_map(|c| [Some(c.payload_type), c.rtx])
            .flatten()
            .collect()
    };
    let mut all = numbers(0);
    all.extend(numbers(3));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn browser_takes_the_bundle_and_becomes_the_dtls_client() {
    let (plan, _) = offered(WEB, &Policy::default());
    let media = [
        web("audio", "0", ""),
        web("audio", "1", "a=recvonly\r\n"),
        web("audio", "2", "a=recvonly\r\n"),
        web(
            "video",
            "3",
            "a=rtcp-fb:99 nack pli\r\na=ssrc:5 cname:x\r\n",
        ),
    ];
    let agreed = accept(
        &plan,
        &format!("a=group:BUNDLE 0 1 2 3\r\n{}", media.concat()),
    )
    .unwrap();
    assert_eq!(agreed.bundle, ["0", "1", "2", "3"]);
    let ice = agreed.transports[0].ice.as_ref().unwrap();
    assert_eq!(ice.remote_ufrag, "abcd");
    assert_eq!(
        ice.local_ufrag,
        plan.transports[0].ice.as_ref().unwrap().local_ufrag
    );
    assert!(matches!(
        &agreed.transports[0].security,
        Security::Dtls { client: false, remote_fingerprints } if remote_fingerprints.len() == 1
    ));
    let video = &agreed.media[3];
    assert_eq!(names(video), ["99 VP8/90000"]);
    assert_eq!(video.codecs[0].feedback, ["nack pli"]);
    assert_eq!((video.codecs[0].rtx, video.rtx_ssrc), (None, None));
    assert_eq!(video.remote_ssrcs, [5]);
    assert!(!video.rtcp_rsize, "not in the answer");
    assert_eq!(agreed.media[1].direction, Direction::SendOnly);
}

#[test]
fn answer_with_setup_passive_makes_us_the_client() {
    let (plan, _) = offered(WEB, &Policy::default());
    let off = "m=audio 0 UDP/TLS/RTP/SAVPF 96\r\n";
    let video_off = "m=video 0 UDP/TLS/RTP/SAVPF 99\r\n";
    let media = web("audio", "0", "").replace("setup:active", "setup:passive");
    let agreed = accept(&plan, &format!("{media}{off}{off}{video_off}")).unwrap();
    assert!(matches!(
        agreed.transports[0].security,
        Security::Dtls { client: true, .. }
    ));
    assert_eq!(agreed.accepted().count(), 1);
    assert!(agreed.bundle.is_empty());
}

#[test]
fn bundle_only_lines_cannot_be_taken_outside_of_the_group() {
    let (plan, _) = offered(WEB, &Policy::default());
    let media = ["0", "1", "2"].map(|mid| web("audio", mid, "")).concat();
    let all = format!("{media}{}", web("video", "3", ""));
    for group in ["", "a=group:BUNDLE 0 1 2\r\n"] {
        assert_eq!(
            refusal(&plan, &format!("{group}{all}")),
            "the answer takes a bundle-only m-line outside of the BUNDLE group"
        );
    }
    assert_eq!(
        refusal(&plan, &format!("a=group:BUNDLE 0 1 2 3 9\r\n{all}")),
        "the answer's BUNDLE group has a mid that was not offered"
    );
}

#[test]
fn our_own_answer_to_our_own_offer_is_accepted() {
    // Of a browser's offer too: the lines beyond one source a kind we would not take.
    for kind in [
        OfferKind::Phone {
            video: true,
            ipv6: false,
        },
        WEB,
    ] {
        for require_srtp in [false, true] {
            let policy = Policy {
                require_srtp,
                ..Policy::default()
            };
            let (a, text) = offered(kind, &policy);
            let b = answer(&text, &policy, None, &mut random(2));
            // An ICE-lite peer with an ICE-lite peer: no ICE, the signalled address it is.
            let b = b.expect("we understand ourselves");
            let theirs = describe(&b, &local(&b), false);
            assert_fits(&text, &theirs, &b);
            let agreed = accept_answer(&a, &theirs, &policy).expect("and agree");
            assert_eq!(agreed.accepted().count(), 2);
            if let (Security::Sdes { remote_key, .. }, Security::Sdes { local_key, .. }) =
                (&agreed.transports[0].security, &b.transports[0].security)
            {
                assert_eq!(remote_key, local_key);
            }
            for (ours, theirs) in agreed.media.iter().zip(&b.media) {
                assert_eq!(ours.direction, theirs.direction.reversed());
                assert_eq!(names(ours), names(theirs));
            }
        }
    }
}

#[test]
fn re_offer_of_a_plan_in_force_says_the_same() {
    let (plan, _) = phone(false);
    let agreed = accept(&plan, "m=audio 5000 RTP/AVP 0 8\r\n").unwrap();
    let again = offer(
        OfferKind::Phone {
            video: false,
            ipv6: false,
        },
        &Policy::default(),
        Some(&agreed),
        &mut random(9),
    );
    assert_eq!(
        again, agreed,
        "a refresh of a phone's dialog counts nothing up"
    );
    assert_eq!(
        agreed.session_version, 2,
        "it says less than the first offer did"
    );
}

#[test]
fn re_offer_after_an_answer_counts_the_version_where_setup_differs() {
    let Some(theirs) = fixture("chromium156-offer-av.sdp") else {
        return;
    };
    let policy = Policy::default();
    let plan = answer(&theirs, &policy, None, &mut random(1)).unwrap();
    let again = offer(WEB, &policy, Some(&plan), &mut random(2));
    assert_eq!(again.session_version, plan.session_version + 1);
    assert_eq!(again.transports, plan.transports);
    let text = describe(&again, &local(&again), true);
    assert_eq!(text.media[0].section.attribute("setup"), Some("actpass"));
    assert!(text.media[1].section.has("bundle-only"));
    // The browser answers; nothing about the streams changes, and our next answer has a version of its own.
    let answer_text: String = ["0", "1"]
        .iter()
        .zip(["audio", "video"])
        .map(|(mid, kind)| {
            let pt = if kind == "audio" {
                "111 opus/48000/2"
            } else {
                "96 VP8/90000"
            };
            web(kind, mid, "")
                .replace("96 opus/48000/2", pt)
                .replace("99 VP8/90000", pt)
                .replace(
                    "SAVPF 96",
                    &format!("SAVPF {}", pt.split(' ').next().unwrap()),
                )
                .replace("SAVPF 99", "SAVPF 96")
        })
        .collect();
    let agreed = accept(&again, &format!("a=group:BUNDLE 0 1\r\n{answer_text}")).unwrap();
    assert_eq!(names(&agreed.media[0]), ["111 opus/48000"]);
    assert_eq!(names(&agreed.media[1]), ["96 VP8/90000"]);
    assert_eq!(agreed.media[0].ssrc, plan.media[0].ssrc);
    assert!(agreed.session_version > again.session_version);
}

#[test]
fn an_answer_of_janus_is_understood() {
    let Some(janus) = fixture("janus1.1-answer.sdp") else {
        return;
    };
    let policy = Policy {
        audio_slots: 0,
        ..Policy::default()
    };
    let kind = OfferKind::WebRtc {
        audio_slots: 0,
        video_slots: 1,
    };
    let (plan, _) = offered(kind, &policy);
    let agreed = accept_answer(&plan, &janus, &policy).unwrap();
    let video = &agreed.media[0];
    assert_eq!(names(video), ["97 VP8/90000"]);
    assert_eq!(video.codecs[0].rtx, Some(98));
    assert_eq!(video.direction, Direction::SendOnly);
    let transport = &agreed.transports[0];
    assert!(transport.ice.is_none(), "Janus is lite as well");
    assert!(matches!(
        transport.security,
        Security::Dtls { client: false, .. }
    ));
}
