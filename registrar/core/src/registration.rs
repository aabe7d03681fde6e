//! REGISTER (RFC 3261 §10.3, RFC 3327, RFC 3608, RFC 5626 §6, RFC 5627 §5): read, apply, answer.
//!
//! All of it is decided before anything is changed, so that a REGISTER is done as a whole or not at all.

use std::time::Duration;

use sip::header::NameAddr;
use sip::{HeaderName, Hop, Message, Transport, Uri};

use crate::Refusal;
use crate::flow_token::{TokenKind, TokenMint};
use crate::gruu::{GruuMint, gr_value};
use crate::location::{Binding, BindingSet, FlowRecord, same_contact};
use crate::settings::Settings;

/// Contact parameters that the registrar understands itself.
const OWN_PARAMS: [&str; 6] = [
    "expires",
    "q",
    "+sip.instance",
    "reg-id",
    "pub-gruu",
    "temp-gruu",
];

/// Longest Contact value, instance or Path stored, bytes.
const VALUE_MAX: usize = 1024;

/// What is stored outlives what is granted by this factor: of a client's refreshes only every second or third is
/// written then. Raising it saves writes, and makes other registrars find out later about a client that went away
/// without a word while its own registrar was dead.
const STORED: u64 = 3;

/// One Contact of a REGISTER.
#[derive(Clone, Debug)]
struct Update {
    binding: Binding,
    /// Seconds; 0 removes.
    expires: u32,
}

/// What a REGISTER asks.
#[derive(Clone, Debug)]
enum Ask {
    /// No Contact: what is registered?
    Query,
    /// `*` with Expires 0.
    RemoveAll,
    Update(Vec<Update>),
}

/// A REGISTER that was read and found in order.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub aor: String,
    ask: Ask,
    call_id: String,
    cseq: u32,
    /// Path to give back.
    path: Vec<String>,
    gruu: bool,
    outbound: bool,
    hop: Hop,
}

/// What a REGISTER is read with.
pub(crate) struct Context<'a> {
    pub settings: &'a Settings,
    pub tokens: &'a TokenMint,
    pub wall: Duration,
    /// A guest's registration ends with the guest.
    pub not_beyond: Option<u64>,
    /// Whether a Path URI may lead calls away from here; `None`: it came from where none is believed.
    pub believed: Option<&'a dyn Fn(&Uri) -> bool>,
}

