//! The transports of a meeting's legs: made, changed in place, and freed with their ports.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use smallvec::SmallVec;

use super::plain::PlainPool;
use crate::dtls::Identity;
use crate::link::{Link, LinkError, Spec};
use crate::{Batch, LegKey, SocketId, TransportIndex};

/// Ports of a plain leg, as the shell opened them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainPorts {
    /// Socket for RTP.
    pub rtp: SocketId,
    /// Socket for RTCP, where asked for.
    pub rtcp: Option<SocketId>,
    /// What the peer is told to send to.
    pub advertised: IpAddr,
    /// Port of `rtp`.
    pub rtp_port: u16,
    /// Port of `rtcp`; 0 without.
    pub rtcp_port: u16,
}

/// The shell's sockets, as a worker asks for them. Called while the owner's request is applied only.
pub trait Ports {
    /// The shared sockets for ICE legs and the addresses peers reach each at, best first.
    fn webrtc(&self) -> Vec<(SocketId, Vec<SocketAddr>)>;
    /// What a peer without ICE would be told to send to: the card that leads to it where it is known; `None` where the
    /// family is not served at all.
    fn advertised(&self, ipv6: bool, peer: Option<IpAddr>) -> Option<IpAddr>;
    /// Opens a port, or two, of the plain range, on that card; `None` when there is none left.
    fn open(&mut self, ipv6: bool, peer: Option<IpAddr>, with_rtcp: bool) -> Option<PlainPorts>;
    /// Gives a socket of [`Ports::open`] back.
    fn close(&mut self, socket: SocketId);
}

/// Whose ports a transport is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortUse {
    /// The worker's, for all legs with ICE.
    Ice,
    /// Shared with other peers whose address is known.
    Shared,
    /// Its own.
    Own,
}

pub(super) struct Transport {
    pub(super) index: TransportIndex,
    pub(super) port_use: PortUse,
    pub(super) link: Link,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) rtcp_port: u16,
}

pub(super) struct LegLinks {
    pub(super) id: String,
    pub(super) key: LegKey,
    pub(super) transports: SmallVec<[Transport; 1]>,
}

/// The links of a meeting, by [`LegKey::index`].
#[derive(Default)]
pub(super) struct Links {
    pub(super) legs: Vec<Option<LegLinks>>,
}

impl Links {
    pub(super) fn get(&mut self, key: LegKey) -> Option<&mut LegLinks> {
        self.legs
            .get_mut(key.index())?
            .as_mut()
            .filter(|leg| leg.key == key)
    }

    pub(super) fn peek(&self, key: LegKey, index: TransportIndex) -> Option<&Link> {
        let leg = self.legs.get(key.index())?.as_ref()?;
        let mut transports = leg.transports.iter().filter(|_| leg.key == key);
        Some(&transports.find(|t| t.index == index)?.link)
    }

    pub(super) fn link(&mut self, key: LegKey, index: TransportIndex) -> Option<&mut Link> {
        let leg = self.get(key)?;
        let transport = leg.transports.iter_mut().find(|t| t.index == index)?;
        Some(&mut transport.link)
    }
}

/// Transports of one leg of a request, made but not yet given to a meeting.
pub(super) type Made = SmallVec<[Transport; 1]>;

/// What transports are made and freed with.
pub(super) struct Maker<'a> {
    pub(super) identity: &'a Identity,
    pub(super) pool: &'a mut PlainPool,
    /// Links made so far.
    pub(super) links: &'a mut u32,
    pub(super) ports: &'a mut dyn Ports,
}

