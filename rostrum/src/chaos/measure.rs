//! One run of a scenario: a cluster, load on it, the fault, and what came of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::cluster::records::{ROOT, keys};
use ::cluster::store::MAX_PAGE;
use ::cluster::{EtcdConfig, Store, StoreConfig};

use super::Shape;
use parking_lot::Mutex;

use super::cluster::{Cluster, Kind};
use super::crowd::{Group, Heard, Stage, Wanted, eventually};
use super::faults::{self, Aim};
use super::net::OURSELVES;
use super::scenarios::{Fault, Scenario, Whom};

/// All may take so long to join.
const JOINING: Duration = Duration::from_secs(60);
/// Load runs so long before the fault.
const CALM: Duration = Duration::from_secs(3);
/// Between two requests in a meeting's call, and between two joins anew.
const ASK: Duration = Duration::from_millis(100);
/// What is not answered so long after the fault is over is not answered.
const PATIENCE: Duration = Duration::from_secs(15);
/// What belongs to nothing must be gone by then.
const ORPHANS: Duration = Duration::from_secs(60);
/// Joins are tried with so many meetings.
const PROBED: usize = 4;

/// What a run has shown; times in ms since the fault.
#[derive(Debug, Default)]
pub struct Outcome {
    pub dialogs_lost: u64,
    pub rtp_lost: u64,
    pub media_gap_ms: u64,
    /// Of each meeting that changed hands.
    pub takeovers_ms: Vec<u64>,
    pub not_taken_over: u64,
    pub joins_failed: u64,
    /// `None`: not again.
    pub joins_again_ms: Option<u64>,
    pub stale: u64,
    pub orphans: u64,
    /// What else should not have been, for people.
    pub notes: Vec<String>,
    /// RTP packets received in each second of the run.
    pub series: Vec<u64>,
    /// Seconds of the run, and what happened.
    pub events: Vec<(f64, String)>,
}

struct Watched {
    takeovers: Vec<Option<Duration>>,
    failed: u64,
    again: Option<Duration>,
    reasons: BTreeMap<String, u64>,
}

