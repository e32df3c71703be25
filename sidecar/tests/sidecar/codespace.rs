//! A codespace: namespaces with an interface, default routes and a resolv.conf of their own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The binary under test.
pub(crate) const SIDECAR: &str = env!("CARGO_BIN_EXE_gh-net-sidecar");

const SETUP: &str = "
    ip link set lo up
    ip link add eth0 type veth peer name far
    ip link set eth0 addrgenmode none
    ip link set far addrgenmode none
    ip address add 172.16.5.4/24 dev eth0
    ip address add 2001:db8:5::4/64 dev eth0 nodad
    ip link set eth0 up
    ip link set far up
    # The kernel reports the carrier shortly afterwards.
    until [ \"$(ip -o link | grep -c 'state UP')\" = 2 ]; do :; done
    ip route add default via 172.16.5.1
    ip route add 192.168.77.0/24 via 172.16.5.9
    ip -6 route add default via 2001:db8:5::1
";

/// Everything the sidecar may change, as text.
const SNAPSHOT: &str = "
    ip rule; ip -6 rule
    ip route show table all; ip -6 route show table all
    ip link; ip address
    cat /etc/resolv.conf; ls -la --time-style=+ /etc/resolv.conf
    ls -A /run; ls -A /dev/net
";

/// Runs a test in a codespace. Without the privilege to create one, the test fails in CI and is visibly skipped
/// elsewhere.
pub(crate) fn in_codespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    // Namespaces belong to a thread, and this one may be the test runner's own.
    let body = move || {
        if let Err(error) = enter() {
            assert!(std::env::var_os("CI").is_none(), "making namespaces: {error}");
            eprintln!("SKIPPED: this test needs root: {error}");
            return;
        }
        let _codespace = Codespace;
        sh(SETUP);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// However the test ends, leaves no owner that waits for its grace to run out.
struct Codespace;

impl Drop for Codespace {
    fn drop(&mut self) {
        sidecar(&["cleanup"]);
    }
}

fn enter() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let conf = tempfile::NamedTempFile::new().unwrap();
    fs::write(conf.path(), "nameserver 172.16.5.53\nsearch internal.example\n").unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    // As in a container: a bind mount, so that renaming over it fails.
    mount(Some(conf.path()), "/etc/resolv.conf", none, MsFlags::MS_BIND, none)?;
    // The sysctls of the namespace just entered.
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)
}

/// The output of a shell script. Fails the test if the script fails.
pub(crate) fn sh(script: &str) -> String {
    let Output { status, stdout, stderr } =
        Command::new("sh").args(["-ec", script]).output().expect("sh runs");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{script}\n{status}: {stderr}");
    String::from_utf8(stdout).expect("text")
}

/// The state that must be restored when the sidecar has ended.
pub(crate) fn snapshot() -> String {
    sh(SNAPSHOT)
}

/// The route that the kernel chooses.
pub(crate) fn route_to(address: &str) -> String {
    sh(&format!("ip route get {address}"))
}

/// Whether there is a tunnel device.
pub(crate) fn has_device() -> bool {
    Path::new("/sys/class/net").exists() && sh("ip -o link").contains("ghnet0")
}

/// The tunnel device's statistics: "tx" is what the sidecar has read.
pub(crate) fn device_statistics(direction: &str) -> serde_json::Value {
    let links: serde_json::Value = serde_json::from_str(&sh("ip -j -s link show ghnet0")).expect("JSON");
    links[0]["stats64"][direction].clone()
}

/// Runs a subcommand of the sidecar that prints.
pub(crate) fn sidecar(arguments: &[&str]) -> Output {
    Command::new(SIDECAR).args(arguments).output().expect("the sidecar runs")
}

/// The process id of the owner.
pub(crate) fn owner() -> i32 {
    fs::read_to_string("/run/gh-net/owner.lock").expect("an owner").trim().parse().expect("its process id")
}
