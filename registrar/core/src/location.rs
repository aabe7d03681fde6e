//! The location service: bindings as they are stored, and the cache the store's watch feeds.

use std::collections::BTreeMap;

use bytes::Bytes;
use cluster::Revision;
use cluster::records::{RECORD_VERSION, read};
use serde::{Deserialize, Serialize};
use sip::Uri;

use crate::gruu::{GruuMint, Reference, gr_value};

/// One registered contact of an address of record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Contact URI as registered.
    pub contact: String,
    /// Preference, per mille (RFC 3261 §20.10: q 1.0 = 1000).
    pub q: u16,
    /// Seconds since the Unix epoch; later than what was granted to the client, so that most of its refreshes need
    /// not be written.
    pub expires_at: u64,
    /// Seconds that were granted when it was written; 0 in records of registrars that granted until `expires_at`.
    #[serde(default)]
    pub granted: u32,
    /// Until when it was granted last, seconds since the Unix epoch: known to the registrar that did, and not written
    /// with every refresh.
    #[serde(skip)]
    pub served_until: Option<u64>,
    /// Call-ID of the REGISTER that wrote it last.
    pub call_id: String,
    /// CSeq of that REGISTER.
    pub cseq: u32,
    /// `+sip.instance`, angle brackets included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// `reg-id` where Outbound applies (RFC 5626).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reg_id: Option<u32>,
    /// Other Contact parameters, given back as they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<(String, Option<String>)>,
    /// Path URIs (RFC 3327), first hop first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// The connection it was registered over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<FlowRecord>,
    /// When it was written last, seconds since the Unix epoch; the newer of two flows is tried first.
    pub updated_at: u64,
    /// User-Agent, for the console.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
}

impl Binding {
    /// When it ends, as far as is known here: seconds since the Unix epoch.
    #[must_use]
    pub fn ends_at(&self) -> u64 {
        self.served_until
            .map_or(self.expires_at, |until| until.min(self.expires_at))
    }

    /// Seconds a client is told that are left of it.
    #[must_use]
    pub fn left(&self, now: u64) -> u64 {
        let left = self.ends_at().saturating_sub(now);
        match (self.served_until, self.granted) {
            // Another registrar knows how often it was refreshed; never more than was granted at once.
            (None, granted @ 1..) => left.min(u64::from(granted)),
            _ => left,
        }
    }

    /// Whether nothing but times and the CSeq tell it from `other`.
    #[must_use]
    pub(crate) fn is_refreshed_by(&self, other: &Self) -> bool {
        let timeless = |binding: &Self| Self {
            expires_at: 0,
            served_until: None,
            cseq: 0,
            updated_at: 0,
            ..binding.clone()
        };
        timeless(self) == timeless(other)
    }
}

/// How to reach a binding through the registrar that holds its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The registrar.
    pub node: String,
    /// Its URI with the flow token, for a Route.
    pub edge: String,
    /// The token alone.
    pub token: String,
    /// Transport token, for the console.
    pub transport: String,
}

/// All bindings of one address of record: the record at `binding/<aor>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingSet {
    /// Record version.
    pub version: u32,
    /// Address of record, `sip:user@domain`.
    pub aor: String,
    /// In the order they were first registered.
    pub bindings: Vec<Binding>,
}

/// A stored value that is not a record of bindings.
#[derive(Debug, thiserror::Error)]
#[error("binding record does not parse: {0}")]
pub struct InvalidRecord(#[from] serde_json::Error);

impl BindingSet {
    /// None yet.
    #[must_use]
    pub fn new(aor: &str) -> Self {
        Self {
            version: RECORD_VERSION,
            aor: aor.to_owned(),
            bindings: Vec::new(),
        }
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// It is not such a record.
    pub fn decode(value: &[u8]) -> Result<Self, InvalidRecord> {
        Ok(read(value)?)
    }

    /// The value to store.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("a struct of strings and numbers always serialises")
            .into()
    }

    /// Those not expired at `now` (seconds since the Unix epoch).
    pub fn live(&self, now: u64) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(move |b| b.ends_at() > now)
    }

    /// Whether what is stored of the two differs by more than what refreshes leave unwritten.
    #[must_use]
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        self.bindings.len() != other.bindings.len()
            || self
                .bindings
                .iter()
                .zip(&other.bindings)
                .any(|(a, b)| a.expires_at != b.expires_at || !a.is_refreshed_by(b))
    }
}

/// The cache of all bindings.
#[derive(Debug)]
pub struct Location {
    gruu: GruuMint,
    sets: BTreeMap<String, (BindingSet, Revision)>,
    /// Temporary GRUUs' references to (address of record, instance).
    references: BTreeMap<Reference, (String, String)>,
    /// Contacts of kept connections to their addresses of record.
    contacts: BTreeMap<String, String>,
    bindings: usize,
}

impl Location {
    pub(crate) fn new(gruu: GruuMint) -> Self {
        Self {
            gruu,
            sets: BTreeMap::new(),
            references: BTreeMap::new(),
            contacts: BTreeMap::new(),
            bindings: 0,
        }
    }

