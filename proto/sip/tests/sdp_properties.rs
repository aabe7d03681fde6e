//! An answer always fits its offer, whatever the offer; and nothing panics.

mod sdp_common;

use proptest::prelude::*;
use proptest::test_runner::Config;
use sdp_common::{assert_fits, local, random, sdp, shared};
use sip::offer_answer::{OfferKind, Plan, Policy, Random, accept_answer, answer, describe, offer};
use sip::sdp::SessionDescription;

/// Two made-up offers with everything in them, so that the properties hold something where the captures
/// are missing.
const OFFERS: [&str; 2] = [
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=ice-options:trickle\r\n\
     a=fingerprint:sha-1 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13\r\n\
     m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 110 126\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\n\
     a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n\
     a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=rtpmap:111 opus/48000/2\r\n\
     a=rtpmap:63 red/48000/2\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n\
     m=video 0 UDP/TLS/RTP/SAVPF 96 97 98\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=mid:1\r\n\
     a=rtcp-mux\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:* nack\r\na=rtpmap:97 rtx/90000\r\n\
     a=fmtp:97 apt=96\r\na=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=1\r\n\
     a=ssrc-group:FID 1 2\r\na=ssrc:1 cname:x\r\na=ssrc:2 cname:x\r\n\
     m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\n",
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
     m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n\
     a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n\
     m=video 4002 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=rtcp:4005\r\n",
];

fn offers() -> Vec<String> {
    let mut all: Vec<String> = OFFERS.map(str::to_owned).to_vec();
    if let Some(folder) = shared("sdp") {
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "sdp"))
            .collect();
        paths.sort();
        all.extend(
            paths
                .iter()
                .map(|path| std::fs::read_to_string(path).unwrap()),
        );
    }
    all
}

