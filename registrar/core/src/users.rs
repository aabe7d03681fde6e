//! The table of local users.

use std::collections::BTreeMap;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use sip::digest::{Algorithm, Ha1};

/// One local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User part of the address of record, unescaped.
    pub name: String,
    /// Name shown to others; may be empty.
    pub display: String,
    /// HA1 by SHA-256, hex; `None`: this user cannot authenticate by it.
    pub sha256: Option<String>,
    /// HA1 by MD5, hex.
    pub md5: Option<String>,
}

impl User {
    /// Whether the password is known for an algorithm.
    #[must_use]
    pub fn has(&self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Sha256 => self.sha256.is_some(),
            Algorithm::Md5 => self.md5.is_some(),
        }
    }
}

/// All local users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, User>);

impl Users {
    /// By name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }

    /// Adds or replaces.
    pub fn insert(&mut self, user: User) -> Option<User> {
        self.0.insert(user.name.clone(), user)
    }

    /// Removes.
    pub fn remove(&mut self, name: &str) -> Option<User> {
        self.0.remove(name)
    }

    /// In order of names.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.0.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of `wanted` that some user can answer for; all where that is none. A client takes the first it knows
    /// (RFC 8760 §2.5): one that no user has would keep everybody out.
    ///
    /// `guests`: whether guests may come. They can answer for any, and their browsers know MD5 only, so that stays:
    /// after the others where no user has it.
    #[must_use]
    pub fn answerable(&self, wanted: &[Algorithm], guests: bool) -> Vec<Algorithm> {
        let some_has = |a: &Algorithm| self.iter().any(|user| user.has(*a));
        let mut kept: Vec<Algorithm> = wanted.iter().copied().filter(some_has).collect();
        if kept.is_empty() {
            return wanted.to_vec();
        }
        if guests && wanted.contains(&Algorithm::Md5) && !kept.contains(&Algorithm::Md5) {
            kept.push(Algorithm::Md5);
        }
        kept
    }

    /// What digest checks against. A missing algorithm is filled with a keyed value nobody can know: an
    /// empty HA1 would be a known one.
    pub(crate) fn ha1(&self, name: &str, key: &[u8; 32]) -> Option<Ha1> {
        let user = self.0.get(name)?;
        let unknowable = |label: &[u8]| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
            mac.update(label);
            mac.update(name.as_bytes());
            hex::encode(mac.finalize().into_bytes())
        };
        Some(Ha1 {
            sha256: user
                .sha256
                .clone()
                .unwrap_or_else(|| unknowable(b"no sha-256\0")),
            md5: user
                .md5
                .clone()
                .unwrap_or_else(|| unknowable(b"no md5\0")[..32].to_owned()),
        })
    }
}

impl FromIterator<User> for Users {
    fn from_iter<I: IntoIterator<Item = User>>(users: I) -> Self {
        Self(users.into_iter().map(|u| (u.name.clone(), u)).collect())
    }
}
