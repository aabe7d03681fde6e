//! The first processor: what must not be worked on at all (RFC 3261 §16.3, §8.2.2).

use sip::message::Defect;
use sip::{HeaderName, Message, Method, StatusCode, Uri};

use crate::settings::Settings;
use crate::{CoreLimits, Refusal};

/// Extensions a proxy of ours supports in Proxy-Require.
const PROXY_SUPPORTED: [&str; 0] = [];

/// Extensions the registrar supports in Require.
pub(crate) const REGISTRAR_SUPPORTED: [&str; 3] = ["path", "outbound", "gruu"];

/// Largest number of fields of one kind looked at.
fn too_many(message: &Message, limits: &CoreLimits) -> bool {
    [HeaderName::Via, HeaderName::Route, HeaderName::RecordRoute]
        .into_iter()
        .any(|name| message.values(name).nth(limits.route_values).is_some())
}

fn unsupported(message: &Message, name: HeaderName<'static>, supported: &[&str]) -> Option<String> {
    let missing: Vec<String> = message
        .values(name)
        .filter(|t| !supported.iter().any(|s| s.eq_ignore_ascii_case(t)))
        .map(str::to_owned)
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// Checks one request. `None`: it may go on.
pub(crate) fn check(message: &Message, settings: &Settings) -> Option<Refusal> {
    if let Some(Defect { status, reason }) = message.defect() {
        return Some(Refusal {
            status,
            reason,
            headers: Vec::new(),
        });
    }
    if too_many(message, &settings.limits) {
        return Some(Refusal::new(400, "Too Many Via Or Route Values"));
    }
    let Ok(uri) = Uri::parse(message.request_uri()) else {
        return Some(Refusal::new(400, "Malformed Request-URI"));
    };
    if !matches!(uri.scheme.as_str(), "sip" | "sips") {
        return Some(Refusal::new(416, "Unsupported URI Scheme"));
    }
    if uri.user_decoded().is_none() {
        return Some(Refusal::new(400, "Bad Escape In Request-URI"));
    }
    if let Some(tokens) = unsupported(message, HeaderName::ProxyRequire, &PROXY_SUPPORTED) {
        return Some(Refusal::new(420, "Bad Extension").with(HeaderName::Unsupported, tokens));
    }
    // Require is for the last element: for us in a REGISTER, a user in its Request-URI or not, and in an OPTIONS to
    // the server itself.
    let for_us = match message.method() {
        Method::Register => settings.is_ours(&uri),
        _ => uri.user.is_empty() && settings.is_ours(&uri),
    };
    if for_us
        && matches!(message.method(), Method::Register | Method::Options)
        && let Some(tokens) = unsupported(message, HeaderName::Require, &REGISTRAR_SUPPORTED)
    {
        return Some(Refusal::new(420, "Bad Extension").with(HeaderName::Unsupported, tokens));
    }
    match message.number(HeaderName::MaxForwards) {
        Err(_) => Some(Refusal::new(400, "Malformed Max-Forwards")),
        // REGISTER and OPTIONS that have arrived need no further hop.
        Ok(Some(0)) if !for_us => Some(Refusal {
            status: StatusCode::of(483),
            reason: "Too Many Hops",
            headers: Vec::new(),
        }),
        Ok(_) => None,
    }
}
