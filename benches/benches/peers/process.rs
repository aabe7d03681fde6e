//! A peer's process, and what runs cost.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::Result;

/// Lines of a peer's log that go with a failure.
const LOG_LINES: usize = 5;

/// A peer that runs; it ends with this value.
pub struct Process {
    program: String,
    child: Child,
    /// Its configuration and log.
    folder: TempDir,
}

impl Process {
    /// Starts a program whose files are in that folder.
    pub fn start(program: &str, arguments: &[String], folder: TempDir) -> Result<Self> {
        let log = File::create(folder.path().join("log"))?;
        // The kernel ends it where no destructor runs: when this process is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("setpriv (util-linux) does not start: {error}"))?;
        Ok(Self {
            program: program.to_owned(),
            child,
            folder,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How it ended, if it did, with the end of its log.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} ended, {status}: {}", self.program, self.log()))
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join(" / ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program says to `--version`: the line that has the word.
pub fn version(program: &str) -> String {
    match Command::new(program).arg("--version").output() {
        Err(error) => format!("not there: {error} (scripts/setup peers installs it)"),
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let line = said.lines().find(|line| line.contains("ersion:"));
            let number = line.and_then(|line| line.split_once(':'));
            number.map_or("unknown", |(_, number)| number.trim()).into()
        }
    }
}

/// Whose CPU time.
#[derive(Clone, Copy)]
pub enum Clock {
    /// Of this process's threads with that name.
    Thread(&'static str),
    /// Of all threads of a process.
    Process(u32),
}

impl Clock {
    pub fn read(self) -> Reading {
        let tasks = match self {
            Self::Thread(_) => "/proc/self/task".to_owned(),
            Self::Process(pid) => format!("/proc/{pid}/task"),
        };
        let tasks = std::fs::read_dir(tasks).into_iter().flatten().flatten();
        let wanted = tasks.filter(|task| match self {
            Self::Process(_) => true,
            Self::Thread(name) => std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|comm| comm.trim() == name),
        });
        let times = wanted.filter_map(|task| {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let ran = stat.split(' ').next()?.parse().ok()?;
            Some((task.file_name().to_string_lossy().into_owned(), ran))
        });
        Reading(times.collect())
    }
}

/// Nanoseconds each thread has run.
pub struct Reading(BTreeMap<String, u64>);

impl Reading {
    /// What ran since; thread by thread, so that one that ended takes nothing back.
    pub fn since(&self, before: &Self) -> u64 {
        let ran = |(thread, now): (&String, &u64)| {
            now.saturating_sub(before.0.get(thread).copied().unwrap_or(0))
        };
        self.0.iter().map(ran).sum()
    }
}
