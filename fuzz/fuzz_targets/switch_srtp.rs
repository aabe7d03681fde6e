//! One packet to SRTP contexts of every profile: a stranger's is refused, one sealed here opens to the same bytes.
//! Seeds: fuzz-seeds/rtp, fuzz-seeds/rtcp
#![cfg_attr(fuzzing, no_main)]

use switch_core::srtp::{MAX_OVERHEAD, Opener, Profile, Sealer};

const PROFILES: [Profile; 4] = [
    Profile::Aes128CmSha1_80,
    Profile::Aes128CmSha1_32,
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
];

rostrum_fuzz::target!(|data| {
    for profile in PROFILES {
        let key = vec![0x5a; profile.key_len() + profile.salt_len()];
        let mut opener = Opener::new(profile, &key).expect("a key of the right length");
        let mut sealer = Sealer::new(profile, &key).expect("a key of the right length");
        let _ = opener.open_rtp(&mut data.to_vec());
        let _ = opener.open_rtcp(&mut data.to_vec());

        let mut opener = Opener::new(profile, &key).expect("a key of the right length");
        let mut buffer = data.to_vec();
        buffer.resize(data.len() + MAX_OVERHEAD, 0);
        if let Ok(len) = sealer.seal_rtp(&mut buffer, data.len()) {
            let len = opener
                .open_rtp(&mut buffer[..len])
                .expect("what was sealed opens");
            assert_eq!(&buffer[..len], data);
        }
        let mut buffer = data.to_vec();
        buffer.resize(data.len() + MAX_OVERHEAD, 0);
        if let Ok(len) = sealer.seal_rtcp(&mut buffer, data.len()) {
            let len = opener
                .open_rtcp(&mut buffer[..len])
                .expect("what was sealed opens");
            assert_eq!(&buffer[..len], data);
        }
    }
});
