//! The participants: a user agent and its media for each meeting, and those who join anew all the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::load::leg::Protection;
use ::load::media::schedule::Schedule;
use ::load::media::{Engine, EngineConfig, MediaReport};
use ::load::ua::{self, Account, Description, Event, Phone, SipOptions, Transport};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use transport::tls::Trust;

/// Joins that one group of probes may make.
const MOST_PROBES: u32 = 20_000;

/// Name and password of the account that all join with.
pub const ACCOUNT: (&str, &str) = ("everybody", "chaos");

/// Where a participant stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// INVITE is under way.
    Joining,
    /// In the meeting.
    Joined,
    /// Not let in.
    Refused(String),
    /// The call ended, and not by us.
    Ended(String),
    /// Gone by its own will.
    Left,
}

/// What is known of the participants of a meeting.
#[derive(Debug, Default)]
struct Known {
    stages: BTreeMap<u32, (Stage, Instant)>,
    /// The last answer within a call.
    answers: BTreeMap<u32, (Option<u16>, Instant)>,
    /// Whoever was let in stays noted as such: the group is there to measure joins.
    only_joins: bool,
}

/// The participants of one meeting.
pub struct Group {
    /// Their meeting.
    pub meeting: String,
    phone: Phone,
    engine: Arc<Engine>,
    begun: Instant,
    known: Arc<Mutex<Known>>,
    pump: JoinHandle<()>,
    speakers: u32,
    seed: u64,
    talk_begun: Mutex<Option<Instant>>,
    protection: Protection,
}

/// What was measured of a group's media.
pub struct Heard {
    /// When the engine's clock began.
    pub begun: Instant,
    /// Participants below that number talk.
    pub speakers: u32,
    /// From when until when somebody talks, in order; turns may overlap.
    pub talk: Vec<(Instant, Instant)>,
    /// The numbers.
    pub media: MediaReport,
}

/// Who is wanted.
pub struct Wanted<'a> {
    /// Which meeting.
    pub meeting: &'a str,
    /// Through which registrar.
    pub registrar: SocketAddr,
    /// From which address.
    pub from: IpAddr,
    /// How many, at most.
    pub participants: u32,
    /// How many of them talk.
    pub speakers: u32,
    /// How media is protected.
    pub protection: Protection,
}

impl Group {
    /// Nobody in it yet.
    ///
    /// # Errors
    /// Sockets or threads cannot be had.
    pub async fn start(wanted: Wanted<'_>) -> Result<Self, String> {
        let uri = format!("sip:{}@{}", wanted.meeting, super::cluster::DOMAIN);
        let sip = SipOptions {
            meeting: ua::meeting(&uri)?,
            proxy: Some(wanted.registrar.to_string()),
            transport: Some(Transport::Udp),
            bind: Some(wanted.from),
            trust: Trust::System,
        };
        let (phone, events) = Phone::start(&sip).await.map_err(|e| e.to_string())?;
        let seed = u64::from(rand::random::<u32>());
        let engine = Engine::start(EngineConfig {
            protection: wanted.protection,
            video: None,
            speakers: wanted.speakers as usize,
            participants: wanted.participants as usize,
            threads: 1,
            seed,
            bind: wanted.from,
        });
        let engine = Arc::new(engine.map_err(|e| format!("media: {e}"))?);
        let begun = Instant::now();
        let known = Arc::new(Mutex::new(Known::default()));
        let pump = tokio::spawn(pump(events, Arc::clone(&engine), Arc::clone(&known)));
        Ok(Self {
            meeting: wanted.meeting.to_owned(),
            phone,
            engine,
            begun,
            known,
            pump,
            speakers: wanted.speakers,
            seed,
            talk_begun: Mutex::new(None),
            protection: wanted.protection,
        })
    }

