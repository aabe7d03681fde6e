//! What one leg sends: packets of its voice and picture, reports, retransmissions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use switch_core::rtcp::{CompoundBuf, ReportBlock, ntp};
use switch_core::rtp::{Fixed, HeaderBuf};
use switch_core::srtp::Sealer;

use super::picture::{Camera, Clip};
use super::rtcp::OwnStream;
use super::schedule::Spurt;
use super::socket::MediaSocket;
use super::speech::{Codec, MAX_AUDIO, Speech};
use super::stamp::Stamp;
use super::tally::Tally;
use crate::leg::Kind;

/// Packets kept for retransmission, each m-line of video: some 2 s of 720p, 600 kB.
const RING: usize = 512;

/// Room for the longest packet with its protection.
const PACKET: usize = 2048;

/// A spurt number no schedule gives: of packets before the first spurt.
const NO_SPURT: u16 = u16::MAX;

/// A frame of voice lasts so long, µs.
pub const VOICE_STEP: u64 = 20_000;

/// A frame of picture lasts so long, µs.
pub const PICTURE_STEP: u64 = 1_000_000 / super::picture::FRAME_RATE as u64;

/// What all legs share while they send.
pub struct Studio {
    /// The recording.
    pub speech: Speech,
    /// The clip, with video.
    pub clip: Option<Clip>,
    header: HeaderBuf,
    packet: [u8; PACKET],
    frame: Vec<u8>,
}

impl Studio {
    /// From what it plays.
    #[must_use]
    pub fn new(speech: Speech, clip: Option<Clip>) -> Self {
        Self {
            speech,
            clip,
            header: HeaderBuf::default(),
            packet: [0; PACKET],
            frame: Vec::new(),
        }
    }
}

/// How an m-line is sent, from the answer.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where to.
    pub to: SocketAddr,
    /// Where RTCP goes.
    pub rtcp_to: SocketAddr,
    /// Payload type.
    pub payload_type: u8,
    /// Hz.
    pub clock_rate: u32,
    /// Audio codec; `None` for VP8.
    pub codec: Option<Codec>,
    /// Extension id of the RFC 6464 level.
    pub level: Option<u8>,
    /// Extension id and value of the MID.
    pub mid: Option<(u8, String)>,
    /// The peer takes it.
    pub sends: bool,
}

/// One m-line.
pub struct Line {
    /// Audio or video.
    pub kind: Kind,
    /// How it is sent.
    pub way: Way,
    socket: Arc<MediaSocket>,
    own: Arc<OwnStream>,
    sequence: u16,
    timestamp: u32,
    octets: u32,
    reported: u32,
    /// Frames of voice so far.
    counter: u32,
    /// Of pictures.
    pub camera: Camera,
    ring: Vec<(u16, Vec<u8>)>,
}

/// A packet to be.
struct Media<'a> {
    timestamp: u32,
    marker: bool,
    level: Option<u8>,
    payload: &'a [u8],
}

impl Line {
    /// One that has sent nothing; first number and timestamp are random.
    #[must_use]
    pub fn new(
        kind: Kind,
        way: Way,
        socket: Arc<MediaSocket>,
        own: Arc<OwnStream>,
        random: u64,
    ) -> Self {
        own.clock_rate.store(way.clock_rate, Ordering::Relaxed);
        Self {
            kind,
            way,
            socket,
            own,
            // RFC 3711 §3.3.1: from the lower half, so that a lost first packet leaves the roll-over counter right
            sequence: (random as u16) & 0x7fff,
            timestamp: (random >> 16) as u32,
            octets: 0,
            reported: 0,
            counter: 0,
            camera: Camera::new((random >> 48) as u16),
            ring: Vec::new(),
        }
    }

