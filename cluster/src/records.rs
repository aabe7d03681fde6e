//! What is kept in the store, and under which keys. Values are JSON with a `version` that only grows.
//!
//! Builds of neighbouring versions share a store while one is upgraded to the other, so a version may only add fields,
//! which have a default where they are absent, and change no meaning. What must not be read by the build before it takes
//! two versions, of which the first already understands it.

use std::net::SocketAddr;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};

/// Version written into records by this build.
pub const RECORD_VERSION: u32 = 1;

/// Latest version that this build reads: that of the build after it, of which it skips what it does not know.
pub const NEWEST_READ: u32 = RECORD_VERSION + 1;

/// Reads a record.
///
/// # Errors
/// It is none of this kind, or of a version beyond [`NEWEST_READ`]: it is to be left as it is and not acted on.
pub fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, serde_json::Error> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(value)?;
    if version > NEWEST_READ {
        return Err(serde_json::Error::custom(format!(
            "of version {version}, and this build reads up to {NEWEST_READ}"
        )));
    }
    serde_json::from_slice(value)
}

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

/// `drain/<kind>/<id>`: an operator wants this one empty. It stands until it is taken back, so that a process that
/// starts anew goes on draining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrder {
    /// Record version.
    pub version: u32,
    /// ms since the Unix epoch, when it was given.
    pub since: u64,
}

/// The kinds of processes that meet in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A meeting manager.
    MeetingManager,
    /// A switch.
    Switch,
    /// A registrar.
    Registrar,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::MeetingManager, Self::Switch, Self::Registrar];

    /// As in keys, certificates and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeetingManager => "meeting-manager",
            Self::Switch => "switch",
            Self::Registrar => "registrar",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| "write meeting-manager, switch or registrar".to_owned())
    }
}

/// Key helpers.
pub mod keys {
    use super::{Kind, ROOT};

    /// The order to drain.
    #[must_use]
    pub fn drain(kind: Kind, id: &str) -> String {
        format!("{ROOT}drain/{kind}/{id}")
    }
    /// All orders to drain one of this kind.
    #[must_use]
    pub fn drains(kind: Kind) -> String {
        format!("{ROOT}drain/{kind}/")
    }

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
