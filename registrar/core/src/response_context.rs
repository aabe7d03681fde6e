//! The response context of one proxied request (RFC 3261 §16.7, RFC 4320, RFC 6026).
//!
//! ```text
//!               target groups by q
//!                      │ next_group
//!                      ▼
//!   ┌──────────── Proceeding ────────────┐
//!   │ 1xx: forward    ≥300: remember     │ every branch done, no group left:
//!   │ CANCEL: cancel branches, no group  │ forward the best
//!   └──────┬──────────────────┬──────────┘
//!          │ 2xx: forward,    │ 6xx: cancel others, no further group
//!          ▼ cancel others    ▼
//!        Won ◄── 2xx ─── Proceeding ──► Lost (best forwarded)
//!         │ 2xx of INVITE: forward again
//!         ▼
//!     (kept 64*T1, then dropped)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use sip::transaction::ClientKey;
use sip::{HeaderName, Message, StatusCode};

use crate::router::{Target, Way};

/// Names a branch within its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BranchId(pub u32);

/// State of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No final response was forwarded.
    Proceeding,
    /// A 2xx was forwarded.
    Won,
    /// Another final response was forwarded, or none ever will be (RFC 4320).
    Lost,
}

/// One client transaction at a time, towards one target.
#[derive(Debug)]
pub(crate) struct Branch {
    /// Ways not tried yet, the next first.
    pub ways: VecDeque<Way>,
    /// The running client transaction; `None` while a name is looked up.
    pub client: Option<ClientKey>,
    /// The meeting manager that it runs to.
    pub member: Option<String>,
    /// How long it may wait for another one, once that one has failed.
    pub orphaned_until: Option<Instant>,
    /// How to try again should the transport fail before any response came.
    pub fallback: Option<Way>,
    /// The connection it went over has closed: news can only come by another one.
    pub flow_lost: bool,
    /// A provisional response came.
    pub provisional: bool,
    /// When Timer C fires.
    pub timer_c: Option<Instant>,
    /// Timer C fired, and CANCEL was sent.
    pub given_up: bool,
    /// The final response came.
    pub done: bool,
    /// This branch's share of Max-Breadth.
    pub breadth: u32,
}

/// What the proxy must do now.
#[derive(Debug)]
pub(crate) enum Action {
    /// Start the next group.
    NextGroup,
    /// Forward a response.
    Respond(Box<Message>),
    /// Answer with a status of our own.
    RespondWith(StatusCode, &'static str),
    /// Cancel a client transaction.
    Cancel(ClientKey),
}

#[derive(Debug)]
struct Best {
    rank: (u8, u8, u16),
    message: Option<Box<Message>>,
    status: StatusCode,
    reason: &'static str,
}

/// One proxied request.
#[derive(Debug)]
pub(crate) struct ResponseContext {
    invite: bool,
    pub state: State,
    groups: VecDeque<Vec<Target>>,
    pub branches: BTreeMap<BranchId, Branch>,
    next_branch: u32,
    best: Option<Best>,
    challenges: Vec<(HeaderName<'static>, String)>,
    /// CANCEL came, or 6xx: no further group.
    stopped: bool,
    cancelled: bool,
    /// Only kept for repeated 2xx.
    pub lingering: bool,
}

/// §16.7 step 6: 6xx first, then the lowest class; within 4xx those that tell how to do better.
fn rank(status: StatusCode) -> (u8, u8, u16) {
    let code = status.get();
    let class = match code / 100 {
        6 => 0,
        other => u8::try_from(other).unwrap_or(9),
    };
    let preference = match code {
        401 | 407 => 0,
        415 | 420 | 484 | 488 => 1,
        // Says nothing about whether the request was any good.
        408 | 430 | 480 => 3,
        503 => 4,
        _ => 2,
    };
    (class, preference, code)
}

impl ResponseContext {
    pub(crate) fn new(invite: bool, groups: Vec<Vec<Target>>) -> Self {
        Self {
            invite,
            state: State::Proceeding,
            groups: groups.into(),
            branches: BTreeMap::new(),
            next_branch: 0,
            best: None,
            challenges: Vec::new(),
            stopped: false,
            cancelled: false,
            lingering: false,
        }
    }

