//! The meeting manager: sockets, store, switches and the HTTP view around the focus of `meeting-core`.
//!
//! [`MeetingManager::start`] opens the sockets, registers the member, goes on with the meetings that an earlier
//! process of the same name left, and then takes calls.

#![forbid(unsafe_code)]

mod admin;
mod config;
pub mod metrics;
mod peers;
mod runner;
mod store_ops;
mod sweeper;
mod switches;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use cluster::records::{Member, RECORD_VERSION, keys};
use cluster::{Cache, LeaseKeeper, LeaseTimes, Store, StoreError, Watchdog};
use meeting_core::{Counts, Focus, FocusConfig};
use parking_lot::Mutex;
use rand::RngCore;
use sip::Transport;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::{BindError, Listen, Options, Transports};

pub use config::{Config, FirstCall, Invalid, Meeting};
use peers::Peers;
use runner::{Input, Runner};
use switches::Switches;

/// Inputs of the loop that may wait; who answers waits for room.
const INPUTS: usize = 4_096;

/// What may be queued to one registrar. Every subscriber of a meeting is behind it, and a change or a takeover
/// tells all of them at once: 1,000 of them have about 16 kB each under way then.
const WRITE_QUEUE: usize = 16_384;
const WRITE_QUEUE_BYTES: usize = 64 << 20;

/// How long the first look at the store may take.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// How long meetings of an earlier process wait for a switch to register: with none their calls would be ended.
const SWITCH_WAIT: Duration = Duration::from_secs(3);

/// Meetings claimed at once.
const CLAIMS_AT_ONCE: usize = 64;

/// How long a draining member waits for a moment in which nothing is under way.
const CALM_PATIENCE: Duration = Duration::from_secs(1);

/// How long the others have to take meetings over; what they do not take stays here.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// How often the member's load is written, and a shutdown looks whether all is over.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);
const SHUTDOWN_POLL: Duration = Duration::from_millis(20);

