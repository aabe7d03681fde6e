//! The whole role over loopback: real UDP, a real gRPC switch, a real store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cluster::embedded::EmbeddedStore;
use cluster::records::{RECORD_VERSION, SwitchRecord, keys};
use cluster::{Op, Store, Txn};
use control::v1 as ctl;
use control::v1::switch_server::{Switch, SwitchServer};
use meeting_core::Counts;
use meeting_manager::{Config, Meeting, MeetingManager};
use parking_lot::Mutex;
use sip::{HeaderName, Limits, Message, Method, Transport};
use tokio::net::UdpSocket;
use tokio::sync::broadcast;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

const PATIENCE: Duration = Duration::from_secs(5);

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

// ---- a switch

#[derive(Debug)]
struct State {
    meetings: BTreeMap<String, BTreeMap<String, ctl::Leg>>,
}

#[derive(Clone, Debug)]
struct FakeSwitch {
    instance: &'static str,
    port: u32,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ctl::Event>,
}

impl FakeSwitch {
    fn legs(&self, meeting: &str) -> usize {
        let state = self.state.lock();
        state.meetings.get(meeting).map_or(0, BTreeMap::len)
    }

    /// Where it is to send to, of every transport of the meeting.
    fn remote_ports(&self, meeting: &str) -> Vec<u32> {
        let state = self.state.lock();
        let legs = state.meetings.get(meeting).into_iter().flatten();
        legs.flat_map(|(_, leg)| leg.transports.iter().map(|t| t.remote_port))
            .collect()
    }
}

#[tonic::async_trait]
impl Switch for FakeSwitch {
    async fn apply(
        &self,
        request: Request<ctl::ApplyRequest>,
    ) -> Result<Response<ctl::ApplyResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        if request.end {
            state.meetings.remove(&request.meeting);
        } else {
            let legs = state.meetings.entry(request.meeting.clone()).or_default();
            if request.full {
                legs.clear();
            }
            legs.extend(request.legs.iter().map(|l| (l.id.clone(), l.clone())));
            legs.retain(|id, _| !request.removed_legs.contains(id));
        }
        let legs = request
            .legs
            .iter()
            .map(|leg| ctl::LegState {
                id: leg.id.clone(),
                transports: leg
                    .transports
                    .iter()
                    .map(|t| ctl::LocalTransport {
                        index: t.index,
                        addresses: vec![ctl::Address {
                            ip: "127.0.0.1".into(),
                            port: self.port,
                        }],
                        rtcp_port: self.port + 1,
                    })
                    .collect(),
                refused: String::new(),
                unsupported: false,
            })
            .collect();
        Ok(Response::new(ctl::ApplyResponse {
            instance: self.instance.into(),
            epoch: request.epoch,
            legs,
        }))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<ctl::Event, Status>> + Send>>;

