//! The store as a node sees it: requests that go over the network and futures that wait for the answers, so that the
//! real code over [`cluster::Store`] runs without a runtime.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Entry, LeaseId, Range, Revision, Store, StoreError, Txn, TxnOutcome, Watch};

use crate::net::Time;

/// Nobody waits longer for the store.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the store is asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// One key.
    Get(String),
    /// A page.
    Range(String, usize, Option<String>),
    /// A guarded change.
    Txn(Txn),
    /// A lease.
    Grant(Duration),
    /// Its renewal.
    KeepAlive(LeaseId),
    /// Its end.
    Revoke(LeaseId),
}

/// What it answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To a get.
    Entry(Option<Entry>),
    /// To a range.
    Range(Range),
    /// To a transaction.
    Outcome(TxnOutcome),
    /// To a grant.
    Lease(LeaseId),
    /// To a renewal or an end.
    Done,
    /// It did not do it.
    Failed(StoreError),
}

#[derive(Debug, Default)]
struct Calls {
    now: Time,
    next: u64,
    out: Vec<(u64, Request)>,
    /// Deadline, and whether it is a write.
    waiting: BTreeMap<u64, (Time, bool)>,
    replies: BTreeMap<u64, Reply>,
}

/// A node's end of the store.
#[derive(Clone, Debug, Default)]
pub struct RemoteStore(Arc<Mutex<Calls>>);

struct Call {
    id: u64,
    calls: RemoteStore,
}

impl Future for Call {
    type Output = Reply;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reply> {
        match self.calls.lock().replies.remove(&self.id) {
            Some(reply) => Poll::Ready(reply),
            None => Poll::Pending,
        }
    }
}

impl RemoteStore {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What time it is.
    pub fn at(&self, now: Time) {
        self.lock().now = now;
    }

    fn call(&self, request: Request) -> Call {
        let mut calls = self.lock();
        calls.next += 1;
        let id = calls.next;
        let deadline = calls.now + PATIENCE;
        let write = matches!(request, Request::Txn(_));
        calls.waiting.insert(id, (deadline, write));
        calls.out.push((id, request));
        Call {
            id,
            calls: self.clone(),
        }
    }

    /// What is to be sent.
    pub fn take(&self) -> Vec<(u64, Request)> {
        std::mem::take(&mut self.lock().out)
    }

    /// An answer came.
    pub fn answer(&self, id: u64, reply: Reply) {
        let mut calls = self.lock();
        if calls.waiting.remove(&id).is_some() {
            calls.replies.insert(id, reply);
        }
    }

    /// Gives up on what is due.
    pub fn expire(&self, now: Time) {
        let mut calls = self.lock();
        calls.now = now;
        let late: Vec<(u64, bool)> = calls
            .waiting
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(id, (_, write))| (*id, *write))
            .collect();
        for (id, write) in late {
            calls.waiting.remove(&id);
            let error = match write {
                true => StoreError::Unknown,
                false => StoreError::Unavailable("no answer".into()),
            };
            calls.replies.insert(id, Reply::Failed(error));
        }
    }

    /// When something is due.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.lock().waiting.values().map(|(at, _)| *at).min()
    }
}

/// What a reply of another kind means: the model is wrong.
fn odd<T>(reply: Reply) -> Result<T, StoreError> {
    match reply {
        Reply::Failed(error) => Err(error),
        other => panic!("the store answers something else: {other:?}"),
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        match self.call(Request::Get(key.to_owned())).await {
            Reply::Entry(entry) => Ok(entry),
            other => odd(other),
        }
    }

    async fn range(
        &self,
        prefix: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Range, StoreError> {
        let request = Request::Range(prefix.to_owned(), limit, after.map(str::to_owned));
        match self.call(request).await {
            Reply::Range(range) => Ok(range),
            other => odd(other),
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn.check()?;
        match self.call(Request::Txn(txn)).await {
            Reply::Outcome(outcome) => Ok(outcome),
            other => odd(other),
        }
    }

    async fn watch(&self, _: &str, _: Revision) -> Result<Watch, StoreError> {
        Err(StoreError::Refused(
            "watches of the simulation are messages of their own".into(),
        ))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        match self.call(Request::Grant(ttl)).await {
            Reply::Lease(lease) => Ok(lease),
            other => odd(other),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.call(Request::KeepAlive(lease)).await {
            Reply::Done => Ok(()),
            other => odd(other),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.call(Request::Revoke(lease)).await {
            Reply::Done => Ok(()),
            other => odd(other),
        }
    }

    async fn status(&self) -> Result<Revision, StoreError> {
        let page = self.range("/", 1, None).await?;
        Ok(page.revision)
    }
}

/// Futures of a node, polled in the order they were begun.
pub struct Tasks<T>(Vec<Pin<Box<dyn Future<Output = T>>>>);

impl<T> Default for Tasks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> std::fmt::Debug for Tasks<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tasks", self.0.len())
    }
}

impl<T> Tasks<T> {
    /// Begins one.
    pub fn spawn(&mut self, task: impl Future<Output = T> + 'static) {
        self.0.push(Box::pin(task));
    }

    /// Goes on with all; what is done.
    pub fn poll(&mut self) -> Vec<T> {
        let mut done = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        self.0.retain_mut(|task| match task.as_mut().poll(&mut cx) {
            Poll::Ready(value) => {
                done.push(value);
                false
            }
            Poll::Pending => true,
        });
        done
    }
}
