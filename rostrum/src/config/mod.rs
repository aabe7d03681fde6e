//! The configuration file: one table a role, and what they share.

pub mod check;
pub mod template;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::observe::Log;
use check::{Problem, Source};

/// Everything a file can say. A role reads its own table and the shared ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Logs.
    pub log: Log,
    /// The operator's HTTP port.
    pub admin: Admin,
    /// Where the cluster's state is kept: registrations, meetings, dialogs.
    pub store: Store,
    /// rostrum registrar
    pub registrar: registrar::Config,
    /// rostrum meeting-manager
    pub meeting_manager: meeting_manager::Config,
    /// rostrum switch
    pub switch: switch::Config,
}

/// The operator's HTTP port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address of /metrics, /healthz, /readyz and the read-only views. There is no password: keep it on loopback or on a
    /// network of the operators' own. Roles that run on one machine need one each.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
        }
    }
}

/// Which engine keeps the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// An etcd cluster, shared by all processes.
    #[default]
    Etcd,
    /// A file of this one process.
    Embedded,
}

/// Where the cluster's state is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// "etcd": roles in several processes share it. "embedded": a file of this one process, as rostrum lab uses it.
    pub engine: Engine,
    /// Client URLs of the etcd members. etcd should run with --heartbeat-interval=50 --election-timeout=500: with its
    /// default election timeout it grants no lease as short as the cluster's.
    pub endpoints: Vec<String>,
    /// User, where etcd's authentication is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// PEM file with the authority that signed etcd's certificates; not set: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with our client certificate, where etcd asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the client certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// How long one request to etcd may take, milliseconds. Below about 2500, writes fail while etcd elects a leader.
    pub timeout_ms: u64,
    /// Directory of the embedded engine's file.
    pub path: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        let etcd = cluster::EtcdConfig::default();
        Self {
            engine: Engine::Etcd,
            endpoints: etcd.endpoints,
            user: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            timeout_ms: etcd.timeout_ms,
            path: "data/store".into(),
        }
    }
}

impl Store {
    /// For the cluster crate.
    pub fn engine(&self) -> cluster::StoreConfig {
        match self.engine {
            Engine::Embedded => cluster::StoreConfig::Embedded(cluster::EmbeddedConfig {
                path: self.path.clone(),
            }),
            Engine::Etcd => cluster::StoreConfig::Etcd(cluster::EtcdConfig {
                endpoints: self.endpoints.clone(),
                user: self.user.clone(),
                password: self.password.clone(),
                ca_file: self.ca_file.clone(),
                cert_file: self.cert_file.clone(),
                key_file: self.key_file.clone(),
                timeout_ms: self.timeout_ms,
            }),
        }
    }
}

/// The roles a process can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Registrar,
    MeetingManager,
    Switch,
}

/// A file, with the environment over it, and nothing wrong with what `roles` read of it.
pub fn load(path: &Path, roles: &[Role]) -> Result<Config, Vec<Problem>> {
    let source = Source::read(path).map_err(|p| vec![p])?;
    let environment: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| name.starts_with("ROSTRUM_"))
        .collect();
    let config: Config = source.parse(&environment).map_err(|p| vec![p])?;
    let problems = problems(&config, roles, &source);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}

/// The commented default.
pub fn default_file() -> String {
    let values = toml::Table::try_from(Config::default()).expect("the defaults serialize");
    let schema = serde_json::to_value(schemars::schema_for!(Config)).expect("a schema is JSON");
    format!(
        "# Rostrum's configuration. Every setting stands here with its default; what you leave out stays as it is here.\n\
         # Environment variables override: ROSTRUM_REGISTRAR__DOMAIN=example.org sets domain in [registrar].\n\n{}",
        template::render(&values, &schema)
    )
}

fn problems(config: &Config, roles: &[Role], source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |table: &str, key: &str, what: String, instead: String| {
        problems.push(source.problem(&format!("{table}.{key}"), format!("{key}: {what}"), instead));
    };
    if roles.contains(&Role::Registrar)
        && let Err(e) = config.registrar.check()
    {
        add("registrar", e.key, e.what, format!("write {}", e.instead));
    }
    if roles.contains(&Role::MeetingManager)
        && let Err(e) = config.meeting_manager.check()
    {
        add(
            "meeting_manager",
            e.key,
            e.what,
            format!("write {}", e.instead),
        );
    }
    if roles.contains(&Role::Switch)
        && let Err(e) = config.switch.check()
    {
        add("switch", e.key, e.what, e.instead);
    }
    if config.store.engine == Engine::Etcd && config.store.endpoints.is_empty() {
        add(
            "store",
            "endpoints",
            "no etcd to talk to".into(),
            "write [\"http://127.0.0.1:2379\"]".into(),
        );
    }
    if config.store.engine == Engine::Embedded && roles.len() == 1 {
        add(
            "store",
            "engine",
            "\"embedded\" is a file of one process: roles in several processes do not see each other".into(),
            "write \"etcd\", or use rostrum lab".into(),
        );
    }
    problems.extend(clashes(config, roles, source));
    problems
}

