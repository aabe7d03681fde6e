//! Reading a configuration file with errors that say where, what, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Problems told of one file; whoever has more begins with these.
const PROBLEMS_MAX: usize = 100;

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

/// A configuration file's text, with the lines its keys are on, and what the environment changed in it.
#[derive(Debug, Default)]
pub struct Source {
    path: PathBuf,
    text: String,
    /// Key (`registrar.udp`) and the variable that set it.
    overridden: Vec<(String, String)>,
}

impl Source {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self {
                path: path.to_owned(),
                text,
                overridden: Vec::new(),
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

    /// What there is instead of a file.
    pub fn named(name: &str) -> Self {
        Self {
            path: name.into(),
            ..Self::default()
        }
    }

    /// Whether somebody wrote this key, in the file or the environment.
    pub fn has(&self, key: &str) -> bool {
        self.variable(key).is_some() || self.span(key).is_some()
    }

    fn variable(&self, key: &str) -> Option<&str> {
        let within = |outer: &str| {
            key.strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let found = self.overridden.iter().find(|(outer, _)| within(outer));
        found.map(|(_, variable)| variable.as_str())
    }

    /// A problem with a key (`registrar.udp`): on its line, else that of its table, or with the variable that set it.
    pub fn problem(
        &self,
        key: &str,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) -> Problem {
        let (place, line) = match self.variable(key) {
            Some(variable) => (format!("environment variable {variable}"), 0),
            None => {
                let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
                let span = self.span(key).or_else(|| self.span(table));
                let line = span.map_or(0, |span| self.line(span.start));
                (self.path.display().to_string(), line)
            }
        };
        Problem {
            place,
            line,
            what: what.into(),
            instead: instead.into(),
        }
    }

    /// Deserializes, with `ROSTRUM_…` environment variables over it. What cannot be read is left out and told.
    pub fn parse<T: DeserializeOwned>(
        &mut self,
        environment: &[(String, String)],
    ) -> (Option<T>, Vec<Problem>) {
        let (table, mut problems) = match self.readable::<T>() {
            Ok(read) => read,
            Err(problem) => return (None, vec![problem]),
        };
        let (table, more) = self.overlay::<T>(table, environment);
        problems.extend(more);
        match table.try_into() {
            Ok(read) => (Some(read), problems),
            Err(e) => {
                if problems.is_empty() {
                    problems.push(self.explain(&e));
                }
                (None, problems)
            }
        }
    }

    /// The file's table without the keys that cannot be read, and why they cannot.
    fn readable<T: DeserializeOwned>(&self) -> Result<(Table, Vec<Problem>), Problem> {
        let mut root = DeTable::parse(&self.text).map_err(|e| self.explain(&e))?;
        let mut problems: Vec<Problem> = Vec::new();
        let mut removed: Vec<String> = Vec::new();
        while problems.len() < PROBLEMS_MAX {
            let Err(e) = T::deserialize(toml::de::Deserializer::from(root.clone())) else {
                break;
            };
            // what is missing because it could not be read has been told
            let known = |name: &String| e.message().starts_with(&format!("missing field `{name}`"));
            if !removed.iter().any(known) {
                problems.push(self.explain(&e));
            }
            match e.span().and_then(|span| remove(root.get_mut(), span.start)) {
                Some(name) => removed.push(name),
                None => break,
            }
        }
        match Table::deserialize(toml::de::Deserializer::from(root)) {
            Ok(table) => Ok((table, problems)),
            Err(e) => Err(self.explain(&e)),
        }
    }

    /// Sets what the variables say, each as the first of its readings that fits.
    pub fn overlay<T: DeserializeOwned>(
        &mut self,
        mut table: Table,
        environment: &[(String, String)],
    ) -> (Table, Vec<Problem>) {
        let mut problems = Vec::new();
        for (name, value) in environment {
            let Some(path) = key_of(name) else { continue };
            let mut errors = Vec::new();
            let fitting = readings(value).into_iter().find_map(|reading| {
                let mut changed = table.clone();
                if !set(&mut changed, &path, reading) {
                    return None;
                }
                match changed.clone().try_into::<T>() {
                    Ok(_) => Some(changed),
                    Err(e) => {
                        errors.push(e.message().to_owned());
                        None
                    }
                }
            });
            if let Some(changed) = fitting {
                table = changed;
                self.overridden.push((path.join("."), name.clone()));
                continue;
            }
            // a reading of the right type says more than one that has the wrong type
            let telling = errors.iter().find(|e| !e.starts_with("invalid type"));
            let what = telling.or(errors.first()).cloned();
            let what = what.unwrap_or_else(|| "names no setting".to_owned());
            problems.push(Problem {
                place: format!("environment variable {name}"),
                line: 0,
                instead: advice(&what),
                what: format!("{} (in {value})", what.trim_end()),
            });
        }
        (table, problems)
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

/// Takes the entry away that is at this place in the text, or holds it; its name.
fn remove(table: &mut DeTable<'_>, offset: usize) -> Option<String> {
    for (_, value) in table.iter_mut() {
        let found = match value.get_mut() {
            DeValue::Table(inner) => remove(inner, offset),
            DeValue::Array(list) => list.iter_mut().find_map(|item| match item.get_mut() {
                DeValue::Table(inner) => remove(inner, offset),
                _ => None,
            }),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    let is_at = |key: &Spanned<_>, value: &Spanned<DeValue<'_>>| {
        key.span().contains(&offset) || value.span().contains(&offset)
    };
    let name = table
        .iter()
        .find_map(|(key, value)| is_at(key, value).then(|| key.get_ref().to_string()))?;
    table.remove(name.as_str());
    Some(name)
}

/// `ROSTRUM_REGISTRAR__UDP` is for `registrar.udp`; `ROSTRUM_CONFIG` and the like are the command's own.
fn key_of(variable: &str) -> Option<Vec<String>> {
    let path = variable.strip_prefix("ROSTRUM_")?;
    let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    (path.len() > 1).then_some(path)
}

/// The settings that a variable may be meant for, which has one underscore where two belong.
fn meant<T: DeserializeOwned>(variable: &str) -> Option<String> {
    let words: Vec<String> = variable
        .strip_prefix("ROSTRUM_")?
        .split('_')
        .map(str::to_ascii_lowercase)
        .collect();
    // each gap between two words is within a name, or between two names
    let gaps = words
        .len()
        .checked_sub(1)
        .filter(|gaps| (1..8).contains(gaps))?;
    (1_u32..1 << gaps).find_map(|dots| {
        let mut path = vec![words[0].clone()];
        for (gap, word) in words[1..].iter().enumerate() {
            match (dots & 1 << gap, path.last_mut()) {
                (0, Some(last)) => *last = format!("{last}_{word}"),
                _ => path.push(word.clone()),
            }
        }
        let mut table = Table::new();
        set(&mut table, &path, Value::String(String::new()));
        // a name that is known is at worst of another type
        let unknown = match table.try_into::<T>() {
            Ok(_) => false,
            Err(e) => {
                let name = path.last().map_or("", String::as_str);
                let at_parent = path.len() > 1 && e.message().starts_with("invalid type: map");
                at_parent
                    || e.message().starts_with("unknown field")
                    || e.message()
                        .starts_with(&format!("unknown variant `{name}`"))
            }
        };
        (!unknown).then(|| format!("ROSTRUM_{}", path.join("__").to_ascii_uppercase()))
    })
}

/// Variables that would set something, were they spelt so.
pub fn misspelt<T: DeserializeOwned>(environment: &[(String, String)]) -> Vec<Problem> {
    let own = environment
        .iter()
        .filter(|(name, _)| key_of(name).is_none());
    own.filter_map(|(name, _)| {
        let meant = meant::<T>(name)?;
        Some(Problem {
            place: format!("environment variable {name}"),
            line: 0,
            what: "names no setting".to_owned(),
            instead: format!("write {meant}, with two underscores between table and key"),
        })
    })
    .collect()
}

/// What a variable's text may mean: TOML, else text, else a list of texts.
fn readings(text: &str) -> Vec<Value> {
    let toml = format!("v = {text}").parse::<Table>().ok();
    let mut all: Vec<Value> = toml.and_then(|mut t| t.remove("v")).into_iter().collect();
    all.push(Value::String(text.to_owned()));
    let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
    all.push(Value::Array(
        items.map(|t| Value::String(t.to_owned())).collect(),
    ));
    all
}

/// False: a part of the path is no table.
fn set(table: &mut Table, path: &[String], value: Value) -> bool {
    let Some((key, parents)) = path.split_last() else {
        return false;
    };
    let mut at = table;
    for parent in parents {
        let next = at
            .entry(parent.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = next else {
            return false;
        };
        at = inner;
    }
    at.insert(key.clone(), value);
    true
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
        #[serde(default)]
        aliases: Vec<String>,
    }

    fn source(text: &str) -> Source {
        Source {
            path: "r.toml".into(),
            text: text.to_owned(),
            overridden: Vec::new(),
        }
    }

    fn read(text: &str, environment: &[(&str, &str)]) -> (Option<Sample>, Vec<Problem>) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(own).collect();
        source(text).parse(&environment)
    }

    #[test]
    fn every_unreadable_key_is_told_with_its_line_and_what_to_write() {
        let (_, problems) = read(
            "[registrar]\nudp = \"5060\"\ndomian = \"x\"\ndomain = 7\n[extra]\na = 1\n",
            &[],
        );
        let told: Vec<_> = problems
            .iter()
            .map(|p| (p.line, p.instead.as_str()))
            .collect();
        assert!(told.contains(&(3, "did you mean domain?")), "{problems:?}");
        assert!(told.iter().any(|(line, _)| *line == 4), "{problems:?}");
        assert!(told.iter().any(|(line, _)| *line == 5), "{problems:?}");
        let address = told.iter().find(|(line, _)| *line == 2).expect("line 2");
        assert!(address.1.contains("0.0.0.0:5060"), "{problems:?}");
        assert_eq!(told.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_with_its_line() {
        let (read, problems) = read("[registrar]\ndomain = \n", &[]);
        assert!(read.is_none());
        assert_eq!((problems.len(), problems[0].line), (1, 2), "{problems:?}");
    }

    #[test]
    fn environment_overrides_the_file_in_whatever_way_it_can_be_read() {
        let text = "[registrar]\ndomain = \"x\"\nudp = \"[::]:5060\"\n";
        let (parsed, problems) = read(
            text,
            &[
                ("ROSTRUM_REGISTRAR__UDP", "127.0.0.1:7"),
                ("ROSTRUM_REGISTRAR__DOMAIN", "2024"),
                ("ROSTRUM_REGISTRAR__ALIASES", "a, 7"),
            ],
        );
        assert_eq!(problems, []);
        let registrar = parsed.expect("valid").registrar;
        assert_eq!(registrar.udp.to_string(), "127.0.0.1:7");
        assert_eq!(registrar.domain, "2024");
        assert_eq!(registrar.aliases, ["a", "7"]);
    }

    #[test]
    fn what_the_environment_gets_wrong_is_told_with_the_variable() {
        let text = "[registrar]\ndomain = \"x\"\nudp = \"[::]:5060\"\n";
        let (_, problems) = read(text, &[("ROSTRUM_REGISTRAR__UDP", "nonsense")]);
        assert!(
            problems[0].place.contains("ROSTRUM_REGISTRAR__UDP"),
            "{problems:?}"
        );
        assert!(problems[0].instead.contains("ip:port"), "{problems:?}");
        let mut source = source(text);
        let domain = ("ROSTRUM_REGISTRAR__DOMAIN".to_owned(), "a b".to_owned());
        let (_, problems) = source.parse::<Sample>(&[domain]);
        assert_eq!(problems, []);
        let later = source.problem("registrar.domain", "no host name", "");
        assert_eq!(
            (later.place.as_str(), later.line),
            ("environment variable ROSTRUM_REGISTRAR__DOMAIN", 0)
        );
    }

    #[test]
    fn a_key_is_found_on_its_line_and_a_missing_one_on_its_tables() {
        let s = source("# comment\n[registrar]\ndomain = \"x\"\nudp = \"[::]:5060\"\n");
        assert_eq!(s.problem("registrar.udp", "taken", "").line, 4);
        assert_eq!(s.problem("registrar.tcp", "missing", "").line, 2);
        assert!(s.has("registrar.udp") && !s.has("registrar.tcp"));
    }
}
