//! What a run is told, and what it tells while it goes on.

use std::net::SocketAddr;
use std::time::Duration;

use crate::leg::Protection;
use crate::media::{Progress, Resolution};
use crate::report::thresholds::Thresholds;
use crate::ua::{Account, PhoneError, SipOptions};

/// Whom the load is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// A conference server, called by SIP.
    Sip {
        /// Where it is.
        sip: Box<SipOptions>,
        /// Accounts in rotation; none: all are guests.
        accounts: Vec<Account>,
        /// Register first.
        register: bool,
        /// INVITEs a second.
        join_rate: f64,
        /// How often a participant who was refused knocks again.
        retries: u32,
        /// Any server, which need not name sources as Rostrum does.
        any_server: bool,
    },
    /// Something that sends on what it is sent, without SIP.
    FanOut {
        /// Where the speaker's packets go.
        to: SocketAddr,
        /// Where copies come to.
        listen: Vec<SocketAddr>,
    },
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Against whom.
    pub target: Target,
    /// How many join.
    pub participants: u32,
    /// How many of them talk.
    pub speakers: u32,
    /// Their picture.
    pub video: Option<Resolution>,
    /// How media is protected.
    pub protection: Protection,
    /// How long, from the last join on.
    pub duration: Duration,
    /// Receiving threads.
    pub threads: usize,
    /// What the schedule is drawn from.
    pub seed: u64,
    /// The server's process, where it runs here.
    pub server_pid: Option<u32>,
    /// What must be kept.
    pub thresholds: Thresholds,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No user agent.
    #[error("{0}")]
    Phone(#[from] PhoneError),
    /// The media half cannot begin.
    #[error("cannot open sockets for media: {0}")]
    Media(std::io::Error),
    /// More sockets than this process may have.
    #[error(
        "{wanted} sockets are needed, and this process may have {allowed} files open: raise it with ulimit -n {wanted}"
    )]
    OpenFiles {
        /// With some for everything else.
        wanted: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// All were refused.
    #[error("nobody joined {meeting}: {why}")]
    NobodyJoined {
        /// Where.
        meeting: String,
        /// Reasons and how often.
        why: String,
    },
    /// Not one account could register.
    #[error("nobody could register: {why}")]
    NobodyRegistered {
        /// Reasons.
        why: String,
    },
    /// Ctrl-C before there was anything to report.
    #[error("stopped before anybody had joined")]
    Stopped,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accounts register.
    Registering,
    /// Participants join.
    Joining,
    /// All who come are there, and talk.
    Running,
    /// They leave.
    Leaving,
}

/// A look at a run.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Where it stands.
    pub phase: Phase,
    /// Participants asked for.
    pub participants: u32,
    /// Those in the meeting.
    pub joined: u32,
    /// Those refused for good.
    pub refused: u32,
    /// Since the last join.
    pub elapsed: Duration,
    /// All of it.
    pub duration: Duration,
    /// Media so far.
    pub media: Progress,
}

/// Whoever watches.
pub trait Observer {
    /// Some times a second.
    fn look(&self, look: &Look);
}
