//! The stateful proxy (RFC 3261 §16): forwards requests over response contexts.

use std::net::SocketAddr;
use std::time::Instant;

use sip::header::NameAddr;
use sip::transaction::{ClientKey, ServerKey};
use sip::{HeaderName, Hop, Message, Method, StatusCode, Transport, Uri};

use crate::Refusal;
use crate::authentication::{Identity, assert_identity, remove_credentials};
use crate::command::{Command, ResolveId};
use crate::core::{Core, Timer};
use crate::flow_token::TokenKind;
use crate::loops;
use crate::response_context::{Action, BranchId, ResponseContext, State};
use crate::router::{Destination, Side, Target, Way, in_dialog, max_breadth};

/// RFC 3261 §18.1.1: a request larger than this goes over a stream where there is one.
const DATAGRAM_MAX: usize = 1300;

/// Room for the Via that the transaction layer adds.
const VIA_ROOM: usize = 160;

/// Max-Forwards where a request has none (§16.6 step 3).
const MAX_FORWARDS: u32 = 70;

const MAX_BREADTH_NAME: HeaderName<'static> = HeaderName::Other("Max-Breadth");

/// One proxied request.
#[derive(Debug)]
pub(crate) struct Proxied {
    pub context: ResponseContext,
    /// As routed: our Routes off, identity asserted.
    request: Message,
    hop: Hop,
    client: bool,
    loop_part: String,
    breadth: u32,
    /// Reason of the CANCEL that came.
    reason: Option<String>,
}

/// What waits for a name.
#[derive(Debug)]
pub(crate) enum Resolving {
    Branch(ServerKey, BranchId, Way),
    Ack(Box<Message>, String, Way),
}

/// Where a way leads physically.
enum Hosts {
    One(Hop),
    Unknown(Box<Uri>),
}

