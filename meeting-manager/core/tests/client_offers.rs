//! Offers of real clients, through the focus as it is configured by default: what the switch is told of each leg.

mod common;

use std::fmt::Write as _;
use std::path::PathBuf;

use common::*;
use control::v1 as ctl;

/// Captures of real clients, kept outside of the repository.
fn captured(name: &str) -> Option<String> {
    let root = std::env::var_os("ROSTRUM_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let folder = root.join("sdp");
    if folder.is_dir() {
        let text = std::fs::read_to_string(folder.join(name)).expect("the capture can be read");
        return Some(text.replace("\r\n", "\n").replace('\n', "\r\n"));
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is missing",
        folder.display()
    );
    eprintln!("skipped: {} is missing", folder.display());
    None
}

/// The leg in short; names of codecs with their payload types.
fn told(leg: &ctl::Leg) -> String {
    let mut out = String::new();
    for t in &leg.transports {
        let security = match t.security() {
            ctl::Security::Plain => "plain".to_owned(),
            ctl::Security::Sdes => {
                let sdes = t.sdes.as_ref().expect("keys");
                assert_eq!(sdes.local_key.len(), sdes.remote_key.len());
                format!("{:?}", sdes.suite())
            }
            ctl::Security::Dtls => {
                let dtls = t.dtls.as_ref().expect("fingerprints");
                assert!(!dtls.remote.is_empty());
                format!("DTLS {:?}", dtls.role())
            }
            other => format!("{other:?}"),
        };
        let ice = t.ice.as_ref().map_or("", |ice| {
            assert!(!ice.remote_ufrag.is_empty() && !ice.local_pwd.is_empty());
            " ICE"
        });
        let mux = if t.rtcp_mux { " mux" } else { "" };
        let remote = format!(
            "{}:{}/{}",
            t.remote_address, t.remote_port, t.remote_rtcp_port
        );
        let _ = writeln!(out, "{} {security}{ice}{mux} {remote}", t.index);
    }
    for m in &leg.media {
        let kind = match m.kind() {
            ctl::MediaKind::Audio => "audio",
            ctl::MediaKind::Video => "video",
            _ => "neither",
        };
        let way = match (m.receive, m.send) {
            (true, true) => "both",
            (true, false) => "receive",
            (false, true) => "send",
            (false, false) => "none",
        };
        let slot = m.slot.as_ref().map_or(String::new(), |slot| {
            assert_ne!(slot.ssrc, 0);
            format!(" slot {}", slot.number)
        });
        let codecs: Vec<String> = m
            .codecs
            .iter()
            .map(|c| match c.rtx_payload_type {
                0 => format!("{}={}", c.name, c.payload_type),
                rtx => format!("{}={}+{rtx}", c.name, c.payload_type),
            })
            .collect();
        let _ = writeln!(
            out,
            "m{} {kind} on {} {way}{slot}: {}",
            m.index,
            m.transport,
            codecs.join(" ")
        );
    }
    out
}

fn leg_of(name: &str) -> Option<String> {
    let offer = captured(name)?;
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let ok = join_with(&mut world, &mut alice, &offer, "");
    let lines = |sdp: &str| sdp.lines().filter(|l| l.starts_with("m=")).count();
    assert_eq!(lines(&body(&ok)), lines(&offer), "{name}");
    let leg = told(world.switch().leg("team"));
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
    Some(leg)
}

#[test]
fn every_captured_offer_becomes_the_leg_that_its_client_needs() {
    for (name, expected) in EXPECTED {
        if let Some(leg) = leg_of(name) {
            assert_eq!(leg, *expected, "{name}");
        }
    }
}

#[test]
fn every_captured_offer_is_expected_here() {
    let Some(_) = captured("README.md") else {
        return;
    };
    let folder = std::env::var_os("ROSTRUM_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    for entry in std::fs::read_dir(folder.join("sdp")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let offer = name.contains("offer") || name.contains("invite");
        let expected = EXPECTED.iter().any(|(n, _)| *n == name);
        assert_eq!(expected, offer, "{name}");
    }
}

const EXPECTED: &[(&str, &str)] = &[
    (
        "aiortc1.16-offer.sdp",
        "\
0 DTLS Server ICE mux 10.77.0.1:48232/0
m0 video on 0 receive: VP8=97+98 H264=99+100 H264=101+102
",
    ),
    (
        "baresip1.0-offer-dtlsice.sdp",
        "\
0 DTLS Server ICE 192.0.2.2:41198/41199
1 DTLS Server ICE 192.0.2.2:41170/41171
m0 audio on 0 both slot 0: opus=96 PCMU=0 telephone-event=101
m1 video on 1 both slot 0: VP8=96 H264=98 H264=97
",
    ),
    (
        "baresip1.0-offer-plain.sdp",
        "\
0 plain 192.0.2.2:41126/41127
1 plain 192.0.2.2:41146/41147
m0 audio on 0 both slot 0: opus=96 PCMU=0 telephone-event=101
m1 video on 1 both slot 0: VP8=96 H264=98 H264=97
",
    ),
    (
        "baresip1.0-offer-sdes.sdp",
        "\
0 AesCm128HmacSha180 192.0.2.2:41186/41187
1 AesCm128HmacSha180 192.0.2.2:41192/41193
m0 audio on 0 both slot 0: opus=96 PCMU=0 telephone-event=101
m1 video on 1 both slot 0: VP8=96 H264=98 H264=97
",
    ),
    (
        "chromium156-jssip-invite.sdp",
        "\
0 DTLS Server ICE mux 127.0.0.1:52552/0
m0 audio on 0 both slot 0: opus=111 G722=9 PCMU=0 PCMA=8 telephone-event=110 telephone-event=126
m1 video on 0 both slot 0: VP8=96+97 VP9=98+99 H264=102+103 H264=108+109 H264=104+107 H264=114+115 AV1=45+46
",
    ),
    (
        "chromium156-offer-av.sdp",
        "\
0 DTLS Server ICE mux 192.0.2.2:47553/0
m0 audio on 0 both slot 0: opus=111 G722=9 PCMU=0 PCMA=8 telephone-event=110 telephone-event=126
m1 video on 0 both slot 0: VP8=96+97 VP9=98+99 H264=102+103 H264=108+109 H264=104+107 H264=114+115 AV1=45+46
",
    ),
    (
        "chromium156-offer-recvonly-data.sdp",
        "\
0 DTLS Server ICE mux 192.0.2.2:51090/0
m0 video on 0 send slot 0: VP8=96+97 VP9=98+99 H264=102+103 H264=108+109 H264=104+107 H264=114+115 AV1=45+46
m1 video on 0 send slot 1: VP8=96+97 VP9=98+99 H264=102+103 H264=108+109 H264=104+107 H264=114+115 AV1=45+46
m2 video on 0 send slot 2: VP8=96+97 VP9=98+99 H264=102+103 H264=108+109 H264=104+107 H264=114+115 AV1=45+46
m3 audio on 0 send slot 0: opus=111 G722=9 PCMU=0 PCMA=8 telephone-event=110 telephone-event=126
",
    ),
    (
        "chromium156-offer-simulcast.sdp",
        "\
0 DTLS Server ICE mux 192.0.2.2:36257/0
m0 audio on 0 both slot 0: opus=111 G722=9 PCMU=0 PCMA=8 telephone-event=110 telephone-event=126
m1 video on 0 receive: VP8=96+97 VP9=98+99 H264=102+103 H264=108+109 H264=104+107 H264=114+115 AV1=45+46
",
    ),
    (
        "firefox153-offer-offer.sdp",
        "\
0 DTLS Server ICE mux :0/0
m0 audio on 0 both slot 0: opus=109 G722=9 PCMU=0 PCMA=8 telephone-event=101
m1 video on 0 both slot 0: VP8=120+124 VP9=121+125 AV1=99+100
",
    ),
    (
        "firefox153-offer-recvonly.sdp",
        "\
0 DTLS Server ICE mux :0/0
m0 video on 0 send slot 0: VP8=120+124 VP9=121+125 AV1=99+100
m1 video on 0 send slot 1: VP8=120+124 VP9=121+125 AV1=99+100
m2 video on 0 send slot 2: VP8=120+124 VP9=121+125 AV1=99+100
m3 audio on 0 send slot 0: opus=109 G722=9 PCMU=0 PCMA=8 telephone-event=101
",
    ),
    (
        "firefox153-offer-simulcast.sdp",
        "\
0 DTLS Server ICE mux :0/0
m0 audio on 0 both slot 0: opus=109 G722=9 PCMU=0 PCMA=8 telephone-event=101
m1 video on 0 receive: VP8=120+124 VP9=121+125 AV1=99+100
",
    ),
    (
        "linphone5.1-offer-dtls.sdp",
        "\
0 DTLS Server ICE 192.0.2.2:43000/43001
1 DTLS Server ICE 192.0.2.2:43100/43101
m0 audio on 0 both slot 0: opus=96 PCMU=0 PCMA=8 telephone-event=99 telephone-event=101
m1 video on 1 both slot 0: VP8=96
",
    ),
    (
        "linphone5.1-offer-plain.sdp",
        "\
0 plain ICE 192.0.2.2:43000/43001
1 plain ICE 192.0.2.2:43100/43101
m0 audio on 0 both slot 0: opus=96 PCMU=0 PCMA=8 telephone-event=99 telephone-event=101
m1 video on 1 both slot 0: VP8=96
",
    ),
    (
        "linphone5.1-offer-sdes.sdp",
        "\
0 AesCm128HmacSha180 ICE 192.0.2.2:43000/43001
1 AesCm128HmacSha180 ICE 192.0.2.2:43100/43101
m0 audio on 0 both slot 0: opus=96 PCMU=0 PCMA=8 telephone-event=99 telephone-event=101
m1 video on 1 both slot 0: VP8=96
",
    ),
];
