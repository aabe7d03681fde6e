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
//! behind NAT, what the peer sends says once what the address really is.

mod component;
mod latch;
mod spec;

use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;

use crate::dtls::{Association, DtlsError, Identity};
use crate::srtp::{MAX_OVERHEAD, Opener, Profile, Sealer, SrtpError};
use crate::{Batch, RtpOut, SocketId};

pub use spec::Spec;

use component::Component;
use spec::Security;

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
    /// No card of this switch has an address of the family.
    #[error("the media server has no {} address", if *.ipv6 { "IPv6" } else { "IPv4" })]
    Family {
        /// IPv6 was wanted.
        ipv6: bool,
    },
    /// The plain range is used up.
    #[error("no free media port")]
    NoPort,
    /// Too many transports, or two with one index.
    #[error("a leg has 1 to {0} transports with different indices")]
    Transports(usize),
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

/// RTP or RTCP, plain or protected (RFC 7983 §7).
#[must_use]
pub fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

/// What a link sends RTP with.
pub struct Sending<'a> {
    socket: SocketId,
    remote: SocketAddr,
    order: u32,
    /// `None`: in the clear.
    sealer: Option<&'a mut Sealer>,
}

impl Sending<'_> {
    /// Seals an RTP packet into the batch; `false` where it cannot be.
    pub fn rtp(&mut self, packet: RtpOut<'_>, batch: &mut Batch) -> bool {
        let Self {
            socket,
            remote,
            order,
            sealer,
        } = self;
        let parts = [packet.header, packet.prefix, packet.payload];
        let extra = sealer.as_ref().map_or(0, |s| s.profile().rtp_overhead());
        batch.push_with(
            *socket,
            *order,
            *remote,
            &parts,
            extra,
            |buffer, len| match sealer {
                Some(sealer) => sealer.seal_rtp(buffer, len).ok(),
                None => Some(len),
            },
        )
    }
}

/// One transport of a leg.
pub struct Link {
    spec: Spec,
    /// Place among the receivers of a batch.
    order: u32,
    rtp: Component,
    /// Boxed: few have it.
    rtcp: Option<Box<Component>>,
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
            rtcp: rtcp.map(|socket| Box::new(Component::new(socket, spec.remote_rtcp, &spec))),
            spec,
            order: 0,
            was_up: false,
            told_consent: false,
            told_failed: false,
        };
        link.rekey(identity)?;
        Ok(link)
    }

    /// At this place among the receivers of a batch; links of one worker have different ones, growing from leg to leg,
    /// so that what a meeting sends is in order as it is made.
    #[must_use]
    pub fn ordered(mut self, order: u32) -> Self {
        self.order = order;
        self
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
        let components = [Some(&mut self.rtp), self.rtcp.as_deref_mut()];
        for component in components.into_iter().flatten() {
            let sealer = (local != old_local).then(|| Sealer::new(*profile, local));
            let opener = (remote != old_remote)
                .then(|| (!remote.is_empty()).then(|| Opener::new(*profile, remote)));
            component.key_sides(sealer, opener).map_err(sdes)?;
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
        (self.rtp.socket, self.rtcp.as_deref().map(|c| c.socket))
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
        let neighbour = self.rtp.found().filter(|_| rtcp);
        let received = self
            .component(rtcp)
            .handle(socket, remote, datagram, neighbour, now, batch);
        // One who only listens sends nothing but RTCP; one without RTCP nothing but media.
        if let (Received::Rtp(_) | Received::Rtcp(_), Some(other)) = (received, &mut self.rtcp) {
            let sibling = if rtcp { &mut self.rtp } else { other };
            sibling.handle_sibling_media(now);
        }
        received
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
        self.rtp.is_handshaking() || self.rtcp.as_deref().is_some_and(Component::is_handshaking)
    }

    /// What is to be told; called until `None` after every other call.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        let up = self.rtp.is_up();
        if up != self.was_up {
            self.was_up = up;
            if up {
                return Some(LinkEvent::Up);
            }
        }
        let components = || {
            [Some(&self.rtp), self.rtcp.as_deref()]
                .into_iter()
                .flatten()
        };
        let lost = components().any(|component| component.consent_lost);
        if lost != self.told_consent {
            self.told_consent = lost;
            if lost {
                return Some(LinkEvent::ConsentLost);
            }
        }
        // Without RTCP there is no lip sync and no repair, but media: who leaves it out is let be.
        let left_out = |component: &Component| {
            component.socket != self.rtp.socket
                && component
                    .association
                    .as_deref()
                    .is_some_and(Association::is_late)
        };
        if !self.told_failed
            && let Some(reason) = components()
                .filter(|component| !left_out(component))
                .find_map(|component| component.failed.clone())
        {
            self.told_failed = true;
            return Some(LinkEvent::DtlsFailed(reason));
        }
        None
    }

    /// What RTP is sent with now; `None` where nothing can be sent.
    pub fn sending(&mut self) -> Option<Sending<'_>> {
        let (socket, remote) = self.rtp.path()?;
        let sealer = self.rtp.sealer.as_mut();
        (sealer.is_some() || !self.rtp.secured).then_some(Sending {
            socket,
            remote,
            order: self.order,
            sealer,
        })
    }

    /// Seals an RTP packet into the batch; `false` where it cannot be sent.
    pub fn send_rtp(&mut self, packet: RtpOut<'_>, batch: &mut Batch) -> bool {
        self.sending()
            .is_some_and(|mut sending| sending.rtp(packet, batch))
    }

    /// Seals a compound RTCP packet into the batch; `false` where it cannot be sent.
    pub fn send_rtcp(&mut self, compound: &[u8], batch: &mut Batch) -> bool {
        let order = self.order;
        let component = self.component(true);
        let Some((socket, remote)) = component.path() else {
            return false;
        };
        match (&mut component.sealer, component.secured) {
            (Some(sealer), _) => {
                let parts = [compound];
                batch.push_with(
                    socket,
                    order,
                    remote,
                    &parts,
                    MAX_OVERHEAD,
                    |buffer, len| sealer.seal_rtcp(buffer, len).ok(),
                )
            }
            (None, true) => false,
            (None, false) => {
                batch.push_with(socket, order, remote, &[compound], 0, |_, len| Some(len))
            }
        }
    }

    /// Says goodbye, so that a peer still there learns at once.
    pub fn close(&mut self, now: Instant, batch: &mut Batch) {
        for component in [Some(&mut self.rtp), self.rtcp.as_deref_mut()]
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
        let components = [Some(&self.rtp), self.rtcp.as_deref()];
        components
            .into_iter()
            .flatten()
            .flat_map(Component::validated)
    }

    /// When a validated pair was heard last; the pair from before an ICE restart counts as silent.
    #[must_use]
    pub fn heard(&self, pair: (SocketId, SocketAddr)) -> Option<Instant> {
        let rtcp = self.rtcp.as_deref();
        self.rtp.heard(pair).or_else(|| rtcp?.heard(pair))
    }

    /// Pairs no longer validated since the last call.
    pub fn take_forgotten(&mut self) -> impl Iterator<Item = (SocketId, SocketAddr)> + '_ {
        let components = [Some(&mut self.rtp), self.rtcp.as_deref_mut()];
        components
            .into_iter()
            .flatten()
            .flat_map(Component::take_forgotten)
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
