//! What is to be seen while a load runs: a bar on a terminal, else a line now and then.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use ::load::run::{Look, Observer, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where standard error is no terminal.
const LINES: Duration = Duration::from_secs(5);

/// Shows a run.
pub struct Progress {
    bar: Option<ProgressBar>,
    phase: Cell<Option<Phase>>,
    line: Cell<Option<Instant>>,
}

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // nothing before the first look
            if let Ok(style) = ProgressStyle::with_template("{prefix}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            phase: Cell::new(None),
            line: Cell::new(None),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Registering => "registering",
        Phase::Joining => "joining",
        Phase::Running => "running",
        Phase::Leaving => "leaving",
    }
}

fn told(look: &Look) -> String {
    let mut text = format!("{}/{} joined", look.joined, look.participants);
    if look.refused > 0 {
        text += &format!(", {} refused", look.refused);
    }
    if look.media.received > 0 {
        text += &format!(
            ", {:.0} packets/s, {} lost",
            look.media.packets_per_second, look.media.lost
        );
    }
    text
}

impl Observer for Progress {
    fn look(&self, look: &Look) {
        let is_new = self.phase.replace(Some(look.phase)) != Some(look.phase);
        let Some(bar) = &self.bar else {
            let due = self.line.get().is_none_or(|at| at.elapsed() >= LINES);
            if is_new || due {
                self.line.set(Some(Instant::now()));
                let at = match look.phase {
                    Phase::Running => format!(
                        " {:.0}/{:.0} s",
                        look.elapsed.as_secs_f64(),
                        look.duration.as_secs_f64()
                    ),
                    _ => String::new(),
                };
                eprintln!("{}{at}: {}", name(look.phase), told(look));
            }
            return;
        };
        let (at, of, template) = match look.phase {
            Phase::Running => (
                look.elapsed.as_secs(),
                look.duration.as_secs().max(1),
                "{prefix:>11} {wide_bar} {pos}/{len} s  {msg}",
            ),
            _ => (
                u64::from(look.joined),
                u64::from(look.participants),
                "{prefix:>11} {wide_bar} {msg}",
            ),
        };
        if is_new && let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
            bar.set_prefix(name(look.phase));
        }
        bar.set_length(of);
        bar.set_position(at.min(of));
        bar.set_message(told(look));
    }
}
