//! Checks for enough privilege, gets it by sudo, or says how to get it.
//!
//! Capabilities count, not the user id: root in a container usually lacks `CAP_NET_ADMIN`, and an ordinary user may have
//! it from file capabilities.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, set_capabilities,
};

use crate::{exit, sys};

/// How to grant what is missing: part of every message that says it is.
pub(crate) const REMEDY: &str = concat!(
    "In a codespace or dev container, add to devcontainer.json: \"features\": { \"ghcr.io/gh-net/gh-net/gh-net:",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "\": {} } and rebuild. With docker: --cap-add NET_ADMIN --device /dev/net/tun"
);

/// Why there is not enough privilege.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Root, but in a container without the capability.
    #[error("not even root has the capability NET_ADMIN here, so no tunnel can be made. {REMEDY}")]
    Container,
    /// An ordinary user who can't become root.
    #[error(
        "gh-net-sidecar needs root or the capability NET_ADMIN, and runs as user {uid}; `sudo -n` did not help: \
         {sudo}. Allow it to sudo without a password, log in as root, or run once as root: \
         setcap cap_net_admin,cap_net_bind_service,cap_dac_override,cap_mknod+p {program}"
    )]
    Denied {
        /// Who runs it.
        uid: u32,
        /// sudo's message.
        sudo: String,
        /// This program.
        program: String,
    },
}

/// Makes the permitted capabilities effective. File capabilities are best set as `+p`: those that a container does not
/// grant are then just missing, and the message says so. With `+ep` the kernel would refuse to run the program.
pub(crate) fn raise() {
    let Ok(mut sets) = capabilities(None) else { return };
    if sets.effective != sets.permitted {
        sets.effective = sets.permitted;
        // If it fails, `is_enough` notices.
        let _ = set_capabilities(None, sets);
    }
}

/// Whether this process has enough privilege.
pub(crate) fn is_enough() -> bool {
    let Ok(CapabilitySets { effective, .. }) = capabilities(None) else { return false };
    // /run belongs to root; other users write there only by overriding its permissions.
    effective.contains(CapabilitySet::NET_ADMIN)
        && (geteuid().is_root() || effective.contains(CapabilitySet::DAC_OVERRIDE))
}

/// Replaces this process by this program run by sudo. `arguments` receives what `probe` printed there, because sudo may
/// change the environment. Returns only if that is not possible.
pub(crate) fn elevate(arguments: impl FnOnce(&str) -> Vec<OsString>) -> Error {
    if geteuid().is_root() || !is_bounded(CapabilitySet::NET_ADMIN) {
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
    // Tried first, so that a refusal can be sent to the laptop in a frame.
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

/// Whether any program here can have the capability, including root's.
fn is_bounded(capability: CapabilitySet) -> bool {
    capability_is_in_bounding_set(capability).unwrap_or(true)
}

/// Whether this program's file gives it more privilege than its caller has (`AT_SECURE`). Then the caller's environment
/// must not be trusted.
pub(crate) fn is_secure_execution() -> bool {
    sys::auxiliary_value(libc::AT_SECURE) != 0
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
        let sets = capabilities(None).unwrap();
        assert_eq!(sets.effective.bits(), shown("CapEff:"));
        assert_eq!(sets.permitted.bits(), shown("CapPrm:"));
        assert_eq!(
            is_bounded(CapabilitySet::NET_ADMIN),
            shown("CapBnd:") & CapabilitySet::NET_ADMIN.bits() != 0
        );
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
