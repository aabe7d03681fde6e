//! Payload descriptors of every video codec, rewritten; key frames found.
//! Seeds: fuzz-seeds/rtp
#![cfg_attr(fuzzing, no_main)]

use switch_core::VideoCodec;
use switch_core::keyframe::is_keyframe;
use switch_core::rewrite::av1::{DependencyDescriptor, MAX_DESCRIPTOR};
use switch_core::rewrite::{Descriptor, MAX_PREFIX, PictureOffsets, PictureState};

rostrum_fuzz::target!(|data| {
    let offsets = PictureOffsets {
        picture_id: 77,
        tl0: 5,
        frame: 900,
        template: 11,
    };
    for codec in [
        VideoCodec::Vp8,
        VideoCodec::Vp9,
        VideoCodec::H264,
        VideoCodec::Av1,
    ] {
        let _ = is_keyframe(codec, data);
        let Some(d) = Descriptor::read(codec, data, Some(data)) else {
            continue;
        };
        let mut out = [0; MAX_PREFIX];
        let (written, consumed) = d.write(&offsets, &mut out);
        assert!(written <= MAX_PREFIX && consumed <= data.len());
        let mut state = PictureState::default();
        state.on_sent(&d, &offsets);
        let _ = state.continue_with(&d);
        // What was written says the same but for the counters.
        if consumed > 0 {
            let again = [&out[..written], &data[consumed..]].concat();
            let back = Descriptor::read(codec, &again, None).expect("rewritten, it reads");
            assert_eq!(
                back.write(&PictureOffsets::default(), &mut [0; MAX_PREFIX])
                    .1,
                written
            );
        }
    }
    if let Some(d) = DependencyDescriptor::parse(data) {
        let mut out = [0; MAX_DESCRIPTOR];
        let len = d.write(data, &offsets, &mut out);
        if data.len() <= MAX_DESCRIPTOR {
            let back = DependencyDescriptor::parse(&out[..len]).expect("rewritten, it reads");
            assert_eq!(back.frame_number, d.frame_number.wrapping_add(900));
            assert_eq!(
                back.structure.map(|s| s.count),
                d.structure.map(|s| s.count)
            );
        }
    }
});
