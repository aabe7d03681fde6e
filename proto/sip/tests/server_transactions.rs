//! Requests that come in: matching, absorbing, answering (RFC 3261 §17.2, §18.2, §9.2; RFC 6026, 4320, 3581).

mod support;

use sip::transaction::TableLimits;
use sip::{HeaderName, Message, StatusCode, Transport};
use support::{Rig, hop, ms, names, only_request, parse_bytes, request, request_via};

const CLIENT: &str = "192.0.2.1:5060";

fn udp() -> sip::Hop {
    hop(Transport::Udp, CLIENT)
}

#[test]
fn an_invite_is_answered_100_after_200_ms_and_its_timestamp_comes_back() {
    let mut rig = Rig::new();
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    only_request(rig.events());
    assert!(rig.run_until(ms(199)).is_empty());
    rig.now = rig.t0 + ms(200);
    rig.layer.handle_timeout(rig.now);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    let trying = parse_bytes(sent[0].bytes.clone());
    assert_eq!(trying.status(), StatusCode::new(100));
    assert_eq!(trying.header(HeaderName::Other("Timestamp")), Some("54"));
    assert_eq!(trying.to().expect("copied").tag(), None);
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    assert_eq!(rig.sent_lines(), ["100 Trying"]);
    assert!(rig.events().is_empty());
}

#[test]
fn an_invite_that_the_user_answers_in_time_gets_no_100() {
    let mut rig = Rig::new();
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    let (key, invite) = only_request(rig.events());
    rig.respond(key, &invite, 180);
    assert_eq!(rig.run_until(ms(1_000)), [(0, "180 Ringing".to_owned())]);
}

