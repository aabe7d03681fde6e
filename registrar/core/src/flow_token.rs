//! Flow tokens (RFC 5626 §5.2): names of a client's connection that only registrars of this cluster can make.
//!
//! A token stands in the user part of a Record-Route or edge URI. It is an HMAC over what it says: node, its
//! generation (random at each start), connection, and for datagrams the addresses, so that a UDP client can still be
//! reached after a restart. Holding one proves that a registrar let the dialog through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use sip::{FlowId, Hop, Transport};
use subtle::ConstantTimeEq;

/// Bytes of the HMAC kept: 80 bits, as Outbound's example does; shortening it makes forging easier.
const MAC_LEN: usize = 10;

/// Stands for no connection in particular.
const NO_FLOW: u64 = u64::MAX;

/// What a token was made for; one kind is not good as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Kept in a binding: whoever has it may send requests outside dialogs on the flow.
    Edge,
    /// In a Record-Route: seen by the peers of a dialog.
    RecordRoute,
    /// In a Record-Route, towards a host that is neither a client nor of the cluster: the dialog was let through to
    /// there, and its later requests may go there too.
    Outside,
}

impl TokenKind {
    fn code(self) -> u8 {
        match self {
            Self::Edge => b'e',
            Self::RecordRoute => b'r',
            Self::Outside => b'o',
        }
    }
}

/// The connection a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenFlow {
    /// Connection of that node; `None`: any to `remote`.
    pub flow: Option<FlowId>,
    /// Transport.
    pub transport: Transport,
    /// The client.
    pub remote: SocketAddr,
    /// The node's own end.
    pub local: Option<SocketAddr>,
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowToken {
    /// Made for.
    pub kind: TokenKind,
    /// Short hash of the node's name.
    pub node: [u8; 4],
    /// The node's generation.
    pub generation: u32,
    /// `None`: the side without a client's flow.
    pub flow: Option<TokenFlow>,
    /// Of an [`TokenKind::Outside`] one: where to.
    pub outside: Option<TokenHost>,
}

/// The host outside that a dialog was let through to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHost {
    /// One of its addresses.
    pub address: IpAddr,
    name: [u8; 8],
}

impl TokenHost {
    /// Whether `name` is the host that the next request of the dialog was expected to go to.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name_hash(name)
    }
}

fn name_hash(name: &str) -> [u8; 8] {
    let hash = Sha256::digest(name.trim_end_matches('.').to_ascii_lowercase());
    std::array::from_fn(|i| hash[i])
}

/// Makes and opens tokens.
#[derive(Clone)]
pub struct TokenMint {
    key: [u8; 32],
    node: [u8; 4],
    generation: u32,
}

impl std::fmt::Debug for TokenMint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenMint({:x?}, {})", self.node, self.generation)
    }
}

impl TokenMint {
    /// `key` is the cluster's; `generation` is random at each start of `node`.
    #[must_use]
    pub fn new(key: [u8; 32], node: &str, generation: u32) -> Self {
        let hash = Sha256::digest(node.as_bytes());
        Self {
            key,
            node: [hash[0], hash[1], hash[2], hash[3]],
            generation,
        }
    }

    /// A token of any kind but [`TokenKind::Outside`], for the flow of `hop`, or for no flow.
    #[must_use]
    pub fn mint(&self, kind: TokenKind, hop: Option<&Hop>) -> String {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(kind.code());
        bytes.extend_from_slice(&self.node);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        if let Some(hop) = hop {
            bytes.extend_from_slice(&hop.flow.map_or(NO_FLOW, |f| f.0).to_be_bytes());
            bytes.push(transport_code(hop.transport));
            push_address(&mut bytes, hop.remote);
            if let Some(local) = hop.local {
                push_address(&mut bytes, local);
            }
        }
        self.sealed(bytes)
    }

    /// A token for the side of a host outside: at `address`, and by `name` where later requests name it so.
    #[must_use]
    pub fn mint_outside(&self, address: SocketAddr, name: &str) -> String {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(TokenKind::Outside.code());
        bytes.extend_from_slice(&self.node);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        push_address(&mut bytes, address);
        bytes.extend_from_slice(&name_hash(name));
        self.sealed(bytes)
    }

    fn sealed(&self, mut bytes: Vec<u8>) -> String {
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Opens a token of any registrar of the cluster; `None` where it is none.
    #[must_use]
    pub fn open(&self, user: &str) -> Option<FlowToken> {
        // 19 bytes: the shortest token; 75: two IPv6 addresses.
        if !(26..=100).contains(&user.len()) {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(user).ok()?;
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LEN)?)?;
        if !bool::from(self.mac(body).ct_eq(mac)) {
            return None;
        }
        decode(body)
    }

    /// Whether this node made it, in this or an earlier life.
    #[must_use]
    pub fn is_own_node(&self, token: &FlowToken) -> bool {
        token.node == self.node
    }

