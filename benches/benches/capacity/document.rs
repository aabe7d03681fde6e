//! Puts results into a document: what stands between `<!-- name -->` and `<!-- /name -->` is a result's table.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::plot::{Series, draw};
use crate::results::{Results, folder, top};

/// Rewrites all tables for which there are results, and draws the plots into a folder of the document's name.
pub fn write(document: &str) {
    let path = top().join(document);
    let mut text = fs::read_to_string(&path).expect("the document");
    let results = Results::read();
    for part in crate::PARTS {
        if let Some(result) = results.get(part) {
            let machine = result["machine"].as_str().unwrap_or_default();
            let table = table(part, &result["value"]);
            replace(&mut text, part, &format!("{table}\n*{machine}*"));
        }
    }
    if let Ok(lines) = fs::read_to_string(folder().join("forward.txt")) {
        replace(&mut text, "floor", &floor(&lines));
    }
    if let Ok(lines) = fs::read_to_string(folder().join("peers.txt")) {
        replace(&mut text, "peers", &peers(&lines));
    }
    fs::write(&path, text).expect("written");
    let plots = path.with_extension("");
    fs::create_dir_all(&plots).expect("a folder");
    for part in ["receivers", "meetings"] {
        if let Some(result) = results.get(part) {
            plot(&plots, part, &result["value"]);
        }
    }
}

fn replace(text: &mut String, name: &str, new: &str) {
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (Some(from), Some(to)) = (text.find(&open), text.find(&close)) else {
        eprintln!("no {open} … {close} in the document");
        return;
    };
    text.replace_range(from + open.len()..to, &format!("\n{new}\n"));
}

/// A Markdown table.
fn rows(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.into()).collect();
    let mut table = line(&head) + "|---" + &"|---:".repeat(head.len() - 1) + "|\n";
    table.extend(rows.into_iter().map(|row| line(&row)));
    table
}

/// A number with so many digits.
fn number(value: &Value, digits: usize) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn table(part: &str, value: &Value) -> String {
    match part {
        "receivers" => list(value)
            .map(|case| by_number("receivers", case))
            .collect(),
        "meetings" => by_number("meetings", value),
        "thousands" => {
            let head = ["case", "threads", "delay p50, µs", "delay p99, µs"];
            let of = |case: &Value, row: &Value| {
                vec![
                    text(&case["case"]),
                    row["threads"].to_string(),
                    number(&row["p50_us"], 0),
                    number(&row["p99_us"], 0),
                ]
            };
            let all = list(value).flat_map(|case| list(&case["rows"]).map(move |r| of(case, r)));
            rows(&head, all)
        }
        "rate" => {
            let head = [
                "case",
                "highest rate without loss, packets/s",
                "lost at 80 %, 10 s",
                "delay p50 at 50 %, µs",
                "delay p99, µs",
                "jitter p99, µs",
                "worker waited for a core, %",
                "what ends it",
            ];
            rows(
                &head,
                list(value).map(|row| {
                    vec![
                        text(&row["case"]),
                        number(&row["highest"], 0),
                        format!("{} of {}", row["lost_at_80"], row["due_at_80"]),
                        number(&row["p50_us"], 0),
                        number(&row["p99_us"], 0),
                        number(&row["jitter_p99_us"], 0),
                        number(&row["waited"], 1),
                        text(&row["why"]),
                    ]
                }),
            )
        }
        "memory" => {
            let head = [
                "legs",
                "kB a leg, over 2,000",
                "over the second 1,000",
                "retransmission buffer, kB a picture sent",
            ];
            let table = rows(
                &head,
                list(&value["rows"]).map(|row| {
                    vec![
                        text(&row["case"]),
                        number(&row["leg_kb"], 1),
                        number(&row["second_kb"], 1),
                        number(&row["buffer_kb"], 0),
                    ]
                }),
            );
            let designed = number(&value["buffer_designed_kb"], 0);
            format!(
                "{table}\nThe buffer is made for {designed} kB of packets, one for each video source.\n"
            )
        }
        _ => {
            let head = [
                "case",
                "one worker, ns a packet",
                "two workers, ns a packet",
                "two carry, of one",
            ];
            let rate = |workers| value["rate"].as_u64().unwrap_or_default() * workers;
            rows(
                &head,
                [vec![
                    text(&value["case"]),
                    format!("{} at {}/s", number(&value["one_ns"], 0), rate(1)),
                    format!("{} at {}/s", number(&value["two_ns"], 0), rate(2)),
                    number(&value["scaling"], 2),
                ]],
            )
        }
    }
}

