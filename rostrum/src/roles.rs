//! Roles running in this process, and how they end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cluster::records::Kind;
use cluster::{Measured, Store};
use meeting_manager::MeetingManager;
use registrar::Registrar;
use switch::Switch;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::Admin;
use crate::config::{Config, Role};
use crate::{observe, web};

/// How often a draining process looks whether it is empty.
const LOOK: Duration = Duration::from_millis(500);

const BROKEN: &str = "a worker of the switch panicked";

type Started = (
    Option<Registrar>,
    Option<MeetingManager>,
    Option<Switch>,
    Admin,
    Orders,
);

/// Operators' orders to drain, and to take new work again.
type Orders = mpsc::Receiver<(Kind, bool)>;

/// What runs.
pub struct Roles {
    pub registrar: Option<Registrar>,
    pub manager: Option<MeetingManager>,
    pub switch: Option<Switch>,
    pub admin: Admin,
    signals: Signals,
    orders: Orders,
    /// Those that have an order to drain.
    ordered: BTreeSet<Kind>,
    least_drain: Duration,
}

/// Ctrl-C and SIGTERM, caught from when this is made: one that comes early is kept until it is looked at.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next of them; whether it was Ctrl-C.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
        }
    }
}

impl Roles {
    /// Starts the roles in the order in which they need each other. From here on a signal ends the process in order.
    pub async fn start(config: &Config, roles: &[Role]) -> Result<Self, String> {
        let mut signals = Signals::catch()?;
        tokio::select! {
            started = Self::start_all(config, roles) => {
                let (registrar, manager, switch, admin, orders) = started?;
                let least_drain = Duration::from_secs(config.admin.drain_seconds);
                let ordered = BTreeSet::new();
                Ok(Self { registrar, manager, switch, admin, signals, orders, ordered, least_drain })
            }
            _ = signals.next() => Err("stopped before it had started".to_owned()),
        }
    }

    async fn start_all(config: &Config, roles: &[Role]) -> Result<Started, String> {
        let metrics = observe::start_metrics()?;
        let store: Arc<dyn Store> = cluster::open(&config.store.engine())
            .await
            .map_err(|e| format!("[store] {e}"))?;
        cluster::describe_metrics();
        let store = Measured::around(store);
        let switch = match roles.contains(&Role::Switch) {
            true => Some(
                Switch::start(config.switch.clone(), Arc::clone(&store))
                    .await
                    .map_err(|e| e.to_string())?,
            ),
            false => None,
        };
        let manager = match roles.contains(&Role::MeetingManager) {
            true => {
                let started =
                    MeetingManager::start(config.meeting_manager.clone(), Arc::clone(&store));
                Some(started.await.map_err(|e| e.to_string())?)
            }
            false => None,
        };
        let registrar = match roles.contains(&Role::Registrar) {
            true => {
                if !web::is_present() {
                    tracing::warn!(
                        "this build has no web client in it: {} makes one",
                        web::HOW_TO_BUILD
                    );
                }
                let started =
                    Registrar::start(config.registrar.clone(), Arc::clone(&store), web::router());
                Some(started.await.map_err(|e| e.to_string())?)
            }
            false => None,
        };
        let mut views = Router::new();
        if let Some(switch) = &switch {
            views = views.merge(switch.admin_router());
        }
        if let Some(manager) = &manager {
            views = views.merge(manager.admin_router());
        }
        if let Some(registrar) = &registrar {
            views = views.merge(registrar.admin_router());
        }
        let orders = follow_orders(config, roles, &store);
        let admin = Admin::start(config.admin.listen, metrics, store, views).await?;
        Ok((registrar, manager, switch, admin, orders))
    }

    /// Does what an operator wants of one role.
    async fn obey(&mut self, kind: Kind, draining: bool) {
        let what = if draining {
            "draining"
        } else {
            "taking new work again"
        };
        tracing::info!(role = %kind, "{what}, as ordered in the cluster");
        match draining {
            true => self.ordered.insert(kind),
            false => self.ordered.remove(&kind),
        };
        self.admin.set_draining(!self.ordered.is_empty());
        match kind {
            Kind::Registrar => {
                if let Some(registrar) = &self.registrar {
                    registrar.set_draining(draining).await;
                }
            }
            Kind::MeetingManager => {
                if let Some(manager) = &self.manager {
                    manager.set_draining(draining).await;
                }
            }
            Kind::Switch => {
                if let Some(switch) = &self.switch {
                    switch.set_draining(draining);
                }
            }
        }
    }

