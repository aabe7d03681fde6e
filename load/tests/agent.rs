//! The user agent against a server that stands in the test, on a virtual clock.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use load::leg::{Kind, Local, LocalMedia, Protection};
use load::ua::{Account, Agent, Description, Event, Home};
use sip::message::Message;
use sip::{HeaderName, Hop, Method, StatusCode, Transport, Uri};

const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 203.0.113.5\r\ns=-\r\nc=IN IP4 203.0.113.5\r\nt=0 0\r\n\
                      m=audio 14876 RTP/AVP 0\r\na=rtcp-mux\r\n";
const CHALLENGE: &str = "Digest realm=\"r\", nonce=\"n\", algorithm=MD5, qop=\"auth\"";

fn server() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 5], 5060))
}

fn description() -> Description {
    let local = Local {
        media: vec![LocalMedia {
            kind: Kind::Audio,
            address: SocketAddr::from(([192, 0, 2, 7], 40_000)),
            ssrc: 11,
            keys: Vec::new(),
        }],
        ice: None,
        fingerprint: None,
        cname: "load-0001".to_owned(),
    };
    Description::new(local, Protection::Plain, true, 4_711)
}

fn alice() -> Account {
    Account {
        user: "alice".to_owned(),
        password: "secret".to_owned(),
    }
}

