//! The three roles as processes of their own, which meet over SIP, gRPC and etcd.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::sipp::{Caller, Sipp, Way, free_port};
use common::{eventually, exit_code, get, http, signal};
use serde_json::Value;

/// A child process whose log is shown where a test fails, ended when dropped.
struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    fn start(mut command: Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e} (scripts/setup test)"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "{ended:?}: {}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One etcd member on free ports; its client URL.
fn etcd(directory: &Path) -> (Process, String) {
    etcd_with(directory, "http", &[])
}

/// The same with more arguments, such as those of TLS.
fn etcd_with(directory: &Path, scheme: &str, more: &[String]) -> (Process, String) {
    let client = format!("{scheme}://127.0.0.1:{}", free_port());
    let peer = format!("{scheme}://127.0.0.1:{}", free_port());
    let metrics = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(directory.join("etcd"));
    for (name, value) in [
        ("name", "test"),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", &format!("test={peer}")),
        ("heartbeat-interval", "50"),
        ("election-timeout", "500"),
        ("grpc-keepalive-min-time", "200ms"),
        ("listen-metrics-urls", &metrics),
    ] {
        command.arg(format!("--{name}={value}"));
    }
    command.args(more);
    let mut process = Process::start(command, &directory.join("etcd.log"));
    let host = metrics.trim_start_matches("http://").to_owned();
    eventually("etcd to be healthy", || {
        process.assert_running();
        std::net::TcpStream::connect(&host).is_ok()
            && http("GET", &format!("{metrics}/health"), "")
                .1
                .contains("true")
    });
    (process, client)
}

/// One role with its own file; its admin URL.
fn role(directory: &Path, name: &str, client: &str, text: &str) -> (Process, String) {
    let (process, admin) = begin(directory, name, client, text);
    until_ready(process, admin, name, 200)
}

/// Waits until its `/readyz` says so.
fn until_ready(mut process: Process, admin: String, name: &str, status: u16) -> (Process, String) {
    let address = admin.trim_start_matches("http://").to_owned();
    eventually(&format!("{name} to say {status}"), || {
        process.assert_running();
        std::net::TcpStream::connect(&address).is_ok()
            && http("GET", &format!("{admin}/readyz"), "").0 == status
    });
    (process, admin)
}

/// Starts a role with its own file.
fn begin(directory: &Path, name: &str, client: &str, text: &str) -> (Process, String) {
    let admin = format!("127.0.0.1:{}", free_port());
    let path = directory.join(format!("{name}.toml"));
    let config = format!(
        "[log]\nlevel = \"info\"\n[admin]\nlisten = \"{admin}\"\ndrain_seconds = 2\n[store]\nengine = \"etcd\"\nendpoints = [\"{client}\"]\n{text}"
    );
    std::fs::write(&path, config).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
    command.arg(name).arg("--config").arg(&path);
    let process = Process::start(command, &directory.join(format!("{name}.log")));
    (process, format!("http://{admin}"))
}

/// `rostrum cluster …`; what it printed, or its complaint.
fn cluster(arguments: &[&str]) -> Result<String, String> {
    let out = Command::new(env!("CARGO_BIN_EXE_rostrum"))
        .arg("cluster")
        .args(arguments)
        .output()
        .expect("rostrum runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    match out.status.success() {
        true => Ok(text(out.stdout)),
        false => Err(text(out.stderr)),
    }
}

