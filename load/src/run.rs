//! One run: opens, joins at a rate, lets speak for the duration, leaves, collects.

mod fan_out;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::leg::{Kind, Protection};
use crate::machine::Watch;
use crate::media::{Engine, EngineConfig, Progress};
use crate::report::thresholds;
use crate::report::{Counted, Joins, Report, Settings, errors, warnings};
use crate::ua::{self, Account, Description, Event, Phone, Refusal};

pub use options::{Error, Look, Observer, Options, Phase, Target};

/// How often the observer is told.
const LOOKS: Duration = Duration::from_millis(200);
/// How long all may take to leave: a BYE over UDP is repeated five times in this time.
const LEAVING: Duration = Duration::from_secs(8);
/// Before a refused participant knocks again, where the server names no time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Runs it. `stop` ends it early: all leave, and what was measured so far is reported.
///
/// # Errors
/// [`Error`]: there is nothing to report.
pub async fn run(
    options: Options,
    observer: &dyn Observer,
    stop: CancellationToken,
) -> Result<Report, Error> {
    match options.target.clone() {
        Target::FanOut { to, listen } => fan_out::run(&options, to, &listen, observer, stop).await,
        Target::Sip { sip, .. } => {
            let (phone, events) = Phone::start(&sip).await?;
            let engine = engine(&options, phone.home().local.ip())?;
            let mut run = Run::new(&options, engine, phone, events, observer, stop);
            let result = run.go().await;
            run.finish(result).await
        }
    }
}

/// Files open besides the sockets of legs: SIP, epoll, /proc.
const OTHER_FILES: u64 = 64;

fn engine(options: &Options, bind: std::net::IpAddr) -> Result<Engine, Error> {
    let of_a_leg = match (options.protection, options.video) {
        (Protection::Dtls, _) | (_, None) => 1,
        (_, Some(_)) => 2,
    };
    let wanted = u64::from(options.participants) * of_a_leg + OTHER_FILES;
    crate::machine::allow_open_files(wanted)
        .map_err(|allowed| Error::OpenFiles { wanted, allowed })?;
    let config = EngineConfig {
        protection: options.protection,
        video: options.video,
        speakers: options.speakers as usize,
        participants: options.participants as usize,
        threads: options.threads.max(1),
        seed: options.seed,
        bind,
    };
    Engine::start(config).map_err(Error::Media)
}

fn ticking(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// What a run has besides the media's numbers.
struct Made {
    started: SystemTime,
    /// From the start of the engine until all were there.
    joining: Duration,
    ran: Duration,
    joins: Option<Joins>,
    ended: BTreeMap<String, u64>,
    notes: Vec<String>,
    stopped: bool,
}

impl Made {
    fn report(self, options: &Options, media: crate::media::MediaReport, watch: Watch) -> Report {
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            started_unix: self
                .started
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs()),
            seconds: self.ran.as_secs_f64(),
            joining_seconds: self.joining.as_secs_f64(),
            stopped_early: self.stopped,
            settings: Settings::of(options),
            joins: self.joins,
            ended_early: self
                .ended
                .into_iter()
                .map(|(reason, count)| Counted {
                    status: None,
                    reason,
                    count,
                })
                .collect(),
            media,
            machine: watch.finish(),
            errors: BTreeMap::new(),
            warnings: self.notes,
            thresholds: Vec::new(),
            passed: true,
        };
        report.errors = errors(&report);
        let found = warnings(&report);
        report.warnings.extend(found);
        report.thresholds = thresholds::check(&options.thresholds, &report);
        report.passed = report.thresholds.iter().all(|t| t.kept);
        report
    }
}

/// A participant on the way in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Joining,
    Joined,
    Refused,
    Ended,
    Left,
}

struct Run<'a> {
    options: &'a Options,
    engine: Option<Engine>,
    phone: Option<Phone>,
    events: mpsc::UnboundedReceiver<Event>,
    observer: &'a dyn Observer,
    stop: CancellationToken,
    watch: Watch,
    phase: Phase,
    stages: Vec<Stage>,
    tried: Vec<u32>,
    /// When refused participants knock again.
    again: Vec<(Instant, u32)>,
    join_times: Vec<(f64, Duration)>,
    refusals: BTreeMap<Refusal, u64>,
    retried: u64,
    ended: BTreeMap<String, u64>,
    notes: BTreeMap<String, u64>,
    peers: BTreeSet<SocketAddr>,
    started: SystemTime,
    /// When the engine started, which its seconds are counted from.
    opened: Instant,
    first: Instant,
    begun: Option<Instant>,
    ran: Duration,
}

