//! Links: who may speak, where answers go, and what a changed description leaves alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use control::{Dtls, DtlsRole, Ice, Sdes, Security, SrtpSuite, Transport};
use switch_core::dtls::{Association, Event, Fingerprint, Identity, Keys, Role};
use switch_core::link::{Link, LinkError, LinkEvent, Received, Spec};
use switch_core::srtp::{MAX_OVERHEAD, Opener, Profile, Sealer, SrtpError};
use switch_core::{Batch, RtpOut, SocketId};

mod peer;
use peer::{IcePeer, rtp};

const RTP: SocketId = SocketId(1);
const RTCP: SocketId = SocketId(2);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], port))
}

struct Bench {
    link: Link,
    batch: Batch,
    now: Instant,
    identity: Identity,
}

impl Bench {
    fn new(transport: &Transport) -> Self {
        let identity = Identity::generate().unwrap();
        let spec = Spec::parse(transport).unwrap();
        let rtcp = (!spec.rtcp_mux).then_some(RTCP);
        Self {
            link: Link::new(spec, RTP, rtcp, &identity).unwrap(),
            batch: Batch::new(),
            now: Instant::now(),
            identity,
        }
    }

    fn update(&mut self, transport: &Transport) {
        let spec = Spec::parse(transport).unwrap();
        self.link.update(spec, &self.identity).unwrap();
        self.link.start(self.now, &mut self.batch);
    }

    /// Received, and what is left of the packet.
    fn receive(&mut self, from: SocketAddr, packet: &[u8]) -> (Received, Vec<u8>) {
        let mut packet = packet.to_vec();
        let received =
            self.link
                .handle_datagram(false, RTP, from, &mut packet, self.now, &mut self.batch);
        if let Received::Rtp(len) | Received::Rtcp(len) = received {
            packet.truncate(len);
        }
        (received, packet)
    }

    fn receive_rtcp(&mut self, from: SocketAddr, packet: &[u8]) -> Received {
        let mut packet = packet.to_vec();
        self.link
            .handle_datagram(true, RTCP, from, &mut packet, self.now, &mut self.batch)
    }

    /// Sends an RTP packet: where it went, and its bytes.
    fn send(&mut self, sequence: u16) -> Option<(SocketId, SocketAddr, Vec<u8>)> {
        self.batch.clear();
        let whole = rtp(7, sequence, 0, &[9; 30]);
        let packet = RtpOut {
            header: &whole[..12],
            prefix: &whole[12..14],
            payload: &whole[14..],
        };
        self.link.send_rtp(packet, &mut self.batch).then(|| {
            let sent = self.batch.get(0).unwrap();
            (sent.socket, sent.remote, sent.bytes.to_vec())
        })
    }

    fn out(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let all = (0..self.batch.len())
            .filter_map(|at| self.batch.get(at))
            .map(|t| (t.remote, t.bytes.to_vec()))
            .collect();
        self.batch.clear();
        all
    }

    /// Handshakes with `client` from `from` until it is connected.
    fn handshake(&mut self, client: &mut Association, from: SocketAddr) -> Keys {
        client.start(self.now);
        for _ in 0..20 {
            while let Some(datagram) = client.poll_transmit() {
                self.receive(from, &datagram);
            }
            for (to, datagram) in self.out() {
                assert_eq!(to, from);
                if let Some(Event::Connected(keys)) = client.handle_datagram(&datagram, self.now) {
                    while let Some(datagram) = client.poll_transmit() {
                        self.receive(from, &datagram);
                    }
                    return keys;
                }
            }
        }
        panic!("no handshake");
    }
}

fn plain(port: u16) -> Transport {
    Transport {
        security: Security::Plain.into(),
        remote_address: "192.0.2.9".into(),
        remote_port: u32::from(port),
        ..Default::default()
    }
}

fn key(seed: u8, profile: Profile) -> Vec<u8> {
    (0..profile.key_len() + profile.salt_len())
        .map(|at| at as u8 ^ seed)
        .collect()
}

