//! DTLS-SRTP associations with each other, over a network the test controls.

use std::time::{Duration, Instant};

use switch_core::dtls::{
    Association, DtlsError, Event, Fingerprint, HANDSHAKE_DEADLINE, Identity, Keys,
    MAX_HANDSHAKE_BYTES, Role,
};

fn digest(identity: &Identity) -> Fingerprint {
    Fingerprint::new("SHA-256", identity.fingerprint()).unwrap()
}

struct Pair {
    client: Association,
    server: Association,
    now: Instant,
    client_event: Option<Event>,
    server_event: Option<Event>,
}

impl Pair {
    fn new(client_expects: Option<Fingerprint>, server_expects: Option<Fingerprint>) -> Self {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let client_expects = client_expects.unwrap_or_else(|| digest(&b));
        let server_expects = server_expects.unwrap_or_else(|| digest(&a));
        Self {
            client: Association::new(&a, Role::Client, vec![client_expects]).unwrap(),
            server: Association::new(&b, Role::Server, vec![server_expects]).unwrap(),
            now: Instant::now(),
            client_event: None,
            server_event: None,
        }
    }

    /// Exchanges datagrams until both are quiet; `drop` says which are lost.
    fn run(&mut self, mut drop: impl FnMut(usize) -> bool) {
        let mut count = 0;
        if let Some(event) = self.client.start(self.now) {
            self.client_event = Some(event);
        }
        for _ in 0..400 {
            let mut quiet = true;
            while let Some(datagram) = self.client.poll_transmit() {
                quiet = false;
                count += 1;
                if !drop(count) {
                    let event = self.server.handle_datagram(&datagram, self.now);
                    self.server_event = event.or(self.server_event.take());
                }
            }
            while let Some(datagram) = self.server.poll_transmit() {
                quiet = false;
                count += 1;
                if !drop(count) {
                    let event = self.client.handle_datagram(&datagram, self.now);
                    self.client_event = event.or(self.client_event.take());
                }
            }
            if self.client_event.is_some() && self.server_event.is_some() {
                return;
            }
            if quiet {
                let next = [self.client.poll_timeout(), self.server.poll_timeout()];
                let Some(next) = next.into_iter().flatten().min() else {
                    return;
                };
                self.now = next;
                let event = self.client.handle_timeout(next);
                self.client_event = event.or(self.client_event.take());
                let event = self.server.handle_timeout(next);
                self.server_event = event.or(self.server_event.take());
            }
        }
    }

    fn keys(&self) -> (Keys, Keys) {
        match (&self.client_event, &self.server_event) {
            (Some(Event::Connected(a)), Some(Event::Connected(b))) => (a.clone(), b.clone()),
            other => panic!("not connected: {other:?}"),
        }
    }
}

#[test]
fn both_roles_get_mirrored_keys_of_a_gcm_profile() {
    let mut pair = Pair::new(None, None);
    pair.run(|_| false);
    let (client, server) = pair.keys();
    assert_eq!(client.profile.name(), "AEAD_AES_128_GCM");
    assert_eq!(client.profile, server.profile);
    assert_eq!(client.local, server.remote);
    assert_eq!(client.remote, server.local);
    assert_ne!(client.local, client.remote);
    assert_eq!(
        client.local.len(),
        client.profile.key_len() + client.profile.salt_len()
    );
}

#[test]
fn any_single_lost_datagram_is_made_good() {
    for lost in 1..=6 {
        let mut pair = Pair::new(None, None);
        pair.run(|count| count == lost);
        let (client, server) = pair.keys();
        assert_eq!(client.local, server.remote, "datagram {lost} lost");
    }
}

#[test]
fn a_server_refuses_a_certificate_other_than_the_signalled_one() {
    let mut pair = Pair::new(None, Some(Fingerprint::new("sha-256", &[7; 32]).unwrap()));
    pair.run(|_| false);
    assert!(
        matches!(&pair.server_event, Some(Event::Failed(reason)) if reason.contains("fingerprint")),
        "{:?}",
        pair.server_event
    );
    assert!(!pair.client.is_connected());
}

#[test]
fn a_client_refuses_a_certificate_other_than_the_signalled_one() {
    let mut pair = Pair::new(Some(Fingerprint::new("sha-512", &[7; 64]).unwrap()), None);
    pair.run(|_| false);
    assert!(
        matches!(&pair.client_event, Some(Event::Failed(reason)) if reason.contains("fingerprint")),
        "{:?}",
        pair.client_event
    );
    assert!(!pair.server.is_connected());
}

