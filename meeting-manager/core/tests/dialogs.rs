//! Behaviour 21 and 22: 2xx and ACK, glare, overlapping requests, every way to offer and answer.

mod common;

use std::time::Duration;

use common::*;
use sip::{HeaderName, Message, Method};

// ---- 21: 2xx retransmitted until ACK, else BYE; glare; overlapping INVITEs

#[test]
fn behaviour_21_2xx_is_repeated_until_the_ack() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    let ok = world.answer();
    alice.learn(&ok);
    world.advance(Duration::from_secs(8));
    // After 0.5, 1.5, 3.5 and 7.5 s.
    let repeated = world.sent();
    assert_eq!(repeated.len(), 4);
    assert!(repeated.iter().all(|m| m.to_bytes() == ok.to_bytes()));
    let ack = alice.ack(None);
    world.send(&ack);
    world.advance(Duration::from_secs(40));
    assert!(world.sent().is_empty());
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_21_without_an_ack_the_session_is_ended_by_bye() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    let ok = world.answer();
    alice.learn(&ok);
    world.advance(Duration::from_millis(32_100));
    let bye = world
        .sent()
        .into_iter()
        .find(|m| *m.method() == Method::Bye);
    let bye = bye.expect("a BYE after 64*T1");
    let ok = alice.respond(&bye, 200, "", None);
    world.send(&ok);
    world.assert_nothing_left();
}

#[test]
fn behaviour_21_bye_waits_for_the_ack() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    let ok = world.answer();
    alice.learn(&ok);
    world.leg_event("team", control::v1::leg_event::Kind::DtlsFailed);
    assert!(world.sent().is_empty(), "RFC 3261 §15: not before the ACK");
    assert_eq!(world.switch().legs("team"), 0);
    let ack = alice.ack(None);
    world.send(&ack);
    let bye = world.request(Method::Bye);
    let ok = alice.respond(&bye, 200, "", None);
    world.send(&ok);
    world.assert_nothing_left();
}

#[test]
fn behaviour_21_overlapping_invite_is_answered_500_with_retry_after() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.faults.hold_store = true;
    let first = alice.invite(PHONE_HOLD, "");
    world.send(&first);
    let second = alice.invite(PHONE_RESUMED, "");
    world.send(&second);
    let refused = world.answer();
    assert_eq!(code(&refused), 500);
    let retry: u32 = refused
        .header(HeaderName::RetryAfter)
        .unwrap()
        .parse()
        .unwrap();
    assert!(retry <= 10);
    let ack = alice.ack_refusal(&refused);
    world.send(&ack);
    world.release();
    let ok = world.answer();
    assert_eq!(code(&ok), 200, "the first goes on");
    let ack = alice.ack_of(alice.cseq - 1, None);
    world.send(&ack);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

/// The focus has a re-INVITE out: its switch was started anew.
fn reinvited(world: &mut World) -> Message {
    world.switch().restart();
    world.switch_event(control::v1::event::Event::Hello(control::v1::Hello {
        instance: "i1".into(),
        ..control::v1::Hello::default()
    }));
    world.request(Method::Invite)
}

#[test]
fn behaviour_21_invite_that_meets_ours_is_answered_491() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let ours = reinvited(&mut world);
    let theirs = alice.invite(PHONE_HOLD, "");
    world.send(&theirs);
    let refused = world.answer();
    assert_eq!(code(&refused), 491);
    let ack = alice.ack_refusal(&refused);
    world.send(&ack);
    // And ours is answered 491 too: tried again within 2 s, since the Call-ID is theirs.
    let pending = alice.respond(&ours, 491, "", None);
    world.send(&pending);
    world.sent();
    world.advance(Duration::from_millis(2_010));
    let again = world.sent().remove(0);
    assert_eq!(*again.method(), Method::Invite);
    assert!(again.cseq().unwrap().number > ours.cseq().unwrap().number);
    assert!(body(&again).contains("m=audio 31000"), "{}", body(&again));
    let ok = alice.respond(&again, 200, "", Some(PHONE_RESUMED));
    world.send(&ok);
    let ack = world.request(Method::Ack);
    assert_eq!(ack.cseq().unwrap().number, again.cseq().unwrap().number);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_21_update_that_meets_our_offer_is_answered_491() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let ours = reinvited(&mut world);
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    assert_eq!(code(&world.answer()), 491);
    let ok = alice.respond(&ours, 200, "", Some(PHONE_RESUMED));
    world.send(&ok);
    world.request(Method::Ack);
}

