//! The second processor: who sent a request, and may it go on (RFC 3261 §22, RFC 7616, RFC 8760, RFC 3325).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sip::digest::{Authenticator, Verdict};
use sip::{HeaderName, Hop, Message};

use crate::Refusal;
use crate::guest::{GuestMint, GuestName};
use crate::settings::Settings;
use crate::users::Users;

/// How many times the failures one source may have for one user it may have for all together. Raising it lets it try
/// one password on more users; lowering it lets one guesser behind a NAT lock out the others there sooner.
const USERS_GUESSED: u32 = 10;

/// How many times the failures one source may have all together an IPv6 /48 may have. A site gets as much and can make
/// 65,536 sources of it; raising it lets that site guess more, lowering it lets one guesser lock out its site sooner.
const SOURCES_GUESSING: u32 = 10;

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A local user proved by digest.
    User {
        /// Name.
        name: String,
        /// Display name from the users' table.
        display: String,
    },
    /// A guest proved by digest.
    Guest {
        /// User name.
        user: String,
        /// The one meeting it may call.
        meeting: String,
        /// Until when it is good, seconds since the Unix epoch.
        expires: u64,
    },
    /// A meeting manager, another registrar, or a host of a trusted network.
    Trusted,
    /// Not proved, but part of a dialog that was let through: it carries a token of ours.
    Dialog,
    /// Not proved, but by its To tag part of a dialog with a meeting: its owner knows whether that is so. It is let
    /// through to meetings, and to nobody else.
    MeetingDialog,
    /// Not proved, and let through for what it asks.
    Anonymous,
}

impl Identity {
    /// Whether an asserted identity that comes with the request may be believed.
    pub(crate) fn is_trusted(&self) -> bool {
        matches!(self, Self::Trusted)
    }

    /// Whether the sender is a client whose connection later requests must come back on.
    pub(crate) fn is_client(&self) -> bool {
        !matches!(self, Self::Trusted)
    }
}

/// Digest and guests.
#[derive(Debug)]
pub(crate) struct Authentication {
    authenticator: Authenticator,
    guests: GuestMint,
    realm: String,
    filler: [u8; 32],
    failures: Failures,
    pub(crate) failed: u64,
    pub(crate) challenged: u64,
}

impl Authentication {
    pub(crate) fn new(settings: &Settings, nonce_key: [u8; 32], guest_key: [u8; 32]) -> Self {
        Self {
            authenticator: Authenticator::new(nonce_key, &settings.realm, settings.nonce_lifetime)
                .offering(&settings.digest),
            guests: GuestMint::new(guest_key),
            realm: settings.realm.clone(),
            filler: nonce_key,
            failures: Failures::default(),
            failed: 0,
            challenged: 0,
        }
    }

    /// Offers what `users` can answer.
    pub(crate) fn offer_to(&mut self, users: &Users, settings: &Settings) {
        self.authenticator
            .offer(&users.answerable(&settings.digest, settings.guests));
    }

    /// Who the digest credentials of `message` prove it is from; else the challenge or refusal to answer with.
    pub(crate) fn verify(
        &mut self,
        wall: Duration,
        message: &Message,
        hop: &Hop,
        proxy: bool,
        users: &Users,
        settings: &Settings,
    ) -> Result<Identity, Refusal> {
        let source = source_of(hop.remote.ip());
        let minute = wall.as_secs() / 60;
        let limit = settings.limits.failures_per_source;
        let (guests, realm, filler) = (&self.guests, &self.realm, &self.filler);
        let ha1 = |user: &str| guests.ha1(user, realm).or_else(|| users.ha1(user, filler));
        let verdict = self
            .authenticator
            .verify(wall, source, message, proxy, &ha1);
        // Whoever guesses too much is not told any more when it guessed right.
        if let Verdict::Ok(user) | Verdict::Wrong(user) = &verdict
            && self.failures.is_cut_off(source, user, minute, limit)
        {
            return Err(Refusal::new(403, "Too Many Wrong Passwords, Wait A Minute"));
        }
        match verdict {
            Verdict::Ok(user) => Self::identity(&user, wall, users),
            Verdict::Missing => Err(self.challenge(wall, source, proxy, false)),
            Verdict::Stale => Err(self.challenge(wall, source, proxy, true)),
            Verdict::Wrong(user) => {
                self.failed += 1;
                self.failures.count(source, &user, minute);
                Err(self.challenge(wall, source, proxy, false))
            }
            Verdict::Malformed(reason) => Err(Refusal::new(400, reason)),
        }
    }

    fn identity(user: &str, wall: Duration, users: &Users) -> Result<Identity, Refusal> {
        if let Some(guest) = GuestName::parse(user) {
            if guest.expires <= wall.as_secs() {
                return Err(Refusal::new(403, "Guest Pass Expired"));
            }
            return Ok(Identity::Guest {
                user: user.to_owned(),
                meeting: guest.meeting,
                expires: guest.expires,
            });
        }
        Ok(Identity::User {
            name: user.to_owned(),
            display: users
                .get(user)
                .map_or_else(String::new, |u| u.display.clone()),
        })
    }