impl Core {
    #[allow(clippy::too_many_arguments)] // all of it is kept for the branches
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        key: ServerKey,
        mut request: Message,
        hop: Hop,
        identity: Identity,
        loop_part: String,
        groups: Vec<Vec<Target>>,
    ) {
        let breadth = max_breadth(&request, &self.settings.limits);
        assert_identity(&mut request, &identity, &self.settings);
        remove_credentials(&mut request, &self.settings.realm);
        let invite = *request.method() == Method::Invite;
        self.contexts.insert(
            key,
            Proxied {
                context: ResponseContext::new(invite, groups),
                request,
                hop,
                client: identity.is_client(),
                loop_part,
                breadth,
                reason: None,
            },
        );
        self.active += 1;
        self.stats.forwarded += 1;
        self.start_group(now, key);
    }

    fn start_group(&mut self, now: Instant, key: ServerKey) {
        let Some(proxied) = self.contexts.get_mut(&key) else {
            return;
        };
        let wanted = u32::try_from(proxied.context.next_group_len()).unwrap_or(u32::MAX);
        if wanted > proxied.breadth {
            // RFC 5393 §5.3.2: more branches than the request may be split into.
            let request = proxied.request.clone();
            proxied.context.state = State::Lost;
            self.refuse(
                now,
                key,
                &request,
                &Refusal::new(440, "Max-Breadth Exceeded"),
            );
            self.settle(now, key);
            return;
        }
        let breadth = proxied.breadth;
        for branch in proxied.context.next_group(breadth) {
            self.next_way(now, key, branch, 480, "Temporarily Unavailable");
        }
        self.settle(now, key);
    }

    /// Tries a branch's next way; `status` stands for the branch where none is left.
    fn next_way(
        &mut self,
        now: Instant,
        key: ServerKey,
        id: BranchId,
        status: u16,
        reason: &'static str,
    ) {
        let Some(proxied) = self.contexts.get_mut(&key) else {
            return;
        };
        let Some(branch) = proxied.context.branches.get_mut(&id) else {
            return;
        };
        match branch.ways.pop_front() {
            Some(way) => self.start_way(now, key, id, way),
            None => {
                let actions = proxied
                    .context
                    .on_no_answer(id, StatusCode::of(status), reason);
                self.act(now, key, actions);
            }
        }
    }

    fn start_way(&mut self, now: Instant, key: ServerKey, id: BranchId, way: Way) {
        let Some(proxied) = self.contexts.get(&key) else {
            return;
        };
        let breadth = proxied
            .context
            .branches
            .get(&id)
            .map_or(proxied.breadth, |b| b.breadth);
        let mut request = self.prepare(proxied, &way, breadth);
        let length = request.to_bytes().len() + VIA_ROOM;
        let hop = match locate(&way, length) {
            Hosts::One(hop) => hop,
            Hosts::Unknown(uri) => {
                let resolve = ResolveId(self.next_id());
                self.resolving
                    .insert(resolve, Resolving::Branch(key, id, way));
                self.commands.push_back(Command::Resolve {
                    id: resolve,
                    uri: *uri,
                });
                return;
            }
        };
        if wants_record_route(proxied) {
            self.record_route(&mut request, proxied, &way, &hop);
        }
        let branch = loops::branch(&proxied.loop_part.clone(), self.random());
        let sent_by = self
            .settings
            .address_for(hop.transport, Some(hop.remote), way.side == Side::Inner)
            .host_port();
        let invite = *request.method() == Method::Invite;
        let client = self
            .transactions
            .send_request(now, request, hop, &sent_by, Some(&branch));
        self.clients.insert(client, (key, id));
        if let Some(branch) = self.branch_mut(key, id) {
            branch.client = Some(client);
            branch.provisional = false;
        }
        if invite {
            let at = now + self.settings.timer_c;
            self.ring_until(key, id, at);
        }
    }

    fn branch_mut(
        &mut self,
        key: ServerKey,
        id: BranchId,
    ) -> Option<&mut crate::response_context::Branch> {
        self.contexts.get_mut(&key)?.context.branches.get_mut(&id)
    }

    fn ring_until(&mut self, key: ServerKey, id: BranchId, at: Instant) {
        let Some(branch) = self.branch_mut(key, id) else {
            return;
        };
        // A running timer finds the later deadline when it fires; an earlier one needs its own.
        let armed = branch.timer_c.is_some_and(|old| old <= at);
        branch.timer_c = Some(at);
        if !armed {
            self.arm(at, Timer::Ringing(key, id));
        }
    }

    /// The copy for one way (§16.6), without Via and Record-Route.
    fn prepare(&self, proxied: &Proxied, way: &Way, breadth: u32) -> Message {
        let mut request = proxied.request.clone();
        readdress(&mut request, way);
        request.set(MAX_BREADTH_NAME, breadth.to_string());
        if way.side != Side::Inner && request.has_token(HeaderName::Other("Privacy"), "id") {
            // RFC 3325 §7: who wants to stay unknown is asserted within the cluster only.
            request.remove(HeaderName::PAssertedIdentity);
        }
        request
    }

    /// Adds Record-Route: one value towards each side, so that the last of ours in a Route always tells which
    /// way the request goes (RFC 3261 §16.6 step 4, RFC 5658 §5, RFC 5626 §5.3).
    fn record_route(&self, request: &mut Message, proxied: &Proxied, way: &Way, hop: &Hop) {
        let secure = request.request_uri().starts_with("sips:");
        let value = |token: &str, hop: &Hop, inner: bool| {
            let address = self
                .settings
                .address_for(hop.transport, Some(hop.remote), inner);
            if secure && hop.transport.is_secure() {
                format!("<sips:{token}@{};lr>", address.host_port())
            } else {
                format!(
                    "<sip:{token}@{};transport={};lr>",
                    address.host_port(),
                    hop.transport.uri_token()
                )
            }
        };
        let up_flow = proxied.client.then_some(&proxied.hop);
        let down_flow = (way.side == Side::Client).then_some(hop);
        let up = self.tokens.mint(TokenKind::RecordRoute, up_flow);
        let down_kind = match way.side {
            Side::Outside => TokenKind::Outside,
            Side::Client | Side::Inner => TokenKind::RecordRoute,
        };
        let down = self.tokens.mint(down_kind, down_flow);
        let up = value(&up, &proxied.hop, !proxied.client);
        let down = value(&down, hop, way.side == Side::Inner);
        request.push_front(HeaderName::RecordRoute, up.as_str());
        if up != down {
            request.push_front(HeaderName::RecordRoute, down);
        }
    }

    pub(crate) fn on_resolved(
        &mut self,
        now: Instant,
        id: ResolveId,
        hosts: Vec<(Transport, SocketAddr)>,
    ) {
        match self.resolving.remove(&id) {
            Some(Resolving::Branch(key, branch, way)) => {
                let Some(found) = self.branch_mut(key, branch).filter(|b| !b.done) else {
                    return;
                };
                // RFC 3263 §4.3: each is an alternative should the one before fail.
                for host in hosts.into_iter().rev() {
                    found.ways.push_front(Way {
                        destination: Destination::Host(vec![host]),
                        ..way.clone()
                    });
                }
                self.next_way(now, key, branch, 503, "Host Name Does Not Resolve");
                self.settle(now, key);
            }
            Some(Resolving::Ack(message, part, mut way)) => {
                if let Some(host) = hosts.into_iter().next() {
                    way.destination = Destination::Host(vec![host]);
                    self.send_ack(*message, &part, way);
                }
            }
            None => {}
        }
    }

    // ---- responses

    pub(crate) fn on_response(&mut self, now: Instant, client: ClientKey, mut response: Message) {
        let Some(&(key, id)) = self.clients.get(&client) else {
            return;
        };
        let Some(status) = response.status() else {
            return;
        };
        let Some(proxied) = self.contexts.get_mut(&key) else {
            return;
        };
        // Our own Via comes off; a response without another one is not for anybody behind us (§16.7 step 3).
        response.pop_front(HeaderName::Via);
        if response.header(HeaderName::Via).is_none() {
            return;
        }
        if status.is_provisional() {
            let invite = *proxied.request.method() == Method::Invite;
            let given_up = proxied
                .context
                .branches
                .get(&id)
                .is_some_and(|b| b.given_up);
            let actions = proxied.context.on_provisional(id, response);
            if invite && status.get() > 100 && !given_up {
                let at = now + self.settings.timer_c;
                self.ring_until(key, id, at);
            }
            self.act(now, key, actions);
        } else if status.is_success() {
            let actions = proxied.context.on_success(id, response);
            self.act(now, key, actions);
        } else {
            let more = proxied
                .context
                .branches
                .get(&id)
                .is_some_and(|b| !b.ways.is_empty());
            if more && matches!(status.get(), 430 | 503) {
                self.clients.remove(&client);
                self.next_way(now, key, id, status.get(), "Temporarily Unavailable");
            } else {
                let actions = proxied.context.on_failure(id, response);
                self.act(now, key, actions);
            }
        }
        self.settle(now, key);
    }

    /// A client transaction ended without a final response.
    pub(crate) fn on_client_failed(
        &mut self,
        now: Instant,
        client: ClientKey,
        status: u16,
        reason: &'static str,
    ) {
        if let Some((key, id)) = self.clients.remove(&client) {
            self.next_way(now, key, id, status, reason);
            self.settle(now, key);
        }
    }

    /// Timer C (§16.8), or no final response after CANCEL (§9.1).
    pub(crate) fn on_ringing_too_long(&mut self, now: Instant, key: ServerKey, id: BranchId) {
        let patience = self.settings.timers.t1 * 64;
        let Some(branch) = self.branch_mut(key, id).filter(|b| !b.done) else {
            return;
        };
        let Some(deadline) = branch.timer_c else {
            return;
        };
        if deadline > now {
            self.arm(deadline, Timer::Ringing(key, id));
            return;
        }
        let client = branch.client;
        branch.timer_c = None;
        if !branch.given_up && branch.provisional {
            branch.given_up = true;
            branch.ways.clear();
            if let Some(client) = client {
                self.transactions.cancel(now, client, None);
            }
            self.ring_until(key, id, now + patience);
            return;
        }
        if let Some(client) = client {
            self.transactions.forget(client);
            self.clients.remove(&client);
        }
        self.next_way(now, key, id, 408, "Request Timeout");
        self.settle(now, key);
    }

    pub(crate) fn cancel_context(&mut self, now: Instant, key: ServerKey, reason: Option<&str>) {
        let Some(proxied) = self.contexts.get_mut(&key) else {
            return;
        };
        proxied.reason = reason.map(str::to_owned);
        let actions = proxied.context.on_cancel();
        self.act(now, key, actions);
        self.settle(now, key);
    }

    fn act(&mut self, now: Instant, key: ServerKey, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::NextGroup => self.start_group(now, key),
                Action::Respond(response) => self.transactions.respond(now, key, *response),
                Action::RespondWith(status, reason) => {
                    let Some(request) = self.contexts.get(&key).map(|p| p.request.clone()) else {
                        continue;
                    };
                    let refusal = Refusal {
                        status,
                        reason,
                        headers: Vec::new(),
                    };
                    self.refuse(now, key, &request, &refusal);
                }
                Action::Cancel(client) => self.cancel_branch(now, key, client),
            }
        }
    }

    fn cancel_branch(&mut self, now: Instant, key: ServerKey, client: ClientKey) {
        let reason = self.contexts.get(&key).and_then(|p| {
            p.reason.clone().or_else(|| {
                // RFC 3326 §2: so that phones which lost the race do not show a missed call.
                (p.context.state == State::Won)
                    .then(|| "SIP;cause=200;text=\"Call completed elsewhere\"".to_owned())
            })
        });
        self.transactions.cancel(now, client, reason.as_deref());
        if let Some(&(_, id)) = self.clients.get(&client) {
            if let Some(branch) = self.branch_mut(key, id) {
                branch.given_up = true;
                branch.timer_c = None;
            }
            let patience = self.settings.timers.t1 * 64;
            self.ring_until(key, id, now + patience);
        }
    }

    /// Drops the context once nothing can come of it any more.
    fn settle(&mut self, now: Instant, key: ServerKey) {
        let Some(proxied) = self.contexts.get(&key) else {
            return;
        };
        if !proxied.context.is_over() {
            return;
        }
        let invite = *proxied.request.method() == Method::Invite;
        if invite && proxied.context.state == State::Won {
            // Repeated 2xx are forwarded until their sender gives up (RFC 6026 §7).
            if !proxied.context.lingering {
                let at = now + self.settings.timers.t1 * 65;
                self.arm(at, Timer::End(key));
                self.active = self.active.saturating_sub(1);
                if let Some(proxied) = self.contexts.get_mut(&key) {
                    proxied.context.lingering = true;
                }
            }
        } else {
            self.drop_context(key);
        }
    }

    pub(crate) fn drop_context(&mut self, key: ServerKey) {
        let Some(proxied) = self.contexts.remove(&key) else {
            return;
        };
        if !proxied.context.lingering {
            self.active = self.active.saturating_sub(1);
        }
        for branch in proxied.context.branches.values() {
            if let Some(client) = branch.client {
                self.clients.remove(&client);
            }
        }
    }

    // ---- ACK of a 2xx

    pub(crate) fn forward_ack(
        &mut self,
        _now: Instant,
        message: Message,
        part: &str,
        groups: Vec<Vec<Target>>,
    ) {
        // An ACK has no answer: the first way of the first target must do.
        let way = groups.into_iter().flatten().flat_map(|t| t.ways).next();
        if let Some(way) = way {
            self.send_ack(message, part, way);
        }
    }

    fn send_ack(&mut self, message: Message, part: &str, way: Way) {
        let mut request = message.clone();
        readdress(&mut request, &way);
        let length = request.to_bytes().len() + VIA_ROOM;
        match locate(&way, length) {
            Hosts::One(hop) => {
                let branch = loops::branch(part, self.random());
                let sent_by = self
                    .settings
                    .address_for(hop.transport, Some(hop.remote), way.side == Side::Inner)
                    .host_port();
                self.transactions
                    .send_stateless(request, hop, &sent_by, Some(&branch));
            }
            Hosts::Unknown(uri) => {
                let id = ResolveId(self.next_id());
                let waiting = Resolving::Ack(Box::new(message), part.to_owned(), way);
                self.resolving.insert(id, waiting);
                self.commands.push_back(Command::Resolve { id, uri: *uri });
            }
        }
    }
}

