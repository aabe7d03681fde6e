//! The list of a meeting of a thousand, from the meeting manager through a registrar to subscribers.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::Lab;
use common::phone::{Phone, header, status};

/// As many as a meeting takes by default.
const PEOPLE: usize = 1_000;

/// Calls under way at once: as many as the sockets' buffers surely hold.
const AT_ONCE: usize = 20;

/// Where the manager takes SIP over UDP.
fn manager(lab: &Lab) -> SocketAddr {
    let text = lab.info["manager"].as_str().expect("addresses");
    let mut words = text.split_whitespace();
    words.find(|w| *w == "udp").expect("UDP");
    words
        .next()
        .expect("an address")
        .parse()
        .expect("host:port")
}

/// Everybody calls, straight at the manager, which takes this host for a registrar.
fn everybody_calls(lab: &Lab, meeting: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(manager(lab)).expect("an address");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    let at = socket.local_addr().expect("bound");
    let domain = lab.domain();
    let request = |method: &str, n: usize, to: &str, sdp: &str| {
        let kind = if sdp.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        format!(
            "{method} sip:{meeting}@{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{method}{n}\r\n\
             Max-Forwards: 70\r\nFrom: \"Person {n}\" <sip:person{n}@{domain}>;tag=f{n}\r\nTo: {to}\r\n\
             Call-ID: call-{n}\r\nCSeq: 1 {method}\r\nContact: <sip:person{n}@{at}>\r\n\
             P-Asserted-Identity: \"Person {n}\" <sip:person{n}@{domain}>\r\n{kind}Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        )
    };
    // On hold, so that nobody is missed for sending nothing.
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n\
               a=rtcp-mux\r\na=inactive\r\n";
    let invite = |n: usize| request("INVITE", n, &format!("<sip:{meeting}@{domain}>"), sdp);
    let mut waiting: BTreeSet<usize> = BTreeSet::new();
    let mut next = 0;
    let begun = Instant::now();
    let mut buffer = vec![0; 65_535];
    while next < PEOPLE || !waiting.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{next} {waiting:?}"
        );
        while waiting.len() < AT_ONCE && next < PEOPLE {
            socket.send(invite(next).as_bytes()).expect("sends");
            waiting.insert(next);
            next += 1;
        }
        let Ok(length) = socket.recv(&mut buffer) else {
            // UDP loses some.
            for n in &waiting {
                socket.send(invite(*n).as_bytes()).expect("sends");
            }
            continue;
        };
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if status(&answer) < 200 || !header(&answer, "CSeq").is_some_and(|c| c.ends_with("INVITE"))
        {
            continue;
        }
        assert_eq!(status(&answer), 200, "{answer}");
        let id = header(&answer, "Call-ID").expect("a Call-ID");
        let n: usize = id["call-".len()..].parse().expect("a number");
        let to = header(&answer, "To").expect("To");
        socket
            .send(request("ACK", n, to, "").as_bytes())
            .expect("sends");
        waiting.remove(&n);
    }
}

/// Users by entity, as a subscriber keeps them: each document follows on the one before (RFC 4575 §4.4).
fn read_list(phone: &mut Phone, over: &str) {
    let mut users: BTreeMap<String, String> = BTreeMap::new();
    let mut version: Option<u32> = None;
    while users.len() < PEOPLE {
        let notify = phone.await_request("NOTIFY");
        phone.answer(&notify, "200 OK");
        let (_, document) = notify.split_once("\r\n\r\n").expect("a body");
        let xml = roxmltree::Document::parse(document).expect("XML");
        let root = xml.root_element();
        let this: u32 = root
            .attribute("version")
            .and_then(|v| v.parse().ok())
            .expect("a version");
        match root.attribute("state") {
            Some("full") => users.clear(),
            state => {
                assert_eq!(state, Some("partial"));
                assert_eq!(Some(this), version.map(|v| v + 1), "no gap over {over}");
            }
        }
        version = Some(this);
        for user in xml.descendants().filter(|n| n.tag_name().name() == "user") {
            let entity = user.attribute("entity").expect("an entity").to_owned();
            let name = user
                .descendants()
                .find(|n| n.tag_name().name() == "display-text");
            let name = name.and_then(|n| n.text()).unwrap_or_default().to_owned();
            users.insert(entity, name);
        }
        let count = xml
            .descendants()
            .find(|n| n.tag_name().name() == "user-count");
        if let Some(count) = count {
            assert_eq!(count.text(), Some(PEOPLE.to_string().as_str()));
        }
    }
    for n in 0..PEOPLE {
        let person = format!("Person {n}");
        assert!(
            users.values().any(|name| *name == person),
            "{person} over {over}"
        );
    }
}

#[test]
fn a_thousand_participants_are_listed_to_subscribers_on_every_transport() {
    let mut lab = Lab::start();
    let meeting = lab.meeting(1).to_owned();
    everybody_calls(&lab, &meeting);
    lab.await_counts(|counts| counts["participants"] == PEOPLE);
    let domain = lab.domain().to_owned();
    let ws = lab.info["sip"]["ws"].as_str().expect("an address");
    let ws = format!("ws://{ws}/sip");
    let mut tcp = Phone::tcp(lab.sip("tcp"), &domain, lab.account(0));
    let mut web = Phone::ws(&ws, &domain, lab.account(1));
    let mut udp = Phone::udp(lab.sip("udp"), &domain, lab.account(2));
    for (phone, over) in [
        (&mut tcp, "TCP"),
        (&mut web, "WebSocket"),
        (&mut udp, "UDP"),
    ] {
        assert_eq!(status(&phone.register(600)), 200, "{over}");
        assert_eq!(status(&phone.subscribe(&meeting)), 200, "{over}");
        read_list(phone, over);
    }
    lab.assert_healthy();
}
