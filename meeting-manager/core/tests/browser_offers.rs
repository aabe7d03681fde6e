//! A browser that calls without an offer gets one of its own kind.

mod common;

use common::*;
use control::v1 as ctl;

/// What a browser answers to our offer: audio both ways, all video declined but one line.
fn answer_to(offer: &str) -> String {
    let mut answer =
        String::from("v=0\r\no=- 5 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 3\r\n");
    let mut lines = offer.lines().filter(|l| l.starts_with("m=")).enumerate();
    let transport = "c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
        a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
        a=setup:active\r\na=rtcp-mux\r\n";
    for (index, line) in lines.by_ref() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (name, port) = match index {
            0 => ("opus/48000/2", 9),
            3 => ("VP8/90000", 9),
            _ => ("", 0),
        };
        answer += &format!("{} {port} UDP/TLS/RTP/SAVPF {}\r\n", fields[0], fields[3]);
        answer += &format!("a=mid:{index}\r\n");
        if port != 0 {
            answer += &format!("{transport}a=rtpmap:{} {name}\r\na=sendrecv\r\n", fields[3]);
        }
    }
    answer
}

#[test]
fn a_browser_without_an_offer_is_offered_dtls_ice_and_a_line_for_every_slot() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite_without_offer("").replace(
        "Via: SIP/2.0/UDP 192.0.2.10:5080;",
        "Via: SIP/2.0/WSS df7jal23ls0d.invalid;received=2001:db8::10;",
    );
    world.send(&invite);
    let ok = world.answer();
    assert_eq!(code(&ok), 200, "{}", ok.reason());
    let offer = body(&ok);
    let kinds: Vec<&str> = offer
        .lines()
        .filter_map(|l| l.strip_prefix("m="))
        .map(|l| l.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "audio", "audio", "audio", "video", "video", "video", "video"
        ]
    );
    for line in offer.lines().filter(|l| l.starts_with("m=")) {
        assert!(line.contains(" UDP/TLS/RTP/SAVPF "), "{line}");
    }
    for needed in [
        "a=group:BUNDLE 0 1 2 3 4 5 6\r\n",
        "a=ice-lite\r\n",
        "a=setup:actpass\r\n",
        "a=fingerprint:sha-256 ",
        "a=rtcp-mux\r\n",
        "a=bundle-only\r\n",
        "a=candidate:",
    ] {
        assert!(offer.contains(needed), "{needed} in {offer}");
    }
    let before = world.switch().leg("team").clone();
    assert_eq!((before.transports.len(), before.media.len()), (1, 7));

    alice.learn(&ok);
    let ack = alice.ack(Some(&answer_to(&offer)));
    world.send(&ack);
    assert!(world.sent().is_empty());
    let leg = world.switch().leg("team").clone();
    let transport = &leg.transports[0];
    let ice = transport.ice.as_ref().unwrap();
    assert_eq!(ice.remote_ufrag, "abcd");
    assert_eq!(
        ice.local_ufrag,
        before.transports[0].ice.as_ref().unwrap().local_ufrag
    );
    let dtls = transport.dtls.as_ref().unwrap();
    assert_eq!(dtls.role(), ctl::DtlsRole::Server);
    assert_eq!(dtls.remote[0].value.len(), 32);
    let media: Vec<(u32, &str, bool, bool)> = leg
        .media
        .iter()
        .map(|m| (m.index, m.codecs[0].name.as_str(), m.receive, m.send))
        .collect();
    assert_eq!(media, [(0, "opus", true, true), (3, "VP8", true, true)]);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}
