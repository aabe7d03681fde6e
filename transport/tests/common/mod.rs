//! Parts shared by the transport tests: real sockets on the loopback, ports taken free.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sip::{FlowId, Hop, Transport};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use transport::{Input, Listen, Options, Transports};

pub const V4: &str = "127.0.0.1:0";
pub const V6: &str = "[::1]:0";

/// A well-formed request without a body.
pub fn options(call_id: &str) -> Bytes {
    Bytes::from(format!(
        "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK{call_id}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:b@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\n\
         Call-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ))
}

pub fn listen(transport: Transport, address: &str) -> Listen {
    Listen {
        transport,
        address: address.parse().unwrap(),
    }
}

/// One listener, with its address.
pub fn bind(
    transport: Transport,
    address: &str,
    options: Options,
) -> (Transports, mpsc::Receiver<Input>, SocketAddr) {
    let listeners = [listen(transport, address)];
    let (transports, input) = Transports::bind(&listeners, None, options).unwrap();
    let at = transports.local_addresses()[0].address;
    (transports, input, at)
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("within ten seconds")
}

pub async fn message(input: &mut mpsc::Receiver<Input>) -> (Hop, Bytes) {
    match soon(input.recv()).await {
        Some(Input::Message { hop, bytes }) => (hop, bytes),
        other => panic!("{other:?} instead of a message"),
    }
}

pub async fn closed(input: &mut mpsc::Receiver<Input>) -> FlowId {
    match soon(input.recv()).await {
        Some(Input::FlowClosed(flow)) => flow,
        other => panic!("{other:?} instead of a closed flow"),
    }
}

pub async fn failed(input: &mut mpsc::Receiver<Input>) -> u64 {
    match soon(input.recv()).await {
        Some(Input::SendFailed { id, .. }) => id,
        other => panic!("{other:?} instead of a failed send"),
    }
}

/// Reads exactly as much as is expected, and compares.
pub async fn expect(stream: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&got),
        String::from_utf8_lossy(expected)
    );
}

/// Reads to the end; a reset counts as one.
pub async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut got = Vec::new();
    let _ = soon(stream.read_to_end(&mut got)).await;
    String::from_utf8(got).unwrap()
}
