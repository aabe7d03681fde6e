//! `rostrum cluster init`: the authority, and certificates of members.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cluster::authority::{Authority, Holder};
use cluster::records::Kind;

/// What a certificate may be used for in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Use {
    /// Gives orders to switches
    MeetingManager,
    /// Takes them
    Switch,
    /// Neither; as a registrar
    Registrar,
    /// Neither; a server or client of etcd alone
    Etcd,
}

impl Use {
    fn kind(self) -> Option<Kind> {
        match self {
            Self::MeetingManager => Some(Kind::MeetingManager),
            Self::Switch => Some(Kind::Switch),
            Self::Registrar => Some(Kind::Registrar),
            Self::Etcd => None,
        }
    }
}

/// Whom to certify.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// Folder of the authority (ca.pem, ca.key) and the certificates (NAME.pem, NAME.key)
    #[arg(long, default_value = "cluster-tls")]
    folder: PathBuf,
    /// The authority is there: make certificates of further members
    #[arg(long)]
    add: bool,
    /// What the certificates are for; may be given several times. All are good for etcd, too
    #[arg(long, value_delimiter = ',', default_values = ["meeting-manager", "switch", "registrar"])]
    role: Vec<Use>,
    /// A member: its id, and the addresses and host names it is reached by
    #[arg(required = true, value_name = "NAME=ADDRESS,...", value_parser = member)]
    members: Vec<(String, Vec<String>)>,
}

impl InitArgs {
    /// A new authority in that folder, with certificates for all roles of these members.
    pub fn new(folder: PathBuf, members: Vec<(String, Vec<String>)>) -> Self {
        Self {
            folder,
            add: false,
            role: vec![Use::MeetingManager, Use::Switch, Use::Registrar],
            members,
        }
    }
}

fn member(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, addresses) = text.split_once('=').unwrap_or((text, ""));
    let addresses: Vec<String> = addresses
        .split(',')
        .map(str::trim)
        .filter(|a| !a.is_empty())
        .map(str::to_owned)
        .collect();
    match name.is_empty() {
        true => Err("write NAME=ADDRESS, for example a=10.0.0.1,a.example.org".to_owned()),
        false => Ok((name.to_owned(), addresses)),
    }
}

/// Does it, or nothing; whom it has certified.
pub fn make(args: &InitArgs) -> Result<Vec<Holder>, String> {
    let kinds: Vec<Kind> = args.role.iter().filter_map(|role| role.kind()).collect();
    let holders: Vec<Holder> = args
        .members
        .iter()
        .map(|(name, addresses)| Holder {
            name: name.clone(),
            kinds: kinds.clone(),
            addresses: addresses.clone(),
        })
        .collect();
    Authority::check(&args.folder, &holders).map_err(|e| e.to_string())?;
    let authority = match args.add {
        true => Authority::open(&args.folder)
            .map_err(|e| format!("{e}; without --add a new authority is made"))?,
        false => Authority::create(&args.folder)
            .map_err(|e| format!("{e}: --add makes certificates of further members"))?,
    };
    for holder in &holders {
        authority.issue(holder).map_err(|e| e.to_string())?;
    }
    Ok(holders)
}

/// Does it, or nothing, and says what was made.
pub fn run(args: &InitArgs) -> Result<(), String> {
    let holders = make(args)?;
    let ca = args.folder.join("ca.pem");
    if !args.add {
        println!(
            "{}: the cluster's authority. Keep {} where no role runs: whoever has it can make members",
            ca.display(),
            args.folder.join("ca.key").display()
        );
    }
    for holder in &holders {
        let file = |ending: &str| args.folder.join(format!("{}.{ending}", holder.name));
        println!(
            "{}, {}: for {}",
            file("pem").display(),
            file("key").display(),
            if holder.addresses.is_empty() {
                "no address, so that etcd cannot serve with it".to_owned()
            } else {
                holder.addresses.join(", ")
            }
        );
    }
    Ok(())
}
