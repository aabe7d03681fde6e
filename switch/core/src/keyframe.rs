//! Keyframes: recognising one in a payload, and asking for one without flooding its sender.
//!
//! The recognisers look at the first octets only and never read past the payload.

use std::time::{Duration, Instant};

use crate::VideoCodec;

/// Whether this RTP payload begins a frame that decodes by itself.
#[must_use]
pub fn is_keyframe(codec: VideoCodec, payload: &[u8]) -> bool {
    match codec {
        VideoCodec::Vp8 => vp8(payload),
        VideoCodec::Vp9 => vp9(payload),
        VideoCodec::H264 => h264(payload),
        VideoCodec::Av1 => av1(payload),
    }
    .unwrap_or(false)
}

/// RFC 7741 §4.2: start of partition 0, then the P bit of the frame tag (RFC 6386 §9.1).
fn vp8(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let mut at = 1;
    if first & 0x80 != 0 {
        let extension = *payload.get(at)?;
        at += 1;
        if extension & 0x80 != 0 {
            at += if *payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extension & 0x40 != 0); // TL0PICIDX
        at += usize::from(extension & 0x30 != 0); // TID, KEYIDX
    }
    let starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
    Some(starts_frame && payload.get(at)? & 0x01 == 0)
}

/// RFC 9628 §4.2: beginning of a frame that is not inter-predicted, base spatial layer.
fn vp9(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let (has_id, inter, layers, begins) = (
        first & 0x80 != 0,
        first & 0x40 != 0,
        first & 0x20 != 0,
        first & 0x08 != 0,
    );
    let mut at = 1;
    if has_id {
        at += if *payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let base = if layers {
        (payload.get(at)? >> 1) & 0x07 == 0
    } else {
        true
    };
    Some(!inter && begins && base)
}

/// RFC 6184 §5: SPS or IDR slice, alone, aggregated (STAP-A) or at the start of a fragment (FU-A).
fn h264(payload: &[u8]) -> Option<bool> {
    const IDR: u8 = 5;
    const SPS: u8 = 7;
    let is_key = |nal: u8| matches!(nal & 0x1f, IDR | SPS);
    let first = *payload.first()?;
    match first & 0x1f {
        24 => {
            let mut rest = payload.get(1..)?;
            while rest.len() > 2 {
                let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                if length > 0 && is_key(rest[2]) {
                    return Some(true);
                }
                rest = rest.get(2 + length..)?;
            }
            Some(false)
        }
        28 => {
            let header = *payload.get(1)?;
            Some(header & 0x80 != 0 && is_key(header))
        }
        _ => Some(is_key(first)),
    }
}

/// AV1 RTP payload format §4.4: the N bit of the aggregation header starts a coded video sequence.
fn av1(payload: &[u8]) -> Option<bool> {
    let header = *payload.first()?;
    let continues = header & 0x80 != 0;
    Some(!continues && header & 0x08 != 0)
}

/// Least time between two requests to one source. Lowering it lets receivers load senders.
const LEAST_INTERVAL: Duration = Duration::from_millis(300);
/// A request that brought no keyframe in this time is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// Asks one source for keyframes on behalf of everybody who wants one.
///
/// ```text
///            request (allowed)               REPEAT_AFTER
///  Idle ────────────────────────► Waiting ───────────────┐
///   ▲                              │   ▲                 │ ask again
///   └──────── keyframe ────────────┘   └─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyframeRequester {
    waiting: bool,
    last: Option<Instant>,
}

impl KeyframeRequester {
    /// Somebody needs a keyframe. True: send a request now. A request too soon after another is kept for later.
    pub fn request(&mut self, now: Instant) -> bool {
        self.waiting = true;
        self.ask(now, LEAST_INTERVAL)
    }

    /// One has come.
    pub fn on_keyframe(&mut self) {
        self.waiting = false;
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.last.filter(|_| self.waiting).map(|t| t + REPEAT_AFTER)
    }

