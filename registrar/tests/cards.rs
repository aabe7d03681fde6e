//! A machine of several network cards: a namespace of its own, in which this test starts itself again.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use common::{DOMAIN, Site, Ua};
use sip::HeaderName;

/// The addresses of the cards there.
const CARDS: [&str; 2] = ["198.51.100.1", "203.0.113.1"];

#[test]
fn each_client_is_told_the_card_it_came_to() {
    let namespace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/e2e/namespace.sh");
    let within = Command::new(namespace)
        .args([
            "sh",
            "-c",
            "ip addr add 203.0.113.1/24 dev rostrum1; exec \"$@\"",
            "sh",
        ])
        .arg(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "within_the_namespace",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .expect("a namespace can be made (scripts/setup test)");
    let told = String::from_utf8_lossy(&within.stdout);
    let errors = String::from_utf8_lossy(&within.stderr);
    assert!(
        within.status.success() && told.contains("1 passed"),
        "{told}{errors}"
    );
}

#[tokio::test]
#[ignore = "for the test above, where there are two cards"]
async fn within_the_namespace() {
    let site = Site::start_with(|config| {
        config.udp = vec![SocketAddr::from(([0, 0, 0, 0], 0))];
        config.advertise = Vec::new();
    })
    .await;
    let port = site.registrar.addresses().udp[0].port();
    let at = |card: &str| SocketAddr::new(card.parse().expect("an address"), port);
    let mut phones = Vec::new();
    for (user, card) in ["alice", "bob"].into_iter().zip(CARDS) {
        let mut phone = Ua::udp(user, at(card)).await;
        let ok = phone.register().await;
        let route = format!("<sip:{};transport=udp;lr>", at(card));
        assert_eq!(ok.header(HeaderName::ServiceRoute), Some(route.as_str()));
        phones.push(phone);
    }
    let [mut alice, mut bob] = <[Ua; 2]>::try_from(phones).unwrap_or_else(|_| panic!("two"));
    let uri = format!("sip:bob@{DOMAIN}");
    alice
        .authenticated("INVITE", &uri, &format!("<{uri}>"), "call-1")
        .await;
    let invite = bob.request("INVITE").await;
    let via = invite.top_via().expect("a Via");
    assert_eq!(via.host, CARDS[1]);
    let routes: Vec<&str> = invite.values(HeaderName::RecordRoute).collect();
    assert!(
        routes[0].contains(&format!("@{}", at(CARDS[1]))),
        "{routes:?}"
    );
    assert!(
        routes[1].contains(&format!("@{}", at(CARDS[0]))),
        "{routes:?}"
    );
    bob.answer(&invite, 486).await;
    alice.response(486).await;
}
