//! Conference-info documents (RFC 4575): who is in a meeting, in which role, and which CSRC names them.
//!
//! [`Conference`] is the model. [`Feed`] says when its changes are to be told, and [`part`] puts into words what
//! takes a subscriber from what it was told to what is, in documents of bounded size.
//!
//! ```text
//!              on_changed            now >= due             on_changed
//!   ┌───────┐ ────────────► ┌─────┐ ───────────► ┌───────┐ ───────────► ┌─────┐
//!   │ quiet │               │ due │  published   │ quiet │              │ due │
//!   └───────┘ ◄──────────── └─────┘              └───────┘              └─────┘
//!              nothing differs       due = time of the last publication + interval
//! ```
//!
//! Each document a subscriber sees is one version above the one before, which is how it notices a gap (RFC 4575
//! §4.4).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip::offer_answer::{Direction, MediaKind};

/// The MIME type of the documents.
pub const CONTENT_TYPE: &str = "application/conference-info+xml";

/// The event package's name in Event and Allow-Events.
pub const EVENT: &str = "conference";

/// A meeting as its subscribers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conference {
    /// The conference URI.
    pub entity: String,
    /// For people; empty: none.
    pub title: String,
    /// Most participants admitted, where there is a limit.
    pub maximum_user_count: Option<u32>,
    /// Does it run, with a focus that admits people?
    pub active: bool,
    /// Does it refuse newcomers?
    pub locked: bool,
    /// By entity: the participant's AOR, or another URI that is the participant's alone in this meeting.
    pub users: BTreeMap<String, User>,
}

/// One participant, maybe with several devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name for people; empty: none.
    pub display_text: String,
    /// "host", "participant", ... (RFC 4575 §5.6.3).
    pub roles: Vec<String>,
    /// By entity: the device's contact URI or GRUU, or another URI that is the leg's alone.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// One device of a participant: one dialog with the focus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name for people; empty: none.
    pub display_text: String,
    /// Where the dialog is.
    pub status: EndpointStatus,
    /// Who called whom.
    pub joining_method: JoiningMethod,
    /// When it joined, in seconds since 1970 UTC.
    pub joined: Option<u64>,
    /// Its streams, in the order of the m-lines.
    pub media: Vec<Media>,
}

/// RFC 4575 §5.7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EndpointStatus {
    Pending,
    DialingOut,
    DialingIn,
    Alerting,
    OnHold,
    Connected,
    MutedViaFocus,
    Disconnecting,
    Disconnected,
}

impl EndpointStatus {
    /// As in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::DialingOut => "dialing-out",
            Self::DialingIn => "dialing-in",
            Self::Alerting => "alerting",
            Self::OnHold => "on-hold",
            Self::Connected => "connected",
            Self::MutedViaFocus => "muted-via-focus",
            Self::Disconnecting => "disconnecting",
            Self::Disconnected => "disconnected",
        }
    }
}

/// RFC 4575 §5.7.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JoiningMethod {
    DialedIn,
    DialedOut,
    FocusOwner,
}

impl JoiningMethod {
    /// As in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DialedIn => "dialed-in",
            Self::DialedOut => "dialed-out",
            Self::FocusOwner => "focus-owner",
        }
    }
}

/// One stream of a device (RFC 4575 §5.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Unique in the endpoint: the m-line index or mid.
    pub id: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// a=label (RFC 4574), where there is one.
    pub label: Option<String>,
    /// The CSRC that names this participant in what the others receive. (RFC 4575 calls for the SSRC, which
    /// behind a mixer that writes SSRCs of its own means the contributing source.)
    pub src_id: Option<u32>,
    /// As agreed in SDP, from the participant's side.
    pub direction: Direction,
    /// Muted by the focus or by the participant: shown as not sending.
    pub muted: bool,
}

impl Media {
    /// What counts as the stream's status: its direction without what is muted.
    #[must_use]
    pub fn status(&self) -> Direction {
        Direction::new(
            self.direction.sends() && !self.muted,
            self.direction.receives(),
        )
    }
}

/// A document that has no version yet: each subscription counts its own (RFC 4575 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    text: String,
    /// Where in `text` the version goes.
    version_at: usize,
}

impl Document {
    /// As it is sent.
    #[must_use]
    pub fn with_version(&self, version: u32) -> String {
        let (before, after) = self.text.split_at(self.version_at);
        format!("{before}{version}{after}")
    }

