//! `rostrum lab` as a child process, for tests that talk to it over real sockets.

#![allow(dead_code)] // each test file uses its part

pub mod cluster;
pub mod phone;
pub mod sipp;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running lab on loopback, ended when dropped.
pub struct Lab {
    child: Child,
    /// What `--json` printed.
    pub info: Value,
    /// Its data, and room for the test's own files.
    pub directory: tempfile::TempDir,
}

impl Lab {
    /// Starts it on free ports and waits until it says where everything is.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), &[])
    }

    /// The same with more arguments, going on with what a folder holds.
    pub fn start_in(directory: tempfile::TempDir, more: &[&str]) -> Self {
        Self::start_on("127.0.0.1", directory, more)
    }

    /// The same on another address of this machine.
    pub fn start_on(host: &str, directory: tempfile::TempDir, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
        command.args(["lab", "--host", host]).args(more);
        Self::run(command, directory)
    }

    /// The same with environment variables.
    pub fn start_with(directory: tempfile::TempDir, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rostrum"));
        command.args(["lab", "--host", "127.0.0.1"]);
        command.envs(variables.iter().copied());
        Self::run(command, directory)
    }

    /// Without `--host`, on a machine of two cards: loopback, and one with an address of each family.
    pub fn start_in_namespace(directory: tempfile::TempDir) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/e2e/namespace.sh");
        let mut command = Command::new(script);
        command.args([env!("CARGO_BIN_EXE_rostrum"), "lab"]);
        Self::run(command, directory)
    }

    fn run(mut command: Command, directory: tempfile::TempDir) -> Self {
        let mut child = command
            .args(["--port-base", "0", "--json", "--data"])
            .arg(directory.path().join("data"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(directory.path().join("log")).expect("a log file"))
            .spawn()
            .expect("rostrum starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        let log = || std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        let info =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line:?}\n{}", log()));
        Self {
            child,
            info,
            directory,
        }
    }

    /// A SIP address by transport: `udp`, `tcp`, `tls`, `ws`, `wss`.
    pub fn sip(&self, transport: &str) -> SocketAddr {
        self.info["sip"][transport]
            .as_str()
            .expect("an address")
            .parse()
            .expect("host:port")
    }

    /// The SIP domain.
    pub fn domain(&self) -> &str {
        self.info["domain"].as_str().expect("a domain")
    }

    /// User name and password of the n-th account.
    pub fn account(&self, n: usize) -> (&str, &str) {
        let account = &self.info["accounts"][n];
        (
            account["user"].as_str().expect("a user"),
            account["password"].as_str().expect("a password"),
        )
    }

    /// User part of the n-th meeting's URI.
    pub fn meeting(&self, n: usize) -> &str {
        let uri = self.info["meetings"][n].as_str().expect("a URI");
        uri.trim_start_matches("sip:")
            .split('@')
            .next()
            .expect("a user part")
    }

    /// A path of the operator's API, as JSON.
    pub fn api(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.info["api"].as_str().expect("a URL"));
        serde_json::from_str(&get(&url)).expect("JSON")
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        get(self.info["metrics"].as_str().expect("a URL"))
    }

    /// Waits until `check` holds of the API's `/counts`.
    pub fn await_counts(&self, check: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        loop {
            let counts = self.api("/counts");
            if check(&counts) {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "still {counts}");
            std::thread::yield_now();
        }
    }

    /// Still running, and no panic in its log.
    pub fn assert_healthy(&mut self) {
        assert!(
            self.child.try_wait().expect("a child").is_none(),
            "rostrum ended:\n{}",
            self.log()
        );
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Ctrl-C; the exit code, and the folder for another start.
    pub fn stop(self) -> (Option<i32>, tempfile::TempDir) {
        self.interrupt();
        self.ended()
    }

    /// Waits for its end; the exit code, and the folder for another start.
    pub fn ended(mut self) -> (Option<i32>, tempfile::TempDir) {
        let code = exit_code(&mut self.child);
        let directory = std::mem::replace(
            &mut self.directory,
            tempfile::tempdir().expect("a temporary folder"),
        );
        (code, directory)
    }

    /// Sends a signal by `kill`'s name of it.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Sends SIGINT.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }
}

/// Sends a signal to a child.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success());
}

/// How it ended, which must be within a few seconds; `None`: by a signal.
pub fn exit_code(child: &mut Child) -> Option<i32> {
    let mut code = None;
    eventually("the process to end", || {
        let status = child.try_wait().expect("a child");
        code = status.and_then(|s| s.code());
        status.is_some()
    });
    code
}

/// Waits until `check` holds; fails after some seconds.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !check() {
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "waited for {what}"
        );
        // polled: the other end is a process that does not call back
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of rostrum lab\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// HTTP GET of a plain `http://host:port/path`; the body of a 200.
pub fn get(url: &str) -> String {
    let (status, body) = http("GET", url, "");
    assert_eq!(status, 200, "{url}: {body}");
    body
}

/// One HTTP request; status and body of the answer.
pub fn http(method: &str, url: &str, body: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").expect("a plain URL");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).expect("connects");
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// A folder of shared test data; `None`, said plainly, where there is none outside CI.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("ROSTRUM_SHARED").map_or(beside, PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is missing",
        path.display()
    );
    eprintln!("skipped: {} is not there", path.display());
    None
}
