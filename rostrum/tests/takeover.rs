//! Processes of a cluster are killed, stopped and drained while two phones are in a meeting: the calls and their media go on.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::cluster::{Process, etcd, named_role};
use common::phone::{Call, Phone, status};
use common::sipp::free_port;
use common::{eventually, exit_code, get, signal};
use serde_json::Value;

/// From the kill of an owner to the first answer of the next one.
const TAKEOVER: Duration = Duration::from_secs(2);
/// From the kill of a switch to media by another one.
const MEDIA_AGAIN: Duration = Duration::from_secs(3);

struct Cluster {
    managers: Vec<(Process, String)>,
    switches: Vec<(Process, String)>,
    /// Where each listens; phones come to the first.
    registrars: Vec<(Process, SocketAddr)>,
    _etcd: Process,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// etcd, two registrars, and so many managers and switches.
    fn start(managers: usize, switches: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let directory = folder.path();
        let (etcd, client) = etcd(directory);
        let switch = |n| start_switch(directory, &client, n);
        let manager = |n| start_manager(directory, &client, n);
        let switches = (1..=switches).map(switch).collect();
        let managers = (1..=managers).map(manager).collect();
        let users = directory.join("users.toml");
        for user in ["alice", "bob"] {
            let added = Command::new(env!("CARGO_BIN_EXE_rostrum"))
                .args(["user", "add", user, "--password", "secret"])
                .args(["--realm", "test", "--file"])
                .arg(&users)
                .status();
            assert!(added.expect("rostrum runs").success());
        }
        let registrar = |n: usize| {
            let port = free_port();
            let text = format!(
                "[registrar]\nnode = \"r{n}\"\ndomain = \"example.org\"\nrealm = \"test\"\nusers = \"{}\"\ndata = \"{}\"\n\
             udp = [\"127.0.0.1:{port}\"]\ntcp = [\"127.0.0.1:{port}\"]\ntls = []\nhttp = []\nhttps = []\n\
             advertise = [\"127.0.0.1\"]\ndigest = [\"MD5\"]\n",
                users.display(),
                directory.join(format!("registrar-{n}")).display()
            );
            let (process, _) = named_role(directory, &format!("r{n}"), "registrar", &client, &text);
            (process, SocketAddr::from(([127, 0, 0, 1], port)))
        };
        let registrars = (1..=2).map(registrar).collect();
        Self {
            managers,
            switches,
            registrars,
            _etcd: etcd,
            _folder: folder,
        }
    }

    /// Which manager has the meeting.
    fn owner(&self) -> usize {
        let has = |(_, admin): &(Process, String)| counts(admin)["participants"] == 2;
        let owner = self.managers.iter().position(has);
        owner.expect("somebody has the meeting")
    }
}

fn start_switch(directory: &Path, client: &str, n: usize) -> (Process, String) {
    let text = format!(
        "[switch]\nid = \"s{n}\"\ncontrol = \"127.0.0.1:{}\"\nlisten = [\"127.0.0.1\"]\nadvertise = [\"127.0.0.1\"]\n\
         webrtc_port = 0\nplain_ports = [0, 0]\nworkers = 1\n",
        free_port()
    );
    named_role(directory, &format!("s{n}"), "switch", client, &text)
}

fn start_manager(directory: &Path, client: &str, n: usize) -> (Process, String) {
    let port = free_port();
    let text = format!(
        "[meeting_manager]\nid = \"m{n}\"\ndomain = \"example.org\"\nudp = [\"127.0.0.1:{port}\"]\n\
         tcp = [\"127.0.0.1:{port}\"]\n[[meeting_manager.meetings]]\nid = \"weekly\"\ntitle = \"Weekly\"\n"
    );
    named_role(
        directory,
        &format!("m{n}"),
        "meeting-manager",
        client,
        &text,
    )
}

fn counts(admin: &str) -> Value {
    serde_json::from_str(&get(&format!("{admin}/api/v1/counts"))).expect("JSON")
}

/// A phone in the meeting, with its media.
struct Party {
    phone: Phone,
    call: Call,
    rtp: Arc<UdpSocket>,
}

impl Party {
    fn join(cluster: &Cluster, user: &str) -> Self {
        let first = cluster.registrars[0].1;
        let mut phone = Phone::tcp(first, "example.org", (user, "secret")).outbound();
        assert_eq!(status(&phone.register(600)), 200);
        let rtp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let port = rtp.local_addr().expect("bound").port();
        let call = phone
            .call_with("weekly", &offer(port, 1))
            .expect("is let in");
        Self {
            phone,
            call,
            rtp: Arc::new(rtp),
        }
    }