    fn challenge(&mut self, wall: Duration, source: IpAddr, proxy: bool, stale: bool) -> Refusal {
        self.challenged += 1;
        let (status, reason, name) = if proxy {
            (
                407,
                "Proxy Authentication Required",
                HeaderName::ProxyAuthenticate,
            )
        } else {
            (401, "Unauthorized", HeaderName::WwwAuthenticate)
        };
        let mut refusal = Refusal::new(status, reason);
        for value in self.authenticator.challenges(wall, source, stale) {
            refusal = refusal.with(name, value);
        }
        refusal
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 one, in which a host changes its address at will.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The /48 of an IPv6 source.
fn site_of(source: IpAddr) -> Option<u128> {
    match source {
        IpAddr::V6(v6) => Some(v6.to_bits() >> 80),
        IpAddr::V4(_) => None,
    }
}

fn short_hash(user: &str) -> [u8; 16] {
    let hash = Sha256::digest(user.as_bytes());
    std::array::from_fn(|i| hash[i])
}

/// Wrong passwords of the minute that is, by source and user.
///
/// Only what answers a challenge that was sent to the source is counted here, so nobody can make failures for
/// somebody else's address.
#[derive(Debug, Default)]
struct Failures {
    minute: u64,
    by_source: BTreeMap<IpAddr, u32>,
    /// By IPv6 /48, which alone could fill the others.
    by_site: BTreeMap<u128, u32>,
    /// The user's name as a hash: a peer does not choose how much is kept.
    by_user: BTreeMap<(IpAddr, [u8; 16]), u32>,
}

/// Sources, and users tried by sources, that are counted within a minute. Beyond it no new one is: raising it costs
/// memory, lowering it lets a guesser with many addresses go uncounted.
const FAILURES_MAX: usize = 16_384;

impl Failures {
    fn is_cut_off(&mut self, source: IpAddr, user: &str, minute: u64, limit: u32) -> bool {
        if self.minute != minute {
            *self = Self {
                minute,
                ..Self::default()
            };
        }
        let all = self.by_source.get(&source).copied().unwrap_or(0);
        let key = (source, short_hash(user));
        let site = site_of(source).and_then(|site| self.by_site.get(&site).copied());
        let most = limit.saturating_mul(USERS_GUESSED);
        all >= most
            || site.unwrap_or(0) >= most.saturating_mul(SOURCES_GUESSING)
            || self.by_user.get(&key).is_some_and(|count| *count >= limit)
    }

    fn count(&mut self, source: IpAddr, user: &str, minute: u64) {
        debug_assert_eq!(self.minute, minute, "asked before it counts");
        if self.by_source.len() < FAILURES_MAX || self.by_source.contains_key(&source) {
            let all = self.by_source.entry(source).or_insert(0);
            *all = all.saturating_add(1);
        }
        if let Some(site) = site_of(source)
            && (self.by_site.len() < FAILURES_MAX || self.by_site.contains_key(&site))
        {
            let all = self.by_site.entry(site).or_insert(0);
            *all = all.saturating_add(1);
        }
        let key = (source, short_hash(user));
        if self.by_user.len() < FAILURES_MAX || self.by_user.contains_key(&key) {
            *self.by_user.entry(key).or_insert(0) += 1;
        }
    }
}

/// Refuses a From that names another local user than the one who authenticated: phones show From.
pub(crate) fn check_from(
    message: &Message,
    identity: &Identity,
    settings: &Settings,
) -> Option<Refusal> {
    let name = match identity {
        Identity::User { name, .. } => name,
        Identity::Guest { user, .. } => user,
        _ => return None,
    };
    let from = message.from().ok()?.uri;
    let mismatch =
        settings.is_domain(&from.host) && from.user_decoded().is_none_or(|user| user != *name);
    mismatch.then(|| Refusal::new(403, "From Names Another User Than The Credentials"))
}

/// Takes away an identity that the sender may not assert, and asserts the proved one (RFC 3325 §5).
pub(crate) fn assert_identity(message: &mut Message, identity: &Identity, settings: &Settings) {
    if identity.is_trusted() {
        return;
    }
    message.remove(HeaderName::PAssertedIdentity);
    message.remove(HeaderName::Other("P-Preferred-Identity"));
    let (name, display) = match identity {
        Identity::User { name, display } => (name, display.as_str()),
        Identity::Guest { user, .. } => (user, ""),
        _ => return,
    };
    // The caller chooses the name it is shown with; the table's is for callers that give none.
    let chosen = message.from().map(|f| f.display).unwrap_or_default();
    let shown = if chosen.is_empty() { display } else { &chosen };
    let mut uri = sip::Uri::sip(&escape_user(name), settings.domain());
    uri.password = None;
    let mut value = sip::header::NameAddr::new(uri);
    value.display = shown.to_owned();
    message.push_back(HeaderName::PAssertedIdentity, value.to_string());
}

/// Takes away our realm's credentials: whoever comes next has no use for them (RFC 3261 §22.3).
pub(crate) fn remove_credentials(message: &mut Message, realm: &str) {
    let ours = format!("realm=\"{realm}\"");
    let kept: Vec<String> = message
        .headers(HeaderName::ProxyAuthorization)
        .filter(|value| !value.contains(&ours))
        .map(str::to_owned)
        .collect();
    message.remove(HeaderName::ProxyAuthorization);
    for value in kept {
        message.push_back(HeaderName::ProxyAuthorization, value);
    }
}

/// A user name as the user part of a URI (RFC 3261 §25.1: unreserved and user-unreserved stay).
pub(crate) fn escape_user(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
