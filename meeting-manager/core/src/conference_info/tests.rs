use std::time::{Duration, Instant};

use roxmltree::{Document as Xml, Node};

use super::*;

const NS: &str = "urn:ietf:params:xml:ns:conference-info";

fn audio(source: u32, muted: bool) -> Media {
    Media {
        id: "0".to_owned(),
        kind: MediaKind::Audio,
        label: Some("1".to_owned()),
        src_id: Some(source),
        direction: Direction::SendRecv,
        muted,
    }
}

fn user(name: &str, source: u32) -> User {
    User {
        display_text: name.to_owned(),
        roles: vec!["participant".to_owned()],
        endpoints: BTreeMap::from([(
            format!("sip:{source}@192.0.2.1"),
            Endpoint {
                display_text: String::new(),
                status: EndpointStatus::Connected,
                joining_method: JoiningMethod::DialedIn,
                joined: Some(951_782_400),
                media: vec![audio(source, false)],
            },
        )]),
    }
}

fn conference(names: &[(&str, u32)]) -> Conference {
    Conference {
        entity: "sip:standup@example.com".to_owned(),
        title: "Stand-up".to_owned(),
        maximum_user_count: Some(100),
        active: true,
        locked: false,
        users: names
            .iter()
            .map(|(name, source)| (format!("sip:{name}@example.com"), user(name, *source)))
            .collect(),
    }
}

fn crowd(count: u32) -> Conference {
    let names: Vec<(String, u32)> = (1..=count).map(|n| (format!("user{n:03}"), n)).collect();
    let names: Vec<(&str, u32)> = names.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    conference(&names)
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|n| n.has_tag_name((NS, name)))
}

fn text<'a>(node: Node<'a, 'a>, path: &[&str]) -> Option<&'a str> {
    path.iter()
        .try_fold(node, |node, name| child(node, name))?
        .text()
}

/// What a subscriber knows of a user: text of the children by what they are, the endpoints by entity.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    head: BTreeMap<String, String>,
    pub(crate) endpoints: BTreeMap<String, String>,
}

/// What a subscriber does with documents (RFC 4575 §4.4, §4.6).
#[derive(Debug, Default)]
pub(crate) struct Subscriber {
    version: Option<u32>,
    pub(crate) users: BTreeMap<String, Known>,
    pub(crate) gaps: usize,
}

impl Subscriber {
    pub(crate) fn take(&mut self, document: &str) {
        let xml = Xml::parse(document).expect("well-formed");
        let root = xml.root_element();
        let version: u32 = root.attribute("version").unwrap().parse().unwrap();
        if root.attribute("state") == Some("full") {
            self.users.clear();
        } else if self.version != version.checked_sub(1) {
            self.gaps += 1;
        }
        self.version = Some(version);
        let Some(users) = child(root, "users") else {
            return;
        };
        for user in users.children().filter(Node::is_element) {
            let entity = user.attribute("entity").unwrap().to_owned();
            match user.attribute("state") {
                Some("deleted") => {
                    assert!(self.users.remove(&entity).is_some());
                    continue;
                }
                Some("partial") => {}
                _ => drop(self.users.remove(&entity)),
            }
            let known = self.users.entry(entity).or_default();
            for node in user.children().filter(Node::is_element) {
                let text = document[node.range()].to_owned();
                if node.has_tag_name((NS, "endpoint")) {
                    assert_eq!(node.attribute("state"), Some("full"));
                    let entity = node.attribute("entity").unwrap().to_owned();
                    known.endpoints.insert(entity, text);
                } else {
                    known.head.insert(node.tag_name().name().to_owned(), text);
                }
            }
        }
    }

    /// It knows what one knows who is told the whole in one document.
    pub(crate) fn assert_knows(&self, conference: &Conference) {
        let mut fresh = Subscriber::default();
        fresh.take(&full(conference, 1));
        assert_eq!(self.users, fresh.users);
        let endpoints = |users: &BTreeMap<String, Known>| -> usize {
            users.values().map(|u| u.endpoints.len()).sum()
        };
        let all: usize = conference.users.values().map(|u| u.endpoints.len()).sum();
        assert_eq!(endpoints(&self.users), all);
        assert_eq!(self.gaps, 0);
    }
}

/// More than any meeting of these tests needs.
const ROOM: usize = 1 << 20;