/// Why a meeting manager does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be.
    #[error("{0}")]
    Config(#[from] Invalid),
    /// A socket cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin socket cannot be opened.
    #[error("cannot listen on {address} for the API: {source}")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The store does not answer.
    #[error("the store does not work: {0}")]
    Store(#[from] StoreError),
    /// The store does not answer in time.
    #[error("the store did not answer within {FIRST_LOOK:?}")]
    StoreSilent,
}

/// A running meeting manager. Dropping it stops it at once, without a BYE: its meetings can be gone on with.
#[derive(Debug)]
pub struct MeetingManager {
    config: Config,
    focus: Arc<Mutex<Focus>>,
    switches: Arc<Switches>,
    transports: Transports,
    inputs: mpsc::Sender<Input>,
    lease: Option<Arc<LeaseKeeper>>,
    watchdog: Option<Watchdog>,
    member: Arc<Mutex<Member>>,
    admin: Option<SocketAddr>,
    stop: CancellationToken,
    run: Option<JoinHandle<()>>,
}

impl MeetingManager {
    /// Starts. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        config.check()?;
        metrics::describe();
        let options = Options {
            write_queue: WRITE_QUEUE,
            write_queue_bytes: WRITE_QUEUE_BYTES,
            ..Options::default()
        };
        let (transports, sip) = Transports::bind(&listeners(&config), None, options)?;
        let advertised = advertised(&config, &transports);
        let sent_by = |wanted: &str| {
            let address = advertised.iter().find(|(transport, _)| transport == wanted);
            address
                .or(advertised.first())
                .map_or_else(|| "127.0.0.1".to_owned(), |(_, a)| a.to_string())
        };
        let mut focus_config = config.focus(&sent_by("udp"))?;
        focus_config.sent_by_stream = sent_by("tcp");
        // Calls may name this machine, where no registrar has rewritten them.
        focus_config
            .aliases
            .extend(advertised.iter().map(|(_, a)| a.ip().to_string()));
        let focus = Arc::new(Mutex::new(new_focus(focus_config)));
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let stop = CancellationToken::new();
        let switches = Switches::new(config.id.clone(), config.tls.clone(), inputs.clone());
        let (admin, admin_address) = bind_admin(&config).await?;
        let member = Arc::new(Mutex::new(Member {
            version: RECORD_VERSION,
            id: config.id.clone(),
            sip: advertised,
            api: admin_address.map_or_else(String::new, |a| format!("http://{a}")),
            load: 0,
            draining: false,
        }));
        let mut manager = Self {
            config,
            focus,
            switches,
            transports,
            inputs,
            lease: None,
            watchdog: None,
            member,
            admin: admin_address,
            stop,
            run: None,
        };
        if let Some(listener) = admin {
            manager.serve_admin(listener);
        }
        // The loop runs before calls are announced, and does the store work of adoptions meanwhile.
        manager.begin(store, receiver, sip).await?;
        Ok(manager)
    }

    async fn begin(
        &mut self,
        store: Arc<dyn Store>,
        receiver: mpsc::Receiver<Input>,
        sip: mpsc::Receiver<transport::Input>,
    ) -> Result<(), StartError> {
        let cache = Cache::switches(Arc::clone(&store));
        tokio::time::timeout(FIRST_LOOK, cache.ready())
            .await
            .map_err(|_| StartError::StoreSilent)?;
        let lease = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
        let key = keys::member(&self.config.id);
        let record = self.member_record();
        tokio::time::timeout(FIRST_LOOK, lease.put(&key, record))
            .await
            .map_err(|_| StartError::StoreSilent)??;
        let lease = Arc::new(lease);
        self.publish_load(&lease);
        self.lease = Some(Arc::clone(&lease));
        let peers = Peers::start(&store);
        tokio::time::timeout(FIRST_LOOK, peers.ready())
            .await
            .map_err(|_| StartError::StoreSilent)?;
        tokio::spawn(Arc::clone(&self.switches).follow(cache.clone(), self.stop.clone()));
        if peers.has_meetings_of(&self.config.id) {
            wait_for_switch(&cache).await;
        }
        self.focus
            .lock()
            .handle_switches(Instant::now(), self.switches.sync(&cache));
        let sweeper = sweeper::run(
            Arc::clone(&self.focus),
            Arc::clone(&self.switches),
            Arc::clone(&store),
            self.inputs.clone(),
        );
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(sweeper).await });
        let watchdog = peers.watch_over(&store, &self.config.id, cache);
        self.watchdog = Some(watchdog);
        let runner = Runner {
            focus: Arc::clone(&self.focus),
            store,
            transports: self.transports.clone(),
            switches: Arc::clone(&self.switches),
            member: self.config.id.clone(),
            lease,
            claims: Arc::new(Semaphore::new(CLAIMS_AT_ONCE)),
            inputs: self.inputs.clone(),
            stop: self.stop.clone(),
        };
        self.run = Some(tokio::spawn(runner.run(sip, receiver)));
        let (inputs, stop) = (self.inputs.clone(), self.stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(peers.follow(inputs)).await });
        Ok(())
    }

    /// Registrars choose whom a new meeting goes to by the load.
    fn publish_load(&self, lease: &Arc<LeaseKeeper>) {
        let lease = Arc::downgrade(lease);
        let (focus, member, stop) = (
            Arc::clone(&self.focus),
            Arc::clone(&self.member),
            self.stop.clone(),
        );
        let key = keys::member(&self.config.id);
        let most = self.config.max_dialogs.max(1);
        let publish = async move {
            loop {
                tokio::time::sleep(LOAD_INTERVAL).await;
                let share = focus.lock().counts().dialogs * 1_000 / most;
                let load = u32::try_from(share).unwrap_or(1_000).min(1_000);
                if std::mem::replace(&mut member.lock().load, load) == load {
                    continue;
                }
                let Some(lease) = lease.upgrade() else {
                    return;
                };
                let record = serde_json::to_vec(&*member.lock());
                let record = record.expect("a member record has text keys only");
                if let Err(e) = lease.put(&key, record).await {
                    tracing::warn!(error = %e, "the load was not published");
                }
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(publish).await });
    }

    fn member_record(&self) -> Vec<u8> {
        serde_json::to_vec(&*self.member.lock()).expect("a member record has text keys only")
    }

    fn serve_admin(&self, listener: tokio::net::TcpListener) {
        let (router, stop) = (self.admin_router(), self.stop.clone());
        tokio::spawn(async move {
            let served =
                axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(e) = served.await {
                tracing::error!(error = %e, "the API ended");
            }
        });
    }

    /// Listeners with the ports they really have: (transport, address).
    #[must_use]
    pub fn sip_addresses(&self) -> Vec<(Transport, SocketAddr)> {
        let local = self.transports.local_addresses();
        local.iter().map(|l| (l.transport, l.address)).collect()
    }

    /// Where the API of this role listens, if it was asked for.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// `GET /api/v1/meetings` and `GET /api/v1/meetings/{id}`.
    pub fn admin_router(&self) -> Router {
        admin::router(admin::View {
            member: self.config.id.clone(),
            focus: Arc::clone(&self.focus),
            switches: Arc::clone(&self.switches),
        })
    }

    /// How much of everything there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.focus.lock().counts()
    }

    /// Takes no new meetings, and hands those that are to the other members, where there are any. Returns when none is
    /// left, or after `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.set_draining(true).await;
        self.wait_until_empty(patience).await;
    }

    /// Takes no new meetings and hands those that are to other members, where there are any, or takes new ones again;
    /// returns when the cluster knows.
    pub async fn set_draining(&self, draining: bool) {
        let input = if draining {
            Input::Drain
        } else {
            Input::Undrain
        };
        let _ = self.inputs.send(input).await;
        self.announce_draining(draining).await;
        if draining {
            self.hand_over().await;
        }
    }

    /// Says goodbye: others go on with the meetings as if this process had ended, which it has no part in any more. What
    /// is under way is brought to its end first, as far as that is soon.
    async fn hand_over(&self) {
        let Some(lease) = &self.lease else { return };
        let calm_by = tokio::time::Instant::now() + CALM_PATIENCE;
        loop {
            let (heir, calm, idle) = {
                let focus = self.focus.lock();
                let idle = focus.counts().meetings == 0;
                (focus.has_heir(), focus.is_calm(), idle)
            };
            if idle {
                return;
            }
            if !heir {
                tracing::info!("no other member takes meetings: those here are waited for");
                return;
            }
            if calm || tokio::time::Instant::now() >= calm_by {
                break;
            }
            tokio::time::sleep(SHUTDOWN_POLL).await;
        }
        tracing::info!(meetings = self.counts().meetings, "handing meetings over");
        lease.withdraw();
        self.wait_until_empty(HAND_OVER_PATIENCE).await;
        lease.resume();
    }

    async fn announce_draining(&self, draining: bool) {
        self.member.lock().draining = draining;
        if let Some(lease) = &self.lease {
            let key = keys::member(&self.config.id);
            let put = lease.put(&key, self.member_record());
            let _ = tokio::time::timeout(LOAD_INTERVAL, put).await;
        }
    }

    async fn wait_until_empty(&self, patience: Duration) {
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            let counts = self.counts();
            if counts.meetings == 0 && counts.pending_requests == 0 {
                return;
            }
            tokio::time::sleep(SHUTDOWN_POLL).await;
        }
    }

    /// Ends every meeting with BYE, waits for the answers (as long as configured), and stops.
    pub async fn shutdown(mut self) {
        let patience = Duration::from_secs(self.config.shutdown_patience);
        let _ = self.inputs.send(Input::Shutdown).await;
        // The loop takes its inputs in order: when this one is through, so is the shutdown's beginning.
        self.settled().await;
        self.wait_until_empty(patience).await;
        self.stop.cancel();
        if let Some(run) = self.run.take() {
            let _ = run.await;
        }
        self.switches.close();
        self.transports.shutdown(Duration::from_millis(500)).await;
        // Whoever else holds it for a moment lets it run out.
        if let Some(lease) = self.lease.take().and_then(Arc::into_inner) {
            lease.stop().await;
        }
    }

    async fn settled(&self) {
        while self.inputs.capacity() < self.inputs.max_capacity() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for MeetingManager {
    fn drop(&mut self) {
        self.stop.cancel();
        self.switches.close();
    }
}

fn new_focus(config: FocusConfig) -> Focus {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let unix_ms = u64::try_from(unix.as_millis()).unwrap_or(0);
    Focus::new(config, seed, Instant::now(), unix_ms)
}

fn listeners(config: &Config) -> Vec<Listen> {
    let listen = |transport| {
        move |address: &SocketAddr| Listen {
            transport,
            address: *address,
        }
    };
    config
        .udp
        .iter()
        .map(listen(Transport::Udp))
        .chain(config.tcp.iter().map(listen(Transport::Tcp)))
        .collect()
}

/// Where registrars send SIP to.
fn advertised(config: &Config, transports: &Transports) -> Vec<(String, SocketAddr)> {
    let own = transports.local_addresses().iter();
    let told: Vec<_> = own
        .flat_map(|l| config.told(l.address).into_iter().map(move |a| (l, a)))
        .collect();
    // Loopback stands in where a family has no card; nobody else can use it.
    let is_reached = told.iter().any(|(_, address)| !address.ip().is_loopback());
    let mut all: Vec<(String, SocketAddr)> = Vec::new();
    for (listening, address) in told {
        let stands_in = address.ip().is_loopback() && listening.address.ip().is_unspecified();
        let told = (listening.transport.uri_token().to_owned(), address);
        if !(stands_in && is_reached || all.contains(&told)) {
            all.push(told);
        }
    }
    tracing::info!(advertised = ?all, "registrars are told these addresses; advertise changes them");
    all
}

async fn bind_admin(
    config: &Config,
) -> Result<(Option<tokio::net::TcpListener>, Option<SocketAddr>), StartError> {
    let Some(address) = config.admin else {
        return Ok((None, None));
    };
    let failed = |source| StartError::Admin { address, source };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((Some(listener), Some(bound)))
}

async fn wait_for_switch(cache: &Cache<cluster::records::SwitchRecord>) {
    let mut changes = cache.subscribe();
    let registered = async {
        while cache.is_empty() {
            if changes.next().await.is_none() {
                return;
            }
        }
    };
    if tokio::time::timeout(SWITCH_WAIT, registered).await.is_err() {
        tracing::warn!("no switch registered; calls of an earlier process may be ended");
    }
}
