//! `rostrum config` and `rostrum user` as an operator uses them.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::phone::{Phone, status};
use common::{Lab, eventually};

fn rostrum(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROSTRUM_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("rostrum runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("rostrum.toml");
    std::fs::write(&path, text).expect("writes");
    path
}

fn check(path: &Path) -> Command {
    rostrum(&["config", "check", path.to_str().expect("UTF-8 path")])
}

#[test]
fn the_default_configuration_passes_the_check() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let default = run(&mut rostrum(&["config", "default"]));
    assert!(default.status.success(), "{}", errors(&default));
    let path = file(directory.path(), &String::from_utf8_lossy(&default.stdout));
    let checked = run(&mut check(&path));
    assert!(checked.status.success(), "{}", errors(&checked));
}

#[test]
fn each_mistake_is_told_with_file_line_and_what_to_write_instead() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let mistakes = [
        (
            "[registrar]\ndomian = \"example.org\"\n",
            2,
            "did you mean domain?",
        ),
        ("\n[registrar]\nudp = [\"5060\"]\n", 3, "0.0.0.0:5060"),
        (
            "[switch]\nadvertise = [\"media.example.org\"]\n",
            2,
            "192.0.2.7",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:7070\"\n[switch]\ncontrol = \"127.0.0.1:7070\"\n",
            4,
            "another port",
        ),
        (
            "[meeting_manager]\naudio_codecs = [\"opus\", \"mp3\"]\n",
            2,
            "G722",
        ),
        ("[meeting_manager]\nvideo_codecs = [\"VP7\"]\n", 2, "VP8"),
        (
            "[switch]\nplain_ports = [30000, 20000]\n",
            2,
            "[20000, 29999]",
        ),
        ("[log]\nformat = \"xml\"\n", 2, "json"),
        ("[log]\nlevel = \"verbose\"\n", 2, "info"),
        ("[log]\nlevel = \"info,registrar=loud\"\n", 2, "info"),
        (
            "[registrar]\nadmin = \"127.0.0.1:5061\"\n",
            2,
            "another port",
        ),
        (
            "[registrar]\n[switch]\nplain_ports = [5000, 6000]\n",
            3,
            "another port",
        ),
        (
            "[store]\nengine = \"embedded\"\n",
            2,
            "write \"etcd\", or use rostrum lab",
        ),
        ("[admin]\nlisten = \"127.0.0.1:5060\"\n", 2, "another port"),
        (
            "[registrar]\nadvertise = [\"1.2.3.400\"]\n",
            2,
            "203.0.113.5",
        ),
        ("[registrar]\ndomain = \"300.1.1.1\"\n", 2, "host name"),
        (
            "[registrar]\nudp = [\"224.0.0.1:5060\"]\n",
            2,
            "address of a card",
        ),
        ("[switch]\nlisten = [\"ff02::1\"]\n", 2, "address of a card"),
        (
            "[switch]\nlisten = [\"::\"]\nadvertise = [\"203.0.113.5\"]\n",
            3,
            "0.0.0.0",
        ),
        ("[switch]\nadvertise_control = \"nonsense\"\n", 2, "7070"),
        (
            "[store]\nendpoints = [\"foo bar\"]\n",
            2,
            "http://127.0.0.1:2379",
        ),
        (
            "[store]\nendpoints = [\"127.0.0.1:2379\"]\n",
            2,
            "http://127.0.0.1:2379",
        ),
        (
            "[registrar]\ncertificate = \"/nowhere/chain.pem\"\nkey = \"/dev/null\"\n",
            2,
            "may read",
        ),
        (
            "[switch]\ncontrol = \"192.0.2.7:7070\"\n",
            2,
            "rostrum cluster init",
        ),
        (
            "[cluster]\nca_file = \"/dev/null\"\n[switch]\ncontrol = \"192.0.2.7:7070\"\n",
            1,
            "ca_file, cert_file and key_file",
        ),
        (
            "[cluster]\nca_file = \"/dev/null\"\ncert_file = \"/dev/null\"\nkey_file = \"/nowhere/a.key\"\n",
            4,
            "rostrum cluster init",
        ),
        (
            "[meeting_manager]\nadvertise = [\"2001:db8::5\"]\n",
            2,
            "of that family",
        ),
    ];
    for (text, line, instead) in mistakes {
        let path = file(directory.path(), text);
        let checked = run(&mut check(&path));
        let told = errors(&checked);
        assert_eq!(checked.status.code(), Some(1), "{text}\n{told}");
        assert!(
            told.contains(&format!("{}:{line}:", path.display())),
            "{text}\n{told}"
        );
        assert!(told.contains(instead), "{text}\n{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let path = file(
        directory.path(),
        "[registrar]\ndomian = \"x\"\nhtpps = []\nudp = [\"5060\"]\nnode = \"\"\nflow_timer = 1\n\
         [meeting_manager]\nsession_min = 1\nid = \"\"\n[switch]\ncapacity = 0\nspeaker_interval = 1\n",
    );
    let checked = run(check(&path).env("ROSTRUM_REGISTRAR__REALM", "a\"b"));
    assert_eq!(checked.status.code(), Some(1));
    let told = errors(&checked);
    assert!(told.contains("ROSTRUM_REGISTRAR__REALM"), "{told}");
    for line in [2, 3, 4, 5, 6, 8, 9, 11, 12] {
        let place = format!("{}:{line}:", path.display());
        assert!(told.contains(&place), "line {line} in {told}");
    }
    let problems = told.matches("rostrum.toml:").count();
    assert_eq!(problems, 9, "{told}");
}