    /// Opens the branches of the next group; empty where there is none.
    pub(crate) fn next_group(&mut self, max_breadth: u32) -> Vec<BranchId> {
        if self.stopped || self.state != State::Proceeding {
            return Vec::new();
        }
        let Some(group) = self.groups.pop_front() else {
            return Vec::new();
        };
        let count = u32::try_from(group.len()).unwrap_or(u32::MAX).max(1);
        let share = max_breadth / count;
        let mut opened = Vec::new();
        for target in group {
            let id = BranchId(self.next_branch);
            self.next_branch += 1;
            let branch = Branch {
                ways: target.ways.into(),
                client: None,
                member: None,
                orphaned_until: None,
                fallback: None,
                flow_lost: false,
                provisional: false,
                timer_c: None,
                given_up: false,
                done: false,
                breadth: share,
            };
            self.branches.insert(id, branch);
            opened.push(id);
        }
        opened
    }

    /// How many targets the next group has.
    pub(crate) fn next_group_len(&self) -> usize {
        self.groups.front().map_or(0, Vec::len)
    }

    /// A provisional response other than 100.
    pub(crate) fn on_provisional(&mut self, id: BranchId, response: Message) -> Vec<Action> {
        if let Some(branch) = self.branches.get_mut(&id) {
            branch.provisional = true;
        }
        let trying = response.status().is_some_and(|s| s.get() == 100);
        if self.state == State::Proceeding && !trying {
            vec![Action::Respond(Box::new(response))]
        } else {
            Vec::new()
        }
    }

    /// A 2xx: at once, and for INVITE every one, also repeated (RFC 6026 §7).
    pub(crate) fn on_success(&mut self, id: BranchId, response: Message) -> Vec<Action> {
        if let Some(branch) = self.branches.get_mut(&id) {
            branch.done = true;
            branch.timer_c = None;
        }
        if self.state != State::Proceeding && !self.invite {
            return Vec::new();
        }
        self.state = State::Won;
        let mut actions = vec![Action::Respond(Box::new(response))];
        actions.extend(self.stop());
        actions
    }

    /// A final response of 300 or above that ends the branch.
    pub(crate) fn on_failure(&mut self, id: BranchId, response: Message) -> Vec<Action> {
        let Some(status) = response.status() else {
            return Vec::new();
        };
        if matches!(status.get(), 401 | 407) {
            for name in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate] {
                self.challenges
                    .extend(response.headers(name).map(|v| (name, v.to_owned())));
            }
        }
        self.remember(status, "", Some(Box::new(response)));
        self.end_branch(id, status)
    }

    /// A branch ended without a response: time-out, transport failure, no way left. `status` stands for it.
    /// For a request other than INVITE a time-out is never answered (RFC 4320 §4.2).
    pub(crate) fn on_no_answer(
        &mut self,
        id: BranchId,
        status: StatusCode,
        reason: &'static str,
    ) -> Vec<Action> {
        if self.invite || status.get() != 408 {
            self.remember(status, reason, None);
        }
        self.end_branch(id, status)
    }

    fn remember(
        &mut self,
        status: StatusCode,
        reason: &'static str,
        message: Option<Box<Message>>,
    ) {
        let rank = rank(status);
        if self.best.as_ref().is_none_or(|best| rank < best.rank) {
            self.best = Some(Best {
                rank,
                message,
                status,
                reason,
            });
        }
    }

    fn end_branch(&mut self, id: BranchId, status: StatusCode) -> Vec<Action> {
        if let Some(branch) = self.branches.get_mut(&id) {
            branch.done = true;
            branch.timer_c = None;
        }
        let mut actions = Vec::new();
        if status.get() >= 600 {
            actions.extend(self.stop());
        }
        actions.extend(self.conclude());
        actions
    }

    /// The caller cancelled.
    pub(crate) fn on_cancel(&mut self) -> Vec<Action> {
        if self.state != State::Proceeding {
            return Vec::new();
        }
        self.cancelled = true;
        let mut actions = self.stop();
        actions.extend(self.conclude());
        actions
    }