    /// What its SSRC is.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        self.own.ssrc
    }

    /// The RTP timestamp of a time.
    fn timestamp(&self, at: u64) -> u32 {
        let units = u128::from(at) * u128::from(self.way.clock_rate) / 1_000_000;
        self.timestamp.wrapping_add(units as u32)
    }

    fn send(
        &mut self,
        media: &Media<'_>,
        header: &mut HeaderBuf,
        packet: &mut [u8; PACKET],
        sealer: Option<&mut Sealer>,
        now: u64,
        tally: &mut Tally,
    ) {
        let fixed = Fixed {
            marker: media.marker,
            payload_type: self.way.payload_type,
            sequence: self.sequence,
            timestamp: media.timestamp,
            ssrc: self.own.ssrc,
            csrc: None,
        };
        let level = [media.level.unwrap_or(0)];
        // id 0 is left out
        let level_id = self
            .way
            .level
            .filter(|_| media.level.is_some())
            .unwrap_or(0);
        let mid = self.way.mid.as_ref();
        let (mid_id, mid) = mid.map_or((0, &b""[..]), |(id, mid)| (*id, mid.as_bytes()));
        let head = header.write(fixed, &[(level_id, &level), (mid_id, mid)]);
        let len = head.len() + media.payload.len();
        packet[..head.len()].copy_from_slice(head);
        packet[head.len()..len].copy_from_slice(media.payload);
        if self.kind == Kind::Video {
            self.keep(&packet[..len]);
        }
        // told before it leaves: a report about it must not be quicker
        self.own
            .highest
            .store(u32::from(self.sequence), Ordering::Relaxed);
        self.own.packets.fetch_add(1, Ordering::Relaxed);
        self.sequence = self.sequence.wrapping_add(1);
        self.octets = self.octets.wrapping_add(media.payload.len() as u32);
        let counts = &mut tally.kind(self.kind).counts;
        counts.sent += 1;
        counts.sent_octets += media.payload.len() as u64;
        tally.on_sent(now);
        self.deliver(packet, len, sealer, tally);
    }

    fn deliver(
        &self,
        packet: &mut [u8; PACKET],
        len: usize,
        sealer: Option<&mut Sealer>,
        tally: &mut Tally,
    ) {
        let len = match sealer.map(|sealer| sealer.seal_rtp(packet, len)) {
            None => Some(len),
            Some(sealed) => sealed.ok(),
        };
        if !len.is_some_and(|len| self.socket.send(&packet[..len], self.way.to)) {
            tally.send_errors += 1;
        }
    }

    fn keep(&mut self, packet: &[u8]) {
        if self.ring.is_empty() {
            self.ring.resize_with(RING, Default::default);
        }
        let (number, kept) = &mut self.ring[usize::from(self.sequence) % RING];
        *number = self.sequence;
        kept.clear();
        kept.extend_from_slice(packet);
    }
}

/// Talking.
#[derive(Clone, Copy, Debug)]
struct Talk {
    begin: u64,
    end: u64,
    /// Frame of the recording.
    frame: usize,
}

/// A leg as the sending thread knows it.
pub struct Outgoing {
    participant: u32,
    cname: String,
    /// m-lines by their place in the offer.
    pub lines: Vec<Option<Line>>,
    /// Of each m-line, or one for all.
    pub sealers: Vec<Option<Sealer>>,
    /// All m-lines share the first sealer.
    bundled: bool,
    /// May send: the keys are there.
    pub ready: bool,
    /// Its picture is being sent.
    pub filming: bool,
    talk: Option<Talk>,
    spurt: u16,
}

impl Outgoing {
    /// A leg without m-lines yet.
    #[must_use]
    pub fn new(participant: u32, cname: String, bundled: bool) -> Self {
        Self {
            participant,
            cname,
            lines: Vec::new(),
            sealers: Vec::new(),
            bundled,
            ready: false,
            filming: false,
            talk: None,
            spurt: NO_SPURT,
        }
    }

