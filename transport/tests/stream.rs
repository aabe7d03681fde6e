//! TCP: framing, keepalives, reuse, limits, PROXY protocol.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::{V4, V6, bind, closed, expect, failed, message, options, rest, soon};
use sip::{Hop, Transport};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use transport::{Options, Refused};

#[tokio::test]
async fn messages_come_whole_and_in_order_however_they_are_cut() {
    for address in [V4, V6] {
        let (transports, mut input, at) = bind(Transport::Tcp, address, Options::default());
        let mut phone = TcpStream::connect(at).await.unwrap();
        phone.set_nodelay(true).unwrap();
        let both = [&options("a")[..], b"\r\n\r\n", &options("b")].concat();
        for part in both.chunks(7) {
            phone.write_all(part).await.unwrap();
        }
        let (hop, bytes) = message(&mut input).await;
        assert_eq!(bytes, options("a"));
        assert_eq!(
            (hop.remote, hop.local),
            (phone.local_addr().unwrap(), Some(at))
        );
        let (second, bytes) = message(&mut input).await;
        assert_eq!((second, bytes), (hop, options("b")));
        expect(&mut phone, b"\r\n").await;
        transports.send(1, hop, Bytes::from_static(b"answer"));
        expect(&mut phone, b"answer").await;
        assert_eq!(transports.connections(), 1);
        drop(phone);
        assert_eq!(Some(closed(&mut input).await), hop.flow);
        assert_eq!(transports.connections(), 0);
        transports.send(2, hop, Bytes::from_static(b"late"));
        assert_eq!(failed(&mut input).await, 2);
    }
}

#[tokio::test]
async fn a_connection_is_opened_when_needed_and_used_again() {
    let (transports, mut input, _) = bind(Transport::Tcp, V4, Options::default());
    let peer = TcpListener::bind(V4).await.unwrap();
    let hop = Hop::to(Transport::Tcp, peer.local_addr().unwrap());
    transports.send(1, hop, Bytes::from_static(b"one "));
    transports.send(2, hop, Bytes::from_static(b"two "));
    let (mut stream, _) = soon(peer.accept()).await.unwrap();
    expect(&mut stream, b"one two ").await;
    stream.write_all(&options("a")).await.unwrap();
    let (back, _) = message(&mut input).await;
    assert_eq!(back.remote, hop.remote);
    transports.send(3, back, Bytes::from_static(b"three"));
    expect(&mut stream, b"three").await;
    assert_eq!(transports.connections(), 1);
    // Over its own connection an accepted peer is reached too, without naming the flow.
    let flow = back.flow.unwrap();
    assert!(transports.is_open(flow));
    transports.close_flow(flow);
    assert_eq!(closed(&mut input).await, flow);
    assert!(!transports.is_open(flow));
    assert_eq!(rest(&mut stream).await, "");
    transports.send(4, hop, Bytes::from_static(b"anew"));
    let (mut stream, _) = soon(peer.accept()).await.unwrap();
    expect(&mut stream, b"anew").await;
}

#[tokio::test]
async fn what_cannot_be_connected_fails_with_its_id() {
    let (transports, mut input, _) = bind(Transport::Tcp, V4, Options::default());
    let dead = TcpListener::bind(V4).await.unwrap().local_addr().unwrap();
    transports.send(7, Hop::to(Transport::Tcp, dead), Bytes::from_static(b"x"));
    transports.send(8, Hop::to(Transport::Tcp, dead), Bytes::from_static(b"x"));
    assert_eq!((failed(&mut input).await, failed(&mut input).await), (7, 8));
    transports.send(9, Hop::to(Transport::Ws, dead), Bytes::from_static(b"x"));
    assert_eq!(
        failed(&mut input).await,
        9,
        "a browser cannot be connected to"
    );
    transports.send(10, Hop::to(Transport::Tls, dead), Bytes::from_static(b"x"));
    assert_eq!(failed(&mut input).await, 10);
    assert_eq!(transports.connections(), 0);
}

