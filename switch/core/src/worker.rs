//! One worker: meetings, their links, and the tables that say whose a datagram is.
//!
//! ```text
//!   datagram ─► table ─► link (ICE, DTLS, SRTP open) ─► meeting ─► egress ─► link (seal) ─► batch
//! ```
//!
//! Workers share nothing. The shell owns sockets, clock and threads; it feeds datagrams and the
//! owner's requests in, and sends what the batch holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use smallvec::SmallVec;

use crate::dtls::Identity;
use crate::link::{LinkError, Spec};
use crate::meeting::{Meeting, MeetingConfig, WallClock};
use crate::rendition::Renditions;
use crate::{Batch, LegKey, MeetingError, TransportIndex};

mod egress;
mod hosted;
mod plain;
mod receive;
mod transports;

pub use crate::transmit::{Job, Outlet, SocketId, Transmit};
pub use egress::SPREAD_FROM;
pub use transports::{PlainPorts, Ports};

use egress::Out;
use hosted::Hosted;
use plain::PlainPool;
use transports::{LegLinks, Links, Made, Maker, PortUse, change, local_transport, sockets};

/// Transports a leg may have: one an m-line without BUNDLE.
pub const MAX_TRANSPORTS: usize = 8;

/// Events kept for an owner that does not fetch them; beyond it the oldest goes.
pub const MAX_EVENTS: usize = 4096;

/// How often links look at their timers: consent is counted in tens of seconds …
const LINK_TICK: Duration = Duration::from_secs(1);

/// … handshake flights in fractions of one.
const HANDSHAKE_TICK: Duration = Duration::from_millis(50);

/// How long after its last sign of life a leg keeps an address to itself: a phone that died and calls
/// again from the same port must not wait for consent to end.
const OWNED: Duration = Duration::from_secs(5);

/// What a worker is made with.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Wall clock.
    pub clock: WallClock,
    /// Bit/s announced by REMB to each sender of video.
    pub video_bitrate: u32,
    /// Time between decisions on the dominant speaker.
    pub speaker_interval: Duration,
    /// Legs of all meetings together; more are refused.
    pub max_legs: usize,
}

/// Why a request was not applied at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A newer owner has spoken: the sender lost the meeting.
    #[error("this meeting was last changed under epoch {highest}")]
    Stale {
        /// Highest epoch seen.
        highest: u64,
    },
    /// The meeting refused it.
    #[error(transparent)]
    Refused(MeetingError),
}

impl From<MeetingError> for ApplyError {
    fn from(error: MeetingError) -> Self {
        match error {
            MeetingError::StaleEpoch { highest, .. } => Self::Stale { highest },
            other => Self::Refused(other),
        }
    }
}

/// What was dropped, and why; only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Datagrams taken in.
    pub received: u64,
    /// From an address that may not speak, or to a socket nobody owns.
    pub strangers: u64,
    /// Replayed, malformed or not authentic.
    pub bad: u64,
    /// Meant for a link that could not send yet.
    pub unsendable: u64,
    /// Found no room in the send batch.
    pub overflowed: u64,
}

/// Whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    meeting: u32,
    leg: LegKey,
    transport: TransportIndex,
    rtcp: bool,
}

/// A worker.
pub struct Worker {
    config: WorkerConfig,
    identity: Arc<Identity>,
    rng: ChaCha12Rng,
    meetings: Vec<Option<Hosted>>,
    by_id: BTreeMap<String, u32>,
    /// Meetings by when they are due; entries that no longer hold are passed over when their time comes.
    agenda: BinaryHeap<Reverse<(Instant, u32)>>,
    sockets: HashMap<SocketId, Owner>,
    pairs: HashMap<(SocketId, SocketAddr), Owner>,
    ufrags: HashMap<String, Owner>,
    pool: PlainPool,
    /// Links made so far.
    links: u32,
    batch: Batch,
    sent: usize,
    events: VecDeque<control::Event>,
    stats: WorkerStats,
}

/// Why a leg of a request was not made.
struct RefusedLeg {
    reason: String,
    /// This switch never can.
    unsupported: bool,
}

impl RefusedLeg {
    fn of(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            unsupported: false,
        }
    }
}

