//! The users' file: reading it, changing it, and noticing that somebody changed it.
//!
//! TOML:
//! ```toml
//! realm = "example.org"
//!
//! [[user]]
//! name = "alice"
//! display = "Alice Liddell"
//! sha256 = "<HA1 by SHA-256, 64 hex digits>"
//! md5 = "<HA1 by MD5, 32 hex digits>"
//! ```
//! CSV (name ends in `.csv`): `name[,realm],ha1[,ha1][,display]`; an HA1 is told by its length.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use registrar_core::{User, Users};
use serde::Deserialize;
use sip::digest::{Algorithm, Ha1};

/// Largest file read, bytes.
const FILE_MAX: u64 = 64 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The system refused.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}: {what}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong, and what belongs there.
        what: String,
    },
    /// There is no such user.
    #[error("{path}: no user {name:?}")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Who.
        name: String,
    },
    /// A name that cannot be a user's.
    #[error("{name:?} cannot be a user name: {what}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        what: &'static str,
    },
}

fn file_error(path: &Path, source: io::Error) -> UsersError {
    UsersError::File {
        path: path.to_owned(),
        source,
    }
}

fn line_error(path: &Path, line: usize, what: impl Into<String>) -> UsersError {
    UsersError::Line {
        path: path.to_owned(),
        line,
        what: what.into(),
    }
}

fn is_csv(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("csv"))
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 128 {
        return Err("it must have 1 to 128 characters");
    }
    if name.starts_with("guest-") {
        return Err("names that begin with guest- belong to guests");
    }
    if name
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || "\"\\:@<>,;".contains(c))
    {
        return Err("it may not have blanks, quotes or any of : @ < > , ;");
    }
    Ok(())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    /// What the passwords were hashed with; files that were written by hand may not say.
    realm: Option<toml::Spanned<String>>,
    #[serde(default)]
    user: Vec<toml::Spanned<TomlUser>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlUser {
    name: String,
    #[serde(default)]
    display: String,
    sha256: Option<String>,
    md5: Option<String>,
}

/// Reads the file. A file that does not exist has no users.
///
/// # Errors
/// [`UsersError`] with file and line.
pub fn load(path: &Path, realm: &str) -> Result<Users, UsersError> {
    let text = match read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Users::default()),
        Err(e) => return Err(file_error(path, e)),
    };
    parse(path, &text, Some(realm))
}

/// The realm that the file says its passwords are for.
///
/// # Errors
/// [`UsersError`] with file and line.
pub fn realm(path: &Path) -> Result<Option<String>, UsersError> {
    match read(path) {
        Ok(text) if !is_csv(path) => realm_of(path, &text),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error(path, e)),
    }
}

fn realm_of(path: &Path, text: &str) -> Result<Option<String>, UsersError> {
    let file = toml_file(path, text)?;
    Ok(file.realm.map(toml::Spanned::into_inner))
}

/// What keeps users out who are in the file: a client answers the first algorithm that it knows (RFC 8760 §2.5), also
/// where this user's password is only known for a later one.
pub(crate) fn shut_out(users: &Users, digest: &[Algorithm], guests: bool) -> Option<String> {
    let offered = users.answerable(digest, guests);
    let first_has = |user: &&User| offered.first().is_some_and(|a| user.has(*a));
    let any_has = |user: &&User| offered.iter().any(|a| user.has(*a));
    let tell = |out: Vec<&User>, what: &str| {
        let names: Vec<&str> = out.iter().take(3).map(|u| u.name.as_str()).collect();
        let more = if out.len() > names.len() { ", ..." } else { "" };
        (!out.is_empty()).then(|| {
            let (count, names) = (out.len(), names.join(", "));
            format!("{count} of the users ({names}{more}) {what}")
        })
    };
    if guests && !offered.contains(&Algorithm::Md5) {
        return Some(
            "guests cannot join from a browser, which knows MD5 only: add it to registrar.digest"
                .to_owned(),
        );
    }
    tell(
        users.iter().filter(|u| !any_has(u)).collect(),
        "cannot log in at all: their passwords are known for no algorithm of registrar.digest",
    )
    .or_else(|| {
        tell(
            users
                .iter()
                .filter(|u| !first_has(u) && u.has(Algorithm::Md5))
                .collect(),
            "have an MD5 password only, and cannot log in from a client that speaks SHA-256: set them a new \
             password, or registrar.digest = [\"MD5\"]",
        )
    })
}

pub(crate) fn warn_of_shut_out(users: &Users, digest: &[Algorithm], guests: bool) {
    if let Some(what) = shut_out(users, digest, guests) {
        tracing::warn!("{what}");
    }
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_MAX {
        return Err(io::Error::other("larger than 64 MiB"));
    }
    fs::read_to_string(path)
}

