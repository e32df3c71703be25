//! The handshake: the protocol version that both programs speak, or which of them to update.

use crate::frame::Hello;

/// The lowest protocol version this build speaks.
pub const LOWEST: u16 = 2;
/// The highest protocol version this build speaks.
pub const HIGHEST: u16 = 2;

/// The capability of links with several [lanes](crate::lanes).
pub const LANES: u32 = 1;

/// An end of the session. Only for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// gh-net, on the laptop.
    Laptop,
    /// gh-net-sidecar, in the codespace.
    Codespace,
}

impl Side {
    fn program(self) -> &'static str {
        match self {
            Self::Laptop => "gh-net on the laptop",
            Self::Codespace => "gh-net-sidecar in the codespace",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Laptop => Self::Codespace,
            Self::Codespace => Self::Laptop,
        }
    }
}

/// What two hellos agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The protocol version that both speak.
    pub version: u16,
    /// Capabilities both have.
    pub capabilities: u32,
}

/// Two hellos with no version in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} {old_software} is too old for {} {new_software} (protocol {old} against {new}); update {}",
    old_side.program(), old_side.other().program(), old_side.program()
)]
pub struct Mismatch {
    old_side: Side,
    old_software: String,
    new_software: String,
    old: u16,
    new: u16,
}

/// The hello of this build.
pub fn ours() -> Hello {
    Hello {
        lowest: LOWEST,
        highest: HIGHEST,
        capabilities: LANES,
        software: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

impl Agreed {
    /// Whether a link may have several lanes.
    pub fn has_lanes(self) -> bool {
        self.capabilities & LANES != 0
    }
}

/// Finds the highest version that both hellos allow.
///
/// # Errors
/// There is none. The error says which side is older.
pub fn negotiate(side: Side, ours: &Hello, theirs: &Hello) -> Result<Agreed, Mismatch> {
    let version = ours.highest.min(theirs.highest);
    if version >= ours.lowest.max(theirs.lowest) {
        return Ok(Agreed { version, capabilities: ours.capabilities & theirs.capabilities });
    }
    let (old_side, old, new) =
        if ours.highest < theirs.lowest { (side, ours, theirs) } else { (side.other(), theirs, ours) };
    Err(Mismatch {
        old_side,
        old_software: printable(&old.software),
        new_software: printable(&new.software),
        old: old.highest,
        new: new.lowest,
    })
}

/// Text of the other side without control sequences for a terminal, and without characters that change how the text around
/// them is shown: they become `�`.
pub fn printable(text: &str) -> String {
    let keep = |c: char| !c.is_control() && !is_invisible(c) || c == '\n' || c == '\t';
    text.chars().map(|c| if keep(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Whether Unicode has it as a format character (Cf), such as those that reorder text, or a separator of lines or
/// paragraphs (Zl, Zp). Text can look like another one by them (CVE-2021-42574).
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(lowest: u16, highest: u16) -> Hello {
        Hello { lowest, highest, capabilities: 0b11, software: format!("0.{highest}.0") }
    }

    #[test]
    fn the_highest_common_version_wins() {
        let agreed = negotiate(Side::Laptop, &hello(1, 3), &hello(2, 5)).unwrap();
        assert_eq!(agreed.version, 3);
    }

    #[test]
    fn a_mismatch_names_the_side_to_update() {
        let said = negotiate(Side::Laptop, &hello(1, 1), &hello(2, 2)).unwrap_err().to_string();
        assert!(said.ends_with("update gh-net on the laptop"), "{said}");
        let said = negotiate(Side::Laptop, &hello(2, 2), &hello(1, 1)).unwrap_err().to_string();
        assert!(said.ends_with("update gh-net-sidecar in the codespace"), "{said}");
        let said = negotiate(Side::Codespace, &hello(1, 1), &hello(2, 2)).unwrap_err().to_string();
        assert!(said.ends_with("update gh-net-sidecar in the codespace"), "{said}");
    }

    #[test]
    fn capabilities_are_what_both_have() {
        let mut theirs = hello(1, 1);
        theirs.capabilities = 0b110;
        assert_eq!(negotiate(Side::Codespace, &hello(1, 1), &theirs).unwrap().capabilities, 0b10);
    }

    #[test]
    fn text_of_the_other_side_cannot_control_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\nc");
    }

    #[test]
    fn text_of_the_other_side_cannot_be_shown_in_another_order() {
        let bidi =
            "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}";
        let invisible = "\u{ad}\u{200b}\u{2028}\u{2029}\u{2060}\u{feff}\u{fff9}\u{e0001}";
        for c in bidi.chars().chain(invisible.chars()) {
            assert_eq!(printable(&format!("a{c}b")), "a\u{fffd}b", "U+{:04X}", u32::from(c));
        }
        let text = "naïve Ελλάδα עברית العربية 日本語 🙂 a\tb\n";
        assert_eq!(printable(text), text);
    }
}
