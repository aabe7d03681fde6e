//! One leg as its receiving thread knows it: opens what comes, has it checked, and keeps ICE, DTLS and RTCP going.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use rand::Rng;
use switch_core::dtls::{Association, Event, Fingerprint, Identity, Role};
use switch_core::rtp::RtpView;
use switch_core::srtp::{Opener, Profile, Sealer, SrtpError};

use super::check::{Format, LegCheck};
use super::ice::{Agent, Credentials, State};
use super::outgoing::Report;
use super::rtcp::{Feedback, OwnStream, RtcpCheck};
use super::schedule::Watch;
use super::send::SendOrder;
use super::socket::{Clock, MediaSocket};
use super::tally::{Tally, note};

/// RTCP leaves between half and three halves of this, µs (RFC 3550 §6.2: randomized, and rare enough).
const REPORT_INTERVAL: u64 = 2_500_000;

/// A leg that ends sooner may be without keys, µs.
const PATIENCE: u64 = 5_000_000;

/// RTCP must come within this of the first media, µs: some intervals of RFC 3550 §6.2.
const RTCP_PATIENCE: u64 = 20_000_000;

/// DTLS and ICE, after an answer.
pub struct Secure {
    /// Both sides' credentials.
    pub credentials: Credentials,
    /// The peer's candidate.
    pub remote: SocketAddr,
    /// We begin the handshake.
    pub client: bool,
    /// The peer's certificate.
    pub fingerprint: Fingerprint,
    /// Our certificate.
    pub identity: Identity,
}

/// A socket of a leg, after an answer.
pub struct ReceiveSocket {
    /// The socket.
    pub socket: Arc<MediaSocket>,
    /// What may come there.
    pub formats: Vec<Format>,
    /// SDES: the peer's key.
    pub key: Option<(Profile, Vec<u8>)>,
}

/// A leg, after an answer.
pub struct ReceiveLeg {
    /// Whose.
    pub participant: u32,
    /// Its sockets.
    pub sockets: Vec<ReceiveSocket>,
    /// What we send, by m-line.
    pub own: Vec<Option<Arc<OwnStream>>>,
    /// With ICE and DTLS.
    pub secure: Option<Secure>,
    /// It is to be sent media at all.
    pub expects: bool,
    /// When the answer came, µs.
    pub connected: u64,
}

/// A socket that is read.
pub struct Port {
    /// The socket.
    pub socket: Arc<MediaSocket>,
    formats: Vec<Format>,
    key: Option<(Profile, Vec<u8>)>,
    opener: Option<Box<Opener>>,
    /// Nothing is opened: plain RTP.
    plain: bool,
    /// What came before the handshake had ended, and when: the peer has its keys a flight before us (RFC 5764 §4.1).
    early: Vec<(Vec<u8>, u64)>,
}

/// Datagrams kept until the keys are there: a key frame and some speech.
const EARLY: usize = 256;

impl Port {
    /// From what the answer says. `secure`: DTLS will bring the keys.
    #[must_use]
    pub fn new(socket: ReceiveSocket, secure: bool) -> Self {
        let mut port = Self {
            socket: socket.socket,
            formats: socket.formats,
            plain: !secure && socket.key.is_none(),
            key: None,
            opener: None,
            early: Vec::new(),
        };
        port.set_key(socket.key);
        port
    }

    /// Follows a new answer.
    pub fn update(&mut self, socket: ReceiveSocket) {
        self.formats = socket.formats;
        self.set_key(socket.key);
    }

    /// Keeps what cannot be opened yet; false when there is too much of it.
    fn keep(&mut self, datagram: &[u8], at: u64) -> bool {
        let has_room = self.early.len() < EARLY;
        if has_room {
            self.early.push((datagram.to_vec(), at));
        }
        has_room
    }

    fn set_key(&mut self, key: Option<(Profile, Vec<u8>)>) {
        if key.is_some() && key != self.key {
            // the length was checked when the answer came
            let opener = key
                .as_ref()
                .and_then(|(profile, key)| Opener::new(*profile, key).ok());
            self.opener = opener.map(Box::new);
            self.key = key;
        }
    }
}

