//! Starting, draining and stopping one registrar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use cluster::records::{RECORD_VERSION, RegistrarRecord};
use cluster::{Store, StoreError};
use parking_lot::Mutex;
use rand::RngCore;
use registrar_core::{Advertised, Core, CoreLimits, GuestMint, Settings};
use sip::Transport;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::tls::{CertificateSource, TlsError, Trust};
use transport::{BindError, Listen, Options, Transports, cards};

use crate::config::{Advertise, Config, Invalid, networks, parse_advertise};
use crate::driver::{Driver, Known, Query};
use crate::feed::{self, News, Topic};
use crate::http::Server;
use crate::resolver::Resolver;
use crate::users::UsersError;
use crate::web::{self, Site};
use crate::{admin, metrics, presence, users};

/// How long a stopping registrar waits for connections to end.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long the first reading of the store may take.
const STORE_PATIENCE: Duration = Duration::from_secs(15);

/// Why a registrar does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration does not fit together.
    #[error(transparent)]
    Config(#[from] Invalid),
    /// A SIP listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An HTTP listener.
    #[error("cannot listen on {key} {address}: {source}")]
    Http {
        /// `http`, `https` or `admin`.
        key: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The users' file.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a running registrar is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// SIP over UDP.
    pub udp: Vec<SocketAddr>,
    /// SIP over TCP.
    pub tcp: Vec<SocketAddr>,
    /// SIP over TLS.
    pub tls: Vec<SocketAddr>,
    /// Page, API and SIP over WebSocket.
    pub http: Vec<SocketAddr>,
    /// The same over TLS.
    pub https: Vec<SocketAddr>,
    /// The role's own read-only API.
    pub admin: Option<SocketAddr>,
    /// How clients reach it: (transport, host:port).
    pub advertised: Vec<(Transport, String)>,
}

/// A running registrar. Dropping it stops it at once.
#[derive(Debug)]
pub struct Registrar {
    addresses: Addresses,
    queries: mpsc::Sender<Query>,
    transports: Transports,
    draining: watch::Sender<bool>,
    pending: watch::Receiver<usize>,
    stop: CancellationToken,
    http_stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.http_stop.cancel();
        self.stop.cancel();
    }
}

/// HTTP listeners, open but not served yet.
struct HttpListeners {
    plain: Vec<TcpListener>,
    secure: Vec<TcpListener>,
}

