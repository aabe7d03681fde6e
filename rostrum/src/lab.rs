//! `rostrum lab`: the three roles wired together on one machine, with accounts and meetings to try.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Config, Engine, Role};
use crate::roles::Roles;
use crate::{observe, web};

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
    #[arg(long, default_value_t = 5060)]
    port_base: u16,
    /// Address that phones and browsers reach this machine by [default: that of the card that leads to the internet]
    #[arg(long)]
    host: Option<IpAddr>,
    /// SIP domain of accounts and meetings [default: the host's address]
    #[arg(long)]
    domain: Option<String>,
    /// Digest algorithms offered, in order. A registrar offers SHA-256,MD5 by default; baresip, SIPp and others stop at
    /// a first challenge they do not know, and a lab is for trying them
    #[arg(long, value_delimiter = ',', default_value = "MD5")]
    digest: Vec<String>,
    /// Print where everything is as one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Least level of log lines on standard error
    #[arg(long, default_value = "warn,rtc_dtls=error")]
    log: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    user: String,
    password: String,
}

/// Starts the lab, says where everything is, and runs until Ctrl-C.
pub async fn run(args: LabArgs) -> Result<(), String> {
    let log = observe::Log {
        level: args.log.clone(),
        ..observe::Log::default()
    };
    observe::start_logging(&log)?;
    let host = args.host.unwrap_or_else(outward);
    let domain = args.domain.clone().unwrap_or_else(|| bracketed(host));
    let folder = |e: std::io::Error| {
        format!(
            "{}: {e}; choose another folder with --data",
            args.data.display()
        )
    };
    fs::create_dir_all(&args.data).map_err(folder)?;
    let accounts = accounts(&args.data)?;
    let config = config(&args, host, &domain)?;
    let roles = Roles::start(
        &config,
        &[Role::Registrar, Role::MeetingManager, Role::Switch],
    )
    .await
    .map_err(|e| format!("{e}\n    (--port-base chooses other ports, 0 free ones)"))?;
    let summary = summary(&roles, host, &domain, &accounts);
    if args.json {
        println!("{summary}");
    } else {
        print_for_people(&summary, host, args.host.is_none());
    }
    roles.run().await
}

/// The address towards the internet; loopback on a machine without network. Nothing is sent.
fn outward() -> IpAddr {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| {
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr()
        })
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |local| local.ip())
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The accounts of the folder, made at the first start; with the users' file the registrar reads.
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
    let users = data.join("users.toml");
    if !users.exists() {
        for account in &accounts {
            let mut display = account.user.clone();
            display[..1].make_ascii_uppercase();
            registrar::users::add(&users, REALM, &account.user, &account.password, &display)
                .map_err(|e| e.to_string())?;
        }
    }
    Ok(accounts)
}

/// The same configuration that the roles would read from files.
fn config(args: &LabArgs, host: IpAddr, domain: &str) -> Result<Config, String> {
    let port = |offset: u16| {
        if args.port_base == 0 {
            0
        } else {
            args.port_base.saturating_add(offset)
        }
    };
    // a host that was named is listened on alone, so that several labs can live on one machine
    let mut cards: Vec<IpAddr> = match args.host {
        Some(host) => vec![host],
        None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
    };
    let has_ipv6 = || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    if args.host.is_none() && args.port_base != 0 && has_ipv6() {
        cards.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    let on = |offset: u16| {
        cards
            .iter()
            .map(|ip| SocketAddr::new(*ip, port(offset)))
            .collect::<Vec<_>>()
    };
    let loopback = |offset: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port(offset)));
    // the registrar reaches the manager from the cards it listens on, which may all be of one family
    let inner: IpAddr = match args.host {
        Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    let beside = |offset: u16| SocketAddr::new(inner, port(offset));
    let aliases: Vec<String> = ["localhost", "127.0.0.1"]
        .iter()
        .filter(|a| **a != domain)
        .map(|a| (*a).to_owned())
        .collect();

    let mut config = Config::default();
    config.admin.listen = loopback(4);
    config.store.engine = Engine::Embedded;
    config.store.path = args.data.join("store");

    let registrar = &mut config.registrar;
    registrar.node = "lab".into();
    registrar.domain = domain.to_owned();
    registrar.aliases.clone_from(&aliases);
    if domain != bracketed(host) {
        registrar.aliases.push(bracketed(host));
    }
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
    registrar.http = vec![loopback(2)];
    registrar.https = on(3);
    registrar.advertise = vec![bracketed(host)];
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
    manager.aliases.clone_from(&config.registrar.aliases);
    manager.udp = vec![beside(5)];
    manager.tcp = vec![beside(5)];
    manager.trusted_networks.push(host.to_string());
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
    switch.listen = cards;
    switch.advertise = vec![host];
    switch.webrtc_port = port(10);
    switch.plain_ports = [port(100), port(899)];
    Ok(config)
}

