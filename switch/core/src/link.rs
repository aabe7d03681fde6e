//! One transport of a leg: where its packets may come from, where ours go, and how both are
//! protected.
//!
//! A link has one *component*, or two where RTCP has a port of its own (no rtcp-mux). A component is
//!
//! ```text
//!                 ┌─ STUN ──► ICE-lite ─┐ validated pairs only
//!   datagram ─────┼─ DTLS ──────────────┼──► association ─► keys
//!   (RFC 7983)    └─ RTP/RTCP ──────────┴──► SRTP open ─► meeting
//! ```
//!
//! Without ICE the signalled address is the only one that counts. Where the leg was signalled as
//! behind NAT, the first valid packet says once what the address really is.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::BytesMut;

use crate::dtls::{self, Association, DtlsError, Fingerprint, Identity, Role};
use crate::ice::{Credentials, IceLite, Outcome};
use crate::srtp::{MAX_OVERHEAD, Opener, Profile, Sealer, SrtpError};
use crate::{Batch, RtpOut, SocketId};

/// Why a transport cannot be made; the words reach the owner as `LegState.refused`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// `security` missing or unknown.
    #[error("transport {0}: security is neither plain, SDES nor DTLS")]
    Security(u32),
    /// Not an IP address, or a port above 65,535.
    #[error("transport {0}: the remote address is not an IP address and port")]
    Address(u32),
    /// RFC 8445 §5.3: 4 to 256 characters of fragment, 22 to 256 of password.
    #[error(
        "transport {0}: ICE needs a local ufrag of 4 to 256 and a password of 22 to 256 characters"
    )]
    Ice(u32),
    /// Two transports claim one ufrag: a check could not be told whose it is.
    #[error("transport {0}: another transport of this switch has the same ICE ufrag")]
    UfragTaken(u32),
    /// SDES without a suite, or a key of the wrong length.
    #[error("transport {0}: the SDES suite or keys are missing or malformed")]
    Sdes(u32),
    /// See [`DtlsError`].
    #[error("transport {0}: {1}")]
    Dtls(u32, DtlsError),
    /// The plain range is used up.
    #[error("no free media port")]
    NoPort,
    /// Too many transports, or two with one index.
    #[error("a leg has 1 to {0} transports with different indices")]
    Transports(usize),
}

/// How a component is protected, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Security {
    Plain,
    Sdes {
        profile: Profile,
        local: Vec<u8>,
        /// Empty: not signalled yet.
        remote: Vec<u8>,
    },
    Dtls {
        /// `None`: the peer's answer has not come.
        role: Option<Role>,
        remote: Vec<Fingerprint>,
    },
}

/// A transport of the desired state, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Index in the leg.
    pub index: u32,
    /// IPv6 wanted for a plain port.
    pub ipv6: bool,
    /// RTCP shares the port.
    pub rtcp_mux: bool,
    security: Security,
    ice: Option<Credentials>,
    remote: Option<SocketAddr>,
    remote_rtcp: Option<SocketAddr>,
    latch: bool,
}

impl Spec {
    /// Checks a transport as the owner describes it.
    ///
    /// # Errors
    /// [`LinkError`] saying what is wrong with it.
    pub fn parse(transport: &control::Transport) -> Result<Self, LinkError> {
        let index = transport.index;
        let (remote, remote_rtcp) = remote_addresses(transport)?;
        Ok(Self {
            index,
            ipv6: transport.ipv6,
            rtcp_mux: transport.rtcp_mux,
            security: security(transport)?,
            ice: transport
                .ice
                .as_ref()
                .map(|ice| credentials(index, ice))
                .transpose()?,
            remote,
            remote_rtcp,
            latch: transport.latch,
        })
    }

    /// Our ICE user fragment.
    #[must_use]
    pub fn local_ufrag(&self) -> Option<&str> {
        self.ice.as_ref().map(|ice| ice.local_ufrag.as_str())
    }

    /// Whether the worker's shared port serves it: ICE tells legs apart there, and RTCP needs no
    /// second port.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.ice.is_some() && self.rtcp_mux
    }

    /// Whether a link made for `self` keeps its ports when the owner asks for `other`.
    #[must_use]
    pub fn keeps_ports(&self, other: &Self) -> bool {
        self.is_shared() == other.is_shared()
            && (self.is_shared() || (self.ipv6 == other.ipv6 && (other.rtcp_mux || !self.rtcp_mux)))
    }
}

