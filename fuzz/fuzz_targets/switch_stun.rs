//! One STUN datagram to an ICE-lite agent: answered or ignored, never longer than it came, nothing kept of strangers.
//! Seeds: fuzz-seeds/stun
#![cfg_attr(fuzzing, no_main)]

use std::net::SocketAddr;
use std::time::Instant;

use switch_core::SocketId;
use switch_core::ice::{Credentials, IceLite, Outcome, State};

rostrum_fuzz::target!(|data| {
    let mut agent = IceLite::new(Credentials {
        local_ufrag: "user".to_owned(),
        local_pwd: "passwordpasswordpasswd".to_owned(),
        remote_ufrag: String::new(),
    });
    let remote = SocketAddr::from(([192, 0, 2, 1], 5000));
    let _ = switch_core::stun::username(data);
    match agent.handle_stun(SocketId(0), remote, data, Instant::now()) {
        Outcome::Ignored => {
            assert_eq!(agent.state(), State::Checking);
            assert_eq!(agent.remotes().count(), 0);
        }
        Outcome::Answer(answer) => assert!(answer.as_bytes().len() <= data.len() + 24),
    }
});
