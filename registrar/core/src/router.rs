//! Where a request goes (RFC 3261 §16.4, §16.5, §16.12; RFC 5626 §5.3; RFC 5627 §5).
//!
//! Of the Route values that are ours the last one decides: it was recorded towards the side the request is
//! going to. With a flow in its token the request goes to that flow; without, by its Request-URI.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cluster::ownership::{Candidate, choose};
use cluster::records::Member;
use sip::header::NameAddr;
use sip::{FlowId, HeaderName, Hop, Message, Method, Transport, Uri};

use crate::authentication::Identity;
use crate::flow_token::{FlowToken, TokenHost, TokenKind, TokenMint};
use crate::gruu::GruuMint;
use crate::guest::{GuestName, valid_meeting_name};
use crate::location::{Binding, Location, aor_of};
use crate::settings::Settings;
use crate::users::Users;
use crate::{CoreLimits, Refusal};

/// Members tried for a meeting that nobody owns.
const MEMBERS_TRIED: usize = 3;

/// Where a way leads.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// A client's connection.
    Flow(Hop),
    /// One host.
    Host(Host),
    /// Whatever this URI resolves to.
    Name(Box<Uri>),
}

/// One host, at any of its addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// In its order of preference.
    pub addresses: Vec<(Transport, SocketAddr)>,
    /// The name it was found by, which its certificate must carry (RFC 5922 §7.3).
    pub name: Option<Arc<str>>,
}

/// One way to a target.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// New Request-URI; `None`: as it is.
    pub request_uri: Option<String>,
    /// URIs put before the Route values.
    pub routes: Vec<String>,
    /// Where to.
    pub destination: Destination,
    /// Who is there.
    pub side: Side,
    /// What a name on it may turn out to be.
    pub reach: Reach,
    /// The meeting manager that is there.
    pub member: Option<String>,
}

/// Which addresses a request may go to, once a name is resolved: names are whoever's has them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach {
    /// Any.
    All,
    /// Those that users may call.
    Users,
    /// Those that a dialog which was let through to this host may go to.
    Dialog(TokenHost),
}

/// Who is at the end of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A client of ours: later requests of the dialog must find its connection again.
    Client,
    /// A meeting manager or another registrar, which know us by our internal address.
    Inner,
    /// A host that can be reached by its URI.
    Outside,
}

impl Way {
    pub(crate) fn to(destination: Destination, side: Side) -> Self {
        Self {
            request_uri: None,
            routes: Vec::new(),
            destination,
            side,
            reach: Reach::All,
            member: None,
        }
    }

    fn to_member(member: &Member) -> Self {
        Self {
            member: Some(member.id.clone()),
            ..Self::to(Destination::Host(member_host(member)), Side::Inner)
        }
    }

    fn outside(uri: Uri, reach: Reach) -> Self {
        Self {
            reach,
            ..Self::to(Destination::Name(Box::new(uri)), Side::Outside)
        }
    }
}

/// One branch of a fork: ways to the same user agent, the best first.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub ways: Vec<Way>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is turned away.
    Refuse(Refusal),
    /// It is a REGISTER for us.
    Register,
    /// It is an OPTIONS for the server itself.
    Options,
    /// Its meeting has no living owner at the moment.
    Park,
    /// It is forwarded: groups in order of q.
    Forward(Vec<Vec<Target>>),
}

fn refuse(status: u16, reason: &'static str) -> Decision {
    Decision::Refuse(Refusal::new(status, reason))
}

/// A Route value of ours: its token, if it has one, and all of it.
type OwnRoute = (Option<FlowToken>, Uri);

/// All that routing looks at.
pub(crate) struct Router<'a> {
    pub settings: &'a Settings,
    pub tokens: &'a TokenMint,
    pub location: &'a Location,
    pub users: &'a Users,
    pub members: &'a BTreeMap<String, Member>,
    pub owners: &'a BTreeMap<String, String>,
    pub flows: &'a BTreeSet<FlowId>,
    pub factories: &'a BTreeSet<String>,
    pub wall: Duration,
}