#[test]
fn a_repeated_2xx_to_our_reinvite_gets_its_ack_again() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let ours = reinvited(&mut world);
    let ok = alice.respond(&ours, 200, "", Some(PHONE_RESUMED));
    world.send(&ok);
    let first = world.request(Method::Ack);
    world.send(&ok);
    let second = world.request(Method::Ack);
    assert_eq!(first.cseq().unwrap(), second.cseq().unwrap());
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn a_refused_reinvite_after_a_move_of_the_media_ends_the_call() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let ours = reinvited(&mut world);
    let refused = alice.respond(&ours, 488, "", None);
    world.send(&refused);
    let bye = world.request(Method::Bye);
    let ok = alice.respond(&bye, 200, "", None);
    world.send(&ok);
    world.assert_nothing_left();
}

#[test]
fn a_reinvite_that_is_answered_481_or_never_ends_the_call() {
    for answered in [true, false] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        join(&mut world, &mut alice);
        let ours = reinvited(&mut world);
        if answered {
            let gone = alice.respond(&ours, 481, "", None);
            world.send(&gone);
            assert!(
                world.sent().iter().all(|m| *m.method() != Method::Bye),
                "nobody is there for a BYE"
            );
        }
        world.advance(Duration::from_secs(70));
        world.sent();
        world.assert_nothing_left();
    }
}

// ---- 22: offers in INVITE, ACK, PRACK and UPDATE; hold; m-lines never removed or reordered

#[test]
fn behaviour_22_delayed_offer_in_the_200_and_answer_in_the_ack() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite_without_offer("");
    world.send(&invite);
    let ok = world.answer();
    assert_eq!(code(&ok), 200);
    assert!(body(&ok).contains("m=audio"), "our offer: {}", body(&ok));
    alice.learn(&ok);
    let answer = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
                  m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 0 RTP/AVP 96\r\n";
    let ack = alice.ack(Some(answer));
    world.send(&ack);
    let leg = world.switch().leg("team").clone();
    assert_eq!(leg.transports[0].remote_address, "192.0.2.10");
    assert_eq!(leg.media.len(), 1, "no video");
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_22_an_ack_without_the_answer_ends_the_call() {
    for answer in [None, Some("v=0\r\nnonsense\r\n")] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        let invite = alice.invite_without_offer("");
        world.send(&invite);
        let ok = world.answer();
        alice.learn(&ok);
        let ack = alice.ack(answer);
        world.send(&ack);
        let bye = world.request(Method::Bye);
        let ok = alice.respond(&bye, 200, "", None);
        world.send(&ok);
        world.assert_nothing_left();
    }
}

