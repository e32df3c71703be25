//! The owner's confinement: it gives up, for good, what it never needs, so that a defect in it is harder to exploit for a
//! hostile laptop or a program in the codespace. It is no sandbox: the owner may write files of root's.
//!
//! - No new privileges: nothing that it might start has more than itself.
//! - [`KEPT`] are the only capabilities left. The bounding set follows where the kernel allows it.
//! - A system call that is refused fails with EPERM. The list names what is refused, not what is allowed: which calls the
//!   two C libraries and the runtime make changes with their versions, and a call that is refused by mistake would break a
//!   session. What is newer than the list fails with ENOSYS, on which C libraries fall back to older calls. Of mknod,
//!   only the one call is left that makes /dev/net/tun.
//! - Where this program is translated for a processor of another kind (Rosetta, qemu), its system calls are none that the
//!   filter knows, and there is none: it would kill the owner.
//! - No core dump and no debugger of the same user: its memory has the session's token.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::sys::personality;
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::resource::{Resource, setrlimit};
use rustix::thread::{
    CapabilitySet, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompFilter, SeccompRule, sock_filter,
};

use crate::hook::NODE_ARGUMENTS;

/// The capabilities that a session needs to the end.
const KEPT: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::NET_ADMIN, "the device, its addresses, rules and routes, and to set them again"),
    (CapabilitySet::NET_BIND_SERVICE, "port 53, when names are turned on"),
    (CapabilitySet::DAC_OVERRIDE, "/etc/resolv.conf, and the state directory, by a user who is not root"),
    (CapabilitySet::MKNOD, "/dev/net/tun for the next session, if it is missing"),
];

/// Socket families that a session needs: the owner's socket, DNS, and the kernel's networks.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The newest system call that is allowed: cachestat, of Linux 6.5. Also keeps out the x32 calls, whose numbers are
/// above 2^30.
const NEWEST: u32 = 451;

/// Types into a terminal as its user would. The C libraries disagree about its type.
const TIOCSTI: u64 = 0x5412;

/// What is never needed.
#[rustfmt::skip]
const REFUSED: &[libc::c_long] = &[
    // Other programs.
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_kill, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_pidfd_send_signal,
    // Other identities, and capabilities again.
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_capset,
    libc::SYS_personality,
    // Namespaces and mounts.
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount,
    libc::SYS_fspick, libc::SYS_mount_setattr,
    // Files: other names and owners.
    libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_setxattr,
    libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init, libc::SYS_memfd_create, libc::SYS_quotactl, libc::SYS_acct,
    // The kernel.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_syslog, libc::SYS_bpf, libc::SYS_perf_event_open,
    libc::SYS_userfaultfd, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
    // The machine's time and name.
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_sethostname, libc::SYS_setdomainname,
];

/// The same under names that only x86 still has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_OLD: &[libc::c_long] = &[
    libc::SYS_chown, libc::SYS_lchown, libc::SYS_link, libc::SYS_symlink, libc::SYS_iopl, libc::SYS_ioperm,
    libc::SYS_modify_ldt, libc::SYS_fork, libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[libc::c_long] = &[];