    /// Cancels what runs and forgets what has not begun.
    fn stop(&mut self) -> Vec<Action> {
        self.stopped = true;
        self.groups.clear();
        let invite = self.invite;
        let mut actions = Vec::new();
        for branch in self.branches.values_mut().filter(|b| !b.done) {
            branch.ways.clear();
            branch.fallback = None;
            match branch.client {
                // Only INVITE can be cancelled (§9.1).
                Some(client) if invite => actions.push(Action::Cancel(client)),
                Some(_) => {}
                None => branch.done = true,
            }
        }
        actions
    }

    /// Forwards the best response once nothing is left to wait for.
    fn conclude(&mut self) -> Vec<Action> {
        if self.state != State::Proceeding || self.branches.values().any(|b| !b.done) {
            return Vec::new();
        }
        if !self.stopped && !self.groups.is_empty() {
            return vec![Action::NextGroup];
        }
        self.state = State::Lost;
        if self.cancelled {
            return match self.best.take() {
                Some(Best {
                    message: Some(message),
                    status,
                    ..
                }) if status.get() == 487 || status.get() >= 600 => {
                    vec![Action::Respond(message)]
                }
                _ => vec![Action::RespondWith(
                    StatusCode::of(487),
                    "Request Terminated",
                )],
            };
        }
        let Some(best) = self.best.take() else {
            return Vec::new();
        };
        match (best.status.get(), best.message) {
            // §16.7 step 6: overload behind us is not ours.
            (503, _) => vec![Action::RespondWith(
                StatusCode::of(500),
                "Next Hop Unavailable",
            )],
            // RFC 5626 §5.3.1: 430 is between registrars.
            (430, _) => vec![Action::RespondWith(
                StatusCode::of(480),
                "Temporarily Unavailable",
            )],
            (_, Some(mut message)) => {
                if matches!(best.status.get(), 401 | 407) {
                    self.merge_challenges(&mut message);
                }
                vec![Action::Respond(message)]
            }
            (_, None) => vec![Action::RespondWith(best.status, best.reason)],
        }
    }

    /// §16.7 step 7: the challenges of all branches, so that the caller can answer all of them at once.
    fn merge_challenges(&mut self, message: &mut Message) {
        for name in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate] {
            message.remove(name);
        }
        let mut seen: Vec<(HeaderName<'static>, String)> = Vec::new();
        for challenge in self.challenges.drain(..) {
            if !seen.contains(&challenge) {
                seen.push(challenge);
            }
        }
        for (name, value) in seen {
            message.push_back(name, value);
        }
    }