/// What a thread's legs share.
pub struct Desk {
    /// Time.
    pub clock: Clock,
    /// Counts.
    pub tally: Tally,
    /// Who talks.
    pub watch: Watch,
    /// To the sending thread.
    pub sender: Sender<SendOrder>,
    /// Calls are being ended: a peer that closes DTLS does not fail.
    pub leaving: bool,
}

/// The handshake of a leg.
struct Security {
    agent: Agent,
    association: Association,
}

/// The leg.
pub struct Incoming {
    /// Whose.
    pub participant: u32,
    own: Vec<Option<Arc<OwnStream>>>,
    check: LegCheck,
    rtcp: RtcpCheck,
    security: Option<Security>,
    expects: bool,
    connected: u64,
    next_report: u64,
    feedback: Vec<Feedback>,
    lost: bool,
    /// RTCP has come.
    reported: bool,
}

impl Incoming {
    /// A leg of so many scheduled speakers.
    pub fn new(leg: &ReceiveLeg, speakers: usize, desk: &mut Desk) -> Self {
        let next_report =
            leg.connected + rand::rng().random_range(REPORT_INTERVAL / 5..REPORT_INTERVAL);
        if leg.secure.is_none() {
            desk.tally.connected += 1;
        }
        Self {
            participant: leg.participant,
            own: Vec::new(),
            check: LegCheck::new(leg.participant, speakers, leg.connected),
            rtcp: RtcpCheck::default(),
            security: None,
            expects: false,
            connected: leg.connected,
            next_report,
            feedback: Vec::new(),
            lost: false,
            reported: false,
        }
    }

    /// Follows an answer; ICE and DTLS begin with the first.
    pub fn update(&mut self, leg: &mut ReceiveLeg, desk: &mut Desk) {
        self.own = std::mem::take(&mut leg.own);
        self.expects |= leg.expects;
        let Some(secure) = leg.secure.take() else {
            return;
        };
        let known = self.security.as_ref();
        if known.is_some_and(|known| *known.agent.credentials() == secure.credentials) {
            return;
        }
        let role = if secure.client {
            Role::Client
        } else {
            Role::Server
        };
        let now = desk.clock.now();
        let association = Association::new(&secure.identity, role, vec![secure.fingerprint]);
        match association {
            Ok(association) => {
                let tie_breaker = rand::rng().random();
                let agent = Agent::new(secure.credentials, secure.remote, tie_breaker, now);
                self.security = Some(Security { agent, association });
            }
            Err(e) => self.fail(e.to_string(), desk),
        }
    }

    fn fail(&mut self, reason: String, desk: &mut Desk) {
        desk.tally.failed.entry(self.participant).or_insert(reason);
        self.order(SendOrder::Silence(self.participant), desk);
    }

    fn order(&self, order: SendOrder, desk: &Desk) {
        // the sending thread ends after this one only when all ends
        let _ = desk.sender.send(order);
    }

    /// A datagram came to `port` at `at` µs.
    #[inline]
    pub fn on_datagram(
        &mut self,
        port: &mut Port,
        datagram: &mut [u8],
        from: SocketAddr,
        at: u64,
        desk: &mut Desk,
    ) {
        // RFC 7983 §7
        match datagram.first() {
            Some(128..=191) => match datagram.get(1) {
                // RFC 5761 §4
                Some(192..=223) => self.on_rtcp(port, datagram, at, desk),
                _ => self.on_rtp(port, datagram, at, desk),
            },
            Some(0..=3) => self.on_stun(port, datagram, from, desk),
            Some(20..=63) => self.on_dtls(port, datagram, desk),
            _ => desk.tally.malformed += 1,
        }
    }

