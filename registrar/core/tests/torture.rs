//! Every message of RFC 4475 and RFC 5118 against the core: answered or dropped, never a panic.

mod common;

use std::path::PathBuf;

use bytes::Bytes;
use common::{World, hop, member_hop, udp};
use sip::{Limits, Message, Transport};

/// The torture messages, or `None` where they are not at hand (they must be in CI).
fn messages() -> Option<Vec<(String, Bytes)>> {
    let root = std::env::var_os("ROSTRUM_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let mut found = Vec::new();
    for part in ["torture/rfc4475", "torture/rfc5118"] {
        let Ok(entries) = std::fs::read_dir(root.join(part)) else {
            assert!(std::env::var_os("CI").is_none(), "{part} is missing");
            eprintln!("skipped: no torture messages at {}", root.display());
            return None;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a file");
            found.push((path.display().to_string(), bytes.into()));
        }
    }
    found.sort();
    Some(found)
}

#[test]
fn every_torture_message_is_answered_or_dropped_by_what_it_is() {
    let Some(messages) = messages() else { return };
    assert!(messages.len() > 40, "only {} messages", messages.len());
    let mut answered = 0;
    for (name, bytes) in &messages {
        for from in [udp(1), hop(Transport::Tcp, 2, 40_000), member_hop(1)] {
            let mut world = World::with(|s| s.relay = true).with_members();
            let Ok(message) = Message::parse(bytes.clone(), &Limits::default()) else {
                continue;
            };
            let request = message.is_request();
            let ack = message.method().as_str() == "ACK";
            world.deliver(from, message);
            if !request || ack {
                let response = world.sent.iter().any(|s| !s.message.is_request());
                assert!(!response, "{name}: a response or ACK is never answered");
            }
            answered += world
                .sent
                .iter()
                .filter(|s| !s.message.is_request())
                .count();
            world.advance(std::time::Duration::from_secs(300));
        }
    }
    assert!(answered > 60, "only {answered} answers");
}
