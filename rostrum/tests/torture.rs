//! RFC 4475's and 5118's messages against the lab: the same answers as from the core alone, and never harm.

mod common;
#[allow(dead_code)] // what members get is for the core's own test
#[path = "../../registrar/core/tests/torture/table.rs"]
mod table;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use common::Lab;

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

fn row(name: &str) -> &'static table::Expected {
    let mut all = table::TABLE.iter();
    let found = all.find(|row| row.file == name);
    found.unwrap_or_else(|| panic!("no row for {name}"))
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

/// What came back begins like SIP, and says why where it refuses; its status.
fn assert_sip(name: &str, answer: &[u8]) -> u16 {
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
    status
}

/// A lab that serves the domain of the messages.
fn lab() -> Lab {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Lab::start_in(folder, &["--domain", "example.com"])
}

#[test]
fn torture_messages_get_what_they_deserve_over_udp() {
    let Some(messages) = messages() else { return };
    let mut lab = lab();
    // Without rport an answer goes to the port in the Via: all that the messages have are ours on this address.
    let sockets = [5060, 5050, 6050, 19_823].map(|port| {
        let socket = UdpSocket::bind(("127.77.0.1", port)).expect("an address of this test's own");
        socket.set_nonblocking(true).expect("set");
        socket
    });
    let receive = || {
        let mut answer = [0; 65_535];
        let mut lengths = sockets.iter().filter_map(|s| s.recv(&mut answer).ok());
        let length = lengths.next()?;
        drop(lengths);
        Some(answer[..length].to_vec())
    };
    for (name, bytes) in &messages {
        let row = row(name);
        sockets[0].send_to(bytes, lab.sip("udp")).expect("sends");
        if let Some(status) = row.stranger {
            let mut answer = None;
            common::eventually(&format!("an answer to {name}"), || {
                answer = receive();
                answer.is_some()
            });
            let answer = answer.expect("waited for");
            assert_eq!(assert_sip(name, &answer), status, "{name}: {}", row.why);
        }
        // What it answers after this it has not been asked.
        assert_answers(&lab, name);
        assert_eq!(receive(), None, "{name}: no more than one answer");
    }
    lab.assert_healthy();
}

#[test]
fn torture_messages_get_what_they_deserve_over_tcp_on_the_connection_they_came_on() {
    let Some(messages) = messages() else { return };
    let mut lab = lab();
    for (name, bytes) in &messages {
        let row = row(name);
        let mut stream = TcpStream::connect(lab.sip("tcp")).expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(8)))
            .expect("a timeout");
        stream.write_all(bytes).expect("writes");
        let expected = match name.as_str() {
            // There is always more that could come.
            "clerr.dat" | "baddn.dat" => None,
            // What is behind its two requests is no SIP and ends the connection, before or after the answers.
            "dblreq.dat" => {
                assert_answers(&lab, name);
                continue;
            }
            // RFC 3261 §18.3: on a stream Content-Length is a must.
            "inv2543.dat" => Some(400),
            _ => row.stranger,
        };
        if let Some(status) = expected {
            let mut answer = [0; 65_535];
            let length = stream
                .read(&mut answer)
                .unwrap_or_else(|e| panic!("no answer to {name}: {e}"));
            let got = assert_sip(name, &answer[..length]);
            assert_eq!(got, status, "{name}: {}", row.why);
        }
        assert_answers(&lab, name);
        stream.set_nonblocking(true).expect("set");
        if expected.is_none() {
            let length = stream.read(&mut [0; 100]).unwrap_or(0);
            assert_eq!(length, 0, "{name}: {}", row.why);
        }
    }
    lab.assert_healthy();
}
