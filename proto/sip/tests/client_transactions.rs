//! Requests that go out: repeating, ACK and CANCEL, giving up (RFC 3261 §17.1, §9.1; RFC 6026).

mod support;

use sip::transaction::TableLimits;
use sip::{HeaderName, Message, Method, Transport};
use support::{Rig, hop, ms, names, parse_bytes};

#[test]
fn an_invite_is_repeated_with_doubling_intervals_until_timer_b() {
    let mut rig = Rig::new();
    rig.send(Method::Invite, Transport::Udp);
    let times: Vec<u128> = rig.run_until(ms(40_000)).iter().map(|l| l.0).collect();
    assert_eq!(times, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert_eq!(names(&rig.events()), ["timeout"]);
    assert!(rig.layer.is_empty());
}

#[test]
fn another_request_is_repeated_up_to_t2_until_timer_f() {
    let mut rig = Rig::new();
    rig.send(Method::Options, Transport::Udp);
    let times: Vec<u128> = rig.run_until(ms(40_000)).iter().map(|l| l.0).collect();
    assert_eq!(
        times,
        [
            500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    assert_eq!(names(&rig.events()), ["timeout"]);
}

#[test]
fn over_streams_requests_go_once() {
    for method in [Method::Invite, Method::Options] {
        let mut rig = Rig::new();
        rig.send(method, Transport::Tcp);
        assert!(rig.run_until(ms(31_999)).is_empty());
        rig.run_until(ms(32_000));
        assert_eq!(names(&rig.events()), ["timeout"]);
    }
}

#[test]
fn the_via_names_us_the_transport_and_a_fresh_branch() {
    let mut rig = Rig::new();
    let (_, first) = rig.send(Method::Options, Transport::Wss);
    let (_, second) = rig.send(Method::Options, Transport::Wss);
    let via = first.top_via().expect("ours");
    assert_eq!(via.transport, "WSS");
    assert_eq!((via.host.as_str(), via.port), ("192.0.2.100", Some(5_060)));
    assert!(via.branch().starts_with("z9hG4bK"));
    assert!(via.params.get("rport").is_some());
    assert_ne!(via.branch(), second.top_via().expect("ours").branch());
    let mut same_seed = Rig::new();
    let (_, again) = same_seed.send(Method::Options, Transport::Wss);
    assert_eq!(again.to_bytes(), first.to_bytes());
}

#[test]
fn the_ack_of_a_failure_goes_hop_by_hop_and_again_with_every_repetition() {
    let mut rig = Rig::new();
    let (_, invite) = rig.send(Method::Invite, Transport::Udp);
    rig.answer(&invite, 486);
    rig.answer(&invite, 486);
    assert_eq!(names(&rig.events()), ["response 486"]);
    let acks = rig.sent();
    assert_eq!(acks.len(), 2);
    assert_eq!(acks[0].bytes, acks[1].bytes);
    let ack = parse_bytes(acks[0].bytes.clone());
    assert_eq!(*ack.method(), Method::Ack);
    assert_eq!(ack.request_uri(), invite.request_uri());
    assert_eq!(
        ack.top_via().expect("copied"),
        invite.top_via().expect("ours")
    );
    assert_eq!(ack.values(HeaderName::Via).count(), 1);
    assert_eq!(ack.header(HeaderName::Route), Some("<sip:p.example;lr>"));
    assert_eq!(ack.to().expect("the response's").tag(), Some("b1"));
    assert_eq!(ack.header(HeaderName::CSeq), Some("1 ACK"));
    assert_eq!(ack.defect(), None);
    rig.run_until(ms(31_999));
    assert_eq!(rig.layer.len(), (1, 0));
    rig.run_until(ms(32_001));
    assert!(rig.layer.is_empty());
}

#[test]
fn every_2xx_goes_up_until_timer_m_and_none_is_acknowledged_here() {
    let mut rig = Rig::new();
    let (_, invite) = rig.send(Method::Invite, Transport::Udp);
    rig.answer(&invite, 180);
    rig.answer(&invite, 200);
    rig.run_until(ms(20_000));
    rig.answer(&invite, 200);
    assert_eq!(
        names(&rig.events()),
        ["response 180", "response 200", "response 200"]
    );
    assert!(rig.sent().is_empty());
    rig.run_until(ms(32_001));
    rig.answer(&invite, 200);
    assert_eq!(names(&rig.events()), ["stray response"]);
}

#[test]
fn a_final_response_to_another_request_is_told_once() {
    let mut rig = Rig::new();
    let (_, options) = rig.send(Method::Options, Transport::Udp);
    rig.answer(&options, 100);
    rig.answer(&options, 404);
    rig.answer(&options, 404);
    assert_eq!(names(&rig.events()), ["response 100", "response 404"]);
    rig.run_until(ms(5_001));
    assert!(rig.layer.is_empty());
}

#[test]
fn in_proceeding_timer_e_is_t2() {
    let mut rig = Rig::new();
    let (_, options) = rig.send(Method::Options, Transport::Udp);
    rig.answer(&options, 100);
    let times: Vec<u128> = rig.run_until(ms(9_000)).iter().map(|l| l.0).collect();
    assert_eq!(times, [500, 4_500, 8_500]);
}

#[test]
fn a_response_with_another_method_or_branch_is_a_stray() {
    let mut rig = Rig::new();
    let (_, options) = rig.send(Method::Options, Transport::Udp);
    let mut other = options.clone();
    other.set(HeaderName::CSeq, "1 MESSAGE");
    rig.answer(&other, 200);
    let mut forged = options.clone();
    forged.set(HeaderName::Via, "SIP/2.0/UDP x;branch=z9hG4bKguess");
    rig.answer(&forged, 200);
    assert_eq!(names(&rig.events()), ["stray response", "stray response"]);
    assert_eq!(rig.layer.len(), (1, 0));
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let mut rig = Rig::new();
    let (key, invite) = rig.send(Method::Invite, Transport::Udp);
    rig.layer.cancel(rig.now, key, Some("SIP;cause=200"));
    assert!(rig.sent().is_empty());
    rig.answer(&invite, 100);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    let cancel = parse_bytes(sent[0].bytes.clone());
    assert_eq!(*cancel.method(), Method::Cancel);
    assert_eq!(cancel.request_uri(), invite.request_uri());
    assert_eq!(
        cancel.top_via().expect("copied"),
        invite.top_via().expect("ours")
    );
    assert_eq!(cancel.to().expect("copied").tag(), None);
    assert_eq!(cancel.header(HeaderName::CSeq), Some("1 CANCEL"));
    assert_eq!(cancel.header(HeaderName::Reason), Some("SIP;cause=200"));
    assert_eq!(cancel.header(HeaderName::Route), Some("<sip:p.example;lr>"));
    rig.layer.cancel(rig.now, key, None);
    assert!(rig.sent().is_empty(), "once is enough");
    rig.answer(&cancel, 200);
    rig.answer(&invite, 487);
    assert_eq!(names(&rig.events()), ["response 100", "response 487"]);
    assert_eq!(rig.sent_lines(), ["ACK"]);
}

#[test]
fn a_cancel_is_repeated_until_answered_and_the_invite_given_up_after_64_t1() {
    let mut rig = Rig::new();
    let (key, invite) = rig.send(Method::Invite, Transport::Udp);
    rig.answer(&invite, 180);
    rig.layer.cancel(rig.now, key, None);
    let log = rig.run_until(ms(40_000));
    assert_eq!(log.len(), 11);
    assert!(log.iter().all(|(_, line)| line == "CANCEL"));
    assert_eq!(
        names(&rig.events()),
        ["response 180", "timeout"],
        "the CANCEL's own timeout is nobody's"
    );
    assert!(rig.layer.is_empty());
}

#[test]
fn a_2xx_that_crosses_the_cancel_wins() {
    let mut rig = Rig::new();
    let (key, invite) = rig.send(Method::Invite, Transport::Udp);
    rig.answer(&invite, 200);
    rig.layer.cancel(rig.now, key, None);
    assert!(rig.sent().is_empty());
    assert_eq!(names(&rig.events()), ["response 200"]);
}

#[test]
fn a_transport_error_is_told_and_ends_it() {
    let mut rig = Rig::new();
    for method in [Method::Invite, Method::Options] {
        let (key, _) = rig.send(method, Transport::Tcp);
        rig.layer.handle_transport_error(rig.now, key);
        rig.layer.handle_transport_error(rig.now, key);
        assert_eq!(names(&rig.events()), ["transport failed"]);
        assert!(rig.layer.is_empty());
    }
    assert_eq!(rig.layer.poll_timeout(), None);
}

#[test]
fn a_forgotten_request_says_nothing_more() {
    let mut rig = Rig::new();
    let (key, invite) = rig.send(Method::Invite, Transport::Udp);
    rig.layer.forget(key);
    assert!(rig.run_until(ms(40_000)).is_empty());
    assert!(rig.events().is_empty());
    rig.answer(&invite, 200);
    assert_eq!(names(&rig.events()), ["stray response"]);
}

#[test]
fn a_full_table_of_clients_fails_the_request_at_once() {
    let mut rig = Rig::with_limits(TableLimits {
        servers: 8,
        clients: 1,
    });
    rig.send(Method::Options, Transport::Udp);
    let key = rig.layer.send_request(
        rig.now,
        Message::request(Method::Options, "sip:x"),
        hop(Transport::Udp, "192.0.2.9:5060"),
        "us",
        None,
    );
    assert!(rig.sent().is_empty());
    let events = rig.events();
    assert!(
        matches!(events[..], [sip::transaction::Event::TransportFailed { key: k }] if k == key)
    );
}

#[test]
fn an_ack_goes_out_without_a_transaction() {
    let mut rig = Rig::new();
    rig.layer.send_stateless(
        Message::request(Method::Ack, "sip:bob@192.0.2.9"),
        hop(Transport::Udp, "192.0.2.9:5060"),
        "us.example",
        Some("z9hG4bKmine"),
    );
    let sent = rig.sent().pop().expect("sent at once");
    assert_eq!(sent.client, None);
    let ack = parse_bytes(sent.bytes);
    assert_eq!(ack.top_via().expect("ours").branch(), "z9hG4bKmine");
    assert!(rig.layer.is_empty());
}
