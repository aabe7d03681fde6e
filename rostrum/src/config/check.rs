//! Reading a configuration file with errors that say where, what, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// Something wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the environment variable.
    pub place: String,
    /// 1-based line; 0 where there is none.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub instead: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what)?,
            line => write!(f, "{}:{line}: {}", self.place, self.what)?,
        }
        if !self.instead.is_empty() {
            write!(f, "\n    {}", self.instead)?;
        }
        Ok(())
    }
}

/// A configuration file's text, with the lines its keys are on.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self {
                path: path.to_owned(),
                text,
            }),
            Err(e) => Err(Problem {
                place: path.display().to_string(),
                line: 0,
                what: format!("cannot be read: {e}"),
                instead: format!(
                    "rostrum config default > {} writes one to start from",
                    path.display()
                ),
            }),
        }
    }

    /// A problem with the key at `path` (`registrar.udp`), on its line.
    pub fn problem(
        &self,
        key: &str,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) -> Problem {
        Problem {
            place: self.path.display().to_string(),
            line: self.span(key).map_or(0, |span| self.line(span.start)),
            what: what.into(),
            instead: instead.into(),
        }
    }

    /// Deserializes, with `ROSTRUM_…` environment variables over it.
    pub fn parse<T: DeserializeOwned>(
        &self,
        environment: &[(String, String)],
    ) -> Result<T, Problem> {
        // first the file alone, so that its errors carry lines
        toml::from_str::<T>(&self.text).map_err(|e| self.explain(&e))?;
        let mut table: Table = self
            .text
            .parse()
            .map_err(|e: toml::de::Error| self.explain(&e))?;
        for (name, value) in environment {
            let before = table.clone();
            overlay(&mut table, name, value);
            if table != before {
                table.clone().try_into::<T>().map_err(|e| Problem {
                    place: format!("environment variable {name}"),
                    line: 0,
                    what: e.message().to_owned(),
                    instead: advice(e.message()),
                })?;
            }
        }
        table
            .try_into()
            .map_err(|e: toml::de::Error| self.explain(&e))
    }

    fn explain(&self, error: &toml::de::Error) -> Problem {
        Problem {
            place: self.path.display().to_string(),
            line: error.span().map_or(0, |span| self.line(span.start)),
            what: match error.span().and_then(|span| self.text.get(span)) {
                Some(written)
                    if !written.contains('\n')
                        && !written.is_empty()
                        && !error.message().contains(written) =>
                {
                    format!("{} (in {written})", error.message())
                }
                _ => error.message().to_owned(),
            },
            instead: advice(error.message()),
        }
    }

    fn line(&self, offset: usize) -> usize {
        self.text
            .as_bytes()
            .iter()
            .take(offset)
            .filter(|b| **b == b'\n')
            .count()
            + 1
    }

    fn span(&self, key: &str) -> Option<Range<usize>> {
        let root = DeTable::parse(&self.text).ok()?;
        let mut table: &DeTable<'_> = root.get_ref();
        let mut span = None;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
            span = Some(name.span());
            match (value.get_ref(), parts.peek()) {
                (DeValue::Table(inner), Some(_)) => table = inner,
                _ => return span,
            }
        }
        span
    }
}

/// `ROSTRUM_REGISTRAR__UDP` sets `registrar.udp`; the value is TOML where it parses as such, else a string.
fn overlay(table: &mut Table, name: &str, value: &str) {
    let Some(path) = name.strip_prefix("ROSTRUM_") else {
        return;
    };
    let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    let Some((key, parents)) = path.split_last() else {
        return;
    };
    if parents.is_empty() {
        return; // ROSTRUM_CONFIG and the like are the command's own
    }
    let mut at = table;
    for parent in parents {
        let next = at
            .entry(parent.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = next else { return };
        at = inner;
    }
    let parsed = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"));
    at.insert(
        key.clone(),
        parsed.unwrap_or_else(|| Value::String(value.to_owned())),
    );
}

/// What to write instead, from serde's message.
fn advice(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (unknown, known) = rest.split_once('`').unwrap_or((rest, ""));
        let names: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        if let Some(nearest) = nearest(unknown, &names) {
            return format!("did you mean {nearest}?");
        }
        return format!("keys here are: {}", names.join(", "));
    }
    if message.contains("socket address") {
        return "write \"ip:port\", for example \"0.0.0.0:5060\" or \"[::]:5060\"".to_owned();
    }
    if message.contains("IP address") {
        return "write a literal address, for example \"192.0.2.7\" or \"2001:db8::7\"".to_owned();
    }
    if message.contains("IP network") || message.contains("prefix") {
        return "write a network, for example \"10.0.0.0/8\"".to_owned();
    }
    String::new()
}

/// The name with the fewest edits, if that is few.
fn nearest<'n>(unknown: &str, names: &[&'n str]) -> Option<&'n str> {
    names
        .iter()
        .map(|name| (edits(unknown, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .map(|(_, name)| name)
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::net::SocketAddr;

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        registrar: Part,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Part {
        udp: SocketAddr,
        domain: String,
    }

    fn source(text: &str) -> Source {
        Source {
            path: "r.toml".into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn unknown_key_is_told_with_its_line_and_the_nearest_name() {
        let e = source("[registrar]\nudp = \"[::]:5060\"\ndomian = \"x\"\n")
            .parse::<Sample>(&[])
            .unwrap_err();
        assert_eq!(e.line, 3);
        assert_eq!(e.instead, "did you mean domain?");
    }

    #[test]
    fn bad_address_is_told_with_its_line_and_an_example() {
        let e = source("[registrar]\ndomain = \"x\"\nudp = \"5060\"\n")
            .parse::<Sample>(&[])
            .unwrap_err();
        assert_eq!(e.line, 3);
        assert!(e.instead.contains("0.0.0.0:5060"), "{e}");
    }

    #[test]
    fn environment_overrides_the_file_and_its_errors_name_the_variable() {
        let text = source("[registrar]\ndomain = \"x\"\nudp = \"[::]:5060\"\n");
        let set = |v: &str| vec![("ROSTRUM_REGISTRAR__UDP".to_owned(), v.to_owned())];
        let parsed: Sample = text.parse(&set("127.0.0.1:7")).expect("valid");
        assert_eq!(
            parsed.registrar.udp,
            "127.0.0.1:7".parse::<SocketAddr>().expect("address")
        );
        let e = text.parse::<Sample>(&set("nonsense")).unwrap_err();
        assert!(e.place.contains("ROSTRUM_REGISTRAR__UDP"), "{e}");
    }

    #[test]
    fn a_key_is_found_on_its_line() {
        let s = source("# comment\n[registrar]\ndomain = \"x\"\nudp = \"[::]:5060\"\n");
        assert_eq!(s.problem("registrar.udp", "taken", "").line, 4);
    }
}
