//! One meeting on one worker.

use std::time::{Duration, Instant};

use crate::{Egress, LegKey, MeetingError, Transcoder, TransportIndex};

/// Relates the monotonic clock to the wall clock, for NTP timestamps and
/// abs-send-time. Taken once per process: a jump of the wall clock moves no media.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// An instant…
    pub origin: Instant,
    /// …and the time since 1970-01-01T00:00:00Z at that instant.
    pub unix: Duration,
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

/// One meeting: legs, slots, speakers.
#[derive(Debug)]
pub struct Meeting {
    _config: MeetingConfig,
}

impl Meeting {
    /// An empty meeting at epoch 0.
    pub fn new(config: MeetingConfig) -> Self {
        Self { _config: config }
    }

    /// Whether a request of this epoch may be applied; ask before ports are taken.
    ///
    /// # Errors
    /// [`MeetingError::StaleEpoch`].
    pub fn check_epoch(&self, _epoch: u64) -> Result<(), MeetingError> {
        todo!()
    }

    /// Brings the meeting to the desired state. A leg that is named again keeps its
    /// key, and its streams go on unbroken. Leave legs out of the request for which no
    /// transport could be made.
    ///
    /// # Errors
    /// [`MeetingError`]: nothing was changed.
    pub fn apply<T: Transcoder>(
        &mut self,
        _now: Instant,
        _request: &control::ApplyRequest,
        _codecs: &mut T,
    ) -> Result<Applied, MeetingError> {
        todo!()
    }

    /// Ends a leg at once, as if the owner had removed it.
    pub fn remove_leg<T: Transcoder>(&mut self, _now: Instant, _leg: LegKey, _codecs: &mut T) {
        todo!()
    }

    /// The key of a leg by its id.
    pub fn leg_key(&self, _id: &str) -> Option<LegKey> {
        todo!()
    }

    /// Takes one decrypted RTP packet. `packet` is exactly the packet; it may be changed in place.
    /// Anything malformed or unexpected is counted and dropped.
    pub fn handle_rtp<E: Egress, T: Transcoder>(
        &mut self,
        _now: Instant,
        _leg: LegKey,
        _transport: TransportIndex,
        _packet: &mut [u8],
        _out: &mut E,
        _codecs: &mut T,
    ) {
        todo!()
    }

    /// Takes one decrypted compound RTCP packet.
    pub fn handle_rtcp<E: Egress>(
        &mut self,
        _now: Instant,
        _leg: LegKey,
        _transport: TransportIndex,
        _packet: &[u8],
        _out: &mut E,
    ) {
        todo!()
    }

    /// The transport can send from now on (pair validated and keys there): CONNECTED is reported
    /// for DTLS, and video that fills its slots gets a keyframe.
    pub fn handle_connected<E: Egress>(
        &mut self,
        _now: Instant,
        _leg: LegKey,
        _transport: TransportIndex,
        _out: &mut E,
    ) {
        todo!()
    }

    /// The transport of a leg failed (`ConsentLost`, `DtlsFailed`); the owner is told, once.
    pub fn handle_failed(
        &mut self,
        _now: Instant,
        _leg: LegKey,
        _kind: control::leg_event::Kind,
        _reason: &str,
    ) {
        todo!()
    }

    /// When [`Meeting::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Reports, keyframe requests again, speaker decisions, media timeouts that are due.
    pub fn handle_timeout<E: Egress, T: Transcoder>(
        &mut self,
        _now: Instant,
        _out: &mut E,
        _codecs: &mut T,
    ) {
        todo!()
    }

    /// The next thing the owner must hear of (`Leg` or `Slots`); meeting and epoch are filled in.
    pub fn poll_event(&mut self) -> Option<control::Event> {
        todo!()
    }

    /// A picture for operators. `remote` and `srtp_profile` of legs and `renditions[].frames`
    /// are left for the caller to fill in.
    pub fn view(&self, _now: Instant) -> control::MeetingView {
        todo!()
    }
}
