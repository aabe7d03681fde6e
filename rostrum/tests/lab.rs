//! `rostrum lab` as its user sees it: what it prints, what it keeps, and how it ends.

mod common;

use std::net::SocketAddr;
use std::process::Command;

use common::phone::{Phone, header, status};
use common::{Lab, eventually, http};
use serde_json::Value;

fn phone(lab: &Lab, account: usize) -> Phone {
    Phone::udp(lab.sip("udp"), lab.domain(), lab.account(account))
}

#[test]
fn one_line_of_json_says_where_everything_is() {
    let mut lab = Lab::start();
    for key in ["web", "api", "metrics", "domain"] {
        assert!(lab.info[key].is_string(), "{key} in {}", lab.info);
    }
    for transport in ["udp", "tcp", "tls", "ws", "wss"] {
        assert_ne!(lab.sip(transport).port(), 0, "{transport}");
    }
    let accounts = lab.info["accounts"].as_array().expect("accounts");
    assert!(accounts.len() >= 2);
    for account in accounts {
        for key in ["uri", "user", "password"] {
            assert!(account[key].is_string(), "{key} in {account}");
        }
    }
    let meetings = lab.info["meetings"].as_array().expect("meetings");
    assert!(
        meetings
            .iter()
            .all(|m| m.as_str().is_some_and(|m| m.starts_with("sip:")))
    );
    assert!(!meetings.is_empty());
    // what a firewall must let through, besides SIP
    let webrtc = lab.info["media"]["webrtc"].as_array().expect("addresses");
    assert!(!webrtc.is_empty());
    for address in webrtc {
        let address: Result<SocketAddr, _> = address.as_str().expect("text").parse();
        assert_ne!(address.expect("host:port").port(), 0);
    }
    let range = lab.info["media"]["rtp"].as_str().expect("a range");
    let (first, last) = range.split_once('-').expect("first-last");
    let port = |text: &str| text.parse::<u16>().expect("a port");
    assert!(port(first) != 0 && port(first) < port(last), "{range}");
    assert_eq!(lab.api("/counts")["dialogs"], 0);
    lab.assert_healthy();
}

#[test]
fn a_restart_keeps_accounts_certificate_and_registrations() {
    let lab = Lab::start();
    assert_eq!(status(&phone(&lab, 0).register(600)), 200);
    let accounts = lab.info["accounts"].clone();
    let registered = |lab: &Lab| lab.api("/registrations")["total"].clone();
    assert_eq!(registered(&lab), 1);
    let certificate = |lab: &Lab| {
        let folder = lab.directory.path().join("data/registrar");
        let mut files: Vec<(std::path::PathBuf, Vec<u8>)> = std::fs::read_dir(folder)
            .expect("the registrar's data")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == "pem"))
            .map(|path| (path.clone(), std::fs::read(&path).expect("readable")))
            .map(|(path, bytes)| (path.file_name().expect("a file").into(), bytes))
            .collect();
        files.sort();
        assert!(!files.is_empty());
        files
    };
    let before = certificate(&lab);
    let (code, directory) = lab.stop();
    assert_eq!(code, Some(0));

    let mut lab = Lab::start_in(directory, &[]);
    assert_eq!(lab.info["accounts"], accounts);
    assert_eq!(certificate(&lab), before);
    assert_eq!(registered(&lab), 1);
    lab.assert_healthy();
}

#[test]
fn ctrl_c_ends_running_meetings_with_bye() {
    let lab = Lab::start();
    let mut udp = phone(&lab, 0);
    let mut tcp = Phone::tcp(lab.sip("tcp"), lab.domain(), lab.account(1));
    udp.call(lab.meeting(0)).expect("answered");
    tcp.call(lab.meeting(0)).expect("answered");
    lab.interrupt();
    for phone in [&mut udp, &mut tcp] {
        let bye = phone.await_request("BYE");
        phone.answer(&bye, "200 OK");
    }
    assert_eq!(lab.ended().0, Some(0));
}

#[test]
fn a_signal_right_after_the_line_ends_the_lab_in_order_and_at_once() {
    for name in ["-INT", "-TERM"] {
        for _ in 0..3 {
            let lab = Lab::start();
            lab.signal(name);
            let begin = std::time::Instant::now();
            assert_eq!(lab.ended().0, Some(0), "{name}");
            let took = begin.elapsed();
            assert!(took.as_millis() < 1_500, "{name}: {took:?}");
        }
    }
}

