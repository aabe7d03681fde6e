//! Restarts of the meeting manager and of the switch: the same dialogs go on.

mod common;

use std::time::Duration;

use common::*;
use control::v1::{Hello, event};
use meeting_core::MeetingId;
use sip::{HeaderName, Method};

#[test]
fn dialogs_go_on_after_a_restart_of_the_manager_and_nobody_is_told() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let mut bob = Ua::new("bob");
    join_with(&mut world, &mut alice, WITH_VIDEO, "");
    join(&mut world, &mut bob);
    let before = world.switch().meetings.clone();
    world.settle();
    world.restart_focus();
    assert!(world.sent().is_empty(), "the switch has the same addresses");
    let after = &world.switch().meetings;
    assert_eq!(
        after["team"].1, before["team"].1,
        "a listener hears nothing"
    );
    assert!(
        after["team"].0 > before["team"].0,
        "the process before is fenced"
    );
    let view = world
        .focus
        .meeting(&MeetingId::new("team").unwrap())
        .unwrap();
    assert_eq!(view.participants.len(), 2);

    let hold = bob.invite(PHONE_HOLD, "");
    world.send(&hold);
    assert_eq!(code(&world.answer()), 200);
    let ack = bob.ack(None);
    world.send(&ack);
    join(&mut world, &mut Ua::new("carol"));
    leave(&mut world, &mut alice);
    leave(&mut world, &mut bob);
}

#[test]
fn cseqs_go_on_above_what_may_have_been_used_before_the_restart() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.advance(Duration::from_secs(901));
    let first = world.sent().remove(0);
    let ok = alice.respond(&first, 200, "", None);
    world.send(&ok);
    world.settle();
    world.restart_focus();
    world.leg_event("team", control::v1::leg_event::Kind::MediaTimeout);
    let bye = world.request(Method::Bye);
    assert!(bye.cseq().unwrap().number > first.cseq().unwrap().number);
}

#[test]
fn after_a_restart_of_both_every_leg_is_offered_its_new_addresses() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let ok = join(&mut world, &mut alice);
    world.switch().restart();
    world.settle();
    world.restart_focus();
    let reinvite = world.request(Method::Invite);
    let sdp = body(&reinvite);
    assert!(sdp.contains("m=audio 31000"), "{sdp}");
    let version = |sdp: &str| -> u64 {
        let origin = sdp.lines().find(|l| l.starts_with("o=")).unwrap();
        origin.split(' ').nth(2).unwrap().parse().unwrap()
    };
    assert_eq!(version(&sdp), version(&body(&ok)) + 1);
    assert_eq!(reinvite.header(HeaderName::CallId), Some("call-alice"));
    let ok = alice.respond(&reinvite, 200, "", Some(PHONE_RESUMED));
    world.send(&ok);
    world.request(Method::Ack);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_restarted_switch_is_given_everything_again() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let mut bob = Ua::new("bob");
    join(&mut world, &mut alice);
    join(&mut world, &mut bob);
    world.switch().restart();
    world.switch_event(event::Event::Hello(Hello {
        instance: "i1".into(),
        ..Hello::default()
    }));
    assert_eq!(world.switch().legs("team"), 2);
    let reinvites = world.sent();
    assert_eq!(reinvites.len(), 2);
    for reinvite in reinvites {
        assert!(body(&reinvite).contains("m=audio 31000"));
        let who = if reinvite.call_id() == alice.call_id {
            &alice
        } else {
            &bob
        };
        let ok = who.respond(&reinvite, 200, "", Some(PHONE_RESUMED));
        world.send(&ok);
    }
    assert_eq!(
        world
            .sent()
            .iter()
            .filter(|m| *m.method() == Method::Ack)
            .count(),
        2
    );
    leave(&mut world, &mut alice);
    leave(&mut world, &mut bob);
    world.assert_nothing_left();
}

#[test]
fn a_restart_of_the_switch_that_only_its_answer_tells_of_is_noticed() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.switch().restart();
    join(&mut world, &mut Ua::new("bob"));
    assert_eq!(world.switch().legs("team"), 2);
}