fn sdes(local: u8, remote: Option<u8>) -> Transport {
    let profile = Profile::Aes128CmSha1_80;
    Transport {
        security: Security::Sdes.into(),
        sdes: Some(Sdes {
            suite: SrtpSuite::AesCm128HmacSha180.into(),
            local_key: Bytes::from(key(local, profile)),
            remote_key: remote
                .map(|seed| key(seed, profile).into())
                .unwrap_or_default(),
        }),
        ..plain(4000)
    }
}

fn ice() -> Ice {
    Ice {
        local_ufrag: "swit".into(),
        local_pwd: "switchswitchswitchswitch".into(),
        remote_ufrag: "peer".into(),
        remote_pwd: "peerpeerpeerpeerpeerpeer".into(),
    }
}

fn dtls(peer: &Identity, role: DtlsRole) -> Transport {
    Transport {
        security: Security::Dtls.into(),
        rtcp_mux: true,
        ice: Some(ice()),
        dtls: Some(Dtls {
            role: role.into(),
            remote: vec![control::Fingerprint {
                algorithm: "sha-256".into(),
                value: peer.fingerprint().to_vec().into(),
            }],
        }),
        ..Default::default()
    }
}

fn seal(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + MAX_OVERHEAD, 0);
    let len = sealer.seal_rtp(&mut buffer, packet.len()).unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn a_plain_link_speaks_with_the_signalled_address_only() {
    let mut bench = Bench::new(&plain(4000));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    assert_eq!(bench.link.poll_event(), None);
    let packet = rtp(1, 1, 0, &[1; 20]);
    assert_eq!(
        bench.receive(address(4000), &packet),
        (Received::Rtp(32), packet.clone())
    );
    assert_eq!(bench.receive(address(4002), &packet).0, Received::Stranger);
    let (socket, to, bytes) = bench.send(5).unwrap();
    assert_eq!((socket, to), (RTP, address(4000)));
    assert_eq!(bytes, rtp(7, 5, 0, &[9; 30]));
}

#[test]
fn without_rtcp_mux_rtcp_has_its_own_socket_and_port() {
    let mut bench = Bench::new(&plain(4000));
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    assert_eq!(
        bench.receive_rtcp(address(4001), &report),
        Received::Rtcp(8)
    );
    assert_eq!(
        bench.receive_rtcp(address(4000), &report),
        Received::Stranger
    );
    assert!(bench.link.send_rtcp(&report, &mut bench.batch));
    let sent = bench.batch.get(0).unwrap();
    assert_eq!((sent.socket, sent.remote), (RTCP, address(4001)));
}

/// PCMU, and comfort noise.
fn audio(ssrcs: &[u32]) -> control::Media {
    let codec = |payload_type| control::Codec {
        payload_type,
        ..Default::default()
    };
    control::Media {
        codecs: vec![codec(0), codec(13)],
        receive: true,
        remote_ssrcs: ssrcs.to_vec(),
        ..Default::default()
    }
}

fn latching(ssrcs: &[u32]) -> Bench {
    let transport = Transport {
        latch: true,
        ..plain(4000)
    };
    let spec = Spec::parse(&transport).unwrap().carrying(&[audio(ssrcs)]);
    let mut bench = Bench::new(&transport);
    bench.link = Link::new(spec, RTP, Some(RTCP), &bench.identity).unwrap();
    bench
}

#[test]
fn a_latching_link_moves_once_to_where_two_packets_in_sequence_come_from() {
    let mut bench = latching(&[]);
    assert_eq!(
        bench.send(1).unwrap().1,
        address(4000),
        "signalled until then"
    );
    assert_eq!(
        bench.receive(address(7), &[0x80; 6]).0,
        Received::Bad(SrtpError::BadPacket)
    );
    let packet = |sequence| rtp(1, sequence, 0, &[1; 20]);
    assert_eq!(bench.receive(address(8), &packet(1)).0, Received::Stranger);
    assert_eq!(bench.send(2).unwrap().1, address(4000), "on probation");
    assert_eq!(bench.receive(address(8), &packet(2)).0, Received::Rtp(32));
    assert_eq!(bench.send(2).unwrap().1, address(8));
    for port in [4000, 9] {
        for sequence in 3..6 {
            assert_eq!(
                bench.receive(address(port), &packet(sequence)).0,
                Received::Stranger
            );
        }
    }
    assert_eq!(bench.send(3).unwrap().1, address(8));
}

