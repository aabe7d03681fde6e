//! Session timers (RFC 4028), as a machine that can be stored and gone on with elsewhere.
//!
//! ```text
//!   +----------+  2xx with an interval, ours or theirs   +---------+  2xx of a refresh: again from the start
//!   | Inactive | --------------------------------------> | Running |
//!   +----------+ <-------------------------------------- +---------+
//!                 2xx to a refresh of ours without one      |    |
//!                                                  half the |    | almost all of it
//!                                                  interval v    v
//!                                               Due::Refresh    Due::Expired
//! ```
//!
//! "Now" is wall-clock time since the Unix epoch, so that whoever goes on with the dialog means the same moments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::header::HeaderError;
use crate::message::{HeaderName, Message, StatusCode};

/// §4: "MUST NOT be less than 90 seconds".
pub const MIN_SE: u32 = 90;

/// §10: BYE goes this long before the end, or a third of the interval where that is less.
const EARLY: Duration = Duration::from_secs(32);

/// What we want of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The interval we ask for, seconds. Lowering it finds lost peers sooner and costs a transaction each half of it.
    pub session_expires: u32,
    /// The shortest we agree to, seconds, at least [`MIN_SE`]. Raising it protects us from refresh floods.
    pub min_se: u32,
    /// Run a timer, refreshed by us, also with peers that know nothing of it.
    pub without_support: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            session_expires: 1_800,
            min_se: MIN_SE,
            without_support: true,
        }
    }
}

/// Who refreshes, seen from one request: its sender (`uac`) or its receiver (`uas`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Refresher {
    Uac,
    Uas,
}

impl Refresher {
    fn as_str(self) -> &'static str {
        match self {
            Self::Uac => "uac",
            Self::Uas => "uas",
        }
    }
}

/// Session-Expires (§4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// Seconds.
    pub interval: u32,
    /// `None` where the sender leaves it open.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Parses `1800;refresher=uac`; unknown parameters are skipped.
    ///
    /// # Errors
    /// What is wrong, for a 400.
    pub fn parse(value: &str) -> Result<Self, HeaderError> {
        let mut parts = value.split(';').map(str::trim);
        let interval = seconds("Session-Expires", parts.next().unwrap_or(""))?;
        let mut refresher = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if !name.trim().eq_ignore_ascii_case("refresher") {
                continue;
            }
            refresher = match value.trim() {
                v if v.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
                v if v.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
                _ => {
                    return Err(HeaderError::Malformed(
                        "Session-Expires",
                        "refresher is neither uac nor uas",
                    ));
                }
            };
        }
        Ok(Self {
            interval,
            refresher,
        })
    }

    /// The header's of a message; `None` where it has none.
    ///
    /// # Errors
    /// Malformed.
    pub fn of(message: &Message) -> Result<Option<Self>, HeaderError> {
        message
            .header(HeaderName::SessionExpires)
            .map(Self::parse)
            .transpose()
    }
}

/// Min-SE of a message, in seconds; [`MIN_SE`] where it has none (§5).
///
/// # Errors
/// Malformed.
pub fn min_se(message: &Message) -> Result<u32, HeaderError> {
    match message.header(HeaderName::MinSe) {
        None => Ok(MIN_SE),
        Some(value) => seconds("Min-SE", value.split(';').next().unwrap_or("")),
    }
}

fn seconds(header: &'static str, text: &str) -> Result<u32, HeaderError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HeaderError::Malformed(header, "not a number of seconds"));
    }
    // Digits only: what does not fit is a time that never comes.
    Ok(text.parse().unwrap_or(u32::MAX))
}

/// A request with session timer headers that we do not go along with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 422 Session Interval Too Small, with this Min-SE (seconds).
    TooSmall(u32),
    /// 400: malformed.
    Malformed(HeaderError),
}

impl Refusal {
    /// Status to answer with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooSmall(_) => StatusCode::of(422),
            Self::Malformed(_) => StatusCode::of(400),
        }
    }

    /// Adds the headers that the answer needs: Min-SE to a 422 (§6).
    pub fn stamp(&self, response: &mut Message) {
        if let Self::TooSmall(min_se) = self {
            response.set(HeaderName::MinSe, min_se.to_string());
        }
    }
}

/// What was agreed with a request of the peer: its headers go into our 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Seconds; `None`: no session timer.
    pub interval: Option<u32>,
    /// Who refreshes, seen from the request.
    pub refresher: Refresher,
    /// The peer knows the extension, so that it must heed our header.
    pub require: bool,
}