#[test]
fn a_draining_lab_takes_nothing_new_and_ends_after_its_last_call() {
    let mut lab = Lab::start();
    let mut first = phone(&lab, 0);
    let call = first.call(lab.meeting(0)).expect("answered");
    let admin = lab.info["api"].as_str().expect("a URL");
    let ready = admin.replace("/api/v1", "/readyz");
    let alive = admin.replace("/api/v1", "/healthz");
    assert_eq!(http("GET", &ready, "").0, 200);
    assert_eq!(http("GET", &alive, ""), (200, "ok\n".into()));

    lab.terminate();
    eventually("/readyz to say 503", || http("GET", &ready, "").0 == 503);
    // who drains is well all the same: it must not be killed for it
    assert_eq!(http("GET", &alive, "").0, 200);
    eventually("new meetings to be refused", || {
        // /readyz changes first; the manager and then, from it, the registrar follow
        let mut second = phone(&lab, 1);
        match second.call(lab.meeting(1)) {
            Ok(call) => {
                assert_eq!(status(&second.hang_up(&call)), 200);
                false
            }
            Err(answer) => status(&answer) == 503 && header(&answer, "Retry-After").is_some(),
        }
    });
    assert_eq!(status(&first.reoffer(&call, "sendonly")), 200);
    assert_eq!(status(&first.reoffer(&call, "sendrecv")), 200);
    lab.assert_healthy();
    assert_eq!(status(&first.hang_up(&call)), 200);
    assert_eq!(lab.ended().0, Some(0));
}

/// Where an answer says that its media go.
fn media_address(answer: &str) -> std::net::IpAddr {
    let line = answer.lines().find_map(|l| l.strip_prefix("c=IN IP4 "));
    let address = line.and_then(|l| l.trim().parse().ok());
    address.expect("an address in the answer")
}

#[test]
fn a_draining_lab_waits_for_the_answer_to_a_call_that_rings() {
    let mut lab = Lab::start();
    let mut callee = phone(&lab, 0);
    assert_eq!(status(&callee.register(60)), 200);
    let (name, _) = lab.account(0);
    let caller = std::thread::spawn({
        let (mut caller, name) = (phone(&lab, 1), name.to_owned());
        move || caller.call(&name).err()
    });
    let invite = callee.await_request("INVITE");
    callee.answer(&invite, "180 Ringing");
    lab.terminate();
    let ready = lab.info["api"].as_str().expect("a URL");
    let ready = ready.replace("/api/v1", "/readyz");
    // far longer than an empty lab takes to end
    let begin = std::time::Instant::now();
    while begin.elapsed().as_millis() < 2_500 {
        lab.assert_healthy();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(http("GET", &ready, "").0, 503);
    callee.answer(&invite, "486 Busy Here");
    let refusal = caller.join().expect("no panic").expect("refused");
    assert_eq!(status(&refusal), 486, "{refusal}");
    assert_eq!(lab.ended().0, Some(0));
}

#[test]
fn metrics_of_all_roles_are_described() {
    let lab = Lab::start();
    let mut phone = phone(&lab, 0);
    assert_eq!(status(&phone.register(60)), 200);
    let call = phone.call(lab.meeting(0)).expect("answered");
    let wanted = [
        "rostrum_registrar_requests_total",
        "rostrum_registrar_challenges_total",
        "rostrum_registrar_bindings",
        "rostrum_manager_messages_total",
        "rostrum_manager_meetings",
        "rostrum_manager_dialogs",
        "rostrum_switch_legs",
        "rostrum_switch_meetings",
        "rostrum_switch_plain_ports",
        "rostrum_switch_datagrams_from_strangers_total",
    ];
    // Whoever sends to the call's port without being its peer is counted.
    let media = call.answer.lines().find_map(|l| l.strip_prefix("m=audio "));
    let port = media.and_then(|m| m.split(' ').next()?.parse::<u16>().ok());
    let stranger = std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port");
    let address = media_address(&call.answer);
    eventually("all metrics", || {
        stranger
            .send_to(b"noise", (address, port.expect("a port")))
            .expect("sent");
        let page = lab.metrics();
        let told = |kind: &str, name: &str| page.contains(&format!("# {kind} {name} "));
        wanted
            .iter()
            .all(|name| told("HELP", name) && told("TYPE", name))
    });
    // what is shown is described, whatever it is
    let page = lab.metrics();
    for kind in page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE rostrum_"))
    {
        let name = kind.split(' ').next().expect("a name");
        assert!(
            page.contains(&format!("# HELP rostrum_{name} ")),
            "{name} has no description"
        );
    }
    assert_eq!(status(&phone.hang_up(&call)), 200);
}

#[test]
fn the_environment_sets_what_the_arguments_of_a_lab_do_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let variables = [
        ("ROSTRUM_DOMAIN", "example.org"),
        ("ROSTRUM_SWITCH__ID", "elsewhere"),
        ("ROSTRUM_LOG", "info"),
    ];
    let mut lab = Lab::start_with(folder, &variables);
    assert_eq!(lab.domain(), "example.org");
    let mut phone = phone(&lab, 0);
    let call = phone.call(lab.meeting(0)).expect("answered");
    let view = lab.api(&format!("/meetings/{}", lab.meeting(0)));
    assert_eq!(view["switch"], "elsewhere", "{view}");
    assert_eq!(status(&phone.hang_up(&call)), 200);
    // a log in a file is for grep: it has no colours
    let log = lab.log();
    assert!(log.contains("switch is ready"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log:?}");
    lab.assert_healthy();
}

#[test]
fn logs_of_a_lab_are_as_the_environment_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let variables = [
        ("ROSTRUM_LOG__FORMAT", "json"),
        ("ROSTRUM_LOG__LEVEL", "info"),
    ];
    let lab = Lab::start_with(folder, &variables);
    let log = lab.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(lines.iter().any(|line| line["level"] == "INFO"), "{log}");
}

