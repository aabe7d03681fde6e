//! Ports of legs without ICE.
//!
//! Legs whose peers have said where they are share ports, told apart by the peer's address: what goes to many of them
//! then leaves through one socket, and so in one system call. A peer behind NAT is still to be found by what it sends:
//! it needs a port of its own; and so does a second stream of a leg (RFC 8843 §1: without BUNDLE no two m-lines have the
//! same port), or one at an address that somebody else has named too.

use std::collections::HashSet;
use std::net::SocketAddr;

use smallvec::SmallVec;

use super::transports::{PlainPorts, Ports};
use crate::SocketId;
use crate::link::{Link, LinkError, Spec};

/// Where a plain peer sends from, by the socket it sends to: RTP and RTCP.
type Claims = SmallVec<[(SocketId, SocketAddr); 2]>;

struct Shared {
    ports: PlainPorts,
    ipv6: bool,
    users: usize,
}

/// The shared ones among a worker's plain ports.
#[derive(Default)]
pub(super) struct PlainPool {
    open: Vec<Shared>,
    claims: HashSet<(SocketId, SocketAddr)>,
}

fn claims(spec: &Spec, rtp: SocketId, rtcp: Option<SocketId>) -> Claims {
    let (remote, remote_rtcp) = spec.remotes();
    let rtp = remote.map(|remote| (rtp, remote));
    let rtcp = rtcp.zip(remote_rtcp);
    rtp.into_iter().chain(rtcp).collect()
}

impl PlainPool {
    /// Whether this is one of its sockets.
    pub(super) fn has(&self, socket: SocketId) -> bool {
        self.open
            .iter()
            .any(|s| s.ports.rtp == socket || s.ports.rtcp == Some(socket))
    }

    /// Ports for a transport of a leg, but none of those it uses already; whether they are shared.
    ///
    /// # Errors
    /// The family is not served, or no port is free.
    pub(super) fn take(
        &mut self,
        spec: &Spec,
        used: &[SocketId],
        ports: &mut dyn Ports,
    ) -> Result<(PlainPorts, bool), LinkError> {
        let advertised = ports
            .advertised(spec.ipv6, spec.peer())
            .ok_or(LinkError::Family { ipv6: spec.ipv6 })?;
        let shares = spec.shares_port();
        if shares {
            let found = self.open.iter_mut().find(|shared| {
                let PlainPorts { rtp, rtcp, .. } = shared.ports;
                shared.ports.advertised == advertised
                    && shared.ipv6 == spec.ipv6
                    && (spec.rtcp_mux || rtcp.is_some())
                    && !used.contains(&rtp)
                    && !claims(spec, rtp, rtcp)
                        .iter()
                        .any(|c| self.claims.contains(c))
            });
            if let Some(shared) = found {
                shared.users += 1;
                let ports = PlainPorts {
                    rtcp: shared.ports.rtcp.filter(|_| !spec.rtcp_mux),
                    ..shared.ports
                };
                self.claims.extend(claims(spec, ports.rtp, ports.rtcp));
                return Ok((ports, true));
            }
        }
        let opened = ports
            .open(spec.ipv6, spec.peer(), !spec.rtcp_mux)
            .ok_or(LinkError::NoPort)?;
        if shares {
            self.claims.extend(claims(spec, opened.rtp, opened.rtcp));
            self.open.push(Shared {
                ports: opened,
                ipv6: spec.ipv6,
                users: 1,
            });
        }
        Ok((opened, shares))
    }

    /// Whether a link on shared ports can stay there when it shall become `spec`.
    pub(super) fn keeps(&self, link: &Link, spec: &Spec, ports: &dyn Ports) -> bool {
        let (rtp, rtcp) = link.sockets();
        let before = claims(link.spec(), rtp, rtcp);
        let after = claims(spec, rtp, rtcp);
        let free = |claim| before.contains(claim) || !self.claims.contains(claim);
        let advertised = self.open.iter().find(|shared| shared.ports.rtp == rtp);
        let same_card = spec.peer().is_none_or(|peer| {
            ports.advertised(spec.ipv6, Some(peer)) == advertised.map(|s| s.ports.advertised)
        });
        // On hold by 0.0.0.0 nothing comes and nothing goes, until there is an address again.
        (spec.shares_port() || spec.peer().is_none()) && same_card && after.iter().all(free)
    }

    /// A link on shared ports, whose description was `before`, goes on with them as it is described now.
    pub(super) fn changed(&mut self, before: &Spec, rtcp: Option<SocketId>, link: &Link) {
        let (rtp, rtcp_now) = link.sockets();
        for claim in claims(before, rtp, rtcp) {
            self.claims.remove(&claim);
        }
        self.claims.extend(claims(link.spec(), rtp, rtcp_now));
    }

    /// A link gives up its shared ports; they are closed with the last.
    pub(super) fn release(&mut self, link: &Link, ports: &mut dyn Ports) {
        let (rtp, rtcp) = link.sockets();
        self.give_back(link.spec(), rtp, rtcp, ports);
    }

    /// As [`PlainPool::release`], for ports no link was made on.
    pub(super) fn give_back(
        &mut self,
        spec: &Spec,
        rtp: SocketId,
        rtcp: Option<SocketId>,
        ports: &mut dyn Ports,
    ) {
        for claim in claims(spec, rtp, rtcp) {
            self.claims.remove(&claim);
        }
        let Some(at) = self.open.iter().position(|s| s.ports.rtp == rtp) else {
            return;
        };
        self.open[at].users -= 1;
        if self.open[at].users == 0 {
            let PlainPorts { rtp, rtcp, .. } = self.open.swap_remove(at).ports;
            for socket in [Some(rtp), rtcp].into_iter().flatten() {
                ports.close(socket);
            }
        }
    }
}
