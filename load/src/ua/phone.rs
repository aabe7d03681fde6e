//! The user agent with sockets: one task that drives an [`Agent`].

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip::message::Message;
use sip::transaction::ClientKey;
use sip::{Limits, Transport, Uri};
use tokio::sync::mpsc;
use transport::tls::{self, Trust};
use transport::{Input, Listen, Transports};

use super::account::Account;
use super::agent::Agent;
use super::call::Event;
use super::description::Description;
use super::home::Home;

/// Where the server is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct SipOptions {
    /// The meeting: whom all call.
    pub meeting: Uri,
    /// Outbound proxy, `host[:port]`; `None`: the meeting's host.
    pub proxy: Option<String>,
    /// Transport; `None`: as the meeting's URI says.
    pub transport: Option<Transport>,
    /// Our address; `None`: the one that leads to the server.
    pub bind: Option<IpAddr>,
    /// Whom TLS believes.
    pub trust: Trust,
}

/// Why there is no user agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhoneError {
    /// A name without an address.
    #[error("{host}: {source}; name the server's address with --proxy")]
    Unknown {
        /// Whom we looked for.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// Not `host[:port]`.
    #[error("{0}: not host or host:port")]
    BadHost(String),
    /// WebSocket, or something unknown.
    #[error("SIP over {0} is not what the load generator speaks: use udp, tcp or tls")]
    Transport(String),
    /// No address of ours leads there.
    #[error("no way to {server}: {source}")]
    NoRoute {
        /// Where to.
        server: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No socket.
    #[error("{0}")]
    Bind(#[from] transport::BindError),
    /// TLS cannot be had.
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
}

enum Command {
    Register(Account),
    Join(u32, Option<Account>, Box<Description>),
    Again(u32),
    Ask(u32),
    Leave(u32),
    /// Registrations are taken back, and the task ends.
    Close,
}

/// A handle to the task.
#[derive(Debug)]
pub struct Phone {
    commands: mpsc::UnboundedSender<Command>,
    home: Home,
    task: tokio::task::JoinHandle<()>,
}

/// How long unregistering may take.
const CLOSING: Duration = Duration::from_secs(3);
/// Which id in [`Transports::send`] stands for what belongs to no client transaction.
const NOBODY: u64 = u64::MAX;

impl Phone {
    /// Looks the server up, opens the socket and begins.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub async fn start(
        options: &SipOptions,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), PhoneError> {
        let home = home(options).await?;
        let mut sockets = transport::Options::default();
        if home.transport == Transport::Tls {
            sockets.client_tls = Some(tls::client_config(&options.trust)?);
        }
        let listen = Listen {
            // over TLS nobody but the server's own connection is listened to
            transport: match home.transport {
                Transport::Tls => Transport::Tcp,
                other => other,
            },
            address: home.local,
        };
        let (transports, input) = Transports::bind(&[listen], None, sockets)?;
        let mut home = home;
        if let Some(bound) = transports.local_addresses().first() {
            home.local = bound.address;
        }
        let mut seed = [0; 32];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut seed);
        let agent = Agent::new(home.clone(), Instant::now(), seed);
        let (commands, orders) = mpsc::unbounded_channel();
        let (told, events) = mpsc::unbounded_channel();
        let task = Task {
            agent,
            transports,
            input,
            orders,
            told,
        };
        let phone = Self {
            commands,
            home,
            task: tokio::spawn(task.run()),
        };
        Ok((phone, events))
    }

    /// Where the server is, and where we are.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Registers an account; [`Event::Registered`] or [`Event::NotRegistered`] follows.
    pub fn register(&self, account: Account) {
        self.order(Command::Register(account));
    }

    /// A participant joins; [`Event::Joined`] or [`Event::Refused`] follows.
    pub fn join(&self, participant: u32, account: Option<Account>, description: Description) {
        self.order(Command::Join(participant, account, Box::new(description)));
    }

    /// A participant who was refused knocks again.
    pub fn join_again(&self, participant: u32) {
        self.order(Command::Again(participant));
    }

    /// A participant asks for an answer within its call; [`Event::Answered`] follows.
    pub fn ask(&self, participant: u32) {
        self.order(Command::Ask(participant));
    }

    /// A participant leaves; [`Event::Left`] follows.
    pub fn leave(&self, participant: u32) {
        self.order(Command::Leave(participant));
    }

    /// Takes registrations back and closes the sockets.
    pub async fn close(self) {
        self.order(Command::Close);
        let _ = self.task.await;
    }

    fn order(&self, command: Command) {
        // fails only where the task is gone, which its user sees by the end of events
        let _ = self.commands.send(command);
    }
}

