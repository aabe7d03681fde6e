//! The watchdog on real sockets and real processes.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::embedded::EmbeddedStore;
use cluster::records::{Member, RECORD_VERSION, SwitchRecord, keys};
use cluster::{
    Cache, Change, EtcdConfig, LeaseKeeper, LeaseTimes, Standing, Store, Watchdog, etcd::EtcdStore,
};
use common::Etcd;

fn member(id: &str, sip: Option<SocketAddr>) -> Vec<u8> {
    let member = Member {
        version: RECORD_VERSION,
        id: id.into(),
        sip: sip.map(|a| ("tcp".to_owned(), a)).into_iter().collect(),
        api: String::new(),
        load: 0,
        draining: false,
    };
    serde_json::to_vec(&member).unwrap()
}

fn switch(id: &str, control: SocketAddr) -> Vec<u8> {
    let switch = SwitchRecord {
        version: RECORD_VERSION,
        id: id.into(),
        instance: "i".into(),
        control: format!("http://{control}"),
        load: 0,
        draining: false,
        fingerprints: Vec::new(),
    };
    serde_json::to_vec(&switch).unwrap()
}

/// A peer in this process: keeps what connects to it until it is dropped.
struct Peer {
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
    lease: LeaseKeeper,
    connected: tokio::sync::watch::Receiver<u32>,
}

/// A lease that does not end within a test, so that only the watchdog can have ended it.
const LONG: LeaseTimes = LeaseTimes {
    ttl: Duration::from_secs(600),
    renew: Duration::from_millis(100),
    fence: Duration::from_secs(500),
};

impl Peer {
    async fn start(
        store: &Arc<dyn Store>,
        key: &str,
        record: impl Fn(SocketAddr) -> Vec<u8>,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lease = LeaseKeeper::start(Arc::clone(store), LONG);
        lease.put(key, record(address)).await.unwrap();
        let (count, connected) = tokio::sync::watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                kept.push(stream);
                count.send_modify(|n| *n += 1);
            }
        });
        Self {
            address,
            accepting,
            lease,
            connected,
        }
    }

    async fn linked(&mut self) {
        soon(self.connected.wait_for(|n| *n > 0)).await.unwrap();
    }

    /// What a kill does to its sockets. The lease goes on being renewed, until it is ended.
    async fn die(self) -> LeaseKeeper {
        self.accepting.abort();
        let _ = self.accepting.await;
        self.lease
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .expect("within ten seconds")
}

async fn watchdog(store: &Arc<dyn Store>) -> (Watchdog, Cache<Member>, Cache<SwitchRecord>) {
    let members = Cache::members(Arc::clone(store));
    let switches = Cache::switches(Arc::clone(store));
    soon(members.ready()).await;
    soon(switches.ready()).await;
    let dog = Watchdog::start(Arc::clone(store), "self", members.clone(), switches.clone());
    (dog, members, switches)
}