/// The users in `text`, read as the file at `path` would be; without a realm, for whichever they are.
///
/// # Errors
/// [`UsersError`] with file and line.
pub fn parse(path: &Path, text: &str, realm: Option<&str>) -> Result<Users, UsersError> {
    let entries = if is_csv(path) {
        parse_csv(path, text, realm)?
    } else {
        parse_toml(path, text, realm)?
    };
    let mut users = Users::default();
    for (line, user) in entries {
        check_name(&user.name)
            .map_err(|what| line_error(path, line, format!("user {:?}: {what}", user.name)))?;
        if user.sha256.is_none() && user.md5.is_none() {
            return Err(line_error(
                path,
                line,
                format!("user {:?} has neither sha256 nor md5", user.name),
            ));
        }
        if let Some(old) = users.insert(user) {
            return Err(line_error(
                path,
                line,
                format!("user {:?} is there twice", old.name),
            ));
        }
    }
    Ok(users)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

fn toml_file(path: &Path, text: &str) -> Result<TomlFile, UsersError> {
    toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| line_of(text, span.start));
        line_error(path, line, e.message())
    })
}

fn parse_toml(
    path: &Path,
    text: &str,
    realm: Option<&str>,
) -> Result<Vec<(usize, User)>, UsersError> {
    let file = toml_file(path, text)?;
    if let (Some(written), Some(realm)) = (&file.realm, realm)
        && written.get_ref() != realm
    {
        let what = format!(
            "the passwords in it are for the realm {:?}, not {realm:?}: nobody could log in",
            written.get_ref()
        );
        return Err(line_error(path, line_of(text, written.span().start), what));
    }
    let mut users = Vec::with_capacity(file.user.len());
    for entry in file.user {
        let line = line_of(text, entry.span().start);
        let user = entry.into_inner();
        for (key, value, digits) in [("sha256", &user.sha256, 64), ("md5", &user.md5, 32)] {
            if value.as_ref().is_some_and(|v| !is_hex(v, digits)) {
                let what = format!("{key} of user {:?} must be {digits} hex digits", user.name);
                return Err(line_error(path, line, what));
            }
        }
        let lower = |v: Option<String>| v.map(|v| v.to_ascii_lowercase());
        users.push((
            line,
            User {
                name: user.name,
                display: user.display,
                sha256: lower(user.sha256),
                md5: lower(user.md5),
            },
        ));
    }
    Ok(users)
}

fn parse_csv(
    path: &Path,
    text: &str,
    realm: Option<&str>,
) -> Result<Vec<(usize, User)>, UsersError> {
    let mut users = Vec::new();
    for (index, row) in text.lines().enumerate() {
        let line = index + 1;
        let row = row.trim();
        let heading = index == 0 && matches!(row.split(',').next(), Some("name" | "user"));
        if row.is_empty() || row.starts_with('#') || heading {
            continue;
        }
        let mut fields = row.split(',').map(str::trim);
        let mut user = User {
            name: fields.next().unwrap_or_default().to_owned(),
            display: String::new(),
            sha256: None,
            md5: None,
        };
        let mut named = realm;
        for field in fields.filter(|f| !f.is_empty()) {
            let hashed = user.sha256.is_some() || user.md5.is_some();
            if is_hex(field, 64) {
                user.sha256 = Some(field.to_ascii_lowercase());
            } else if is_hex(field, 32) {
                user.md5 = Some(field.to_ascii_lowercase());
            } else if hashed && user.display.is_empty() {
                user.display = field.to_owned();
            } else if hashed || named.is_some_and(|realm| field != realm) {
                let realm = named.map_or_else(String::new, |realm| format!(" {realm:?}"));
                let what = format!(
                    "{field:?} is neither an HA1 (64 or 32 hex digits) nor the realm{realm}"
                );
                return Err(line_error(path, line, what));
            } else {
                named = Some(field);
            }
        }
        users.push((line, user));
    }
    Ok(users)
}