fn q_value(text: Option<&str>) -> Option<u16> {
    let Some(text) = text else {
        return Some(1000);
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match (whole, digits) {
        ("0", true) => Some(fraction),
        ("1", true) if fraction == 0 => Some(1000),
        _ => None,
    }
}

fn q_text(q: u16) -> String {
    if q >= 1000 {
        "1".to_owned()
    } else {
        format!("0.{q:03}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    }
}

impl Register {
    /// Reads a REGISTER for `aor`.
    pub(crate) fn read(
        message: &Message,
        hop: &Hop,
        aor: String,
        context: &Context<'_>,
    ) -> Result<Self, Refusal> {
        let settings = context.settings;
        let bad = |reason| Refusal::new(400, reason);
        let cseq = message.cseq().map_err(|_| bad("Malformed CSeq"))?.number;
        let contacts = message.contacts().map_err(|_| bad("Malformed Contact"))?;
        let path = message
            .addresses(HeaderName::Path)
            .map_err(|_| bad("Malformed Path"))?;
        // RFC 3327 §6: whoever writes the Path chooses where this user's calls go.
        if let Some(first) = path.first() {
            let believed = context.believed.ok_or_else(|| {
                Refusal::new(403, "Path Is Taken From Proxies In Trusted Networks Only")
            })?;
            if !believed(&first.uri) {
                return Err(Refusal::new(403, "Path Leads Out Of The Trusted Networks"));
            }
        }
        let path: Vec<String> = path.iter().map(|p| p.uri.to_string()).collect();
        if path.iter().any(|p| p.len() > VALUE_MAX) {
            return Err(bad("Path Too Long"));
        }
        if contacts.len() > settings.limits.contacts_per_request || path.len() > 8 {
            return Err(Refusal::new(403, "Too Many Contacts In One Request"));
        }
        let direct = message.values(HeaderName::Via).count() == 1;
        let mut register = Self {
            aor,
            ask: Ask::Query,
            call_id: message.call_id().to_owned(),
            cseq,
            gruu: message.has_token(HeaderName::Supported, "gruu"),
            outbound: false,
            path,
            hop: *hop,
        };
        let outbound_asked = message.has_token(HeaderName::Supported, "outbound")
            && contacts.iter().any(|c| {
                c.params.get("+sip.instance").is_some() && c.params.get("reg-id").is_some()
            });
        if outbound_asked {
            // The hop next to the client must keep the flow: it is us, or its Path URI says `ob`.
            let first_hop = direct
                || register
                    .path
                    .last()
                    .is_some_and(|p| sip::Uri::parse(p).is_ok_and(|u| u.param("ob").is_some()));
            if !first_hop {
                return Err(Refusal::new(439, "First Hop Lacks Outbound Support"));
            }
            register.outbound = true;
        }
        let flow = (direct || register.path.is_empty()).then(|| flow_record(hop, context));
        register.ask = register.read_contacts(message, &contacts, flow.as_ref(), context)?;
        Ok(register)
    }

    fn read_contacts(
        &self,
        message: &Message,
        contacts: &[NameAddr],
        flow: Option<&FlowRecord>,
        context: &Context<'_>,
    ) -> Result<Ask, Refusal> {
        let bad = |reason| Refusal::new(400, reason);
        let default = message
            .number(HeaderName::Expires)
            .ok()
            .flatten()
            .unwrap_or(context.settings.default_expires);
        if contacts.iter().any(NameAddr::is_star) {
            let alone = contacts.len() == 1
                && message.number(HeaderName::Expires).ok().flatten() == Some(0);
            return if alone {
                Ok(Ask::RemoveAll)
            } else {
                Err(bad("Contact * Needs Expires 0 And No Other Contact"))
            };
        }
        if contacts.is_empty() {
            return Ok(Ask::Query);
        }
        let user_agent: String = message
            .header(HeaderName::UserAgent)
            .unwrap_or("")
            .chars()
            .take(80)
            .collect();
        let mut updates = Vec::with_capacity(contacts.len());
        for contact in contacts {
            let mut update = self.read_contact(contact, default, context)?;
            update.binding.flow = flow.cloned();
            update.binding.user_agent.clone_from(&user_agent);
            updates.push(update);
        }
        let lasting = updates.iter().filter(|u| u.expires > 0).count();
        if lasting > 1 && updates.iter().any(|u| u.binding.reg_id.is_some()) {
            // RFC 5626 §6: one flow a request.
            return Err(bad("More Than One Contact With A reg-id"));
        }
        Ok(Ask::Update(updates))
    }

    fn read_contact(
        &self,
        contact: &NameAddr,
        default: u32,
        context: &Context<'_>,
    ) -> Result<Update, Refusal> {
        let settings = context.settings;
        let bad = |reason| Refusal::new(400, reason);
        let uri = contact.uri.to_string();
        if !matches!(contact.uri.scheme.as_str(), "sip" | "sips") {
            return Err(bad("Contact Is No SIP URI"));
        }
        if uri.len() > VALUE_MAX {
            return Err(bad("Contact Too Long"));
        }
        // An expires that is no number counts as absent (§10.3 step 7 lets the registrar choose).
        let asked = contact
            .params
            .get("expires")
            .and_then(|e| e.parse::<u32>().ok())
            .unwrap_or(default);
        if asked > 0 && asked < settings.min_expires {
            return Err(Refusal::new(423, "Interval Too Brief")
                .with(HeaderName::MinExpires, settings.min_expires.to_string()));
        }
        let wall = context.wall.as_secs();
        let mut expires = asked.min(settings.max_expires);
        if let Some(end) = context.not_beyond {
            expires = expires.min(u32::try_from(end.saturating_sub(wall)).unwrap_or(u32::MAX));
        }
        let instance = contact
            .params
            .get("+sip.instance")
            .filter(|i| !i.is_empty() && i.len() <= VALUE_MAX)
            .map(str::to_owned);
        // A reg-id without an instance, or from a client that does not speak Outbound, means nothing (RFC 5626 §6).
        let reg_id = match contact.params.get("reg-id") {
            Some(text) if self.outbound && instance.is_some() => Some(
                text.parse::<u32>()
                    .ok()
                    .filter(|n| (1..1 << 31).contains(n))
                    .ok_or_else(|| bad("Malformed reg-id"))?,
            ),
            _ => None,
        };
        let params: Vec<_> = contact
            .params
            .0
            .iter()
            .filter(|(name, _)| !OWN_PARAMS.iter().any(|o| o.eq_ignore_ascii_case(name)))
            .cloned()
            .collect();
        if params.len() > 32
            || params
                .iter()
                .any(|(n, v)| n.len() + v.as_ref().map_or(0, String::len) > VALUE_MAX)
        {
            return Err(bad("Contact Too Long"));
        }
        Ok(Update {
            binding: Binding {
                contact: uri,
                q: q_value(contact.params.get("q")).ok_or_else(|| bad("Malformed q"))?,
                expires_at: (wall + STORED * u64::from(expires))
                    .min(context.not_beyond.unwrap_or(u64::MAX)),
                granted: expires,
                served_until: Some(wall + u64::from(expires)),
                call_id: self.call_id.clone(),
                cseq: self.cseq,
                instance,
                reg_id,
                params,
                path: self.path.clone(),
                flow: None,
                updated_at: wall,
                user_agent: String::new(),
            },
            expires,
        })
    }

    /// Whether the record may change.
    pub(crate) fn is_query(&self) -> bool {
        matches!(self.ask, Ask::Query)
    }

    /// What the record becomes.
    pub(crate) fn apply(
        &self,
        current: Option<&BindingSet>,
        wall: Duration,
        settings: &Settings,
    ) -> Result<BindingSet, Refusal> {
        let now = wall.as_secs();
        let mut set = BindingSet::new(&self.aor);
        set.bindings
            .extend(current.into_iter().flat_map(|c| c.live(now).cloned()));
        match &self.ask {
            Ask::Query => {}
            Ask::RemoveAll => {
                for binding in &set.bindings {
                    self.check_order(binding)?;
                }
                set.bindings.clear();
            }
            Ask::Update(updates) => {
                // Against what was there before: one request may name a binding twice.
                for update in updates {
                    if let Some(at) = place_of(&set, &update.binding) {
                        self.check_order(&set.bindings[at])?;
                    }
                }
                for update in updates {
                    apply_one(&mut set, update);
                }
            }
        }
        if set.bindings.len() > settings.limits.bindings_per_aor {
            return Err(Refusal::new(403, "Too Many Registered Contacts"));
        }
        Ok(set)
    }

    /// §10.3 step 7: within one Call-ID only a higher CSeq may change a binding.
    fn check_order(&self, binding: &Binding) -> Result<(), Refusal> {
        if binding.call_id == self.call_id && self.cseq <= binding.cseq {
            return Err(Refusal::new(500, "CSeq Out Of Order"));
        }
        Ok(())
    }

    /// Header fields of the 200.
    pub(crate) fn answer(
        &self,
        set: &BindingSet,
        wall: Duration,
        settings: &Settings,
        gruus: &GruuMint,
        random: u64,
    ) -> Vec<(HeaderName<'static>, String)> {
        let now = wall.as_secs();
        let mut headers: Vec<(HeaderName<'static>, String)> = set
            .live(now)
            .enumerate()
            .map(|(i, binding)| {
                let random = random.wrapping_add(i as u64);
                (
                    HeaderName::Contact,
                    self.contact_value(binding, now, gruus, random),
                )
            })
            .collect();
        for path in &self.path {
            headers.push((HeaderName::Path, format!("<{path}>")));
        }
        if settings.service_route {
            let address = settings.address_towards(&self.hop, false);
            headers.push((
                HeaderName::ServiceRoute,
                format!(
                    "<sip:{};transport={};lr>",
                    address.host_port(),
                    self.hop.transport.uri_token()
                ),
            ));
        }
        let mut supported = "path, gruu".to_owned();
        if self.outbound {
            supported.push_str(", outbound");
            // RFC 5626 §6: tells the client that Outbound was applied.
            headers.push((HeaderName::Require, "outbound".to_owned()));
            headers.push((HeaderName::FlowTimer, settings.flow_timer.to_string()));
        }
        headers.push((HeaderName::Supported, supported));
        headers
    }

    fn contact_value(&self, binding: &Binding, now: u64, gruus: &GruuMint, random: u64) -> String {
        let mut value = format!(
            "<{}>;expires={};q={}",
            binding.contact,
            binding.left(now),
            q_text(binding.q)
        );
        if let Some(instance) = &binding.instance {
            push_param(&mut value, "+sip.instance", Some(instance));
        }
        if let Some(reg_id) = binding.reg_id {
            push_param(&mut value, "reg-id", Some(&reg_id.to_string()));
        }
        if self.gruu
            && let Some(instance) = &binding.instance
            && let Some((_, domain)) = self.aor.rsplit_once('@')
        {
            let reference = gruus.reference(&self.aor, instance, &binding.call_id);
            let user = crate::authentication::escape_user(aor_user(&self.aor));
            push_quoted(
                &mut value,
                "pub-gruu",
                &format!("sip:{user}@{domain};gr={}", gr_value(instance)),
            );
            push_quoted(
                &mut value,
                "temp-gruu",
                &format!("sip:{}@{domain};gr", gruus.temporary(&reference, random)),
            );
        }
        for (name, param) in &binding.params {
            push_param(&mut value, name, param.as_deref());
        }
        value
    }
}

/// The binding that `wanted` stands for.
fn place_of(set: &BindingSet, wanted: &Binding) -> Option<usize> {
    set.bindings.iter().position(|b| {
        match (wanted.reg_id, b.reg_id) {
            // RFC 5626 §6: instance and reg-id name the flow, whatever the Contact URI says now.
            (Some(new), Some(old)) => old == new && b.instance == wanted.instance,
            _ => same_contact(&b.contact, &wanted.contact),
        }
    })
}

fn apply_one(set: &mut BindingSet, update: &Update) {
    let wanted = &update.binding;
    match place_of(set, wanted) {
        Some(at) if update.expires == 0 => {
            set.bindings.remove(at);
        }
        Some(at) => {
            let stored = set.bindings[at].expires_at;
            let lasts = wanted.served_until.is_some_and(|until| stored >= until);
            let refreshed = lasts && set.bindings[at].is_refreshed_by(wanted);
            set.bindings[at] = wanted.clone();
            if refreshed {
                set.bindings[at].expires_at = stored;
            }
        }
        None if update.expires > 0 => set.bindings.push(wanted.clone()),
        None => {}
    }
}

/// The unescaped user of an address of record.
pub(crate) fn aor_user(aor: &str) -> &str {
    let bare = aor.strip_prefix("sip:").unwrap_or(aor);
    bare.rsplit_once('@').map_or(bare, |(user, _)| user)
}

fn flow_record(hop: &Hop, context: &Context<'_>) -> FlowRecord {
    let token = context.tokens.mint(TokenKind::Edge, Some(hop));
    // Other registrars come in over UDP or TCP whatever the client speaks.
    let inner = [Transport::Udp, Transport::Tcp, Transport::Tls]
        .into_iter()
        .find(|t| {
            let has = |list: &[crate::Advertised]| list.iter().any(|a| a.transport == *t);
            has(&context.settings.internal) || has(&context.settings.advertised)
        })
        .unwrap_or(Transport::Udp);
    let address = context.settings.address_for(inner, true);
    FlowRecord {
        node: context.settings.node.clone(),
        edge: format!(
            "sip:{token}@{};transport={};lr;ob",
            address.host_port(),
            inner.uri_token()
        ),
        token,
        transport: hop.transport.uri_token().to_owned(),
    }
}

fn push_param(out: &mut String, name: &str, value: Option<&str>) {
    match value {
        None | Some("") => {
            out.push(';');
            out.push_str(name);
        }
        Some(value)
            if value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b)) =>
        {
            out.push(';');
            out.push_str(name);
            out.push('=');
            out.push_str(value);
        }
        Some(value) => push_quoted(out, name, value),
    }
}

fn push_quoted(out: &mut String, name: &str, value: &str) {
    out.push(';');
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_is_read_and_written_as_the_grammar_has_it() {
        for (text, q, back) in [
            ("1", 1000, "1"),
            ("1.000", 1000, "1"),
            ("0", 0, "0"),
            ("0.5", 500, "0.5"),
            ("0.05", 50, "0.05"),
            ("0.", 0, "0"),
        ] {
            assert_eq!(q_value(Some(text)), Some(q), "{text}");
            assert_eq!(q_text(q), back);
        }
        for text in ["1.5", "2", "-1", "0.1234", "x", ""] {
            assert_eq!(q_value(Some(text)), None, "{text}");
        }
    }
}
