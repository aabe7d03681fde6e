//! A registrar with real sockets on loopback, hand-made user agents, and the embedded store.
#![allow(dead_code)] // every test file uses a part of it

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{EmbeddedConfig, Op, Store, StoreConfig, Txn};
use futures_util::{SinkExt as _, StreamExt as _};
use registrar::{Config, Meeting, Registrar, users};
use sip::frame::{Frame, Framer};
use sip::{HeaderName, Limits, Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

pub const DOMAIN: &str = "example.org";
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Writes a record as another role would.
pub async fn put(store: &dyn Store, key: &str, value: impl serde::Serialize) {
    let value = serde_json::to_vec(&value).expect("serialises");
    let txn = Txn {
        compares: Vec::new(),
        ops: vec![Op::Put(key.to_owned(), value.into(), None)],
    };
    store.txn(txn).await.expect("written");
}

// ---- a registrar

pub struct Site {
    pub registrar: Registrar,
    pub store: Arc<dyn Store>,
    pub directory: tempfile::TempDir,
}

pub fn config(directory: &Path) -> Config {
    let free: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().expect("address")];
    Config {
        domain: DOMAIN.into(),
        udp: free.clone(),
        tcp: free.clone(),
        tls: free.clone(),
        http: free.clone(),
        https: free,
        data: directory.join("data"),
        users: directory.join("users.toml"),
        meetings: vec![
            Meeting {
                id: "lobby".into(),
                title: "The lobby".into(),
                guests: true,
            },
            Meeting {
                id: "board".into(),
                title: String::new(),
                guests: false,
            },
        ],
        ..Config::default()
    }
}

impl Site {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: fn(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = config(directory.path());
        change(&mut config);
        for name in ["alice", "bob"] {
            users::add(&config.users, config.realm(), name, "secret", "").expect("added");
        }
        let engine = StoreConfig::Embedded(EmbeddedConfig {
            path: directory.path().join("store"),
        });
        let store = cluster::open(&engine).await.expect("opens");
        let registrar = start(&directory, &store, change).await;
        Self {
            registrar,
            store,
            directory,
        }
    }

    /// Stops the registrar and starts another one on the same store and ports' kinds.
    pub async fn restart(self) -> Self {
        let Self {
            registrar,
            store,
            directory,
        } = self;
        registrar.shutdown().await;
        let registrar = start(&directory, &store, |_| {}).await;
        Self {
            registrar,
            store,
            directory,
        }
    }
}

async fn start(
    directory: &tempfile::TempDir,
    store: &Arc<dyn Store>,
    change: fn(&mut Config),
) -> Registrar {
    let mut config = config(directory.path());
    change(&mut config);
    let web = axum::Router::new().fallback(async || "the page");
    Registrar::start(config, Arc::clone(store), web)
        .await
        .expect("starts")
}

// ---- user agents

enum Wire {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>, Framer),
    WebSocket(Box<WebSocketStream<TcpStream>>),
}

pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

/// A user agent that the test moves by hand.
pub struct Ua {
    wire: Wire,
    pub user: String,
    pub password: String,
    pub local: SocketAddr,
    via: &'static str,
    cseq: u32,
}