impl<'a> Run<'a> {
    fn new(
        options: &'a Options,
        engine: Engine,
        phone: Phone,
        events: mpsc::UnboundedReceiver<Event>,
        observer: &'a dyn Observer,
        stop: CancellationToken,
    ) -> Self {
        let participants = options.participants as usize;
        Self {
            options,
            engine: Some(engine),
            phone: Some(phone),
            events,
            observer,
            stop,
            watch: Watch::new(options.server_pid),
            phase: Phase::Registering,
            stages: vec![Stage::Waiting; participants],
            tried: vec![0; participants],
            again: Vec::new(),
            join_times: Vec::new(),
            refusals: BTreeMap::new(),
            retried: 0,
            ended: BTreeMap::new(),
            notes: BTreeMap::new(),
            peers: BTreeSet::new(),
            started: SystemTime::now(),
            opened: Instant::now(),
            first: Instant::now(),
            begun: None,
            ran: Duration::ZERO,
        }
    }

    async fn go(&mut self) -> Result<(), Error> {
        self.register().await?;
        self.join_all().await?;
        self.speak().await;
        Ok(())
    }

    /// Leaves, in whatever state it is, and makes the report.
    async fn finish(mut self, result: Result<(), Error>) -> Result<Report, Error> {
        self.leave_all().await;
        if let Some(phone) = self.phone.take() {
            phone.close().await;
        }
        result?;
        let media = self.engine.take().map(Engine::finish).unwrap_or_default();
        let joins = self.joins();
        let note = |(text, count): (&String, &u64)| match count {
            1 => text.clone(),
            n => format!("{text} ({n} times)"),
        };
        let made = Made {
            started: self.started,
            joining: self
                .begun
                .map_or(Duration::ZERO, |at| at.duration_since(self.opened)),
            ran: self.ran,
            joins: Some(joins),
            ended: self.ended,
            notes: self.notes.iter().map(note).collect(),
            stopped: self.stop.is_cancelled(),
        };
        Ok(made.report(self.options, media, self.watch))
    }

    fn joins(&self) -> Joins {
        let mut times: Vec<u64> = self
            .join_times
            .iter()
            .map(|(_, took)| took.as_micros().try_into().unwrap_or(u64::MAX))
            .collect();
        times.sort_unstable();
        Joins::new(
            self.options.participants,
            self.join_times.len() as u32,
            self.retried,
            self.refusals.iter().map(|(refusal, count)| Counted {
                status: refusal.status,
                reason: refusal.reason.clone(),
                count: *count,
            }),
            &times,
            self.join_times
                .iter()
                .map(|(at, took)| (*at, took.as_secs_f64() * 1_000.0)),
        )
    }

    fn account(&self, participant: u32) -> Option<Account> {
        let accounts = self.accounts();
        let at = (participant as usize).checked_rem(accounts.len())?;
        accounts.get(at).cloned()
    }

    fn accounts(&self) -> &[Account] {
        match &self.options.target {
            Target::Sip { accounts, .. } => accounts,
            Target::FanOut { .. } => &[],
        }
    }

    fn look(&self) {
        let count = |stage| self.stages.iter().filter(|s| **s == stage).count() as u32;
        self.observer.look(&Look {
            phase: self.phase,
            participants: self.options.participants,
            joined: count(Stage::Joined),
            refused: count(Stage::Refused),
            elapsed: self.begun.map_or(Duration::ZERO, |at| at.elapsed()),
            duration: self.options.duration,
            media: self
                .engine
                .as_ref()
                .map_or_else(Progress::default, Engine::progress),
        });
    }

    // ---- registering

