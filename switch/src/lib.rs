//! The switch's shell: workers with their sockets, the control server, and its place in the cluster.

#![deny(unsafe_code)] // but for mmsg.rs

mod busy;
mod config;
mod control_server;
mod control_tls;
mod fair;
mod metrics;
mod mmsg;
mod outbox;
mod registration;
mod sockets;
mod view;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use cluster::Store;
use switch_core::dtls::Identity;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

pub use config::{Card, Config, Invalid};

use crate::control_server::{ControlService, State};
use crate::sockets::PortRange;
use crate::worker::WorkerHandle;

/// Why a switch could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be.
    #[error("[switch] {0}")]
    Config(#[from] Invalid),
    /// The control address is taken or not ours.
    #[error("cannot listen on {address} for control: {source}; another process may be using it")]
    Control {
        /// Configured address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A media socket or thread could not be had.
    #[error("{0}")]
    Worker(String),
    /// The DTLS certificate could not be made.
    #[error("DTLS certificate: {0}")]
    Certificate(#[from] switch_core::dtls::DtlsError),
    /// Key and certificate of the cluster do not fit.
    #[error("[cluster] {0}")]
    Tls(#[from] cluster::identity::TlsError),
    /// The switch could not register with the cluster.
    #[error(transparent)]
    Store(#[from] cluster::StoreError),
}

/// A running switch.
pub struct Switch {
    state: Arc<State>,
    control: SocketAddr,
    webrtc: Vec<SocketAddr>,
    stop: CancellationToken,
    broken: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Switch {
    /// Opens everything, registers with the cluster, and serves until [`Self::shutdown`].
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        config.check()?;
        metrics::describe();
        let listen = |source| StartError::Control {
            address: config.control,
            source,
        };
        let listener = TcpListener::bind(config.control).await.map_err(listen)?;
        let control = listener.local_addr().map_err(listen)?;

        let identity = Arc::new(Identity::generate()?);
        let fingerprint = identity.fingerprint().to_vec();
        let range = Arc::new(PortRange::new(config.plain_ports));
        let (events, mut published) = mpsc::unbounded_channel();
        let broken = CancellationToken::new();
        let mut workers = Vec::new();
        let mut webrtc = Vec::new();
        for number in 0..config.workers() {
            let started = WorkerHandle::start(
                &config,
                number,
                Arc::clone(&identity),
                Arc::clone(&range),
                events.clone(),
                broken.clone(),
            )
            .await;
            let worker = started.map_err(StartError::Worker)?;
            webrtc.extend_from_slice(&worker.webrtc);
            workers.push(worker);
        }
        let instance = format!("{:016x}", rand::random::<u64>());
        let state = Arc::new(State::new(instance, fingerprint, config.capacity, workers));

        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        let publisher = Arc::clone(&state);
        tasks.push(tokio::spawn(async move {
            while let Some(event) = published.recv().await {
                publisher.publish(&event);
            }
        }));
        // Meetings of a worker that panicked are dead, and new ones must not follow: the switch leaves the cluster.
        let (fault, leave) = (broken.clone(), stop.clone());
        tokio::spawn(async move {
            let ended = leave.clone();
            if ended.run_until_cancelled(fault.cancelled()).await.is_some() {
                tracing::error!("a worker panicked: this switch leaves the cluster");
                leave.cancel();
            }
        });
        if config.orphan_timeout > 0 {
            let patience = Duration::from_secs(config.orphan_timeout);
            let (reaper, stopped) = (Arc::clone(&state), stop.clone());
            tokio::spawn(async move {
                let mut tick = tokio::time::interval((patience / 10).min(Duration::from_secs(10)));
                let work = async {
                    loop {
                        tick.tick().await;
                        reaper.reap(patience).await;
                    }
                };
                stopped.run_until_cancelled(work).await;
            });
        }
        tasks.push(serve_control(&config, listener, &state, &stop)?);
        let advertised = config.control_told(control);
        tasks.push(
            registration::start(
                &config.id,
                advertised.clone(),
                Arc::clone(&state),
                store,
                stop.clone(),
            )
            .await?,
        );
        tracing::info!(
            id = config.id,
            %control,
            advertised_control = advertised,
            workers = config.workers(),
            media = ?config.advertised(),
            ?webrtc,
            plain_ports = ?config.plain_ports,
            "switch is ready"
        );
        Ok(Self {
            state,
            control,
            webrtc,
            stop,
            broken,
            tasks,
        })
    }

    /// Where the control server listens.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.control
    }

    /// Where browsers are told to send media, of all workers and cards.
    #[must_use]
    pub fn webrtc_addresses(&self) -> &[SocketAddr] {
        &self.webrtc
    }

    /// Read-only views under `/api/v1/switch`.
    pub fn admin_router(&self) -> Router {
        view::router(Arc::clone(&self.state))
    }

    /// Takes no new meetings from now on, or does again; running ones go on.
    pub fn set_draining(&self, draining: bool) {
        self.state.draining.store(draining, Ordering::Relaxed);
    }

    /// Meetings running here.
    #[must_use]
    pub fn meetings(&self) -> usize {
        self.state.meetings()
    }

    /// Waits until a worker has panicked. The switch has left the cluster then; what remains is to shut it down and
    /// to start anew.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Leaves the cluster and closes all sockets.
    pub async fn shutdown(self) {
        self.stop.cancel();
        // event streams hold connections open: they end with their senders
        self.state.close_streams();
        let Self { state, tasks, .. } = self;
        for mut task in tasks.into_iter().skip(1) {
            if tokio::time::timeout(Duration::from_secs(2), &mut task)
                .await
                .is_err()
            {
                task.abort();
            }
        }
        for worker in state.take_workers() {
            worker.stop().await;
        }
    }
}

/// Serves orders until `stop`; with certificates only those of members.
fn serve_control(
    config: &Config,
    listener: TcpListener,
    state: &Arc<State>,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let tls = match &config.tls {
        Some(tls) => Some(tls.server_config()?),
        None => None,
    };
    let service = ControlService {
        state: Arc::clone(state),
        members_only: tls.is_some(),
    };
    let service = control::switch_server::SwitchServer::new(service)
        .max_decoding_message_size(control::MAX_MESSAGE);
    let server = tonic::transport::Server::builder().add_service(service);
    let stopped = stop.clone();
    Ok(tokio::spawn(async move {
        let served = match tls {
            Some(tls) => {
                let secure = control_tls::incoming(listener, tls, stopped.clone());
                let ended = stopped.cancelled_owned();
                server.serve_with_incoming_shutdown(secure, ended).await
            }
            None => {
                let plain = TcpListenerStream::new(listener);
                let ended = stopped.cancelled_owned();
                server.serve_with_incoming_shutdown(plain, ended).await
            }
        };
        if let Err(e) = served {
            tracing::error!("control server ended: {e}");
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_switch_whose_worker_panics_leaves_the_cluster_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = cluster::embedded::EmbeddedStore::open(folder.path()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let config = Config {
            control: SocketAddr::from(([127, 0, 0, 1], 0)),
            listen: vec![[127, 0, 0, 1].into()],
            webrtc_port: 0,
            plain_ports: [0, 0],
            workers: 2,
            ..Config::default()
        };
        let key = cluster::records::keys::switch(&config.id);
        let switch = Switch::start(config, Arc::clone(&store)).await.unwrap();
        assert!(store.get(&key).await.unwrap().is_some());
        switch.state.order(1, worker::Command::Panic);
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, switch.broken())
            .await
            .expect("told");
        let gone = async {
            while store.get(&key).await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, gone)
            .await
            .expect("out of the cluster");
        switch.shutdown().await;
    }
}
