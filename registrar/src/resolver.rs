//! Where requests to another domain go: NAPTR, SRV, A and AAAA (RFC 3263 §4).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
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
        if services.is_empty() {
            let tried: &[Transport] = match (named, secure) {
                (true, _) => &[transport],
                (false, true) => &[Transport::Tls],
                (false, false) => &[Transport::Udp, Transport::Tcp, Transport::Tls],
            };
            for transport in tried {
                let name = format!("{}.{host}.", service_label(*transport, secure));
                services.extend(self.srv(&name, *transport).await);
            }
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
            services.extend(self.srv(&name, transport).await);
        }
        services
    }

    /// By priority, and within one the heavier first (RFC 2782 draws lots; the order only matters under load).
    async fn srv(&self, name: &str, transport: Transport) -> Vec<Service> {
        let Some(dns) = &self.dns else {
            return Vec::new();
        };
        let Ok(found) = dns.lookup(name.to_owned(), RecordType::SRV).await else {
            return Vec::new();
        };
        let mut services: Vec<Service> = found
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
        services.sort_by_key(|s| (s.priority, std::cmp::Reverse(s.weight)));
        services
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

    #[test]
    fn naptr_services_name_their_transport() {
        assert_eq!(naptr_transport("SIPS+D2T"), Some(Transport::Tls));
        assert_eq!(naptr_transport("sip+d2u"), Some(Transport::Udp));
        assert_eq!(naptr_transport("E2U+sip"), None);
    }
}