#[tokio::test]
async fn a_message_without_a_length_is_answered_and_the_connection_closed() {
    let (_transports, mut input, at) = bind(Transport::Tcp, V4, Options::default());
    let mut phone = TcpStream::connect(at).await.unwrap();
    let whole = String::from_utf8(options("a").to_vec()).unwrap();
    phone
        .write_all(
            whole
                .replace("Content-Length: 0", "Content-Length: x")
                .as_bytes(),
        )
        .await
        .unwrap();
    let answer = rest(&mut phone).await;
    assert!(answer.starts_with("SIP/2.0 400 "), "{answer}");
    assert!(answer.contains("Call-ID: a\r\n"), "{answer}");
    closed(&mut input).await;
}

#[tokio::test]
async fn a_peer_that_never_says_anything_valid_is_closed() {
    let bounds = Options {
        first_message_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let (_transports, mut input, at) = bind(Transport::Tcp, V4, bounds);
    let mut silent = TcpStream::connect(at).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    closed(&mut input).await;
    // Keepalives alone prove nothing.
    let mut pinging = TcpStream::connect(at).await.unwrap();
    let ended = soon(async {
        while pinging.write_all(b"\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    ended.await;
    closed(&mut input).await;
}

#[tokio::test]
async fn a_message_that_trickles_is_given_up() {
    let bounds = Options {
        message_timeout: Duration::from_millis(200),
        ..Options::default()
    };
    let (_transports, mut input, at) = bind(Transport::Tcp, V4, bounds);
    let mut phone = TcpStream::connect(at).await.unwrap();
    phone.write_all(&options("a")).await.unwrap();
    message(&mut input).await;
    let ended = soon(async {
        // Each byte comes in time, the whole does not.
        for byte in options("b").iter() {
            if phone.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await;
    closed(&mut input).await;
    assert!(
        input.try_recv().is_err(),
        "the second message never came whole"
    );
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_and_what_it_did_not_get_fails() {
    let bounds = Options {
        write_queue: 8,
        ..Options::default()
    };
    let (transports, mut input, at) = bind(Transport::Tcp, V4, bounds);
    let mut phone = TcpStream::connect(at).await.unwrap();
    phone.write_all(&options("a")).await.unwrap();
    let (hop, _) = message(&mut input).await;
    let block = Bytes::from(vec![b'x'; 60_000]);
    let mut id = 0;
    // The kernel's buffers take some megabytes; then the queue fills.
    while transports.is_open(hop.flow.unwrap()) {
        id += 1;
        assert!(id < 100_000, "never closed");
        transports.send(id, hop, block.clone());
        tokio::task::yield_now().await;
    }
    let mut lost = Vec::new();
    loop {
        match soon(input.recv()).await.unwrap() {
            transport::Input::SendFailed { id, .. } => lost.push(id),
            transport::Input::FlowClosed(_) => break,
            other => panic!("{other:?}"),
        }
    }
    lost.sort_unstable();
    assert!(
        lost.len() > 8 && lost.len() <= 10,
        "the queue, the one being written, the one too many: {lost:?}"
    );
    assert_eq!(lost.last(), Some(&id));
    assert!(
        lost.windows(2).all(|w| w[1] == w[0] + 1),
        "the last ones: {lost:?}"
    );
}

#[tokio::test]
async fn connections_are_limited_in_all_and_by_source() {
    let bounds = Options {
        max_connections: 3,
        max_connections_per_source: 2,
        ..Options::default()
    };
    let (transports, mut input, at) = bind(Transport::Tcp, V4, bounds);
    let mut phones = Vec::new();
    for n in 0..2 {
        let mut phone = TcpStream::connect(at).await.unwrap();
        phone.write_all(&options(&n.to_string())).await.unwrap();
        message(&mut input).await;
        phones.push(phone);
    }
    let mut third = TcpStream::connect(at).await.unwrap();
    assert_eq!(rest(&mut third).await, "", "refused");
    let (stream, _) = tokio::io::duplex(64);
    let local: SocketAddr = "192.0.2.1:1".parse().unwrap();
    assert!(
        transports
            .accept_websocket(stream, local, at, false)
            .is_ok(),
        "from elsewhere"
    );
    let (stream, _) = tokio::io::duplex(64);
    assert_eq!(
        transports.accept_websocket(stream, local, at, false),
        Err(Refused::TooMany)
    );
    let dead = Hop::to(Transport::Tcp, "127.0.0.1:9".parse().unwrap());
    closed(&mut input).await;
    transports.shutdown(Duration::from_secs(5)).await;
    transports.send(5, dead, Bytes::from_static(b"x"));
    loop {
        if let Some(transport::Input::SendFailed { id: 5, .. }) = soon(input.recv()).await {
            break;
        }
    }
}

#[tokio::test]
async fn shutting_down_writes_what_is_queued_first() {
    let (transports, mut input, at) = bind(Transport::Tcp, V4, Options::default());
    let mut phone = TcpStream::connect(at).await.unwrap();
    phone.write_all(&options("a")).await.unwrap();
    let (hop, _) = message(&mut input).await;
    for _ in 0..100 {
        transports.send(1, hop, Bytes::from_static(b"0123456789"));
    }
    transports.shutdown(Duration::from_secs(5)).await;
    assert_eq!(rest(&mut phone).await.len(), 1000);
    assert!(
        TcpStream::connect(at).await.is_err(),
        "nobody listens any more"
    );
}

fn behind_balancer() -> Options {
    Options {
        proxy_protocol_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Options::default()
    }
}

#[tokio::test]
async fn from_a_balancer_the_proxy_header_says_who_it_is() {
    let (transports, mut input, at) = bind(Transport::Tcp, V4, behind_balancer());
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 5060\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24".to_vec();
    v2.extend_from_slice(
        &"2001:db8::7"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    v2.extend_from_slice(
        &"2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    v2.extend_from_slice(&[0x12, 0x67, 0x13, 0xc4]);
    for (header, source) in [(v1, "192.0.2.7:4711"), (v2, "[2001:db8::7]:4711")] {
        for chunk in [1, 1000] {
            let mut phone = TcpStream::connect(at).await.unwrap();
            phone.set_nodelay(true).unwrap();
            for part in [&header[..], &options("a")].concat().chunks(chunk) {
                phone.write_all(part).await.unwrap();
            }
            let (hop, bytes) = message(&mut input).await;
            assert_eq!((hop.remote, bytes), (source.parse().unwrap(), options("a")));
            transports.send(1, Hop { flow: None, ..hop }, Bytes::from_static(b"answer"));
            expect(&mut phone, b"answer").await;
            drop(phone);
            closed(&mut input).await;
        }
    }
}

#[tokio::test]
async fn a_balancers_health_check_is_itself() {
    let (_transports, mut input, at) = bind(Transport::Tcp, V4, behind_balancer());
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
    ] {
        let mut check = TcpStream::connect(at).await.unwrap();
        check
            .write_all(&[header, &options("a")].concat())
            .await
            .unwrap();
        assert_eq!(
            message(&mut input).await.0.remote,
            check.local_addr().unwrap()
        );
        drop(check);
        closed(&mut input).await;
    }
}

#[tokio::test]
async fn a_balancer_without_a_header_and_a_header_without_a_balancer_are_refused() {
    let (_transports, mut input, at) = bind(Transport::Tcp, V4, behind_balancer());
    let mut phone = TcpStream::connect(at).await.unwrap();
    phone.write_all(&options("a")).await.unwrap();
    assert_eq!(rest(&mut phone).await, "");
    let mut endless = TcpStream::connect(at).await.unwrap();
    endless
        .write_all(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat())
        .await
        .unwrap();
    assert_eq!(rest(&mut endless).await, "");
    assert!(
        input.try_recv().is_err(),
        "nothing of it was taken for a message"
    );

    let (_direct, mut input, at) = bind(Transport::Tcp, V4, Options::default());
    let mut liar = TcpStream::connect(at).await.unwrap();
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 5060\r\n";
    liar.write_all(&[&header[..], &options("a")].concat())
        .await
        .unwrap();
    match soon(input.recv()).await.unwrap() {
        transport::Input::Message { hop, bytes } => {
            assert_eq!(hop.remote, liar.local_addr().unwrap(), "never believed");
            assert!(bytes.starts_with(b"PROXY"));
        }
        transport::Input::FlowClosed(_) => {}
        other @ transport::Input::SendFailed { .. } => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_balancer_that_sends_nothing_is_given_up() {
    let bounds = Options {
        handshake_timeout: Duration::from_millis(100),
        ..behind_balancer()
    };
    let (transports, _input, at) = bind(Transport::Tcp, V4, bounds);
    let mut silent = TcpStream::connect(at).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    drop(silent);
    assert_eq!(transports.connections(), 0);
}
