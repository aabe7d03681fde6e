//! What the core asks its shell to do, and what it is told about the outcome.

use std::time::Duration;

use bytes::Bytes;
use cluster::{Entry, Revision, Txn};
use control::ApplyRequest;
use sip::transaction::Transmit;

use crate::ids::{MeetingId, OpId, SwitchId};
use crate::succession::Ownership;

/// What to do next. Every command with an `op` is answered exactly once by the `handle_*` named there.
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
    /// Put bytes on the wire. A transport error goes to `handle_transport_error`.
    Transmit(Transmit),
    /// Become the owner of a meeting: of one that nobody owns, or one whose owner is this very member
    /// (before a restart) or no longer alive. Answer: `handle_claimed`.
    Claim {
        /// To answer with.
        op: OpId,
        /// Which.
        meeting: MeetingId,
        /// What to write as `meeting/<id>` where the meeting is new.
        record: Bytes,
        /// Who is known to have left it, if anybody: it is taken over from there first.
        from: Option<Ownership>,
    },
    /// A meeting of a member that is gone goes on here. For logs and metrics; not answered.
    TookOver {
        /// Which.
        meeting: MeetingId,
        /// Whose it was.
        from: String,
        /// Its epoch now.
        epoch: Revision,
        /// How long after its owner was known to be gone.
        after: Duration,
        /// Dialogs that go on.
        dialogs: usize,
    },
    /// A guarded write. Answer: `handle_store`. A write whose outcome the store does not know is to be
    /// re-read by the shell; only if that fails too it is [`StoreFailure::Unknown`].
    Store {
        /// To answer with.
        op: OpId,
        /// The transaction.
        txn: Txn,
    },
    /// Bring a meeting on a switch to a state. At most one is under way for a meeting. Answer: `handle_applied`.
    Apply {
        /// To answer with.
        op: OpId,
        /// Which switch.
        switch: SwitchId,
        /// The request.
        request: ApplyRequest,
    },
    /// Look up a host name that a Route or Contact carries. Answer: `handle_resolved`.
    Resolve {
        /// To answer with.
        op: OpId,
        /// Host name, never an address.
        host: String,
        /// Port, where written.
        port: Option<u16>,
    },
}

/// How a claim ended.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// It is ours, under this epoch; `records` are the dialog records that were there.
    Ours {
        /// Modification revision of the owner record.
        epoch: Revision,
        /// `meeting/<id>` as it now is.
        meeting: Bytes,
        /// `dialog/<id>/*`.
        records: Vec<Entry>,
    },
    /// A living member has it.
    Theirs {
        /// Its id.
        member: String,
    },
}

/// Why a store operation did not succeed (a conflict is no failure, see [`Stored`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFailure {
    /// Nothing was written.
    Unavailable,
    /// It may have been written.
    Unknown,
}

/// How a guarded write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Durable at this revision.
    Committed(Revision),
    /// A condition did not hold: somebody else owns the meeting now.
    Conflict,
}

/// Why a switch did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApplyFailure {
    /// Not reachable, no answer in time, overloaded: another one may do.
    Unavailable,
    /// It has seen a higher epoch: the meeting is no longer ours.
    Fenced,
    /// It does not take this request.
    Refused,
}
