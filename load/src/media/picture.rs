//! VP8 clips all cameras share, stuffed to a bitrate, and their packets (RFC 7741).

use std::time::{Duration, Instant};

use super::Resolution;
use super::stamp::{STAMP, Stamp};

/// Frames a second.
pub const FRAME_RATE: u32 = 25;

/// RTP clock units of a frame.
pub const FRAME_STEP: u32 = 90_000 / FRAME_RATE;

/// Longest payload of a packet, descriptor and all: fits any path with headers, tag and tunnels.
pub const MAX_PAYLOAD: usize = 1200;

/// Descriptor with a picture id of 15 bits.
const DESCRIPTOR: usize = 4;

/// A key frame comes at least this often, whoever asks.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(10);

/// Requests within this time after a key frame are answered by it: many listeners ask at once.
const KEYFRAME_GUARD: Duration = Duration::from_millis(300);

static CLIPS: [&[u8]; 3] = [
    include_bytes!("../../fixtures/180p.ivf"),
    include_bytes!("../../fixtures/360p.ivf"),
    include_bytes!("../../fixtures/720p.ivf"),
];

/// A clip, and how large its frames are made.
#[derive(Clone, Debug)]
pub struct Clip {
    frames: Vec<&'static [u8]>,
    /// Octets of a frame after stuffing; larger ones, the key frames, stay as they are.
    budget: usize,
}

impl Clip {
    /// The clip of a resolution.
    #[must_use]
    pub fn new(resolution: Resolution) -> Self {
        let (ivf, bitrate) = match resolution {
            Resolution::P180 => (CLIPS[0], 150_000),
            Resolution::P360 => (CLIPS[1], 600_000),
            Resolution::P720 => (CLIPS[2], 1_800_000),
        };
        Self {
            frames: frames(ivf),
            budget: bitrate / 8 / FRAME_RATE as usize,
        }
    }
}

