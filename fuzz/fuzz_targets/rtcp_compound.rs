//! RTCP compounds from anywhere.
//! Seeds: fuzz-seeds/rtcp
#![cfg_attr(fuzzing, no_main)]

use switch_core::rtcp::{Element, Elements, nack_numbers, round_trip};

rostrum_fuzz::target!(|data| {
    for element in Elements::new(data) {
        match element {
            Element::SenderReport { blocks, ntp, .. } => {
                assert!(blocks.count() <= 31);
                blocks.for_each(|b| {
                    let _ = round_trip(ntp, &b);
                });
            }
            Element::ReceiverReport { blocks, .. } => assert!(blocks.count() <= 31),
            Element::Nack { pairs, .. } => {
                assert!(pairs.flat_map(nack_numbers).count() <= 17 * data.len() / 4);
            }
            Element::Fir { entries } => assert!(entries.count() <= data.len() / 4),
            Element::Bye(ssrcs) => assert!(ssrcs.count() <= 31),
            _ => {}
        }
    }
});
