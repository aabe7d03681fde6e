//! The control protocol over real gRPC, and what the switch holds afterwards.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::Duration;

use control::{ApplyRequest, EventsRequest};
use tonic::Code;

mod common;
use common::{Phone, Rig, config, request};

#[tokio::test]
async fn a_lower_epoch_is_refused_and_changes_nothing() {
    let mut rig = Rig::start().await;
    let phone = Phone::new(1).await;
    let first = rig.apply(request("a", 5, vec![phone.leg()])).await.unwrap();
    let stale = rig.apply(request("a", 4, vec![])).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    assert_eq!(rig.inspect().await.legs, 1);
    let same = rig.apply(request("a", 5, vec![phone.leg()])).await.unwrap();
    assert_eq!(same.legs, first.legs, "same request, same ports");
    let newer = rig.apply(request("a", 6, vec![phone.leg()])).await.unwrap();
    assert_eq!(newer.legs, first.legs, "a takeover keeps the ports");
    let stale = rig.apply(request("a", 5, vec![])).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn an_ended_meeting_is_not_revived_by_an_old_owner() {
    let mut rig = Rig::start().await;
    let phone = Phone::new(1).await;
    rig.apply(request("a", 7, vec![phone.leg()])).await.unwrap();
    let end = ApplyRequest {
        end: true,
        ..request("a", 7, vec![])
    };
    rig.apply(end).await.unwrap();
    assert_eq!(rig.inspect().await.legs, 0);
    let stale = rig
        .apply(request("a", 6, vec![phone.leg()]))
        .await
        .unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    rig.apply(request("a", 8, vec![phone.leg()])).await.unwrap();
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn ports_are_counted_and_free_again_when_legs_go() {
    let mut rig = Rig::start().await;
    let mut phones = Vec::new();
    for number in 1..=3 {
        phones.push(Phone::new(number).await);
    }
    // Behind NAT, each on ports of its own.
    let own = |phone: &Phone| {
        let mut leg = phone.leg();
        leg.transports[0].latch = true;
        leg
    };
    for round in 0..20 {
        let legs = phones.iter().map(own).collect();
        let epoch = 1 + round;
        let response = rig.apply(request("a", epoch, legs)).await.unwrap();
        let view = rig.inspect().await;
        assert_eq!((view.legs, view.ports_in_use), (3, 6), "RTP and RTCP each");
        let mut ports = Vec::new();
        for leg in &response.legs {
            assert_eq!(leg.refused, "");
            ports.push(leg.transports[0].addresses[0].port as u16);
            ports.push(leg.transports[0].rtcp_port as u16);
        }
        assert!(UdpSocket::bind(("127.0.0.1", ports[0])).is_err(), "taken");
        rig.apply(request("a", epoch, vec![own(&phones[0])]))
            .await
            .unwrap();
        assert_eq!(rig.inspect().await.ports_in_use, 2);
        let end = ApplyRequest {
            end: true,
            ..request("a", epoch, vec![])
        };
        rig.apply(end).await.unwrap();
        let view = rig.inspect().await;
        assert_eq!((view.legs, view.ports_in_use), (0, 0));
        assert!(view.meetings.is_empty());
        for port in ports {
            // The socket closes with its reader task, a moment after the answer.
            let mut freed = false;
            for _ in 0..200 {
                freed = UdpSocket::bind(("127.0.0.1", port)).is_ok();
                if freed {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(freed, "port {port} leaks");
        }
    }
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn the_capacity_is_that_of_all_workers_together() {
    let mut rig = Rig::with(switch::Config {
        workers: 2,
        capacity: 3,
        ..config()
    })
    .await;
    let mut legs = Vec::new();
    for number in 1..=5 {
        legs.push(Phone::new(number).await.leg());
    }
    rig.apply(request("a", 1, legs[..2].to_vec()))
        .await
        .unwrap();
    rig.apply(request("b", 1, legs[2..3].to_vec()))
        .await
        .unwrap();
    let more = rig
        .apply(request("b", 1, legs[2..4].to_vec()))
        .await
        .unwrap();
    assert_eq!(more.legs[1].refused, "the switch is full");
    let full = rig.apply(request("c", 1, legs[4..].to_vec())).await;
    assert_eq!(full.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(rig.inspect().await.legs, 3);
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn a_leg_without_a_free_port_is_refused_by_itself() {
    // Find a hole of four ports, and give the switch just that.
    let hole = (0..200).find_map(|_| {
        let first = UdpSocket::bind("127.0.0.1:0").ok()?;
        let port = first.local_addr().ok()?.port().next_multiple_of(2);
        drop(first);
        let all: Option<Vec<_>> = (port..port.checked_add(4)?)
            .map(|port| UdpSocket::bind(("127.0.0.1", port)).ok())
            .collect();
        all.map(|_| port)
    });
    let port = hole.expect("four free ports in a row");
    let mut rig = Rig::with(switch::Config {
        plain_ports: [port, port + 3],
        ..config()
    })
    .await;
    let mut legs = Vec::new();
    for number in 1..=3 {
        let mut leg = Phone::new(number).await.leg();
        leg.transports[0].latch = true; // a port of its own
        legs.push(leg);
    }
    let response = rig.apply(request("a", 1, legs)).await.unwrap();
    let refused: Vec<_> = response.legs.iter().map(|l| l.refused.as_str()).collect();
    assert_eq!(refused, ["", "", "no free media port"]);
    assert_eq!(rig.inspect().await.legs, 2);
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn events_begin_with_hello_and_tell_the_owner_who_connected() {
    let mut rig = Rig::start().await;
    let subscribe = EventsRequest {
        version: control::VERSION,
        member: "m".into(),
        meeting: String::new(),
    };
    let mut events = rig.client.events(subscribe).await.unwrap().into_inner();
    let hello = events.message().await.unwrap().unwrap().event.unwrap();
    let control::event::Event::Hello(hello) = hello else {
        panic!("not Hello: {hello:?}")
    };
    assert_eq!(hello.certificate[0].algorithm, "sha-256");
    assert_eq!(hello.certificate[0].value.len(), 32);
    let mut phone = Phone::new(1).await;
    let response = rig.apply(request("a", 1, vec![phone.leg()])).await.unwrap();
    assert_eq!(response.instance, hello.instance);
    phone.learn(&response);
    phone.say(0x80).await;
    let connected = async {
        loop {
            let event = events.message().await.unwrap().unwrap().event;
            if let Some(control::event::Event::Leg(leg)) = event {
                return leg;
            }
        }
    };
    let leg = tokio::time::timeout(Duration::from_secs(5), connected)
        .await
        .expect("an event");
    assert_eq!(leg.kind(), control::leg_event::Kind::Connected);
    assert_eq!(
        (leg.leg.as_str(), leg.meeting.as_str(), leg.epoch),
        ("phone-1", "a", 1)
    );
    rig.switch.shutdown().await;
}

/// Reads until a leg's event of that kind.
async fn told(
    events: &mut tonic::Streaming<control::Event>,
    kind: control::leg_event::Kind,
) -> control::LegEvent {
    let wanted = async {
        loop {
            let event = events.message().await.unwrap().expect("the stream ended");
            if let Some(control::event::Event::Leg(leg)) = event.event
                && leg.kind() == kind
            {
                return leg;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wanted)
        .await
        .expect("an event")
}

#[tokio::test]
async fn a_failure_that_stands_is_told_to_a_new_stream_and_to_a_new_owner() {
    use control::leg_event::Kind::MediaTimeout;
    let mut rig = Rig::start().await;
    let subscribe = |member: &str| EventsRequest {
        version: control::VERSION,
        member: member.into(),
        meeting: String::new(),
    };
    let phone = Phone::new(1).await;
    let wanted = ApplyRequest {
        policy: Some(control::MeetingPolicy {
            audio_slots: 3,
            media_timeout_ms: 100,
        }),
        ..request("a", 1, vec![phone.leg()])
    };
    let mut client = rig.client.clone();
    let mut first = client.events(subscribe("m")).await.unwrap().into_inner();
    rig.apply(wanted.clone()).await.unwrap();
    assert_eq!(told(&mut first, MediaTimeout).await.leg, "phone-1");
    drop(first);

    let mut again = client.events(subscribe("m")).await.unwrap().into_inner();
    assert_eq!(told(&mut again, MediaTimeout).await.leg, "phone-1");

    let mut other = client.events(subscribe("n")).await.unwrap().into_inner();
    let taken = ApplyRequest {
        member: "n".into(),
        epoch: 2,
        full: false,
        ..wanted
    };
    rig.apply(taken).await.unwrap();
    let leg = told(&mut other, MediaTimeout).await;
    assert_eq!((leg.leg.as_str(), leg.epoch), ("phone-1", 2));
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn a_meeting_that_its_owner_and_its_legs_have_left_is_ended() {
    let mut rig = Rig::with(switch::Config {
        orphan_timeout: 2,
        ..config()
    })
    .await;
    let subscribe = EventsRequest {
        version: control::VERSION,
        member: "m".into(),
        meeting: String::new(),
    };
    let _events = rig.client.clone().events(subscribe).await.unwrap();
    let policy = Some(control::MeetingPolicy {
        audio_slots: 3,
        media_timeout_ms: 100,
    });
    let (mut alive, silent, held) = (
        Phone::new(1).await,
        Phone::new(2).await,
        Phone::new(3).await,
    );
    let wanted = |meeting: &str, leg: control::Leg| ApplyRequest {
        policy,
        ..request(meeting, 1, vec![leg])
    };
    let response = rig.apply(wanted("alive", alive.leg())).await.unwrap();
    alive.learn(&response);
    // On hold no media are expected: silence says nothing while the owner listens.
    let mut on_hold = held.leg();
    on_hold.media[0].receive = false;
    rig.apply(wanted("held", on_hold.clone())).await.unwrap();
    // Of this one the owner is gone altogether.
    let unowned = ApplyRequest {
        member: "gone".into(),
        ..wanted("unowned", on_hold)
    };
    rig.apply(unowned).await.unwrap();
    rig.apply(wanted("silent", silent.leg())).await.unwrap();
    assert_eq!(rig.inspect().await.ports_in_use, 4, "a pair a worker");
    let begun = tokio::time::Instant::now();
    let mut left = Vec::new();
    for _ in 0..500 {
        alive.say(0xff).await;
        let view = rig.inspect().await;
        left = view.meetings.iter().map(|m| m.meeting.clone()).collect();
        left.sort();
        let early = begun.elapsed() < Duration::from_secs(1); // of two
        assert!(!early || left.len() == 4, "too early: {left:?}");
        if left.len() == 2 && begun.elapsed() > Duration::from_secs(3) {
            assert_eq!(view.ports_in_use, 4, "one is left on each");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left, ["alive", "held"]);
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn a_meeting_of_thousands_can_be_applied_at_once() {
    let mut rig = Rig::start().await;
    rig.client = rig
        .client
        .clone()
        .max_encoding_message_size(control::MAX_MESSAGE);
    let mut leg = Phone::new(1).await.leg();
    // What browsers say of a codec can be long; none of these is made, so that no port is taken.
    leg.transports[0].security = control::Security::Unspecified.into();
    leg.media[0].codecs[0].fmtp = "x".repeat(3_000);
    let legs = (1..=4_000)
        .map(|source| control::Leg {
            id: format!("leg-{source}"),
            source,
            ..leg.clone()
        })
        .collect();
    let response = rig.apply(request("a", 1, legs)).await.unwrap();
    assert_eq!(response.legs.len(), 4_000);
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn a_draining_switch_and_one_without_a_lease_take_no_new_meeting() {
    let mut rig = Rig::start().await;
    let phone = Phone::new(1).await;
    rig.apply(request("old", 1, vec![phone.leg()]))
        .await
        .unwrap();
    rig.store.down.store(true, Ordering::Relaxed);
    let mut refused = None;
    for _ in 0..100 {
        match rig.apply(request("new", 1, vec![phone.leg()])).await {
            Err(status) => {
                refused = Some(status);
                break;
            }
            Ok(_) => {
                let end = ApplyRequest {
                    end: true,
                    ..request("new", 1, vec![])
                };
                rig.apply(end).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let refused = refused.expect("refused once the lease is lost");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("lease"));
    rig.apply(request("old", 1, vec![phone.leg()]))
        .await
        .expect("running meetings go on");
    rig.store.down.store(false, Ordering::Relaxed);
    rig.switch.set_draining(true);
    let drained = rig.apply(request("other", 1, vec![phone.leg()])).await;
    assert!(drained.unwrap_err().message().contains("draining"));
    rig.switch.set_draining(false);
    // as soon as its lease is back
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while let Err(e) = rig.apply(request("other", 1, vec![phone.leg()])).await {
        assert!(e.message().contains("lease"), "{e}");
        assert!(tokio::time::Instant::now() < deadline, "{e}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.switch.shutdown().await;
}

#[tokio::test]
async fn the_record_is_in_the_store_while_the_switch_runs() {
    use cluster::Store;
    let rig = Rig::start().await;
    let key = cluster::records::keys::switch("switch-1");
    let entry = rig.store.get(&key).await.unwrap().expect("registered");
    let record: cluster::records::SwitchRecord = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(
        record.control,
        format!("http://{}", rig.switch.control_address())
    );
    assert_eq!(record.fingerprints[0].0, "sha-256");
    let store = rig.store.clone();
    rig.switch.shutdown().await;
    assert!(store.get(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn orders_of_neighbouring_versions_are_taken_and_others_refused() {
    let mut rig = Rig::start().await;
    let of = |version: u32| ApplyRequest {
        version,
        ..request("a", 1, vec![])
    };
    rig.apply(of(control::VERSION + 1)).await.expect("the next");
    for version in [0, control::VERSION + 2] {
        let refused = rig.apply(of(version)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("understands"), "{refused}");
    }
    let later = EventsRequest {
        version: control::VERSION + 2,
        member: "m".into(),
        meeting: String::new(),
    };
    let refused = rig.client.events(later).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    rig.switch.shutdown().await;
}