/// Members in the order they are tried: the one that all registrars and managers choose, then who they would
/// choose without that one, and so on.
fn in_order<'m>(key: &str, mut candidates: Vec<Candidate<'m>>) -> Vec<&'m str> {
    let mut order = Vec::new();
    while order.len() < MEMBERS_TRIED
        && let Some(chosen) = choose(key, &candidates)
    {
        candidates.retain(|c| c.id != chosen);
        order.push(chosen);
    }
    order
}

pub(crate) fn in_dialog(message: &Message) -> bool {
    message.to().is_ok_and(|to| to.tag().is_some())
}

/// SIP addresses of a member, in its order of preference.
fn member_host(member: &Member) -> Host {
    let addresses = member
        .sip
        .iter()
        .filter_map(|(token, address)| Some((token.parse().ok()?, *address)));
    Host {
        addresses: addresses.collect(),
        name: None,
    }
}

impl Router<'_> {
    /// The token in the user part of a URI of ours.
    pub(crate) fn token_of(&self, uri: &Uri) -> Option<FlowToken> {
        self.tokens.open(&uri.user)
    }

    fn is_own_route(&self, uri: &Uri) -> bool {
        self.token_of(uri).is_some()
            || (self.settings.is_ours(uri) && (uri.user.is_empty() || uri.is_loose_router()))
    }

    /// Whether a Route of the request, or its Request-URI, carries a token we gave to a dialog.
    pub(crate) fn has_dialog_token(&self, message: &Message) -> bool {
        // A phone may have put its outbound proxy, which is us, before the route set.
        let route = message
            .values(HeaderName::Route)
            .map_while(|value| Some(NameAddr::parse(value).ok()?.uri))
            .take_while(|uri| self.is_own_route(uri))
            .find_map(|uri| self.token_of(&uri));
        let request_uri = || {
            let uri = Uri::parse(message.request_uri()).ok()?;
            self.token_of(&uri)
        };
        route.or_else(request_uri).is_some()
    }

    /// The token of the topmost Route, where it was made for a binding.
    pub(crate) fn has_edge_token(&self, message: &Message) -> bool {
        message
            .values(HeaderName::Route)
            .next()
            .and_then(|value| NameAddr::parse(value).ok())
            .and_then(|address| self.token_of(&address.uri))
            .is_some_and(|token| token.kind == TokenKind::Edge)
    }

    /// Whether the request goes to a meeting here, once what is ours of its Route is off.
    pub(crate) fn is_for_meeting(&self, message: &Message) -> bool {
        if message.header(HeaderName::Route).is_none() {
            return self.names_meeting(message);
        }
        let mut routed = message.clone();
        let undone = self.undo_strict_routing(&mut routed);
        let Ok(popped) = self.pop_own_routes(&mut routed) else {
            return false;
        };
        let flow = popped.or(undone).and_then(|last| last.0?.flow);
        flow.is_none() && routed.header(HeaderName::Route).is_none() && self.names_meeting(&routed)
    }

    fn names_meeting(&self, message: &Message) -> bool {
        Uri::parse(message.request_uri()).is_ok_and(|uri| {
            self.settings.is_ours(&uri)
                && uri.param("gr").is_none()
                && uri
                    .user_decoded()
                    .is_some_and(|user| !self.is_known_user(&user) && valid_meeting_name(&user))
        })
    }

    fn is_known_user(&self, user: &str) -> bool {
        self.users.get(user).is_some()
            || GuestName::parse(user).is_some()
            || self
                .location
                .get(&aor_of(user, self.settings.domain()))
                .is_some()
    }

    /// A strict router before us put our URI into the Request-URI: the last Route is the real one (§16.4). What it
    /// put there, where that was so.
    ///
    /// Only a value that we placed into a Record-Route counts: whatever else names us, anybody can write.
    fn undo_strict_routing(&self, message: &mut Message) -> Option<OwnRoute> {
        let uri = Uri::parse(message.request_uri()).ok()?;
        let token = self.token_of(&uri)?;
        let mut routes: Vec<String> = message
            .values(HeaderName::Route)
            .map(str::to_owned)
            .collect();
        let address = NameAddr::parse(&routes.pop()?).ok()?;
        message.remove(HeaderName::Route);
        for route in routes.iter().rev() {
            message.push_front(HeaderName::Route, route.as_str());
        }
        message.set_request_uri(&address.uri.to_string());
        Some((Some(token), uri))
    }

    /// Takes our own Route values off; the last one's token and URI.
    fn pop_own_routes(&self, message: &mut Message) -> Result<Option<OwnRoute>, Refusal> {
        let mut last = None;
        loop {
            let Some(top) = message.values(HeaderName::Route).next() else {
                return Ok(last);
            };
            let uri = NameAddr::parse(top)
                .map_err(|_| Refusal::new(400, "Malformed Route"))?
                .uri;
            if !self.is_own_route(&uri) {
                return Ok(last);
            }
            message.pop_front(HeaderName::Route);
            last = Some((self.token_of(&uri), uri));
        }
    }

    /// Decides, and takes off the message what was meant for us.
    pub(crate) fn route(&self, message: &mut Message, hop: &Hop, identity: &Identity) -> Decision {
        let undone = self.undo_strict_routing(message);
        let popped = match self.pop_own_routes(message) {
            Ok(popped) => popped,
            Err(refusal) => return Decision::Refuse(refusal),
        };
        let request_uri = match Uri::parse(message.request_uri()) {
            Ok(uri) => uri,
            Err(_) => return refuse(400, "Malformed Request-URI"),
        };
        // A token in the Request-URI itself stands for the flow as well.
        let last = popped.or(undone).or_else(|| {
            let token = self.token_of(&request_uri)?;
            Some((Some(token), request_uri.clone()))
        });
        if let Some((Some(token), uri)) = &last
            && let Some(flow) = token.flow
        {
            let back = self.tokens.is_own_node(token)
                && (flow.flow.is_some() && hop.flow == flow.flow && self.tokens.is_current(token)
                    || hop.transport == flow.transport && hop.remote == flow.remote);
            let allowed = in_dialog(message) && *identity != Identity::MeetingDialog
                || token.kind == TokenKind::Edge
                || identity.is_trusted();
            if !allowed {
                return refuse(403, "This Route Is For Requests In A Dialog");
            }
            if !back {
                return self.to_flow(token, uri, &request_uri, identity);
            }
        }
        let outside = last.and_then(|(token, _)| token?.outside);
        if let Some(next) = message.values(HeaderName::Route).next() {
            return self.to_foreign_route(next, identity, outside);
        }
        if self.settings.is_ours(&request_uri) {
            return self.to_local(message, &request_uri, identity, outside);
        }
        self.to_foreign(&request_uri, identity, outside)
    }

    /// The hop of a token made by this node; `None` where the connection is gone.
    pub(crate) fn hop_of(&self, token: &FlowToken) -> Option<Hop> {
        let flow = token.flow?;
        let current = self.tokens.is_current(token);
        if let Some(id) = flow.flow.filter(|id| current && self.flows.contains(id)) {
            return Some(Hop {
                transport: flow.transport,
                remote: flow.remote,
                local: flow.local,
                flow: Some(id),
            });
        }
        if flow.flow.is_none() && self.tokens.is_own_node(token) {
            return Some(Hop::to(flow.transport, flow.remote));
        }
        // A datagram needs no connection, only the address: it survives a restart of ours.
        (flow.transport == Transport::Udp && self.tokens.is_own_node(token)).then(|| Hop {
            transport: Transport::Udp,
            remote: flow.remote,
            local: flow.local.filter(|local| {
                let open = |s: &SocketAddr| {
                    s.port() == local.port() && (s.ip() == local.ip() || s.ip().is_unspecified())
                };
                current || self.settings.datagram_sockets.iter().any(open)
            }),
            flow: None,
        })
    }

    /// As [`Self::hop_of`]; a client that takes connections on the very host it registered from is called back
    /// there when its connection is gone (RFC 3261 §18.1.1).
    fn hop_of_binding(&self, token: &FlowToken, binding: &Binding) -> Option<Hop> {
        let hop = self.hop_of(token);
        if hop.is_some() || binding.reg_id.is_some() {
            return hop;
        }
        let flow = token.flow?;
        let contact = Uri::parse(&binding.contact).ok()?;
        let listens = matches!(flow.transport, Transport::Tcp | Transport::Tls)
            && contact.ip() == Some(flow.remote.ip());
        let port = contact.port.unwrap_or(flow.transport.default_port());
        listens.then(|| Hop::to(flow.transport, SocketAddr::new(flow.remote.ip(), port)))
    }

    /// Bindings of the device that a request in a dialog goes to: by its GRUU or, from a host that is trusted, by its
    /// contact. Whoever else has a token may use the flow it names, and no contact that he thought of.
    fn bindings_named(&self, request_uri: &Uri, identity: &Identity) -> Vec<&Binding> {
        let now = self.wall.as_secs();
        let gr = request_uri.param("gr");
        if let Some(gr) = gr.filter(|_| self.settings.is_ours(request_uri)) {
            let user = request_uri.user_decoded().unwrap_or_default();
            return match self.location.of_temporary(&user) {
                Some((aor, gr)) => self.location.of_instance(aor, &gr, now),
                None => {
                    let aor = aor_of(&user, self.settings.domain());
                    self.location.of_instance(&aor, gr, now)
                }
            };
        }
        if !identity.is_trusted() {
            return Vec::new();
        }
        self.location.of_contact(&request_uri.to_string(), now)
    }

    /// Ways to a client that registered again over another connection than the token's, which is gone or a registrar's
    /// that is not asked any more: RFC 5626 §4.2 has one binding for an instance and reg-id, so the new one
    /// replaced the old.
    fn ways_after_move(
        &self,
        token: &FlowToken,
        request_uri: &Uri,
        identity: &Identity,
    ) -> Vec<Way> {
        let bindings = self.bindings_named(request_uri, identity);
        let stayed = |b: &&Binding| {
            let flow = b.flow.as_ref().and_then(|f| self.tokens.open(&f.token));
            flow.is_some_and(|f| f.node == token.node && f.generation == token.generation)
        };
        if !self.tokens.is_own_node(token) && bindings.iter().any(stayed) {
            return Vec::new();
        }
        let reached = |b: &&&Binding| !request_uri.is_secure() || is_reached_securely(b);
        let ways = bindings.iter().filter(reached);
        ways.filter_map(|b| self.way_of(b)).collect()
    }

    fn to_flow(
        &self,
        token: &FlowToken,
        uri: &Uri,
        request_uri: &Uri,
        identity: &Identity,
    ) -> Decision {
        if !self.tokens.is_own_node(token) {
            let ways = self.ways_after_move(token, request_uri, identity);
            if !ways.is_empty() {
                return Decision::Forward(vec![vec![Target { ways }]]);
            }
            let mut way = Way::to(Destination::Name(Box::new(uri.clone())), Side::Inner);
            way.routes.push(uri.to_string());
            return one(way);
        }
        if let Some(hop) = self.hop_of(token) {
            return one(Way::to(Destination::Flow(hop), Side::Client));
        }
        // The client came back over another connection; a GRUU still names it.
        if self.settings.is_ours(request_uri) && request_uri.param("gr").is_some() {
            return self.to_gruu(request_uri);
        }
        let ways = self.ways_after_move(token, request_uri, identity);
        if !ways.is_empty() {
            return Decision::Forward(vec![vec![Target { ways }]]);
        }
        refuse(430, "Flow Failed")
    }

    /// Whether we carry requests of this sender to a host that is not of the cluster. `outside`: the request has
    /// the token of a dialog that was let through to that host.
    ///
    /// Guests and callers that proved nothing never get out: a gateway in a trusted network costs money.
    fn may_go_to(&self, uri: &Uri, identity: &Identity, outside: Option<TokenHost>) -> bool {
        match identity {
            Identity::Trusted => true,
            Identity::User { .. } => self.is_open_to_users(uri),
            Identity::Dialog => outside.is_some_and(|host| self.is_open_to_dialog(uri, &host)),
            Identity::Guest { .. } | Identity::MeetingDialog | Identity::Anonymous => false,
        }
    }

    /// Whether users may call a host: any where we relay, else those in trusted networks. Managers and registrars
    /// are reached by what they serve, never by address.
    fn is_open_to_users(&self, uri: &Uri) -> bool {
        match uri.ip() {
            Some(ip) => self.is_reached(Reach::Users, address_of(uri, ip)),
            None => self.settings.relay,
        }
    }

    /// Whether an address is within a reach.
    pub(crate) fn is_reached(&self, reach: Reach, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let within = match reach {
            Reach::All => return true,
            Reach::Users => self.settings.relay || self.is_in_trusted_network(ip),
            Reach::Dialog(host) => {
                let mut trusted = self.settings.trusted.iter();
                ip == host.address
                    || !self.is_in_trusted_network(ip)
                    || trusted.any(|net| net.contains(&ip) && net.contains(&host.address))
            }
        };
        let mut members = self.members.values().flat_map(|m| &m.sip);
        within && !members.any(|(_, a)| *a == SocketAddr::new(ip, address.port()))
    }

    /// Whether calls may go to this first URI of a Path. What a name stands for is looked at once it is resolved.
    pub(crate) fn may_be_path(&self, first: &Uri) -> bool {
        first
            .ip()
            .is_none_or(|ip| self.is_reached(Reach::Users, address_of(first, ip)))
    }

    fn is_in_trusted_network(&self, ip: IpAddr) -> bool {
        self.settings.trusted.iter().any(|net| net.contains(&ip))
    }

    /// Whether later requests of a dialog that was let through to `host` may go to a host: to that one by its address
    /// or name, in its trusted network where it has one (a gateway's Contact may name its neighbour), and where we
    /// relay to any that is in none.
    fn is_open_to_dialog(&self, uri: &Uri, host: &TokenHost) -> bool {
        let Some(ip) = uri.ip() else {
            let name = uri.param("maddr").unwrap_or(&uri.host);
            return self.settings.relay || host.is_named(name);
        };
        let known = ip == host.address || self.settings.relay || {
            let mut trusted = self.settings.trusted.iter();
            trusted.any(|net| net.contains(&ip) && net.contains(&host.address))
        };
        known && self.is_reached(Reach::Dialog(*host), address_of(uri, ip))
    }

    fn to_foreign_route(
        &self,
        next: &str,
        identity: &Identity,
        outside: Option<TokenHost>,
    ) -> Decision {
        let Ok(address) = NameAddr::parse(next) else {
            return refuse(400, "Malformed Route");
        };
        if self.may_go_to(&address.uri, identity, outside) {
            one(Way::outside(address.uri, reach_of(identity, outside)))
        } else {
            refuse(403, "Route Through Other Hosts Not Allowed")
        }
    }

    fn to_foreign(&self, uri: &Uri, identity: &Identity, outside: Option<TokenHost>) -> Decision {
        if self.may_go_to(uri, identity, outside) {
            return one(Way::outside(uri.clone(), reach_of(identity, outside)));
        }
        match identity {
            Identity::User { .. } | Identity::Guest { .. } => {
                refuse(403, "Calls To Other Domains Not Allowed")
            }
            _ => refuse(404, "No Such Domain Here"),
        }
    }

    fn to_local(
        &self,
        message: &Message,
        uri: &Uri,
        identity: &Identity,
        outside: Option<TokenHost>,
    ) -> Decision {
        let Some(user) = uri.user_decoded() else {
            return refuse(400, "Bad Escape In Request-URI");
        };
        if let Identity::Guest { meeting, .. } = identity
            && *message.method() != Method::Register
            && user != *meeting
        {
            return refuse(403, "Guests May Only Call Their Meeting");
        }
        if user.is_empty() {
            return match message.method() {
                Method::Register => Decision::Register,
                Method::Options => Decision::Options,
                _ => refuse(404, "No User In Request-URI"),
            };
        }
        if *message.method() == Method::Register {
            // §10.2: the Request-URI of a REGISTER names a domain; many clients put a user there all the same.
            return Decision::Register;
        }
        let gruu = uri.param("gr").is_some();
        // A user's device is in a dialog by its flow; by name these reach meetings, but for a device that a host
        // outside knows by its GRUU.
        let allowed = match identity {
            Identity::User { .. } | Identity::Trusted | Identity::Anonymous => true,
            Identity::Dialog => gruu && outside.is_some() || !gruu && !self.is_known_user(&user),
            Identity::Guest { .. } | Identity::MeetingDialog => !gruu && !self.is_known_user(&user),
        };
        if !allowed {
            return refuse(403, "Only Meetings May Be Called This Way");
        }
        if gruu {
            return self.to_gruu(uri);
        }
        if self.is_known_user(&user) {
            return self.to_user(&user, uri.is_secure());
        }
        self.to_meeting(message, &user)
    }

    fn to_gruu(&self, uri: &Uri) -> Decision {
        let now = self.wall.as_secs();
        let Some(user) = uri.user_decoded() else {
            return refuse(400, "Bad Escape In Request-URI");
        };
        let (aor, gr) = if GruuMint::looks_temporary(&user) {
            match self.location.of_temporary(&user) {
                Some((aor, gr)) => (aor.to_owned(), gr),
                None => return refuse(404, "No Such Temporary Address"),
            }
        } else {
            let gr = uri.param("gr").unwrap_or("").to_owned();
            (aor_of(&user, self.settings.domain()), gr)
        };
        let bindings = self.location.of_instance(&aor, &gr, now);
        let ways: Vec<Way> = bindings
            .iter()
            .filter(|b| !uri.is_secure() || is_reached_securely(b))
            .filter_map(|b| self.way_of(b))
            .collect();
        if ways.is_empty() {
            return refuse(480, "This Device Is Not Registered");
        }
        Decision::Forward(vec![vec![Target { ways }]])
    }

    /// How to reach a binding; `None` where its connection is known to be gone.
    fn way_of(&self, binding: &Binding) -> Option<Way> {
        let request_uri = Some(target_of(&binding.contact));
        if let Some(flow) = &binding.flow {
            let token = self.tokens.open(&flow.token)?;
            // Only a proxy that was trusted has a Path to go by; the record may be older than that rule.
            let proxy = token.flow?.remote.ip();
            let path = match self.is_in_trusted_network(proxy) {
                true => binding.path.as_slice(),
                false => &[],
            };
            if self.tokens.is_own_node(&token) {
                let hop = self.hop_of_binding(&token, binding)?;
                return Some(Way {
                    request_uri,
                    routes: path.to_vec(),
                    ..Way::to(Destination::Flow(hop), Side::Client)
                });
            }
            let edge = Uri::parse(&flow.edge).ok()?;
            let mut routes = vec![flow.edge.clone()];
            routes.extend_from_slice(path);
            return Some(Way {
                request_uri,
                routes,
                ..Way::to(Destination::Name(Box::new(edge)), Side::Inner)
            });
        }
        let first = Uri::parse(binding.path.first()?).ok()?;
        self.may_be_path(&first).then(|| Way {
            request_uri,
            routes: binding.path.clone(),
            ..Way::outside(first, Reach::Users)
        })
    }

    /// `secure`: over TLS only, for the Request-URI is a sips one.
    fn to_user(&self, user: &str, secure: bool) -> Decision {
        let aor = aor_of(user, self.settings.domain());
        let now = self.wall.as_secs();
        let mut bindings: Vec<&Binding> =
            self.location.get(&aor).map_or_else(Vec::new, |(set, _)| {
                set.live(now)
                    .filter(|b| !secure || is_reached_securely(b))
                    .collect()
            });
        bindings.sort_by_key(|b| (std::cmp::Reverse(b.q), std::cmp::Reverse(b.updated_at)));
        let mut groups: Vec<(u16, Vec<Target>)> = Vec::new();
        let mut instances: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let mut count = 0;
        for binding in bindings {
            let Some(way) = self.way_of(binding) else {
                continue;
            };
            // RFC 5626 §5.1: the flows of one instance are alternatives, never forked to.
            let outbound = binding.reg_id.and(binding.instance.as_deref());
            if let Some((group, target)) = outbound.and_then(|i| instances.get(i)) {
                groups[*group].1[*target].ways.push(way);
                continue;
            }
            if count == self.settings.limits.branches {
                break;
            }
            count += 1;
            if groups.last().is_none_or(|(q, _)| *q != binding.q) {
                groups.push((binding.q, Vec::new()));
            }
            let group = groups.len() - 1;
            groups[group].1.push(Target { ways: vec![way] });
            if let Some(instance) = outbound {
                instances.insert(instance, (group, groups[group].1.len() - 1));
            }
        }
        if groups.is_empty() {
            return refuse(480, "User Not Registered");
        }
        Decision::Forward(groups.into_iter().map(|(_, targets)| targets).collect())
    }

    /// The owner of a meeting, or who will be.
    pub(crate) fn to_meeting(&self, message: &Message, meeting: &str) -> Decision {
        if !valid_meeting_name(meeting) {
            return refuse(404, "No Such User Or Meeting");
        }
        if let Some(owner) = self.owners.get(meeting) {
            if let Some(member) = self.members.get(owner) {
                return one(Way::to_member(member));
            }
            if in_dialog(message) {
                return Decision::Park;
            }
        }
        let stopping = !self.members.is_empty() && self.members.values().all(|m| m.draining);
        if stopping && !in_dialog(message) {
            // RFC 3261 §16.7 step 6: their own 503 would become a 500 here, and they would all give one.
            return Decision::Refuse(
                Refusal::new(503, "Meeting Managers Are Stopping")
                    .with(HeaderName::RetryAfter, "60"),
            );
        }
        let key = if self.factories.contains(meeting) && !in_dialog(message) {
            // Every call to the factory makes a meeting: spread them.
            message.call_id()
        } else {
            meeting
        };
        let candidates = self.members.values().map(|m| Candidate {
            id: &m.id,
            load: m.load,
            draining: m.draining,
        });
        let ways: Vec<Way> = in_order(key, candidates.collect())
            .into_iter()
            .filter_map(|id| self.members.get(id))
            .map(Way::to_member)
            .collect();
        if ways.is_empty() {
            if in_dialog(message) {
                return Decision::Park;
            }
            return Decision::Refuse(
                Refusal::new(503, "No Meeting Manager Available").with(HeaderName::RetryAfter, "5"),
            );
        }
        Decision::Forward(vec![vec![Target { ways }]])
    }
}

