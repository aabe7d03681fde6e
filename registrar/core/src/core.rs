//! The core: takes in messages, news and time, runs the chain of processors, gives out commands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster::Revision;
use cluster::records::Member;
use hmac::{Hmac, Mac};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use sha2::Sha256;
use sip::header::Via;
use sip::transaction::{ClientKey, Event, ServerKey, TransactionLayer};
use sip::{FlowId, HeaderName, Hop, Message, Method, StatusCode, Transport};

use crate::authentication::{self, Authentication, Identity};
use crate::command::{Command, ResolveId, StoreId, StoreReply};
use crate::flow_token::{TokenKind, TokenMint};
use crate::gruu::GruuMint;
use crate::location::{BindingSet, Location};
use crate::loops;
use crate::own_requests::{Registering, SWEEP_EVERY};
use crate::parking::Parked;
use crate::proxy::{Proxied, Resolving, Running};
use crate::response_context::BranchId;
use crate::router::{Decision, Router, in_dialog};
use crate::settings::{Advertised, Secrets, Settings};
use crate::stats::Stats;
use crate::users::Users;
use crate::{Refusal, sanity};

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    /// When an INVITE branch rang for too long (Timer C), or did not end after a CANCEL.
    Ringing(ServerKey, BranchId),
    /// When a 2xx can no longer be repeated.
    End(ServerKey),
    /// When a parked request has waited long enough.
    Park(u64),
    /// When a branch has waited long enough for a meeting's new owner.
    Orphan(ServerKey, BranchId),
    /// When expired records are looked for.
    Sweep,
}

/// A connection as the console shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// Connection.
    pub flow: FlowId,
    /// Transport.
    pub transport: Transport,
    /// The client's address.
    pub remote: SocketAddr,
}

/// One registrar's decisions.
#[derive(Debug)]
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) transactions: TransactionLayer,
    pub(crate) authentication: Authentication,
    pub(crate) tokens: TokenMint,
    pub(crate) gruus: GruuMint,
    pub(crate) location: Location,
    pub(crate) users: Users,
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) owners: BTreeMap<String, String>,
    pub(crate) factories: BTreeSet<String>,
    pub(crate) flows: BTreeSet<FlowId>,
    pub(crate) flow_views: BTreeMap<FlowId, FlowView>,
    pub(crate) key: [u8; 32],
    pub(crate) rng: ChaCha12Rng,
    pub(crate) wall: Duration,
    pub(crate) commands: VecDeque<Command>,
    admitted: Option<Identity>,
    pub(crate) contexts: BTreeMap<ServerKey, Proxied>,
    pub(crate) active: usize,
    pub(crate) clients: BTreeMap<ClientKey, Running>,
    pub(crate) clients_by_flow: BTreeSet<(FlowId, ClientKey)>,
    pub(crate) resolving: BTreeMap<ResolveId, Resolving>,
    pub(crate) registering: BTreeMap<StoreId, Registering>,
    pub(crate) waiting: BTreeMap<String, VecDeque<Registering>>,
    pub(crate) waiting_count: usize,
    pub(crate) parked: BTreeMap<u64, Parked>,
    /// Branches that wait for their meeting's new owner.
    pub(crate) orphans: BTreeSet<(ServerKey, BranchId)>,
    timers: BTreeMap<(Instant, u64), Timer>,
    next_id: u64,
    pub(crate) sweep_after: Option<String>,
    pub(crate) stats: Stats,
    pub(crate) draining: bool,
    pub(crate) closing: bool,
}

