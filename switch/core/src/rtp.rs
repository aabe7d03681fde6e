//! RTP packets in place (RFC 3550 §5.1, header extensions of RFC 8285).
//!
//! [`RtpView`] reads a received packet without copying it; [`HeaderBuf`] writes the
//! header of a packet to be sent. Neither allocates.

/// Octets of the fixed header.
pub const FIXED_HEADER: usize = 12;

/// Largest header this crate writes: fixed header, one CSRC, extensions.
pub const MAX_HEADER: usize = 512;

/// Why a datagram is no RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RtpError {
    /// Shorter than its header says.
    #[error("the packet is shorter than its header says")]
    Truncated,
    /// Not version 2.
    #[error("not RTP version 2")]
    Version,
    /// The padding count is 0 or larger than the payload.
    #[error("the padding count is impossible")]
    Padding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtensionForm {
    None,
    OneByte,
    TwoByte,
}

/// A received RTP packet, checked once; every getter is then infallible.
#[derive(Clone, Copy, Debug)]
pub struct RtpView<'a> {
    packet: &'a [u8],
    extension: &'a [u8],
    form: ExtensionForm,
    payload_at: usize,
    payload_end: usize,
}

impl<'a> RtpView<'a> {
    /// Checks the lengths of `packet` and gives the view of it.
    ///
    /// # Errors
    /// [`RtpError`]; every length is compared against what is there.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtpError> {
        let Some(fixed) = packet.first_chunk::<FIXED_HEADER>() else {
            return Err(RtpError::Truncated);
        };
        if fixed[0] >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let mut at = FIXED_HEADER + 4 * usize::from(fixed[0] & 0x0f);
        let mut extension: &[u8] = &[];
        let mut form = ExtensionForm::None;
        if fixed[0] & 0x10 != 0 {
            let head: &[u8; 4] = packet
                .get(at..)
                .and_then(<[u8]>::first_chunk)
                .ok_or(RtpError::Truncated)?;
            let profile = u16::from_be_bytes([head[0], head[1]]);
            let len = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            at += 4;
            extension = packet.get(at..at + len).ok_or(RtpError::Truncated)?;
            at += len;
            // RFC 8285 §4.1.2: the low four bits of 0x100X are for the application.
            form = match profile {
                0xbede => ExtensionForm::OneByte,
                p if p & 0xfff0 == 0x1000 => ExtensionForm::TwoByte,
                _ => ExtensionForm::None,
            };
        }
        let mut end = packet.len();
        if at > end {
            return Err(RtpError::Truncated);
        }
        if fixed[0] & 0x20 != 0 {
            let padding = usize::from(packet[end - 1]);
            if padding == 0 || padding > end - at {
                return Err(RtpError::Padding);
            }
            end -= padding;
        }
        Ok(Self {
            packet,
            extension,
            form,
            payload_at: at,
            payload_end: end,
        })
    }

    /// The marker bit.
    #[inline]
    pub fn marker(&self) -> bool {
        self.packet[1] & 0x80 != 0
    }

    /// Payload type, 0..=127.
    #[inline]
    pub fn payload_type(&self) -> u8 {
        self.packet[1] & 0x7f
    }

    /// Sequence number.
    #[inline]
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.packet[2], self.packet[3]])
    }

    /// Timestamp in the codec's clock.
    #[inline]
    pub fn timestamp(&self) -> u32 {
        u32::from_be_bytes([
            self.packet[4],
            self.packet[5],
            self.packet[6],
            self.packet[7],
        ])
    }

    /// Synchronisation source.
    #[inline]
    pub fn ssrc(&self) -> u32 {
        u32::from_be_bytes([
            self.packet[8],
            self.packet[9],
            self.packet[10],
            self.packet[11],
        ])
    }

    /// Contributing sources, at most 15.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + 'a {
        let count = usize::from(self.packet[0] & 0x0f);
        self.packet[FIXED_HEADER..FIXED_HEADER + 4 * count]
            .chunks_exact(4)
            .map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]))
    }

    /// Octets of the header: fixed part, CSRCs and extensions.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.payload_at
    }

    /// The header: fixed part, CSRCs and extensions.
    #[inline]
    pub fn header(&self) -> &'a [u8] {
        &self.packet[..self.payload_at]
    }

    /// The payload without padding.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[self.payload_at..self.payload_end]
    }

    /// The header extension elements in their order; malformed rest is left out.
    #[inline]
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions {
            rest: self.extension,
            form: self.form,
        }
    }

    /// The first element with this id.
    #[inline]
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions()
            .find(|(i, _)| *i == id)
            .map(|(_, data)| data)
    }
}