#[test]
fn a_phone_joins_through_three_processes_holds_resumes_and_leaves() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path();
    let (_etcd, client) = etcd(directory);
    let users = directory.join("users.toml");
    let added = Command::new(env!("CARGO_BIN_EXE_rostrum"))
        .args(["user", "add", "alice", "--password", "secret"])
        .args(["--realm", "test", "--file"])
        .arg(&users)
        .status();
    assert!(added.expect("rostrum runs").success());

    let control = free_port();
    let (mut switch, _) = role(
        directory,
        "switch",
        &client,
        &format!(
            "[switch]\ncontrol = \"127.0.0.1:{control}\"\nlisten = [\"127.0.0.1\"]\nadvertise = [\"127.0.0.1\"]\n\
             webrtc_port = 0\nplain_ports = [0, 0]\nworkers = 1\n"
        ),
    );
    let inner = free_port();
    let (mut manager, admin) = role(
        directory,
        "meeting-manager",
        &client,
        &format!(
            "[meeting_manager]\ndomain = \"example.org\"\nudp = [\"127.0.0.1:{inner}\"]\ntcp = [\"127.0.0.1:{inner}\"]\n\
             [[meeting_manager.meetings]]\nid = \"weekly\"\ntitle = \"Weekly\"\n"
        ),
    );
    let outer = free_port();
    let (mut registrar, registrar_admin) = role(
        directory,
        "registrar",
        &client,
        &format!(
            "[registrar]\ndomain = \"example.org\"\nrealm = \"test\"\nusers = \"{}\"\ndata = \"{}\"\n\
             udp = [\"127.0.0.1:{outer}\"]\ntcp = [\"127.0.0.1:{outer}\"]\ntls = []\nhttp = []\nhttps = []\n\
             advertise = [\"127.0.0.1\"]\ndigest = [\"MD5\"]\n",
            users.display(),
            directory.join("registrar").display()
        ),
    );

    let counts = || -> Value {
        serde_json::from_str(&get(&format!("{admin}/api/v1/counts"))).expect("JSON")
    };
    for mode in ["u1", "t1"] {
        let way = Way {
            remote: ([127, 0, 0, 1], outer).into(),
            mode,
        };
        let caller = Caller {
            directory,
            domain: "example.org",
            account: ("alice", "secret"),
        };
        let call: Sipp = caller.start("call", way, free_port(), "weekly");
        call.finish();
        eventually("the call to leave nothing", || {
            let left = counts();
            left["dialogs"] == 0 && left["switch_legs"] == 0 && left["ports"] == 0
        });
    }
    // a balancer in front of the registrar has time to see that it goes, though nothing runs
    let begin = Instant::now();
    signal(&registrar.child, "-TERM");
    eventually("/readyz to say 503", || {
        http("GET", &format!("{registrar_admin}/readyz"), "").0 == 503
    });
    assert_eq!(
        exit_code(&mut registrar.child),
        Some(0),
        "{}",
        registrar.log()
    );
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert!(!registrar.log().contains("panicked"), "{}", registrar.log());

    for process in [&mut manager, &mut switch] {
        process.assert_running();
        signal(&process.child, "-INT");
        assert_eq!(exit_code(&mut process.child), Some(0), "{}", process.log());
        assert!(!process.log().contains("panicked"), "{}", process.log());
    }
}

