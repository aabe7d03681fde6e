//! What a transport shall be, checked.

use std::net::{IpAddr, SocketAddr};

use super::LinkError;
use super::latch::Expected;
use crate::dtls::{Fingerprint, Role};
use crate::ice::Credentials;
use crate::srtp::Profile;

/// How a component is protected, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Security {
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
    pub(super) security: Security,
    pub(super) ice: Option<Credentials>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) remote_rtcp: Option<SocketAddr>,
    /// See [`super::latch`].
    pub(super) latches: bool,
    pub(super) expected: Expected,
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
            // Where there is ICE, it says where the peer is.
            latches: transport.latch && transport.ice.is_none(),
            expected: Expected::default(),
        })
    }

    /// With what the leg's m-lines on this transport say of the packets to come, so that a link
    /// that latches knows its peer's from others'.
    #[must_use]
    pub fn carrying(mut self, media: &[control::Media]) -> Self {
        if self.latches {
            self.expected = Expected::new(media.iter().filter(|m| m.transport == self.index));
        }
        self
    }

    /// Our ICE user fragment.
    #[must_use]
    pub fn local_ufrag(&self) -> Option<&str> {
        self.ice.as_ref().map(|ice| ice.local_ufrag.as_str())
    }

    /// Where a plain peer says it is.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        self.remote.map(|remote| remote.ip())
    }

    /// Whether the worker's shared port serves it: ICE tells legs apart there, and RTCP needs no
    /// second port.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.ice.is_some() && self.rtcp_mux
    }

    /// Whether the peer's address alone tells its packets from others', so that it may share a port with them.
    #[must_use]
    pub fn shares_port(&self) -> bool {
        self.ice.is_none() && !self.latches && self.remote.is_some()
    }

    /// Where the peer takes RTP and RTCP, as signalled; with rtcp-mux both are the same.
    #[must_use]
    pub fn remotes(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        (self.remote, self.remote_rtcp)
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
