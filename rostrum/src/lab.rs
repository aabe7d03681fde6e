//! `rostrum lab`: the three roles wired together on one machine, with accounts and meetings to try.

mod summary;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use transport::cards;

use crate::config::{self, Config, Engine, Role};
use crate::roles::Roles;
use summary::Summary;

/// Realm of the lab's accounts: not the domain, so that passwords survive a move to another address.
const REALM: &str = "rostrum";
/// Accounts made at the first start.
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Meetings there are: id and title.
const MEETINGS: [(&str, &str); 2] = [("standup", "Stand-up"), ("plenary", "Plenary")];
/// Letters of a password: none that look alike.
const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

/// Arguments of `rostrum lab`.
#[derive(Args, Debug)]
pub struct LabArgs {
    /// Where accounts, certificate and state are kept from one start to the next
    #[arg(long, default_value = "lab-data", env = "ROSTRUM_DATA")]
    data: PathBuf,
    /// First of some 900 ports: SIP on N, TLS on N+1, http and https on N+2 and N+3, ...; 0 takes free ones
    #[arg(long, default_value_t = 5060, env = "ROSTRUM_PORT_BASE")]
    port_base: u16,
    /// Addresses that phones and browsers reach this machine by, and the only ones listened on; may be given several
    /// times [default: one IPv4 and one IPv6 address, of the cards that lead to the internet]
    #[arg(long, value_delimiter = ',', env = "ROSTRUM_HOST")]
    host: Vec<IpAddr>,
    /// SIP domain of accounts and meetings [default: the first host's address]
    #[arg(long, env = "ROSTRUM_DOMAIN")]
    domain: Option<String>,
    /// Digest algorithms offered, in order. A registrar offers SHA-256,MD5 by default; baresip, SIPp and others stop at
    /// a first challenge they do not know, and a lab is for trying them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "MD5",
        env = "ROSTRUM_DIGEST"
    )]
    digest: Vec<String>,
    /// Print where everything is as one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Least level of log lines on standard error
    #[arg(long, default_value = "warn,rtc_dtls=error", env = "ROSTRUM_LOG")]
    log: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    user: String,
    password: String,
}

/// Starts the lab, says where everything is, and runs until Ctrl-C.
pub async fn run(args: LabArgs) -> Result<(), String> {
    let hosts = Hosts::choose(&args.host);
    let domain = args
        .domain
        .clone()
        .unwrap_or_else(|| bracketed(hosts.first()));
    let config = config::overridden(&config(&args, &hosts, &domain)?)
        .map_err(|problems| config::told(&problems))?;
    crate::start_logging(&config.log)?;
    let folder = |e: std::io::Error| {
        format!(
            "{}: {e}; choose another folder with --data",
            args.data.display()
        )
    };
    fs::create_dir_all(&args.data).map_err(folder)?;
    let accounts = accounts(&args.data)?;
    let roles = Roles::start(&config, &Role::ALL)
        .await
        .map_err(|e| format!("{e}\n    (--port-base chooses other ports, 0 free ones)"))?;
    let summary = Summary::new(&roles, &config, &hosts, &accounts);
    if args.json {
        println!("{}", summary.json());
    } else {
        print!("{summary}");
    }
    roles.run().await
}

/// The addresses of this machine.
struct Hosts {
    /// As others reach it; never empty.
    told: Vec<IpAddr>,
    /// Listened on.
    cards: Vec<IpAddr>,
    /// Nobody named them.
    guessed: bool,
}

impl Hosts {
    /// Those that were named, which are then listened on alone, so that several labs can live on one machine. Else one
    /// of each family, with all cards of the family listened on; loopback on a machine without network.
    fn choose(named: &[IpAddr]) -> Self {
        let mut told = Vec::new();
        for ip in named {
            if !told.contains(ip) {
                told.push(*ip);
            }
        }
        if !told.is_empty() {
            let cards = told.clone();
            return Self {
                told,
                cards,
                guessed: false,
            };
        }
        told = [false, true]
            .into_iter()
            .filter_map(cards::outward)
            .collect();
        if told.is_empty() {
            told.push(Ipv4Addr::LOCALHOST.into());
            told.extend(cards::has_ipv6().then_some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        }
        let any = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self {
            cards: told.iter().map(any).collect(),
            told,
            guessed: true,
        }
    }

    fn first(&self) -> IpAddr {
        self.told[0]
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The accounts of the folder that still let somebody in, made at the first start; with the users' file the registrar
/// reads.
fn accounts(data: &Path) -> Result<Vec<Account>, String> {
    let path = data.join("accounts.json");
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let accounts: Vec<Account> = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| format!("{}; delete it to have new accounts made", told(&e)))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut random = rand::rng();
            let mut password = || {
                (0..10)
                    .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
                    .collect()
            };
            let made: Vec<Account> = USERS
                .iter()
                .map(|u| Account {
                    user: (*u).into(),
                    password: password(),
                })
                .collect();
            let text = serde_json::to_vec_pretty(&made).map_err(|e| told(&e))?;
            let mut options = fs::OpenOptions::new();
            let file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(|e| told(&e))?;
            std::io::Write::write_all(&mut &file, &text).map_err(|e| told(&e))?;
            made
        }
        Err(e) => return Err(told(&e)),
    };
    let file = |e: registrar::users::UsersError| e.to_string();
    let users = data.join("users.toml");
    if !users.exists() {
        for account in &accounts {
            let mut display = account.user.clone();
            display[..1].make_ascii_uppercase();
            registrar::users::add(&users, REALM, &account.user, &account.password, &display)
                .map_err(file)?;
        }
    }
    // whoever was removed, or given another password, is none to try
    let now = registrar::users::load(&users, REALM).map_err(file)?;
    let is_good = |a: &Account| registrar::users::is_password(&now, REALM, &a.user, &a.password);
    Ok(accounts.into_iter().filter(is_good).collect())
}

