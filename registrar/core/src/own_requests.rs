//! Requests for the registrar itself: REGISTER through the store, OPTIONS, and the sweep of what expired.
//!
//! ```text
//!  REGISTER ─► read ─► busy address? ─ yes ─► queue of that address
//!                          │ no                     │ the one before was answered
//!                          ▼                        │
//!                        apply ◄────────────────────┘
//!                          │ Store              ▲ Changed: apply anew, a few times
//!                          ▼                    │
//!                       waiting ────────────────┘
//!                          │ Committed: 200, Unavailable: 503
//! ```

use std::time::{Duration, Instant};

use sip::transaction::ServerKey;
use sip::{HeaderName, Hop, Message};

use crate::Refusal;
use crate::authentication::Identity;
use crate::command::{Command, StoreId, StoreReply};
use crate::core::{Core, Timer};
use crate::location::{BindingSet, aor_of};
use crate::registration::{Context, Register};

/// How often expired records are looked for. Shorter costs the store more, longer leaves them lying about.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Records looked at in one sweep, and how long after their end records are deleted, seconds.
const SWEEP_BATCH: usize = 2_000;
const SWEEP_AFTER: u64 = 60;

/// Times a REGISTER is applied anew because somebody else changed the record meanwhile.
const REGISTER_ATTEMPTS: u32 = 4;

/// A REGISTER that waits for the store.
#[derive(Debug)]
pub(crate) struct Registering {
    key: ServerKey,
    request: Message,
    register: Register,
    wanted: Option<BindingSet>,
    attempts: u32,
}

impl Core {
    pub(crate) fn on_options(&mut self, now: Instant, key: ServerKey, request: &Message) {
        if self.transactions.is_merged(key) {
            self.refuse(now, key, request, &Refusal::new(482, "Merged Request"));
            return;
        }
        if self.draining {
            let refusal = Refusal::new(503, "Draining").with(HeaderName::RetryAfter, "60");
            self.refuse(now, key, request, &refusal);
            return;
        }
        let answer = Refusal::new(200, "OK")
            .with(
                HeaderName::Allow,
                "INVITE, ACK, CANCEL, BYE, REGISTER, OPTIONS, PRACK, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER, MESSAGE",
            )
            .with(HeaderName::Accept, "application/sdp")
            .with(HeaderName::Supported, "path, outbound, gruu");
        self.refuse(now, key, request, &answer);
    }

    pub(crate) fn on_register(
        &mut self,
        now: Instant,
        key: ServerKey,
        message: Message,
        hop: &Hop,
        identity: &Identity,
    ) {
        if self.transactions.is_merged(key) {
            self.refuse(now, key, &message, &Refusal::new(482, "Merged Request"));
            return;
        }
        let register = match self.read_register(&message, hop, identity) {
            Ok(register) => register,
            Err(refusal) => {
                self.refuse(now, key, &message, &refusal);
                return;
            }
        };
        let registering = Registering {
            key,
            request: message,
            register,
            wanted: None,
            attempts: 0,
        };
        // One at a time for an address: the second must see what the first did.
        if let Some(queue) = self.waiting.get_mut(&registering.register.aor) {
            if queue.len() >= self.settings.limits.bindings_per_aor {
                let refusal = Refusal::new(503, "Too Many Registrations At Once")
                    .with(HeaderName::RetryAfter, "1");
                self.refuse(now, key, &registering.request, &refusal);
                return;
            }
            queue.push_back(registering);
            self.waiting_count += 1;
            return;
        }
        self.run_register(now, registering);
    }

    fn read_register(
        &self,
        message: &Message,
        hop: &Hop,
        identity: &Identity,
    ) -> Result<Register, Refusal> {
        let to = message
            .to()
            .map_err(|_| Refusal::new(400, "Malformed To"))?
            .uri;
        if !self.settings.is_domain(&to.host) && !self.settings.is_ours(&to) {
            return Err(Refusal::new(404, "No Such Domain Here"));
        }
        let user = to
            .user_decoded()
            .filter(|u| !u.is_empty() && u.len() <= 256)
            .ok_or_else(|| Refusal::new(404, "No User In To"))?;
        let (name, not_beyond) = match identity {
            Identity::User { name, .. } => (name, None),
            Identity::Guest { user, expires, .. } => (user, Some(*expires)),
            _ => return Err(Refusal::new(403, "Not Authenticated")),
        };
        if *name != user {
            return Err(Refusal::new(403, "May Only Register Yourself"));
        }
        let router = self.router();
        let believed = |first: &sip::Uri| router.may_be_path(first);
        let context = Context {
            settings: &self.settings,
            tokens: &self.tokens,
            wall: self.wall,
            not_beyond,
            believed: self.is_in_trusted_network(hop).then_some(&believed),
        };
        let aor = aor_of(&user, self.settings.domain());
        Register::read(message, hop, aor, &context)
    }

