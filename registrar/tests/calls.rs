//! Registering and calling over real sockets.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use cluster::records::{Member, Owner, keys};
use common::{DOMAIN, Site, Ua, dialog, put};
use sip::HeaderName;
use tokio::net::{TcpStream, UdpSocket};

/// A call from `a` to `b`, both registered: ringing, answer, ACK, BYE from the callee.
async fn call(a: &mut Ua, b: &mut Ua, call_id: &str) {
    let uri = format!("sip:{}@{DOMAIN}", b.user);
    a.authenticated("INVITE", &uri, &format!("<{uri}>"), call_id)
        .await;
    let invite = b.request("INVITE").await;
    let asserted = invite.header(HeaderName::PAssertedIdentity);
    assert_eq!(
        asserted,
        Some(format!("<sip:{}@{DOMAIN}>", a.user).as_str())
    );
    b.answer(&invite, 180).await;
    a.response(180).await;
    b.answer(&invite, 200).await;
    let ok = a.response(200).await;
    let (route, target, to) = dialog(&ok);
    let ack = a.build("ACK", &target, &to, call_id, &route);
    a.send(&ack).await;
    b.request("ACK").await;
    let bye = a.build("BYE", &target, &to, call_id, &route);
    a.send(&bye).await;
    let bye = b.request("BYE").await;
    b.answer(&bye, 200).await;
    a.response(200).await;
}

#[tokio::test]
async fn users_register_with_digest_and_call_each_other_over_udp_and_tcp() {
    let site = Site::start().await;
    let addresses = site.registrar.addresses().clone();
    let mut alice = Ua::udp("alice", addresses.udp[0]).await;
    let mut bob = Ua::tcp("bob", addresses.tcp[0]).await;
    alice.register().await;
    bob.register().await;
    call(&mut alice, &mut bob, "call-1").await;
    call(&mut bob, &mut alice, "call-2").await;
    site.registrar.shutdown().await;
}

#[tokio::test]
async fn users_on_ipv4_and_ipv6_call_each_other() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        assert!(std::env::var_os("CI").is_none(), "no IPv6 on loopback");
        eprintln!("skipped: no IPv6 on loopback");
        return;
    }
    let site = Site::start_with(|config| {
        let v6: SocketAddr = "[::1]:0".parse().expect("address");
        config.udp.push(v6);
        config.http.push(v6);
    })
    .await;
    let addresses = site.registrar.addresses().clone();
    let mut alice = Ua::udp("alice", addresses.udp[0]).await;
    let mut bob = Ua::udp("bob", addresses.udp[1]).await;
    assert!(bob.local.is_ipv6());
    alice.register().await;
    bob.register().await;
    call(&mut alice, &mut bob, "call-46").await;
    call(&mut bob, &mut alice, "call-64").await;
}

#[tokio::test]
async fn user_registers_over_tls_with_the_certificate_that_was_made() {
    let site = Site::start().await;
    let address = site.registrar.addresses().tls[0];
    let mut roots = rustls::RootCertStore::empty();
    let pem = site.directory.path().join("data/certificate.pem");
    for certificate in rustls_pki_certificates(&pem) {
        roots.add(certificate).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.expect("listens");
    let local = tcp.local_addr().expect("connected");
    let name = rustls::pki_types::ServerName::try_from(DOMAIN).expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .expect("trusted");
    let mut alice = Ua::tls("alice", stream, local);
    let ok = alice.register().await;
    assert!(
        ok.header(HeaderName::ServiceRoute)
            .is_some_and(|r| r.contains("transport=tls"))
    );
}

fn rustls_pki_certificates(
    path: &std::path::Path,
) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::pem_file_iter(path)
        .expect("a file")
        .map(|c| c.expect("a certificate"))
        .collect()
}