#[test]
fn noise_other_payload_types_and_rtcp_take_no_latching_leg() {
    let mut bench = latching(&[]);
    let stranger = address(8);
    for sequence in 0..20 {
        let mut other = rtp(1, sequence, 0, &[1; 20]);
        other[1] = 77;
        assert_eq!(bench.receive(stranger, &other).0, Received::Stranger);
        let mut padded = rtp(1, sequence, 0, &[1; 20]);
        padded[0] = 0xa0;
        *padded.last_mut().unwrap() = 99;
        assert_eq!(bench.receive(stranger, &padded).0, Received::Stranger);
        let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        assert_eq!(bench.receive(stranger, &report).0, Received::Stranger);
        let leap = rtp(1, 2 * sequence, 0, &[1; 20]);
        assert_eq!(bench.receive(stranger, &leap).0, Received::Stranger);
    }
    assert_eq!(bench.send(2).unwrap().1, address(4000));
    // The peer is not kept out by it.
    bench.receive(address(5), &rtp(2, 65_535, 0, &[1; 20]));
    bench.receive(address(5), &rtp(2, 0, 0, &[1; 20]));
    assert_eq!(bench.send(3).unwrap().1, address(5));
}

#[test]
fn a_signalled_ssrc_is_asked_of_who_latches_and_its_signalled_address_passes_at_once() {
    let mut bench = latching(&[7]);
    for sequence in 0..5 {
        let other = rtp(8, sequence, 0, &[1; 20]);
        assert_eq!(bench.receive(address(8), &other).0, Received::Stranger);
    }
    let first = rtp(7, 1, 0, &[1; 20]);
    assert_eq!(bench.receive(address(4000), &first).0, Received::Rtp(32));
    for sequence in 1..5 {
        let late = rtp(7, sequence, 0, &[1; 20]);
        assert_eq!(bench.receive(address(8), &late).0, Received::Stranger);
    }
    assert_eq!(bench.send(3).unwrap().1, address(4000));
}

#[test]
fn rtcp_latches_where_rtp_was_found_and_not_before() {
    let mut bench = latching(&[]);
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    assert_eq!(bench.receive_rtcp(address(9), &report), Received::Stranger);
    bench.receive(address(8), &rtp(1, 1, 0, &[1; 20]));
    bench.receive(address(8), &rtp(1, 2, 0, &[1; 20]));
    let elsewhere = SocketAddr::from(([203, 0, 113, 5], 9));
    assert_eq!(bench.receive_rtcp(elsewhere, &report), Received::Stranger);
    assert_eq!(bench.receive_rtcp(address(9), &report), Received::Rtcp(8));
    bench.batch.clear();
    assert!(bench.link.send_rtcp(&report, &mut bench.batch));
    assert_eq!(bench.batch.get(0).unwrap().remote, address(9));
}

/// A latching leg with DTLS and no ICE; the switch waits for the ClientHello.
fn latching_dtls(peer: &Identity) -> Bench {
    Bench::new(&Transport {
        ice: None,
        latch: true,
        remote_address: "192.0.2.9".into(),
        remote_port: 4000,
        ..dtls(peer, DtlsRole::Server)
    })
}

