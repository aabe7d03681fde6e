//! Every message of RFC 4475 and RFC 5118 against the core: answered, forwarded or dropped as it deserves.

#[path = "../common/mod.rs"]
mod common;
mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use common::{World, hop, member_hop, text, udp};
use sip::{Hop, Limits, Message, Transport};
use table::{Member, TABLE};

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
            let name = path.file_name().expect("a file").to_string_lossy();
            found.push((name.into_owned(), bytes.into()));
        }
    }
    found.sort();
    Some(found)
}

/// A registrar of example.com that has taken in the message.
fn after(bytes: &Bytes, from: Hop) -> World {
    let mut world = World::with(|s| {
        s.domains = vec!["example.com".into()];
        s.realm = "example.com".into();
    })
    .with_members();
    if let Ok(message) = Message::parse(bytes.clone(), &Limits::default()) {
        world.deliver(from, message);
    }
    world
}

/// The one final answer that went out, if any.
fn answer(world: &World) -> Option<u16> {
    let mut statuses = world.sent.iter().filter_map(|s| s.message.status());
    let first = statuses.next().map(|s| s.get());
    assert_eq!(statuses.next(), None, "one answer");
    first
}

fn outcome(world: &World) -> String {
    if let Some((_, uri)) = world.resolves.front() {
        return format!("looked up {uri}");
    }
    match world.sent.front() {
        None => "silence".into(),
        Some(sent) if sent.message.is_request() => format!("sent {}", sent.hop.remote),
        Some(_) => format!("refused {}", answer(world).unwrap_or_default()),
    }
}

#[test]
fn every_torture_message_gets_what_it_deserves() {
    let Some(messages) = messages() else { return };
    let found: BTreeSet<&str> = messages.iter().map(|(name, _)| name.as_str()).collect();
    let expected: BTreeSet<&str> = TABLE.iter().map(|row| row.file).collect();
    assert_eq!(found, expected, "one row a message");
    for row in &TABLE {
        let (_, bytes) = messages.iter().find(|(n, _)| n == row.file).expect("there");
        for from in [udp(1), hop(Transport::Tcp, 2, 40_000)] {
            let mut world = after(bytes, from);
            assert_eq!(answer(&world), row.stranger, "{}: {}", row.file, row.why);
            assert_eq!(
                world.sent.len(),
                row.stranger.iter().count(),
                "{}",
                row.file
            );
            if let Some(sent) = world.sent.front() {
                assert_eq!(sent.hop.remote.ip(), from.remote.ip(), "{}", row.file);
                assert!(!sent.message.reason().is_empty(), "{}", text(&sent.message));
            }
            world.advance(Duration::from_secs(300));
        }
        let mut world = after(bytes, member_hop(1));
        let expected = match row.member {
            Member::Silence => "silence".to_owned(),
            Member::Refused(status) => format!("refused {status}"),
            Member::Sent(address) => format!("sent {address}"),
            Member::LookedUp(uri) => format!("looked up {uri}"),
        };
        assert_eq!(outcome(&world), expected, "{}: {}", row.file, row.why);
        while let Some((id, _)) = world.resolves.pop_front() {
            let nothing = Vec::new();
            world
                .core
                .handle_resolved(world.now, world.wall, id, nothing);
            world.pump();
        }
        world.advance(Duration::from_secs(300));
        assert_eq!(world.core.stats().server_transactions, 0, "{}", row.file);
    }
}
