//! The SDP parser: no panic, and what it prints reads as what it read.
//! Seeds: fuzz-seeds/sdp, sdp
#![cfg_attr(fuzzing, no_main)]

use sip::sdp::SessionDescription;

rostrum_fuzz::target!(|data| {
    let Ok(sdp) = SessionDescription::parse(data) else {
        return;
    };
    // U+FFFD for a bad octet is longer than the octet, so the print may be over the limit.
    if let Ok(again) = SessionDescription::parse(sdp.to_string().as_bytes()) {
        assert_eq!(again, sdp);
    }
    for media in &sdp.media {
        let _ = (
            sdp.connection(media),
            media.section.bandwidth(),
            media.mid(),
        );
    }
});
