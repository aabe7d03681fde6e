//! Janus with its VideoRoom alone, told what to do over a socket in the file system.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde_json::{Value, json};

use crate::fanout::{Fanout, Listeners, bind};
use crate::process::Process;
use crate::publisher::Publisher;
use crate::{Case, Result};

/// How long it may take to begin, and to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is started: the thread that serves its socket ends at once, and with it Janus, where it begins before
/// the rest of its plugin is ready. On a busy machine that is one time in ten.
const ATTEMPTS: usize = 5;

const ROOM: u32 = 1;
const PUBLISHER: u32 = 7;

/// The process and the way to it.
struct Janus {
    process: Process,
    api: UnixDatagram,
    transactions: u32,
    /// Session and handle, once there are.
    session: Option<Value>,
    handle: Option<Value>,
}

impl Janus {
    fn start(address: Ipv4Addr) -> Result<Self> {
        let mut reason = None;
        for _ in 0..ATTEMPTS {
            match Self::start_once(address) {
                Ok(started) => return Ok(started),
                Err(error) => reason = Some(error),
            }
        }
        Err(reason.expect("at least one attempt"))
    }

    fn start_once(address: Ipv4Addr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path();
        // Janus loads whatever lies in these folders: what is not wanted does not.
        for (kind, library) in [
            ("plugins", "libjanus_videoroom.so"),
            ("transports", "libjanus_pfunix.so"),
        ] {
            std::fs::create_dir(path.join(kind))?;
            let installed = installed(kind, library)?;
            std::os::unix::fs::symlink(installed, path.join(kind).join(library))?;
        }
        std::fs::write(path.join("janus.jcfg"), configuration(path, address))?;
        std::fs::write(path.join("janus.plugin.videoroom.jcfg"), "general: {}\n")?;
        std::fs::write(path.join("janus.transport.pfunix.jcfg"), transport(path))?;
        let api = UnixDatagram::bind(path.join("bench"))?;
        api.set_read_timeout(Some(Duration::from_millis(200)))?;
        let arguments = [
            format!("--configs-folder={}", path.display()),
            format!("--config={}", path.join("janus.jcfg").display()),
        ];
        let mut process = Process::start("janus", &arguments, folder)?;
        let start = Instant::now();
        while api.connect(process.folder().join("api")).is_err() {
            if let Some(ended) = process.ended() {
                return Err(ended.into());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("janus opens no socket: {}", process.log()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut started = Self {
            process,
            api,
            transactions: 0,
            session: None,
            handle: None,
        };
        let session = started.request(json!({ "janus": "create" }))?;
        started.session = Some(session["data"]["id"].clone());
        Ok(started)
    }

    /// Asks, and waits for what is more than an acknowledgement.
    fn request(&mut self, mut request: Value) -> Result<Value> {
        self.transactions += 1;
        let transaction = self.transactions.to_string();
        request["transaction"] = json!(transaction);
        if let Some(session) = &self.session {
            request["session_id"] = session.clone();
        }
        if let Some(handle) = &self.handle {
            request["handle_id"] = handle.clone();
        }
        self.api.send(request.to_string().as_bytes())?;
        let mut buffer = vec![0; 65_536];
        let start = Instant::now();
        loop {
            let len = match self.api.recv(&mut buffer) {
                Ok(len) => len,
                Err(error) => {
                    if let Some(ended) = self.process.ended() {
                        return Err(ended.into());
                    }
                    if start.elapsed() > PATIENCE {
                        let log = self.process.log();
                        return Err(format!("janus does not answer, {error}: {log}").into());
                    }
                    continue;
                }
            };
            let answer: Value = serde_json::from_slice(&buffer[..len])?;
            if answer["transaction"] != json!(transaction) || answer["janus"] == "ack" {
                continue;
            }
            let error = [
                &answer["error"]["reason"],
                &answer["plugindata"]["data"]["error"],
            ];
            return match error.iter().find_map(|error| error.as_str()) {
                Some(error) => Err(format!("janus refuses: {error}").into()),
                None => Ok(answer),
            };
        }
    }

    /// Asks the VideoRoom.
    fn message(&mut self, body: Value) -> Result<Value> {
        self.request(json!({ "janus": "message", "body": body }))
    }
}

/// Where Debian, or who built it by hand, has put a library of Janus.
fn installed(kind: &str, library: &str) -> Result<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    libraries
        .map(|entry| entry.path())
        .chain(["/usr/lib", "/usr/local/lib", "/opt/janus/lib"].map(PathBuf::from))
        .map(|folder| folder.join("janus").join(kind).join(library))
        .find(|path| path.exists())
        .ok_or_else(|| format!("no {library}: scripts/setup peers installs janus").into())
}

/// Everything as it comes, but for where things are, logging of every step, and what would end a session or ask others.
fn configuration(folder: &Path, address: Ipv4Addr) -> String {
    let folder = folder.display();
    format!(
        r#"general: {{
  configs_folder = "{folder}"
  plugins_folder = "{folder}/plugins"
  transports_folder = "{folder}/transports"
  events_folder = "{folder}/events"
  loggers_folder = "{folder}/loggers"
  debug_level = 3
  debug_colors = false
  session_timeout = 0
}}
nat: {{
  ice_lite = true
  ice_enforce_list = "{address}"
}}
events: {{
  broadcast = false
}}
"#
    )
}