/// Iterator over header extension elements (id, data).
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    form: ExtensionForm,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            if first == 0 {
                self.rest = rest; // padding
                continue;
            }
            let (id, len, rest) = match self.form {
                ExtensionForm::None => return None,
                ExtensionForm::OneByte => {
                    let id = first >> 4;
                    if id == 15 {
                        // RFC 8285 §4.2: stop here, ignore the rest.
                        self.rest = &[];
                        return None;
                    }
                    (id, usize::from(first & 0x0f) + 1, rest)
                }
                ExtensionForm::TwoByte => {
                    let (&len, rest) = rest.split_first()?;
                    (first, usize::from(len), rest)
                }
            };
            let Some((data, rest)) = rest.split_at_checked(len) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            if id == 0 {
                continue; // one-byte form: id 0 with a length is padding too
            }
            return Some((id, data));
        }
    }
}

/// The fixed part of a header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Marker bit.
    pub marker: bool,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// SSRC.
    pub ssrc: u32,
    /// The one CSRC, where there is one.
    pub csrc: Option<u32>,
}

/// Where headers are written; one is enough for a whole meeting.
#[derive(Clone, Debug)]
pub struct HeaderBuf {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl Default for HeaderBuf {
    fn default() -> Self {
        Self {
            bytes: [0; MAX_HEADER],
            len: 0,
        }
    }
}

impl HeaderBuf {
    /// Writes a header with the extension elements given; elements of id 0 are left out, as is
    /// what would not fit. The one-byte form is used where every element allows it (RFC 8285 §4.1.2).
    #[inline]
    pub fn write(&mut self, fixed: Fixed, elements: &[(u8, &[u8])]) -> &[u8] {
        let b = &mut self.bytes;
        let csrc_count = u8::from(fixed.csrc.is_some());
        b[0] = 0x80 | csrc_count;
        b[1] = (fixed.payload_type & 0x7f) | if fixed.marker { 0x80 } else { 0 };
        b[2..4].copy_from_slice(&fixed.sequence.to_be_bytes());
        b[4..8].copy_from_slice(&fixed.timestamp.to_be_bytes());
        b[8..12].copy_from_slice(&fixed.ssrc.to_be_bytes());
        let mut at = FIXED_HEADER;
        if let Some(csrc) = fixed.csrc {
            b[at..at + 4].copy_from_slice(&csrc.to_be_bytes());
            at += 4;
        }
        if elements.iter().any(|(id, _)| *id != 0) {
            at = write_extensions(b, at, elements);
        }
        self.len = at;
        &self.bytes[..at]
    }

