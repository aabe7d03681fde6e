use super::*;
use crate::message::Method;

const NOW: Duration = Duration::from_secs(1_700_000_000);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn request(headers: &[(HeaderName<'static>, &str)]) -> Message {
    let mut message = Message::request(Method::Invite, "sip:m@x");
    for (name, value) in headers {
        message.push_back(*name, *value);
    }
    message
}

fn response(headers: &[(HeaderName<'static>, &str)]) -> Message {
    let mut message = Message::response(&request(&[]), StatusCode::of(200), None, None);
    for (name, value) in headers {
        message.push_back(*name, *value);
    }
    message
}

const SUPPORTED: (HeaderName<'static>, &str) = (HeaderName::Supported, "100rel, timer");

fn asks(value: &'static str) -> (HeaderName<'static>, &'static str) {
    (HeaderName::SessionExpires, value)
}

#[test]
fn session_expires_parses_and_what_does_not_is_told() {
    for (text, interval, refresher) in [
        ("1800", 1_800, None),
        (" 90 ; x=y ; Refresher = UAS ", 90, Some(Refresher::Uas)),
        ("90;refresher=uac", 90, Some(Refresher::Uac)),
        ("99999999999999", u32::MAX, None),
    ] {
        assert_eq!(
            SessionExpires::parse(text),
            Ok(SessionExpires {
                interval,
                refresher
            })
        );
    }
    for bad in ["", "-1", "+90", "90s", "90;refresher=me", "90;refresher"] {
        assert!(SessionExpires::parse(bad).is_err(), "{bad}");
    }
}

/// RFC 4028 §9, table 2, and the interval rules before it.
#[test]
fn every_request_of_a_peer_is_answered_as_the_table_says() {
    let timer = SessionTimer::new(Policy::default());
    let min = |value| (HeaderName::MinSe, value);
    let mut table = String::new();
    for (name, headers) in [
        ("nothing", vec![]),
        ("supported", vec![SUPPORTED]),
        ("supported, min-se 3600", vec![SUPPORTED, min("3600")]),
        ("1200", vec![asks("1200")]),
        ("1200 supported", vec![asks("1200"), SUPPORTED]),
        (
            "1200 supported uac",
            vec![asks("1200;refresher=uac"), SUPPORTED],
        ),
        (
            "1200 supported uas",
            vec![asks("1200;refresher=uas"), SUPPORTED],
        ),
        ("9000 supported", vec![asks("9000"), SUPPORTED]),
        (
            "9000 supported, min-se 3600",
            vec![asks("9000"), SUPPORTED, min("3600")],
        ),
        ("60 supported", vec![asks("60"), SUPPORTED]),
        ("60 from a proxy", vec![asks("60")]),
        ("malformed", vec![asks("soon"), SUPPORTED]),
    ] {
        let mut answer = response(&[]);
        match timer.agree(&request(&headers)) {
            Ok(agreement) => {
                agreement.stamp(&mut answer);
                table += &format!(
                    "{name}: {} {}\n",
                    answer.header(HeaderName::SessionExpires).unwrap_or("-"),
                    answer.header(HeaderName::Require).unwrap_or("-")
                );
            }
            Err(refusal) => {
                refusal.stamp(&mut answer);
                table += &format!(
                    "{name}: {} {}\n",
                    refusal.status().get(),
                    answer.header(HeaderName::MinSe).unwrap_or("-")
                );
            }
        }
    }
    assert_eq!(
        table,
        "\
nothing: 1800;refresher=uas -
supported: 1800;refresher=uac timer
supported, min-se 3600: 3600;refresher=uac timer
1200: 1200;refresher=uas -
1200 supported: 1200;refresher=uac timer
1200 supported uac: 1200;refresher=uac timer
1200 supported uas: 1200;refresher=uas timer
9000 supported: 1800;refresher=uac timer
9000 supported, min-se 3600: 3600;refresher=uac timer
60 supported: 422 90
60 from a proxy: 90;refresher=uas -
malformed: 400 -
"
    );
}

#[test]
fn without_support_a_timer_runs_only_where_the_policy_says_so() {
    let policy = Policy {
        without_support: false,
        ..Policy::default()
    };
    let mut timer = SessionTimer::new(policy);
    let agreement = timer.agree(&request(&[])).expect("nothing to refuse");
    assert_eq!(agreement.interval, None);
    let mut answer = response(&[]);
    agreement.stamp(&mut answer);
    assert_eq!(answer.header(HeaderName::SessionExpires), None);
    timer.on_agreed(NOW, &agreement);
    assert_eq!(timer.state(), State::Inactive);
    timer.on_success(NOW, &response(&[]));
    assert_eq!(timer.state(), State::Inactive);
}

fn as_uas(refresher: &'static str) -> SessionTimer {
    let mut timer = SessionTimer::new(Policy::default());
    let agreement = timer
        .agree(&request(&[asks(refresher), SUPPORTED]))
        .expect("long enough");
    timer.on_agreed(NOW, &agreement);
    timer
}

#[test]
fn the_refresher_refreshes_at_half_time_and_the_other_only_waits() {
    let ours = as_uas("1800;refresher=uas");
    assert_eq!(ours.poll_timeout(), Some(NOW + s(900)));
    assert_eq!(ours.due(NOW + s(899)), None);
    assert_eq!(ours.due(NOW + s(900)), Some(Due::Refresh));
    let theirs = as_uas("1800;refresher=uac");
    assert_eq!(theirs.refresh_at(), None);
    assert_eq!(theirs.poll_timeout(), Some(NOW + s(1_768)));
    assert_eq!(theirs.due(NOW + s(1_767)), None);
    assert_eq!(theirs.due(NOW + s(1_768)), Some(Due::Expired));
}

#[test]
fn a_short_session_ends_a_third_of_its_interval_early() {
    assert_eq!(as_uas("90;refresher=uac").expires_at(), Some(NOW + s(60)));
    assert_eq!(as_uas("96;refresher=uac").expires_at(), Some(NOW + s(64)));
    assert_eq!(as_uas("97;refresher=uac").expires_at(), Some(NOW + s(65)));
}

#[test]
fn a_refresh_under_way_is_not_repeated_and_a_failed_one_is_retried() {
    let mut timer = as_uas("1800;refresher=uas");
    timer.on_refresh_sent();
    assert_eq!(timer.due(NOW + s(901)), None);
    assert_eq!(timer.poll_timeout(), Some(NOW + s(1_768)));
    timer.on_refresh_failed(NOW + s(902), s(3));
    assert_eq!(timer.due(NOW + s(904)), None);
    assert_eq!(timer.due(NOW + s(905)), Some(Due::Refresh));
    timer.on_refresh_sent();
    let answer = response(&[asks("1800;refresher=uac"), SUPPORTED]);
    timer.on_success(NOW + s(906), &answer);
    assert_eq!(timer.poll_timeout(), Some(NOW + s(906 + 900)));
}

#[test]
fn our_refresh_keeps_interval_and_role() {
    let stamped = |timer: &SessionTimer| {
        let mut update = request(&[]);
        timer.stamp(&mut update);
        assert!(update.has_token(HeaderName::Supported, "timer"));
        update
            .header(HeaderName::SessionExpires)
            .unwrap_or("-")
            .to_owned()
    };
    assert_eq!(stamped(&SessionTimer::new(Policy::default())), "1800");
    assert_eq!(stamped(&as_uas("1200;refresher=uas")), "1200;refresher=uac");
    assert_eq!(stamped(&as_uas("1200;refresher=uac")), "1200;refresher=uas");
}

#[test]
fn a_refresh_by_the_peer_starts_the_interval_again_and_keeps_the_role() {
    let mut timer = as_uas("1800;refresher=uas");
    let again = timer
        .agree(&request(&[asks("1800"), SUPPORTED]))
        .expect("long enough");
    assert_eq!(again.refresher, Refresher::Uas);
    timer.on_agreed(NOW + s(100), &again);
    assert_eq!(timer.poll_timeout(), Some(NOW + s(1_000)));
}

#[test]
fn the_answer_to_our_invite_decides_who_refreshes() {
    let mut timer = SessionTimer::new(Policy::default());
    timer.on_success(NOW, &response(&[asks("600;refresher=uas")]));
    assert_eq!(timer.refresh_at(), None);
    assert_eq!(timer.expires_at(), Some(NOW + s(568)));
    timer.on_success(NOW, &response(&[asks("600;refresher=uac")]));
    assert_eq!(timer.refresh_at(), Some(NOW + s(300)));
    timer.on_success(NOW, &response(&[]));
    assert_eq!(timer.refresh_at(), Some(NOW + s(900)), "for ourselves");
    timer.on_success(NOW, &response(&[asks("1;refresher=uac")]));
    assert_eq!(timer.refresh_at(), Some(NOW + s(45)), "never below 90");
}

#[test]
fn a_422_is_heeded_once_and_the_retry_says_so() {
    let mut timer = SessionTimer::new(Policy::default());
    let too_small = |value| response(&[(HeaderName::MinSe, value)]);
    assert!(timer.on_interval_too_small(&too_small("3600")));
    let mut retry = request(&[]);
    timer.stamp(&mut retry);
    assert_eq!(retry.header(HeaderName::SessionExpires), Some("3600"));
    assert_eq!(retry.header(HeaderName::MinSe), Some("3600"));
    assert!(!timer.on_interval_too_small(&too_small("3600")));
    assert!(!timer.on_interval_too_small(&too_small("x")));
    assert!(!timer.on_interval_too_small(&response(&[])));
}

#[test]
fn a_stored_timer_goes_on_elsewhere() {
    let mut timer = as_uas("1800;refresher=uas");
    timer.on_refresh_sent();
    let text = serde_json::to_string(&timer).expect("plain data");
    let mut restored: SessionTimer = serde_json::from_str(&text).expect("what was just written");
    assert_eq!(restored, timer);
    let taken_over = NOW + s(700);
    restored.on_taken_over(taken_over, 500);
    assert_eq!(restored.terms(), Some((1800, true)));
    assert_eq!(restored.due(taken_over + s(216)), None);
    assert_eq!(restored.due(taken_over + s(217)), Some(Due::Refresh));
    // 32 s before half the interval is over: the peer heard of us less than the other half ago.
    assert_eq!(restored.expires_at(), Some(taken_over + s(900 - 32)));
}

#[test]
fn a_peer_that_refreshes_has_a_whole_interval_after_a_takeover() {
    let mut timer = as_uas("1800;refresher=uac");
    let taken_over = NOW + s(1700);
    timer.on_taken_over(taken_over, 500);
    assert_eq!(timer.terms(), Some((1800, false)));
    assert_eq!(timer.refresh_at(), None);
    assert_eq!(timer.expires_at(), Some(taken_over + s(1800 - 32)));
}
