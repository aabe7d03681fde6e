//! Who may give orders to a switch that has a certificate.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use cluster::Tls;
use cluster::authority::{Authority, Holder};
use cluster::identity::dns_name;
use cluster::records::{Kind, SwitchRecord, keys};
use control::switch_client::SwitchClient;
use control::{EventsRequest, InspectRequest};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use switch::{Config, Switch};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};

mod common;
use common::{MemoryStore, Phone, config, request};

static METRICS: LazyLock<PrometheusHandle> =
    LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());

/// Refusals counted so far for a reason.
fn refused(reason: &str) -> u64 {
    let line = format!("rostrum_switch_control_refused_total{{reason=\"{reason}\"}} ");
    let text = METRICS.render();
    let count = text.lines().find_map(|l| l.strip_prefix(&line));
    count.map_or(0, |n| n.parse().unwrap())
}

fn issue(authority: &Authority, name: &str, kinds: &[Kind]) {
    let holder = Holder {
        name: name.into(),
        kinds: kinds.to_vec(),
        addresses: vec!["127.0.0.1".into()],
    };
    authority.issue(&holder).unwrap();
}

fn load(folder: &Path, name: &str) -> Tls {
    let file = |name: &str| folder.join(name);
    let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
    Tls::load(&file("ca.pem"), &certificate, &key).unwrap()
}

struct Cluster {
    folder: tempfile::TempDir,
    authority: Authority,
    switch: Switch,
    store: Arc<MemoryStore>,
}

async fn start() -> Cluster {
    LazyLock::force(&METRICS);
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    issue(&authority, "switch-1", &[Kind::Switch]);
    issue(&authority, "m", &[Kind::MeetingManager]);
    let config = Config {
        tls: Some(Arc::new(load(folder.path(), "switch-1"))),
        ..config()
    };
    let store = Arc::new(MemoryStore::default());
    let switch = Switch::start(config, store.clone()).await.unwrap();
    Cluster {
        folder,
        authority,
        switch,
        store,
    }
}

impl Cluster {
    /// Connects to the switch as one who trusts the cluster's authority.
    async fn connect(
        &self,
        server_name: &str,
        identity: Option<Identity>,
    ) -> Result<SwitchClient<Channel>, Error> {
        let ca = std::fs::read(self.folder.path().join("ca.pem")).unwrap();
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name(server_name);
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let url = format!("https://{}", self.switch.control_address());
        let endpoint = Endpoint::from_shared(url)?.tls_config(tls)?;
        Ok(SwitchClient::new(endpoint.connect().await?))
    }

    async fn as_holder(&self, folder: &Path, name: &str) -> Result<SwitchClient<Channel>, Error> {
        let tls = load(folder, name);
        let (_, certificate, key) = tls.pem();
        let identity = Identity::from_pem(certificate, key);
        let name = dns_name(Kind::Switch, "switch-1");
        self.connect(&name, Some(identity)).await
    }
}

/// In TLS 1.3 a client learns with its first request only that its certificate was not taken.
async fn is_served(client: Result<SwitchClient<Channel>, Error>) -> bool {
    match client {
        Ok(mut client) => client.inspect(InspectRequest::default()).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn orders_are_taken_from_members_of_the_same_authority_only() {
    let cluster = start().await;
    let folder = cluster.folder.path();
    let entry = cluster::Store::get(&*cluster.store, &keys::switch("switch-1")).await;
    let record: SwitchRecord = serde_json::from_slice(&entry.unwrap().unwrap().value).unwrap();
    assert_eq!(
        record.control,
        format!("https://{}", cluster.switch.control_address())
    );

    let phone = Phone::new(1).await;
    let mut member = cluster.as_holder(folder, "m").await.unwrap();
    let order = request("a", 1, vec![phone.leg()]);
    member.apply(order.clone()).await.expect("a member's order");
    let events = EventsRequest {
        version: control::VERSION,
        member: "m".into(),
        meeting: String::new(),
    };
    member.events(events.clone()).await.expect("its events");

    // another member, in this one's name
    issue(&cluster.authority, "n", &[Kind::MeetingManager]);
    let mut other = cluster.as_holder(folder, "n").await.unwrap();
    let before = refused("name");
    let refusal = other.apply(order.clone()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    let refusal = other.events(events.clone()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    other
        .inspect(InspectRequest::default())
        .await
        .expect("members may look");

    // of the cluster, and no manager
    let mut switch = cluster.as_holder(folder, "switch-1").await.unwrap();
    let refusal = switch.inspect(InspectRequest::default()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(refused("name"), before + 3);

    // the same name under another authority
    let elsewhere = tempfile::tempdir().unwrap();
    let authority = Authority::create(elsewhere.path()).unwrap();
    issue(&authority, "m", &[Kind::MeetingManager]);
    let before = refused("untrusted");
    assert!(!is_served(cluster.as_holder(elsewhere.path(), "m").await).await);
    assert_eq!(refused("untrusted"), before + 1);

    // without a certificate, and without TLS
    let before = refused("no-certificate");
    let name = dns_name(Kind::Switch, "switch-1");
    assert!(!is_served(cluster.connect(&name, None).await).await);
    assert_eq!(refused("no-certificate"), before + 1);
    let before = refused("handshake");
    let url = format!("http://{}", cluster.switch.control_address());
    assert!(!is_served(SwitchClient::connect(url).await).await);
    assert!(refused("handshake") > before);

    let inspected = member.inspect(InspectRequest::default()).await.unwrap();
    assert_eq!(inspected.into_inner().legs, 1, "what the member ordered");
    cluster.switch.shutdown().await;
}

#[tokio::test]
async fn a_switch_under_another_ones_name_is_not_believed() {
    let cluster = start().await;
    let tls = load(cluster.folder.path(), "m");
    let (_, certificate, key) = tls.pem();
    let identity = Identity::from_pem(certificate, key);
    let name = dns_name(Kind::Switch, "switch-2");
    assert!(cluster.connect(&name, Some(identity)).await.is_err());
    cluster.switch.shutdown().await;
}
