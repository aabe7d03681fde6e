//! What can be wrong with a request of the owner.

/// Why a desired state was refused. Nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeetingError {
    /// A newer owner has spoken: the sender lost the meeting.
    #[error("epoch {given} is stale: this meeting was last changed under epoch {highest}")]
    StaleEpoch {
        /// Epoch of the request.
        given: u64,
        /// Highest epoch seen.
        highest: u64,
    },
    /// More legs than a meeting may have.
    #[error("a meeting holds at most {limit} legs")]
    TooManyLegs {
        /// The bound.
        limit: usize,
    },
}
