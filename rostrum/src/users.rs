//! `rostrum user`: the file of those who may register.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with the file.
#[derive(Subcommand, Debug)]
pub enum UserCommand {
    /// Add a user, or change the password of one
    Add {
        /// User part of the SIP address
        name: String,
        /// Name shown to others
        #[arg(long, default_value = "")]
        display: String,
        /// Password; asked for (or read from standard input) where not given
        #[arg(long, env = "ROSTRUM_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        #[command(flatten)]
        file: UsersFile,
    },
    /// List the users
    List {
        #[command(flatten)]
        file: UsersFile,
    },
    /// Remove a user
    Remove {
        /// User part of the SIP address
        name: String,
        #[command(flatten)]
        file: UsersFile,
    },
}

/// Which file.
#[derive(Args, Debug)]
pub struct UsersFile {
    /// The users' file: `users` in [registrar]
    #[arg(long, default_value = "users.toml")]
    file: PathBuf,
    /// Realm that the passwords are for: `realm` in [registrar], or its `domain`
    #[arg(long)]
    realm: String,
}

/// Does it.
pub fn run(command: UserCommand) -> Result<(), String> {
    match command {
        UserCommand::Add {
            name,
            display,
            password,
            file,
        } => {
            let password = match password {
                Some(password) => password,
                None => read_password(&name)?,
            };
            if password.is_empty() {
                return Err("an empty password lets anybody in: give one".into());
            }
            registrar::users::add(&file.file, &file.realm, &name, &password, &display)
                .map_err(|e| e.to_string())?;
            println!("{name} may register; running registrars know within a second");
        }
        UserCommand::List { file } => {
            for user in
                registrar::users::list(&file.file, &file.realm).map_err(|e| e.to_string())?
            {
                println!("{}\t{}", user.name, user.display);
            }
        }
        UserCommand::Remove { name, file } => {
            registrar::users::remove(&file.file, &file.realm, &name).map_err(|e| e.to_string())?;
            println!("{name} may no longer register");
        }
    }
    Ok(())
}

fn read_password(name: &str) -> Result<String, String> {
    let input = std::io::stdin();
    if input.is_terminal() {
        print!("Password for {name} (shown as you type): ");
        std::io::stdout().flush().map_err(|e| e.to_string())?;
    }
    let mut line = String::new();
    input
        .lock()
        .read_line(&mut line)
        .map_err(|e| e.to_string())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
