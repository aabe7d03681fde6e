use bytes::Bytes;

use super::*;
use crate::message::Limits;

fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default())
        .expect("a test message parses")
}

fn invite() -> Message {
    parse(
        "INVITE sip:meeting@rostrum.example SIP/2.0
Via: SIP/2.0/UDP phone.example;branch=z9hG4bK1
Record-Route: <sip:p2.example;lr>, <sip:p1.example;lr>
Max-Forwards: 70
From: \"Alice; <A>\" <sip:alice@example.com>;tag=a1
To: <sip:meeting@rostrum.example>
Call-ID: c1
CSeq: 7 INVITE
Contact: <sip:alice@192.0.2.1:5062;transport=tcp>;expires=60
Content-Length: 0

",
    )
}

fn in_dialog(method: &str, cseq: u32, extra: &str) -> Message {
    parse(&format!(
        "{method} sip:focus@rostrum.example SIP/2.0
Via: SIP/2.0/UDP phone.example;branch=z9hG4bK{cseq}
From: <sip:alice@example.com>;tag=a1
To: <sip:meeting@rostrum.example>;tag=f1
Call-ID: c1
CSeq: {cseq} {method}
{extra}Content-Length: 0

"
    ))
}

fn uas() -> Dialog {
    Dialog::uas(
        &invite(),
        "f1",
        "<sip:focus@rostrum.example>;isfocus",
        DialogState::Confirmed,
    )
    .expect("all headers are there")
}

fn routes(message: &Message) -> Vec<String> {
    message
        .values(HeaderName::Route)
        .map(str::to_owned)
        .collect()
}

fn target_of(dialog: &Dialog) -> Uri {
    Uri::parse(&dialog.remote_target).expect("a target is a URI")
}

fn uri(text: &str) -> Uri {
    Uri::parse(text).expect("a test URI parses")
}

#[test]
fn the_uas_side_takes_its_route_set_in_order() {
    let dialog = uas();
    assert_eq!(
        dialog.id,
        DialogId {
            call_id: "c1".to_owned(),
            local_tag: "f1".to_owned(),
            remote_tag: "a1".to_owned(),
        }
    );
    assert_eq!(dialog.remote_cseq, Some(7));
    assert_eq!(
        target_of(&dialog),
        uri("sip:alice@192.0.2.1:5062;transport=tcp")
    );
    assert_eq!(
        dialog.route_set,
        ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]
    );
    assert_eq!(dialog.next_hop_uri(), "sip:p2.example;lr");
    assert!(!dialog.secure);
    assert_eq!(DialogId::of_request(&invite()), None);
    assert_eq!(
        DialogId::of_request(&in_dialog("BYE", 8, "")),
        Some(dialog.id)
    );
}

#[test]
fn requests_go_to_the_target_by_loose_routes() {
    let mut dialog = uas();
    let bye = dialog.request(Method::Bye);
    assert_eq!(uri(bye.request_uri()), target_of(&dialog));
    assert_eq!(routes(&bye), ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]);
    assert_eq!(bye.cseq().expect("made here").number, 1);
    assert_eq!(bye.from().expect("made here").tag(), Some("f1"));
    let to = bye.to().expect("made here");
    assert_eq!((to.tag(), to.display.as_str()), (Some("a1"), "Alice; <A>"));
    assert_eq!(bye.call_id(), "c1");
    assert_eq!(bye.header(HeaderName::MaxForwards), Some("70"));
    assert_eq!(bye.header(HeaderName::Contact), None);
    assert_eq!(bye.header(HeaderName::Via), None);
    let update = dialog.request(Method::Update);
    assert_eq!(update.cseq().expect("made here").number, 2);
    assert_eq!(
        update.header(HeaderName::Contact),
        Some("<sip:focus@rostrum.example>;isfocus")
    );
    assert_eq!(dialog.ack(1).cseq().expect("made here").number, 1);
    assert_eq!(dialog.local_cseq, 2);
}

