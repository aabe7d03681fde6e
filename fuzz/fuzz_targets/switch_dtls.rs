//! Datagrams, each after its length in two octets, to DTLS associations of both roles before and in the handshake.
#![cfg_attr(fuzzing, no_main)]

use std::sync::OnceLock;
use std::time::Instant;

use switch_core::dtls::{Association, Event, Fingerprint, Identity, Role};

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::generate().expect("a key can be made"))
}

rostrum_fuzz::target!(|data| {
    let now = Instant::now();
    for role in [Role::Server, Role::Client] {
        let expected = Fingerprint::new("sha-256", &[0; 32]).expect("of the right length");
        let mut association =
            Association::new(identity(), role, vec![expected]).expect("a configuration that works");
        association.start(now);
        let mut rest = data;
        while let [high, low, tail @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
            let (datagram, next) = tail.split_at(len);
            let event = association.handle_datagram(datagram, now);
            assert!(
                !matches!(event, Some(Event::Connected(_))),
                "nobody has that certificate"
            );
            while association.poll_transmit().is_some() {}
            rest = next;
        }
    }
});
