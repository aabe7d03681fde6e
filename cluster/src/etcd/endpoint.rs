//! Sending requests to whichever etcd member answers.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, Identity, TlsOptions, Txn,
    TxnOp, TxnResponse,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::EtcdError;
use crate::config::EtcdConfig;
use crate::store::StoreError;

/// How long opening a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// A read that one member has not answered for so long is asked of the next.
const READ: Duration = Duration::from_secs(1);
/// Pause after all members were tried in vain.
const ROUND: Duration = Duration::from_millis(100);
/// A try with less time than this (and the pause before it) is not begun: it would end unclear, though nothing of it
/// was done.
const LEAST: Duration = Duration::from_millis(150);
/// TCP's own probes of idle connections.
const TCP_KEEPALIVE: Duration = Duration::from_secs(5);
/// While a request or a watch is open, its member is pinged this often. etcd takes it amiss unless it runs with
/// `--grpc-keepalive-min-time` below this.
const PING: Duration = Duration::from_millis(500);
/// A member that leaves a ping unanswered for so long is left, with all that was asked of it. One that merely waits
/// for a new leader answers.
const PONG: Duration = Duration::from_secs(1);

/// A write that has no answer for so long is doubted: what a member hands to a leader that has just died is lost, and
/// nobody says so.
const DOUBT: Duration = Duration::from_millis(700);
/// How long a probe of the way that writes take may last.
const PROBE_PATIENCE: Duration = Duration::from_millis(300);
/// Pause between probes, and what is left to the answer of a doubted write after one succeeded.
const GRACE: Duration = Duration::from_millis(100);

/// What may be done about a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing, or the same when repeated.
    Read,
    /// Must not be repeated when it may have been done.
    Write,
}

#[derive(Debug)]
enum Verdict {
    /// Certainly not done: try the next member.
    NotDone(String),
    /// May have been done.
    Unclear(String),
    /// The answer stands.
    Final(StoreError),
}

/// The members of the etcd cluster.
pub(super) struct Endpoints {
    members: Vec<Member>,
    /// Index of the member that answered last.
    current: AtomicUsize,
    options: ConnectOptions,
    timeout: Duration,
}

struct Member {
    url: String,
    client: Mutex<Option<Client>>,
    /// When the last probe was sent that was answered; held while one is under way.
    proof: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the options: there is a password in them.
        f.debug_list()
            .entries(self.members.iter().map(|m| &m.url))
            .finish()
    }
}

impl Endpoints {
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, EtcdError> {
        if config.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoints);
        }
        let mut secure = false;
        for url in &config.endpoints {
            secure |= url.starts_with("https://");
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(EtcdError::Endpoint(url.clone()));
            }
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_tcp_keepalive(TCP_KEEPALIVE)
            .with_keep_alive(PING, PONG)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        options = match (&config.user, &config.password) {
            (Some(user), Some(password)) => options.with_user(user, password),
            (None, None) => options,
            _ => return Err(EtcdError::Pair("user and password")),
        };
        if secure {
            options = options.with_tls(tls(config)?);
        }
        let members = config.endpoints.iter().map(|url| Member {
            url: url.clone(),
            client: Mutex::new(None),
            proof: Mutex::new(None),
        });
        Ok(Self {
            members: members.collect(),
            current: AtomicUsize::new(0),
            options,
            timeout: Duration::from_millis(config.timeout_ms.max(1)),
        })
    }

    /// Asks one member after another, as far as `kind` allows and the time goes.
    pub(super) async fn call<T, F>(
        &self,
        kind: Kind,
        request: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut tried = 0;
        loop {
            let at = self.current.load(Ordering::Relaxed) % self.members.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = if kind == Kind::Read {
                READ.min(left)
            } else {
                left
            };
            let why = match self.ask(at, patience, kind, &request).await {
                Ok(answer) => return Ok(answer),
                Err(Verdict::Final(e)) => return Err(e),
                Err(Verdict::Unclear(why)) if kind == Kind::Write => {
                    tracing::debug!(why, "write to etcd without an answer");
                    self.move_on(at);
                    return Err(StoreError::Unknown);
                }
                Err(Verdict::NotDone(why) | Verdict::Unclear(why)) => why,
            };
            self.move_on(at);
            tried += 1;
            if Instant::now() + LEAST >= deadline {
                return Err(StoreError::Unavailable(why));
            }
            if tried % self.members.len() == 0 {
                sleep(ROUND).await;
            }
        }
    }

    async fn ask<T, F>(
        &self,
        at: usize,
        patience: Duration,
        kind: Kind,
        request: &impl Fn(Client) -> F,
    ) -> Result<T, Verdict>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let member = &self.members[at];
        let late = || Verdict::Unclear("no answer in time".into());
        let connected = timeout(CONNECT.min(patience), self.client(member)).await;
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(e)) => return Err(not_done(judge(&e))),
            Err(_) => return Err(Verdict::NotDone("cannot connect in time".into())),
        };
        let begun = Instant::now();
        let asked = async {
            let answer = request(client.clone());
            if kind == Kind::Read {
                return Some(answer.await);
            }
            tokio::select! {
                answer = answer => Some(answer),
                () = overtaken(member, client, begun) => None,
            }
        };
        let answer = timeout(patience, asked).await.ok().flatten();
        match answer.ok_or(()) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => {
                let verdict = judge(&e);
                if !matches!(verdict, Verdict::Final(_)) {
                    *member.client.lock().await = None;
                }
                Err(verdict)
            }
            Err(()) => {
                if kind == Kind::Read {
                    *member.client.lock().await = None;
                }
                Err(late())
            }
        }
    }

    /// The client of one member, connected where it was not.
    async fn client(&self, member: &Member) -> Result<Client, Error> {
        let mut slot = member.client.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = Client::connect([&member.url], Some(self.options.clone())).await?;
        *slot = Some(client.clone());
        Ok(client)
    }

    /// Makes another member the first to be asked, unless someone else did already.
    pub(super) fn move_on(&self, from: usize) {
        let next = (from + 1) % self.members.len();
        let _ = self
            .current
            .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Index of the member that is asked first.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len()
    }
}

