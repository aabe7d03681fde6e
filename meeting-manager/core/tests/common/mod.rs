//! A world around a focus: a virtual clock, a store, switches and user agents, all in memory.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::records::keys;
use cluster::{Compare, Entry, Op, Revision, Txn};
use control::v1 as ctl;
use meeting_core::{
    ApplyFailure, Claimed, Command, Counts, Focus, FocusConfig, MeetingConfig, MeetingId, OpId,
    Ownership, Peer, StoreFailure, Stored, SwitchId, SwitchInfo,
};
use sip::{HeaderName, Hop, Limits, Message, Method, Transport};

pub const UNIX_START: u64 = 1_700_000_000_000;

pub const PHONE_OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

pub const PHONE_HOLD: &str = "v=0\r\no=- 1 2 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n";

pub const PHONE_RESUMED: &str = "v=0\r\no=- 1 3 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

pub const WITH_VIDEO: &str = "v=0\r\no=- 1 2 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n\
m=video 4002 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\na=sendrecv\r\n";

pub const VIDEO_DROPPED: &str = "v=0\r\no=- 1 3 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n\
m=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n";

pub const NOTHING_IN_COMMON: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 3\r\na=rtpmap:3 GSM/8000\r\n";

/// A switch in memory.
#[derive(Debug, Default)]
pub struct FakeSwitch {
    pub instance: u32,
    pub meetings: BTreeMap<String, (u64, BTreeMap<String, ctl::Leg>)>,
    pub applies: usize,
    /// A restart changes no port.
    pub same_ports: bool,
    /// Plain media are of this family only: `true` IPv6.
    pub only: Option<bool>,
    /// (key, instance) of every SDES key it was given to send with.
    pub keys: BTreeSet<(Bytes, u32)>,
    /// Of the latest request.
    pub policy: Option<ctl::MeetingPolicy>,
}

impl FakeSwitch {
    fn apply(&mut self, request: &ctl::ApplyRequest) -> Result<ctl::ApplyResponse, ApplyFailure> {
        self.applies += 1;
        self.policy = request.policy;
        let entry = self.meetings.entry(request.meeting.clone()).or_default();
        if request.epoch < entry.0 {
            return Err(ApplyFailure::Fenced);
        }
        entry.0 = request.epoch;
        let response = |legs| ctl::ApplyResponse {
            instance: format!("i{}", self.instance),
            epoch: request.epoch,
            legs,
        };
        if request.end {
            let answer = response(Vec::new());
            self.meetings.remove(&request.meeting);
            return Ok(answer);
        }
        if request.full {
            entry.1.clear();
        }
        for id in &request.removed_legs {
            entry.1.remove(id);
        }
        let mut states = Vec::new();
        let ports = 30_000
            + if self.same_ports {
                0
            } else {
                self.instance * 1_000
            };
        let port = |t: &ctl::Transport| ports + t.index * 2 + u32::from(t.ipv6) * 500;
        for leg in &request.legs {
            let lacks = |t: &ctl::Transport| t.ice.is_none() && self.only == Some(!t.ipv6);
            if leg.transports.iter().any(lacks) {
                states.push(ctl::LegState {
                    id: leg.id.clone(),
                    refused: "the media server has no address of that family".into(),
                    unsupported: true,
                    ..ctl::LegState::default()
                });
                continue;
            }
            let sdes = leg.transports.iter().filter_map(|t| t.sdes.as_ref());
            self.keys
                .extend(sdes.map(|s| (s.local_key.clone(), self.instance)));
            entry.1.insert(leg.id.clone(), leg.clone());
            states.push(ctl::LegState {
                id: leg.id.clone(),
                transports: leg
                    .transports
                    .iter()
                    .map(|t| ctl::LocalTransport {
                        index: t.index,
                        addresses: vec![ctl::Address {
                            ip: if t.ipv6 {
                                "2001:db8::1".into()
                            } else {
                                "198.51.100.1".into()
                            },
                            port: port(t),
                        }],
                        rtcp_port: if t.rtcp_mux { 0 } else { port(t) + 1 },
                    })
                    .collect(),
                refused: String::new(),
                unsupported: false,
            });
        }
        Ok(response(states))
    }

    pub fn legs(&self, meeting: &str) -> usize {
        self.meetings.get(meeting).map_or(0, |(_, legs)| legs.len())
    }

