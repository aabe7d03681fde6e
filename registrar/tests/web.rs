//! The HTTP side: guests, WebSocket, and who may not come in.

mod common;

use std::net::SocketAddr;

use common::{DOMAIN, Site, Ua, http};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, http as h};

fn post(host: &str, body: &str) -> String {
    format!(
        "POST /api/v1/guest HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn open(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, h::StatusCode> {
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .expect("a request");
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, h::HeaderValue::from_str(value).expect("a value"));
    }
    let stream = TcpStream::connect(address).await.expect("listens");
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, response)) => {
            let chosen = response.headers().get("sec-websocket-protocol");
            assert_eq!(chosen.map(h::HeaderValue::as_bytes), Some(&b"sip"[..]));
            Ok(socket)
        }
        Err(tungstenite::Error::Http(response)) => Err(response.status()),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn guest_gets_an_identity_and_registers_with_it_over_the_same_port() {
    let site = Site::start().await;
    let address = site.registrar.addresses().http[0];
    let body = r#"{"name":"Zoe","meeting":"lobby"}"#;
    let (head, body) = http(address, &post(&address.to_string(), body)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let pass: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let user = pass["user"].as_str().expect("a user");
    assert_eq!(pass["uri"], format!("sip:{user}@{DOMAIN}"));
    assert_eq!(pass["display_name"], "Zoe");
    assert_eq!(pass["ws"], format!("ws://{address}/sip"));
    for path in ["/sip", "/"] {
        let socket = open(address, path, &[("sec-websocket-protocol", "sip")])
            .await
            .expect("let in");
        let mut guest = Ua::websocket(user, socket);
        guest.password = pass["password"].as_str().expect("a password").to_owned();
        guest.register().await;
    }
}

#[tokio::test]
async fn refusals_to_guests_say_why() {
    let site = Site::start().await;
    let address = site.registrar.addresses().http[0];
    for (body, status, word) in [
        (r#"{"name":"Zoe","meeting":"board"}"#, 403, "guests"),
        (r#"{"name":"Zoe","meeting":"nowhere"}"#, 403, "guests"),
        (r#"{"name":"  ","meeting":"lobby"}"#, 422, "name"),
        (r#"{"name":"Zoe"}"#, 400, "meeting"),
        ("not json", 400, "Expected"),
    ] {
        let (head, answer) = http(address, &post(&address.to_string(), body)).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(head.contains("application/problem+json"), "{head}");
        assert!(answer.contains(word), "{answer}");
    }
    let large = format!(r#"{{"name":"{}","meeting":"lobby"}}"#, "x".repeat(10_000));
    let (head, _) = http(address, &post(&address.to_string(), &large)).await;
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
}

#[tokio::test]
async fn configuration_names_the_meetings_and_who_may_join() {
    let site = Site::start().await;
    let address = site.registrar.addresses().http[0];
    let get =
        format!("GET /api/v1/config HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let (_, body) = http(address, &get).await;
    let config: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(config["domain"], DOMAIN);
    assert_eq!(config["ws"], "/sip");
    assert_eq!(config["meetings"][0]["id"], "lobby");
    assert_eq!(config["meetings"][0]["guests"], true);
    assert_eq!(config["meetings"][1]["title"], "board");
}

#[tokio::test]
async fn ipv6_domain_stands_in_brackets_wherever_a_uri_is_made_of_it() {
    let site = Site::start_with(|config| config.domain = "2001:db8::1".into()).await;
    let address = site.registrar.addresses().http[0];
    let get =
        format!("GET /api/v1/config HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let (_, body) = http(address, &get).await;
    let config: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(config["domain"], "[2001:db8::1]");
    assert_eq!(config["meetings"][0]["uri"], "sip:lobby@[2001:db8::1]");
    let ask = post(&address.to_string(), r#"{"name":"Zoe","meeting":"lobby"}"#);
    let (_, body) = http(address, &ask).await;
    let pass: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let uri = pass["uri"].as_str().expect("a URI");
    assert!(uri.ends_with("@[2001:db8::1]"), "{uri}");
    assert!(sip::Uri::parse(uri).is_ok(), "{uri}");
}

#[tokio::test]
async fn websocket_without_subprotocol_sip_or_from_a_foreign_page_is_refused() {
    let site = Site::start().await;
    let address = site.registrar.addresses().http[0];
    let sip = ("sec-websocket-protocol", "sip");
    let status = |result: Result<_, h::StatusCode>| match result {
        Ok(_) => 101,
        Err(status) => status.as_u16(),
    };
    assert_eq!(status(open(address, "/sip", &[]).await), 400);
    assert_eq!(
        status(open(address, "/sip", &[("sec-websocket-protocol", "chat")]).await),
        400
    );
    let origin = |o| [sip, ("origin", o)];
    assert_eq!(
        status(open(address, "/sip", &origin("https://evil.example")).await),
        403
    );
    assert_eq!(status(open(address, "/sip", &origin("null")).await), 403);
    assert_eq!(
        status(open(address, "/sip", &origin("http://localhost:8080")).await),
        101
    );
    let host = [sip, ("host", "rebound.example")];
    assert_eq!(status(open(address, "/sip", &host).await), 421);
    let get = format!("GET /sip HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let (head, _) = http(address, &get).await;
    assert!(head.starts_with("HTTP/1.1 426"), "{head}");
}

#[tokio::test]
async fn page_is_served_on_this_machine_and_elsewhere_sent_to_https() {
    let site = Site::start().await;
    let addresses = site.registrar.addresses();
    let (http_at, https_at) = (addresses.http[0], addresses.https[0]);
    let get =
        |host: &str| format!("GET /x?y=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (head, body) = http(http_at, &get(&format!("localhost:{}", http_at.port()))).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "the page");
    let (head, _) = http(http_at, &get("example.org:8080")).await;
    assert!(head.starts_with("HTTP/1.1 307"), "{head}");
    let location = format!("location: https://example.org:{}/x?y=1", https_at.port());
    assert!(head.to_ascii_lowercase().contains(&location), "{head}");
    let (head, _) = http(http_at, &get("evil.example")).await;
    assert!(head.starts_with("HTTP/1.1 421"), "{head}");
}