async fn home(options: &SipOptions) -> Result<Home, PhoneError> {
    let transport = match options.transport {
        Some(transport) => Some(transport),
        None => options.meeting.transport(),
    };
    let transport = match transport {
        Some(t @ (Transport::Udp | Transport::Tcp | Transport::Tls)) => t,
        other => {
            let asked = match other {
                Some(transport) => transport.uri_token(),
                None => options.meeting.param("transport").unwrap_or("this scheme"),
            };
            return Err(PhoneError::Transport(asked.to_owned()));
        }
    };
    let (host, port) = match &options.proxy {
        Some(proxy) => split(proxy).ok_or_else(|| PhoneError::BadHost(proxy.clone()))?,
        None => (options.meeting.host.clone(), options.meeting.port),
    };
    let port = port.unwrap_or(transport.default_port());
    let literal: Option<IpAddr> = host.parse().ok();
    let server = match literal {
        Some(ip) => SocketAddr::new(ip, port),
        None => lookup(&host, port).await?,
    };
    let own = match options.bind {
        Some(ip) => ip,
        None => towards(server).map_err(|source| PhoneError::NoRoute { server, source })?,
    };
    Ok(Home {
        meeting: options.meeting.clone(),
        server,
        transport,
        host: literal.is_none().then(|| Arc::from(host)),
        local: SocketAddr::new(own, 0),
    })
}

async fn lookup(host: &str, port: u16) -> Result<SocketAddr, PhoneError> {
    let unknown = |source| PhoneError::Unknown {
        host: host.to_owned(),
        source,
    };
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .map_err(unknown)?;
    found
        .next()
        .ok_or_else(|| unknown(io::Error::other("has no address")))
}

/// `host`, `host:port`, `[ipv6]:port` or a bare IPv6 address.
fn split(text: &str) -> Option<(String, Option<u16>)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip.to_string(), None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), Some(address.port())));
    }
    match text.split_once(':') {
        Some((host, port)) if !host.is_empty() => Some((host.to_owned(), port.parse().ok())),
        None if !text.is_empty() => Some((text.to_owned(), None)),
        _ => None,
    }
    .filter(|(_, port)| port.is_some() || !text.contains(':'))
}

/// Our address on the way to another; nothing is sent.
///
/// # Errors
/// There is no way.
pub fn towards(server: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

struct Task {
    agent: Agent,
    transports: Transports,
    input: mpsc::Receiver<Input>,
    orders: mpsc::UnboundedReceiver<Command>,
    told: mpsc::UnboundedSender<Event>,
}

impl Task {
    async fn run(mut self) {
        let mut closing: Option<Instant> = None;
        loop {
            self.flush();
            if let Some(end) = closing
                && (self.agent.is_settled() || Instant::now() >= end)
            {
                break;
            }
            let deadline = [self.agent.poll_timeout(), closing]
                .into_iter()
                .flatten()
                .min();
            let timeout = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                input = self.input.recv() => match input {
                    Some(input) => self.take_in(input),
                    None => break,
                },
                order = self.orders.recv(), if closing.is_none() => match order {
                    Some(Command::Close) | None => {
                        self.agent.unregister(Instant::now());
                        closing = Some(Instant::now() + CLOSING);
                    }
                    Some(order) => self.obey(order),
                },
                () = timeout => self.agent.handle_timeout(Instant::now()),
            }
        }
        self.transports.shutdown(Duration::from_millis(500)).await;
    }

    fn obey(&mut self, order: Command) {
        let now = Instant::now();
        match order {
            Command::Register(account) => self.agent.register(now, account),
            Command::Join(participant, account, description) => {
                self.agent.join(now, participant, account, *description);
            }
            Command::Again(participant) => self.agent.join_again(now, participant),
            Command::Ask(participant) => self.agent.ask(now, participant),
            Command::Leave(participant) => self.agent.leave(now, participant),
            Command::Close => {}
        }
    }

    fn take_in(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Message { hop, bytes } => match Message::parse(bytes, &Limits::default()) {
                Ok(message) => self.agent.handle_message(now, message, hop),
                Err(e) => tracing::debug!("{}: {e}", hop.remote),
            },
            Input::SendFailed { id, .. } if id != NOBODY => {
                self.agent.handle_transport_error(now, ClientKey(id));
            }
            Input::SendFailed { .. } | Input::FlowClosed(_) => {}
        }
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            let id = transmit.client.map_or(NOBODY, |key| key.0);
            match transmit.host {
                Some(host) => {
                    self.transports
                        .send_to_host(id, transmit.hop, &host, transmit.bytes);
                }
                None => self.transports.send(id, transmit.hop, transmit.bytes),
            }
        }
        while let Some(event) = self.agent.poll_event() {
            let _ = self.told.send(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_with_or_without_a_port() {
        let read = |text| split(text).map(|(host, port)| format!("{host} {port:?}"));
        assert_eq!(
            read("sip.example.org").as_deref(),
            Some("sip.example.org None")
        );
        assert_eq!(
            read("127.0.0.1:5080").as_deref(),
            Some("127.0.0.1 Some(5080)")
        );
        assert_eq!(read("[::1]:5080").as_deref(), Some("::1 Some(5080)"));
        assert_eq!(read("::1").as_deref(), Some("::1 None"));
        assert_eq!(read("host:5x"), None);
        assert_eq!(read(""), None);
    }
}
