//! rtpengine in userspace, told what to do by its ng protocol.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use switch_core::srtp::Profile;

use crate::bencode::Value;
use crate::fanout::{Fanout, Listeners, Speaker, bind};
use crate::process::Process;
use crate::{Case, Result};

/// How long it may take to begin, and to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often its control port may be taken by somebody else between our choice and its start.
const ATTEMPTS: usize = 3;

/// Entries of a request.
type Entries<'a> = Vec<(&'a str, Value)>;

/// The process and the way to it.
struct Rtpengine {
    process: Process,
    /// Where its streams are.
    address: Ipv4Addr,
    control: UdpSocket,
    cookie: u32,
}

impl Rtpengine {
    fn start() -> Result<Self> {
        let mut reason = None;
        for _ in 0..ATTEMPTS {
            match Self::start_once() {
                Ok(started) => return Ok(started),
                Err(error) => reason = Some(error),
            }
        }
        Err(reason.expect("at least one attempt"))
    }

    fn start_once() -> Result<Self> {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        // It binds its ports so that another one may bind the same: each has an address of its own.
        let [high, low] = port.to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        let arguments = [
            "--config-file=none".to_owned(),
            "--foreground".to_owned(),
            "--log-stderr".to_owned(),
            "--log-level=4".to_owned(), // warnings
            "--table=-1".to_owned(),    // no kernel module
            format!("--interface={address}"),
            format!("--listen-ng=127.0.0.1:{port}"),
        ];
        let process = Process::start("rtpengine", &arguments, tempfile::tempdir()?)?;
        let control = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        control.connect((Ipv4Addr::LOCALHOST, port))?;
        control.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut started = Self {
            process,
            address,
            control,
            cookie: 0,
        };
        let pong = started.request("ping", Vec::new())?;
        match pong.text("result") {
            Some("pong") => Ok(started),
            _ => Err(format!("rtpengine answers a ping with {pong:?}").into()),
        }
    }

    /// Asks until it answers: its port may not be open yet, and a repeated cookie gets the same answer.
    fn request(&mut self, command: &str, entries: Entries<'_>) -> Result<Value> {
        self.cookie += 1;
        let cookie = format!("{} ", self.cookie);
        let mut message = cookie.clone().into_bytes();
        let command_entry = ("command".to_owned(), command.into());
        let entries = entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        let entries = std::iter::once(command_entry).chain(entries).collect();
        Value::Dictionary(entries).encode(&mut message);
        let start = Instant::now();
        let mut buffer = vec![0; 65_536];
        while start.elapsed() < PATIENCE {
            if let Some(ended) = self.process.ended() {
                return Err(ended.into());
            }
            let answer = self
                .control
                .send(&message)
                .and_then(|_| self.control.recv(&mut buffer));
            let Ok(len) = answer else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            let Some(mut rest) = buffer[..len].strip_prefix(cookie.as_bytes()) else {
                continue; // a repeated answer to another
            };
            let answer = Value::decode(&mut rest).ok_or("an answer that is not bencoded")?;
            if answer.text("result") == Some("error") {
                let why = answer.text("error-reason").unwrap_or("no reason given");
                return Err(format!("rtpengine refuses {command}: {why}").into());
            }
            return Ok(answer);
        }
        Err(format!(
            "rtpengine does not answer {command}: {}",
            self.process.log()
        )
        .into())
    }
}

/// A suite's name in SDP.
fn suite(profile: Profile) -> &'static str {
    match profile {
        Profile::AeadAes128Gcm => "AEAD_AES_128_GCM",
        _ => "AES_CM_128_HMAC_SHA1_80",
    }
}

/// A description of one audio stream, with a line of SDES or without.
fn description(port: u16, direction: &str, crypto: Option<&str>) -> Value {
    let profile = if crypto.is_some() {
        "RTP/SAVP"
    } else {
        "RTP/AVP"
    };
    let mut lines = vec![
        "v=0".to_owned(),
        "o=- 1 1 IN IP4 127.0.0.1".to_owned(),
        "s=-".to_owned(),
        "c=IN IP4 127.0.0.1".to_owned(),
        "t=0 0".to_owned(),
        format!("m=audio {port} {profile} 0"),
        "a=rtpmap:0 PCMU/8000".to_owned(),
        format!("a={direction}"),
    ];
    lines.extend(crypto.map(str::to_owned));
    lines.push(String::new());
    Value::Text(lines.join("\r\n"))
}

/// The port of the stream in a description it made.
fn port(answer: &Value) -> Result<u16> {
    let sdp = answer.text("sdp").ok_or("no description in the answer")?;
    let media = sdp.lines().find_map(|line| line.strip_prefix("m=audio "));
    let port = media.and_then(|media| media.split(' ').next()?.parse().ok());
    Ok(port.ok_or("no stream in the description")?)
}