#[test]
fn strangers_do_not_disturb_the_handshake_of_a_latching_leg() {
    let (peer, stranger) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let mut bench = latching_dtls(&peer);
    let ours = || Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut impostor = Association::new(&stranger, Role::Client, vec![ours()]).unwrap();
    let mut client = Association::new(&peer, Role::Client, vec![ours()]).unwrap();
    let mut idle = Association::new(&stranger, Role::Client, vec![ours()]).unwrap();
    // One says no more than hello, one goes on to the end with a certificate of its own, others
    // send what is no handshake.
    idle.start(bench.now);
    while let Some(datagram) = idle.poll_transmit() {
        assert_eq!(bench.receive(address(1), &datagram).0, Received::Handled);
    }
    bench.out();
    let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
    assert_eq!(bench.receive(address(2), &alert).0, Received::Stranger);
    impostor.start(bench.now);
    for _ in 0..10 {
        while let Some(datagram) = impostor.poll_transmit() {
            bench.receive(address(3), &datagram);
        }
        for (to, datagram) in bench.out() {
            assert_eq!(to, address(3));
            impostor.handle_datagram(&datagram, bench.now);
        }
    }
    assert_eq!(bench.link.poll_event(), None, "nothing of it is the peer's");
    let keys = bench.handshake(&mut client, address(9));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    bench.receive(address(3), &alert);
    let mut opener = Opener::new(keys.profile, &keys.remote).unwrap();
    let (_, to, mut sent) = bench.send(5).unwrap();
    assert_eq!(to, address(9));
    assert_eq!(opener.open_rtp(&mut sent).unwrap(), 42);
}

#[test]
fn a_latching_srtp_link_believes_only_an_authentic_packet() {
    let mut bench = Bench::new(&Transport {
        latch: true,
        ..sdes(1, Some(2))
    });
    let profile = Profile::Aes128CmSha1_80;
    let mut attacker = Sealer::new(profile, &key(9, profile)).unwrap();
    let mut peer = Sealer::new(profile, &key(2, profile)).unwrap();
    let forged = seal(&mut attacker, &rtp(1, 1, 0, &[1; 20]));
    assert_eq!(
        bench.receive(address(6), &forged).0,
        Received::Bad(SrtpError::NotAuthentic)
    );
    let real = seal(&mut peer, &rtp(1, 1, 0, &[1; 20]));
    assert_eq!(bench.receive(address(5), &real).0, Received::Rtp(32));
    assert_eq!(bench.send(2).unwrap().1, address(5));
}

#[test]
fn sdes_protects_both_ways_with_every_suite() {
    for (suite, profile) in [
        (SrtpSuite::AesCm128HmacSha180, Profile::Aes128CmSha1_80),
        (SrtpSuite::AesCm128HmacSha132, Profile::Aes128CmSha1_32),
        (SrtpSuite::AeadAes128Gcm, Profile::AeadAes128Gcm),
        (SrtpSuite::AeadAes256Gcm, Profile::AeadAes256Gcm),
    ] {
        let mut transport = sdes(0, None);
        transport.sdes = Some(Sdes {
            suite: suite.into(),
            local_key: key(1, profile).into(),
            remote_key: key(2, profile).into(),
        });
        let mut bench = Bench::new(&transport);
        let mut peer = Sealer::new(profile, &key(2, profile)).unwrap();
        let clear = rtp(1, 1, 0, &[1; 20]);
        let sealed = seal(&mut peer, &clear);
        assert_eq!(
            bench.receive(address(4000), &sealed),
            (Received::Rtp(32), clear.clone())
        );
        assert_eq!(
            bench.receive(address(4000), &sealed).0,
            Received::Bad(SrtpError::Replayed)
        );
        assert_eq!(
            bench.receive(address(4000), &rtp(1, 2, 0, &[1; 20])).0,
            Received::Bad(SrtpError::NotAuthentic),
            "{profile:?}"
        );
        let mut opener = Opener::new(profile, &key(1, profile)).unwrap();
        let mut sent = bench.send(5).unwrap().2;
        let len = opener.open_rtp(&mut sent).unwrap();
        assert_eq!(sent[..len], rtp(7, 5, 0, &[9; 30]));
    }
}

