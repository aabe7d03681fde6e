//! Text to [`SessionDescription`].

use super::{
    Line, MAX_FORMATS, MAX_LINES, MAX_MEDIA, MAX_SIZE, MediaDescription, SdpError, Section,
    SessionDescription,
};

pub(super) fn parse(text: &[u8]) -> Result<SessionDescription, SdpError> {
    if text.len() > MAX_SIZE {
        return Err(SdpError {
            line: 1,
            what: "longer than 64 kB",
        });
    }
    let text = String::from_utf8_lossy(text);
    // Many stacks end with a spare line end or two, and some with a NUL from their C buffer.
    let text = text.trim_end_matches(['\r', '\n', '\0', ' ', '\t']);
    let mut sdp = SessionDescription::default();
    for (index, raw) in text.split('\n').enumerate() {
        let number = index + 1;
        let fail = |what| Err(SdpError { line: number, what });
        if number > MAX_LINES {
            return fail("more than 2,000 lines");
        }
        let raw = raw.strip_suffix('\r').unwrap_or(raw);
        let Some((kind, value)) = raw.split_once('=') else {
            return fail("not of the form x=value");
        };
        let &[letter @ b'a'..=b'z'] = kind.as_bytes() else {
            return fail("the type before = is not one small letter");
        };
        if value.contains(['\r', '\0']) {
            return fail("control character in a value");
        }
        match (letter, number) {
            (b'v', 1) if value.trim() == "0" => {}
            (_, 1) => return fail("does not begin with v=0"),
            (b'v', _) => return fail("a second v="),
            (b'm', _) => {
                if sdp.media.len() == MAX_MEDIA {
                    return fail("more than 256 media");
                }
                match media(value) {
                    Ok(media) => sdp.media.push(media),
                    Err(what) => return fail(what),
                }
            }
            _ => current(&mut sdp).lines.push(Line {
                kind: char::from(letter),
                value: value.to_owned(),
            }),
        }
    }
    if sdp.session.line('o').is_none() {
        return Err(SdpError {
            line: 2,
            what: "no o=",
        });
    }
    Ok(sdp)
}

fn current(sdp: &mut SessionDescription) -> &mut Section {
    match sdp.media.last_mut() {
        Some(media) => &mut media.section,
        None => &mut sdp.session,
    }
}

/// `<media> <port>["/"<count>] <proto> <fmt> ...` (RFC 8866 §5.14).
fn media(value: &str) -> Result<MediaDescription, &'static str> {
    let mut words = value.split_ascii_whitespace();
    let kind = words.next().ok_or("m= without media type")?;
    let port = words.next().ok_or("m= without port")?;
    let protocol = words.next().ok_or("m= without protocol")?;
    let (port, count) = match port.split_once('/') {
        Some((port, count)) => {
            let count = decimal(count).ok_or("m= with a bad port count")?;
            (port, Some(count))
        }
        None => (port, None),
    };
    let port = decimal(port).ok_or("m= with a port that is not 0 to 65535")?;
    let formats: Vec<String> = words.take(MAX_FORMATS + 1).map(str::to_owned).collect();
    if formats.is_empty() {
        return Err("m= without formats");
    }
    if formats.len() > MAX_FORMATS {
        return Err("m= with more than 256 formats");
    }
    Ok(MediaDescription {
        kind: kind.to_owned(),
        port,
        port_count: count,
        protocol: protocol.to_owned(),
        formats,
        section: Section::default(),
    })
}

/// Digits only: Rust's own parser would take a sign.
fn decimal(text: &str) -> Option<u16> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}