/// It counts a moment after the store has told everyone.
async fn revoked(dog: &Watchdog, wanted: u64) {
    soon(async {
        while dog.revoked() < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(dog.revoked(), wanted);
}

async fn generation(lease: &LeaseKeeper, wanted: u64) {
    let mut standing = lease.standing();
    let reached =
        standing.wait_for(|s| matches!(s, Standing::Alive { generation } if *generation == wanted));
    soon(reached).await.unwrap();
}

#[tokio::test]
async fn a_dead_member_and_a_dead_switch_lose_their_leases_at_once() {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let mut a = Peer::start(&store, &keys::member("a"), |at| member("a", Some(at))).await;
    let mut b = Peer::start(&store, &keys::member("b"), |at| member("b", Some(at))).await;
    let mut s = Peer::start(&store, &keys::switch("s"), |at| switch("s", at)).await;
    let (dog, _, _) = watchdog(&store).await;
    for peer in [&mut a, &mut b, &mut s] {
        peer.linked().await;
    }
    // Its keeper lives on here and comes back: that is how it is seen that the lease had ended.
    let a = a.die().await;
    generation(&a, 2).await;
    revoked(&dog, 1).await;
    a.stop().await;
    let s = s.die().await;
    generation(&s, 2).await;
    generation(&b.lease, 1).await;
}

#[tokio::test]
async fn slow_peers_and_those_that_drop_links_are_left_alone() {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let mut witness = Peer::start(&store, &keys::member("w"), |at| member("w", Some(at))).await;
    // Never accepts anything.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf_lease = LeaseKeeper::start(Arc::clone(&store), LONG);
    let record = switch("deaf", deaf.local_addr().unwrap());
    deaf_lease.put(&keys::switch("deaf"), record).await.unwrap();
    // Ends every connection at once.
    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude_lease = LeaseKeeper::start(Arc::clone(&store), LONG);
    let record = member("rude", Some(rude.local_addr().unwrap()));
    rude_lease.put(&keys::member("rude"), record).await.unwrap();
    let begun = Instant::now();
    let (dog, members, _) = watchdog(&store).await;
    witness.linked().await;
    let mut connections = 0;
    while connections < 8 {
        drop(soon(rude.accept()).await.unwrap());
        connections += 1;
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "not in a loop"
    );
    assert_eq!(dog.revoked(), 0);
    assert!(members.get("rude").is_some());
    generation(&rude_lease, 1).await;
    generation(&deaf_lease, 1).await;
}

#[tokio::test]
async fn a_successor_at_the_same_address_is_not_taken_for_its_dead_predecessor() {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let mut witness = Peer::start(&store, &keys::member("w"), |at| member("w", Some(at))).await;
    let mut first = Peer::start(&store, &keys::member("a"), |at| member("a", Some(at))).await;
    let (dog, members, _) = watchdog(&store).await;
    witness.linked().await;
    first.linked().await;
    let address = first.address;
    // The predecessor's lease is kept quiet, the successor listens before it registers.
    let former = first.die().await;
    drop(former);
    let listener = loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let lease = LeaseKeeper::start(Arc::clone(&store), LONG);
    let record = member("a", Some(address));
    lease.put(&keys::member("a"), record).await.unwrap();
    drop(soon(listener.accept()).await.unwrap());
    let (_kept, _) = soon(listener.accept()).await.unwrap();
    generation(&lease, 1).await;
    assert!(members.get("a").is_some());
    assert!(dog.revoked() <= 1, "the predecessor at most");
}

/// Not a test by itself: the process that the tests below kill and stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process() {
    let (Ok(url), Ok(id)) = (std::env::var("CHILD_ETCD"), std::env::var("CHILD_ID")) else {
        return;
    };
    let config = EtcdConfig {
        endpoints: vec![url],
        ..EtcdConfig::default()
    };
    let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&config).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lease = LeaseKeeper::start(store, LeaseTimes::default());
    let record = member(&id, Some(listener.local_addr().unwrap()));
    lease.put(&keys::member(&id), record).await.unwrap();
    let mut kept = Vec::new();
    loop {
        kept.push(listener.accept().await.unwrap());
    }
}

struct Process(Child);

impl Process {
    fn start(etcd: &Etcd, id: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture"])
            .env("CHILD_ETCD", &etcd.url)
            .env("CHILD_ID", id)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three processes on one etcd, watched.
async fn processes() -> Option<(Etcd, Vec<Process>, Watchdog, Cache<Member>)> {
    let etcd = Etcd::start()?;
    let store = etcd.store().await;
    let processes: Vec<_> = ["a", "b", "c"].map(|id| Process::start(&etcd, id)).into();
    let (dog, members, _) = watchdog(&store).await;
    soon(async {
        while members.len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Links stand a moment after the records are known.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Some((etcd, processes, dog, members))
}

async fn deleted(members: &mut cluster::Changes<Member>) -> String {
    soon(async {
        loop {
            match members.next().await.unwrap() {
                Change::Deleted(id, _) => return id,
                Change::Put(..) | Change::Resynced => {}
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_known_within_half_a_second() {
    let Some((_etcd, mut processes, dog, members)) = processes().await else {
        return;
    };
    let mut changes = members.subscribe();
    let killed = Instant::now();
    processes[0].0.kill().unwrap();
    assert_eq!(deleted(&mut changes).await, "a");
    let took = killed.elapsed();
    println!("known after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    revoked(&dog, 1).await;
    assert_eq!(members.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_is_known_by_its_lease_and_a_stalling_one_lives() {
    let Some((_etcd, processes, dog, members)) = processes().await else {
        return;
    };
    let mut changes = members.subscribe();
    for _ in 0..5 {
        processes[1].signal("-STOP");
        tokio::time::sleep(Duration::from_millis(400)).await;
        processes[1].signal("-CONT");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(
        members.len(),
        3,
        "stalls shorter than the lease are no death"
    );
    let stopped = Instant::now();
    processes[0].signal("-STOP");
    assert_eq!(deleted(&mut changes).await, "a");
    let took = stopped.elapsed();
    println!("known after {took:?}");
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    assert_eq!((dog.revoked(), members.len()), (0, 2));
}