#[test]
fn the_peers_late_sdes_key_does_not_restart_what_we_send() {
    let profile = Profile::Aes128CmSha1_80;
    let mut bench = Bench::new(&sdes(1, None));
    let mut opener = Opener::new(profile, &key(1, profile)).unwrap();
    let mut peer = Sealer::new(profile, &key(2, profile)).unwrap();
    let packet = rtp(1, 1, 0, &[1; 20]);
    let early = seal(&mut peer, &packet);
    assert_eq!(bench.receive(address(4000), &early).0, Received::Stranger);
    for sequence in [65_534u16, 65_535, 0] {
        let mut sent = bench.send(sequence).unwrap().2;
        opener.open_rtp(&mut sent).unwrap();
    }
    bench.update(&sdes(1, Some(2)));
    assert_eq!(bench.receive(address(4000), &early).0, Received::Rtp(32));
    let mut sent = bench.send(1).unwrap().2;
    opener
        .open_rtp(&mut sent)
        .expect("the roll-over counter goes on");
}

#[test]
fn ice_and_dtls_let_only_the_validated_pair_speak() {
    let peer = Identity::generate().unwrap();
    let mut bench = Bench::new(&dtls(&peer, DtlsRole::Server));
    assert!(bench.send(1).is_none());
    let ours = Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut client = Association::new(&peer, Role::Client, vec![ours]).unwrap();
    client.start(bench.now);
    let hello = client.poll_transmit().unwrap();
    assert_eq!(
        bench.receive(address(1), &hello).0,
        Received::Stranger,
        "before a check"
    );

    let check = IcePeer::new(&ice()).request(true);
    assert_eq!(bench.receive(address(1), &check).0, Received::Handled);
    assert_eq!(bench.out().len(), 1, "the check's answer");
    assert_eq!(
        bench.receive(address(2), &hello).0,
        Received::Stranger,
        "another port"
    );
    assert!(bench.send(1).is_none(), "no keys yet");

    let ours = Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut client = Association::new(&peer, Role::Client, vec![ours]).unwrap();
    let keys = bench.handshake(&mut client, address(1));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    assert_eq!(bench.link.profile(), Some(keys.profile));
    let mut sealer = Sealer::new(keys.profile, &keys.local).unwrap();
    let mut opener = Opener::new(keys.profile, &keys.remote).unwrap();
    let packet = rtp(1, 1, 0, &[1; 20]);
    let sealed = seal(&mut sealer, &packet);
    assert_eq!(bench.receive(address(3), &sealed).0, Received::Stranger);
    assert_eq!(
        bench.receive(address(1), &sealed),
        (Received::Rtp(32), packet.clone())
    );
    assert!(matches!(
        bench.receive(address(1), &packet).0,
        Received::Bad(_)
    ));
    let (_, to, mut sent) = bench.send(5).unwrap();
    assert_eq!(to, address(1));
    assert_eq!(opener.open_rtp(&mut sent).unwrap(), 42);
}

#[test]
fn as_a_dtls_client_we_begin_once_a_pair_is_validated() {
    let peer = Identity::generate().unwrap();
    let mut bench = Bench::new(&dtls(&peer, DtlsRole::Client));
    bench.link.start(bench.now, &mut bench.batch);
    assert!(bench.out().is_empty(), "nowhere to send yet");
    let ours = Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut server = Association::new(&peer, Role::Server, vec![ours]).unwrap();
    bench.receive(address(1), &IcePeer::new(&ice()).request(true));
    let mut connected = false;
    for _ in 0..10 {
        for (_, datagram) in bench.out() {
            let event = server.handle_datagram(&datagram, bench.now);
            connected |= matches!(event, Some(Event::Connected(_)));
        }
        while let Some(datagram) = server.poll_transmit() {
            bench.receive(address(1), &datagram);
        }
    }
    assert!(connected);
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
}

#[test]
fn a_wrong_certificate_is_reported_as_a_failure_once() {
    let (peer, impostor) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let mut bench = Bench::new(&dtls(&peer, DtlsRole::Server));
    bench.receive(address(1), &IcePeer::new(&ice()).request(true));
    bench.out();
    let ours = Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut client = Association::new(&impostor, Role::Client, vec![ours]).unwrap();
    client.start(bench.now);
    for _ in 0..10 {
        while let Some(datagram) = client.poll_transmit() {
            bench.receive(address(1), &datagram);
        }
        for (_, datagram) in bench.out() {
            client.handle_datagram(&datagram, bench.now);
        }
    }
    let event = bench.link.poll_event();
    assert!(
        matches!(&event, Some(LinkEvent::DtlsFailed(reason)) if reason.contains("fingerprint")),
        "{event:?}"
    );
    assert_eq!(bench.link.poll_event(), None);
    assert!(bench.send(1).is_none());
}