fn full(conference: &Conference, version: u32) -> String {
    let part = part(None, conference, None, ROOM).expect("a full document");
    assert_eq!(part.rest, None);
    part.document.with_version(version)
}

fn diff(previous: &Conference, current: &Conference, version: u32) -> Option<String> {
    let part = part(Some(previous), current, None, ROOM)?;
    assert_eq!(part.rest, None);
    Some(part.document.with_version(version))
}

/// All that takes a subscriber from one state to another.
fn parts(told: Option<&Conference>, target: &Conference, room: usize) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut after: Option<Reached> = None;
    while let Some(part) = part(told, target, after.as_ref(), room) {
        documents.push(part.document);
        after = part.rest;
        if after.is_none() {
            break;
        }
    }
    documents
}

#[test]
fn full_document_names_everyone_with_role_and_source() {
    let text_of = full(&conference(&[("alice", 7), ("bob", 9)]), 3);
    let xml = Xml::parse(&text_of).unwrap();
    let root = xml.root_element();
    assert!(root.has_tag_name((NS, "conference-info")));
    assert_eq!(root.attribute("entity"), Some("sip:standup@example.com"));
    assert_eq!(root.attribute("state"), Some("full"));
    assert_eq!(root.attribute("version"), Some("3"));
    assert_eq!(
        text(root, &["conference-description", "subject"]),
        Some("Stand-up")
    );
    assert_eq!(text(root, &["conference-state", "user-count"]), Some("2"));
    assert_eq!(text(root, &["conference-state", "locked"]), Some("false"));
    let bob = child(root, "users")
        .unwrap()
        .children()
        .find(|n| n.attribute("entity") == Some("sip:bob@example.com"))
        .unwrap();
    assert_eq!(text(bob, &["display-text"]), Some("bob"));
    assert_eq!(text(bob, &["roles", "entry"]), Some("participant"));
    assert_eq!(text(bob, &["endpoint", "status"]), Some("connected"));
    assert_eq!(
        text(bob, &["endpoint", "joining-method"]),
        Some("dialed-in")
    );
    assert_eq!(
        text(bob, &["endpoint", "joining-info", "when"]),
        Some("2000-02-29T00:00:00Z")
    );
    assert_eq!(text(bob, &["endpoint", "media", "type"]), Some("audio"));
    assert_eq!(text(bob, &["endpoint", "media", "label"]), Some("1"));
    assert_eq!(text(bob, &["endpoint", "media", "src-id"]), Some("9"));
    assert_eq!(
        text(bob, &["endpoint", "media", "status"]),
        Some("sendrecv")
    );
}

#[test]
fn muted_stream_is_shown_as_not_sending() {
    let mut media = audio(1, true);
    assert_eq!(media.status(), Direction::RecvOnly);
    media.direction = Direction::SendOnly;
    assert_eq!(media.status(), Direction::Inactive);
    media.muted = false;
    assert_eq!(media.status(), Direction::SendOnly);
}

#[test]
fn text_that_looks_like_markup_stays_text() {
    let mut state = conference(&[("alice", 7)]);
    let evil = "</display-text><user entity=\"x\"/> & 'q' \u{1}\u{0}\n end";
    state.users.values_mut().next().unwrap().display_text = evil.to_owned();
    let quoted = "sip:a\"b<c>&'\t@example.com";
    state.users.insert(quoted.to_owned(), user("bob", 9));
    let document = full(&state, 1);
    let xml = Xml::parse(&document).unwrap();
    let users: Vec<_> = child(xml.root_element(), "users")
        .unwrap()
        .children()
        .collect();
    assert_eq!(users.len(), 2);
    assert_eq!(users[0].attribute("entity"), Some(quoted));
    assert_eq!(
        text(users[1], &["display-text"]),
        Some(evil.replace(['\u{1}', '\u{0}'], "\u{fffd}").as_str())
    );
}

