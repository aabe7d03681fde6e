//! RTP headers and their extensions, read and written again.
//! Seeds: fuzz-seeds/rtp
#![cfg_attr(fuzzing, no_main)]

use switch_core::rtp::{Fixed, HeaderBuf, RtpView};

rostrum_fuzz::target!(|data| {
    let Ok(view) = RtpView::parse(data) else {
        return;
    };
    assert!(view.header_len() + view.payload().len() <= data.len());
    let elements: Vec<(u8, &[u8])> = view.extensions().take(8).collect();
    let fixed = Fixed {
        marker: view.marker(),
        payload_type: view.payload_type(),
        sequence: view.sequence(),
        timestamp: view.timestamp(),
        ssrc: view.ssrc(),
        csrc: view.csrcs().next(),
    };
    let mut buf = HeaderBuf::default();
    let written = buf.write(fixed, &elements);
    let again = RtpView::parse(written).expect("a written header reads back");
    assert_eq!(again.csrcs().next(), fixed.csrc);
    assert_eq!(again.timestamp(), fixed.timestamp);
    let total: usize = elements.iter().map(|(_, d)| d.len() + 2).sum();
    if total < 400 {
        let read: Vec<(u8, &[u8])> = again.extensions().collect();
        assert_eq!(read, elements);
    }
});
