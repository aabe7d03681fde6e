//! The ICE-lite agent against messages made and read by an independent STUN implementation.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, AttrType,
};
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Getter, Message, Setter, TransactionId,
};
use stun::textattrs::TextAttribute;
use stun::xoraddr::XorMappedAddress;
use switch_core::SocketId;
use switch_core::ice::{CONSENT, Credentials, IceLite, MAX_REMOTES, Outcome, State};

const PASSWORD: &str = "abcdefghijklmnopqrstuvwx";

fn agent() -> IceLite {
    IceLite::new(Credentials {
        local_ufrag: "LOCL".to_owned(),
        local_pwd: PASSWORD.to_owned(),
        remote_ufrag: "rmte".to_owned(),
    })
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], port))
}

fn request(user: &str, password: &str, flags: &[AttrType]) -> Message {
    let provider = srtp::crypto::default_provider().unwrap();
    let mut message = Message::new();
    let mut setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId([3; 12])),
        Box::new(TextAttribute::new(
            stun::attributes::ATTR_USERNAME,
            user.to_owned(),
        )),
    ];
    message.build(&setters).unwrap();
    message.add(ATTR_PRIORITY, &1u32.to_be_bytes());
    for flag in flags {
        let value: &[u8] = match *flag {
            ATTR_USE_CANDIDATE => &[],
            _ => &[9; 8],
        };
        message.add(*flag, value);
    }
    setters.clear();
    MessageIntegrity::new_short_term_integrity_with_provider(
        password.to_owned(),
        provider.crypto(),
    )
    .add_to(&mut message)
    .unwrap();
    FINGERPRINT.add_to(&mut message).unwrap();
    message
}

fn good(flags: &[AttrType]) -> Vec<u8> {
    request("LOCL:rmte", PASSWORD, flags).raw
}

fn answer(outcome: Outcome) -> Message {
    let Outcome::Answer(answer) = outcome else {
        panic!("no answer");
    };
    let provider = srtp::crypto::default_provider().unwrap();
    let mut message = Message::new();
    message.unmarshal_binary(answer.as_bytes()).unwrap();
    MessageIntegrity::check(&mut message, PASSWORD.as_bytes(), provider.crypto()).unwrap();
    FINGERPRINT.check(&message).unwrap();
    assert_eq!(message.transaction_id, TransactionId([3; 12]));
    message
}

#[test]
fn an_authentic_request_is_answered_with_where_it_came_from() {
    for remote in [address(5000), "[2001:db8::5]:6000".parse().unwrap()] {
        let mut agent = agent();
        let now = Instant::now();
        let message =
            answer(agent.handle_stun(SocketId(0), remote, &good(&[ATTR_ICE_CONTROLLING]), now));
        assert_eq!(message.typ, BINDING_SUCCESS);
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&message).unwrap();
        assert_eq!(SocketAddr::new(mapped.ip, mapped.port), remote);
        assert_eq!(agent.state(), State::Validated);
        assert_eq!(agent.selected(), Some((SocketId(0), remote)));
        assert!(agent.is_validated(remote));
        assert!(!agent.is_validated(address(5001)));
    }
}

#[test]
fn strangers_get_silence_and_leave_no_trace() {
    let mut agent = agent();
    let now = Instant::now();
    let strangers = [
        request("LOCL:rmte", "wrong", &[ATTR_USE_CANDIDATE]).raw,
        request("OTHR:rmte", PASSWORD, &[]).raw,
        request("LOCL:else", PASSWORD, &[]).raw,
        request("LOCL", PASSWORD, &[]).raw,
    ];
    for stranger in strangers {
        assert!(matches!(
            agent.handle_stun(SocketId(0), address(1), &stranger, now),
            Outcome::Ignored
        ));
    }
    let mut unsigned = Message::new();
    unsigned
        .build(&[
            Box::new(BINDING_REQUEST) as Box<dyn Setter>,
            Box::new(TextAttribute::new(
                stun::attributes::ATTR_USERNAME,
                "LOCL:rmte".to_owned(),
            )),
        ])
        .unwrap();
    assert!(matches!(
        agent.handle_stun(SocketId(0), address(1), &unsigned.raw, now),
        Outcome::Ignored
    ));
    assert_eq!(agent.state(), State::Checking);
    assert!(!agent.is_validated(address(1)));
    assert_eq!(agent.poll_timeout(), None);
}

#[test]
fn any_flipped_bit_of_the_protected_part_is_ignored() {
    let whole = good(&[ATTR_USE_CANDIDATE]);
    let now = Instant::now();
    // FINGERPRINT, the last eight bytes, guards nothing that MESSAGE-INTEGRITY does not.
    for bit in 0..(whole.len() - 8) * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let mut agent = agent();
        agent.handle_stun(SocketId(0), address(1), &bad, now);
        assert_eq!(agent.state(), State::Checking, "bit {bit}");
    }
}

