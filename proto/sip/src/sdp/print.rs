//! [`SessionDescription`] to text.

use std::fmt::{self, Display, Formatter};

use super::{MediaDescription, Section, SessionDescription};

impl Display for Section {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            write!(f, "{}={}\r\n", line.kind, line.value)?;
        }
        Ok(())
    }
}

impl Display for MediaDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {}", self.kind, self.port)?;
        if let Some(count) = self.port_count {
            write!(f, "/{count}")?;
        }
        write!(f, " {}", self.protocol)?;
        for format in &self.formats {
            write!(f, " {format}")?;
        }
        write!(f, "\r\n{}", self.section)
    }
}

impl Display for SessionDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v=0\r\n{}", self.session)?;
        for media in &self.media {
            write!(f, "{media}")?;
        }
        Ok(())
    }
}