#[test]
fn fingerprints_of_every_signalled_hash_are_checked() {
    let certificate = b"any bytes do";
    let known = [
        (
            "sha-1",
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, certificate),
        ),
        (
            "Sha-224",
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA224, certificate),
        ),
        (
            "SHA-256",
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate),
        ),
        (
            "sha-384",
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, certificate),
        ),
        (
            "sha-512",
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, certificate),
        ),
    ];
    for (name, value) in known {
        let fingerprint = Fingerprint::new(name, value.as_ref()).unwrap();
        assert!(fingerprint.matches(certificate));
        assert!(!fingerprint.matches(b"other bytes"));
        assert!(Fingerprint::new(name, &value.as_ref()[1..]).is_err());
    }
    assert!(matches!(
        Fingerprint::new("md5", &[0; 16]),
        Err(DtlsError::Fingerprint(_))
    ));
}

#[test]
fn no_fingerprint_means_no_association() {
    let identity = Identity::generate().unwrap();
    assert!(matches!(
        Association::new(&identity, Role::Server, vec![]),
        Err(DtlsError::NoFingerprint)
    ));
}

#[test]
fn a_handshake_that_stalls_fails_at_its_deadline() {
    let mut pair = Pair::new(None, None);
    let start = pair.now;
    pair.run(|count| count > 3);
    assert!(matches!(&pair.client_event, Some(Event::Failed(_))));
    assert!(pair.now >= start + HANDSHAKE_DEADLINE);
    assert!(pair.now < start + HANDSHAKE_DEADLINE + Duration::from_secs(2));
}

#[test]
fn endless_fragments_end_the_handshake_not_the_memory() {
    let mut pair = Pair::new(None, None);
    // A ClientHello announced as very long, whose one-byte pieces never complete it.
    let mut failed = None;
    for at in 0..=(MAX_HANDSHAKE_BYTES as u32) {
        let mut record = vec![22, 0xfe, 0xfd, 0, 0];
        record.extend_from_slice(&u64::from(at).to_be_bytes()[2..]);
        record.extend_from_slice(&[0, 13, 1, 0xff, 0xff, 0xff, 0, 0]);
        record.extend_from_slice(&at.to_be_bytes()[1..]);
        record.extend_from_slice(&[0, 0, 1, 0x55]);
        failed = pair.server.handle_datagram(&record, pair.now);
        if failed.is_some() {
            break;
        }
    }
    assert!(matches!(failed, Some(Event::Failed(reason)) if reason.contains("too much")));
}

#[test]
fn a_peers_goodbye_is_reported_and_garbage_after_the_handshake_is_not() {
    let mut pair = Pair::new(None, None);
    pair.run(|_| false);
    pair.keys();
    for first in 20..64u8 {
        let mut garbage = vec![0x41; 60];
        garbage[0] = first;
        garbage[1..3].copy_from_slice(&[0xfe, 0xfd]);
        assert_eq!(pair.server.handle_datagram(&garbage, pair.now), None);
    }
    assert!(pair.server.is_connected());
    pair.client.close(pair.now);
    let bye = pair.client.poll_transmit().unwrap();
    let event = pair.server.handle_datagram(&bye, pair.now);
    assert!(
        matches!(&event, Some(Event::Failed(reason)) if reason.contains("closed")),
        "{event:?}"
    );
}

#[test]
fn what_anybody_can_write_does_not_end_a_handshake() {
    let record = |kind: u8, number: u8, body: &[u8]| {
        let mut record = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 1, number];
        record.extend_from_slice(&(body.len() as u16).to_be_bytes());
        record.extend_from_slice(body);
        record
    };
    let mut odd_hello = vec![1, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8];
    odd_hello.extend_from_slice(&[0xff; 8]);
    let mut short = record(22, 1, &[1; 30]);
    short[12] = 200;
    let forged = [
        ("a wrong length", short),
        ("an alert", record(21, 2, &[2, 40])),
        ("a goodbye", record(21, 3, &[1, 0])),
        ("data", record(23, 4, &[1, 2, 3])),
        ("no cipher spec", record(20, 5, &[2])),
        ("an odd hello", record(22, 6, &odd_hello)),
        ("another kind", record(60, 7, &[1])),
    ];
    for (what, datagram) in &forged {
        let mut pair = Pair::new(None, None);
        let now = pair.now;
        assert_eq!(pair.server.handle_datagram(datagram, now), None, "{what}");
        // Nor between the flights.
        let mut count = 0;
        pair.client.start(now);
        while !(pair.client.is_connected() && pair.server.is_connected()) {
            count += 1;
            assert!(count < 20, "{what}: no handshake");
            while let Some(sent) = pair.client.poll_transmit() {
                assert_eq!(pair.server.handle_datagram(datagram, now), None, "{what}");
                pair.server.handle_datagram(&sent, now);
            }
            while let Some(sent) = pair.server.poll_transmit() {
                if *what != "an odd hello" {
                    assert_eq!(pair.client.handle_datagram(datagram, now), None, "{what}");
                }
                pair.client.handle_datagram(&sent, now);
            }
        }
    }
}