/// Sends OPTIONS over a connection; the status of the answer.
fn options(connection: &mut std::net::TcpStream, number: u32) -> u16 {
    use std::io::{Read, Write};
    let local = connection.local_addr().expect("connected");
    let request = format!(
        "OPTIONS sip:example.org SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n\
         From: <sip:balancer@example.org>;tag=1\r\nTo: <sip:example.org>\r\nCall-ID: {number}@{local}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).expect("alive");
    let patience = Some(Duration::from_secs(5));
    connection.set_read_timeout(patience).expect("a limit");
    let mut answer = [0; 4096];
    let len = connection.read(&mut answer).expect("an answer");
    let line = String::from_utf8_lossy(&answer[..len]).into_owned();
    let code = line.split_whitespace().nth(1).expect("a status line");
    code.parse().expect("a number")
}

#[test]
fn members_know_each_other_by_certificates_and_are_drained_by_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path();
    let tls = directory.join("tls");
    let tls_folder = tls.to_str().expect("UTF-8");
    cluster(&["init", "--folder", tls_folder, "a=127.0.0.1"]).expect("certificates");
    let file = |name: &str| tls.join(name).display().to_string();
    let flags: Vec<String> = [
        ("cert-file", "a.pem"),
        ("key-file", "a.key"),
        ("trusted-ca-file", "ca.pem"),
    ]
    .iter()
    .flat_map(|(flag, name)| {
        [
            format!("--{flag}={}", file(name)),
            format!("--peer-{flag}={}", file(name)),
        ]
    })
    .chain(["--client-cert-auth", "--peer-client-cert-auth"].map(String::from))
    .collect();
    let (_etcd, client) = etcd_with(directory, "https", &flags);
    let names = format!(
        "ca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        file("ca.pem"),
        file("a.pem"),
        file("a.key")
    );
    // the table [store] is open where this begins
    let shared = format!("{names}[cluster]\n{names}");
    let users = directory.join("users.toml");
    let added = Command::new(env!("CARGO_BIN_EXE_rostrum"))
        .args(["user", "add", "alice", "--password", "secret"])
        .args(["--realm", "test", "--file"])
        .arg(&users)
        .status();
    assert!(added.expect("rostrum runs").success());

    // every address of the machine: allowed with certificates only
    let control = free_port();
    let switch_file = format!(
        "{shared}[switch]\nid = \"a\"\ncontrol = \"0.0.0.0:{control}\"\nadvertise_control = \"127.0.0.1:{control}\"\n\
         listen = [\"127.0.0.1\"]\nadvertise = [\"127.0.0.1\"]\nwebrtc_port = 0\nplain_ports = [0, 0]\nworkers = 1\n"
    );
    let (switch, _) = role(directory, "switch", &client, &switch_file);
    let inner = free_port();
    let (_manager, admin) = role(
        directory,
        "meeting-manager",
        &client,
        &format!(
            "{shared}[meeting_manager]\nid = \"a\"\ndomain = \"example.org\"\nudp = [\"127.0.0.1:{inner}\"]\n\
             tcp = [\"127.0.0.1:{inner}\"]\n[[meeting_manager.meetings]]\nid = \"weekly\"\ntitle = \"Weekly\"\n"
        ),
    );
    let outer = free_port();
    let (registrar, registrar_admin) = role(
        directory,
        "registrar",
        &client,
        &format!(
            "{shared}[registrar]\nnode = \"a\"\ndomain = \"example.org\"\nrealm = \"test\"\nusers = \"{}\"\n\
             data = \"{}\"\nudp = [\"127.0.0.1:{outer}\"]\ntcp = [\"127.0.0.1:{outer}\"]\ntls = []\nhttp = []\n\
             https = []\nadvertise = [\"127.0.0.1\"]\ndigest = [\"MD5\"]\n",
            users.display(),
            directory.join("registrar").display()
        ),
    );

    let way = Way {
        remote: ([127, 0, 0, 1], outer).into(),
        mode: "t1",
    };
    let caller = Caller {
        directory,
        domain: "example.org",
        account: ("alice", "secret"),
    };
    let call: Sipp = caller.start("call", way, free_port(), "weekly");
    call.finish();
    let metrics = get(&format!("{admin}/metrics"));
    for name in [
        "rostrum_store_seconds_bucket{operation=\"txn\"",
        "rostrum_lease_alive{kind=\"member\"} 1",
        "rostrum_lease_renewals_total{kind=\"member\",outcome=\"done\"}",
        "rostrum_manager_highest_epoch",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }

    let config = directory.join("switch.toml").display().to_string();
    let status = || -> Value {
        let text = cluster(&["status", "--json", "--config", &config]).expect("a status");
        serde_json::from_str(&text).expect("JSON")
    };
    let of = |status: &Value, kind: &str| {
        let all = status["processes"].as_array().expect("a list").clone();
        all.into_iter().find(|p| p["kind"] == kind).expect("there")
    };
    let first = status();
    assert_eq!(first["store"]["healthy"], true);
    for kind in ["meeting-manager", "switch", "registrar"] {
        let one = of(&first, kind);
        assert_eq!((&one["id"], &one["alive"]), (&"a".into(), &true.into()));
        assert_eq!(one["draining"], false);
    }
    let address = of(&first, "switch")["address"].clone();
    assert_eq!(address, format!("https://127.0.0.1:{control}"));
    let shown = cluster(&["status", "--config", &config]).expect("a table");
    assert!(shown.contains("store: healthy"), "{shown}");

    let order = |what: &str, kind: &str, id: &str| cluster(&[what, kind, id, "--config", &config]);
    let missing = order("drain", "switch", "b").expect_err("no such switch");
    assert!(missing.contains("running are a"), "{missing}");

    // a switch drains beyond its restart
    order("drain", "switch", "a").expect("ordered");
    assert_eq!(of(&status(), "switch")["draining"], true);
    drop(switch);
    let (process, url) = begin(directory, "switch", &client, &switch_file);
    let (_switch, switch_admin) = until_ready(process, url, "switch", 503);
    eventually("the new switch to say that it drains", || {
        of(&status(), "switch")["draining"] == true
    });
    order("undrain", "switch", "a").expect("taken back");
    assert_eq!(of(&status(), "switch")["draining"], false);
    assert_eq!(http("GET", &format!("{switch_admin}/readyz"), "").0, 200);
    let again = order("undrain", "switch", "a").expect_err("no order");
    assert!(again.contains("has no order"), "{again}");

    order("drain", "meeting-manager", "a").expect("ordered");
    assert_eq!(of(&status(), "meeting-manager")["draining"], true);
    order("undrain", "meeting-manager", "a").expect("taken back");
    assert_eq!(of(&status(), "meeting-manager")["draining"], false);

    // a registrar's connections outlive the order, its health check does not
    let mut connection = std::net::TcpStream::connect(("127.0.0.1", outer)).expect("connects");
    assert_eq!(options(&mut connection, 1), 200);
    order("drain", "registrar", "a").expect("ordered");
    assert_eq!(options(&mut connection, 2), 503);
    assert_eq!(http("GET", &format!("{registrar_admin}/readyz"), "").0, 503);
    order("undrain", "registrar", "a").expect("taken back");
    assert_eq!(options(&mut connection, 3), 200);
    assert!(!registrar.log().contains("panicked"), "{}", registrar.log());
}