/// The same configuration that the roles would read from files.
fn config(args: &LabArgs, hosts: &Hosts, domain: &str) -> Result<Config, String> {
    let port = |offset: u16| {
        if args.port_base == 0 {
            0
        } else {
            args.port_base.saturating_add(offset)
        }
    };
    let on = |offset: u16| {
        let cards = &hosts.cards;
        cards
            .iter()
            .map(|ip| SocketAddr::new(*ip, port(offset)))
            .collect::<Vec<_>>()
    };
    let loopback = |offset: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port(offset)));
    // the registrar reaches the manager from the cards it listens on, which may all be of one family
    let inner: IpAddr = match hosts.cards.iter().any(IpAddr::is_ipv4) {
        true => Ipv4Addr::LOCALHOST.into(),
        false => Ipv6Addr::LOCALHOST.into(),
    };
    let beside = |offset: u16| SocketAddr::new(inner, port(offset));
    let aliases: Vec<String> = ["localhost", "127.0.0.1", "[::1]"]
        .into_iter()
        .map(str::to_owned)
        .chain(hosts.told.iter().map(|ip| bracketed(*ip)))
        .filter(|alias| alias != domain)
        .collect();
    // browsers give a camera to http://localhost, which is either
    let mut local = vec![loopback(2)];
    if cards::has_ipv6() {
        local.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port(2))));
    }

    let mut config = Config::default();
    config.log.level.clone_from(&args.log);
    config.admin.listen = loopback(4);
    // no balancer is in front of a lab
    config.admin.drain_seconds = 0;
    config.store.engine = Engine::Embedded;
    config.store.path = args.data.join("store");

    let registrar = &mut config.registrar;
    registrar.node = "lab".into();
    registrar.domain = domain.to_owned();
    registrar.aliases.clone_from(&aliases);
    registrar.realm = REALM.into();
    registrar.digest = serde_json::from_value(json!(args.digest)).map_err(|_| {
        format!(
            "--digest {}: algorithms are SHA-256 and MD5",
            args.digest.join(",")
        )
    })?;
    registrar.udp = on(0);
    registrar.tcp = on(0);
    registrar.tls = on(1);
    registrar.http = local;
    registrar.https = on(3);
    registrar.data = args.data.join("registrar");
    registrar.users = args.data.join("users.toml");
    registrar.meetings = MEETINGS
        .iter()
        .map(|(id, title)| registrar::Meeting {
            id: (*id).into(),
            title: (*title).into(),
            guests: true,
        })
        .collect();

    let manager = &mut config.meeting_manager;
    manager.id = "lab".into();
    manager.domain = domain.to_owned();
    manager.aliases = aliases;
    manager.udp = vec![beside(5)];
    manager.tcp = vec![beside(5)];
    let own = hosts.told.iter().map(ToString::to_string);
    manager.trusted_networks.extend(own);
    manager.meetings = MEETINGS
        .iter()
        .map(|(id, title)| meeting_manager::Meeting {
            id: (*id).into(),
            title: (*title).into(),
            guests: true,
            ..meeting_manager::Meeting::default()
        })
        .collect();

    let switch = &mut config.switch;
    switch.id = "lab".into();
    switch.control = loopback(6);
    switch.listen.clone_from(&hosts.cards);
    switch.advertise.clone_from(&hosts.told);
    switch.webrtc_port = port(10);
    switch.plain_ports = [port(100), port(899)];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_whose_password_is_no_longer_that_or_that_are_gone_are_not_listed() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let names = |accounts: &[Account]| -> Vec<String> {
            accounts.iter().map(|a| a.user.clone()).collect()
        };
        let first = accounts(data.path()).expect("made");
        assert_eq!(names(&first), USERS);
        let users = data.path().join("users.toml");
        registrar::users::add(&users, REALM, "alice", "other", "").expect("changed");
        registrar::users::remove(&users, None, "carol").expect("removed");
        registrar::users::add(&users, REALM, "erin", "secret", "").expect("added");
        let second = accounts(data.path()).expect("kept");
        assert_eq!(names(&second), ["bob", "dave"]);
        assert_eq!(second[0].password, first[1].password);
        let (again, password) = ("alice", &first[0].password);
        registrar::users::add(&users, REALM, again, password, "").expect("changed");
        assert_eq!(accounts(data.path()).expect("kept").len(), 3);
    }
}
