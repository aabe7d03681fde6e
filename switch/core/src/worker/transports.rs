//! The transports of a meeting's legs: made, changed in place, and freed with their ports.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use smallvec::SmallVec;

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
    /// Whether plain legs of a family can be served at all.
    fn has_family(&self, ipv6: bool) -> bool;
    /// Opens a port, or two, of the plain range, on the card that leads to `peer` where that is known; `None` when
    /// there is none left.
    fn open(&mut self, ipv6: bool, peer: Option<IpAddr>, with_rtcp: bool) -> Option<PlainPorts>;
    /// Gives a socket of [`Ports::open`] back.
    fn close(&mut self, socket: SocketId);
}

pub(super) struct Transport {
    pub(super) index: TransportIndex,
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

pub(super) fn make(
    spec: Spec,
    identity: &Identity,
    ports: &mut dyn Ports,
) -> Result<Transport, LinkError> {
    let index = TransportIndex(spec.index);
    if spec.is_shared() {
        let sockets = ports.webrtc();
        let first = sockets.first().ok_or(LinkError::NoPort)?.0;
        return Ok(Transport {
            index,
            link: Link::new(spec, first, None, identity)?,
            addresses: sockets.into_iter().flat_map(|(_, a)| a).collect(),
            rtcp_port: 0,
        });
    }
    if !ports.has_family(spec.ipv6) {
        return Err(LinkError::Family { ipv6: spec.ipv6 });
    }
    let opened = ports
        .open(spec.ipv6, spec.peer(), !spec.rtcp_mux)
        .ok_or(LinkError::NoPort)?;
    let link = Link::new(spec, opened.rtp, opened.rtcp, identity).inspect_err(|_| {
        for socket in [Some(opened.rtp), opened.rtcp].into_iter().flatten() {
            ports.close(socket);
        }
    })?;
    Ok(Transport {
        index,
        link,
        addresses: vec![SocketAddr::new(opened.advertised, opened.rtp_port)],
        rtcp_port: opened.rtcp_port,
    })
}

/// Brings a leg's transports to what is wanted: kept ones in place, new ones made, others freed.
pub(super) fn change(
    transports: &mut Made,
    specs: Vec<Spec>,
    identity: &Identity,
    now: Instant,
    batch: &mut Batch,
    ports: &mut dyn Ports,
) -> Result<(), LinkError> {
    // What may fail comes first, so that a refusal leaves the leg as it was.
    let mut fresh = Made::new();
    for spec in &specs {
        let kept = transports
            .iter()
            .any(|t| t.index.0 == spec.index && t.link.spec().keeps_ports(spec));
        if !kept {
            match make(spec.clone(), identity, ports) {
                Ok(transport) => fresh.push(transport),
                Err(error) => {
                    release(&fresh, ports);
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
    release(&gone, ports);
    for spec in specs {
        let index = TransportIndex(spec.index);
        let Some(transport) = transports.iter_mut().find(|t| t.index == index) else {
            continue;
        };
        if spec.rtcp_mux
            && let Some(socket) = transport.link.drop_rtcp()
        {
            transport.rtcp_port = 0;
            ports.close(socket);
        }
        transport.link.update(spec, identity)?;
        transport.link.start(now, batch);
    }
    for mut transport in fresh {
        transport.link.start(now, batch);
        transports.push(transport);
    }
    transports.sort_by_key(|transport| transport.index);
    Ok(())
}

/// Gives back the ports that are a leg's own.
pub(super) fn release(transports: &[Transport], ports: &mut dyn Ports) {
    for transport in transports {
        if transport.link.spec().is_shared() {
            continue;
        }
        let (rtp, rtcp) = transport.link.sockets();
        for socket in [Some(rtp), rtcp].into_iter().flatten() {
            ports.close(socket);
        }
    }
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
