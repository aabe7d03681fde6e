//! A datagram's way in: whose it is, what it is, and what is forwarded because of it.

use std::net::SocketAddr;
use std::time::Instant;

use super::egress::Out;
use super::{HANDSHAKE_TICK, OWNED, Outlet, Owner, Worker};
use crate::link::{self, Link, Received};
use crate::meeting::Burst;
use crate::{SocketId, stun};

impl Worker {
    /// Handles one datagram; `bytes` is decrypted in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        remote: SocketAddr,
        bytes: &mut [u8],
    ) {
        let _ = self.handle(now, socket, remote, [bytes], None);
    }

    /// Handles datagrams that came together from one peer to one socket, in order; they are decrypted in place. What
    /// belongs together is forwarded together.
    pub fn handle_datagrams<'a>(
        &mut self,
        now: Instant,
        socket: SocketId,
        remote: SocketAddr,
        datagrams: impl IntoIterator<Item = &'a mut [u8]>,
        outlet: &mut dyn Outlet,
    ) -> Option<u32> {
        self.handle(now, socket, remote, datagrams, Some(outlet))
    }

    /// Which of the meetings a datagram of media is of, as a small number; `None` where it is of none, or no media.
    #[must_use]
    pub fn meeting_of(&self, socket: SocketId, remote: SocketAddr, bytes: &[u8]) -> Option<u32> {
        if !link::is_media(bytes) {
            return None;
        }
        let owner = self.sockets.get(&socket);
        let owner = owner.or_else(|| self.pairs.get(&(socket, remote)));
        owner.map(|owner| owner.meeting)
    }

    fn handle<'a>(
        &mut self,
        now: Instant,
        socket: SocketId,
        remote: SocketAddr,
        datagrams: impl IntoIterator<Item = &'a mut [u8]>,
        mut outlet: Option<&mut (dyn Outlet + '_)>,
    ) -> Option<u32> {
        let mut burst = Burst::default();
        let mut last: Option<Owner> = None;
        for bytes in datagrams {
            self.stats.received += 1;
            // Whose media was, its next packet is; anything else may be another's.
            let known = last.filter(|_| link::is_media(bytes));
            let Some(owner) = known.or_else(|| self.owner(now, socket, remote, bytes)) else {
                self.stats.strangers += 1;
                continue;
            };
            if last.is_some_and(|last| last.meeting != owner.meeting) {
                self.forward(now, last, &mut burst, outlet.as_deref_mut());
            }
            last = Some(owner);
            let outlet = outlet.as_deref_mut();
            self.take(now, owner, socket, remote, bytes, &mut burst, outlet);
        }
        self.forward(now, last, &mut burst, outlet);
        last.map(|owner| owner.meeting)
    }

    #[allow(clippy::too_many_arguments)] // a datagram's, and where it goes
    fn take<'a>(
        &mut self,
        now: Instant,
        owner: Owner,
        socket: SocketId,
        remote: SocketAddr,
        bytes: &'a mut [u8],
        burst: &mut Burst<'a>,
        outlet: Option<&mut (dyn Outlet + '_)>,
    ) {
        let Some(hosted) = self.meetings[owner.meeting as usize].as_mut() else {
            return;
        };
        let Some(link) = hosted.links.link(owner.leg, owner.transport) else {
            return;
        };
        let received =
            link.handle_datagram(owner.rtcp, socket, remote, bytes, now, &mut self.batch);
        let mut out = Out {
            links: &mut hosted.links,
            batch: &mut self.batch,
            unsendable: &mut self.stats.unsendable,
            outlet,
        };
        match received {
            Received::Rtp(len) => hosted.meeting.take_rtp(
                now,
                owner.leg,
                owner.transport,
                &bytes[..len],
                burst,
                &mut out,
                &mut hosted.renditions,
            ),
            Received::Rtcp(len) => {
                hosted
                    .meeting
                    .handle_rtcp(now, owner.leg, owner.transport, &bytes[..len], &mut out)
            }
            Received::Handled => self.on_handled(owner, socket, remote, now),
            Received::Stranger => self.stats.strangers += 1,
            Received::Bad(_) => self.stats.bad += 1,
        }
    }

    /// Forwards what has gathered of one meeting, and passes on what it tells.
    fn forward(
        &mut self,
        now: Instant,
        owner: Option<Owner>,
        burst: &mut Burst<'_>,
        outlet: Option<&mut (dyn Outlet + '_)>,
    ) {
        let Some(owner) = owner else { return };
        if let Some(hosted) = self.meetings[owner.meeting as usize].as_mut() {
            let mut out = Out {
                links: &mut hosted.links,
                batch: &mut self.batch,
                unsendable: &mut self.stats.unsendable,
                outlet,
            };
            hosted.meeting.forward(now, burst, &mut out);
        }
        self.collect_events(owner.meeting);
        self.schedule(owner.meeting);
    }

    fn owner(
        &self,
        now: Instant,
        socket: SocketId,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Option<Owner> {
        if let Some(owner) = self.sockets.get(&socket) {
            return Some(*owner);
        }
        // On ports without ICE, checks are strangers'.
        if stun::is_stun(bytes) && !self.pool.has(socket) {
            let name = stun::username(bytes)?;
            let ufrag = name.split(|byte| *byte == b':').next()?;
            let owner = self.ufrags.get(std::str::from_utf8(ufrag).ok()?).copied()?;
            // A pair has one owner as long as that one is heard: else a participant who forges another's
            // address would take that one's packets.
            let pair = (socket, remote);
            let lives = |holder: &Owner| {
                let link = self.link(holder);
                let heard = link.and_then(|link| link.heard(pair));
                heard.is_some_and(|at| now.saturating_duration_since(at) < OWNED)
            };
            let held = self.pairs.get(&pair);
            let free = held.is_none_or(|holder| *holder == owner || !lives(holder));
            return free.then_some(owner);
        }
        self.pairs.get(&(socket, remote)).copied()
    }

    fn link(&self, owner: &Owner) -> Option<&Link> {
        let hosted = self.meetings[owner.meeting as usize].as_ref()?;
        hosted.links.peek(owner.leg, owner.transport)
    }

    /// STUN or DTLS was dealt with: the pair may be new, or the link may be up or have failed.
    fn on_handled(&mut self, owner: Owner, socket: SocketId, remote: SocketAddr, now: Instant) {
        let Some(hosted) = self.meetings[owner.meeting as usize].as_mut() else {
            return;
        };
        let Some(link) = hosted.links.link(owner.leg, owner.transport) else {
            return;
        };
        if link.is_handshaking() {
            hosted.link_due = hosted.link_due.min(now + HANDSHAKE_TICK);
        }
        if link.spec().is_shared() {
            for pair in link.take_forgotten() {
                if self.pairs.get(&pair) == Some(&owner) {
                    self.pairs.remove(&pair);
                }
            }
            if link.validated().any(|pair| pair == (socket, remote)) {
                self.pairs.insert((socket, remote), owner);
            }
        }
        hosted.settle_link(
            owner.leg,
            owner.transport,
            now,
            &mut self.batch,
            &mut self.stats,
        );
    }
}
