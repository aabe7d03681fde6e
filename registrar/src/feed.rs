//! What the core must know of the store: secrets once, and watches that keep its caches true.

use std::sync::Arc;
use std::time::Duration;

use cluster::records::keys;
use cluster::{Entry, Revision, Store, StoreError, WatchEvent};
use registrar_core::Secrets;
use tokio::sync::mpsc;

/// Entries a page has.
const PAGE: usize = 1_000;

/// How long a lost watch waits before it starts over; doubled up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Which part of the store a piece of news is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Bindings,
    Members,
    Owners,
}

impl Topic {
    pub(crate) const ALL: [Self; 3] = [Self::Members, Self::Owners, Self::Bindings];

    pub(crate) fn prefix(self) -> String {
        match self {
            Self::Bindings => keys::all_bindings(),
            Self::Members => keys::members(),
            Self::Owners => keys::owners(),
        }
    }
}

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum News {
    /// All there is now; what is not in it is gone.
    All(Topic, Vec<Entry>),
    /// One was written.
    Put(Topic, Entry),
    /// One is gone.
    Gone(Topic, String, Revision),
}

/// Everything under a prefix, and the revision to watch from.
pub(crate) async fn read_all(
    store: &dyn Store,
    prefix: &str,
) -> Result<(Vec<Entry>, Revision), StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut first: Option<Revision> = None;
    loop {
        let after = entries.last().map(|e| e.key.clone());
        let page = store.range(prefix, PAGE, after.as_deref()).await?;
        // Changes between two pages are seen again by the watch from the first page's revision.
        let revision = *first.get_or_insert(page.revision);
        let more = page.more && !page.entries.is_empty();
        entries.extend(page.entries);
        if !more {
            return Ok((entries, revision));
        }
    }
}

/// Follows a prefix until the receiver is gone.
pub(crate) async fn follow(
    store: Arc<dyn Store>,
    topic: Topic,
    mut from: Revision,
    news: mpsc::Sender<News>,
) {
    let prefix = topic.prefix();
    let mut retry = RETRY_FIRST;
    loop {
        if let Ok(mut watch) = store.watch(&prefix, from).await {
            loop {
                let event = tokio::select! {
                    event = watch.recv() => event,
                    () = news.closed() => return,
                };
                let Some(event) = event else { break };
                retry = RETRY_FIRST;
                let told = match event {
                    WatchEvent::Put(entry) => {
                        from = entry.modified.max(from);
                        news.send(News::Put(topic, entry)).await
                    }
                    WatchEvent::Delete { key, revision, .. } => {
                        from = revision.max(from);
                        news.send(News::Gone(topic, key, revision)).await
                    }
                    WatchEvent::Progress(revision) => {
                        from = revision.max(from);
                        Ok(())
                    }
                    WatchEvent::Lost => break,
                };
                if told.is_err() {
                    return;
                }
            }
        }
        // Lost, or the history is gone: read everything again and go on from there.
        loop {
            tokio::select! {
                () = tokio::time::sleep(retry) => {}
                () = news.closed() => return,
            }
            retry = (retry * 2).min(RETRY_MAX);
            match read_all(store.as_ref(), &prefix).await {
                Ok((entries, revision)) => {
                    from = revision;
                    if news.send(News::All(topic, entries)).await.is_err() {
                        return;
                    }
                    break;
                }
                Err(error) => tracing::warn!(%error, prefix, "cannot read the store, trying again"),
            }
        }
    }
}

/// The cluster's secrets, made by whoever comes first.
pub(crate) async fn secrets(store: &dyn Store) -> Result<Secrets, StoreError> {
    Ok(Secrets {
        nonce: cluster::secret(store, "nonce").await?,
        flow: cluster::secret(store, "flow").await?,
        guest: cluster::secret(store, "guest").await?,
    })
}
