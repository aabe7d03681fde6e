//! The etcd engine against an etcd that asks who is there: TLS, client certificates, users and tokens.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::etcd::{EtcdError, EtcdStore};
use cluster::records::keys;
use cluster::{
    Cache, EtcdConfig, LeaseKeeper, LeaseTimes, Standing, Store, StoreConfig, StoreError,
    WatchEvent,
};
use common::{Etcd, commit, next, put};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

#[tokio::test]
async fn user_and_password_are_used_and_wrong_ones_refused() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.store().await;
    let mut root = etcd_client::Client::connect([&etcd.url], None)
        .await
        .unwrap();
    root.user_add("root", "right", None).await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.auth_enable().await.unwrap();
    let with = |password: &str| EtcdConfig {
        user: Some("root".into()),
        password: Some(password.into()),
        timeout_ms: 1_500,
        ..etcd.config()
    };
    let store = EtcdStore::new(&with("right")).unwrap();
    commit(&store, vec![put("u/a", "1")]).await;
    let wrong = EtcdStore::new(&with("wrong")).unwrap();
    assert!(matches!(
        wrong.get("u/a").await,
        Err(StoreError::Refused(_))
    ));
    let anonymous = EtcdStore::new(&EtcdConfig {
        timeout_ms: 500,
        ..etcd.config()
    })
    .unwrap();
    assert!(anonymous.get("u/a").await.is_err());
}

#[tokio::test]
async fn tls_is_verified_against_the_given_authority() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    for name in ["etcd", "stranger"] {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(file(&format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(
            file(&format!("{name}.key")),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
    }
    let (cert, key) = (file("etcd.pem"), file("etcd.key"));
    let arguments = [
        "--cert-file",
        cert.to_str().unwrap(),
        "--key-file",
        key.to_str().unwrap(),
    ];
    let Some(etcd) = Etcd::start_with("https", &arguments) else {
        return;
    };
    let trusting = EtcdConfig {
        ca_file: Some(cert.clone()),
        ..etcd.config()
    };
    let store = etcd.store_with(&trusting).await;
    commit(&*store, vec![put("t/a", "1")]).await;
    let stranger = EtcdConfig {
        ca_file: Some(file("stranger.pem")),
        timeout_ms: 500,
        ..etcd.config()
    };
    let stranger = EtcdStore::new(&stranger).unwrap();
    assert!(matches!(
        stranger.get("t/a").await,
        Err(StoreError::Unavailable(_))
    ));
}

/// An authority, and certificates it signed, as PEM files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Files with a certificate for loopback and its key.
    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (PathBuf, PathBuf) {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.directory.path().join(format!("{name}.{end}"));
        std::fs::write(file("pem"), cert.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        (file("pem"), file("key"))
    }
}

fn argument(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_certificates_on_both_sides_it_conforms_and_strangers_are_kept_out() {
    let authority = Authority::new();
    let (cert, key) = authority.sign("etcd", ExtendedKeyUsagePurpose::ServerAuth);
    let (own_cert, own_key) = authority.sign("rostrum", ExtendedKeyUsagePurpose::ClientAuth);
    let arguments = [
        argument("--cert-file", &cert),
        argument("--key-file", &key),
        argument("--trusted-ca-file", &authority.ca()),
        "--client-cert-auth".to_owned(),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let Some(etcd) = Etcd::start_with("https", &arguments) else {
        return;
    };
    // As it stands in a configuration file.
    let config = serde_json::json!({
        "engine": "etcd",
        "endpoints": [etcd.url],
        "ca_file": authority.ca(),
        "cert_file": own_cert,
        "key_file": own_key,
    });
    let config: StoreConfig = serde_json::from_value(config).unwrap();
    let store = cluster::open(&config).await.unwrap();
    let up = tokio::time::timeout(Duration::from_secs(20), async {
        // Until it has its name: that is the only write of its own, and the suite counts.
        while !matches!(store.get(&keys::identity()).await, Ok(Some(_))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    up.await.expect("it lets us in");
    common::conformance(Arc::clone(&store)).await;

    let nobody = EtcdConfig {
        ca_file: Some(authority.ca()),
        timeout_ms: 500,
        ..etcd.config()
    };
    let other = Authority::new();
    let (cert, key) = other.sign("stranger", ExtendedKeyUsagePurpose::ClientAuth);
    let stranger = EtcdConfig {
        cert_file: Some(cert),
        key_file: Some(key),
        ..nobody.clone()
    };
    for config in [nobody, stranger] {
        let kept_out = EtcdStore::new(&config).unwrap().get("t/a").await;
        assert!(
            matches!(kept_out, Err(StoreError::Unavailable(_))),
            "{kept_out:?}"
        );
    }
}

#[test]
fn half_a_pair_and_missing_files_are_said() {
    let https = EtcdConfig {
        endpoints: vec!["https://127.0.0.1:1".into()],
        ca_file: Some("/nowhere/ca.pem".into()),
        ..EtcdConfig::default()
    };
    let error = EtcdStore::new(&https).unwrap_err();
    assert!(matches!(&error, EtcdError::File { .. }));
    assert!(error.to_string().contains("/nowhere/ca.pem"));
    let half = EtcdConfig {
        ca_file: None,
        cert_file: Some("/nowhere/cert.pem".into()),
        ..https.clone()
    };
    assert!(matches!(EtcdStore::new(&half), Err(EtcdError::Pair(_))));
    let half = EtcdConfig {
        user: Some("root".into()),
        ..EtcdConfig::default()
    };
    assert!(matches!(EtcdStore::new(&half), Err(EtcdError::Pair(_))));
}

/// Tokens of etcd's own kind live for five minutes, here for two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_expire_are_renewed_without_a_failure() {
    let Some(etcd) = Etcd::start_with("http", &["--auth-token-ttl=2"]) else {
        return;
    };
    etcd.store().await;
    let mut root = etcd_client::Client::connect([&etcd.url], None)
        .await
        .unwrap();
    root.user_add("root", "secret", None).await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    // Not root: what an operator would give us.
    root.role_add("rostrum").await.unwrap();
    let permission = etcd_client::Permission::read_write("/rostrum/").with_prefix();
    root.role_grant_permission("rostrum", permission)
        .await
        .unwrap();
    root.user_add("rostrum", "right", None).await.unwrap();
    root.user_grant_role("rostrum", "rostrum").await.unwrap();
    root.auth_enable().await.unwrap();
    let config = EtcdConfig {
        user: Some("rostrum".into()),
        password: Some("right".into()),
        ..etcd.config()
    };
    let store = etcd.store_with(&config).await;
    let from = commit(&*store, vec![put("/rostrum/t/0", "0")]).await;
    let mut watch = store.watch("/rostrum/t/", from).await.unwrap();
    let cache = Cache::<u32>::start(Arc::clone(&store), "/rostrum/t/".into());
    cache.ready().await;
    let keeper = LeaseKeeper::start(Arc::clone(&store), LeaseTimes::default());
    keeper.put("/rostrum/m/a", "1").await.unwrap();
    for n in 1..=3 {
        // Unused for longer than a token lives.
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        let key = format!("/rostrum/t/{n}");
        let at = commit(&*store, vec![put(&key, "1")]).await;
        let WatchEvent::Put(entry) = next(&mut watch).await else {
            panic!("the watch goes on")
        };
        assert_eq!((entry.key, entry.modified), (key, at));
        assert!(cache.is_fresh());
        let standing = *keeper.standing().borrow();
        assert_eq!(standing, Standing::Alive { generation: 1 });
    }
    assert!(matches!(
        store.get("/other").await,
        Err(StoreError::Refused(_))
    ));
}
