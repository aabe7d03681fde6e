//! Requests under way to a meeting whose manager is gone, or has just been replaced: they go to whoever is next.
//!
//! ```text
//!            manager gone, silent or         owner or member news
//!            not the owner any more          that names somebody
//!   running ───────────────────────► waiting ───────────────────► running, at the new one
//!                                        │ as long as a parked request may wait
//!                                        ▼
//!                                  503, or what the old one said
//! ```
//!
//! A request outside any dialog has somebody to go to at once: the one who will take the meeting over. One in a dialog
//! waits for the takeover, as parked ones do.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use cluster::records::Member;
use sip::transaction::ServerKey;
use sip::{Message, Uri};

use crate::core::{Core, Timer};
use crate::response_context::BranchId;
use crate::router::{Decision, Way, in_dialog};

/// What stands for a branch that waited in vain.
const GONE: (u16, &str) = (503, "No Meeting Manager Took Over");

impl Core {
    /// A member is gone: what was sent to it and not answered goes elsewhere.
    pub(crate) fn fail_member(&mut self, now: Instant, member: &str) {
        let mut failed = Vec::new();
        for (key, proxied) in &self.contexts {
            for (id, branch) in &proxied.context.branches {
                if !branch.done && !branch.given_up && branch.member.as_deref() == Some(member) {
                    failed.extend(branch.client.map(|client| (*key, *id, client)));
                }
            }
        }
        for (key, id, client) in failed {
            self.transactions.forget(client);
            self.remove_client(client);
            self.reroute(now, key, id);
            self.settle(now, key);
        }
    }

    /// Whether the branch, which `member` has failed or refused, may still be served by another member: it is tried
    /// there, now or when there is news.
    pub(crate) fn is_rerouted(
        &mut self,
        now: Instant,
        key: ServerKey,
        id: BranchId,
        member: &str,
        refused: bool,
    ) -> bool {
        let Some(meeting) = self.meeting_of(key) else {
            return false;
        };
        // One that answers 503 is believed where it is the owner.
        if refused
            && self
                .owners
                .get(&meeting)
                .is_none_or(|owner| owner == member)
        {
            return false;
        }
        // Nobody has it, so that anybody may be asked: those were all.
        if !refused && !self.owners.contains_key(&meeting) {
            return false;
        }
        self.wait_for_owner(now, key, id);
        if refused {
            self.reroute(now, key, id);
        }
        true
    }

    /// Whether a manager sends this in a dialog of a meeting that another living one owns by now: it was stopped or cut
    /// off for a while, and does not know yet.
    pub(crate) fn is_of_deposed_manager(&self, message: &Message) -> bool {
        let (Ok(via), Ok(from)) = (message.top_via_ref(), message.from()) else {
            return false;
        };
        let ip: Option<IpAddr> = via.host.trim_matches(['[', ']']).parse().ok();
        let Some(address) = ip.zip(via.port).map(SocketAddr::from) else {
            return false;
        };
        let is_sender = |m: &&Member| m.sip.iter().any(|(_, a)| *a == address);
        let Some(sender) = self.members.values().find(is_sender) else {
            return false;
        };
        let meeting = from.uri.user_decoded().unwrap_or_default();
        let owner = self.owners.get(&*meeting);
        in_dialog(message)
            && self.settings.is_domain(&from.uri.host)
            && owner.is_some_and(|owner| *owner != sender.id && self.members.contains_key(owner))
    }

    fn meeting_of(&self, key: ServerKey) -> Option<String> {
        let request = &self.contexts.get(&key)?.request;
        Uri::parse(request.request_uri()).ok()?.user_decoded()
    }

    fn wait_for_owner(&mut self, now: Instant, key: ServerKey, id: BranchId) {
        let until = now + self.settings.park;
        let Some(branch) = self.branch_mut(key, id) else {
            return;
        };
        branch.client = None;
        branch.timer_c = None;
        // However often it goes to and fro.
        let until = *branch.orphaned_until.get_or_insert(until);
        if self.orphans.insert((key, id)) {
            self.arm(until, Timer::Orphan(key, id));
        }
    }

    /// Sends the branch to whoever serves its meeting now, or lets it wait.
    fn reroute(&mut self, now: Instant, key: ServerKey, id: BranchId) {
        let Some(meeting) = self.meeting_of(key) else {
            return;
        };
        let Some(proxied) = self.contexts.get(&key) else {
            self.orphans.remove(&(key, id));
            return;
        };
        let decision = self.router().to_meeting(&proxied.request, &meeting);
        match decision {
            Decision::Forward(groups) => {
                self.orphans.remove(&(key, id));
                let ways: Vec<Way> = groups.into_iter().flatten().flat_map(|t| t.ways).collect();
                if let Some(branch) = self.branch_mut(key, id) {
                    branch.ways = ways.into();
                }
                self.next_way(now, key, id, GONE.0, GONE.1);
            }
            Decision::Park => self.wait_for_owner(now, key, id),
            _ => {
                self.orphans.remove(&(key, id));
                self.next_way(now, key, id, GONE.0, GONE.1);
            }
        }
    }

    /// There is news of members or owners.
    pub(crate) fn reroute_orphans(&mut self, now: Instant) {
        for (key, id) in self.orphans.clone() {
            self.reroute(now, key, id);
            self.settle(now, key);
        }
    }

    /// Nobody took the meeting over in time.
    pub(crate) fn on_orphaned_too_long(&mut self, now: Instant, key: ServerKey, id: BranchId) {
        if self.orphans.remove(&(key, id)) {
            self.next_way(now, key, id, GONE.0, GONE.1);
            self.settle(now, key);
        }
    }
}
