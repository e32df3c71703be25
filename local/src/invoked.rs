//! By which name the user runs us: `gh-net` itself, or `gh net` where it is gh's extension. What a user is to
//! type, in usage lines and in remedies, begins with it.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::LazyLock;

/// Where gh keeps a program that it has downloaded as an extension, below its data directory.
const DOWNLOADED: &str = "gh/extensions/gh-net/gh-net";

/// `gh net` or `gh-net`.
pub fn name() -> &'static str {
    if by_gh() { "gh net" } else { "gh-net" }
}

/// Whether gh runs us as its extension: its script says so, or gh has downloaded and started the program itself.
pub fn by_gh() -> bool {
    static BY_GH: LazyLock<bool> =
        LazyLock::new(|| told(env::var_os("GH_NET_EXTENSION").as_deref(), env::args_os().next().as_deref()));
    *BY_GH
}

fn told(variable: Option<&OsStr>, program: Option<&OsStr>) -> bool {
    variable.is_some_and(|value| value == "1")
        || program.is_some_and(|program| Path::new(program).ends_with(DOWNLOADED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gh_is_known_by_its_script_and_by_where_it_keeps_programs() {
        let told =
            |variable: Option<&str>, program: &str| told(variable.map(OsStr::new), Some(OsStr::new(program)));
        assert!(told(Some("1"), "/usr/bin/gh-net"));
        assert!(told(None, "/home/me/.local/share/gh/extensions/gh-net/gh-net"));
        assert!(!told(None, "/usr/bin/gh-net"));
        assert!(!told(Some("0"), "gh-net"));
    }
}