#[test]
fn a_failure_is_repeated_from_t1_up_to_t2_until_timer_h() {
    let mut rig = Rig::new();
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    let (key, invite) = only_request(rig.events());
    rig.respond(key, &invite, 486);
    let times: Vec<u128> = rig.run_until(ms(40_000)).iter().map(|l| l.0).collect();
    assert_eq!(
        times,
        [
            0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    assert_eq!(names(&rig.events()), ["not acknowledged"]);
    assert!(rig.layer.is_empty());
}

#[test]
fn the_ack_of_a_failure_ends_its_repetition_and_is_absorbed() {
    let mut rig = Rig::new();
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    let (key, invite) = only_request(rig.events());
    rig.respond(key, &invite, 486);
    rig.receive(request("ACK", "z9hG4bK1", 1, "f1"), udp());
    rig.receive(request("ACK", "z9hG4bK1", 1, "f1"), udp());
    assert_eq!(names(&rig.events()), ["acknowledged"]);
    assert_eq!(rig.run_until(ms(4_999)).len(), 1);
    assert_eq!(rig.layer.len(), (0, 1), "timer I still absorbs");
    rig.run_until(ms(5_001));
    assert!(rig.layer.is_empty());
}

#[test]
fn the_ack_of_a_2xx_goes_to_the_user_whatever_its_branch() {
    let mut rig = Rig::new();
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    let (key, invite) = only_request(rig.events());
    rig.respond(key, &invite, 200);
    assert!(rig.layer.request(key).is_none());
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    assert_eq!(rig.sent_lines(), ["200 OK"], "only the user repeats it");
    rig.respond(key, &invite, 200);
    assert_eq!(rig.sent_lines(), ["200 OK"]);
    rig.respond(key, &invite, 486);
    assert!(rig.sent().is_empty());
    rig.receive(request("ACK", "z9hG4bK2", 1, "f1"), udp());
    rig.receive(request("ACK", "z9hG4bK1", 1, "f1"), udp());
    assert_eq!(names(&rig.events()), ["ack", "ack"]);
    rig.run_until(ms(32_001));
    assert!(rig.layer.is_empty());
}

#[test]
fn matching_goes_by_branch_sent_by_and_method() {
    let mut rig = Rig::new();
    for (via, method) in [
        ("192.0.2.1:5060;branch=z9hG4bK1", "OPTIONS"),
        ("192.0.2.1:5060;branch=z9hG4bK2", "OPTIONS"),
        ("192.0.2.2:5060;branch=z9hG4bK1", "OPTIONS"),
        ("192.0.2.1:5062;branch=z9hG4bK1", "OPTIONS"),
        ("192.0.2.1:5060;branch=z9hG4bK1", "MESSAGE"),
    ] {
        rig.receive(request_via(via, method, 1, ""), udp());
        assert_eq!(rig.events().len(), 1, "{via} {method}");
        rig.receive(request_via(via, method, 1, ""), udp());
        assert!(rig.events().is_empty(), "{via} {method}");
    }
    assert_eq!(rig.layer.len(), (0, 5));
}

#[test]
fn branches_without_the_cookie_match_by_headers() {
    let mut rig = Rig::new();
    let invite = || request_via("192.0.2.1:5060;branch=1", "INVITE", 1, "");
    rig.receive(invite(), udp());
    let (key, handed_up) = only_request(rig.events());
    rig.receive(invite(), udp());
    assert!(rig.events().is_empty());
    let mut other = invite();
    other.set(HeaderName::CallId, "c9");
    rig.receive(other, udp());
    assert_eq!(rig.events().len(), 1);
    rig.respond(key, &handed_up, 486);
    // The ACK of another fork's response is not ours.
    rig.receive(
        request_via("192.0.2.1:5060;branch=1", "ACK", 1, "zz"),
        udp(),
    );
    assert_eq!(names(&rig.events()), ["ack"]);
    rig.receive(
        request_via("192.0.2.1:5060;branch=1", "ACK", 1, "f1"),
        udp(),
    );
    assert_eq!(names(&rig.events()), ["acknowledged"]);
    // A client from before branches.
    rig.receive(request_via("192.0.2.1:5060", "OPTIONS", 2, ""), udp());
    rig.receive(request_via("192.0.2.1:5060", "OPTIONS", 2, ""), udp());
    assert_eq!(names(&rig.events()), ["request OPTIONS"]);
}

#[test]
fn a_non_invite_is_answered_again_until_timer_j() {
    let mut rig = Rig::new();
    rig.receive(request("REGISTER", "z9hG4bK1", 1, ""), udp());
    let (key, register) = only_request(rig.events());
    rig.receive(request("REGISTER", "z9hG4bK1", 1, ""), udp());
    assert!(rig.sent().is_empty());
    rig.respond(key, &register, 200);
    rig.receive(request("REGISTER", "z9hG4bK1", 1, ""), udp());
    assert_eq!(rig.sent_lines(), ["200 OK", "200 OK"]);
    rig.run_until(ms(31_999));
    assert_eq!(rig.layer.len(), (0, 1));
    rig.run_until(ms(32_001));
    assert!(rig.layer.is_empty());
    assert!(rig.events().is_empty());
}

#[test]
fn no_late_408_and_no_early_100_for_a_non_invite() {
    let mut rig = Rig::new();
    rig.receive(request("OPTIONS", "z9hG4bK1", 1, ""), udp());
    let (key, options) = only_request(rig.events());
    rig.respond(key, &options, 100);
    rig.respond(key, &options, 180);
    assert_eq!(
        rig.run_until(ms(20_000)),
        [(3_500, "100 Trying".to_owned())]
    );
    rig.respond(key, &options, 408);
    assert!(rig.sent().is_empty());
    rig.run_until(ms(32_001));
    rig.respond(key, &options, 200);
    assert!(rig.sent().is_empty(), "the client has given up");
    assert!(rig.layer.is_empty());
}

#[test]
fn a_cancel_is_answered_200_and_told_once() {
    let mut rig = Rig::new();
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    let (key, invite) = only_request(rig.events());
    rig.respond(key, &invite, 180);
    rig.sent();
    rig.receive(request("CANCEL", "z9hG4bK1", 1, ""), udp());
    rig.receive(request("CANCEL", "z9hG4bK1", 1, ""), udp());
    let sent = rig.sent();
    assert_eq!(sent.len(), 2);
    let ok = parse_bytes(sent[0].bytes.clone());
    assert_eq!(ok.status(), StatusCode::new(200));
    assert_eq!(ok.to().expect("copied").tag(), Some("f1"));
    assert_eq!(ok.header(HeaderName::CSeq), Some("1 CANCEL"));
    assert_eq!(names(&rig.events()), ["cancel"]);
    assert!(rig.layer.request(key).is_some());
    rig.respond(key, &invite, 487);
    assert_eq!(rig.sent_lines(), ["487 Request Terminated"]);
    rig.receive(request("CANCEL", "z9hG4bK1", 1, ""), udp());
    assert_eq!(rig.sent_lines(), ["200 OK"], "too late, but known");
    assert!(rig.events().is_empty());
}

#[test]
fn a_cancel_of_nothing_or_from_elsewhere_is_the_users_to_refuse() {
    let mut rig = Rig::new();
    rig.receive(request("CANCEL", "z9hG4bK9", 1, ""), udp());
    assert_eq!(names(&rig.events()), ["request CANCEL"]);
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    rig.events();
    rig.receive(
        request("CANCEL", "z9hG4bK1", 1, ""),
        hop(Transport::Udp, "203.0.113.66:5060"),
    );
    assert_eq!(names(&rig.events()), ["request CANCEL"]);
    assert!(rig.sent().is_empty());
}

#[test]
fn received_and_rport_say_where_a_request_came_from() {
    for (via, stamped) in [
        ("192.0.2.1:5060;branch=z9hG4bK1", None),
        (
            "192.0.2.1:5060;branch=z9hG4bK1;rport",
            Some(("192.0.2.1", Some("5060"))),
        ),
        ("phone.example;branch=z9hG4bK1", Some(("192.0.2.1", None))),
        ("10.0.0.1:9;branch=z9hG4bK1", Some(("192.0.2.1", None))),
        (
            "10.0.0.1:9;rport=1;received=10.9.9.9;branch=z9hG4bK1",
            Some(("192.0.2.1", Some("5060"))),
        ),
        ("192.0.2.1;received=10.9.9.9;branch=z9hG4bK1", None),
    ] {
        let mut rig = Rig::new();
        rig.receive(request_via(via, "OPTIONS", 1, ""), udp());
        let (_, message) = only_request(rig.events());
        let top = message.top_via().expect("stamped or not, it parses");
        let seen = top
            .params
            .get("received")
            .map(|received| (received, top.params.get("rport")));
        assert_eq!(seen, stamped, "{via}");
    }
}

#[test]
fn responses_go_by_the_top_via() {
    for (via, port) in [
        ("10.0.0.1:9;branch=z9hG4bK1;rport", 1_234),
        ("10.0.0.1:9;branch=z9hG4bK1", 9),
        ("phone.example;branch=z9hG4bK1", 5_060),
        ("10.0.0.1:9;branch=z9hG4bK1;maddr=203.0.113.5", 9),
    ] {
        let mut rig = Rig::new();
        let source = hop(Transport::Udp, "192.0.2.1:1234");
        rig.receive(request_via(via, "OPTIONS", 1, ""), source);
        let (key, message) = only_request(rig.events());
        rig.respond(key, &message, 200);
        let sent = rig.sent().pop().expect("answered");
        assert_eq!(sent.hop.remote, ([192, 0, 2, 1], port).into(), "{via}");
        assert_eq!(sent.hop.local, source.local, "from the same socket");
        let same = sent.hop.remote == source.remote;
        assert_eq!(sent.hop.flow, source.flow.filter(|_| same));
    }
    let mut rig = Rig::new();
    let stream = hop(Transport::Tls, "192.0.2.1:1234");
    rig.receive(
        request_via("10.0.0.1:9;branch=z9hG4bK1", "OPTIONS", 1, ""),
        stream,
    );
    let (key, message) = only_request(rig.events());
    rig.respond(key, &message, 200);
    assert_eq!(rig.sent().pop().expect("answered").hop, stream);
}

#[test]
fn over_streams_nothing_is_repeated_and_transactions_end_at_once() {
    let mut rig = Rig::new();
    let tcp = hop(Transport::Tcp, CLIENT);
    rig.receive(request("OPTIONS", "z9hG4bK1", 1, ""), tcp);
    let (key, message) = only_request(rig.events());
    rig.respond(key, &message, 200);
    assert!(rig.layer.is_empty());
    rig.receive(request("INVITE", "z9hG4bK2", 2, ""), tcp);
    let (key, message) = only_request(rig.events());
    rig.respond(key, &message, 486);
    assert_eq!(rig.run_until(ms(10_000)).len(), 2);
    rig.receive(request("ACK", "z9hG4bK2", 2, "f1"), tcp);
    assert!(rig.layer.is_empty());
    assert_eq!(rig.layer.poll_timeout(), None);
}

#[test]
fn a_request_that_comes_two_ways_is_merged() {
    let mut rig = Rig::new();
    rig.receive(request("INVITE", "z9hG4bK1", 1, ""), udp());
    let (first, first_message) = only_request(rig.events());
    rig.receive(request("INVITE", "z9hG4bK2", 1, ""), udp());
    let (second, second_message) = only_request(rig.events());
    assert!(!rig.layer.is_merged(first));
    assert!(rig.layer.is_merged(second));
    rig.respond(second, &second_message, 482);
    rig.receive(request("INVITE", "z9hG4bK3", 2, ""), udp());
    let (next, _) = only_request(rig.events());
    assert!(!rig.layer.is_merged(next), "another CSeq");
    rig.receive(request("INVITE", "z9hG4bK4", 1, "f1"), udp());
    let (inside, _) = only_request(rig.events());
    assert!(!rig.layer.is_merged(inside), "inside a dialog");
    rig.respond(first, &first_message, 486);
    rig.run_until(ms(40_000));
    rig.events();
    rig.receive(request("INVITE", "z9hG4bK5", 1, ""), udp());
    let (afresh, _) = only_request(rig.events());
    assert!(!rig.layer.is_merged(afresh), "the first is gone");
}

#[test]
fn a_full_table_refuses_new_sessions_first_and_dialogs_last() {
    let mut rig = Rig::with_limits(TableLimits {
        servers: 16,
        clients: 1,
    });
    for n in 0..14 {
        rig.receive(request("INVITE", &format!("z9hG4bK{n}"), n, ""), udp());
    }
    assert_eq!(rig.events().len(), 14);
    let late = hop(Transport::Udp, "192.0.2.1:1234");
    rig.receive(
        request_via("10.0.0.1;rport;branch=z9hG4bKx", "INVITE", 99, ""),
        late,
    );
    let events = rig.events();
    assert_eq!(names(&events), ["overloaded INVITE"]);
    let [sip::transaction::Event::Overloaded { message, hop }] = &events[..] else {
        unreachable!("just compared");
    };
    let response = Message::response(message, StatusCode::of(503), None, Some("x"));
    rig.layer.respond_stateless(&response, *hop);
    let sent = rig.sent().pop().expect("answered");
    assert_eq!(sent.hop, late);
    for n in 0..2 {
        rig.receive(request("BYE", &format!("z9hG4bKb{n}"), n, "f1"), udp());
    }
    rig.receive(request("BYE", "z9hG4bKb9", 9, "f1"), udp());
    assert_eq!(
        names(&rig.events()),
        ["request BYE", "request BYE", "overloaded BYE"]
    );
    assert_eq!(rig.layer.len(), (0, 16));
    rig.receive(request("INVITE", "z9hG4bK3", 3, ""), udp());
    assert!(rig.events().is_empty(), "a repetition is still absorbed");
}

#[test]
fn a_request_with_an_unreadable_via_is_dropped() {
    let mut rig = Rig::new();
    let mut broken = request("OPTIONS", "z9hG4bK1", 1, "");
    broken.set(HeaderName::Via, "nonsense");
    rig.receive(broken, udp());
    let mut none = request("OPTIONS", "z9hG4bK1", 1, "");
    none.remove(HeaderName::Via);
    rig.receive(none, udp());
    assert!(rig.events().is_empty());
    assert!(rig.layer.is_empty());
}
