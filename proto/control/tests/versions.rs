//! A build understands what the one before it and the one after it say.
//!
//! The bytes are a recorded trace, and the messages of `before` are those of a build that knew fewer fields: both stay as
//! they are when the schema grows.

use control::{ApplyRequest, ApplyResponse, Event, Leg, Media, MeetingPolicy, Transport};
use prost::Message;

/// As a build before knew them.
mod before {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct ApplyRequest {
        #[prost(uint32, tag = "1")]
        pub version: u32,
        #[prost(string, tag = "2")]
        pub member: String,
        #[prost(string, tag = "3")]
        pub meeting: String,
        #[prost(uint64, tag = "4")]
        pub epoch: u64,
        #[prost(bool, tag = "5")]
        pub full: bool,
        #[prost(message, repeated, tag = "6")]
        pub legs: Vec<Leg>,
        #[prost(string, repeated, tag = "7")]
        pub removed_legs: Vec<String>,
        #[prost(bool, tag = "9")]
        pub end: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Leg {
        #[prost(string, tag = "1")]
        pub id: String,
        #[prost(uint32, tag = "2")]
        pub source: u32,
        #[prost(string, tag = "3")]
        pub cname: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ApplyResponse {
        #[prost(string, tag = "1")]
        pub instance: String,
        #[prost(uint64, tag = "2")]
        pub epoch: u64,
        #[prost(message, repeated, tag = "3")]
        pub legs: Vec<LegState>,
    }

    /// Without `unsupported`.
    #[derive(Clone, PartialEq, Message)]
    pub struct LegState {
        #[prost(string, tag = "1")]
        pub id: String,
        #[prost(string, tag = "3")]
        pub refused: String,
    }

    /// Of what is told a build knew the greeting alone.
    #[derive(Clone, PartialEq, Message)]
    pub struct Event {
        #[prost(oneof = "Known", tags = "1")]
        pub event: Option<Known>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Known {
        #[prost(message, tag = "1")]
        Hello(Hello),
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Hello {
        #[prost(string, tag = "1")]
        pub instance: String,
        #[prost(uint32, tag = "2")]
        pub version: u32,
    }
}

/// `version` 1, member `m`, meeting `weekly`, epoch 300, full, a leg `p1` of source 7 with a plain transport and an audio
/// line, leg `p0` removed, one audio slot.
const REQUEST: &[u8] = b"\x08\x01\x12\x01m\x1a\x06weekly\x20\xac\x02\x28\x01\
    \x32\x26\x0a\x02p1\x10\x07\x1a\x04p1@x\
    \x22\x10\x10\x01\x2a\x09192.0.2.1\x30\xc0\x3e\
    \x2a\x06\x18\x01\x38\x01\x40\x01\
    \x3a\x02p0\x42\x02\x08\x01";

fn request() -> ApplyRequest {
    ApplyRequest {
        version: 1,
        member: "m".into(),
        meeting: "weekly".into(),
        epoch: 300,
        full: true,
        legs: vec![Leg {
            id: "p1".into(),
            source: 7,
            cname: "p1@x".into(),
            transports: vec![Transport {
                security: control::Security::Plain.into(),
                remote_address: "192.0.2.1".into(),
                remote_port: 8000,
                ..Default::default()
            }],
            media: vec![Media {
                kind: control::MediaKind::Audio.into(),
                receive: true,
                send: true,
                ..Default::default()
            }],
        }],
        removed_legs: vec!["p0".into()],
        policy: Some(MeetingPolicy {
            audio_slots: 1,
            media_timeout_ms: 0,
        }),
        end: false,
    }
}

#[test]
fn a_recorded_order_is_read_and_would_be_written_as_it_was() {
    assert_eq!(ApplyRequest::decode(REQUEST), Ok(request()));
    assert_eq!(request().encode_to_vec(), REQUEST);
}

#[test]
fn the_build_before_reads_what_it_knows_of_an_order_of_today() {
    let read = before::ApplyRequest::decode(&*request().encode_to_vec()).expect("readable");
    let leg = before::Leg {
        id: "p1".into(),
        source: 7,
        cname: "p1@x".into(),
    };
    let expected = before::ApplyRequest {
        version: 1,
        member: "m".into(),
        meeting: "weekly".into(),
        epoch: 300,
        full: true,
        legs: vec![leg],
        removed_legs: vec!["p0".into()],
        end: false,
    };
    assert_eq!(read, expected);
    // and today's build reads that one's, where what is absent has its default
    let today = ApplyRequest::decode(&*expected.encode_to_vec()).expect("readable");
    assert_eq!((today.policy, today.legs[0].media.len()), (None, 0));
    assert_eq!((today.epoch, today.full), (300, true));
}

#[test]
fn answers_and_events_of_today_are_read_by_the_build_before() {
    let response = ApplyResponse {
        instance: "i".into(),
        epoch: 300,
        legs: vec![control::LegState {
            id: "p1".into(),
            refused: "no address".into(),
            unsupported: true,
            ..Default::default()
        }],
    };
    let read = before::ApplyResponse::decode(&*response.encode_to_vec()).expect("readable");
    assert_eq!((read.epoch, read.instance.as_str()), (300, "i"));
    assert_eq!(read.legs[0].refused, "no address", "refused all the same");
    let back = ApplyResponse::decode(&*read.encode_to_vec()).expect("readable");
    assert!(!back.legs[0].unsupported, "not said");

    let hello = control::event::Event::Hello(control::Hello {
        instance: "i".into(),
        version: control::VERSION,
        certificate: vec![control::Fingerprint::default()],
    });
    let hello = Event { event: Some(hello) };
    let read = before::Event::decode(&*hello.encode_to_vec()).expect("readable");
    let Some(before::Known::Hello(hello)) = read.event else {
        panic!("{read:?}")
    };
    assert_eq!(hello.version, control::VERSION);
    // an event that it does not know is none to it
    let slots = control::event::Event::Slots(control::SlotsEvent::default());
    let slots = Event { event: Some(slots) };
    let read = before::Event::decode(&*slots.encode_to_vec()).expect("readable");
    assert_eq!(read.event, None);
}

#[test]
fn fields_of_the_build_after_are_skipped() {
    let mut bytes = REQUEST.to_vec();
    bytes.extend_from_slice(b"\xc2\x3e\x03new\xc8\x3e\x05"); // 1000: text, 1001: number
    assert_eq!(ApplyRequest::decode(&*bytes), Ok(request()));
    // an event of a kind that is not known
    assert_eq!(
        Event::decode(&b"\xc2\x3e\x00"[..]),
        Ok(Event { event: None })
    );
}

#[test]
fn neighbouring_versions_are_understood_and_no_others() {
    assert!(control::is_understood(control::VERSION));
    assert!(control::is_understood(control::VERSION + 1));
    assert!(!control::is_understood(control::VERSION + 2));
    assert!(!control::is_understood(0));
    let before = control::VERSION - 1;
    assert_eq!(control::is_understood(before), before > 0);
}