/// Whether a request to a sips URI may go to a binding: the last hop runs over TLS (RFC 3261 §26.2.2), by its flow or
/// because the contact is a sips URI itself (RFC 5630 §5.3).
fn is_reached_securely(binding: &Binding) -> bool {
    match &binding.flow {
        Some(flow) => flow
            .transport
            .parse()
            .is_ok_and(|transport: Transport| transport.is_secure()),
        None => Uri::parse(&binding.contact).is_ok_and(|contact| contact.is_secure()),
    }
}

/// A contact as a Request-URI: without what may not stand there (RFC 3261 §16.6 step 2, §19.1.1).
fn target_of(contact: &str) -> String {
    match Uri::parse(contact) {
        Ok(mut uri) if !uri.headers.is_empty() || uri.param("method").is_some() => {
            uri.headers.clear();
            uri.remove_param("method");
            uri.to_string()
        }
        _ => contact.to_owned(),
    }
}

fn address_of(uri: &Uri, ip: IpAddr) -> SocketAddr {
    let default = uri.transport().map_or(5060, Transport::default_port);
    SocketAddr::new(ip, uri.port.unwrap_or(default))
}

/// What a name may turn out to be, for a sender that may call it.
fn reach_of(identity: &Identity, outside: Option<TokenHost>) -> Reach {
    match (identity, outside) {
        (Identity::Trusted, _) => Reach::All,
        (Identity::Dialog, Some(host)) => Reach::Dialog(host),
        _ => Reach::Users,
    }
}

fn one(way: Way) -> Decision {
    Decision::Forward(vec![vec![Target { ways: vec![way] }]])
}

/// Max-Breadth where the request has none (RFC 5393 §5.3.1).
pub(crate) const MAX_BREADTH: u32 = 60;

/// Max-Breadth of a request.
pub(crate) fn max_breadth(message: &Message, limits: &CoreLimits) -> u32 {
    message
        .number(HeaderName::Other("Max-Breadth"))
        .ok()
        .flatten()
        .unwrap_or(MAX_BREADTH)
        .min(
            u32::try_from(limits.branches)
                .unwrap_or(u32::MAX)
                .max(MAX_BREADTH),
        )
}
