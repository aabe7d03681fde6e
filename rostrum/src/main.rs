//! The `rostrum` command.

#![forbid(unsafe_code)]

mod admin;
mod config;
mod lab;
mod meetings;
mod observe;
mod roles;
mod users;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// See which meetings run, and who is in them
    #[command(subcommand)]
    Meeting(meetings::MeetingCommand),
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
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
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
        Command::Config(ConfigCommand::Check { file }) => {
            load(
                &file,
                &[Role::Registrar, Role::MeetingManager, Role::Switch],
            )?;
            println!("{}: nothing wrong", file.display());
            Ok(())
        }
        Command::User(command) => users::run(command),
        Command::Meeting(command) => block_on(meetings::run(command)),
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

fn role(args: &RoleArgs, role: Role) -> Result<(), String> {
    let config = load(&args.config, &[role])?;
    observe::start_logging(&config.log)?;
    block_on(async move { Roles::start(&config, &[role]).await?.run().await })
}
