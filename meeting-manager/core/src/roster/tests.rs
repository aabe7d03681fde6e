use sip::offer_answer::{Direction, MediaKind};

use super::*;
use crate::conference_info::Reached;
use crate::conference_info::tests::Subscriber;
use crate::config::MeetingConfig;
use crate::ids::MeetingId;

fn roster() -> Roster {
    let facts = Facts {
        id: MeetingId::new("team").unwrap(),
        kind: MeetingKind::Configured,
        config: MeetingConfig::default(),
        epoch: cluster::Revision(0),
        domain: "example.org".to_owned(),
        sources: std::collections::BTreeSet::new(),
    };
    let uri = "sip:team@example.org".to_owned();
    Roster::new(uri, "example.org".to_owned(), &facts, Duration::ZERO)
}

/// A device with so many audio and video lines, as [`Entry::of`] makes it.
fn device(number: u64, name: &str, audio: usize, video: usize) -> Entry {
    let line = |(n, kind): (usize, MediaKind)| Media {
        id: n.to_string(),
        kind,
        label: None,
        src_id: (n == 0).then_some(1_000_000 + u32::try_from(number).unwrap()),
        direction: if n == 0 {
            Direction::SendRecv
        } else {
            Direction::RecvOnly
        },
        muted: false,
    };
    let audio = std::iter::repeat_n(MediaKind::Audio, audio);
    let kinds = audio.chain(std::iter::repeat_n(MediaKind::Video, video));
    Entry {
        id: ParticipantId::from_random(number),
        user: format!("sip:{name}@example.org"),
        display: name.to_owned(),
        role: "participant",
        joined_at: 1_700_000_000_000,
        on_hold: false,
        media: kinds.enumerate().map(line).collect(),
    }
}

/// A subscriber with what it is told of a roster.
struct Watcher {
    subscriber: Subscriber,
    told: Option<Arc<Conference>>,
    version: u32,
    room: usize,
}

impl Watcher {
    fn new(room: usize) -> Self {
        Self {
            subscriber: Subscriber::default(),
            told: None,
            version: 0,
            room,
        }
    }

    /// Takes every part of what it does not know yet.
    fn catch_up(&mut self, roster: &Roster) {
        let told = self.told.replace(Arc::clone(roster.published()));
        let mut part = roster.first_part(told.as_ref(), self.room);
        while let Some(Part { document, rest }) = part {
            self.version += 1;
            self.subscriber.take(&document.with_version(self.version));
            let next = |rest: Reached| {
                let told = told.as_deref();
                conference_info::part(told, roster.published(), Some(&rest), self.room)
            };
            part = rest.and_then(next);
        }
        self.subscriber.assert_knows(roster.published());
    }
}

const ROOMS: [usize; 5] = [0, 700, 2_048, 4_096, 16_384];

#[test]
fn both_devices_of_one_address_are_told_to_everybody() {
    let web = device(1, "alice", 3, 4);
    let phone = device(2, "alice", 1, 0);
    for order in [[&web, &phone], [&phone, &web]] {
        let mut roster = roster();
        // With a few people in it the list of changes is shorter than the whole one.
        for n in 10..20 {
            roster.on_changed(device(n, &format!("user{n}"), 1, 1));
        }
        let now = Instant::now();
        assert!(roster.publish(now));
        let mut watchers = ROOMS.map(Watcher::new);
        for watcher in &mut watchers {
            watcher.catch_up(&roster);
        }
        for entry in order {
            roster.on_changed(entry.clone());
            assert!(roster.publish(now));
            for watcher in &mut watchers {
                watcher.catch_up(&roster);
            }
        }
        for watcher in &watchers {
            let alice = &watcher.subscriber.users["sip:alice@example.org"];
            assert_eq!(alice.endpoints.len(), 2, "room {}", watcher.room);
        }
    }
}

#[test]
fn random_comings_and_goings_lead_every_subscriber_to_the_published_list() {
    let mut seed = 3u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let now = Instant::now();
    let mut roster = roster();
    let mut watchers = ROOMS.map(Watcher::new);
    for _ in 0..400 {
        for _ in 0..=next(3) {
            // Three devices an address and more.
            let number = next(30);
            let name = format!("user{}", number % 8);
            let (audio, video) = [(1, 0), (1, 1), (3, 4)][usize::try_from(next(3)).unwrap()];
            if next(3) == 0 {
                roster.on_left(&ParticipantId::from_random(number));
            } else {
                let mut entry = device(number, &name, audio, video);
                entry.on_hold = next(2) == 0;
                roster.on_changed(entry);
            }
        }
        roster.publish(now);
        for watcher in &mut watchers {
            // Some are told late, of several changes at once.
            if next(3) > 0 {
                watcher.catch_up(&roster);
            }
        }
    }
    for watcher in &mut watchers {
        watcher.catch_up(&roster);
        assert!(watcher.version > 200);
    }
}