impl Registrar {
    /// Starts a registrar: reads the store, opens the listeners, serves. `web` is asked for every page that is
    /// not part of the API.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(
        config: Config,
        store: Arc<dyn Store>,
        web: Router,
    ) -> Result<Self, StartError> {
        config.check()?;
        let mut config = config;
        if !cards::has_ipv6() {
            for list in [
                &mut config.udp,
                &mut config.tcp,
                &mut config.tls,
                &mut config.http,
                &mut config.https,
            ] {
                pass_over_ipv6(list);
            }
        }
        metrics::describe();
        // Watched first and read second, so that no change falls between.
        let has_users = !config.users.as_os_str().is_empty();
        let watched = has_users.then(|| users::Watched::new(&config.users));
        let table = if has_users {
            users::load(&config.users, config.realm())?
        } else {
            registrar_core::Users::default()
        };
        users::warn_of_shut_out(&table, &config.digest, config.lets_guests_in());
        let loading = load(store.as_ref());
        let (secrets, readings) = tokio::time::timeout(STORE_PATIENCE, loading)
            .await
            .map_err(|_| StoreError::Unavailable("no answer".into()))??;

        let identity = load_identity(&config)?;
        let tls = identity.server_config()?;
        let (transports, input) = Transports::bind(
            &listeners(&config),
            Some(Arc::clone(&tls)),
            transport_options(&config)?,
        )?;
        let mut addresses = Addresses::default();
        for listen in transports.local_addresses() {
            match listen.transport {
                Transport::Udp => addresses.udp.push(listen.address),
                Transport::Tcp => addresses.tcp.push(listen.address),
                _ => addresses.tls.push(listen.address),
            }
        }
        let http = bind_http(&config, &mut addresses)?;
        let settings = settings(&config, &addresses)?;
        addresses.advertised = settings
            .advertised
            .iter()
            .map(|a| (a.transport, a.host_port()))
            .collect();
        if config.advertise.is_empty() {
            tracing::info!(advertised = ?addresses.advertised, "advertised addresses chosen; set advertise to change them");
        }

        let stop = CancellationToken::new();
        let http_stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (news_in, news) = mpsc::channel(1_024);
        let (queries, query_out) = mpsc::channel(64);
        let mut core = new_core(settings.clone(), &secrets);
        core.handle_users(table);
        core.handle_factories(config.factories.iter().cloned().collect());
        let mut known = Known::default();
        for (topic, entries, revision) in readings {
            known.take(&mut core, News::All(topic, entries));
            tasks.spawn(feed::follow(
                Arc::clone(&store),
                topic,
                revision,
                news_in.clone(),
            ));
        }
        let record = RegistrarRecord {
            version: RECORD_VERSION,
            id: config.node.clone(),
            routes: core.member_routes(),
            draining: false,
        };
        let (draining, is_draining) = watch::channel(false);
        tasks.spawn(presence::announce(
            Arc::clone(&store),
            record,
            is_draining,
            stop.clone(),
        ));
        let (pending_in, pending) = watch::channel(0);
        let driver = Driver {
            core,
            transports: transports.clone(),
            store,
            resolver: Resolver::new(),
            input,
            news,
            queries: query_out,
            stop: stop.clone(),
            pending: pending_in,
            users: watched.map(|w| {
                (
                    w,
                    config.realm().to_owned(),
                    config.digest.clone(),
                    config.lets_guests_in(),
                )
            }),
        };
        tasks.spawn(driver.run(known));

        let site = Arc::new(site(&config, &settings, &addresses, &secrets, &transports));
        let server = Server {
            router: web::router(site, web),
            balancers: networks("proxy_protocol_from", &config.proxy_protocol_from)?.into(),
            slots: Arc::new(Semaphore::new(config.limits.http_connections)),
            stop: http_stop.clone(),
            tasks: tasks.clone(),
        };
        for listener in http.plain {
            server.serve(listener, None);
        }
        for listener in http.secure {
            server.serve(listener, Some(TlsAcceptor::from(Arc::clone(&tls))));
        }
        let mut registrar = Self {
            addresses,
            queries,
            transports,
            draining,
            pending,
            stop,
            http_stop,
            tasks,
        };
        registrar.serve_admin(&config)?;
        Ok(registrar)
    }

    fn serve_admin(&mut self, config: &Config) -> Result<(), StartError> {
        let Some(address) = config.admin else {
            return Ok(());
        };
        let failed = |source| StartError::Http {
            key: "admin",
            address,
            source,
        };
        let (listener, local) = Server::bind(address).map_err(failed)?;
        self.addresses.admin = Some(local);
        let server = Server {
            router: self.admin_router(),
            balancers: Arc::default(),
            slots: Arc::new(Semaphore::new(64)),
            stop: self.http_stop.clone(),
            tasks: self.tasks.clone(),
        };
        server.serve(listener, None);
        Ok(())
    }

    /// Where it listens, with the ports it really has.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The read-only JSON view: `/api/v1/registrations`, `/api/v1/flows`, `/api/v1/registrar`.
    pub fn admin_router(&self) -> Router {
        admin::router(self.queries.clone())
    }

    /// While draining, new registrations are refused with Retry-After and OPTIONS with 503, so that clients and load
    /// balancers go elsewhere; what runs goes on.
    pub async fn set_draining(&self, draining: bool) {
        self.draining.send_replace(draining);
        let _ = self
            .queries
            .send(Box::new(move |core| core.handle_draining(draining)))
            .await;
    }

    /// From now on requests outside dialogs are refused with Retry-After as well, so that nothing is left soon. For when
    /// those who look know that this registrar drains.
    pub async fn close(&self) {
        let _ = self
            .queries
            .send(Box::new(|core| core.handle_closing()))
            .await;
    }

    /// Requests that no final response was given to yet: calls that ring, registrations at the store, requests
    /// waiting for a meeting's new owner. A drained registrar may stop once this is 0.
    #[must_use]
    pub fn pending(&self) -> usize {
        *self.pending.borrow()
    }

    /// Waits until [`Self::pending`] is 0, or the registrar has stopped.
    pub async fn idle(&self) {
        let mut pending = self.pending.clone();
        let _ = pending.wait_for(|count| *count == 0).await;
    }

    /// Stops: no new connections, what is queued is sent, everything ends.
    pub async fn shutdown(self) {
        self.http_stop.cancel();
        self.transports.shutdown(GOODBYE).await;
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(GOODBYE, self.tasks.wait()).await;
    }
}

