//! The configuration file: one table a role, and what they share.

pub mod check;
pub mod template;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::observe::{self, Log};
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
    /// By which certificates meeting managers and switches know each other.
    pub cluster: Cluster,
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
    /// Seconds that /readyz says 503 after SIGTERM before the process ends, even if nothing runs: load balancers need
    /// them to notice.
    pub drain_seconds: u64,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            drain_seconds: 5,
        }
    }
}

/// By which certificates meeting managers and switches know each other. "rostrum cluster init" makes them. Without, a
/// switch takes orders on loopback only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// PEM file with the cluster's authority: whoever has a certificate of it is a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate of this machine's roles, made for their ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl Cluster {
    /// The certificates, where there are any; else the key that is to blame, what is wrong, and what to write.
    fn tls(&self) -> Result<Option<Arc<cluster::Tls>>, (&'static str, String, String)> {
        let (ca, cert, key) = match (&self.ca_file, &self.cert_file, &self.key_file) {
            (None, None, None) => return Ok(None),
            (Some(ca), Some(cert), Some(key)) => (ca, cert, key),
            (ca, cert, _) => {
                let missing = match (ca, cert) {
                    (None, _) => "ca_file",
                    (_, None) => "cert_file",
                    _ => "key_file",
                };
                let what = format!("{missing} is missing");
                let instead = "write all of ca_file, cert_file and key_file, or none of them";
                return Err((missing, what, instead.into()));
            }
        };
        let loaded = cluster::Tls::load(ca, cert, key);
        loaded.map(|tls| Some(Arc::new(tls))).map_err(|e| {
            let at = match e.path() {
                Some(path) if path == ca => "ca_file",
                Some(path) if path == key => "key_file",
                _ => "cert_file",
            };
            let instead = "write the paths of files that rostrum cluster init has made, and this user may read";
            (at, e.to_string(), instead.into())
        })
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Registrar,
    MeetingManager,
    Switch,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Registrar, Self::MeetingManager, Self::Switch];

    /// Its table in the file.
    fn table(self) -> &'static str {
        match self {
            Self::Registrar => "registrar",
            Self::MeetingManager => "meeting_manager",
            Self::Switch => "switch",
        }
    }
}

/// As the command line has it.
impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.table().replace('_', "-"))
    }
}

/// The roles that a file is for: those it has a table for, all of them where it has none.
pub fn roles_of(path: &Path) -> Vec<Role> {
    let source = Source::read(path).unwrap_or_default();
    let all = Role::ALL.into_iter();
    let written: Vec<Role> = all.filter(|role| source.has(role.table())).collect();
    match written.is_empty() {
        true => Role::ALL.to_vec(),
        false => written,
    }
}

/// How the roles of a configuration run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Process {
    /// All in this one, which has the state to itself.
    One,
    /// Each in its own.
    Each,
}

/// Names of the variables that are ours, or look so.
pub fn variables() -> impl Iterator<Item = String> {
    environment().into_iter().map(|(name, _)| name)
}

/// The variables that may override settings.
fn environment() -> Vec<(String, String)> {
    std::env::vars()
        .filter(|(name, _)| name.starts_with("ROSTRUM_"))
        .collect()
}

