//! One 5-tuple of a link.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::latch::{Expected, Probation, is_compound};
use super::spec::{Security, Spec};
use super::{LinkError, Received, is_rtcp};
use crate::dtls::{self, Association, Fingerprint, Identity, Role, is_client_hello};
use crate::ice::{CONSENT, IceLite, Outcome};
use crate::srtp::{Opener, Sealer, SrtpError};
use crate::{Batch, SocketId};

/// Handshakes at once of a peer that may be anywhere; the one that came first makes room.
const MOST_SUITORS: usize = 4;

/// Whoever says a ClientHello to a latching DTLS server: the first whose certificate is the
/// signalled one is the peer, and the others cannot disturb it.
struct Suitors {
    identity: Identity,
    fingerprints: Vec<Fingerprint>,
    list: Vec<(SocketAddr, Association)>,
}

impl Suitors {
    fn make(&self) -> Result<Association, dtls::DtlsError> {
        Association::new(&self.identity, Role::Server, self.fingerprints.clone())
    }

    /// The handshake with `remote`, begun by a ClientHello.
    fn with(&mut self, remote: SocketAddr, datagram: &[u8]) -> Option<usize> {
        if let Some(at) = self.list.iter().position(|(known, _)| *known == remote) {
            return Some(at);
        }
        if !is_client_hello(datagram) {
            return None;
        }
        let association = self.make().ok()?;
        if self.list.len() >= MOST_SUITORS {
            self.list.remove(0);
        }
        self.list.push((remote, association));
        Some(self.list.len() - 1)
    }
}

/// The pair from before an ICE restart.
#[derive(Clone, Copy)]
struct Previous {
    pair: (SocketId, SocketAddr),
    /// The last authenticated check of the agent that had it.
    heard: Instant,
}

/// One 5-tuple.
pub(super) struct Component {
    pub(super) socket: SocketId,
    /// Signalled, or learnt once by latching.
    remote: Option<SocketAddr>,
    /// Where the peer is, is still to be learnt from what it sends.
    latching: bool,
    probation: Probation,
    expected: Expected,
    suitors: Option<Box<Suitors>>,
    ice: Option<IceLite>,
    /// Used until the new agent has a pair (RFC 8445 §9), while consent lasts.
    previous: Option<Previous>,
    pub(super) association: Option<Box<Association>>,
    opener: Option<Opener>,
    pub(super) sealer: Option<Sealer>,
    pub(super) secured: bool,
    pub(super) consent_lost: bool,
    pub(super) failed: Option<String>,
    /// Forgotten remotes of an agent that was replaced.
    forgotten: Vec<(SocketId, SocketAddr)>,
}

impl Component {
    pub(super) fn new(socket: SocketId, remote: Option<SocketAddr>, spec: &Spec) -> Self {
        Self {
            socket,
            remote,
            latching: spec.latches,
            probation: Probation::default(),
            expected: spec.expected.clone(),
            suitors: None,
            ice: spec.ice.clone().map(IceLite::new),
            previous: None,
            association: None,
            opener: None,
            sealer: None,
            secured: spec.security != Security::Plain,
            consent_lost: false,
            failed: None,
            forgotten: Vec::new(),
        }
    }

    /// Keys or the association, from what is signalled now.
    pub(super) fn key(
        &mut self,
        index: u32,
        spec: &Security,
        identity: &Identity,
    ) -> Result<(), LinkError> {
        self.opener = None;
        self.sealer = None;
        self.association = None;
        self.suitors = None;
        self.failed = None;
        self.secured = *spec != Security::Plain;
        match spec {
            Security::Plain => {}
            Security::Sdes {
                profile,
                local,
                remote,
            } => {
                let sdes = |_| LinkError::Sdes(index);
                self.sealer = Some(Sealer::new(*profile, local).map_err(sdes)?);
                if !remote.is_empty() {
                    self.opener = Some(Opener::new(*profile, remote).map_err(sdes)?);
                }
            }
            Security::Dtls { role, remote } => {
                if let (Some(role), false) = (role, remote.is_empty()) {
                    let association = Association::new(identity, *role, remote.clone())
                        .map_err(|error| LinkError::Dtls(index, error))?;
                    if self.latching && *role == Role::Server {
                        self.suitors = Some(Box::new(Suitors {
                            identity: identity.clone(),
                            fingerprints: remote.clone(),
                            list: Vec::new(),
                        }));
                    } else {
                        self.association = Some(Box::new(association));
                    }
                }
            }
        }
        Ok(())
    }

    /// With SDES: the keys that have changed.
    ///
    /// # Errors
    /// A key of the wrong length.
    pub(super) fn key_sides(
        &mut self,
        sealer: Option<Result<Sealer, SrtpError>>,
        opener: Option<Option<Result<Opener, SrtpError>>>,
    ) -> Result<(), SrtpError> {
        if let Some(sealer) = sealer {
            self.sealer = Some(sealer?);
        }
        if let Some(opener) = opener {
            self.opener = opener.transpose()?;
        }
        Ok(())
    }