/// Runs it.
///
/// # Errors
/// The cluster or its load could not be brought about: nothing was measured.
pub async fn run(
    scenario: &Scenario,
    shape: &Shape,
    cluster: &mut Cluster,
) -> Result<Outcome, String> {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let groups = gather(cluster, shape).await?;
    tokio::time::sleep(CALM).await;
    let before: Vec<Vec<u32>> = groups.iter().map(Group::joined).collect();
    let aim = faults::aim(cluster, scenario.fault).await?;
    let affected: Vec<usize> = (0..groups.len())
        .filter(|n| aim.meetings.contains(&groups[*n].meeting))
        .collect();
    let probes = probes(cluster, &groups, &affected, &aim).await?;
    let second = |at: Instant| at.duration_since(begun).as_secs_f64();

    let done = AtomicBool::new(false);
    let asked = match scenario.fault.is_takeover() {
        true => affected.clone(),
        false => Vec::new(),
    };
    let store = open(cluster).await?;
    let victims: Vec<String> = aim
        .victims
        .iter()
        .map(|n| cluster.nodes[*n].name.clone())
        .collect();
    let told = format!("{} {}", scenario.name, aim.told(cluster));
    let (struck, changed) = (Mutex::new(None), Mutex::new(BTreeMap::new()));
    let meetings: Vec<String> = asked.iter().map(|n| groups[*n].meeting.clone()).collect();
    let injured = async {
        let result = faults::injure(cluster, scenario.fault, &aim, shape.pause, &struck).await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let (injured, watched, ()) = tokio::join!(
        injured,
        watch(&groups, &asked, &probes, &struck, &changed, &done),
        successions(&*store, &meetings, &victims, &changed, &done)
    );
    injured?;
    let at = struck.lock().ok_or("the fault was never done")?;
    outcome.events.push((second(at), told));
    outcome
        .events
        .push((second(Instant::now()), "all is as before".into()));
    outcome.takeovers_ms = watched.takeovers.iter().flatten().map(millis).collect();
    outcome.not_taken_over = watched.takeovers.iter().filter(|t| t.is_none()).count() as u64;
    outcome.joins_failed = watched.failed;
    outcome.joins_again_ms = watched.again.as_ref().map(millis);
    let reasons = watched.reasons.iter();
    outcome
        .notes
        .extend(reasons.map(|(reason, n)| format!("{n} joins failed: {reason}")));

    outcome.dialogs_lost = lost(&groups, &before, &mut outcome.notes).await;
    if matches!(
        scenario.fault,
        Fault::Kill(Whom::Owner) | Fault::KillDuringInvite
    ) {
        outcome.not_taken_over += kept(cluster, &*store, &aim).await?;
    }
    outcome.stale = stale(cluster, &*store, &aim, &mut outcome.notes).await;
    let end = Instant::now();
    leave(&groups, &probes, &mut outcome.notes).await;
    for group in probes {
        group.finish().await;
    }
    for group in groups {
        hear(group.finish().await, (begun, at, end), &mut outcome);
    }
    outcome.orphans = orphans(cluster, &*store, &mut outcome.notes).await;
    outcome.notes.extend(cluster.panics());
    Ok(outcome)
}

fn millis(time: &Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// All join.
async fn gather(cluster: &Cluster, shape: &Shape) -> Result<Vec<Group>, String> {
    let registrars = cluster.of(Kind::Registrar);
    let from = IpAddr::V4(cluster.net.address(OURSELVES));
    let mut groups = Vec::new();
    let count = cluster.meetings.len() as u32;
    for (n, meeting) in cluster.meetings.iter().enumerate() {
        let more = u32::from((n as u32) < shape.participants % count);
        let participants = shape.participants / count + more;
        let wanted = Wanted {
            meeting,
            registrar: cluster.sip(registrars[n % registrars.len()]),
            from,
            participants,
            // With two, what is not sent on may be the switch's choice and no loss.
            speakers: 1.min(participants),
            protection: shape.protection,
        };
        let group = Group::start(wanted).await?;
        for participant in 0..participants {
            group.join(participant)?;
            // fifty a second
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        groups.push(group);
    }
    let settled = || {
        let stages = groups.iter().flat_map(Group::stages);
        stages.into_iter().all(|(_, s, _)| s != Stage::Joining)
    };
    eventually(JOINING, settled).await;
    for (who, stage, _) in groups.iter().flat_map(Group::stages) {
        if stage != Stage::Joined {
            return Err(format!("participant {who} did not join: {stage:?}"));
        }
    }
    groups.iter().for_each(Group::begin);
    Ok(groups)
}

/// Who tries to join: through registrars that are not meant by the fault, as a balancer in front would have it.
async fn probes(
    cluster: &Cluster,
    groups: &[Group],
    affected: &[usize],
    aim: &Aim,
) -> Result<Vec<Group>, String> {
    let mut registrars = cluster.of(Kind::Registrar);
    if aim.victims.len() == 1 {
        registrars.retain(|n| !aim.victims.contains(n));
    }
    let from = IpAddr::V4(cluster.net.address(OURSELVES));
    let all: Vec<usize> = (0..groups.len()).collect();
    let which = if affected.is_empty() { &all } else { affected };
    let mut probes = Vec::new();
    for (n, at) in which.iter().take(PROBED).enumerate() {
        let registrar = cluster.sip(registrars[n % registrars.len()]);
        probes.push(Group::probes(&groups[*at].meeting, registrar, from).await?);
    }
    Ok(probes)
}

/// Asks in the calls of `asked` meetings until each is answered, and joins anew all the time.
async fn watch(
    groups: &[Group],
    asked: &[usize],
    probes: &[Group],
    struck: &Mutex<Option<Instant>>,
    changed: &Mutex<BTreeMap<String, Instant>>,
    done: &AtomicBool,
) -> Watched {
    groups.iter().for_each(Group::forget_answers);
    let mut takeovers = vec![None; asked.len()];
    let mut begun: Vec<(usize, u32, Instant)> = Vec::new();
    let mut over: Option<Instant> = None;
    let mut tick = tokio::time::interval(ASK);
    loop {
        tick.tick().await;
        probes.iter().for_each(Group::send_off);
        if over.is_none() && done.load(Ordering::Relaxed) {
            over = Some(Instant::now());
        }
        for (took, n) in takeovers.iter_mut().zip(asked) {
            if took.is_some() {
                continue;
            }
            let Some(at) = *struck.lock() else {
                continue;
            };
            // the old owner may answer, too, where it lives and is only cut off
            let since = changed.lock().get(&groups[*n].meeting).copied();
            match (groups[*n].answer(0), since) {
                (Some((Some(200), when)), Some(since)) if when >= since => {
                    *took = Some(when.saturating_duration_since(at));
                }
                _ => groups[*n].ask(0),
            }
        }
        if over.is_none_or(|over| over.elapsed() < Duration::from_secs(2)) {
            let who = begun.len() as u32;
            let n = begun.len() % probes.len().max(1);
            if let Some(probe) = probes.get(n)
                && probe.join(who).is_ok()
            {
                begun.push((n, who, Instant::now()));
            }
        } else {
            let open = probes.iter().flat_map(Group::stages);
            let open = open.into_iter().any(|(_, s, _)| s == Stage::Joining);
            let late = over.is_some_and(|over| over.elapsed() > PATIENCE);
            if late || (!open && takeovers.iter().all(Option::is_some)) {
                break;
            }
        }
    }
    let at = struck.lock().unwrap_or_else(Instant::now);
    let mut watched = Watched {
        takeovers,
        failed: 0,
        again: None,
        reasons: BTreeMap::new(),
    };
    let mut last_failure = None;
    let mut stages: Vec<BTreeMap<u32, (Stage, Instant)>> = Vec::new();
    for probe in probes {
        let all = probe.stages().into_iter();
        stages.push(all.map(|(who, stage, when)| (who, (stage, when))).collect());
    }
    for (n, who, asked_at) in &begun {
        let why = match stages[*n].get(who) {
            Some((Stage::Joined | Stage::Left, _)) => continue,
            Some((Stage::Refused(why) | Stage::Ended(why), _)) => why.clone(),
            Some((Stage::Joining, _)) | None => "no answer".to_owned(),
        };
        watched.failed += 1;
        *watched.reasons.entry(why).or_default() += 1;
        last_failure = Some(*asked_at);
    }
    let good = begun.iter().find_map(|(n, who, asked_at)| {
        let after = last_failure.is_none_or(|last| *asked_at > last);
        match stages[*n].get(who) {
            Some((Stage::Joined, when)) if after => Some(when.saturating_duration_since(at)),
            _ => None,
        }
    });
    watched.again = good;
    watched
}

/// Notes when the store first names another owner of each meeting than the victims.
async fn successions(
    store: &dyn Store,
    meetings: &[String],
    victims: &[String],
    changed: &Mutex<BTreeMap<String, Instant>>,
    done: &AtomicBool,
) {
    let prefix = keys::owners();
    while !done.load(Ordering::Relaxed) && changed.lock().len() < meetings.len() {
        // without the store nothing changes hands
        let page = store.range(&prefix, MAX_PAGE, None).await;
        let now = Instant::now();
        for entry in page.map(|page| page.entries).unwrap_or_default() {
            let meeting = entry.key.trim_start_matches(&prefix).to_owned();
            let owner = serde_json::from_slice::<::cluster::records::Owner>(&entry.value);
            if meetings.contains(&meeting) && owner.is_ok_and(|o| !victims.contains(&o.member)) {
                changed.lock().entry(meeting).or_insert(now);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many of those who were in a call are in it no more: each is asked.
async fn lost(groups: &[Group], before: &[Vec<u32>], notes: &mut Vec<String>) -> u64 {
    groups.iter().for_each(Group::forget_answers);
    let mut silent: Vec<(usize, u32)> = Vec::new();
    for (n, all) in before.iter().enumerate() {
        silent.extend(all.iter().map(|who| (n, *who)));
    }
    let begin = Instant::now();
    while !silent.is_empty() && begin.elapsed() < PATIENCE {
        for (n, who) in &silent {
            groups[*n].ask(*who);
        }
        let answered =
            |(n, who): &(usize, u32)| matches!(groups[*n].answer(*who), Some((Some(200), _)));
        eventually(Duration::from_secs(3), || silent.iter().all(answered)).await;
        silent.retain(|one| !answered(one));
    }
    for (n, who) in silent.iter().take(3) {
        let stage = groups[*n].stages().into_iter().find(|(w, ..)| w == who);
        let (meeting, answer) = (&groups[*n].meeting, groups[*n].answer(*who));
        notes.push(format!(
            "{meeting}: participant {who} is lost: {:?}, last answer {:?}",
            stage.map(|(_, stage, _)| stage),
            answer.map(|(status, _)| status)
        ));
    }
    silent.len() as u64
}

async fn open(cluster: &Cluster) -> Result<std::sync::Arc<dyn Store>, String> {
    let config = StoreConfig::Etcd(EtcdConfig {
        endpoints: cluster.endpoints(),
        ..EtcdConfig::default()
    });
    ::cluster::open(&config).await.map_err(|e| e.to_string())
}

/// Meetings that the store still says are the victim's.
async fn kept(cluster: &Cluster, store: &dyn Store, aim: &Aim) -> Result<u64, String> {
    let mut count = 0;
    for meeting in &aim.meetings {
        let entry = store.get(&keys::owner(meeting)).await;
        let Some(entry) = entry.map_err(|e| e.to_string())? else {
            continue;
        };
        let owner: ::cluster::records::Owner =
            serde_json::from_slice(&entry.value).map_err(|e| e.to_string())?;
        let is_victim = |n: &usize| cluster.nodes[*n].name == owner.member;
        count += u64::from(aim.victims.iter().any(is_victim));
    }
    Ok(count)
}

/// Where a deposed owner still has its way: owner records it has written back, meetings it still serves, and meetings on
/// a switch under another epoch than the store's. It looks at what stands in the end, not at each write.
async fn stale(cluster: &Cluster, store: &dyn Store, aim: &Aim, notes: &mut Vec<String>) -> u64 {
    let mut found = Vec::new();
    let begin = Instant::now();
    // a change may be under way
    while begin.elapsed() < PATIENCE {
        found = match disagreements(cluster, store, aim).await {
            Ok(found) => found,
            Err(e) => vec![format!("cannot be judged: {e}")],
        };
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let count = found.len() as u64;
    notes.extend(found.into_iter().take(5));
    count
}

async fn disagreements(
    cluster: &Cluster,
    store: &dyn Store,
    aim: &Aim,
) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let owners = store.range(&keys::owners(), MAX_PAGE, None).await;
    let owners = owners.map_err(|e| e.to_string())?.entries;
    let mut epochs = BTreeMap::new();
    for entry in &owners {
        let meeting = entry.key.trim_start_matches(&keys::owners()).to_owned();
        let owner: ::cluster::records::Owner =
            serde_json::from_slice(&entry.value).map_err(|e| e.to_string())?;
        epochs.insert(meeting, (owner.member, entry.modified));
    }
    for n in cluster.of(Kind::Manager) {
        let name = &cluster.nodes[n].name;
        let view = cluster.view(n, "/api/v1/meetings").await?;
        for meeting in view["meetings"].as_array().into_iter().flatten() {
            let id = meeting["id"].as_str().unwrap_or_default();
            let serves = meeting["participants"].as_u64().unwrap_or(0) > 0;
            if let Some((member, _)) = epochs.get(id)
                && serves
                && member != name
            {
                found.push(format!("{id} is {member}'s, and {name} still serves it"));
            }
        }
    }
    for n in cluster.of(Kind::Switch) {
        let name = &cluster.nodes[n].name;
        let view = cluster.view(n, "/api/v1/switch").await?;
        for meeting in view["meetings"].as_array().into_iter().flatten() {
            let id = meeting["meeting"].as_str().unwrap_or_default();
            let epoch = meeting["epoch"].as_u64().unwrap_or(0);
            if let Some((member, of_store)) = epochs.get(id)
                && epoch != of_store.0
            {
                found.push(format!(
                    "{name} has {id} under epoch {epoch}, and the store says {} ({member}); victims {:?}",
                    of_store.0, aim.victims
                ));
            }
        }
    }
    Ok(found)
}

async fn leave(groups: &[Group], probes: &[Group], notes: &mut Vec<String>) {
    groups.iter().chain(probes).for_each(Group::leave);
    let all_left = || {
        let stages = groups.iter().chain(probes).flat_map(Group::stages);
        stages.into_iter().all(|(_, s, _)| s != Stage::Joining)
            && groups.iter().all(|g| g.joined().is_empty())
    };
    if !eventually(PATIENCE, all_left).await {
        notes.push("not every BYE was answered".to_owned());
    }
}

/// Takes in what a group has heard, `(begun, fault, end)`.
fn hear(heard: Heard, (begun, at, end): (Instant, Instant, Instant), outcome: &mut Outcome) {
    let media = heard.media;
    outcome.rtp_lost += media.audio.lost + media.audio.skipped;
    let clock = |us: u64| heard.begun + Duration::from_micros(us);
    for gap in &media.gaps {
        // who talks hears only the others
        if gap.participant < heard.speakers {
            continue;
        }
        let (from, to) = (clock(gap.from), clock(gap.to).min(end));
        if to > at && from < end {
            let length = spoken(&heard.talk, from, to);
            outcome.media_gap_ms = outcome.media_gap_ms.max(millis(&length));
        }
    }
    let shift = heard.begun.saturating_duration_since(begun).as_secs() as usize;
    for second in &media.series {
        let place = second.second as usize + shift;
        if outcome.series.len() <= place {
            outcome.series.resize(place + 1, 0);
        }
        outcome.series[place] += second.received;
    }
}

/// A silence without the pauses of the conversation that it begins and ends with.
fn spoken(talk: &[(Instant, Instant)], from: Instant, to: Instant) -> Duration {
    let within = talk
        .iter()
        .filter(|(begin, end)| *begin < to && *end > from);
    let first = within.clone().map(|(begin, _)| (*begin).max(from)).min();
    let last = within.map(|(_, end)| (*end).min(to)).max();
    match (first, last) {
        (Some(first), Some(last)) => last.saturating_duration_since(first),
        _ => Duration::ZERO,
    }
}

/// Dialog records, dialogs and legs that are still there when all have left, a minute at most.
async fn orphans(cluster: &Cluster, store: &dyn Store, notes: &mut Vec<String>) -> u64 {
    let begin = Instant::now();
    loop {
        let left = what_is_left(cluster, store).await;
        match left {
            Ok((0, 0, 0)) => return 0,
            Ok((records, dialogs, legs)) if begin.elapsed() > ORPHANS => {
                notes.push(format!(
                    "a minute later: {records} dialog records, {dialogs} dialogs, {legs} legs"
                ));
                return records.max(dialogs).max(legs);
            }
            Err(e) if begin.elapsed() > ORPHANS => {
                notes.push(format!("whether something is left cannot be said: {e}"));
                return 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

async fn what_is_left(cluster: &Cluster, store: &dyn Store) -> Result<(u64, u64, u64), String> {
    let prefix = format!("{ROOT}dialog/");
    let page = store.range(&prefix, MAX_PAGE, None).await;
    let records = page.map_err(|e| e.to_string())?.entries.len() as u64;
    let (mut dialogs, mut legs) = (0, 0);
    for n in cluster.of(Kind::Manager) {
        let counts = cluster.view(n, "/api/v1/counts").await?;
        dialogs += counts["dialogs"].as_u64().ok_or("no count of dialogs")?;
    }
    for n in cluster.of(Kind::Switch) {
        let view = cluster.view(n, "/api/v1/switch").await?;
        legs += view["legs"].as_u64().ok_or("no count of legs")?;
    }
    Ok((records, dialogs, legs))
}

/// Why an outcome is not what was promised.
pub fn misses(fault: Fault, outcome: &Outcome) -> Vec<String> {
    let mut all = Vec::new();
    let mut miss = |is: bool, what: String| {
        if is {
            all.push(what);
        }
    };
    let o = outcome;
    miss(
        o.dialogs_lost > 0,
        format!("{} dialogs lost", o.dialogs_lost),
    );
    let lost = fault.is_control_only() && o.rtp_lost > 0;
    miss(lost, format!("{} RTP packets lost", o.rtp_lost));
    let slow = o.takeovers_ms.iter().max().copied().unwrap_or(0);
    miss(slow > 2_000, format!("a takeover took {slow} ms"));
    miss(
        o.not_taken_over > 0,
        format!("{} meetings not taken over", o.not_taken_over),
    );
    match o.joins_again_ms {
        Some(ms) => miss(ms > 3_000, format!("joins possible again after {ms} ms")),
        None => miss(true, "joins not possible again".to_owned()),
    }
    let switch = matches!(fault, Fault::Kill(Whom::Switch) | Fault::Stop(Whom::Switch));
    let silent = switch && o.media_gap_ms > 3_000;
    miss(silent, format!("no media for {} ms", o.media_gap_ms));
    miss(o.stale > 0, format!("{} stale writes", o.stale));
    miss(o.orphans > 0, format!("{} orphans", o.orphans));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_at_the_ends_of_a_silence_are_nobodys_fault_and_those_within_are() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let talk = [(at(1_000), at(2_000)), (at(2_500), at(4_000))];
        let ms = |from, to| millis(&spoken(&talk, at(from), at(to)));
        assert_eq!(ms(0, 900), 0);
        assert_eq!(ms(2_000, 2_500), 0);
        assert_eq!(ms(1_990, 2_520), 530);
        assert_eq!(ms(0, 9_000), 3_000);
        assert_eq!(ms(2_100, 2_700), 200);
    }

    #[test]
    fn each_promise_that_was_not_kept_is_told() {
        let good = Outcome {
            joins_again_ms: Some(3_000),
            takeovers_ms: vec![2_000],
            ..Outcome::default()
        };
        let fault = Fault::Kill(Whom::Owner);
        assert_eq!(misses(fault, &good), Vec::<String>::new());
        let bad = Outcome {
            dialogs_lost: 1,
            rtp_lost: 1,
            media_gap_ms: 3_001,
            takeovers_ms: vec![2_001],
            not_taken_over: 1,
            stale: 1,
            orphans: 1,
            ..Outcome::default()
        };
        assert_eq!(misses(fault, &bad).len(), 7);
        // a dead switch loses packets, but not for long
        assert_eq!(misses(Fault::Kill(Whom::Switch), &bad).len(), 7);
    }
}
