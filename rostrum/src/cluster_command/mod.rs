//! `rostrum cluster`: certificates, who is there, and who is to be emptied.

pub mod init;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use cluster::Store;
use cluster::records::{Kind, keys};

use crate::config;

/// How long the store, and one that is to drain, have to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether one has answered.
const LOOK: Duration = Duration::from_millis(100);

/// What to do with the cluster.
#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Make the cluster's certificate authority, and a certificate for each member
    Init(init::InitArgs),
    /// Show who is there, with load and meetings, and how the store is
    Status {
        #[command(flatten)]
        from: From,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have one take nothing new, so that it gets empty; this outlives its restart
    Drain(Whom),
    /// Let one take new work again
    Undrain(Whom),
    /// Have all take the store as it is, which they doubt since it lost data or was restored from a backup
    Trust {
        #[command(flatten)]
        from: From,
        /// Highest revision that the store had before, where all were restarted since: as the log of any of them says
        #[arg(long, value_name = "REVISION")]
        above: Option<u64>,
    },
}

/// Whose cluster.
#[derive(Args, Debug)]
pub struct From {
    /// Configuration file of any role of the cluster, which says where the store is
    #[arg(long, env = "ROSTRUM_CONFIG")]
    config: PathBuf,
}

/// Whom an order is for.
#[derive(Args, Debug)]
pub struct Whom {
    /// meeting-manager, switch or registrar
    kind: Kind,
    /// Its id
    id: String,
    #[command(flatten)]
    from: From,
}

/// Does it.
pub async fn run(command: ClusterCommand) -> Result<(), String> {
    match command {
        ClusterCommand::Init(args) => init::run(&args),
        ClusterCommand::Status { from, json } => status::run(&*from.open().await?, json).await,
        ClusterCommand::Drain(whom) => drain(&*whom.from.open().await?, whom.kind, &whom.id).await,
        ClusterCommand::Undrain(whom) => {
            undrain(&*whom.from.open().await?, whom.kind, &whom.id).await
        }
        ClusterCommand::Trust { from, above } => {
            let store = from.open().await?;
            let above = above.map(cluster::Revision);
            let trusted = cluster::trust::trust(&store, above).await;
            trusted.map_err(|e| e.to_string())?;
            println!("whoever doubts the store trusts it within seconds");
            Ok(())
        }
    }
}

impl From {
    async fn open(&self) -> Result<Arc<dyn Store>, String> {
        let config = config::load(&self.config, &[]).map_err(|p| config::told(&p))?;
        let store = cluster::open(&config.store.engine()).await;
        store.map_err(|e| format!("[store] {e}"))
    }
}

/// Waits for the store no longer than people do.
async fn ask<T>(answer: impl Future<Output = Result<T, cluster::StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err("the store does not answer".to_owned()),
    }
}

/// Prefix of the records of living processes.
fn prefix(kind: Kind) -> String {
    match kind {
        Kind::MeetingManager => keys::members(),
        Kind::Switch => keys::switches(),
        Kind::Registrar => keys::registrars(),
    }
}

async fn drain(store: &dyn Store, kind: Kind, id: &str) -> Result<(), String> {
    let entries = status::all(store, &prefix(kind)).await?;
    let living: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.key.strip_prefix(&prefix(kind)))
        .collect();
    if !living.contains(&id) {
        return Err(match living.is_empty() {
            true => format!("there is no {kind} {id:?}: none is running"),
            false => format!(
                "there is no {kind} {id:?}: running are {}",
                living.join(", ")
            ),
        });
    }
    ask(cluster::drain::drain(store, kind, id)).await?;
    match is_told(store, kind, id, true).await? {
        true => println!("{kind} {id} is draining, until: rostrum cluster undrain {kind} {id}"),
        false => println!("{kind} {id} has the order to drain, and has not answered yet"),
    }
    Ok(())
}

async fn undrain(store: &dyn Store, kind: Kind, id: &str) -> Result<(), String> {
    let key = keys::drain(kind, id);
    if ask(store.get(&key)).await?.is_none() {
        return Err(format!(
            "{kind} {id:?} has no order to drain: rostrum cluster status shows who has"
        ));
    }
    ask(cluster::drain::undrain(store, kind, id)).await?;
    match is_told(store, kind, id, false).await? {
        true => println!("{kind} {id} takes new work again"),
        false => println!("{kind} {id} may take new work again; it has not answered yet"),
    }
    Ok(())
}

/// Waits until one's own record says what it was told; false: it does not in time.
async fn is_told(store: &dyn Store, kind: Kind, id: &str, draining: bool) -> Result<bool, String> {
    let key = format!("{}{id}", prefix(kind));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let entry = ask(store.get(&key)).await?;
        let record = entry.and_then(|e| serde_json::from_slice::<serde_json::Value>(&e.value).ok());
        if record.is_some_and(|r| r["draining"] == draining) {
            return Ok(true);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(false)
}
