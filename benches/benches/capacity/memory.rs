//! Memory of a leg: how a switch that is a process of its own grows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use control::{Codec, Leg, Media, MediaKind, Slot, Transport};
use serde_json::{Value, json};
use switch_core::nack;
use tokio::runtime::Runtime;

use crate::crowd::Crowd;
use crate::meeting::{self, Speaker};
use crate::{AUDIO, Case, VIDEO};

/// The argument that makes this program a switch.
pub const CHILD: &str = "--switch";

/// Legs of a meeting, one of which speaks.
const SIZE: u32 = 20;

/// Of the video line.
const VIDEO_TYPE: u8 = 97;

/// A switch until the other end of its input is closed; its control address is what it prints.
pub fn serve() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let switch = runtime.block_on(meeting::start_switch(1));
    println!("{}", switch.control_address());
    std::io::stdout().flush().expect("read");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    runtime.block_on(switch.shutdown());
}

/// A switch beside us.
struct Process {
    child: Child,
    control: SocketAddr,
}

impl Process {
    fn start() -> Self {
        let this = std::env::current_exe().expect("a program");
        let mut child = Command::new(this)
            .arg(CHILD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        Self {
            control: line.trim().parse().expect("an address"),
            child,
        }
    }

    /// kB in memory.
    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        kb.expect("a size")
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A leg that hears and sees, and repairs what it sees. A phone on plain RTP has a port for each.
fn leg(case: Case, number: u32, address: SocketAddr) -> Leg {
    let mut leg = meeting::leg(case, number, address);
    let transport = u32::from(case.suite.is_none());
    if transport > 0 {
        leg.transports.push(Transport {
            index: transport,
            remote_port: u32::from(address.port()) + 2,
            ..leg.transports[0].clone()
        });
    }
    leg.media.push(Media {
        index: 1,
        mid: "1".into(),
        kind: MediaKind::Video.into(),
        transport,
        codecs: vec![Codec {
            payload_type: VIDEO_TYPE.into(),
            name: "VP8".into(),
            clock_rate: 90_000,
            nack: true,
            pli: true,
            ..Default::default()
        }],
        receive: true,
        send: true,
        slot: Some(Slot {
            ssrc: 0x6000_0000 + number,
            ..Default::default()
        }),
        ..Default::default()
    });
    leg
}

/// So many legs more, each of which has sent and been sent to.
fn more(runtime: &Runtime, process: &Process, case: Case, legs: usize) -> Crowd {
    let make = |number, address| leg(case, number, address);
    let meetings = legs / SIZE as usize;
    let mut crowd = Crowd::join(runtime, process.control, case, meetings, make);
    for leg in 0..legs {
        let mut voice = Speaker::new(case);
        for _ in 0..5 {
            let (packet, segment) = voice.burst();
            crowd.send(leg, &packet, segment);
        }
        if leg % 10 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    crowd.speak(20_000.0, Duration::from_secs(3));
    crowd
}

/// Growth for 2,000 legs of a kind, and for the buffers of ten who are seen.
fn growth(runtime: &Runtime, case: Case) -> Value {
    let process = Process::start();
    let first = more(runtime, &process, case, SIZE as usize); // what is made once
    let before = process.resident();
    let thousand = more(runtime, &process, case, 1000);
    let middle = process.resident();
    let another = more(runtime, &process, case, 1000);
    let after = process.resident();
    let (leg, second) = ((after - before) / 2000.0, (after - middle) / 1000.0);
    println!("memory {case}: {leg:.1} kB a leg over 2000, {second:.1} kB over the second 1000");
    let mut buffer = None;
    if case.suite.is_some() {
        const SEEN: usize = 10;
        for place in 0..SEEN {
            let mut camera = Speaker::new(VIDEO);
            (camera.payload_type, camera.ssrc) = (VIDEO_TYPE, 8);
            while camera.packets < 2 * nack::KEPT as u64 {
                let (burst, segment) = camera.burst();
                another.send(place * SIZE as usize, &burst, segment);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let each = (process.resident() - after) / SEEN as f64;
        println!("memory buffer: {each:.0} kB a picture that is sent");
        buffer = Some(each);
    }
    drop((first, thousand, another));
    process.end();
    json!({"case": case.to_string(), "leg_kb": leg, "second_kb": second, "buffer_kb": buffer})
}

/// SRTP and plain.
pub fn measure(runtime: &Runtime) -> Value {
    let srtp = Case {
        listeners: SIZE - 1,
        ..AUDIO
    };
    let plain = Case {
        suite: None,
        ..srtp
    };
    let rows = [growth(runtime, srtp), growth(runtime, plain)];
    println!(
        "memory leg {:.1} kB",
        rows[0]["leg_kb"].as_f64().unwrap_or(f64::NAN)
    );
    let kept = (nack::KEPT * nack::MAX_PACKET) as f64 / 1000.0;
    json!({"rows": rows, "buffer_designed_kb": kept})
}
