//! The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): who a balanced connection is really from.
//!
//! Believed from configured balancers only, and required from those: a balancer that stops sending it would
//! otherwise make all clients look like one.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// First twelve bytes of a version 2 header.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest version 1 line with its CRLF.
const V1_MAX: usize = 107;
/// Longest version 2 address block with TLVs that is read; more is refused.
const V2_MAX: usize = 2_048;

/// Why a header was not accepted; the connection must be closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It broke off.
    #[error("connection ended inside the PROXY header: {0}")]
    Io(#[from] io::Error),
    /// None came, or what came is not one.
    #[error("no valid PROXY header: {0}")]
    Malformed(&'static str),
}

/// Whether `peer` is one of the balancers.
#[must_use]
pub fn is_balancer(peer: IpAddr, balancers: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    balancers.iter().any(|net| net.contains(&peer))
}

/// Reads exactly the header at the start of a connection, and nothing beyond it. `Ok(None)`: the balancer
/// itself speaks (health check: `LOCAL`, `UNKNOWN`), or the family is not an internet one.
///
/// The caller bounds the time.
///
/// # Errors
/// [`ProxyError`]: the connection must be closed.
pub async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    // Both versions are at least as long as the signature of the second ("PROXY UNKNOWN\r\n" is 15).
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start == V2_SIGNATURE {
        read_v2(stream).await
    } else if start.starts_with(b"PROXY ") {
        read_v1(stream, &start).await
    } else {
        Err(ProxyError::Malformed("connection does not start with one"))
    }
}

/// Reads the header at the start of `bytes`, as [`read_header`] does: the source, and how long the header is.
///
/// # Errors
/// [`ProxyError::Malformed`]: there is none, or not the whole of it.
pub fn parse_header(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), ProxyError> {
    let bad = ProxyError::Malformed;
    if let Some(rest) = bytes.strip_prefix(&V2_SIGNATURE) {
        let (head, rest) = rest.split_first_chunk().ok_or(bad("too short"))?;
        let length = v2_length(*head)?;
        let block = rest.get(..length).ok_or(bad("too short"))?;
        let source = parse_v2(head[0], head[1], block)?;
        return Ok((source, V2_SIGNATURE.len() + head.len() + length));
    }
    if !bytes.starts_with(b"PROXY ") {
        return Err(bad("connection does not start with one"));
    }
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let end = line
        .iter()
        .position(|b| *b == b'\n')
        .ok_or(bad("version 1 line too long"))?;
    let line = line[..end].strip_suffix(b"\r").ok_or(bad("bare LF"))?;
    Ok((parse_v1(line)?, end + 1))
}

/// For the HTTP server: the real source of an accepted connection, which is `peer` unless that is a balancer.
///
/// The caller bounds the time.
///
/// # Errors
/// [`ProxyError`]: the connection must be closed.
pub async fn real_source(
    stream: &mut TcpStream,
    peer: SocketAddr,
    balancers: &[IpNet],
) -> Result<SocketAddr, ProxyError> {
    if !is_balancer(peer.ip(), balancers) {
        return Ok(peer);
    }
    Ok(read_header(stream).await?.unwrap_or(peer))
}

/// Writes a version 1 header, as a balancer does: for tests and load tools.
///
/// # Errors
/// Those of the stream.
pub async fn write_v1(
    stream: &mut TcpStream,
    source: SocketAddr,
    destination: SocketAddr,
) -> io::Result<()> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!(
        "PROXY {family} {from} {to} {} {}\r\n",
        source.port(),
        destination.port()
    );
    stream.write_all(line.as_bytes()).await
}

async fn read_v1(stream: &mut TcpStream, start: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let mut line = start.to_vec();
    // Peeked first, so that nothing beyond the line is taken; what was peeked without an end is consumed,
    // so that the next peek waits for more.
    while !line.ends_with(b"\r\n") {
        let mut ahead = [0; V1_MAX];
        let room = V1_MAX.saturating_sub(line.len());
        if room == 0 {
            return Err(ProxyError::Malformed("version 1 line too long"));
        }
        let n = stream.peek(&mut ahead[..room]).await?;
        if n == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let take = ahead[..n]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(n, |at| at + 1);
        stream.read_exact(&mut ahead[..take]).await?;
        line.extend_from_slice(&ahead[..take]);
        if line.ends_with(b"\n") && !line.ends_with(b"\r\n") {
            return Err(ProxyError::Malformed("bare LF"));
        }
    }
    parse_v1(&line[..line.len() - 2])
}

