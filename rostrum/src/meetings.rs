//! `rostrum meeting`: which meetings run, and who is in them, from a process' admin address.

use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What to see.
#[derive(Subcommand, Debug)]
pub enum MeetingCommand {
    /// All meetings that run
    List {
        #[command(flatten)]
        from: From,
    },
    /// One meeting: participants, dialogs, slots and who holds them
    Show {
        /// User part of its address
        meeting: String,
        #[command(flatten)]
        from: From,
    },
}

/// Whom to ask.
#[derive(Args, Debug)]
pub struct From {
    /// Admin address of a meeting manager, or of a lab
    #[arg(long, default_value = "http://127.0.0.1:5064", env = "ROSTRUM_API")]
    api: String,
    /// Print the JSON as it is
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub async fn run(command: MeetingCommand) -> Result<(), String> {
    match command {
        MeetingCommand::List { from } => {
            let meetings = get(&from.api, "/api/v1/meetings").await?;
            if from.json {
                println!("{meetings}");
                return Ok(());
            }
            let list = meetings["meetings"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            if list.is_empty() {
                println!("no meeting is running");
            }
            for m in list {
                let people = &m["participants"];
                println!(
                    "{}\t{people} participants\ton switch {}",
                    text(&m["id"]),
                    text(&m["switch"])
                );
            }
        }
        MeetingCommand::Show { meeting, from } => {
            let m = get(&from.api, &format!("/api/v1/meetings/{meeting}")).await?;
            if from.json {
                println!("{m}");
                return Ok(());
            }
            show(&m);
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn show(m: &Value) {
    println!(
        "{}  {}  on switch {}",
        text(&m["id"]),
        text(&m["title"]),
        text(&m["switch"])
    );
    let name = |leg: &Value| {
        let found = m["participants"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["id"] == *leg);
        found.map_or_else(|| text(leg), |p| text(&p["display"]))
    };
    println!(
        "dominant: {}  before: {}",
        name(&m["media"]["dominant"]),
        name(&m["media"]["previous"])
    );
    for p in m["participants"].as_array().into_iter().flatten() {
        println!(
            "  {}  {}  source {}  {}",
            text(&p["display"]),
            text(&p["uri"]),
            text(&p["source"]),
            text(&p["state"])
        );
        let legs = m["media"]["legs"].as_array();
        for slot in legs
            .into_iter()
            .flatten()
            .filter(|l| l["id"] == p["id"])
            .flat_map(|l| l["slots"].as_array())
            .flatten()
        {
            println!(
                "      {} slot {}: {}",
                text(&slot["kind"]),
                slot["number"],
                name(&slot["holder"])
            );
        }
    }
}

/// GET of a plain URL: the admin address is on loopback or an inner network.
async fn get(api: &str, path: &str) -> Result<Value, String> {
    let host = api
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .trim_end_matches("/api/v1");
    let told = |e: std::io::Error| {
        format!("{api}: {e}; --api names the admin address of a running process")
    };
    let mut stream = TcpStream::connect(host).await.map_err(told)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(told)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("{api}: not an HTTP answer"))?;
    if head.split_whitespace().nth(1) != Some("200") {
        return Err(body.trim().to_owned());
    }
    serde_json::from_str(body).map_err(|e| format!("{api}: {e}"))
}
