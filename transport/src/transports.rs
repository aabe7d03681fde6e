//! The handle to all sockets of one element.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sip::{FlowId, Hop, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection::Established;
use crate::flows::{Flows, Outgoing, Refused, Rejected, Target, UDP_BIT};
use crate::listener::{self, Opening};
use crate::{BindError, Input, Listen, Options, metrics, udp, websocket};

/// All sockets of one element. Cheap to clone; dropping the last clone closes everything.
#[derive(Clone, Debug)]
pub struct Transports {
    shared: Arc<Shared>,
    local: Arc<[Listen]>,
    _closes_when_dropped: Arc<DropGuard>,
}

/// What the tasks of all sockets share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) flows: Arc<Flows>,
    pub(crate) udp: udp::Sockets,
    pub(crate) input: mpsc::Sender<Input>,
    pub(crate) root: CancellationToken,
    pub(crate) tasks: TaskTracker,
    runtime: Runtime,
}

impl Transports {
    /// Opens the listeners; all, or none and the reason. `tls` is needed for [`Transport::Tls`] listeners
    /// (its ALPN list is for HTTPS and not used here, since SIP has no agreed one).
    ///
    /// Must be called inside a tokio runtime, on which all sockets then run.
    ///
    /// # Errors
    /// [`BindError`] names the listener.
    pub fn bind(
        listeners: &[Listen],
        tls: Option<Arc<rustls::ServerConfig>>,
        options: Options,
    ) -> Result<(Self, mpsc::Receiver<Input>), BindError> {
        metrics::describe();
        let acceptor = tls.map(|config| {
            let mut config = rustls::ServerConfig::clone(&config);
            config.alpn_protocols.clear();
            TlsAcceptor::from(Arc::new(config))
        });
        let mut udp = udp::Sockets::new();
        let mut waiting = Vec::new();
        let mut streams: Vec<(TcpListener, Option<TlsAcceptor>)> = Vec::new();
        let mut local = Vec::new();
        for listen in listeners {
            let failed = |source| BindError::Socket {
                listen: *listen,
                source,
            };
            let address = match listen.transport {
                Transport::Udp => {
                    let socket =
                        udp::bind(listen.address, options.udp_receive_buffer).map_err(failed)?;
                    let added = udp.add(socket).map_err(failed)?;
                    let address = added.socket.local;
                    waiting.push(added);
                    address
                }
                Transport::Tcp | Transport::Tls => {
                    let secure = listen.transport == Transport::Tls;
                    if secure && acceptor.is_none() {
                        return Err(BindError::NoCertificate(listen.address));
                    }
                    let listener = listener::bind(listen.address).map_err(failed)?;
                    let address = listener.local_addr().map_err(failed)?;
                    streams.push((listener, acceptor.clone().filter(|_| secure)));
                    address
                }
                Transport::Ws | Transport::Wss => return Err(BindError::WebSocket(*listen)),
            };
            local.push(Listen { address, ..*listen });
        }
        let (input, output) = mpsc::channel(options.input_queue.max(1));
        let root = CancellationToken::new();
        let shared = Arc::new(Shared {
            flows: Arc::new(Flows::new(&options, root.clone())),
            options,
            udp,
            input,
            root: root.clone(),
            tasks: TaskTracker::new(),
            runtime: Runtime::current(),
        });
        for waiting in waiting {
            shared.tasks.spawn(udp::run(Arc::clone(&shared), waiting));
        }
        for (listener, acceptor) in streams {
            shared
                .tasks
                .spawn(listener::run(Arc::clone(&shared), listener, acceptor));
        }
        let guard = Arc::new(root.drop_guard());
        Ok((
            Self {
                shared,
                local: local.into(),
                _closes_when_dropped: guard,
            },
            output,
        ))
    }

    /// The listeners with the ports they really have, in the order given to [`Transports::bind`].
    #[must_use]
    pub fn local_addresses(&self) -> &[Listen] {
        &self.local
    }

    /// Queues bytes for a hop. Never blocks; what cannot be sent comes back as [`Input::SendFailed`] with `id`.
    ///
    /// With `flow`: that flow or none (for UDP, `remote` must be the flow's). Without: a connection to
    /// `remote` is reused or opened, and for TLS its certificate must name the address; where a host name was
    /// resolved use [`Transports::send_to_host`].
    pub fn send(&self, id: u64, hop: Hop, bytes: Bytes) {
        self.send_as(id, hop, None, bytes);
    }

    /// As [`Transports::send`]; where a TLS connection is opened, its certificate must name `host`.
    pub fn send_to_host(&self, id: u64, hop: Hop, host: &str, bytes: Bytes) {
        self.send_as(id, hop, Some(host), bytes);
    }

