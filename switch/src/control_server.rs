//! The control protocol's server: places meetings on workers, checks epochs, hands events to owners.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::identity::{identities, is_of};
use cluster::records::Kind;
use parking_lot::{Mutex, RwLock};
use switch_core::worker::ApplyError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::metrics;
use crate::worker::{Command, WorkerHandle};

/// Events a slow manager may be behind; then its stream ends. When it opens another, what stands is told again.
const MOST_BEHIND: usize = 8192;

/// Ended meetings whose epochs are remembered. Raising it costs about 100 bytes each.
const MOST_ENDED: usize = 4096;

/// Where a meeting lives, and whose it is.
#[derive(Debug)]
struct Placement {
    worker: usize,
    member: String,
    epoch: u64,
    /// When the owner last asked for something.
    said: Instant,
    /// When the owner was last there, or only listened.
    present: Instant,
}

/// A manager's event stream.
struct Subscriber {
    member: String,
    meeting: String,
    events: mpsc::Sender<Result<control::Event, Status>>,
}

/// Shared by the gRPC service and the shell.
pub struct State {
    /// Random per start.
    pub instance: String,
    /// (algorithm, digest) of the DTLS certificate.
    pub fingerprint: (String, Vec<u8>),
    /// Legs taken at most.
    pub capacity: usize,
    /// No new meetings.
    pub draining: AtomicBool,
    workers: RwLock<Vec<WorkerHandle>>,
    placements: Mutex<HashMap<String, Placement>>,
    /// Epochs of meetings that ended, oldest first: an owner that was paused may not revive one.
    ended: Mutex<VecDeque<(String, u64)>>,
    /// Of all owners that gave orders.
    highest: AtomicU64,
    /// The cluster knows this switch: its lease is alive. Without it no new meeting is taken, as
    /// the managers have given the switch up; running ones go on.
    pub registered: AtomicBool,
    subscribers: Mutex<Vec<Subscriber>>,
}

impl State {
    /// State of a switch with these workers.
    #[must_use]
    pub fn new(
        instance: String,
        fingerprint: Vec<u8>,
        capacity: usize,
        workers: Vec<WorkerHandle>,
    ) -> Self {
        Self {
            instance,
            fingerprint: ("sha-256".to_owned(), fingerprint),
            capacity,
            draining: AtomicBool::new(false),
            workers: RwLock::new(workers),
            placements: Mutex::default(),
            ended: Mutex::default(),
            highest: AtomicU64::new(0),
            registered: AtomicBool::new(false),
            subscribers: Mutex::default(),
        }
    }

    /// Legs on all workers.
    #[must_use]
    pub fn legs(&self) -> usize {
        self.workers
            .read()
            .iter()
            .map(|w| w.gauges.legs.load(Ordering::Relaxed))
            .sum()
    }