#[test]
fn behaviour_22_reliable_provisional_response_carries_the_answer() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "Require: 100rel\r\n");
    world.send(&invite);
    let progress = world.answer();
    assert_eq!(code(&progress), 183);
    assert!(progress.has_token(HeaderName::Require, "100rel"));
    assert!(body(&progress).contains("m=audio 30000"));
    let rseq = progress.header(HeaderName::RSeq).unwrap().to_owned();
    alice.learn(&progress);
    world.advance(Duration::from_millis(600));
    assert_eq!(code(&world.answer()), 183, "repeated until the PRACK");
    let rack = format!("RAck: {rseq} {} INVITE\r\n", alice.cseq);
    let prack = alice.request("PRACK", &rack, None);
    world.send(&prack);
    let answers = world.sent();
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|m| code(m) == 200));
    let ok = answers
        .iter()
        .find(|m| *m.method() == Method::Invite)
        .unwrap();
    assert!(ok.body().is_empty(), "the answer was in the 183");
    let ack = alice.ack_of(ok.cseq().unwrap().number, None);
    world.send(&ack);
    world.advance(Duration::from_secs(5));
    assert!(world.sent().is_empty());
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_22_delayed_offer_in_the_183_and_answer_in_the_prack() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite_without_offer("Require: 100rel\r\n");
    world.send(&invite);
    let progress = world.answer();
    assert_eq!(code(&progress), 183);
    assert!(body(&progress).contains("m=audio 30000"));
    alice.learn(&progress);
    let rseq = progress.header(HeaderName::RSeq).unwrap();
    let rack = format!("RAck: {rseq} {} INVITE\r\n", alice.cseq);
    let answer = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
                  m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 0 RTP/AVP 96\r\n";
    let prack = alice.request("PRACK", &rack, Some(("application/sdp", answer)));
    world.send(&prack);
    let answers = world.sent();
    assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), [200, 200]);
    assert!(answers.iter().all(|m| m.body().is_empty()));
    assert_eq!(world.switch().leg("team").transports[0].remote_port, 4000);
}

#[test]
fn behaviour_22_prack_may_carry_a_new_offer() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "Require: 100rel\r\n");
    world.send(&invite);
    let progress = world.answer();
    alice.learn(&progress);
    let rseq = progress.header(HeaderName::RSeq).unwrap();
    let rack = format!("RAck: {rseq} {} INVITE\r\n", alice.cseq);
    let prack = alice.request("PRACK", &rack, Some(("application/sdp", WITH_VIDEO)));
    world.send(&prack);
    let answers = world.sent();
    let to_prack = answers
        .iter()
        .find(|m| *m.method() == Method::Prack)
        .unwrap();
    assert!(
        body(to_prack).contains("m=video 30002"),
        "{}",
        body(to_prack)
    );
    assert!(
        answers
            .iter()
            .any(|m| *m.method() == Method::Invite && code(m) == 200)
    );
}

#[test]
fn behaviour_22_a_prack_that_fits_nothing_is_answered_481() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "Require: 100rel\r\n");
    world.send(&invite);
    let progress = world.answer();
    alice.learn(&progress);
    let prack = alice.request("PRACK", "RAck: 1 99 INVITE\r\n", None);
    world.send(&prack);
    assert_eq!(code(&world.answer()), 481);
}

#[test]
fn behaviour_22_without_a_prack_the_invite_fails_and_nothing_is_left() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "Require: 100rel\r\n");
    world.send(&invite);
    alice.learn(&world.answer());
    world.advance(Duration::from_secs(33));
    let last = world.sent().pop().unwrap();
    assert_eq!(code(&last), 504);
    let ack = alice.ack_refusal(&last);
    world.send(&ack);
    world.assert_nothing_left();
}

#[test]
fn behaviour_22_update_changes_the_media() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    let ok = world.answer();
    assert_eq!(code(&ok), 200);
    assert!(body(&ok).contains("a=recvonly"), "{}", body(&ok));
    assert!(!world.switch().leg("team").media[0].send);
}

#[test]
fn behaviour_22_update_in_an_early_dialog_is_answered_before_the_200() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "Require: 100rel\r\n");
    world.send(&invite);
    let progress = world.answer();
    alice.learn(&progress);
    let invite_cseq = alice.cseq;
    let update = alice.update(Some(PHONE_HOLD), "");
    world.send(&update);
    let ok = world.answer();
    assert_eq!((code(&ok), ok.method().clone()), (200, Method::Update));
    let rseq = progress.header(HeaderName::RSeq).unwrap();
    let rack = format!("RAck: {rseq} {invite_cseq} INVITE\r\n");
    let prack = alice.request("PRACK", &rack, None);
    world.send(&prack);
    assert!(
        world
            .sent()
            .iter()
            .any(|m| *m.method() == Method::Invite && code(m) == 200)
    );
}