    async fn events(
        &self,
        _: Request<ctl::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let mut events = self.events.subscribe();
        let hello = ctl::Event {
            event: Some(ctl::event::Event::Hello(ctl::Hello {
                instance: self.instance.into(),
                version: control::VERSION,
                certificate: Vec::new(),
            })),
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let _ = sender.send(Ok(hello)).await;
            while let Ok(event) = events.recv().await {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        let stream = ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn inspect(
        &self,
        request: Request<ctl::InspectRequest>,
    ) -> Result<Response<ctl::InspectResponse>, Status> {
        let meeting = request.into_inner().meeting;
        let state = self.state.lock();
        let legs = state.meetings.get(&meeting).into_iter().flatten();
        let view = ctl::MeetingView {
            meeting,
            legs: legs
                .map(|(id, leg)| ctl::LegView {
                    id: id.clone(),
                    source: leg.source,
                    slots: vec![ctl::SlotView {
                        kind: ctl::MediaKind::Audio.into(),
                        holder: "somebody".into(),
                        ..ctl::SlotView::default()
                    }],
                    ..ctl::LegView::default()
                })
                .collect(),
            ..ctl::MeetingView::default()
        };
        Ok(Response::new(ctl::InspectResponse {
            instance: self.instance.into(),
            meetings: vec![view],
            ..ctl::InspectResponse::default()
        }))
    }
}

/// The switch's process: dropped, all its sockets close at once, as of one that is killed.
struct Process(Option<tokio::runtime::Runtime>);

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A switch that listens and is registered.
async fn start_switch(
    store: &Arc<dyn Store>,
    instance: &'static str,
    port: u32,
    at: Option<SocketAddr>,
) -> (FakeSwitch, SocketAddr, Process) {
    let switch = FakeSwitch {
        instance,
        port,
        state: Arc::new(Mutex::new(State {
            meetings: BTreeMap::new(),
        })),
        events: broadcast::Sender::new(16),
    };
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
    let listener = bind(at).await;
    let address = listener.local_addr().unwrap();
    let listener = listener.into_std().unwrap();
    let server = SwitchServer::new(switch.clone());
    process.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tonic::transport::Server::builder()
            .add_service(server)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
    });
    let record = SwitchRecord {
        version: RECORD_VERSION,
        id: "sw1".into(),
        instance: instance.into(),
        control: format!("http://{address}"),
        load: 0,
        draining: false,
        fingerprints: vec![("sha-256".into(), "00".repeat(32))],
    };
    let value = serde_json::to_vec(&record).unwrap();
    let txn = Txn {
        compares: Vec::new(),
        ops: vec![Op::Put(keys::switch("sw1"), value.into(), None)],
    };
    store.txn(txn).await.unwrap();
    (switch, address, Process(Some(process)))
}

/// A port whose last owner may still be on its way out.
async fn bind(at: SocketAddr) -> tokio::net::TcpListener {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        match socket.bind(at).and_then(|()| socket.listen(16)) {
            Ok(listener) => return listener,
            Err(e) => assert!(tokio::time::Instant::now() < deadline, "{at}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// ---- a phone

struct Phone {
    socket: UdpSocket,
    manager: SocketAddr,
    name: &'static str,
    cseq: u32,
    target: String,
    to_tag: String,
    /// Header lines of what is sent next.
    extra: String,
}

impl Phone {
    async fn new(name: &'static str, manager: SocketAddr) -> Self {
        Self {
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            manager,
            name,
            cseq: 0,
            target: "sip:team@example.org".into(),
            to_tag: String::new(),
            extra: String::new(),
        }
    }

    async fn send(&mut self, method: &str, cseq: u32, body: &str) {
        let here = self.socket.local_addr().unwrap();
        let (name, target, extra) = (self.name, &self.target, &self.extra);
        let tag = if self.to_tag.is_empty() {
            String::new()
        } else {
            format!(";tag={}", self.to_tag)
        };
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        let text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK{name}{method}{cseq};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{name}@example.org>;tag={name}\r\nTo: <sip:team@example.org>{tag}\r\n\
             Call-ID: {name}\r\nCSeq: {cseq} {method}\r\nContact: <sip:{name}@{here}>\r\n\
             P-Asserted-Identity: <sip:{name}@example.org>\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket
            .send_to(text.as_bytes(), self.manager)
            .await
            .unwrap();
    }

    async fn receive(&self) -> Message {
        let mut buffer = vec![0; 65_535];
        let (length, _) = tokio::time::timeout(PATIENCE, self.socket.recv_from(&mut buffer))
            .await
            .expect("a message in time")
            .unwrap();
        buffer.truncate(length);
        Message::parse(buffer.into(), &Limits::default()).unwrap()
    }

    /// The next final response.
    async fn answer(&self) -> Message {
        loop {
            let message = self.receive().await;
            if message.status().is_some_and(|s| s.is_final()) {
                return message;
            }
        }
    }

    /// The next request of that method; repeated messages are skipped.
    async fn request(&self, method: Method) -> Message {
        loop {
            let message = self.receive().await;
            if message.is_request() && *message.method() == method {
                return message;
            }
        }
    }

    async fn join(&mut self) -> Message {
        self.cseq += 1;
        self.send("INVITE", self.cseq, OFFER).await;
        let ok = self.answer().await;
        if ok.status().unwrap().is_success() {
            self.learn(&ok);
            self.send("ACK", self.cseq, "").await;
        }
        ok
    }

    /// Takes the dialog from a response.
    fn learn(&mut self, response: &Message) {
        self.to_tag = response.to().unwrap().tag().unwrap().to_owned();
        self.target = response.contacts().unwrap()[0].uri.to_string();
    }

    async fn hang_up(&mut self) -> u16 {
        self.cseq += 1;
        self.send("BYE", self.cseq, "").await;
        self.answer().await.status().unwrap().get()
    }

    async fn respond(&self, request: &Message, sdp: &str) {
        let mut text = String::from("SIP/2.0 200 OK\r\n");
        for via in request.headers(HeaderName::Via) {
            text += &format!("Via: {via}\r\n");
        }
        for (name, header) in [
            ("From", HeaderName::From),
            ("To", HeaderName::To),
            ("Call-ID", HeaderName::CallId),
            ("CSeq", HeaderName::CSeq),
        ] {
            text += &format!("{name}: {}\r\n", request.header(header).unwrap());
        }
        let here = self.socket.local_addr().unwrap();
        text += &format!("Contact: <sip:{}@{here}>\r\n", self.name);
        if !sdp.is_empty() {
            text += "Content-Type: application/sdp\r\n";
        }
        text += &format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len());
        self.socket
            .send_to(text.as_bytes(), self.manager)
            .await
            .unwrap();
    }
}

// ---- the role

fn config() -> Config {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        domain: "example.org".into(),
        udp: vec![any],
        tcp: vec![any],
        admin: Some(any),
        meetings: vec![Meeting {
            id: "team".into(),
            title: "The team".into(),
            ..Meeting::default()
        }],
        ..Config::default()
    }
}

fn store() -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::in_memory().unwrap())
}