/// Frames of an IVF file: a header of 32 octets, then frames with a header of 12 each, their size first.
fn frames(ivf: &'static [u8]) -> Vec<&'static [u8]> {
    let mut rest = ivf.get(32..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some((head, body)) = rest.split_first_chunk::<12>() {
        let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((frame, more)) = body.split_at_checked(size) else {
            break;
        };
        frames.push(frame);
        rest = more;
    }
    frames
}

/// One camera: which frame is next.
#[derive(Clone, Debug)]
pub struct Camera {
    at: usize,
    picture_id: u16,
    /// Frames so far.
    counter: u32,
    last_keyframe: Option<Instant>,
    wanted: bool,
}

impl Camera {
    /// One that begins with a key frame.
    #[must_use]
    pub fn new(first_picture_id: u16) -> Self {
        Self {
            at: 0,
            picture_id: first_picture_id & 0x7fff,
            counter: 0,
            last_keyframe: None,
            wanted: false,
        }
    }

    /// A listener asked for a key frame (PLI, FIR).
    pub fn request_keyframe(&mut self) {
        self.wanted = true;
    }

    /// How many frames it has given.
    #[must_use]
    pub fn counter(&self) -> u32 {
        self.counter
    }

    /// Gives the packets of the next frame to `emit`: payload, and whether it is the last. `stamp` goes behind the
    /// frame, its counter filled in here.
    pub fn next_frame(
        &mut self,
        clip: &Clip,
        now: Instant,
        stamp: Stamp,
        scratch: &mut Vec<u8>,
        emit: impl FnMut(&[u8], bool),
    ) {
        let since = self
            .last_keyframe
            .map(|at| now.saturating_duration_since(at));
        let asked = self.wanted && since.is_none_or(|since| since >= KEYFRAME_GUARD);
        if asked || since.is_none_or(|since| since >= KEYFRAME_INTERVAL) {
            self.at = 0;
        }
        if self.at == 0 {
            self.last_keyframe = Some(now);
            self.wanted = false;
        }
        let stamp = Stamp {
            counter: self.counter,
            ..stamp
        };
        scratch.clear();
        scratch.extend_from_slice(clip.frames[self.at]);
        stuff(scratch, clip.budget, stamp);
        packetize(scratch, self.picture_id, emit);
        // The last frame, in which nothing moves, is shown again until the next key frame.
        self.at = (self.at + 1).min(clip.frames.len() - 1);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.counter = self.counter.wrapping_add(1);
    }
}

/// Lengthens a frame to `budget`, the stamp last. The last partition of a frame goes on to the end of its data
/// (RFC 6386 §9.5), and a decoder reads no more of it than it needs.
fn stuff(frame: &mut Vec<u8>, budget: usize, stamp: Stamp) {
    frame.resize(budget.saturating_sub(STAMP).max(frame.len()), 0);
    frame.extend_from_slice(&stamp.to_bytes());
}

/// Splits a frame into packets of much the same size (RFC 7741 §4).
fn packetize(frame: &[u8], picture_id: u16, mut emit: impl FnMut(&[u8], bool)) {
    let count = frame.len().div_ceil(MAX_PAYLOAD - DESCRIPTOR);
    // The stamp must not be torn: the last packet is at least as long.
    let size = frame.len().div_ceil(count).max(STAMP);
    let mut payload = [0; MAX_PAYLOAD];
    let mut rest = frame;
    let mut start = true;
    while !rest.is_empty() {
        let mut take = size.min(rest.len());
        if rest.len() > take && rest.len() - take < STAMP {
            take = rest.len() - STAMP;
        }
        let (piece, more) = rest.split_at(take);
        // X; S with the first packet of the first partition, PID 0; I; picture id with M
        payload[0] = 0x80 | if start { 0x10 } else { 0 };
        payload[1] = 0x80;
        payload[2..4].copy_from_slice(&(0x8000 | picture_id).to_be_bytes());
        payload[DESCRIPTOR..DESCRIPTOR + take].copy_from_slice(piece);
        emit(&payload[..DESCRIPTOR + take], more.is_empty());
        rest = more;
        start = false;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use switch_core::rewrite::vp8::Vp8Descriptor;

    const ALL: [(Resolution, u32, usize); 3] = [
        (Resolution::P180, 320, 150_000),
        (Resolution::P360, 640, 600_000),
        (Resolution::P720, 1280, 1_800_000),
    ];

    fn stamp() -> Stamp {
        Stamp {
            sender: 1,
            sent: 5,
            counter: 0,
            spurt: 0,
            since: None,
        }
    }

    /// Frames put together again from packets, and whether each is a key frame.
    fn run(resolution: Resolution, count: u32, ask_at: &[u32]) -> Vec<(Vec<u8>, bool)> {
        let clip = Clip::new(resolution);
        let mut camera = Camera::new(0x7ffe);
        let begin = Instant::now();
        let mut scratch = Vec::new();
        let mut frames = Vec::new();
        for number in 0..count {
            if ask_at.contains(&number) {
                camera.request_keyframe();
            }
            let now = begin + Duration::from_secs(1) * number / FRAME_RATE;
            let (mut frame, mut key, mut ended) = (Vec::new(), false, false);
            camera.next_frame(&clip, now, stamp(), &mut scratch, |payload, last| {
                assert!(payload.len() <= MAX_PAYLOAD && !ended);
                let descriptor = Vp8Descriptor::parse(payload).unwrap();
                let id = (0x7ffe + number) & 0x7fff;
                assert_eq!(descriptor.picture_id, Some(id as u16));
                assert_eq!(payload[0] & 0x10 != 0, frame.is_empty(), "S once");
                key |= descriptor.starts_keyframe();
                frame.extend_from_slice(&payload[DESCRIPTOR..]);
                ended = last;
                if last {
                    assert_eq!(Stamp::find(payload).unwrap().counter, number);
                }
            });
            assert!(ended);
            frames.push((frame, key));
        }
        frames
    }

    #[test]
    fn key_frames_come_first_on_request_and_every_ten_seconds() {
        // the request of frame 3 falls within the guard of the first key frame and is met after it
        let frames = run(Resolution::P180, 520, &[3, 100, 102]);
        let keys: Vec<_> = (0..520).filter(|at| frames[*at].1).collect();
        assert_eq!(keys, [0, 8, 100, 108, 358]);
    }

    #[test]
    fn the_bitrate_is_what_was_asked_for() {
        for (resolution, _, bitrate) in ALL {
            let octets: usize = run(resolution, 250, &[]).iter().map(|f| f.0.len()).sum();
            let got = octets * 8 / 10;
            assert!((bitrate..bitrate * 11 / 10).contains(&got), "{got}");
        }
    }

    /// A decoder of the field shows every stuffed frame, repeats and restarts too, and complains of none.
    #[test]
    fn stuffed_frames_decode() {
        for (resolution, width, _) in ALL {
            let frames = run(resolution, 90, &[60]);
            let mut ivf = b"DKIF\0\0\x20\0VP80".to_vec();
            ivf.extend_from_slice(&(width as u16).to_le_bytes());
            ivf.extend_from_slice(&((width * 9 / 16) as u16).to_le_bytes());
            for value in [FRAME_RATE, 1, 90, 0] {
                ivf.extend_from_slice(&value.to_le_bytes());
            }
            for (at, (frame, _)) in frames.iter().enumerate() {
                ivf.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                ivf.extend_from_slice(&(at as u64).to_le_bytes());
                ivf.extend_from_slice(frame);
            }
            let child = Command::new("ffmpeg")
                .args([
                    "-v",
                    "warning",
                    "-err_detect",
                    "explode",
                    "-f",
                    "ivf",
                    "-i",
                    "-",
                ])
                .args(["-f", "framemd5", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let Ok(mut child) = child else {
                return; // no ffmpeg: the other tests stand
            };
            let mut stdin = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || stdin.write_all(&ivf));
            let out = child.wait_with_output().unwrap();
            writer.join().unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stderr), "");
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let shown = text.lines().filter(|line| !line.starts_with('#')).count();
            assert_eq!(shown, 90);
        }
    }
}
