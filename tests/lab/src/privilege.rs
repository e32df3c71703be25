//! The privileges and tools that the lab needs of its machine.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};

/// Programs that the lab runs, and their Debian packages.
const LAB_TOOLS: [(&str, &str); 12] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sudo", "sudo"),
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("su", "util-linux"),
];

/// Further programs that the tests run.
const TEST_TOOLS: [(&str, &str); 6] = [
    ("traceroute", "traceroute"),
    ("nc", "netcat-openbsd"),
    ("gh", "gh"),
    ("busybox", "busybox-static"),
    ("shellcheck", "shellcheck"),
    ("jq", "jq"),
];

/// The tools that the lab lacks, as (program, Debian package).
pub fn missing_lab_tools() -> Vec<(&'static str, &'static str)> {
    missing_of(&LAB_TOOLS)
}

/// The tools that the lab and the tests lack, as (program, Debian package).
pub fn missing_tools() -> Vec<(&'static str, &'static str)> {
    [missing_lab_tools(), missing_of(&TEST_TOOLS)].concat()
}

/// Those of `tools` that are missing.
pub fn missing_of(tools: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    tools.iter().filter(|(program, _)| find_program(program).is_none()).copied().collect()
}

/// The path of a program of this machine.
pub fn find_program(name: &str) -> Option<PathBuf> {
    const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists())
}

/// Whether this process may create namespaces.
pub fn privileged() -> bool {
    // On its own thread, because `unshare` can't be reverted.
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID).is_ok())
        .join()
        .unwrap_or(false)
}

/// Why the lab can't run here; `None` if it can. Does not check for missing tools.
pub fn obstacle() -> Option<String> {
    if !privileged() {
        return Some(
            "the lab creates network namespaces: it needs root, or a user namespace with a range of user ids (the \
             package uidmap, and your line in /etc/subuid and /etc/subgid), in which `cargo xtask test` runs it"
                .to_owned(),
        );
    }
    // If there is no such file, root can create it.
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let forbidden = tun.err().filter(|error| error.kind() == ErrorKind::PermissionDenied)?;
    Some(format!("the lab needs a tunnel device: /dev/net/tun: {forbidden}"))
}

/// Whether to skip a test that needs the lab; prints the reason.
///
/// # Panics
/// With `CI=true`, instead of a skip.
pub(super) fn skip() -> bool {
    let missing = missing_tools();
    if !missing.is_empty() {
        let names: Vec<_> =
            missing.iter().map(|(program, package)| format!("{program} ({package})")).collect();
        return skip_because(&format!(
            "the lab lacks {}; `cargo xtask test` as root installs it",
            names.join(", ")
        ));
    }
    obstacle().is_some_and(|why| skip_because(&why))
}

/// Whether to skip a test that needs these programs; prints the reason.
///
/// # Panics
/// With `CI=true`, instead of a skip.
pub fn skip_without(programs: &[&str]) -> bool {
    let missing: Vec<_> =
        programs.iter().copied().filter(|program| find_program(program).is_none()).collect();
    !missing.is_empty() && skip_because(&format!("the test lacks {}", missing.join(", ")))
}

/// Prints that a test is skipped, and why. Returns `true`.
///
/// # Panics
/// With `CI=true`, instead of a skip.
#[allow(clippy::print_stderr, reason = "skips must be visible")]
pub fn skip_because(why: &str) -> bool {
    assert!(!crate::in_ci(), "{why}");
    eprintln!("SKIPPED: {why}");
    true
}