    /// Takes in a record, or its deletion at a revision. Older news than what is known is dropped: a commit's
    /// answer and the watch may overtake one another.
    pub(crate) fn update(
        &mut self,
        aor: &str,
        mut set: Option<BindingSet>,
        revision: Revision,
    ) -> bool {
        if let Some((old, known)) = self.sets.get(aor) {
            if *known > revision {
                return false;
            }
            if let Some(set) = &mut set {
                keep_refreshes(old, set);
            }
        }
        self.forget(aor);
        if let Some(set) = set {
            self.bindings += set.bindings.len();
            for (binding, instance) in with_instance(&set) {
                let reference = self.gruu.reference(aor, instance, &binding.call_id);
                self.references
                    .insert(reference, (aor.to_owned(), instance.to_owned()));
                if binding.reg_id.is_some() {
                    self.contacts
                        .insert(binding.contact.clone(), aor.to_owned());
                }
            }
            self.sets.insert(aor.to_owned(), (set, revision));
        }
        true
    }

    /// Takes in refreshes that are not written.
    pub(crate) fn refresh(&mut self, aor: &str, set: &BindingSet) {
        if let Some((known, _)) = self.sets.get_mut(aor) {
            known.bindings.clone_from(&set.bindings);
        }
    }

    /// Forgets one record; true where there was one.
    pub(crate) fn forget(&mut self, aor: &str) -> bool {
        let Some((old, _)) = self.sets.remove(aor) else {
            return false;
        };
        self.bindings -= old.bindings.len();
        for (binding, instance) in with_instance(&old) {
            let reference = self.gruu.reference(aor, instance, &binding.call_id);
            self.references.remove(&reference);
            if self
                .contacts
                .get(&binding.contact)
                .is_some_and(|a| a == aor)
            {
                self.contacts.remove(&binding.contact);
            }
        }
        true
    }

    /// Forgets everything: the watch was lost and starts over.
    pub(crate) fn clear(&mut self) {
        self.sets.clear();
        self.references.clear();
        self.contacts.clear();
        self.bindings = 0;
    }

    pub(crate) fn get(&self, aor: &str) -> Option<(&BindingSet, Revision)> {
        self.sets.get(aor).map(|(set, r)| (set, *r))
    }

    /// Bindings of an instance, by the value of `gr`; the newest first.
    pub(crate) fn of_instance(&self, aor: &str, gr: &str, now: u64) -> Vec<&Binding> {
        let mut found: Vec<&Binding> = self.sets.get(aor).map_or_else(Vec::new, |(set, _)| {
            set.live(now)
                .filter(|b| b.instance.as_deref().is_some_and(|i| gr_value(i) == gr))
                .collect()
        });
        found.sort_by_key(|b| std::cmp::Reverse(b.updated_at));
        found
    }

    /// Bindings with a kept connection (RFC 5626) and this contact, as the client wrote it; the newest first.
    pub(crate) fn of_contact(&self, contact: &str, now: u64) -> Vec<&Binding> {
        let set = self.contacts.get(contact).and_then(|aor| self.get(aor));
        let mut found: Vec<&Binding> = set.map_or_else(Vec::new, |(set, _)| {
            set.live(now)
                .filter(|b| b.reg_id.is_some() && b.contact == contact)
                .collect()
        });
        found.sort_by_key(|b| std::cmp::Reverse(b.updated_at));
        found
    }

    /// (address of record, gr) of a temporary GRUU's user part.
    pub(crate) fn of_temporary(&self, user: &str) -> Option<(&str, String)> {
        let (aor, instance) = self.references.get(&self.gruu.open(user)?)?;
        Some((aor, gr_value(instance)))
    }

    /// All records, in order of address.
    pub fn iter(&self) -> impl Iterator<Item = &BindingSet> {
        self.sets.values().map(|(set, _)| set)
    }

    /// Bindings in all records, expired ones included.
    #[must_use]
    pub fn binding_count(&self) -> usize {
        self.bindings
    }

    /// Records of which every binding expired before `now`, after the address `after`; at most `limit`.
    /// The second value is where to go on; `None` when through.
    pub(crate) fn expired(
        &self,
        now: u64,
        after: &str,
        limit: usize,
    ) -> (Vec<(String, Revision)>, Option<String>) {
        use std::ops::Bound;
        let mut found = Vec::new();
        let mut last = None;
        let range = (Bound::Excluded(after), Bound::<&str>::Unbounded);
        for (seen, (aor, (set, revision))) in self.sets.range::<str, _>(range).enumerate() {
            if seen == limit {
                return (found, last);
            }
            if set.live(now).next().is_none() {
                found.push((aor.clone(), *revision));
            }
            last = Some(aor.clone());
        }
        (found, None)
    }
}

/// What is stored does not tell of refreshes that were not written: those stay known, unless the binding was written by
/// a later request.
fn keep_refreshes(old: &BindingSet, new: &mut BindingSet) {
    for binding in &mut new.bindings {
        let known = old.bindings.iter().find(|known| {
            known.served_until.is_some()
                && known.cseq >= binding.cseq
                && known.is_refreshed_by(binding)
        });
        if let Some(known) = known.filter(|_| binding.served_until.is_none()) {
            binding.served_until = known.served_until;
            binding.cseq = known.cseq;
            binding.updated_at = known.updated_at;
        }
    }
}

fn with_instance(set: &BindingSet) -> impl Iterator<Item = (&Binding, &str)> {
    set.bindings
        .iter()
        .filter_map(|b| Some((b, b.instance.as_deref()?)))
}

/// The address of record of a user of ours, a URI.
pub(crate) fn aor_of(user: &str, domain: &str) -> String {
    format!("sip:{user}@{}", crate::settings::in_uri(domain))
}

/// Whether two contacts are one by RFC 3261 §10.2.4: URI equality; bytes where one does not parse.
pub(crate) fn same_contact(a: &str, b: &str) -> bool {
    match (Uri::parse(a), Uri::parse(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