/// A listening address: where it is written, and the kind of port.
struct Listener {
    key: String,
    stream: bool,
    address: SocketAddr,
}

fn listeners(config: &Config, roles: &[Role]) -> Vec<Listener> {
    let mut all = Vec::new();
    let mut add = |key: &str, stream: bool, addresses: &[SocketAddr]| {
        all.extend(addresses.iter().map(|a| Listener {
            key: key.to_owned(),
            stream,
            address: *a,
        }));
    };
    add("admin.listen", true, &[config.admin.listen]);
    if roles.contains(&Role::Registrar) {
        let r = &config.registrar;
        add("registrar.udp", false, &r.udp);
        add("registrar.tcp", true, &r.tcp);
        add("registrar.tls", true, &r.tls);
        add("registrar.http", true, &r.http);
        add("registrar.https", true, &r.https);
    }
    if roles.contains(&Role::MeetingManager) {
        add("meeting_manager.udp", false, &config.meeting_manager.udp);
        add("meeting_manager.tcp", true, &config.meeting_manager.tcp);
    }
    if roles.contains(&Role::Switch) {
        add("switch.control", true, &[config.switch.control]);
        let workers = u16::try_from(config.switch.workers()).unwrap_or(u16::MAX);
        for ip in &config.switch.listen {
            for worker in 0..workers.min(64) {
                let port =
                    config
                        .switch
                        .webrtc_port
                        .saturating_add(if config.switch.webrtc_port == 0 {
                            0
                        } else {
                            worker
                        });
                add("switch.webrtc_port", false, &[SocketAddr::new(*ip, port)]);
            }
        }
    }
    all
}

/// Two listeners on one port.
fn clashes(config: &Config, roles: &[Role], source: &Source) -> Vec<Problem> {
    let all = listeners(config, roles);
    let mut problems = Vec::new();
    for (i, a) in all.iter().enumerate() {
        for b in &all[..i] {
            let same_port = a.stream == b.stream
                && a.address.port() == b.address.port()
                && a.address.port() != 0;
            if same_port && overlap(a.address.ip(), b.address.ip()) {
                let what = format!("port {} is also that of {}", a.address.port(), b.key);
                problems.push(source.problem(
                    &a.key,
                    format!("{}: {what}", a.key),
                    "give one of them another port",
                ));
            }
        }
    }
    problems
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Role; 3] = [Role::Registrar, Role::MeetingManager, Role::Switch];

    fn write(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("writes");
        file
    }

    #[test]
    fn the_default_file_is_valid_and_says_the_defaults() {
        let file = write(&default_file());
        assert_eq!(load(file.path(), &ALL).expect("valid"), Config::default());
    }

    #[test]
    fn every_key_of_the_default_file_has_a_comment() {
        let mut comment = false;
        for line in default_file().lines() {
            let is_key = line.contains(" =") && !line.starts_with("# Environment");
            assert!(!is_key || comment, "no comment above {line:?}");
            comment = line.starts_with("# ") && line.len() > 2;
        }
    }

    #[test]
    fn two_listeners_on_one_port_are_told_with_the_line() {
        let file =
            write("[admin]\nlisten = \"127.0.0.1:9999\"\n[switch]\ncontrol = \"127.0.0.1:9999\"\n");
        let problems = load(file.path(), &ALL).expect_err("a clash");
        assert_eq!((problems.len(), problems[0].line), (1, 4), "{problems:?}");
        assert!(problems[0].what.contains("admin.listen"));
    }

    #[test]
    fn a_role_alone_cannot_use_the_embedded_store() {
        let file = write("[store]\nengine = \"embedded\"\n");
        let problems = load(file.path(), &[Role::Switch]).expect_err("nobody would see it");
        assert_eq!(problems[0].line, 2);
        assert!(load(file.path(), &ALL).is_ok());
    }
}
