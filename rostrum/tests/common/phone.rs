//! A SIP client of a few lines, over UDP, TCP or WebSocket: what it says stands in the test.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use md5::{Digest, Md5};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, WebSocket};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(8);

enum Line {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
    Ws(Box<WebSocket<TcpStream>>),
}

/// One client with one connection to a registrar.
pub struct Phone {
    line: Line,
    transport: &'static str,
    /// host[:port] of Via and Contact.
    at: String,
    /// Of its own address and media.
    is_ipv6: bool,
    domain: String,
    user: String,
    password: String,
    display: String,
    sequence: u32,
    authorization: Option<String>,
    /// Contact with what a client that may move between registrars says (RFC 5626 §4.2); `None`: plain.
    outbound: Option<String>,
    /// Requests that came while an answer was waited for.
    early: VecDeque<String>,
}

/// A call that was answered.
pub struct Call {
    id: String,
    from: String,
    to: String,
    target: String,
    /// Whom requests within it go to, next first.
    pub routes: Vec<String>,
    /// The 200's text.
    pub answer: String,
}

/// First line of a header.
pub fn header<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    headers(message, name).next()
}

fn headers<'m>(message: &'m str, name: &str) -> impl Iterator<Item = &'m str> {
    let head = message.split("\r\n\r\n").next().unwrap_or(message);
    head.lines().filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status code; 0 of a request.
