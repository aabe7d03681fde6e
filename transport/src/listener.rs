//! TCP and TLS listeners, and the way out: connecting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use sip::{FlowId, Hop, Transport};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::connection::{self, Established, fail_unsent};
use crate::flows::{Handle, Outbox, Permit};
use crate::transports::Shared;
use crate::{metrics, proxy_protocol};

/// Connections the kernel holds for us before they are accepted.
const BACKLOG: i32 = 1_024;
/// How long to wait when the system is out of descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// When the kernel begins to probe a silent connection.
const KEEPALIVE: Duration = Duration::from_secs(60);

pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the transports close.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let accepted = tokio::select! {
            () = shared.root.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!(error = %e, "accept failed");
                if !is_of_one_connection(&e) {
                    tokio::time::sleep(EXHAUSTED).await;
                }
                continue;
            }
        };
        let balanced = proxy_protocol::is_balancer(peer.ip(), &shared.options.proxy_protocol_from);
        let permit = shared.flows.reserve().and_then(|mut permit| {
            if !balanced {
                permit.attribute(peer.ip())?;
            }
            Ok(permit)
        });
        match permit {
            Ok(permit) => {
                let task = accept(
                    Arc::clone(&shared),
                    stream,
                    peer,
                    balanced,
                    tls.clone(),
                    permit,
                );
                shared.tasks.spawn(task);
            }
            Err(refused) => metrics::refused(refused.label()),
        }
    }
}

/// Errors of `accept` that concern the connection that was to be accepted only.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

async fn accept(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    balanced: bool,
    tls: Option<TlsAcceptor>,
    mut permit: Permit,
) {
    let prepare = async {
        tune(&stream);
        let local = stream.local_addr().map_err(|_| "reset")?;
        let mut remote = peer;
        if balanced {
            let header = proxy_protocol::read_header(&mut stream).await;
            remote = header.map_err(|_| "bad_proxy_header")?.unwrap_or(peer);
            permit
                .attribute(remote.ip())
                .map_err(super::Refused::label)?;
        }
        match tls {
            None => Ok((Either::Tcp(stream), local, remote)),
            Some(acceptor) => {
                let stream = acceptor
                    .accept(stream)
                    .await
                    .map_err(|_| "bad_tls_handshake")?;
                Ok((Either::Tls(Box::new(stream)), local, remote))
            }
        }
    };
    let prepared = tokio::select! {
        prepared = timeout(shared.options.handshake_timeout, prepare) => prepared,
        () = shared.root.cancelled() => return,
    };
    let (stream, local, remote) = match prepared.unwrap_or(Err("handshake_timeout")) {
        Ok(prepared) => prepared,
        Err(reason) => {
            tracing::debug!(%peer, reason, "connection refused");
            return metrics::refused(reason);
        }
    };
    let hop = |transport| Hop {
        transport,
        remote,
        local: Some(local),
        flow: None,
    };
    match stream {
        Either::Tcp(stream) => {
            let established = Established::accepted(&shared, hop(Transport::Tcp), permit);
            connection::run(&shared, stream, established).await;
        }
        Either::Tls(stream) => {
            let established = Established::accepted(&shared, hop(Transport::Tls), permit);
            connection::run(&shared, *stream, established).await;
        }
    }
}

enum Either {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// What an outgoing connection is opened with; its messages queue while it connects.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) flow: FlowId,
    pub(crate) hop: Hop,
    /// Name its certificate must carry; `None`: its address.
    pub(crate) name: Option<Box<str>>,
    pub(crate) handle: Handle,
    pub(crate) outbox: Outbox,
    pub(crate) permit: Permit,
}

/// Connects and then serves the connection like any other.
pub(crate) async fn open(shared: Arc<Shared>, mut opening: Opening) {
    let closing = opening.handle.closing.clone();
    let connected = tokio::select! {
        connected = timeout(shared.options.connect_timeout, connect(&shared, &opening)) => {
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
        () = closing.cancelled() => Err(io::ErrorKind::Interrupted.into()),
    };
    let (stream, local) = match connected {
        Ok(connected) => connected,
        Err(e) => {
            tracing::debug!(remote = %opening.hop.remote, error = %e, "cannot connect");
            shared.flows.remove(opening.flow);
            return fail_unsent(&shared, &mut opening.outbox);
        }
    };
    let Opening {
        flow,
        hop,
        handle,
        outbox,
        permit,
        ..
    } = opening;
    let hop = Hop {
        local: Some(local),
        flow: Some(flow),
        ..hop
    };
    let established = Established {
        flow,
        hop,
        handle,
        outbox,
        permit,
    };
    match stream {
        Outgoing::Tcp(stream) => connection::run(&shared, stream, established).await,
        Outgoing::Tls(stream) => connection::run(&shared, *stream, established).await,
    }
}

enum Outgoing {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn connect(shared: &Shared, opening: &Opening) -> io::Result<(Outgoing, SocketAddr)> {
    let remote = opening.hop.remote;
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(local) = opening.hop.local
        && local.is_ipv4() == remote.is_ipv4()
        && !local.ip().is_unspecified()
    {
        // The network card that was asked for; the port is the listener's, so any other.
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    let stream = socket.connect(remote).await?;
    tune(&stream);
    let local = stream.local_addr()?;
    if opening.hop.transport == Transport::Tcp {
        return Ok((Outgoing::Tcp(stream), local));
    }
    let no_config = || io::Error::other("no client TLS configuration");
    let config = shared.options.client_tls.clone().ok_or_else(no_config)?;
    let name = match &opening.name {
        Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        None => ServerName::from(remote.ip()),
    };
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok((Outgoing::Tls(Box::new(stream)), local))
}

/// Options without which a connection works too, so that failing to set them is no error.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
}