    /// Bytes, without the version.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no document is empty")]
    pub fn len(&self) -> usize {
        self.text.len()
    }
}

/// One document of those that take a subscriber from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// To be sent.
    pub document: Document,
    /// How far it goes, where more follows in another part.
    pub rest: Option<Reached>,
}

/// What the parts so far have told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Entity of the last user.
    user: String,
    /// Entity of that user's last endpoint, where more of them follow.
    endpoint: Option<String>,
}

/// The next part of what takes a subscriber from `told` to `target`, about `room` bytes long: with 1,000
/// participants the whole list is more than a datagram, and more than any element takes from strangers.
///
/// With `told` absent the first part is a full document; RFC 4575 §4.4 has the subscriber forget all it knew. It
/// says how many users there are, and the parts after it are partial documents that name the rest. So a
/// subscriber needs to know nothing of parts: it sees people come in.
///
/// A user with more devices than fit is told in parts too: those after the first are users of state "partial" that
/// name the endpoints to be added (RFC 4575 §4.6). The first is of state "full" where the subscriber may know
/// endpoints that are gone, which has it forget them, else "partial": these are not all.
///
/// `after` is what the part before left in [`Part::rest`]; `None` for the first. `None` comes back where
/// nothing differs.
#[must_use]
pub fn part(
    told: Option<&Conference>,
    target: &Conference,
    after: Option<&Reached>,
    room: usize,
) -> Option<Part> {
    let told = told.filter(|told| !is_mostly_new(told, target));
    let mut xml = Writer::default();
    let first = after.is_none();
    let full = told.is_none() && first;
    xml.root(&target.entity, if full { "full" } else { "partial" });
    let describes = first
        && told.is_none_or(|told| {
            (&told.title, told.maximum_user_count) != (&target.title, target.maximum_user_count)
        });
    let states = first
        && told.is_none_or(|told| {
            (told.active, told.locked, told.users.len())
                != (target.active, target.locked, target.users.len())
        });
    if describes {
        description(&mut xml, target);
    }
    if states {
        state(&mut xml, target);
    }
    let mut changes = changes(told, target, after).peekable();
    let users = full || changes.peek().is_some();
    if !describes && !states && !users {
        return None;
    }
    let mut rest = None;
    let mut opened = 0;
    if full {
        xml.open("users", &[]);
        opened = xml.out.len() - 1;
    } else if users {
        xml.open("users", &[("state", "partial")]);
    }
    let mut last: Option<&str> = None;
    for change in changes {
        let before = xml.out.len();
        let cut_after = match change.user {
            Some(user) => write_user(&mut xml, &change, user, told.is_none(), room),
            None => {
                xml.empty("user", &[("entity", change.entity), ("state", "deleted")]);
                None
            }
        };
        // One goes in whatever it takes, else there would be no end.
        if let Some(last) = last
            && (cut_after.is_some() || xml.out.len() > room)
        {
            xml.out.truncate(before);
            rest = Some(Reached {
                user: last.to_owned(),
                endpoint: None,
            });
            break;
        }
        if let Some(endpoint) = cut_after {
            rest = Some(Reached {
                user: change.entity.to_owned(),
                endpoint: Some(endpoint.to_owned()),
            });
            break;
        }
        last = Some(change.entity);
    }
    if full && rest.is_some() {
        xml.out.insert_str(opened, " state=\"partial\""); // not all of them (RFC 4575 §4.6)
    }
    if users {
        xml.close("users");
    }
    Some(Part {
        document: xml.finish(),
        rest,
    })
}

/// A user that is not as told.
struct Change<'a> {
    entity: &'a str,
    /// `None`: gone.
    user: Option<&'a User>,
    /// Its endpoints up to this one have been told.
    told_to: Option<String>,
}