    /// Plain ports on all workers.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.workers
            .read()
            .iter()
            .map(|w| w.gauges.ports.load(Ordering::Relaxed))
            .sum()
    }

    /// Meetings on all workers.
    #[must_use]
    pub fn meetings(&self) -> usize {
        self.placements.lock().len()
    }

    /// How much of this switch is used up, per mille: of its capacity, or of the time of its least busy worker, where that
    /// is more. Time counts from a half on and in steps, as each change is a write to the cluster's store.
    #[must_use]
    pub fn load(&self) -> u32 {
        let legs = self.legs() * 1_000 / self.capacity.max(1);
        let least = self.busy().min().unwrap_or(0);
        let time = if least < 500 { 0 } else { least / 50 * 50 };
        u32::try_from(legs).unwrap_or(u32::MAX).max(time)
    }

    /// Per mille of the last second that each worker computed.
    fn busy(&self) -> impl Iterator<Item = u32> {
        let workers = self.workers.read();
        let busy = |worker: &WorkerHandle| worker.gauges.busy.load(Ordering::Relaxed);
        workers.iter().map(busy).collect::<Vec<_>>().into_iter()
    }

    /// Tells what this switch holds, and how busy it is.
    fn tell(&self) {
        metrics::holds(self.meetings(), self.legs(), self.ports());
        metrics::busy(self.busy().max().unwrap_or(0));
    }

    /// The workers, to be stopped; from now on nothing is applied.
    pub fn take_workers(&self) -> Vec<WorkerHandle> {
        std::mem::take(&mut *self.workers.write())
    }

    /// Ends all event streams.
    pub fn close_streams(&self) {
        self.subscribers.lock().clear();
    }

    /// Gives an event to the streams of the meeting's owner; one that is too far behind is ended.
    pub fn publish(&self, event: &control::Event) {
        let meeting = match &event.event {
            Some(control::event::Event::Leg(e)) => Some(e.meeting.as_str()),
            Some(control::event::Event::Slots(e)) => Some(e.meeting.as_str()),
            _ => None,
        };
        let owner = meeting.and_then(|m| self.placements.lock().get(m).map(|p| p.member.clone()));
        self.subscribers.lock().retain(|s| {
            let concerned = match (meeting, &owner) {
                (Some(m), Some(owner)) => {
                    *owner == s.member && (s.meeting.is_empty() || s.meeting == m)
                }
                (Some(_), None) => false,
                (None, _) => true,
            };
            if concerned {
                s.events.try_send(Ok(event.clone())).is_ok()
            } else {
                !s.events.is_closed()
            }
        });
    }

    /// Tells a member, which has just begun to listen, what stands in its meetings, or in the one named.
    fn retell(&self, member: &str, meeting: &str) {
        let mut by_worker: HashMap<usize, Vec<String>> = HashMap::new();
        for (id, placement) in self.placements.lock().iter() {
            if placement.member == member && (meeting.is_empty() || meeting == id) {
                let meetings = by_worker.entry(placement.worker).or_default();
                meetings.push(id.clone());
            }
        }
        let workers = self.workers.read();
        for (worker, meetings) in by_worker {
            if let Some(worker) = workers.get(worker) {
                // a worker that is gone has nothing to tell
                let _ = worker.commands.send(Command::Retell(meetings));
            }
        }
    }

    /// Asks a worker something.
    #[cfg(test)]
    pub fn order(&self, worker: usize, command: Command) {
        let _ = self.workers.read()[worker].commands.send(command);
    }

    /// Shows a meeting, or all, of all workers.
    pub async fn inspect(&self, meeting: &str) -> control::InspectResponse {
        let wanted = (!meeting.is_empty()).then(|| meeting.to_owned());
        let ask = |worker: &WorkerHandle| {
            let (reply, answer) = oneshot::channel();
            worker
                .commands
                .send(Command::Inspect(wanted.clone(), reply))
                .ok()
                .map(|()| answer)
        };
        let answers: Vec<_> = self.workers.read().iter().filter_map(ask).collect();
        let mut views = Vec::new();
        for answer in answers {
            views.extend(answer.await.unwrap_or_default());
        }
        control::InspectResponse {
            instance: self.instance.clone(),
            meetings: views,
            ports_in_use: self.ports() as u32,
            legs: self.legs() as u32,
        }
    }

    /// The worker of a meeting; a new meeting goes to the one with the fewest legs among those with time left. Epochs below the highest seen are
    /// refused here already, before anything is done.
    fn place(&self, request: &control::ApplyRequest) -> Result<usize, Status> {
        let mut placements = self.placements.lock();
        if let Some(placement) = placements.get_mut(&request.meeting) {
            if request.epoch < placement.epoch {
                return Err(stale(placement.epoch));
            }
            placement.epoch = request.epoch;
            placement.said = Instant::now();
            placement.present = placement.said;
            placement.member.clone_from(&request.member);
            return Ok(placement.worker);
        }
        let ended = self.ended.lock();
        if let Some((_, highest)) = ended.iter().find(|(id, _)| *id == request.meeting)
            && request.epoch < *highest
        {
            return Err(stale(*highest));
        }
        drop(ended);
        let load = |w: &WorkerHandle| {
            let legs = w.gauges.legs.load(Ordering::Relaxed);
            (w.gauges.is_saturated(), legs)
        };
        let workers = self.workers.read();
        let worker = (0..workers.len())
            .min_by_key(|i| load(&workers[*i]))
            .ok_or_else(|| Status::unavailable("no worker"))?;
        let placement = Placement {
            worker,
            member: request.member.clone(),
            epoch: request.epoch,
            said: Instant::now(),
            present: Instant::now(),
        };
        placements.insert(request.meeting.clone(), placement);
        Ok(worker)
    }

    /// Ends meetings of which their owner has said nothing for so long and whose legs are all silent: an owner that
    /// died, or could not reach this switch when its meeting ended. Called now and then.
    pub async fn reap(&self, patience: Duration) {
        let listening: Vec<String> = {
            let subscribers = self.subscribers.lock();
            let open = subscribers.iter().filter(|s| !s.events.is_closed());
            open.map(|s| s.member.clone()).collect()
        };
        let now = Instant::now();
        let mut asked = Vec::new();
        for (id, placement) in self.placements.lock().iter_mut() {
            if listening.contains(&placement.member) {
                placement.present = now;
            }
            if now.duration_since(placement.said) >= patience {
                let unowned = now.duration_since(placement.present) >= patience;
                asked.push((id.clone(), placement.worker, placement.said, unowned));
            }
        }
        for (id, worker, said, unowned) in asked {
            let (reply, answer) = oneshot::channel();
            let sent = self.workers.read().get(worker).is_some_and(|w| {
                let order = Command::Reap(id.clone(), patience, unowned, reply);
                w.commands.send(order).is_ok()
            });
            if !sent || !answer.await.unwrap_or(false) {
                continue;
            }
            let mut placements = self.placements.lock();
            // An owner that spoke meanwhile has begun it anew.
            let gone = placements
                .get(&id)
                .filter(|p| p.said == said)
                .map(|p| p.epoch);
            if let Some(epoch) = gone {
                placements.remove(&id);
                drop(placements);
                tracing::warn!(meeting = id, "ended: its owner and all its legs are silent");
                self.remember_ended(id, epoch);
            }
        }
        self.tell();
    }

    fn remember_ended(&self, meeting: String, epoch: u64) {
        let mut ended = self.ended.lock();
        ended.retain(|(id, _)| *id != meeting);
        if ended.len() >= MOST_ENDED {
            ended.pop_front();
        }
        ended.push_back((meeting, epoch));
    }

    async fn apply(
        &self,
        request: control::ApplyRequest,
    ) -> Result<control::ApplyResponse, Status> {
        check_version(request.version)?;
        if request.meeting.is_empty() || request.member.is_empty() {
            return Err(Status::invalid_argument("meeting and member must be named"));
        }
        let known = self.placements.lock().contains_key(&request.meeting);
        if !known && !request.legs.is_empty() && self.draining.load(Ordering::Relaxed) {
            return Err(Status::unavailable(
                "this switch is draining and takes no new meeting",
            ));
        }
        if !known && !request.legs.is_empty() && !self.registered.load(Ordering::Relaxed) {
            return Err(Status::unavailable(
                "this switch has lost its lease and takes no new meeting",
            ));
        }
        let all_saturated = || self.workers.read().iter().all(|w| w.gauges.is_saturated());
        if !known && !request.legs.is_empty() && all_saturated() {
            return Err(Status::unavailable(
                "this switch has no time left for a new meeting",
            ));
        }
        if !request.legs.is_empty() && self.legs() >= self.capacity && !known {
            return Err(Status::resource_exhausted("this switch is full"));
        }
        let (meeting, epoch, end) = (request.meeting.clone(), request.epoch, request.end);
        if !known && end {
            // ended already: nothing to do, and nothing to remember
            return Ok(control::ApplyResponse {
                instance: self.instance.clone(),
                epoch,
                legs: Vec::new(),
            });
        }
        let worker = self.place(&request)?;
        if self.highest.fetch_max(epoch, Ordering::Relaxed) < epoch {
            metrics::highest_epoch(epoch);
        }
        let (reply, answer) = oneshot::channel();
        let ended = || Status::unavailable("this switch is stopping");
        let (commands, gauges) = self
            .workers
            .read()
            .get(worker)
            .map(|w| (w.commands.clone(), Arc::clone(&w.gauges)))
            .ok_or_else(ended)?;
        let own = gauges.legs.load(Ordering::Relaxed);
        let elsewhere = self.legs().saturating_sub(own);
        // A worker without time left takes no more legs, so that those it has are not spoilt.
        let most = match gauges.is_saturated() {
            true => own,
            false => self.capacity.saturating_sub(elsewhere),
        };
        commands
            .send(Command::Apply(Box::new(request), most, reply))
            .map_err(|_| ended())?;
        let result = answer.await.map_err(|_| ended())?;
        if end && result.is_ok() {
            self.placements.lock().remove(&meeting);
            self.remember_ended(meeting, epoch);
        } else if !known && result.is_err() {
            self.placements.lock().remove(&meeting);
        }
        self.tell();
        match result {
            Ok(legs) => Ok(control::ApplyResponse {
                instance: self.instance.clone(),
                epoch,
                legs,
            }),
            Err(ApplyError::Stale { highest }) => Err(stale(highest)),
            Err(e) => Err(Status::resource_exhausted(e.to_string())),
        }
    }
}

