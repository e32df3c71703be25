//! The name by which the user runs us: `gh-net`, or `gh net` as gh's extension. Commands in usage lines and remedies
//! begin with it.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::LazyLock;

/// Where gh stores an extension that it has downloaded, relative to its data directory.
const DOWNLOADED: &str = "gh/extensions/gh-net/gh-net";

/// `gh net` or `gh-net`.
pub fn name() -> &'static str {
    if by_gh() { "gh net" } else { "gh-net" }
}

/// Whether gh runs us as its extension: its script sets a variable, or gh has downloaded the program and runs it.
pub fn by_gh() -> bool {
    static BY_GH: LazyLock<bool> = LazyLock::new(|| {
        is_extension(env::var_os("GH_NET_EXTENSION").as_deref(), env::args_os().next().as_deref())
    });
    *BY_GH
}

fn is_extension(variable: Option<&OsStr>, program: Option<&OsStr>) -> bool {
    variable.is_some_and(|value| value == "1")
        || program.is_some_and(|program| Path::new(program).ends_with(DOWNLOADED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_recognised_by_its_script_and_by_its_path() {
        let is_extension = |variable: Option<&str>, program: &str| {
            is_extension(variable.map(OsStr::new), Some(OsStr::new(program)))
        };
        assert!(is_extension(Some("1"), "/usr/bin/gh-net"));
        assert!(is_extension(None, "/home/me/.local/share/gh/extensions/gh-net/gh-net"));
        assert!(!is_extension(None, "/usr/bin/gh-net"));
        assert!(!is_extension(Some("0"), "gh-net"));
    }
}
