//! HAProxy in front of two registrars, with the configuration that the guide shows.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::cluster::{Process, cluster, etcd, named_role};
use common::eventually;
use common::sipp::free_port;
use socket2::{Domain, Socket, Type};

/// What the guide shows is what runs here.
fn configuration() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/haproxy.cfg")
}

struct Registrar {
    process: Process,
    sip: SocketAddr,
    sips: SocketAddr,
}

struct Setup {
    registrars: Vec<Registrar>,
    front: SocketAddr,
    haproxy: Process,
    _etcd: Process,
    folder: tempfile::TempDir,
}

fn registrar(directory: &Path, client: &str, name: &str) -> Registrar {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (sip, sips) = (at(free_port()), at(free_port()));
    let text = format!(
        "[registrar]\nnode = \"{name}\"\ndomain = \"127.0.0.1\"\nrealm = \"test\"\nusers = \"{}\"\ndata = \"{}\"\n\
         udp = []\ntcp = [\"{sip}\"]\ntls = [\"{sips}\"]\nhttp = []\nhttps = []\nadvertise = [\"127.0.0.1\"]\n\
         proxy_protocol_from = [\"127.0.0.1/32\"]\n",
        directory.join("users.toml").display(),
        directory.join(name).display()
    );
    let (process, _) = named_role(directory, name, "registrar", client, &text);
    Registrar { process, sip, sips }
}

impl Setup {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let directory = folder.path();
        let (etcd, client) = etcd(directory);
        std::fs::write(directory.join("users.toml"), "").expect("writes");
        let registrars: Vec<Registrar> = ["r1", "r2"]
            .map(|name| registrar(directory, &client, name))
            .into();
        let front = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(configuration()).arg("-db");
        let own = SocketAddr::from(([127, 0, 0, 1], free_port()));
        for (name, value) in [
            ("SIP_BIND", front),
            ("SIPS_BIND", own),
            ("A_SIP", registrars[0].sip),
            ("B_SIP", registrars[1].sip),
            ("A_SIPS", registrars[0].sips),
            ("B_SIPS", registrars[1].sips),
        ] {
            command.env(name, value.to_string());
        }
        let haproxy = Process::start(command, &directory.join("haproxy.log"));
        let mut setup = Self {
            registrars,
            front,
            haproxy,
            _etcd: etcd,
            folder,
        };
        eventually("the balancer to let somebody through", || {
            setup.haproxy.assert_running();
            setup.new_are_served()
        });
        setup
    }

    /// Whoever comes now is served, several times running.
    fn new_are_served(&self) -> bool {
        (0..4).all(|_| {
            self.line(1)
                .is_some_and(|mut line| line.status() == Some(200))
        })
    }

    /// A connection through the balancer from 127.0.0.`host`, if it is answered.
    fn line(&self, host: u8) -> Option<Line> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let own = SocketAddr::from(([127, 0, 0, host], 0));
        socket.bind(&own.into()).expect("a loopback address");
        socket.connect(&self.front.into()).ok()?;
        let stream = TcpStream::from(socket);
        let own = stream.local_addr().ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(3)))
            .expect("a time-out");
        Some(Line { stream, own })
    }
}

struct Line {
    stream: TcpStream,
    own: SocketAddr,
}

impl Line {
    /// Asks whether somebody is there; the status.
    fn status(&mut self) -> Option<u16> {
        self.options()?
            .strip_prefix("SIP/2.0 ")?
            .get(..3)?
            .parse()
            .ok()
    }

    /// Asks whether somebody is there; the answer.
    fn options(&mut self) -> Option<String> {
        let text = format!(
            "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP {0};branch=z9hG4bK{1};rport\r\nMax-Forwards: 1\r\n\
             From: <sip:a@127.0.0.1>;tag=a\r\nTo: <sip:127.0.0.1>\r\nCall-ID: {1}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n",
            self.own,
            rand::random::<u64>()
        );
        self.stream.write_all(text.as_bytes()).ok()?;
        let mut room = [0; 4_096];
        let len = self.stream.read(&mut room).ok()?;
        Some(String::from_utf8_lossy(&room[..len]).into_owned())
    }
}

#[test]
fn clients_keep_their_address_and_new_ones_are_kept_from_who_drains_or_is_gone() {
    let mut setup = Setup::start();
    let mut line = setup.line(7).expect("connects");
    let answer = line.options().expect("is answered");
    assert_eq!(line.own.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7)));
    for part in ["received=127.0.0.7", &format!("rport={}", line.own.port())] {
        assert!(answer.contains(part), "{part} in {answer}");
    }

    // One drains: it answers whom it has, though it would send them elsewhere, and gets nobody new.
    let mut held: Vec<Line> = (0..8).filter_map(|_| setup.line(1)).collect();
    assert!(held.iter_mut().all(|line| line.status() == Some(200)));
    let config = setup.folder.path().join("r1.toml").display().to_string();
    cluster(&["drain", "registrar", "r1", "--config", &config]).expect("drains");
    let (mut old, mut others) = (Vec::new(), Vec::new());
    for mut line in held {
        match line.status() {
            Some(503) => old.push(line),
            _ => others.push(line),
        }
    }
    assert!(!old.is_empty() && !others.is_empty(), "both had some");
    eventually("the balancer to send nobody there", || {
        setup.new_are_served()
    });
    assert!(old.iter_mut().all(|line| line.status() == Some(503)));
    assert!(others.iter_mut().all(|line| line.status() == Some(200)));
    cluster(&["undrain", "registrar", "r1", "--config", &config]).expect("undrains");
    assert!(old.iter_mut().all(|line| line.status() == Some(200)));
    eventually("the balancer to come back to it", || {
        let mut new: Vec<Line> = (0..8).filter_map(|_| setup.line(1)).collect();
        new.len() == 8 && new.iter_mut().all(|line| line.status() == Some(200))
    });

    // The other is killed: whoever comes is served by the one that lives.
    setup.registrars[1].process.child.kill().expect("is killed");
    eventually("everybody new to be served", || setup.new_are_served());
    assert!(others.iter_mut().all(|line| line.status().is_none()));
    assert!(old.iter_mut().all(|line| line.status() == Some(200)));
}
