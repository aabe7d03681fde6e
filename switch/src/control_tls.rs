//! Connections to the control port that have shown a certificate of the cluster's authority.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Handshakes under way at once; further connections wait to be accepted.
const HANDSHAKES: usize = 64;
/// Connections that have not begun one, at most: peers that watch over this process hold one each.
const WAITING: usize = 1_024;
/// Pause after the system could not accept: it is out of files, say.
const RETRY: Duration = Duration::from_millis(100);

/// Accepts until `stop`, and hands on who may be served. Who is refused is counted.
pub fn incoming(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (accepted, stream) = mpsc::channel(HANDSHAKES);
    let acceptor = TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let slots = Arc::new(Semaphore::new(WAITING));
    let accept = async move {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let (connection, remote) = match listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "control connection not accepted");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            let handshakes = Arc::clone(&handshakes);
            tokio::spawn(async move {
                let _ = connection.set_nodelay(true);
                // Peers that only watch whether this process lives say nothing, for as long as both do.
                if !matches!(connection.peek(&mut [0]).await, Ok(1..)) {
                    return;
                }
                let Ok(_handshake) = handshakes.acquire().await else {
                    return;
                };
                match tokio::time::timeout(PATIENCE, acceptor.accept(connection)).await {
                    Ok(Ok(secure)) => {
                        // nobody takes it where the server has stopped
                        let _ = accepted.send(Ok(secure)).await;
                    }
                    Ok(Err(error)) => {
                        metrics::control_refused(reason(&error));
                        tracing::warn!(%remote, %error, "control connection refused");
                    }
                    Err(_) => {
                        metrics::control_refused("handshake");
                        tracing::warn!(%remote, "control connection refused: no handshake in time");
                    }
                }
                drop(slot);
            });
        }
    };
    tokio::spawn(async move { stop.run_until_cancelled(accept).await });
    ReceiverStream::new(stream)
}

fn reason(error: &io::Error) -> &'static str {
    let inner = error.get_ref();
    match inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => "no-certificate",
        Some(rustls::Error::InvalidCertificate(_)) => "untrusted",
        _ => "handshake",
    }
}