/// One change of an SDP's text.
#[derive(Clone, Debug)]
enum Mutation {
    Remove(usize),
    Repeat(usize, usize),
    Swap(usize, usize),
    /// A line of another offer.
    Graft(usize, usize, usize),
    Word(usize, usize, &'static str),
    Octet(usize, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let word = prop::sample::select(vec![
        "0",
        "1",
        "9",
        "96",
        "65535",
        "4294967295",
        "-1",
        "inactive",
        "sendonly",
        "a=recvonly",
        "a=bundle-only",
        "a=rtcp-mux",
        "a=mid:0",
        "RTP/AVP",
        "RTP/SAVPF",
        "IP6",
        "::1",
        "0.0.0.0",
        "a=setup:passive",
        "VP8/90000",
        "a=ice-lite",
        "",
    ]);
    prop_oneof![
        any::<usize>().prop_map(Mutation::Remove),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Mutation::Repeat(a, b)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        (any::<usize>(), any::<usize>(), any::<usize>())
            .prop_map(|(a, b, c)| Mutation::Graft(a, b, c)),
        (any::<usize>(), any::<usize>(), word).prop_map(|(a, b, w)| Mutation::Word(a, b, w)),
        (any::<usize>(), any::<u8>()).prop_map(|(a, b)| Mutation::Octet(a, b)),
    ]
}

fn mutate(text: &str, mutations: &[Mutation], all: &[String]) -> Vec<u8> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut octets = Vec::new();
    for mutation in mutations {
        // The v= and o= lines stay: without them it is no SDP, which is another test.
        let count = lines.len().saturating_sub(2).max(1);
        let last = lines.len() - 1;
        let at = |n: usize| (2 + n % count).min(last);
        match mutation {
            Mutation::Remove(n) if lines.len() > 3 => {
                lines.remove(at(*n));
            }
            Mutation::Remove(_) => {}
            Mutation::Repeat(n, to) => {
                let line = lines[at(*n)].clone();
                lines.insert(at(*to), line);
            }
            Mutation::Swap(n, m) => {
                let (n, m) = (at(*n), at(*m));
                lines.swap(n, m);
            }
            Mutation::Graft(source, n, to) => {
                let other: Vec<&str> = all[source % all.len()].lines().collect();
                lines.insert(at(*to), other[n % other.len()].to_owned());
            }
            Mutation::Word(n, m, word) => {
                let line = &mut lines[at(*n)];
                let mut words: Vec<&str> = line.split(' ').collect();
                let place = m % words.len();
                words[place] = word;
                *line = words.join(" ");
            }
            Mutation::Octet(n, value) => octets.push((*n, *value)),
        }
    }
    let mut bytes = lines.join("\r\n").into_bytes();
    for (n, value) in octets {
        let place = n % bytes.len();
        bytes[place] = value;
    }
    bytes
}

fn policies() -> [Policy; 3] {
    [
        Policy::default(),
        Policy {
            video_slots: 0,
            audio_slots: 1,
            require_srtp: true,
            ..Policy::default()
        },
        Policy {
            video_slots: 4,
            audio_slots: 1,
            audio_codecs: vec!["PCMA".to_owned()],
            ..Policy::default()
        },
    ]
}

/// Answers, prints, checks; returns the plan where there is an agreement.
fn exchange(
    offer: &SessionDescription,
    policy: &Policy,
    previous: Option<&Plan>,
    random: &mut dyn Random,
) -> Option<Plan> {
    let plan = answer(offer, policy, previous, random).ok()?;
    for is_offer in [false, true] {
        let ours = describe(&plan, &local(&plan), is_offer);
        let read = sdp(&ours.to_string());
        assert_eq!(read, ours, "what we print reads as it was meant");
        if !is_offer {
            assert_fits(offer, &read, &plan);
        }
    }
    for media in plan.accepted() {
        let slots = match media.raw_kind.to_ascii_lowercase().as_str() {
            "audio" => policy.audio_slots,
            _ => policy.video_slots,
        };
        assert!(!media.has_slot() || media.slot < slots);
        assert!(!media.direction.sends() || media.has_slot());
        let twins = plan.accepted().filter(|m| {
            m.has_slot() && media.has_slot() && (m.kind, m.slot) == (media.kind, media.slot)
        });
        assert!(twins.count() <= 1, "a slot belongs to one line");
        if policy.require_srtp {
            assert_ne!(
                plan.transports[media.transport].security,
                sip::offer_answer::Security::Plain
            );
        }
    }
    Some(plan)
}

proptest! {
    #![proptest_config(Config { cases: 512, failure_persistence: None, ..Config::default() })]

    #[test]
    fn answer_fits_a_mutated_offer_and_its_mutated_re_offer(
        which in any::<usize>(),
        first in prop::collection::vec(mutation(), 0..8),
        second in prop::collection::vec(mutation(), 0..8),
        seed in any::<u64>(),
    ) {
        let all = offers();
        let text = &all[which % all.len()];
        let mut random = random(seed);
        for policy in policies() {
            let mut plan = None;
            for mutations in [&first, &second] {
                let bytes = mutate(text, mutations, &all);
                let Ok(offer) = SessionDescription::parse(&bytes) else { continue };
                if let Some(next) = exchange(&offer, &policy, plan.as_ref(), &mut random) {
                    let refreshed = exchange(&offer, &policy, Some(&next), &mut random);
                    let refreshed = refreshed.expect("what was agreed once is agreed again");
                    prop_assert_eq!(refreshed.session_version, next.session_version);
                    plan = Some(next);
                }
            }
        }
    }

    #[test]
    fn mutated_answers_are_taken_or_refused_in_order(
        which in any::<usize>(),
        web in any::<bool>(),
        mutations in prop::collection::vec(mutation(), 0..8),
        seed in any::<u64>(),
    ) {
        let all = offers();
        let kind = if web {
            OfferKind::WebRtc { audio_slots: 2, video_slots: 1 }
        } else {
            OfferKind::Phone { video: true, ipv6: false }
        };
        for policy in policies() {
            let mut random = random(seed);
            let offered = offer(kind, &policy, None, &mut random);
            if offered.media.is_empty() {
                continue;
            }
            let text = describe(&offered, &local(&offered), true);
            let own = answer(&text, &policy, None, &mut random).expect("we understand ourselves");
            let own = describe(&own, &local(&own), false).to_string();
            for text in [&own, &all[which % all.len()]] {
                let bytes = mutate(text, &mutations, &all);
                let Ok(theirs) = SessionDescription::parse(&bytes) else { continue };
                let Ok(plan) = accept_answer(&offered, &theirs, &policy) else { continue };
                prop_assert_eq!(plan.media.len(), offered.media.len());
                prop_assert!(plan.accepted().count() > 0);
                for (agreed, before) in plan.media.iter().zip(&offered.media) {
                    prop_assert!(!agreed.direction.sends() || before.direction.sends());
                    prop_assert!(agreed.rejected || !agreed.codecs.is_empty());
                }
                // The plan is good for what comes next.
                let again = offer(kind, &policy, Some(&plan), &mut random);
                let printed = describe(&again, &local(&again), true);
                prop_assert_eq!(&sdp(&printed.to_string()), &printed);
            }
        }
    }

    #[test]
    fn any_octets_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut text = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n".to_vec();
        text.extend(bytes);
        if let Ok(sdp) = SessionDescription::parse(&text) {
            let again = SessionDescription::parse(sdp.to_string().as_bytes());
            prop_assert_eq!(again.as_ref(), Ok(&sdp));
        }
    }
}
