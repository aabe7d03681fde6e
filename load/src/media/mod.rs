//! The media half: sockets, what is sent, and the checks of what comes.
//!
//! ```text
//!                    ┌────────────── orders ──────────────┐
//!  Engine ──orders──►│ receive threads (epoll, recvmmsg)  │──feedback, keys──► send thread (one, paced)
//!                    └────── sockets, SRTP, checks ───────┘
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::leg::{Local, Protection, Remote};

pub mod check;
pub mod ice;
pub mod picture;
pub mod report;
pub mod rtcp;
pub mod schedule;
pub mod sequence;
pub mod speech;
pub mod stamp;
pub mod tally;

pub use report::{
    Finding, Findings, KindReport, MediaReport, Percentiles, Progress, RtcpReport, Second,
};

/// Size of the picture, and with it the bitrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Resolution {
    /// 320×180 at 150 kbit/s.
    #[serde(rename = "180p")]
    P180,
    /// 640×360 at 600 kbit/s.
    #[serde(rename = "360p")]
    P360,
    /// 1280×720 at 1.8 Mbit/s.
    #[serde(rename = "720p")]
    P720,
}

/// What the engine is to do.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How media is protected.
    pub protection: Protection,
    /// The picture of those who speak; `None` without video.
    pub video: Option<Resolution>,
    /// Participants that talk by the schedule: the first of them.
    pub speakers: usize,
    /// Participants in all.
    pub participants: usize,
    /// Receiving threads, at least 1; legs are dealt out in turn.
    pub threads: usize,
    /// What the schedule, SSRCs and first numbers are drawn from. Keys are not.
    pub seed: u64,
    /// Address of this machine to bind to.
    pub bind: IpAddr,
}

/// Sends and checks the media of all participants.
pub struct Engine {
    _config: EngineConfig,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// What the system says to threads or epoll.
    pub fn start(config: EngineConfig) -> io::Result<Self> {
        Ok(Self { _config: config })
    }

    /// Opens a participant's sockets and draws what its offer needs.
    ///
    /// # Errors
    /// What the system says to sockets.
    pub fn open(&self, participant: u32) -> io::Result<Local> {
        Err(io::Error::other(format!("participant {participant}")))
    }

    /// Begins to send and receive as the answer says. Called again after a re-INVITE, it follows the new answer.
    ///
    /// # Errors
    /// For people: the participant is not open, or the answer makes no sense.
    pub fn connect(&self, participant: u32, _remote: Remote) -> Result<(), String> {
        Err(format!("participant {participant} is not open"))
    }

    /// The schedule begins to talk.
    pub fn begin(&self) {}

    /// Ends a participant's media; what was measured stays.
    pub fn close(&self, _participant: u32) {}

    /// Without SIP: participant 0 sends to `to`, plain, and participants 1.. listen on these addresses of ours.
    ///
    /// # Errors
    /// What the system says to sockets.
    pub fn fan_out(&self, _to: SocketAddr, _listeners: &[SocketAddr]) -> io::Result<()> {
        Ok(())
    }

    /// A look at the numbers so far; cheap.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::default()
    }

    /// Ends all and gives the results.
    #[must_use]
    pub fn finish(self) -> MediaReport {
        MediaReport::default()
    }
}
