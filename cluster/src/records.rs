//! What is kept in the store, and under which keys. Values are JSON with a `version` that only grows.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Version written into records by this build.
pub const RECORD_VERSION: u32 = 1;

/// Prefix of all keys.
pub const ROOT: &str = "/rostrum/v1/";

/// `member/<id>`, with a lease: a living meeting manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Record version.
    pub version: u32,
    /// Member id.
    pub id: String,
    /// Where registrars send SIP for its meetings: (transport token, address).
    pub sip: Vec<(String, SocketAddr)>,
    /// Base URL of its HTTP API.
    pub api: String,
    /// Load, 0..=1000 per mille.
    pub load: u32,
    /// Takes no new meetings.
    pub draining: bool,
}

/// `switch/<id>`, with a lease: a living switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchRecord {
    /// Record version.
    pub version: u32,
    /// Switch id.
    pub id: String,
    /// Random per start.
    pub instance: String,
    /// Control address, `http://ip:port` or `https://ip:port`.
    pub control: String,
    /// Load, 0..=1000 per mille of capacity.
    pub load: u32,
    /// Takes no new meetings.
    pub draining: bool,
    /// (algorithm, hex digest) of its DTLS certificate.
    pub fingerprints: Vec<(String, String)>,
}

/// `registrar/<id>`, with a lease: a living registrar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrarRecord {
    /// Record version.
    pub version: u32,
    /// Registrar id.
    pub id: String,
    /// URIs for the topmost Route of requests that this cluster's own members send through it, one a transport:
    /// whoever can read the store is taken for one of them, so they are not challenged.
    pub routes: Vec<String>,
    /// Takes no new registrations.
    pub draining: bool,
}

/// `meeting/<id>/owner`: who serves it. Its modification revision is the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Record version.
    pub version: u32,
    /// Member id.
    pub member: String,
}

/// Key helpers.
pub mod keys {
    use super::ROOT;

    /// A living meeting manager.
    #[must_use]
    pub fn member(id: &str) -> String {
        format!("{ROOT}member/{id}")
    }
    /// All of them.
    #[must_use]
    pub fn members() -> String {
        format!("{ROOT}member/")
    }
    /// A living switch.
    #[must_use]
    pub fn switch(id: &str) -> String {
        format!("{ROOT}switch/{id}")
    }
    /// All of them.
    #[must_use]
    pub fn switches() -> String {
        format!("{ROOT}switch/")
    }
    /// A living registrar.
    #[must_use]
    pub fn registrar(id: &str) -> String {
        format!("{ROOT}registrar/{id}")
    }
    /// All of them.
    #[must_use]
    pub fn registrars() -> String {
        format!("{ROOT}registrar/")
    }
    /// Who owns a meeting.
    #[must_use]
    pub fn owner(meeting: &str) -> String {
        format!("{ROOT}owner/{meeting}")
    }
    /// All owners.
    #[must_use]
    pub fn owners() -> String {
        format!("{ROOT}owner/")
    }
    /// A meeting's own record.
    #[must_use]
    pub fn meeting(meeting: &str) -> String {
        format!("{ROOT}meeting/{meeting}")
    }
    /// One dialog of a meeting.
    #[must_use]
    pub fn dialog(meeting: &str, dialog: &str) -> String {
        format!("{ROOT}dialog/{meeting}/{dialog}")
    }
    /// All dialogs of a meeting.
    #[must_use]
    pub fn dialogs(meeting: &str) -> String {
        format!("{ROOT}dialog/{meeting}/")
    }
    /// The bindings of an address of record.
    #[must_use]
    pub fn bindings(aor: &str) -> String {
        format!("{ROOT}binding/{aor}")
    }
    /// All bindings.
    #[must_use]
    pub fn all_bindings() -> String {
        format!("{ROOT}binding/")
    }
    /// Random, made once: names the store, so that an empty or foreign one is told from it.
    #[must_use]
    pub fn identity() -> String {
        format!("{ROOT}store/identity")
    }
    /// Changed by an operator who trusts a store that was restored.
    #[must_use]
    pub fn trust() -> String {
        format!("{ROOT}store/trust")
    }
    /// Written only to make the store's revision grow.
    #[must_use]
    pub fn floor() -> String {
        format!("{ROOT}store/floor")
    }
    /// A cluster-wide secret: `nonce`, `flow`, `guest`.
    #[must_use]
    pub fn secret(name: &str) -> String {
        format!("{ROOT}secret/{name}")
    }
}