#[test]
fn use_candidate_nominates_and_later_moves_the_pair() {
    let mut agent = agent();
    let now = Instant::now();
    agent.handle_stun(SocketId(0), address(1), &good(&[]), now);
    agent.handle_stun(SocketId(0), address(2), &good(&[ATTR_USE_CANDIDATE]), now);
    assert_eq!(agent.state(), State::Nominated);
    agent.handle_stun(SocketId(0), address(1), &good(&[]), now);
    assert_eq!(
        agent.selected(),
        Some((SocketId(0), address(2))),
        "a check alone moves nothing"
    );
    agent.handle_stun(SocketId(3), address(9), &good(&[ATTR_USE_CANDIDATE]), now);
    assert_eq!(agent.selected(), Some((SocketId(3), address(9))));
}

#[test]
fn a_peer_that_thinks_it_is_controlled_gets_487_and_an_unknown_attribute_420() {
    let mut agent = agent();
    let now = Instant::now();
    for (flag, code) in [(ATTR_ICE_CONTROLLED, 487), (AttrType(0x7777), 420)] {
        let request = good(&[flag]);
        let outcome = agent.handle_stun(SocketId(0), address(1), &request, now);
        let Outcome::Answer(bytes) = outcome else {
            panic!("no answer")
        };
        assert!(bytes.as_bytes().len() <= request.len(), "no amplification");
        let message = answer(outcome);
        assert_eq!(message.typ, BINDING_ERROR);
        let mut error = ErrorCodeAttribute::default();
        error.get_from(&message).unwrap();
        assert_eq!(error.code.0, code);
        assert_eq!(agent.state(), State::Checking);
    }
}

#[test]
fn consent_is_lost_once_after_thirty_silent_seconds_and_comes_back() {
    let mut agent = agent();
    let start = Instant::now();
    agent.handle_stun(SocketId(0), address(1), &good(&[ATTR_USE_CANDIDATE]), start);
    let later = start + Duration::from_secs(20);
    agent.handle_stun(SocketId(0), address(1), &good(&[]), later);
    assert_eq!(agent.poll_timeout(), Some(later + CONSENT));
    assert!(!agent.handle_timeout(start + CONSENT));
    assert!(agent.handle_timeout(later + CONSENT));
    assert_eq!(agent.selected(), None);
    assert!(!agent.is_validated(address(1)));
    assert!(!agent.handle_timeout(later + CONSENT * 2), "told once");
    let back = later + CONSENT * 3;
    agent.handle_stun(SocketId(0), address(4), &good(&[ATTR_USE_CANDIDATE]), back);
    assert_eq!(agent.selected(), Some((SocketId(0), address(4))));
}

#[test]
fn a_dead_nominated_pair_gives_way_to_one_that_is_still_checked() {
    let mut agent = agent();
    let start = Instant::now();
    agent.handle_stun(SocketId(0), address(1), &good(&[ATTR_USE_CANDIDATE]), start);
    let later = start + Duration::from_secs(25);
    agent.handle_stun(SocketId(0), address(2), &good(&[]), later);
    assert_eq!(agent.selected(), Some((SocketId(0), address(1))));
    assert!(!agent.handle_timeout(start + CONSENT));
    assert_eq!(agent.selected(), Some((SocketId(0), address(2))));
    assert!(!agent.is_validated(address(1)));
}

#[test]
fn remembered_remotes_are_bounded_and_the_selected_one_stays() {
    let mut agent = agent();
    let start = Instant::now();
    agent.handle_stun(SocketId(0), address(1), &good(&[ATTR_USE_CANDIDATE]), start);
    for port in 2..200u16 {
        let now = start + Duration::from_millis(u64::from(port));
        agent.handle_stun(SocketId(0), address(port), &good(&[]), now);
    }
    let known = (1..200)
        .filter(|port| agent.is_validated(address(*port)))
        .count();
    assert_eq!(known, MAX_REMOTES);
    assert!(agent.is_validated(address(1)));
}

#[test]
fn garbage_is_ignored_without_a_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let now = Instant::now();
    let mut agent = agent();
    let template = good(&[ATTR_USE_CANDIDATE]);
    for _ in 0..20_000 {
        let len = rng.random_range(0..=template.len());
        let mut bytes = template[..len].to_vec();
        for _ in 0..rng.random_range(0..6) {
            if let Some(last) = len.checked_sub(1) {
                bytes[rng.random_range(0..=last)] = rng.random();
            }
        }
        agent.handle_stun(SocketId(0), address(1), &bytes, now);
        let _ = switch_core::stun::username(&bytes);
    }
}