    /// Where to send.
    pub(super) fn path(&self) -> Option<(SocketId, SocketAddr)> {
        match &self.ice {
            Some(ice) => ice
                .selected()
                .or(self.previous.map(|previous| previous.pair)),
            None => self.remote.map(|remote| (self.socket, remote)),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.path().is_some() && (!self.secured || self.sealer.is_some())
    }

    /// The address the peer was found at; `None` where nothing has been learnt.
    pub(super) fn found(&self) -> Option<IpAddr> {
        let remote = self.remote.filter(|_| !self.latching)?;
        Some(remote.ip())
    }

    fn admits(&self, remote: SocketAddr) -> bool {
        match &self.ice {
            Some(ice) => {
                let before = self.previous.is_some_and(|known| known.pair.1 == remote);
                ice.is_validated(remote) || before
            }
            None => self.remote == Some(remote),
        }
    }

    fn on_dtls_event(&mut self, event: Option<dtls::Event>) {
        match event {
            Some(dtls::Event::Connected(keys)) => {
                let made = Opener::new(keys.profile, &keys.remote)
                    .and_then(|opener| Ok((opener, Sealer::new(keys.profile, &keys.local)?)));
                match made {
                    Ok((opener, sealer)) => {
                        self.opener = Some(opener);
                        self.sealer = Some(sealer);
                    }
                    Err(error) => self.failed = Some(error.to_string()),
                }
            }
            Some(dtls::Event::Failed(reason)) => {
                self.opener = None;
                self.sealer = None;
                self.failed = Some(reason);
            }
            None => {}
        }
    }

    /// Handles a datagram; `neighbour` is where the link's RTP was found to come from, if this
    /// component is RTCP's.
    pub(super) fn handle(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        datagram: &mut [u8],
        neighbour: Option<IpAddr>,
        now: Instant,
        batch: &mut Batch,
    ) -> Received {
        match datagram.first() {
            Some(0..=3) => {
                let Some(ice) = &mut self.ice else {
                    return Received::Stranger;
                };
                let Outcome::Answer(answer) = ice.handle_stun(socket, remote, datagram, now) else {
                    return Received::Stranger;
                };
                if ice.selected().is_some() {
                    self.previous = None;
                    self.consent_lost = false;
                }
                batch.push(socket, remote, answer.as_bytes());
                self.drive(now, batch);
                Received::Handled
            }
            Some(20..=63) => self.handle_dtls(remote, datagram, now, batch),
            Some(128..=191) => self.handle_media(remote, datagram, neighbour, now),
            _ => Received::Stranger,
        }
    }

    fn handle_dtls(
        &mut self,
        remote: SocketAddr,
        datagram: &[u8],
        now: Instant,
        batch: &mut Batch,
    ) -> Received {
        if self.suitors.is_some() {
            return self.handle_suitor(remote, datagram, now, batch);
        }
        // An answer to our own ClientHello comes from where that went, also through a NAT.
        if !self.admits(remote) {
            return Received::Stranger;
        }
        let Some(association) = &mut self.association else {
            return Received::Stranger;
        };
        let event = association.handle_datagram(datagram, now);
        if let Some(dtls::Event::Connected(_)) = event {
            self.latching = false;
        }
        self.on_dtls_event(event);
        self.drive(now, batch);
        Received::Handled
    }

    fn handle_suitor(
        &mut self,
        remote: SocketAddr,
        datagram: &[u8],
        now: Instant,
        batch: &mut Batch,
    ) -> Received {
        let Some(suitors) = &mut self.suitors else {
            return Received::Stranger;
        };
        let Some(at) = suitors.with(remote, datagram) else {
            return Received::Stranger;
        };
        let association = &mut suitors.list[at].1;
        let event = association.handle_datagram(datagram, now);
        while let Some(datagram) = association.poll_transmit() {
            batch.push(self.socket, remote, &datagram);
        }
        match event {
            Some(dtls::Event::Connected(_)) => {
                self.association = Some(Box::new(suitors.list.remove(at).1));
                self.suitors = None;
                self.latching = false;
                self.remote = Some(remote);
                self.on_dtls_event(event);
            }
            Some(dtls::Event::Failed(_)) => {
                suitors.list.remove(at);
                // A stranger's failure is not the peer's.
                if self.remote == Some(remote) {
                    self.suitors = None;
                    self.on_dtls_event(event);
                }
            }
            None => {}
        }
        Received::Handled
    }

    /// The other component of the peer is alive, and so is the peer.
    pub(super) fn handle_sibling_media(&mut self, now: Instant) {
        if let Some(ice) = &mut self.ice
            && let Some((_, remote)) = ice.selected()
        {
            ice.handle_media(remote, now);
        }
    }

    fn handle_media(
        &mut self,
        remote: SocketAddr,
        packet: &mut [u8],
        neighbour: Option<IpAddr>,
        now: Instant,
    ) -> Received {
        if !self.latching && !self.admits(remote) {
            return Received::Stranger;
        }
        let rtcp = is_rtcp(packet);
        let opened = match (&mut self.opener, self.secured) {
            (Some(opener), _) if rtcp => opener.open_rtcp(packet),
            (Some(opener), _) => opener.open_rtp(packet),
            (None, true) => return Received::Stranger,
            (None, false) if packet.len() < if rtcp { 8 } else { 12 } => Err(SrtpError::BadPacket),
            (None, false) => Ok(packet.len()),
        };
        let len = match opened {
            Ok(len) => len,
            Err(error) => return Received::Bad(error),
        };
        if let Some(ice) = &mut self.ice {
            ice.handle_media(remote, now);
        }
        if self.latching {
            let known = self.admits(remote);
            let found = self.secured
                || match rtcp {
                    true => neighbour == Some(remote.ip()) && is_compound(packet),
                    false => self.probation.passes(remote, packet, &self.expected, known),
                };
            if found {
                self.latching = false;
                self.remote = Some(remote);
            } else if !known {
                return Received::Stranger;
            }
        }
        if rtcp {
            Received::Rtcp(len)
        } else {
            Received::Rtp(len)
        }
    }

    /// Begins a handshake that is ours to begin, and sends what the association has.
    pub(super) fn drive(&mut self, now: Instant, batch: &mut Batch) {
        let Some((socket, remote)) = self.path() else {
            return;
        };
        let Some(association) = &mut self.association else {
            return;
        };
        let event = association.start(now);
        while let Some(datagram) = association.poll_transmit() {
            batch.push(socket, remote, &datagram);
        }
        self.on_dtls_event(event);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, batch: &mut Batch) {
        if let Some(ice) = &mut self.ice
            && ice.handle_timeout(now)
        {
            self.consent_lost = true;
        }
        let over = |p: &mut Previous| now.saturating_duration_since(p.heard) >= CONSENT;
        if let Some(previous) = self.previous.take_if(over) {
            self.forgotten.push(previous.pair);
            self.consent_lost |= self.path().is_none();
        }
        if let Some(suitors) = &mut self.suitors {
            suitors.list.retain_mut(|(remote, association)| {
                let event = association.handle_timeout(now);
                while let Some(datagram) = association.poll_transmit() {
                    batch.push(self.socket, *remote, &datagram);
                }
                event.is_none()
            });
        }
        if let Some(association) = &mut self.association {
            let event = association.handle_timeout(now);
            self.on_dtls_event(event);
            self.drive(now, batch);
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        let runs = |association: &Association| association.poll_timeout().is_some();
        self.association.as_deref().is_some_and(runs)
            || self.suitors.as_ref().is_some_and(|s| !s.list.is_empty())
    }

    /// Takes over a changed description; keys are remade only if they changed.
    pub(super) fn update(
        &mut self,
        old: &Spec,
        new: &Spec,
        remote: Option<SocketAddr>,
        moved: bool,
    ) {
        self.expected.clone_from(&new.expected);
        if moved || (new.latches && !old.latches) {
            self.remote = remote;
            self.latching = new.latches;
            self.probation = Probation::default();
        } else if !new.latches {
            self.latching = false;
        }
        if !self.latching
            && let Some(suitors) = self.suitors.take()
        {
            match suitors.make() {
                Ok(association) => self.association = Some(Box::new(association)),
                Err(error) => self.failed = Some(error.to_string()),
            }
        }
        match (&mut self.ice, &new.ice) {
            (Some(ice), Some(wanted))
                if ice.credentials().local_ufrag == wanted.local_ufrag
                    && ice.credentials().local_pwd == wanted.local_pwd =>
            {
                ice.set_remote_ufrag(&wanted.remote_ufrag);
            }
            (old, wanted) => {
                let pair = old.as_ref().and_then(IceLite::selected);
                let heard = old.as_ref().and_then(IceLite::heard);
                if let Some((pair, heard)) = pair.zip(heard) {
                    self.previous = Some(Previous { pair, heard });
                }
                if wanted.is_none() {
                    self.forgotten.extend(self.previous.take().map(|p| p.pair));
                }
                if let Some(ice) = old {
                    let previous = self.previous.map(|previous| previous.pair);
                    let remotes = ice.remotes().filter(|known| Some(*known) != previous);
                    self.forgotten.extend(remotes);
                }
                self.ice = wanted.clone().map(IceLite::new);
            }
        }
    }

    /// Pairs validated now.
    pub(super) fn validated(&self) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        let ice = self.ice.iter().flat_map(IceLite::remotes);
        ice.chain(self.previous.map(|previous| previous.pair))
    }

    /// When a validated pair was heard last.
    pub(super) fn heard(&self, pair: (SocketId, SocketAddr)) -> Option<Instant> {
        self.ice.as_ref()?.heard_on(pair)
    }

    /// Pairs no longer validated since the last call.
    pub(super) fn take_forgotten(&mut self) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        let ice = self.ice.iter_mut().flat_map(IceLite::take_forgotten);
        self.forgotten.drain(..).chain(ice)
    }
}
