//! Bencoding, as rtpengine's control protocol uses it.

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    Text(String),
    List(Vec<Value>),
    Dictionary(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Value {
    /// A dictionary's entry.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dictionary(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// A dictionary's entry that is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Appends its encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => out.extend_from_slice(format!("i{number}e").as_bytes()),
            Self::Text(text) => encode_text(text, out),
            Self::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.encode(out));
                out.push(b'e');
            }
            Self::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    encode_text(key, out);
                    value.encode(out);
                }
                out.push(b'e');
            }
        }
    }

    /// Takes a value from the front.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        match bytes.first()? {
            b'i' => {
                let number = until(&mut &bytes[1..], b'e')?.parse().ok()?;
                until(bytes, b'e')?;
                Some(Self::Number(number))
            }
            b'l' => {
                *bytes = &bytes[1..];
                let mut values = Vec::new();
                while *bytes.first()? != b'e' {
                    values.push(Self::decode(bytes)?);
                }
                *bytes = &bytes[1..];
                Some(Self::List(values))
            }
            b'd' => {
                *bytes = &bytes[1..];
                let mut entries = Vec::new();
                while *bytes.first()? != b'e' {
                    let key = decode_text(bytes)?;
                    entries.push((key, Self::decode(bytes)?));
                }
                *bytes = &bytes[1..];
                Some(Self::Dictionary(entries))
            }
            _ => decode_text(bytes).map(Self::Text),
        }
    }
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", text.len()).as_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn decode_text(bytes: &mut &[u8]) -> Option<String> {
    let len = until(bytes, b':')?.parse().ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// Takes what is before a delimiter, and the delimiter.
fn until<'a>(bytes: &mut &'a [u8], delimiter: u8) -> Option<&'a str> {
    let at = bytes.iter().position(|byte| *byte == delimiter)?;
    let (before, rest) = bytes.split_at(at);
    *bytes = &rest[1..];
    std::str::from_utf8(before).ok()
}
