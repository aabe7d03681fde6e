//! What a request says of the client that sent it, beyond the elements on its way, and how we appear to that.

use std::net::IpAddr;

use sip::header::Via;
use sip::offer_answer::OfferKind;
use sip::{HeaderName, Message, Uri};

use crate::ids::MeetingId;
use crate::participant::Facts;

/// The client's own Via says another address than its first hop saw: it is behind NAT (RFC 3581 §4).
pub(crate) fn is_behind_nat(request: &Message) -> bool {
    let Some(via) = own_via(request) else {
        return false;
    };
    match (written(&via), via.received()) {
        (Some(written), Some(seen)) => written != seen,
        _ => false,
    }
}

/// What to offer a caller that offers nothing: a browser needs its own kind.
pub(crate) fn offer_kind(request: &Message, facts: &Facts) -> OfferKind {
    let browser =
        own_via(request).is_some_and(|via| via.transport.to_ascii_uppercase().starts_with("WS"));
    if browser {
        OfferKind::WebRtc {
            audio_slots: facts.config.audio_slots,
            video_slots: facts.config.video_slots,
        }
    } else {
        OfferKind::Phone {
            video: facts.config.video_slots > 0,
            ipv6: address(request).is_some_and(|ip| ip.is_ipv6()),
        }
    }
}

/// Our Contact in the dialog that a request makes. It names the cluster, says that a focus is there (RFC 4579), and is
/// a SIPS URI where the caller asks for that: by the Request-URI, by the first Record-Route, or where there is none by
/// its Contact (RFC 3261 §12.1.1).
pub(crate) fn contact(request: &Message, meeting: &MeetingId, domain: &str) -> String {
    let first = |name| {
        let values = request.addresses(name).ok()?;
        values.first().map(|value| value.uri.to_string())
    };
    let way = first(HeaderName::RecordRoute).or_else(|| first(HeaderName::Contact));
    let is_secure = |uri: &str| Uri::parse(uri).is_ok_and(|uri| uri.is_secure());
    let secure = is_secure(request.request_uri()) || way.is_some_and(|uri| is_secure(&uri));
    let scheme = if secure { "sips" } else { "sip" };
    format!("<{scheme}:{meeting}@{domain}>;isfocus")
}

/// Where it signals from: what its first hop saw, else what it says of itself.
fn address(request: &Message) -> Option<IpAddr> {
    let via = own_via(request);
    let contact = || {
        let contacts = request.contacts().ok()?;
        Uri::parse(&contacts.first()?.uri.to_string()).ok()?.ip()
    };
    via.as_ref()
        .and_then(|via| via.received().or_else(|| written(via)))
        .or_else(contact)
        .map(|ip| ip.to_canonical())
}

fn own_via(request: &Message) -> Option<Via> {
    request
        .values(HeaderName::Via)
        .last()
        .and_then(|v| Via::parse(v).ok())
}

fn written(via: &Via) -> Option<IpAddr> {
    via.host.trim_matches(['[', ']']).parse().ok()
}
