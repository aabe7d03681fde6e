//! The stateful proxy (RFC 3261 §16): forwards requests over response contexts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use sip::header::NameAddr;
use sip::transaction::{ClientKey, ServerKey};
use sip::{FlowId, HeaderName, Hop, Message, Method, StatusCode, Transport, Uri};

use crate::Refusal;
use crate::authentication::{Identity, assert_identity, remove_credentials};
use crate::command::{Command, ResolveId};
use crate::core::{Core, Timer};
use crate::flow_token::TokenKind;
use crate::loops;
use crate::response_context::{Action, BranchId, ResponseContext, State};
use crate::router::{Destination, Host, Side, Target, Way, in_dialog, max_breadth};

/// RFC 3261 §18.1.1: a request larger than this goes over a stream where there is one.
const DATAGRAM_MAX: usize = 1300;

/// Max-Forwards where a request has none (§16.6 step 3).
const MAX_FORWARDS: u32 = 70;

const MAX_BREADTH_NAME: HeaderName<'static> = HeaderName::Other("Max-Breadth");

/// One proxied request.
#[derive(Debug)]
pub(crate) struct Proxied {
    pub context: ResponseContext,
    /// As routed: our Routes off, identity asserted.
    pub(crate) request: Message,
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
    /// The same host, by each of these; never empty. With the name its certificate must carry.
    Known(Vec<Hop>, Option<Arc<str>>),
    Unknown(Box<Uri>),
}

/// A client transaction of a context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    key: ServerKey,
    branch: BranchId,
    /// The connection it went over, where it must be that one.
    flow: Option<FlowId>,
}

/// A request as it goes out over one hop, but for the Via.
struct Ready {
    request: Message,
    hop: Hop,
    sent_by: String,
    /// With the Via, bytes.
    length: usize,
}

impl Ready {
    fn new(request: Message, hop: Hop, sent_by: String, branch: &str) -> Self {
        let via = "Via: SIP/2.0/ ;branch=;rport\r\n".len()
            + hop.transport.via_token().len()
            + sent_by.len()
            + branch.len();
        Self {
            length: request.to_bytes().len() + via,
            request,
            hop,
            sent_by,
        }
    }
}

