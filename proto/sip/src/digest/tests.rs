use super::*;
use std::net::Ipv4Addr;

use crate::message::Method;

const REALM: &str = "rostrum.example";
const URI: &str = "sip:rostrum.example";
const NOW: Duration = Duration::from_secs(1_700_000_000);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn authenticator() -> Authenticator {
    Authenticator::new([7; 32], REALM, Duration::from_secs(300))
}

fn users(user: &str) -> Option<Ha1> {
    (user == "alice").then(|| Ha1::new("alice", REALM, "secret"))
}

fn request_with(authorization: &str) -> Message {
    let mut request = Message::request(Method::Register, URI);
    request.push_back(HeaderName::Authorization, authorization);
    request
}

fn answer(challenge: &str, user: &str, password: &str, nc: u32) -> Message {
    let value = authorize(challenge, user, password, "REGISTER", URI, "cnonce-1", nc)
        .expect("a challenge of ours");
    request_with(&value)
}

#[test]
fn sha_256_is_offered_before_md5_and_both_let_the_right_user_in() {
    let mut a = authenticator();
    let challenges = a.challenges(NOW, HERE, false);
    assert!(challenges[0].contains("algorithm=SHA-256,"));
    assert!(challenges[1].contains("algorithm=MD5,"));
    for (n, challenge) in challenges.iter().enumerate() {
        assert!(!challenge.contains("stale"));
        let request = answer(challenge, "alice", "secret", 1 + n as u32);
        assert_eq!(
            a.verify(NOW, HERE, &request, false, &users),
            Verdict::Ok("alice".to_owned())
        );
    }
}

#[test]
fn credentials_without_an_algorithm_are_md5() {
    let mut a = authenticator();
    let challenge = a.challenges(NOW, HERE, false)[1].replace("algorithm=MD5, ", "");
    let value = authorize(&challenge, "alice", "secret", "REGISTER", URI, "c", 1)
        .expect("a challenge of ours")
        .replace(", algorithm=MD5", "");
    assert_eq!(
        a.verify(NOW, HERE, &request_with(&value), false, &users),
        Verdict::Ok("alice".to_owned())
    );
}

#[test]
fn wrong_password_and_unknown_user_look_the_same() {
    let mut a = authenticator();
    let challenge = &a.challenges(NOW, HERE, false)[0];
    for (user, password) in [("alice", "guess"), ("mallory", "secret"), ("mallory", "")] {
        assert_eq!(
            a.verify(
                NOW,
                HERE,
                &answer(challenge, user, password, 1),
                false,
                &users
            ),
            Verdict::Wrong(user.to_owned())
        );
    }
}

#[test]
fn a_replay_is_rejected_and_the_next_count_is_accepted() {
    let mut a = authenticator();
    let challenge = &a.challenges(NOW, HERE, false)[0];
    let first = answer(challenge, "alice", "secret", 1);
    assert!(matches!(
        a.verify(NOW, HERE, &first, false, &users),
        Verdict::Ok(_)
    ));
    assert_eq!(
        a.verify(NOW, HERE, &first, false, &users),
        Verdict::Wrong("alice".to_owned())
    );
    let second = answer(challenge, "alice", "secret", 2);
    assert!(matches!(
        a.verify(NOW, HERE, &second, false, &users),
        Verdict::Ok(_)
    ));
}

#[test]
fn a_count_far_behind_is_stale() {
    let mut a = authenticator();
    let challenge = &a.challenges(NOW, HERE, false)[0];
    let far = answer(challenge, "alice", "secret", 1_000);
    assert!(matches!(
        a.verify(NOW, HERE, &far, false, &users),
        Verdict::Ok(_)
    ));
    let behind = answer(challenge, "alice", "secret", 2);
    assert_eq!(a.verify(NOW, HERE, &behind, false, &users), Verdict::Stale);
}

#[test]
fn two_clients_challenged_in_the_same_millisecond_do_not_disturb_each_other() {
    let mut a = authenticator();
    let challenge = &a.challenges(NOW, HERE, false)[0];
    for cnonce in ["one", "two"] {
        let value = authorize(challenge, "alice", "secret", "REGISTER", URI, cnonce, 1)
            .expect("a challenge of ours");
        assert!(matches!(
            a.verify(NOW, HERE, &request_with(&value), false, &users),
            Verdict::Ok(_)
        ));
    }
}

#[test]
fn an_old_nonce_is_stale_and_does_not_tell_whether_the_password_was_right() {
    let mut a = authenticator();
    let challenge = &a.challenges(NOW, HERE, false)[0];
    let later = NOW + Duration::from_secs(300);
    let right = answer(challenge, "alice", "secret", 1);
    let wrong = answer(challenge, "alice", "guess", 1);
    assert_eq!(a.verify(later, HERE, &right, false, &users), Verdict::Stale);
    assert_eq!(a.verify(later, HERE, &wrong, false, &users), Verdict::Stale);
    assert!(a.challenges(later, HERE, true)[0].ends_with(", stale=true"));
    let just_in_time = later - Duration::from_millis(1);
    assert!(matches!(
        a.verify(just_in_time, HERE, &right, false, &users),
        Verdict::Ok(_)
    ));
}

#[test]
fn another_member_with_the_key_accepts_the_nonce_and_one_without_calls_it_stale() {
    let challenge = authenticator().challenges(NOW, HERE, false)[0].clone();
    let request = answer(&challenge, "alice", "secret", 1);
    assert!(matches!(
        authenticator().verify(NOW, HERE, &request, false, &users),
        Verdict::Ok(_)
    ));
    let mut other = Authenticator::new([8; 32], REALM, Duration::from_secs(300));
    assert_eq!(
        other.verify(NOW, HERE, &request, false, &users),
        Verdict::Stale
    );
}