    /// Where the switch listens for it, as a description says.
    fn switch(description: &str) -> SocketAddr {
        let line = description.lines().find(|l| l.starts_with("m=audio "));
        let port = line.and_then(|l| l.split(' ').nth(1)).expect("audio");
        SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")))
    }
}

/// A loud tone every 20 ms, and what arrives of it elsewhere.
struct Stream {
    target: Arc<Mutex<SocketAddr>>,
    stop: Arc<AtomicBool>,
    sent: JoinHandle<u16>,
    heard: JoinHandle<Vec<(Instant, u16)>>,
}

impl Stream {
    fn start(from: &Party, to: &Party) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let target = Arc::new(Mutex::new(Party::switch(&from.call.answer)));
        let (stopped, at, socket) = (
            Arc::clone(&stop),
            Arc::clone(&target),
            Arc::clone(&from.rtp),
        );
        let sent = std::thread::spawn(move || {
            let begin = Instant::now();
            let mut number = 0_u16;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                let mut packet = vec![0x80, 0];
                packet.extend(number.to_be_bytes());
                packet.extend((u32::from(number) * 160).to_be_bytes());
                packet.extend(7_u32.to_be_bytes());
                packet.extend((0..160).map(|n| if n % 8 < 4 { 0x0a } else { 0x8a }));
                let target = *at.lock().expect("not poisoned");
                // Nobody may listen there for a while.
                let _ = socket.send_to(&packet, target);
                let next = begin + Duration::from_millis(20) * u32::from(number);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            number
        });
        let (stopped, socket) = (Arc::clone(&stop), Arc::clone(&to.rtp));
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time-out");
        let heard = std::thread::spawn(move || {
            let mut heard = Vec::new();
            let mut room = [0; 2_048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, _)) = socket.recv_from(&mut room)
                    && len > 12
                    && room[1] & 0x7f == 0
                {
                    heard.push((Instant::now(), u16::from_be_bytes([room[2], room[3]])));
                }
            }
            heard
        });
        let stream = Self {
            target,
            stop,
            sent,
            heard,
        };
        // It runs before anything is done to it.
        std::thread::sleep(Duration::from_millis(600));
        stream
    }

    /// The longest silence, and how many of the numbers between the first and the last one never came.
    fn end(self) -> (Duration, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sent.join().expect("sends");
        let heard = self.heard.join().expect("listens");
        assert!(
            heard.len() * 2 > usize::from(sent),
            "{} of {sent}",
            heard.len()
        );
        let gap = heard.windows(2).map(|w| w[1].0 - w[0].0).max();
        let (first, last) = (heard[0].1, heard[heard.len() - 1].1);
        let lost = usize::from(last.wrapping_sub(first)) + 1 - heard.len();
        (gap.expect("several"), lost)
    }
}

/// Both phones ask until they are answered; how long after `since` both were.
fn both_answered(parties: &mut [Party; 2], since: Instant) -> Duration {
    for party in parties {
        let answer = party.phone.inform(&party.call);
        assert_eq!(status(&answer), 200, "{answer}");
    }
    since.elapsed()
}

fn leave(mut parties: [Party; 2], cluster: &Cluster) {
    for party in &mut parties {
        assert_eq!(status(&party.phone.hang_up(&party.call)), 200);
    }
    eventually("nothing to be left", || {
        let of = |(process, admin): &(Process, String)| {
            let running = std::fs::metadata(format!("/proc/{}/exe", process.child.id())).is_ok();
            !running || counts(admin)["dialogs"] == 0
        };
        cluster.managers.iter().all(of)
    });
}

#[test]
fn a_killed_owner_is_replaced_within_two_seconds_and_not_a_packet_is_lost() {
    let mut cluster = Cluster::start(3, 1);
    let mut parties = [Party::join(&cluster, "alice"), Party::join(&cluster, "bob")];
    let stream = Stream::start(&parties[0], &parties[1]);
    let owner = cluster.owner();
    let killed = Instant::now();
    cluster.managers[owner].0.child.kill().expect("is killed");
    let answered = both_answered(&mut parties, killed);
    assert!(answered < TAKEOVER, "{answered:?}");
    let hold = parties[1].phone.reoffer(&parties[1].call, "sendrecv");
    assert_eq!(status(&hold), 200, "{hold}");
    let (gap, lost) = stream.end();
    assert_eq!(lost, 0);
    assert!(gap < Duration::from_millis(500), "{gap:?}");
    leave(parties, &cluster);
}

