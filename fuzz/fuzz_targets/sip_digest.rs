//! Digest challenges and credentials from anywhere: answered or refused, and nobody gets in who has no password.
//! Seeds: torture/rfc4475
#![cfg_attr(fuzzing, no_main)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use sip::digest::{Authenticator, Ha1, Verdict, authorize};
use sip::{HeaderName, Message, Method};

const REALM: &str = "r";
const URI: &str = "sip:x";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn request(authorization: &str) -> Message {
    let mut request = Message::request(Method::Register, URI);
    request.push_back(HeaderName::Authorization, authorization);
    request
}

rostrum_fuzz::target!(|data| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut server = Authenticator::new([1; 32], REALM, Duration::from_secs(300));
    let users = |user: &str| Some(Ha1::new(user, REALM, "unguessable"));

    // By lines, so that whole messages are seeds.
    for line in text.lines() {
        let value = line.split_once(':').map_or(line, |(_, v)| v.trim());
        for value in [
            value.to_owned(),
            format!("Digest realm=\"r\", qop=auth, {value}"),
        ] {
            // As a challenge: what answers it can be parsed again, as far as the server wants to.
            if let Some(answer) = authorize(&value, "u", "p", "REGISTER", URI, "c", 1) {
                let again = server.verify(NOW, HERE, &request(&answer), false, &users);
                assert!(!matches!(again, Verdict::Ok(_)));
            }
            // As credentials.
            let verdict = server.verify(NOW, HERE, &request(&value), false, &users);
            assert!(!matches!(verdict, Verdict::Ok(_)));
        }
    }

    // Any name and any cnonce survive the way through quotes, once.
    let (user, cnonce) = text.split_once('\n').unwrap_or((text, "c"));
    let whole = |s: &str| !s.is_empty() && s.len() < 1_000 && !s.contains(char::is_control);
    if whole(user) && whole(cnonce) {
        for challenge in server.challenges(NOW, HERE, false) {
            let answer = authorize(&challenge, user, "unguessable", "REGISTER", URI, cnonce, 1)
                .expect("a challenge of ours");
            let request = request(&answer);
            let first = server.verify(NOW, HERE, &request, false, &users);
            // One window for both algorithms: the nonce and the cnonce are the same.
            if challenge.contains("SHA-256") {
                assert_eq!(first, Verdict::Ok(user.to_owned()));
            }
            let again = server.verify(NOW, HERE, &request, false, &users);
            assert_eq!(again, Verdict::Wrong(user.to_owned()));
        }
    }
});
