//! `rostrum load` against a lab, and against a fan-out that does wrong.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Lab, exit_code, signal};
use serde_json::Value;

/// `rostrum load` with these arguments; its report is read from standard output.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
    command.arg("load").args(arguments);
    command.stdin(Stdio::null());
    command
}

fn load(arguments: &[&str]) -> Output {
    command(arguments).output().expect("rostrum runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The report of a run that must have given one, and its exit code.
fn report(output: &Output) -> (Value, Option<i32>) {
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e} in {}\n{}", text(&output.stdout), text(&output.stderr)));
    (json, output.status.code())
}

/// Where a lab's first meeting is, and an account to join it with.
struct Door {
    meeting: String,
    user: String,
    password: String,
}

impl Door {
    fn of(lab: &Lab, transport: &str) -> Self {
        let (user, password) = lab.account(0);
        let parameter = match transport {
            "udp" => String::new(),
            other => format!(";transport={other}"),
        };
        Self {
            meeting: format!("sip:{}@{}{parameter}", lab.meeting(0), lab.sip(transport)),
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--meeting", &self.meeting];
        all.extend(["--user", &self.user, "--password", &self.password]);
        all.extend(["--json", "-"]);
        all.extend(more);
        all
    }
}

fn at<'a>(report: &'a Value, path: &str) -> &'a Value {
    report
        .pointer(path)
        .unwrap_or_else(|| panic!("no {path} in {report:#}"))
}

fn number(report: &Value, path: &str) -> u64 {
    let value = at(report, path);
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{path} is {value}"))
}

/// What a run of a few seconds must be like on an idle machine, and on a busy one too.
fn assert_clean(report: &Value, participants: u64, kinds: &[&str]) {
    assert_eq!(number(report, "/joins/joined"), participants, "{report:#}");
    assert_eq!(number(report, "/joins/refused"), 0);
    assert!(number(report, "/joins/time/p50") > 0);
    assert_eq!(at(report, "/errors"), &serde_json::json!({}), "{report:#}");
    for kind in kinds {
        let of = |name: &str| number(report, &format!("/media/{kind}/{name}"));
        assert!(of("received") > 50, "{kind}: {report:#}");
        assert_eq!(of("lost"), 0, "{kind}: {report:#}");
        assert_eq!(of("wrong_csrc"), 0);
        assert!(of("stamped") > 0, "{kind}: {report:#}");
        assert!(of("delay/p50") > 0, "{kind}: {report:#}");
        assert!(of("switch_delay/count") > 0, "{kind}: {report:#}");
    }
}

#[test]
fn the_user_agent_joins_and_leaves_over_udp_tcp_and_tls() {
    let mut lab = Lab::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for transport in ["udp", "tcp", "tls"] {
        let door = Door::of(&lab, transport);
        let options = load::ua::SipOptions {
            meeting: load::ua::meeting(&door.meeting).expect("a URI"),
            proxy: None,
            transport: None,
            bind: None,
            trust: transport::tls::Trust::Unverified,
        };
        let account = load::ua::Account {
            user: door.user.clone(),
            password: door.password.clone(),
        };
        runtime.block_on(async {
            use load::ua::Event;
            let (phone, mut events) = load::ua::Phone::start(&options).await.expect("starts");
            phone.register(account.clone());
            let mut next = async || {
                let event = tokio::time::timeout(Duration::from_secs(8), events.recv()).await;
                event.expect("in time").expect("an event")
            };
            let event = next().await;
            assert!(matches!(event, Event::Registered { .. }), "{event:?}");
            for participant in 0..3 {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
                let local = load::leg::Local {
                    media: vec![load::leg::LocalMedia {
                        kind: load::leg::Kind::Audio,
                        address: socket.local_addr().expect("bound"),
                        ssrc: participant + 1,
                        keys: Vec::new(),
                    }],
                    ice: None,
                    fingerprint: None,
                    cname: "test".to_owned(),
                };
                let plain = load::leg::Protection::Plain;
                let description = load::ua::Description::new(local, plain, true, 1);
                phone.join(participant, Some(account.clone()), description);
                let event = next().await;
                assert!(matches!(event, Event::Joined { .. }), "{event:?}");
            }
            for participant in 0..3 {
                phone.leave(participant);
                let event = next().await;
                assert!(matches!(event, Event::Left { .. }), "{event:?}");
            }
            phone.close().await;
        });
        lab.await_counts(|counts| counts["dialogs"] == 0);
    }
    assert_eq!(lab.api("/registrations")["total"], 0);
    lab.assert_healthy();
}