/// Returns when a write begun at `begun` is most likely lost: one that was sent later, the same way through the log of
/// the cluster, was answered.
async fn overtaken(member: &Member, client: Client, begun: Instant) {
    sleep_until(begun + DOUBT).await;
    loop {
        {
            let mut proof = member.proof.lock().await;
            if proof.is_some_and(|sent| sent > begun) {
                break;
            }
            let sent = Instant::now();
            if matches!(timeout(PROBE_PATIENCE, probe(&client)).await, Ok(Ok(_))) {
                *proof = Some(sent);
                break;
            }
        }
        sleep(GRACE).await;
    }
    sleep(GRACE).await;
}

/// A write that changes nothing.
async fn probe(client: &Client) -> Result<TxnResponse, Error> {
    let exists = Compare::create_revision(super::PROBE, CompareOp::Greater, 0);
    let txn = Txn::new()
        .when([exists])
        .and_then([TxnOp::put(super::PROBE, "", None)]);
    client.kv_client().txn(txn).await
}

/// Signing in comes before the request itself, so nothing that fails there was done.
fn not_done(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Unclear(why) => Verdict::NotDone(why),
        verdict => verdict,
    }
}

/// What an error says about whether the request was done.
fn judge(error: &Error) -> Verdict {
    let text = error.to_string();
    let status = match error {
        Error::GRpcStatus(status) => status,
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            return Verdict::Final(StoreError::Refused(text));
        }
        // "lease not found" is etcd-client's own word for a renewal that came too late.
        Error::LeaseKeepAliveError(why) if why.contains("not found") => {
            return Verdict::Final(StoreError::LeaseExpired);
        }
        _ => return Verdict::Unclear(text),
    };
    if never_sent(status) {
        return Verdict::NotDone(text);
    }
    let message = status.message();
    // The numbers of gRPC: 3 invalid argument, 5 not found, 7 permission denied, 8 resource exhausted,
    // 9 failed precondition, 11 out of range, 14 unavailable, 16 unauthenticated.
    match i32::from(status.code()) {
        5 if message.contains("lease") => Verdict::Final(StoreError::LeaseExpired),
        8 if message.contains("too many requests") => Verdict::NotDone(text),
        3 | 5 | 7 | 8 | 9 | 11 => Verdict::Final(StoreError::Refused(text)),
        // A stale token; the next try signs in again.
        16 => Verdict::NotDone(text),
        14 if message.contains("no leader") => Verdict::NotDone(text),
        // The member's own word that it has no leader to hand a write to.
        2 | 14 if message.contains("raft proposal dropped") => Verdict::NotDone(text),
        _ => Verdict::Unclear(text),
    }
}

/// Whether the connection could not even be opened.
fn never_sent(status: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
            );
        }
        cause = error.source();
    }
    false
}

fn tls(config: &EtcdConfig) -> Result<TlsOptions, EtcdError> {
    let mut tls = TlsOptions::new();
    tls = match &config.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Ok(tls.identity(Identity::from_pem(read(cert)?, read(key)?))),
        (None, None) => Ok(tls),
        _ => Err(EtcdError::Pair("cert_file and key_file")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, EtcdError> {
    std::fs::read(path).map_err(|source| EtcdError::File {
        path: path.to_owned(),
        source,
    })
}
