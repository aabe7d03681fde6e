//! `rostrum user`: the file of those who may register.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config;

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

/// Which file, and for which realm.
#[derive(Args, Debug)]
pub struct UsersFile {
    /// The users' file: `users` in [registrar] [default: that of --config, else users.toml]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Realm that the passwords are for: `realm` in [registrar], or its `domain` [default: that of --config, else the
    /// one the file has]
    #[arg(long)]
    realm: Option<String>,
    /// The registrar's configuration file, which says both
    #[arg(long, env = "ROSTRUM_CONFIG")]
    config: Option<PathBuf>,
}

/// The file and, where anybody said so, the realm.
type Chosen = (PathBuf, Option<String>);

impl UsersFile {
    fn choose(self) -> Result<Chosen, String> {
        let config = match &self.config {
            Some(path) => Some(config::read(path).map_err(|p| config::told(&p))?.registrar),
            None => None,
        };
        let file = self.file.or_else(|| Some(config.as_ref()?.users.clone()));
        let realm = self.realm.or_else(|| Some(config?.realm().to_owned()));
        Ok((file.unwrap_or_else(|| "users.toml".into()), realm))
    }
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
            let (file, realm) = file.choose()?;
            let realm = match realm {
                Some(realm) => Some(realm),
                None => registrar::users::realm(&file).map_err(|e| e.to_string())?,
            };
            let realm = realm.ok_or_else(|| {
                format!(
                    "{} does not say which realm passwords are for: give --realm example.org, or the registrar's --config",
                    file.display()
                )
            })?;
            let password = match password {
                Some(password) => password,
                None => read_password(&name)?,
            };
            if password.is_empty() {
                return Err("an empty password lets anybody in: give one".into());
            }
            registrar::users::add(&file, &realm, &name, &password, &display)
                .map_err(|e| e.to_string())?;
            println!("{name} may register; running registrars know within a second");
        }
        UserCommand::List { file } => {
            let (file, realm) = file.choose()?;
            let users = registrar::users::list(&file, realm.as_deref());
            for user in users.map_err(|e| e.to_string())? {
                println!("{}\t{}", user.name, user.display);
            }
        }
        UserCommand::Remove { name, file } => {
            let (file, realm) = file.choose()?;
            registrar::users::remove(&file, realm.as_deref(), &name).map_err(|e| e.to_string())?;
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