#[test]
fn a_nonce_is_good_only_where_it_was_sent_and_tells_nobody_else_whether_a_guess_was_right() {
    let mut a = authenticator();
    let challenge = a.challenges(NOW, HERE, false)[0].clone();
    for password in ["secret", "guess"] {
        let request = answer(&challenge, "alice", password, 1);
        let verdict = a.verify(NOW, THERE, &request, false, &users);
        assert_eq!(verdict, Verdict::Stale, "{password}");
    }
    let right = answer(&challenge, "alice", "secret", 1);
    let verdict = a.verify(NOW, HERE, &right, false, &users);
    assert_eq!(verdict, Verdict::Ok("alice".to_owned()));
}

#[test]
fn made_up_and_altered_nonces_are_never_accepted() {
    let mut a = authenticator();
    let challenge = a.challenges(NOW, HERE, false)[0].clone();
    let nonce = challenge
        .split('"')
        .nth(3)
        .expect("realm, then nonce")
        .to_owned();
    for forged in [
        "x".to_owned(),
        "A".repeat(32),
        nonce.replacen('A', "B", 1),
        format!("{nonce}A"),
    ] {
        assert_ne!(forged, nonce);
        let request = answer(&challenge.replace(&nonce, &forged), "alice", "secret", 1);
        assert_eq!(
            a.verify(NOW, HERE, &request, false, &users),
            Verdict::Stale,
            "{forged}"
        );
    }
}

#[test]
fn the_uri_must_mean_the_request_uri_and_the_method_must_be_the_requests() {
    let mut a = authenticator();
    let challenge = a.challenges(NOW, HERE, false)[0].clone();
    let verify = |a: &mut Authenticator, method: &str, uri: &str| {
        let value = authorize(&challenge, "alice", "secret", method, uri, uri, 1)
            .expect("a challenge of ours");
        a.verify(NOW, HERE, &request_with(&value), false, &users)
    };
    assert!(matches!(
        verify(&mut a, "REGISTER", "SIP:ROSTRUM.EXAMPLE"),
        Verdict::Ok(_)
    ));
    assert_eq!(
        verify(&mut a, "REGISTER", "sip:other.example"),
        Verdict::Wrong("alice".to_owned())
    );
    assert_eq!(
        verify(&mut a, "REGISTER", "not a uri"),
        Verdict::Wrong("alice".to_owned())
    );
    assert_eq!(
        verify(&mut a, "INVITE", URI),
        Verdict::Wrong("alice".to_owned())
    );
}

#[test]
fn our_credentials_are_found_beside_those_for_others() {
    let mut a = authenticator();
    let challenge = &a.challenges(NOW, HERE, false)[0];
    let ours = authorize(challenge, "alice", "secret", "REGISTER", URI, "c", 1)
        .expect("a challenge of ours");
    let mut request = Message::request(Method::Register, URI);
    request.push_back(HeaderName::Authorization, "Basic YTpi");
    request.push_back(
        HeaderName::Authorization,
        ours.replace(REALM, "elsewhere.example"),
    );
    assert_eq!(
        a.verify(NOW, HERE, &request, false, &users),
        Verdict::Missing
    );
    request.push_back(HeaderName::Authorization, ours.as_str());
    assert_eq!(
        a.verify(NOW, HERE, &request, true, &users),
        Verdict::Missing
    );
    assert!(matches!(
        a.verify(NOW, HERE, &request, false, &users),
        Verdict::Ok(_)
    ));
    let mut proxied = Message::request(Method::Register, URI);
    let again = authorize(challenge, "alice", "secret", "REGISTER", URI, "d", 1)
        .expect("a challenge of ours");
    proxied.push_back(HeaderName::ProxyAuthorization, again);
    assert!(matches!(
        a.verify(NOW, HERE, &proxied, true, &users),
        Verdict::Ok(_)
    ));
}

#[test]
fn no_credentials_are_missing_and_broken_ones_malformed() {
    let mut a = authenticator();
    let none = Message::request(Method::Register, URI);
    assert_eq!(a.verify(NOW, HERE, &none, false, &users), Verdict::Missing);
    let broken = request_with("Digest realm=\"rostrum.example\", username=\"x");
    assert!(matches!(
        a.verify(NOW, HERE, &broken, false, &users),
        Verdict::Malformed(_)
    ));
}

#[test]
fn a_name_with_quotes_survives_the_round_trip() {
    let name = "al\"ic\\e";
    let mut a = authenticator();
    let challenge = &a.challenges(NOW, HERE, false)[0];
    let value =
        authorize(challenge, name, "secret", "REGISTER", URI, "c", 1).expect("a challenge of ours");
    let verdict = a.verify(NOW, HERE, &request_with(&value), false, &|user| {
        (user == name).then(|| Ha1::new(name, REALM, "secret"))
    });
    assert_eq!(verdict, Verdict::Ok(name.to_owned()));
}

#[test]
fn not_even_the_stand_in_for_unknown_users_lets_anybody_in() {
    let mut a = authenticator();
    let challenge = a.challenges(NOW, HERE, false)[0].clone();
    let value = authorize(&challenge, "mallory", "x", "REGISTER", URI, "c", 1)
        .expect("a challenge of ours");
    let c = Credentials::parse(&value, REALM).expect("made here");
    let right = c.algorithm.response(
        a.nobody.of(c.algorithm),
        &Answered {
            method: "REGISTER",
            uri: &c.uri,
            nonce: &c.nonce,
            nc: &c.nc_text,
            cnonce: &c.cnonce,
        },
    );
    let request = request_with(&value.replace(&c.response, &right));
    assert_eq!(
        a.verify(NOW, HERE, &request, false, &users),
        Verdict::Wrong("mallory".to_owned())
    );
}