/// The agent, the clock, and what the server has seen.
struct Rig {
    agent: Agent,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let home = Home {
            meeting: Uri::parse("sip:standup@example.org").expect("a URI"),
            server: server(),
            transport: Transport::Udp,
            host: None,
            local: SocketAddr::from(([192, 0, 2, 7], 5070)),
        };
        let now = Instant::now();
        Self {
            agent: Agent::new(home, now, [1; 32]),
            now,
        }
    }

    fn join(&mut self, account: Option<Account>) {
        self.agent.join(self.now, 0, account, description());
    }

    /// What went out since.
    fn sent(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(transmit) = self.agent.poll_transmit() {
            let message = Message::parse(transmit.bytes, &sip::Limits::default());
            all.push(message.expect("we send SIP"));
        }
        all
    }

    /// The one message that went out since.
    fn one(&mut self, what: &str) -> Message {
        let mut all = self.sent();
        let names: Vec<String> = all.iter().map(name).collect();
        assert_eq!(names, [what]);
        all.remove(0)
    }

    fn receive(&mut self, message: &Message) {
        // over the wire, so that it is indexed as a received one is
        let message = Message::parse(message.to_bytes(), &sip::Limits::default());
        let hop = Hop {
            local: Some(SocketAddr::from(([192, 0, 2, 7], 5070))),
            ..Hop::to(Transport::Udp, server())
        };
        self.agent
            .handle_message(self.now, message.expect("SIP"), hop);
    }

    fn answer(&mut self, request: &Message, status: u16, more: &[(HeaderName<'_>, &str)]) {
        let response = answer(request, status, more);
        self.receive(&response);
    }

    /// 200 with SDP to an INVITE, and more headers.
    fn accept(&mut self, invite: &Message, more: &[(HeaderName<'_>, &str)]) -> Message {
        let mut response = answer(invite, 200, more);
        response.push_back(HeaderName::Contact, "<sip:focus@203.0.113.5:5060>");
        if *invite.method() == Method::Invite {
            response.set_body("application/sdp", ANSWER);
        }
        self.receive(&response);
        response
    }

    fn event(&mut self) -> Event {
        self.agent.poll_event().expect("something happened")
    }

    /// Joins without a challenge; the server's 200.
    fn joined(&mut self, more: &[(HeaderName<'_>, &str)]) -> Message {
        self.join(None);
        let invite = self.one("INVITE");
        let response = self.accept(&invite, more);
        self.one("ACK");
        assert!(matches!(self.event(), Event::Joined { .. }));
        response
    }

    /// Lets the clock go on up to `until` after now, stopping where the agent wants.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.agent.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// A request of the server's in the dialog that its 200 made.
    fn ask(&mut self, ok: &Message, method: Method, cseq: u32, body: &str) -> Message {
        let mut request = Message::request(method.clone(), "sip:load-0001@192.0.2.7:5070");
        let via = format!("SIP/2.0/UDP 203.0.113.5;branch=z9hG4bKserver{cseq}{method}");
        request.push_back(HeaderName::Via, via);
        request.push_back(HeaderName::MaxForwards, "70");
        let both = (ok.header(HeaderName::To), ok.header(HeaderName::From));
        request.push_back(HeaderName::From, both.0.expect("To"));
        request.push_back(HeaderName::To, both.1.expect("From"));
        request.push_back(HeaderName::CallId, ok.call_id());
        request.push_back(HeaderName::CSeq, format!("{cseq} {method}"));
        request.push_back(HeaderName::Contact, "<sip:focus@203.0.113.5:5060>");
        if !body.is_empty() {
            request.set_body("application/sdp", body.to_owned());
        }
        self.receive(&request);
        request
    }
}

fn answer(request: &Message, status: u16, more: &[(HeaderName<'_>, &str)]) -> Message {
    let mut response = Message::response(request, StatusCode::of(status), None, Some("server"));
    for (name, value) in more {
        response.push_back(*name, *value);
    }
    response
}

fn name(message: &Message) -> String {
    match message.status() {
        Some(status) => status.get().to_string(),
        None => message.method().to_string(),
    }
}

#[test]
fn a_challenge_is_answered_and_the_join_timed_from_invite_to_ack() {
    let mut rig = Rig::new();
    rig.join(Some(alice()));
    let first = rig.one("INVITE");
    assert_eq!(first.request_uri(), "sip:standup@example.org");
    rig.now += Duration::from_millis(30);
    rig.answer(&first, 407, &[(HeaderName::ProxyAuthenticate, CHALLENGE)]);
    let sent = rig.sent();
    assert_eq!(sent.iter().map(name).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    let second = &sent[1];
    assert!(second.header(HeaderName::ProxyAuthorization).is_some());
    assert_eq!(second.call_id(), first.call_id());
    assert_eq!(second.cseq().expect("CSeq").number, 2);
    rig.answer(second, 180, &[]);
    rig.now += Duration::from_millis(20);
    rig.accept(second, &[]);
    let ack = rig.one("ACK");
    assert_eq!(ack.request_uri(), "sip:focus@203.0.113.5:5060");
    assert_eq!(ack.cseq().expect("CSeq").number, 2);
    match rig.event() {
        Event::Joined { took, remote, .. } => {
            assert_eq!(took, Duration::from_millis(50));
            assert_eq!(remote.media[0].codec.1, "PCMU");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeated_200_is_acknowledged_again() {
    let mut rig = Rig::new();
    let ok = rig.joined(&[]);
    rig.receive(&ok);
    rig.one("ACK");
    assert!(rig.agent.poll_event().is_none());
}

#[test]
fn a_wrong_password_is_a_refusal() {
    let mut rig = Rig::new();
    rig.join(Some(alice()));
    let first = rig.one("INVITE");
    let asked = [(HeaderName::WwwAuthenticate, CHALLENGE)];
    rig.answer(&first, 401, &asked);
    let second = rig.sent().pop().expect("an INVITE");
    rig.answer(&second, 401, &asked);
    match rig.event() {
        Event::Refused { refusal, .. } => assert_eq!(refusal.status, Some(401)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_busy_server_is_a_refusal_with_its_time_and_a_retry_a_new_call() {
    let mut rig = Rig::new();
    rig.join(None);
    let first = rig.one("INVITE");
    rig.answer(&first, 503, &[(HeaderName::RetryAfter, "7 (busy)")]);
    rig.one("ACK");
    match rig.event() {
        Event::Refused { refusal, .. } => {
            assert_eq!(refusal.status, Some(503));
            assert_eq!(refusal.retry_after, Some(7));
            assert_eq!(refusal.reason, "Service Unavailable");
        }
        other => panic!("{other:?}"),
    }
    rig.agent.join_again(rig.now, 0);
    let second = rig.one("INVITE");
    assert_ne!(second.call_id(), first.call_id());
    rig.accept(&second, &[]);
    assert!(matches!(rig.event(), Event::Joined { .. }));
}

#[test]
fn a_silent_server_is_given_up_after_32_seconds() {
    let mut rig = Rig::new();
    rig.join(None);
    rig.pass(Duration::from_secs(31));
    assert!(rig.agent.poll_event().is_none());
    assert!(rig.sent().len() > 5, "repeated over UDP");
    rig.pass(Duration::from_secs(2));
    match rig.event() {
        Event::Refused { refusal, .. } => {
            assert_eq!(
                (refusal.status, refusal.reason.as_str()),
                (None, "no answer")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_longer_session_interval_is_gone_along_with() {
    let mut rig = Rig::new();
    rig.join(None);
    let first = rig.one("INVITE");
    rig.answer(&first, 422, &[(HeaderName::MinSe, "3600")]);
    let second = rig.sent().pop().expect("an INVITE");
    let asked = second.header(HeaderName::SessionExpires).expect("asked");
    assert!(asked.starts_with("3600"), "{asked}");
    rig.accept(&second, &[]);
    assert!(matches!(rig.event(), Event::Joined { .. }));
}

#[test]
fn leaving_is_a_bye() {
    let mut rig = Rig::new();
    rig.joined(&[]);
    rig.agent.leave(rig.now, 0);
    let bye = rig.one("BYE");
    assert_eq!(bye.request_uri(), "sip:focus@203.0.113.5:5060");
    assert!(rig.agent.poll_event().is_none());
    rig.answer(&bye, 200, &[]);
    assert!(matches!(rig.event(), Event::Left { participant: 0 }));
}

#[test]
fn leaving_while_it_rings_is_a_cancel() {
    let mut rig = Rig::new();
    rig.join(None);
    let invite = rig.one("INVITE");
    rig.answer(&invite, 180, &[]);
    rig.agent.leave(rig.now, 0);
    let cancel = rig.one("CANCEL");
    rig.answer(&cancel, 200, &[]);
    rig.answer(&invite, 487, &[]);
    rig.one("ACK");
    assert!(matches!(rig.event(), Event::Left { .. }));
}

#[test]
fn a_200_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut rig = Rig::new();
    rig.join(None);
    let invite = rig.one("INVITE");
    rig.answer(&invite, 180, &[]);
    rig.agent.leave(rig.now, 0);
    rig.one("CANCEL");
    rig.accept(&invite, &[]);
    let sent = rig.sent();
    assert_eq!(sent.iter().map(name).collect::<Vec<_>>(), ["ACK", "BYE"]);
    rig.answer(&sent[1], 200, &[]);
    assert!(matches!(rig.event(), Event::Left { .. }));
}

#[test]
fn an_answer_that_cannot_be_used_ends_the_call() {
    let mut rig = Rig::new();
    rig.join(None);
    let invite = rig.one("INVITE");
    let mut response = answer(&invite, 200, &[]);
    response.push_back(HeaderName::Contact, "<sip:focus@203.0.113.5:5060>");
    response.set_body("application/sdp", ANSWER.replace("AVP 0", "AVP 18"));
    rig.receive(&response);
    let sent = rig.sent();
    assert_eq!(sent.iter().map(name).collect::<Vec<_>>(), ["ACK", "BYE"]);
    match rig.event() {
        Event::Refused { refusal, .. } => assert!(refusal.reason.contains("no codec")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_session_is_refreshed_at_half_its_time_by_update_where_the_server_takes_it() {
    for allow in ["INVITE, ACK, BYE", "INVITE, ACK, BYE, UPDATE"] {
        let mut rig = Rig::new();
        rig.joined(&[
            (HeaderName::SessionExpires, "90;refresher=uac"),
            (HeaderName::Allow, allow),
        ]);
        rig.pass(Duration::from_secs(44));
        assert!(rig.sent().is_empty());
        rig.pass(Duration::from_secs(1));
        let refresh = rig.sent().remove(0);
        let has_update = allow.contains("UPDATE");
        let expected = if has_update { "UPDATE" } else { "INVITE" };
        assert_eq!(name(&refresh), expected);
        assert_eq!(refresh.body().is_empty(), has_update);
        let agreed = [(HeaderName::SessionExpires, "90;refresher=uac")];
        rig.accept(&refresh, &agreed);
        // and again from there
        rig.sent();
        rig.pass(Duration::from_secs(46));
        assert_eq!(name(&rig.sent()[0]), expected);
    }
}

#[test]
fn a_session_that_nobody_refreshes_is_ended() {
    let mut rig = Rig::new();
    rig.joined(&[(HeaderName::SessionExpires, "90;refresher=uas")]);
    rig.pass(Duration::from_secs(91));
    assert_eq!(name(&rig.sent()[0]), "BYE");
    assert!(matches!(rig.event(), Event::Ended { .. }));
}

#[test]
fn the_servers_re_invite_is_answered_until_it_acknowledges() {
    let mut rig = Rig::new();
    let ok = rig.joined(&[]);
    let offer = ANSWER.replace("14876", "14900");
    rig.ask(&ok, Method::Invite, 1, &offer);
    let accepted = rig.one("200");
    let body = String::from_utf8_lossy(accepted.body()).into_owned();
    assert!(body.contains("m=audio 40000 RTP/AVP 0"), "{body}");
    match rig.event() {
        Event::Changed { remote, .. } => assert_eq!(remote.media[0].address.port(), 14_900),
        other => panic!("{other:?}"),
    }
    rig.pass(Duration::from_millis(600));
    rig.one("200");
    rig.ask(&ok, Method::Ack, 1, "");
    rig.pass(Duration::from_secs(40));
    assert!(rig.sent().is_empty());
    assert!(rig.agent.poll_event().is_none());
}

#[test]
fn a_re_invite_without_an_offer_is_answered_with_ours() {
    let mut rig = Rig::new();
    let ok = rig.joined(&[]);
    rig.ask(&ok, Method::Invite, 1, "");
    let offer = rig.one("200");
    assert!(!offer.body().is_empty());
    rig.ask(&ok, Method::Ack, 1, &ANSWER.replace("14876", "14902"));
    match rig.event() {
        Event::Changed { remote, .. } => assert_eq!(remote.media[0].address.port(), 14_902),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_else_the_server_asks_is_answered() {
    let mut rig = Rig::new();
    let ok = rig.joined(&[]);
    for (cseq, method, status) in [
        (1, Method::Options, "200"),
        (2, Method::Info, "200"),
        (3, Method::Update, "200"),
        (4, Method::Refer, "603"),
        (5, Method::Subscribe, "405"),
        (6, Method::Bye, "200"),
    ] {
        rig.ask(&ok, method, cseq, "");
        rig.one(status);
    }
    match rig.event() {
        Event::Ended { reason, .. } => assert_eq!(reason, "the server ended the call"),
        other => panic!("{other:?}"),
    }
    // and then it is over
    rig.ask(&ok, Method::Info, 7, "");
    rig.one("481");
}

#[test]
fn an_offer_that_cannot_be_met_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    let ok = rig.joined(&[]);
    rig.ask(&ok, Method::Update, 1, &ANSWER.replace("AVP 0", "AVP 18"));
    rig.one("488");
    assert!(rig.agent.poll_event().is_none());
}

#[test]
fn an_account_registers_and_joins_by_the_route_it_was_given() {
    let mut rig = Rig::new();
    rig.agent.register(rig.now, alice());
    let first = rig.one("REGISTER");
    assert_eq!(first.request_uri(), "sip:example.org");
    rig.answer(&first, 401, &[(HeaderName::WwwAuthenticate, CHALLENGE)]);
    let second = rig.one("REGISTER");
    assert!(second.header(HeaderName::Authorization).is_some());
    rig.answer(
        &second,
        200,
        &[
            (
                HeaderName::Contact,
                "<sip:alice@192.0.2.7:5070>;expires=100",
            ),
            (HeaderName::ServiceRoute, "<sip:203.0.113.5;lr>"),
        ],
    );
    assert!(matches!(rig.event(), Event::Registered { .. }));
    rig.join(Some(alice()));
    let invite = rig.one("INVITE");
    assert_eq!(
        invite.header(HeaderName::Route),
        Some("<sip:203.0.113.5;lr>")
    );
    rig.accept(&invite, &[]);
    rig.sent();
    // well before it runs out
    rig.pass(Duration::from_secs(90));
    let refresh = rig.sent().remove(0);
    assert_eq!(name(&refresh), "REGISTER");
    rig.answer(&refresh, 200, &[]);
    rig.agent.unregister(rig.now);
    let last = rig.one("REGISTER");
    assert_eq!(last.header(HeaderName::Expires), Some("0"));
    assert!(!rig.agent.is_settled());
    rig.answer(&last, 200, &[]);
    assert!(rig.agent.is_settled());
}
