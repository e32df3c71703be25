//! Enough privilege for the job, or words that say how to get it.
//!
//! What counts is capabilities, not the user id: root in a container usually lacks `CAP_NET_ADMIN`, and an
//! ordinary user may have it from the file's capabilities.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gh_net_sidecar_cli::exit;
use nix::unistd::geteuid;

/// `capabilities(7)`.
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_NET_ADMIN: u32 = 12;

/// The lines that grant what is missing, in every message that says so.
pub(crate) const REMEDY: &str = concat!(
    "In a codespace or dev container, add to devcontainer.json: \"features\": { \"ghcr.io/gh-net/gh-net/gh-net:",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "\": {} } and rebuild. With docker: --cap-add NET_ADMIN --device /dev/net/tun"
);

/// Why there is not enough of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Root, but of a container that was not given the capability.
    #[error("not even root has the capability NET_ADMIN here, so no tunnel can be made. {REMEDY}")]
    Container,
    /// An ordinary user that can't become root.
    #[error(
        "gh-net-sidecar needs root or the capability NET_ADMIN, and runs as user {uid}; `sudo -n` did not help: \
         {sudo}. Allow it to sudo without a password, log in as root, or run once as root: \
         setcap cap_net_admin,cap_net_bind_service,cap_dac_override,cap_mknod+p {program}"
    )]
    Denied {
        /// Who runs it.
        uid: u32,
        /// What sudo said.
        sudo: String,
        /// This program.
        program: String,
    },
}

/// Makes use of what the file's capabilities permit. Given as `+p`, those that a container was not given are
/// just not there, and we can say so; as `+ep` the kernel would refuse to run us.
pub(crate) fn raise() {
    let Ok(mut sets) = capabilities() else { return };
    let [effective, permitted, _, high_effective, high_permitted, _] = &mut sets;
    if (*effective, *high_effective) == (*permitted, *high_permitted) {
        return;
    }
    (*effective, *high_effective) = (*permitted, *high_permitted);
    // SAFETY: as in `capabilities`. What is permitted may be made effective.
    unsafe { libc::syscall(libc::SYS_capset, [VERSION_3, 0].as_mut_ptr(), sets.as_ptr()) };
}

/// Whether this process may do the job.
pub(crate) fn is_enough() -> bool {
    let Ok([effective, ..]) = capabilities() else { return false };
    let has = |capability: u32| effective & (1 << capability) != 0;
    // /run belongs to root; others write there only by overriding its permissions.
    has(CAP_NET_ADMIN) && (geteuid().is_root() || has(CAP_DAC_OVERRIDE))
}

/// Becomes this program by sudo, in place of this process. `arguments` is given what the [probe](crate::probe)
/// printed there, where the environment may be another one. Returns only if that is not possible.
pub(crate) fn elevate(arguments: impl FnOnce(&str) -> Vec<OsString>) -> Error {
    if geteuid().is_root() || !is_bounded(CAP_NET_ADMIN) {
        return Error::Container;
    }
    match try_sudo(arguments) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_sudo(arguments: impl FnOnce(&str) -> Vec<OsString>) -> Result<Infallible, Error> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("gh-net-sidecar"));
    let denied = |sudo: String| Error::Denied {
        uid: geteuid().as_raw(),
        sudo,
        program: program.display().to_string(),
    };
    // Asked first, so that a refusal can be told to the laptop in a frame.
    let mut probe = Command::new("sudo");
    probe.args(["-n", "--"]).arg(&program).arg("probe").stdin(Stdio::null());
    let probed = match probe.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(denied("sudo is not installed".to_owned()));
        }
        output => output.map_err(|error| denied(error.to_string()))?,
    };
    match probed.status.code() {
        Some(0) => {}
        Some(code) if code == i32::from(exit::PRIVILEGE) => return Err(Error::Container),
        Some(_) | None => {
            let said = String::from_utf8_lossy(&probed.stderr);
            return Err(denied(said.trim().trim_end_matches('.').replace('\n', "; ")));
        }
    }
    let arguments = arguments(String::from_utf8_lossy(&probed.stdout).trim());
    let error = Command::new("sudo").args(["-n", "--"]).arg(&program).args(arguments).exec();
    Err(denied(error.to_string()))
}

/// `capget(2)`: version 3 has two sets of 32 bits, each effective, permitted, inheritable.
const VERSION_3: u32 = 0x2008_0522;

fn capabilities() -> io::Result<[u32; 6]> {
    let mut header = [VERSION_3, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: `header` and `sets` have the layout of `cap_user_header_t` and two `cap_user_data_t`, and live
    // across the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(sets)
}

/// Whether any program here can have the capability, root's among them.
fn is_bounded(capability: u32) -> bool {
    // SAFETY: the call takes a number; 0 says that the bounding set lacks it.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability)) != 0 }
}

/// Whether this process got more privilege by its file than its caller has (`AT_SECURE`): then the caller's
/// environment is not to be trusted.
pub(crate) fn is_secure_execution() -> bool {
    // SAFETY: `getauxval` has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_those_the_kernel_shows() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let shown = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let sets = capabilities().unwrap();
        assert_eq!(u64::from(sets[0]) | u64::from(sets[3]) << 32, shown("CapEff:"));
        assert_eq!(u64::from(sets[1]) | u64::from(sets[4]) << 32, shown("CapPrm:"));
        assert_eq!(is_bounded(CAP_NET_ADMIN), shown("CapBnd:") & (1 << CAP_NET_ADMIN) != 0);
    }

    #[test]
    fn messages_name_the_capability_and_the_line_that_grants_it() {
        let said = Error::Container.to_string();
        assert!(said.contains("NET_ADMIN") && said.contains("ghcr.io/gh-net/gh-net/gh-net:"), "{said}");
        let said = Error::Denied { uid: 1000, sudo: "a password is required".into(), program: "/x/y".into() };
        let said = said.to_string();
        assert!(said.contains("a password is required") && said.contains("setcap"), "{said}");
    }
}
