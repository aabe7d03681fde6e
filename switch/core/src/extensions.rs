//! Header extensions the switch understands, and their ids per leg (RFC 8285 §5).

use crate::rtp::RtpView;

/// A header extension that is read or forwarded. Any other is dropped, as are
/// `toffset` and video-timing (they describe the first hop) and transport-wide
/// sequence numbers (they count one sender's packets, not ours).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ExtensionKind {
    /// Client-to-mixer audio level, RFC 6464.
    AudioLevel,
    /// `sdes:mid`, RFC 8843 §15; written anew with the receiver's.
    Mid,
    /// abs-send-time; written anew.
    AbsSendTime,
    /// Coordination of video orientation, 3GPP TS 26.114 §7.4.5.
    VideoOrientation,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
    /// playout-delay.
    PlayoutDelay,
    /// video-content-type.
    VideoContentType,
    /// color-space.
    ColorSpace,
}

/// How many kinds there are.
pub const KINDS: usize = 8;

const URIS: [(&str, ExtensionKind); KINDS + 1] = [
    (
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        ExtensionKind::AudioLevel,
    ),
    ("urn:ietf:params:rtp-hdrext:sdes:mid", ExtensionKind::Mid),
    (
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
        ExtensionKind::AbsSendTime,
    ),
    (
        "urn:3gpp:video-orientation",
        ExtensionKind::VideoOrientation,
    ),
    (
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
        ExtensionKind::DependencyDescriptor,
    ),
    // An older name of the same, still seen.
    (
        "http://www.webrtc.org/experiments/rtp-hdrext/generic-frame-descriptor-02",
        ExtensionKind::DependencyDescriptor,
    ),
    (
        "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        ExtensionKind::PlayoutDelay,
    ),
    (
        "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
        ExtensionKind::VideoContentType,
    ),
    (
        "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
        ExtensionKind::ColorSpace,
    ),
];

impl ExtensionKind {
    /// The kind a URI names.
    pub fn from_uri(uri: &str) -> Option<Self> {
        URIS.iter().find(|(u, _)| *u == uri).map(|(_, kind)| *kind)
    }
}

/// Ids of one m-line: kind to id and back. Id 0 means not negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionIds {
    by_kind: [u8; KINDS],
}

impl ExtensionIds {
    /// What the participant may send on an m-line; unknown URIs and impossible ids are left out.
    pub fn received(list: &[control::HeaderExtension]) -> Self {
        Self::of(list.iter().filter(|e| !e.send_only))
    }

    /// What the participant may be sent on an m-line; likewise.
    pub fn sent(list: &[control::HeaderExtension]) -> Self {
        Self::of(list.iter().filter(|e| !e.receive_only))
    }

    fn of<'a>(list: impl Iterator<Item = &'a control::HeaderExtension>) -> Self {
        let mut by_kind = [0; KINDS];
        for e in list {
            if let (Some(kind), Ok(id @ 1..)) =
                (ExtensionKind::from_uri(&e.uri), u8::try_from(e.id))
            {
                by_kind[kind as usize] = id;
            }
        }
        Self { by_kind }
    }

    /// The id of a kind, 0 where it is not negotiated.
    #[inline]
    pub fn id(&self, kind: ExtensionKind) -> u8 {
        self.by_kind[kind as usize]
    }

    /// Collects the known elements of a packet.
    #[inline]
    pub fn read<'a>(&self, view: &RtpView<'a>) -> ExtensionSet<'a> {
        let mut set = ExtensionSet::default();
        for (id, data) in view.extensions() {
            // The list is short and this beats a table of 256 per m-line.
            if let Some(kind) = self.by_kind.iter().position(|i| *i == id) {
                set.data[kind] = Some(data);
            }
        }
        set
    }
}

/// The known elements of one packet, whatever their ids were.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtensionSet<'a> {
    data: [Option<&'a [u8]>; KINDS],
}

impl<'a> ExtensionSet<'a> {
    /// The data of a kind.
    #[inline]
    pub fn get(&self, kind: ExtensionKind) -> Option<&'a [u8]> {
        self.data[kind as usize]
    }
}

/// 24-bit fixed point seconds, 6.18 (abs-send-time), of a time since the Unix epoch.
pub fn abs_send_time(unix: std::time::Duration) -> [u8; 3] {
    let secs = unix.as_secs() & 0x3f;
    let fraction = (u64::from(unix.subsec_nanos()) << 18) / 1_000_000_000;
    let value = ((secs << 18) | fraction) as u32;
    let [_, a, b, c] = value.to_be_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn extension(id: u32, uri: &str) -> control::HeaderExtension {
        control::HeaderExtension {
            id,
            uri: uri.into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_extension_agreed_in_one_direction_is_used_in_that_one_only() {
        let mut list = [
            extension(1, "urn:3gpp:video-orientation"),
            extension(2, "urn:ietf:params:rtp-hdrext:sdes:mid"),
        ];
        list[0].receive_only = true;
        list[1].send_only = true;
        let both = |ids: ExtensionIds| {
            [ExtensionKind::VideoOrientation, ExtensionKind::Mid].map(|kind| ids.id(kind))
        };
        assert_eq!(both(ExtensionIds::received(&list)), [1, 0]);
        assert_eq!(both(ExtensionIds::sent(&list)), [0, 2]);
    }

    #[test]
    fn elements_are_found_by_kind_under_any_id() {
        let ids = ExtensionIds::received(&[
            extension(14, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
            extension(300, "urn:3gpp:video-orientation"),
            extension(5, "urn:unknown"),
        ]);
        assert_eq!(ids.id(ExtensionKind::AudioLevel), 14);
        assert_eq!(ids.id(ExtensionKind::VideoOrientation), 0);
        let p = [
            0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0xe0, 0x85, 0x50, 1,
        ];
        let view = RtpView::parse(&p).unwrap();
        assert_eq!(
            ids.read(&view).get(ExtensionKind::AudioLevel),
            Some(&[0x85][..])
        );
        assert_eq!(ids.read(&view).get(ExtensionKind::VideoOrientation), None);
    }

    #[test]
    fn abs_send_time_is_six_dot_eighteen() {
        assert_eq!(
            abs_send_time(Duration::from_millis(64_000 + 1_500)),
            [0x06, 0, 0]
        );
    }
}
