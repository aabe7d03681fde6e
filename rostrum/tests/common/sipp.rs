//! SIPp as a child process, with the scenarios beside it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Lab;

/// One SIPp with one scenario and one call.
pub struct Sipp {
    child: Child,
    name: String,
    log: PathBuf,
}

/// How SIPp reaches the registrar.
#[derive(Clone, Copy)]
pub struct Way {
    /// Where it listens.
    pub remote: SocketAddr,
    /// SIPp's `-t`: `u1` or `t1`.
    pub mode: &'static str,
}

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sipp")
        .join(format!("{name}.xml"))
}

/// A port that is free for UDP and TCP.
pub fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = udp.local_addr().expect("bound").port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Who calls.
pub struct Caller<'a> {
    /// Where logs go.
    pub directory: &'a Path,
    /// The SIP domain.
    pub domain: &'a str,
    /// User name and password.
    pub account: (&'a str, &'a str),
}

impl Caller<'_> {
    /// Starts a scenario, from this port.
    pub fn start(&self, name: &str, way: Way, port: u16, callee: &str) -> Sipp {
        let (user, password) = self.account;
        let log = self.directory.join(format!("{name}-{port}.log"));
        // the digest covers the Request-URI, which SIPp takes to be the remote address unless told
        let covered = match callee {
            "" => self.domain.to_owned(),
            callee => format!("{callee}@{}", self.domain),
        };
        let mut command = Command::new("sipp");
        command
            .arg(way.remote.to_string())
            .args(["-sf", scenario(name).to_str().expect("UTF-8 path")])
            .args([
                "-t",
                way.mode,
                "-i",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-m",
                "1",
                "-r",
                "1",
            ])
            .args([
                "-timeout",
                "20s",
                "-timeout_error",
                "-nostdin",
                "-trace_err",
                "-trace_msg",
            ])
            .args([
                "-error_file",
                &format!("{}.err", log.display()),
                "-message_file",
                &format!("{}.msg", log.display()),
            ])
            .args([
                "-key",
                "user",
                user,
                "-au",
                user,
                "-ap",
                password,
                "-auth_uri",
                &covered,
            ])
            .args(["-key", "domain", self.domain, "-key", "callee", callee])
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).expect("a log file"))
            .stderr(Stdio::null());
        Sipp {
            child: command
                .spawn()
                .expect("sipp is installed (scripts/setup test)"),
            name: name.to_owned(),
            log,
        }
    }
}

impl Sipp {
    /// With the n-th account of a lab.
    pub fn start(lab: &Lab, name: &str, way: Way, port: u16, account: usize, callee: &str) -> Self {
        let caller = Caller {
            directory: lab.directory.path(),
            domain: lab.domain(),
            account: lab.account(account),
        };
        caller.start(name, way, port, callee)
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self) {
        let status = self.child.wait().expect("a child");
        let read = |suffix: &str| {
            std::fs::read_to_string(format!("{}{suffix}", self.log.display())).unwrap_or_default()
        };
        assert!(
            status.success(),
            "sipp {} ended with {status}\n{}\n{}",
            self.name,
            read(".err"),
            read(".msg")
        );
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
