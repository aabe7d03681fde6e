//! A plan as SDP.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::{
    Direction, LocalMedia, LocalTransport, MediaKind, MediaPlan, Plan, Security, TransportPlan,
};
use crate::sdp::attributes::{Candidate, Crypto, print_digest};
use crate::sdp::{MediaDescription, SessionDescription};

/// Where a transport has no address yet; also what `c=` of a plan without any transport says.
const NOWHERE: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9);

/// Our SDP for a plan: an answer, or with `is_offer` an offer.
///
/// Where `local` alone changes between two descriptions of one dialog (the leg moved to another switch), the
/// caller counts [`Plan::session_version`] up.
#[must_use]
pub fn describe(plan: &Plan, local: &LocalMedia, is_offer: bool) -> SessionDescription {
    let printer = Printer {
        plan,
        local,
        is_offer,
    };
    let mut sdp = SessionDescription::default();
    let address = plan
        .accepted()
        .next()
        .map_or(NOWHERE.0, |media| printer.default_address(media).0);
    let session = &mut sdp.session;
    session.push(
        'o',
        format!(
            "- {} {} IN {} {address}",
            plan.session_id,
            plan.session_version,
            family(address)
        ),
    );
    session.push('s', "-");
    session.push('c', format!("IN {} {address}", family(address)));
    session.push('t', "0 0");
    if plan.transports_in_use().any(|t| t.ice.is_some()) {
        session.push_flag("ice-lite");
        session.push_attribute("ice-options", "ice2");
    }
    if !plan.bundle.is_empty() {
        session.push_attribute("group", format!("BUNDLE {}", plan.bundle.join(" ")));
    }
    if plan.media.iter().any(is_webrtc) {
        session.push_attribute("msid-semantic", " WMS *");
    }
    sdp.media = plan
        .media
        .iter()
        .map(|media| printer.media(media, address))
        .collect();
    sdp
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IP6" } else { "IP4" }
}

/// A browser or its like: it wants streams named (RFC 8830), which phones have no use for.
fn is_webrtc(media: &MediaPlan) -> bool {
    !media.rejected && media.mid.is_some() && media.protocol.to_ascii_uppercase().contains("TLS")
}

struct Printer<'a> {
    plan: &'a Plan,
    local: &'a LocalMedia,
    is_offer: bool,
}

