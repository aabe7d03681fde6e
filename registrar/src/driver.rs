//! The one task that owns the core: everything that happens is handed to it in turn, and what it commands is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster::records::{Member, Owner, read};
use cluster::{Entry, Revision, Store, StoreError, Txn, TxnOutcome};
use registrar_core::{BindingSet, Command, Core, ResolveId, StoreId, StoreReply, Users};
use sip::digest::Algorithm;
use sip::{Limits, Message, Transport};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use transport::{Input, Transports};

use crate::feed::{News, Topic};
use crate::resolver::Resolver;
use crate::users::Watched;
use crate::{metrics, users};

/// Longest wait for a write, reading again after an unknown end included.
const STORE_PATIENCE: Duration = Duration::from_secs(4);

/// Messages worked off before looking at the other queues again.
const BATCH: usize = 64;

/// How often metrics are published and the users' file is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Asks the core something.
pub(crate) type Query = Box<dyn FnOnce(&mut Core) + Send>;

/// Something that was waited for.
#[derive(Debug)]
enum Done {
    Store(StoreId, StoreReply),
    Resolved(ResolveId, Vec<(Transport, std::net::SocketAddr)>),
    Users(Users),
}

/// What the task works with.
pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) transports: Transports,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) resolver: Resolver,
    pub(crate) input: mpsc::Receiver<Input>,
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) queries: mpsc::Receiver<Query>,
    pub(crate) stop: CancellationToken,
    /// Requests without a final response, kept up to date for who waits for them.
    pub(crate) pending: watch::Sender<usize>,
    /// The users' file, watched since before it was read, the realm and the algorithms offered.
    pub(crate) users: Option<(Watched, String, Vec<Algorithm>, bool)>,
}

/// Time since the Unix epoch; zero on a machine whose clock stands before it.
pub(crate) fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The part of a key behind its topic's prefix.
fn name_of(topic: Topic, key: &str) -> Option<&str> {
    key.strip_prefix(topic.prefix().as_str())
}

/// Feeds one entry of the store to the core.
pub(crate) fn feed_entry(core: &mut Core, topic: Topic, entry: &Entry) {
    let Some(name) = name_of(topic, &entry.key) else {
        return;
    };
    let (now, wall) = (Instant::now(), wall());
    match topic {
        Topic::Bindings => match BindingSet::decode(&entry.value) {
            Ok(set) => core.handle_bindings(name, Some(set), entry.modified),
            Err(error) => tracing::warn!(key = entry.key, %error, "record skipped"),
        },
        Topic::Members => match read::<Member>(&entry.value) {
            Ok(member) => core.handle_member(now, wall, name, Some(member)),
            Err(error) => tracing::warn!(key = entry.key, %error, "record skipped"),
        },
        Topic::Owners => match read::<Owner>(&entry.value) {
            Ok(owner) => core.handle_owner(now, wall, name, Some(owner.member)),
            Err(error) => tracing::warn!(key = entry.key, %error, "record skipped"),
        },
    }
}

/// Names known of members and owners, so that a whole new reading tells who is gone.
#[derive(Debug, Default)]
pub(crate) struct Known {
    members: BTreeSet<String>,
    owners: BTreeSet<String>,
}

impl Known {
    fn of(&mut self, topic: Topic) -> Option<&mut BTreeSet<String>> {
        match topic {
            Topic::Members => Some(&mut self.members),
            Topic::Owners => Some(&mut self.owners),
            Topic::Bindings => None,
        }
    }

    pub(crate) fn take(&mut self, core: &mut Core, news: News) {
        match news {
            News::All(topic, entries) => self.take_all(core, topic, &entries),
            News::Put(topic, entry) => {
                if let (Some(known), Some(name)) = (self.of(topic), name_of(topic, &entry.key)) {
                    known.insert(name.to_owned());
                }
                feed_entry(core, topic, &entry);
            }
            News::Gone(topic, key, revision) => {
                let Some(name) = name_of(topic, &key) else {
                    return;
                };
                if let Some(known) = self.of(topic) {
                    known.remove(name);
                }
                Self::gone(core, topic, name, revision);
            }
        }
    }

    fn take_all(&mut self, core: &mut Core, topic: Topic, entries: &[Entry]) {
        if topic == Topic::Bindings {
            core.handle_bindings_lost();
        }
        let now: BTreeSet<String> = entries
            .iter()
            .filter_map(|e| name_of(topic, &e.key).map(str::to_owned))
            .collect();
        if let Some(known) = self.of(topic) {
            let before = std::mem::replace(known, now.clone());
            for name in before.difference(&now) {
                Self::gone(core, topic, name, Revision(0));
            }
        }
        for entry in entries {
            feed_entry(core, topic, entry);
        }
    }

    fn gone(core: &mut Core, topic: Topic, name: &str, revision: Revision) {
        match topic {
            Topic::Bindings => core.handle_bindings(name, None, revision),
            Topic::Members => core.handle_member(Instant::now(), wall(), name, None),
            Topic::Owners => core.handle_owner(Instant::now(), wall(), name, None),
        }
    }
}

