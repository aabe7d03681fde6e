//! Who may join what: by configuration, by the first call to a free name, or through the factory.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip::{HeaderName, Message, Uri};

use crate::config::{FocusConfig, MeetingConfig};
use crate::ids::MeetingId;
use crate::refusal::Refusal;
use crate::rng::Rng;

/// User names that registrars give to guests begin so.
const GUEST_PREFIX: &str = "guest-";

/// Longest display name kept, bytes.
const MAX_DISPLAY: usize = 128;

/// Retry-After of a member that is full or drains.
const RETRY_FULL: Duration = Duration::from_secs(10);

/// Who calls, as the registrar vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Address of record, `sip:user@host`.
    pub uri: String,
    /// Display name, may be empty.
    pub display: String,
    /// Not a registered user.
    pub guest: bool,
}

impl Identity {
    /// From P-Asserted-Identity (RFC 3325), else From.
    ///
    /// # Errors
    /// 400 where the header does not parse.
    pub(crate) fn of(request: &Message) -> Result<Self, Refusal> {
        let bad = |_| Refusal::new(400, "Malformed P-Asserted-Identity or From");
        let from = request.from().map_err(bad)?;
        let asserted = request
            .addresses(HeaderName::PAssertedIdentity)
            .map_err(bad)?
            .into_iter()
            .find(|a| a.uri.scheme.starts_with("sip"));
        // What a registrar did not assert is a stranger's word: let in as a guest, if at all.
        let guest = asserted
            .as_ref()
            .is_none_or(|a| a.uri.user.starts_with(GUEST_PREFIX));
        let mut display = from.display.clone();
        let uri = match asserted {
            Some(a) => {
                if display.is_empty() {
                    display.clone_from(&a.display);
                }
                a.uri.aor()
            }
            None => from.uri.aor(),
        };
        let mut end = display.len().min(MAX_DISPLAY);
        while !display.is_char_boundary(end) {
            end -= 1;
        }
        display.truncate(end);
        display.retain(|c| !c.is_control());
        Ok(Self {
            uri,
            display,
            guest,
        })
    }
}

/// How a meeting comes to be; decides when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeetingKind {
    /// Named in the configuration: may be called at any time.
    Configured,
    /// Brought into being by its first call, ends with its last participant.
    FirstCall,
    /// Made by the factory URI (RFC 4579 §5.4), ends with its last participant.
    Factory,
}

/// A meeting that a call may go to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) id: MeetingId,
    pub(crate) kind: MeetingKind,
    pub(crate) config: MeetingConfig,
}

/// What the focus holds now; admission depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) meetings: usize,
    pub(crate) dialogs: usize,
    pub(crate) draining: bool,
}

/// The meeting a request would enter, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It is to be made.
    New,
    /// Nobody is in it, or about to be; some watch it.
    Empty,
    /// It has participants.
    Running,
}

/// Whether a request comes from a registrar.
pub(crate) fn is_trusted(config: &FocusConfig, remote: IpAddr) -> bool {
    let remote = remote.to_canonical();
    config.trusted.iter().any(|net| net.contains(&remote))
}

/// Whether a host is one of ours; IPv6 addresses may have their brackets or not.
fn is_our_host(config: &FocusConfig, host: &str) -> bool {
    let bare = |host: &str| host.trim_matches(['[', ']']).to_ascii_lowercase();
    let asked = bare(host);
    std::iter::once(&config.domain)
        .chain(&config.aliases)
        .any(|own| bare(own) == asked)
}

/// The meeting that a Request-URI names. `live` tells of meetings that exist now, with their kind.
///
/// # Errors
/// 404 with a reason, 416 for a scheme we do not know, 400.
pub(crate) fn target(
    config: &FocusConfig,
    request_uri: &str,
    live: impl Fn(&MeetingId) -> Option<(MeetingKind, MeetingConfig)>,
    rng: &mut Rng,
) -> Result<Target, Refusal> {
    let uri = Uri::parse(request_uri)
        .map_err(|e| Refusal::new(400, format!("Bad Request-URI: {}", e.0)))?;
    if !matches!(uri.scheme.as_str(), "sip" | "sips") {
        return Err(Refusal::new(416, "Meetings have sip: or sips: addresses"));
    }
    if !is_our_host(config, &uri.host) {
        return Err(Refusal::new(
            404,
            format!("{} is not served here", uri.host),
        ));
    }
    let user = uri.user_decoded().unwrap_or_default();
    let Some(id) = MeetingId::new(&user) else {
        return Err(Refusal::new(404, "No meeting can have this name"));
    };
    if let Some((factory, template)) = &config.factory
        && *factory == id
    {
        let mut fresh = template.clone();
        if fresh.title.is_empty() {
            fresh.title = "Ad-hoc meeting".into();
        }
        let name = format!("m{:016x}", rng.bits());
        return Ok(Target {
            id: MeetingId::new(&name).expect("hex digits make a meeting name"),
            kind: MeetingKind::Factory,
            config: fresh,
        });
    }
    if let Some((kind, config)) = live(&id) {
        return Ok(Target { id, kind, config });
    }
    if let Some(found) = config.meetings.get(&id) {
        return Ok(Target {
            id,
            kind: MeetingKind::Configured,
            config: found.clone(),
        });
    }
    match &config.first_call {
        Some(template) => {
            let mut fresh = template.clone();
            if fresh.title.is_empty() {
                fresh.title = id.to_string();
            }
            Ok(Target {
                id,
                kind: MeetingKind::FirstCall,
                config: fresh,
            })
        }
        None => Err(Refusal::new(404, format!("There is no meeting {id}"))),
    }
}

/// Whether somebody may join (or watch) a meeting.
///
/// # Errors
/// 403 or 603 with a reason.
pub(crate) fn may_enter(target: &Target, who: &Identity) -> Result<(), Refusal> {
    if !target.config.open {
        return Err(Refusal::new(
            603,
            format!("The meeting {} is closed", target.id),
        ));
    }
    if who.guest && !target.config.guests {
        return Err(Refusal::new(
            403,
            "This meeting takes no guests: sign in with a registered account",
        ));
    }
    let allowed = &target.config.allowed;
    if !allowed.is_empty() && !allowed.iter().any(|a| a.eq_ignore_ascii_case(&who.uri)) {
        return Err(Refusal::new(403, "You are not on the list of this meeting"));
    }
    Ok(())
}

/// Whether this member takes one more dialog, in a meeting that is `entered`.
///
/// # Errors
/// 503 with Retry-After.
pub(crate) fn has_room(config: &FocusConfig, load: Load, entered: Entered) -> Result<(), Refusal> {
    if load.dialogs >= config.max_dialogs {
        return Err(Refusal::unavailable(
            "This server carries as many calls as it can",
            RETRY_FULL,
        ));
    }
    // One that only waits for people would keep this server from its end as a new one would.
    if entered != Entered::Running && load.draining {
        return Err(Refusal::unavailable(
            "This server is about to stop and takes no new meeting",
            RETRY_FULL,
        ));
    }
    if entered == Entered::New && load.meetings >= config.max_meetings {
        return Err(Refusal::unavailable(
            "This server carries as many meetings as it can",
            RETRY_FULL,
        ));
    }
    Ok(())
}

/// Whether a meeting takes one more participant.
///
/// # Errors
/// 486 with a reason.
pub(crate) fn has_seat(config: &MeetingConfig, participants: usize) -> Result<(), Refusal> {
    if participants >= config.max_participants {
        return Err(Refusal::new(
            486,
            format!(
                "The meeting is full: it takes {} participants",
                config.max_participants
            ),
        ));
    }
    Ok(())
}