#[test]
fn plain_audio_of_many_arrives_whole_and_is_told_as_json_and_as_a_page() {
    let mut lab = Lab::start();
    let door = Door::of(&lab, "udp");
    let page = lab.directory.path().join("load.html");
    let page_argument = page.to_str().expect("UTF-8").to_owned();
    let output = load(&door.arguments(&[
        "--participants",
        "6",
        "--speakers",
        "3",
        "--duration",
        "5s",
        "--html",
        &page_argument,
        "--max-loss",
        "0",
        "--max-errors",
        "0",
        "--max-join-p99",
        "10s",
        "--max-switch-p99",
        "10s",
    ]));
    let (report, code) = report(&output);
    assert_clean(&report, 6, &["audio"]);
    assert_eq!(code, Some(0), "{}", text(&output.stderr));
    assert_eq!(at(&report, "/passed"), true);
    assert_eq!(at(&report, "/thresholds").as_array().map(Vec::len), Some(4));
    // the lab is one process of this machine
    let servers = at(&report, "/machine/servers").as_array().expect("a list");
    assert_eq!(servers.len(), 1, "{servers:?}");
    assert_eq!(servers[0]["role"], "SIP and RTP");
    assert!(
        !servers[0]["samples"]
            .as_array()
            .expect("samples")
            .is_empty()
    );
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("<svg") && page.contains("sip:"), "{page}");
    // the table goes where the JSON does not
    let table = text(&output.stderr);
    assert!(
        table.contains("6 of 6") && table.contains("kept    --max-loss"),
        "{table}"
    );
    lab.await_counts(|counts| counts["dialogs"] == 0);
    lab.assert_healthy();
}

#[test]
fn sdes_with_video_arrives_whole_over_tcp() {
    let mut lab = Lab::start();
    let door = Door::of(&lab, "tcp");
    let output = load(&door.arguments(&[
        "--participants",
        "4",
        "--speakers",
        "2",
        "--video",
        "180p",
        "--transport",
        "sdes",
        "--register",
        "--duration",
        "6s",
        "--max-loss",
        "0",
        "--max-errors",
        "0",
    ]));
    let (report, code) = report(&output);
    assert_clean(&report, 4, &["audio", "video"]);
    assert!(number(&report, "/media/video/keyframes") > 0);
    assert_eq!(code, Some(0), "{}", text(&output.stderr));
    lab.assert_healthy();
}

#[test]
fn dtls_with_video_arrives_whole() {
    let mut lab = Lab::start();
    let door = Door::of(&lab, "udp");
    let output = load(&door.arguments(&[
        "--participants",
        "4",
        "--speakers",
        "2",
        "--video",
        "180p",
        "--transport",
        "dtls",
        "--duration",
        "6s",
        "--max-loss",
        "0",
        "--max-errors",
        "0",
    ]));
    let (report, code) = report(&output);
    assert_clean(&report, 4, &["audio", "video"]);
    assert!(number(&report, "/media/connect_time/count") >= 4);
    assert_eq!(code, Some(0), "{}", text(&output.stderr));
    lab.assert_healthy();
}

#[test]
fn a_limit_that_cannot_be_kept_is_named_and_gives_1() {
    let lab = Lab::start();
    let door = Door::of(&lab, "udp");
    let output = load(&door.arguments(&[
        "--participants",
        "2",
        "--duration",
        "2s",
        "--max-join-p99",
        "1us",
        "--max-loss",
        "100",
    ]));
    let (report, code) = report(&output);
    assert_eq!(code, Some(1));
    assert_eq!(at(&report, "/passed"), false);
    let told = text(&output.stderr);
    assert!(
        told.contains("--max-join-p99 missed: p99 of join time was"),
        "{told}"
    );
    assert!(!told.contains("--max-loss missed"), "{told}");
}

