//! The syntax of challenges and credentials (RFC 7616 §3.3, §3.4, §3.5; RFC 3261 §25.1).

use super::{Algorithm, Answered, Ha1};

/// Authorization fields that are looked at. Raising it lets a request cost more.
pub(super) const MAX_FIELDS: usize = 8;

/// Parameters of one field, far beyond the dozen that are defined.
const MAX_PARAMETERS: usize = 32;

/// Longest value of a parameter, bytes: a URI may be long.
const MAX_VALUE: usize = 2_048;

/// Why a field is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another scheme, realm or algorithm.
    NotOurs,
    /// For a 400.
    Malformed(&'static str),
}

/// One Authorization value for our realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub username: String,
    pub algorithm: Algorithm,
    pub nonce: String,
    pub uri: String,
    pub response: String,
    pub cnonce: String,
    pub nc: u32,
    /// As it was hashed.
    pub nc_text: String,
}

impl Credentials {
    /// Parses one field value.
    pub(super) fn parse(value: &str, realm: &str) -> Result<Self, Refused> {
        let parameters = Parameters::parse(value)?;
        // Whose it is comes first: what others send to others is not for us to complain about.
        match parameters.get("realm") {
            Some(r) if r == realm => {}
            Some(_) => return Err(Refused::NotOurs),
            None => return Err(Refused::Malformed("Digest credentials without realm")),
        }
        // RFC 7616 §3.4: without the parameter MD5 is meant.
        let algorithm = Algorithm::from_token(parameters.get("algorithm").unwrap_or("MD5"))
            .ok_or(Refused::NotOurs)?;
        match parameters.get("qop") {
            Some(qop) if qop.eq_ignore_ascii_case("auth") => {}
            _ => return Err(Refused::Malformed("Digest credentials without qop=auth")),
        }
        let need = |name: &str, complaint| match parameters.get(name) {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(Refused::Malformed(complaint)),
        };
        let nc_text = need("nc", "Digest credentials without nc")?;
        let nc = (nc_text.len() == 8 && nc_text.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u32::from_str_radix(&nc_text, 16).ok())
            .flatten()
            .ok_or(Refused::Malformed("Digest nc is not eight hex digits"))?;
        Ok(Self {
            username: need("username", "Digest credentials without username")?,
            algorithm,
            nonce: need("nonce", "Digest credentials without nonce")?,
            uri: need("uri", "Digest credentials without uri")?,
            response: need("response", "Digest credentials without response")?,
            cnonce: need("cnonce", "Digest credentials without cnonce")?,
            nc,
            nc_text,
        })
    }
}

/// `Digest name=value, name="value", ...`, values unquoted.
#[derive(Debug)]
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(value: &str) -> Result<Self, Refused> {
        let value = value.trim();
        let (scheme, mut rest) = value
            .split_once(|c: char| c.is_ascii_whitespace())
            .unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(Refused::NotOurs);
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace());
            if rest.is_empty() {
                return Ok(Self(parameters));
            }
            let (name, after) = rest
                .split_once('=')
                .ok_or(Refused::Malformed("Digest parameter without a value"))?;
            let name = name.trim().to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(Refused::Malformed("Digest parameter with a bad name"));
            }
            let (value, after) = one_value(after.trim_start())?;
            if parameters.iter().any(|(n, _)| *n == name) {
                return Err(Refused::Malformed("Digest parameter given twice"));
            }
            if parameters.len() >= MAX_PARAMETERS {
                return Err(Refused::Malformed("too many Digest parameters"));
            }
            parameters.push((name, value));
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(Refused::Malformed("Digest parameters without a comma"));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// A token or quoted string at the start of `text`, and what follows it.
fn one_value(text: &str) -> Result<(String, &str), Refused> {
    let too_long = Refused::Malformed("Digest parameter too long");
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c == ',' || c.is_ascii_whitespace())
            .unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        if value.len() > MAX_VALUE {
            return Err(too_long);
        }
        if value.contains('"') {
            return Err(Refused::Malformed("Digest parameter with a stray quote"));
        }
        return Ok((value.to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            other => value.push(other),
        }
        if value.len() > MAX_VALUE {
            return Err(too_long);
        }
    }
    Err(Refused::Malformed("Digest parameter with an open quote"))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// In double quotes, with `"` and `\` escaped.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Client side: the Authorization value that answers a challenge (for dial-out, load and tests). `None` where the
