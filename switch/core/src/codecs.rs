//! The codecs the switch knows by name, and which of a listener's payload types
//! can take what a source sends.

/// An audio codec that is forwarded, and transcoded where a listener lacks it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum AudioCodec {
    /// RFC 7587, 48 kHz RTP clock.
    Opus,
    /// RFC 3551 §4.5.2, 16 kHz audio on an 8 kHz RTP clock.
    G722,
    /// G.711 µ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
}

impl AudioCodec {
    /// Every one of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Opus, Self::G722, Self::Pcmu, Self::Pcma];

    /// RTP clock in Hz.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::G722 | Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// The name of `a=rtpmap`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::G722 => "G722",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }
}

/// A video codec that is forwarded untouched but for its descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum VideoCodec {
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// AOMedia's RTP payload format for AV1.
    Av1,
}

/// What a payload type carries, with what of its fmtp decides who can take it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Audio.
    Audio(AudioCodec),
    /// VP8.
    Vp8,
    /// VP9 and its `profile-id`.
    Vp9 {
        /// RFC 9628 §7: 0 where absent.
        profile: u8,
    },
    /// H.264.
    H264 {
        /// The profile of `profile-level-id`.
        profile: H264Profile,
        /// `packetization-mode`, 0 where absent.
        mode: u8,
    },
    /// AV1 and its `profile`.
    Av1 {
        /// 0 (Main) where absent.
        profile: u8,
    },
    /// RFC 4733 at this clock rate in Hz.
    TelephoneEvent(u32),
    /// Comfort noise, RFC 3389.
    ComfortNoise,
    /// Anything else: never forwarded.
    Other,
}

/// H.264 profiles as RFC 6184 §8.1 tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum H264Profile {
    /// Constrained Baseline: every decoder takes it.
    ConstrainedBaseline,
    /// Baseline.
    Baseline,
    /// Main.
    Main,
    /// High and Constrained High.
    High,
    /// Another `profile_idc`.
    Other(u8),
}

impl H264Profile {
    /// From the three octets in hexadecimal; RFC 6184 §8.1 table 5. Absent: Baseline level 1.
    pub fn parse(profile_level_id: &str) -> Self {
        let value = u32::from_str_radix(profile_level_id, 16).unwrap_or(0x42_000a);
        let (idc, iop) = ((value >> 16) as u8, (value >> 8) as u8);
        match idc {
            66 if iop & 0x40 != 0 => Self::ConstrainedBaseline,
            66 => Self::Baseline,
            77 if iop & 0x80 != 0 => Self::ConstrainedBaseline,
            77 => Self::Main,
            100 => Self::High,
            other => Self::Other(other),
        }
    }

    fn accepts(self, sent: Self) -> bool {
        self == sent
            || matches!(
                (self, sent),
                (Self::Baseline | Self::Main | Self::High, Self::ConstrainedBaseline)
                    | (Self::High, Self::Main)
                    // Almost nobody really sends Baseline's extra tools (FMO, ASO), and phones
                    // name 42x0yy for what is constrained.
                    | (Self::ConstrainedBaseline, Self::Baseline)
            )
    }
}

impl Format {
    fn parse(codec: &control::Codec) -> Self {
        let name = codec.name.as_str();
        let is = |n: &str| name.eq_ignore_ascii_case(n);
        let param = |key: &str| fmtp_param(&codec.fmtp, key);
        let number = |key: &str| param(key).and_then(|v| v.parse().ok()).unwrap_or(0);
        if let Some(audio) = AudioCodec::ALL.into_iter().find(|c| is(c.name())) {
            let fits = codec.clock_rate == audio.clock_rate() || codec.clock_rate == 0;
            return if fits {
                Self::Audio(audio)
            } else {
                Self::Other
            };
        }
        if is("VP8") {
            Self::Vp8
        } else if is("VP9") {
            Self::Vp9 {
                profile: number("profile-id"),
            }
        } else if is("AV1") {
            Self::Av1 {
                profile: number("profile"),
            }
        } else if is("H264") {
            let profile = H264Profile::parse(param("profile-level-id").unwrap_or("42000a"));
            Self::H264 {
                profile,
                mode: number("packetization-mode"),
            }
        } else if is("telephone-event") {
            Self::TelephoneEvent(codec.clock_rate)
        } else if is("CN") {
            Self::ComfortNoise
        } else {
            Self::Other
        }
    }