impl Worker {
    /// A worker without meetings.
    #[must_use]
    pub fn new(config: WorkerConfig, identity: Arc<Identity>, seed: [u8; 32]) -> Self {
        Self {
            config,
            identity,
            rng: ChaCha12Rng::from_seed(seed),
            meetings: Vec::new(),
            by_id: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            sockets: HashMap::new(),
            pairs: HashMap::new(),
            ufrags: HashMap::new(),
            pool: PlainPool::default(),
            links: 0,
            batch: Batch::new(),
            sent: 0,
            events: VecDeque::new(),
            stats: WorkerStats::default(),
        }
    }

    /// Meetings it carries.
    #[must_use]
    pub fn meetings(&self) -> usize {
        self.by_id.len()
    }

    /// Legs of all its meetings.
    #[must_use]
    pub fn legs(&self) -> usize {
        self.meetings
            .iter()
            .flatten()
            .map(|hosted| hosted.links.legs.iter().flatten().count())
            .sum()
    }

    /// Changes how many legs it may hold; those beyond stay.
    pub fn set_max_legs(&mut self, max_legs: usize) {
        self.config.max_legs = max_legs;
    }

    /// Counters of what was dropped.
    #[must_use]
    pub fn stats(&self) -> WorkerStats {
        WorkerStats {
            overflowed: self.batch.dropped(),
            ..self.stats
        }
    }

    /// Brings a meeting to the owner's desired state; the state of every leg named, in order.
    ///
    /// # Errors
    /// [`ApplyError`]: nothing was changed.
    pub fn apply(
        &mut self,
        now: Instant,
        request: &control::ApplyRequest,
        ports: &mut dyn Ports,
    ) -> Result<Vec<control::LegState>, ApplyError> {
        let known = self.by_id.get(&request.meeting).copied();
        match known.and_then(|slot| self.meetings[slot as usize].as_ref()) {
            Some(hosted) => hosted.meeting.check_epoch(request.epoch)?,
            None if request.end => return Ok(Vec::new()),
            None => {}
        }
        let slot = known.unwrap_or_else(|| self.host(&request.meeting, now));
        let outcome = self.apply_hosted(slot, now, request, ports);
        let empty = outcome.is_err() && known.is_none();
        if empty {
            self.drop_meeting(slot);
        }
        outcome
    }