/// challenge is not Digest, malformed, or wants an algorithm or qop that is not ours; try the next one then.
/// `nc` counts the requests that used the challenge's nonce with this `cnonce`, from 1.
#[must_use]
pub fn authorize(
    challenge: &str,
    user: &str,
    password: &str,
    method: &str,
    uri: &str,
    cnonce: &str,
    nc: u32,
) -> Option<String> {
    let challenge = Parameters::parse(challenge).ok()?;
    let realm = challenge.get("realm")?;
    let nonce = challenge.get("nonce")?;
    let algorithm = match challenge.get("algorithm") {
        None => Algorithm::Md5,
        Some(token) => Algorithm::from_token(token)?,
    };
    let ha1 = Ha1::new(user, realm, password);
    let ha1 = ha1.of(algorithm);
    let nc = format!("{nc:08x}");
    let (response, qop) = match challenge.get("qop") {
        Some(offered) => {
            offered
                .split(',')
                .find(|qop| qop.trim().eq_ignore_ascii_case("auth"))?;
            let response = algorithm.response(
                ha1,
                &Answered {
                    method,
                    uri,
                    nonce,
                    nc: &nc,
                    cnonce,
                },
            );
            let qop = format!(", qop=auth, nc={nc}, cnonce={}", quoted(cnonce));
            (response, qop)
        }
        // Servers from before RFC 2617 (RFC 3261 §22.4 item 8).
        None => {
            let ha2 = algorithm.hash(&[method, uri]);
            (algorithm.hash(&[ha1, nonce, &ha2]), String::new())
        }
    };
    let opaque = challenge
        .get("opaque")
        .map(|opaque| format!(", opaque={}", quoted(opaque)))
        .unwrap_or_default();
    Some(format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\", algorithm={}{qop}{opaque}",
        quoted(user),
        quoted(realm),
        quoted(nonce),
        quoted(uri),
        algorithm.as_str(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_7616_vectors_come_out() {
        for (algorithm, response) in [
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ] {
            let challenge = format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            );
            let answer = authorize(
                &challenge,
                "Mufasa",
                "Circle of Life",
                "GET",
                "/dir/index.html",
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                1,
            )
            .expect("a challenge of ours");
            assert!(
                answer.contains(&format!("response=\"{response}\"")),
                "{answer}"
            );
            assert!(answer.contains("nc=00000001"));
            assert!(answer.contains("opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""));
        }
    }

    #[test]
    fn the_rfc_2617_vector_comes_out() {
        let answer = authorize(
            "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"",
            "Mufasa",
            "Circle Of Life",
            "GET",
            "/dir/index.html",
            "0a4f113b",
            1,
        )
        .expect("a challenge of ours");
        assert!(answer.contains("response=\"6629fae49393a05397450978507c4ef1\""));
    }

    #[test]
    fn challenges_that_are_not_ours_are_not_answered() {
        for challenge in [
            "Basic realm=\"x\"",
            "Digest realm=\"x\", nonce=\"n\", algorithm=SHA-512-256",
            "Digest realm=\"x\", nonce=\"n\", algorithm=MD5-sess, qop=\"auth\"",
            "Digest realm=\"x\", nonce=\"n\", qop=\"auth-int\"",
            "Digest nonce=\"n\"",
            "Digest realm=\"x",
            "",
        ] {
            assert_eq!(
                authorize(challenge, "u", "p", "REGISTER", "sip:x", "c", 1),
                None,
                "{challenge}"
            );
        }
    }

    const GOOD: &str = "Digest username=\"al\", realm=\"r\", nonce=\"n\", uri=\"sip:x\", response=\"00\", \
                        qop=auth, nc=0000000a, cnonce=\"c\"";

    #[test]
    fn credentials_parse_in_every_spelling_that_is_allowed() {
        let plain = Credentials::parse(GOOD, "r").expect("good");
        assert_eq!((plain.nc, plain.algorithm), (10, Algorithm::Md5));
        let odd = "dIgEsT\tUSERNAME = \"al\" ,, realm=\"\\r\",nonce=n,uri=\"sip:x\" ,response=00,qop=\"auth\", \
                   nc=0000000a,cnonce=c,x-other=\"a,b=\\\"c\"";
        assert_eq!(Credentials::parse(odd, "r"), Ok(plain));
    }

    #[test]
    fn malformed_credentials_are_told_from_those_of_others() {
        let malformed =
            |value: &str| matches!(Credentials::parse(value, "r"), Err(Refused::Malformed(_)));
        let without = |name: &str| {
            let rest: Vec<&str> = GOOD["Digest ".len()..]
                .split(", ")
                .filter(|p| !p.starts_with(name))
                .collect();
            format!("Digest {}", rest.join(", "))
        };
        for name in [
            "username=",
            "realm=",
            "nonce=",
            "uri=",
            "response=",
            "qop=",
            "nc=",
            "cnonce=",
        ] {
            assert!(malformed(&without(name)), "{name}");
        }
        for bad in [
            GOOD.replace("nc=0000000a", "nc=a"),
            GOOD.replace("nc=0000000a", "nc=+000000a"),
            GOOD.replace("qop=auth", "qop=auth-int"),
            GOOD.replace("qop=auth,", "qop=auth"),
            GOOD.replace("cnonce=\"c\"", "cnonce=\"c"),
            GOOD.replace("cnonce=\"c\"", "cnonce=\"c\\"),
            GOOD.replace("cnonce=\"c\"", "cnonce=c\"d"),
            format!("{GOOD}, nonce=\"m\""),
            format!("{GOOD}, =x"),
            format!("{GOOD}, novalue"),
            format!("{GOOD}, x=\"{}\"", "y".repeat(MAX_VALUE + 1)),
            GOOD.to_owned() + &(0..40).map(|n| format!(", p{n}=1")).collect::<String>(),
        ] {
            assert!(malformed(&bad), "{bad}");
        }
        for others in [
            "Basic abc".to_owned(),
            GOOD.replace("realm=\"r\"", "realm=\"s\""),
            format!("{GOOD}, algorithm=SHA-512-256"),
        ] {
            assert_eq!(Credentials::parse(&others, "r"), Err(Refused::NotOurs));
        }
    }
}