    /// Whether a listener that negotiated `self` can take a stream sent as `sent`.
    pub fn accepts(self, sent: Self) -> bool {
        match (self, sent) {
            (
                Self::H264 {
                    profile: mine,
                    mode: my_mode,
                },
                Self::H264 {
                    profile: theirs,
                    mode: their_mode,
                },
            ) => mine.accepts(theirs) && my_mode >= their_mode,
            (Self::Other, _) => false,
            _ => self == sent,
        }
    }

    /// The video codec.
    pub const fn video(self) -> Option<VideoCodec> {
        match self {
            Self::Vp8 => Some(VideoCodec::Vp8),
            Self::Vp9 { .. } => Some(VideoCodec::Vp9),
            Self::H264 { .. } => Some(VideoCodec::H264),
            Self::Av1 { .. } => Some(VideoCodec::Av1),
            _ => None,
        }
    }

    /// The audio codec.
    pub const fn audio(self) -> Option<AudioCodec> {
        match self {
            Self::Audio(codec) => Some(codec),
            _ => None,
        }
    }
}

/// The value of `key` in `a=fmtp` parameters (`k=v;k=v`), case-insensitive in the key.
fn fmtp_param<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|part| {
        let (k, v) = part.split_once('=')?;
        k.trim().eq_ignore_ascii_case(key).then(|| v.trim())
    })
}

/// One payload type of an m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecSpec {
    /// The peer's number, 0..=127.
    pub payload_type: u8,
    /// What it carries.
    pub format: Format,
    /// RTP clock in Hz, never 0.
    pub clock_rate: u32,
    /// RTX payload type.
    pub rtx: Option<u8>,
    /// Generic NACK negotiated.
    pub nack: bool,
    /// PLI negotiated.
    pub pli: bool,
    /// FIR negotiated.
    pub fir: bool,
    /// REMB negotiated.
    pub remb: bool,
}

/// The payload types of an m-line in the peer's preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodecList {
    specs: Vec<CodecSpec>,
}

/// Most payload types an m-line may have; more are left out.
pub const MAX_CODECS: usize = 64;

impl CodecList {
    /// The list of an m-line. Impossible payload types are left out.
    pub fn new(list: &[control::Codec]) -> Self {
        let specs = list
            .iter()
            .filter_map(|c| {
                let payload_type = u8::try_from(c.payload_type).ok().filter(|p| *p < 128)?;
                let rtx = u8::try_from(c.rtx_payload_type)
                    .ok()
                    .filter(|p| (1..128).contains(p));
                let format = Format::parse(c);
                let clock_rate = match (c.clock_rate, format) {
                    (0, Format::Audio(codec)) => codec.clock_rate(),
                    (0, f) if f.video().is_some() => 90_000,
                    (0, _) => 8_000,
                    (rate, _) => rate,
                };
                Some(CodecSpec {
                    payload_type,
                    format,
                    clock_rate,
                    rtx,
                    nack: c.nack,
                    pli: c.pli,
                    fir: c.fir,
                    remb: c.remb,
                })
            })
            .take(MAX_CODECS)
            .collect();
        Self { specs }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &CodecSpec> {
        self.specs.iter()
    }

    /// By place in the list.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&CodecSpec> {
        self.specs.get(index)
    }

    /// The place of a payload type.
    #[inline]
    pub fn index_of(&self, payload_type: u8) -> Option<usize> {
        self.specs
            .iter()
            .position(|s| s.payload_type == payload_type)
    }