#[test]
fn behaviour_22_hold_and_resume() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let ssrc = world.switch().leg("team").media[0].slot.unwrap().ssrc;
    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    let ok = world.answer();
    assert!(body(&ok).contains("a=recvonly"), "{}", body(&ok));
    let ack = alice.ack(None);
    world.send(&ack);
    let media = world.switch().leg("team").media[0].clone();
    assert!(media.receive && !media.send);

    let resume = alice.invite(PHONE_RESUMED, "");
    world.send(&resume);
    let ok = world.answer();
    assert!(body(&ok).contains("a=sendrecv"), "{}", body(&ok));
    let ack = alice.ack(None);
    world.send(&ack);
    let media = world.switch().leg("team").media[0].clone();
    assert!(media.receive && media.send);
    assert_eq!(media.slot.unwrap().ssrc, ssrc, "the slot outlives the hold");
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_22_video_is_added_and_dropped_and_its_line_stays() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let more = alice.invite(WITH_VIDEO, "");
    world.send(&more);
    let ok = world.answer();
    assert!(body(&ok).contains("m=video 30002"), "{}", body(&ok));
    let ack = alice.ack(None);
    world.send(&ack);
    assert_eq!(world.switch().leg("team").media.len(), 2);

    let less = alice.invite(VIDEO_DROPPED, "");
    world.send(&less);
    let ok = world.answer();
    assert!(body(&ok).contains("m=video 0"), "{}", body(&ok));
    let ack = alice.ack(None);
    world.send(&ack);
    let leg = world.switch().leg("team").clone();
    assert_eq!((leg.media.len(), leg.transports.len()), (1, 1));
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_22_an_offer_that_removes_a_line_is_refused_and_the_media_stay() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join_with(&mut world, &mut alice, WITH_VIDEO, "");
    let before = world.switch().leg("team").clone();
    let bad = alice.invite(PHONE_RESUMED, "");
    world.send(&bad);
    let refused = world.answer();
    assert_eq!(code(&refused), 400);
    let ack = alice.ack_refusal(&refused);
    world.send(&ack);
    assert_eq!(*world.switch().leg("team"), before);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn behaviour_22_reinvite_without_an_offer_gets_ours() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let invite = alice.invite_without_offer("");
    world.send(&invite);
    let ok = world.answer();
    assert!(body(&ok).contains("m=audio 30000"), "{}", body(&ok));
    let ack = alice.ack(Some(PHONE_HOLD));
    world.send(&ack);
    assert!(!world.switch().leg("team").media[0].send);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

// ---- CANCEL

#[test]
fn cancel_before_the_meeting_is_claimed() {
    let mut world = World::default();
    world.faults.hold_claim = true;
    cancelled(&mut world);
}

#[test]
fn cancel_while_the_switch_is_told() {
    let mut world = World::default();
    world.faults.hold_apply = true;
    cancelled(&mut world);
}

#[test]
fn cancel_while_the_record_is_written() {
    let mut world = World::default();
    world.faults.hold_store = true;
    cancelled(&mut world);
}

fn cancelled(world: &mut World) {
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    world.sent();
    let cancel = alice.cancel();
    world.send(&cancel);
    let answers = world.sent();
    let codes: Vec<(Method, u16)> = answers
        .iter()
        .map(|m| (m.method().clone(), code(m)))
        .collect();
    assert!(codes.contains(&(Method::Cancel, 200)), "{codes:?}");
    assert!(codes.contains(&(Method::Invite, 487)), "{codes:?}");
    let refused = answers.iter().find(|m| code(m) == 487).unwrap();
    let ack = alice.ack_refusal(refused);
    world.send(&ack);
    world.release();
    assert!(
        world
            .sent()
            .iter()
            .all(|m| m.status().is_none_or(|s| !s.is_success())),
        "no 200 after the 487"
    );
    world.assert_nothing_left();
}