async fn start(store: &Arc<dyn Store>, config: Config) -> (MeetingManager, SocketAddr) {
    let manager = MeetingManager::start(config, Arc::clone(store))
        .await
        .unwrap();
    let addresses = manager.sip_addresses();
    let udp = addresses
        .iter()
        .find(|(t, _)| *t == Transport::Udp)
        .unwrap()
        .1;
    (manager, udp)
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn get(address: SocketAddr, path: &str) -> (u16, serde_json::Value) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn a_phone_joins_is_seen_by_the_api_and_leaves_nothing_behind() {
    let store = store();
    let (switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let api = manager.admin_address().unwrap();
    let mut alice = Phone::new("alice", sip).await;
    let ok = alice.join().await;
    assert_eq!(ok.status().unwrap().get(), 200, "{}", ok.reason());
    assert!(String::from_utf8_lossy(ok.body()).contains("m=audio 30000"));
    assert_eq!(switch.legs("team"), 1);

    let (status, list) = get(api, "/api/v1/meetings").await;
    assert_eq!(status, 200);
    assert_eq!(list["counts"]["participants"], 1);
    assert_eq!(list["meetings"][0]["title"], "The team");
    let (_, detail) = get(api, "/api/v1/meetings/team").await;
    assert_eq!(detail["participants"][0]["uri"], "sip:alice@example.org");
    assert_eq!(detail["participants"][0]["dialog"]["state"], "confirmed");
    assert_eq!(detail["media"]["legs"][0]["slots"][0]["holder"], "somebody");
    assert_eq!(get(api, "/api/v1/meetings/none").await.0, 404);

    assert_eq!(alice.hang_up().await, 200);
    eventually("all is released", || manager.counts().meetings == 0).await;
    assert_eq!(switch.legs("team"), 0);
    let left = Counts {
        // BYE and INVITE transactions live on for their time.
        server_transactions: manager.counts().server_transactions,
        ..Counts::default()
    };
    assert_eq!(manager.counts(), left);
    assert!(
        store
            .range(&keys::owners(), 10, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert!(
        store
            .range(&keys::dialogs("team"), 10, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    manager.shutdown().await;
    assert!(
        store
            .get(&keys::member("manager-1"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn without_a_switch_calls_are_refused_until_one_registers() {
    let store = store();
    let (manager, sip) = start(&store, config()).await;
    let refused = Phone::new("alice", sip).await.join().await;
    assert_eq!(refused.status().unwrap().get(), 503);
    assert!(refused.header(HeaderName::RetryAfter).is_some());
    let (switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let mut status = 503;
    let names = ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    for name in names {
        let answer = Phone::new(name, sip).await.join().await;
        status = answer.status().unwrap().get();
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 200);
    assert_eq!(switch.legs("team"), 1);
    drop(manager);
}

#[tokio::test]
async fn a_leg_event_of_the_switch_ends_the_call() {
    let store = store();
    let (switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let mut alice = Phone::new("alice", sip).await;
    alice.join().await;
    eventually("the event stream is open", || {
        switch.events.receiver_count() > 0
    })
    .await;
    let leg = switch.state.lock().meetings["team"]
        .keys()
        .next()
        .unwrap()
        .clone();
    let event = ctl::LegEvent {
        meeting: "team".into(),
        leg,
        kind: ctl::leg_event::Kind::MediaTimeout.into(),
        ..ctl::LegEvent::default()
    };
    let event = ctl::Event {
        event: Some(ctl::event::Event::Leg(event)),
    };
    switch.events.send(event).unwrap();
    let bye = alice.request(Method::Bye).await;
    assert!(bye.header(HeaderName::Reason).unwrap().contains("No media"));
    alice.respond(&bye, "").await;
    eventually("all is released", || manager.counts().meetings == 0).await;
    manager.shutdown().await;
}

#[tokio::test]
async fn a_switch_that_is_started_anew_is_noticed_and_the_call_moves() {
    let store = store();
    let (_, address, process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let mut alice = Phone::new("alice", sip).await;
    alice.join().await;
    drop(process);
    let (switch, _, _process) = start_switch(&store, "two", 31_000, Some(address)).await;
    let reinvite = alice.request(Method::Invite).await;
    assert!(String::from_utf8_lossy(reinvite.body()).contains("m=audio 31000"));
    alice.respond(&reinvite, OFFER).await;
    alice.request(Method::Ack).await;
    assert_eq!(switch.legs("team"), 1);
    assert_eq!(alice.hang_up().await, 200);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_restarted_manager_goes_on_with_the_same_dialogs() {
    let store = store();
    let (switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let mut alice = Phone::new("alice", sip).await;
    alice.join().await;
    drop(manager);
    let (manager, sip) = start(&store, config()).await;
    alice.manager = sip;
    eventually("the meeting is adopted", || {
        manager.counts().participants == 1
    })
    .await;
    assert_eq!(switch.legs("team"), 1);
    assert_eq!(alice.hang_up().await, 200);
    eventually("all is released", || manager.counts().meetings == 0).await;
    assert_eq!(switch.legs("team"), 0);
    manager.shutdown().await;
}

#[tokio::test]
async fn shutdown_ends_calls_with_bye_and_waits_for_the_answers() {
    let store = store();
    let (switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let mut alice = Phone::new("alice", sip).await;
    alice.join().await;
    let stopping = tokio::spawn(manager.shutdown());
    let bye = alice.request(Method::Bye).await;
    assert!(bye.header(HeaderName::Reason).unwrap().contains("stops"));
    alice.respond(&bye, "").await;
    tokio::time::timeout(PATIENCE, stopping)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(switch.legs("team"), 0);
    assert!(
        store
            .range(&keys::dialogs("team"), 10, None)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn draining_waits_for_the_meetings_that_are_and_refuses_new_ones() {
    let store = store();
    let (_switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let mut alice = Phone::new("alice", sip).await;
    alice.join().await;
    let manager = Arc::new(manager);
    let draining = {
        let manager = Arc::clone(&manager);
        tokio::spawn(async move { manager.drain(PATIENCE).await })
    };
    let member = keys::member("manager-1");
    loop {
        let entry = store.get(&member).await.unwrap().unwrap();
        let record: cluster::records::Member = serde_json::from_slice(&entry.value).unwrap();
        if record.draining {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut bob = Phone::new("bob", sip).await;
    bob.target = "sip:elsewhere@example.org".into();
    assert_eq!(bob.join().await.status().unwrap().get(), 503);
    assert!(!draining.is_finished());
    assert_eq!(alice.hang_up().await, 200);
    tokio::time::timeout(PATIENCE, draining)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(manager.counts().meetings, 0);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_and_no_panic() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = Config {
        udp: vec![taken.local_addr().unwrap()],
        ..config()
    };
    let error = MeetingManager::start(config, store()).await.unwrap_err();
    assert!(error.to_string().contains("cannot listen"), "{error}");
}

const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\nm=video 0 RTP/AVP 96\r\n";

#[tokio::test]
async fn a_phone_without_an_offer_answers_ours_in_the_ack() {
    let store = store();
    let (switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let mut alice = Phone::new("alice", sip).await;
    alice.cseq = 1;
    alice.send("INVITE", 1, "").await;
    let ok = alice.answer().await;
    assert_eq!(ok.status().unwrap().get(), 200, "{}", ok.reason());
    assert!(String::from_utf8_lossy(ok.body()).contains("m=audio 30000"));
    alice.learn(&ok);
    alice.send("ACK", 1, ANSWER).await;
    eventually("the answer has come to the switch", || {
        switch.remote_ports("team") == [4_000]
    })
    .await;
    assert_eq!(alice.hang_up().await, 200);
    eventually("all is released", || manager.counts().meetings == 0).await;
    manager.shutdown().await;
}

#[tokio::test]
async fn a_phone_that_requires_100rel_is_answered_in_a_183_and_acknowledges_it() {
    for with_offer in [true, false] {
        let store = store();
        let (switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
        let (manager, sip) = start(&store, config()).await;
        let mut alice = Phone::new("alice", sip).await;
        alice.cseq = 2;
        alice.extra = "Require: 100rel\r\n".into();
        let (offer, answer) = if with_offer {
            (OFFER, "")
        } else {
            ("", ANSWER)
        };
        alice.send("INVITE", 1, offer).await;
        let progress = loop {
            let message = alice.receive().await;
            if message.status().is_some_and(|s| s.get() != 100) {
                break message;
            }
        };
        assert_eq!(progress.status().unwrap().get(), 183);
        assert!(progress.has_token(HeaderName::Require, "100rel"));
        assert!(String::from_utf8_lossy(progress.body()).contains("m=audio 30000"));
        alice.learn(&progress);
        let rseq = progress.header(HeaderName::RSeq).unwrap();
        alice.extra = format!("RAck: {rseq} 1 INVITE\r\n");
        alice.send("PRACK", 2, answer).await;
        alice.extra.clear();
        // In either order.
        let mut methods = Vec::new();
        while methods.len() < 2 {
            let ok = alice.answer().await;
            assert_eq!(ok.status().unwrap().get(), 200, "{}", ok.reason());
            assert!(ok.body().is_empty());
            if !methods.contains(ok.method()) {
                methods.push(ok.method().clone());
            }
        }
        assert!(methods.contains(&Method::Prack) && methods.contains(&Method::Invite));
        alice.send("ACK", 1, "").await;
        eventually("the leg has its remote address", || {
            switch.remote_ports("team") == [4_000]
        })
        .await;
        assert_eq!(alice.hang_up().await, 200);
        eventually("all is released", || manager.counts().meetings == 0).await;
        manager.shutdown().await;
    }
}

/// How many transactions on meetings and their dialogs there were after a revision: each has a revision of its own.
async fn transactions(store: &Arc<dyn Store>, after: cluster::Revision) -> usize {
    let marker = Txn {
        compares: Vec::new(),
        ops: vec![Op::Put("/marker".into(), "".into(), None)],
    };
    let cluster::TxnOutcome::Committed(end) = store.txn(marker).await.unwrap() else {
        panic!("no condition")
    };
    let mut watch = store.watch("/", after).await.unwrap();
    let mut revisions = std::collections::BTreeSet::new();
    loop {
        let (key, revision) = match watch.recv().await.unwrap() {
            cluster::WatchEvent::Put(entry) => (entry.key, entry.modified),
            cluster::WatchEvent::Delete { key, revision, .. } => (key, revision),
            cluster::WatchEvent::Progress(_) => continue,
            cluster::WatchEvent::Lost => panic!("the history is long enough"),
        };
        if revision == end {
            return revisions.len();
        }
        let of_calls = ["owner/", "meeting/", "dialog/"];
        let is_call = |part: &&str| key.starts_with(&format!("{}{part}", cluster::records::ROOT));
        if of_calls.iter().any(is_call) {
            revisions.insert(revision);
        }
    }
}

#[tokio::test]
async fn a_join_costs_two_transactions_and_a_call_that_goes_on_none() {
    let store = store();
    let (_switch, _, _process) = start_switch(&store, "one", 30_000, None).await;
    let (manager, sip) = start(&store, config()).await;
    let before = store.status().await.unwrap();
    let mut callers = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let mut caller = Phone::new(name, sip).await;
        assert_eq!(caller.join().await.status().unwrap().get(), 200);
        callers.push(caller);
    }
    // Longer than the load's interval: what belongs to no join would be seen.
    tokio::time::sleep(Duration::from_secs(6)).await;
    // One makes the meeting; for each, one before the 200 and one when the ACK has come.
    let cost = transactions(&store, before).await;
    assert!((3..=1 + 2 * 3).contains(&cost), "{cost}");
    let before = store.status().await.unwrap();
    for mut caller in callers {
        assert_eq!(caller.hang_up().await, 200);
    }
    eventually("all is released", || manager.counts().meetings == 0).await;
    // Each dialog's end, and the meeting's.
    let cost = transactions(&store, before).await;
    assert!((1..=3 + 1).contains(&cost), "{cost}");
    manager.shutdown().await;
}