#[tokio::test]
async fn registrations_outlive_the_registrar() {
    let site = Site::start().await;
    let mut bob = Ua::udp("bob", site.registrar.addresses().udp[0]).await;
    bob.register().await;
    let site = site.restart().await;
    let udp = site.registrar.addresses().udp[0];
    let mut alice = Ua::udp("alice", udp).await;
    let uri = format!("sip:bob@{DOMAIN}");
    alice
        .authenticated("INVITE", &uri, &format!("<{uri}>"), "later")
        .await;
    // Bob's socket only hears the old port of the registrar; that it is tried shows in the caller's 100.
    let trying = alice.receive().await;
    assert_eq!(trying.status().map(|s| s.get()), Some(100));
    let admin = site.registrar.admin_router();
    let response = tower::ServiceExt::oneshot(
        admin,
        axum::http::Request::get("/api/v1/registrations")
            .body(axum::body::Body::empty())
            .expect("a request"),
    )
    .await
    .expect("infallible");
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("a body");
    let view: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(view["total"], 1);
    assert_eq!(view["registrations"][0]["aor"], "sip:bob@example.org");
    assert_eq!(view["registrations"][0]["bindings"][0]["transport"], "udp");
}

#[tokio::test]
async fn meeting_is_reached_at_its_owner_as_the_store_tells() {
    let site = Site::start().await;
    let manager = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let at: SocketAddr = manager.local_addr().expect("bound");
    let member = Member {
        version: 1,
        id: "m1".into(),
        sip: vec![("udp".into(), at)],
        api: String::new(),
        load: 0,
        draining: false,
    };
    let owner = Owner {
        version: 1,
        member: "m1".into(),
    };
    put(site.store.as_ref(), &keys::member("m1"), &member).await;
    put(site.store.as_ref(), &keys::owner("lobby"), &owner).await;
    let mut alice = Ua::udp("alice", site.registrar.addresses().udp[0]).await;
    let uri = format!("sip:lobby@{DOMAIN}");
    alice
        .authenticated("INVITE", &uri, &format!("<{uri}>"), "meet")
        .await;
    let mut buffer = vec![0; 65_536];
    let (n, _) = tokio::time::timeout(common::PATIENCE, manager.recv_from(&mut buffer))
        .await
        .expect("in time")
        .expect("received");
    let text = String::from_utf8_lossy(&buffer[..n]);
    assert!(
        text.starts_with("INVITE sip:lobby@example.org SIP/2.0\r\n"),
        "{text}"
    );
}

#[tokio::test]
async fn users_file_is_taken_over_without_a_restart() {
    let site = Site::start().await;
    let path = site.directory.path().join("users.toml");
    let udp = site.registrar.addresses().udp[0];
    registrar::users::add(&path, DOMAIN, "dora", "secret", "Dora").expect("added");
    let deadline = tokio::time::Instant::now() + common::PATIENCE;
    let mut again = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        again.tick().await;
        let mut dora = Ua::udp("dora", udp).await;
        let aor = format!("<sip:dora@{DOMAIN}>");
        dora.authenticated("REGISTER", &format!("sip:{DOMAIN}"), &aor, "reg-dora")
            .await;
        let answer = dora.receive().await;
        if answer.status().map(|s| s.get()) == Some(200) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "not taken over");
    }
}

#[tokio::test]
async fn garbage_is_survived() {
    let site = Site::start().await;
    let udp = site.registrar.addresses().udp[0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    for junk in [
        &b"\0\0\0\0"[..],
        b"INVITE\r\n\r\n",
        b"SIP/2.0 999 x\r\n\r\n",
        &[0xff; 1500],
    ] {
        socket.send_to(junk, udp).await.expect("sent");
    }
    let mut alice = Ua::udp("alice", udp).await;
    alice.register().await;
}

#[tokio::test]
async fn drained_registrar_says_so_in_the_store_and_sends_registrations_away() {
    let site = Site::start().await;
    site.registrar.set_draining(true).await;
    let mut alice = Ua::udp("alice", site.registrar.addresses().udp[0]).await;
    let register = alice.build(
        "REGISTER",
        "sip:example.org",
        "<sip:alice@example.org>",
        "r",
        "",
    );
    alice.send(&register).await;
    let refused = alice.response(503).await;
    assert!(refused.header(HeaderName::RetryAfter).is_some());
    let deadline = tokio::time::Instant::now() + common::PATIENCE;
    let mut again = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        again.tick().await;
        let key = keys::registrar("registrar-1");
        let entry = site.store.get(&key).await.expect("reads");
        let record: Option<cluster::records::RegistrarRecord> =
            entry.map(|e| serde_json::from_slice(&e.value).expect("a record"));
        if record.is_some_and(|r| r.draining && !r.routes.is_empty()) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "not told");
    }
}

