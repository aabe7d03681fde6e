//! Media through real sockets.

use std::time::Duration;

mod common;
use common::{Phone, Rig, request};

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