    #[inline]
    fn on_rtp(&mut self, port: &mut Port, datagram: &mut [u8], at: u64, desk: &mut Desk) {
        let len = match &mut port.opener {
            None if port.plain => datagram.len(),
            None => {
                let kept = self.security.is_some() && port.keep(datagram, at);
                desk.tally.not_authentic += u64::from(!kept);
                return;
            }
            Some(opener) => match opener.open_rtp(datagram) {
                Ok(len) => len,
                Err(SrtpError::Replayed) => {
                    let payload_type = datagram[1] & 0x7f;
                    let format = port.formats.iter().find(|f| f.payload_type == payload_type);
                    match format {
                        Some(format) => desk.tally.kind(format.kind).counts.duplicates += 1,
                        None => desk.tally.malformed += 1,
                    }
                    return;
                }
                Err(_) => {
                    desk.tally.not_authentic += 1;
                    return;
                }
            },
        };
        let Ok(view) = RtpView::parse(&datagram[..len]) else {
            desk.tally.malformed += 1;
            return;
        };
        self.check
            .on_rtp(&view, &port.formats, at, &mut desk.tally, &mut desk.watch);
    }

    fn on_rtcp(&mut self, port: &mut Port, datagram: &mut [u8], at: u64, desk: &mut Desk) {
        let len = match &mut port.opener {
            None if port.plain => datagram.len(),
            None => {
                let kept = self.security.is_some() && port.keep(datagram, at);
                desk.tally.not_authentic += u64::from(!kept);
                return;
            }
            Some(opener) => match opener.open_rtcp(datagram) {
                Ok(len) => len,
                Err(_) => {
                    desk.tally.not_authentic += 1;
                    return;
                }
            },
        };
        self.reported = true;
        let own: Vec<&OwnStream> = self.own.iter().flatten().map(AsRef::as_ref).collect();
        let streams = self.check.streams();
        let (tally, feedback) = (&mut desk.tally, &mut self.feedback);
        self.rtcp
            .on_compound(&datagram[..len], at, streams, &own, tally, feedback);
        for wish in std::mem::take(&mut self.feedback) {
            let order = match wish {
                Feedback::Keyframe(ssrc) => SendOrder::Keyframe(self.participant, ssrc),
                Feedback::Missing(ssrc, number) => {
                    SendOrder::Missing(self.participant, ssrc, number)
                }
            };
            self.order(order, desk);
        }
    }

    fn on_stun(&mut self, port: &mut Port, datagram: &[u8], from: SocketAddr, desk: &mut Desk) {
        let Some(security) = &mut self.security else {
            return;
        };
        let now = desk.clock.now();
        let before = security.agent.state();
        if let Some(answer) = security.agent.on_datagram(datagram, from, now) {
            desk.tally.send_errors += u64::from(!port.socket.send(&answer, from));
        }
        if before != State::Connected && security.agent.state() == State::Connected {
            let event = security.association.start(desk.clock.instant(now));
            self.on_event(event, port, desk);
        }
        self.send_checks(port, desk);
        self.send_flights(port, desk);
    }

    fn on_dtls(&mut self, port: &mut Port, datagram: &[u8], desk: &mut Desk) {
        let Some(security) = &mut self.security else {
            return;
        };
        let event = security
            .association
            .handle_datagram(datagram, Instant::now());
        self.send_flights(port, desk);
        self.on_event(event, port, desk);
    }

    fn on_event(&mut self, event: Option<Event>, port: &mut Port, desk: &mut Desk) {
        match event {
            None => {}
            Some(Event::Failed(_)) if desk.leaving => {
                self.order(SendOrder::Silence(self.participant), desk);
            }
            Some(Event::Failed(reason)) => self.fail(format!("DTLS: {reason}"), desk),
            Some(Event::Connected(keys)) => {
                let opener = Opener::new(keys.profile, &keys.remote);
                let sealer = Sealer::new(keys.profile, &keys.local);
                let remote = self.security.as_ref().map(|s| s.agent.remote());
                if let (Ok(opener), Ok(sealer), Some(remote)) = (opener, sealer, remote) {
                    port.opener = Some(Box::new(opener));
                    let took = desk.clock.now().saturating_sub(self.connected);
                    desk.tally.connect_time.record(took);
                    desk.tally.connected += 1;
                    self.order(
                        SendOrder::Keys(self.participant, remote, Box::new(sealer)),
                        desk,
                    );
                    for (mut datagram, at) in std::mem::take(&mut port.early) {
                        self.on_datagram(port, &mut datagram, remote, at, desk);
                    }
                }
            }
        }
    }