/// Users by entity that are not as told, from where `after` left off. Users are replaced whole: smaller steps save
/// little and a subscriber has less to get wrong.
fn changes<'a>(
    told: Option<&'a Conference>,
    target: &'a Conference,
    after: Option<&Reached>,
) -> impl Iterator<Item = Change<'a>> {
    let mut told_to = after.and_then(|reached| reached.endpoint.clone());
    let begin = match after {
        None => Bound::Unbounded,
        Some(reached) if told_to.is_some() => Bound::Included(reached.user.as_str()),
        Some(reached) => Bound::Excluded(reached.user.as_str()),
    };
    let range = (begin, Bound::Unbounded);
    let mut changed = target
        .users
        .range::<str, _>(range)
        .filter(move |(entity, user)| {
            told.is_none_or(|told| told.users.get(*entity) != Some(*user))
        })
        .peekable();
    let mut gone = told
        .into_iter()
        .flat_map(move |told| told.users.range::<str, _>(range))
        .filter(|(entity, _)| !target.users.contains_key(*entity))
        .peekable();
    std::iter::from_fn(move || {
        let leaves = match (changed.peek(), gone.peek()) {
            (Some((stays, _)), Some((leaves, _))) => leaves < stays,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let next = if leaves {
            gone.next().map(|(entity, _)| (entity, None))
        } else {
            changed.next().map(|(entity, user)| (entity, Some(user)))
        };
        next.map(|(entity, user)| Change {
            entity,
            user,
            // Only the first one was begun.
            told_to: told_to.take(),
        })
    })
}

/// Whether the whole list is shorter than what changed. It must come out the same for every part of a series,
/// as it does where `told` and `target` are the same.
fn is_mostly_new(told: &Conference, target: &Conference) -> bool {
    changes(Some(told), target, None).count() > target.users.len()
}

/// The end of a meeting (RFC 4575 §5.1: state "deleted").
#[must_use]
pub fn deleted(entity: &str) -> Document {
    let mut xml = Writer::default();
    xml.root(entity, "deleted");
    xml.finish()
}

fn description(xml: &mut Writer, conference: &Conference) {
    xml.open("conference-description", &[]);
    if !conference.title.is_empty() {
        xml.text("display-text", &conference.title);
        xml.text("subject", &conference.title);
    }
    if let Some(count) = conference.maximum_user_count {
        xml.text("maximum-user-count", &count.to_string());
    }
    xml.close("conference-description");
}

fn state(xml: &mut Writer, conference: &Conference) {
    xml.open("conference-state", &[]);
    xml.text("user-count", &conference.users.len().to_string());
    xml.text("active", boolean(conference.active));
    xml.text("locked", boolean(conference.locked));
    xml.close("conference-state");
}

fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Elements in the order of the schema (RFC 4575 §6), which is a sequence. Comes back with the last endpoint
/// written where more do not fit. `fresh`: the subscriber knows no endpoints of it that are gone.
fn write_user<'a>(
    xml: &mut Writer,
    change: &Change<'_>,
    user: &'a User,
    fresh: bool,
    room: usize,
) -> Option<&'a str> {
    const FULL: &str = "full";
    let begun = change.told_to.is_some();
    let state = if begun { "partial" } else { FULL };
    xml.open("user", &[("entity", change.entity), ("state", state)]);
    let state_ends = xml.out.len() - "\">".len();
    if !begun {
        if !user.display_text.is_empty() {
            xml.text("display-text", &user.display_text);
        }
        if !user.roles.is_empty() {
            xml.open("roles", &[]);
            for role in &user.roles {
                xml.text("entry", role);
            }
            xml.close("roles");
        }
    }
    let from = match &change.told_to {
        Some(told_to) => Bound::Excluded(told_to.as_str()),
        None => Bound::Unbounded,
    };
    let mut last: Option<&str> = None;
    let mut cut_after = None;
    for (entity, endpoint) in user.endpoints.range::<str, _>((from, Bound::Unbounded)) {
        let before = xml.out.len();
        write_endpoint(xml, entity, endpoint);
        if last.is_some() && xml.out.len() > room {
            xml.out.truncate(before);
            cut_after = last;
            break;
        }
        last = Some(entity);
    }
    if cut_after.is_some() && fresh && !begun {
        xml.out
            .replace_range(state_ends - FULL.len()..state_ends, "partial");
    }
    xml.close("user");
    cut_after
}

fn write_endpoint(xml: &mut Writer, entity: &str, endpoint: &Endpoint) {
    xml.open("endpoint", &[("entity", entity), ("state", "full")]);
    if !endpoint.display_text.is_empty() {
        xml.text("display-text", &endpoint.display_text);
    }
    xml.text("status", endpoint.status.as_str());
    xml.text("joining-method", endpoint.joining_method.as_str());
    if let Some(joined) = endpoint.joined {
        xml.open("joining-info", &[]);
        xml.text("when", &date_time(joined));
        xml.close("joining-info");
    }
    for media in &endpoint.media {
        xml.open("media", &[("id", &media.id), ("state", "full")]);
        xml.text("type", media.kind.as_str());
        if let Some(label) = &media.label {
            xml.text("label", label);
        }
        if let Some(source) = media.src_id {
            xml.text("src-id", &source.to_string());
        }
        xml.text("status", media.status().as_str());
        xml.close("media");
    }
    xml.close("endpoint");
}