fn parse_v1(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let bad = ProxyError::Malformed;
    let line = std::str::from_utf8(line).map_err(|_| bad("not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut next = || words.next().ok_or(bad("too few fields"));
    let (source, destination, port, to_port) = (next()?, next()?, next()?, next()?);
    let source: IpAddr = source.parse().map_err(|_| bad("bad source address"))?;
    let destination: IpAddr = destination
        .parse()
        .map_err(|_| bad("bad destination address"))?;
    let port: u16 = port.parse().map_err(|_| bad("bad source port"))?;
    to_port
        .parse::<u16>()
        .map_err(|_| bad("bad destination port"))?;
    if words.next().is_some() {
        return Err(bad("too many fields"));
    }
    match (family, source, destination) {
        ("TCP4", IpAddr::V4(_), IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_), IpAddr::V6(_)) => {
            Ok(Some(SocketAddr::new(source, port)))
        }
        _ => Err(bad("family and addresses differ")),
    }
}

async fn read_v2(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut block = vec![0; v2_length(head)?];
    stream.read_exact(&mut block).await?;
    parse_v2(head[0], head[1], &block)
}

/// Length of the block behind version, command, family and length itself.
fn v2_length(head: [u8; 4]) -> Result<usize, ProxyError> {
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > V2_MAX {
        return Err(ProxyError::Malformed("version 2 header too long"));
    }
    Ok(length)
}

fn parse_v2(
    version_command: u8,
    family: u8,
    block: &[u8],
) -> Result<Option<SocketAddr>, ProxyError> {
    match version_command {
        // LOCAL: the balancer's own health check; addresses are to be ignored.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyError::Malformed("unknown version or command")),
    }
    let short = ProxyError::Malformed("address block too short");
    match family {
        // TCP over IPv4: source, destination, source port, destination port.
        0x11 => match block {
            [a, b, c, d, _, _, _, _, hi, lo, _, _, ..] => {
                let ip = IpAddr::from([*a, *b, *c, *d]);
                Ok(Some(SocketAddr::new(ip, u16::from_be_bytes([*hi, *lo]))))
            }
            _ => Err(short),
        },
        // TCP over IPv6.
        0x21 => {
            let (Some(ip), Some(port), true) = (
                block.first_chunk::<16>(),
                block.get(32..34),
                block.len() >= 36,
            ) else {
                return Err(short);
            };
            let ip = IpAddr::from(Ipv6Addr::from(*ip));
            Ok(Some(SocketAddr::new(
                ip,
                u16::from_be_bytes([port[0], port[1]]),
            )))
        }
        // UNSPEC, UNIX sockets: accepted, with nothing to learn.
        0x00 | 0x31 | 0x32 => Ok(None),
        _ => Err(ProxyError::Malformed("address family is not a stream's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_lines_are_read_or_refused() {
        let ok = |l: &str| parse_v1(l.as_bytes()).unwrap().map(|a| a.to_string());
        assert_eq!(
            ok("PROXY TCP4 192.0.2.7 192.0.2.1 4711 5060").as_deref(),
            Some("192.0.2.7:4711")
        );
        assert_eq!(
            ok("PROXY TCP6 2001:db8::7 2001:db8::1 4711 5060").as_deref(),
            Some("[2001:db8::7]:4711")
        );
        assert_eq!(ok("PROXY UNKNOWN whatever 1 2 3 4 5"), None);
        for bad in [
            "PROXY",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.7 192.0.2.1 4711",
            "PROXY TCP4 192.0.2.7 192.0.2.1 4711 5060 x",
            "PROXY TCP4 192.0.2.7 192.0.2.1 65536 5060",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2",
            "PROXY TCP6 192.0.2.7 192.0.2.1 1 2",
            "PROXY UDP4 192.0.2.7 192.0.2.1 1 2",
            "PROXY TCP4  192.0.2.7 192.0.2.1 1 2",
        ] {
            assert!(parse_v1(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn whole_headers_are_read_and_what_follows_is_left() {
        let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 5060\r\nOPTIONS";
        let (source, length) = parse_header(line).unwrap();
        assert_eq!(source, Some("192.0.2.7:4711".parse().unwrap()));
        assert_eq!(&line[length..], b"OPTIONS");
        let mut block = V2_SIGNATURE.to_vec();
        block.extend_from_slice(&[0x21, 0x11, 0, 12]);
        block.extend_from_slice(&[192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0x13, 0xc4]);
        let whole = block.len();
        block.extend_from_slice(b"OPTIONS");
        assert_eq!(parse_header(&block).unwrap(), (source, whole));
        for cut in 0..whole {
            assert!(parse_header(&block[..cut]).is_err(), "{cut}");
        }
        for bad in [
            "",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOWN",
            "OPTIONS sip:x SIP/2.0\r\n",
        ] {
            assert!(parse_header(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        assert!(parse_header(long.as_bytes()).is_err());
    }

    #[test]
    fn version_2_blocks_are_read_or_refused() {
        let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0x13, 0xc4];
        assert_eq!(
            parse_v2(0x21, 0x11, &v4).unwrap(),
            Some("192.0.2.7:4711".parse().unwrap())
        );
        let mut with_tlv = v4.to_vec();
        with_tlv.extend_from_slice(&[4, 0, 1, 9]);
        assert!(parse_v2(0x21, 0x11, &with_tlv).unwrap().is_some());
        assert!(parse_v2(0x21, 0x11, &v4[..11]).is_err());
        assert!(parse_v2(0x21, 0x21, &[0; 35]).is_err());
        assert!(parse_v2(0x21, 0x21, &[0; 36]).unwrap().is_some());
        assert_eq!(parse_v2(0x20, 0x11, &v4).unwrap(), None, "LOCAL");
        assert!(
            parse_v2(0x11, 0x11, &v4).is_err(),
            "version 1 in binary does not exist"
        );
        assert!(
            parse_v2(0x21, 0x12, &v4).is_err(),
            "a datagram family on a stream"
        );
    }
}
