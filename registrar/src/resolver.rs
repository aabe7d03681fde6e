//! Where requests to another domain go: NAPTR, SRV, A and AAAA (RFC 3263 §4).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use rand::Rng as _;
use sip::{Transport, Uri};

/// Longest look-up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Addresses tried for one URI.
const ADDRESSES_MAX: usize = 8;

/// Looks names up; without a system configuration it finds nothing but literal addresses and `localhost`.
#[derive(Clone)]
pub(crate) struct Resolver {
    dns: Option<Arc<TokioResolver>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

/// What a name says of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// Where it is, the first choice first; empty where the name says nothing.
    At(Vec<Service>),
    /// Its one target is the root: decidedly not here.
    NotHere,
}

/// One record that leads to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    transport: Transport,
    priority: u16,
    weight: u16,
    host: String,
    port: u16,
}

fn service_label(transport: Transport, secure: bool) -> &'static str {
    match (transport, secure) {
        (Transport::Udp, _) => "_sip._udp",
        (Transport::Tls, _) | (Transport::Tcp, true) => "_sips._tcp",
        (Transport::Tcp, false) => "_sip._tcp",
        (Transport::Ws, _) => "_sip._ws",
        (Transport::Wss, _) => "_sips._ws",
    }
}

/// RFC 3263 §4.1: the service field of a NAPTR record.
fn naptr_transport(service: &str) -> Option<Transport> {
    match service.to_ascii_uppercase().as_str() {
        "SIP+D2U" => Some(Transport::Udp),
        "SIP+D2T" => Some(Transport::Tcp),
        "SIPS+D2T" => Some(Transport::Tls),
        _ => None,
    }
}

/// What the records of a name say, in an order drawn by `draw`, which gives a number from 0 to its argument.
///
/// RFC 2782: a lower priority first; among equals, each is the next with a chance that grows with its weight, and those
/// of weight 0 have next to none while there are others.
fn answer(mut left: Vec<Service>, mut draw: impl FnMut(u32) -> u32) -> Answer {
    let had_any = !left.is_empty();
    left.retain(|service| service.host != ".");
    if had_any && left.is_empty() {
        return Answer::NotHere;
    }
    left.sort_by_key(|service| (service.priority, service.weight));
    let mut drawn = Vec::with_capacity(left.len());
    while let Some(first) = left.first() {
        let priority = first.priority;
        let equals = || left.iter().take_while(|s| s.priority == priority);
        let sum: u32 = equals().map(|s| u32::from(s.weight)).sum();
        let lot = draw(sum);
        let mut running = 0;
        let at = equals().position(|service| {
            running += u32::from(service.weight);
            running >= lot
        });
        drawn.push(left.remove(at.unwrap_or(0)));
    }
    Answer::At(drawn)
}

impl Resolver {
    /// With the system's configuration.
    pub(crate) fn new() -> Self {
        let dns = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .map(Arc::new);
        if let Err(error) = &dns {
            tracing::warn!(%error, "no DNS: calls to other domains will fail");
        }
        Self { dns: dns.ok() }
    }

    /// Where to try, the first choice first; empty where there is nothing.
    pub(crate) async fn resolve(&self, uri: &Uri) -> Vec<(Transport, SocketAddr)> {
        match tokio::time::timeout(PATIENCE, self.look_up(uri)).await {
            Ok(mut hosts) => {
                hosts.truncate(ADDRESSES_MAX);
                hosts
            }
            Err(_) => Vec::new(),
        }
    }

    async fn look_up(&self, uri: &Uri) -> Vec<(Transport, SocketAddr)> {
        let host = uri.param("maddr").unwrap_or(&uri.host);
        let named = uri.param("transport").is_some();
        let Some(transport) = uri.transport() else {
            return Vec::new();
        };
        if let Ok(ip) = host.parse() {
            let port = uri.port.unwrap_or(transport.default_port());
            return vec![(transport, SocketAddr::new(ip, port))];
        }
        if host.is_empty() || host.ends_with(".invalid") {
            // RFC 7118 §5: such a name is a browser's, and leads nowhere.
            return Vec::new();
        }
        if let Some(port) = uri.port {
            return self.addresses(host, transport, port).await;
        }
        let secure = uri.is_secure();
        let mut services = Vec::new();
        if !named {
            services = self.by_naptr(host, secure).await;
        }
        let mut not_here = Vec::new();
        if services.is_empty() {
            let tried: &[Transport] = match (named, secure) {
                (true, _) => &[transport],
                (false, true) => &[Transport::Tls],
                (false, false) => &[Transport::Udp, Transport::Tcp, Transport::Tls],
            };
            for transport in tried {
                let name = format!("{}.{host}.", service_label(*transport, secure));
                match self.srv(&name, *transport).await {
                    Answer::At(found) => services.extend(found),
                    Answer::NotHere => not_here.push(*transport),
                }
            }
        }
        if services.is_empty() && not_here.contains(&transport) {
            return Vec::new();
        }
        if services.is_empty() {
            let port = transport.default_port();
            return self.addresses(host, transport, port).await;
        }
        let mut hosts = Vec::new();
        for service in services.into_iter().take(ADDRESSES_MAX) {
            let Service {
                transport,
                host,
                port,
                ..
            } = service;
            hosts.extend(self.addresses(&host, transport, port).await);
        }
        hosts
    }

