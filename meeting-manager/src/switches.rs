//! The switches: who is registered, a connection to each, and what they report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Tls;
use cluster::identity::dns_name;
use cluster::records::{Kind, SwitchRecord};
use cluster::registry::Cache;
use control::v1 as ctl;
use control::v1::switch_client::SwitchClient;
use meeting_core::{ApplyFailure, SwitchId, SwitchInfo};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::metrics;
use crate::runner::Input;

/// A switch that takes longer to answer is passed over.
const PATIENCE: Duration = Duration::from_secs(2);

/// A switch without a lease that answers within that is taken for alive: it forwards, and its meetings stay there.
const PROBE_PATIENCE: Duration = Duration::from_millis(500);

/// How often such a switch is asked.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Longest pause before a lost event stream is opened again.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Connection {
    control: String,
    client: SwitchClient<Channel>,
    /// As it last registered.
    info: SwitchInfo,
    events: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.events.cancel();
    }
}

/// All switches.
#[derive(Debug)]
pub(crate) struct Switches {
    member: String,
    tls: Option<Arc<Tls>>,
    connections: Mutex<BTreeMap<SwitchId, Connection>>,
    inputs: mpsc::Sender<Input>,
}

impl Switches {
    pub(crate) fn new(
        member: String,
        tls: Option<Arc<Tls>>,
        inputs: mpsc::Sender<Input>,
    ) -> Arc<Self> {
        Arc::new(Self {
            member,
            tls,
            connections: Mutex::default(),
            inputs,
        })
    }

    /// Follows the registry until `stop`.
    pub(crate) async fn follow(
        self: Arc<Self>,
        cache: Cache<SwitchRecord>,
        stop: CancellationToken,
    ) {
        let mut changes = cache.subscribe();
        loop {
            let lingering = self.drop_silent(&cache).await;
            if self
                .inputs
                .send(Input::Switches(self.sync(&cache)))
                .await
                .is_err()
            {
                return;
            }
            tokio::select! {
                change = changes.next() => if change.is_none() { return },
                () = tokio::time::sleep(PROBE_INTERVAL), if lingering => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Asks the switches that have no lease whether they are there, and gives up those that do not answer. Whether any
    /// is left.
    async fn drop_silent(&self, cache: &Cache<SwitchRecord>) -> bool {
        let without: Vec<(SwitchId, SwitchClient<Channel>)> = {
            let connections = self.connections.lock();
            let without = |(id, _): &(&SwitchId, _)| cache.get(id.as_str()).is_none();
            let without = connections.iter().filter(without);
            without
                .map(|(id, c)| (id.clone(), c.client.clone()))
                .collect()
        };
        let mut probes = JoinSet::new();
        for (id, client) in without {
            probes.spawn(async move { (answers(client).await, id) });
        }
        let mut lingering = false;
        while let Some(Ok((answers, id))) = probes.join_next().await {
            lingering |= answers;
            if !answers {
                tracing::warn!(switch = %id, "a switch is gone: its meetings move");
                self.connections.lock().remove(&id);
            }
        }
        lingering
    }

    /// Opens connections to match the registry. A switch that lost its lease and answers keeps its connection: it goes on
    /// forwarding, and meetings on it are still ours.
    pub(crate) fn sync(
        self: &Arc<Self>,
        cache: &Cache<SwitchRecord>,
    ) -> BTreeMap<SwitchId, SwitchInfo> {
        let mut infos = BTreeMap::new();
        for (_, cached) in cache.snapshot() {
            let record = &cached.value;
            let id = SwitchId::new(&record.id);
            self.connect(&id, &record.control, info(record));
            infos.insert(id, info(record));
        }
        for (id, connection) in self.connections.lock().iter() {
            infos.entry(id.clone()).or_insert_with(|| SwitchInfo {
                leaseless: true,
                ..connection.info.clone()
            });
        }
        infos
    }

    fn connect(self: &Arc<Self>, id: &SwitchId, control: &str, info: SwitchInfo) {
        let mut connections = self.connections.lock();
        if let Some(connection) = connections.get_mut(id).filter(|c| c.control == control) {
            connection.info = info;
            return;
        }
        let endpoint = match endpoint(id, control, self.tls.as_deref()) {
            Ok(endpoint) => endpoint
                .connect_timeout(PATIENCE)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(PATIENCE)
                .keep_alive_while_idle(true),
            Err(e) => {
                tracing::warn!(switch = %id, control, error = %e, "the switch cannot be used");
                return;
            }
        };
        let client = SwitchClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(control::MAX_MESSAGE)
            .max_encoding_message_size(control::MAX_MESSAGE);
        let events = CancellationToken::new();
        let listen = listen(
            id.clone(),
            client.clone(),
            self.member.clone(),
            self.inputs.clone(),
        );
        let stopped = events.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(listen).await });
        let connection = Connection {
            control: control.to_owned(),
            client,
            info,
            events,
        };
        connections.insert(id.clone(), connection);
    }

    fn client(&self, id: &SwitchId) -> Option<SwitchClient<Channel>> {
        self.connections.lock().get(id).map(|c| c.client.clone())
    }

    /// Tells a switch.
    pub(crate) async fn apply(
        &self,
        id: &SwitchId,
        request: ctl::ApplyRequest,
    ) -> Result<ctl::ApplyResponse, ApplyFailure> {
        let mut client = self.client(id).ok_or(ApplyFailure::Unavailable)?;
        let meeting = request.meeting.clone();
        match tokio::time::timeout(PATIENCE, client.apply(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                tracing::warn!(switch = %id, meeting, %status, "the switch did not do it");
                Err(failure(&status))
            }
            Err(_) => {
                tracing::warn!(switch = %id, meeting, "the switch did not answer in time");
                Err(ApplyFailure::Unavailable)
            }
        }
    }

    /// Asks a switch what it carries of a meeting.
    pub(crate) async fn inspect(
        &self,
        id: &SwitchId,
        meeting: &str,
    ) -> Option<ctl::InspectResponse> {
        let mut client = self.client(id)?;
        let request = ctl::InspectRequest {
            meeting: meeting.to_owned(),
        };
        let answer = tokio::time::timeout(PATIENCE, client.inspect(request)).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// Ids of all switches known here.
    pub(crate) fn ids(&self) -> Vec<SwitchId> {
        self.connections.lock().keys().cloned().collect()
    }

    /// Closes all event streams.
    pub(crate) fn close(&self) {
        self.connections.lock().clear();
    }
}

/// Whether a switch answers.
async fn answers(mut client: SwitchClient<Channel>) -> bool {
    let request = ctl::InspectRequest {
        // No meeting has this name: the answer is short.
        meeting: "-".to_owned(),
    };
    let answer = tokio::time::timeout(PROBE_PATIENCE, client.inspect(request)).await;
    matches!(answer, Ok(Ok(_)))
}

/// Where to reach a switch. With certificates it must show its own: an address in the store is no proof.
fn endpoint(id: &SwitchId, control: &str, tls: Option<&Tls>) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(control.to_owned()).map_err(|e| e.to_string())?;
    match (tls, control.starts_with("https://")) {
        (None, false) => Ok(endpoint),
        (None, true) => Err("it wants a certificate: set [cluster] here too".to_owned()),
        (Some(_), false) => Err("it has no certificate: set [cluster] there too".to_owned()),
        (Some(tls), true) => {
            let (ca, certificate, key) = tls.pem();
            let config = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(ca))
                .identity(Identity::from_pem(certificate, key))
                .domain_name(dns_name(Kind::Switch, id.as_str()));
            endpoint.tls_config(config).map_err(|e| e.to_string())
        }
    }
}