#[test]
fn media_follows_a_nomination_to_a_new_address_without_a_new_handshake() {
    let peer = Identity::generate().unwrap();
    let mut bench = Bench::new(&dtls(&peer, DtlsRole::Server));
    let mut checks = IcePeer::new(&ice());
    bench.receive(address(1), &checks.request(true));
    bench.out();
    let ours = Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut client = Association::new(&peer, Role::Client, vec![ours]).unwrap();
    bench.handshake(&mut client, address(1));
    bench.receive(address(99), &checks.request(true));
    assert_eq!(bench.send(5).unwrap().1, address(99));
}

#[test]
fn an_ice_restart_keeps_media_on_the_old_pair_until_the_new_one_is_checked() {
    let peer = Identity::generate().unwrap();
    let transport = dtls(&peer, DtlsRole::Server);
    let mut bench = Bench::new(&transport);
    bench.receive(address(1), &IcePeer::new(&ice()).request(true));
    bench.out();
    let ours = Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut client = Association::new(&peer, Role::Client, vec![ours]).unwrap();
    let keys = bench.handshake(&mut client, address(1));
    let restarted = Ice {
        local_ufrag: "new1".into(),
        remote_ufrag: "new2".into(),
        ..ice()
    };
    bench.update(&Transport {
        ice: Some(restarted.clone()),
        ..transport
    });
    assert_eq!(bench.send(5).unwrap().1, address(1));
    let mut sealer = Sealer::new(keys.profile, &keys.local).unwrap();
    let sealed = seal(&mut sealer, &rtp(1, 1, 0, &[1; 20]));
    assert_eq!(bench.receive(address(1), &sealed).0, Received::Rtp(32));
    let old = IcePeer::new(&ice()).request(true);
    assert_eq!(bench.receive(address(2), &old).0, Received::Stranger);
    bench.receive(address(2), &IcePeer::new(&restarted).request(true));
    assert_eq!(bench.send(6).unwrap().1, address(2));
    assert_eq!(bench.receive(address(1), &sealed).0, Received::Stranger);
}

#[test]
fn lost_consent_stops_media_and_is_told_once_until_the_peer_is_back() {
    let mut bench = Bench::new(&Transport {
        ice: Some(ice()),
        rtcp_mux: true,
        ..plain(0)
    });
    let mut checks = IcePeer::new(&ice());
    bench.receive(address(1), &checks.request(true));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    bench.now += Duration::from_secs(31);
    bench.link.handle_timeout(bench.now, &mut bench.batch);
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::ConsentLost));
    assert_eq!(bench.link.poll_event(), None);
    assert!(bench.send(1).is_none());
    bench.receive(address(4), &checks.request(true));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    assert_eq!(bench.send(2).unwrap().1, address(4));
}

/// As an agent from before RFC 7675: one nomination, then media and no more checks.
#[test]
fn media_keeps_consent_where_the_peer_sends_no_more_checks() {
    let mut bench = Bench::new(&Transport {
        ice: Some(ice()),
        rtcp_mux: true,
        ..sdes(1, Some(2))
    });
    bench.receive(address(1), &IcePeer::new(&ice()).request(true));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    let profile = Profile::Aes128CmSha1_80;
    let mut sealer = Sealer::new(profile, &key(2, profile)).unwrap();
    let mut forger = Sealer::new(profile, &key(3, profile)).unwrap();
    for sequence in 1..=5 {
        bench.now += Duration::from_secs(20);
        let sealed = seal(&mut sealer, &rtp(1, sequence, 0, &[1; 20]));
        assert_eq!(bench.receive(address(1), &sealed).0, Received::Rtp(32));
        bench.link.handle_timeout(bench.now, &mut bench.batch);
        assert_eq!(bench.link.poll_event(), None);
        assert!(bench.send(sequence).is_some());
    }
    // What does not authenticate, or comes from elsewhere, is no sign of life.
    bench.now += Duration::from_secs(20);
    let forged = seal(&mut forger, &rtp(1, 6, 0, &[1; 20]));
    assert!(matches!(
        bench.receive(address(1), &forged).0,
        Received::Bad(_)
    ));
    let elsewhere = seal(&mut sealer, &rtp(1, 7, 0, &[1; 20]));
    assert_eq!(bench.receive(address(2), &elsewhere).0, Received::Stranger);
    bench.now += Duration::from_secs(11);
    bench.link.handle_timeout(bench.now, &mut bench.batch);
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::ConsentLost));
}

