//! `rostrum lab` as its user sees it: what it prints, what it keeps, and how it ends.

mod common;

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
fn a_draining_lab_takes_nothing_new_and_ends_after_its_last_call() {
    let mut lab = Lab::start();
    let mut first = phone(&lab, 0);
    let call = first.call(lab.meeting(0)).expect("answered");
    let admin = lab.info["api"].as_str().expect("a URL");
    let ready = admin.replace("/api/v1", "/readyz");
    assert_eq!(http("GET", &ready, "").0, 200);

    lab.terminate();
    eventually("/readyz to say 503", || http("GET", &ready, "").0 == 503);
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
    ];
    eventually("all metrics", || {
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
    let call = phone.call(lab.meeting(0)).expect("answered");
    let printed = |arguments: &[&str]| {
        let output = meeting(&lab, arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
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