    fn send_as(&self, id: u64, hop: Hop, host: Option<&str>, bytes: Bytes) {
        let shared = &self.shared;
        if hop.transport == Transport::Udp {
            return shared.udp.send(shared, id, hop, bytes);
        }
        let outgoing = Outgoing {
            id: Some(id),
            hop,
            bytes,
        };
        if let Some(flow) = hop.flow {
            match shared.flows.get(flow).map(|handle| handle.push(outgoing)) {
                Some(Ok(())) => {}
                Some(Err(_)) | None => shared.send_failed(id, hop),
            }
            return;
        }
        let name = host
            .filter(|_| hop.transport == Transport::Tls)
            .map(Box::from);
        let target = Target {
            transport: hop.transport,
            remote: hop.remote,
            name,
        };
        if self.queue_to(&target, outgoing).is_err() {
            shared.send_failed(id, hop);
        }
    }

    /// Queues on the connection of a target, opening one where there is none (any more).
    fn queue_to(&self, target: &Target, outgoing: Outgoing) -> Result<(), Rejected> {
        let shared = &self.shared;
        // Reserved before looking, so that a limit never leaves an entry without a task.
        let permit = shared.flows.reserve();
        let can_open =
            permit.is_ok() && matches!(target.transport, Transport::Tcp | Transport::Tls);
        if !can_open {
            let Some(handle) = shared.flows.find(target) else {
                if let Err(refused) = permit {
                    metrics::refused(refused.label());
                }
                return Err(Rejected);
            };
            return handle.push(outgoing);
        }
        let (flow, handle, opened) = shared.flows.find_or_insert(target);
        let hop = outgoing.hop;
        let pushed = handle.push(outgoing);
        if let (Some(outbox), Ok(permit)) = (opened, permit) {
            let name = target.name.clone();
            let opening = Opening {
                flow,
                hop,
                name,
                handle,
                outbox,
                permit,
            };
            shared
                .tasks
                .spawn_on(listener::open(Arc::clone(shared), opening), &shared.runtime);
        }
        pushed
    }

    /// Takes over a stream that an HTTP server has upgraded to a WebSocket with subprotocol `sip` (RFC 7118).
    /// `remote` is the real source (see [`crate::proxy_protocol::real_source`]), `secure` whether it is TLS.
    /// Nothing beyond the HTTP head may have been read from `stream` (hyper's `Upgraded` sees to that).
    ///
    /// # Errors
    /// [`Refused`]: a limit is reached; the stream is dropped.
    pub fn accept_websocket<S>(
        &self,
        stream: S,
        remote: SocketAddr,
        local: SocketAddr,
        secure: bool,
    ) -> Result<FlowId, Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let permit = self.shared.flows.reserve().and_then(|mut permit| {
            permit.attribute(remote.ip())?;
            Ok(permit)
        });
        let permit = permit.inspect_err(|refused| metrics::refused(refused.label()))?;
        let transport = if secure {
            Transport::Wss
        } else {
            Transport::Ws
        };
        let hop = Hop {
            transport,
            remote,
            local: Some(local),
            flow: None,
        };
        let established = Established::accepted(&self.shared, hop, permit);
        let flow = established.flow;
        let shared = Arc::clone(&self.shared);
        let task = async move { websocket::run(&shared, stream, established).await };
        self.shared.tasks.spawn_on(task, &self.shared.runtime);
        Ok(flow)
    }

    /// Closes a connection after what is queued to it; [`Input::FlowClosed`] follows. Nothing for UDP flows
    /// and unknown ones.
    pub fn close_flow(&self, flow: FlowId) {
        if let Some(handle) = self.shared.flows.get(flow) {
            handle.closing.cancel();
        }
    }

    /// Whether a flow can still be sent on. UDP flows are always taken to be alive.
    #[must_use]
    pub fn is_open(&self, flow: FlowId) -> bool {
        let handle = self.shared.flows.get(flow);
        flow.0 & UDP_BIT != 0 || handle.is_some_and(|h| !h.closing.is_cancelled())
    }

    /// Open connections, those being opened or accepted included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.flows.count()
    }

    /// Closes the listeners at once and every connection after what is queued to it, waiting at most `limit`.
    pub async fn shutdown(&self, limit: Duration) {
        self.shared.root.cancel();
        self.shared.tasks.close();
        let _ = tokio::time::timeout(limit, self.shared.tasks.wait()).await;
    }
}

impl Shared {
    /// Hands something to the element, waiting for room; `false` when the element is gone. While closing
    /// nothing is waited for, since the element may have stopped reading.
    pub(crate) async fn deliver(&self, input: Input) -> bool {
        let permit = tokio::select! {
            biased;
            permit = self.input.reserve() => permit,
            () = self.root.cancelled() => return self.input.try_send(input).is_ok(),
        };
        permit.map(|permit| permit.send(input)).is_ok()
    }

    /// Tells the element that a message was not sent, without waiting.
    pub(crate) fn send_failed(&self, id: u64, hop: Hop) {
        metrics::failed(hop.transport);
        let Err(mpsc::error::TrySendError::Full(input)) =
            self.input.try_send(Input::SendFailed { id, hop })
        else {
            return;
        };
        // One waiting task for each message the element sent while it did not read: bounded by itself.
        let (queue, root) = (self.input.clone(), self.root.clone());
        self.runtime.spawn(async move {
            tokio::select! {
                _ = queue.send(input) => {}
                () = root.cancelled() => {}
            }
        });
    }
}
