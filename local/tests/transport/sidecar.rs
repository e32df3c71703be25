//! A stand-in for the sidecar: it can be copied, prints its version, and echoes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

const SOURCE: &str = r#"
use std::io::{stdin, stdout, Write};
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version"] => println!("gh-net-sidecar VERSION"),
        ["attach"] => {
            eprintln!("attached");
            let _ = std::io::copy(&mut stdin().lock(), &mut stdout());
            let _ = stdout().flush();
            std::process::exit(42);
        }
        _ => std::process::exit(2),
    }
}
"#;

/// A directory with a `gh-net-sidecar` of our version in it.
pub(crate) fn directory() -> PathBuf {
    static BUILT: OnceLock<TempDir> = OnceLock::new();
    BUILT.get_or_init(|| build(env!("CARGO_PKG_VERSION"))).path().to_owned()
}

fn build(version: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("sidecar.rs");
    std::fs::write(&source, SOURCE.replace("VERSION", version)).unwrap();
    let status = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
        .args(["-C", "debuginfo=0", "-o"])
        .arg(directory.path().join("gh-net-sidecar"))
        .arg(source)
        .status()
        .expect("rustc is there where cargo test is");
    assert!(status.success());
    directory
}

/// The files in the remote cache below `home`.
pub(crate) fn cached(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(home.join(".cache/gh-net"));
    let mut names: Vec<String> = entries
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}
