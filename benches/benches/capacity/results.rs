//! Results, kept from run to run, so that a part can be measured alone.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

/// The workspace.
pub fn top() -> PathBuf {
    let benches = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    benches.parent().expect("a workspace").to_owned()
}

/// Where results of benches are put.
pub fn folder() -> PathBuf {
    top().join("target/benchmarks")
}

/// By part.
pub struct Results(Map<String, Value>);

impl Results {
    /// Those of earlier runs.
    pub fn read() -> Self {
        let file = std::fs::read(folder().join("capacity.json"));
        let value = file
            .ok()
            .and_then(|file| serde_json::from_slice(&file).ok());
        Self(value.unwrap_or_default())
    }

    /// Of a part.
    pub fn get(&self, part: &str) -> Option<&Value> {
        self.0.get(part)
    }

    /// Measured now; kept at once.
    pub fn set(&mut self, part: &str, value: Value) {
        let value = json!({"machine": machine(), "value": value});
        self.0.insert(part.into(), value);
        std::fs::create_dir_all(folder()).expect("a folder");
        let text = serde_json::to_vec_pretty(&self.0).expect("JSON");
        std::fs::write(folder().join("capacity.json"), text).expect("written");
    }
}

/// CPU, cores, kernel, how busy it is, and the day.
pub fn machine() -> String {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .unwrap_or_default()
        .1;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let date = Command::new("date").arg("+%F").output();
    let date = date.map(|date| String::from_utf8_lossy(&date.stdout).trim().to_owned());
    format!(
        "{model}, {cores} cores, Linux {}, load {load}, {}",
        kernel.trim(),
        date.unwrap_or_default()
    )
}
