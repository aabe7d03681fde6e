//! SRTP contexts against an independent implementation, and against attackers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use srtp::context::Context;
use srtp::protection_profile::ProtectionProfile;
use switch_core::srtp::{
    MAX_OVERHEAD, MAX_RECEIVE_SSRCS, Opener, Profile, REPLAY_WINDOW, Sealer, SrtpError,
};

const PROFILES: [(Profile, ProtectionProfile); 4] = [
    (
        Profile::Aes128CmSha1_80,
        ProtectionProfile::Aes128CmHmacSha1_80,
    ),
    (
        Profile::Aes128CmSha1_32,
        ProtectionProfile::Aes128CmHmacSha1_32,
    ),
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (Profile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
];

fn key(profile: Profile) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    (0..profile.key_len() + profile.salt_len())
        .map(|_| rng.random())
        .collect()
}

fn oracle(profile: Profile, theirs: ProtectionProfile) -> Context {
    let key = key(profile);
    let (key, salt) = key.split_at(profile.key_len());
    let provider = srtp::crypto::default_provider().unwrap();
    Context::new(key, salt, theirs, None, None, provider.crypto()).unwrap()
}

/// An RTP packet with a CSRC and a one-byte header extension.
fn rtp(ssrc: u32, sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x91, 111];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 960).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&0x1122_3344u32.to_be_bytes());
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0x8c, 0, 0]);
    packet.extend((0..payload).map(|at| (at as u16 ^ sequence) as u8));
    packet
}

/// A receiver report without blocks and an SDES, as one compound packet.
fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0x81, 202, 0, 3]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[1, 4, b'n', b'a', b'm', b'e', 0, 0]);
    packet
}

fn seal(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + MAX_OVERHEAD, 0);
    let len = sealer.seal_rtp(&mut buffer, packet.len()).unwrap();
    buffer.truncate(len);
    buffer
}

fn seal_rtcp(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + MAX_OVERHEAD, 0);
    let len = sealer.seal_rtcp(&mut buffer, packet.len()).unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn what_we_seal_the_oracle_opens_over_a_wrap_of_the_sequence_number() {
    for (profile, theirs) in PROFILES {
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        let mut oracle = oracle(profile, theirs);
        for step in 0..600u32 {
            let sequence = 65_300u16.wrapping_add(step as u16);
            let clear = rtp(0xdead_beef, sequence, (step % 300) as usize);
            let sealed = seal(&mut sealer, &clear);
            assert_eq!(sealed.len(), clear.len() + profile.rtp_overhead());
            assert_eq!(oracle.decrypt_rtp(&sealed).unwrap(), clear, "{profile:?}");
        }
        for ssrc in [1, 1, 2, 0xffff_ffff] {
            let clear = rtcp(ssrc);
            let sealed = seal_rtcp(&mut sealer, &clear);
            assert_eq!(sealed.len(), clear.len() + profile.rtcp_overhead());
            assert_eq!(oracle.decrypt_rtcp(&sealed).unwrap(), clear, "{profile:?}");
        }
    }
}

#[test]
fn what_the_oracle_seals_we_open_over_a_wrap_of_the_sequence_number() {
    for (profile, theirs) in PROFILES {
        let mut opener = Opener::new(profile, &key(profile)).unwrap();
        let mut oracle = oracle(profile, theirs);
        for step in 0..600u32 {
            let sequence = 65_300u16.wrapping_add(step as u16);
            let clear = rtp(0xdead_beef, sequence, (step % 300) as usize);
            let mut sealed = oracle.encrypt_rtp(&clear).unwrap();
            let len = opener.open_rtp(&mut sealed).unwrap();
            assert_eq!(sealed[..len], clear, "{profile:?} {sequence}");
        }
        for ssrc in [1, 1, 2, 0xffff_ffff] {
            let clear = rtcp(ssrc);
            let mut sealed = oracle.encrypt_rtcp(&clear).unwrap();
            let len = opener.open_rtcp(&mut sealed).unwrap();
            assert_eq!(sealed[..len], clear, "{profile:?}");
        }
    }
}

#[test]
fn a_stream_that_has_rolled_over_before_we_hear_it_is_found() {
    for (profile, _) in PROFILES {
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        let mut sequence = 0u16;
        for _ in 0..70 {
            seal(&mut sealer, &rtp(5, sequence, 20)); // 0 to 32 times around
            sequence = sequence.wrapping_add(30_000);
        }
        let mut opener = Opener::new(profile, &key(profile)).unwrap();
        let mut opened = Vec::new();
        for _ in 0..20 {
            let packet = rtp(5, sequence, 20);
            let mut sealed = seal(&mut sealer, &packet);
            let ok = opener.open_rtp(&mut sealed).is_ok();
            assert!(!ok || sealed[..packet.len()] == packet);
            opened.push(ok);
            sequence = sequence.wrapping_add(1);
        }
        let lost = opened.iter().take_while(|ok| !**ok).count();
        assert!(lost <= 8, "{profile:?}: {lost} lost");
        assert!(opened[lost..].iter().all(|ok| *ok));
    }
}