    pub fn leg(&self, meeting: &str) -> &ctl::Leg {
        let (_, legs) = &self.meetings[meeting];
        assert_eq!(legs.len(), 1, "one leg expected");
        legs.values().next().unwrap()
    }

    /// All is forgotten, as by a process that is started anew.
    pub fn restart(&mut self) {
        self.instance += 1;
        self.meetings.clear();
    }
}

/// What goes wrong.
#[derive(Debug, Default)]
pub struct Faults {
    pub store: VecDeque<StoreFailure>,
    pub apply: VecDeque<ApplyFailure>,
    pub refuse_leg: Option<String>,
    /// With `refuse_leg`: for good.
    pub unsupported: bool,
    pub claim: VecDeque<StoreFailure>,
    pub theirs: Option<String>,
    /// Commands of these kinds wait in `held`.
    pub hold_store: bool,
    pub hold_apply: bool,
    pub hold_claim: bool,
    pub unreachable: Vec<String>,
    /// The registry still names the instances before these.
    pub registry_lags: bool,
}

pub struct World {
    pub focus: Focus,
    pub now: Instant,
    pub start: Instant,
    pub store: BTreeMap<String, (Bytes, u64)>,
    pub revision: u64,
    pub switches: BTreeMap<String, FakeSwitch>,
    pub faults: Faults,
    pub held: VecDeque<Command>,
    pub wire: VecDeque<Message>,
    pub config: FocusConfig,
    /// Meetings of others that a focus has said to go on with.
    pub taken_over: Vec<MeetingId>,
}

pub fn config() -> FocusConfig {
    let mut config = FocusConfig {
        domain: "example.org".into(),
        sent_by: "127.0.0.1:5070".into(),
        sent_by_stream: "127.0.0.1:5071".into(),
        ..FocusConfig::default()
    };
    config.meetings.insert(
        MeetingId::new("team").unwrap(),
        MeetingConfig {
            title: "Team".into(),
            ..MeetingConfig::default()
        },
    );
    config
}

pub fn hop() -> Hop {
    Hop::to(Transport::Udp, "127.0.0.1:5060".parse().unwrap())
}

impl Default for World {
    fn default() -> Self {
        Self::new(config())
    }
}

impl World {
    pub fn new(config: FocusConfig) -> Self {
        let now = Instant::now();
        let mut world = Self {
            focus: Focus::new(config.clone(), [7; 32], now, UNIX_START),
            now,
            start: now,
            store: BTreeMap::new(),
            revision: 0,
            switches: BTreeMap::from([("sw1".to_owned(), FakeSwitch::default())]),
            faults: Faults::default(),
            held: VecDeque::new(),
            wire: VecDeque::new(),
            config,
            taken_over: Vec::new(),
        };
        world.announce_switches();
        world
    }

    /// The member is gone for good and another one is there, which has read who owned what; the one before comes back
    /// for tests in which it was only paused.
    pub fn another_member(&mut self, member: &str) -> Focus {
        let unix = UNIX_START + u64::try_from((self.now - self.start).as_millis()).unwrap();
        self.wire.clear();
        let config = FocusConfig {
            member: member.into(),
            ..self.config.clone()
        };
        let next = Focus::new(config, [11; 32], self.now, unix);
        let before = std::mem::replace(&mut self.focus, next);
        self.announce_switches();
        for (meeting, owner) in self.owners() {
            self.focus.handle_owner(self.now, &meeting, Some(owner));
        }
        before
    }

    /// Owner records, all of the member that the world began with.
    pub fn owners(&self) -> Vec<(MeetingId, Ownership)> {
        let prefix = keys::owners();
        let owner = |(key, (_, revision)): (&String, &(Bytes, u64))| {
            let id = MeetingId::new(key.strip_prefix(&prefix)?)?;
            let member = self.config.member.clone();
            let epoch = Revision(*revision);
            Some((id, Ownership { member, epoch }))
        };
        self.store.iter().filter_map(owner).collect()
    }

    /// These members live now.
    pub fn members(&mut self, living: &[&str]) {
        let living = living.iter().map(|id| ((*id).to_owned(), Peer::default()));
        self.focus.handle_members(self.now, living.collect());
        self.run();
    }