#[test]
fn a_stopped_owner_that_goes_on_finds_itself_deposed_and_disturbs_nobody() {
    let cluster = Cluster::start(2, 1);
    let mut parties = [Party::join(&cluster, "alice"), Party::join(&cluster, "bob")];
    let stream = Stream::start(&parties[0], &parties[1]);
    let owner = cluster.owner();
    let stopped = Instant::now();
    signal(&cluster.managers[owner].0.child, "-STOP");
    let answered = both_answered(&mut parties, stopped);
    assert!(answered < TAKEOVER * 2, "{answered:?}");
    signal(&cluster.managers[owner].0.child, "-CONT");
    let admin = &cluster.managers[owner].1;
    eventually("the old owner to drop the meeting", || {
        counts(admin)["meetings"] == 0
    });
    both_answered(&mut parties, stopped);
    let (_, lost) = stream.end();
    assert_eq!(lost, 0);
    leave(parties, &cluster);
}

#[test]
fn a_manager_that_is_told_to_end_hands_its_meetings_over_and_ends() {
    let mut cluster = Cluster::start(2, 1);
    let mut parties = [Party::join(&cluster, "alice"), Party::join(&cluster, "bob")];
    let stream = Stream::start(&parties[0], &parties[1]);
    let owner = cluster.owner();
    signal(&cluster.managers[owner].0.child, "-TERM");
    let code = exit_code(&mut cluster.managers[owner].0.child);
    assert_eq!(code, Some(0), "{}", cluster.managers[owner].0.log());
    both_answered(&mut parties, Instant::now());
    let (_, lost) = stream.end();
    assert_eq!(lost, 0);
    leave(parties, &cluster);
}

#[test]
fn a_killed_switch_is_replaced_within_three_seconds_and_both_are_told_where_media_are_now() {
    let mut cluster = Cluster::start(1, 2);
    let mut parties = [Party::join(&cluster, "alice"), Party::join(&cluster, "bob")];
    let stream = Stream::start(&parties[0], &parties[1]);
    let carries = switch_with_legs(&cluster);
    let killed = Instant::now();
    cluster.switches[carries].0.child.kill().expect("is killed");
    for (n, party) in parties.iter_mut().enumerate() {
        let reinvite = party.phone.await_request("INVITE");
        let port = party.rtp.local_addr().expect("bound").port();
        party
            .phone
            .answer_with(&reinvite, "200 OK", &offer(port, 2));
        if n == 0 {
            *stream.target.lock().expect("not poisoned") = Party::switch(&reinvite);
        }
    }
    std::thread::sleep(MEDIA_AGAIN.saturating_sub(killed.elapsed()));
    let (gap, _) = stream.end();
    assert!(gap < MEDIA_AGAIN, "{gap:?}");
    leave(parties, &cluster);
}

#[test]
fn a_phone_whose_registrar_is_killed_goes_on_through_another_in_both_directions() {
    let mut cluster = Cluster::start(1, 2);
    let mut parties = [Party::join(&cluster, "alice"), Party::join(&cluster, "bob")];
    let stream = Stream::start(&parties[0], &parties[1]);
    let second = cluster.registrars[1].1;
    cluster.registrars[0].0.child.kill().expect("is killed");
    let moved = Instant::now();
    for party in &mut parties {
        party.phone.move_to(second);
        let registered = party.phone.register(600);
        assert_eq!(status(&registered), 200, "{registered}");
    }
    let answered = both_answered(&mut parties, moved);
    assert!(answered < TAKEOVER, "{answered:?}");
    let (_, lost) = stream.end();
    assert_eq!(lost, 0, "media never came through it");
    // The manager has something to tell: it finds the phones where they are now.
    let carries = switch_with_legs(&cluster);
    cluster.switches[carries].0.child.kill().expect("is killed");
    for party in &mut parties {
        let reinvite = party.phone.await_request("INVITE");
        let port = party.rtp.local_addr().expect("bound").port();
        party
            .phone
            .answer_with(&reinvite, "200 OK", &offer(port, 2));
    }
    leave(parties, &cluster);
}

/// Which switch has the legs of both.
fn switch_with_legs(cluster: &Cluster) -> usize {
    let legs = |admin: &str| -> Value {
        let view = get(&format!("{admin}/api/v1/switch"));
        serde_json::from_str::<Value>(&view).expect("JSON")["legs"].clone()
    };
    let carries = cluster.switches.iter().position(|(_, a)| legs(a) == 2);
    carries.expect("one of them has both legs")
}

/// A description of plain audio at a port of ours.
fn offer(port: u16, version: u32) -> String {
    format!(
        "v=0\r\no=- 1 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n\
         a=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
    )
}