pub fn status(message: &str) -> u16 {
    message
        .strip_prefix("SIP/2.0 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or(0)
}

fn tagged(value: &str, name: &str) -> Option<String> {
    let (_, rest) = value.split_once(&format!("{name}=\""))?;
    rest.split('"').next().map(str::to_owned)
}

fn in_brackets(value: &str) -> String {
    let inner = value.split_once('<').and_then(|(_, r)| r.split('>').next());
    inner.unwrap_or(value).to_owned()
}

fn hash(text: &str) -> String {
    hex::encode(Md5::digest(text))
}

impl Phone {
    /// Over UDP.
    pub fn udp(remote: SocketAddr, domain: &str, (user, password): (&str, &str)) -> Self {
        let socket = UdpSocket::bind((loopback(remote), 0)).expect("a free port");
        socket.connect(remote).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let at = socket.local_addr().expect("bound").to_string();
        let line = Line::Udp(socket);
        Self::new(line, "UDP", at, remote, domain, (user, password))
    }

    /// Over TCP.
    pub fn tcp(remote: SocketAddr, domain: &str, (user, password): (&str, &str)) -> Self {
        let stream = TcpStream::connect(remote).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let at = stream.local_addr().expect("bound").to_string();
        let line = Line::Tcp(stream, Vec::new());
        Self::new(line, "TCP", at, remote, domain, (user, password))
    }

    /// Over WebSocket (RFC 7118), as the URL says.
    pub fn ws(url: &str, domain: &str, (user, password): (&str, &str)) -> Self {
        let mut request = url.into_client_request().expect("a URL");
        let subprotocol = tungstenite::http::HeaderValue::from_static("sip");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", subprotocol);
        let host = request.uri().authority().expect("a host").to_string();
        let stream = TcpStream::connect(host).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let remote = stream.peer_addr().expect("connected");
        let (socket, _) = tungstenite::client(request, stream).expect("a WebSocket");
        let line = Line::Ws(Box::new(socket));
        let at = "phone.invalid".into();
        Self::new(line, "WS", at, remote, domain, (user, password))
    }

    fn new(
        line: Line,
        transport: &'static str,
        at: String,
        remote: SocketAddr,
        domain: &str,
        (user, password): (&str, &str),
    ) -> Self {
        Self {
            line,
            transport,
            at,
            is_ipv6: remote.is_ipv6(),
            domain: domain.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            display: user.to_owned(),
            sequence: 0,
            authorization: None,
            outbound: None,
            early: VecDeque::new(),
        }
    }

    /// Says which device it is, so that it can come back by another connection.
    pub fn outbound(mut self) -> Self {
        self.outbound = Some(format!(
            "<sip:{0}@phone.invalid;transport=tcp>;reg-id=1;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{1:012x}>\"",
            self.user,
            std::process::id()
        ));
        self
    }

    /// Connects over TCP to another registrar.
    pub fn move_to(&mut self, remote: SocketAddr) {
        let stream = TcpStream::connect(remote).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        self.at = stream.local_addr().expect("bound").to_string();
        self.line = Line::Tcp(stream, Vec::new());
    }

    /// Calls itself so.
    pub fn named(mut self, display: &str) -> Self {
        display.clone_into(&mut self.display);
        self
    }

    fn send(&mut self, text: &str) {
        match &mut self.line {
            Line::Udp(socket) => drop(socket.send(text.as_bytes()).expect("sends")),
            Line::Tcp(stream, _) => stream.write_all(text.as_bytes()).expect("writes"),
            Line::Ws(socket) => socket
                .send(tungstenite::Message::text(text))
                .expect("sends"),
        }
    }

    /// The next message; fails where none comes.
    pub fn receive(&mut self) -> String {
        match &mut self.line {
            Line::Udp(socket) => {
                let mut buffer = [0; 65_536];
                let length = socket.recv(&mut buffer).expect("a message");
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            }
            Line::Tcp(stream, buffer) => loop {
                if let Some(length) = complete(buffer) {
                    let message: Vec<u8> = buffer.drain(..length).collect();
                    return String::from_utf8_lossy(&message).into_owned();
                }
                let mut more = [0; 4096];
                let length = stream.read(&mut more).expect("a message");
                assert!(length > 0, "the connection was closed");
                buffer.extend_from_slice(&more[..length]);
            },
            Line::Ws(socket) => loop {
                match socket.read().expect("a message") {
                    tungstenite::Message::Text(text) => return text.to_string(),
                    tungstenite::Message::Binary(bytes) => {
                        return String::from_utf8_lossy(&bytes).into_owned();
                    }
                    _ => {}
                }
            },
        }
    }

    /// The next request with this method; others are passed over.
    pub fn await_request(&mut self, method: &str) -> String {
        loop {
            let early = self.early.pop_front();
            let message = early.unwrap_or_else(|| self.receive());
            if message.starts_with(&format!("{method} ")) {
                return message;
            }
        }
    }

    /// Answers a request.
    pub fn answer(&mut self, request: &str, status: &str) {
        self.respond(request, status, "", "");
    }

    /// Answers a request with a description of media.
    pub fn answer_with(&mut self, request: &str, status: &str, sdp: &str) {
        let contact = format!(
            "Contact: <sip:{}@{};transport={}>\r\nContent-Type: application/sdp\r\n",
            self.user,
            self.at,
            self.transport.to_lowercase()
        );
        self.respond(request, status, &contact, sdp);
    }

    fn respond(&mut self, request: &str, status: &str, more: &str, body: &str) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            for value in headers(request, name) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        text.push_str(&format!(
            "{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        self.send(&text);
    }

    /// Registers for that many seconds; the final answer.
    pub fn register(&mut self, expires: u32) -> String {
        let uri = format!("sip:{}", self.domain);
        let own = format!("<sip:{}@{}>", self.user, self.domain);
        let id = self.fresh("register");
        let more = format!("Expires: {expires}\r\n");
        let from = format!("{own};tag={id}");
        self.transact("REGISTER", &uri, &id, &from, &own, &more, "")
    }

    /// Subscribes to the list of a meeting; the final answer. NOTIFYs follow.
    pub fn subscribe(&mut self, meeting: &str) -> String {
        let uri = format!("sip:{meeting}@{}", self.domain);
        let id = self.fresh("subscribe");
        let from = format!("<sip:{}@{}>;tag={id}", self.user, self.domain);
        let more = "Event: conference\r\nExpires: 600\r\n";
        let to = format!("<{uri}>");
        self.transact("SUBSCRIBE", &uri, &id, &from, &to, more, "")
    }

    /// Calls with plain audio; a call where it was answered, else the final answer.
    pub fn call(&mut self, callee: &str) -> Result<Call, String> {
        let sdp = self.sdp("sendrecv");
        self.call_with(callee, &sdp)
    }

    /// Calls with this offer.
    pub fn call_with(&mut self, callee: &str, sdp: &str) -> Result<Call, String> {
        let uri = format!("sip:{callee}@{}", self.domain);
        let id = self.fresh("call");
        let from = format!(
            "\"{}\" <sip:{}@{}>;tag={id}",
            self.display, self.user, self.domain
        );
        let answer = self.transact("INVITE", &uri, &id, &from, &format!("<{uri}>"), "", sdp);
        if status(&answer) != 200 {
            return Err(answer);
        }
        let mut routes: Vec<String> = headers(&answer, "Record-Route")
            .flat_map(|v| v.split(','))
            .map(|v| v.trim().to_owned())
            .collect();
        routes.reverse();
        let call = Call {
            id,
            from,
            to: header(&answer, "To").expect("To").to_owned(),
            target: in_brackets(header(&answer, "Contact").expect("Contact")),
            routes,
            answer,
        };
        self.acknowledge(&call);
        Ok(call)
    }

    /// Offers anew inside a call: `sendrecv`, `sendonly`; the final answer.
    pub fn reoffer(&mut self, call: &Call, direction: &str) -> String {
        let sdp = self.sdp(direction);
        let answer = self.within("INVITE", call, &sdp);
        if status(&answer) == 200 {
            self.acknowledge(call);
        }
        answer
    }

    /// Asks within a call whether it is there; the final answer.
    pub fn inform(&mut self, call: &Call) -> String {
        self.within("INFO", call, "")
    }

    /// Hangs up; the final answer.
    pub fn hang_up(&mut self, call: &Call) -> String {
        self.within("BYE", call, "")
    }

    fn within(&mut self, method: &str, call: &Call, body: &str) -> String {
        let more = routes(call);
        self.transact(
            method,
            &call.target,
            &call.id,
            &call.from,
            &call.to,
            &more,
            body,
        )
    }

    fn acknowledge(&mut self, call: &Call) {
        let text = self.request(
            "ACK",
            &call.target,
            &call.id,
            &call.from,
            &call.to,
            &routes(call),
            "",
        );
        self.send(&text);
    }

    fn fresh(&mut self, what: &str) -> String {
        self.sequence += 1;
        format!(
            "{what}-{}-{}-{}",
            std::process::id(),
            self.at.replace([':', '[', ']'], "-"),
            self.sequence
        )
    }

    fn sdp(&self, direction: &str) -> String {
        let family = match self.is_ipv6 {
            true => "IP6 ::1",
            false => "IP4 127.0.0.1",
        };
        format!(
            "v=0\r\no=- 1 {} IN {family}\r\ns=-\r\nc=IN {family}\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n\
             a=rtpmap:0 PCMU/8000\r\na={direction}\r\n",
            self.sequence
        )
    }

    #[allow(clippy::too_many_arguments)] // the parts of a request
    fn request(
        &self,
        method: &str,
        uri: &str,
        id: &str,
        from: &str,
        to: &str,
        more: &str,
        body: &str,
    ) -> String {
        let (transport, at, sequence) = (self.transport, &self.at, self.sequence);
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        let authorization = match &self.authorization {
            Some(line) if method != "ACK" => format!("{line}\r\n"),
            _ => String::new(),
        };
        let contact = match &self.outbound {
            Some(contact) => format!("{contact}\r\nSupported: path, gruu, outbound"),
            None => format!(
                "<sip:{}@{at};transport={}>",
                self.user,
                transport.to_ascii_lowercase()
            ),
        };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {at};branch=z9hG4bK{method}{id}x{sequence};rport\r\n\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {sequence} {method}\r\n\
             Contact: {contact}\r\n{authorization}{more}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// One request, again with credentials where it is challenged.
    #[allow(clippy::too_many_arguments)]
    fn transact(
        &mut self,
        method: &str,
        uri: &str,
        id: &str,
        from: &str,
        to: &str,
        more: &str,
        body: &str,
    ) -> String {
        self.authorization = None;
        loop {
            self.sequence += 1;
            let text = self.request(method, uri, id, from, to, more, body);
            self.send(&text);
            let answer = self.final_answer(method);
            if method == "INVITE" && status(&answer) >= 300 {
                self.acknowledge_refusal(&text, &answer);
            }
            if self.authorization.is_some() || !matches!(status(&answer), 401 | 407) {
                self.authorization = None;
                return answer;
            }
            self.authorization = Some(self.credentials(&answer, method, uri));
        }
    }

    fn final_answer(&mut self, method: &str) -> String {
        let wanted = format!("{} {method}", self.sequence);
        loop {
            let message = self.receive();
            if status(&message) >= 200 && header(&message, "CSeq") == Some(&wanted) {
                return message;
            }
            if status(&message) == 0 {
                self.early.push_back(message);
            }
        }
    }

    /// The ACK of a refusal belongs to the INVITE's transaction (RFC 3261 §17.1.1.3).
    fn acknowledge_refusal(&mut self, invite: &str, answer: &str) {
        let uri = invite.split(' ').nth(1).expect("a URI");
        let mut text = format!("ACK {uri} SIP/2.0\r\nMax-Forwards: 70\r\n");
        for (name, from) in [
            ("Via", invite),
            ("From", invite),
            ("To", answer),
            ("Call-ID", invite),
        ] {
            text.push_str(&format!("{name}: {}\r\n", header(from, name).expect(name)));
        }
        text.push_str(&format!(
            "CSeq: {} ACK\r\nContent-Length: 0\r\n\r\n",
            self.sequence
        ));
        self.send(&text);
    }

    fn credentials(&self, challenge: &str, method: &str, uri: &str) -> String {
        let (asked, name) = match status(challenge) {
            401 => ("WWW-Authenticate", "Authorization"),
            _ => ("Proxy-Authenticate", "Proxy-Authorization"),
        };
        let value = headers(challenge, asked)
            .find(|v| v.contains("MD5"))
            .expect("an MD5 challenge");
        let (realm, nonce) = (
            tagged(value, "realm").expect("a realm"),
            tagged(value, "nonce").expect("a nonce"),
        );
        let ha1 = hash(&format!("{}:{realm}:{}", self.user, self.password));
        let ha2 = hash(&format!("{method}:{uri}"));
        let response = hash(&format!("{ha1}:{nonce}:00000001:c0ffee:auth:{ha2}"));
        format!(
            "{name}: Digest username=\"{}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c0ffee\"",
            self.user
        )
    }
}

fn loopback(like: SocketAddr) -> std::net::IpAddr {
    like.ip()
}

fn routes(call: &Call) -> String {
    call.routes
        .iter()
        .map(|r| format!("Route: {r}\r\n"))
        .collect()
}

/// Length of the first whole message in a stream's buffer.
fn complete(buffer: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(buffer);
    let head = text.find("\r\n\r\n")? + 4;
    let body: usize = header(&text, "Content-Length")?.parse().ok()?;
    (buffer.len() >= head + body).then_some(head + body)
}
