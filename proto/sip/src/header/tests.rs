use proptest::prelude::*;

use super::*;

#[test]
fn display_names_come_quoted_bare_or_not_at_all() {
    for (s, display, uri) in [
        (
            r#""Mr. \"J\" User" <sip:j@h>"#,
            r#"Mr. "J" User"#,
            "sip:j@h",
        ),
        ("A. Bell <sip:a@h>;tag=1", "A. Bell", "sip:a@h"),
        (
            "caller<sip:caller@example.com>;tag=323",
            "caller",
            "sip:caller@example.com",
        ),
        ("<sip:a@h;lr>;x", "", "sip:a@h;lr"),
        ("sip:a@h;tag=1", "", "sip:a@h"),
        ("Jörg <sip:a@h>", "Jörg", "sip:a@h"),
    ] {
        let a = NameAddr::parse(s).unwrap();
        assert_eq!(a.display, display);
        assert_eq!(a.uri.to_string(), uri);
    }
}

#[test]
fn without_brackets_parameters_are_the_headers() {
    let a = NameAddr::parse("sip:+1@gw;unknownparam").unwrap();
    assert_eq!(a.params.get("UNKNOWNPARAM"), Some(""));
    assert!(a.uri.params.is_empty());
    let a = NameAddr::parse("<sip:+1@gw;unknownparam>").unwrap();
    assert!(a.params.0.is_empty());
    assert_eq!(a.uri.param("unknownparam"), Some(""));
}