fn credentials(index: u32, ice: &control::Ice) -> Result<Credentials, LinkError> {
    let fits = (4..=256).contains(&ice.local_ufrag.len())
        && (22..=256).contains(&ice.local_pwd.len())
        && ice.remote_ufrag.len() <= 256;
    fits.then(|| Credentials {
        local_ufrag: ice.local_ufrag.clone(),
        local_pwd: ice.local_pwd.clone(),
        remote_ufrag: ice.remote_ufrag.clone(),
    })
    .ok_or(LinkError::Ice(index))
}

/// The peer's RTP and RTCP addresses; `None` where not known or not to be sent to (hold by 0.0.0.0).
fn remote_addresses(
    transport: &control::Transport,
) -> Result<(Option<SocketAddr>, Option<SocketAddr>), LinkError> {
    let bad = |_| LinkError::Address(transport.index);
    let port = u16::try_from(transport.remote_port).map_err(bad)?;
    let rtcp = u16::try_from(transport.remote_rtcp_port).map_err(bad)?;
    if transport.remote_address.is_empty() {
        return Ok((None, None));
    }
    let ip: IpAddr = transport
        .remote_address
        .parse()
        .map_err(|_| LinkError::Address(transport.index))?;
    if port == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Ok((None, None));
    }
    let rtcp = if transport.rtcp_mux {
        port
    } else if rtcp == 0 {
        port.checked_add(1).unwrap_or(port)
    } else {
        rtcp
    };
    Ok((
        Some(SocketAddr::new(ip, port)),
        Some(SocketAddr::new(ip, rtcp)),
    ))
}

fn security(transport: &control::Transport) -> Result<Security, LinkError> {
    let index = transport.index;
    match transport.security() {
        control::Security::Unspecified => Err(LinkError::Security(index)),
        control::Security::Plain => Ok(Security::Plain),
        control::Security::Sdes => {
            let sdes = transport.sdes.as_ref().ok_or(LinkError::Sdes(index))?;
            let profile = match sdes.suite() {
                control::SrtpSuite::AesCm128HmacSha180 => Profile::Aes128CmSha1_80,
                control::SrtpSuite::AesCm128HmacSha132 => Profile::Aes128CmSha1_32,
                control::SrtpSuite::AeadAes128Gcm => Profile::AeadAes128Gcm,
                control::SrtpSuite::AeadAes256Gcm => Profile::AeadAes256Gcm,
                control::SrtpSuite::Unspecified => return Err(LinkError::Sdes(index)),
            };
            let length = profile.key_len() + profile.salt_len();
            if sdes.local_key.len() != length
                || !(sdes.remote_key.is_empty() || sdes.remote_key.len() == length)
            {
                return Err(LinkError::Sdes(index));
            }
            Ok(Security::Sdes {
                profile,
                local: sdes.local_key.to_vec(),
                remote: sdes.remote_key.to_vec(),
            })
        }
        control::Security::Dtls => {
            let wanted = transport.dtls.clone().unwrap_or_default();
            let role = match wanted.role() {
                control::DtlsRole::Server => Some(Role::Server),
                control::DtlsRole::Client => Some(Role::Client),
                control::DtlsRole::Unspecified => None,
            };
            let remote = wanted
                .remote
                .iter()
                .take(16)
                .map(|f| Fingerprint::new(&f.algorithm, &f.value))
                .collect::<Vec<_>>();
            // RFC 8122 §5: hashes we do not know are passed over, as long as one is known.
            let known: Vec<_> = remote.iter().filter_map(|f| f.clone().ok()).collect();
            match remote.into_iter().find_map(Result::err) {
                Some(error) if known.is_empty() => Err(LinkError::Dtls(index, error)),
                _ => Ok(Security::Dtls {
                    role,
                    remote: known,
                }),
            }
        }
    }
}

/// What a link tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Media can be sent from now on.
    Up,
    /// ICE consent expired (RFC 7675).
    ConsentLost,
    /// The handshake failed or the peer ended the association; for people.
    DtlsFailed(String),
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Plaintext RTP of this length at the start of the buffer.
    Rtp(usize),
    /// Plaintext RTCP, likewise.
    Rtcp(usize),
    /// STUN or DTLS, dealt with.
    Handled,
    /// From an address that may not speak here, or before there are keys: dropped.
    Stranger,
    /// Did not authenticate, replayed, or malformed: dropped.
    Bad(SrtpError),
}

/// RTP or RTCP of a component that carries both (RFC 5761 §4).
#[must_use]
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.len() >= 2 && (192..=223).contains(&datagram[1])
}