fn meeting(lab: &Lab, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_rostrum"))
        .arg("meeting")
        .args(arguments)
        .args(["--api", lab.info["api"].as_str().expect("a URL")])
        .output()
        .expect("rostrum runs")
}

#[test]
fn meetings_are_listed_and_shown_on_the_command_line() {
    let lab = Lab::start();
    let mut phone = phone(&lab, 0).named("Alice L.");
    let printed = |arguments: &[&str]| {
        let output = meeting(&lab, arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(printed(&["list"]), "no meeting is running\n");
    let call = phone.call(lab.meeting(0)).expect("answered");
    let list = printed(&["list"]);
    assert!(
        list.contains(lab.meeting(0)) && list.contains("1 participants"),
        "{list}"
    );
    let show = printed(&["show", lab.meeting(0)]);
    for text in ["Alice L.", "on switch lab", "audio slot 0", lab.meeting(0)] {
        assert!(show.contains(text), "{text} in {show}");
    }
    let json: Value =
        serde_json::from_str(&printed(&["show", lab.meeting(0), "--json"])).expect("JSON");
    assert_eq!(json["participants"][0]["display"], "Alice L.");

    let unknown = meeting(&lab, &["show", "nowhere"]);
    assert_eq!(unknown.status.code(), Some(1));
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("no such meeting"), "{told}");
    assert_eq!(status(&phone.hang_up(&call)), 200);
}

#[test]
fn a_guest_gets_an_identity_and_joins_over_websocket_with_it() {
    let mut lab = Lab::start();
    let site = format!("http://{}", lab.sip("ws"));
    let ask = |body: &str| http("POST", &format!("{site}/api/v1/guest"), body);
    let (code, body) = ask(&format!(
        r#"{{"name": "Grace", "meeting": "{}"}}"#,
        lab.meeting(0)
    ));
    assert_eq!(code, 200, "{body}");
    let guest: Value = serde_json::from_str(&body).expect("JSON");
    let text = |key: &str| guest[key].as_str().expect(key);
    let identity = (text("user"), text("password"));
    let mut phone = Phone::ws(text("ws"), lab.domain(), identity).named(text("display_name"));
    assert_eq!(status(&phone.register(60)), 200);
    let call = phone.call(lab.meeting(0)).expect("answered");
    let view = lab.api(&format!("/meetings/{}", lab.meeting(0)));
    assert_eq!(view["participants"][0]["display"], "Grace", "{view}");

    // the identity is for that meeting alone
    let refused = phone.call(lab.meeting(1)).err().expect("refused");
    assert_eq!(status(&refused), 403, "{refused}");
    assert_eq!(status(&phone.hang_up(&call)), 200);
    lab.await_counts(|c| c["dialogs"] == 0 && c["switch_legs"] == 0);

    assert_eq!(ask(r#"{"name": "Grace", "meeting": "nowhere"}"#).0, 403);
    assert_eq!(ask(r#"{"name": ""}"#).0, 400);
    lab.assert_healthy();
}

#[test]
fn a_lab_on_ipv6_registers_and_joins_over_udp_and_tcp() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut lab = Lab::start_on("::1", folder, &[]);
    assert!(lab.sip("udp").is_ipv6() && lab.sip("tcp").is_ipv6());
    let (domain, account) = (lab.domain(), lab.account(0));
    for mut phone in [
        Phone::udp(lab.sip("udp"), domain, account),
        Phone::tcp(lab.sip("tcp"), domain, account),
    ] {
        assert_eq!(status(&phone.register(60)), 200);
        let call = phone.call(lab.meeting(0)).expect("answered");
        assert!(call.answer.contains("IN IP6 ::1"), "{}", call.answer);
        assert_eq!(status(&phone.hang_up(&call)), 200);
    }
    lab.await_counts(|c| c["dialogs"] == 0 && c["switch_legs"] == 0 && c["ports"] == 0);
    lab.assert_healthy();
}

/// A browser's offer of audio, from an IPv6 address.
const ICE_OFFER: &str = "v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP6 ::1\r\na=rtcp-mux\r\na=mid:0\r\na=sendrecv\r\n\
    a=rtpmap:111 opus/48000/2\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    a=candidate:1 1 UDP 2130706431 ::1 40000 typ host\r\na=end-of-candidates\r\n";

/// Requests that reached the meeting manager.
fn requests_to_the_manager(lab: &Lab) -> u64 {
    let page = lab.metrics();
    let count = page.lines().find_map(|line| {
        line.strip_prefix("rostrum_manager_messages_total{kind=\"request\"} ")?
            .parse()
            .ok()
    });
    count.unwrap_or(0)
}

/// A call whose INVITE, ACK and BYE all arrive, and which leaves nothing behind; the answer. `edge`: what the phone
/// is told to send through, which must be of its family or it can send nothing.
fn join_and_leave(lab: &Lab, phone: &mut Phone, edge: &str, offer: Option<&str>) -> String {
    let before = requests_to_the_manager(lab);
    let call = match offer {
        Some(sdp) => phone.call_with(lab.meeting(0), sdp),
        None => phone.call(lab.meeting(0)),
    };
    let call = call.expect("answered");
    let route = &call.routes[0];
    assert!(route.contains(&format!("@{edge};")), "{route}");
    eventually("INVITE and ACK to arrive", || {
        requests_to_the_manager(lab) == before + 2
    });
    assert_eq!(status(&phone.hang_up(&call)), 200);
    lab.await_counts(|c| c["dialogs"] == 0 && c["switch_legs"] == 0 && c["ports"] == 0);
    call.answer
}

#[test]
fn a_client_that_has_only_ipv6_joins_a_lab_on_both_families() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut lab = Lab::start_on("127.0.0.1", folder, &["--host", "::1"]);
    assert!(lab.sip("udp").is_ipv4());
    let second = lab.info["hosts"][1].clone();
    assert_eq!(second["host"], "::1");
    let at = |transport: &str| second[transport].as_str().expect("an address");
    let (domain, account) = (lab.domain().to_owned(), lab.account(0));
    let udp = Phone::udp(at("udp").parse().expect("host:port"), &domain, account);
    let ws = Phone::ws(&format!("ws://{}/sip", at("ws")), &domain, account);
    for (mut phone, edge) in [(udp, at("udp")), (ws, at("ws"))] {
        let registered = phone.register(60);
        assert_eq!(status(&registered), 200);
        let service_route = header(&registered, "Service-Route").expect("a Service-Route");
        assert!(
            service_route.contains(&format!(":{edge};")),
            "{service_route}"
        );

        let answer = join_and_leave(&lab, &mut phone, edge, None);
        assert!(answer.contains("c=IN IP6 ::1"), "{answer}");

        let answer = join_and_leave(&lab, &mut phone, edge, Some(ICE_OFFER));
        for family in [" 127.0.0.1 ", " ::1 "] {
            let candidate = |l: &str| l.starts_with("a=candidate:") && l.contains(family);
            assert!(answer.lines().any(candidate), "{answer}");
        }
        assert!(answer.contains("c=IN IP6 ::1"), "{answer}");
        assert_eq!(status(&phone.register(0)), 200);
    }
    lab.assert_healthy();
}

#[test]
fn with_several_cards_each_is_told_by_its_own_address_and_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut lab = Lab::start_on("127.0.0.2", folder, &["--host", "127.0.0.1"]);
    let told = lab.info["media"]["webrtc"].as_array().expect("addresses");
    let told: Vec<&str> = told.iter().filter_map(Value::as_str).collect();
    let remote = lab.info["hosts"][1]["udp"].as_str().expect("an address");
    let remote: SocketAddr = remote.parse().expect("host:port");
    let mut phone = Phone::udp(remote, lab.domain(), lab.account(0));
    let registered = phone.register(60);
    let service_route = header(&registered, "Service-Route").expect("a Service-Route");
    assert!(
        service_route.contains(&format!(":{remote};")),
        "{service_route}"
    );
    // packets to 127.0.0.1 leave from there, not from the first card
    let offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";
    let call = phone.call_with(lab.meeting(0), offer).expect("answered");
    let route = &call.routes[0];
    assert!(route.contains(&format!("@{remote};")), "{route}");
    assert!(
        call.answer.contains("c=IN IP4 127.0.0.1"),
        "{}",
        call.answer
    );
    assert_eq!(status(&phone.hang_up(&call)), 200);

    let call = phone
        .call_with(lab.meeting(0), ICE_OFFER)
        .expect("answered");
    let candidates: Vec<String> = call
        .answer
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            Some(format!("{}:{}", words.get(4)?, words.get(5)?))
        })
        .collect();
    assert_eq!(candidates.len(), 2, "{}", call.answer);
    for (candidate, card) in candidates.iter().zip(["127.0.0.2:", "127.0.0.1:"]) {
        assert!(candidate.starts_with(card), "{candidates:?}");
        assert!(
            told.contains(&candidate.as_str()),
            "{candidate} in {told:?}"
        );
    }
    assert_eq!(status(&phone.hang_up(&call)), 200);
    lab.await_counts(|c| c["dialogs"] == 0 && c["switch_legs"] == 0 && c["ports"] == 0);
    lab.assert_healthy();
}