#[test]
fn partial_document_has_the_changed_users_only() {
    let before = crowd(20);
    let mut after = before.clone();
    after.users.remove("sip:user003@example.com");
    after
        .users
        .insert("sip:zoe@example.com".to_owned(), user("zoe", 99));
    let endpoint = after.users.get_mut("sip:user007@example.com").unwrap();
    let endpoint = endpoint.endpoints.values_mut().next().unwrap();
    endpoint.media[0].muted = true;
    let document = diff(&before, &after, 2).unwrap();
    let xml = Xml::parse(&document).unwrap();
    let root = xml.root_element();
    assert_eq!(root.attribute("state"), Some("partial"));
    assert!(child(root, "conference-description").is_none());
    assert!(child(root, "conference-state").is_none(), "still twenty");
    let users = child(root, "users").unwrap();
    assert_eq!(users.attribute("state"), Some("partial"));
    let summary: Vec<_> = users
        .children()
        .map(|u| {
            (
                u.attribute("entity").unwrap(),
                u.attribute("state").unwrap(),
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            ("sip:user003@example.com", "deleted"),
            ("sip:user007@example.com", "full"),
            ("sip:zoe@example.com", "full"),
        ]
    );
}

#[test]
fn nothing_changed_is_no_document() {
    assert_eq!(diff(&crowd(3), &crowd(3), 2), None);
}

#[test]
fn title_and_lock_are_told_without_users() {
    let before = crowd(3);
    let mut after = before.clone();
    after.title = "Retro".to_owned();
    after.locked = true;
    let document = diff(&before, &after, 2).unwrap();
    let xml = Xml::parse(&document).unwrap();
    let root = xml.root_element();
    assert_eq!(
        text(root, &["conference-description", "subject"]),
        Some("Retro")
    );
    assert_eq!(text(root, &["conference-state", "locked"]), Some("true"));
    assert!(child(root, "users").is_none());
}

#[test]
fn a_change_of_most_users_is_a_full_document() {
    let before = crowd(10);
    let document = diff(&before, &conference(&[("zoe", 99)]), 2).unwrap();
    let xml = Xml::parse(&document).unwrap();
    assert_eq!(xml.root_element().attribute("state"), Some("full"));
}

#[test]
fn first_change_is_told_at_once_and_a_flurry_as_one_after_the_interval() {
    let start = Instant::now();
    let mut state = crowd(3);
    let mut feed = Feed::new(state.clone(), Duration::from_millis(500));
    assert_eq!(feed.poll_timeout(start), None);

    state
        .users
        .insert("sip:zoe@example.com".to_owned(), user("zoe", 99));
    feed.on_changed();
    assert_eq!(*feed.publish(&state, start).expect("at once"), crowd(3));
    assert_eq!(**feed.published(), state);

    for name in ["yan", "xia", "wim"] {
        state
            .users
            .insert(format!("sip:{name}@example.com"), user(name, 1));
        feed.on_changed();
        let soon = start + Duration::from_millis(499);
        assert_eq!(feed.publish(&state, soon), None);
    }
    let due = feed.poll_timeout(start).unwrap();
    assert_eq!(due, start + Duration::from_millis(500));
    assert!(feed.publish(&state, due).is_some());
    assert_eq!(**feed.published(), state);
    assert_eq!(feed.poll_timeout(due), None);
}

#[test]
fn a_change_taken_back_is_not_told_and_delays_nothing() {
    let start = Instant::now();
    let state = crowd(3);
    let mut feed = Feed::new(state.clone(), Duration::from_secs(5));
    feed.on_changed();
    assert_eq!(feed.publish(&state, start), None);
    feed.on_changed();
    assert!(feed.publish(&crowd(4), start).is_some());
}

#[test]
fn a_thousand_participants_are_told_in_documents_that_every_element_takes() {
    let state = crowd(1_000);
    for room in [4_096, 16_384] {
        let documents = parts(None, &state, room);
        assert!(documents.iter().all(|d| d.len() < room + 1_024));
        // Not many more than there must be.
        assert!(documents.len() < full(&state, 1).len() * 5 / 4 / room);
        let mut subscriber = Subscriber::default();
        for (version, document) in (7..).zip(&documents) {
            subscriber.take(&document.with_version(version));
        }
        assert_eq!(subscriber.users.len(), 1_000);
        subscriber.assert_knows(&state);
    }
    let first = parts(None, &state, 4_096).remove(0).with_version(1);
    let xml = Xml::parse(&first).unwrap();
    assert_eq!(xml.root_element().attribute("state"), Some("full"));
    assert_eq!(
        text(xml.root_element(), &["conference-state", "user-count"]),
        Some("1000")
    );
    let users = xml
        .root_element()
        .children()
        .find(|n| n.has_tag_name((xml.root_element().tag_name().namespace().unwrap(), "users")));
    assert_eq!(
        users.unwrap().attribute("state"),
        Some("partial"),
        "they are not all"
    );
}

#[test]
fn all_devices_of_one_person_with_very_many_are_told_in_documents_of_bounded_length() {
    let mut state = crowd(3);
    let entity = "sip:user002@example.com";
    let someone = state.users.get_mut(entity).unwrap();
    let endpoint = someone.endpoints.values().next().unwrap().clone();
    for n in 0..1_000 {
        someone
            .endpoints
            .insert(format!("sip:leg{n}@example.com"), endpoint.clone());
    }
    let documents = parts(None, &state, 4_096);
    assert!(documents.iter().all(|d| d.len() < 4_096 + 1_024));
    let mut subscriber = Subscriber::default();
    for (version, document) in (1..).zip(&documents) {
        subscriber.take(&document.with_version(version));
    }
    subscriber.assert_knows(&state);

    // All but one of them leave, and it gets a name: what is gone is forgotten, however it is told.
    let mut later = state.clone();
    let someone = later.users.get_mut(entity).unwrap();
    let leg = "sip:leg7@example.com".to_owned();
    someone.endpoints.retain(|entity, _| *entity == leg);
    someone.display_text.clear();
    let mut version = u32::try_from(documents.len()).unwrap();
    for target in [&later, &state] {
        let told = if *target == later { &state } else { &later };
        for document in parts(Some(told), target, 4_096) {
            version += 1;
            assert!(document.len() < 4_096 + 1_024);
            subscriber.take(&document.with_version(version));
        }
        subscriber.assert_knows(target);
    }
}

#[test]
fn a_user_that_is_said_to_be_full_in_a_full_document_has_all_its_devices() {
    let mut state = crowd(2);
    for (user, devices) in state.users.values_mut().zip([6, 3]) {
        let endpoint = user.endpoints.values().next().unwrap().clone();
        for n in 1..devices {
            let entity = format!("sip:leg{n}@example.com");
            user.endpoints.insert(entity, endpoint.clone());
        }
    }
    for room in (0..6_000).step_by(100) {
        let part = part(None, &state, None, room).unwrap();
        let text = part.document.with_version(1);
        let xml = Xml::parse(&text).unwrap();
        for user in child(xml.root_element(), "users").unwrap().children() {
            let all = state.users[user.attribute("entity").unwrap()]
                .endpoints
                .len();
            let told = user
                .children()
                .filter(|n| n.has_tag_name((NS, "endpoint")))
                .count();
            let expected = if told == all { "full" } else { "partial" };
            assert_eq!(user.attribute("state"), Some(expected), "{room}: {told}");
        }
    }
}

#[test]
fn random_changes_lead_every_subscriber_to_the_same_state_in_documents_of_any_length() {
    let mut seed = 1u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut state = crowd(8);
    let mut told = None;
    let mut subscriber = Subscriber::default();
    let mut version = 41;
    for _ in 0..500 {
        for _ in 0..next(6) {
            let entity = format!("sip:user{:03}@example.com", next(12));
            match next(3) {
                0 => drop(state.users.remove(&entity)),
                1 => {
                    let mut again = user("again", 5);
                    for n in 0..next(8) {
                        let endpoint = again.endpoints.values().next().unwrap().clone();
                        again.endpoints.insert(format!("sip:leg{n}@x"), endpoint);
                    }
                    state.users.insert(entity, again);
                }
                _ => state.locked = !state.locked,
            }
        }
        let room = usize::try_from(next(3_000)).unwrap();
        for document in parts(told.as_ref(), &state, room) {
            version += 1;
            subscriber.take(&document.with_version(version));
        }
        subscriber.assert_knows(&state);
        told = Some(state.clone());
    }
    assert!(version > 300, "{version}");
}

#[test]
fn end_of_the_meeting_is_a_document_of_state_deleted() {
    let document = deleted("sip:standup@example.com").with_version(8);
    let xml = Xml::parse(&document).unwrap();
    assert_eq!(xml.root_element().attribute("state"), Some("deleted"));
    assert_eq!(xml.root_element().attribute("version"), Some("8"));
}

#[test]
fn dates_are_of_the_gregorian_calendar() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_868_799, "2000-02-29T23:59:59Z"),
        (1_078_012_800, "2004-02-29T00:00:00Z"),
        (1_767_225_599, "2025-12-31T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(date_time(seconds), expected);
    }
    assert!(date_time(u64::MAX).ends_with('Z'));
}
