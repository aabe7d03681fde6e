//! A cluster of processes on this machine: etcd and the roles, each with its own file.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::sipp::free_port;
use super::{eventually, http};

/// A child process whose log is shown where a test fails, ended when dropped.
pub struct Process {
    pub child: Child,
    log: std::path::PathBuf,
}

impl Process {
    pub fn start(mut command: Command, log: &Path) -> Self {
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

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn assert_running(&mut self) {
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
pub fn etcd(directory: &Path) -> (Process, String) {
    etcd_with(directory, "http", &[])
}

/// The same with more arguments, such as those of TLS.
pub fn etcd_with(directory: &Path, scheme: &str, more: &[String]) -> (Process, String) {
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
pub fn role(directory: &Path, name: &str, client: &str, text: &str) -> (Process, String) {
    named_role(directory, name, name, client, text)
}

/// One of several processes of a role, with its own file; its admin URL.
pub fn named_role(
    directory: &Path,
    name: &str,
    role: &str,
    client: &str,
    text: &str,
) -> (Process, String) {
    let (process, admin) = begin_named(directory, name, role, client, text);
    until_ready(process, admin, name, 200)
}

/// Waits until its `/readyz` says so.
pub fn until_ready(
    mut process: Process,
    admin: String,
    name: &str,
    status: u16,
) -> (Process, String) {
    let address = admin.trim_start_matches("http://").to_owned();
    eventually(&format!("{name} to say {status}"), || {
        process.assert_running();
        std::net::TcpStream::connect(&address).is_ok()
            && http("GET", &format!("{admin}/readyz"), "").0 == status
    });
    (process, admin)
}

/// Starts a role with its own file.
pub fn begin(directory: &Path, name: &str, client: &str, text: &str) -> (Process, String) {
    begin_named(directory, name, name, client, text)
}

fn begin_named(
    directory: &Path,
    name: &str,
    role: &str,
    client: &str,
    text: &str,
) -> (Process, String) {
    let admin = format!("127.0.0.1:{}", free_port());
    let path = directory.join(format!("{name}.toml"));
    let config = format!(
        "[log]\nlevel = \"info\"\n[admin]\nlisten = \"{admin}\"\ndrain_seconds = 2\n[store]\nengine = \"etcd\"\nendpoints = [\"{client}\"]\n{text}"
    );
    std::fs::write(&path, config).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
    command.arg(role).arg("--config").arg(&path);
    let process = Process::start(command, &directory.join(format!("{name}.log")));
    (process, format!("http://{admin}"))
}

/// `rostrum cluster …`; what it printed, or its complaint.
pub fn cluster(arguments: &[&str]) -> Result<String, String> {
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