impl Maker<'_> {
    /// Makes a transport of a leg whose other transports use these RTP sockets.
    pub(super) fn make(&mut self, spec: Spec, used: &[SocketId]) -> Result<Transport, LinkError> {
        let index = TransportIndex(spec.index);
        // Below the order of what belongs to no link.
        *self.links = self.links.wrapping_add(1) % u32::MAX;
        let order = *self.links;
        if spec.is_shared() {
            let sockets = self.ports.webrtc();
            let first = sockets.first().ok_or(LinkError::NoPort)?.0;
            return Ok(Transport {
                index,
                port_use: PortUse::Ice,
                link: Link::new(spec, first, None, self.identity)?.ordered(order),
                addresses: sockets.into_iter().flat_map(|(_, a)| a).collect(),
                rtcp_port: 0,
            });
        }
        let (opened, shared) = self.pool.take(&spec, used, self.ports)?;
        let link = match Link::new(spec.clone(), opened.rtp, opened.rtcp, self.identity) {
            Ok(link) => link.ordered(order),
            Err(error) => {
                if shared {
                    self.pool
                        .give_back(&spec, opened.rtp, opened.rtcp, self.ports);
                } else {
                    close(opened.rtp, opened.rtcp, self.ports);
                }
                return Err(error);
            }
        };
        Ok(Transport {
            index,
            port_use: if shared {
                PortUse::Shared
            } else {
                PortUse::Own
            },
            link,
            addresses: vec![SocketAddr::new(opened.advertised, opened.rtp_port)],
            rtcp_port: opened.rtcp.map_or(0, |_| opened.rtcp_port),
        })
    }

    /// Gives back the ports of transports that are no more.
    pub(super) fn release(&mut self, transports: &[Transport]) {
        for transport in transports {
            match transport.port_use {
                PortUse::Ice => {}
                PortUse::Shared => self.pool.release(&transport.link, self.ports),
                PortUse::Own => {
                    let (rtp, rtcp) = transport.link.sockets();
                    close(rtp, rtcp, self.ports);
                }
            }
        }
    }

    fn keeps(&self, transport: &Transport, spec: &Spec) -> bool {
        transport.index.0 == spec.index
            && transport.link.spec().keeps_ports(spec)
            && (transport.port_use != PortUse::Shared
                || self.pool.keeps(&transport.link, spec, self.ports))
    }
}

/// The RTP sockets of a leg's transports.
pub(super) fn sockets<'a>(
    transports: impl IntoIterator<Item = &'a Transport>,
) -> SmallVec<[SocketId; 4]> {
    let of = |transport: &Transport| transport.link.sockets().0;
    transports.into_iter().map(of).collect()
}

fn close(rtp: SocketId, rtcp: Option<SocketId>, ports: &mut dyn Ports) {
    for socket in [Some(rtp), rtcp].into_iter().flatten() {
        ports.close(socket);
    }
}

/// Brings a leg's transports to what is wanted: kept ones in place, new ones made, others freed.
pub(super) fn change(
    transports: &mut Made,
    specs: Vec<Spec>,
    now: Instant,
    batch: &mut Batch,
    maker: &mut Maker<'_>,
) -> Result<(), LinkError> {
    // What may fail comes first, so that a refusal leaves the leg as it was.
    let mut fresh = Made::new();
    for spec in &specs {
        if !transports.iter().any(|t| maker.keeps(t, spec)) {
            // On none of the leg's ports: those of another m-line, or those it gives up.
            let used: SmallVec<[SocketId; 4]> = sockets(transports.iter().chain(&fresh));
            match maker.make(spec.clone(), &used) {
                Ok(transport) => fresh.push(transport),
                Err(error) => {
                    maker.release(&fresh);
                    return Err(error);
                }
            }
        }
    }
    let wanted = |index: TransportIndex| specs.iter().any(|spec| spec.index == index.0);
    let mut gone = Made::new();
    for at in (0..transports.len()).rev() {
        let index = transports[at].index;
        if !wanted(index) || fresh.iter().any(|t| t.index == index) {
            gone.push(transports.remove(at));
        }
    }
    for transport in &mut gone {
        transport.link.close(now, batch);
    }
    maker.release(&gone);
    for spec in specs {
        let index = TransportIndex(spec.index);
        let Some(transport) = transports.iter_mut().find(|t| t.index == index) else {
            continue;
        };
        let before = transport.link.spec().clone();
        let rtcp = transport.link.sockets().1;
        if spec.rtcp_mux
            && let Some(socket) = transport.link.drop_rtcp()
        {
            transport.rtcp_port = 0;
            if transport.port_use == PortUse::Own {
                maker.ports.close(socket);
            }
        }
        let updated = transport.link.update(spec, maker.identity);
        if transport.port_use == PortUse::Shared {
            maker.pool.changed(&before, rtcp, &transport.link);
        }
        updated?;
        transport.link.start(now, batch);
    }
    for mut transport in fresh {
        transport.link.start(now, batch);
        transports.push(transport);
    }
    transports.sort_by_key(|transport| transport.index);
    Ok(())
}

pub(super) fn local_transport(transport: &Transport) -> control::LocalTransport {
    control::LocalTransport {
        index: transport.index.0,
        addresses: transport
            .addresses
            .iter()
            .map(|address| control::Address {
                ip: address.ip().to_string(),
                port: u32::from(address.port()),
            })
            .collect(),
        rtcp_port: u32::from(transport.rtcp_port),
    }
}
