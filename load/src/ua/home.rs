//! What all participants share: where the server is, and what they call themselves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sip::message::Message;
use sip::{HeaderName, Hop, Method, Transport, Uri};

use super::account::Account;

/// What we understand (RFC 3261 §20.5).
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, NOTIFY, MESSAGE";

/// Where the server is and where we are.
#[derive(Clone, Debug)]
pub struct Home {
    /// The meeting.
    pub meeting: Uri,
    /// Where requests outside of dialogs go: an outbound proxy, or the meeting's host.
    pub server: SocketAddr,
    /// By which transport.
    pub transport: Transport,
    /// Name that a TLS server must prove to have; `None`: its address.
    pub host: Option<Arc<str>>,
    /// Our own address.
    pub local: SocketAddr,
}

impl Home {
    pub(super) fn hop(&self) -> Hop {
        Hop::to(self.transport, self.server)
    }

    pub(super) fn sent_by(&self) -> String {
        self.local.to_string()
    }

    /// Contact of somebody (RFC 3261 §8.1.1.8).
    pub(super) fn contact(&self, user: &str) -> String {
        let mut uri = Uri::sip(user, &bracketed(self.local.ip()));
        uri.port = Some(self.local.port());
        if self.transport != Transport::Udp {
            uri.set_param("transport", Some(self.transport.uri_token()));
        }
        format!("<{uri}>")
    }

    /// The address of record of an account, or what a guest calls itself.
    pub(super) fn address(&self, user: &str) -> String {
        Uri::sip(user, &bracketed_host(&self.meeting.host)).to_string()
    }

    /// The domain that accounts register with.
    pub(super) fn domain(&self) -> String {
        Uri::sip("", &bracketed_host(&self.meeting.host)).to_string()
    }

    /// What a new request outside a dialog has in common with all.
    pub(super) fn request(
        &self,
        method: Method,
        uri: &str,
        (from, to): (&str, &str),
        call_id: &str,
        cseq: u32,
    ) -> Message {
        let line = format!("{cseq} {method}");
        let mut request = Message::request(method, uri);
        request.push_back(HeaderName::MaxForwards, "70");
        request.push_back(HeaderName::From, from);
        request.push_back(HeaderName::To, to);
        request.push_back(HeaderName::CallId, call_id);
        request.push_back(HeaderName::CSeq, line);
        stamp(&mut request);
        request
    }

    /// Where a request in a dialog goes: to the address that its first route or target names. Names are not looked
    /// up: where the dialog names a domain the server's own address is as good a guess as any.
    pub(super) fn hop_of(&self, uri: &str) -> Hop {
        let Ok(uri) = Uri::parse(uri) else {
            return self.hop();
        };
        match (uri.ip(), uri.transport()) {
            (Some(ip), Some(transport)) if !matches!(transport, Transport::Ws | Transport::Wss) => {
                let port = uri.port.unwrap_or(transport.default_port());
                Hop::to(transport, SocketAddr::new(ip, port))
            }
            _ => self.hop(),
        }
    }
}

/// How the headers of all our messages end.
pub(super) fn stamp(message: &mut Message) {
    message.set(
        HeaderName::UserAgent,
        concat!("Rostrum load/", env!("CARGO_PKG_VERSION")),
    );
}

/// What a participant without an account is called.
pub(super) fn guest_name(participant: u32) -> String {
    format!("load-{:04}", participant + 1)
}

/// The user part somebody joins with.
pub(super) fn user(account: Option<&Account>, participant: u32) -> String {
    account.map_or_else(|| guest_name(participant), |a| a.user.clone())
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn bracketed_host(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}