impl Agreement {
    /// Adds Session-Expires and Require to the 2xx (§9).
    pub fn stamp(&self, response: &mut Message) {
        let Some(interval) = self.interval else {
            return;
        };
        response.set(
            HeaderName::SessionExpires,
            format!("{interval};refresher={}", self.refresher.as_str()),
        );
        if self.require && !response.has_token(HeaderName::Require, "timer") {
            response.push_back(HeaderName::Require, "timer");
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a refresh: UPDATE where the peer allows it, else re-INVITE, with [`SessionTimer::stamp`].
    Refresh,
    /// Send BYE: no refresh succeeded in time (§10).
    Expired,
}

/// Whether a session timer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The session has no end of its own.
    Inactive,
    /// It ends unless refreshed.
    Running {
        /// Seconds.
        interval: u32,
        /// We refresh.
        ours: bool,
        /// When it was agreed or last refreshed, milliseconds since the Unix epoch.
        since_ms: u64,
        /// A refresh of ours is under way; when it fails the next try is at its `retry_ms`.
        refreshing: bool,
        /// Not before this moment do we refresh, milliseconds since the Unix epoch.
        retry_ms: u64,
    },
}

/// The session timer of one dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTimer {
    policy: Policy,
    /// The largest Min-SE that a 422 told us, seconds.
    told_min_se: u32,
    state: State,
}