/// The first hop's request, but where it is too large for a datagram and the host has a stream too, that one's
/// (RFC 3261 §18.1.1).
fn ready_by_size(hops: &[Hop], ready: impl Fn(Hop) -> Ready) -> Option<Ready> {
    let first = ready(*hops.first()?);
    let stream = hops.iter().find(|hop| hop.transport.is_reliable());
    match stream {
        Some(stream) if first.length > DATAGRAM_MAX && !first.hop.transport.is_reliable() => {
            Some(ready(*stream))
        }
        _ => Some(first),
    }
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
    pub(crate) fn next_way(
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
        if branch.done {
            return;
        }
        // Whatever ran has ended: a CANCEL that comes while a name is looked up must find nothing to cancel.
        branch.client = None;
        branch.fallback = None;
        branch.flow_lost = false;
        branch.provisional = false;
        branch.timer_c = None;
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
        let (hops, name) = match locate(&way) {
            Hosts::Known(hops, name) => (hops, name),
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
        let random = self.random();
        let Some(proxied) = self.contexts.get(&key) else {
            return;
        };
        let breadth = proxied
            .context
            .branches
            .get(&id)
            .map_or(proxied.breadth, |b| b.breadth);
        let branch = loops::branch(&proxied.loop_part, random);
        // §18.1.1 counts the whole message: what we add to it too.
        let ready = ready_by_size(&hops, |hop| {
            let mut request = self.prepare(proxied, &way, breadth);
            if wants_record_route(proxied) {
                self.record_route(&mut request, proxied, &way, &hop);
            }
            Ready::new(request, hop, self.sent_by(&way, &hop), &branch)
        });
        let (Some(ready), Some(first)) = (ready, hops.first()) else {
            return;
        };
        let invite = *ready.request.method() == Method::Invite;
        let hop = ready.hop;
        let client = self.transactions.send_request_to_host(
            now,
            ready.request,
            hop,
            name.clone(),
            &ready.sent_by,
            Some(&branch),
        );
        let flow = hop.flow.filter(|_| hop.transport.is_reliable());
        self.add_client(client, key, id, flow);
        if let Some(branch) = self.branch_mut(key, id) {
            branch.client = Some(client);
            branch.member.clone_from(&way.member);
            // §18.1.1: where only the size made it a stream, and there is none, the datagram must do.
            branch.fallback = (first.transport != hop.transport).then(|| Way {
                destination: Destination::Host(Host {
                    addresses: vec![(first.transport, first.remote)],
                    name,
                }),
                ..way
            });
        }
        if invite {
            let at = now + self.settings.timer_c;
            self.ring_until(key, id, at);
        }
    }

    fn sent_by(&self, way: &Way, hop: &Hop) -> String {
        let inner = way.side == Side::Inner;
        self.settings.address_towards(hop, inner).host_port()
    }

    fn add_client(
        &mut self,
        client: ClientKey,
        key: ServerKey,
        branch: BranchId,
        flow: Option<FlowId>,
    ) {
        self.clients.insert(client, Running { key, branch, flow });
        if let Some(flow) = flow {
            self.clients_by_flow.insert((flow, client));
        }
    }

    pub(crate) fn remove_client(&mut self, client: ClientKey) -> Option<(ServerKey, BranchId)> {
        let Running { key, branch, flow } = self.clients.remove(&client)?;
        if let Some(flow) = flow {
            self.clients_by_flow.remove(&(flow, client));
        }
        Some((key, branch))
    }

    /// What was sent over a connection that has closed, and not answered, has failed. Where a phone rings already its
    /// answer may still come by another connection, but that is not waited for as long as for others.
    pub(crate) fn fail_flow(&mut self, now: Instant, flow: FlowId) {
        let range = (flow, ClientKey(0))..=(flow, ClientKey(u64::MAX));
        let clients: Vec<ClientKey> = self
            .clients_by_flow
            .range(range)
            .map(|(_, client)| *client)
            .collect();
        for client in clients {
            let Some(Running {
                key, branch: id, ..
            }) = self.clients.get(&client).copied()
            else {
                continue;
            };
            let at = now + self.settings.timers.give_up();
            let Some(branch) = self.branch_mut(key, id) else {
                continue;
            };
            if branch.done || branch.client != Some(client) {
                continue;
            }
            match branch.timer_c {
                Some(until) if branch.provisional => {
                    branch.flow_lost = true;
                    self.ring_until(key, id, at.min(until));
                }
                // As RFC 5626 §5.3.1 has it for a flow that is gone before.
                _ => {
                    self.transactions.forget(client);
                    self.remove_client(client);
                    self.next_way(now, key, id, 480, "Temporarily Unavailable");
                    self.settle(now, key);
                }
            }
        }
    }

    pub(crate) fn branch_mut(
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
            let address = self.settings.address_towards(hop, inner);
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
        // Whom a gateway calls must get back to it, as a user that called one.
        let up = if !proxied.client && self.is_gateway(&proxied.hop) {
            let name = next_host(request, HeaderName::RecordRoute)
                .or_else(|| next_host(request, HeaderName::Contact));
            let name = name.unwrap_or_default();
            self.tokens.mint_outside(proxied.hop.remote, &name)
        } else {
            self.tokens.mint(TokenKind::RecordRoute, up_flow)
        };
        let down = if way.side == Side::Outside {
            let name = next_host(request, HeaderName::Route)
                .or_else(|| Some(host_named(&Uri::parse(request.request_uri()).ok()?)));
            let name = name.unwrap_or_default();
            self.tokens.mint_outside(hop.remote, &name)
        } else {
            self.tokens.mint(TokenKind::RecordRoute, down_flow)
        };
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
        mut hosts: Vec<(Transport, SocketAddr)>,
    ) {
        let waiting = self.resolving.remove(&id);
        if let Some(Resolving::Branch(_, _, way) | Resolving::Ack(_, _, way)) = &waiting {
            let router = self.router();
            hosts.retain(|(_, address)| router.is_reached(way.reach, *address));
        }
        match waiting {
            Some(Resolving::Branch(key, branch, way)) => {
                let Some(found) = self.branch_mut(key, branch).filter(|b| !b.done) else {
                    return;
                };
                // RFC 3263 §4.3: each is an alternative should the one before fail.
                for host in hosts_of(&way, &hosts).into_iter().rev() {
                    found.ways.push_front(Way {
                        destination: Destination::Host(host),
                        ..way.clone()
                    });
                }
                self.next_way(now, key, branch, 503, "Host Name Does Not Resolve");
                self.settle(now, key);
            }
            Some(Resolving::Ack(message, part, mut way)) => {
                if let Some(host) = hosts_of(&way, &hosts).into_iter().next() {
                    way.destination = Destination::Host(host);
                    self.send_ack(*message, &part, way);
                }
            }
            None => {}
        }
    }

    // ---- responses

    pub(crate) fn on_response(&mut self, now: Instant, client: ClientKey, mut response: Message) {
        let Some(Running {
            key, branch: id, ..
        }) = self.clients.get(&client).copied()
        else {
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
        if let Some(branch) = proxied.context.branches.get_mut(&id) {
            branch.fallback = None;
            branch.flow_lost = false;
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
                self.remove_client(client);
                self.next_way(now, key, id, status.get(), "Temporarily Unavailable");
            } else if status.get() == 503
                && let Some(member) = self.last_way_to_member(key, id)
                && self.is_rerouted(now, key, id, &member, true)
            {
                self.remove_client(client);
            } else if let Some(proxied) = self.contexts.get_mut(&key) {
                let actions = proxied.context.on_failure(id, response);
                self.act(now, key, actions);
            }
        }
        self.settle(now, key);
    }

    /// The meeting manager that the branch has tried last, where nobody else is left to try.
    fn last_way_to_member(&mut self, key: ServerKey, id: BranchId) -> Option<String> {
        let branch = self.branch_mut(key, id)?;
        let open = !branch.done && !branch.given_up && branch.ways.is_empty();
        branch.member.clone().filter(|_| open)
    }

    /// A client transaction ended without a final response.
    pub(crate) fn on_client_failed(
        &mut self,
        now: Instant,
        client: ClientKey,
        status: u16,
        reason: &'static str,
    ) {
        let Some((key, id)) = self.remove_client(client) else {
            return;
        };
        let branch = self.branch_mut(key, id).filter(|b| !b.given_up);
        let fallback = branch.and_then(|b| b.fallback.take());
        let member = self.last_way_to_member(key, id);
        if fallback.is_none()
            && let Some(member) = member
            && self.is_rerouted(now, key, id, &member, false)
        {
            return;
        }
        match fallback {
            Some(way) if status == 503 => self.start_way(now, key, id, way),
            _ => self.next_way(now, key, id, status, reason),
        }
        self.settle(now, key);
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
        let (client, lost) = (branch.client, branch.flow_lost);
        branch.timer_c = None;
        if !branch.given_up && branch.provisional && !lost {
            branch.given_up = true;
            branch.ways.clear();
            branch.fallback = None;
            if let Some(client) = client {
                self.transactions.cancel(now, client, None);
            }
            self.ring_until(key, id, now + patience);
            return;
        }
        if let Some(client) = client {
            self.transactions.forget(client);
            self.remove_client(client);
        }
        let (status, reason) = match lost {
            true => (480, "Temporarily Unavailable"),
            false => (408, "Request Timeout"),
        };
        self.next_way(now, key, id, status, reason);
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
        let running = self.clients.get(&client).copied();
        if let Some(Running { branch: id, .. }) = running
            && self.branch_mut(key, id).is_some_and(|b| b.flow_lost)
        {
            // Nothing can be cancelled where nobody is.
            self.transactions.forget(client);
            self.remove_client(client);
            self.next_way(now, key, id, 480, "Temporarily Unavailable");
            return;
        }
        self.transactions.cancel(now, client, reason.as_deref());
        if let Some(Running { branch: id, .. }) = running {
            if let Some(branch) = self.branch_mut(key, id) {
                branch.given_up = true;
                branch.timer_c = None;
            }
            let patience = self.settings.timers.t1 * 64;
            self.ring_until(key, id, now + patience);
        }
    }

    /// Drops the context once nothing can come of it any more.
    pub(crate) fn settle(&mut self, now: Instant, key: ServerKey) {
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
                self.remove_client(client);
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
        match locate(&way) {
            Hosts::Known(hops, name) => {
                let branch = loops::branch(part, self.random());
                let ready = ready_by_size(&hops, |hop| {
                    let mut request = message.clone();
                    readdress(&mut request, &way);
                    Ready::new(request, hop, self.sent_by(&way, &hop), &branch)
                });
                if let Some(ready) = ready {
                    self.transactions.send_stateless_to_host(
                        ready.request,
                        ready.hop,
                        name,
                        &ready.sent_by,
                        Some(&branch),
                    );
                }
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

/// The host a URI leads to, as it is written.
fn host_named(uri: &Uri) -> String {
    uri.param("maddr").unwrap_or(&uri.host).to_owned()
}

/// The host in the first value of that header.
fn next_host(message: &Message, header: HeaderName<'_>) -> Option<String> {
    let address = NameAddr::parse(message.values(header).next()?).ok()?;
    Some(host_named(&address.uri))
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

/// The hops a way leads over, as far as they can be told without a resolver.
fn locate(way: &Way) -> Hosts {
    match &way.destination {
        Destination::Flow(hop) => Hosts::Known(vec![*hop], None),
        // A host without an address fails like one that cannot be reached.
        Destination::Host(host) if host.addresses.is_empty() => {
            Hosts::Unknown(Box::new(Uri::sip("", "")))
        }
        Destination::Host(host) => {
            let hops = host.addresses.iter().map(|(t, a)| Hop::to(*t, *a));
            Hosts::Known(hops.collect(), host.name.clone())
        }
        Destination::Name(uri) => {
            let (Some(ip), Some(transport)) = (uri.ip(), uri.transport()) else {
                return Hosts::Unknown(uri.clone());
            };
            let port = uri.port.unwrap_or(transport.default_port());
            let mut hops = vec![Hop::to(transport, SocketAddr::new(ip, port))];
            if transport == Transport::Udp && uri.param("transport").is_none() {
                hops.push(Hop::to(Transport::Tcp, SocketAddr::new(ip, port)));
            }
            Hosts::Known(hops, None)
        }
    }
}

/// The hosts that the URI of a way resolved to. Where it leaves the transport open, one that is reached by datagrams
/// is also reached by a stream: the one that was found for it, else at the same port (RFC 3261 §18.1.1).
fn hosts_of(way: &Way, found: &[(Transport, SocketAddr)]) -> Vec<Host> {
    let uri = match &way.destination {
        Destination::Name(uri) => Some(uri),
        Destination::Flow(_) | Destination::Host(_) => None,
    };
    let open = uri.is_some_and(|uri| uri.param("transport").is_none());
    // RFC 3263 §4: what was looked up is the name to be proved, whatever other names that led to.
    let name: Option<Arc<str>> = uri
        .map(|uri| uri.param("maddr").unwrap_or(&uri.host))
        .map(|name| name.trim_end_matches('.'))
        .filter(|name| name.trim_matches(['[', ']']).parse::<IpAddr>().is_err())
        .map(Arc::from);
    let host = |(transport, address): &(Transport, SocketAddr)| {
        let mut addresses = vec![(*transport, *address)];
        if open && *transport == Transport::Udp {
            let stream = found
                .iter()
                .find(|(t, a)| *t == Transport::Tcp && a.ip() == address.ip());
            addresses.push(*stream.unwrap_or(&(Transport::Tcp, *address)));
        }
        Host {
            addresses,
            name: name.clone(),
        }
    };
    found.iter().map(host).collect()
}