impl Printer<'_> {
    fn transport(&self, media: &MediaPlan) -> Option<&TransportPlan> {
        self.plan.transports.get(media.transport)
    }

    fn local(&self, media: &MediaPlan) -> Option<&LocalTransport> {
        self.local
            .transports
            .iter()
            .find(|t| t.index == media.transport)
    }

    /// What goes to c= and m=: the first address, of the peer's family if there is one.
    fn default_address(&self, media: &MediaPlan) -> (IpAddr, u16) {
        let ipv6 = self.transport(media).is_some_and(|t| t.ipv6);
        let addresses = self.local(media).map_or(&[][..], |l| &l.addresses);
        addresses
            .iter()
            .find(|(ip, _)| ip.is_ipv6() == ipv6)
            .or(addresses.first())
            .copied()
            .unwrap_or(NOWHERE)
    }

    /// Is this the line that describes the transport it shares (RFC 8843 §7)?
    fn is_tagged(&self, media: &MediaPlan) -> bool {
        match (&media.mid, self.plan.bundle.first()) {
            (Some(mid), Some(tag)) if self.plan.bundle.contains(mid) => mid == tag,
            _ => true,
        }
    }

    fn media(&self, media: &MediaPlan, session_address: IpAddr) -> MediaDescription {
        if media.rejected {
            let mut line =
                MediaDescription::new(&media.raw_kind, 0, &media.protocol, media.formats.clone());
            if let Some(mid) = &media.mid {
                line.section.push_attribute("mid", mid);
            }
            line.section.push_flag(Direction::Inactive.as_str());
            return line;
        }
        let (address, port) = self.default_address(media);
        // In an offer of ours the other lines of the group are worth nothing without it (RFC 8843 §6).
        let bundle_only = self.is_offer && !self.is_tagged(media);
        let port = if bundle_only { 0 } else { port };
        let formats = media
            .codecs
            .iter()
            .flat_map(|codec| [Some(codec.payload_type), codec.rtx])
            .flatten()
            .map(|payload_type| payload_type.to_string())
            .collect();
        let mut line = MediaDescription::new(&media.raw_kind, port, &media.protocol, formats);
        let section = &mut line.section;
        if address != session_address {
            section.push('c', format!("IN {} {address}", family(address)));
        }
        if bundle_only {
            section.push_flag("bundle-only");
        }
        self.transport_lines(media, &mut line);
        self.media_lines(media, &mut line);
        codec_lines(media, &mut line);
        if media.has_slot() && is_webrtc(media) {
            self.source_lines(media, &mut line);
        }
        line
    }

    /// mux, ICE, keys.
    fn transport_lines(&self, media: &MediaPlan, line: &mut MediaDescription) {
        let Some(transport) = self.transport(media) else {
            return;
        };
        let section = &mut line.section;
        if transport.rtcp_mux {
            section.push_flag("rtcp-mux");
        }
        let rtcp = self.local(media).and_then(|local| local.rtcp_port);
        if let Some(port) = rtcp.filter(|_| !transport.rtcp_mux) {
            section.push_attribute("rtcp", port);
        }
        if let Some(ice) = &transport.ice {
            section.push_attribute("ice-ufrag", &ice.local_ufrag);
            section.push_attribute("ice-pwd", &ice.local_pwd);
            if self.is_tagged(media) {
                self.candidates(media, transport, line);
            }
        }
        let section = &mut line.section;
        match &transport.security {
            Security::Plain => {}
            Security::Sdes {
                suite,
                tag,
                local_key,
                ..
            } => section.push_attribute(
                "crypto",
                Crypto {
                    tag: *tag,
                    suite: suite.as_str().to_owned(),
                    key_salt: local_key.clone(),
                },
            ),
            Security::Dtls { client, .. } => {
                for (algorithm, digest) in &self.local.fingerprints {
                    let digest = print_digest(digest);
                    section.push_attribute("fingerprint", format!("{algorithm} {digest}"));
                }
                let setup = match (self.is_offer, client) {
                    // RFC 8842 §5.5: every offer leaves the choice, also a later one.
                    (true, _) => "actpass",
                    (false, true) => "active",
                    (false, false) => "passive",
                };
                section.push_attribute("setup", setup);
            }
        }
    }

    fn candidates(
        &self,
        media: &MediaPlan,
        transport: &TransportPlan,
        line: &mut MediaDescription,
    ) {
        let Some(local) = self.local(media) else {
            return;
        };
        let rtcp = local.rtcp_port.filter(|_| !transport.rtcp_mux);
        for (rank, (ip, port)) in (0u16..).zip(&local.addresses) {
            for (component, port) in [(1, Some(*port)), (2, rtcp)] {
                let Some(port) = port else {
                    continue;
                };
                let candidate = Candidate {
                    foundation: (u32::from(rank) + 1).to_string(),
                    component,
                    transport: "udp".to_owned(),
                    priority: Candidate::host_priority(rank, component),
                    host: ip.to_string(),
                    ip: Some(*ip),
                    port,
                    kind: "host".to_owned(),
                };
                line.section.push_attribute("candidate", candidate);
            }
        }
        line.section.push_flag("end-of-candidates");
    }

    fn media_lines(&self, media: &MediaPlan, line: &mut MediaDescription) {
        let section = &mut line.section;
        if let Some(mid) = &media.mid {
            section.push_attribute("mid", mid);
        }
        for (id, uri) in &media.extensions {
            let one_way = media.one_way_extensions.iter().find(|(of, _)| of == id);
            match one_way {
                Some((_, way)) => {
                    section.push_attribute("extmap", format!("{id}/{} {uri}", way.as_str()));
                }
                None => section.push_attribute("extmap", format!("{id} {uri}")),
            }
        }
        if media.extmap_allow_mixed && !media.extensions.is_empty() {
            section.push_flag("extmap-allow-mixed");
        }
        section.push_flag(media.direction.as_str());
        if media.rtcp_rsize {
            section.push_flag("rtcp-rsize");
        }
        if let Some(ptime) = media.ptime {
            section.push_attribute("ptime", ptime);
        }
    }

    /// msid, ssrc and their group (RFC 8830, RFC 5576). Audio and video of one slot number form one stream,
    /// so that a browser plays them in step.
    fn source_lines(&self, media: &MediaPlan, line: &mut MediaDescription) {
        if !media.direction.sends() {
            return;
        }
        let kind = media.kind.map_or("", MediaKind::as_str);
        let section = &mut line.section;
        section.push_attribute("msid", format!("slot{0} {kind}{0}", media.slot));
        if let Some(rtx) = media.rtx_ssrc {
            section.push_attribute("ssrc-group", format!("FID {} {rtx}", media.ssrc));
        }
        for ssrc in [Some(media.ssrc), media.rtx_ssrc].into_iter().flatten() {
            section.push_attribute("ssrc", format!("{ssrc} cname:{}", self.plan.cname));
        }
    }
}

fn codec_lines(media: &MediaPlan, line: &mut MediaDescription) {
    let section = &mut line.section;
    for codec in &media.codecs {
        let payload_type = codec.payload_type;
        let mut map = format!("{payload_type} {}/{}", codec.name, codec.clock_rate);
        if codec.channels > 1 {
            let _ = write!(map, "/{}", codec.channels);
        }
        section.push_attribute("rtpmap", map);
        if !codec.fmtp.is_empty() {
            section.push_attribute("fmtp", format!("{payload_type} {}", codec.fmtp));
        }
        for feedback in &codec.feedback {
            section.push_attribute("rtcp-fb", format!("{payload_type} {feedback}"));
        }
        if let Some(rtx) = codec.rtx {
            section.push_attribute("rtpmap", format!("{rtx} rtx/{}", codec.clock_rate));
            section.push_attribute("fmtp", format!("{rtx} apt={payload_type}"));
        }
    }
}

impl Plan {
    /// Would both print the same on the same switch? Versions left out.
    pub(super) fn prints_as(&self, other: &Plan, is_offer: bool) -> bool {
        let local = LocalMedia {
            transports: (0..self.transports.len().max(other.transports.len()))
                .map(|index| LocalTransport {
                    index,
                    addresses: vec![(Ipv4Addr::LOCALHOST.into(), 9)],
                    rtcp_port: Some(9),
                })
                .collect(),
            fingerprints: Vec::new(),
        };
        let mut same_version = other.clone();
        same_version.session_version = self.session_version;
        describe(self, &local, is_offer) == describe(&same_version, &local, is_offer)
    }
}