    /// What was written last.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn write_extensions(b: &mut [u8; MAX_HEADER], head: usize, elements: &[(u8, &[u8])]) -> usize {
    let one_byte = elements
        .iter()
        .all(|(id, data)| *id == 0 || (*id <= 14 && (1..=16).contains(&data.len())));
    let start = head + 4;
    let mut at = start;
    for (id, data) in elements {
        // Three octets are kept free for the final padding.
        if *id == 0 || data.len() > 255 || at + 2 + data.len() + 3 > MAX_HEADER {
            continue;
        }
        if one_byte {
            b[at] = (id << 4) | (data.len() - 1) as u8;
            at += 1;
        } else {
            b[at] = *id;
            b[at + 1] = data.len() as u8;
            at += 2;
        }
        b[at..at + data.len()].copy_from_slice(data);
        at += data.len();
    }
    if at == start {
        return head; // nothing fitted
    }
    b[0] |= 0x10;
    while !(at - start).is_multiple_of(4) {
        b[at] = 0;
        at += 1;
    }
    let profile: u16 = if one_byte { 0xbede } else { 0x1000 };
    b[head..head + 2].copy_from_slice(&profile.to_be_bytes());
    b[head + 2..head + 4].copy_from_slice(&(((at - start) / 4) as u16).to_be_bytes());
    at
}

/// Distance from `b` to `a` in 16-bit serial arithmetic (RFC 1982): positive when `a` is newer.
#[inline]
pub const fn sequence_delta(a: u16, b: u16) -> i32 {
    a.wrapping_sub(b) as i16 as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fixed() -> Fixed {
        Fixed {
            marker: true,
            payload_type: 111,
            sequence: 0xfffe,
            timestamp: 0x1234_5678,
            ssrc: 0xdead_beef,
            csrc: Some(7),
        }
    }

    #[test]
    fn a_written_header_reads_back_in_one_byte_form() {
        let mut buf = HeaderBuf::default();
        let mut packet = buf
            .write(fixed(), &[(1, &[0x85]), (0, &[9]), (4, b"mid0")])
            .to_vec();
        packet.extend_from_slice(b"payload");
        let view = RtpView::parse(&packet).unwrap();
        assert!(view.marker());
        assert_eq!(view.payload_type(), 111);
        assert_eq!(view.sequence(), 0xfffe);
        assert_eq!(view.timestamp(), 0x1234_5678);
        assert_eq!(view.ssrc(), 0xdead_beef);
        assert_eq!(view.csrcs().collect::<Vec<_>>(), [7]);
        assert_eq!(view.extension(1), Some(&[0x85][..]));
        assert_eq!(view.extension(4), Some(&b"mid0"[..]));
        assert_eq!(view.extensions().count(), 2);
        assert_eq!(view.payload(), b"payload");
    }

    #[test]
    fn ids_above_fourteen_and_long_elements_take_the_two_byte_form() {
        let long = [7u8; 40];
        let mut buf = HeaderBuf::default();
        let packet = buf.write(fixed(), &[(20, &[1]), (3, &long)]).to_vec();
        let view = RtpView::parse(&packet).unwrap();
        assert_eq!(&packet[16..18], &[0x10, 0x00]);
        assert_eq!(view.extension(20), Some(&[1][..]));
        assert_eq!(view.extension(3), Some(&long[..]));
    }

    #[test]
    fn the_field_s_own_parser_agrees() {
        use bytes::Bytes;
        let mut buf = HeaderBuf::default();
        let mut packet = buf.write(fixed(), &[(1, &[0x85]), (4, b"ab")]).to_vec();
        packet.extend_from_slice(&[1, 2, 3]);
        let mut bytes = Bytes::from(packet.clone());
        let theirs =
            <rtp::Packet as rtc_shared::marshal::Unmarshal>::unmarshal(&mut bytes).unwrap();
        assert_eq!(theirs.header.sequence_number, 0xfffe);
        assert_eq!(theirs.header.csrc, [7]);
        assert_eq!(theirs.payload.as_ref(), [1, 2, 3]);
    }

    #[test]
    fn padding_is_taken_off_and_impossible_padding_refused() {
        let mut packet = vec![0xa0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0, 3];
        assert_eq!(RtpView::parse(&packet).unwrap().payload(), [9]);
        *packet.last_mut().unwrap() = 5;
        assert_eq!(RtpView::parse(&packet).unwrap_err(), RtpError::Padding);
        *packet.last_mut().unwrap() = 0;
        assert_eq!(RtpView::parse(&packet).unwrap_err(), RtpError::Padding);
    }

    #[test]
    fn csrc_and_extension_counts_beyond_the_packet_are_refused() {
        let short = [0x8f, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(RtpView::parse(&short).unwrap_err(), RtpError::Truncated);
        let ext = [
            0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff, 0, 0,
        ];
        assert_eq!(RtpView::parse(&ext).unwrap_err(), RtpError::Truncated);
        assert_eq!(RtpView::parse(&[0x80; 5]).unwrap_err(), RtpError::Truncated);
        assert_eq!(RtpView::parse(&[0x00; 12]).unwrap_err(), RtpError::Version);
    }

    #[test]
    fn an_element_longer_than_the_extension_ends_the_list() {
        let p = [
            0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x10, 5, 0x2f, 0,
        ];
        let view = RtpView::parse(&p).unwrap();
        assert_eq!(view.extensions().collect::<Vec<_>>(), [(1, &[5][..])]);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(view) = RtpView::parse(&bytes) {
                let _ = (view.marker(), view.csrcs().count(), view.extensions().count());
                prop_assert!(view.payload().len() + view.header_len() <= bytes.len());
            }
        }
    }
}