/// One 5-tuple.
struct Component {
    socket: SocketId,
    /// Signalled, or learnt once by latching.
    remote: Option<SocketAddr>,
    /// The next valid packet from anywhere says where the peer is.
    latching: bool,
    ice: Option<IceLite>,
    /// The pair from before an ICE restart, used until the new agent has one (RFC 8445 §9).
    previous: Option<(SocketId, SocketAddr)>,
    association: Option<Association>,
    opener: Option<Opener>,
    sealer: Option<Sealer>,
    secured: bool,
    consent_lost: bool,
    failed: Option<String>,
    /// Forgotten remotes of an agent that was replaced.
    forgotten: Vec<(SocketId, SocketAddr)>,
}

impl Component {
    fn new(socket: SocketId, remote: Option<SocketAddr>, spec: &Spec) -> Self {
        Self {
            socket,
            remote,
            latching: spec.latch,
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
    fn key(&mut self, index: u32, spec: &Security, identity: &Identity) -> Result<(), LinkError> {
        self.opener = None;
        self.sealer = None;
        self.association = None;
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
                    self.association = Some(association);
                }
            }
        }
        Ok(())
    }

    /// Where to send.
    fn path(&self) -> Option<(SocketId, SocketAddr)> {
        match &self.ice {
            Some(ice) => ice.selected().or(self.previous),
            None => self.remote.map(|remote| (self.socket, remote)),
        }
    }

    fn is_up(&self) -> bool {
        self.path().is_some() && (!self.secured || self.sealer.is_some())
    }

    fn admits(&self, remote: SocketAddr) -> bool {
        match &self.ice {
            Some(ice) => {
                ice.is_validated(remote) || self.previous.is_some_and(|(_, known)| known == remote)
            }
            None => self.latching || self.remote == Some(remote),
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

    fn handle(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        datagram: &mut [u8],
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
            Some(128..=191) => self.handle_media(remote, datagram),
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
        // Latching is for media that has been authenticated or at least parsed; a handshake from
        // elsewhere than signalled is only believed with ICE or to begin a latching leg's.
        if !self.admits(remote) {
            return Received::Stranger;
        }
        let Some(association) = &mut self.association else {
            return Received::Stranger;
        };
        if self.ice.is_none() && self.latching && self.remote != Some(remote) {
            self.remote = Some(remote);
        }
        let event = association.handle_datagram(datagram, now);
        if let Some(dtls::Event::Connected(_)) = event {
            self.latching = false;
        }
        self.on_dtls_event(event);
        self.drive(now, batch);
        Received::Handled
    }

    fn handle_media(&mut self, remote: SocketAddr, packet: &mut [u8]) -> Received {
        if !self.admits(remote) {
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
        match opened {
            Ok(len) => {
                if self.ice.is_none() && self.latching {
                    self.latching = false;
                    self.remote = Some(remote);
                }
                if rtcp {
                    Received::Rtcp(len)
                } else {
                    Received::Rtp(len)
                }
            }
            Err(error) => Received::Bad(error),
        }
    }

    /// Begins a handshake that is ours to begin, and sends what the association has.
    fn drive(&mut self, now: Instant, batch: &mut Batch) {
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

    fn handle_timeout(&mut self, now: Instant, batch: &mut Batch) {
        if let Some(ice) = &mut self.ice
            && ice.handle_timeout(now)
        {
            self.consent_lost = true;
        }
        if let Some(association) = &mut self.association {
            let event = association.handle_timeout(now);
            self.on_dtls_event(event);
            self.drive(now, batch);
        }
    }

    fn is_handshaking(&self) -> bool {
        self.association
            .as_ref()
            .is_some_and(|association| association.poll_timeout().is_some())
    }

    /// Takes over a changed description; keys are remade only if they changed.
    fn update(&mut self, old: &Spec, new: &Spec, remote: Option<SocketAddr>, moved: bool) {
        if moved || (new.latch && !old.latch) {
            self.remote = remote;
            self.latching = new.latch;
        } else if !new.latch {
            self.latching = false;
        }
        match (&mut self.ice, &new.ice) {
            (Some(ice), Some(wanted))
                if ice.credentials().local_ufrag == wanted.local_ufrag
                    && ice.credentials().local_pwd == wanted.local_pwd =>
            {
                ice.set_remote_ufrag(&wanted.remote_ufrag);
            }
            (_, wanted) => {
                self.previous = self.path().filter(|_| wanted.is_some());
                if let Some(ice) = &mut self.ice {
                    let previous = self.previous;
                    let remotes = ice.remotes().filter(|known| Some(*known) != previous);
                    self.forgotten.extend(remotes);
                }
                self.ice = wanted.clone().map(IceLite::new);
            }
        }
    }
}

/// One transport of a leg.
pub struct Link {
    spec: Spec,
    rtp: Component,
    rtcp: Option<Component>,
    was_up: bool,
    told_consent: bool,
    told_failed: bool,
}

impl Link {
    /// A link on these sockets; `rtcp` where RTCP has its own.
    ///
    /// # Errors
    /// [`LinkError`] if the keys do not serve.
    pub fn new(
        spec: Spec,
        rtp: SocketId,
        rtcp: Option<SocketId>,
        identity: &Identity,
    ) -> Result<Self, LinkError> {
        let mut link = Self {
            rtp: Component::new(rtp, spec.remote, &spec),
            rtcp: rtcp.map(|socket| Component::new(socket, spec.remote_rtcp, &spec)),
            spec,
            was_up: false,
            told_consent: false,
            told_failed: false,
        };
        link.rekey(identity)?;
        Ok(link)
    }

    fn rekey(&mut self, identity: &Identity) -> Result<(), LinkError> {
        let index = self.spec.index;
        self.rtp.key(index, &self.spec.security, identity)?;
        if let Some(rtcp) = &mut self.rtcp {
            rtcp.key(index, &self.spec.security, identity)?;
        }
        self.told_failed = false;
        Ok(())
    }

    /// What it was made for.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Brings it to a changed description that [keeps its ports](Spec::keeps_ports). The same
    /// description again disturbs nothing.
    ///
    /// # Errors
    /// [`LinkError`] if new keys do not serve.
    pub fn update(&mut self, spec: Spec, identity: &Identity) -> Result<(), LinkError> {
        if spec == self.spec {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.spec, spec);
        let new = &self.spec;
        self.rtp
            .update(&old, new, new.remote, new.remote != old.remote);
        if let Some(rtcp) = &mut self.rtcp {
            let moved = new.remote_rtcp != old.remote_rtcp;
            rtcp.update(&old, new, new.remote_rtcp, moved);
        }
        if old.security != new.security && !self.rekey_changed_side(&old)? {
            self.rekey(identity)?;
            self.was_up = false;
        }
        Ok(())
    }

    /// With SDES only the side whose key changed is keyed anew: the other goes on with its
    /// roll-over counter, which nobody would tell us. `false` where more than keys changed.
    fn rekey_changed_side(&mut self, old: &Spec) -> Result<bool, LinkError> {
        let sdes = |_| LinkError::Sdes(old.index);
        let Security::Sdes {
            profile: old_profile,
            local: old_local,
            remote: old_remote,
        } = &old.security
        else {
            return Ok(false);
        };
        let Security::Sdes {
            profile,
            local,
            remote,
        } = &self.spec.security
        else {
            return Ok(false);
        };
        if profile != old_profile {
            return Ok(false);
        }
        let components = [Some(&mut self.rtp), self.rtcp.as_mut()];
        for component in components.into_iter().flatten() {
            if local != old_local {
                component.sealer = Some(Sealer::new(*profile, local).map_err(sdes)?);
            }
            if remote != old_remote {
                component.opener = match remote.is_empty() {
                    true => None,
                    false => Some(Opener::new(*profile, remote).map_err(sdes)?),
                };
            }
        }
        Ok(true)
    }

    /// Gives up the RTCP port: the peer agreed to rtcp-mux.
    pub fn drop_rtcp(&mut self) -> Option<SocketId> {
        self.rtcp.take().map(|component| component.socket)
    }

    /// Its sockets: RTP, and RTCP where separate.
    #[must_use]
    pub fn sockets(&self) -> (SocketId, Option<SocketId>) {
        (self.rtp.socket, self.rtcp.as_ref().map(|c| c.socket))
    }

    fn component(&mut self, rtcp: bool) -> &mut Component {
        match &mut self.rtcp {
            Some(component) if rtcp => component,
            _ => &mut self.rtp,
        }
    }

    /// Handles a datagram; `rtcp` says that it came to the RTCP socket. What is opened stays in
    /// place in `datagram`.
    pub fn handle_datagram(
        &mut self,
        rtcp: bool,
        socket: SocketId,
        remote: SocketAddr,
        datagram: &mut [u8],
        now: Instant,
        batch: &mut Batch,
    ) -> Received {
        self.component(rtcp)
            .handle(socket, remote, datagram, now, batch)
    }

    /// Begins what is ours to begin: call after creation and update.
    pub fn start(&mut self, now: Instant, batch: &mut Batch) {
        self.rtp.drive(now, batch);
        if let Some(rtcp) = &mut self.rtcp {
            rtcp.drive(now, batch);
        }
    }

    /// Repeats handshake flights, ends consent.
    pub fn handle_timeout(&mut self, now: Instant, batch: &mut Batch) {
        self.rtp.handle_timeout(now, batch);
        if let Some(rtcp) = &mut self.rtcp {
            rtcp.handle_timeout(now, batch);
        }
    }

    /// Whether a handshake runs, and timeouts are due often.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.rtp.is_handshaking() || self.rtcp.as_ref().is_some_and(Component::is_handshaking)
    }

    /// What is to be told; called until `None` after every other call.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        let up = self.rtp.is_up();
        if up != self.was_up {
            self.was_up = up;
            if up {
                self.told_consent = false;
                return Some(LinkEvent::Up);
            }
        }
        if self.rtp.consent_lost && !self.told_consent {
            self.told_consent = true;
            return Some(LinkEvent::ConsentLost);
        }
        if !self.told_failed
            && let Some(reason) = &self.rtp.failed
        {
            self.told_failed = true;
            return Some(LinkEvent::DtlsFailed(reason.clone()));
        }
        None
    }

    /// Seals an RTP packet into the batch; `false` where it cannot be sent.
    pub fn send_rtp(&mut self, packet: RtpOut<'_>, batch: &mut Batch) -> bool {
        let Some((socket, remote)) = self.rtp.path() else {
            return false;
        };
        let parts = [packet.header, packet.prefix, packet.payload];
        match (&mut self.rtp.sealer, self.rtp.secured) {
            (Some(sealer), _) => {
                let extra = sealer.profile().rtp_overhead();
                batch.push_with(socket, remote, &parts, extra, |buffer, len| {
                    sealer.seal_rtp(buffer, len).ok()
                })
            }
            (None, true) => false,
            (None, false) => batch.push_with(socket, remote, &parts, 0, |_, len| Some(len)),
        }
    }

    /// Seals a compound RTCP packet into the batch; `false` where it cannot be sent.
    pub fn send_rtcp(&mut self, compound: &[u8], batch: &mut Batch) -> bool {
        let component = self.component(true);
        let Some((socket, remote)) = component.path() else {
            return false;
        };
        match (&mut component.sealer, component.secured) {
            (Some(sealer), _) => {
                batch.push_with(socket, remote, &[compound], MAX_OVERHEAD, |buffer, len| {
                    sealer.seal_rtcp(buffer, len).ok()
                })
            }
            (None, true) => false,
            (None, false) => batch.push(socket, remote, compound),
        }
    }

    /// Says goodbye, so that a peer still there learns at once.
    pub fn close(&mut self, now: Instant, batch: &mut Batch) {
        for component in [Some(&mut self.rtp), self.rtcp.as_mut()]
            .into_iter()
            .flatten()
        {
            let path = component.path();
            if let (Some(association), Some((socket, remote))) = (&mut component.association, path)
            {
                association.close(now);
                let mut last: Option<BytesMut> = association.poll_transmit();
                while let Some(datagram) = last {
                    batch.push(socket, remote, &datagram);
                    last = association.poll_transmit();
                }
            }
        }
    }

    /// Address pairs validated now, for a table of whom a datagram on a shared socket belongs to.
    pub fn validated(&self) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        let components = [Some(&self.rtp), self.rtcp.as_ref()];
        components.into_iter().flatten().flat_map(|component| {
            component
                .ice
                .iter()
                .flat_map(IceLite::remotes)
                .chain(component.previous)
        })
    }

    /// Pairs no longer validated since the last call.
    pub fn take_forgotten(&mut self) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        let components = [Some(&mut self.rtp), self.rtcp.as_mut()];
        components.into_iter().flatten().flat_map(|component| {
            component
                .forgotten
                .drain(..)
                .chain(component.ice.iter_mut().flat_map(IceLite::take_forgotten))
        })
    }

    /// Where media goes now, for operators.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.rtp.path().map(|(_, remote)| remote)
    }

    /// The SRTP profile in use.
    #[must_use]
    pub fn profile(&self) -> Option<Profile> {
        self.rtp.sealer.as_ref().map(Sealer::profile)
    }
}
