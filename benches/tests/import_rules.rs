//! Who may import whom, kept by looking at what cargo knows (see ARCHITECTURE.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Crate, and the crates of ours it may depend on.
const RULES: &[(&str, &[&str])] = &[
    ("sip", &[]),
    ("control", &[]),
    ("cluster", &[]),
    ("transport", &["sip"]),
    ("registrar-core", &["sip", "cluster"]),
    ("meeting-core", &["sip", "control", "cluster"]),
    ("switch-core", &["control"]),
    (
        "registrar",
        &["registrar-core", "sip", "transport", "cluster"],
    ),
    (
        "meeting-manager",
        &["meeting-core", "sip", "transport", "control", "cluster"],
    ),
    ("switch", &["switch-core", "control", "cluster"]),
    // a client: its media half uses the switch core's SRTP and DTLS
    ("load", &["sip", "transport", "switch-core"]),
    // a world of cores: it stands in for the shells
    (
        "sim",
        &[
            "sip",
            "control",
            "cluster",
            "registrar-core",
            "meeting-core",
            "switch-core",
        ],
    ),
    (
        "rostrum",
        &[
            "registrar",
            "meeting-manager",
            "switch",
            "cluster",
            "transport",
            "load",
        ],
    ),
];

/// Crates without IO, and their libraries.
const CORES: &[(&str, &str)] = &[
    ("sip", "proto/sip/src/lib.rs"),
    ("registrar-core", "registrar/core/src/lib.rs"),
    ("meeting-core", "meeting-manager/core/src/lib.rs"),
    ("switch-core", "switch/core/src/lib.rs"),
];

/// Dependencies no core may have.
const NOT_IN_CORES: &[&str] = &[
    "tokio",
    "hyper",
    "axum",
    "socket2",
    "libc",
    "parking_lot",
    "tracing",
    "metrics",
];

/// What has clippy refuse clocks, sockets, threads and unordered iteration in a core; clippy.toml lists them.
const DENIED_IN_CORES: &str =
    "#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("benches lies in the workspace")
}

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|p| {
            let dependencies = p["dependencies"].as_array().expect("dependencies").iter();
            let normal = dependencies
                .filter(|d| d["kind"].is_null())
                .map(|d| text(&d["name"]))
                .collect();
            (text(&p["name"]), normal)
        })
        .collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("a string").to_owned()
}

#[test]
fn crates_import_only_what_the_architecture_lets_them() {
    let all = dependencies();
    let ours: BTreeSet<&String> = all.keys().collect();
    for (name, allowed) in RULES {
        for dependency in all
            .get(*name)
            .unwrap_or_else(|| panic!("{name} is gone: mend RULES"))
        {
            assert!(
                !ours.contains(dependency) || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
    for name in ours {
        let ruled = RULES.iter().any(|(n, _)| n == name);
        assert!(
            ruled || ["rostrum-benches", "rostrum-fuzz"].contains(&name.as_str()),
            "{name} has no rule: add one"
        );
        let imports = &all[name];
        for leaf in ["rostrum", "rostrum-benches", "rostrum-fuzz", "sim"] {
            assert!(
                !imports.contains(leaf),
                "nothing imports {leaf}, but {name} does"
            );
        }
    }
}

#[test]
fn cores_have_no_runtime_socket_clock_or_global_randomness() {
    let all = dependencies();
    for (name, source) in CORES {
        for dependency in &all[*name] {
            assert!(
                !NOT_IN_CORES.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
        let library = std::fs::read_to_string(root().join(source)).expect("a library");
        assert!(
            library.contains(DENIED_IN_CORES),
            "{source} lacks: {DENIED_IN_CORES}"
        );
    }
}