    fn stamp(&self, now: u64, counter: u32) -> Stamp {
        let since = self.talk.map(|talk| now.saturating_sub(talk.begin) / 1000);
        Stamp {
            sender: self.participant as u16,
            sent: now,
            counter,
            spurt: self.spurt,
            since: since.map(|ms| ms.min(60_000) as u16),
        }
    }

    /// The line of that kind that the peer takes, its sealer, and its place.
    fn line(&mut self, kind: Kind) -> Option<(&mut Line, Option<&mut Sealer>)> {
        let at = self.lines.iter().position(|line| {
            let line = line.as_ref();
            line.is_some_and(|line| line.kind == kind && line.way.sends)
        })?;
        self.line_at(at)
    }

    fn line_at(&mut self, at: usize) -> Option<(&mut Line, Option<&mut Sealer>)> {
        let line = self.lines.get_mut(at)?.as_mut()?;
        let sealer = self.sealers.get_mut(if self.bundled { 0 } else { at });
        Some((line, sealer.and_then(Option::as_mut)))
    }

    /// Whether there is a picture to send and somebody who takes it.
    pub fn has_camera(&mut self) -> bool {
        self.line(Kind::Video).is_some()
    }

    /// Begins to talk.
    pub fn begin(&mut self, spurt: Spurt, begin: u64, end: u64, studio: &Studio) {
        self.spurt = spurt.number;
        self.talk = Some(Talk {
            begin,
            end,
            frame: studio.speech.begin(spurt.speaker, spurt.number),
        });
    }

    /// The next 20 ms of talk, due at `due`; whether there are more.
    pub fn voice(&mut self, due: u64, now: u64, studio: &mut Studio, tally: &mut Tally) -> bool {
        let Some(talk) = self.talk.filter(|talk| due < talk.end) else {
            self.talk = None;
            return false;
        };
        if self.ready {
            self.send_voice(Some(talk.frame), due == talk.begin, due, now, studio, tally);
        }
        if let Some(talk) = &mut self.talk {
            talk.frame += 1;
        }
        true
    }

    fn send_voice(
        &mut self,
        frame: Option<usize>,
        marker: bool,
        due: u64,
        now: u64,
        studio: &mut Studio,
        tally: &mut Tally,
    ) {
        let stamp = self.stamp(now, 0);
        let Some((line, sealer)) = self.line(Kind::Audio) else {
            return;
        };
        let Some(codec) = line.way.codec else {
            return;
        };
        let mut payload = [0; MAX_AUDIO];
        let stamp = Stamp {
            counter: line.counter,
            ..stamp
        };
        let (len, level) = studio.speech.write(frame, codec, stamp, &mut payload);
        line.counter = line.counter.wrapping_add(1);
        let media = Media {
            timestamp: line.timestamp(due),
            // RFC 3551 §4.1: the first packet of a spurt
            marker,
            level: Some(level),
            payload: &payload[..len],
        };
        line.send(
            &media,
            &mut studio.header,
            &mut studio.packet,
            sealer,
            now,
            tally,
        );
    }

    /// The next picture.
    pub fn picture(
        &mut self,
        due: u64,
        now: u64,
        instant: std::time::Instant,
        studio: &mut Studio,
        tally: &mut Tally,
    ) {
        let stamp = self.stamp(now, 0);
        let Studio {
            clip: Some(clip),
            header,
            packet,
            frame,
            ..
        } = studio
        else {
            return;
        };
        let Some((line, mut sealer)) = self.line(Kind::Video) else {
            return;
        };
        let timestamp = line.timestamp(due);
        let mut camera = line.camera.clone();
        camera.next_frame(clip, instant, stamp, frame, |payload, last| {
            let media = Media {
                timestamp,
                marker: last,
                level: None,
                payload,
            };
            line.send(&media, header, packet, sealer.as_deref_mut(), now, tally);
        });
        line.camera = camera;
    }