#[test]
fn file_is_checked_for_the_roles_it_is_for() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let path = file(directory.path(), "[switch]\nplain_ports = [5000, 6000]\n");
    let checked = run(&mut check(&path));
    assert!(checked.status.success(), "{}", errors(&checked));
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(told.ends_with("nothing wrong for: switch\n"), "{told}");
    let checked = run(check(&path).args(["--role", "registrar", "--role", "switch"]));
    let told = errors(&checked);
    assert_eq!(checked.status.code(), Some(1));
    assert!(told.contains("another port"), "{told}");
    assert!(told.ends_with("checked for: registrar, switch\n"), "{told}");
    let default = run(&mut rostrum(&["config", "default"]));
    let path = file(directory.path(), &String::from_utf8_lossy(&default.stdout));
    let told = run(&mut check(&path)).stdout;
    let told = String::from_utf8_lossy(&told);
    assert!(
        told.contains("registrar, meeting-manager, switch"),
        "{told}"
    );
}

#[test]
fn variable_with_one_underscore_too_few_is_told_how_to_write_it() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let path = file(directory.path(), "[switch]\n");
    for (variable, meant) in [
        ("ROSTRUM_REGISTRAR_DOMAIN", "ROSTRUM_REGISTRAR__DOMAIN"),
        (
            "ROSTRUM_MEETING_MANAGER_SESSION_MIN",
            "ROSTRUM_MEETING_MANAGER__SESSION_MIN",
        ),
        ("ROSTRUM_LOG_FORMAT", "ROSTRUM_LOG__FORMAT"),
        (
            "ROSTRUM_REGISTRAR_LIMITS_HTTP_CONNECTIONS",
            "ROSTRUM_REGISTRAR__LIMITS__HTTP_CONNECTIONS",
        ),
    ] {
        let checked = run(check(&path).env(variable, "1"));
        let told = errors(&checked);
        assert_eq!(checked.status.code(), Some(1), "{variable}");
        assert!(told.contains(&format!("variable {variable}:")), "{told}");
        assert!(told.contains(&format!("write {meant},")), "{told}");
    }
    // An orchestrator sets such for every service, whose name may be ours.
    let checked = run(check(&path)
        .env("ROSTRUM_REGISTRAR_PORT", "tcp://10.0.0.1:5060")
        .env("ROSTRUM_DATA", "elsewhere"));
    assert!(checked.status.success(), "{}", errors(&checked));
    let told = errors(&checked);
    assert!(
        told.contains("ROSTRUM_REGISTRAR_PORT names no setting"),
        "{told}"
    );
    assert!(!told.contains("ROSTRUM_DATA"), "{told}");
}

#[test]
fn a_file_that_is_not_there_is_told_with_the_command_that_writes_one() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let checked = run(&mut check(&directory.path().join("none.toml")));
    assert_eq!(checked.status.code(), Some(1));
    assert!(errors(&checked).contains("rostrum config default"));
}