    /// The place of the codec an RTX payload type repairs.
    #[inline]
    pub fn repaired_by(&self, payload_type: u8) -> Option<usize> {
        self.specs.iter().position(|s| s.rtx == Some(payload_type))
    }

    /// Whether a payload type, primary or RTX, is of this m-line.
    pub fn has(&self, payload_type: u8) -> bool {
        self.index_of(payload_type)
            .or_else(|| self.repaired_by(payload_type))
            .is_some()
    }

    /// The payload type that takes `sent`: the very same format first, else a compatible one.
    pub fn accepting(&self, sent: Format) -> Option<&CodecSpec> {
        self.specs
            .iter()
            .find(|s| s.format == sent && sent != Format::Other)
            .or_else(|| self.specs.iter().find(|s| s.format.accepts(sent)))
    }

    /// The audio codec this m-line likes best of those a rendition can be made in.
    pub fn preferred_audio(&self) -> Option<AudioCodec> {
        self.specs.iter().find_map(|s| s.format.audio())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(pt: u32, name: &str, clock: u32, fmtp: &str) -> control::Codec {
        control::Codec {
            payload_type: pt,
            name: name.into(),
            clock_rate: clock,
            fmtp: fmtp.into(),
            ..Default::default()
        }
    }

    #[test]
    fn payload_types_are_mapped_by_codec_whatever_their_numbers() {
        let list = CodecList::new(&[
            codec(96, "OPUS", 48_000, ""),
            codec(0, "PCMU", 8_000, ""),
            codec(101, "telephone-event", 8_000, "0-16"),
        ]);
        let pt = |f| list.accepting(f).map(|s| s.payload_type);
        assert_eq!(pt(Format::Audio(AudioCodec::Opus)), Some(96));
        assert_eq!(pt(Format::Audio(AudioCodec::Pcma)), None);
        assert_eq!(pt(Format::TelephoneEvent(8_000)), Some(101));
        assert_eq!(pt(Format::TelephoneEvent(48_000)), None);
        assert_eq!(pt(Format::Other), None);
    }

    #[test]
    fn vp9_profiles_do_not_mix() {
        let list = CodecList::new(&[
            codec(98, "VP9", 90_000, "profile-id=0"),
            codec(100, "VP9", 90_000, "profile-id=2"),
        ]);
        assert_eq!(
            list.accepting(Format::Vp9 { profile: 2 })
                .unwrap()
                .payload_type,
            100
        );
        assert!(list.accepting(Format::Vp9 { profile: 1 }).is_none());
    }

    #[test]
    fn h264_takes_the_same_profile_first_and_then_a_compatible_one() {
        let list = CodecList::new(&[
            codec(
                102,
                "H264",
                90_000,
                "packetization-mode=1;profile-level-id=42001f",
            ),
            codec(
                108,
                "H264",
                90_000,
                "packetization-mode=1;profile-level-id=42e01f",
            ),
            codec(114, "H264", 90_000, "profile-level-id=4d001f"),
        ]);
        let sent = |id, mode| Format::H264 {
            profile: H264Profile::parse(id),
            mode,
        };
        assert_eq!(list.accepting(sent("42e034", 1)).unwrap().payload_type, 108);
        assert_eq!(list.accepting(sent("42001f", 0)).unwrap().payload_type, 102);
        assert_eq!(list.accepting(sent("4d001f", 0)).unwrap().payload_type, 114);
        assert!(
            list.accepting(sent("4d001f", 1)).is_none(),
            "FU-A to a mode 0 decoder"
        );
        assert!(list.accepting(sent("64001f", 1)).is_none());
    }

    #[test]
    fn impossible_payload_types_are_left_out() {
        let list = CodecList::new(&[codec(128, "opus", 48_000, ""), codec(9, "G722", 8_000, "")]);
        assert_eq!(list.iter().count(), 1);
        assert_eq!(list.preferred_audio(), Some(AudioCodec::G722));
    }
}
