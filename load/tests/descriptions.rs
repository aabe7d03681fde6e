//! Offers as servers must understand them, and answers as servers give them.

use std::net::SocketAddr;

use load::leg::{Keys, Kind, Local, LocalMedia, Protection, Remote};
use load::ua::{Description, DescriptionError};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sip::offer_answer::{self, LocalTransport, Plan, Policy, Random};
use sip::sdp::SessionDescription;
use switch_core::srtp::Profile;

const GCM: Profile = Profile::AeadAes128Gcm;
const CM: Profile = Profile::Aes128CmSha1_80;

fn local(protection: Protection, video: bool) -> Local {
    let address = |port: u16| SocketAddr::from(([192, 0, 2, 7], port));
    let media = |kind, port, ssrc| LocalMedia {
        kind,
        address: address(port),
        ssrc,
        keys: match protection {
            Protection::Sdes => vec![(GCM, vec![1; 28]), (CM, vec![2; 30])],
            _ => Vec::new(),
        },
    };
    let second = match protection {
        Protection::Dtls => 40_000,
        _ => 40_002,
    };
    let mut lines = vec![media(Kind::Audio, 40_000, 11)];
    if video {
        lines.push(media(Kind::Video, second, 12));
    }
    let dtls = protection == Protection::Dtls;
    Local {
        media: lines,
        ice: dtls.then(|| ("ufrg".to_owned(), "a-password-of-twenty-four".to_owned())),
        fingerprint: dtls.then_some([7; 32]),
        cname: "load-0001".to_owned(),
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

fn offered(protection: Protection, video: bool, speaks: bool) -> (Description, String) {
    let mut description = Description::new(local(protection, video), protection, speaks, 4_711);
    let offer = description.offer();
    (description, offer)
}

struct Seeded(ChaCha8Rng);

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

fn describe(plan: &Plan, is_offer: bool) -> String {
    let transports = plan.transports.iter().map(|transport| LocalTransport {
        index: transport.index,
        addresses: vec![(
            [198, 51, 100, 1].into(),
            50_000 + 2 * transport.index as u16,
        )],
        rtcp_port: (!transport.rtcp_mux).then_some(50_001 + 2 * transport.index as u16),
    });
    let local = offer_answer::LocalMedia {
        transports: transports.collect(),
        fingerprints: vec![("sha-256".to_owned(), vec![9; 32])],
    };
    offer_answer::describe(plan, &local, is_offer).to_string()
}

/// As Rostrum's own meeting manager answers.
fn rostrum(offer: &str) -> (Plan, String) {
    let offer = SessionDescription::parse(offer.as_bytes()).expect("SDP");
    let policy = Policy::default();
    let mut random = Seeded(ChaCha8Rng::seed_from_u64(1));
    let plan = offer_answer::answer(&offer, &policy, None, &mut random).expect("acceptable");
    let answer = describe(&plan, false);
    (plan, answer)
}

fn agreed(protection: Protection, video: bool, speaks: bool) -> Remote {
    let (description, offer) = offered(protection, video, speaks);
    let (_, answer) = rostrum(&offer);
    let read = description.read_answer(answer.as_bytes());
    read.unwrap_or_else(|e| panic!("{e}\n{offer}\n{answer}"))
}

#[test]
fn rostrum_takes_all_that_is_offered_plain() {
    let remote = agreed(Protection::Plain, true, true);
    let [audio, video] = &remote.media[..] else {
        panic!("{remote:?}")
    };
    assert_eq!(audio.address, at("198.51.100.1:50000"));
    assert_eq!(audio.rtcp, None);
    assert_eq!(audio.codec, (111, "opus".into(), 48_000));
    assert!(audio.accepted.contains(&(0, "PCMU".into(), 8_000)));
    assert_eq!(audio.audio_level, Some(1));
    assert!(audio.sends && audio.receives);
    assert!(matches!(audio.keys, Keys::Plain));
    assert_eq!((video.kind, video.index), (Kind::Video, 1));
    assert_eq!(video.address.port(), 50_002);
    assert_eq!(video.codec, (96, "VP8".into(), 90_000));
    assert!(video.sends && video.receives && video.audio_level.is_none());
}

#[test]
fn who_does_not_talk_receives_video_only() {
    let remote = agreed(Protection::Plain, true, false);
    assert!(remote.media[0].sends && remote.media[0].receives);
    assert!(!remote.media[1].sends && remote.media[1].receives);
    let (_, offer) = offered(Protection::Plain, true, false);
    assert_eq!(offer.matches("a=recvonly").count(), 1);
}

#[test]
fn rostrum_answers_sdes_with_gcm_and_its_own_key() {
    let (description, offer) = offered(Protection::Sdes, true, true);
    assert!(
        offer.contains("m=audio 40000 RTP/SAVP 111 0 126 101"),
        "{offer}"
    );
    let (plan, answer) = rostrum(&offer);
    let remote = description.read_answer(answer.as_bytes()).expect("usable");
    for (media, transport) in remote.media.iter().zip(&plan.transports) {
        let offer_answer::Security::Sdes { local_key, .. } = &transport.security else {
            panic!("{transport:?}")
        };
        match &media.keys {
            Keys::Sdes { profile, remote } => assert_eq!((profile, remote), (&GCM, local_key)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rostrum_bundles_dtls_on_one_candidate() {
    let (_, offer) = offered(Protection::Dtls, true, true);
    assert!(offer.contains("a=group:BUNDLE 0 1"), "{offer}");
    assert!(offer.contains("m=video 0 UDP/TLS/RTP/SAVPF 96"), "{offer}");
    assert_eq!(offer.matches("a=candidate:").count(), 1);
    let remote = agreed(Protection::Dtls, true, true);
    let [audio, video] = &remote.media[..] else {
        panic!("{remote:?}")
    };
    assert_eq!(audio.address, video.address);
    assert_eq!(video.mid, Some((3, "1".to_owned())));
    assert!(remote.ice.is_some());
    match &audio.keys {
        Keys::Dtls {
            client,
            fingerprint,
        } => {
            assert!(*client, "Rostrum is passive");
            assert_eq!(fingerprint, &("sha-256".to_owned(), vec![9; 32]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pbx_that_takes_pcmu_alone_and_knows_no_mux_is_understood() {
    // as Asterisk answers (chan_pjsip, allow=ulaw, rtcp_mux=no)
    let answer = "v=0\r\no=- 4711 3 IN IP4 203.0.113.5\r\ns=Asterisk\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n\
                  m=audio 14876 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
                  a=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:150\r\na=sendrecv\r\nm=video 0 RTP/AVP 96\r\n";
    let (description, _) = offered(Protection::Plain, true, true);
    let remote = description.read_answer(answer.as_bytes()).expect("usable");
    let [audio] = &remote.media[..] else {
        panic!("{remote:?}")
    };
    assert_eq!(audio.codec, (0, "PCMU".into(), 8_000));
    assert_eq!(audio.accepted.len(), 2);
    assert_eq!(audio.rtcp, Some(at("203.0.113.5:14877")));
    assert_eq!(audio.audio_level, None);
    assert!(audio.ssrcs.is_empty() && audio.mid.is_none());
}

#[test]
fn a_soft_switch_that_takes_the_second_suite_and_other_numbers_is_understood() {
    // as FreeSWITCH answers (mod_sofia): its own Opus number, a=rtcp, the second crypto line
    let key = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC";
    let answer = format!(
        "v=0\r\no=FreeSWITCH 1700000000 1700000001 IN IP4 203.0.113.6\r\ns=FreeSWITCH\r\nc=IN IP4 203.0.113.6\r\n\
         t=0 0\r\nm=audio 24606 RTP/SAVP 116 101\r\na=rtpmap:116 opus/48000/2\r\na=fmtp:116 useinbandfec=1\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=rtcp:24617 IN IP4 203.0.113.7\r\n\
         a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n"
    );
    let (description, _) = offered(Protection::Sdes, false, true);
    let remote = description.read_answer(answer.as_bytes()).expect("usable");
    let audio = &remote.media[0];
    // what we send has the server's numbers, what comes those of our offer (RFC 3264 §5.1)
    assert_eq!(audio.codec, (116, "opus".into(), 48_000));
    assert_eq!(audio.accepted[0], (111, "opus".into(), 48_000));
    assert_eq!(audio.rtcp, Some(at("203.0.113.7:24617")));
    match &audio.keys {
        Keys::Sdes { profile, remote } => assert_eq!((*profile, remote.len()), (CM, 30)),
        other => panic!("{other:?}"),
    }
}

const JANUS: &str = "v=0\r\no=- 4711 2 IN IP4 203.0.113.8\r\ns=VideoRoom 1234\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    a=ice-options:trickle\r\na=fingerprint:sha-256 \
    AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA\r\n\
    a=extmap-allow-mixed\r\na=msid-semantic: WMS *\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 203.0.113.8\r\na=sendrecv\r\na=mid:0\r\na=rtcp-mux\r\n\
    a=ice-ufrag:xYz1\r\na=ice-pwd:0123456789012345678901\r\na=setup:active\r\n\
    a=rtpmap:111 opus/48000/2\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
    a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=msid:janus janus0\r\na=ssrc:305419896 cname:janus\r\n\
    a=candidate:2 1 udp 2013266430 2001:db8::8 45000 typ host\r\n\
    a=candidate:1 1 udp 2015363327 203.0.113.8 45000 typ host\r\na=end-of-candidates\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 203.0.113.8\r\na=recvonly\r\na=mid:1\r\na=rtcp-mux\r\n\
    a=ice-ufrag:xYz1\r\na=ice-pwd:0123456789012345678901\r\na=setup:active\r\na=rtpmap:96 VP8/90000\r\n\
    a=rtcp-fb:96 nack pli\r\na=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

#[test]
fn a_webrtc_server_that_begins_dtls_itself_is_understood() {
    let (description, _) = offered(Protection::Dtls, true, true);
    let remote = description.read_answer(JANUS.as_bytes()).expect("usable");
    let [audio, video] = &remote.media[..] else {
        panic!("{remote:?}")
    };
    let one = at("203.0.113.8:45000");
    assert_eq!((audio.address, video.address), (one, one));
    assert_eq!(audio.ssrcs, [305_419_896]);
    assert!(video.sends && !video.receives);
    assert_eq!(
        remote.ice,
        Some(("xYz1".into(), "0123456789012345678901".into()))
    );
    match &audio.keys {
        Keys::Dtls {
            client,
            fingerprint,
        } => {
            assert!(!client);
            assert_eq!(fingerprint.1, [0xaa; 32]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_without_what_was_asked_for_are_refused() {
    let plain = "v=0\r\no=- 1 1 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n\
                 m=audio 14876 RTP/AVP 0\r\n";
    let read = |protection, answer: &str| {
        let (description, _) = offered(protection, false, true);
        description.read_answer(answer.as_bytes()).map(drop)
    };
    assert_eq!(read(Protection::Plain, plain), Ok(()));
    assert_eq!(
        read(Protection::Sdes, plain),
        Err(DescriptionError::NoKeys(0))
    );
    let g729 = plain.replace("AVP 0", "AVP 18");
    assert_eq!(
        read(Protection::Plain, &g729),
        Err(DescriptionError::NoCodec(0))
    );
    let refused = plain.replace("14876", "0");
    assert_eq!(
        read(Protection::Plain, &refused),
        Err(DescriptionError::NothingAccepted)
    );
    let nowhere = plain.replace("c=IN IP4 203.0.113.5\r\n", "");
    assert_eq!(
        read(Protection::Plain, &nowhere),
        Err(DescriptionError::NoAddress(0))
    );
    assert_eq!(read(Protection::Plain, ""), Err(DescriptionError::Missing));
    assert!(matches!(
        read(Protection::Plain, "hello"),
        Err(DescriptionError::NotSdp(_))
    ));
    let (description, _) = offered(Protection::Plain, true, true);
    assert_eq!(
        description.read_answer(plain.as_bytes()).map(drop),
        Err(DescriptionError::Count {
            offered: 2,
            answered: 1
        })
    );
}

#[test]
fn the_same_offer_again_keeps_its_version() {
    let (mut description, offer) = offered(Protection::Dtls, true, true);
    assert_eq!(description.offer(), offer);
}

/// A re-offer of Rostrum's after an answer of its own.
fn reoffer(plan: &Plan) -> String {
    describe(plan, true)
}

#[test]
fn a_re_offer_is_answered_with_the_same_media() {
    for protection in [Protection::Plain, Protection::Sdes, Protection::Dtls] {
        let (mut description, offer) = offered(protection, true, true);
        let (mut plan, answer) = rostrum(&offer);
        let before = description.read_answer(answer.as_bytes()).expect("usable");
        plan.session_version += 1;
        let again = reoffer(&plan);
        let (ours, after) = description
            .answer(again.as_bytes(), true)
            .unwrap_or_else(|e| panic!("{protection:?}: {e}\n{again}"));
        assert_eq!(after.media.len(), before.media.len());
        for (a, b) in after.media.iter().zip(&before.media) {
            assert_eq!(a.address, b.address);
            assert_eq!((a.sends, a.receives), (b.sends, b.receives), "{again}");
            assert_eq!(format!("{:?}", a.keys), format!("{:?}", b.keys));
            assert_eq!(a.codec, b.codec);
        }
        // and the meeting manager takes it
        let ours = SessionDescription::parse(ours.as_bytes()).expect("SDP");
        let accepted = offer_answer::accept_answer(&plan, &ours, &Policy::default());
        let accepted = accepted.unwrap_or_else(|e| panic!("{protection:?}: {e:?}\n{ours}"));
        assert_eq!(accepted.accepted().count(), 2, "{ours}");
    }
}

#[test]
fn hold_is_answered_by_listening_only() {
    let (mut description, offer) = offered(Protection::Plain, false, true);
    let (plan, answer) = rostrum(&offer);
    description.read_answer(answer.as_bytes()).expect("usable");
    let held = reoffer(&plan).replace("a=sendrecv", "a=sendonly");
    let (ours, remote) = description.answer(held.as_bytes(), false).expect("usable");
    assert!(ours.contains("a=recvonly"), "{ours}");
    assert!(ours.contains("IN IP4 192.0.2.7"));
    assert!(!remote.media[0].sends && remote.media[0].receives);
    // the version goes up by one
    let version = |sdp: &str| sdp.split_whitespace().nth(3).map(str::to_owned);
    assert_ne!(version(&ours), version(&offer));
}

#[test]
fn a_line_more_than_ours_is_refused_in_its_place() {
    let (mut description, offer) = offered(Protection::Plain, false, true);
    let (plan, _) = rostrum(&offer);
    let more = reoffer(&plan) + "m=video 50010 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n";
    let (ours, remote) = description.answer(more.as_bytes(), false).expect("usable");
    assert_eq!(remote.media.len(), 1);
    assert!(ours.contains("m=video 0 RTP/AVP 96"), "{ours}");
}