#[test]
fn requests_to_a_client_come_with_addresses_of_its_family() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut lab = Lab::start_on("127.0.0.1", folder, &["--host", "::1"]);
    let hosts = lab.info["hosts"].clone();
    let edge = hosts[1]["udp"].as_str().expect("an address");
    let remote = edge.parse().expect("host:port");
    let mut callee = Phone::udp(remote, lab.domain(), lab.account(0));
    assert_eq!(status(&callee.register(60)), 200);
    let (callee_name, _) = lab.account(0);
    let caller = Phone::udp(lab.sip("udp"), lab.domain(), lab.account(1));
    let caller = std::thread::spawn({
        let (mut caller, name) = (caller, callee_name.to_owned());
        move || caller.call(&name).err()
    });
    let invite = callee.await_request("INVITE");
    let via = header(&invite, "Via").expect("a Via");
    assert!(via.contains(&format!(" {edge};")), "{via}");
    let route = header(&invite, "Record-Route").expect("a Record-Route");
    assert!(route.contains(&format!("@{edge};")), "{route}");
    callee.answer(&invite, "486 Busy Here");
    let refusal = caller.join().expect("no panic").expect("refused");
    assert_eq!(status(&refusal), 486, "{refusal}");
    lab.assert_healthy();
}

#[test]
fn without_host_a_lab_finds_one_address_of_each_family_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut lab = Lab::start_in_namespace(folder);
    let hosts = lab.info["hosts"].as_array().expect("hosts");
    let found: Vec<&Value> = hosts.iter().map(|host| &host["host"]).collect();
    assert_eq!(found, ["198.51.100.1", "2001:db8::1"]);
    let webrtc = lab.info["media"]["webrtc"].to_string();
    for address in ["198.51.100.1:", "[2001:db8::1]:"] {
        assert!(webrtc.contains(address), "{webrtc}");
    }
    lab.assert_healthy();
}
