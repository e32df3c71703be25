//! The room for unsafe code of this crate: what has no safe interface elsewhere gets one here.

#![allow(unsafe_code, reason = "the compiler denies it everywhere else")]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// What the kernel told this program about `kind` (`AT_*`) when it started it; 0 if nothing (getauxval(3)).
pub(crate) fn auxiliary_value(kind: libc::c_ulong) -> libc::c_ulong {
    // SAFETY: `getauxval` only looks `kind` up.
    unsafe { libc::getauxval(kind) }
}

/// The descriptor of a TUN device, which ends the device when it is closed.
pub(crate) fn descriptor(device: tun::Device) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives the descriptor's ownership up, and nothing else has it.
    unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }
}

/// The answers to two system calls that are newer than [`crate::confinement`]'s list: fchmodat2, and the x32 call write.
#[cfg(test)]
pub(crate) fn newer_calls() -> [nix::Result<libc::c_long>; 2] {
    [452, 0x4000_0001].map(|number| {
        // SAFETY: where they exist, they fail at the descriptor -1, before they look at any memory.
        nix::errno::Errno::result(unsafe { libc::syscall(number, -1, 0, 0, 0, 0, 0) })
    })
}

/// The answers to system calls that [`crate::confinement`] refuses: other programs, mounts, links and modules.
#[cfg(test)]
pub(crate) fn refused_calls() -> [nix::Result<libc::c_long>; 10] {
    let calls = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_setns,
        libc::SYS_symlinkat,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_bpf,
    ];
    calls.map(|number| {
        // SAFETY: where they are not refused, they fail at the descriptor, the process, the command or the pointer -1, before
        // they change anything.
        nix::errno::Errno::result(unsafe { libc::syscall(number, -1, 0, 0, 0, 0, 0) })
    })
}

/// An allocator that counts.
#[cfg(test)]
pub(crate) mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    /// Counts what a thread has allocated, as the C library rounds it: each test has a thread of its own.
    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    thread_local! {
        static ALLOCATED: Cell<isize> = const { Cell::new(0) };
    }

    /// What this thread has allocated, in bytes.
    pub(crate) fn allocated() -> usize {
        ALLOCATED.get().max(0) as usize
    }

    fn count(size: usize, sign: isize) {
        let chunk = (size + 8).next_multiple_of(16).max(32) as isize;
        // A thread that ends is not counted any more.
        let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + sign * chunk));
    }

    // SAFETY: every call is passed on to the system's allocator as it is.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 1);
            // SAFETY: the caller keeps the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 1);
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count(layout.size(), -1);
            // SAFETY: the caller keeps the contract of `dealloc`.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}
