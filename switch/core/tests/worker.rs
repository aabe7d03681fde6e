//! A worker with a client at each leg's other end: every kind of security in one meeting.

use std::net::SocketAddr;
use std::time::Duration;

use control::{ApplyRequest, DtlsRole, Security};
use switch_core::worker::{ApplyError, SocketId};

mod peer;
mod rig;
use peer::{IcePeer, rtp};
use rig::*;

#[test]
fn each_kind_of_leg_is_heard_by_every_other_kind() {
    let mut rig = Rig::new();
    let mut clients = everyone();
    meet(&mut rig, &mut clients);
    for speaker in 0..clients.len() {
        clients.iter_mut().for_each(|client| client.heard.clear());
        // The one before keeps the slot for a hangover of 40 frames.
        for _ in 0..110 {
            for at in 0..clients.len() {
                let octet = if at == speaker { LOUD } else { QUIET };
                let (mut client, rest) = (clients.remove(at), &mut clients);
                client.say(&mut rig, octet);
                rest.insert(at, client);
            }
            rig.step(&mut clients);
        }
        let source = clients[speaker].source;
        for (at, client) in clients.iter().enumerate() {
            let loud = client
                .heard
                .iter()
                .filter(|p| p[0] & 15 == 1 && p[12..16] == source.to_be_bytes() && p[16] == LOUD)
                .count();
            if at == speaker {
                assert_eq!(loud, 0, "nobody receives themself");
            } else {
                assert!(loud > 50, "{} hears {source} {loud} times", client.id);
            }
            // One unbroken stream, across the sealer's roll-over too.
            let numbers: Vec<u16> = client
                .heard
                .iter()
                .map(|p| u16::from_be_bytes([p[2], p[3]]))
                .collect();
            assert!(
                numbers.windows(2).all(|w| w[1] == w[0].wrapping_add(1)),
                "{}: gaps",
                client.id
            );
        }
    }
    assert!(clients.iter().all(|client| client.reports > 0), "RTCP too");
    let connected = rig.events();
    for client in &clients {
        let kind = control::leg_event::Kind::Connected;
        assert!(
            connected.contains(&(client.id.clone(), kind)),
            "{}",
            client.id
        );
    }
    let view = &rig.worker.inspect(rig.now, None)[0];
    let profiles: Vec<_> = view.legs.iter().map(|l| l.srtp_profile.as_str()).collect();
    assert_eq!(profiles[0], "");
    assert_eq!(profiles[1], "AES_CM_128_HMAC_SHA1_80");
    assert_eq!(profiles[5], "AEAD_AES_128_GCM");
    assert_eq!(view.legs[6].remote, clients[6].address.to_string());
    assert_eq!(rig.worker.stats().bad, 0);
    assert_eq!(rig.worker.stats().strangers, 0);
}

#[test]
fn the_same_request_again_and_a_takeover_disturb_no_packet() {
    let mut rig = Rig::new();
    let mut clients = everyone();
    let states = meet(&mut rig, &mut clients);
    for round in 0..100u64 {
        if round % 20 == 0 {
            assert_eq!(rig.apply(&request(1 + round, &clients)), states);
        }
        for at in 0..clients.len() {
            let mut client = clients.remove(at);
            client.say(&mut rig, if at == 5 { LOUD } else { QUIET });
            clients.insert(at, client);
        }
        rig.step(&mut clients);
    }
    for client in &clients {
        let numbers: Vec<u16> = client
            .heard
            .iter()
            .map(|p| u16::from_be_bytes([p[2], p[3]]))
            .collect();
        assert!(numbers.len() > 50 || client.source == 6, "{}", client.id);
        assert!(numbers.windows(2).all(|w| w[1] == w[0].wrapping_add(1)));
    }
    assert_eq!(rig.worker.stats().bad, 0);
}