fn failure(status: &Status) -> ApplyFailure {
    match status.code() {
        Code::FailedPrecondition => {
            metrics::fenced_write("switch");
            ApplyFailure::Fenced
        }
        Code::InvalidArgument
        | Code::Unimplemented
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated => ApplyFailure::Refused,
        _ => ApplyFailure::Unavailable,
    }
}

fn info(record: &SwitchRecord) -> SwitchInfo {
    SwitchInfo {
        load: record.load,
        draining: record.draining,
        leaseless: false,
        instance: record.instance.clone(),
        fingerprints: record
            .fingerprints
            .iter()
            .filter_map(|(algorithm, digest)| {
                Some((algorithm.to_ascii_lowercase(), unhex(digest)?))
            })
            .collect(),
    }
}

/// Hex digits, with or without colons between the bytes.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|b| *b != b':')
        .map(|b| {
            char::from(b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        })
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Keeps the event stream of a switch open; it begins with a Hello every time, which tells of a restart.
async fn listen(
    id: SwitchId,
    mut client: SwitchClient<Channel>,
    member: String,
    inputs: mpsc::Sender<Input>,
) {
    let mut backoff = Duration::from_millis(100);
    loop {
        let request = ctl::EventsRequest {
            version: control::VERSION,
            member: member.clone(),
            meeting: String::new(),
        };
        if let Ok(stream) = client.events(request).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(event)) = stream.message().await {
                backoff = Duration::from_millis(100);
                if inputs
                    .send(Input::SwitchEvent(id.clone(), event))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            tracing::debug!(switch = %id, "event stream ended");
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_with_and_without_colons() {
        assert_eq!(unhex("0aFF"), Some(vec![10, 255]));
        assert_eq!(unhex("0A:ff"), Some(vec![10, 255]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
