//! From negotiated media to what a switch is told, and back from what it says.

use std::net::IpAddr;

use control::v1 as ctl;
use sip::offer_answer::{
    Codec, Direction, LocalMedia, LocalTransport, MediaKind, MediaPlan, Plan, Security, SrtpSuite,
    TransportPlan,
};

use crate::ids::{ParticipantId, SourceId};

/// What a leg is besides its media.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LegFacts<'a> {
    pub(crate) id: &'a ParticipantId,
    pub(crate) source: SourceId,
    /// The peer was signalled as behind NAT.
    pub(crate) latch: bool,
}

/// The desired state of a leg. Rejected m-lines and transports nobody uses are left out.
pub(crate) fn leg(plan: &Plan, facts: LegFacts<'_>) -> ctl::Leg {
    let media: Vec<ctl::Media> = plan
        .media
        .iter()
        .filter(|m| !m.rejected)
        .filter_map(media)
        .collect();
    let transports = plan
        .transports
        .iter()
        .filter(|t| media.iter().any(|m| m.transport == number(t.index)))
        .map(|t| transport(t, facts.latch))
        .collect();
    ctl::Leg {
        id: facts.id.as_str().to_owned(),
        source: facts.source.0,
        cname: plan.cname.clone(),
        transports,
        media,
    }
}

/// What the switch made of it; `None` where an address it names is none, or a transport is missing.
pub(crate) fn local_media(
    leg: &ctl::Leg,
    state: &ctl::LegState,
    fingerprints: &[(String, Vec<u8>)],
) -> Option<LocalMedia> {
    let mut transports = Vec::with_capacity(leg.transports.len());
    for wanted in &leg.transports {
        let made = state.transports.iter().find(|t| t.index == wanted.index)?;
        let mut addresses = Vec::with_capacity(made.addresses.len());
        for address in &made.addresses {
            let ip: IpAddr = address.ip.parse().ok()?;
            addresses.push((ip, port(address.port)?));
        }
        if addresses.is_empty() {
            return None;
        }
        transports.push(LocalTransport {
            index: wanted.index as usize,
            addresses,
            rtcp_port: port(made.rtcp_port),
        });
    }
    Some(LocalMedia {
        transports,
        fingerprints: fingerprints.to_vec(),
    })
}

