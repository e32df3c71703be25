//! The laptop's own ports that the codespace may reach: the values of `--host-port`.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// The laptop's name in the codespace.
pub const HOST_NAME: &str = "host.gh-net.internal";
/// The domain that it is in, for which nobody is ever asked.
pub const HOST_DOMAIN: &str = "gh-net.internal";

/// A port of the laptop's loopback, and the port that it has in the codespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// The port in the codespace.
    pub port: u16,
    /// The port on the laptop.
    pub local: u16,
}

/// An invalid value of `--host-port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseHostPortError {
    /// It has another form.
    #[error("{0:?} is neither a port such as 3000 nor two such as 8080:3000")]
    Form(String),
    /// It is taken.
    #[error("{0:?}: port 53 is that of the laptop's resolver; choose another one, such as 5353:53")]
    Resolver(String),
}

impl FromStr for HostPort {
    type Err = ParseHostPortError;

    fn from_str(text: &str) -> Result<Self, ParseHostPortError> {
        let number = |text: &str| text.parse::<NonZeroU16>().ok().map(NonZeroU16::get);
        let (port, local) = text.split_once(':').unwrap_or((text, text));
        match (number(port), number(local)) {
            (Some(53), Some(_)) => Err(ParseHostPortError::Resolver(text.to_owned())),
            (Some(port), Some(local)) => Ok(Self { port, local }),
            (None, _) | (_, None) => Err(ParseHostPortError::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.port, self.local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_or_two_are_read() {
        let read = |text: &str| text.parse::<HostPort>().map(|opened| (opened.port, opened.local));
        assert_eq!((read("3000"), read("8080:3000")), (Ok((3000, 3000)), Ok((8080, 3000))));
        for wrong in ["", "0", "3000:0", "70000", "a:1", "1:2:3", "53"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