    /// Runs until Ctrl-C, or SIGTERM and then empty.
    ///
    /// # Errors
    /// The switch has lost a worker: the process is to be started anew.
    pub async fn run(mut self) -> Result<(), String> {
        let outcome = loop {
            let broken = async {
                match &self.switch {
                    Some(switch) => switch.broken().await,
                    None => std::future::pending().await,
                }
            };
            let (kind, draining) = tokio::select! {
                at_once = self.signals.next() => break Ok(at_once),
                () = broken => break Err(BROKEN.to_owned()),
                Some(order) = self.orders.recv() => order,
            };
            self.obey(kind, draining).await;
        };
        let outcome = match outcome {
            Ok(false) => self.drain().await,
            other => other.map(|_| ()),
        };
        self.stop().await;
        outcome
    }

    /// Takes nothing new, and waits until nothing is left or a second signal comes.
    ///
    /// # Errors
    /// As [`Self::run`].
    async fn drain(&mut self) -> Result<(), String> {
        tracing::info!(
            "draining: running meetings go on, nothing new begins; a second signal ends them"
        );
        self.admin.set_draining(true);
        if let Some(registrar) = &self.registrar {
            registrar.set_draining(true).await;
        }
        if let Some(manager) = &self.manager {
            manager.drain(Duration::ZERO).await;
        }
        if let Some(switch) = &self.switch {
            switch.set_draining(true);
        }
        let Self {
            registrar,
            manager,
            switch,
            signals,
            ..
        } = self;
        // Nobody would miss this process: no participant, no meeting's media, no call that rings.
        let is_free_of_meetings = || {
            let participants = manager.as_ref().map_or(0, |m| m.counts().participants);
            let meetings = switch.as_ref().map_or(0, Switch::meetings);
            participants == 0 && meetings == 0
        };
        let pending = || registrar.as_ref().map_or(0, Registrar::pending);
        let enough = tokio::time::Instant::now() + self.least_drain;
        let empty = async {
            // twice, so that what follows a last answer (an ACK, a repeated answer) still has its way
            let mut seen_empty = false;
            let mut closed = false;
            loop {
                let late = tokio::time::Instant::now() >= enough;
                let free = is_free_of_meetings();
                let empty = free && pending() == 0;
                if empty && seen_empty && late {
                    return;
                }
                // Only requests of others are left, and where many come there are always some.
                if let Some(registrar) = registrar.as_ref().filter(|_| free && late && !closed) {
                    closed = true;
                    registrar.close().await;
                }
                seen_empty = empty;
                tokio::time::sleep(LOOK).await;
            }
        };
        let broken = async {
            match switch.as_ref() {
                Some(switch) => switch.broken().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signals.next() => Ok(()),
            () = empty => Ok(()),
            () = broken => Err(BROKEN.to_owned()),
        }
    }

    /// Ends meetings with BYE, which still needs the registrar's flows, then the rest.
    async fn stop(self) {
        self.admin.set_draining(true);
        if let Some(manager) = self.manager {
            manager.shutdown().await;
        }
        if let Some(registrar) = self.registrar {
            registrar.shutdown().await;
        }
        if let Some(switch) = self.switch {
            switch.shutdown().await;
        }
        self.admin.stop();
        tracing::info!("stopped");
    }
}

/// Follows the orders for these roles; each change is told once.
fn follow_orders(config: &Config, roles: &[Role], store: &Arc<dyn Store>) -> Orders {
    let (told, orders) = mpsc::channel(8);
    for role in roles {
        let (kind, id) = match role {
            Role::Registrar => (Kind::Registrar, &config.registrar.node),
            Role::MeetingManager => (Kind::MeetingManager, &config.meeting_manager.id),
            Role::Switch => (Kind::Switch, &config.switch.id),
        };
        let mut order = cluster::drain::follow(Arc::clone(store), kind, id);
        let told = told.clone();
        tokio::spawn(async move {
            while order.changed().await.is_ok() {
                let draining = *order.borrow_and_update();
                if told.send((kind, draining)).await.is_err() {
                    return;
                }
            }
        });
    }
    orders
}