fn port(port: u32) -> Option<u16> {
    u16::try_from(port).ok().filter(|p| *p != 0)
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn transport(plan: &TransportPlan, latch: bool) -> ctl::Transport {
    let (security, sdes, dtls) = match &plan.security {
        Security::Plain => (ctl::Security::Plain, None, None),
        Security::Sdes {
            suite,
            local_key,
            remote_key,
            ..
        } => {
            let sdes = ctl::Sdes {
                suite: srtp_suite(*suite).into(),
                local_key: local_key.clone().into(),
                remote_key: remote_key.clone().into(),
            };
            (ctl::Security::Sdes, Some(sdes), None)
        }
        Security::Dtls {
            remote_fingerprints,
            client,
        } => {
            let role = if *client {
                ctl::DtlsRole::Client
            } else {
                ctl::DtlsRole::Server
            };
            let remote = remote_fingerprints
                .iter()
                .map(|(algorithm, value)| ctl::Fingerprint {
                    algorithm: algorithm.clone(),
                    value: value.clone().into(),
                })
                .collect();
            let dtls = ctl::Dtls {
                role: role.into(),
                remote,
            };
            (ctl::Security::Dtls, None, Some(dtls))
        }
    };
    ctl::Transport {
        index: number(plan.index),
        security: security.into(),
        rtcp_mux: plan.rtcp_mux,
        ipv6: plan.ipv6,
        remote_address: plan
            .remote
            .map(|(ip, _)| ip.to_string())
            .unwrap_or_default(),
        remote_port: plan.remote.map_or(0, |(_, port)| u32::from(port)),
        remote_rtcp_port: plan.remote_rtcp_port.map_or(0, u32::from),
        latch: latch && plan.ice.is_none(),
        ice: plan.ice.as_ref().map(|ice| ctl::Ice {
            local_ufrag: ice.local_ufrag.clone(),
            local_pwd: ice.local_pwd.clone(),
            remote_ufrag: ice.remote_ufrag.clone(),
            remote_pwd: ice.remote_pwd.clone(),
        }),
        sdes,
        dtls,
    }
}

fn srtp_suite(suite: SrtpSuite) -> ctl::SrtpSuite {
    match suite {
        SrtpSuite::AesCm128HmacSha1_80 => ctl::SrtpSuite::AesCm128HmacSha180,
        SrtpSuite::AesCm128HmacSha1_32 => ctl::SrtpSuite::AesCm128HmacSha132,
        SrtpSuite::AeadAes128Gcm => ctl::SrtpSuite::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm => ctl::SrtpSuite::AeadAes256Gcm,
    }
}

fn media(plan: &MediaPlan) -> Option<ctl::Media> {
    let kind = match plan.kind? {
        MediaKind::Audio => ctl::MediaKind::Audio,
        MediaKind::Video => ctl::MediaKind::Video,
    };
    let send = plan.has_slot() && plan.direction.sends();
    Some(ctl::Media {
        index: number(plan.index),
        mid: plan.mid.clone().unwrap_or_default(),
        kind: kind.into(),
        transport: number(plan.transport),
        codecs: plan.codecs.iter().map(codec).collect(),
        extensions: plan
            .extensions
            .iter()
            .map(|(id, uri)| {
                let mut ways = plan.one_way_extensions.iter();
                let way = ways.find(|(of, _)| of == id).map(|(_, way)| *way);
                ctl::HeaderExtension {
                    id: u32::from(*id),
                    uri: uri.clone(),
                    receive_only: way == Some(Direction::RecvOnly),
                    send_only: way == Some(Direction::SendOnly),
                }
            })
            .collect(),
        receive: plan.direction.receives(),
        send,
        slot: send.then(|| ctl::Slot {
            number: number(plan.slot),
            ssrc: plan.ssrc,
            rtx_ssrc: plan.rtx_ssrc.unwrap_or(0),
        }),
        remote_ssrcs: plan.remote_ssrcs.clone(),
        remote_rtx_ssrcs: plan.remote_rtx_ssrcs.clone(),
        muted: false,
        ptime: plan.ptime.unwrap_or(0),
        max_bitrate: plan
            .bandwidth
            .map_or(0, |b| u32::try_from(b).unwrap_or(u32::MAX)),
    })
}

fn codec(plan: &Codec) -> ctl::Codec {
    let has = |value: &str| plan.feedback.iter().any(|f| f.eq_ignore_ascii_case(value));
    ctl::Codec {
        payload_type: u32::from(plan.payload_type),
        name: plan.name.clone(),
        clock_rate: plan.clock_rate,
        channels: u32::from(plan.channels),
        fmtp: plan.fmtp.clone(),
        rtx_payload_type: plan.rtx.map_or(0, u32::from),
        nack: has("nack"),
        pli: has("nack pli"),
        fir: has("ccm fir"),
        transport_cc: has("transport-cc"),
        remb: has("goog-remb"),
    }
}

#[cfg(test)]
mod tests {
    use sip::offer_answer::Ice;

    use super::*;
    use crate::slot_policy::tests::{line, plan};

    fn facts(id: &ParticipantId) -> LegFacts<'_> {
        LegFacts {
            id,
            source: SourceId(77),
            latch: true,
        }
    }

    fn plain(index: usize) -> TransportPlan {
        TransportPlan {
            index,
            security: Security::Plain,
            ice: None,
            rtcp_mux: false,
            remote: Some(("192.0.2.1".parse().unwrap(), 4000)),
            remote_rtcp_port: Some(4001),
            ipv6: false,
        }
    }

    #[test]
    fn rejected_lines_and_their_transports_are_left_out() {
        let mut p = plan(vec![
            line(0, MediaKind::Audio, 5),
            line(1, MediaKind::Video, 6),
        ]);
        p.transports = vec![plain(0), plain(1)];
        p.media[1].rejected = true;
        let id = ParticipantId::from_random(1);
        let leg = leg(&p, facts(&id));
        assert_eq!(leg.media.len(), 1);
        assert_eq!(leg.transports.len(), 1);
        assert_eq!(leg.transports[0].remote_address, "192.0.2.1");
        assert!(leg.transports[0].latch);
        assert_eq!(leg.source, 77);
    }

    #[test]
    fn a_held_line_keeps_its_place_and_is_sent_nothing() {
        let mut p = plan(vec![line(0, MediaKind::Audio, 5)]);
        p.transports = vec![plain(0)];
        p.media[0].direction = Direction::RecvOnly;
        let id = ParticipantId::from_random(1);
        let leg = leg(&p, facts(&id));
        assert!(leg.media[0].receive && !leg.media[0].send && leg.media[0].slot.is_none());
    }

    #[test]
    fn ice_decides_the_address_and_never_latches() {
        let mut p = plan(vec![line(0, MediaKind::Audio, 5)]);
        let mut t = plain(0);
        t.ice = Some(Ice {
            local_ufrag: "a".into(),
            local_pwd: "b".into(),
            remote_ufrag: "c".into(),
            remote_pwd: "d".into(),
        });
        p.transports = vec![t];
        let id = ParticipantId::from_random(1);
        assert!(!leg(&p, facts(&id)).transports[0].latch);
    }

    #[test]
    fn a_switch_that_names_no_usable_address_is_not_believed() {
        let mut p = plan(vec![line(0, MediaKind::Audio, 5)]);
        p.transports = vec![plain(0)];
        let id = ParticipantId::from_random(1);
        let leg = leg(&p, facts(&id));
        let state = |ip: &str, port: u32| ctl::LegState {
            id: leg.id.clone(),
            transports: vec![ctl::LocalTransport {
                index: 0,
                addresses: vec![ctl::Address {
                    ip: ip.into(),
                    port,
                }],
                rtcp_port: 0,
            }],
            refused: String::new(),
            unsupported: false,
        };
        assert!(local_media(&leg, &state("192.0.2.9", 5000), &[]).is_some());
        assert!(local_media(&leg, &state("nowhere", 5000), &[]).is_none());
        assert!(local_media(&leg, &state("192.0.2.9", 0), &[]).is_none());
        assert!(local_media(&leg, &ctl::LegState::default(), &[]).is_none());
    }

    #[test]
    fn an_extension_agreed_in_one_direction_says_so_to_the_switch() {
        let mut video = line(0, MediaKind::Video, 5);
        video.extensions = vec![
            (8, "urn:a".into()),
            (9, "urn:b".into()),
            (10, "urn:c".into()),
        ];
        video.one_way_extensions = vec![(8, Direction::RecvOnly), (9, Direction::SendOnly)];
        let mut p = plan(vec![video]);
        p.transports = vec![plain(0)];
        let id = ParticipantId::from_random(1);
        let leg = leg(&p, facts(&id));
        let ways: Vec<_> = leg.media[0]
            .extensions
            .iter()
            .map(|e| (e.id, e.receive_only, e.send_only))
            .collect();
        assert_eq!(
            ways,
            [(8, true, false), (9, false, true), (10, false, false)]
        );
    }
}