    async fn by_naptr(&self, host: &str, secure: bool) -> Vec<Service> {
        let Some(dns) = &self.dns else {
            return Vec::new();
        };
        let Ok(found) = dns.lookup(format!("{host}."), RecordType::NAPTR).await else {
            return Vec::new();
        };
        let mut pointers: Vec<(u16, u16, Transport, String)> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::NAPTR(naptr) if naptr.flags.eq_ignore_ascii_case(b"s") => {
                    let service = String::from_utf8_lossy(&naptr.services).into_owned();
                    let transport = naptr_transport(&service)?;
                    (!secure || transport.is_secure()).then(|| {
                        (
                            naptr.order,
                            naptr.preference,
                            transport,
                            naptr.replacement.to_string(),
                        )
                    })
                }
                _ => None,
            })
            .collect();
        pointers.sort();
        let mut services = Vec::new();
        for (_, _, transport, name) in pointers.into_iter().take(ADDRESSES_MAX) {
            if let Answer::At(found) = self.srv(&name, transport).await {
                services.extend(found);
            }
        }
        services
    }

    async fn srv(&self, name: &str, transport: Transport) -> Answer {
        let Some(dns) = &self.dns else {
            return Answer::At(Vec::new());
        };
        let Ok(found) = dns.lookup(name.to_owned(), RecordType::SRV).await else {
            return Answer::At(Vec::new());
        };
        let services: Vec<Service> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Service {
                    transport,
                    priority: srv.priority,
                    weight: srv.weight,
                    host: srv.target.to_string(),
                    port: srv.port,
                }),
                _ => None,
            })
            .collect();
        answer(services, |most| rand::rng().random_range(0..=most))
    }

    async fn addresses(
        &self,
        host: &str,
        transport: Transport,
        port: u16,
    ) -> Vec<(Transport, SocketAddr)> {
        if let Some(dns) = &self.dns
            && let Ok(found) = dns.lookup_ip(host.to_owned()).await
        {
            return found
                .iter()
                .map(|ip| (transport, SocketAddr::new(ip, port)))
                .collect();
        }
        // The system's own files know names that no server does.
        match tokio::net::lookup_host((host.trim_end_matches('.'), port)).await {
            Ok(found) => found.map(|address| (transport, address)).collect(),
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literal_addresses_need_no_dns_and_invalid_names_lead_nowhere() {
        let resolver = Resolver { dns: None };
        let at = |t: &str| Uri::parse(t).expect("a URI");
        assert_eq!(
            resolver
                .resolve(&at("sip:bob@[::1]:5070;transport=tcp"))
                .await,
            [(Transport::Tcp, "[::1]:5070".parse().expect("address"))]
        );
        assert_eq!(
            resolver
                .resolve(&at("sip:x@abc.invalid;transport=ws"))
                .await,
            []
        );
    }

    fn service(priority: u16, weight: u16, host: &str) -> Service {
        Service {
            transport: Transport::Udp,
            priority,
            weight,
            host: host.into(),
            port: 5060,
        }
    }

    #[test]
    fn hosts_of_equal_priority_are_drawn_by_weight() {
        let all = || {
            vec![
                service(20, 5, "later."),
                service(10, 3, "heavy."),
                service(10, 0, "spare."),
                service(10, 1, "light."),
            ]
        };
        let order = |lots: &[u32]| -> Vec<String> {
            let mut lots = lots.iter().copied();
            let Answer::At(drawn) = answer(all(), |most| lots.next().unwrap_or(0).min(most)) else {
                panic!("there are hosts");
            };
            drawn.into_iter().map(|s| s.host).collect()
        };
        assert_eq!(order(&[4, 1, 0]), ["heavy.", "light.", "spare.", "later."]);
        assert_eq!(order(&[1, 3, 0]), ["light.", "heavy.", "spare.", "later."]);
        assert_eq!(order(&[0, 0, 0]), ["spare.", "light.", "heavy.", "later."]);
        let mut first = 0;
        for lot in 0..=4 {
            first += u32::from(order(&[lot])[0] == "heavy.");
        }
        assert_eq!(first, 3, "of five lots");
    }

    #[test]
    fn target_that_is_the_root_says_that_the_service_is_not_here() {
        assert_eq!(answer(vec![service(0, 0, ".")], |_| 0), Answer::NotHere);
        assert_eq!(answer(Vec::new(), |_| 0), Answer::At(Vec::new()));
    }

    #[test]
    fn naptr_services_name_their_transport() {
        assert_eq!(naptr_transport("SIPS+D2T"), Some(Transport::Tls));
        assert_eq!(naptr_transport("sip+d2u"), Some(Transport::Udp));
        assert_eq!(naptr_transport("E2U+sip"), None);
    }
}