    /// Nothing runs any more.
    pub(crate) fn is_over(&self) -> bool {
        self.state != State::Proceeding && self.branches.values().all(|b| b.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Destination, Host, Side};

    fn response(status: u16) -> Message {
        let request = Message::request(sip::Method::Invite, "sip:b@example.org");
        Message::response(&request, StatusCode::of(status), None, Some("t"))
    }

    fn render(actions: &[Action]) -> String {
        let one = |action: &Action| match action {
            Action::NextGroup => "NextGroup".to_owned(),
            Action::Respond(m) => format!("Respond {}", m.status().map_or(0, StatusCode::get)),
            Action::RespondWith(status, _) => format!("RespondWith {}", status.get()),
            Action::Cancel(key) => format!("Cancel {}", key.0),
        };
        actions.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Two branches, 1 and 2, both with a client transaction.
    fn context(invite: bool) -> ResponseContext {
        let target = || Target {
            ways: vec![Way::to(Destination::Host(Host::default()), Side::Inner)],
        };
        let mut context = ResponseContext::new(invite, vec![vec![target(), target()]]);
        for id in context.next_group(60) {
            let branch = context.branches.get_mut(&id).expect("opened");
            branch.client = Some(ClientKey(u64::from(id.0) + 1));
        }
        context
    }

    fn apply(context: &mut ResponseContext, event: &str) -> Vec<Action> {
        let (what, branch) = event.split_once('@').unwrap_or((event, "1"));
        let id = BranchId(branch.parse::<u32>().expect("a number") - 1);
        match what {
            "CANCEL" => context.on_cancel(),
            "timeout" => context.on_no_answer(id, StatusCode::of(408), "Request Timeout"),
            status => {
                let code: u16 = status.parse().expect("a status");
                match code {
                    100..200 => context.on_provisional(id, response(code)),
                    200..300 => context.on_success(id, response(code)),
                    _ => context.on_failure(id, response(code)),
                }
            }
        }
    }

    fn table(invite: bool) -> String {
        let paths: [(&str, &[&str]); 6] = [
            ("Proceeding", &[]),
            ("Proceeding, 486@2", &["486@2"]),
            ("Proceeding, CANCEL", &["CANCEL"]),
            ("Proceeding, 603@2", &["603@2"]),
            ("Won", &["200@2"]),
            ("Lost", &["486@2", "404@1"]),
        ];
        let mut out = String::new();
        for (name, path) in paths {
            if !invite && path.contains(&"CANCEL") {
                continue; // only INVITE is cancelled
            }
            for event in [
                "100", "180", "200", "404", "503", "600", "timeout", "CANCEL",
            ] {
                let mut context = context(invite);
                for step in path {
                    apply(&mut context, step);
                }
                let before = context.state;
                let actions = apply(&mut context, event);
                if !actions.is_empty() || context.state != before {
                    out += &format!(
                        "{name} | {event} -> {:?} | {}\n",
                        context.state,
                        render(&actions)
                    );
                }
            }
        }
        out
    }

    #[test]
    fn every_transition_of_an_invites_context() {
        assert_eq!(table(true), INVITE);
    }

    #[test]
    fn every_transition_of_another_requests_context() {
        assert_eq!(table(false), OTHER);
    }

    const INVITE: &str = "\
Proceeding | 180 -> Proceeding | Respond 180
Proceeding | 200 -> Won | Respond 200, Cancel 2
Proceeding | 600 -> Proceeding | Cancel 2
Proceeding | CANCEL -> Proceeding | Cancel 1, Cancel 2
Proceeding, 486@2 | 180 -> Proceeding | Respond 180
Proceeding, 486@2 | 200 -> Won | Respond 200
Proceeding, 486@2 | 404 -> Lost | Respond 404
Proceeding, 486@2 | 503 -> Lost | Respond 486
Proceeding, 486@2 | 600 -> Lost | Respond 600
Proceeding, 486@2 | timeout -> Lost | Respond 486
Proceeding, 486@2 | CANCEL -> Proceeding | Cancel 1
Proceeding, CANCEL | 180 -> Proceeding | Respond 180
Proceeding, CANCEL | 200 -> Won | Respond 200, Cancel 2
Proceeding, CANCEL | 600 -> Proceeding | Cancel 2
Proceeding, CANCEL | CANCEL -> Proceeding | Cancel 1, Cancel 2
Proceeding, 603@2 | 180 -> Proceeding | Respond 180
Proceeding, 603@2 | 200 -> Won | Respond 200
Proceeding, 603@2 | 404 -> Lost | Respond 603
Proceeding, 603@2 | 503 -> Lost | Respond 603
Proceeding, 603@2 | 600 -> Lost | Respond 600
Proceeding, 603@2 | timeout -> Lost | Respond 603
Proceeding, 603@2 | CANCEL -> Proceeding | Cancel 1
Won | 200 -> Won | Respond 200
Lost | 200 -> Won | Respond 200
";
    const OTHER: &str = "\
Proceeding | 180 -> Proceeding | Respond 180
Proceeding | 200 -> Won | Respond 200
Proceeding, 486@2 | 180 -> Proceeding | Respond 180
Proceeding, 486@2 | 200 -> Won | Respond 200
Proceeding, 486@2 | 404 -> Lost | Respond 404
Proceeding, 486@2 | 503 -> Lost | Respond 486
Proceeding, 486@2 | 600 -> Lost | Respond 600
Proceeding, 486@2 | timeout -> Lost | Respond 486
Proceeding, 603@2 | 180 -> Proceeding | Respond 180
Proceeding, 603@2 | 200 -> Won | Respond 200
Proceeding, 603@2 | 404 -> Lost | Respond 603
Proceeding, 603@2 | 503 -> Lost | Respond 603
Proceeding, 603@2 | 600 -> Lost | Respond 600
Proceeding, 603@2 | timeout -> Lost | Respond 603
";
}
