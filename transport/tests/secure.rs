//! TLS: certificates made and kept, verified connections both ways.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{V4, V6, closed, expect, failed, listen, message, options, rest, soon};
use sip::{Hop, Transport};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use transport::tls::{CertificateSource, Identity, Trust, client_config, load_or_generate};
use transport::{BindError, Options, Transports};

fn identity(directory: &std::path::Path, names: &[&str]) -> Identity {
    let source = CertificateSource::Directory(directory.to_owned());
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    load_or_generate(&source, &names).unwrap()
}

/// A server, and a client of its own that trusts the server's certificate.
fn pair(
    directory: &std::path::Path,
    address: &str,
    trust: &Trust,
) -> [(Transports, tokio::sync::mpsc::Receiver<transport::Input>); 2] {
    let config = identity(directory, &["sip.example.com"])
        .server_config()
        .unwrap();
    let listeners = [listen(Transport::Tls, address)];
    let server = Transports::bind(&listeners, Some(config), Options::default()).unwrap();
    let client_tls = Some(client_config(trust).unwrap());
    let client = Transports::bind(
        &[],
        None,
        Options {
            client_tls,
            ..Options::default()
        },
    )
    .unwrap();
    [server, client]
}

#[tokio::test]
async fn both_ends_talk_over_a_verified_connection() {
    for address in [V4, V6] {
        let directory = tempfile::tempdir().unwrap();
        let trust = Trust::File(directory.path().join("certificate.pem"));
        identity(directory.path(), &["sip.example.com"]);
        let [(server, mut at_server), (client, mut at_client)] =
            pair(directory.path(), address, &trust);
        let hop = Hop::to(Transport::Tls, server.local_addresses()[0].address);
        client.send(1, hop, options("a"));
        let (back, bytes) = message(&mut at_server).await;
        assert_eq!((back.transport, bytes), (Transport::Tls, options("a")));
        server.send(2, back, options("b"));
        assert_eq!(message(&mut at_client).await.1, options("b"));
        client.send_to_host(3, hop, "sip.example.com", options("c"));
        let (other, bytes) = message(&mut at_server).await;
        assert_eq!(bytes, options("c"));
        assert_ne!(
            other.flow, back.flow,
            "verified by another name: another connection"
        );
        client.send_to_host(4, hop, "evil.example.com", options("d"));
        assert_eq!(
            failed(&mut at_client).await,
            4,
            "not the name in the certificate"
        );
    }
}

#[tokio::test]
async fn a_stranger_is_not_talked_to_unless_verification_is_off() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    identity(other.path(), &[]);
    let trust = Trust::File(other.path().join("certificate.pem"));
    let [(server, _at_server), (client, mut at_client)] = pair(directory.path(), V4, &trust);
    let hop = Hop::to(Transport::Tls, server.local_addresses()[0].address);
    client.send(1, hop, options("a"));
    assert_eq!(failed(&mut at_client).await, 1);

    let [(server, mut at_server), (client, _at_client)] =
        pair(directory.path(), V4, &Trust::Unverified);
    client.send(
        1,
        Hop::to(Transport::Tls, server.local_addresses()[0].address),
        options("a"),
    );
    assert_eq!(message(&mut at_server).await.1, options("a"));
}

#[tokio::test]
async fn clients_may_offer_any_alpn_and_plain_text_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [(server, mut input), _] = pair(directory.path(), V4, &Trust::Unverified);
    let at = server.local_addresses()[0].address;
    let mut config = rustls::ClientConfig::clone(&client_config(&Trust::Unverified).unwrap());
    config.alpn_protocols = vec![b"sip/2".to_vec()];
    let stream = TcpStream::connect(at).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut phone = soon(TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .unwrap();
    phone.write_all(&options("a")).await.unwrap();
    let (hop, _) = message(&mut input).await;
    server.send(1, hop, Bytes::from_static(b"answer"));
    expect(&mut phone, b"answer").await;

    let mut plain = TcpStream::connect(at).await.unwrap();
    plain.write_all(&options("b")).await.unwrap();
    rest_is_no_sip(&mut plain).await;
    drop(phone);
    closed(&mut input).await;
    assert!(input.try_recv().is_err());
}