/// Whether the request may make a dialog.
fn wants_record_route(proxied: &Proxied) -> bool {
    !in_dialog(&proxied.request)
        && matches!(
            proxied.request.method(),
            Method::Invite | Method::Subscribe | Method::Refer | Method::Notify | Method::Other(_)
        )
}

/// Request-URI, Max-Forwards and Route of the copy for one way (§16.6 steps 2, 3, 6).
fn readdress(request: &mut Message, way: &Way) {
    if let Some(uri) = &way.request_uri {
        request.set_request_uri(uri);
    }
    let left = match request.number(HeaderName::MaxForwards) {
        Ok(Some(left)) => left.saturating_sub(1),
        _ => MAX_FORWARDS,
    };
    request.set(HeaderName::MaxForwards, left.to_string());
    for route in way.routes.iter().rev() {
        request.push_front(HeaderName::Route, format!("<{route}>"));
    }
    // A strict router wants itself in the Request-URI and the target at the end of the Route.
    let strict = request
        .values(HeaderName::Route)
        .next()
        .and_then(|value| NameAddr::parse(value).ok())
        .filter(|next| !next.uri.is_loose_router());
    if let Some(next) = strict {
        let target = format!("<{}>", request.request_uri());
        request.pop_front(HeaderName::Route);
        let mut routes: Vec<String> = request
            .values(HeaderName::Route)
            .map(str::to_owned)
            .collect();
        routes.push(target);
        request.remove(HeaderName::Route);
        for route in routes.iter().rev() {
            request.push_front(HeaderName::Route, route.as_str());
        }
        request.set_request_uri(&next.uri.to_string());
    }
}

