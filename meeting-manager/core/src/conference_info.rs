//! Conference-info documents (RFC 4575): who is in a meeting, in which role, and which CSRC names them.
//!
//! [`Conference`] is the model. [`Feed`] turns its changes into documents: one version line for the whole
//! meeting, so that a change is put into words once, however many subscribe.
//!
//! ```text
//!              on_changed            now >= due             on_changed
//!   ┌───────┐ ────────────► ┌─────┐ ───────────► ┌───────┐ ───────────► ┌─────┐
//!   │ quiet │               │ due │  document    │ quiet │              │ due │
//!   └───────┘ ◄──────────── └─────┘              └───────┘              └─────┘
//!              nothing differs       due = time of the last document + interval
//! ```
//!
//! A subscriber gets [`Feed::full`] first and every document of [`Feed::poll_document`] after that. Then each
//! document it sees is one version above the one before, which is how it notices a gap (RFC 4575 §4.4).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use sip::offer_answer::{Direction, MediaKind};

/// The MIME type of the documents.
pub const CONTENT_TYPE: &str = "application/conference-info+xml";

/// The event package's name in Event and Allow-Events.
pub const EVENT: &str = "conference";

/// Least time between two documents of a meeting. RFC 4575 §3.9 asks for at most one in five seconds of
/// networks in general; a list that lags behind the media by so much confuses people, and a document of a
/// join is small. Raise it to save signalling in meetings with many comings and goings.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(500);

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

/// The whole state as a document (RFC 4575 §4.2).
#[must_use]
pub fn full(conference: &Conference, version: u32) -> String {
    let mut xml = Writer::default();
    xml.root(&conference.entity, "full", version);
    description(&mut xml, conference);
    state(&mut xml, conference);
    xml.open("users", &[]);
    for (entity, user) in &conference.users {
        write_user(&mut xml, entity, user);
    }
    xml.close("users");
    xml.finish()
}

/// What changed, as a document; `None` where nothing did. Users are replaced whole: smaller steps save little
/// and a subscriber has less to get wrong.
#[must_use]
pub fn partial(previous: &Conference, current: &Conference, version: u32) -> Option<String> {
    let changed = || {
        current
            .users
            .iter()
            .filter(|(entity, user)| previous.users.get(*entity) != Some(user))
    };
    let gone = || {
        previous
            .users
            .keys()
            .filter(|entity| !current.users.contains_key(*entity))
    };
    let describes = (&previous.title, previous.maximum_user_count)
        != (&current.title, current.maximum_user_count);
    let states = (previous.active, previous.locked, previous.users.len())
        != (current.active, current.locked, current.users.len());
    let users = changed().next().is_some() || gone().next().is_some();
    if !describes && !states && !users {
        return None;
    }
    let mut xml = Writer::default();
    xml.root(&current.entity, "partial", version);
    if describes {
        description(&mut xml, current);
    }
    if states {
        state(&mut xml, current);
    }
    if users {
        xml.open("users", &[("state", "partial")]);
        for (entity, user) in changed() {
            write_user(&mut xml, entity, user);
        }
        for entity in gone() {
            xml.empty("user", &[("entity", entity), ("state", "deleted")]);
        }
        xml.close("users");
    }
    Some(xml.finish())
}

/// What changed between two states: a partial document, or a full one where that is no longer (most users
/// changed); `None` where nothing did.
#[must_use]
pub fn diff(previous: &Conference, current: &Conference, version: u32) -> Option<String> {
    let partial = partial(previous, current, version)?;
    let full = full(current, version);
    Some(if full.len() <= partial.len() {
        full
    } else {
        partial
    })
}

/// The end of a meeting (RFC 4575 §5.1: state "deleted").
#[must_use]
pub fn deleted(entity: &str, version: u32) -> String {
    let mut xml = Writer::default();
    xml.root(entity, "deleted", version);
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

/// Elements in the order of the schema (RFC 4575 §6), which is a sequence.
fn write_user(xml: &mut Writer, entity: &str, user: &User) {
    xml.open("user", &[("entity", entity), ("state", "full")]);
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
    for (entity, endpoint) in &user.endpoints {
        write_endpoint(xml, entity, endpoint);
    }
    xml.close("user");
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
}

impl Writer {
    fn root(&mut self, entity: &str, state: &str, version: u32) {
        self.out
            .push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.open(
            "conference-info",
            &[
                ("xmlns", "urn:ietf:params:xml:ns:conference-info"),
                ("entity", entity),
                ("state", state),
                ("version", &version.to_string()),
            ],
        );
    }

    fn finish(mut self) -> String {
        self.close("conference-info");
        self.out.push('\n');
        self.out
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

/// The documents of one meeting, for all of its subscribers.
#[derive(Clone, Debug)]
pub struct Feed {
    /// As told by the last document.
    published: Conference,
    version: u32,
    throttle: Throttle,
}

impl Feed {
    /// A feed whose first document has `version`. A new owner of a meeting goes on above the version the
    /// last one used, and gives every subscriber [`Feed::full`].
    #[must_use]
    pub fn new(conference: Conference, version: u32, interval: Duration) -> Self {
        Self {
            published: conference,
            version,
            throttle: Throttle::new(interval),
        }
    }

    /// Version of the last document.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// For a new subscriber, or one that saw a gap: all that was told so far. What changed since follows
    /// with the next document, to this one as to everybody.
    #[must_use]
    pub fn full(&self) -> String {
        full(&self.published, self.version)
    }

    /// The conference changed, or may have.
    pub fn on_changed(&mut self) {
        self.throttle.on_changed();
    }

    /// When to call [`Feed::poll_document`] again.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.throttle.poll_timeout(now)
    }

    /// The document to send to every subscriber now, if one is due and something differs.
    pub fn poll_document(&mut self, current: &Conference, now: Instant) -> Option<String> {
        let before = self.throttle.clone();
        if !self.throttle.take(now) {
            return None;
        }
        let version = self.version.wrapping_add(1);
        let Some(document) = diff(&self.published, current, version) else {
            // Nothing was told, so the next change need not wait.
            self.throttle.last = before.last;
            return None;
        };
        self.version = version;
        self.published = current.clone();
        Some(document)
    }

    /// The last document: the meeting is over.
    pub fn end(&mut self) -> String {
        self.version = self.version.wrapping_add(1);
        deleted(&self.published.entity, self.version)
    }
}

#[cfg(test)]
mod tests;