/// A case by receivers or meetings.
fn by_number(name: &str, case: &Value) -> String {
    let head = [
        name,
        "CPU, ns a packet",
        "delay p50, µs",
        "delay p99, µs",
        "jitter p99, µs",
        "idle, µs a second",
    ];
    let table = rows(
        &head,
        list(&case["rows"]).map(|row| {
            vec![
                row[name].to_string(),
                number(&row["ns"], 0),
                number(&row["p50_us"], 0),
                number(&row["p99_us"], 0),
                number(&row["jitter_p99_us"], 0),
                number(&row["idle_us"], 0),
            ]
        }),
    );
    let (title, flat) = (text(&case["case"]), number(&case["flat"], 2));
    format!(
        "\n`{title}`, {} packets/s; most CPU over least: {flat}\n\n{table}",
        case["rate"]
    )
}

/// What the bench `forward` printed: `<case>: floor <ns> ns, switch <ns> ns a forwarded packet`.
fn floor(lines: &str) -> String {
    let cases = lines.lines().filter_map(|line| {
        let (case, rest) = line.split_once(": floor ")?;
        let (floor, rest) = rest.split_once(" ns, switch ")?;
        let switch = rest.split(' ').next()?;
        let ratio = switch.parse::<f64>().ok()? / floor.parse::<f64>().ok()?;
        Some(vec![
            case.into(),
            floor.into(),
            switch.into(),
            format!("{ratio:.2}"),
        ])
    });
    let table = rows(&["case", "floor, ns", "switch, ns", "switch/floor"], cases);
    format!("{table}\n*{}*", crate::results::machine())
}

/// What the bench `peers` printed: its table as it is.
fn peers(lines: &str) -> String {
    let table: Vec<&str> = lines.lines().filter(|line| line.starts_with('|')).collect();
    let machine = |name| {
        lines
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
    };
    let about = ["cpu", "cores", "kernel", "janus", "rtpengine"].map(machine);
    let about = about.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    format!("{}\n\n*{}*", table.join("\n"), about.join(", "))
}

/// CPU by receivers or meetings, and delay.
fn plot(folder: &Path, part: &str, value: &Value) {
    let cases: Vec<&Value> = match value {
        Value::Array(cases) => cases.iter().collect(),
        case => vec![case],
    };
    let series = |case: &Value, what: &str, field: &str| Series {
        name: format!("{}{what}", text(&case["case"])),
        points: list(&case["rows"])
            .filter_map(|row| Some((row[part].as_f64()?, row[field].as_f64()?)))
            .collect(),
    };
    let cpu: Vec<_> = cases.iter().map(|case| series(case, "", "ns")).collect();
    let delay: Vec<_> = cases
        .iter()
        .flat_map(|case| {
            [
                series(case, " p50", "p50_us"),
                series(case, " p99", "p99_us"),
            ]
        })
        .collect();
    let save = |name: &str, svg: Option<String>| {
        let svg = svg.expect("a plot");
        fs::write(folder.join(format!("{part}-{name}.svg")), svg).expect("written");
    };
    save("cpu", draw(part, "CPU, ns a forwarded packet", false, &cpu));
    save("delay", draw(part, "added delay, µs", true, &delay));
}
