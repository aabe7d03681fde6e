//! The SDP parser and printer: lossless, bounded, and errors that say where.

mod sdp_common;

use sdp_common::{sdp, shared};
use sip::sdp::attributes::{
    Candidate, Crypto, ExtMap, RtpMap, fmtp_parameter, parse_fingerprint, parse_fmtp,
    parse_rtcp_fb, parse_ssrc, print_digest,
};
use sip::sdp::{MediaDescription, SessionDescription};

const PHONE: &str = "v=0\r\n\
    o=alice 1 2 IN IP4 192.0.2.1\r\n\
    s=call of Alice\r\n\
    c=IN IP4 192.0.2.1\r\n\
    b=AS:256\r\n\
    t=0 0\r\n\
    a=unknown thing:with: colons \r\n\
    m=audio 4000/2 RTP/AVP 0 101\r\n\
    i=voice\r\n\
    b=TIAS:64000\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=sendonly\r\n\
    m=video 0 RTP/AVP 31\r\n\
    c=IN IP6 2001:db8::7\r\n";

fn fails(text: &str) -> (usize, &'static str) {
    let error = SessionDescription::parse(text.as_bytes()).expect_err("no SDP");
    (error.line, error.what)
}

#[test]
fn what_is_not_understood_prints_as_it_came() {
    assert_eq!(sdp(PHONE).to_string(), PHONE);
}

#[test]
fn real_descriptions_print_as_they_came() {
    let Some(folder) = shared("sdp") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "sdp") {
            let text = std::fs::read_to_string(&path).unwrap();
            let crlf = text.replace("\r\n", "\n").replace('\n', "\r\n");
            assert_eq!(sdp(&text).to_string(), crlf, "{}", path.display());
        }
    }
}

#[test]
fn fuzzed_seeds_never_panic_and_print_stably() {
    let Some(folder) = shared("fuzz-seeds/sdp") else {
        return;
    };
    let mut parsed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        if let Ok(first) = SessionDescription::parse(&bytes) {
            let again = SessionDescription::parse(first.to_string().as_bytes()).unwrap();
            assert_eq!(again, first);
            parsed += 1;
        }
    }
    assert!(parsed > 10, "only {parsed} seeds parsed");
}

#[test]
fn lines_are_found_at_their_level() {
    let sdp = sdp(PHONE);
    let [audio, video] = &sdp.media[..] else {
        panic!("two m-lines")
    };
    assert_eq!((audio.port, audio.port_count), (4000, Some(2)));
    assert_eq!(audio.formats, ["0", "101"]);
    assert_eq!(audio.section.line('i'), Some("voice"));
    assert_eq!(audio.section.bandwidth(), Some(64_000));
    assert_eq!(sdp.session.bandwidth(), Some(256_000));
    assert!(audio.section.has("sendonly") && !sdp.session.has("sendonly"));
    let origin = sdp.origin().unwrap();
    assert_eq!(
        (
            origin.username.as_str(),
            origin.session_id.as_str(),
            origin.session_version.as_str()
        ),
        ("alice", "1", "2")
    );
    assert_eq!(sdp.connection(audio).unwrap().host, "192.0.2.1");
    let six = sdp.connection(video).unwrap();
    assert!(six.ipv6);
    assert_eq!(six.ip, Some("2001:db8::7".parse().unwrap()));
}

#[test]
fn bare_line_feeds_and_spare_line_ends_are_taken() {
    let text = format!("{}\n\n\0", PHONE.replace("\r\n", "\n"));
    assert_eq!(sdp(&text), sdp(PHONE));
}

#[test]
fn octets_that_are_no_utf8_are_replaced() {
    let mut bytes = PHONE.as_bytes().to_vec();
    let at = PHONE.find("Alice").unwrap();
    bytes[at] = 0xE4;
    let sdp = SessionDescription::parse(&bytes).unwrap();
    assert_eq!(sdp.session.line('s'), Some("call of \u{fffd}lice"));
}

#[test]
fn errors_name_the_line() {
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n";
    assert_eq!(fails(""), (1, "not of the form x=value"));
    assert_eq!(
        fails("o=- 1 1 IN IP4 192.0.2.1"),
        (1, "does not begin with v=0")
    );
    assert_eq!(fails("v=1"), (1, "does not begin with v=0"));
    assert_eq!(fails("v=0\r\ns=-"), (2, "no o="));
    assert_eq!(
        fails(&format!("{head}nonsense")),
        (3, "not of the form x=value")
    );
    assert_eq!(
        fails(&format!("{head}AB=1")),
        (3, "the type before = is not one small letter")
    );
    assert_eq!(
        fails(&format!("{head}\r\ns=-")),
        (3, "not of the form x=value")
    );
    assert_eq!(
        fails(&format!("{head}s=a\rb")),
        (3, "control character in a value")
    );
    assert_eq!(fails(&format!("{head}v=0")), (3, "a second v="));
    assert_eq!(fails(&format!("{head}m=audio")), (3, "m= without port"));
    assert_eq!(
        fails(&format!("{head}m=audio 1 RTP/AVP")),
        (3, "m= without formats")
    );
    assert_eq!(
        fails(&format!("{head}m=audio 65536 RTP/AVP 0")),
        (3, "m= with a port that is not 0 to 65535")
    );
    assert_eq!(
        fails(&format!("{head}m=audio 1/x RTP/AVP 0")),
        (3, "m= with a bad port count")
    );
    assert_eq!(
        fails(&format!("{head}m=audio +1 RTP/AVP 0")),
        (3, "m= with a port that is not 0 to 65535")
    );
    let error = SessionDescription::parse(b"v=0\r\nx").unwrap_err();
    assert_eq!(error.to_string(), "SDP line 2: not of the form x=value");
}