type Reading = (Topic, Vec<cluster::Entry>, cluster::Revision);

async fn load(store: &dyn Store) -> Result<(registrar_core::Secrets, Vec<Reading>), StoreError> {
    let secrets = feed::secrets(store).await?;
    let mut readings = Vec::new();
    for topic in Topic::ALL {
        let (entries, revision) = feed::read_all(store, &topic.prefix()).await?;
        readings.push((topic, entries, revision));
    }
    Ok((secrets, readings))
}

fn new_core(settings: Settings, secrets: &registrar_core::Secrets) -> Core {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let generation = rand::rng().next_u32();
    Core::new(Instant::now(), settings, secrets, seed, generation)
}

fn load_identity(config: &Config) -> Result<transport::tls::Identity, StartError> {
    let source = match (&config.certificate, &config.key) {
        (Some(chain), Some(key)) => CertificateSource::Pem {
            chain: chain.clone(),
            key: key.clone(),
        },
        _ => CertificateSource::Directory(config.data.clone()),
    };
    let mut names = config.domains();
    names.extend(
        config
            .advertise
            .iter()
            .filter_map(|a| Some(parse_advertise(a)?.host)),
    );
    names.extend(config.web_hosts.iter().map(|h| h.to_ascii_lowercase()));
    let found = [false, true].into_iter().flat_map(cards::all);
    names.extend(found.map(|ip| ip.to_string()));
    names.sort();
    names.dedup();
    Ok(transport::tls::load_or_generate(&source, &names)?)
}

fn listeners(config: &Config) -> Vec<Listen> {
    let of = |transport, list: &[SocketAddr]| {
        list.iter()
            .map(move |address| Listen {
                transport,
                address: *address,
            })
            .collect::<Vec<_>>()
    };
    let mut all = of(Transport::Udp, &config.udp);
    all.extend(of(Transport::Tcp, &config.tcp));
    all.extend(of(Transport::Tls, &config.tls));
    all
}

fn transport_options(config: &Config) -> Result<Options, StartError> {
    let client_tls = match transport::tls::client_config(&Trust::System) {
        Ok(client) => Some(client),
        Err(error) => {
            tracing::warn!(%error, "outgoing TLS connections will fail");
            None
        }
    };
    Ok(Options {
        proxy_protocol_from: networks("proxy_protocol_from", &config.proxy_protocol_from)?,
        client_tls,
        max_connections: config.limits.connections,
        max_connections_per_source: config.limits.connections_per_source,
        ..Options::default()
    })
}

fn bind_http(config: &Config, addresses: &mut Addresses) -> Result<HttpListeners, StartError> {
    let mut open = HttpListeners {
        plain: Vec::new(),
        secure: Vec::new(),
    };
    for (key, list) in [("http", &config.http), ("https", &config.https)] {
        for address in list {
            let failed = |source| StartError::Http {
                key,
                address: *address,
                source,
            };
            let (listener, local) = Server::bind(*address).map_err(failed)?;
            if key == "http" {
                open.plain.push(listener);
                addresses.http.push(local);
            } else {
                open.secure.push(listener);
                addresses.https.push(local);
            }
        }
    }
    Ok(open)
}

