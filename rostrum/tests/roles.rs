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
    let client = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
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
    ] {
        command.arg(format!("--{name}={value}"));
    }
    let mut process = Process::start(command, &directory.join("etcd.log"));
    let host = client.trim_start_matches("http://").to_owned();
    eventually("etcd to be healthy", || {
        process.assert_running();
        std::net::TcpStream::connect(&host).is_ok()
            && get(&format!("{client}/health")).contains("true")
    });
    (process, client)
}

/// One role with its own file; its admin URL.
fn role(directory: &Path, name: &str, client: &str, text: &str) -> (Process, String) {
    let admin = format!("127.0.0.1:{}", free_port());
    let path = directory.join(format!("{name}.toml"));
    let config = format!(
        "[log]\nlevel = \"info\"\n[admin]\nlisten = \"{admin}\"\ndrain_seconds = 2\n[store]\nengine = \"etcd\"\nendpoints = [\"{client}\"]\n{text}"
    );
    std::fs::write(&path, config).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
    command.arg(name).arg("--config").arg(&path);
    let mut process = Process::start(command, &directory.join(format!("{name}.log")));
    eventually(&format!("{name} to be ready"), || {
        process.assert_running();
        std::net::TcpStream::connect(&admin).is_ok()
            && http("GET", &format!("http://{admin}/readyz"), "").0 == 200
    });
    (process, format!("http://{admin}"))
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