fn transport(folder: &Path) -> String {
    format!(
        r#"general: {{
  enabled = true
  json = "compact"
  path = "{}/api"
  type = "SOCK_DGRAM"
}}
admin: {{
  admin_enabled = false
}}
"#,
        folder.display()
    )
}

/// An address of this machine that Janus takes: it leaves out loopback, whatever it is told. What is sent to it stays
/// on this machine and goes through the loopback device all the same.
fn own_address() -> Result<Ipv4Addr> {
    getifaddrs()?
        .filter(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_UP)
                && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
        .find_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .ok_or_else(|| "janus takes no loopback address, and this machine has no other".into())
}

/// A listener's master key and salt, each its own.
fn key(case: Case, number: usize) -> Option<Vec<u8>> {
    let profile = case.profile()?;
    let mut key = vec![3; profile.key_len() + profile.salt_len()];
    key[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Some(key)
}

/// One who publishes, and RTP forwarders to all listeners.
pub async fn start(case: Case) -> Result<Fanout> {
    let address = own_address()?;
    let mut janus = Janus::start(address)?;
    let handle = janus.request(json!({
        "janus": "attach",
        "plugin": "janus.plugin.videoroom",
    }))?;
    janus.handle = Some(handle["data"]["id"].clone());
    janus.message(json!({ "request": "create", "room": ROOM, "audiocodec": "pcmu" }))?;
    janus.message(json!({
        "request": "join",
        "ptype": "publisher",
        "room": ROOM,
        "id": PUBLISHER,
    }))?;
    let publisher = Publisher::new(IpAddr::V4(address)).await?;
    let answer = janus.request(json!({
        "janus": "message",
        "body": { "request": "publish" },
        "jsep": { "type": "offer", "sdp": publisher.offer() },
    }))?;
    let answer = answer["jsep"]["sdp"]
        .as_str()
        .ok_or("no answer from janus")?;
    let speaker = publisher.connect(answer).await?;
    let mut listeners = Listeners::new();
    for (number, (socket, port)) in bind(case).await?.into_iter().enumerate() {
        let mut request = json!({
            "request": "rtp_forward",
            "room": ROOM,
            "publisher_id": PUBLISHER,
            "host": "127.0.0.1",
            "streams": [{ "mid": "0", "port": port }],
        });
        let key = key(case, number);
        if let Some(key) = &key {
            // Of the request, not of a stream, so that a key of one's own takes a request of one's own.
            request["srtp_suite"] = json!(80);
            request["srtp_crypto"] = json!(STANDARD.encode(key));
        }
        let answer = janus.message(request)?;
        let forwarders = &answer["plugindata"]["data"]["forwarders"];
        if forwarders.as_array().map(Vec::len) != Some(1) {
            return Err(format!("no forwarder was made: {answer}").into());
        }
        listeners.add(case, socket, key.as_deref())?;
    }
    Ok(Fanout::new(janus.process, speaker, listeners))
}