#[test]
fn sizes_are_bounded() {
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n";
    let long = format!("{head}a={}", "x".repeat(65_536));
    assert_eq!(fails(&long).1, "longer than 64 kB");
    assert_eq!(
        fails(&format!("{head}{}", "a=x\r\n".repeat(2_000))),
        (2_001, "more than 2,000 lines")
    );
    let media = "m=audio 1 RTP/AVP 0\r\n";
    assert_eq!(
        fails(&format!("{head}{}", media.repeat(257))),
        (259, "more than 256 media")
    );
    let formats = " 0".repeat(257);
    assert_eq!(
        fails(&format!("{head}m=audio 1 RTP/AVP{formats}")).1,
        "m= with more than 256 formats"
    );
    assert_eq!(
        sdp(&format!("{head}{}", media.repeat(256))).media.len(),
        256
    );
}

#[test]
fn a_value_built_with_a_line_end_stays_one_line() {
    let mut media = MediaDescription::new("audio", 1, "RTP/AVP", vec!["0\r\na=evil".to_owned()]);
    media
        .section
        .push_attribute("label", "1\r\nm=video 1 RTP/AVP 31");
    assert_eq!(media.to_string().lines().count(), 2);
}

#[test]
fn attributes_can_be_taken_out() {
    let mut session = sdp("v=0\no=- 1 1 IN IP4 192.0.2.1\na=x:1\na=xy\na=x\n").session;
    session.remove_attribute("x");
    assert_eq!(session.attributes().collect::<Vec<_>>(), [("xy", None)]);
}

#[test]
fn rtpmap_and_fmtp_are_read() {
    let map = RtpMap::parse("111 opus/48000/2").unwrap();
    assert_eq!(
        (map.payload_type, map.clock_rate, map.channels),
        (111, 48_000, 2)
    );
    assert_eq!(RtpMap::parse("0 PCMU/8000").unwrap().channels, 1);
    for bad in [
        "",
        "128 x/8000",
        "0 x",
        "0 /8000",
        "0 x/0",
        "0 x/8000/two",
        "x",
    ] {
        assert_eq!(RtpMap::parse(bad), None, "{bad}");
    }
    let (payload_type, fmtp) = parse_fmtp("98 Profile-Id=2; x-google=1").unwrap();
    assert_eq!(payload_type, 98);
    assert_eq!(fmtp_parameter(fmtp, "profile-id"), Some("2"));
    assert_eq!(fmtp_parameter(fmtp, "x-google"), Some("1"));
    assert_eq!(fmtp_parameter(fmtp, "profile"), None);
    assert_eq!(
        parse_rtcp_fb("*  nack   pli"),
        Some((None, "nack pli".to_owned()))
    );
    assert_eq!(parse_rtcp_fb("200 nack"), None);
}

#[test]
fn extmap_is_read_with_its_direction() {
    let map = ExtMap::parse("6/recvonly urn:x").unwrap();
    assert_eq!((map.id, map.direction.as_deref()), (6, Some("recvonly")));
    assert_eq!(ExtMap::parse("0 urn:x"), None);
    assert_eq!(ExtMap::parse("4096 urn:x"), None);
}

#[test]
fn fingerprint_goes_there_and_back() {
    let (algorithm, digest) = parse_fingerprint("SHA-1 0A:fF:00").unwrap();
    assert_eq!(
        (algorithm.as_str(), &digest[..]),
        ("sha-1", &[10, 255, 0][..])
    );
    assert_eq!(print_digest(&digest), "0A:FF:00");
    assert_eq!(print_digest(&[]), "");
    for bad in ["sha-1", "sha-1 0A:F", "sha-1 0A:+F", "sha-1 0AFF"] {
        assert_eq!(parse_fingerprint(bad), None, "{bad}");
    }
}

#[test]
fn crypto_that_asks_for_more_is_not_taken() {
    let key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let suite = "AES_CM_128_HMAC_SHA1_80";
    let crypto = Crypto::parse(&format!("1 {suite} inline:{key}|2^20 WSH=64")).unwrap();
    assert_eq!(crypto.key_salt.len(), 30);
    assert_eq!(crypto.to_string(), format!("1 {suite} inline:{key}"));
    for bad in [
        format!("1 {suite} inline:{key}|2^20|1:4"),
        format!("1 {suite} inline:{key}|1:4"),
        format!("1 {suite} inline:{key};inline:{key}"),
        format!("1 {suite} inline:{key} UNENCRYPTED_SRTP"),
        format!("1 {suite} inline:{key} KDR=1"),
        format!("1 {suite} uri:{key}"),
        format!("1 {suite} inline:***"),
        format!("1 {suite}"),
        format!("x {suite} inline:{key}"),
    ] {
        assert_eq!(Crypto::parse(&bad), None, "{bad}");
    }
}

#[test]
fn candidates_go_there_and_back() {
    let text = "1 1 udp 2130706431 2001:db8::1 40000 typ host";
    let candidate = Candidate::parse(&format!("{text} generation 0 network-id 2")).unwrap();
    assert_eq!(candidate.to_string(), text);
    assert_eq!(candidate.priority, Candidate::host_priority(0, 1));
    let named = Candidate::parse("0 1 UDP 1 b652a5f6.local 9 typ host").unwrap();
    assert_eq!((named.ip, named.transport.as_str()), (None, "udp"));
    assert_eq!(Candidate::parse("0 1 UDP 1 192.0.2.1 9 host typ"), None);
}

#[test]
fn ssrc_attributes_are_read() {
    assert_eq!(
        parse_ssrc("4294967295 cname:a b"),
        Some((u32::MAX, "cname", "a b"))
    );
    assert_eq!(parse_ssrc("4294967296 cname:a"), None);
}