    pub fn announce_switches(&mut self) {
        let infos = self
            .switches
            .iter()
            .enumerate()
            .map(|(n, (id, switch))| {
                let lag = u32::from(self.faults.registry_lags);
                let info = SwitchInfo {
                    instance: format!("i{}", switch.instance - lag),
                    load: u32::try_from(n).unwrap() * 100,
                    fingerprints: vec![("sha-256".into(), vec![n as u8; 32])],
                    ..SwitchInfo::default()
                };
                (SwitchId::new(id), info)
            })
            .collect();
        self.focus.handle_switches(self.now, infos);
    }

    pub fn switch(&mut self) -> &mut FakeSwitch {
        self.switches.get_mut("sw1").unwrap()
    }

    /// Long enough for the records to say that the ACKs came.
    pub fn settle(&mut self) {
        self.advance(Duration::from_secs(3));
    }

    /// The process ends and begins anew; store and switches stay.
    pub fn restart_focus(&mut self) {
        self.wire.clear();
        self.held.clear();
        let unix = UNIX_START + u64::try_from((self.now - self.start).as_millis()).unwrap();
        self.focus = Focus::new(self.config.clone(), [9; 32], self.now, unix);
        self.announce_switches();
        self.focus
            .handle_owners(self.now, self.owners().into_iter().collect());
        self.run();
    }

    fn claimed(&self, meeting: &str, epoch: u64) -> Claimed {
        let prefix = keys::dialogs(meeting);
        let records = self
            .store
            .iter()
            .filter(|(k, _)| k.starts_with(&prefix))
            .map(|(k, (v, rev))| Entry {
                key: k.clone(),
                value: v.clone(),
                modified: Revision(*rev),
            })
            .collect();
        Claimed::Ours {
            epoch: Revision(epoch),
            meeting: self.store[&keys::meeting(meeting)].0.clone(),
            records,
        }
    }

    /// Does what the focus asks for until it asks for nothing.
    pub fn run(&mut self) {
        while let Some(command) = self.focus.poll_command() {
            match &command {
                Command::Claim { .. } if self.faults.hold_claim => self.held.push_back(command),
                Command::Store { .. } if self.faults.hold_store => self.held.push_back(command),
                Command::Apply { .. } if self.faults.hold_apply => self.held.push_back(command),
                _ => self.perform(command),
            }
        }
    }

    /// What was held is done now, and nothing is held any more.
    pub fn release(&mut self) {
        self.faults.hold_store = false;
        self.faults.hold_apply = false;
        self.faults.hold_claim = false;
        while let Some(command) = self.held.pop_front() {
            self.perform(command);
            self.run();
        }
    }

    /// The first of what was held is done now; what it leads to is held as before.
    pub fn release_one(&mut self) {
        let command = self.held.pop_front().expect("something is held");
        self.perform(command);
        self.run();
    }

