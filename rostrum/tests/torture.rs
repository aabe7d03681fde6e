//! RFC 4475's and 5118's messages against the lab: whatever comes, an answer or silence, never harm.

mod common;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use common::Lab;

/// How long an answer may take; most of these deserve none.
const PATIENCE: Duration = Duration::from_millis(100);

fn messages() -> Option<Vec<(String, Vec<u8>)>> {
    let root = common::shared("torture")?;
    let mut files: Vec<PathBuf> = ["rfc4475", "rfc5118"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("a folder of messages"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 61, "only {} messages", files.len());
    let read = |path: PathBuf| {
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        (name, std::fs::read(&path).expect("readable"))
    };
    Some(files.into_iter().map(read).collect())
}

/// The lab still answers a plain OPTIONS over UDP.
fn assert_answers(lab: &Lab, after: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let local = socket.local_addr().expect("bound");
    let request = format!(
        "OPTIONS sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK-{after};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:t@{domain}>;tag=1\r\nTo: <sip:{domain}>\r\nCall-ID: t-{after}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        domain = lab.domain()
    );
    socket
        .send_to(request.as_bytes(), lab.sip("udp"))
        .expect("sends");
    let mut answer = [0; 4096];
    let length = socket
        .recv(&mut answer)
        .unwrap_or_else(|e| panic!("no answer after {after}: {e}"));
    let text = String::from_utf8_lossy(&answer[..length]);
    assert!(text.starts_with("SIP/2.0 200"), "after {after}: {text}");
}

/// What came back begins like SIP, and says why where it refuses.
fn assert_sip(name: &str, answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    assert_eq!(words.next(), Some("SIP/2.0"), "{name}: {line}");
    let status: u16 = words
        .next()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| panic!("{name}: {line}"));
    assert!((100..700).contains(&status), "{name}: {line}");
    assert!(
        words.next().is_some_and(|reason| !reason.is_empty()),
        "{name}: {line}"
    );
}

#[test]
fn torture_messages_are_survived_over_udp() {
    let Some(messages) = messages() else { return };
    let mut lab = Lab::start();
    let mut answered = 0;
    for (name, bytes) in &messages {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.send_to(bytes, lab.sip("udp")).expect("sends");
        let mut answer = [0; 65_535];
        if let Ok(length) = socket.recv(&mut answer) {
            assert_sip(name, &answer[..length]);
            answered += 1;
        }
        assert_answers(&lab, name);
    }
    // those with a Via that names another port get their answer there, or by rport here
    println!(
        "{answered} of {} answered to where they came from",
        messages.len()
    );
    lab.assert_healthy();
}

#[test]
fn torture_messages_are_answered_over_tcp_on_the_connection_they_came_on() {
    let Some(messages) = messages() else { return };
    let mut lab = Lab::start();
    let mut answered = 0;
    for (name, bytes) in &messages {
        let mut stream = TcpStream::connect(lab.sip("tcp")).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(bytes).expect("writes");
        let mut answer = vec![0; 65_535];
        if let Ok(length @ 1..) = stream.read(&mut answer) {
            assert_sip(name, &answer[..length]);
            answered += 1;
        }
        assert_answers(&lab, name);
    }
    assert!(
        answered > messages.len() / 3,
        "only {answered} of {} answered",
        messages.len()
    );
    lab.assert_healthy();
}
