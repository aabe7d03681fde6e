//! Which transaction a message belongs to (RFC 3261 §17.1.3, §17.2.3, §8.2.2.2), and where its response goes (§18.2.2).

use std::net::SocketAddr;

use crate::header::Via;
use crate::hop::{Hop, Transport};
use crate::message::{HeaderName, Message, Method};

/// Starts the branch of everything that follows RFC 3261 (§8.1.1.7).
pub(super) const COOKIE: &str = "z9hG4bK";

/// Longest branch of ours, cookie and user's part: far beyond what a proxy's loop detection needs.
pub(super) const MAX_BRANCH: usize = 256;

/// Whether a branch is unique by the rules of RFC 3261.
fn has_cookie(branch: &str) -> bool {
    branch.len() > COOKIE.len()
        && branch
            .get(..COOKIE.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(COOKIE))
}

/// What identifies a server transaction: one string, so that the table needs one look-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ServerMatch(Box<str>);

/// What identifies a client transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientMatch(Box<str>);

/// A request's place among the server transactions.
pub(super) struct Matched {
    /// The key under which it is found.
    pub key: ServerMatch,
    /// The branch is from before RFC 3261, so the key is made of headers.
    pub legacy: bool,
}

/// §17.2.3. `via` is the top one as received, `as_method` the method under which to look: INVITE for an ACK or for
/// what a CANCEL cancels.
pub(super) fn server_match(request: &Message, via: &Via, as_method: &Method) -> Matched {
    let branch = via.branch();
    let host = via.host.to_ascii_lowercase();
    // The port 5060 and none are the same sent-by for all that send over UDP and TCP, and a peer repeats itself.
    let port = via.port.unwrap_or(0);
    if has_cookie(branch) {
        return Matched {
            key: ServerMatch(format!("{as_method} {host}:{port} {branch}").into_boxed_str()),
            legacy: false,
        };
    }
    let number = request.cseq().map(|c| c.number).unwrap_or(0);
    let from = request
        .header(HeaderName::From)
        .and_then(tag_of)
        .unwrap_or("");
    // §17.2.3 compares the To tag too. It cannot be part of an INVITE's key, whose ACK carries the response's tag;
    // the layer compares that one itself.
    let to = match as_method {
        Method::Invite => "",
        _ => request
            .header(HeaderName::To)
            .and_then(tag_of)
            .unwrap_or(""),
    };
    Matched {
        key: ServerMatch(
            format!(
                "\n{as_method} {number} {from}\n{to}\n{}\n{}\n{host}:{port} {branch}",
                request.call_id(),
                request.request_uri(),
            )
            .into_boxed_str(),
        ),
        legacy: true,
    }
}

/// §17.1.3: branch and method; the method, since a CANCEL has the branch of its INVITE.
pub(super) fn client_match(branch: &str, method: &Method) -> ClientMatch {
    ClientMatch(format!("{method} {branch}").into_boxed_str())
}

/// What two copies of one request that came by different ways have in common (§8.2.2.2); `None` for a request
/// inside a dialog, or without a From tag.
pub(super) fn merge_match(request: &Message) -> Option<String> {
    let to = request.header(HeaderName::To)?;
    if tag_of(to).is_some() {
        return None;
    }
    let from = tag_of(request.header(HeaderName::From)?)?;
    let cseq = request.header(HeaderName::CSeq)?;
    Some(format!("{from}\n{}\n{cseq}", request.call_id()))
}