fn check_version(version: u32) -> Result<(), Status> {
    if control::is_understood(version) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "control protocol version {version}: this switch understands {} to {}",
        control::OLDEST_VERSION,
        control::NEWEST_VERSION
    )))
}

fn stale(highest: u64) -> Status {
    metrics::stale_epoch();
    Status::failed_precondition(format!(
        "stale epoch: this meeting was last changed under epoch {highest}"
    ))
}

/// The gRPC service.
#[derive(Clone)]
pub struct ControlService {
    /// What it works with.
    pub state: Arc<State>,
    /// Connections show certificates of the cluster's authority, and only meeting managers may give orders.
    pub members_only: bool,
}

impl ControlService {
    /// Whether the one who asks is a meeting manager, and the one it says it is.
    fn admit<T>(&self, request: &Request<T>, member: Option<&str>) -> Result<(), Status> {
        if !self.members_only {
            return Ok(());
        }
        let certificates = request.peer_certs();
        let Some(certificate) = certificates.as_ref().and_then(|all| all.first()) else {
            metrics::control_refused("no-certificate");
            return Err(Status::unauthenticated(
                "this switch takes orders only from members that show a certificate",
            ));
        };
        let is_member = match member {
            Some(member) => is_of(certificate, Kind::MeetingManager, member),
            None => identities(certificate)
                .iter()
                .any(|(kind, _)| *kind == Kind::MeetingManager),
        };
        if is_member {
            return Ok(());
        }
        metrics::control_refused("name");
        let who = identities(certificate);
        tracing::warn!(member, certificate = ?who, remote = ?request.remote_addr(), "an order of somebody else was refused");
        Err(Status::permission_denied(match member {
            Some(member) => format!("the certificate is not that of meeting manager {member:?}"),
            None => "the certificate is not that of a meeting manager".to_owned(),
        }))
    }
}