#[test]
fn reordering_across_the_wrap_keeps_the_roll_over_counter() {
    for (profile, _) in PROFILES {
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        let mut opener = Opener::new(profile, &key(profile)).unwrap();
        let sealed: Vec<_> = (0..40u16)
            .map(|step| seal(&mut sealer, &rtp(5, 65_516u16.wrapping_add(step), 20)))
            .collect();
        // The first packet fixes the counter; the rest come in blocks turned round.
        opener.open_rtp(&mut sealed[0].clone()).unwrap();
        for block in sealed[1..].chunks(13) {
            for packet in block.iter().rev() {
                opener.open_rtp(&mut packet.clone()).unwrap();
            }
        }
    }
}

#[test]
fn a_replayed_packet_is_refused_and_a_late_one_taken_once() {
    for (profile, _) in PROFILES {
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        let mut opener = Opener::new(profile, &key(profile)).unwrap();
        let sealed: Vec<_> = (0..REPLAY_WINDOW as u16 + 10)
            .map(|sequence| seal(&mut sealer, &rtp(5, sequence, 20)))
            .collect();
        let mut open = |at: usize| opener.open_rtp(&mut sealed[at].clone());
        open(0).unwrap();
        assert_eq!(open(0), Err(SrtpError::Replayed));
        open(300).unwrap();
        open(200).unwrap();
        assert_eq!(open(200), Err(SrtpError::Replayed));
        assert_eq!(open(300), Err(SrtpError::Replayed));
        let last = sealed.len() - 1;
        open(last).unwrap();
        assert_eq!(open(5), Err(SrtpError::Replayed), "behind the window");
        open(last - REPLAY_WINDOW as usize + 1).unwrap();
    }
}

#[test]
fn replayed_rtcp_is_refused() {
    for (profile, _) in PROFILES {
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        let mut opener = Opener::new(profile, &key(profile)).unwrap();
        let first = seal_rtcp(&mut sealer, &rtcp(9));
        let second = seal_rtcp(&mut sealer, &rtcp(9));
        opener.open_rtcp(&mut second.clone()).unwrap();
        opener.open_rtcp(&mut first.clone()).unwrap();
        assert_eq!(
            opener.open_rtcp(&mut second.clone()),
            Err(SrtpError::Replayed)
        );
        assert_eq!(
            opener.open_rtcp(&mut first.clone()),
            Err(SrtpError::Replayed)
        );
    }
}

#[test]
fn any_flipped_bit_is_refused_and_leaves_no_state() {
    for (profile, _) in PROFILES {
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        let mut opener = Opener::new(profile, &key(profile)).unwrap();
        let sealed = seal(&mut sealer, &rtp(5, 1000, 40));
        let report = seal_rtcp(&mut sealer, &rtcp(5));
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open_rtp(&mut bad).is_err(), "{profile:?} bit {bit}");
        }
        for bit in 0..report.len() * 8 {
            let mut bad = report.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open_rtcp(&mut bad).is_err(), "{profile:?} bit {bit}");
        }
        // A forged sequence number did not move the window: the real ones still open.
        opener.open_rtp(&mut sealed.clone()).unwrap();
        opener.open_rtcp(&mut report.clone()).unwrap();
    }
}

#[test]
fn the_table_of_heard_ssrcs_is_bounded() {
    let profile = Profile::AeadAes128Gcm;
    let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
    let mut opener = Opener::new(profile, &key(profile)).unwrap();
    let first = seal(&mut sealer, &rtp(0, 1, 10));
    opener.open_rtp(&mut first.clone()).unwrap();
    for ssrc in 1..=MAX_RECEIVE_SSRCS as u32 {
        let mut packet = seal(&mut sealer, &rtp(ssrc, 1, 10));
        opener.open_rtp(&mut packet).unwrap();
        assert_eq!(
            opener.open_rtp(&mut seal(&mut sealer, &rtp(ssrc, 1, 10))),
            Err(SrtpError::Replayed)
        );
    }
    // The first made room: it is a stranger again.
    opener.open_rtp(&mut first.clone()).unwrap();
}

#[test]
fn garbage_is_an_error_never_a_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (profile, _) in PROFILES {
        let mut opener = Opener::new(profile, &key(profile)).unwrap();
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        for _ in 0..3_000 {
            let len = rng.random_range(0..80);
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            if let Some(first) = bytes.first_mut() {
                *first = *first & 0x3f | 0x80;
            }
            assert!(opener.open_rtp(&mut bytes.clone()).is_err());
            assert!(opener.open_rtcp(&mut bytes.clone()).is_err());
            let _ = sealer.seal_rtp(&mut bytes.clone(), len);
            let _ = sealer.seal_rtcp(&mut bytes, len + 1);
        }
    }
}

#[test]
fn keys_of_the_wrong_length_and_buffers_without_room_are_refused() {
    for (profile, _) in PROFILES {
        assert!(matches!(
            Opener::new(profile, &[0; 29]),
            Err(SrtpError::BadKey)
        ));
        let mut sealer = Sealer::new(profile, &key(profile)).unwrap();
        let mut packet = rtp(1, 1, 10);
        let len = packet.len();
        assert_eq!(sealer.seal_rtp(&mut packet, len), Err(SrtpError::NoRoom));
    }
}