impl Ua {
    pub async fn udp(user: &str, registrar: SocketAddr) -> Self {
        let any = if registrar.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).await.expect("a port");
        socket.connect(registrar).await.expect("this machine");
        let local = socket.local_addr().expect("bound");
        Self::new(user, Wire::Udp(socket), local, "UDP")
    }

    pub async fn tcp(user: &str, registrar: SocketAddr) -> Self {
        let stream = TcpStream::connect(registrar).await.expect("listens");
        let local = stream.local_addr().expect("connected");
        let wire = Wire::Stream(Box::new(stream), Framer::new(Limits::default()));
        Self::new(user, wire, local, "TCP")
    }

    pub fn tls(user: &str, stream: impl Stream + 'static, local: SocketAddr) -> Self {
        let wire = Wire::Stream(Box::new(stream), Framer::new(Limits::default()));
        Self::new(user, wire, local, "TLS")
    }

    pub fn websocket(user: &str, socket: WebSocketStream<TcpStream>) -> Self {
        let local = socket.get_ref().local_addr().expect("connected");
        Self::new(user, Wire::WebSocket(Box::new(socket)), local, "WS")
    }

    fn new(user: &str, wire: Wire, local: SocketAddr, via: &'static str) -> Self {
        Self {
            wire,
            user: user.into(),
            password: "secret".into(),
            local,
            via,
            cseq: 0,
        }
    }

    pub async fn send(&mut self, message: &Message) {
        let bytes = message.to_bytes();
        match &mut self.wire {
            Wire::Udp(socket) => {
                socket.send(&bytes).await.expect("sent");
            }
            Wire::Stream(stream, _) => {
                stream.write_all(&bytes).await.expect("sent");
                stream.flush().await.expect("sent");
            }
            Wire::WebSocket(socket) => {
                let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
                socket
                    .send(tungstenite::Message::text(text))
                    .await
                    .expect("sent");
            }
        }
    }

    pub async fn receive(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.next())
            .await
            .unwrap_or_else(|_| panic!("nothing came for {}", self.user))
    }

    async fn next(&mut self) -> Message {
        loop {
            let bytes = match &mut self.wire {
                Wire::Udp(socket) => {
                    let mut buffer = vec![0; 65_536];
                    let n = socket.recv(&mut buffer).await.expect("received");
                    buffer.truncate(n);
                    Bytes::from(buffer)
                }
                Wire::Stream(stream, framer) => match framer.next_frame().expect("SIP") {
                    Some(Frame::Message(bytes)) => bytes,
                    Some(_) => continue,
                    None => {
                        let mut buffer = vec![0; 65_536];
                        let n = stream.read(&mut buffer).await.expect("received");
                        assert!(n > 0, "connection closed");
                        framer.push(&buffer[..n]);
                        continue;
                    }
                },
                Wire::WebSocket(socket) => {
                    match socket.next().await.expect("open").expect("received") {
                        tungstenite::Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
                        tungstenite::Message::Binary(bytes) => bytes,
                        _ => continue,
                    }
                }
            };
            return Message::parse(bytes, &Limits::default()).expect("SIP");
        }
    }

    /// The next response that is not 100.
    pub async fn response(&mut self, status: u16) -> Message {
        loop {
            let message = self.receive().await;
            match message.status().map(|s| s.get()) {
                Some(100) => {}
                got => {
                    let text = String::from_utf8_lossy(&message.to_bytes()).into_owned();
                    assert_eq!(got, Some(status), "{text}");
                    return message;
                }
            }
        }
    }

    /// The next request, which must have that method.
    pub async fn request(&mut self, method: &str) -> Message {
        let message = self.receive().await;
        let text = String::from_utf8_lossy(&message.to_bytes()).into_owned();
        assert!(message.is_request(), "{text}");
        assert_eq!(message.method().as_str(), method, "{text}");
        message
    }

    pub fn build(
        &mut self,
        method: &str,
        uri: &str,
        to: &str,
        call_id: &str,
        extra: &str,
    ) -> Message {
        self.cseq += 1;
        let text = format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/{} {};branch=z9hG4bK{}x{};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:{}@{DOMAIN}>;tag=t{}\r\n\
             To: {to}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {} {method}\r\n\
             Contact: <sip:{}@{};transport={}>\r\n\
             {extra}Content-Length: 0\r\n\r\n",
            self.via,
            self.local,
            self.user,
            self.cseq,
            self.user,
            self.local.port(),
            self.cseq,
            self.user,
            self.local,
            self.via.to_ascii_lowercase(),
        );
        Message::parse(Bytes::from(text), &Limits::default()).expect("SIP")
    }

    /// Sends a request and answers its challenge.
    pub async fn authenticated(
        &mut self,
        method: &str,
        uri: &str,
        to: &str,
        call_id: &str,
    ) -> Message {
        let first = self.build(method, uri, to, call_id, "");
        self.send(&first).await;
        let (status, ask, answer) = if method == "REGISTER" {
            (401, HeaderName::WwwAuthenticate, HeaderName::Authorization)
        } else {
            (
                407,
                HeaderName::ProxyAuthenticate,
                HeaderName::ProxyAuthorization,
            )
        };
        let challenge = self.response(status).await;
        let value = challenge.header(ask).expect("a challenge").to_owned();
        if method == "INVITE" {
            let mut ack = first.clone();
            ack = Message::parse(
                Bytes::from(
                    String::from_utf8_lossy(&ack.to_bytes())
                        .replacen("INVITE ", "ACK ", 1)
                        .replacen(" INVITE\r\n", " ACK\r\n", 1),
                ),
                &Limits::default(),
            )
            .expect("SIP");
            ack.set(
                HeaderName::To,
                challenge.header(HeaderName::To).expect("To"),
            );
            self.send(&ack).await;
        }
        let mut again = self.build(method, uri, to, call_id, "");
        let cnonce = format!("{}-{}", self.local.port(), self.cseq);
        let credentials =
            sip::digest::authorize(&value, &self.user, &self.password, method, uri, &cnonce, 1)
                .expect("answerable");
        again.push_back(answer, credentials);
        self.send(&again).await;
        again
    }

    /// Registers; the 200.
    pub async fn register(&mut self) -> Message {
        let aor = format!("<sip:{}@{DOMAIN}>", self.user);
        let call_id = format!("reg-{}-{}", self.user, self.local.port());
        self.authenticated("REGISTER", &format!("sip:{DOMAIN}"), &aor, &call_id)
            .await;
        self.response(200).await
    }

    /// Answers a request with a status, as the one who was called.
    pub async fn answer(&mut self, request: &Message, status: u16) {
        let mut response =
            Message::response(request, sip::StatusCode::of(status), None, Some("callee"));
        for value in request.headers(HeaderName::RecordRoute) {
            response.push_back(HeaderName::RecordRoute, value);
        }
        let contact = format!(
            "<sip:{}@{};transport={}>",
            self.user,
            self.local,
            self.via.to_ascii_lowercase()
        );
        response.push_back(HeaderName::Contact, contact);
        self.send(&response).await;
    }
}

/// Route lines of the caller for the dialog a response made, and the target.
pub fn dialog(response: &Message) -> (String, String, String) {
    let mut routes: Vec<&str> = response.values(HeaderName::RecordRoute).collect();
    routes.reverse();
    let target = response.contacts().expect("a Contact")[0].uri.to_string();
    let to = response.header(HeaderName::To).expect("To").to_owned();
    (format!("Route: {}\r\n", routes.join(", ")), target, to)
}

// ---- HTTP by hand

/// Sends a request as it is written and reads the answer until the connection closes: (head, body).
pub async fn http(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .expect("an answer in time")
        .expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}