impl SessionTimer {
    /// For a new dialog: inactive.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let min_se = policy.min_se.max(MIN_SE);
        Self {
            policy: Policy {
                min_se,
                session_expires: policy.session_expires.max(min_se),
                ..policy
            },
            told_min_se: 0,
            state: State::Inactive,
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    // ---- the peer's INVITE or UPDATE

    /// What we answer an INVITE or UPDATE of the peer, initial or refresh (§9, table 2). Nothing changes before
    /// [`Self::on_agreed`].
    ///
    /// # Errors
    /// [`Refusal`], to be answered with.
    pub fn agree(&self, request: &Message) -> Result<Agreement, Refusal> {
        let supported = request.has_token(HeaderName::Supported, "timer")
            || request.has_token(HeaderName::Require, "timer");
        let asked = SessionExpires::of(request).map_err(Refusal::Malformed)?;
        let peer_min = min_se(request).map_err(Refusal::Malformed)?.max(MIN_SE);
        let Some(asked) = asked else {
            // Table 2: a client that knows the extension but asks for nothing may be given either role. Who does not
            // know it can only be refreshed by us.
            let wanted = supported || self.policy.without_support;
            return Ok(Agreement {
                interval: wanted.then(|| self.policy.session_expires.max(peer_min)),
                refresher: self.preferred(supported),
                require: supported,
            });
        };
        if asked.interval < self.policy.min_se {
            // §9: 422 is only for those who can act on it; for others a proxy wrote the header, and may lengthen it.
            if supported {
                return Err(Refusal::TooSmall(self.policy.min_se));
            }
            return Ok(Agreement {
                interval: Some(asked.interval.max(peer_min)),
                refresher: Refresher::Uas,
                require: false,
            });
        }
        // §9: may be shortened down to the larger Min-SE, never lengthened.
        let shortest = peer_min.max(self.policy.min_se);
        let interval = asked
            .interval
            .min(self.policy.session_expires.max(shortest));
        let refresher = match (supported, asked.refresher) {
            (false, _) => Refresher::Uas,
            (true, Some(refresher)) => refresher,
            (true, None) => self.preferred(true),
        };
        Ok(Agreement {
            interval: Some(interval),
            refresher,
            require: supported,
        })
    }

    /// Who refreshes where the choice is ours: whoever does so now, else the client, since a focus has many.
    fn preferred(&self, supported: bool) -> Refresher {
        match self.state {
            _ if !supported => Refresher::Uas,
            State::Running { ours: true, .. } => Refresher::Uas,
            State::Running { ours: false, .. } | State::Inactive => Refresher::Uac,
        }
    }

    /// Our 2xx with that agreement has been sent.
    pub fn on_agreed(&mut self, now_unix: Duration, agreement: &Agreement) {
        self.state = match agreement.interval {
            Some(interval) => running(now_unix, interval, agreement.refresher == Refresher::Uas),
            None => State::Inactive,
        };
    }

    // ---- our INVITE or UPDATE

    /// Adds Supported, Session-Expires and Min-SE to an INVITE or UPDATE of ours (§7.1, §7.4).
    pub fn stamp(&self, request: &mut Message) {
        if !request.has_token(HeaderName::Supported, "timer") {
            request.push_back(HeaderName::Supported, "timer");
        }
        let min_se = self.told_min_se.max(self.policy.min_se);
        let (interval, refresher) = match self.state {
            // §7.4: a refresh keeps the interval, and says who refreshes, so that the role stays.
            State::Running { interval, ours, .. } => {
                let refresher = if ours { Refresher::Uac } else { Refresher::Uas };
                (interval, format!(";refresher={}", refresher.as_str()))
            }
            State::Inactive => (self.policy.session_expires, String::new()),
        };
        let interval = interval.max(min_se);
        request.set(HeaderName::SessionExpires, format!("{interval}{refresher}"));
        // §7.1: without Min-SE 90 is meant.
        if min_se > MIN_SE {
            request.set(HeaderName::MinSe, min_se.to_string());
        }
    }

    /// A 2xx to our INVITE or UPDATE came (§7.2). A malformed header counts as none.
    pub fn on_success(&mut self, now_unix: Duration, response: &Message) {
        self.state = match SessionExpires::of(response) {
            Ok(Some(agreed)) => running(
                now_unix,
                // A server may not go below 90; a peer that does shall not make us refresh in a loop.
                agreed.interval.max(MIN_SE),
                agreed.refresher != Some(Refresher::Uas),
            ),
            // §7.2: the server knows nothing of it. We may still refresh for ourselves.
            _ if self.policy.without_support => {
                running(now_unix, self.policy.session_expires, true)
            }
            _ => State::Inactive,
        };
    }

    /// A 422 to our INVITE or UPDATE came: true when the request is to be sent again, with [`Self::stamp`] (§7.3).
    /// False when its Min-SE is missing, malformed, or no larger than what we had asked for already.
    pub fn on_interval_too_small(&mut self, response: &Message) -> bool {
        let Some(Ok(told)) = response
            .header(HeaderName::MinSe)
            .map(|value| seconds("Min-SE", value.split(';').next().unwrap_or("")))
        else {
            return false;
        };
        let had = match self.state {
            State::Running { interval, .. } => interval,
            State::Inactive => self.policy.session_expires,
        };
        if told <= had.max(self.told_min_se) {
            return false;
        }
        self.told_min_se = told;
        true
    }

    /// Our refresh has been sent.
    pub fn on_refresh_sent(&mut self) {
        if let State::Running { refreshing, .. } = &mut self.state {
            *refreshing = true;
        }
    }

    /// Our refresh failed, but the dialog stands (491, 500 with Retry-After, ...): try again after `retry`. For 408,
    /// 481 and no response at all the dialog is to be ended by BYE instead (§10).
    pub fn on_refresh_failed(&mut self, now_unix: Duration, retry: Duration) {
        if let State::Running {
            refreshing,
            retry_ms,
            ..
        } = &mut self.state
        {
            *refreshing = false;
            *retry_ms = millis(now_unix.saturating_add(retry));
        }
    }

    // ---- time

    /// When a refresh of ours is due: after half the interval (§7.4). `None` when it is not our part, or under way.
    #[must_use]
    pub fn refresh_at(&self) -> Option<Duration> {
        match self.state {
            State::Running {
                interval,
                ours: true,
                since_ms,
                refreshing: false,
                retry_ms,
            } => {
                let half = since_ms.saturating_add(u64::from(interval) * 500);
                Some(Duration::from_millis(half.max(retry_ms)))
            }
            _ => None,
        }
    }

    /// When the session is ended for want of a refresh: 32 s, or a third of the interval, before it is over (§10).
    #[must_use]
    pub fn expires_at(&self) -> Option<Duration> {
        match self.state {
            State::Running {
                interval, since_ms, ..
            } => {
                let whole = Duration::from_secs(u64::from(interval));
                Some(Duration::from_millis(since_ms).saturating_add(whole - EARLY.min(whole / 3)))
            }
            State::Inactive => None,
        }
    }

    /// When [`Self::due`] has something to say next, since the Unix epoch.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        match (self.refresh_at(), self.expires_at()) {
            (Some(refresh), Some(expiry)) => Some(refresh.min(expiry)),
            (a, b) => a.or(b),
        }
    }

    /// What is due at `now_unix`. Repeats itself until [`Self::on_refresh_sent`] or the dialog's end.
    #[must_use]
    pub fn due(&self, now_unix: Duration) -> Option<Due> {
        if self.expires_at().is_some_and(|at| now_unix >= at) {
            return Some(Due::Expired);
        }
        self.refresh_at()
            .is_some_and(|at| now_unix >= at)
            .then_some(Due::Refresh)
    }

    /// A dialog was taken over, whose latest refreshes nobody has written down: the peer has a whole interval from now
    /// on for its next one; ours is due in the first half of the time that is surely left, after so many per mille of that
    /// half, which should differ from dialog to dialog.
    pub fn on_taken_over(&mut self, now_unix: Duration, share: u32) {
        let State::Running {
            interval,
            ours,
            since_ms,
            refreshing,
            retry_ms,
        } = &mut self.state
        else {
            return;
        };
        *refreshing = false;
        *since_ms = millis(now_unix);
        if *ours {
            let whole = Duration::from_secs(u64::from(*interval));
            // We refresh after half the interval, so that at least the other half is left.
            *since_ms = millis(now_unix.saturating_sub(whole / 2));
            let left = whole / 2 - EARLY.min(whole / 3);
            let wait = left / 2 * share.min(1_000) / 1_000;
            *retry_ms = millis(now_unix.saturating_add(wait));
        }
    }

    /// The interval in seconds, and whether refreshing is our part; `None` where nobody refreshes.
    #[must_use]
    pub fn terms(&self) -> Option<(u32, bool)> {
        match self.state {
            State::Running { interval, ours, .. } => Some((interval, ours)),
            State::Inactive => None,
        }
    }
}

fn running(now_unix: Duration, interval: u32, ours: bool) -> State {
    State::Running {
        interval,
        ours,
        since_ms: millis(now_unix),
        refreshing: false,
        retry_ms: 0,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