    /// Does one thing the focus asks for.
    pub fn carry_out(&mut self, command: Command) {
        self.perform(command);
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Transmit(transmit) => {
                let message = Message::parse(transmit.bytes, &Limits::default()).unwrap();
                assert_eq!(
                    message.defect(),
                    None,
                    "what the focus sends is well formed"
                );
                self.wire.push_back(message);
            }
            Command::Claim {
                op,
                meeting,
                record,
                from,
            } => self.perform_claim(op, &meeting, record, from),
            Command::TookOver { meeting, .. } => self.taken_over.push(meeting),
            Command::Store { op, txn } => {
                let result = match self.faults.store.pop_front() {
                    Some(StoreFailure::Unknown) => {
                        // The nastier half of "unknown": it did happen.
                        self.commit(txn);
                        Err(StoreFailure::Unknown)
                    }
                    Some(failure) => Err(failure),
                    None => Ok(self.commit(txn)),
                };
                self.focus.handle_store(self.now, op, result);
            }
            Command::Apply {
                op,
                switch,
                request,
            } => self.perform_apply(op, &switch, &request),
            Command::Resolve { op, host, port } => {
                let address: IpAddr = if host == "known.example" {
                    "127.0.0.1".parse().unwrap()
                } else {
                    self.focus.handle_resolved(self.now, op, &[]);
                    return;
                };
                let address = (address, port.unwrap_or(0)).into();
                self.focus.handle_resolved(self.now, op, &[address]);
            }
            other => panic!("unknown command {other:?}"),
        }
    }

    fn perform_claim(
        &mut self,
        op: OpId,
        meeting: &MeetingId,
        record: Bytes,
        from: Option<Ownership>,
    ) {
        if let Some(failure) = self.faults.claim.pop_front() {
            self.focus.handle_claimed(self.now, op, Err(failure));
            return;
        }
        if let Some(member) = self.faults.theirs.clone() {
            self.focus
                .handle_claimed(self.now, op, Ok(Claimed::Theirs { member }));
            return;
        }
        let owner = keys::owner(meeting.as_str());
        let epoch = match self.store.get(&owner) {
            Some((_, revision)) if from.is_some_and(|from| from.epoch.0 == *revision) => {
                self.revision += 1;
                self.store
                    .insert(owner, (Bytes::from_static(b"{}"), self.revision));
                self.revision
            }
            Some((_, revision)) => *revision,
            None => {
                self.revision += 1;
                self.store
                    .insert(owner, (Bytes::from_static(b"{}"), self.revision));
                self.store
                    .entry(keys::meeting(meeting.as_str()))
                    .or_insert((record, self.revision));
                self.revision
            }
        };
        let claimed = self.claimed(meeting.as_str(), epoch);
        self.focus.handle_claimed(self.now, op, Ok(claimed));
    }

    fn perform_apply(&mut self, op: OpId, switch: &SwitchId, request: &ctl::ApplyRequest) {
        let unreachable = self.faults.unreachable.iter().any(|s| s == switch.as_str());
        let failure = if unreachable {
            Some(ApplyFailure::Unavailable)
        } else {
            self.faults.apply.pop_front()
        };
        let result = match failure {
            Some(failure) => Err(failure),
            None => {
                let made = self
                    .switches
                    .get_mut(switch.as_str())
                    .map_or(Err(ApplyFailure::Unavailable), |s| s.apply(request));
                made.map(|mut response| {
                    if let Some(why) = self.faults.refuse_leg.take() {
                        for leg in &mut response.legs {
                            leg.refused.clone_from(&why);
                            leg.unsupported = self.faults.unsupported;
                            leg.transports.clear();
                        }
                    }
                    response
                })
            }
        };
        self.focus.handle_applied(self.now, op, result);
    }

    fn commit(&mut self, txn: Txn) -> Stored {
        assert!(txn.compares.len() + txn.ops.len() <= 128);
        let holds = txn.compares.iter().all(|c| match c {
            Compare::Unchanged(key, revision) => {
                self.store.get(key).is_some_and(|(_, r)| *r == revision.0)
            }
            Compare::Absent(key) => !self.store.contains_key(key),
            Compare::Present(key) => self.store.contains_key(key),
        });
        if !holds {
            return Stored::Conflict;
        }
        self.revision += 1;
        for op in txn.ops {
            match op {
                Op::Put(key, value, _) => {
                    self.store.insert(key, (value, self.revision));
                }
                Op::Delete(key) => {
                    self.store.remove(&key);
                }
            }
        }
        Stored::Committed(Revision(self.revision))
    }

    /// A message comes in from the registrar.
    pub fn send(&mut self, text: &str) {
        self.send_from(text, hop());
    }

    pub fn send_from(&mut self, text: &str, hop: Hop) {
        let message =
            Message::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap();
        self.focus.handle_message(self.now, message, hop);
        self.run();
    }

    pub fn switch_event(&mut self, event: ctl::event::Event) {
        let event = ctl::Event { event: Some(event) };
        self.focus
            .handle_switch_event(self.now, &SwitchId::new("sw1"), event);
        self.run();
    }

    pub fn leg_event(&mut self, meeting: &str, kind: ctl::leg_event::Kind) {
        let (epoch, leg) = {
            let (epoch, legs) = &self.switches["sw1"].meetings[meeting];
            (*epoch, legs.keys().next().unwrap().clone())
        };
        self.switch_event(ctl::event::Event::Leg(ctl::LegEvent {
            meeting: meeting.into(),
            epoch,
            leg,
            kind: kind.into(),
            ..ctl::LegEvent::default()
        }));
    }

    /// As [`Self::leg_event`], told to a member that no longer is the owner: with the epoch it knows.
    pub fn leg_event_of_old(&mut self, meeting: &str, kind: ctl::leg_event::Kind) {
        let legs = &self.switches["sw1"].meetings[meeting].1;
        let leg = legs.keys().next().unwrap().clone();
        self.switch_event(ctl::event::Event::Leg(ctl::LegEvent {
            meeting: meeting.into(),
            epoch: 0,
            leg,
            kind: kind.into(),
            ..ctl::LegEvent::default()
        }));
    }

    /// Time passes; every deadline on the way fires at its time.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.focus.poll_timeout() {
            if at > until {
                break;
            }
            self.now = self.now.max(at);
            self.focus.handle_timeout(self.now);
            self.run();
        }
        self.now = until;
        self.focus.handle_timeout(until);
        self.run();
    }

    /// Everything sent since last asked.
    pub fn sent(&mut self) -> Vec<Message> {
        self.wire.drain(..).collect()
    }

    /// The one message sent since last asked.
    pub fn one(&mut self) -> Message {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "one message expected: {:?}", lines(&sent));
        sent.remove(0)
    }

    /// The one response sent since last asked that is not 100.
    pub fn answer(&mut self) -> Message {
        let mut sent: Vec<Message> = self
            .sent()
            .into_iter()
            .filter(|m| m.status().is_some_and(|s| s.get() != 100))
            .collect();
        assert_eq!(sent.len(), 1, "one response expected: {:?}", lines(&sent));
        sent.remove(0)
    }

    /// The one request of that method sent since last asked.
    pub fn request(&mut self, method: Method) -> Message {
        let mut sent: Vec<Message> = self
            .sent()
            .into_iter()
            .filter(|m| m.is_request() && *m.method() == method)
            .collect();
        assert_eq!(sent.len(), 1, "one {method} expected: {:?}", lines(&sent));
        sent.remove(0)
    }

    pub fn dialog_records(&self, meeting: &str) -> usize {
        let prefix = keys::dialogs(meeting);
        self.store.keys().filter(|k| k.starts_with(&prefix)).count()
    }

    /// No leg, dialog, record, operation, transaction or deadline is left.
    pub fn assert_nothing_left(&mut self) {
        self.advance(Duration::from_secs(70));
        assert_eq!(self.focus.counts(), Counts::default());
        assert_eq!(self.store.keys().collect::<Vec<_>>(), Vec::<&String>::new());
        for switch in self.switches.values() {
            assert!(switch.meetings.is_empty(), "legs left: {switch:?}");
        }
        assert!(self.held.is_empty());
    }
}