/// What to ask for towards a listener.
fn towards_listener(case: Case) -> Entries<'static> {
    let mut entries = vec![("ICE", "remove".into())];
    if case.suite.is_some() {
        entries.push(("transport protocol", "RTP/SAVP".into()));
        entries.push(("DTLS", "off".into()));
    }
    entries
}

/// The key a listener is sent with, and the line of SDES it accepts with, from the description it was offered.
fn accept(case: Case, offer: &Value) -> Result<Option<(Vec<u8>, String)>> {
    let Some(profile) = case.profile() else {
        return Ok(None);
    };
    let sdp = offer.text("sdp").ok_or("no description in the answer")?;
    let (tag, key) = sdp
        .lines()
        .find_map(|line| {
            let (tag, rest) = line.strip_prefix("a=crypto:")?.split_once(' ')?;
            let key = rest
                .strip_prefix(suite(profile))?
                .strip_prefix(" inline:")?;
            Some((tag, key.split(['|', ' ']).next()?))
        })
        .ok_or_else(|| format!("rtpengine does not offer {}", suite(profile)))?;
    let key = STANDARD_NO_PAD.decode(key.trim_end_matches('='))?;
    // The listener never sends: any key will do.
    let own = STANDARD_NO_PAD.encode(vec![1; key.len()]);
    let line = format!("a=crypto:{tag} {} inline:{own}", suite(profile));
    Ok(Some((key, line)))
}

/// Who speaks: at a port of its own, in clear.
async fn speaker() -> Result<(tokio::net::UdpSocket, u16)> {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// One who publishes, many who subscribe.
pub async fn subscribe(case: Case) -> Result<Fanout> {
    let mut rtpengine = Rtpengine::start()?;
    let (socket, own) = speaker().await?;
    let answer = rtpengine.request(
        "publish",
        vec![
            ("call-id", "bench".into()),
            ("from-tag", "speaker".into()),
            ("ICE", "remove".into()),
            ("sdp", description(own, "sendonly", None)),
        ],
    )?;
    let towards = vec![(rtpengine.address, port(&answer)?).into()];
    let mut listeners = Listeners::new();
    for (socket, port) in bind(case).await? {
        let mut request = towards_listener(case);
        request.push(("call-id", "bench".into()));
        request.push(("from-tags", Value::List(vec!["speaker".into()])));
        let offer = rtpengine.request("subscribe request", request)?;
        let accepted = accept(case, &offer)?;
        let line = accepted.as_ref().map(|(_, line)| line.as_str());
        let tag = offer.text("to-tag").ok_or("no tag for the subscription")?;
        rtpengine.request(
            "subscribe answer",
            vec![
                ("call-id", "bench".into()),
                ("to-tag", tag.into()),
                ("sdp", description(port, "recvonly", line)),
            ],
        )?;
        listeners.add(case, socket, accepted.as_ref().map(|(key, _)| &key[..]))?;
    }
    Ok(fanout(rtpengine, socket, towards, listeners))
}

/// As many calls as there are listeners, each relayed.
pub async fn calls(case: Case) -> Result<Fanout> {
    let mut rtpengine = Rtpengine::start()?;
    let (socket, own) = speaker().await?;
    let mut towards = Vec::new();
    let mut listeners = Listeners::new();
    for (number, (socket, listener)) in bind(case).await?.into_iter().enumerate() {
        let call = Value::Text(format!("bench-{number}"));
        let mut request = towards_listener(case);
        request.push(("call-id", call.clone()));
        request.push(("from-tag", "speaker".into()));
        request.push(("sdp", description(own, "sendrecv", None)));
        let offer = rtpengine.request("offer", request)?;
        let accepted = accept(case, &offer)?;
        let line = accepted.as_ref().map(|(_, line)| line.as_str());
        let answer = rtpengine.request(
            "answer",
            vec![
                ("ICE", "remove".into()),
                ("call-id", call),
                ("from-tag", "speaker".into()),
                ("to-tag", "listener".into()),
                ("sdp", description(listener, "sendrecv", line)),
            ],
        )?;
        towards.push((rtpengine.address, port(&answer)?).into());
        listeners.add(case, socket, accepted.as_ref().map(|(key, _)| &key[..]))?;
    }
    Ok(fanout(rtpengine, socket, towards, listeners))
}

fn fanout(
    rtpengine: Rtpengine,
    socket: tokio::net::UdpSocket,
    towards: Vec<std::net::SocketAddr>,
    listeners: Listeners,
) -> Fanout {
    let speaker = Speaker {
        socket,
        towards,
        sealer: None,
        sequence: 0,
    };
    Fanout::new(rtpengine.process, speaker, listeners)
}