    fn send_checks(&mut self, port: &Port, desk: &mut Desk) {
        let Some(security) = &mut self.security else {
            return;
        };
        if let Some(check) = security.agent.poll(desk.clock.now()) {
            let sent = port.socket.send(&check, security.agent.remote());
            desk.tally.send_errors += u64::from(!sent);
        }
    }

    fn send_flights(&mut self, port: &Port, desk: &mut Desk) {
        let Some(security) = &mut self.security else {
            return;
        };
        while let Some(flight) = security.association.poll_transmit() {
            let sent = port.socket.send(&flight, security.agent.remote());
            desk.tally.send_errors += u64::from(!sent);
        }
    }

    /// Does what is due, a few times in a tenth of a second.
    pub fn on_tick(&mut self, port: &mut Port, desk: &mut Desk) {
        let now = desk.clock.now();
        if let Some(security) = &mut self.security {
            let instant = desk.clock.instant(now);
            let due = security.association.poll_timeout();
            let event = match due.is_some_and(|due| due <= instant) {
                true => security.association.handle_timeout(instant),
                false => None,
            };
            self.send_checks(port, desk);
            self.send_flights(port, desk);
            self.on_event(event, port, desk);
            let lost = self
                .security
                .as_ref()
                .is_some_and(|s| s.agent.state() == State::Lost);
            if lost && !self.lost {
                self.lost = true;
                self.fail("ICE: consent lost".to_owned(), desk);
            }
        }
        if now >= self.next_report {
            self.next_report =
                now + rand::rng().random_range(REPORT_INTERVAL / 2..REPORT_INTERVAL * 3 / 2);
            for media in 0..self.own.len() {
                if self.own[media].is_some() {
                    let blocks = self.rtcp.blocks(self.check.streams(), media, now);
                    let report = Report {
                        blocks,
                        ..Report::default()
                    };
                    self.order(SendOrder::Report(self.participant, media, report), desk);
                }
            }
        }
        let missing: Vec<(usize, u32)> = self.check.keyframes_missing(now).collect();
        for (media, ssrc) in missing {
            let report = Report {
                blocks: self.rtcp.blocks(self.check.streams(), media, now),
                plis: vec![ssrc],
                bye: false,
            };
            self.order(SendOrder::Report(self.participant, media, report), desk);
        }
    }

    /// Nothing more will come, and `port` is about to be closed.
    pub fn finish(mut self, port: &Port, desk: &mut Desk) {
        let now = desk.clock.now();
        self.check.finish(now, &mut desk.tally);
        let lasted = now.saturating_sub(self.connected);
        if let Some(security) = &mut self.security {
            let checked = security.agent.state() != State::Checking;
            // not by the association's state: the peer may have closed it meanwhile
            if port.opener.is_none() && lasted > PATIENCE {
                let reason = match checked {
                    true => "DTLS: the handshake did not end",
                    false => "ICE: no check was answered",
                };
                let failed = &mut desk.tally.failed;
                failed.entry(self.participant).or_insert(reason.to_owned());
            }
            security.association.close(desk.clock.instant(now));
            self.send_flights(port, desk);
        }
        let Some(first) = self.check.first_media() else {
            if self.expects {
                desk.tally.without_media.push(self.participant);
            }
            return;
        };
        if !self.reported && !self.own.is_empty() && now.saturating_sub(first) > RTCP_PATIENCE {
            note(&mut desk.tally.rtcp.findings, "a leg without RTCP", || {
                let seconds = now.saturating_sub(first) / 1_000_000;
                format!("participant {}, in {seconds} s of media", self.participant)
            });
        }
    }
}