    /// For joins that are measured: whoever was let in stays noted so after it has left.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub async fn probes(
        meeting: &str,
        registrar: SocketAddr,
        from: IpAddr,
    ) -> Result<Self, String> {
        let wanted = Wanted {
            meeting,
            registrar,
            from,
            participants: MOST_PROBES,
            speakers: 0,
            protection: Protection::Plain,
        };
        let group = Self::start(wanted).await?;
        group.known.lock().only_joins = true;
        Ok(group)
    }

    /// A participant joins.
    ///
    /// # Errors
    /// It cannot have a socket.
    pub fn join(&self, participant: u32) -> Result<(), String> {
        let local = self.engine.open(participant);
        let local = local.map_err(|e| format!("a socket for media: {e}"))?;
        let speaks = participant < self.speakers;
        let description = Description::new(local, self.protection, speaks, rand::random());
        let stage = (Stage::Joining, Instant::now());
        self.known.lock().stages.insert(participant, stage);
        let account = Account {
            user: ACCOUNT.0.into(),
            password: ACCOUNT.1.into(),
        };
        self.phone.join(participant, Some(account), description);
        Ok(())
    }

    /// They begin to talk.
    pub fn begin(&self) {
        *self.talk_begun.lock() = Some(Instant::now());
        self.engine.begin();
    }

    /// Where all stand, and since when.
    pub fn stages(&self) -> Vec<(u32, Stage, Instant)> {
        let known = self.known.lock();
        let all = known.stages.iter();
        all.map(|(who, (stage, at))| (*who, stage.clone(), *at))
            .collect()
    }

    /// Those in the meeting.
    pub fn joined(&self) -> Vec<u32> {
        let all = self.stages().into_iter();
        all.filter(|(_, stage, _)| *stage == Stage::Joined)
            .map(|(who, ..)| who)
            .collect()
    }

    /// Asks for an answer within the call.
    pub fn ask(&self, participant: u32) {
        self.phone.ask(participant);
    }

    /// Forgets answers so far.
    pub fn forget_answers(&self) {
        self.known.lock().answers.clear();
    }

    /// The last answer to [`Self::ask`], and when it came.
    pub fn answer(&self, participant: u32) -> Option<(Option<u16>, Instant)> {
        self.known.lock().answers.get(&participant).copied()
    }

    /// Those who have come in leave.
    pub fn send_off(&self) {
        for who in self.joined() {
            self.phone.leave(who);
        }
    }

    /// All who are there leave.
    pub fn leave(&self) {
        self.engine.leaving();
        for (who, stage, _) in self.stages() {
            if matches!(stage, Stage::Joined | Stage::Joining) {
                self.phone.leave(who);
            }
        }
    }

    /// Ends it.
    pub async fn finish(self) -> Heard {
        self.phone.close().await;
        // its events have ended with the phone
        let _ = self.pump.await;
        let begun = *self.talk_begun.lock();
        let talk = begun.map_or_else(Vec::new, |begun| {
            let until = begun.elapsed();
            Schedule::new(self.seed, self.speakers)
                .take_while(|spurt| spurt.begin < until)
                .map(|spurt| (begun + spurt.begin, begun + spurt.end))
                .collect()
        });
        let media = Arc::into_inner(self.engine).map(Engine::finish);
        Heard {
            begun: self.begun,
            speakers: self.speakers,
            talk,
            media: media.unwrap_or_default(),
        }
    }
}

async fn pump(
    mut events: mpsc::UnboundedReceiver<Event>,
    engine: Arc<Engine>,
    known: Arc<Mutex<Known>>,
) {
    while let Some(event) = events.recv().await {
        let now = Instant::now();
        let (who, stage) = match event {
            Event::Joined {
                participant,
                remote,
                ..
            } => {
                if let Err(e) = engine.connect(participant, remote) {
                    tracing::warn!("media: {e}");
                }
                (participant, Stage::Joined)
            }
            Event::Changed {
                participant,
                remote,
            } => {
                if let Err(e) = engine.connect(participant, remote) {
                    tracing::warn!("media: {e}");
                }
                continue;
            }
            Event::Answered {
                participant,
                status,
            } => {
                known.lock().answers.insert(participant, (status, now));
                continue;
            }
            Event::Refused {
                participant,
                refusal,
            } => {
                let status = refusal.status.map_or(String::new(), |s| format!("{s} "));
                let told = format!("{status}{}", refusal.reason);
                (participant, Stage::Refused(told))
            }
            Event::Ended {
                participant,
                reason,
            } => (participant, Stage::Ended(reason)),
            Event::Left { participant } => (participant, Stage::Left),
            _ => continue,
        };
        if !matches!(stage, Stage::Joined) {
            engine.close(who);
        }
        let mut known = known.lock();
        let only_joins = known.only_joins;
        match known.stages.get(&who) {
            // a probe that was let in has told all it is for
            Some((Stage::Joined, _)) if only_joins && stage == Stage::Left => {}
            _ => {
                known.stages.insert(who, (stage, now));
            }
        }
    }
}

/// Waits until `is_true`, looking every 20 ms; whether it became so.
pub async fn eventually(within: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !is_true() {
        if begin.elapsed() > within {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}