async fn rest_is_no_sip(stream: &mut TcpStream) {
    let mut got = Vec::new();
    let _ = soon(tokio::io::AsyncReadExt::read_to_end(stream, &mut got)).await;
    // At most a TLS alert record.
    assert!(got.is_empty() || got[0] == 21, "{got:?}");
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let config = identity(directory.path(), &[]).server_config().unwrap();
    let bounds = Options {
        handshake_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let listeners = [listen(Transport::Tls, V4)];
    let (server, _input) = Transports::bind(&listeners, Some(config), bounds).unwrap();
    let mut silent = TcpStream::connect(server.local_addresses()[0].address)
        .await
        .unwrap();
    assert_eq!(rest(&mut silent).await, "");
}

#[tokio::test]
async fn listeners_that_cannot_be_opened_are_named() {
    let tls = Transports::bind(&[listen(Transport::Tls, V4)], None, Options::default());
    assert!(matches!(tls, Err(BindError::NoCertificate(_))));
    let ws = Transports::bind(&[listen(Transport::Wss, V4)], None, Options::default());
    assert!(matches!(ws, Err(BindError::WebSocket(_))));
    let taken = std::net::TcpListener::bind(V4).unwrap();
    let mut wanted = listen(Transport::Tcp, V4);
    wanted.address = taken.local_addr().unwrap();
    let error = Transports::bind(&[wanted], None, Options::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("tcp {}", wanted.address)),
        "{error}"
    );
}

#[test]
fn a_certificate_is_kept_until_it_lacks_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let first = identity(directory.path(), &["a.example.com", "192.0.2.1"]);
    assert!(first.generated);
    let mode = std::fs::metadata(directory.path().join("key.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = identity(
        directory.path(),
        &["192.0.2.1", "A.example.com", "localhost"],
    );
    assert!(!again.generated);
    assert_eq!(first.chain, again.chain);
    let fewer = identity(directory.path(), &["a.example.com"]);
    assert_eq!(first.chain, fewer.chain);
    let changed = identity(directory.path(), &["b.example.com"]);
    assert!(changed.generated);
    assert_ne!(first.chain, changed.chain);
    std::fs::remove_file(directory.path().join("key.pem")).unwrap();
    assert!(identity(directory.path(), &["b.example.com"]).generated);
}

#[test]
fn a_machine_that_returns_to_a_network_shows_the_certificate_it_showed_last() {
    let directory = tempfile::tempdir().unwrap();
    identity(directory.path(), &["192.0.2.1"]);
    let elsewhere = identity(directory.path(), &["198.51.100.1"]);
    assert!(elsewhere.generated);
    let back = identity(directory.path(), &["192.0.2.1"]);
    assert!(!back.generated);
    assert_eq!(back.chain, elsewhere.chain);
    for network in 0..200 {
        let name = format!("203.0.113.{network}");
        assert!(identity(directory.path(), &[&name]).generated);
    }
    let text = std::fs::read_to_string(directory.path().join("certificate.pem")).unwrap();
    let names = text.lines().next().unwrap().split_whitespace().count() - 1;
    assert_eq!(names, 64, "it does not grow for ever");
}

#[test]
fn given_files_are_loaded_and_bad_ones_named() {
    let directory = tempfile::tempdir().unwrap();
    let made = identity(directory.path(), &[]);
    let (chain, key) = (
        directory.path().join("certificate.pem"),
        directory.path().join("key.pem"),
    );
    let given = CertificateSource::Pem {
        chain: chain.clone(),
        key: key.clone(),
    };
    assert_eq!(load_or_generate(&given, &[]).unwrap().chain, made.chain);
    for (chain, key, named) in [
        (directory.path().join("none.pem"), key.clone(), "none.pem"),
        (key.clone(), key, "key.pem"),
        (chain.clone(), chain, "certificate.pem"),
    ] {
        let error = load_or_generate(&CertificateSource::Pem { chain, key }, &[]).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}