#[test]
fn a_stale_owner_is_refused_before_any_port_is_touched() {
    let mut rig = Rig::new();
    let clients = everyone();
    rig.apply(&request(5, &clients));
    let open = rig.ports.open.clone();
    let stale = rig
        .worker
        .apply(rig.now, &request(4, &clients[..1]), &mut rig.ports);
    assert_eq!(stale, Err(ApplyError::Stale { highest: 5 }));
    assert_eq!(rig.ports.open, open);
    assert_eq!(rig.worker.legs(), clients.len());
}

#[test]
fn ports_and_legs_are_all_gone_when_the_meeting_ends() {
    let mut rig = Rig::new();
    let mut clients = everyone();
    meet(&mut rig, &mut clients);
    // One pair for all who said where they are.
    assert_eq!(rig.ports.open.len(), 2);
    rig.apply(&request(1, &clients[..3]));
    assert_eq!(rig.ports.open.len(), 2);
    assert_eq!(rig.worker.legs(), 3);
    let gone = clients[5].sealer.is_some();
    assert!(gone);
    let end = ApplyRequest {
        end: true,
        ..request(1, &[])
    };
    rig.apply(&end);
    assert!(rig.ports.open.is_empty());
    assert_eq!((rig.worker.legs(), rig.worker.meetings()), (0, 0));
    assert_eq!(rig.worker.poll_timeout(), None);
    // What still arrives finds nobody.
    let before = rig.worker.stats().strangers;
    let check = IcePeer::new(&clients[5].ice()).request(true);
    rig.drain();
    rig.give(SHARED, clients[5].address, &check);
    rig.give(SocketId(1), clients[0].address, &rtp(1, 1, 1, &[0; 20]));
    assert_eq!(rig.worker.stats().strangers, before + 2);
    assert!(rig.drain().is_empty());
}

#[test]
fn a_leg_without_a_port_or_with_nonsense_is_refused_alone_and_leaks_nothing() {
    let mut rig = Rig::new();
    rig.ports.most = 3;
    let clients = everyone();
    let mut wanted = request(1, &clients[..3]);
    wanted.legs[0].transports[0].latch = true;
    wanted.legs[1].transports[0].latch = true;
    wanted.legs[2].transports[0].security = Security::Unspecified.into();
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "");
    assert_eq!(states[1].refused, "no free media port");
    assert!(!states[1].unsupported, "it may be there later");
    assert!(states[2].refused.contains("security"));
    assert_eq!(rig.ports.open.len(), 2);
    assert_eq!(rig.worker.legs(), 1);
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_leg_as_it_was() {
    let mut rig = Rig::new();
    let clients = everyone();
    let first = rig.apply(&request(1, &clients[..2]));
    let mut wanted = request(1, &clients[..2]);
    wanted.legs[0].transports[0].ipv6 = true;
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "the media server has no IPv6 address");
    assert_eq!(rig.worker.legs(), 2, "its dialog goes on, so it does too");
    let again = rig.apply(&request(1, &clients[..1]));
    assert_eq!(again[0], first[0], "on its ports");
}

#[test]
fn a_plain_leg_of_a_family_that_the_switch_has_not_is_refused_for_good() {
    let mut rig = Rig::new();
    let clients = everyone();
    let mut wanted = request(1, &clients[..1]);
    wanted.legs[0].transports[0].ipv6 = true;
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "the media server has no IPv6 address");
    assert!(states[0].unsupported);
    assert!(rig.ports.open.is_empty());
}

#[test]
fn two_legs_cannot_claim_one_ufrag() {
    let mut rig = Rig::new();
    let clients = [
        Client::new(6, Kind::DtlsIce(DtlsRole::Server)),
        Client::new(7, Kind::DtlsIce(DtlsRole::Server)),
    ];
    let mut wanted = request(1, &clients);
    wanted.legs[1].transports[0].ice = Some(clients[0].ice());
    let states = rig.apply(&wanted);
    assert_eq!(states[0].refused, "");
    assert!(states[1].refused.contains("ufrag"), "{}", states[1].refused);
}