#[tokio::test]
async fn ringing_call_is_pending_until_it_is_answered() {
    let site = Site::start().await;
    let udp = site.registrar.addresses().udp[0];
    let (mut alice, mut bob) = (Ua::udp("alice", udp).await, Ua::udp("bob", udp).await);
    alice.register().await;
    bob.register().await;
    assert_eq!(site.registrar.pending(), 0);
    let uri = format!("sip:bob@{DOMAIN}");
    alice
        .authenticated("INVITE", &uri, &format!("<{uri}>"), "drain")
        .await;
    let invite = bob.request("INVITE").await;
    bob.answer(&invite, 180).await;
    alice.response(180).await;
    site.registrar.set_draining(true).await;
    assert_eq!(site.registrar.pending(), 1);
    bob.answer(&invite, 200).await;
    tokio::time::timeout(common::PATIENCE, site.registrar.idle())
        .await
        .expect("an answered call is not waited for");
    alice.response(200).await;
}

#[tokio::test]
async fn stranger_who_feigns_a_strict_router_rings_nobody() {
    let site = Site::start().await;
    let udp = site.registrar.addresses().udp[0];
    let (mut alice, mut bob) = (Ua::udp("alice", udp).await, Ua::udp("bob", udp).await);
    alice.register().await;
    bob.register().await;
    let uri = format!("sip:alice@{DOMAIN}");
    let mut mallory = Ua::udp("mallory", udp).await;
    for method in ["INVITE", "MESSAGE"] {
        let forged = mallory.build(
            method,
            &format!("sip:lobby@{DOMAIN};lr"),
            &format!("<{uri}>;tag=zz"),
            method,
            &format!("Route: <{uri}>\r\n"),
        );
        mallory.send(&forged).await;
        mallory.response(407).await;
    }
    // What reaches Alice first is what Bob, who has a password, sends after it.
    bob.authenticated("MESSAGE", &uri, &format!("<{uri}>"), "honest")
        .await;
    let message = alice.request("MESSAGE").await;
    assert_eq!(message.call_id(), "honest");
}

#[tokio::test]
async fn junk_credentials_from_an_address_do_not_keep_its_users_out() {
    let site = Site::start().await;
    let udp = site.registrar.addresses().udp[0];
    let mut junk = Ua::udp("alice", udp).await;
    let credentials = "Authorization: Digest username=\"alice\", realm=\"example.org\", nonce=\"junk\", \
         uri=\"sip:example.org\", response=\"00\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c\"\r\n";
    for n in 0..100 {
        let register = junk.build(
            "REGISTER",
            &format!("sip:{DOMAIN}"),
            &format!("<sip:alice@{DOMAIN}>"),
            &format!("junk-{n}"),
            credentials,
        );
        junk.send(&register).await;
        junk.response(401).await;
    }
    Ua::udp("alice", udp).await.register().await;
}

#[tokio::test]
async fn host_called_over_tls_is_asked_for_the_name_it_was_called_by() {
    use tokio::io::AsyncReadExt as _;
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = elsewhere.local_addr().expect("bound").port();
    let site = Site::start_with(|config| config.relay = true).await;
    let mut alice = Ua::udp("alice", site.registrar.addresses().udp[0]).await;
    let uri = format!("sip:x@localhost:{port};transport=tls");
    alice
        .authenticated("INVITE", &uri, &format!("<{uri}>"), "named")
        .await;
    // The ClientHello names whom the registrar wants to see a certificate of; an address is not named there.
    let hello = async {
        let (mut stream, _) = elsewhere.accept().await.expect("a connection");
        let mut hello = Vec::new();
        while !hello.windows(9).any(|w| w == b"localhost") {
            let n = stream.read_buf(&mut hello).await.expect("reads");
            assert!(n > 0, "no name in {hello:?}");
        }
    };
    tokio::time::timeout(common::PATIENCE, hello)
        .await
        .expect("a ClientHello with a name");
}
