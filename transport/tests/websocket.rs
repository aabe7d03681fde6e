//! SIP over WebSocket, from the moment the HTTP server has upgraded the stream.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{V4, closed, message, options, soon};
use futures_util::{SinkExt as _, StreamExt as _};
use sip::{Hop, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use transport::{Input, Options, Transports};

type Browser = WebSocketStream<TcpStream>;

/// A browser connected through a small HTTP server.
async fn browser(transports: &Transports, secure: bool) -> Browser {
    let server = TcpListener::bind(V4).await.unwrap();
    let at = server.local_addr().unwrap();
    let accept = async {
        let (stream, peer) = server.accept().await.unwrap();
        let upgraded = tokio_tungstenite::accept_async(stream).await.unwrap();
        transports
            .accept_websocket(upgraded.into_inner(), peer, at, secure)
            .unwrap()
    };
    let connect = async {
        let stream = TcpStream::connect(at).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{at}/"), stream)
            .await
            .unwrap()
            .0
    };
    soon(async { tokio::join!(connect, accept) }).await.0
}

fn bind(options: Options) -> (Transports, mpsc::Receiver<Input>) {
    Transports::bind(&[], None, options).unwrap()
}

async fn next(browser: &mut Browser) -> Message {
    soon(browser.next())
        .await
        .expect("a frame")
        .expect("a good one")
}

#[tokio::test]
async fn every_frame_is_a_message_both_ways() {
    let (transports, mut input) = bind(Options::default());
    let mut browser = browser(&transports, true).await;
    let text = String::from_utf8(options("a").to_vec()).unwrap();
    browser.send(Message::text(text)).await.unwrap();
    let (hop, bytes) = message(&mut input).await;
    assert_eq!((hop.transport, bytes), (Transport::Wss, options("a")));
    assert_eq!(hop.remote, browser.get_ref().local_addr().unwrap());
    browser.send(Message::binary(options("b"))).await.unwrap();
    assert_eq!(message(&mut input).await, (hop, options("b")));

    transports.send(1, hop, Bytes::from_static(b"SIP/2.0 200 OK"));
    assert_eq!(next(&mut browser).await, Message::text("SIP/2.0 200 OK"));
    transports.send(2, Hop { flow: None, ..hop }, Bytes::from_static(b"\xff"));
    assert_eq!(
        next(&mut browser).await,
        Message::binary(Bytes::from_static(b"\xff")),
        "not UTF-8"
    );
    browser.send(Message::text("\r\n\r\n")).await.unwrap();
    assert_eq!(next(&mut browser).await, Message::text("\r\n"));
    browser
        .send(Message::Ping(Bytes::from_static(b"p")))
        .await
        .unwrap();
    assert_eq!(
        next(&mut browser).await,
        Message::Pong(Bytes::from_static(b"p"))
    );
    browser.close(None).await.unwrap();
    assert_eq!(Some(closed(&mut input).await), hop.flow);
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection() {
    let (transports, mut input) = bind(Options::default());
    let mut browser = browser(&transports, false).await;
    browser
        .send(Message::text("x".repeat(70_000)))
        .await
        .unwrap();
    let Message::Close(Some(frame)) = next(&mut browser).await else {
        panic!("a close frame")
    };
    assert_eq!(frame.code, CloseCode::Size);
    closed(&mut input).await;
}

#[tokio::test]
async fn silent_browsers_are_pinged_and_dead_ones_closed() {
    let bounds = Options {
        websocket_ping: Duration::from_millis(100),
        ..Options::default()
    };
    let (transports, mut input) = bind(bounds);
    let mut living = browser(&transports, false).await;
    // Reading answers the pings: it stays well beyond two of them.
    for _ in 0..5 {
        assert!(matches!(next(&mut living).await, Message::Ping(_)));
    }
    assert!(input.try_recv().is_err());
    // Now it reads no more.
    closed(&mut input).await;
}

#[tokio::test]
async fn closing_a_flow_says_goodbye() {
    let (transports, mut input) = bind(Options::default());
    let mut browser = browser(&transports, false).await;
    browser.send(Message::binary(options("a"))).await.unwrap();
    let (hop, _) = message(&mut input).await;
    transports.send(1, hop, Bytes::from_static(b"last"));
    transports.close_flow(hop.flow.unwrap());
    assert_eq!(
        next(&mut browser).await,
        Message::text("last"),
        "what was queued comes first"
    );
    assert!(
        matches!(next(&mut browser).await, Message::Close(Some(f)) if f.code == CloseCode::Away)
    );
    closed(&mut input).await;
}