/// Drops `[::]` where IPv4 is listened on too: the default must work on machines without IPv6.
fn pass_over_ipv6(list: &mut Vec<SocketAddr>) {
    if list.iter().any(SocketAddr::is_ipv4) {
        list.retain(|a| a.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
}

/// How a listener is reached where nobody said: as it listens, or by any card, the one that others most likely use
/// first.
fn own_addresses(listening: IpAddr, cards: &[IpAddr]) -> Vec<IpAddr> {
    if !listening.is_unspecified() {
        return vec![listening];
    }
    let of_family = |ip: &&IpAddr| ip.is_ipv6() == listening.is_ipv6();
    let mut own: Vec<IpAddr> = cards.iter().filter(of_family).copied().collect();
    if own.is_empty() {
        own.push(match listening {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    own
}

/// Every listener as others reach it. An entry that is a literal address is for the listener that has this address,
/// else for those of its own family: a client of the other one could not send there. Where none of them has that
/// family, whoever stands in front of us translates, and it is for all.
fn advertise(
    entries: &[String],
    listening: &[(Transport, SocketAddr)],
    cards: &[IpAddr],
) -> Vec<Advertised> {
    let mut all = Vec::new();
    let parsed: Vec<_> = entries.iter().filter_map(|e| parse_advertise(e)).collect();
    for (transport, address) in listening {
        let any = |is: &dyn Fn(IpAddr) -> bool| {
            let mut own = listening.iter().filter(|(t, _)| t == transport);
            own.any(|(_, a)| is(a.ip()))
        };
        let is_fitting = |entry: &&Advertise| {
            let is_for = match entry.host.parse::<IpAddr>() {
                Ok(ip) if any(&|own| own == ip) => ip == address.ip(),
                Ok(ip) if any(&|own| own.is_ipv6() == ip.is_ipv6()) => {
                    ip.is_ipv6() == address.is_ipv6()
                }
                _ => true,
            };
            is_for && entry.transport.is_none_or(|t| t == *transport)
        };
        let before = all.len();
        all.extend(parsed.iter().filter(is_fitting).map(|a| Advertised {
            transport: *transport,
            host: a.host.clone(),
            port: a.port.unwrap_or(address.port()),
        }));
        if all.len() == before {
            let own = own_addresses(address.ip(), cards).into_iter();
            all.extend(own.map(|ip| Advertised {
                transport: *transport,
                host: ip.to_string(),
                port: address.port(),
            }));
        }
    }
    all.dedup();
    all
}

fn settings(config: &Config, addresses: &Addresses) -> Result<Settings, StartError> {
    let mut listening = Vec::new();
    for (transport, list) in [
        (Transport::Udp, &addresses.udp),
        (Transport::Tcp, &addresses.tcp),
        (Transport::Tls, &addresses.tls),
        (Transport::Ws, &addresses.http),
        (Transport::Wss, &addresses.https),
    ] {
        listening.extend(list.iter().map(|a| (transport, *a)));
    }
    let cards: Vec<IpAddr> = [false, true].into_iter().flat_map(cards::all).collect();
    let internal = if config.advertise_internal.is_empty() {
        Vec::new()
    } else {
        advertise(&config.advertise_internal, &listening, &cards)
    };
    Ok(Settings {
        node: config.node.clone(),
        domains: config.domains(),
        realm: config.realm().to_owned(),
        advertised: advertise(&config.advertise, &listening, &cards),
        internal,
        datagram_sockets: addresses.udp.clone(),
        trusted: networks("trusted_networks", &config.trusted_networks)?,
        relay: config.relay,
        foreign_callers: config.foreign_callers,
        min_expires: config.min_expires,
        max_expires: config.max_expires,
        default_expires: config.default_expires,
        flow_timer: config.flow_timer,
        digest: config.digest.clone(),
        guests: config.lets_guests_in(),
        service_route: config.service_route,
        limits: CoreLimits {
            bindings_per_aor: config.limits.contacts_per_user,
            contexts: config.limits.requests,
            branches: config.limits.branches,
            failures_per_source: config.limits.wrong_passwords_per_minute,
            ..CoreLimits::default()
        },
        ..Settings::default()
    })
}

fn site(
    config: &Config,
    settings: &Settings,
    addresses: &Addresses,
    secrets: &registrar_core::Secrets,
    transports: &Transports,
) -> Site {
    let mut hosts = settings.domains.clone();
    hosts.extend(config.web_hosts.iter().map(|h| h.to_ascii_lowercase()));
    hosts.extend(
        settings
            .advertised
            .iter()
            .map(|a| a.host.to_ascii_lowercase()),
    );
    hosts.sort();
    hosts.dedup();
    let https_port = settings
        .advertised
        .iter()
        .find(|a| a.transport == Transport::Wss)
        .map(|a| a.port)
        .or_else(|| addresses.https.first().map(SocketAddr::port));
    Site {
        domain: settings.domain_in_uri(),
        realm: settings.realm.clone(),
        meetings: config.meetings.clone(),
        guests: GuestMint::new(secrets.guest),
        guest_lifetime: config.guest_lifetime(),
        hosts,
        https_port,
        transports: transports.clone(),
        issued: Mutex::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(entries: &[&str], listening: &[&str]) -> Vec<String> {
        let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
        let listening: Vec<_> = listening
            .iter()
            .map(|a| (Transport::Udp, a.parse().expect("an address")))
            .collect();
        let cards = ["192.0.2.7", "198.51.100.7", "2001:db8::7"];
        let cards = cards.map(|ip| ip.parse().expect("an address"));
        let advertised = advertise(&entries, &listening, &cards);
        advertised.iter().map(Advertised::host_port).collect()
    }

    #[test]
    fn a_literal_is_advertised_for_listeners_of_its_own_family() {
        let both = ["203.0.113.5", "2001:db8::5"];
        assert_eq!(
            told(&both, &["0.0.0.0:5060", "[::]:5062"]),
            ["203.0.113.5:5060", "[2001:db8::5]:5062"]
        );
        assert_eq!(
            told(&["203.0.113.5"], &["10.0.0.1:5060", "[::1]:5062"]),
            ["203.0.113.5:5060", "[::1]:5062"]
        );
    }

    #[test]
    fn a_listener_on_all_cards_is_advertised_by_each_of_them() {
        assert_eq!(
            told(&[], &["0.0.0.0:5060", "[::]:5060"]),
            ["192.0.2.7:5060", "198.51.100.7:5060", "[2001:db8::7]:5060"]
        );
        assert_eq!(told(&[], &["10.0.0.1:5060"]), ["10.0.0.1:5060"]);
        assert_eq!(
            told(&["203.0.113.5"], &["0.0.0.0:5060"]),
            ["203.0.113.5:5060"]
        );
    }

    #[test]
    fn a_listener_on_a_card_is_advertised_by_that_card() {
        assert_eq!(
            told(
                &["192.0.2.7", "198.51.100.7"],
                &["192.0.2.7:5060", "198.51.100.7:5062"]
            ),
            ["192.0.2.7:5060", "198.51.100.7:5062"]
        );
    }

    #[test]
    fn a_machine_without_ipv6_listens_on_what_it_has() {
        let parse = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let mut both = vec![parse("0.0.0.0:5060"), parse("[::]:5060")];
        pass_over_ipv6(&mut both);
        assert_eq!(both, [parse("0.0.0.0:5060")]);
        // who asked for IPv6 alone is told that it cannot be had
        let mut alone = vec![parse("[::]:5060")];
        pass_over_ipv6(&mut alone);
        assert_eq!(alone.len(), 1);
    }

    #[test]
    fn names_are_for_all_listeners_and_a_foreign_family_for_those_behind_a_translator() {
        assert_eq!(
            told(&["sip.example.org"], &["0.0.0.0:5060", "[::]:5060"]),
            ["sip.example.org:5060"]
        );
        assert_eq!(
            told(&["udp:[2001:db8::5]:5070"], &["10.0.0.1:5060"]),
            ["[2001:db8::5]:5070"]
        );
    }
}
