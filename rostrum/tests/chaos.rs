//! `rostrum chaos` with few participants: what is promised holds when an owner, a registrar or etcd's leader dies.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_short_set_of_faults_breaks_no_promise() {
    let set = "kill-owner,stop-owner,kill-registrar,kill-etcd-leader";
    let output = Command::new(env!("CARGO_BIN_EXE_rostrum"))
        .args(["chaos", "--json", "--pause", "6", "--scenario", set])
        .args(["--participants", "12", "--meetings", "3"])
        .output()
        .expect("rostrum runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!(lines.len(), 4, "{text}{told}");
    for line in &lines {
        assert_eq!(line["ok"], true, "{line}{told}");
        assert_eq!(line["runs"], 1, "{line}");
    }
    assert!(lines[0]["takeover_ms_p99"].is_u64(), "{}", lines[0]);
    assert!(output.status.success(), "{told}");
}

#[test]
fn what_cannot_be_run_here_is_said_and_is_no_success() {
    let chaos = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
        command.args(["chaos", "--json", "--loopback"]);
        command.args(["--scenario", "cut-manager-store"]).args(more);
        let output = command.output().expect("rostrum runs");
        let line: Value = serde_json::from_slice(&output.stdout).expect("an object");
        (line, output.status.success())
    };
    let (line, success) = chaos(&[]);
    assert!(
        !success && line["ok"] == false && line["runs"] == 0,
        "{line}"
    );
    let why = line["cannot_run_here"].as_str().expect("a reason");
    assert!(why.contains("namespaces"), "{why}");
    let (line, success) = chaos(&["--allow-skips"]);
    assert!(success && line["ok"] == true, "{line}");
}