/// XML Schema dateTime in UTC.
fn date_time(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, counted from 1 March of year 0, so that the leap day is the
    // last of a year; 400 years are 146,097 days.
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        time / 3_600,
        time / 60 % 60,
        time % 60
    )
}

/// XML text in the making.
#[derive(Default)]
struct Writer {
    out: String,
    version_at: usize,
}

impl Writer {
    fn root(&mut self, entity: &str, state: &str) {
        self.out
            .push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.open(
            "conference-info",
            &[
                ("xmlns", "urn:ietf:params:xml:ns:conference-info"),
                ("entity", entity),
                ("state", state),
                ("version", ""),
            ],
        );
        // Behind it are a quotation mark and the end of the tag.
        self.version_at = self.out.len() - "\">".len();
    }

    fn finish(mut self) -> Document {
        self.close("conference-info");
        self.out.push('\n');
        Document {
            text: self.out,
            version_at: self.version_at,
        }
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, &str)], end: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "<{name}");
        for (name, value) in attributes {
            let _ = write!(self.out, " {name}=\"{}\"", Escaped(value));
        }
        self.out.push_str(end);
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes, ">");
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes, "/>");
    }

    fn close(&mut self, name: &str) {
        let _ = write!(self.out, "</{name}>");
    }

    fn text(&mut self, name: &str, value: &str) {
        let _ = write!(self.out, "<{name}>{}</{name}>", Escaped(value));
    }
}

/// Text for content and attributes; characters XML 1.0 has no way to write (§2.2) become U+FFFD.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&apos;")?,
                // Written as they are, an attribute would turn them into blanks.
                '\t' | '\n' | '\r' => write!(f, "&#{};", u32::from(c))?,
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Spreads out events: the first goes at once, those after it when the interval is over, as one.
#[derive(Clone, Debug)]
pub struct Throttle {
    interval: Duration,
    last: Option<Instant>,
    pending: bool,
}

impl Throttle {
    /// At most one in `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: None,
            pending: false,
        }
    }

    /// There is something to tell.
    pub fn on_changed(&mut self) {
        self.pending = true;
    }

    /// When it may be told; `None` where there is nothing. `now` where it may be told already.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.pending.then(|| match self.last {
            Some(last) => last
                .checked_add(self.interval)
                .map_or(now, |at| at.max(now)),
            None => now,
        })
    }

    /// True, and done, where there is something to tell and it may be told now.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.poll_timeout(now).is_some_and(|at| at <= now);
        if due {
            self.pending = false;
            self.last = Some(now);
        }
        due
    }
}

/// The states of one meeting that its subscribers are told of, one after the other.
#[derive(Clone, Debug)]
pub struct Feed {
    published: Arc<Conference>,
    throttle: Throttle,
}

impl Feed {
    /// A feed that has published `conference`.
    #[must_use]
    pub fn new(conference: Conference, interval: Duration) -> Self {
        Self {
            published: Arc::new(conference),
            throttle: Throttle::new(interval),
        }
    }

    /// What every subscriber is to know by now. What changed since follows with the next one.
    #[must_use]
    pub fn published(&self) -> &Arc<Conference> {
        &self.published
    }

    /// The conference changed, or may have.
    pub fn on_changed(&mut self) {
        self.throttle.on_changed();
    }

    /// When to call [`Feed::publish`] again.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.throttle.poll_timeout(now)
    }

    /// Publishes the state of things where that is due and something differs; comes back with what was
    /// published before.
    pub fn publish(&mut self, current: &Conference, now: Instant) -> Option<Arc<Conference>> {
        let before = self.throttle.clone();
        if !self.throttle.take(now) {
            return None;
        }
        if *self.published == *current {
            // Nothing is told, so the next change need not wait.
            self.throttle.last = before.last;
            return None;
        }
        let published = Arc::new(current.clone());
        Some(std::mem::replace(&mut self.published, published))
    }
}

#[cfg(test)]
pub(crate) mod tests;
