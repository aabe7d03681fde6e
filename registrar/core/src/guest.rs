//! Guests: short-lived identities that nobody stores.
//!
//! A guest's user name says until when it is good and for which meeting; its password is an HMAC over the
//! name, so that any registrar of the cluster can check it with nothing but the shared key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use sip::digest::Ha1;

/// Longest meeting name, bytes.
const MEETING_NAME_MAX: usize = 64;

/// Whether a meeting may be named so: `[A-Za-z0-9._+-]`, at most 64, as it must stand unescaped in a URI.
#[must_use]
pub fn valid_meeting_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MEETING_NAME_MAX
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'))
}

/// A guest's user name: `guest-<expiry>-<meeting>-<random hex>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestName {
    /// Seconds since the Unix epoch.
    pub expires: u64,
    /// The one meeting it may call.
    pub meeting: String,
}

impl GuestName {
    /// Reads a user name; `None` where it is no guest's.
    #[must_use]
    pub fn parse(user: &str) -> Option<Self> {
        let rest = user.strip_prefix("guest-")?;
        let (expires, rest) = rest.split_once('-')?;
        // A meeting's name may have dashes, the random part has none.
        let (meeting, random) = rest.rsplit_once('-')?;
        let hex = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex || !valid_meeting_name(meeting) || expires.len() > 12 {
            return None;
        }
        Some(Self {
            expires: expires.parse().ok()?,
            meeting: meeting.to_owned(),
        })
    }
}

/// What a guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPass {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Seconds since the Unix epoch.
    pub expires: u64,
}

/// Makes and checks guests.
#[derive(Clone)]
pub struct GuestMint {
    key: [u8; 32],
}

impl std::fmt::Debug for GuestMint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestMint")
    }
}

impl GuestMint {
    /// `key`: shared by all registrars.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A pass for `meeting` until `expires` (seconds since the Unix epoch). `random` keeps two guests apart.
    /// `None` where the meeting's name is not valid.
    #[must_use]
    pub fn issue(&self, meeting: &str, expires: u64, random: u64) -> Option<GuestPass> {
        if !valid_meeting_name(meeting) {
            return None;
        }
        let user = format!("guest-{expires}-{meeting}-{random:016x}");
        let password = self.password(&user);
        Some(GuestPass {
            user,
            password,
            expires,
        })
    }

    fn password(&self, user: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(user.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    pub(crate) fn ha1(&self, user: &str, realm: &str) -> Option<Ha1> {
        GuestName::parse(user)?;
        Some(Ha1::new(user, realm, &self.password(user)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_name_keeps_dashes_of_the_meeting() {
        let mint = GuestMint::new([7; 32]);
        let pass = mint
            .issue("team-a-b", 1_800_000_000, 0xabcd)
            .expect("valid");
        let name = GuestName::parse(&pass.user).expect("a guest");
        assert_eq!(name.meeting, "team-a-b");
        assert_eq!(name.expires, 1_800_000_000);
    }

    #[test]
    fn names_that_are_no_guests_are_left_alone() {
        for user in [
            "alice",
            "guest-",
            "guest-x-lobby-0000000000000000",
            "guest-1-lobby-zz",
            "guest-1--0000000000000000",
        ] {
            assert_eq!(GuestName::parse(user), None, "{user}");
        }
    }

    #[test]
    fn meeting_names_that_do_not_fit_a_uri_get_no_guest() {
        assert_eq!(GuestMint::new([7; 32]).issue("a b@c", 1, 1), None);
    }

    #[test]
    fn password_depends_on_key_and_name() {
        let a = GuestMint::new([7; 32]).issue("lobby", 1, 1).expect("valid");
        let b = GuestMint::new([8; 32]).issue("lobby", 1, 1).expect("valid");
        let c = GuestMint::new([7; 32]).issue("lobby", 2, 1).expect("valid");
        assert_ne!(a.password, b.password);
        assert_ne!(a.password, c.password);
    }
}