    /// Whether this node made it in this life.
    #[must_use]
    pub fn is_current(&self, token: &FlowToken) -> bool {
        token.node == self.node && token.generation == self.generation
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC_LEN] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(b"flow token\0");
        mac.update(bytes);
        let full = mac.finalize().into_bytes();
        std::array::from_fn(|i| full[i])
    }
}

fn transport_code(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::Ws => 3,
        Transport::Wss => 4,
    }
}

fn push_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
    bytes.extend_from_slice(&address.port().to_be_bytes());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

fn take_address(bytes: &mut &[u8]) -> Option<SocketAddr> {
    let ip = match take::<1>(bytes)?[0] {
        4 => IpAddr::V4(Ipv4Addr::from(take::<4>(bytes)?)),
        6 => IpAddr::V6(Ipv6Addr::from(take::<16>(bytes)?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(take::<2>(bytes)?)))
}

fn decode(mut body: &[u8]) -> Option<FlowToken> {
    let bytes = &mut body;
    let kind = match take::<1>(bytes)?[0] {
        b'e' => TokenKind::Edge,
        b'r' => TokenKind::RecordRoute,
        b'o' => TokenKind::Outside,
        _ => return None,
    };
    let node = take::<4>(bytes)?;
    let generation = u32::from_be_bytes(take::<4>(bytes)?);
    let mut outside = None;
    let flow = if kind == TokenKind::Outside {
        outside = Some(TokenHost {
            address: take_address(bytes)?.ip(),
            name: take::<8>(bytes)?,
        });
        None
    } else if bytes.is_empty() {
        None
    } else {
        let number = u64::from_be_bytes(take::<8>(bytes)?);
        let transport = match take::<1>(bytes)?[0] {
            0 => Transport::Udp,
            1 => Transport::Tcp,
            2 => Transport::Tls,
            3 => Transport::Ws,
            4 => Transport::Wss,
            _ => return None,
        };
        let remote = take_address(bytes)?;
        let local = if bytes.is_empty() {
            None
        } else {
            Some(take_address(bytes)?)
        };
        Some(TokenFlow {
            flow: (number != NO_FLOW).then_some(FlowId(number)),
            transport,
            remote,
            local,
        })
    };
    Some(FlowToken {
        kind,
        node,
        generation,
        flow,
        outside,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop() -> Hop {
        Hop {
            transport: Transport::Wss,
            remote: "[2001:db8::7]:40000".parse().expect("address"),
            local: Some("192.0.2.1:443".parse().expect("address")),
            flow: Some(FlowId(0x1122_3344_5566)),
        }
    }

    #[test]
    fn token_opens_to_what_it_was_made_for() {
        let mint = TokenMint::new([1; 32], "edge-1", 9);
        let token = mint
            .open(&mint.mint(TokenKind::RecordRoute, Some(&hop())))
            .expect("ours");
        let flow = token.flow.expect("names a flow");
        assert_eq!(flow.flow, Some(FlowId(0x1122_3344_5566)));
        assert_eq!(flow.remote, hop().remote);
        assert_eq!(flow.local, hop().local);
        assert!(mint.is_current(&token));
        let empty = mint.open(&mint.mint(TokenKind::Edge, None)).expect("ours");
        assert_eq!(empty.flow, None);
        assert_eq!(empty.kind, TokenKind::Edge);
    }

    #[test]
    fn token_for_outside_tells_its_host() {
        let mint = TokenMint::new([1; 32], "edge-1", 9);
        let address: SocketAddr = "[2001:db8::7]:5060".parse().expect("address");
        let token = mint
            .open(&mint.mint_outside(address, "GW.example"))
            .expect("ours");
        assert_eq!((token.kind, token.flow), (TokenKind::Outside, None));
        let host = token.outside.expect("a host");
        assert_eq!(host.address, address.ip());
        assert!(host.is_named("gw.example") && !host.is_named("other.example"));
    }

    #[test]
    fn token_with_any_bit_changed_is_refused() {
        let mint = TokenMint::new([1; 32], "edge-1", 9);
        let token = mint.mint(TokenKind::Edge, Some(&hop()));
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64");
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(mint.open(&URL_SAFE_NO_PAD.encode(forged)), None);
        }
        assert_eq!(mint.open("alice"), None);
        assert_eq!(TokenMint::new([2; 32], "edge-1", 9).open(&token), None);
    }

    #[test]
    fn another_node_of_the_cluster_opens_it_and_knows_it_is_not_its_own() {
        let token = TokenMint::new([1; 32], "edge-1", 9).mint(TokenKind::Edge, Some(&hop()));
        let other = TokenMint::new([1; 32], "edge-2", 9);
        let token = other.open(&token).expect("same key");
        assert!(!other.is_own_node(&token));
    }
}