#[test]
fn a_call_that_no_switch_takes_after_a_restart_is_ended_when_media_were_missing_too_long() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.faults.unreachable.push("sw1".into());
    world.settle();
    world.restart_focus();
    world.advance(Duration::from_secs(20));
    let ends = |world: &mut World| world.sent().iter().any(|m| *m.method() == Method::Bye);
    assert!(!ends(&mut world), "it may still come");
    world.advance(Duration::from_secs(15));
    assert!(ends(&mut world));
}

#[test]
fn a_call_that_no_switch_took_for_a_while_goes_on_when_one_comes() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.faults.unreachable.push("sw1".into());
    world.settle();
    world.restart_focus();
    world.advance(Duration::from_secs(5));
    world.faults.unreachable.clear();
    world.advance(Duration::from_secs(3));
    assert!(world.sent().is_empty());
    assert_eq!(world.switch().legs("team"), 1);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_first_call_meeting_keeps_its_kind_and_policy_over_a_restart() {
    let mut config = config();
    config.first_call.as_mut().unwrap().audio_slots = 1;
    let mut world = World::new(config);
    let mut alice = Ua::calling("alice", "adhoc");
    join(&mut world, &mut alice);
    assert_eq!(world.switch().policy.unwrap().audio_slots, 1);
    world.switch().policy = None;
    world.settle();
    world.restart_focus();
    assert_eq!(world.switch().policy.unwrap().audio_slots, 1);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_meeting_without_dialogs_is_given_up_after_a_restart() {
    let mut world = World::default();
    world.faults.hold_apply = true;
    let invite = Ua::new("alice").invite(PHONE_OFFER, "");
    world.send(&invite);
    world.faults.hold_apply = false;
    world.settle();
    world.restart_focus();
    assert_eq!(world.focus.counts().meetings, 0);
    world.assert_nothing_left();
}

const BROWSER_OFFER: &str = "v=0\r\no=- 5 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n\
a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=ice-options:trickle\r\n\
a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
a=setup:SETUP\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:77 cname:x\r\n";

fn attribute(sdp: &str, name: &str) -> String {
    let prefix = format!("a={name}:");
    let line = sdp.lines().find(|l| l.starts_with(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in {sdp}"))
        .to_owned()
}

#[test]
fn a_browser_whose_switch_restarted_is_offered_an_ice_restart() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let offer = BROWSER_OFFER.replace("SETUP", "actpass");
    let ok = join_with(&mut world, &mut alice, &offer, "");
    let before = body(&ok);
    world.switch().restart();
    world.switch_event(event::Event::Hello(Hello {
        instance: "i1".into(),
        certificate: vec![control::v1::Fingerprint {
            algorithm: "sha-256".into(),
            value: vec![9; 32].into(),
        }],
        ..Hello::default()
    }));
    let reinvite = world.request(Method::Invite);
    let after = body(&reinvite);
    for changed in ["ice-ufrag", "ice-pwd", "fingerprint"] {
        assert_ne!(
            attribute(&after, changed),
            attribute(&before, changed),
            "{changed}"
        );
    }
    let ice = world.switch().leg("team").transports[0]
        .ice
        .clone()
        .unwrap();
    assert_eq!(
        attribute(&after, "ice-ufrag"),
        format!("a=ice-ufrag:{}", ice.local_ufrag)
    );
    let answer = BROWSER_OFFER
        .replace("SETUP", "active")
        .replace("ice-ufrag:abcd", "ice-ufrag:wxyz");
    let ok = alice.respond(&reinvite, 200, "", Some(&answer));
    world.send(&ok);
    world.request(Method::Ack);
    let leg = world.switch().leg("team").clone();
    assert_eq!(leg.transports[0].ice.as_ref().unwrap().remote_ufrag, "wxyz");
    assert_eq!(
        leg.transports[0].ice.as_ref().unwrap().local_ufrag,
        ice.local_ufrag
    );
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}