#[test]
fn ctrl_c_leaves_in_order_and_still_reports() {
    let lab = Lab::start();
    let door = Door::of(&lab, "udp");
    let mut child = command(&door.arguments(&["--participants", "3", "--duration", "10m"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rostrum starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut lines = lines.map(|line| line.expect("UTF-8"));
    let running = lines.find(|line| line.starts_with("running"));
    let running = running.expect("all are in the meeting");
    assert!(running.contains("3/3 joined"), "{running}");
    assert_eq!(lab.api("/counts")["dialogs"], 3);
    let rest = std::thread::spawn(move || lines.for_each(drop));
    signal(&child, "-INT");
    assert_eq!(exit_code(&mut child), Some(0));
    let output = child.wait_with_output().expect("ended");
    let json: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(at(&json, "/stopped_early"), true);
    rest.join().expect("no panic");
    lab.await_counts(|counts| counts["dialogs"] == 0);
}

#[test]
fn nobody_to_call_and_nobody_let_in_give_2_and_say_why() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("bound").port();
    drop(closed);
    let meeting = format!("sip:standup@127.0.0.1:{port};transport=tcp");
    let output = load(&[
        "--meeting",
        &meeting,
        "--duration",
        "1s",
        "--participants",
        "2",
    ]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("2 times the server cannot be reached"),
        "{told}"
    );

    let lab = Lab::start();
    let door = Door::of(&lab, "udp");
    for (more, why) in [
        (
            &[][..],
            "the server wants an account: give --user and --password",
        ),
        (
            &["--user", "alice", "--password", "wrong"][..],
            "the server does not take this account's password",
        ),
    ] {
        let mut arguments = vec!["--meeting", &door.meeting, "--duration", "1s"];
        arguments.extend(more);
        let output = load(&arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(
            told.contains("nobody joined sip:") && told.contains(why),
            "{told}"
        );
    }

    // a certificate that nobody vouches for
    let door = Door::of(&lab, "tls");
    let output = load(&door.arguments(&["--participants", "1", "--duration", "1s"]));
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(told.contains("give --tls-ca, or --tls-insecure"), "{told}");

    let output = load(&["--meeting", "standup", "--duration", "1s"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("write sip:standup@192.0.2.7"));
}

/// Answers every INVITE with 503, until none has come for a while; their Call-IDs.
fn busy_server(socket: &UdpSocket) -> Vec<String> {
    let mut calls = Vec::new();
    let mut buffer = [0; 4_096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let request = text(&buffer[..length]);
        if !request.starts_with("INVITE ") {
            continue;
        }
        let mut answer = "SIP/2.0 503 Busy\r\nRetry-After: 1\r\n".to_owned();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            let value = common::phone::header(&request, name).expect(name);
            let tag = if name == "To" { ";tag=busy" } else { "" };
            answer.push_str(&format!("{name}: {value}{tag}\r\n"));
        }
        answer.push_str("Content-Length: 0\r\n\r\n");
        socket.send_to(answer.as_bytes(), from).expect("sent");
        let call = common::phone::header(&request, "Call-ID").expect("Call-ID");
        if !calls.iter().any(|known| known == call) {
            calls.push(call.to_owned());
        }
    }
    calls
}

#[test]
fn a_busy_server_is_tried_again_only_when_asked_to_and_when_it_said() {
    for (retry, calls) in [("0", 1), ("1", 2)] {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        // longer than the Retry-After
        let patience = Some(Duration::from_millis(2_500));
        socket.set_read_timeout(patience).expect("a timeout");
        let meeting = format!("sip:standup@{}", socket.local_addr().expect("bound"));
        let server = std::thread::spawn(move || busy_server(&socket));
        let begin = std::time::Instant::now();
        let output = load(&[
            "--meeting",
            &meeting,
            "--participants",
            "1",
            "--retry",
            retry,
        ]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("503 Busy"), "{told}");
        let waited = begin.elapsed() >= Duration::from_secs(1);
        assert_eq!(waited, calls == 2, "{:?}", begin.elapsed());
        assert_eq!(server.join().expect("no panic").len(), calls);
    }
}

/// What a fan-out does to every n-th packet.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Drop,
    Duplicate,
    /// Sends it after the next one.
    Reorder,
}

/// A fan-out of a few lines: what comes in goes to all listeners.
struct FanOut {
    at: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FanOut {
    fn start(listeners: Vec<SocketAddr>, fault: Fault) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let wait = Some(Duration::from_millis(50));
        socket.set_read_timeout(wait).expect("a timeout");
        let at = socket.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            let mut held: Option<Vec<u8>> = None;
            let mut count: BTreeMap<bool, u32> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let packet = &buffer[..length];
                // RTCP has types from 192 to 223 (RFC 5761 §4)
                let is_rtp = packet.get(1).is_some_and(|b| !(192..224).contains(b));
                let n = count.entry(is_rtp).or_default();
                *n += 1;
                let hit = is_rtp && (*n).is_multiple_of(10);
                let mut out: Vec<Vec<u8>> = Vec::new();
                match fault {
                    Fault::Drop if hit => {}
                    Fault::Duplicate if hit => out.extend([packet.to_vec(), packet.to_vec()]),
                    Fault::Reorder if hit => held = Some(packet.to_vec()),
                    _ => {
                        out.push(packet.to_vec());
                        if is_rtp {
                            out.extend(held.take());
                        }
                    }
                }
                for packet in out {
                    for listener in &listeners {
                        let _ = socket.send_to(&packet, listener);
                    }
                }
            }
        });
        Self {
            at,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for FanOut {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Two free ports that follow each other.
fn two_ports() -> u16 {
    loop {
        let first = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = first.local_addr().expect("bound").port();
        if port < u16::MAX && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

fn through(fault: Fault) -> (Value, Option<i32>, String) {
    let port = two_ports();
    let address = |n: u16| SocketAddr::from(([127, 0, 0, 1], port + n));
    let fan_out = FanOut::start(vec![address(0), address(1)], fault);
    let to = fan_out.at.to_string();
    let listen = format!("127.0.0.1:{port}-{}", port + 1);
    let output = load(&[
        "--rtp-to",
        &to,
        "--rtp-listen",
        &listen,
        "--duration",
        "4s",
        "--json",
        "-",
        "--max-loss",
        "0",
        "--max-errors",
        "0",
    ]);
    let (report, code) = report(&output);
    (report, code, text(&output.stderr))
}

#[test]
fn a_fan_out_that_does_right_passes() {
    let (report, code, told) = through(Fault::None);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(at(&report, "/joins"), &Value::Null);
    let of = |name: &str| number(&report, &format!("/media/audio/{name}"));
    assert!(of("received") > 100, "{report:#}");
    assert_eq!((of("lost"), of("duplicates"), of("late")), (0, 0, 0));
    assert!(of("delay/p50") > 0);
}

#[test]
fn a_fan_out_that_drops_is_found_out() {
    let (report, code, told) = through(Fault::Drop);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("--max-loss missed: loss was"), "{told}");
    let lost = number(&report, "/media/audio/lost");
    let received = number(&report, "/media/audio/received");
    // every tenth, and the last one at each listener may be missing unseen
    let expected = received / 9;
    assert!(lost.abs_diff(expected) <= 4, "{lost} of {received}");
}

#[test]
fn a_fan_out_that_sends_twice_is_found_out() {
    let (report, code, told) = through(Fault::Duplicate);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("--max-errors missed"), "{told}");
    assert!(number(&report, "/media/audio/duplicates") > 10);
    assert_eq!(number(&report, "/media/audio/lost"), 0);
}

#[test]
fn a_fan_out_that_reorders_is_found_out() {
    let (report, code, told) = through(Fault::Reorder);
    assert!(number(&report, "/media/audio/late") > 10, "{report:#}");
    assert_eq!(number(&report, "/media/audio/lost"), 0);
    assert_eq!(number(&report, "/media/audio/duplicates"), 0);
    assert_eq!(code, Some(0), "{told}");
}
