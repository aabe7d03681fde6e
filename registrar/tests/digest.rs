//! Digest against an implementation that is not ours: hashes, responses and the users' file are made with openssl.

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{DOMAIN, Site, Ua};
use registrar::Config;
use sip::{HeaderName, Message};

/// What `openssl dgst` says of a text, in hex.
fn hash(algorithm: &str, text: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", algorithm, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs (scripts/setup test)");
    let mut input = openssl.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("written");
    drop(input);
    let output = openssl.wait_with_output().expect("ends");
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    let digest = told.split_whitespace().next().expect("a digest");
    assert!(digest.len() >= 32, "{told}");
    digest.to_owned()
}

fn parameter<'a>(challenge: &'a str, name: &str) -> &'a str {
    let (_, rest) = challenge.split_once(&format!("{name}=\"")).expect(name);
    rest.split_once('"').expect("a quoted value").0
}

/// A users' file as an operator's script would write it.
fn carol(config: &mut Config) {
    let name = format!("carol:{}:s3cret ü", config.realm());
    let (sha256, md5) = (hash("-sha256", &name), hash("-md5", &name));
    let text = format!("[[user]]\nname = \"carol\"\nsha256 = \"{sha256}\"\nmd5 = \"{md5}\"\n");
    config.users = config.data.with_file_name("by-hand.toml");
    std::fs::write(&config.users, text).expect("written");
}

/// The answer to a challenge by RFC 7616 §3.4.1.
fn answer(challenge: &str, dgst: &str, password: &str, uri: &str) -> String {
    let (realm, nonce) = (parameter(challenge, "realm"), parameter(challenge, "nonce"));
    let a1 = hash(dgst, &format!("carol:{realm}:{password}"));
    let a2 = hash(dgst, &format!("REGISTER:{uri}"));
    let response = hash(dgst, &format!("{a1}:{nonce}:00000001:0a4f113b:auth:{a2}"));
    let algorithm = if dgst == "-md5" { "MD5" } else { "SHA-256" };
    format!(
        "Digest username=\"carol\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", algorithm={algorithm}, \
         qop=auth, nc=00000001, cnonce=\"0a4f113b\", response=\"{response}\""
    )
}

#[tokio::test]
async fn responses_and_passwords_hashed_by_openssl_are_right() {
    let site = Site::start_with(carol).await;
    let uri = format!("sip:{DOMAIN}");
    let to = format!("<sip:carol@{DOMAIN}>");
    for (dgst, algorithm) in [("-sha256", "algorithm=SHA-256"), ("-md5", "algorithm=MD5")] {
        for (password, status) in [("s3cret ü", 200), ("s3cret u", 401)] {
            let mut phone = Ua::udp("carol", site.registrar.addresses().udp[0]).await;
            let call_id = format!("{algorithm}-{status}");
            let first = phone.build("REGISTER", &uri, &to, &call_id, "");
            phone.send(&first).await;
            let refused: Message = phone.response(401).await;
            let mut offered = refused.headers(HeaderName::WwwAuthenticate);
            let challenge = offered.find(|c| c.contains(algorithm)).expect(algorithm);
            let mut again = phone.build("REGISTER", &uri, &to, &call_id, "");
            again.push_back(
                HeaderName::Authorization,
                answer(challenge, dgst, password, &uri),
            );
            phone.send(&again).await;
            phone.response(status).await;
        }
    }
}
