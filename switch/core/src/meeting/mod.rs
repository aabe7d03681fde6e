//! One meeting on one worker.
//!
//! | file | what it does |
//! |---|---|
//! | `apply` | desired state → legs, streams, slots |
//! | `forward` | a received RTP packet → levels, assignment, packets to listeners |
//! | `assign` | who fills which slot |
//! | `feedback` | received RTCP → key frames, repairs, clocks |
//! | `report` | timers: sender and receiver reports, requests, timeouts |
//! | `view` | the operator's picture, events |

mod apply;
mod assign;
mod feedback;
mod forward;
mod leg;
mod report;
mod stream;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::rtcp::CompoundBuf;
use crate::slot::{Scratch, Slot};
use crate::speaker::{SpeakerConfig, SpeakerDetector};
use crate::{LegKey, MeetingError, SourceId};

pub use forward::Burst;

use leg::Leg;
use stream::Stream;

/// Most legs of a meeting.
pub const MAX_LEGS: usize = 8_192;

/// Most events kept for the owner; the oldest goes first.
pub const MAX_EVENTS: usize = 4_096;

/// Relates the monotonic clock to the wall clock, for NTP timestamps and
/// abs-send-time. Taken once per process: a jump of the wall clock moves no media.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// An instant…
    pub origin: Instant,
    /// …and the time since 1970-01-01T00:00:00Z at that instant.
    pub unix: Duration,
}

impl WallClock {
    /// Time since the Unix epoch at `now`.
    pub fn unix_at(&self, now: Instant) -> Duration {
        self.unix
            .saturating_add(now.saturating_duration_since(self.origin))
    }
}

/// What a meeting is made with.
#[derive(Clone, Debug)]
pub struct MeetingConfig {
    /// Meeting id.
    pub id: String,
    /// For first sequence numbers, timestamps and RTCP jitter.
    pub seed: u64,
    /// Wall clock.
    pub clock: WallClock,
    /// Bit/s announced by REMB to each sender of video.
    pub video_bitrate: u32,
}

/// What a desired state came to.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Every leg named in the request, in its order: its key, or why it was refused.
    pub legs: Vec<(String, Result<LegKey, String>)>,
    /// Legs that are gone.
    pub removed: Vec<(String, LegKey)>,
    /// The meeting has ended: drop it.
    pub ended: bool,
}

/// The owner's policy.
#[derive(Clone, Copy, Debug)]
struct Policy {
    audio_slots: usize,
    media_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            audio_slots: 3,
            media_timeout: Duration::from_secs(30),
        }
    }
}

/// What the owner was told last of who is heard and seen.
#[derive(Debug, Default)]
struct Announced {
    dirty: bool,
    at: Option<Instant>,
    last: control::SlotsEvent,
}

/// One meeting: legs, slots, speakers.
#[derive(Debug)]
pub struct Meeting {
    config: MeetingConfig,
    epoch: u64,
    policy: Policy,
    rng: ChaCha8Rng,
    legs: Vec<Option<Leg>>,
    generations: Vec<u32>,
    by_id: BTreeMap<String, LegKey>,
    by_source: BTreeMap<SourceId, LegKey>,
    streams: Vec<Option<Stream>>,
    slots: Vec<Option<Slot>>,
    /// Lives of streams so far, so that no two ever carry the same tag.
    lives: u32,
    speakers: SpeakerDetector,
    /// Sources forwarded as audio: the active, then who was so last.
    holders: Vec<SourceId>,
    /// Working space of assignments, kept for its capacity.
    order: Vec<u32>,
    scratch: Scratch,
    compound: CompoundBuf,
    next_sweep: Option<Instant>,
    next_repair: Option<Instant>,
    announced: Announced,
    /// A transport became ready: audio slots are to be filled at the next occasion.
    audio_stale: bool,
    events: VecDeque<control::Event>,
}

impl Meeting {
    /// An empty meeting at epoch 0.
    pub fn new(config: MeetingConfig) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        Self {
            config,
            epoch: 0,
            policy: Policy::default(),
            rng,
            legs: Vec::new(),
            generations: Vec::new(),
            by_id: BTreeMap::new(),
            by_source: BTreeMap::new(),
            streams: Vec::new(),
            slots: Vec::new(),
            lives: 0,
            speakers: SpeakerDetector::new(SpeakerConfig::default()),
            holders: Vec::with_capacity(8),
            order: Vec::new(),
            scratch: Scratch::default(),
            compound: CompoundBuf::default(),
            next_sweep: None,
            next_repair: None,
            announced: Announced::default(),
            audio_stale: false,
            events: VecDeque::new(),
        }
    }

    /// With another time between decisions on the dominant speaker than
    /// [`SpeakerConfig::default`] has; for a meeting without legs yet.
    #[must_use]
    pub fn with_speaker_interval(mut self, interval: Duration) -> Self {
        self.speakers = SpeakerDetector::new(SpeakerConfig {
            interval,
            ..SpeakerConfig::default()
        });
        self
    }

    /// Whether a request of this epoch may be applied; ask before ports are taken.
    ///
    /// # Errors
    /// [`MeetingError::StaleEpoch`].
    pub fn check_epoch(&self, epoch: u64) -> Result<(), MeetingError> {
        if epoch < self.epoch {
            return Err(MeetingError::StaleEpoch {
                given: epoch,
                highest: self.epoch,
            });
        }
        Ok(())
    }

    /// The key of a leg by its id.
    pub fn leg_key(&self, id: &str) -> Option<LegKey> {
        self.by_id.get(id).copied()
    }

    /// When [`Meeting::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.next_sweep,
            self.next_repair,
            self.speakers.next_decision(),
            self.announcement_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn leg(&self, key: LegKey) -> Option<&Leg> {
        self.legs
            .get(key.index())?
            .as_ref()
            .filter(|l| l.key == key)
    }

    fn leg_mut(&mut self, key: LegKey) -> Option<&mut Leg> {
        self.legs
            .get_mut(key.index())?
            .as_mut()
            .filter(|l| l.key == key)
    }

    fn stream(&self, index: u32) -> Option<&Stream> {
        self.streams.get(index as usize)?.as_ref()
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

/// Puts a value into the first free place of a table.
fn place<T>(table: &mut Vec<Option<T>>, value: T) -> u32 {
    let at = table.iter().position(Option::is_none).unwrap_or_else(|| {
        table.push(None);
        table.len() - 1
    });
    table[at] = Some(value);
    at as u32
}
