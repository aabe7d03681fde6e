//! Offer/answer: SDPs separated by NUL are a first offer, a re-offer, and an answer to an offer of ours.
//! No panic; as many m-lines as were offered; what is agreed once is agreed again and prints alike.
//! Seeds: sdp, fuzz-seeds/sdp
#![cfg_attr(fuzzing, no_main)]

use sip::offer_answer::{
    LocalMedia, LocalTransport, OfferKind, Plan, Policy, Random, accept_answer, answer, describe,
    offer,
};
use sip::sdp::SessionDescription;

/// Repeatable, and no two draws alike.
struct Counter(u8);

impl Random for Counter {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(77).wrapping_add(91);
            *byte = self.0;
        }
    }
}

fn local(plan: &Plan) -> LocalMedia {
    LocalMedia {
        transports: (0..plan.transports.len())
            .map(|index| LocalTransport {
                index,
                addresses: vec![([198, 51, 100, 1].into(), 40_000)],
                rtcp_port: Some(40_001),
            })
            .collect(),
        fingerprints: vec![("sha-256".to_owned(), vec![7; 32])],
    }
}

fn print(plan: &Plan, is_offer: bool) {
    let text = describe(plan, &local(plan), is_offer);
    // Only size can stand in the way: every line may print an octet longer than it came.
    if let Ok(read) = SessionDescription::parse(text.to_string().as_bytes()) {
        assert_eq!(read, text);
    }
}

rostrum_fuzz::target!(|data| {
    let mut sdps = data
        .splitn(3, |byte| *byte == 0)
        .map(SessionDescription::parse);
    let policy = Policy {
        video_slots: 2,
        ..Policy::default()
    };
    let mut random = Counter(1);
    let mut plan: Option<Plan> = None;
    for sdp in sdps.by_ref().take(2).flatten() {
        let Ok(next) = answer(&sdp, &policy, plan.as_ref(), &mut random) else {
            continue;
        };
        assert_eq!(next.media.len(), sdp.media.len());
        print(&next, false);
        let again = answer(&sdp, &policy, Some(&next), &mut random).expect("agreed before");
        assert_eq!(again.session_version, next.session_version);
        plan = Some(next);
    }
    let Some(Ok(theirs)) = sdps.next() else {
        return;
    };
    for kind in [
        OfferKind::Phone {
            video: true,
            ipv6: false,
        },
        OfferKind::WebRtc {
            audio_slots: 2,
            video_slots: 1,
        },
    ] {
        let ours = offer(kind, &policy, None, &mut random);
        if let Ok(agreed) = accept_answer(&ours, &theirs, &policy) {
            assert_eq!(agreed.media.len(), ours.media.len());
            print(&offer(kind, &policy, Some(&agreed), &mut random), true);
        }
    }
});