#[test]
fn a_strict_router_becomes_the_request_uri_and_the_target_the_last_route() {
    let mut dialog = uas();
    dialog.route_set = vec![
        "<sip:strict.example;method=INVITE?x=y>".to_owned(),
        "<sip:p1.example;lr>".to_owned(),
    ];
    let bye = dialog.request(Method::Bye);
    assert_eq!(bye.request_uri(), "sip:strict.example");
    assert_eq!(
        routes(&bye),
        [
            "<sip:p1.example;lr>".to_owned(),
            format!("<{}>", dialog.remote_target)
        ]
    );
}

fn response(status: u16, extra: &str) -> Message {
    parse(&format!(
        "SIP/2.0 {status} X
Via: SIP/2.0/UDP us.example;branch=z9hG4bKu
Record-Route: <sip:p1.example;lr>
Record-Route: <sip:p2.example;lr>
From: <sip:focus@rostrum.example>;tag=f1
To: <sip:bob@example.com>;tag=b1
Call-ID: c2
CSeq: 1 INVITE
{extra}Content-Length: 0

"
    ))
}

fn our_invite() -> Message {
    let mut request = Message::request(Method::Invite, "sips:bob@example.com");
    request.push_back(HeaderName::From, "<sip:focus@rostrum.example>;tag=f1");
    request.push_back(HeaderName::To, "<sip:bob@example.com>");
    request.push_back(HeaderName::CallId, "c2");
    request.push_back(HeaderName::CSeq, "1 INVITE");
    request.push_back(HeaderName::Contact, "<sip:focus@rostrum.example>;isfocus");
    request
}

#[test]
fn the_uac_side_turns_the_record_route_around_and_the_2xx_decides() {
    let early = response(180, "");
    let mut dialog = Dialog::uac(&our_invite(), &early).expect("all headers are there");
    assert_eq!(dialog.state, DialogState::Early);
    assert_eq!(dialog.remote_target, "sips:bob@example.com");
    assert_eq!(
        dialog.route_set,
        ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]
    );
    assert_eq!((dialog.local_cseq, dialog.remote_cseq), (1, None));
    assert!(dialog.secure);
    let mut ok = response(200, "Contact: <sip:bob@192.0.2.9>\n");
    ok.remove(HeaderName::RecordRoute);
    dialog.accept_response(&ok);
    assert_eq!(dialog.state, DialogState::Confirmed);
    assert_eq!(dialog.remote_target, "sip:bob@192.0.2.9");
    assert!(dialog.route_set.is_empty());
    assert_eq!(dialog.next_hop_uri(), "sip:bob@192.0.2.9");
    let direct = Dialog::uac(&our_invite(), &ok).expect("all headers are there");
    assert_eq!(direct, dialog);
}

#[test]
fn a_2xx_without_contact_makes_no_dialog() {
    assert_eq!(
        Dialog::uac(&our_invite(), &response(200, "")),
        Err(HeaderError::Missing("Contact"))
    );
    let mut bare = invite();
    bare.remove(HeaderName::Contact);
    assert_eq!(
        Dialog::uas(&bare, "f1", "<sip:f>", DialogState::Early),
        Err(HeaderError::Missing("Contact"))
    );
}

#[test]
fn a_failure_ends_an_early_dialog_and_only_408_and_481_a_confirmed_one() {
    let mut early = Dialog::uac(&our_invite(), &response(180, "")).expect("all headers");
    early.accept_response(&response(486, ""));
    assert_eq!(early.state, DialogState::Terminated);
    let ok = response(200, "Contact: <sip:bob@192.0.2.9>\n");
    for (status, state) in [
        (488, DialogState::Confirmed),
        (491, DialogState::Confirmed),
        (408, DialogState::Terminated),
        (481, DialogState::Terminated),
    ] {
        let mut dialog = Dialog::uac(&our_invite(), &ok).expect("all headers");
        dialog.accept_response(&response(status, ""));
        assert_eq!(dialog.state, state, "{status}");
    }
}