/// A phone.
#[derive(Clone, Debug)]
pub struct Ua {
    pub name: &'static str,
    pub call_id: String,
    pub cseq: u32,
    pub branch: u32,
    pub target: String,
    pub to_tag: String,
    pub asserted: bool,
}

impl Ua {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            call_id: format!("call-{name}"),
            cseq: 0,
            branch: 0,
            target: "sip:team@example.org".into(),
            to_tag: String::new(),
            asserted: true,
        }
    }

    pub fn calling(name: &'static str, meeting: &str) -> Self {
        Self {
            target: format!("sip:{meeting}@example.org"),
            ..Self::new(name)
        }
    }

    fn head(&self, method: &str, cseq: u32, branch: &str) -> String {
        let Self {
            name,
            call_id,
            target,
            to_tag,
            ..
        } = self;
        let tag = if to_tag.is_empty() {
            String::new()
        } else {
            format!(";tag={to_tag}")
        };
        let mut head = format!(
            "{method} {target} SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK-{branch}\r\n\
             Via: SIP/2.0/UDP 192.0.2.10:5080;branch=z9hG4bK-ua-{branch}\r\n\
             Max-Forwards: 69\r\n\
             From: \"{name}\" <sip:{name}@example.org>;tag=from-{name}\r\n\
             To: <sip:team@example.org>{tag}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:{name}@192.0.2.10:5080>\r\n"
        );
        if to_tag.is_empty() {
            head.push_str("Record-Route: <sip:127.0.0.1:5060;lr>\r\n");
        }
        if self.asserted {
            head.push_str(&format!(
                "P-Asserted-Identity: <sip:{name}@example.org>\r\n"
            ));
        }
        head
    }

    fn finish(mut head: String, extra: &str, body: Option<(&str, &str)>) -> String {
        head.push_str(extra);
        if let Some((kind, _)) = body {
            head.push_str(&format!("Content-Type: {kind}\r\n"));
        }
        let body = body.map_or("", |(_, b)| b);
        head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        head
    }

    /// A new request; `extra` are whole header lines.
    pub fn request(&mut self, method: &str, extra: &str, body: Option<(&str, &str)>) -> String {
        self.cseq += 1;
        self.branch += 1;
        let branch = format!("{}-{}", self.name, self.branch);
        Self::finish(self.head(method, self.cseq, &branch), extra, body)
    }

    pub fn invite(&mut self, sdp: &str, extra: &str) -> String {
        let extra = format!("Allow: INVITE, ACK, CANCEL, BYE, UPDATE, PRACK\r\n{extra}");
        self.request("INVITE", &extra, Some(("application/sdp", sdp)))
    }

    pub fn invite_without_offer(&mut self, extra: &str) -> String {
        let extra = format!("Allow: INVITE, ACK, CANCEL, BYE, UPDATE, PRACK\r\n{extra}");
        self.request("INVITE", &extra, None)
    }

    pub fn update(&mut self, sdp: Option<&str>, extra: &str) -> String {
        self.request("UPDATE", extra, sdp.map(|s| ("application/sdp", s)))
    }

    pub fn bye(&mut self) -> String {
        self.request("BYE", "", None)
    }

    /// CANCEL of the latest request.
    pub fn cancel(&self) -> String {
        let branch = format!("{}-{}", self.name, self.branch);
        Self::finish(self.head("CANCEL", self.cseq, &branch), "", None)
    }

    /// ACK of the 2xx of the INVITE with that CSeq.
    pub fn ack_of(&mut self, cseq: u32, sdp: Option<&str>) -> String {
        self.branch += 1;
        let branch = format!("{}-{}", self.name, self.branch);
        let body = sdp.map(|s| ("application/sdp", s));
        Self::finish(self.head("ACK", cseq, &branch), "", body)
    }

    /// ACK of the 2xx of the latest INVITE.
    pub fn ack(&mut self, sdp: Option<&str>) -> String {
        self.ack_of(self.cseq, sdp)
    }

    /// ACK of a refusal of the latest INVITE: in its transaction.
    pub fn ack_refusal(&self, response: &Message) -> String {
        let tag = response.to().unwrap().tag().unwrap_or("").to_owned();
        let branch = format!("{}-{}", self.name, self.branch);
        let to = Self {
            to_tag: tag,
            ..self.clone()
        };
        Self::finish(to.head("ACK", self.cseq, &branch), "", None)
    }

    /// Takes the dialog from a response.
    pub fn learn(&mut self, response: &Message) {
        self.to_tag = response.to().unwrap().tag().unwrap().to_owned();
        if let Some(contact) = response.contacts().unwrap().first() {
            self.target = contact.uri.to_string();
        }
    }

    /// Our answer to a request of the focus.
    pub fn respond(
        &self,
        request: &Message,
        status: u16,
        extra: &str,
        sdp: Option<&str>,
    ) -> String {
        let mut head = format!("SIP/2.0 {status} Whatever\r\n");
        for via in request.headers(HeaderName::Via) {
            head.push_str(&format!("Via: {via}\r\n"));
        }
        for (name, header) in [
            ("From", HeaderName::From),
            ("To", HeaderName::To),
            ("Call-ID", HeaderName::CallId),
            ("CSeq", HeaderName::CSeq),
        ] {
            head.push_str(&format!("{name}: {}\r\n", request.header(header).unwrap()));
        }
        head.push_str(&format!("Contact: <sip:{}@192.0.2.10:5080>\r\n", self.name));
        Self::finish(head, extra, sdp.map(|s| ("application/sdp", s)))
    }
}

/// Calls, is let in, and acknowledges.
pub fn join(world: &mut World, ua: &mut Ua) -> Message {
    join_with(world, ua, PHONE_OFFER, "")
}

pub fn join_with(world: &mut World, ua: &mut Ua, sdp: &str, extra: &str) -> Message {
    let invite = ua.invite(sdp, extra);
    world.send(&invite);
    let ok = world.answer();
    assert_eq!(code(&ok), 200, "{} {}", code(&ok), ok.reason());
    ua.learn(&ok);
    let ack = ua.ack(None);
    world.send(&ack);
    assert!(world.sent().is_empty());
    ok
}

/// Hangs up.
pub fn leave(world: &mut World, ua: &mut Ua) {
    let bye = ua.bye();
    world.send(&bye);
    assert_eq!(code(&world.answer()), 200);
}

pub fn code(message: &Message) -> u16 {
    message.status().expect("a response").get()
}

pub fn body(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

/// For failure messages.
pub fn lines(messages: &[Message]) -> Vec<String> {
    let line = |m: &Message| match m.status() {
        Some(status) => format!("{} {} ({})", status.get(), m.reason(), m.method()),
        None => format!("{} {}", m.method(), m.request_uri()),
    };
    messages.iter().map(line).collect()
}