fn summary(roles: &Roles, host: IpAddr, domain: &str, accounts: &[Account]) -> Value {
    let addresses = roles
        .registrar
        .as_ref()
        .map(|r| r.addresses().clone())
        .unwrap_or_default();
    let at = |list: &[SocketAddr]| list.first().map_or(0, SocketAddr::port);
    let told = |port: u16| format!("{}:{port}", bracketed(host));
    let local = format!("127.0.0.1:{}", at(&addresses.http));
    let admin = roles.admin.address;
    json!({
        "web": format!("https://{}/", told(at(&addresses.https))),
        "web_local": format!("http://localhost:{}/", at(&addresses.http)),
        "web_present": web::is_present(),
        "api": format!("http://{admin}/api/v1"),
        "metrics": format!("http://{admin}/metrics"),
        "sip": {
            "udp": told(at(&addresses.udp)),
            "tcp": told(at(&addresses.tcp)),
            "tls": told(at(&addresses.tls)),
            "ws": local,
            "wss": told(at(&addresses.https)),
        },
        "domain": domain,
        "accounts": accounts.iter().map(|a| json!({
            "uri": format!("sip:{}@{domain}", a.user), "user": a.user, "password": a.password,
        })).collect::<Vec<_>>(),
        "meetings": MEETINGS.iter().map(|(id, _)| format!("sip:{id}@{domain}")).collect::<Vec<_>>(),
        "manager": roles.manager.as_ref().map(|m| {
            m.sip_addresses().iter().map(|(t, a)| format!("{t} {a}")).collect::<Vec<_>>().join("  ")
        }),
        "control": roles.switch.as_ref().map(|s| s.control_address().to_string()),
    })
}

fn print_for_people(s: &Value, host: IpAddr, guessed: bool) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    println!("Rostrum is running.\n");
    println!("  browser    {}", text(&s["web_local"]));
    println!(
        "             {}   (self-signed certificate: accept it once)",
        text(&s["web"])
    );
    if !web::is_present() {
        println!(
            "             This build has no web client in it: {} makes one.",
            web::HOW_TO_BUILD
        );
    }
    println!(
        "  meetings   {}",
        s["meetings"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect::<Vec<_>>()
            .join("  ")
    );
    println!("  accounts");
    for account in s["accounts"].as_array().into_iter().flatten() {
        println!(
            "             {}  password {}",
            text(&account["uri"]),
            text(&account["password"])
        );
    }
    println!(
        "  SIP        udp {}  tcp {}  tls {}",
        text(&s["sip"]["udp"]),
        text(&s["sip"]["tcp"]),
        text(&s["sip"]["tls"])
    );
    println!(
        "             ws {}  wss {}  (path /sip)",
        text(&s["sip"]["ws"]),
        text(&s["sip"]["wss"])
    );
    println!(
        "  inside     meeting manager {}  switch control {}",
        text(&s["manager"]),
        text(&s["control"])
    );
    println!("  API        {}", text(&s["api"]));
    println!("  metrics    {}", text(&s["metrics"]));
    if guessed {
        println!("\n  Others reach this machine as {host}; --host chooses another address.");
    }
    println!("\n  Ctrl-C ends meetings and stops.");
}
