//! The other end of a leg, for tests.
#![allow(dead_code)] // each test file uses a part

use stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use stun::textattrs::TextAttribute;

/// A plain RTP packet, payload type 0.
pub fn rtp(ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A full ICE agent's checks towards the switch.
pub struct IcePeer {
    username: String,
    password: String,
    transactions: u8,
}

impl IcePeer {
    /// As the switch knows both sides.
    pub fn new(ice: &control::Ice) -> Self {
        Self {
            username: format!("{}:{}", ice.local_ufrag, ice.remote_ufrag),
            password: ice.local_pwd.clone(),
            transactions: 0,
        }
    }

    /// A Binding request, nominating or not.
    pub fn request(&mut self, nominate: bool) -> Vec<u8> {
        self.transactions += 1;
        let provider = srtp::crypto::default_provider().unwrap();
        let mut message = Message::new();
        let setters: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(TransactionId([self.transactions; 12])),
            Box::new(TextAttribute::new(ATTR_USERNAME, self.username.clone())),
        ];
        message.build(&setters).unwrap();
        message.add(ATTR_PRIORITY, &1u32.to_be_bytes());
        message.add(ATTR_ICE_CONTROLLING, &[1; 8]);
        if nominate {
            message.add(ATTR_USE_CANDIDATE, &[]);
        }
        MessageIntegrity::new_short_term_integrity_with_provider(
            self.password.clone(),
            provider.crypto(),
        )
        .add_to(&mut message)
        .unwrap();
        FINGERPRINT.add_to(&mut message).unwrap();
        message.raw
    }
}