#[test]
fn rtcp_or_media_alone_keeps_consent_without_rtcp_mux() {
    let mut bench = Bench::new(&Transport {
        ice: Some(ice()),
        ..plain(0)
    });
    let mut checks = IcePeer::new(&ice());
    bench.receive(address(1), &checks.request(true));
    bench.receive_rtcp(address(2), &checks.request(true));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    for _ in 0..5 {
        bench.now += Duration::from_secs(20);
        let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
        assert_eq!(bench.receive_rtcp(address(2), &report), Received::Rtcp(8));
        bench.link.handle_timeout(bench.now, &mut bench.batch);
        assert_eq!(bench.link.poll_event(), None);
    }
    assert_eq!(bench.send(1).unwrap().1, address(1));
    for sequence in 1..=5 {
        bench.now += Duration::from_secs(20);
        let media = rtp(1, sequence, 0, &[1; 20]);
        assert_eq!(bench.receive(address(1), &media).0, Received::Rtp(32));
        bench.link.handle_timeout(bench.now, &mut bench.batch);
        assert_eq!(bench.link.poll_event(), None);
    }
}

#[test]
fn consent_ends_on_the_old_pair_of_an_ice_restart_that_comes_to_nothing() {
    let transport = Transport {
        ice: Some(ice()),
        rtcp_mux: true,
        ..plain(0)
    };
    let mut bench = Bench::new(&transport);
    bench.receive(address(1), &IcePeer::new(&ice()).request(true));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    bench.now += Duration::from_secs(20);
    for round in 0..2 {
        // A second restart does not begin the time anew.
        bench.update(&Transport {
            ice: Some(Ice {
                local_ufrag: format!("new{round}"),
                ..ice()
            }),
            ..transport.clone()
        });
        bench.now += Duration::from_secs(4);
        bench.link.handle_timeout(bench.now, &mut bench.batch);
        assert_eq!(bench.send(1).unwrap().1, address(1));
        assert_eq!(bench.link.poll_event(), None);
    }
    bench.now += Duration::from_secs(3);
    bench.link.handle_timeout(bench.now, &mut bench.batch);
    assert!(bench.send(2).is_none());
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::ConsentLost));
    assert_eq!(bench.link.poll_event(), None);
    assert_eq!(
        bench.link.take_forgotten().collect::<Vec<_>>(),
        [(RTP, address(1))]
    );
    let packet = rtp(1, 1, 0, &[1; 20]);
    assert_eq!(bench.receive(address(1), &packet).0, Received::Stranger);
}

#[test]
fn what_befalls_the_rtcp_component_is_told_too() {
    let mut bench = Bench::new(&Transport {
        ice: Some(ice()),
        ..plain(0)
    });
    let mut checks = IcePeer::new(&ice());
    bench.receive(address(1), &checks.request(true));
    bench.receive_rtcp(address(2), &checks.request(true));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    bench.now += Duration::from_secs(29);
    bench.receive(address(1), &checks.request(true));
    bench.now += Duration::from_secs(2);
    bench.link.handle_timeout(bench.now, &mut bench.batch);
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::ConsentLost));
    assert_eq!(bench.link.poll_event(), None);

    let (peer, impostor) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let mut bench = Bench::new(&Transport {
        rtcp_mux: false,
        ..dtls(&peer, DtlsRole::Server)
    });
    let mut checks = IcePeer::new(&ice());
    bench.receive_rtcp(address(2), &checks.request(true));
    bench.out();
    let ours = Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut client = Association::new(&impostor, Role::Client, vec![ours]).unwrap();
    client.start(bench.now);
    for _ in 0..10 {
        while let Some(datagram) = client.poll_transmit() {
            bench.receive_rtcp(address(2), &datagram);
        }
        for (_, datagram) in bench.out() {
            client.handle_datagram(&datagram, bench.now);
        }
    }
    let event = bench.link.poll_event();
    assert!(
        matches!(&event, Some(LinkEvent::DtlsFailed(reason)) if reason.contains("fingerprint")),
        "{event:?}"
    );
}