#[tonic::async_trait]
impl control::switch_server::Switch for ControlService {
    async fn apply(
        &self,
        request: Request<control::ApplyRequest>,
    ) -> Result<Response<control::ApplyResponse>, Status> {
        self.admit(&request, Some(&request.get_ref().member))?;
        let applied = self.state.apply(request.into_inner()).await;
        applied.map(Response::new)
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<control::Event, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<control::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        self.admit(&request, Some(&request.get_ref().member))?;
        let request = request.into_inner();
        check_version(request.version)?;
        if request.member.is_empty() {
            return Err(Status::invalid_argument("member must be named"));
        }
        let (events, stream) = mpsc::channel(MOST_BEHIND);
        let (algorithm, value) = self.state.fingerprint.clone();
        let hello = control::Hello {
            instance: self.state.instance.clone(),
            version: control::VERSION,
            certificate: vec![control::Fingerprint {
                algorithm,
                value: value.into(),
            }],
        };
        let first = control::Event {
            event: Some(control::event::Event::Hello(hello)),
        };
        events
            .try_send(Ok(first))
            .map_err(|_| Status::internal("event stream"))?;
        self.state.subscribers.lock().push(Subscriber {
            member: request.member.clone(),
            meeting: request.meeting.clone(),
            events,
        });
        self.state.retell(&request.member, &request.meeting);
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn inspect(
        &self,
        request: Request<control::InspectRequest>,
    ) -> Result<Response<control::InspectResponse>, Status> {
        self.admit(&request, None)?;
        Ok(Response::new(
            self.state.inspect(&request.into_inner().meeting).await,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{Gauges, SATURATED};

    /// A switch of workers that say yes to everything, and how many legs each was allowed when last asked.
    fn stand_ins(
        count: usize,
    ) -> (
        State,
        Vec<Arc<Gauges>>,
        mpsc::UnboundedReceiver<(usize, usize)>,
    ) {
        let (asked, log) = mpsc::unbounded_channel();
        let mut workers = Vec::new();
        let mut all = Vec::new();
        for number in 0..count {
            let (commands, mut inbox) = mpsc::unbounded_channel();
            let gauges = Arc::new(Gauges::default());
            workers.push(WorkerHandle::stand_in(commands, Arc::clone(&gauges)));
            all.push(gauges);
            let asked = asked.clone();
            tokio::spawn(async move {
                while let Some(Command::Apply(_, most, reply)) = inbox.recv().await {
                    let _ = asked.send((number, most));
                    let _ = reply.send(Ok(Vec::new()));
                }
            });
        }
        let state = State::new("instance".into(), vec![1; 32], 100, workers);
        state.registered.store(true, Ordering::Relaxed);
        (state, all, log)
    }

    fn join(meeting: &str) -> control::ApplyRequest {
        control::ApplyRequest {
            version: control::VERSION,
            member: "m".into(),
            meeting: meeting.into(),
            epoch: 1,
            legs: vec![control::Leg::default()],
            ..Default::default()
        }
    }

    fn set(gauges: &Gauges, legs: usize, busy: u32) {
        gauges.legs.store(legs, Ordering::Relaxed);
        gauges.busy.store(busy, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn a_saturated_worker_keeps_its_legs_and_gets_no_more() {
        let (state, gauges, mut log) = stand_ins(2);
        state.apply(join("a")).await.unwrap();
        assert_eq!(log.recv().await, Some((0, 100)));
        set(&gauges[0], 10, SATURATED);
        state.apply(join("a")).await.unwrap();
        assert_eq!(log.recv().await, Some((0, 10)), "those it has");
        set(&gauges[1], 50, SATURATED - 1);
        state.apply(join("b")).await.unwrap();
        assert_eq!(log.recv().await, Some((1, 90)), "to the one with time left");
        set(&gauges[1], 50, SATURATED);
        let refused = state.apply(join("c")).await.unwrap_err();
        assert_eq!(
            refused.code(),
            tonic::Code::Unavailable,
            "another switch may do"
        );
        set(&gauges[0], 10, 100);
        state.apply(join("a")).await.unwrap();
        assert_eq!(log.recv().await, Some((0, 50)), "there is time again");
    }

    #[tokio::test]
    async fn managers_are_told_the_larger_of_capacity_and_time_used_up() {
        let (state, gauges, _log) = stand_ins(2);
        set(&gauges[0], 20, 400);
        set(&gauges[1], 10, 990);
        assert_eq!(state.load(), 300, "one worker has time left");
        set(&gauges[0], 20, 730);
        assert_eq!(
            state.load(),
            700,
            "in steps, as each is written to the store"
        );
        set(&gauges[0], 20, 0);
        assert_eq!(state.load(), 300);
    }
}
