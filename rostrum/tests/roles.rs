//! The three roles as processes of their own, which meet over SIP, gRPC and etcd.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::cluster::{etcd, role};
use common::sipp::{Caller, Sipp, Way, free_port};
use common::{eventually, exit_code, get, http, signal};
use serde_json::Value;

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