    /// True: ask again.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.waiting && self.ask(now, REPEAT_AFTER)
    }

    fn ask(&mut self, now: Instant, least: Duration) -> bool {
        let due = self
            .last
            .is_none_or(|t| now.saturating_duration_since(t) >= least);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp8_keyframes_are_told_from_deltas_and_continuations() {
        assert!(is_keyframe(VideoCodec::Vp8, &[0x10, 0x50, 0, 0]));
        assert!(!is_keyframe(VideoCodec::Vp8, &[0x10, 0x51, 0, 0]));
        assert!(!is_keyframe(VideoCodec::Vp8, &[0x00, 0x50, 0, 0]));
        // extended: 15-bit picture id, TL0PICIDX, TID
        assert!(is_keyframe(
            VideoCodec::Vp8,
            &[0x90, 0xe0, 0x81, 0x02, 0x05, 0x20, 0x50]
        ));
        assert!(!is_keyframe(
            VideoCodec::Vp8,
            &[0x90, 0xe0, 0x81, 0x02, 0x05, 0x20, 0x51]
        ));
        assert!(!is_keyframe(VideoCodec::Vp8, &[0x90, 0xe0, 0x81]));
    }

    #[test]
    fn vp9_keyframes_begin_without_prediction_on_the_base_layer() {
        assert!(is_keyframe(VideoCodec::Vp9, &[0x88, 0x01, 0]));
        assert!(!is_keyframe(VideoCodec::Vp9, &[0xc8, 0x01, 0]));
        assert!(!is_keyframe(VideoCodec::Vp9, &[0x80, 0x01, 0]));
        assert!(
            !is_keyframe(VideoCodec::Vp9, &[0xa8, 0x01, 0x02, 0]),
            "spatial layer 1"
        );
    }

    #[test]
    fn h264_keyframes_are_found_alone_aggregated_and_fragmented() {
        assert!(is_keyframe(VideoCodec::H264, &[0x67, 0x42]));
        assert!(is_keyframe(VideoCodec::H264, &[0x65, 0x88]));
        assert!(!is_keyframe(VideoCodec::H264, &[0x41, 0x9a]));
        assert!(is_keyframe(
            VideoCodec::H264,
            &[0x78, 0, 2, 0x68, 1, 0, 2, 0x65, 1]
        ));
        assert!(!is_keyframe(
            VideoCodec::H264,
            &[0x78, 0, 2, 0x41, 1, 0, 2, 0x41, 1]
        ));
        assert!(is_keyframe(VideoCodec::H264, &[0x7c, 0x85]));
        assert!(
            !is_keyframe(VideoCodec::H264, &[0x7c, 0x05]),
            "not the first fragment"
        );
    }

    #[test]
    fn av1_keyframes_carry_the_n_bit() {
        assert!(is_keyframe(VideoCodec::Av1, &[0x18, 0x0a]));
        assert!(!is_keyframe(VideoCodec::Av1, &[0x10, 0x32]));
    }

    #[test]
    fn any_payload_is_survived() {
        for codec in [
            VideoCodec::Vp8,
            VideoCodec::Vp9,
            VideoCodec::H264,
            VideoCodec::Av1,
        ] {
            for first in 0..=255u8 {
                for length in 0..6 {
                    let payload: Vec<u8> = std::iter::once(first)
                        .chain([0xff; 5])
                        .take(length)
                        .collect();
                    let _ = is_keyframe(codec, &payload);
                }
            }
        }
    }

    #[test]
    fn requests_are_throttled_repeated_and_stopped_by_a_keyframe() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut requester = KeyframeRequester::default();
        assert!(requester.request(at(0)));
        assert!(!requester.request(at(100)), "too soon");
        assert_eq!(requester.poll_timeout(), Some(at(500)));
        assert!(!requester.handle_timeout(at(499)));
        assert!(requester.handle_timeout(at(500)));
        requester.on_keyframe();
        assert_eq!(requester.poll_timeout(), None);
        assert!(!requester.handle_timeout(at(2000)));
        assert!(requester.request(at(2000)));
    }
}