impl Driver {
    /// Runs until stopped, or until the transports are gone.
    pub(crate) async fn run(mut self, mut known: Known) {
        let (done_in, mut done) = mpsc::unbounded_channel();
        let users = self.users.take().map(|(watched, realm, digest, guests)| {
            tokio::spawn(watch_users(watched, realm, digest, guests, done_in.clone()))
        });
        let mut tick = tokio::time::interval(TICK);
        loop {
            // Before what ends a request goes out: who sees its answer sees the count without it.
            let pending = self.core.pending();
            self.pending
                .send_if_modified(|known| std::mem::replace(known, pending) != pending);
            self.carry_out(&done_in);
            let at = self.core.poll_timeout().map(tokio::time::Instant::from_std);
            let timer = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => break,
                input = self.input.recv() => match input {
                    Some(input) => self.take_inputs(input),
                    None => break,
                },
                Some(done) = done.recv() => self.take_done(done),
                Some(news) = self.news.recv() => known.take(&mut self.core, news),
                Some(query) = self.queries.recv() => query(&mut self.core),
                () = timer => self.core.handle_timeout(Instant::now(), wall()),
                _ = tick.tick() => metrics::publish(&self.core.stats()),
            }
        }
        if let Some(users) = users {
            users.abort();
        }
        self.carry_out(&done_in);
    }

    fn take_inputs(&mut self, first: Input) {
        self.take_input(first);
        for _ in 1..BATCH {
            match self.input.try_recv() {
                Ok(input) => self.take_input(input),
                Err(_) => break,
            }
        }
    }

    fn take_input(&mut self, input: Input) {
        let (now, wall) = (Instant::now(), wall());
        match input {
            Input::Message { hop, bytes } => match Message::parse(bytes, &Limits::default()) {
                Ok(message) => self.core.handle_message(now, wall, message, hop),
                Err(error) => tracing::debug!(%error, "not answerable, dropped"),
            },
            Input::FlowClosed(flow) => self.core.handle_flow_closed(now, wall, flow),
            Input::SendFailed { id, .. } => self.core.handle_send_failed(now, wall, id),
        }
    }

    fn take_done(&mut self, done: Done) {
        let (now, wall) = (Instant::now(), wall());
        match done {
            Done::Store(id, reply) => self.core.handle_store(now, wall, id, reply),
            Done::Resolved(id, hosts) => self.core.handle_resolved(now, wall, id, hosts),
            Done::Users(users) => {
                tracing::info!(users = users.len(), "users' file read");
                self.core.handle_users(users);
            }
        }
    }

    fn carry_out(&mut self, done: &mpsc::UnboundedSender<Done>) {
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Transmit {
                    id,
                    hop,
                    host,
                    bytes,
                } => match host {
                    Some(host) => self.transports.send_to_host(id, hop, &host, bytes),
                    None => self.transports.send(id, hop, bytes),
                },
                // Both are bounded by the core: so many registrations and requests in progress.
                Command::Store { id, aor, txn } => {
                    let (store, done) = (Arc::clone(&self.store), done.clone());
                    tokio::spawn(async move {
                        let reply = write(store.as_ref(), &aor, txn).await;
                        let _ = done.send(Done::Store(id, reply));
                    });
                }
                Command::Resolve { id, uri } => {
                    let (resolver, done) = (self.resolver.clone(), done.clone());
                    tokio::spawn(async move {
                        let hosts = resolver.resolve(&uri).await;
                        let _ = done.send(Done::Resolved(id, hosts));
                    });
                }
                _ => {}
            }
        }
    }
}

/// One write with its retries bounded in time.
async fn write(store: &dyn Store, aor: &str, txn: Txn) -> StoreReply {
    let started = Instant::now();
    let reply = tokio::time::timeout(STORE_PATIENCE, async {
        match store.txn(txn).await {
            Ok(TxnOutcome::Committed(revision)) => StoreReply::Committed(revision),
            // Unknown: whether it was written is seen by what is there.
            Ok(TxnOutcome::Conflict) | Err(StoreError::Unknown) => reread(store, aor).await,
            Err(error) => {
                tracing::warn!(%error, "registration not stored");
                StoreReply::Unavailable
            }
        }
    })
    .await
    .unwrap_or(StoreReply::Unavailable);
    ::metrics::histogram!(metrics::STORE_SECONDS).record(started.elapsed().as_secs_f64());
    reply
}

async fn reread(store: &dyn Store, aor: &str) -> StoreReply {
    match store.get(&cluster::records::keys::bindings(aor)).await {
        Ok(None) => StoreReply::Changed(None),
        Ok(Some(entry)) => match BindingSet::decode(&entry.value) {
            Ok(set) => StoreReply::Changed(Some((set, entry.modified))),
            Err(error) => {
                tracing::warn!(key = entry.key, %error, "record does not parse");
                StoreReply::Unavailable
            }
        },
        Err(_) => StoreReply::Unavailable,
    }
}

/// Reads the users' file again whenever it changes; a file with a mistake leaves the users as they were.
async fn watch_users(
    mut watched: Watched,
    realm: String,
    digest: Vec<Algorithm>,
    guests: bool,
    done: mpsc::UnboundedSender<Done>,
) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        if !watched.changed() {
            continue;
        }
        match users::load(watched.path(), &realm) {
            Ok(users) => {
                users::warn_of_shut_out(&users, &digest, guests);
                if done.send(Done::Users(users)).is_err() {
                    return;
                }
            }
            Err(error) => tracing::error!(%error, "users' file not taken over"),
        }
    }
}