#[test]
fn an_environment_variable_overrides_the_file_and_is_named_in_its_error() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    // a clash that only the override resolves, so that passing proves it was read
    let path = file(
        directory.path(),
        "[admin]\nlisten = \"127.0.0.1:7070\"\n[switch]\ncontrol = \"127.0.0.1:7070\"\n",
    );
    let variable = "ROSTRUM_SWITCH__CONTROL";
    let good = run(check(&path).env(variable, "127.0.0.1:7071"));
    assert!(good.status.success(), "{}", errors(&good));
    let bad = run(check(&path).env(variable, "nowhere"));
    assert_eq!(bad.status.code(), Some(1));
    assert!(errors(&bad).contains(variable), "{}", errors(&bad));
}

#[test]
fn a_variable_may_be_written_as_people_write_it() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let path = file(directory.path(), "[registrar]\ndomain = \"example.org\"\n");
    let good = run(check(&path)
        .env("ROSTRUM_STORE__USER", "rostrum")
        .env("ROSTRUM_STORE__PASSWORD", "12345")
        .env("ROSTRUM_REGISTRAR__REALM", "2024")
        .env("ROSTRUM_REGISTRAR__UDP", "0.0.0.0:5080")
        .env("ROSTRUM_REGISTRAR__TCP", "127.0.0.1:5080, [::1]:5080")
        .env("ROSTRUM_SWITCH__PLAIN_PORTS", "[21000, 21999]"));
    assert!(good.status.success(), "{}", errors(&good));
    // the file has a line for it, but the file is not wrong
    let bad = run(check(&path).env("ROSTRUM_REGISTRAR__DOMAIN", "a b"));
    let told = errors(&bad);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        told.contains("variable ROSTRUM_REGISTRAR__DOMAIN:"),
        "{told}"
    );
    assert!(!told.contains("rostrum.toml"), "{told}");
}

fn user(arguments: &[&str], users: &Path) -> Output {
    let file = users.to_str().expect("UTF-8 path");
    let mut command = rostrum(&["user"]);
    run(command
        .args(arguments)
        .args(["--file", file, "--realm", "rostrum"]))
}

#[test]
fn users_are_added_listed_and_removed() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let users = directory.path().join("users.toml");
    let added = user(
        &[
            "add",
            "erin",
            "--password",
            "secret",
            "--display",
            "Erin E.",
        ],
        &users,
    );
    assert!(added.status.success(), "{}", errors(&added));
    let text = std::fs::read_to_string(&users).expect("a file");
    assert!(!text.contains("secret"), "a password in {text}");
    let listed = user(&["list"], &users);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "erin\tErin E.\n");
    assert!(user(&["remove", "erin"], &users).status.success());
    assert!(user(&["list"], &users).stdout.is_empty());
    let unknown = user(&["remove", "erin"], &users);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(errors(&unknown).contains("no user \"erin\""));
}

#[test]
fn users_file_alone_is_enough_to_list_remove_and_add_to_what_is_in_it() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let users = directory.path().join("users.toml");
    let path = users.to_str().expect("UTF-8 path");
    let bare = |arguments: &[&str]| run(rostrum(&["user"]).args(arguments).args(["--file", path]));
    let first = bare(&["add", "erin", "--password", "secret"]);
    assert_eq!(first.status.code(), Some(1));
    assert!(
        errors(&first).contains("give --realm"),
        "{}",
        errors(&first)
    );
    assert!(
        user(&["add", "erin", "--password", "secret"], &users)
            .status
            .success()
    );
    let second = bare(&["add", "frank", "--password", "secret"]);
    assert!(second.status.success(), "{}", errors(&second));
    let listed = bare(&["list"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "erin\t\nfrank\t\n");
    assert!(bare(&["remove", "frank"]).status.success());
    let wrong = bare(&[
        "add",
        "gina",
        "--password",
        "secret",
        "--realm",
        "example.org",
    ]);
    assert_eq!(wrong.status.code(), Some(1));
    let told = errors(&wrong);
    assert!(
        told.contains("users.toml:1: ") && told.contains("\"rostrum\""),
        "{told}"
    );
}