#[test]
fn cseq_order_is_kept_and_ack_and_cancel_are_exempt() {
    let mut dialog = uas();
    assert_eq!(dialog.accept(&in_dialog("ACK", 3, "")), Ok(()));
    assert_eq!(dialog.accept(&in_dialog("INFO", 10, "")), Ok(()));
    assert_eq!(dialog.remote_cseq, Some(10));
    let late = dialog.accept(&in_dialog("INFO", 9, ""));
    assert_eq!(late.map_err(|r| r.status.get()), Err(500));
    assert_eq!(dialog.remote_cseq, Some(10));
    assert_eq!(dialog.accept(&in_dialog("CANCEL", 2, "")), Ok(()));
    assert_eq!(dialog.accept(&in_dialog("BYE", 11, "")), Ok(()));
    assert_eq!(dialog.state, DialogState::Terminated);
    let after = dialog.accept(&in_dialog("INFO", 12, ""));
    assert_eq!(after.map_err(|r| r.status.get()), Err(481));
}

#[test]
fn a_request_of_another_dialog_is_481() {
    let mut dialog = uas();
    let mut other = in_dialog("BYE", 8, "");
    other.set(HeaderName::To, "<sip:meeting@rostrum.example>;tag=other");
    assert_eq!(dialog.accept(&other).map_err(|r| r.status.get()), Err(481));
    assert_eq!(dialog.state, DialogState::Confirmed);
}

#[test]
fn only_target_refresh_requests_move_the_target() {
    let mut dialog = uas();
    let before = dialog.remote_target.clone();
    let contact = "Contact: <sip:alice@198.51.100.7>\n";
    assert_eq!(dialog.accept(&in_dialog("INFO", 8, contact)), Ok(()));
    assert_eq!(dialog.remote_target, before);
    assert_eq!(dialog.accept(&in_dialog("INVITE", 9, contact)), Ok(()));
    assert_eq!(dialog.remote_target, "sip:alice@198.51.100.7");
    assert_eq!(dialog.accept(&in_dialog("UPDATE", 10, "")), Ok(()));
    assert_eq!(dialog.remote_target, "sip:alice@198.51.100.7");
    let bad = dialog.accept(&in_dialog("UPDATE", 11, "Contact: *\n"));
    assert_eq!(bad.map_err(|r| r.status.get()), Err(400));
}

#[test]
fn responses_carry_what_makes_the_dialog_and_later_ones_do_not() {
    let dialog = uas();
    let ok = dialog.response(&invite(), StatusCode::of(200), None);
    assert_eq!(ok.to().expect("copied").tag(), Some("f1"));
    assert_eq!(
        ok.values(HeaderName::RecordRoute).collect::<Vec<_>>(),
        ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]
    );
    assert!(ok.header(HeaderName::Contact).is_some());
    let busy = dialog.response(&invite(), StatusCode::of(486), None);
    assert_eq!(busy.header(HeaderName::RecordRoute), None);
    assert_eq!(busy.header(HeaderName::Contact), None);
    let later = in_dialog("INVITE", 8, "Record-Route: <sip:p2.example;lr>\n");
    let later = dialog.response(&later, StatusCode::of(200), None);
    assert_eq!(later.header(HeaderName::RecordRoute), None);
    assert!(later.header(HeaderName::Contact).is_some());
    let bye = dialog.response(&in_dialog("BYE", 9, ""), StatusCode::of(200), None);
    assert_eq!(bye.header(HeaderName::Contact), None);
}

#[test]
fn a_stored_dialog_goes_on_where_it_was() {
    let mut dialog = uas();
    let _ = dialog.request(Method::Update);
    let text = serde_json::to_string(&dialog).expect("plain data");
    let mut restored: Dialog = serde_json::from_str(&text).expect("what was just written");
    assert_eq!(restored, dialog);
    assert_eq!(
        restored.request(Method::Bye).to_bytes(),
        dialog.request(Method::Bye).to_bytes()
    );
}
