//! A run without SIP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::{Error, LOOKS, Look, Made, Observer, Options, Phase, engine, ticking};
use crate::machine::Watch;
use crate::report::Report;
use crate::ua;

/// One speaker sends, and listeners judge what they get of it.
pub(super) async fn run(
    options: &Options,
    to: SocketAddr,
    listen: &[SocketAddr],
    observer: &dyn Observer,
    stop: CancellationToken,
) -> Result<Report, Error> {
    let bind = ua::towards(to).map_err(Error::Media)?;
    let engine = engine(options, bind)?;
    engine.fan_out(to, listen).map_err(Error::Media)?;
    let mut watch = Watch::new(options.server_pid);
    if !watch.has_server() {
        watch.find("RTP", &BTreeSet::from([to]));
    }
    let started = SystemTime::now();
    engine.begin();
    watch.begin();
    let begin = Instant::now();
    let mut looks = ticking(LOOKS);
    let mut seconds = ticking(Duration::from_secs(1));
    while begin.elapsed() < options.duration {
        tokio::select! {
            _ = looks.tick() => observer.look(&Look {
                phase: Phase::Running,
                participants: options.participants,
                joined: options.participants,
                refused: 0,
                elapsed: begin.elapsed(),
                duration: options.duration,
                media: engine.progress(),
            }),
            _ = seconds.tick() => watch.sample(),
            () = stop.cancelled() => break,
        }
    }
    let ran = begin.elapsed();
    let media = engine.finish();
    let made = Made {
        started,
        joining: Duration::ZERO,
        ran,
        joins: None,
        ended: BTreeMap::new(),
        notes: Vec::new(),
        stopped: stop.is_cancelled(),
    };
    Ok(made.report(options, media, watch))
}