#[test]
fn configuration_says_where_users_are_and_for_which_realm() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let users = directory.path().join("staff.toml");
    let text = format!("[registrar]\ndomain = \"example.org\"\nusers = {users:?}\n");
    let config = file(directory.path(), &text);
    let config = config.to_str().expect("UTF-8 path");
    let by = |arguments: &[&str]| {
        run(rostrum(&["user"])
            .args(arguments)
            .args(["--config", config]))
    };
    let added = by(&["add", "erin", "--password", "secret"]);
    assert!(added.status.success(), "{}", errors(&added));
    let text = std::fs::read_to_string(&users).expect("a file");
    assert!(text.starts_with("realm = \"example.org\"\n"), "{text}");
    assert_eq!(String::from_utf8_lossy(&by(&["list"]).stdout), "erin\t\n");
    assert!(by(&["remove", "erin"]).status.success());
    let nowhere = run(&mut rostrum(&[
        "user",
        "list",
        "--config",
        "/nowhere/rostrum.toml",
    ]));
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(errors(&nowhere).contains("/nowhere/rostrum.toml"));
}

#[test]
fn names_that_cannot_stand_in_an_address_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let users = directory.path().join("users.toml");
    for name in ["", "two words", "a:b", "a@b", "guest-1", "x\ny"] {
        let added = user(&["add", name, "--password", "secret"], &users);
        assert_eq!(added.status.code(), Some(1), "{name:?}");
        assert!(errors(&added).contains("cannot be a user name"), "{name:?}");
    }
    let empty = user(&["add", "erin", "--password", ""], &users);
    assert_eq!(empty.status.code(), Some(1));
    assert!(!users.exists());
}

#[test]
fn a_running_registrar_notices_users_that_come_and_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lab = Lab::start_in(folder, &["--log", "info"]);
    let users = lab.directory.path().join("data/users.toml");
    let read = |times: usize| {
        eventually("the users' file to be read", || {
            lab.log().matches("users' file read").count() >= times
        });
    };
    let register = || {
        let mut phone = Phone::udp(lab.sip("udp"), lab.domain(), ("erin", "secret"));
        status(&phone.register(60))
    };
    assert_ne!(register(), 200);
    assert!(
        user(&["add", "erin", "--password", "secret"], &users)
            .status
            .success()
    );
    read(1);
    assert_eq!(register(), 200);
    assert!(user(&["remove", "erin"], &users).status.success());
    read(2);
    assert_ne!(register(), 200);
}

#[test]
fn certificates_of_others_are_told_with_the_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let init = |name: &str, members: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
        command.args(["cluster", "init", "--folder"]);
        let made = run(command.arg(folder.path().join(name)).args(members));
        assert!(made.status.success(), "{}", errors(&made));
    };
    init("ours", &["a=127.0.0.1", "b"]);
    init("theirs", &["a=127.0.0.1"]);
    let checked = |ca: &str, cert: &str, key: &str, id: &str| {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "[cluster]\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n\
             [meeting_manager]\nid = \"{id}\"\n[switch]\nid = \"{id}\"\ncontrol = \"0.0.0.0:7070\"\n",
            path(ca),
            path(cert),
            path(key)
        );
        let told = run(&mut check(&file(folder.path(), &text)));
        (told.status.success(), errors(&told))
    };
    let (ca, cert, key) = ("ours/ca.pem", "ours/a.pem", "ours/a.key");
    let (good, told) = checked(ca, cert, key, "a");
    assert!(good, "{told}");
    for (ca, cert, key, id, line, what) in [
        ("theirs/ca.pem", cert, key, "a", 3, "others accept"),
        (ca, cert, "ours/b.key", "a", 3, "not usable together"),
        (ca, cert, cert, "a", 4, "no private key"),
        (ca, cert, key, "b", 6, "not that of meeting manager \"b\""),
        (ca, cert, key, "b", 8, "not that of switch \"b\""),
    ] {
        let (good, told) = checked(ca, cert, key, id);
        assert!(!good, "{what}");
        assert!(
            told.contains(&format!(":{line}: ")) && told.contains(what),
            "{told}"
        );
    }
    // nothing is written over
    let mut again = Command::new(env!("CARGO_BIN_EXE_rostrum"));
    again.args(["cluster", "init", "--folder"]);
    let told = run(again.arg(folder.path().join("ours")).arg("c"));
    assert!(!told.status.success() && errors(&told).contains("--add"));
    assert!(!folder.path().join("ours/c.pem").exists());
    let mode = std::fs::metadata(folder.path().join("ours/ca.key")).expect("there");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
}