/// The calls that make nodes, and the place of the mode among their arguments. The device follows.
#[cfg(target_arch = "x86_64")]
const MKNOD: &[(libc::c_long, u8)] = &[(libc::SYS_mknodat, 2), (libc::SYS_mknod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const MKNOD: &[(libc::c_long, u8)] = &[(libc::SYS_mknodat, 2)];

/// Confines this process, which must still have a single thread. Returns what is not available here, as text: a kernel
/// without seccomp, or a container that forbids it, is no reason to have no session.
pub(crate) fn confine() -> Vec<String> {
    let mut missing = Vec::new();
    let mut note = |what: &str, result: Result<(), String>| {
        if let Err(error) = result {
            missing.push(format!("{what}: {error}"));
        }
    };
    note("core dumps are off", setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(text));
    note("its memory is private", set_dumpable(false).map_err(text));
    note("no new privileges", set_no_new_privs().map_err(text));
    note("fewer capabilities", drop_capabilities().map_err(text));
    note("fewer system calls", filter_system_calls().map_err(text));
    missing
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn drop_capabilities() -> rustix::io::Result<()> {
    let kept = KEPT.into_iter().map(|(capability, _)| capability).collect::<CapabilitySet>();
    let mut sets = capabilities(None)?;
    // Without this capability, as with file capabilities, the bounding set stays. It matters only to another program.
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for dropped in (CapabilitySet::all() - kept).iter() {
            match remove_capability_from_bounding_set(dropped) {
                // The kernel does not know it.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    clear_ambient_capability_set()?;
    sets.permitted &= kept;
    sets.effective = sets.permitted;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets)
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
enum Unfiltered {
    #[error(transparent)]
    Refused(#[from] seccompiler::Error),
    #[error("the kernel is not of this program's architecture, {}", std::env::consts::ARCH)]
    Translated,
}

impl From<seccompiler::BackendError> for Unfiltered {
    fn from(error: seccompiler::BackendError) -> Self {
        Self::Refused(error.into())
    }
}

fn filter_system_calls() -> Result<(), Unfiltered> {
    seccompiler::apply_filter(&probe(native()?)).map_err(Unfiltered::Refused)?;
    if !is_probed() {
        return Err(Unfiltered::Translated);
    }
    // Each is asked, and the strictest answer counts.
    for program in [newer(), unavailable()?, refused()?] {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Where `seccomp_data` has the call's number and its architecture.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// How the kernel names this program's architecture: the second instruction of each filter compares it.
fn native() -> Result<u32, Unfiltered> {
    let filter = program(BTreeMap::from([(PROBED, vec![])]), libc::EPERM)?;
    Ok(filter[1].k)
}

/// A call that the owner never makes but for [`is_probed`], and that does no harm: it changes nothing.
const PROBED: libc::c_long = libc::SYS_personality;
/// An answer that this call does not give by itself.
const PROBE_ANSWER: i32 = libc::EXFULL;

/// Answers one call, if it is of this architecture, and refuses nothing else.
fn probe(native: u32) -> BpfProgram {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, ARCHITECTURE),
        step(JUMP_IF_EQUAL, 0, 2, native),
        step(LOAD, 0, 0, NUMBER),
        step(JUMP_IF_EQUAL, 1, 0, PROBED as u32),
        step(RETURN, 0, 0, SeccompAction::Allow.into()),
        step(RETURN, 0, 0, SeccompAction::Errno(PROBE_ANSWER as u32).into()),
    ]
}

/// Whether the kernel sees our calls as calls of our architecture.
fn is_probed() -> bool {
    personality::get() == Err(Errno::from_raw(PROBE_ANSWER))
}

/// ENOSYS for what is newer than this list.
fn newer() -> BpfProgram {
    let step = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    vec![
        step(LOAD, 0, NUMBER),
        step(JUMP_IF_GREATER, 1, NEWEST),
        step(RETURN, 0, SeccompAction::Allow.into()),
        step(RETURN, 0, SeccompAction::Errno(libc::ENOSYS as u32).into()),
    ]
}

/// ENOSYS for `clone3`, whose arguments a filter can't see. C libraries fall back to `clone`.
fn unavailable() -> Result<BpfProgram, seccompiler::Error> {
    program(BTreeMap::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS)
}

/// EPERM for what is never needed.
fn refused() -> Result<BpfProgram, seccompiler::Error> {
    let condition = |argument, compared, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compared, value)
    };
    let rule = |conditions| Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(conditions)?]);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(REFUSED.iter().chain(REFUSED_OLD).map(|&call| (call, vec![])));
    let families = FAMILIES.map(|family| condition(0, Ne, family as u64));
    rules.insert(libc::SYS_socket, rule(families.into_iter().collect::<Result<_, _>>()?)?);
    let user = libc::CLONE_NEWUSER as u64;
    rules.insert(libc::SYS_clone, rule(vec![condition(0, MaskedEq(user), user)?])?);
    rules.insert(libc::SYS_ioctl, rule(vec![condition(1, Eq, TIOCSTI)?])?);
    // All but the one that makes /dev/net/tun: in any of its arguments, what is not as there is refused.
    for (call, mode) in MKNOD {
        let (expected_mode, device) = NODE_ARGUMENTS;
        let others = [(*mode, u64::from(expected_mode)), (mode + 1, device)];
        let others = others.map(|(argument, value)| SeccompRule::new(vec![condition(argument, Ne, value)?]));
        rules.insert(*call, others.into_iter().collect::<Result<_, _>>()?);
    }
    program(rules, libc::EPERM)
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, seccompiler::Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(errno as u32);
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    /// On a thread of its own: a filter is the thread's, and stays.
    fn confined<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            set_no_new_privs().unwrap();
            filter_system_calls().unwrap();
            body()
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_is_never_needed_is_refused() {
        confined(|| {
            let error = std::process::Command::new("/bin/true").status().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
            let open = |family, kind| socket(family, kind, SockFlag::empty(), None).map(drop);
            assert_eq!(open(AddressFamily::Packet, SockType::Raw), Err(Errno::EPERM));
            for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Unix] {
                open(family, SockType::Datagram).unwrap();
            }
            open(AddressFamily::Netlink, SockType::Raw).unwrap();
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap_err();
            // The kernel by itself has other answers to these.
            assert_eq!(sys::refused_calls(), [Err(Errno::EPERM); 10]);
            // A thread can still be made, though clone3 is not there.
            std::thread::spawn(|| {}).join().unwrap();
        });
    }

    #[test]
    fn the_one_node_that_can_be_made_is_the_tunnels() {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node");
        let (mode, _) = NODE_ARGUMENTS;
        let (tun, disk) = (makedev(10, 200), makedev(8, 0));
        let make = move |kind, mode, number| {
            mknod(&path, kind, Mode::from_bits_truncate(mode), number).inspect(|()| {
                std::fs::remove_file(&path).unwrap();
            })
        };
        let [tuns, others @ ..] = confined(move || {
            [
                make(SFlag::S_IFCHR, mode, tun),
                make(SFlag::S_IFBLK, mode, tun),
                make(SFlag::S_IFCHR, mode, disk),
                make(SFlag::S_IFCHR, 0o777, tun),
                make(SFlag::S_IFIFO, mode, 0),
            ]
        });
        assert_eq!(others, [Err(Errno::EPERM); 4]);
        // Without root it is the kernel that refuses, as it would without a filter.
        assert_eq!(tuns.is_ok(), nix::unistd::geteuid().is_root());
    }

    #[test]
    fn calls_of_another_architecture_are_noticed_and_kill_nobody() {
        let other = native().unwrap() ^ 1;
        let noticed = std::thread::spawn(move || {
            set_no_new_privs().unwrap();
            seccompiler::apply_filter(&probe(other)).unwrap();
            !is_probed()
        });
        assert!(noticed.join().unwrap());
    }

    #[test]
    fn a_call_that_is_newer_than_the_list_does_not_exist() {
        assert_eq!(confined(sys::newer_calls), [Err(Errno::ENOSYS); 2]);
    }
}
