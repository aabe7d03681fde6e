//! How the embedded engine keeps its state in redb tables.

use bytes::Bytes;
use redb::{Database, ReadableDatabase as _, ReadableTable, Table, TableDefinition, TableError};

use crate::store::{Entry, LeaseId, Range, Revision, StoreError};

/// key → revision (8 bytes, big endian), value.
const DATA: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("data");
/// key → lease it is bound to.
const LEASED: TableDefinition<'_, &str, u64> = TableDefinition::new("leased");
/// One number a name: `revision`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";

/// Anything redb can fail with.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Failure(#[from] pub(super) redb::Error);

macro_rules! failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Self {
                Self(e.into())
            }
        })*
    };
}
failure_from!(
    redb::StorageError,
    redb::TableError,
    redb::CommitError,
    redb::TransactionError,
    redb::DatabaseError
);

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(failure.to_string())
    }
}

/// The tables inside one write transaction.
pub(super) struct Tables<'t> {
    data: Table<'t, &'static str, &'static [u8]>,
    leased: Table<'t, &'static str, u64>,
    meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(write: &'t redb::WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            data: write.open_table(DATA)?,
            leased: write.open_table(LEASED)?,
            meta: write.open_table(META)?,
        })
    }

    pub(super) fn revision(&self) -> Result<Revision, Failure> {
        Ok(Revision(self.meta.get(REVISION)?.map_or(0, |r| r.value())))
    }

    pub(super) fn set_revision(&mut self, revision: Revision) -> Result<(), Failure> {
        self.meta.insert(REVISION, revision.0)?;
        Ok(())
    }

    /// Revision of a key's last change; `None` where it does not exist.
    pub(super) fn modified(&self, key: &str) -> Result<Option<Revision>, Failure> {
        Ok(self.data.get(key)?.map(|v| decode(v.value()).0))
    }

    pub(super) fn put(
        &mut self,
        key: &str,
        value: &[u8],
        lease: Option<LeaseId>,
        revision: Revision,
    ) -> Result<(), Failure> {
        let mut encoded = Vec::with_capacity(8 + value.len());
        encoded.extend_from_slice(&revision.0.to_be_bytes());
        encoded.extend_from_slice(value);
        self.data.insert(key, encoded.as_slice())?;
        match lease {
            Some(lease) => self.leased.insert(key, lease.0)?,
            None => self.leased.remove(key)?,
        };
        Ok(())
    }

    /// Deletes a key; gives its value where it existed.
    pub(super) fn delete(&mut self, key: &str) -> Result<Option<Bytes>, Failure> {
        self.leased.remove(key)?;
        let previous = self.data.remove(key)?;
        Ok(previous.map(|v| decode(v.value()).1))
    }

    /// Keys that were bound to leases of a former process.
    pub(super) fn leased_keys(&self) -> Result<Vec<String>, Failure> {
        self.leased
            .iter()?
            .map(|item| Ok(item?.0.value().to_owned()))
            .collect()
    }
}

/// One key, as last committed.
pub(super) fn get(database: &Database, key: &str) -> Result<Option<Entry>, Failure> {
    let read = database.begin_read()?;
    let data = match read.open_table(DATA) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        data => data?,
    };
    Ok(data.get(key)?.map(|v| entry(key, v.value())))
}

/// The newest revision, as last committed.
pub(super) fn revision(database: &Database) -> Result<Revision, Failure> {
    let meta = match database.begin_read()?.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Revision(0)),
        meta => meta?,
    };
    Ok(Revision(meta.get(REVISION)?.map_or(0, |r| r.value())))
}

/// A page of a prefix, as last committed.
pub(super) fn range(
    database: &Database,
    prefix: &str,
    limit: usize,
    after: Option<&str>,
) -> Result<Range, Failure> {
    let read = database.begin_read()?;
    let (data, meta) = match (read.open_table(DATA), read.open_table(META)) {
        (Err(TableError::TableDoesNotExist(_)), _) | (_, Err(TableError::TableDoesNotExist(_))) => {
            return Ok(Range::default());
        }
        (data, meta) => (data?, meta?),
    };
    let mut range = Range {
        revision: Revision(meta.get(REVISION)?.map_or(0, |r| r.value())),
        ..Range::default()
    };
    let start = after.map_or(prefix, |after| after.max(prefix));
    for item in data.range(start..)? {
        let (key, value) = item?;
        let key = key.value();
        if !key.starts_with(prefix) {
            break;
        }
        if after == Some(key) {
            continue;
        }
        if range.entries.len() == limit {
            range.more = true;
            break;
        }
        range.entries.push(entry(key, value.value()));
    }
    Ok(range)
}

fn entry(key: &str, encoded: &[u8]) -> Entry {
    let (modified, value) = decode(encoded);
    Entry {
        key: key.to_owned(),
        value,
        modified,
    }
}

fn decode(encoded: &[u8]) -> (Revision, Bytes) {
    match encoded.split_first_chunk::<8>() {
        Some((revision, value)) => (
            Revision(u64::from_be_bytes(*revision)),
            Bytes::copy_from_slice(value),
        ),
        // Never written by this engine; a revision nothing can match keeps it from being changed blindly.
        None => (Revision(u64::MAX), Bytes::new()),
    }
}
