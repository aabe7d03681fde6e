//! Who joins: accounts, and what answers a challenge (RFC 3261 §22, RFC 7616).

use sip::message::Message;
use sip::{HeaderName, digest};

/// An account of the server's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// User name, also the user part of its address.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish()
    }
}

/// A line of a users' file that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not name:password")]
pub struct AccountError {
    /// 1-based.
    pub line: usize,
}

/// Reads `name:password` lines; empty ones and those that begin with `#` are passed over.
///
/// # Errors
/// [`AccountError`] names the first line that is something else.
pub fn read_accounts(text: &str) -> Result<Vec<Account>, AccountError> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(Account {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err(AccountError { line }),
        })
        .collect()
}

/// Most challenges answered for one request: one of the server, one of a proxy before it, and a nonce that had become
/// stale in between.
const MAX_CHALLENGES: u8 = 3;

/// What a request has answered so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Challenges {
    answered: u8,
    server: bool,
    proxy: bool,
}

impl Challenges {
    /// Puts credentials into `request`, which was refused with 401 or 407. False where that is no use: no account, no
    /// algorithm of ours, or a password that was refused before.
    pub(super) fn answer(
        &mut self,
        account: Option<&Account>,
        refusal: &Message,
        request: &mut Message,
        cnonce: &str,
    ) -> bool {
        let Some(account) = account else {
            return false;
        };
        let proxy = refusal.status().is_some_and(|s| s.get() == 407);
        let (asked, told, before) = match proxy {
            true => (
                HeaderName::ProxyAuthenticate,
                HeaderName::ProxyAuthorization,
                &mut self.proxy,
            ),
            false => (
                HeaderName::WwwAuthenticate,
                HeaderName::Authorization,
                &mut self.server,
            ),
        };
        let is_stale = |challenge: &str| {
            let challenge = challenge.to_ascii_lowercase();
            challenge.contains("stale=true") || challenge.contains("stale=\"true\"")
        };
        let refused = std::mem::replace(before, true) && !refusal.headers(asked).any(is_stale);
        if refused || self.answered >= MAX_CHALLENGES {
            return false;
        }
        self.answered += 1;
        let value = refusal.headers(asked).find_map(|challenge| {
            digest::authorize(
                challenge,
                &account.user,
                &account.password,
                request.method().as_str(),
                request.request_uri(),
                cnonce,
                1,
            )
        });
        match value {
            Some(value) => {
                request.set(told, value);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sip::{Method, StatusCode};

    const SHA: &str = "Digest realm=\"r\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\"";
    const MD5: &str = "Digest realm=\"r\", nonce=\"n2\", algorithm=MD5, qop=\"auth\"";

    fn refusal(status: u16, challenges: &[&str]) -> (Message, Message) {
        let request = Message::request(Method::Invite, "sip:m@x");
        let mut refusal = Message::response(&request, StatusCode::of(status), None, None);
        let name = match status {
            407 => HeaderName::ProxyAuthenticate,
            _ => HeaderName::WwwAuthenticate,
        };
        for challenge in challenges {
            refusal.push_back(name, *challenge);
        }
        (request, refusal)
    }

    fn alice() -> Account {
        Account {
            user: "alice".into(),
            password: "secret".into(),
        }
    }

    #[test]
    fn the_first_challenge_understood_is_answered() {
        let (mut request, refusal) = refusal(401, &["Basic realm=\"r\"", SHA, MD5]);
        let mut challenges = Challenges::default();
        assert!(challenges.answer(Some(&alice()), &refusal, &mut request, "c"));
        let value = request
            .header(HeaderName::Authorization)
            .expect("credentials");
        assert!(value.contains("algorithm=SHA-256") && value.contains("username=\"alice\""));
    }

    #[test]
    fn a_refused_password_is_not_tried_again_but_a_stale_nonce_is() {
        let (mut request, first) = refusal(407, &[MD5]);
        let mut challenges = Challenges::default();
        assert!(challenges.answer(Some(&alice()), &first, &mut request, "c"));
        assert!(!challenges.answer(Some(&alice()), &first, &mut request, "c"));
        let (_, stale) = refusal(407, &[&format!("{MD5}, stale=true")]);
        assert!(challenges.answer(Some(&alice()), &stale, &mut request, "c"));
        // another's challenge counts by itself
        let (_, server) = refusal(401, &[MD5]);
        assert!(challenges.answer(Some(&alice()), &server, &mut request, "c"));
        assert!(request.header(HeaderName::ProxyAuthorization).is_some());
        assert!(request.header(HeaderName::Authorization).is_some());
    }

    #[test]
    fn a_guest_has_no_answer() {
        let (mut request, refusal) = refusal(401, &[MD5]);
        assert!(!Challenges::default().answer(None, &refusal, &mut request, "c"));
    }

    #[test]
    fn a_users_file_is_lines_of_name_and_password() {
        let read = read_accounts("# who\nalice:a:b\n\n bob:x \n").expect("accounts");
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].password, "a:b");
        assert_eq!(read[1].user, "bob");
        assert_eq!(
            read_accounts("alice:a\nbob\n"),
            Err(AccountError { line: 2 })
        );
    }
}