    /// Silence on audio, and packets without payload on a video line that films nothing: a server learns from them
    /// where a peer without ICE is (RFC 6263 §4.2, §4.3).
    pub fn open_path(&mut self, due: u64, now: u64, studio: &mut Studio, tally: &mut Tally) {
        if !self.ready {
            return;
        }
        if self.talk.is_none() {
            self.send_voice(None, false, due, now, studio, tally);
        }
        if self.filming || self.bundled {
            return;
        }
        if let Some((line, sealer)) = self.line(Kind::Video) {
            let media = Media {
                timestamp: line.timestamp(due),
                marker: false,
                level: None,
                payload: &[],
            };
            line.send(
                &media,
                &mut studio.header,
                &mut studio.packet,
                sealer,
                now,
                tally,
            );
        }
    }

    /// Sends a packet of the ring again, if it is still there: the same octets, as its number is the same.
    pub fn send_again(&mut self, ssrc: u32, number: u16, studio: &mut Studio, tally: &mut Tally) {
        let at = self
            .lines
            .iter()
            .position(|line| line.as_ref().is_some_and(|l| l.ssrc() == ssrc));
        let Some((line, sealer)) = at.and_then(|at| self.line_at(at)) else {
            return;
        };
        let Some((kept, bytes)) = line.ring.get(usize::from(number) % RING) else {
            return;
        };
        if *kept == number && !bytes.is_empty() {
            studio.packet[..bytes.len()].copy_from_slice(bytes);
            line.deliver(&mut studio.packet, bytes.len(), sealer, tally);
            tally.rtcp.retransmitted += 1;
        }
    }

    /// Somebody needs a key frame of that SSRC.
    pub fn request_keyframe(&mut self, ssrc: u32) {
        for line in self.lines.iter_mut().flatten().filter(|l| l.ssrc() == ssrc) {
            line.camera.request_keyframe();
        }
    }

    /// Sends a compound of one m-line: a report, CNAME, requests for key frames, and BYE at the end.
    pub fn report(&mut self, at: usize, now: u64, report: &Report, tally: &mut Tally) {
        if !self.ready {
            return;
        }
        let cname = self.cname.clone();
        let Some((line, sealer)) = self.line_at(at) else {
            return;
        };
        let ssrc = line.own.ssrc;
        let packets = line.own.packets.load(Ordering::Relaxed);
        let mut compound = CompoundBuf::default();
        // RFC 3550 §6.4: a sender report from those who have sent since the last one
        if packets != line.reported {
            line.reported = packets;
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let wall = ntp(wall.unwrap_or(Duration::ZERO));
            let timestamp = line.timestamp(now);
            compound.sender_report(ssrc, wall, timestamp, packets, line.octets, &report.blocks);
        } else {
            compound.receiver_report(ssrc, &report.blocks);
        }
        compound.cname(ssrc, &cname);
        for media in &report.plis {
            tally.rtcp.plis_sent += u64::from(compound.pli(ssrc, *media));
        }
        let mut packet = [0; PACKET];
        let mut len = compound.bytes().len();
        packet[..len].copy_from_slice(compound.bytes());
        if report.bye {
            packet[len..len + 4].copy_from_slice(&[0x81, 203, 0, 1]);
            packet[len + 4..len + 8].copy_from_slice(&ssrc.to_be_bytes());
            len += 8;
        }
        let sealed = match sealer.map(|sealer| sealer.seal_rtcp(&mut packet, len)) {
            None => Some(len),
            Some(sealed) => sealed.ok(),
        };
        if sealed.is_some_and(|len| line.socket.send(&packet[..len], line.way.rtcp_to)) {
            tally.rtcp.sent += 1;
        } else {
            tally.send_errors += 1;
        }
    }
}

/// What a compound says.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of what was received.
    pub blocks: Vec<ReportBlock>,
    /// SSRCs whose picture has not begun.
    pub plis: Vec<u32>,
    /// The leg ends.
    pub bye: bool,
}
