//! The group switch without IO: who is heard and seen, and the rewriting that
//! makes any change of source one unbroken stream to a decoder.
//!
//! A [`meeting::Meeting`] is fed plaintext RTP and RTCP of its legs and writes
//! what is to be sent into an [`Egress`]; it reads no clock, opens no socket and
//! allocates nothing per packet once streams are known. Leg security (ICE, DTLS,
//! SRTP) and audio codecs live beside it in modules of their own.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod codec;
pub mod codecs;
pub mod dtls;
pub mod dtmf;
pub mod error;
pub mod extensions;
pub mod ice;
pub mod ids;
pub mod io;
pub mod keyframe;
pub mod level;
pub mod link;
pub mod meeting;
pub mod nack;
pub mod rendition;
pub mod rewrite;
pub mod rtcp;
pub mod rtp;
pub mod slot;
pub mod speaker;
pub mod srtp;
pub mod stats;
pub mod stun;
pub mod transmit;
pub mod worker;

pub use codecs::{AudioCodec, VideoCodec};
pub use error::MeetingError;
pub use ids::{LegKey, SourceId, Ssrc, TransportIndex};
pub use io::{Egress, MediaFrame, RenditionFrame, RtpOut, Transcoder};
pub use level::Level;
pub use meeting::{Applied, Meeting, MeetingConfig, WallClock};
pub use transmit::{Batch, SocketId, Transmit};