#[test]
fn cancel_after_the_200_changes_nothing() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    let ok = world.answer();
    let cancel = alice.cancel();
    world.send(&cancel);
    world.sent();
    alice.learn(&ok);
    let ack = alice.ack(None);
    world.send(&ack);
    assert_eq!(world.switch().legs("team"), 1);
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn cancel_of_a_reinvite_leaves_the_media_as_they_were() {
    for hold_apply in [true, false] {
        let mut world = World::default();
        let mut alice = Ua::new("alice");
        join(&mut world, &mut alice);
        let before = world.switch().leg("team").clone();
        world.faults.hold_apply = hold_apply;
        world.faults.hold_store = !hold_apply;
        let hold = alice.invite(PHONE_HOLD, "");
        world.send(&hold);
        let cancel = alice.cancel();
        world.send(&cancel);
        let answers = world.sent();
        let refused = answers.iter().find(|m| code(m) == 487).unwrap();
        let ack = alice.ack_refusal(refused);
        world.send(&ack);
        world.release();
        assert_eq!(*world.switch().leg("team"), before);
        leave(&mut world, &mut alice);
        world.assert_nothing_left();
    }
}

#[test]
fn bye_while_a_reinvite_is_pending_ends_both() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    world.faults.hold_store = true;
    let hold = alice.invite(PHONE_HOLD, "");
    world.send(&hold);
    world.sent();
    let pending = alice.clone();
    let bye = alice.bye();
    world.send(&bye);
    let answers = world.sent();
    let refused = answers
        .iter()
        .find(|m| code(m) == 487)
        .expect("RFC 3261 §15.1.2");
    assert!(
        answers
            .iter()
            .any(|m| *m.method() == Method::Bye && code(m) == 200)
    );
    let ack = pending.ack_refusal(refused);
    world.send(&ack);
    world.release();
    world.assert_nothing_left();
}

// ---- requests that do not fit

#[test]
fn an_old_cseq_is_answered_500_and_an_unknown_dialog_481() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let info = alice.request("INFO", "", None);
    world.send(&info);
    assert_eq!(code(&world.answer()), 200);
    let mut late = alice.clone();
    late.cseq = 0;
    late.branch = 100;
    let info = late.request("INFO", "", None);
    world.send(&info);
    assert_eq!(code(&world.answer()), 500);

    let mut stranger = alice.clone();
    stranger.call_id = "other".into();
    stranger.branch = 200;
    for method in ["BYE", "INVITE", "UPDATE", "PRACK", "INFO", "SUBSCRIBE"] {
        let text = stranger.request(method, "", None);
        world.send(&text);
        let refused = world.answer();
        assert_eq!(code(&refused), 481, "{method}");
        if method == "INVITE" {
            let ack = stranger.ack_refusal(&refused);
            world.send(&ack);
        }
    }
}

#[test]
fn info_of_a_package_is_answered_469_and_says_that_none_is_taken() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    for head in ["Info-Package: dtmf\r\n", "info-package:  nil ; x=y\r\n"] {
        let info = alice.request(
            "INFO",
            head,
            Some(("application/dtmf-relay", "Signal=5\r\n")),
        );
        world.send(&info);
        let refused = world.answer();
        assert_eq!(code(&refused), 469);
        assert_eq!(refused.header(HeaderName::Other("Recv-Info")), Some(""));
    }
    leave(&mut world, &mut alice);
    world.assert_nothing_left();
}

#[test]
fn info_without_a_package_is_taken_whatever_it_carries() {
    let mut world = World::default();
    let mut alice = Ua::new("alice");
    join(&mut world, &mut alice);
    let info = alice.request("INFO", "", Some(("application/dtmf-relay", "Signal=5\r\n")));
    world.send(&info);
    assert_eq!(code(&world.answer()), 200);
}

#[test]
fn a_merged_invite_is_answered_482() {
    let mut world = World::default();
    world.faults.hold_claim = true;
    let mut alice = Ua::new("alice");
    let invite = alice.invite(PHONE_OFFER, "");
    world.send(&invite);
    world.sent();
    let merged = invite.replace("branch=z9hG4bK-alice-1\r", "branch=z9hG4bK-elsewhere\r");
    world.send(&merged);
    assert_eq!(code(&world.answer()), 482);
    world.release();
    assert_eq!(code(&world.answer()), 200, "the first is unharmed");
}