/// The `tag` parameter of a From or To value, without building a whole name-addr.
pub(super) fn tag_of(value: &str) -> Option<&str> {
    let bytes = value.as_bytes();
    let (mut quoted, mut escaped) = (false, false);
    // Header parameters begin after the `>`; without angle brackets at the first semicolon (§20.10).
    let mut parameters = None;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => {
                parameters = value[at..].find('>').map(|close| at + close + 1);
                break;
            }
            b';' if !quoted => {
                parameters = Some(at);
                break;
            }
            _ => {}
        }
    }
    let mut rest = &value[parameters?..];
    loop {
        rest = &rest[rest.find(';')? + 1..];
        let end = end_of_parameter(rest);
        if let Some((name, tag)) = rest[..end].split_once('=')
            && name.trim().eq_ignore_ascii_case("tag")
        {
            let tag = tag.trim();
            return (!tag.is_empty()).then_some(tag);
        }
        rest = &rest[end..];
    }
}

/// Up to the next semicolon that is not in quotes.
fn end_of_parameter(text: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// Notes in the top Via where the request really came from (§18.2.1, RFC 3581 §4). Returns whether it changed.
pub(super) fn stamp(via: &mut Via, hop: &Hop) -> bool {
    let ip = hop.remote.ip().to_canonical();
    let asks = via.params.get("rport").is_some();
    let literal = via.host.trim_start_matches('[').trim_end_matches(']');
    let same = literal
        .parse::<std::net::IpAddr>()
        .is_ok_and(|host| host == ip);
    if asks {
        via.params
            .set("rport", Some(&hop.remote.port().to_string()));
    }
    // RFC 3581 §4: with rport, `received` is added even where it says nothing new. What the sender wrote into
    // either is never believed.
    if asks || !same {
        via.params.set("received", Some(&ip.to_string()));
        return true;
    }
    if via.params.get("received").is_some() {
        via.params.remove("received");
        return true;
    }
    false
}

/// Where the response to a request goes whose stamped top Via this is (§18.2.2, RFC 3581 §4).
///
/// Streams: the connection it came on. UDP: from the same socket to the source address, and to the source port
/// where the client asked for that by `rport`, else to the sent-by port. `maddr` is not obeyed: there is no
/// multicast here, and to a single host it would only let anyone aim our responses at others.
pub(super) fn response_hop(via: &Via, hop: &Hop) -> Hop {
    if hop.transport != Transport::Udp || via.params.get("rport").is_some() {
        return *hop;
    }
    let port = via.port.unwrap_or(Transport::Udp.default_port());
    if port == hop.remote.port() {
        return *hop;
    }
    let mut remote = hop.remote;
    remote.set_port(port);
    Hop {
        transport: hop.transport,
        remote,
        local: hop.local,
        // The flow is the pair of addresses it came between, which this is not.
        flow: None,
    }
}

/// Whether two addresses are the same host.
pub(super) fn same_host(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip().to_canonical() == b.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_found_where_the_header_has_it_and_nowhere_else() {
        for (value, tag) in [
            ("<sip:a@b>;tag=abc", Some("abc")),
            ("<sip:a@b;tag=uri>", None),
            ("<sip:a@b;tag=uri>;x=1;TAG = q ;y", Some("q")),
            (r#""Al \" ;tag=no <" <sip:a@b>;tag=yes"#, Some("yes")),
            ("sip:a@b;tag=plain", Some("plain")),
            ("sip:a@b", None),
            ("<sip:a@b>;tag=", None),
            ("<sip:a@b>;tag", None),
            (r#"<sip:a@b>;p="x;tag=no";tag=t"#, Some("t")),
            ("<sip:a@b", None),
            (r#""unclosed <sip:a@b>;tag=x"#, None),
            ("", None),
            ("é<sip:ü@b>;ö=ä;tag=ß", Some("ß")),
        ] {
            assert_eq!(tag_of(value), tag, "{value}");
        }
    }

    #[test]
    fn only_the_cookie_with_something_after_it_makes_a_branch_unique() {
        assert!(has_cookie("z9hG4bKx"));
        assert!(has_cookie("Z9HG4BKx"));
        assert!(!has_cookie("z9hG4bK"));
        assert!(!has_cookie("1"));
        assert!(!has_cookie("zéééééééé"));
    }
}
