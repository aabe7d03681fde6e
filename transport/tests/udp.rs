//! UDP: flows, keepalives, STUN.

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{V4, V6, bind, failed, listen, message, options, soon};
use sip::{FlowId, Hop, Transport};
use tokio::net::UdpSocket;
use transport::{Options, Transports};

#[tokio::test]
async fn a_datagram_is_answered_on_its_flow() {
    for address in [V4, V6] {
        let (transports, mut input, at) = bind(Transport::Udp, address, Options::default());
        let phone = UdpSocket::bind(address).await.unwrap();
        phone.send_to(&options("a"), at).await.unwrap();
        let (hop, bytes) = message(&mut input).await;
        assert_eq!(bytes, options("a"));
        assert_eq!(
            (hop.transport, hop.remote),
            (Transport::Udp, phone.local_addr().unwrap())
        );
        assert_eq!(hop.local, Some(at));
        transports.send(1, hop, Bytes::from_static(b"answer"));
        let mut buffer = [0; 100];
        let (length, from) = soon(phone.recv_from(&mut buffer)).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"answer"[..], at));
        phone.send_to(&options("b"), at).await.unwrap();
        assert_eq!(
            message(&mut input).await.0.flow,
            hop.flow,
            "the flow is the same every time"
        );
    }
}

#[tokio::test]
async fn a_socket_for_all_cards_answers_from_the_one_that_was_reached() {
    for (any, reached) in [
        ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2"][..]),
        ("[::]:0", &["::1"]),
    ] {
        let (transports, mut input, at) = bind(Transport::Udp, any, Options::default());
        for ip in reached {
            let at = SocketAddr::new(ip.parse().unwrap(), at.port());
            let phone = UdpSocket::bind((at.ip(), 0)).await.unwrap();
            phone.connect(at).await.unwrap();
            phone.send(&options("a")).await.unwrap();
            let (hop, _) = message(&mut input).await;
            assert_eq!(hop.local, Some(at));
            // A connected socket takes nothing from elsewhere.
            transports.send(1, hop, Bytes::from_static(b"answer"));
            let mut buffer = [0; 100];
            let length = soon(phone.recv(&mut buffer)).await.unwrap();
            assert_eq!(&buffer[..length], b"answer");
            let mut binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42".to_vec();
            binding.extend_from_slice(b"123456789012");
            phone.send(&binding).await.unwrap();
            soon(phone.recv(&mut buffer)).await.unwrap();
            assert_eq!(&buffer[..2], b"\x01\x01");
        }
    }
}

#[tokio::test]
async fn what_was_to_leave_from_an_address_that_is_gone_leaves_from_another() {
    let (transports, _input, at) = bind(Transport::Udp, "0.0.0.0:0", Options::default());
    let phone = UdpSocket::bind(V4).await.unwrap();
    let gone = SocketAddr::new("192.0.2.77".parse().unwrap(), at.port());
    let hop = Hop {
        local: Some(gone),
        ..Hop::to(Transport::Udp, phone.local_addr().unwrap())
    };
    transports.send(1, hop, Bytes::from_static(b"x"));
    soon(phone.recv_from(&mut [0; 100])).await.unwrap();
}

#[tokio::test]
async fn a_flow_is_of_one_socket_and_one_remote() {
    let listeners = [listen(Transport::Udp, V4), listen(Transport::Udp, V4)];
    let (transports, mut input) = Transports::bind(&listeners, None, Options::default()).unwrap();
    let second = transports.local_addresses()[1].address;
    let phone = UdpSocket::bind(V4).await.unwrap();
    phone.send_to(&options("a"), second).await.unwrap();
    let (hop, _) = message(&mut input).await;
    // By the flow alone, out of the socket the phone knows.
    transports.send(1, Hop { local: None, ..hop }, Bytes::from_static(b"x"));
    let mut buffer = [0; 100];
    assert_eq!(soon(phone.recv_from(&mut buffer)).await.unwrap().1, second);
    let flow = hop.flow.map(|f| FlowId(f.0 ^ 1));
    transports.send(2, Hop { flow, ..hop }, Bytes::from_static(b"x"));
    assert_eq!(
        failed(&mut input).await,
        2,
        "a flow of another process or remote"
    );
    let other = UdpSocket::bind(V4).await.unwrap().local_addr().unwrap();
    transports.send(
        3,
        Hop {
            remote: other,
            ..hop
        },
        Bytes::from_static(b"x"),
    );
    assert_eq!(failed(&mut input).await, 3, "the flow does not lead there");
    transports.send(
        4,
        Hop::to(Transport::Udp, "[::1]:5060".parse().unwrap()),
        Bytes::from_static(b"x"),
    );
    assert_eq!(failed(&mut input).await, 4, "no socket of the family");
    transports.send(5, hop, Bytes::from(vec![b'x'; 70_000]));
    assert_eq!(failed(&mut input).await, 5, "more than a datagram holds");
}

#[tokio::test]
async fn keepalives_are_not_messages_and_stun_is_answered() {
    let (_transports, mut input, at) = bind(Transport::Udp, V4, Options::default());
    let phone = UdpSocket::bind(V4).await.unwrap();
    for keepalive in [&b"\r\n\r\n"[..], b"\r\n", b"\0\0\0\0", b""] {
        phone.send_to(keepalive, at).await.unwrap();
    }
    let mut binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42".to_vec();
    binding.extend_from_slice(b"123456789012");
    phone.send_to(&binding, at).await.unwrap();
    let mut buffer = [0; 100];
    let (length, _) = soon(phone.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..2], b"\x01\x01");
    assert_eq!(&buffer[8..20], b"123456789012");
    let port = u16::from_be_bytes([buffer[26], buffer[27]]) ^ 0x2112;
    assert_eq!((length, port), (32, phone.local_addr().unwrap().port()));
    phone
        .send_to(&[b"\r\n", &options("a")[..]].concat(), at)
        .await
        .unwrap();
    assert_eq!(
        message(&mut input).await.1,
        options("a"),
        "the first message, its leading CRLF gone"
    );
}

#[tokio::test]
async fn datagrams_beyond_the_input_queue_are_dropped_and_nothing_blocks() {
    let bounds = Options {
        input_queue: 2,
        ..Options::default()
    };
    let (transports, mut input, at) = bind(Transport::Udp, V4, bounds);
    let phone = UdpSocket::bind(V4).await.unwrap();
    for n in 0..50 {
        phone.send_to(&options(&n.to_string()), at).await.unwrap();
    }
    // Proof that the socket was read to its end: STUN does not go through the queue.
    let mut binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42".to_vec();
    binding.extend_from_slice(b"123456789012");
    phone.send_to(&binding, at).await.unwrap();
    soon(phone.recv_from(&mut [0; 100])).await.unwrap();
    assert_eq!(message(&mut input).await.1, options("0"));
    assert_eq!(message(&mut input).await.1, options("1"));
    assert!(input.try_recv().is_err());
    drop(transports);
    assert!(
        soon(input.recv()).await.is_none(),
        "all tasks end with the last handle"
    );
}
