//! Legs without ICE share ports; the peer's address says whose a packet is.

use std::net::SocketAddr;

use control::DtlsRole;
use switch_core::worker::SocketId;

mod peer;
mod rig;
use peer::{IcePeer, rtp};
use rig::*;

/// The port that a leg's peer is told, for one of its transports.
fn port(states: &[control::LegState], leg: usize, transport: usize) -> u32 {
    states[leg].transports[transport].addresses[0].port
}

fn plain(numbers: impl IntoIterator<Item = u32>) -> Vec<Client> {
    let client = |number| Client::new(number, Kind::Plain);
    numbers.into_iter().map(client).collect()
}

/// The first talks; how many packets each of the others hears from there.
fn talk(rig: &mut Rig, clients: &mut [Client]) -> Vec<usize> {
    clients.iter_mut().for_each(|c| c.heard.clear());
    for _ in 0..50 {
        clients[0].say(rig, LOUD);
        rig.step(clients);
    }
    clients[1..].iter().map(|c| c.heard.len()).collect()
}

#[test]
fn peers_who_said_where_they_are_share_a_port() {
    let mut rig = Rig::new();
    let mut clients = plain(1..=3);
    let states = meet(&mut rig, &mut clients);
    assert_eq!(port(&states, 0, 0), port(&states, 1, 0));
    assert_eq!(port(&states, 0, 0), port(&states, 2, 0));
    assert!(talk(&mut rig, &mut clients).iter().all(|heard| *heard > 40));
    let before = rig.worker.stats().strangers;
    let stranger: SocketAddr = "203.0.113.66:4000".parse().unwrap();
    rig.give(clients[0].socket, stranger, &rtp(1, 1, 1, &[0; 160]));
    assert_eq!(rig.worker.stats().strangers, before + 1);
}

#[test]
fn a_peer_behind_nat_has_a_port_of_its_own() {
    let mut rig = Rig::new();
    let clients = plain(1..=2);
    let mut wanted = request(1, &clients);
    wanted.legs[1].transports[0].latch = true;
    let states = rig.apply(&wanted);
    assert_ne!(port(&states, 0, 0), port(&states, 1, 0));
}

#[test]
fn two_who_name_one_address_are_told_apart_by_their_ports() {
    let mut rig = Rig::new();
    let mut clients = plain(1..=3);
    clients[2].address = clients[1].address;
    let states = rig.apply(&request(1, &clients));
    assert_eq!(port(&states, 0, 0), port(&states, 1, 0));
    assert_ne!(port(&states, 1, 0), port(&states, 2, 0));
    clients
        .iter_mut()
        .for_each(|c| c.connect(&mut rig, &states));
    for _ in 0..50 {
        clients[2].say(&mut rig, LOUD);
        rig.step(&mut clients);
    }
    assert!(clients[0].heard.len() > 40);
    let source = clients[2].source.to_be_bytes();
    assert!(clients[0].heard.iter().all(|p| p[12..16] == source));
    // The second gone, its address is free for who comes next.
    let mut others = plain([1, 4]);
    rig.apply(&request(1, &others[..1]));
    others[1].address = clients[2].address;
    let states = rig.apply(&request(1, &others));
    assert_eq!(port(&states, 0, 0), port(&states, 1, 0));
}

#[test]
fn two_streams_of_a_leg_have_different_ports() {
    let mut rig = Rig::new();
    let clients = plain(1..=2);
    let mut wanted = request(1, &clients);
    for leg in &mut wanted.legs {
        let mut second = leg.transports[0].clone();
        second.index = 1;
        second.remote_port += 100;
        leg.transports.push(second);
    }
    let states = rig.apply(&wanted);
    assert_ne!(port(&states, 0, 0), port(&states, 0, 1));
    assert_eq!(port(&states, 0, 0), port(&states, 1, 0));
    assert_eq!(port(&states, 0, 1), port(&states, 1, 1));
    assert_eq!(rig.ports.open.len(), 2 * 2);
    wanted.legs.truncate(1);
    rig.apply(&wanted);
    assert_eq!(rig.ports.open.len(), 2 * 2, "one is still there");
    wanted.legs.clear();
    rig.apply(&wanted);
    assert!(rig.ports.open.is_empty());
}

#[test]
fn who_moves_keeps_the_port_and_is_heard_from_the_new_address_alone() {
    let mut rig = Rig::new();
    let mut clients = plain(1..=2);
    let first = meet(&mut rig, &mut clients);
    let old = clients[0].address;
    clients[0].address = "203.0.113.77:7000".parse().unwrap();
    let second = rig.apply(&request(1, &clients));
    assert_eq!(port(&first, 0, 0), port(&second, 0, 0));
    assert!(talk(&mut rig, &mut clients)[0] > 40);
    let before = rig.worker.stats().strangers;
    rig.give(clients[0].socket, old, &rtp(1, 1, 1, &[0; 160]));
    assert_eq!(rig.worker.stats().strangers, before + 1);
    // Where somebody is already, it cannot move to on this port.
    clients[0].address = clients[1].address;
    let third = rig.apply(&request(1, &clients));
    assert_eq!(third[0].refused, "");
    assert_ne!(port(&third, 0, 0), port(&third, 1, 0));
    assert_eq!(port(&first, 1, 0), port(&third, 1, 0), "the other stays");
}

#[test]
fn hold_by_an_address_of_zeros_keeps_the_port_and_sends_nothing() {
    let mut rig = Rig::new();
    let mut clients = plain(1..=2);
    let first = meet(&mut rig, &mut clients);
    let mut wanted = request(1, &clients);
    wanted.legs[1].transports[0].remote_address = "0.0.0.0".into();
    let held = rig.apply(&wanted);
    assert_eq!(port(&first, 1, 0), port(&held, 1, 0));
    assert_eq!(talk(&mut rig, &mut clients), [0]);
    rig.apply(&request(1, &clients));
    assert!(talk(&mut rig, &mut clients)[0] > 40);
}

#[test]
fn agreeing_on_rtcp_mux_on_a_shared_port_takes_nothing_from_the_others() {
    let mut rig = Rig::new();
    let mut clients = plain(1..=2);
    let first = meet(&mut rig, &mut clients);
    let mut wanted = request(1, &clients);
    wanted.legs[0].transports[0].rtcp_mux = true;
    let second = rig.apply(&wanted);
    assert_eq!(second[0].transports[0].rtcp_port, 0);
    assert_eq!(second[1], first[1]);
    assert_eq!(rig.ports.open.len(), 2);
    assert!(talk(&mut rig, &mut clients)[0] > 40);
}

#[test]
fn a_check_of_a_browser_on_a_phones_port_takes_nothing_from_the_phone() {
    let mut rig = Rig::new();
    let mut clients = vec![
        Client::new(1, Kind::Plain),
        Client::new(2, Kind::Plain),
        Client::new(6, Kind::DtlsIce(DtlsRole::Server)),
    ];
    meet(&mut rig, &mut clients);
    assert_ne!(clients[0].socket, SocketId(0));
    let check = IcePeer::new(&clients[2].ice()).request(true);
    let before = rig.worker.stats().strangers;
    rig.give(clients[0].socket, clients[0].address, &check);
    assert_eq!(rig.worker.stats().strangers, before + 1);
    assert!(talk(&mut rig, &mut clients)[0] > 40);
}