#[test]
fn a_moved_signalled_address_is_followed_and_a_hold_by_zero_stops_sending() {
    let mut bench = Bench::new(&plain(4000));
    bench.update(&plain(5000));
    assert_eq!(bench.send(1).unwrap().1, address(5000));
    bench.update(&Transport {
        remote_address: "0.0.0.0".into(),
        ..plain(5000)
    });
    assert!(bench.send(2).is_none());
    bench.update(&plain(4000));
    assert_eq!(bench.send(3).unwrap().1, address(4000));
}

#[test]
fn impossible_descriptions_are_refused_with_a_reason() {
    let refused = |transport: Transport| Spec::parse(&transport).unwrap_err();
    assert_eq!(refused(Transport::default()), LinkError::Security(0));
    assert_eq!(
        refused(Transport {
            remote_address: "example.org".into(),
            ..plain(1)
        }),
        LinkError::Address(0)
    );
    assert_eq!(
        refused(Transport {
            remote_port: 70_000,
            ..plain(1)
        }),
        LinkError::Address(0)
    );
    let mut short = sdes(1, Some(2));
    short.sdes.as_mut().unwrap().local_key = Bytes::from_static(b"short");
    assert_eq!(refused(short), LinkError::Sdes(0));
    assert_eq!(
        refused(Transport {
            ice: Some(Ice {
                local_pwd: "short".into(),
                ..ice()
            }),
            ..plain(1)
        }),
        LinkError::Ice(0)
    );
}

#[test]
fn without_rtcp_mux_each_component_has_its_own_checks_and_handshake() {
    let peer = Identity::generate().unwrap();
    let mut bench = Bench::new(&Transport {
        rtcp_mux: false,
        ..dtls(&peer, DtlsRole::Server)
    });
    let mut checks = IcePeer::new(&ice());
    bench.receive(address(1), &checks.request(true));
    assert_eq!(
        bench.receive_rtcp(address(2), &checks.request(true)),
        Received::Handled
    );
    bench.out();
    let ours = || Fingerprint::new("sha-256", bench.identity.fingerprint()).unwrap();
    let mut media = Association::new(&peer, Role::Client, vec![ours()]).unwrap();
    let mut control = Association::new(&peer, Role::Client, vec![ours()]).unwrap();
    bench.handshake(&mut media, address(1));
    assert_eq!(bench.link.poll_event(), Some(LinkEvent::Up));
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    assert!(
        !bench.link.send_rtcp(&report, &mut bench.batch),
        "its own keys are not there yet"
    );
    control.start(bench.now);
    let mut keys = None;
    for _ in 0..10 {
        while let Some(datagram) = control.poll_transmit() {
            bench.receive_rtcp(address(2), &datagram);
        }
        for (to, datagram) in bench.out() {
            assert_eq!(to, address(2));
            if let Some(Event::Connected(made)) = control.handle_datagram(&datagram, bench.now) {
                keys = Some(made);
            }
        }
    }
    let keys = keys.expect("a second handshake");
    assert!(bench.link.send_rtcp(&report, &mut bench.batch));
    let sent = bench.batch.get(0).unwrap();
    assert_eq!((sent.socket, sent.remote), (RTCP, address(2)));
    let mut opener = Opener::new(keys.profile, &keys.remote).unwrap();
    assert_eq!(opener.open_rtcp(&mut sent.bytes.to_vec()), Ok(8));
}
