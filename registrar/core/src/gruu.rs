//! Globally routable user agent URIs (RFC 5627): names of one instance of a user.
//!
//! The public one is the address of record with `gr=<instance>`. Temporary ones hide who it is: the user part
//! is an encrypted, authenticated reference that only registrars can open. A fresh one is given at every registration;
//! all of them die when the instance registers with another Call-ID (§4.2), as that changes the reference.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// What a temporary GRUU's user part begins with.
const TEMP_PREFIX: &str = "tgruu.";

/// What a temporary GRUU refers to: a hash of address of record, instance and Call-ID.
pub(crate) type Reference = [u8; 16];

/// Makes and opens GRUUs with a key of the cluster.
#[derive(Clone)]
pub(crate) struct GruuMint {
    key: [u8; 32],
}

impl std::fmt::Debug for GruuMint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GruuMint")
    }
}

/// The instance as `gr` carries it: without angle brackets; hex where it has characters a URI parameter
/// cannot have.
pub(crate) fn gr_value(instance: &str) -> String {
    let bare = instance
        .trim()
        .trim_start_matches('<')
        .trim_end_matches('>');
    let plain = !bare.is_empty()
        && bare
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$".contains(&b));
    if plain {
        bare.to_owned()
    } else {
        hex::encode(bare)
    }
}

impl GruuMint {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn mac(&self, label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(label);
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn reference(&self, aor: &str, instance: &str, call_id: &str) -> Reference {
        let full = self.mac(
            b"gruu reference\0",
            &[aor.as_bytes(), instance.as_bytes(), call_id.as_bytes()],
        );
        std::array::from_fn(|i| full[i])
    }

    /// The user part of a temporary GRUU. `random` must never repeat for unlinkability.
    pub(crate) fn temporary(&self, reference: &Reference, random: u64) -> String {
        let nonce = random.to_be_bytes();
        let pad = self.mac(b"gruu pad\0", &[&nonce]);
        let mut bytes = nonce.to_vec();
        bytes.extend(reference.iter().zip(pad).map(|(r, p)| r ^ p));
        let tag = self.mac(b"gruu tag\0", &[&bytes]);
        bytes.extend_from_slice(&tag[..8]);
        format!("{TEMP_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a user part that looks like a temporary GRUU refers to.
    pub(crate) fn open(&self, user: &str) -> Option<Reference> {
        let bytes = URL_SAFE_NO_PAD
            .decode(user.strip_prefix(TEMP_PREFIX)?)
            .ok()?;
        if bytes.len() != 32 {
            return None;
        }
        let (body, tag) = bytes.split_at(24);
        if !bool::from(self.mac(b"gruu tag\0", &[body])[..8].ct_eq(tag)) {
            return None;
        }
        let pad = self.mac(b"gruu pad\0", &[&body[..8]]);
        Some(std::array::from_fn(|i| body[8 + i] ^ pad[i]))
    }

    /// Whether a user part claims to be a temporary GRUU.
    pub(crate) fn looks_temporary(user: &str) -> bool {
        user.starts_with(TEMP_PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_gruus_of_one_instance_do_not_look_alike_and_open_to_the_same() {
        let mint = GruuMint::new([3; 32]);
        let reference = mint.reference("sip:alice@example.org", "<urn:uuid:1>", "c1");
        let a = mint.temporary(&reference, 1);
        let b = mint.temporary(&reference, 2);
        assert_ne!(a[TEMP_PREFIX.len() + 12..], b[TEMP_PREFIX.len() + 12..]);
        assert_eq!(mint.open(&a), Some(reference));
        assert_eq!(mint.open(&b), Some(reference));
        assert_eq!(GruuMint::new([4; 32]).open(&a), None);
    }

    #[test]
    fn another_call_id_ends_the_temporary_gruus_before_it() {
        let mint = GruuMint::new([3; 32]);
        assert_ne!(
            mint.reference("sip:alice@example.org", "<urn:uuid:1>", "c1"),
            mint.reference("sip:alice@example.org", "<urn:uuid:1>", "c2")
        );
    }

    #[test]
    fn instance_that_does_not_fit_a_parameter_is_written_in_hex() {
        assert_eq!(gr_value("<urn:uuid:f81d-4f>"), "urn:uuid:f81d-4f");
        assert_eq!(gr_value("<a;b>"), "613b62");
    }
}