    async fn register(&mut self) -> Result<(), Error> {
        let wanted = matches!(&self.options.target, Target::Sip { register: true, .. });
        if !wanted {
            return Ok(());
        }
        let used = self
            .accounts()
            .iter()
            .take(self.options.participants as usize);
        let distinct: BTreeSet<Account> = used.cloned().collect();
        let mut open = distinct.len();
        let mut registered = 0;
        if let Some(phone) = &self.phone {
            for account in distinct {
                phone.register(account);
            }
        }
        let mut failures: BTreeMap<String, u64> = BTreeMap::new();
        let mut looks = ticking(LOOKS);
        while open > 0 {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Registered { .. }) => {
                        registered += 1;
                        open -= 1;
                    }
                    Some(Event::NotRegistered { user, refusal }) => {
                        let told = told(&refusal);
                        *self.notes.entry(format!("{user} could not register: {told}")).or_default() += 1;
                        *failures.entry(told).or_default() += 1;
                        open -= 1;
                    }
                    Some(_) => {}
                    None => break,
                },
                _ = looks.tick() => self.look(),
                () = self.stop.cancelled() => return Err(Error::Stopped),
            }
        }
        match registered {
            0 => Err(Error::NobodyRegistered {
                why: counted(&failures),
            }),
            _ => Ok(()),
        }
    }

    // ---- joining

    async fn join_all(&mut self) -> Result<(), Error> {
        self.phase = Phase::Joining;
        self.started = SystemTime::now();
        self.first = Instant::now();
        let rate = match &self.options.target {
            Target::Sip { join_rate, .. } => *join_rate,
            Target::FanOut { .. } => 50.0,
        };
        let begin = self.first;
        let due = |n: u32| begin + Duration::from_secs_f64(f64::from(n) / rate.max(0.001));
        let mut next = 0;
        let mut looks = ticking(LOOKS);
        while !self.all_settled() {
            let mut deadline = self.again.iter().map(|(at, _)| *at).min();
            if next < self.options.participants {
                let at = due(next);
                deadline = Some(deadline.map_or(at, |d| d.min(at)));
            }
            let wake = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                () = wake => {
                    let now = Instant::now();
                    while next < self.options.participants && due(next) <= now {
                        self.join(next)?;
                        next += 1;
                    }
                    self.knock_again(now);
                }
                _ = looks.tick() => self.look(),
                () = self.stop.cancelled() => break,
            }
        }
        match (self.join_times.is_empty(), self.stop.is_cancelled()) {
            (false, _) => Ok(()),
            (true, true) => Err(Error::Stopped),
            (true, false) => Err(self.nobody_joined()),
        }
    }

    fn nobody_joined(&self) -> Error {
        let mut why: BTreeMap<String, u64> = BTreeMap::new();
        for (refusal, count) in &self.refusals {
            *why.entry(told(refusal)).or_default() += count;
        }
        let mut why = counted(&why);
        let wants = |r: &Refusal| matches!(r.status, Some(401 | 407));
        if self.refusals.keys().any(wants) {
            why += match self.accounts().is_empty() {
                true => "; the server wants an account: give --user and --password, or --users",
                false => "; the server does not take this account's password",
            };
        }
        let unreached = |r: &Refusal| r.status.is_none();
        let is_tls = self
            .phone
            .as_ref()
            .is_some_and(|phone| phone.home().transport == ua::Transport::Tls);
        if is_tls && self.refusals.keys().any(unreached) {
            why +=
                "; over TLS its certificate must be trusted, too: give --tls-ca, or --tls-insecure";
        }
        let meeting = match &self.options.target {
            Target::Sip { sip, .. } => sip.meeting.to_string(),
            Target::FanOut { to, .. } => to.to_string(),
        };
        Error::NobodyJoined { meeting, why }
    }

    fn all_settled(&self) -> bool {
        let open = |s: &Stage| matches!(s, Stage::Waiting | Stage::Joining);
        !self.stages.iter().any(open)
    }

    fn join(&mut self, participant: u32) -> Result<(), Error> {
        let (Some(engine), Some(phone)) = (&self.engine, &self.phone) else {
            return Ok(());
        };
        let local = engine.open(participant).map_err(Error::Media)?;
        let speaks = participant < self.options.speakers;
        let id = rand::random();
        let description = Description::new(local, self.options.protection, speaks, id);
        phone.join(participant, self.account(participant), description);
        self.stages[participant as usize] = Stage::Joining;
        Ok(())
    }

    fn knock_again(&mut self, now: Instant) {
        let due: Vec<u32> = self
            .again
            .iter()
            .filter(|(at, _)| *at <= now)
            .map(|(_, p)| *p)
            .collect();
        self.again.retain(|(at, _)| *at > now);
        for participant in due {
            if let Some(phone) = &self.phone {
                phone.join_again(participant);
                self.retried += 1;
            }
        }
    }

    // ---- what the user agent says

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Joined {
                participant,
                remote,
                took,
            } => {
                let at = self.first.elapsed().as_secs_f64();
                self.join_times.push((at, took));
                self.set(participant, Stage::Joined);
                self.on_agreed(participant, remote);
            }
            Event::Refused {
                participant,
                refusal,
            } => self.on_refused(participant, refusal),
            Event::Changed {
                participant,
                remote,
            } => self.on_agreed(participant, remote),
            Event::Ended {
                participant,
                reason,
            } => {
                self.set(participant, Stage::Ended);
                *self.ended.entry(reason).or_default() += 1;
                if let Some(engine) = &self.engine {
                    engine.close(participant);
                }
            }
            Event::Left { participant } => {
                self.set(participant, Stage::Left);
                if let Some(engine) = &self.engine {
                    engine.close(participant);
                }
            }
            Event::NotRegistered { user, refusal } => {
                let text = format!("{user} could not register again: {}", told(&refusal));
                *self.notes.entry(text).or_default() += 1;
            }
            Event::Registered { .. } | Event::Answered { .. } => {}
        }
    }

    fn set(&mut self, participant: u32, stage: Stage) {
        if let Some(s) = self.stages.get_mut(participant as usize) {
            *s = stage;
        }
    }

    fn on_agreed(&mut self, participant: u32, remote: crate::leg::Remote) {
        for media in &remote.media {
            self.peers.insert(media.address);
        }
        let video = remote.media.iter().any(|m| m.kind == Kind::Video);
        if self.options.video.is_some() && !video {
            let text = "the server takes no video".to_owned();
            *self.notes.entry(text).or_default() += 1;
        }
        if let Some(engine) = &self.engine
            && let Err(e) = engine.connect(participant, remote)
        {
            *self.notes.entry(format!("media: {e}")).or_default() += 1;
        }
    }

    fn on_refused(&mut self, participant: u32, refusal: Refusal) {
        let retries = match &self.options.target {
            Target::Sip { retries, .. } => *retries,
            Target::FanOut { .. } => 0,
        };
        // Only what may be otherwise in a while (RFC 3261 §21.4, §21.5).
        let passing = matches!(
            refusal.status,
            None | Some(408 | 480 | 486 | 491 | 500 | 503 | 504 | 600)
        );
        let after = refusal.retry_after.map(u64::from).map(Duration::from_secs);
        let retry = Refusal {
            retry_after: None,
            ..refusal
        };
        *self.refusals.entry(retry).or_default() += 1;
        let tried = &mut self.tried[participant as usize];
        if passing && *tried < retries && !self.stop.is_cancelled() {
            *tried += 1;
            let at = Instant::now() + after.unwrap_or(RETRY_AFTER);
            self.again.push((at, participant));
            return;
        }
        self.set(participant, Stage::Refused);
        if let Some(engine) = &self.engine {
            engine.close(participant);
        }
    }

    // ---- speaking

    async fn speak(&mut self) {
        self.phase = Phase::Running;
        if let Some(engine) = &self.engine {
            engine.begin();
        }
        if !self.watch.has_server() {
            if let Some(phone) = &self.phone {
                let sip = BTreeSet::from([phone.home().server]);
                self.watch.find("SIP", &sip);
            }
            self.watch.find("RTP", &self.peers);
        }
        self.watch.begin();
        let begin = Instant::now();
        self.begun = Some(begin);
        let mut looks = ticking(LOOKS);
        let mut seconds = ticking(Duration::from_secs(1));
        let end = begin + self.options.duration;
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                _ = looks.tick() => self.look(),
                _ = seconds.tick() => self.watch.sample(),
                () = tokio::time::sleep_until(end.into()) => break,
                () = self.stop.cancelled() => break,
            }
            // nobody is left to go on
            if !self.stages.contains(&Stage::Joined) {
                break;
            }
        }
        self.ran = begin.elapsed();
        // the last whole second, and drops while the sockets are still open
        self.watch.sample();
    }

    // ---- leaving

    async fn leave_all(&mut self) {
        self.phase = Phase::Leaving;
        let mut open: Vec<u32> = Vec::new();
        for (participant, stage) in (0..).zip(&self.stages) {
            if matches!(stage, Stage::Joined | Stage::Joining) {
                open.push(participant);
            }
        }
        // Media goes on until the BYE is answered: a server may take the end of DTLS for a failure of the call.
        if let Some(engine) = &self.engine {
            engine.leaving();
        }
        if let Some(phone) = &self.phone {
            for participant in open {
                phone.leave(participant);
            }
        }
        let end = tokio::time::Instant::now() + LEAVING;
        let mut looks = ticking(LOOKS);
        loop {
            let gone = |s: &Stage| !matches!(s, Stage::Joined | Stage::Joining);
            if self.stages.iter().all(gone) {
                break;
            }
            tokio::select! {
                event = self.events.recv() => match event {
                    // a late answer is no reason to begin anew
                    Some(Event::Changed { .. }) => {}
                    Some(event) => self.on_event(event),
                    None => break,
                },
                _ = looks.tick() => self.look(),
                () = tokio::time::sleep_until(end) => {
                    let text = "not every BYE was answered".to_owned();
                    *self.notes.entry(text).or_default() += 1;
                    break;
                }
            }
        }
        self.look();
    }
}

fn told(refusal: &Refusal) -> String {
    match refusal.status {
        Some(status) => format!("{status} {}", refusal.reason),
        None => refusal.reason.clone(),
    }
}

fn counted(reasons: &BTreeMap<String, u64>) -> String {
    let each = reasons.iter().map(|(reason, count)| match count {
        1 => reason.clone(),
        n => format!("{n} times {reason}"),
    });
    let all: Vec<String> = each.collect();
    match all.is_empty() {
        true => "no answer".to_owned(),
        false => all.join(", "),
    }
}
