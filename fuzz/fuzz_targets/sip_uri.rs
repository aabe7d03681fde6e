//! URIs, addresses and Vias from text.
//! Seeds: torture/rfc4475, torture/rfc5118
#![cfg_attr(fuzzing, no_main)]

use sip::Uri;
use sip::header::{CSeq, NameAddr, Via};

rostrum_fuzz::target!(|data| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // By lines, so that whole messages are seeds: each header value is tried as everything.
    for line in text.lines() {
        let value = line.split_once(':').map_or(line, |(_, v)| v.trim());
        for text in [line, value] {
            if let Ok(uri) = Uri::parse(text) {
                let again = Uri::parse(&uri.to_string()).expect("a printed URI parses");
                assert_eq!(uri.to_string(), again.to_string());
                assert_eq!(uri.aor(), again.aor());
                let aor = Uri::parse(&uri.aor()).expect("an address of record is a URI");
                assert_eq!(aor.aor(), uri.aor());
                let _ = (uri == again, uri.transport(), uri.ip(), uri.user_decoded());
            }
            if let Ok(address) = NameAddr::parse(text) {
                let again = NameAddr::parse(&address.to_string()).expect("printed, it parses");
                assert_eq!(address.display, again.display);
                assert_eq!(address.params, again.params);
                assert_eq!(address.uri.to_string(), again.uri.to_string());
            }
            if let Ok(via) = Via::parse(text) {
                assert_eq!(Via::parse(&via.to_string()), Ok(via));
            }
            if let Ok(cseq) = CSeq::parse(text) {
                assert_eq!(CSeq::parse(&cseq.to_string()), Ok(cseq));
            }
        }
    }
});