/// Adds a user, or gives one a new password and display name. The rest of the file stays as it is.
///
/// # Errors
/// [`UsersError`]: the name, the file, or what is in it.
pub fn add(
    path: &Path,
    realm: &str,
    name: &str,
    password: &str,
    display: &str,
) -> Result<(), UsersError> {
    check_name(name).map_err(|what| UsersError::Name {
        name: name.to_owned(),
        what,
    })?;
    let text = match read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(file_error(path, e)),
    };
    let users = parse(path, &text, Some(realm))?;
    let mut text = if users.get(name).is_some() {
        without(path, &text, name)?
    } else {
        text
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let quoted = |s: &str| toml::Value::String(s.to_owned()).to_string();
    // Whom somebody else wrote into it may have been hashed for another.
    if users.is_empty() && !is_csv(path) && realm_of(path, &text)?.is_none() {
        text.push_str(&format!("realm = {}\n", quoted(realm)));
    }
    let ha1 = Ha1::new(name, realm, password);
    if is_csv(path) {
        let display = display.replace([',', '\n', '\r'], " ");
        text.push_str(&format!(
            "{name},{realm},{},{},{display}\n",
            ha1.sha256, ha1.md5
        ));
    } else {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!(
            "[[user]]\nname = {}\ndisplay = {}\nsha256 = \"{}\"\nmd5 = \"{}\"\n",
            quoted(name),
            quoted(display),
            ha1.sha256,
            ha1.md5
        ));
    }
    parse(path, &text, Some(realm))?;
    replace(path, &text)
}

/// The users of the file, in order of names; with a realm, those whose passwords are for it.
///
/// # Errors
/// [`UsersError`] with file and line.
pub fn list(path: &Path, realm: Option<&str>) -> Result<Vec<User>, UsersError> {
    let text = read(path).map_err(|e| file_error(path, e))?;
    Ok(parse(path, &text, realm)?.iter().cloned().collect())
}

/// Whether this is the password of a user.
#[must_use]
pub fn is_password(users: &Users, realm: &str, name: &str, password: &str) -> bool {
    let ha1 = Ha1::new(name, realm, password);
    users.get(name).is_some_and(|user| match &user.sha256 {
        Some(sha256) => *sha256 == ha1.sha256,
        None => user.md5.as_ref() == Some(&ha1.md5),
    })
}

/// Removes a user. The rest of the file stays as it is.
///
/// # Errors
/// [`UsersError::Unknown`], or what is wrong with the file.
pub fn remove(path: &Path, realm: Option<&str>, name: &str) -> Result<(), UsersError> {
    let text = read(path).map_err(|e| file_error(path, e))?;
    if parse(path, &text, realm)?.get(name).is_none() {
        return Err(UsersError::Unknown {
            path: path.to_owned(),
            name: name.to_owned(),
        });
    }
    replace(path, &without(path, &text, name)?)
}