/// A file, with the environment over it; whether a role could run with it is another question.
pub fn read(path: &Path) -> Result<Config, Vec<Problem>> {
    let mut source = Source::read(path).map_err(|p| vec![p])?;
    match source.parse::<Config>(&environment()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

/// A file, with the environment over it, and nothing wrong with what `roles` read of it.
pub fn load(path: &Path, roles: &[Role]) -> Result<Config, Vec<Problem>> {
    let mut source = Source::read(path).map_err(|p| vec![p])?;
    let environment = environment();
    let (config, mut found) = source.parse::<Config>(&environment);
    found.extend(check::misspelt::<Config>(&environment));
    let Some(mut config) = config else {
        return Err(found);
    };
    let untrusted = certify(&mut config, &source)
        .map(|p| found.push(p))
        .is_some();
    let unreadable = !found.is_empty();
    let mut later = problems(&config, roles, Process::Each, &source);
    // what certificates would have allowed
    later.retain(|p| !untrusted || !p.what.contains("[cluster]"));
    // what a default does in the place of something unreadable is nobody's mistake
    let file = path.display().to_string();
    let is_written = |p: &Problem| p.line != 0 || p.place != file;
    found.extend(later.into_iter().filter(|p| !unreadable || is_written(p)));
    if found.is_empty() {
        Ok(config)
    } else {
        Err(found)
    }
}

/// What the lab makes, with the environment over it, and nothing wrong with it.
pub fn overridden(config: &Config) -> Result<Config, Vec<Problem>> {
    let mut source = Source::named("rostrum lab");
    let table = toml::Table::try_from(config).expect("a configuration serializes");
    let environment = environment();
    let (table, mut found) = source.overlay::<Config>(table, &environment);
    found.extend(check::misspelt::<Config>(&environment));
    let mut config: Config = table.try_into().expect("every change was tried");
    found.extend(certify(&mut config, &source));
    found.extend(problems(&config, &Role::ALL, Process::One, &source));
    if found.is_empty() {
        Ok(config)
    } else {
        Err(found)
    }
}

/// Gives the roles the certificates of `[cluster]`.
fn certify(config: &mut Config, source: &Source) -> Option<Problem> {
    match config.cluster.tls() {
        Ok(tls) => {
            config.switch.tls.clone_from(&tls);
            config.meeting_manager.tls = tls;
            None
        }
        Err((key, what, instead)) => {
            let place = format!("cluster.{key}");
            Some(source.problem(&place, format!("{key}: {what}"), instead))
        }
    }
}

/// Problems as they are shown.
pub fn told(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("configuration\n{}", lines.join("\n"))
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

fn problems(config: &Config, roles: &[Role], process: Process, source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |table: &str, key: &str, what: String, instead: String| {
        problems.push(source.problem(&format!("{table}.{key}"), format!("{key}: {what}"), instead));
    };
    if let Err(what) = observe::check_level(&config.log.level) {
        let instead = "write \"info\", or per module \"info,registrar=debug\"";
        add("log", "level", what, instead.into());
    }
    if roles.contains(&Role::Registrar) {
        for e in config.registrar.problems() {
            add("registrar", e.key, e.what, format!("write {}", e.instead));
        }
    }
    if roles.contains(&Role::MeetingManager) {
        for e in config.meeting_manager.problems() {
            add("meeting_manager", e.key, e.what, e.instead);
        }
    }
    if roles.contains(&Role::Switch) {
        for e in config.switch.problems() {
            add("switch", e.key, e.what, e.instead);
        }
    }
    store_problems(&config.store, process, &mut add);
    for (table, key, path) in files(config, roles) {
        if let Err(e) = std::fs::File::open(path) {
            let instead = "write the path of a file that this user may read".into();
            add(table, key, format!("{}: {e}", path.display()), instead);
        }
    }
    problems.extend(unicast(config, roles, source));
    problems.extend(clashes(config, roles, source));
    problems
}

fn store_problems(
    store: &Store,
    process: Process,
    add: &mut impl FnMut(&str, &str, String, String),
) {
    let example = || "write [\"http://127.0.0.1:2379\"]".to_owned();
    if store.engine == Engine::Embedded {
        if process == Process::Each {
            add(
                "store",
                "engine",
                "\"embedded\" is a file of one process: roles in several processes do not see each other".into(),
                "write \"etcd\", or use rostrum lab".into(),
            );
        }
        return;
    }
    if store.endpoints.is_empty() {
        add("store", "endpoints", "no etcd to talk to".into(), example());
    }
    for bad in store.endpoints.iter().filter(|url| !is_endpoint(url)) {
        add(
            "store",
            "endpoints",
            format!("{bad:?} is no URL of an etcd member"),
            example(),
        );
    }
    if store.user.is_some() != store.password.is_some() {
        let what = "user and password belong together";
        add(
            "store",
            "user",
            what.into(),
            "write both, or neither".into(),
        );
    }
}

/// `http://host[:port]`, or with https.
fn is_endpoint(url: &str) -> bool {
    let Ok(uri) = url.parse::<axum::http::Uri>() else {
        return false;
    };
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let port_is_one = uri
        .authority()
        .is_some_and(|a| a.port().is_none() || a.port_u16().is_some());
    known && port_is_one && uri.host().is_some_and(|host| !host.is_empty())
}

/// Files that have to be there, with their tables and keys.
fn files<'c>(
    config: &'c Config,
    roles: &[Role],
) -> impl Iterator<Item = (&'static str, &'static str, &'c Path)> {
    let registrar = roles
        .contains(&Role::Registrar)
        .then_some(&config.registrar);
    let store = (config.store.engine == Engine::Etcd).then_some(&config.store);
    let of_registrar = registrar.map(|r| {
        [
            ("registrar", "certificate", &r.certificate),
            ("registrar", "key", &r.key),
        ]
    });
    let of_store = store.map(|s| {
        [
            ("store", "ca_file", &s.ca_file),
            ("store", "cert_file", &s.cert_file),
            ("store", "key_file", &s.key_file),
        ]
    });
    let all = of_registrar
        .into_iter()
        .flatten()
        .chain(of_store.into_iter().flatten());
    all.filter_map(|(table, key, path)| Some((table, key, path.as_deref()?)))
}

/// A listening address, or a range of ports on one: where it is written, and the kind of port.
struct Listener {
    key: &'static str,
    stream: bool,
    address: SocketAddr,
    /// Of the range; the address has the first.
    last: u16,
}

impl Listener {
    /// Whether the role's own check compares the two.
    fn is_compared_by_role(&self, other: &Self) -> bool {
        let table = |l: &Self| l.key.split('.').next();
        table(self) == table(other)
            && (table(self) == Some("registrar") || !self.stream && table(self) == Some("switch"))
    }
}

fn listeners(config: &Config, roles: &[Role]) -> Vec<Listener> {
    let mut all = Vec::new();
    let mut add = |key, stream, addresses: &[SocketAddr]| {
        all.extend(addresses.iter().map(|a| Listener {
            key,
            stream,
            address: *a,
            last: a.port(),
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
        add("registrar.admin", true, r.admin.as_slice());
    }
    if roles.contains(&Role::MeetingManager) {
        let m = &config.meeting_manager;
        add("meeting_manager.udp", false, &m.udp);
        add("meeting_manager.tcp", true, &m.tcp);
        add("meeting_manager.admin", true, m.admin.as_slice());
    }
    if roles.contains(&Role::Switch) {
        let switch = &config.switch;
        add("switch.control", true, &[switch.control]);
        let workers = u16::try_from(switch.workers()).unwrap_or(u16::MAX);
        let webrtc = switch.webrtc_port;
        let [first, last] = switch.plain_ports;
        let ranges = [
            (
                "switch.webrtc_port",
                webrtc,
                webrtc.saturating_add(workers - 1),
            ),
            ("switch.plain_ports", first, last),
        ];
        for (key, first, last) in ranges {
            all.extend(switch.listen.iter().map(|ip| Listener {
                key,
                stream: false,
                address: SocketAddr::new(*ip, first),
                last,
            }));
        }
    }
    all
}

/// Nobody can connect to a group of machines.
fn unicast(config: &Config, roles: &[Role], source: &Source) -> Vec<Problem> {
    let is_group = |ip: IpAddr| ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    let mut seen: Vec<IpAddr> = Vec::new();
    let mut problems = Vec::new();
    for listener in listeners(config, roles) {
        let ip = listener.address.ip();
        if !is_group(ip) || listener.key.starts_with("switch.") && seen.contains(&ip) {
            continue;
        }
        seen.push(ip);
        let key = match listener.key {
            "switch.webrtc_port" | "switch.plain_ports" => "switch.listen",
            key => key,
        };
        problems.push(source.problem(
            key,
            format!("{key}: {ip} is the address of a group, not of a card"),
            "write the address of a card, or \"0.0.0.0\" or \"::\" for all",
        ));
    }
    problems
}

/// Two listeners on one port.
fn clashes(config: &Config, roles: &[Role], source: &Source) -> Vec<Problem> {
    let all = listeners(config, roles);
    let mut problems: Vec<Problem> = Vec::new();
    for (i, a) in all.iter().enumerate() {
        for b in &all[..i] {
            let (first, last) = (a.address.port().max(b.address.port()), a.last.min(b.last));
            let clash = a.stream == b.stream
                && a.address.port() != 0
                && b.address.port() != 0
                && first <= last
                && overlap(a.address.ip(), b.address.ip());
            if !clash || a.is_compared_by_role(b) {
                continue;
            }
            // told where somebody wrote it, not where a default stands
            let (at, other) = match source.has(b.key) && !source.has(a.key) {
                true => (b, a),
                false => (a, b),
            };
            let ports = match first == last {
                true => format!("port {first} is"),
                false => format!("ports {first} to {last} are"),
            };
            let problem = source.problem(
                at.key,
                format!("{}: {ports} also that of {}", at.key, other.key),
                "give one of them another port",
            );
            if !problems.contains(&problem) {
                problems.push(problem);
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

    fn write(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("writes");
        file
    }

    #[test]
    fn the_default_file_is_valid_and_says_the_defaults() {
        let file = write(&default_file());
        assert_eq!(
            load(file.path(), &Role::ALL).expect("valid"),
            Config::default()
        );
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
        let problems = load(file.path(), &Role::ALL).expect_err("a clash");
        assert_eq!((problems.len(), problems[0].line), (1, 4), "{problems:?}");
        assert!(problems[0].what.contains("admin.listen"));
    }

    #[test]
    fn roles_in_processes_of_their_own_cannot_use_the_embedded_store() {
        let file = write("[store]\nengine = \"embedded\"\n");
        for roles in [&[Role::Switch][..], &Role::ALL] {
            let problems = load(file.path(), roles).expect_err("nobody would see it");
            assert_eq!((problems.len(), problems[0].line), (1, 2), "{problems:?}");
        }
        let mut lab = Config::default();
        lab.store.engine = Engine::Embedded;
        let problems = problems(&lab, &Role::ALL, Process::One, &Source::named("a lab"));
        assert_eq!(problems, []);
    }

    #[test]
    fn file_is_for_the_roles_it_has_tables_for() {
        let roles = |text: &str| roles_of(write(text).path());
        assert_eq!(roles("[log]\nlevel = \"info\"\n"), Role::ALL);
        assert_eq!(roles("[switch]\n"), [Role::Switch]);
        assert_eq!(
            roles("[[registrar.meetings]]\nid = \"a\"\n[meeting_manager]\n"),
            [Role::Registrar, Role::MeetingManager]
        );
        assert_eq!(roles(&default_file()), Role::ALL);
    }
}
