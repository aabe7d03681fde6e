//! The `rostrum` command.

#![forbid(unsafe_code)]

mod admin;
mod chaos;
mod cluster_command;
mod config;
mod lab;
mod load;
mod meetings;
mod observe;
mod roles;
mod users;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use config::Role;
use roles::Roles;

/// A conference engine: phones and browsers in one meeting, over SIP.
#[derive(Parser, Debug)]
#[command(version, about, after_help = "Begin with: rostrum lab")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Try Rostrum: all roles on this machine, with accounts and meetings ready
    Lab(lab::LabArgs),
    /// Let phones and browsers register and call: the edge proxy
    Registrar(RoleArgs),
    /// Serve meetings: the focus, which holds a dialog with every participant
    MeetingManager(RoleArgs),
    /// Forward audio and video between participants
    Switch(RoleArgs),
    /// Write a configuration file, or find what is wrong with one
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Manage who may register: add, list and remove users
    #[command(subcommand)]
    User(users::UserCommand),
    /// Put a conference server under load, and check what it sends
    Load(Box<load::LoadArgs>),
    /// Start a cluster here, put load on it, break it, and judge what came of that
    Chaos(chaos::ChaosArgs),
    /// See which meetings run, and who is in them
    #[command(subcommand)]
    Meeting(meetings::MeetingCommand),
    /// Run several machines as one: certificates, who is there, who is to be emptied
    #[command(subcommand)]
    Cluster(cluster_command::ClusterCommand),
}

#[derive(clap::Args, Debug)]
struct RoleArgs {
    /// Configuration file (rostrum config default writes one)
    #[arg(long, env = "ROSTRUM_CONFIG")]
    config: PathBuf,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print every setting with its default and what it means, as TOML
    Default,
    /// Say what is wrong with a file, line by line, and what to write instead
    Check {
        /// The file
        file: PathBuf,
        /// Role that the file is for; may be given several times [default: those it has a table for, else all]
        #[arg(long, value_delimiter = ',')]
        role: Vec<Role>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // says more by its exit code than that it failed
    if let Command::Load(args) = &cli.command {
        return load::run(args);
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rostrum: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Lab(args) => block_on(lab::run(args)),
        Command::Registrar(args) => role(&args, Role::Registrar),
        Command::MeetingManager(args) => role(&args, Role::MeetingManager),
        Command::Switch(args) => role(&args, Role::Switch),
        Command::Config(ConfigCommand::Default) => {
            print!("{}", config::default_file());
            Ok(())
        }
        Command::Config(ConfigCommand::Check { file, role }) => check(&file, role),
        Command::User(command) => users::run(command),
        Command::Meeting(command) => block_on(meetings::run(command)),
        Command::Chaos(args) => block_on(chaos::run(args)),
        Command::Cluster(command) => block_on(cluster_command::run(command)),
        Command::Load(_) => Ok(()),
    }
}

fn block_on(future: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|e| format!("runtime: {e}"))?
        .block_on(future)
}

fn load(file: &std::path::Path, roles: &[Role]) -> Result<config::Config, String> {
    config::load(file, roles).map_err(|problems| config::told(&problems))
}

fn check(file: &std::path::Path, named: Vec<Role>) -> Result<(), String> {
    let roles = match named.is_empty() {
        true => config::roles_of(file),
        false => named,
    };
    let names: Vec<String> = roles.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    load(file, &roles).map_err(|e| format!("{e}\nchecked for: {names}"))?;
    println!("{}: nothing wrong for: {names}", file.display());
    for variable in unknown_variables() {
        eprintln!("warning: environment variable {variable} names no setting");
    }
    Ok(())
}

/// Variables that look like ours, and mean nothing here.
fn unknown_variables() -> Vec<String> {
    fn own(command: &clap::Command, names: &mut Vec<String>) {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        names.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        for inner in command.get_subcommands() {
            own(inner, names);
        }
    }
    let mut names = Vec::new();
    own(&Cli::command(), &mut names);
    config::variables()
        .filter(|name| !name.contains("__") && !names.contains(name))
        .collect()
}

fn start_logging(log: &observe::Log) -> Result<(), String> {
    observe::start_logging(log)?;
    for variable in unknown_variables() {
        tracing::warn!("environment variable {variable} names no setting");
    }
    Ok(())
}

fn role(args: &RoleArgs, role: Role) -> Result<(), String> {
    let config = load(&args.config, &[role])?;
    start_logging(&config.log)?;
    block_on(async move { Roles::start(&config, &[role]).await?.run().await })
}
