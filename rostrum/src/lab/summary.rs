//! Where everything of a lab is, for people and for scripts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::{Account, Hosts, MEETINGS, bracketed};
use crate::config::Config;
use crate::roles::Roles;
use crate::web;

/// What a lab prints.
pub(super) struct Summary {
    json: Value,
    /// Whether the hosts were found, not named.
    guessed: bool,
}

/// A running registrar's listeners as clients of one address reach them.
fn of_host(addresses: &registrar::Addresses, host: IpAddr) -> Value {
    let own = |a: &&SocketAddr| a.ip() == host;
    let same_family = |a: &&SocketAddr| a.is_ipv4() == host.is_ipv4();
    let find = |list: &[SocketAddr]| {
        let found = list.iter().find(own);
        found.or_else(|| list.iter().find(same_family)).copied()
    };
    let told =
        |list: &[SocketAddr]| find(list).map(|a| SocketAddr::new(host, a.port()).to_string());
    json!({
        "host": host,
        "udp": told(&addresses.udp),
        "tcp": told(&addresses.tcp),
        "tls": told(&addresses.tls),
        // on loopback only: other machines need encryption
        "ws": find(&addresses.http).map(|a| a.to_string()),
        "wss": told(&addresses.https),
    })
}

impl Summary {
    pub(super) fn new(roles: &Roles, config: &Config, hosts: &Hosts, accounts: &[Account]) -> Self {
        let addresses = roles
            .registrar
            .as_ref()
            .map(|r| r.addresses().clone())
            .unwrap_or_default();
        let all: Vec<Value> = hosts
            .told
            .iter()
            .map(|host| of_host(&addresses, *host))
            .collect();
        let first = &all[0];
        let local = addresses.http.first().copied();
        let domain = &config.registrar.domain;
        let admin = roles.admin.address;
        let json = json!({
            "web": format!("https://{}/", text(&first["wss"])),
            "web_local": format!("http://localhost:{}/", local.map_or(0, |a| a.port())),
            "web_present": web::is_present(),
            "api": format!("http://{admin}/api/v1"),
            "metrics": format!("http://{admin}/metrics"),
            "sip": {
                "udp": first["udp"],
                "tcp": first["tcp"],
                "tls": first["tls"],
                "ws": local.map(|a| a.to_string()),
                "wss": first["wss"],
            },
            "hosts": all,
            "media": {
                "webrtc": roles.switch.as_ref().map(|s| {
                    s.webrtc_addresses().iter().map(ToString::to_string).collect::<Vec<_>>()
                }),
                "rtp": plain_range(config.switch.plain_ports),
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
        });
        Self {
            json,
            guessed: hosts.guessed,
        }
    }

    /// All of it, on one line when printed.
    pub(super) fn json(&self) -> &Value {
        &self.json
    }
}

/// "first-last"; where the kernel chooses, what it chooses from.
fn plain_range([first, last]: [u16; 2]) -> String {
    if first != 0 {
        return format!("{first}-{last}");
    }
    let kernel = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = kernel.ok().and_then(|text| {
        let mut words = text.split_whitespace();
        Some(format!("{}-{}", words.next()?, words.next()?))
    });
    range.unwrap_or_else(|| "1024-65535".to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(text).collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.json;
        let hosts = s["hosts"].as_array().map_or(&[][..], Vec::as_slice);
        writeln!(f, "Rostrum is running.\n")?;
        writeln!(f, "  browser    {}", text(&s["web_local"]))?;
        for (i, host) in hosts.iter().enumerate() {
            let hint = match i {
                0 => "   (self-signed certificate: accept it once)",
                _ => "",
            };
            writeln!(f, "             https://{}/{hint}", text(&host["wss"]))?;
        }
        if !web::is_present() {
            writeln!(
                f,
                "             This build has no web client in it: {} makes one.",
                web::HOW_TO_BUILD
            )?;
        }
        writeln!(f, "  meetings   {}", texts(&s["meetings"]).join("  "))?;
        writeln!(f, "  accounts")?;
        for account in s["accounts"].as_array().into_iter().flatten() {
            writeln!(
                f,
                "             {}  password {}",
                text(&account["uri"]),
                text(&account["password"])
            )?;
        }
        for (i, host) in hosts.iter().enumerate() {
            writeln!(
                f,
                "  {:<10} udp {}  tcp {}  tls {}",
                if i == 0 { "SIP" } else { "" },
                text(&host["udp"]),
                text(&host["tcp"]),
                text(&host["tls"])
            )?;
        }
        let wss: Vec<String> = hosts
            .iter()
            .map(|host| format!("wss {}", text(&host["wss"])))
            .collect();
        writeln!(
            f,
            "             ws {}  {}  (path /sip)",
            text(&s["sip"]["ws"]),
            wss.join("  ")
        )?;
        writeln!(
            f,
            "  media      browsers udp {}",
            texts(&s["media"]["webrtc"]).join("  ")
        )?;
        writeln!(
            f,
            "             phones udp ports {}",
            text(&s["media"]["rtp"])
        )?;
        writeln!(
            f,
            "  inside     meeting manager {}  switch control {}",
            text(&s["manager"]),
            text(&s["control"])
        )?;
        writeln!(f, "  API        {}", text(&s["api"]))?;
        writeln!(f, "  metrics    {}", text(&s["metrics"]))?;
        if self.guessed {
            let found: Vec<String> = hosts
                .iter()
                .filter_map(|host| text(&host["host"]).parse().ok().map(bracketed))
                .collect();
            writeln!(
                f,
                "\n  Others reach this machine as {}, found on its network cards; --host names another address.",
                found.join(" and ")
            )?;
        }
        writeln!(f, "\n  Ctrl-C ends meetings and stops.")
    }
}
