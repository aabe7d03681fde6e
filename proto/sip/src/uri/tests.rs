use super::*;

fn uri(s: &str) -> Uri {
    Uri::parse(s).unwrap_or_else(|e| panic!("{s}: {e}"))
}

#[test]
fn equivalent_uris_of_rfc_3261_19_1_4_are_equal() {
    for (a, b) in [
        (
            "sip:%61lice@atlanta.com;transport=TCP",
            "sip:alice@AtlanTa.CoM;Transport=tcp",
        ),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("sip:a@[2001:DB8::1]", "sip:a@[2001:db8:0:0::1]"),
        ("tel:+1-201-555-0123", "tel:+1.201.5550123"),
    ] {
        assert_eq!(uri(a), uri(b));
        assert_eq!(uri(b), uri(a));
    }
}

#[test]
fn different_uris_of_rfc_3261_19_1_4_are_not_equal() {
    for (a, b) in [
        (
            "SIP:ALICE@AtLanTa.CoM;Transport=udp",
            "sip:alice@AtLanTa.CoM;Transport=UDP",
        ),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        (
            "sip:bob@biloxi.com",
            "sip:bob@biloxi.com:6000;transport=tcp",
        ),
        (
            "sip:carol@chicago.com",
            "sip:carol@chicago.com?Subject=next%20meeting",
        ),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        (
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;security=off",
        ),
        ("sip:a@b", "sips:a@b"),
        ("sip:a@b", "sip:a:secret@b"),
        ("sip:a%3Bx@b", "sip:a;x@b"),
        ("sip:a%2541@b", "sip:a%41@b"),
        ("sip:a@b;maddr=192.0.2.1", "sip:a@b"),
        ("tel:+12015550123", "tel:12015550123"),
        ("urn:service:sos", "urn:service:SOS"),
    ] {
        assert_ne!(uri(a), uri(b));
        assert_ne!(uri(b), uri(a));
    }
}

#[test]
fn a_user_part_may_hold_semicolons_slashes_and_question_marks() {
    let u = uri(
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
    );
    assert_eq!(u.user, "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*");
    assert_eq!(
        u.password.as_deref(),
        Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
    );
    assert_eq!(u.host, "example.com");
    assert!(u.params.is_empty());
}

#[test]
fn ipv6_hosts_need_brackets_and_keep_ports_apart() {
    let u = uri("sip:u@[2001:db8::10]:5070;lr");
    assert_eq!((u.host.as_str(), u.port), ("2001:db8::10", Some(5070)));
    assert_eq!(u.ip(), Some("2001:db8::10".parse().unwrap()));
    assert_eq!(u.to_string(), "sip:u@[2001:db8::10]:5070;lr");
    assert!(u.is_loose_router());
    assert!(Uri::parse("sip:2001:db8::10").is_err());
    assert_eq!(
        uri("sip:[2001:db8:::192.0.2.1]").ip(),
        Some("2001:db8::192.0.2.1".parse().unwrap())
    );
}

#[test]
fn what_is_no_uri_is_refused_with_the_cause() {
    for (s, why) in [
        ("", "no scheme"),
        ("alice", "no scheme"),
        ("1sip:a@b", "no scheme"),
        ("sip:", "no host"),
        ("sip:@b", "empty user"),
        ("sip:a@", "no host"),
        ("sip:a@b@c", "character not allowed in host"),
        ("sip:a b@c", "character not allowed in user"),
        ("sip:a%4@c", "character not allowed in user"),
        ("sip:a\0@c", "character not allowed in user"),
        ("sip:a@b:65536", "bad port"),
        ("sip:a@b:", "bad port"),
        ("sip:a@b:-1", "bad port"),
        ("sip:a@[::1", "unclosed bracket"),
        ("sip:a@[::g]", "not an IPv6 address"),
        ("sip:a@[::1]x", "text after host"),
        ("sip:a@b;;lr", "empty parameter"),
        ("sip:a@b; lr", "character not allowed in parameter"),
        ("sip:a@b?x", "header without a value"),
        ("tel:", "not a telephone number"),
        ("tel:+", "not a telephone number"),
        ("tel:alice", "not a telephone number"),
        ("urn:", "nothing after the scheme"),
        ("http://a b", "character not allowed"),
    ] {
        match Uri::parse(s) {
            Err(e) => assert_eq!(e, UriError(why), "{s:?}"),
            Ok(u) => panic!("{s:?} parsed as {u:?}"),
        }
    }
}

#[test]
fn an_address_of_record_is_canonical_and_unique() {
    for (s, aor) in [
        (
            "sip:%61lice:pw@EXAMPLE.com:5070;user=phone",
            "sip:alice@example.com",
        ),
        ("sips:a%40b@h", "sips:a%40b@h"),
        ("sip:a%2540b@h", "sip:a%2540b@h"),
        ("sip:%00@h", "sip:%00@h"),
        ("sip:%2500@h", "sip:%2500@h"),
        ("sip:J%c3%b6rg@h", "sip:J%C3%B6rg@h"),
        ("sip:[2001:DB8::1]:5060", "sip:[2001:db8::1]"),
        ("tel:+1-201;ext=5", "tel:+1201"),
    ] {
        assert_eq!(uri(s).aor(), aor);
        assert_eq!(uri(aor).aor(), aor);
    }
}

#[test]
fn decoded_users_have_no_control_characters() {
    assert_eq!(uri("sip:a%20b@h").user_decoded().as_deref(), Some("a b"));
    assert_eq!(uri("sip:a%00@h").user_decoded(), None);
    assert_eq!(uri("sip:a%FF@h").user_decoded(), None);
}

#[test]
fn the_transport_of_a_sips_uri_is_always_secure() {
    for (s, t) in [
        ("sip:a@b", Some(Transport::Udp)),
        ("sips:a@b", Some(Transport::Tls)),
        ("sips:a@b;transport=TCP", Some(Transport::Tls)),
        ("sips:a@b;transport=ws", Some(Transport::Wss)),
        ("sips:a@b;transport=udp", None),
        ("sip:a@b;transport=ws", Some(Transport::Ws)),
        ("sip:a@b;transport=sctp", None),
        ("tel:1", None),
    ] {
        assert_eq!(uri(s).transport(), t, "{s}");
    }
}

#[test]
fn parameters_are_set_replaced_and_removed_by_any_case() {
    let mut u = uri("sip:a@b;LR;Transport=tcp");
    u.set_param("transport", Some("ws"));
    u.set_param("ob", None);
    u.remove_param("lr");
    assert_eq!(u.to_string(), "sip:a@b;Transport=ws;ob");
    assert_eq!(u.param("OB"), Some(""));
    assert_eq!(uri("sip:c@h;%6C%72").param("lr"), Some(""));
}

#[test]
fn a_built_uri_escapes_its_user_and_takes_host_and_port_apart() {
    let u = Uri::sip("team room@1", "Example.COM:5070");
    assert_eq!(u.to_string(), "sip:team%20room%401@example.com:5070");
    assert_eq!(Uri::sip("a%20b", "h").to_string(), "sip:a%20b@h");
    assert_eq!(Uri::sip("", "::1").to_string(), "sip:[::1]");
    assert_eq!(Uri::sip("a", "[::1]:5061").to_string(), "sip:a@[::1]:5061");
}
