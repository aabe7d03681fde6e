//! Logs and metrics of the process.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// "text" for people, "json" for collectors. Logs go to standard error.
    pub format: Format,
    /// Least level: "error", "warn", "info", "debug", "trace"; or per module, such as
    /// "info,registrar=debug".
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: Format::Text,
            level: "info,rtc_dtls=error".to_owned(),
        }
    }
}

/// What is wrong with a level, if anything. A bare word would else be taken for a module whose lines are all wanted.
pub fn check_level(level: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in level.split(',').map(str::trim) {
        let word = part.rsplit_once('=').map_or(part, |(_, word)| word);
        if !LEVELS.iter().any(|l| l.eq_ignore_ascii_case(word)) {
            return Err(format!("{word:?} is no level"));
        }
    }
    EnvFilter::try_new(level)
        .map(drop)
        .map_err(|e| format!("{level:?}: {e}"))
}

/// Starts logging. Errors name what is wrong with the level.
pub fn start_logging(log: &Log) -> Result<(), String> {
    check_level(&log.level).map_err(|e| format!("log.level: {e}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&log.level))
        // colours are for people who look on, not for files
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        Format::Text => builder.init(),
        Format::Json => builder.json().init(),
    }
    Ok(())
}

/// Upper ends of the buckets in which times are counted, seconds.
const SECONDS: [f64; 12] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0,
];

/// Starts gathering metrics for `/metrics`.
pub fn start_metrics() -> Result<PrometheusHandle, String> {
    let times = Matcher::Suffix("_seconds".to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(times, &SECONDS)
        .map_err(|e| format!("metrics: {e}"))?
        .install_recorder()
        .map_err(|e| format!("metrics: {e}"))
}
