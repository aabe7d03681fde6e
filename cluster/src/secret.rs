//! Secrets all members share: made by whoever needs one first, kept in the store.

use rand::Rng as _;

use crate::records::keys;
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// The secret of that name (`nonce`, `flow`, `guest`), 32 random bytes made at its first use.
///
/// # Errors
/// The store's. What is kept under the name and is not 32 bytes is [`StoreError::Refused`].
pub async fn secret(store: &dyn Store, name: &str) -> Result<[u8; 32], StoreError> {
    let key = keys::secret(name);
    // The second round reads what another member wrote first, or what a write of unknown outcome left.
    for _ in 0..2 {
        if let Some(entry) = store.get(&key).await? {
            let wrong = |_| StoreError::Refused(format!("{key} does not hold 32 bytes"));
            return <[u8; 32]>::try_from(entry.value.as_ref()).map_err(wrong);
        }
        let mut bytes = [0_u8; 32];
        rand::rng().fill(&mut bytes);
        let txn = Txn {
            compares: vec![Compare::Absent(key.clone())],
            ops: vec![Op::Put(key.clone(), bytes.to_vec().into(), None)],
        };
        match store.txn(txn).await {
            Ok(_) | Err(StoreError::Unknown) => {}
            Err(e) => return Err(e),
        }
    }
    let entry = store.get(&key).await?.ok_or(StoreError::Unknown)?;
    <[u8; 32]>::try_from(entry.value.as_ref())
        .map_err(|_| StoreError::Refused(format!("{key} does not hold 32 bytes")))
}
