//! HTTP listeners: PROXY protocol, TLS, HTTP/1.1 with upgrades; every step bounded in time and number.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::proxy_protocol::real_source;

use crate::web::Peer;

/// PROXY header and TLS handshake together.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// One request's head. Between requests of one connection it bounds idleness too.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Longest head, bytes.
const HEAD_MAX: usize = 32 * 1024;

/// What all listeners share.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) balancers: Arc<[IpNet]>,
    /// Connections that have not become a WebSocket.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Server {
    /// Opens a listener.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        if address.is_ipv6() {
            // So that [::] and 0.0.0.0 can both be listened on.
            socket.set_only_v6(true)?;
        }
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    }

    /// Serves a listener until stopped.
    pub(crate) fn serve(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let server = self.clone();
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = server.stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => server.spawn(stream, peer, tls.clone()),
                    Err(error) => {
                        // Out of descriptors: the backlog must wait, not spin.
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return;
        };
        let server = self.clone();
        self.tasks.spawn(async move {
            let _slot = slot;
            if let Err(error) = server.connection(stream, peer, tls).await {
                tracing::debug!(%error, "HTTP connection ended");
            }
        });
    }

    async fn connection(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<()> {
        let local = stream.local_addr()?;
        stream.set_nodelay(true)?;
        let slow = |_| io::Error::from(io::ErrorKind::TimedOut);
        let opening = async {
            let remote = real_source(&mut stream, peer, &self.balancers)
                .await
                .map_err(io::Error::other)?;
            let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            let tls = match tls {
                Some(acceptor) => Ok(Some(acceptor.accept(stream).await?)),
                None => Err(stream),
            };
            Ok::<_, io::Error>((remote, tls))
        };
        let (remote, stream) = tokio::time::timeout(HANDSHAKE_PATIENCE, opening)
            .await
            .map_err(slow)??;
        let peer = |secure| Peer {
            remote,
            local,
            secure,
        };
        match stream {
            Ok(Some(stream)) => self.http(stream, peer(true)).await,
            Ok(None) => Ok(()),
            Err(stream) => self.http(stream, peer(false)).await,
        }
    }

    async fn http<S>(&self, stream: S, peer: Peer) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(peer)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result.map_err(io::Error::other),
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await.map_err(io::Error::other)
            }
        }
    }
}
