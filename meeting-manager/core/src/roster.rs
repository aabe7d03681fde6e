//! Who is in a meeting, as its subscribers see it (RFC 4575).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::MeetingKind;
use crate::conference_info::{
    self, Conference, Document, Endpoint, EndpointStatus, Feed, JoiningMethod, Media, Part, User,
};
use crate::ids::{ParticipantId, SourceId};
use crate::participant::{Facts, Participant};
use crate::slot_policy;

/// Longest address listed, bytes; whoever has a longer one is listed as a stranger.
const MAX_ADDRESS: usize = 512;

/// Room for a change that is put into words once for all subscribers, bytes. A longer one is put into words for
/// each, in parts as long as suit it.
const SHARED_ROOM: usize = 2_048;

/// A participant as listed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    id: ParticipantId,
    user: String,
    display: String,
    role: &'static str,
    joined_at: u64,
    on_hold: bool,
    media: Vec<Media>,
}

impl Entry {
    pub(crate) fn of(participant: &Participant, facts: &Facts, domain: &str) -> Self {
        let SourceId(source) = participant.source;
        let media = participant
            .plan
            .iter()
            .flat_map(|plan| plan.accepted())
            .filter_map(|media| {
                Some(Media {
                    id: media.index.to_string(),
                    kind: media.kind?,
                    label: None,
                    src_id: media.direction.receives().then_some(source),
                    direction: media.direction.reversed(),
                    muted: false,
                })
            })
            .collect();
        // Whoever calls a meeting into being is its host; a configured one has none.
        let role = match facts.kind {
            MeetingKind::Configured => "participant",
            _ if participant.order == 1 && !participant.identity.guest => "host",
            _ => "participant",
        };
        let uri = &participant.identity.uri;
        Self {
            id: participant.id.clone(),
            // Anonymous callers share an address and are not one person.
            user: if uri.ends_with(".invalid") || uri.len() > MAX_ADDRESS {
                format!("sip:{}@{domain}", participant.id)
            } else {
                uri.clone()
            },
            display: participant.identity.display.clone(),
            role,
            joined_at: participant.joined_at,
            on_hold: participant.plan.as_ref().is_some_and(slot_policy::on_hold),
            media,
        }
    }
}

/// The list with its documents.
#[derive(Debug)]
pub(crate) struct Roster {
    conference: Conference,
    feed: Feed,
    /// The latest change, where it is short: from there to what is published.
    latest: Option<(Arc<Conference>, Part)>,
    /// Which user a participant is listed under.
    users: BTreeMap<ParticipantId, String>,
    domain: String,
    throttle: Duration,
}

impl Roster {
    pub(crate) fn new(entity: String, domain: String, facts: &Facts, throttle: Duration) -> Self {
        let conference = Conference {
            entity,
            title: facts.config.title.clone(),
            maximum_user_count: u32::try_from(facts.config.max_participants).ok(),
            active: true,
            locked: !facts.config.open,
            users: BTreeMap::new(),
        };
        Self {
            feed: Feed::new(conference.clone(), throttle),
            latest: None,
            conference,
            users: BTreeMap::new(),
            domain,
            throttle,
        }
    }

    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    fn endpoint_uri(&self, id: &ParticipantId) -> String {
        format!("sip:{id}@{}", self.domain)
    }

    /// Somebody has joined, or changed.
    pub(crate) fn on_changed(&mut self, entry: Entry) {
        let endpoint = Endpoint {
            display_text: entry.display.clone(),
            status: if entry.on_hold {
                EndpointStatus::OnHold
            } else {
                EndpointStatus::Connected
            },
            joining_method: JoiningMethod::DialedIn,
            joined: Some(entry.joined_at / 1_000),
            media: entry.media,
        };
        let uri = self.endpoint_uri(&entry.id);
        let user = self
            .conference
            .users
            .entry(entry.user.clone())
            .or_insert_with(|| User {
                display_text: entry.display,
                roles: vec![entry.role.to_owned()],
                endpoints: BTreeMap::new(),
            });
        user.endpoints.insert(uri, endpoint);
        self.users.insert(entry.id, entry.user);
        self.feed.on_changed();
    }

    /// Somebody leaves.
    pub(crate) fn on_left(&mut self, id: &ParticipantId) {
        let Some(name) = self.users.remove(id) else {
            return;
        };
        let uri = self.endpoint_uri(id);
        if let Some(user) = self.conference.users.get_mut(&name) {
            user.endpoints.remove(&uri);
            if user.endpoints.is_empty() {
                self.conference.users.remove(&name);
            }
        }
        self.feed.on_changed();
    }

    /// Nobody was told of the changes since the last publication, so the first who asks sees them all.
    pub(crate) fn catch_up(&mut self) {
        self.feed = Feed::new(self.conference.clone(), self.throttle);
        self.latest = None;
    }

    /// What every subscriber is to know.
    pub(crate) fn published(&self) -> &Arc<Conference> {
        self.feed.published()
    }

    /// The first document that takes a subscriber from `told` to what is published; `None` where it knows.
    pub(crate) fn first_part(&self, told: Option<&Arc<Conference>>, room: usize) -> Option<Part> {
        if let (Some(told), Some((from, part))) = (told, &self.latest)
            && Arc::ptr_eq(told, from)
        {
            return Some(part.clone());
        }
        let told = told.map(|told| &**told);
        conference_info::part(told, self.feed.published(), None, room)
    }

    /// Publishes what changed, if it is time.
    pub(crate) fn publish(&mut self, now: Instant) -> bool {
        let Some(before) = self.feed.publish(&self.conference, now) else {
            return false;
        };
        self.latest = conference_info::part(Some(&before), self.published(), None, SHARED_ROOM)
            .filter(|part| part.rest.is_none())
            .map(|part| (before, part));
        true
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.feed.poll_timeout(now)
    }

    /// The document of a meeting that is over.
    pub(crate) fn end(&self) -> Document {
        conference_info::deleted(&self.conference.entity)
    }
}

#[cfg(test)]
mod tests;