    fn host(&mut self, id: &str, now: Instant) -> u32 {
        let config = MeetingConfig {
            id: id.to_owned(),
            seed: self.rng.random(),
            clock: self.config.clock,
            video_bitrate: self.config.video_bitrate,
        };
        let hosted = Hosted {
            id: id.to_owned(),
            meeting: Meeting::new(config).with_speaker_interval(self.config.speaker_interval),
            renditions: Renditions::new(),
            links: Links::default(),
            link_due: now + LINK_TICK,
            scheduled: None,
        };
        let free = self.meetings.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.meetings.push(None);
            self.meetings.len() - 1
        });
        self.meetings[slot] = Some(hosted);
        let slot = slot as u32;
        self.by_id.insert(id.to_owned(), slot);
        slot
    }

    fn drop_meeting(&mut self, slot: u32) {
        if let Some(hosted) = self.meetings[slot as usize].take() {
            self.by_id.remove(&hosted.id);
        }
        if self.by_id.is_empty() {
            self.agenda.clear();
        }
    }

    fn apply_hosted(
        &mut self,
        slot: u32,
        now: Instant,
        request: &control::ApplyRequest,
        ports: &mut dyn Ports,
    ) -> Result<Vec<control::LegState>, ApplyError> {
        let mut wanted = request.clone();
        let mut refused: BTreeMap<String, RefusedLeg> = BTreeMap::new();
        let mut made: BTreeMap<String, Made> = BTreeMap::new();
        let mut ufrags: Vec<String> = Vec::new();
        let mut room = self.config.max_legs.saturating_sub(self.legs());
        if wanted.end {
            wanted.legs.clear();
        }
        wanted.legs.retain_mut(|leg| {
            if made.contains_key(&leg.id) {
                return false; // a new leg named twice: the first mention counts
            }
            let outcome = match self.leg(slot, &leg.id) {
                None if room == 0 => Err(RefusedLeg::of("the switch is full")),
                existing => {
                    room -= usize::from(existing.is_none());
                    self.prepare(slot, existing, leg, &mut ufrags, now, ports)
                        .map_err(|error| RefusedLeg {
                            unsupported: matches!(error, LinkError::Family { .. }),
                            ..RefusedLeg::of(error.to_string())
                        })
                }
            };
            match outcome {
                Ok(Some(transports)) => made.insert(leg.id.clone(), transports).is_none(),
                Ok(None) => true,
                Err(reason) => {
                    refused.insert(leg.id.clone(), reason);
                    // A leg that cannot become what it should be goes on as what it is.
                    let stays = self.described(slot, &leg.id);
                    stays.map(|described| *leg = described).is_some()
                }
            }
        });
        let Some(hosted) = self.meetings[slot as usize].as_mut() else {
            return Ok(Vec::new());
        };
        let applied = match hosted.meeting.apply(now, &wanted, &mut hosted.renditions) {
            Ok(applied) => applied,
            Err(error) => {
                made.into_values()
                    .for_each(|t| self.maker(ports).release(&t));
                return Err(error.into());
            }
        };
        for (_, key) in &applied.removed {
            self.remove_links(slot, *key, now, ports);
        }
        for (id, outcome) in &applied.legs {
            match (outcome, made.remove(id)) {
                (Ok(key), Some(transports)) => self.install(slot, id, *key, transports, now),
                (Ok(_), None) => {}
                (Err(reason), transports) => {
                    refused.insert(id.clone(), RefusedLeg::of(reason.clone()));
                    if let Some(transports) = transports {
                        self.maker(ports).release(&transports);
                    }
                }
            }
        }
        made.into_values()
            .for_each(|t| self.maker(ports).release(&t));
        self.settle(slot, now);
        let states = request
            .legs
            .iter()
            .map(|leg| self.leg_state(slot, &leg.id, refused.get(&leg.id)))
            .collect();
        if applied.ended {
            self.collect_events(slot);
            self.end(slot, now, ports);
        }
        self.schedule(slot);
        Ok(states)
    }

    fn leg(&self, slot: u32, id: &str) -> Option<LegKey> {
        let hosted = self.meetings[slot as usize].as_ref()?;
        let leg = hosted.links.legs.iter().flatten().find(|leg| leg.id == id);
        leg.map(|leg| leg.key)
    }

    /// A leg as it was last described.
    fn described(&self, slot: u32, id: &str) -> Option<control::Leg> {
        let hosted = self.meetings[slot as usize].as_ref()?;
        hosted.meeting.described(id).cloned()
    }

    /// Makes or changes the transports of a leg. `Some` is a whole set for a new leg.
    fn prepare(
        &mut self,
        slot: u32,
        existing: Option<LegKey>,
        leg: &control::Leg,
        ufrags: &mut Vec<String>,
        now: Instant,
        ports: &mut dyn Ports,
    ) -> Result<Option<Made>, LinkError> {
        let specs = self.specs(slot, existing, leg, ufrags)?;
        let Some(key) = existing else {
            return self.make_all(specs, ports).map(Some);
        };
        self.forget_owner(slot, key);
        let identity = Arc::clone(&self.identity);
        let Some(hosted) = self.meetings[slot as usize].as_mut() else {
            return Ok(None);
        };
        let Some(links) = hosted.links.get(key) else {
            return Ok(None);
        };
        let outcome = change(
            &mut links.transports,
            specs,
            now,
            &mut self.batch,
            &mut Maker {
                identity: &identity,
                pool: &mut self.pool,
                links: &mut self.links,
                ports,
            },
        );
        hosted.link_due = hosted.link_due.min(now + HANDSHAKE_TICK);
        self.remember_owner(slot, key);
        outcome.map(|()| None)
    }

    fn specs(
        &self,
        slot: u32,
        existing: Option<LegKey>,
        leg: &control::Leg,
        ufrags: &mut Vec<String>,
    ) -> Result<Vec<Spec>, LinkError> {
        let bad = LinkError::Transports(MAX_TRANSPORTS);
        if leg.transports.is_empty() || leg.transports.len() > MAX_TRANSPORTS {
            return Err(bad);
        }
        let mut specs: Vec<Spec> = Vec::with_capacity(leg.transports.len());
        for transport in &leg.transports {
            let spec = Spec::parse(transport)?.carrying(&leg.media);
            if specs.iter().any(|other| other.index == spec.index) {
                return Err(bad);
            }
            if let Some(ufrag) = spec.local_ufrag() {
                let owner = self.ufrags.get(ufrag);
                let ours = |o: &Owner| {
                    o.meeting == slot && Some(o.leg) == existing && o.transport.0 == spec.index
                };
                if owner.is_some_and(|owner| !ours(owner)) || ufrags.iter().any(|u| u == ufrag) {
                    return Err(LinkError::UfragTaken(spec.index));
                }
                ufrags.push(ufrag.to_owned());
            }
            specs.push(spec);
        }
        Ok(specs)
    }

    fn maker<'a>(&'a mut self, ports: &'a mut dyn Ports) -> Maker<'a> {
        Maker {
            identity: &self.identity,
            pool: &mut self.pool,
            links: &mut self.links,
            ports,
        }
    }

    fn make_all(&mut self, specs: Vec<Spec>, ports: &mut dyn Ports) -> Result<Made, LinkError> {
        let mut made = Made::new();
        for spec in specs {
            let used = sockets(&made);
            match self.maker(ports).make(spec, &used) {
                Ok(transport) => made.push(transport),
                Err(error) => {
                    self.maker(ports).release(&made);
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    fn install(&mut self, slot: u32, id: &str, key: LegKey, transports: Made, now: Instant) {
        let Some(hosted) = self.meetings[slot as usize].as_mut() else {
            return;
        };
        let legs = &mut hosted.links.legs;
        if legs.len() <= key.index() {
            legs.resize_with(key.index() + 1, || None);
        }
        let mut links = LegLinks {
            id: id.to_owned(),
            key,
            transports,
        };
        for transport in &mut links.transports {
            transport.link.start(now, &mut self.batch);
        }
        legs[key.index()] = Some(links);
        hosted.link_due = hosted.link_due.min(now + HANDSHAKE_TICK);
        self.remember_owner(slot, key);
    }

    /// Enters a leg into the tables.
    fn remember_owner(&mut self, slot: u32, key: LegKey) {
        let Some(hosted) = self.meetings[slot as usize].as_mut() else {
            return;
        };
        let Some(leg) = hosted.links.get(key) else {
            return;
        };
        for transport in &leg.transports {
            let owner = Owner {
                meeting: slot,
                leg: key,
                transport: transport.index,
                rtcp: false,
            };
            let link = &transport.link;
            let (rtp, rtcp) = link.sockets();
            match transport.port_use {
                PortUse::Ice => {
                    if let Some(ufrag) = link.spec().local_ufrag() {
                        self.ufrags.insert(ufrag.to_owned(), owner);
                    }
                    self.pairs
                        .extend(link.validated().map(|pair| (pair, owner)));
                }
                PortUse::Shared => {
                    let (remote, remote_rtcp) = link.spec().remotes();
                    let both = [(Some(rtp), remote, false), (rtcp, remote_rtcp, true)];
                    for (socket, remote, rtcp) in both {
                        let pair = socket.zip(remote);
                        self.pairs
                            .extend(pair.map(|pair| (pair, Owner { rtcp, ..owner })));
                    }
                }
                PortUse::Own => {
                    self.sockets.insert(rtp, owner);
                    let rtcp = rtcp.map(|socket| {
                        (
                            socket,
                            Owner {
                                rtcp: true,
                                ..owner
                            },
                        )
                    });
                    self.sockets.extend(rtcp);
                }
            }
        }
    }

    /// Takes a leg out of the tables.
    fn forget_owner(&mut self, slot: u32, key: LegKey) {
        let Some(hosted) = self.meetings[slot as usize].as_mut() else {
            return;
        };
        let Some(leg) = hosted.links.get(key) else {
            return;
        };
        let ours = |owner: &Owner| owner.meeting == slot && owner.leg == key;
        for transport in &mut leg.transports {
            if let Some(ufrag) = transport.link.spec().local_ufrag()
                && self.ufrags.get(ufrag).is_some_and(ours)
            {
                self.ufrags.remove(ufrag);
            }
            let (rtp, rtcp) = transport.link.sockets();
            for socket in [Some(rtp), rtcp].into_iter().flatten() {
                if self.sockets.get(&socket).is_some_and(ours) {
                    self.sockets.remove(&socket);
                }
            }
            let mut pairs: SmallVec<[_; 4]> = transport.link.validated().collect();
            if transport.port_use == PortUse::Shared {
                let (remote, remote_rtcp) = transport.link.spec().remotes();
                pairs.extend(remote.map(|remote| (rtp, remote)));
                pairs.extend(rtcp.zip(remote_rtcp));
            }
            for pair in pairs.into_iter().chain(transport.link.take_forgotten()) {
                if self.pairs.get(&pair).is_some_and(ours) {
                    self.pairs.remove(&pair);
                }
            }
        }
    }

    fn remove_links(&mut self, slot: u32, key: LegKey, now: Instant, ports: &mut dyn Ports) {
        self.forget_owner(slot, key);
        let Some(hosted) = self.meetings[slot as usize].as_mut() else {
            return;
        };
        let legs = &mut hosted.links.legs;
        let Some(place) = legs.get_mut(key.index()) else {
            return;
        };
        if place.as_ref().is_some_and(|leg| leg.key == key)
            && let Some(mut leg) = place.take()
        {
            for transport in &mut leg.transports {
                transport.link.close(now, &mut self.batch);
            }
            self.maker(ports).release(&leg.transports);
        }
    }

    fn end(&mut self, slot: u32, now: Instant, ports: &mut dyn Ports) {
        let keys: Vec<LegKey> = self.meetings[slot as usize]
            .iter()
            .flat_map(|hosted| hosted.links.legs.iter().flatten().map(|leg| leg.key))
            .collect();
        for key in keys {
            self.remove_links(slot, key, now, ports);
        }
        self.drop_meeting(slot);
    }

    fn leg_state(
        &mut self,
        slot: u32,
        id: &str,
        refused: Option<&RefusedLeg>,
    ) -> control::LegState {
        let mut state = control::LegState {
            id: id.to_owned(),
            refused: refused.map(|r| r.reason.clone()).unwrap_or_default(),
            unsupported: refused.is_some_and(|r| r.unsupported),
            ..Default::default()
        };
        let key = self.leg(slot, id);
        let leg = self.meetings[slot as usize]
            .as_mut()
            .zip(key)
            .and_then(|(hosted, key)| hosted.links.get(key));
        if let (Some(leg), None) = (leg, refused) {
            state.transports = leg.transports.iter().map(local_transport).collect();
        } else if refused.is_none() {
            state.refused = "the leg was not made".to_owned();
        }
        state
    }

    /// Passes on what links of a meeting have to tell.
    fn settle(&mut self, slot: u32, now: Instant) {
        if let Some(hosted) = self.meetings[slot as usize].as_mut() {
            for at in 0..hosted.links.legs.len() {
                hosted.settle_leg(at, now, &mut self.batch, &mut self.stats);
            }
        }
        self.collect_events(slot);
    }

    fn collect_events(&mut self, slot: u32) {
        if let Some(hosted) = self.meetings[slot as usize].as_mut() {
            while let Some(event) = hosted.meeting.poll_event() {
                if self.events.len() >= MAX_EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
        }
    }

    /// Ends a meeting that [is abandoned](Meeting::is_abandoned) and frees its ports; whether it did.
    pub fn reap(
        &mut self,
        now: Instant,
        meeting: &str,
        patience: Duration,
        unowned: bool,
        ports: &mut dyn Ports,
    ) -> bool {
        let Some(slot) = self.by_id.get(meeting).copied() else {
            return false;
        };
        let hosted = self.meetings[slot as usize].as_ref();
        let over = hosted.is_some_and(|h| h.meeting.is_abandoned(now, patience, unowned));
        if over {
            self.end(slot, now, ports);
        }
        over
    }

    /// Tells the owner of a meeting again what stands ([`Meeting::retell`]).
    pub fn retell(&mut self, meeting: &str) {
        let Some(slot) = self.by_id.get(meeting).copied() else {
            return;
        };
        if let Some(hosted) = self.meetings[slot as usize].as_mut() {
            hosted.meeting.retell();
        }
        self.collect_events(slot);
    }

    /// The next thing to tell a meeting's owner.
    pub fn poll_event(&mut self) -> Option<control::Event> {
        self.events.pop_front()
    }

    /// Whether nothing is to be sent.
    #[must_use]
    pub fn is_batch_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Datagrams in the batch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.batch.len()
    }

    /// All that is to be sent, datagrams to one receiver side by side.
    pub fn batch(&mut self) -> &Batch {
        self.batch.group();
        &self.batch
    }

    /// All of the batch was sent, or cannot be.
    pub fn clear_batch(&mut self) {
        self.batch.clear();
    }

    /// The next datagram to send, one by one. When there are no more the batch's memory is taken up again.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        if self.sent >= self.batch.len() {
            self.sent = 0;
            self.batch.clear();
            return None;
        }
        if self.sent == 0 {
            self.batch.group();
        }
        self.sent += 1;
        self.batch.get(self.sent - 1)
    }

    /// When [`Worker::handle_timeout`] is due; `None` without meetings.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.agenda.peek().map(|Reverse((due, _))| *due)
    }

    /// Enters a meeting into the agenda, should it be due sooner than it stands there.
    fn schedule(&mut self, slot: u32) {
        if let Some(hosted) = self.meetings[slot as usize].as_mut() {
            let due = hosted.due();
            if hosted.scheduled.is_none_or(|scheduled| due < scheduled) {
                hosted.scheduled = Some(due);
                self.agenda.push(Reverse((due, slot)));
            }
        }
    }

    /// Does everything that has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, slot))) = self.agenda.peek().copied()
            && at <= now
        {
            self.agenda.pop();
            let place = self.meetings[slot as usize].as_mut();
            // Entered again sooner, or gone: another entry stands for it, or none.
            let Some(hosted) = place.filter(|hosted| hosted.scheduled == Some(at)) else {
                continue;
            };
            hosted.scheduled = None;
            if hosted.due() <= now {
                self.handle_meeting_timeout(slot, now);
            }
            self.schedule(slot);
        }
    }

    fn handle_meeting_timeout(&mut self, slot: u32, now: Instant) {
        self.tick_links(slot, now);
        if let Some(hosted) = self.meetings[slot as usize].as_mut() {
            let mut out = Out {
                links: &mut hosted.links,
                batch: &mut self.batch,
                unsendable: &mut self.stats.unsendable,
                outlet: None,
            };
            hosted
                .meeting
                .handle_timeout(now, &mut out, &mut hosted.renditions);
        }
        self.collect_events(slot);
    }

    fn tick_links(&mut self, slot: u32, now: Instant) {
        let Some(hosted) = self.meetings[slot as usize].as_mut() else {
            return;
        };
        if hosted.link_due > now {
            return;
        }
        let mut handshaking = false;
        for leg in hosted.links.legs.iter_mut().flatten() {
            for transport in &mut leg.transports {
                transport.link.handle_timeout(now, &mut self.batch);
                handshaking |= transport.link.is_handshaking();
                for pair in transport.link.take_forgotten() {
                    let ours = |o: &Owner| o.meeting == slot && o.leg == leg.key;
                    if self.pairs.get(&pair).is_some_and(ours) {
                        self.pairs.remove(&pair);
                    }
                }
            }
        }
        hosted.link_due = now
            + if handshaking {
                HANDSHAKE_TICK
            } else {
                LINK_TICK
            };
        self.settle(slot, now);
    }

    /// A picture of one meeting, or of all by id.
    #[must_use]
    pub fn inspect(&self, now: Instant, meeting: Option<&str>) -> Vec<control::MeetingView> {
        self.by_id
            .iter()
            .filter(|(id, _)| meeting.is_none_or(|wanted| wanted == id.as_str()))
            .filter_map(|(_, slot)| self.meetings[*slot as usize].as_ref())
            .map(|hosted| hosted.view(now))
            .collect()
    }
}