#[test]
fn malformed_addresses_are_refused_with_the_cause() {
    for (s, what) in [
        (r#""Mr. J. User <sip:j@h>"#, "unterminated quoted string"),
        (
            "Bell, Alexander <sip:a@h>",
            "display name needs quotation marks",
        ),
        ("< sip:a@h >", "no scheme"),
        ("<sip:a@h", "unclosed angle bracket"),
        ("<sip:a@h>;;;;", "empty parameter"),
        ("<sip:a@h> x", "text after the address"),
        ("<sip:a@h>;tag=", "parameter without its value"),
        ("sip:a@h?Route=x", "URI needs angle brackets"),
        ("sip:a@h x", "text after the address"),
        ("", "no address"),
        ("\"a\rb\" <sip:a@h>", "unterminated quoted string"),
        ("\"a\\\nb\" <sip:a@h>", "unterminated quoted string"),
        ("\"x\" sip:a@h", "no address after the display name"),
    ] {
        match NameAddr::parse(s) {
            Err(e) => assert_eq!(e, HeaderError::Malformed("address", what), "{s}"),
            Ok(a) => panic!("{s} parsed as {a:?}"),
        }
    }
}

#[test]
fn a_star_is_an_address_without_a_uri() {
    let a = NameAddr::parse(" * ").unwrap();
    assert!(a.is_star());
    assert_eq!(a.to_string(), "*");
}

#[test]
fn printed_parameters_are_quoted_where_they_must_be() {
    let s = r#""B \\ \"x\"" <sip:b@h>;expires=60;+sip.instance="<urn:uuid:0>";reg-id=1;methods="INVITE";ob"#;
    let a = NameAddr::parse(s).unwrap();
    assert_eq!(a.params.get("+sip.instance"), Some("<urn:uuid:0>"));
    assert_eq!(a.to_string(), s);
}

#[test]
fn nothing_that_is_printed_breaks_a_line() {
    let mut a = NameAddr::new(Uri::sip("a\r\nEvil: 1", "h"));
    a.display = "x\r\nEvil: 1".into();
    a.params.set("p", Some("y\r\nEvil: 1"));
    let s = a.to_string();
    assert!(!s.contains(['\r', '\n']), "{s}");
}

#[test]
fn via_is_read_through_any_white_space() {
    let v = Via::parse("SIP  / 2.0  / TCP     spindle.example.com   ;  branch  =   z9hG4bK9ikj8")
        .unwrap();
    assert_eq!(
        v.to_string(),
        "SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8"
    );
    let v =
        Via::parse("SIP/2.0/UDP [2001:db8::9:1] : 6050;received=[2001:db8::9:255];rport").unwrap();
    assert_eq!((v.host.as_str(), v.port), ("[2001:db8::9:1]", Some(6050)));
    assert_eq!(v.received(), Some("2001:db8::9:255".parse().unwrap()));
    assert_eq!(v.params.get("rport"), Some(""));
    let v = Via::parse("SIP/2.0/UDP h;received=2001:db8::9:255;branch=z9hG4bKas3").unwrap();
    assert_eq!(v.received(), Some("2001:db8::9:255".parse().unwrap()));
    assert_eq!(v.branch(), "z9hG4bKas3");
}

#[test]
fn malformed_vias_are_refused_with_the_cause() {
    for (s, what) in [
        ("", "not SIP/2.0"),
        ("SIP/7.0/UDP h", "not SIP/2.0"),
        ("SIP/2.0/ ;x", "no transport"),
        ("SIP/2.0/UDP", "no host"),
        ("SIP/2.0/UDP ;branch=x", "no host"),
        ("SIP/2.0/UDP 192.0.2.15;;,;,,", "empty parameter"),
        ("SIP/2.0/UDP h:99999", "bad port"),
        ("SIP/2.0/UDP 2001:db8::1", "bad port"),
        ("SIP/2.0/UDP [::1", "unclosed bracket"),
        ("SIP/2.0/UDP h h2;branch=x", "character not allowed in host"),
        ("SIP/2.0/UDP h;branch=\"x", "unterminated quoted string"),
        ("Ünicode", "not SIP/2.0"),
    ] {
        match Via::parse(s) {
            Err(e) => assert_eq!(e, HeaderError::Malformed("Via", what), "{s}"),
            Ok(v) => panic!("{s} parsed as {v:?}"),
        }
    }
}

#[test]
fn cseq_numbers_stay_below_two_to_the_31st() {
    assert_eq!(
        CSeq::parse("0009   INVITE").unwrap().to_string(),
        "9 INVITE"
    );
    assert_eq!(CSeq::parse("2147483647 X").unwrap().number, (1 << 31) - 1);
    for s in [
        "2147483648 INVITE",
        "36893488147419103232 REGISTER",
        "INVITE",
        "1",
        "",
        "-1 INVITE",
        "1 IN(VITE)",
        "1 INVITE x",
    ] {
        assert!(CSeq::parse(s).is_err(), "{s}");
    }
}

#[test]
fn a_parameter_is_not_found_in_another_ones_value_or_name() {
    let p = NameAddrRef::parse(r#"<sip:a@h>;tagged=1;x=";tag=2 \";tag=3";y ; tag = 4;tag=5"#)
        .unwrap()
        .params;
    assert_eq!(p.get("TAG"), Some("4"));
    assert_eq!(p.get("y"), Some(""));
    assert_eq!(p.get("ta"), None);
    assert_eq!(p.get("x"), Some(r#"";tag=2 \";tag=3""#));
    assert_eq!(p.to_params().get("x"), Some(r#";tag=2 ";tag=3"#));
    assert_eq!(p.iter().count(), 5);
}

#[test]
fn an_asterisk_stands_alone() {
    assert!(NameAddr::parse(" * ").unwrap().is_star());
    for s in ["*;q=1", "* x", "<*>", "<*>;expires=0", "\"A\" <*>"] {
        assert!(NameAddr::parse(s).is_err(), "{s}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_parses_as_one_value_has_no_comma_that_separates(
        address in "(\"[a,;<]{0,3}\"|[a ,<]{0,2})[<s]{1,2}[a:@,\"]{0,4}>?(;[a=]{1,3}[\"a,;<> ]{0,5}){0,2}",
        via in "SIP/2.0/UDP h(:5)?(;[a=]{1,3}[\"a,;<> ]{0,5}){0,2}(, ?SIP/2.0/TCP i)?",
    ) {
        if NameAddrRef::parse(&address).is_ok() {
            prop_assert_eq!(lex::Commas::new(&address).collect::<Vec<_>>(), [lex::trim(&address)]);
        }
        if ViaRef::parse(&via).is_ok() {
            prop_assert_eq!(lex::Commas::new(&via).collect::<Vec<_>>(), [lex::trim(&via)]);
        }
    }

    #[test]
    fn a_parameter_is_found_by_name_as_it_is_by_going_through_all(
        params in "(;[ ]{0,1}[aAb]{1,2}[ ]{0,1}(=[ ]{0,1}([ab]{1,3}|\"[;=ab ]{0,4}\")[ ]{0,1})?){0,4}",
        name in "[abA]{1,2}",
    ) {
        let value = format!("<sip:h>{params}");
        let address = NameAddrRef::parse(&value).unwrap();
        let all = address.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(&name));
        prop_assert_eq!(
            address.params.get(&name),
            all.map(|(_, value)| value.unwrap_or(""))
        );
    }

    #[test]
    fn sent_by_without_white_space_reads_as_with(
        host in "[a-c.]{0,3}",
        port in "(:[0-9]{0,6})?",
        params in "(;[a-c]{1,2})?",
    ) {
        let plain = format!("SIP/2.0/UDP {host}{port}{params}");
        // The white space is in the grammar.
        let spaced = format!("SIP / 2.0 / UDP {host} {} {params}", port.replacen(':', ": ", 1));
        match (ViaRef::parse(&plain), ViaRef::parse(&spaced)) {
            (Ok(plain), Ok(spaced)) => {
                prop_assert_eq!(plain.to_via(), spaced.to_via());
            }
            (plain, spaced) => prop_assert!(plain.is_err() && spaced.is_err()),
        }
    }
}