impl Core {
    /// A registrar that knows nobody yet. `seed` feeds tags and branches; `generation` must differ from that of
    /// earlier starts of the same node.
    #[must_use]
    pub fn new(
        now: Instant,
        settings: Settings,
        secrets: &Secrets,
        seed: [u8; 32],
        generation: u32,
    ) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut layer_seed = [0; 32];
        rng.fill_bytes(&mut layer_seed);
        let gruus = GruuMint::new(secrets.flow);
        let mut core = Self {
            transactions: TransactionLayer::new(settings.timers, layer_seed),
            authentication: Authentication::new(&settings, secrets.nonce, secrets.guest),
            tokens: TokenMint::new(secrets.flow, &settings.node, generation),
            location: Location::new(gruus.clone()),
            gruus,
            users: Users::default(),
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            factories: BTreeSet::new(),
            flows: BTreeSet::new(),
            flow_views: BTreeMap::new(),
            key: secrets.flow,
            rng,
            wall: Duration::ZERO,
            commands: VecDeque::new(),
            admitted: None,
            contexts: BTreeMap::new(),
            active: 0,
            clients: BTreeMap::new(),
            clients_by_flow: BTreeSet::new(),
            resolving: BTreeMap::new(),
            registering: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_count: 0,
            parked: BTreeMap::new(),
            orphans: BTreeSet::new(),
            timers: BTreeMap::new(),
            next_id: 1,
            sweep_after: None,
            stats: Stats::default(),
            draining: false,
            closing: false,
            settings,
        };
        core.arm(now + SWEEP_EVERY, Timer::Sweep);
        core
    }

    // ---- what comes in

    /// A message that came over `hop`. `wall`: time since the Unix epoch.
    pub fn handle_message(&mut self, now: Instant, wall: Duration, message: Message, hop: Hop) {
        self.wall = wall;
        if let Some(flow) = hop.flow
            && hop.transport.is_reliable()
            && self.flows.insert(flow)
        {
            self.flow_views.insert(
                flow,
                FlowView {
                    flow,
                    transport: hop.transport,
                    remote: hop.remote,
                },
            );
        }
        if message.is_request() {
            self.stats.requests += 1;
            if !self.admit(&message, &hop) {
                return;
            }
        } else if message.defect().is_some() {
            return;
        }
        self.transactions.handle_message(now, message, hop);
        self.work(now);
        self.admitted = None;
    }

    /// A connection is gone, and with it what was sent over it and has no answer.
    pub fn handle_flow_closed(&mut self, now: Instant, wall: Duration, flow: FlowId) {
        self.wall = wall;
        self.flows.remove(&flow);
        self.flow_views.remove(&flow);
        self.fail_flow(now, flow);
        self.work(now);
    }

    /// Bytes of [`Command::Transmit`] with this `id` could not be sent.
    pub fn handle_send_failed(&mut self, now: Instant, wall: Duration, id: u64) {
        self.wall = wall;
        if let Some(client) = id.checked_sub(1) {
            self.transactions
                .handle_transport_error(now, ClientKey(client));
            self.work(now);
        }
    }

    /// A store command ended.
    pub fn handle_store(&mut self, now: Instant, wall: Duration, id: StoreId, reply: StoreReply) {
        self.wall = wall;
        if let Some(registering) = self.registering.remove(&id) {
            self.on_store_reply(now, registering, reply);
            self.work(now);
        }
    }

    /// A name was looked up: where to try, the first choice first; empty where there is nothing.
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        wall: Duration,
        id: ResolveId,
        hosts: Vec<(Transport, SocketAddr)>,
    ) {
        self.wall = wall;
        self.on_resolved(now, id, hosts);
        self.work(now);
    }

    /// The table of local users, as a whole.
    pub fn handle_users(&mut self, users: Users) {
        self.authentication.offer_to(&users, &self.settings);
        self.users = users;
    }

    /// Names of meetings that make a new meeting at every call.
    pub fn handle_factories(&mut self, factories: BTreeSet<String>) {
        self.factories = factories;
    }

    /// Bindings of an address of record were written (or, `None`, deleted) in the store at that revision.
    pub fn handle_bindings(&mut self, aor: &str, set: Option<BindingSet>, revision: Revision) {
        self.location.update(aor, set, revision);
    }

    /// The watch of bindings starts over: forget them all.
    pub fn handle_bindings_lost(&mut self) {
        self.location.clear();
    }

    /// A meeting manager appeared, changed, or (`None`) is gone.
    pub fn handle_member(
        &mut self,
        now: Instant,
        wall: Duration,
        id: &str,
        member: Option<Member>,
    ) {
        self.wall = wall;
        match member {
            Some(member) => self.members.insert(id.to_owned(), member),
            None => self.members.remove(id),
        };
        if !self.members.contains_key(id) {
            self.fail_member(now, id);
        }
        self.unpark(now);
        self.reroute_orphans(now);
        self.work(now);
    }

    /// A meeting got another owner, or (`None`) has none any more.
    pub fn handle_owner(
        &mut self,
        now: Instant,
        wall: Duration,
        meeting: &str,
        member: Option<String>,
    ) {
        self.wall = wall;
        match member {
            Some(member) => self.owners.insert(meeting.to_owned(), member),
            None => self.owners.remove(meeting),
        };
        self.unpark(now);
        self.reroute_orphans(now);
        self.work(now);
    }

    /// While draining, new registrations are sent elsewhere, and health checks told to look elsewhere.
    pub fn handle_draining(&mut self, draining: bool) {
        self.draining = draining || self.closing;
    }

    /// From now on whatever is outside a dialog is sent elsewhere, so that [`Self::pending`] gets to 0.
    pub fn handle_closing(&mut self) {
        self.draining = true;
        self.closing = true;
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant, wall: Duration) {
        self.wall = wall;
        self.transactions.handle_timeout(now);
        self.work(now);
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let timer = entry.remove();
            self.on_timer(now, timer);
            self.work(now);
        }
    }

    // ---- what goes out

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.timers.first_key_value().map(|((at, _), _)| *at);
        match (own, self.transactions.poll_timeout()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What to do next.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (client_transactions, server_transactions) = self.transactions.len();
        Stats {
            challenges: self.authentication.challenged,
            authentication_failures: self.authentication.failed,
            contexts: self.contexts.len() as u64,
            pending: self.pending() as u64,
            client_transactions: client_transactions as u64,
            server_transactions: server_transactions as u64,
            flows: self.flows.len() as u64,
            bindings: self.location.binding_count() as u64,
            parked: self.parked.len() as u64,
            ..self.stats
        }
    }

    /// Requests that no final response was given to yet: what a stopping registrar should wait for.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.active + self.parked.len() + self.registering.len() + self.waiting_count
    }

    /// The cache of bindings.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Connections known, in order of their numbers.
    pub fn flows(&self) -> impl Iterator<Item = &FlowView> {
        self.flow_views.values()
    }

    /// Who owns a meeting, as far as known.
    #[must_use]
    pub fn owner(&self, meeting: &str) -> Option<&str> {
        self.owners.get(meeting).map(String::as_str)
    }

    /// URIs for the Route of requests that members of the cluster send through this registrar, one a transport:
    /// requests with it are not challenged, so it is for the store only.
    #[must_use]
    pub fn member_routes(&self) -> Vec<String> {
        let token = self.tokens.mint(TokenKind::Edge, None);
        let known = |list: &[Advertised], transport| list.iter().any(|a| a.transport == transport);
        [Transport::Udp, Transport::Tcp, Transport::Tls]
            .into_iter()
            .filter(|t| known(&self.settings.internal, *t) || known(&self.settings.advertised, *t))
            .map(|transport| {
                let address = self.settings.address_for(transport, true);
                format!(
                    "sip:{token}@{};transport={};lr",
                    address.host_port(),
                    transport.uri_token()
                )
            })
            .collect()
    }

    /// The flow a binding was registered over is on this node and gone.
    #[must_use]
    pub fn is_unreachable(&self, binding: &crate::Binding) -> bool {
        binding
            .flow
            .as_ref()
            .and_then(|f| self.tokens.open(&f.token))
            .is_some_and(|token| {
                self.tokens.is_own_node(&token) && self.router().hop_of(&token).is_none()
            })
    }

    // ---- the chain

    pub(crate) fn router(&self) -> Router<'_> {
        Router {
            settings: &self.settings,
            tokens: &self.tokens,
            location: &self.location,
            users: &self.users,
            members: &self.members,
            owners: &self.owners,
            flows: &self.flows,
            factories: &self.factories,
            wall: self.wall,
        }
    }

    /// Sanity, overload and authentication, all before anything is kept. False: answered or dropped.
    fn admit(&mut self, message: &Message, hop: &Hop) -> bool {
        match message.method() {
            Method::Ack => {
                let to_tag = message.to().ok().and_then(|to| to.tag().map(str::to_owned));
                // The ACK of something answered without a transaction ends here.
                return message.defect().is_none()
                    && to_tag.is_none_or(|tag| tag != self.stateless_tag(message));
            }
            // A CANCEL is never challenged (§22.1): it belongs to an INVITE here, or to nothing.
            Method::Cancel if message.defect().is_none() => {
                let known = self.transactions.knows(message);
                if !known {
                    let refusal = Refusal::new(481, "No Such Transaction");
                    self.refuse_stateless(message, hop, &refusal);
                }
                return known;
            }
            _ => {}
        }
        if message.defect().is_none() && self.transactions.knows(message) {
            return true;
        }
        if let Some(refusal) = sanity::check(message, &self.settings) {
            self.stats.rejected += 1;
            self.refuse_stateless(message, hop, &refusal);
            return false;
        }
        if let Some(refusal) = self.overload(message) {
            self.stats.overload += 1;
            self.refuse_stateless(message, hop, &refusal);
            return false;
        }
        match self.identify(message, hop) {
            Ok(identity) => {
                self.admitted = Some(identity);
                true
            }
            Err(refusal) => {
                self.refuse_stateless(message, hop, &refusal);
                false
            }
        }
    }

    /// Behaviour under load: dialogs that exist are served before new ones.
    fn overload(&mut self, message: &Message) -> Option<Refusal> {
        let limit = self.settings.limits.contexts;
        let full = if in_dialog(message) {
            self.active >= limit.saturating_mul(2)
        } else {
            self.closing || self.active >= limit
        };
        let register = *message.method() == Method::Register;
        let registers = register
            && self.registering.len() + self.waiting_count
                >= self.settings.limits.pending_registrations;
        (full || registers || register && self.draining).then(|| {
            // Spread the return of those sent away.
            let after = 2 + self.rng.next_u32() % 8;
            Refusal::new(503, "Server Busy, Try Again Later")
                .with(HeaderName::RetryAfter, after.to_string())
        })
    }

    /// Whether a request comes from a meeting manager, another registrar or a trusted network.
    pub(crate) fn is_trusted_source(&self, hop: &Hop) -> bool {
        self.is_in_trusted_network(hop) || self.is_member(hop)
    }

    /// Whether a source is trusted for its network only: a gateway, or another registrar, which records a value for
    /// the side behind it itself.
    pub(crate) fn is_gateway(&self, hop: &Hop) -> bool {
        self.is_in_trusted_network(hop) && !self.is_member(hop)
    }

    pub(crate) fn is_in_trusted_network(&self, hop: &Hop) -> bool {
        let ip = hop.remote.ip();
        self.settings.trusted.iter().any(|net| net.contains(&ip))
    }

    fn is_member(&self, hop: &Hop) -> bool {
        let ip = hop.remote.ip();
        self.members.values().flat_map(|m| &m.sip).any(|(_, a)| {
            // On streams the port is any; where managers and clients may share a host, the address says nothing.
            a.ip() == ip
                && (a.port() == hop.remote.port()
                    || hop.transport.is_reliable() && !ip.is_loopback() && !self.is_own_ip(ip))
        })
    }

    fn is_own_ip(&self, ip: std::net::IpAddr) -> bool {
        let own = self
            .settings
            .advertised
            .iter()
            .chain(&self.settings.internal);
        own.filter_map(|a| a.host.parse::<std::net::IpAddr>().ok())
            .any(|a| a == ip)
    }

    fn identify(&mut self, message: &Message, hop: &Hop) -> Result<Identity, Refusal> {
        let trusted = self.is_trusted_source(hop);
        let uri = sip::Uri::parse(message.request_uri())
            .map_err(|_| Refusal::new(400, "Malformed Request-URI"))?;
        let ours = self.settings.is_ours(&uri);
        if *message.method() == Method::Register {
            if ours {
                return self.verify(message, hop, false);
            }
            return if trusted {
                Ok(Identity::Trusted)
            } else {
                Err(Refusal::new(404, "No Such Domain Here"))
            };
        }
        if trusted {
            return match self.is_of_deposed_manager(message) {
                true => Err(Refusal::new(503, "Another Manager Has This Meeting")),
                false => Ok(Identity::Trusted),
            };
        }
        if *message.method() == Method::Options && ours && uri.user.is_empty() {
            return Ok(Identity::Anonymous);
        }
        let router = self.router();
        if in_dialog(message) {
            // A token was given to a dialog that was let through; a meeting's owner knows its dialogs' tags.
            if router.has_dialog_token(message) {
                return Ok(Identity::Dialog);
            }
            if router.is_for_meeting(message) {
                return Ok(Identity::MeetingDialog);
            }
        } else if router.has_edge_token(message) {
            // Only another registrar knows the URI kept in a binding.
            return Ok(Identity::Trusted);
        }
        let local_from = message
            .from()
            .is_ok_and(|from| self.settings.is_domain(&from.uri.host));
        if !local_from && self.settings.foreign_callers && ours {
            return Ok(Identity::Anonymous);
        }
        let identity = self.verify(message, hop, true)?;
        match authentication::check_from(message, &identity, &self.settings) {
            Some(refusal) => Err(refusal),
            None => Ok(identity),
        }
    }

    fn verify(&mut self, message: &Message, hop: &Hop, proxy: bool) -> Result<Identity, Refusal> {
        self.authentication
            .verify(self.wall, message, hop, proxy, &self.users, &self.settings)
    }

    /// A To tag that the same request always gets (RFC 3261 §8.2.7).
    fn stateless_tag(&self, message: &Message) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(b"stateless tag\0");
        mac.update(message.call_id().as_bytes());
        if let Ok(from) = message.from() {
            mac.update(from.tag().unwrap_or("").as_bytes());
        }
        if let Ok(cseq) = message.cseq() {
            mac.update(&cseq.number.to_be_bytes());
        }
        if let Ok(via) = message.top_via() {
            mac.update(via.branch().as_bytes());
        }
        hex::encode(&mac.finalize().into_bytes()[..8])
    }

    fn refuse_stateless(&mut self, message: &Message, hop: &Hop, refusal: &Refusal) {
        // Without a Via nobody knows whose the answer is.
        if *message.method() == Method::Ack || message.header(HeaderName::Via).is_none() {
            return;
        }
        let tag = self.stateless_tag(message);
        let mut response = build_response(message, refusal, &tag);
        match message.top_via() {
            Ok(mut via) => {
                stamp(&mut via, hop);
                response.set_front(HeaderName::Via, via.to_string());
                self.transactions.respond_stateless(&response, *hop);
                self.flush();
            }
            // RFC 4475 §3.1.2.1, §3.1.2.16: one that cannot be read is told so all the same.
            Err(_) => self.commands.push_back(Command::Transmit {
                id: 0,
                hop: *hop,
                host: None,
                bytes: response.to_bytes(),
            }),
        }
    }

    /// Works off what the transaction layer has, and passes on what it sends.
    fn work(&mut self, now: Instant) {
        while let Some(event) = self.transactions.poll_event() {
            self.on_event(now, event);
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.transactions.poll_transmit() {
            self.commands.push_back(Command::Transmit {
                id: transmit.client.map_or(0, |c| c.0.saturating_add(1)),
                hop: transmit.hop,
                host: transmit.host,
                bytes: transmit.bytes,
            });
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Request { key, message, .. } if *message.method() == Method::Cancel => {
                let refusal = Refusal::new(481, "No Such Transaction");
                self.refuse(now, key, &message, &refusal);
            }
            Event::Request { key, message, hop } => {
                let identity = self.admitted.take().unwrap_or(Identity::Anonymous);
                self.decide(now, key, message, hop, identity);
            }
            Event::Ack { message, hop } => self.on_ack(now, message, hop),
            Event::Cancel { key, message } => self.on_cancel(now, key, &message),
            Event::Response { key, message, .. } => self.on_response(now, key, message),
            Event::Timeout { key } => self.on_client_failed(now, key, 408, "Request Timeout"),
            Event::TransportFailed { key } => {
                self.on_client_failed(now, key, 503, "Next Hop Unreachable");
            }
            Event::Overloaded { message, hop } => {
                self.stats.overload += 1;
                self.admitted = None;
                let refusal = Refusal::new(503, "Server Busy, Try Again Later")
                    .with(HeaderName::RetryAfter, "5");
                // `received` and `rport` are stamped again with the same values.
                self.refuse_stateless(&message, &hop, &refusal);
            }
            // A 2xx that matches nothing has no caller any more (RFC 6026 §7.3).
            _ => {}
        }
    }

    pub(crate) fn decide(
        &mut self,
        now: Instant,
        key: ServerKey,
        message: Message,
        hop: Hop,
        identity: Identity,
    ) {
        let part = loops::loop_part(&self.key, &message);
        if loops::is_loop(&part, &message) {
            self.stats.loops += 1;
            self.refuse(now, key, &message, &Refusal::new(482, "Loop Detected"));
            return;
        }
        let mut routed = message.clone();
        match self.router().route(&mut routed, &hop, &identity) {
            Decision::Refuse(refusal) => self.refuse(now, key, &message, &refusal),
            Decision::Register => self.on_register(now, key, message, &hop, &identity),
            Decision::Options => self.on_options(now, key, &message),
            Decision::Park => self.park(now, Some(key), message, hop, identity),
            Decision::Forward(groups) => {
                self.forward(now, key, routed, hop, identity, part, groups);
            }
        }
    }

    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: &Message,
        refusal: &Refusal,
    ) {
        let tag = self.new_tag();
        let response = build_response(request, refusal, &tag);
        self.transactions.respond(now, key, response);
    }

    pub(crate) fn new_tag(&mut self) -> String {
        format!("{:016x}", self.rng.next_u64())
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        let id = self.next_id();
        self.timers.insert((at, id), timer);
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Ringing(key, branch) => self.on_ringing_too_long(now, key, branch),
            Timer::End(key) => self.drop_context(key),
            Timer::Park(id) => self.on_parked_too_long(now, id),
            Timer::Orphan(key, branch) => self.on_orphaned_too_long(now, key, branch),
            Timer::Sweep => self.sweep(now),
        }
    }

    fn on_cancel(&mut self, now: Instant, key: ServerKey, cancel: &Message) {
        if !self.cancel_parked(now, key) {
            self.cancel_context(now, key, cancel.header(HeaderName::Reason));
        }
    }
}

/// Puts `received` and `rport` where RFC 3581 §4 and RFC 3261 §18.2.1 want them.
fn stamp(via: &mut Via, hop: &Hop) {
    let ip = hop.remote.ip();
    let asked = via.params.get("rport").is_some();
    if asked {
        via.params
            .set("rport", Some(&hop.remote.port().to_string()));
    }
    let written = via.host.trim_matches(['[', ']']);
    if asked || written.parse::<std::net::IpAddr>() != Ok(ip) {
        via.params.set("received", Some(&ip.to_string()));
    }
}

fn build_response(request: &Message, refusal: &Refusal, tag: &str) -> Message {
    let status = refusal.status;
    let tag = (status != StatusCode::of(100)).then_some(tag);
    let mut response = Message::response(request, status, Some(refusal.reason), tag);
    for (name, value) in &refusal.headers {
        response.push_back(*name, value.as_str());
    }
    response
}