/// The text without the lines of one user.
fn without(path: &Path, text: &str, name: &str) -> Result<String, UsersError> {
    let lines: Vec<&str> = text.lines().collect();
    let (from, to) = if is_csv(path) {
        let entries = parse_csv(path, text, None)?;
        let line = entries
            .iter()
            .find(|(_, u)| u.name == name)
            .map_or(0, |(line, _)| *line);
        (line.saturating_sub(1), line)
    } else {
        let entries = parse_toml(path, text, None)?;
        let heads: Vec<usize> = lines
            .iter()
            .enumerate()
            .filter(|(_, l)| l.trim_start().starts_with("[[user]]"))
            .map(|(i, _)| i)
            .collect();
        let place = entries
            .iter()
            .position(|(_, u)| u.name == name)
            .unwrap_or(usize::MAX);
        if heads.len() != entries.len() {
            // `user = [{...}]` or a heading in some other spelling: written anew instead of guessed at.
            let kept = entries
                .into_iter()
                .map(|(_, u)| u)
                .filter(|u| u.name != name);
            return Ok(write_toml(realm_of(path, text)?, kept));
        }
        let from = heads.get(place).copied().unwrap_or(lines.len());
        (from, heads.get(place + 1).copied().unwrap_or(lines.len()))
    };
    let mut out = String::with_capacity(text.len());
    for (index, line) in lines.iter().enumerate() {
        if index < from || index >= to {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

fn write_toml(realm: Option<String>, users: impl Iterator<Item = User>) -> String {
    let quoted = |s: &str| toml::Value::String(s.to_owned()).to_string();
    let mut out = realm.map_or_else(String::new, |realm| {
        format!("realm = {}\n\n", quoted(&realm))
    });
    for user in users {
        out.push_str(&format!(
            "[[user]]\nname = {}\ndisplay = {}\n",
            quoted(&user.name),
            quoted(&user.display)
        ));
        for (key, value) in [("sha256", user.sha256), ("md5", user.md5)] {
            if let Some(value) = value {
                out.push_str(&format!("{key} = \"{value}\"\n"));
            }
        }
        out.push('\n');
    }
    out
}

/// Whole or not at all; readable to the owner only, since an HA1 is as good as a password.
fn replace(path: &Path, text: &str) -> Result<(), UsersError> {
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = PathBuf::from(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| file_error(path, e))
}

/// Tells when a file changed since it was asked last.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Watched {
    pub(crate) fn new(path: &Path) -> Self {
        let path = path.to_owned();
        let seen = stamp(&path);
        Self { path, seen }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it changed, appeared or went.
    pub(crate) fn changed(&mut self) -> bool {
        let now = stamp(&self.path);
        std::mem::replace(&mut self.seen, now) != now
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        fs::write(&path, text).expect("written");
        (directory, path)
    }

    #[test]
    fn added_user_is_listed_and_removed_and_comments_stay() {
        let (_keep, path) = file("users.toml", "# the staff\n");
        add(&path, "example.org", "alice", "secret", "Alice \"A\"").expect("added");
        add(&path, "example.org", "bob", "secret", "").expect("added");
        add(&path, "example.org", "alice", "other", "Alice").expect("changed");
        let users = list(&path, Some("example.org")).expect("reads");
        let names: Vec<_> = users.iter().map(|u| u.name.as_str()).collect();
        assert_eq!(names, ["alice", "bob"]);
        assert_eq!(
            users[0].sha256,
            Some(Ha1::new("alice", "example.org", "other").sha256)
        );
        remove(&path, None, "alice").expect("removed");
        assert!(
            fs::read_to_string(&path)
                .expect("text")
                .starts_with("# the staff\n")
        );
        assert_eq!(list(&path, Some("example.org")).expect("reads").len(), 1);
        assert!(matches!(
            remove(&path, None, "alice"),
            Err(UsersError::Unknown { .. })
        ));
    }

    #[test]
    fn file_remembers_its_realm_and_takes_no_password_for_another() {
        let (_keep, path) = file("users.toml", "# the staff\n");
        add(&path, "example.org", "alice", "secret", "").expect("added");
        assert_eq!(realm(&path).expect("reads").as_deref(), Some("example.org"));
        let wrong = "the realm \"example.org\", not \"other.org\"";
        for refused in [
            add(&path, "other.org", "bob", "secret", ""),
            load(&path, "other.org").map(drop),
            list(&path, Some("other.org")).map(drop),
            remove(&path, Some("other.org"), "alice"),
        ] {
            let told = refused.expect_err("another realm").to_string();
            assert!(
                told.contains("users.toml:2: ") && told.contains(wrong),
                "{told}"
            );
        }
        assert_eq!(list(&path, None).expect("reads").len(), 1);
        remove(&path, None, "alice").expect("removed");
        assert_eq!(realm(&path).expect("reads").as_deref(), Some("example.org"));
        // Written anew, where it is not in the form we write.
        let md5 = "b".repeat(32);
        let text = format!(
            "realm = \"example.org\"\nuser = [{{name = \"a\", md5 = \"{md5}\"}}, {{name = \"b\", md5 = \"{md5}\"}}]\n"
        );
        fs::write(&path, text).expect("written");
        remove(&path, None, "a").expect("removed");
        assert_eq!(realm(&path).expect("reads").as_deref(), Some("example.org"));
        // Nobody knows what these were hashed for.
        fs::write(&path, format!("[[user]]\nname = \"a\"\nmd5 = \"{md5}\"\n")).expect("written");
        add(&path, "other.org", "b", "secret", "").expect("added");
        assert_eq!(realm(&path).expect("reads"), None);
    }

    #[test]
    fn csv_tells_realm_hashes_and_display_by_their_form() {
        let sha = "a".repeat(64);
        let md5 = "B".repeat(32);
        let text = format!(
            "name,realm,sha256,md5,display\nalice,example.org,{sha},{md5},Alice L\nbob,{md5}\n"
        );
        let (_keep, path) = file("users.csv", &text);
        let users = load(&path, "example.org").expect("reads");
        let alice = users.get("alice").expect("there");
        assert_eq!(alice.sha256.as_deref(), Some(sha.as_str()));
        assert_eq!(alice.md5, Some(md5.to_ascii_lowercase()));
        assert_eq!(alice.display, "Alice L");
        assert_eq!(users.get("bob").expect("there").sha256, None);
        assert_eq!(list(&path, None).expect("reads").len(), 2);
        add(&path, "example.org", "carol", "pw", "Carol, C").expect("added");
        remove(&path, None, "alice").expect("removed");
        let users = load(&path, "example.org").expect("reads");
        assert_eq!(users.get("carol").expect("there").display, "Carol  C");
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn mistakes_are_told_with_file_and_line() {
        let cases = [
            (
                "users.toml",
                "[[user]]\nname = \"a\"\n\n[[user]]\nname = \"b\"\nsha256 = \"12\"\n",
                4,
            ),
            (
                "users.toml",
                "[[user]]\nname = \"a\"\npassword = \"x\"\n",
                3,
            ),
            ("users.toml", "[[user]]\nname = \"a\"\n", 1),
            (
                "users.csv",
                "alice,0123456789abcdef0123456789abcdef\nbob,other.org,0123456789abcdef0123456789abcdef\n",
                2,
            ),
            ("users.csv", "guest-1,0123456789abcdef0123456789abcdef\n", 1),
            (
                "users.csv",
                "a,0123456789abcdef0123456789abcdef\n\na,0123456789abcdef0123456789abcdef\n",
                3,
            ),
        ];
        for (name, text, expected) in cases {
            let (_keep, path) = file(name, text);
            match load(&path, "example.org") {
                Err(UsersError::Line { line, what, .. }) => assert_eq!(line, expected, "{what}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn no_file_however_damaged_makes_reading_or_changing_it_panic() {
        use rand::{Rng as _, SeedableRng as _};
        let (sha, md5) = ("a".repeat(64), "B".repeat(32));
        let seeds = [
            (
                "users.csv",
                format!("name,realm\nalice,example.org,{sha},{md5},Alice\nbob,{md5}\n\n# é\n"),
            ),
            (
                "users.toml",
                format!(
                    "# staff\n[[user]]\nname = \"alice\"\nsha256 = \"{sha}\"\n\n\
                     [[user]]\nname = \"é\"\ndisplay = \"x\"\nmd5 = '{md5}'\n"
                ),
            ),
        ];
        let tokens: [&[u8]; 10] = [
            b"\n",
            b",",
            b"\"",
            b"[[user]]",
            b"\r\n",
            b"=",
            b"name",
            b"\0",
            b"\xc3",
            b"'''",
        ];
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut read = 0;
        for round in 0..20_000 {
            let (name, seed) = &seeds[round % seeds.len()];
            let path = Path::new(name);
            let mut bytes = seed.clone().into_bytes();
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] = rng.random(),
                    1 => drop(bytes.drain(at..bytes.len().min(at + rng.random_range(1..20)))),
                    _ => {
                        let token = tokens[rng.random_range(0..tokens.len())];
                        drop(bytes.splice(at..at, token.iter().copied()));
                    }
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            let Ok(users) = parse(path, &text, Some("example.org")) else {
                continue;
            };
            read += 1;
            for user in users.iter() {
                let rest = without(path, &text, &user.name).expect("it parsed");
                let rest = parse(path, &rest, Some("example.org")).expect("the rest parses");
                assert!(rest.get(&user.name).is_none(), "{text}");
                assert_eq!(rest.len() + 1, users.len(), "{text}");
            }
        }
        assert!(read > 1_000, "{read}");
    }

    #[test]
    fn users_whom_the_first_algorithm_keeps_out_are_told() {
        let both = [Algorithm::Sha256, Algorithm::Md5];
        let (sha, md5) = ("a".repeat(64), "b".repeat(32));
        let told = |text: &str, digest: &[Algorithm]| {
            let (_keep, path) = file("users.csv", text);
            shut_out(&load(&path, "example.org").expect("reads"), digest, false)
        };
        let old = format!("old,{md5}\n");
        let new = format!("new,{sha},{md5}\n");
        let mixed = old.clone() + &new;
        assert_eq!(told(&old, &both), None, "MD5 alone is offered then");
        assert_eq!(told(&new, &both), None);
        assert_eq!(told(&mixed, &[Algorithm::Md5]), None);
        let mixed = told(&mixed, &both).expect("one is kept out");
        assert!(
            mixed.starts_with("1 of the users (old) have an MD5"),
            "{mixed}"
        );
        let none = told(&old, &[Algorithm::Sha256]).expect("nobody gets in");
        assert!(none.contains("cannot log in at all"), "{none}");
        let (_keep, path) = file("users.csv", "");
        let empty = load(&path, "example.org").expect("reads");
        assert_eq!(shut_out(&empty, &both, true), None);
        let guests = shut_out(&empty, &[Algorithm::Sha256], true).expect("no browser gets in");
        assert!(guests.starts_with("guests cannot join"), "{guests}");
    }

    #[test]
    fn a_changed_file_is_noticed_once() {
        let (_keep, path) = file("users.toml", "");
        let mut watched = Watched::new(&path);
        assert!(!watched.changed());
        add(&path, "example.org", "alice", "secret", "").expect("added");
        assert!(watched.changed());
        assert!(!watched.changed());
    }
}
