//! SIPp against the lab: registering with digest, calling, hold and resume, cancelling, over each transport.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use common::Lab;
use common::sipp::{Sipp, Way, free_port};

/// Lets plain TCP in and passes it on over TLS: SIPp as packaged has no TLS of its own.
fn tls_tunnel(remote: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("non-blocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting_config()));
            while let Ok((mut plain, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let tcp = tokio::net::TcpStream::connect(remote)
                        .await
                        .expect("connects");
                    let name =
                        rustls::pki_types::ServerName::try_from("localhost").expect("a name");
                    let mut tls = connector.connect(name, tcp).await.expect("TLS handshake");
                    let _ = tokio::io::copy_bidirectional(&mut plain, &mut tls).await;
                });
            }
        });
    });
    address
}

/// The lab's certificate is self-signed: what is tested here is SIP, not trust.
fn trusting_config() -> rustls::ClientConfig {
    #[derive(Debug)]
    struct Any(Arc<rustls::crypto::CryptoProvider>);
    impl rustls::client::danger::ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                certificate,
                signature,
                &self.0.signature_verification_algorithms,
            )
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.0.signature_verification_algorithms,
            )
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth()
}

fn ways(lab: &Lab) -> [(&'static str, Way); 3] {
    [
        (
            "UDP",
            Way {
                remote: lab.sip("udp"),
                mode: "u1",
            },
        ),
        (
            "TCP",
            Way {
                remote: lab.sip("tcp"),
                mode: "t1",
            },
        ),
        (
            "TLS",
            Way {
                remote: tls_tunnel(lab.sip("tls")),
                mode: "t1",
            },
        ),
    ]
}

/// Registers, and goes on to answer or ring on the same port and (streams) the same kind of connection.
fn register(lab: &Lab, way: Way, port: u16, account: usize) {
    Sipp::start(lab, "register", way, port, account, "").finish();
}

#[test]
fn registers_with_digest_and_takes_it_back_over_every_transport() {
    let mut lab = Lab::start();
    let registered = |lab: &Lab| {
        lab.api("/registrations")
            .to_string()
            .contains(lab.account(0).0)
    };
    for (_, way) in ways(&lab) {
        let port = free_port();
        register(&lab, way, port, 0);
        assert!(registered(&lab));
        Sipp::start(&lab, "unregister", way, port, 0, "").finish();
        assert!(!registered(&lab), "{}", lab.api("/registrations"));
    }
    lab.assert_healthy();
}

#[test]
fn calls_holds_resumes_and_hangs_up_over_every_transport() {
    let mut lab = Lab::start();
    let [(_, udp), (_, tcp), (_, tls)] = ways(&lab);
    for (caller, callee) in [(udp, udp), (tcp, tcp), (udp, tcp), (tls, udp)] {
        let port = free_port();
        register(&lab, callee, port, 1);
        let answer = Sipp::start(&lab, "answer", callee, port, 1, "");
        Sipp::start(&lab, "call", caller, free_port(), 0, lab.account(1).0).finish();
        answer.finish();
    }
    lab.assert_healthy();
}

#[test]
fn a_cancelled_call_stops_ringing() {
    let mut lab = Lab::start();
    let [(_, udp), (_, tcp), (_, tls)] = ways(&lab);
    // a callee of its own each: the other's contact would still be rung, where nobody answers
    for (callee, (theirs, ours)) in [(1, (udp, udp)), (2, (tcp, tcp)), (3, (udp, tls))] {
        let port = free_port();
        register(&lab, theirs, port, callee);
        let ring = Sipp::start(&lab, "ring", theirs, port, callee, "");
        Sipp::start(&lab, "cancel", ours, free_port(), 0, lab.account(callee).0).finish();
        ring.finish();
    }
    lab.assert_healthy();
}

#[test]
fn a_phone_joins_a_meeting_holds_resumes_and_leaves_over_every_transport() {
    let mut lab = Lab::start();
    for (_, way) in ways(&lab) {
        Sipp::start(&lab, "call", way, free_port(), 0, lab.meeting(0)).finish();
        lab.await_counts(|c| c["dialogs"] == 0 && c["switch_legs"] == 0 && c["ports"] == 0);
    }
    lab.assert_healthy();
}
