//! Messages as lines of a ladder.

use sip::{HeaderName, Limits, Message};

use crate::net::{Msg, News, Node};
use crate::remote_store::{Reply, Request};

/// A line; `None` for what would only fill pages: media, renewals, signs of life.
pub(crate) fn text(from: Node, to: Node, msg: &Msg) -> Option<String> {
    let what = match msg {
        Msg::Sip { bytes, .. } => sip_line(bytes.clone()),
        Msg::Request(id, Request::Txn(txn)) => {
            let ops = txn.ops.iter().map(|op| match op {
                cluster::Op::Put(key, ..) => format!("put {key}"),
                cluster::Op::Delete(key) => format!("delete {key}"),
            });
            let ops: Vec<String> = ops.collect();
            format!("store #{id} {} if {:?}", ops.join(", "), txn.compares)
        }
        Msg::Reply(id, Reply::Outcome(outcome)) => format!("store #{id} {outcome:?}"),
        Msg::Reply(id, Reply::Failed(error)) => format!("store #{id} {error}"),
        Msg::News(_, News::Put(entry)) => format!("watch: {} written", entry.key),
        Msg::News(_, News::Gone(key, _)) => format!("watch: {key} gone"),
        Msg::Apply(id, request) => {
            let legs: Vec<&str> = request.legs.iter().map(|l| l.id.as_str()).collect();
            format!(
                "apply #{id} {} epoch {} of {} full {} end {} legs {legs:?} without {:?}",
                request.meeting,
                request.epoch,
                request.member,
                request.full,
                request.end,
                request.removed_legs
            )
        }
        Msg::Applied(id, Ok(response)) => format!("applied #{id} by {}", response.instance),
        Msg::Applied(id, Err(failure)) => format!("apply #{id} failed: {failure:?}"),
        Msg::Inspect => "what is there?".to_owned(),
        Msg::Inventory(held) => format!("{} meetings", held.len()),
        Msg::Listen { member, .. } => format!("events for {member}"),
        Msg::Event(_, Some(event)) => match &event.event {
            Some(control::event::Event::Hello(hello)) => format!("hello of {}", hello.instance),
            Some(control::event::Event::Leg(leg)) => {
                format!("leg {} of {}: {:?}", leg.leg, leg.meeting, leg.kind())
            }
            Some(control::event::Event::Slots(slots)) => {
                let (meeting, active) = (&slots.meeting, &slots.active);
                format!("speakers of {meeting}: {active:?}")
            }
            None => return None,
        },
        _ => return None,
    };
    Some(format!("{from:>5} -> {:<5} {what}", to.to_string()))
}

fn sip_line(bytes: bytes::Bytes) -> String {
    let Ok(message) = Message::parse(bytes, &Limits::default()) else {
        return "not SIP".into();
    };
    let header = |name| message.header(name).unwrap_or("?");
    let (call, cseq) = (header(HeaderName::CallId), header(HeaderName::CSeq));
    match message.status() {
        Some(status) => format!("{} {} [{call}, {cseq}]", status.get(), message.reason()),
        None => format!(
            "{} {} [{call}, {cseq}]",
            message.method(),
            message.request_uri()
        ),
    }
}

/// Of the bytes that matter for telling two runs apart.
pub(crate) fn size(msg: &Msg) -> u64 {
    let (kind, size) = match msg {
        Msg::Sip { bytes, .. } => (1, bytes.len()),
        Msg::Media { bytes, .. } => (2, bytes.len()),
        Msg::Request(id, _) => (3, *id as usize),
        Msg::Reply(id, _) => (4, *id as usize),
        Msg::Watch { id, .. } => (5, *id as usize),
        Msg::News(id, _) => (6, *id as usize),
        Msg::Apply(id, request) => (7, *id as usize + request.legs.len()),
        Msg::Applied(id, _) => (8, *id as usize),
        Msg::Inspect => (11, 0),
        Msg::Inventory(held) => (12, held.len()),
        Msg::Listen { stream, .. } => (9, *stream as usize),
        Msg::Event(stream, _) => (10, *stream as usize),
    };
    kind << 32 | size as u64
}

pub(crate) fn number(node: Node) -> u64 {
    match node {
        Node::Store => 0,
        Node::Registrar(n) => 0x100 + u64::from(n),
        Node::Manager(n) => 0x200 + u64::from(n),
        Node::Switch(n) => 0x300 + u64::from(n),
        Node::Client(n) => 0x400 + u64::from(n),
    }
}
