//! Which registrars live: a dialog's first hop is the one that its client came through, and where that one is gone
//! another takes its requests, since it knows the same Routes and where the client is now (RFC 5626 §5.3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sip::{Transport, Uri};

/// Addresses of registrars that are gone that are remembered; more than ever leave while a dialog lasts.
const MAX_GONE: usize = 1_024;

type Address = (Transport, SocketAddr);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Registrars {
    /// What each living one takes requests at.
    living: BTreeMap<String, Vec<Address>>,
    gone: BTreeSet<Address>,
}

impl Registrars {
    /// Those that live now, each with its Route URIs, one a transport. One whose URI has a host name is reached as the
    /// dialogs say, never instead of another.
    pub(crate) fn set(&mut self, living: &BTreeMap<String, Vec<String>>) {
        let before = std::mem::take(&mut self.living);
        let addresses = |routes: &Vec<String>| routes.iter().filter_map(|r| address(r)).collect();
        self.living = living
            .iter()
            .map(|(id, routes)| (id.clone(), addresses(routes)))
            .collect();
        self.gone.extend(before.into_values().flatten());
        for address in self.living.values().flatten() {
            self.gone.remove(address);
        }
        while self.gone.len() > MAX_GONE {
            self.gone.pop_first();
        }
    }

    /// Whether a registrar was there and is gone.
    pub(crate) fn is_gone(&self, transport: Transport, remote: SocketAddr) -> bool {
        self.gone.contains(&(transport, remote))
    }

    /// A living one, by the same transport; `salt` spreads them.
    pub(crate) fn another(
        &self,
        transport: Transport,
        remote: SocketAddr,
        salt: u64,
    ) -> Option<SocketAddr> {
        let others: Vec<SocketAddr> = self
            .living
            .values()
            .filter_map(|all| all.iter().find(|(t, _)| *t == transport))
            .map(|(_, address)| *address)
            .filter(|address| *address != remote)
            .collect();
        let count = u64::try_from(others.len()).ok().filter(|n| *n > 0)?;
        let at = usize::try_from(salt % count).ok()?;
        others.get(at).copied()
    }
}

fn address(route: &str) -> Option<Address> {
    let uri = Uri::parse(route).ok()?;
    let transport = uri.transport()?;
    let port = uri.port.unwrap_or_else(|| transport.default_port());
    Some((transport, SocketAddr::new(uri.ip()?, port)))
}