/// The address a way leads to, as far as it can be told without a resolver.
fn locate(way: &Way, length: usize) -> Hosts {
    match &way.destination {
        Destination::Flow(hop) => Hosts::One(*hop),
        Destination::Host(hosts) => {
            let large = length > DATAGRAM_MAX;
            let stream = hosts.iter().find(|(t, _)| t.is_reliable());
            let chosen = if large && hosts.first().is_some_and(|(t, _)| !t.is_reliable()) {
                stream.or(hosts.first())
            } else {
                hosts.first()
            };
            match chosen {
                Some((transport, address)) => Hosts::One(Hop::to(*transport, *address)),
                // A host without an address fails like one that cannot be reached.
                None => Hosts::Unknown(Box::new(Uri::sip("", ""))),
            }
        }
        Destination::Name(uri) => {
            let (Some(ip), Some(mut transport)) = (uri.ip(), uri.transport()) else {
                return Hosts::Unknown(uri.clone());
            };
            let chosen = uri.param("transport").is_some();
            if length > DATAGRAM_MAX && transport == Transport::Udp && !chosen {
                transport = Transport::Tcp;
            }
            let port = uri.port.unwrap_or(transport.default_port());
            Hosts::One(Hop::to(transport, SocketAddr::new(ip, port)))
        }
    }
}