    /// Applies to what the cache has; writes, or answers at once where nothing changes.
    fn run_register(&mut self, now: Instant, mut registering: Registering) {
        let aor = registering.register.aor.clone();
        let current = self.location.get(&aor);
        let applied =
            registering
                .register
                .apply(current.map(|(set, _)| set), self.wall, &self.settings);
        let set = match applied {
            Ok(set) => set,
            Err(refusal) => {
                self.refuse(now, registering.key, &registering.request, &refusal);
                self.next_register(now, &aor);
                return;
            }
        };
        let nothing =
            registering.register.is_query() || set.bindings.is_empty() && current.is_none();
        if nothing {
            self.answer_register(now, &registering, &set);
            self.next_register(now, &aor);
            return;
        }
        // A refresh that what is stored outlasts is not written.
        if current.is_some_and(|(stored, _)| !set.differs_from(stored)) {
            self.location.refresh(&aor, &set);
            self.answer_register(now, &registering, &set);
            self.next_register(now, &aor);
            return;
        }
        let key = cluster::records::keys::bindings(&aor);
        let compare = match current {
            Some((_, revision)) => cluster::Compare::Unchanged(key.clone(), revision),
            None => cluster::Compare::Absent(key.clone()),
        };
        let op = if set.bindings.is_empty() {
            cluster::Op::Delete(key)
        } else {
            cluster::Op::Put(key, set.encode(), None)
        };
        let id = StoreId(self.next_id());
        registering.wanted = Some(set);
        registering.attempts += 1;
        self.waiting.entry(aor.clone()).or_default();
        self.registering.insert(id, registering);
        self.commands.push_back(Command::Store {
            id,
            aor,
            txn: cluster::Txn {
                compares: vec![compare],
                ops: vec![op],
            },
        });
    }

    pub(crate) fn on_store_reply(
        &mut self,
        now: Instant,
        registering: Registering,
        reply: StoreReply,
    ) {
        let aor = registering.register.aor.clone();
        let wanted = registering
            .wanted
            .clone()
            .unwrap_or_else(|| BindingSet::new(&aor));
        match reply {
            StoreReply::Committed(revision) => {
                let kept = (!wanted.bindings.is_empty()).then(|| wanted.clone());
                self.location.update(&aor, kept, revision);
                self.answer_register(now, &registering, &wanted);
            }
            StoreReply::Changed(current) => {
                let there = current.as_ref().map(|(set, _)| set);
                // A write whose answer was lost may have happened all the same.
                let ours = match there {
                    Some(set) => set.encode() == wanted.encode(),
                    None => wanted.bindings.is_empty(),
                };
                match current.clone() {
                    Some((set, revision)) => self.location.update(&aor, Some(set), revision),
                    None => self.location.forget(&aor),
                };
                if ours {
                    self.answer_register(now, &registering, &wanted);
                } else if registering.attempts < REGISTER_ATTEMPTS {
                    self.run_register(now, registering);
                    return;
                } else {
                    let refusal = Refusal::new(500, "Registration Contended")
                        .with(HeaderName::RetryAfter, "1");
                    self.refuse(now, registering.key, &registering.request, &refusal);
                }
            }
            StoreReply::Unavailable => {
                let refusal = Refusal::new(503, "Location Store Unavailable")
                    .with(HeaderName::RetryAfter, "5");
                self.refuse(now, registering.key, &registering.request, &refusal);
            }
        }
        self.next_register(now, &aor);
    }

    fn next_register(&mut self, now: Instant, aor: &str) {
        let Some(queue) = self.waiting.get_mut(aor) else {
            return;
        };
        match queue.pop_front() {
            Some(next) => {
                self.waiting_count -= 1;
                self.run_register(now, next);
            }
            None => {
                self.waiting.remove(aor);
            }
        }
    }

    fn answer_register(&mut self, now: Instant, registering: &Registering, set: &BindingSet) {
        let random = self.random();
        let headers =
            registering
                .register
                .answer(set, self.wall, &self.settings, &self.gruus, random);
        let mut answer = Refusal::new(200, "OK");
        answer.headers = headers;
        self.stats.registrations += 1;
        self.refuse(now, registering.key, &registering.request, &answer);
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        let after = self.sweep_after.take().unwrap_or_default();
        let before = self.wall.as_secs().saturating_sub(SWEEP_AFTER);
        let (expired, next) = self.location.expired(before, &after, SWEEP_BATCH);
        for (aor, revision) in expired {
            let key = cluster::records::keys::bindings(&aor);
            let id = StoreId(self.next_id());
            self.commands.push_back(Command::Store {
                id,
                aor,
                txn: cluster::Txn {
                    compares: vec![cluster::Compare::Unchanged(key.clone(), revision)],
                    ops: vec![cluster::Op::Delete(key)],
                },
            });
        }
        let wait = if next.is_some() {
            Duration::from_secs(1)
        } else {
            SWEEP_EVERY
        };
        self.sweep_after = next;
        self.arm(now + wait, Timer::Sweep);
    }
}