#[test]
fn agreeing_on_rtcp_mux_later_gives_the_second_port_back_and_keeps_the_first() {
    let mut rig = Rig::new();
    let clients = [Client::new(1, Kind::Plain)];
    let mut wanted = request(1, &clients);
    wanted.legs[0].transports[0].latch = true; // a port of its own
    let first = rig.apply(&wanted);
    assert_eq!(rig.ports.open.len(), 2);
    wanted.legs[0].transports[0].rtcp_mux = true;
    let second = rig.apply(&wanted);
    assert_eq!(rig.ports.open.len(), 1);
    assert_eq!(
        first[0].transports[0].addresses,
        second[0].transports[0].addresses
    );
    assert_eq!(second[0].transports[0].rtcp_port, 0);
}

#[test]
fn a_check_with_anothers_address_takes_nothing_from_that_one() {
    let mut rig = Rig::new();
    let mut clients = vec![
        Client::new(6, Kind::DtlsIce(DtlsRole::Server)),
        Client::new(8, Kind::SdesIce),
    ];
    meet(&mut rig, &mut clients);
    let victim = clients[0].address;
    let forged = IcePeer::new(&clients[1].ice()).request(true);
    let before = rig.worker.stats();
    rig.give(SHARED, victim, &forged);
    assert!(rig.drain().is_empty(), "no answer");
    for _ in 0..30 {
        let mut client = clients.remove(0);
        client.say(&mut rig, LOUD);
        clients.insert(0, client);
        rig.step(&mut clients);
    }
    let after = rig.worker.stats();
    assert_eq!(
        (after.strangers, after.bad),
        (before.strangers + 1, before.bad)
    );
    assert!(clients[1].heard.len() > 20, "{}", clients[1].heard.len());
    // Who goes makes room, on every address of ours that he reached.
    let other = SocketId(9_999);
    let check = IcePeer::new(&clients[0].ice()).request(false);
    rig.give(other, victim, &check);
    assert_eq!(rig.drain().len(), 1, "answered");
    rig.apply(&request(1, &clients[1..]));
    rig.drain();
    for socket in [SHARED, other] {
        rig.give(socket, victim, &forged);
        assert_eq!(rig.drain().len(), 1, "answered");
    }
}

#[test]
fn a_phone_that_died_gets_its_address_back_in_seconds() {
    let mut rig = Rig::new();
    let mut clients = vec![Client::new(6, Kind::SdesIce), Client::new(8, Kind::SdesIce)];
    meet(&mut rig, &mut clients);
    let again = IcePeer::new(&clients[1].ice()).request(true);
    let address = clients[0].address;
    rig.drain();
    rig.give(SHARED, address, &again);
    assert!(rig.drain().is_empty(), "its owner was just heard");
    rig.now += Duration::from_secs(6);
    rig.give(SHARED, address, &again);
    assert_eq!(rig.drain().len(), 1, "answered");
}

#[test]
fn consent_lost_is_reported_to_the_owner() {
    let mut rig = Rig::new();
    let mut clients = vec![Client::new(8, Kind::SdesIce)];
    meet(&mut rig, &mut clients);
    rig.events();
    for _ in 0..40 {
        rig.now += Duration::from_secs(1);
        rig.worker.handle_timeout(rig.now);
        rig.drain();
    }
    let lost = control::leg_event::Kind::ConsentLost;
    let told = rig.events();
    let count = told.iter().filter(|(_, kind)| *kind == lost).count();
    assert_eq!(count, 1, "{told:?}");
}

#[test]
fn garbage_on_every_socket_is_counted_and_answered_by_nothing() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
    let mut rig = Rig::new();
    let mut clients = everyone();
    meet(&mut rig, &mut clients);
    rig.drain();
    for _ in 0..20_000 {
        let client = &clients[rng.random_range(0..clients.len())];
        let len = rng.random_range(0..200);
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0, 1, 20, 22, 23, 63, 0x80, 0x90, 0xb0, *first][rng.random_range(0..10)];
        }
        let stranger = SocketAddr::from(([203, 0, 113, 1], 1));
        let from = if rng.random() {
            client.address
        } else {
            stranger
        };
        rig.give(client.socket, from, &bytes);
        for (_, remote, _) in rig.drain() {
            assert_ne!(remote, stranger);
        }
    }
    rig.step(&mut []);
}
