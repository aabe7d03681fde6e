//! Whom a fault meets, and how it is done and undone.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use parking_lot::Mutex;

use super::cluster::{Cluster, Kind};
use super::scenarios::{Between, Cut, Fault, Whom};

/// Half a period of a connection that comes and goes.
const FLAP: Duration = Duration::from_millis(500);
/// How long what was killed stays away, and the store full.
const AWAY: Duration = Duration::from_secs(8);

/// Whom a fault meets.
#[derive(Debug, Default)]
pub struct Aim {
    /// The processes.
    pub victims: Vec<usize>,
    /// The meetings of a manager among them.
    pub meetings: Vec<String>,
}

impl Aim {
    /// For people.
    pub fn told(&self, cluster: &Cluster) -> String {
        let names = self.victims.iter().map(|n| cluster.nodes[*n].name.clone());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Why a scenario cannot be run on this machine.
pub fn impossible(fault: Fault, can_cut: bool) -> Option<&'static str> {
    match fault {
        Fault::Partition(..) if !can_cut => {
            Some("connections are cut in network namespaces, which only root may make")
        }
        Fault::ClockJump => Some(
            "Linux has no namespace for the wall clock, and the machine's own is everybody's; time is faked only by \
             preloaded libraries, which are not ours",
        ),
        _ => None,
    }
}

/// Chooses.
///
/// # Errors
/// There is nobody of that kind.
pub async fn aim(cluster: &Cluster, fault: Fault) -> Result<Aim, String> {
    let owner = Whom::Owner;
    match fault {
        Fault::Kill(whom) | Fault::Stop(whom) => find(cluster, whom).await,
        Fault::KillDuringInvite | Fault::Partition(..) | Fault::ClockJump => {
            find(cluster, owner).await
        }
        Fault::Nothing | Fault::StoreFull => Ok(Aim::default()),
        Fault::RollingRestart | Fault::ColdStart => Ok(Aim {
            victims: (0..cluster.nodes.len()).collect(),
            meetings: Vec::new(),
        }),
    }
}

async fn find(cluster: &Cluster, whom: Whom) -> Result<Aim, String> {
    let alone = |n: Option<usize>| {
        let victims = n.into_iter().collect::<Vec<_>>();
        match victims.is_empty() {
            true => Err(format!("there is no {whom:?} to be met")),
            false => Ok(Aim {
                victims,
                meetings: Vec::new(),
            }),
        }
    };
    match whom {
        Whom::Registrar => alone(cluster.of(Kind::Registrar).first().copied()),
        Whom::Owner | Whom::IdleManager => {
            let mut all = Vec::new();
            for n in cluster.of(Kind::Manager) {
                let view = cluster.view(n, "/api/v1/meetings").await?;
                let lines = view["meetings"].as_array().into_iter().flatten();
                let served = lines.filter(|m| m["participants"].as_u64().unwrap_or(0) > 0);
                let ids = served.filter_map(|m| m["id"].as_str().map(str::to_owned));
                all.push((n, ids.collect::<Vec<_>>()));
            }
            all.sort_by_key(|(_, meetings)| meetings.len());
            let found = match whom {
                Whom::Owner => all.pop(),
                // with many meetings none is quite idle
                _ => all.into_iter().next(),
            };
            let (n, meetings) = found.ok_or("there is no manager")?;
            Ok(Aim {
                victims: vec![n],
                meetings,
            })
        }
        Whom::Switch => {
            let mut most = (0, None);
            for n in cluster.of(Kind::Switch) {
                let view = cluster.view(n, "/api/v1/switch").await?;
                let legs = view["legs"].as_u64().unwrap_or(0);
                if legs >= most.0 {
                    most = (legs, Some(n));
                }
            }
            alone(most.1)
        }
        Whom::EtcdLeader | Whom::EtcdFollower => {
            let leads = whom == Whom::EtcdLeader;
            for n in cluster.of(Kind::Etcd) {
                let path = "/v3/maintenance/status";
                let status = cluster.ask_etcd(n, path, "{}").await?;
                if (status["leader"] == status["header"]["member_id"]) == leads {
                    return alone(Some(n));
                }
            }
            alone(None)
        }
    }
}

/// Does it, notes when in `struck`, waits, and undoes it.
///
/// # Errors
/// It could not be done, or something did not start again.
pub async fn injure(
    cluster: &mut Cluster,
    fault: Fault,
    aim: &Aim,
    pause: Duration,
    struck: &Mutex<Option<Instant>>,
) -> Result<(), String> {
    if fault == Fault::KillDuringInvite {
        // the joins that are tried all the time have begun
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    *struck.lock() = Some(Instant::now());
    match fault {
        Fault::Nothing => tokio::time::sleep(AWAY).await,
        Fault::ClockJump => return Err("the clock cannot be set".to_owned()),
        Fault::Kill(_) | Fault::KillDuringInvite => {
            for n in &aim.victims {
                cluster.signal(*n, Signal::SIGKILL)?;
            }
            tokio::time::sleep(AWAY).await;
            cluster.start_all().await?;
        }
        Fault::Stop(_) => {
            for n in &aim.victims {
                cluster.signal(*n, Signal::SIGSTOP)?;
            }
            tokio::time::sleep(pause).await;
            cluster.let_all_go_on()?;
        }
        Fault::Partition(between, cut) => partition(cluster, between, cut, aim, pause).await?,
        Fault::StoreFull => {
            alarm(cluster, "ACTIVATE").await?;
            tokio::time::sleep(AWAY).await;
            alarm(cluster, "DEACTIVATE").await?;
        }
        Fault::RollingRestart => {
            for n in 0..cluster.nodes.len() {
                cluster.restart(n).await?;
            }
        }
        Fault::ColdStart => {
            for n in 0..cluster.nodes.len() {
                cluster.signal(n, Signal::SIGKILL)?;
            }
            cluster.start_all().await?;
        }
    }
    Ok(())
}

/// etcd's own alarm for a full database: it takes no more writes.
async fn alarm(cluster: &Cluster, action: &str) -> Result<(), String> {
    let n = *cluster.of(Kind::Etcd).first().ok_or("there is no etcd")?;
    let path = "/v3/maintenance/status";
    let status = cluster.ask_etcd(n, path, "{}").await?;
    let member = status["header"]["member_id"].as_str().unwrap_or_default();
    let body =
        format!("{{\"action\":\"{action}\",\"memberID\":\"{member}\",\"alarm\":\"NOSPACE\"}}");
    let path = "/v3/maintenance/alarm";
    cluster.ask_etcd(n, path, &body).await.map(|_| ())
}

async fn partition(
    cluster: &Cluster,
    between: Between,
    cut: Cut,
    aim: &Aim,
    pause: Duration,
) -> Result<(), String> {
    let owner = aim.victims.first().copied().ok_or("there is no owner")?;
    let hosts = |kind| -> Vec<u8> {
        let all = cluster.of(kind).into_iter();
        all.map(|n| cluster.nodes[n].host).collect()
    };
    let own = cluster.nodes[owner].host;
    let pairs: Vec<(u8, u8)> = match between {
        Between::ManagerStore => hosts(Kind::Etcd).into_iter().map(|h| (own, h)).collect(),
        Between::ManagerSwitch => hosts(Kind::Switch).into_iter().map(|h| (own, h)).collect(),
        Between::RegistrarManager => hosts(Kind::Registrar)
            .into_iter()
            .take(1)
            .map(|h| (h, own))
            .collect(),
    };
    let each = |is_cut: bool| -> Result<(), String> {
        for (a, b) in &pairs {
            let mut ways = vec![(*a, *b)];
            if cut != Cut::OneWay {
                ways.push((*b, *a));
            }
            for (from, to) in ways {
                match is_cut {
                    true => cluster.net.cut(from, to)?,
                    false => cluster.net.heal(from, to)?,
                }
            }
        }
        Ok(())
    };
    match cut {
        Cut::Flapping => {
            for _ in 0..8 {
                each(true)?;
                tokio::time::sleep(FLAP).await;
                each(false)?;
                tokio::time::sleep(FLAP).await;
            }
        }
        Cut::Both | Cut::OneWay => {
            each(true)?;
            tokio::time::sleep(pause).await;
            each(false)?;
        }
    }
    Ok(())
}
