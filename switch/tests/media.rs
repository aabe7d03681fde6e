//! Media through real sockets.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod common;
#[path = "../core/tests/peer/mod.rs"]
mod peer;
use common::{Phone, Rig, config, request};

/// µ-law: a loud octet, and near silence.
const LOUD: u8 = 0x90;
const QUIET: u8 = 0xff;

#[tokio::test]
async fn who_speaks_is_heard_by_the_others_and_named_by_the_csrc() {
    let mut rig = Rig::start().await;
    let mut phones = Vec::new();
    for number in 1..=3 {
        phones.push(Phone::new(number).await);
    }
    let legs = phones.iter().map(Phone::leg).collect();
    let response = rig.apply(request("a", 1, legs)).await.unwrap();
    phones.iter_mut().for_each(|phone| phone.learn(&response));

    let mut heard = [0, 0, 0];
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..150 {
        tick.tick().await;
        for (at, phone) in phones.iter_mut().enumerate() {
            phone.say(if at == 0 { LOUD } else { QUIET }).await;
        }
        for (at, phone) in phones.iter().enumerate() {
            while let Some((csrcs, payload)) = phone.hear(Duration::from_millis(1)).await {
                assert_eq!(payload.len(), 160);
                if csrcs == [1] && payload[0] == LOUD {
                    heard[at] += 1;
                }
            }
        }
    }
    assert_eq!(heard[0], 0, "nobody receives themself");
    assert!(heard[1] > 75 && heard[2] > 75, "{heard:?}");

    let view = rig.inspect().await;
    let first = &view.meetings[0].legs[0];
    assert!(first.connected);
    assert_eq!(
        first.remote,
        phones[0].socket.local_addr().unwrap().to_string()
    );
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn packets_from_elsewhere_than_signalled_reach_nobody() {
    let mut rig = Rig::start().await;
    let (mut alice, mut bob) = (Phone::new(1).await, Phone::new(2).await);
    let legs = vec![alice.leg(), bob.leg()];
    let response = rig.apply(request("a", 1, legs)).await.unwrap();
    alice.learn(&response);
    bob.learn(&response);
    // An intruder sends loudly to Alice's port, as Alice.
    let mut intruder = Phone::new(1).await;
    intruder.switch = alice.switch;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..50 {
        tick.tick().await;
        intruder.say(LOUD).await;
        bob.say(QUIET).await;
        assert!(bob.hear(Duration::from_millis(1)).await.is_none());
    }
    let view = rig.inspect().await;
    let alice = view.meetings[0].legs.iter().find(|l| l.id == "phone-1");
    assert!(!alice.unwrap().connected);
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn on_every_address_each_peer_is_answered_from_the_one_it_reached() {
    let mut rig = Rig::with(switch::Config {
        listen: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        advertise: vec!["127.0.0.3".parse().unwrap()],
        ..config()
    })
    .await;
    let (mut phone, browser) = (Phone::new(1).await, Phone::new(2).await);
    let ice = control::Ice {
        local_ufrag: "swit".into(),
        local_pwd: "switchswitchswitchswitch".into(),
        remote_ufrag: "peer".into(),
        remote_pwd: "peerpeerpeerpeerpeerpeer".into(),
    };
    let mut leg = browser.leg();
    leg.transports[0].ice = Some(ice.clone());
    leg.transports[0].rtcp_mux = true;
    let response = rig
        .apply(request("a", 1, vec![phone.leg(), leg]))
        .await
        .unwrap();
    phone.learn(&response);
    let shared = response.legs[1].transports[0].addresses[0].port as u16;
    let receive = async |socket: &tokio::net::UdpSocket| {
        let mut buffer = [0; 2048];
        let received = socket.recv_from(&mut buffer);
        let received = tokio::time::timeout(Duration::from_secs(5), received).await;
        let (len, from) = received.expect("a datagram").unwrap();
        (buffer[..len].to_vec(), from)
    };
    // The same socket of the peer's, two addresses of the switch: two pairs, and each has its answer.
    let mut checks = peer::IcePeer::new(&ice);
    for (ip, nominate) in [("127.0.0.2", false), ("127.0.0.4", true)] {
        let to = SocketAddr::new(ip.parse().unwrap(), shared);
        let check = checks.request(nominate);
        browser.socket.send_to(&check, to).await.unwrap();
        let (answer, from) = receive(&browser.socket).await;
        assert_eq!((answer[0], from), (1, to));
    }
    // Media to each comes from where it sends its own to.
    let mut browser = browser;
    browser.switch = Some(SocketAddr::new("127.0.0.4".parse().unwrap(), shared));
    let mut heard = (None, None);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        tick.tick().await;
        phone.say(LOUD).await;
        browser.say(LOUD).await;
        for (of, at) in [(&phone, &mut heard.0), (&browser, &mut heard.1)] {
            let mut buffer = [0; 2048];
            while let Ok((len, from)) = of.socket.try_recv_from(&mut buffer) {
                if len == 12 + 4 + 160 {
                    *at = Some(from);
                }
            }
        }
        if heard.0.is_some() && heard.1.is_some() {
            break;
        }
    }
    assert_eq!(heard, (phone.switch, browser.switch));
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn a_meeting_of_five_thousand_is_served_by_several_threads() {
    const LISTENERS: u32 = 5_000;
    let mut rig = Rig::with(switch::Config {
        capacity: 6_000,
        ..config()
    })
    .await;
    rig.client = rig
        .client
        .clone()
        .max_encoding_message_size(control::MAX_MESSAGE)
        .max_decoding_message_size(control::MAX_MESSAGE);
    let mut speaker = Phone::new(1).await;
    // A socket hears for a hundred, each at an address of its own.
    let mut ears = Vec::new();
    for _ in 0..LISTENERS / 100 {
        ears.push(tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap());
    }
    let mut legs = vec![speaker.leg()];
    for number in 2..=LISTENERS + 1 {
        let mut leg = speaker.leg();
        leg.id = format!("phone-{number}");
        leg.source = number;
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
        leg.transports[0].remote_address = ip.to_string();
        let ear = &ears[number as usize % ears.len()];
        leg.transports[0].remote_port = ear.local_addr().unwrap().port().into();
        leg.media[0].slot.as_mut().unwrap().ssrc = 0x5000_0000 + number;
        legs.push(leg);
    }
    let response = rig.apply(request("a", 1, legs)).await.unwrap();
    assert!(response.legs.iter().all(|leg| leg.refused.is_empty()));
    speaker.learn(&response);
    let mut missing: HashSet<u32> = (2..=LISTENERS + 1).map(|n| 0x5000_0000 + n).collect();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut buffer = [0u8; 2048];
    for _ in 0..500 {
        tick.tick().await;
        speaker.say(LOUD).await;
        for ear in &ears {
            while let Ok(len) = ear.try_recv(&mut buffer) {
                if len > 160 && buffer[12..16] == 1u32.to_be_bytes() {
                    let ssrc = [buffer[8], buffer[9], buffer[10], buffer[11]];
                    missing.remove(&u32::from_be_bytes(ssrc));
                }
            }
        }
        if missing.is_empty() {
            break;
        }
    }
    assert!(missing.is_empty(), "{} never heard a thing", missing.len());
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn a_meeting_that_floods_its_worker_does_not_silence_another() {
    const LISTENERS: u32 = 400;
    let mut rig = Rig::with(switch::Config {
        workers: 1,
        ..config()
    })
    .await;
    let mut flooder = Phone::new(1).await;
    let sink = std::net::UdpSocket::bind("0.0.0.0:0").unwrap(); // never read
    let mut legs = vec![flooder.leg()];
    for number in 2..=LISTENERS + 1 {
        let mut leg = flooder.leg();
        leg.id = format!("phone-{number}");
        leg.source = number;
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 2, 0, 0)) + number);
        leg.transports[0].remote_address = ip.to_string();
        leg.transports[0].remote_port = sink.local_addr().unwrap().port().into();
        leg.media[0].slot.as_mut().unwrap().ssrc = 0x5000_0000 + number;
        legs.push(leg);
    }
    let response = rig.apply(request("busy", 1, legs)).await.unwrap();
    flooder.learn(&response);
    let (mut alice, mut bob) = (Phone::new(1_001).await, Phone::new(1_002).await);
    let legs = vec![alice.leg(), bob.leg()];
    let response = rig.apply(request("calm", 1, legs)).await.unwrap();
    alice.learn(&response);
    bob.learn(&response);
    // Many times what a worker has time for, from a thread of its own.
    let stop = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let stop = Arc::clone(&stop);
        let (socket, to) = (flooder.socket.into_std().unwrap(), flooder.switch.unwrap());
        move || {
            let mut packet = peer::rtp(0x1001, 0, 0, &[LOUD; 160]);
            for sequence in 0..=u16::MAX {
                packet[2..4].copy_from_slice(&sequence.to_be_bytes());
                let _ = socket.send_to(&packet, to);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if sequence % 8 == 0 {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        }
    });
    let mut heard = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..100 {
        tick.tick().await;
        alice.say(LOUD).await;
        while bob.hear(Duration::from_millis(1)).await.is_some() {
            heard += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    while heard < 95 && bob.hear(Duration::from_secs(5)).await.is_some() {
        heard += 1;
    }
    assert!(heard >= 95, "{heard} of 100");
    rig.switch.shutdown().await;
}
