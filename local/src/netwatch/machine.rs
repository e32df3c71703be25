//! Whether the laptop is a virtual machine, and of which kind: its host is then reachable at addresses that are not its own.
//!
//! Read from files that the kernel and the firmware provide, below a directory that tests replace. What none of them tells
//! is [`Machine::Unknown`], such as a virtual machine that hides it, or one on ARM whose firmware has no DMI tables.

use std::fs;
use std::path::Path;

/// The machine that the program runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Machine {
    /// A physical one, or one that does not show what it is.
    #[default]
    Unknown,
    /// A distribution of WSL 2.
    Wsl,
    /// A container of Docker Desktop.
    DockerDesktop,
    /// A virtual machine of VirtualBox.
    VirtualBox,
    /// A virtual machine of QEMU, with KVM or without.
    Qemu,
    /// A virtual machine of Parallels.
    Parallels,
    /// Another virtual machine.
    Virtual,
}

impl Machine {
    /// This machine.
    pub fn detect() -> Self {
        Self::below(Path::new("/"))
    }

    fn below(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let exists = |path: &str| root.join(path).exists();
        let kernel = read("proc/sys/kernel/osrelease");
        // WSL 1, whose kernel is called Microsoft, has the addresses of Windows itself.
        let marked = || exists("proc/sys/fs/binfmt_misc/WSLInterop") || exists("run/WSL");
        let wsl = kernel.contains("microsoft-standard")
            || kernel.contains("WSL2")
            || !kernel.contains("Microsoft") && marked();
        if kernel.contains("linuxkit") || wsl && exists(".dockerenv") {
            return Self::DockerDesktop;
        }
        if wsl {
            return Self::Wsl;
        }
        let (vendor, product) = (read("sys/class/dmi/id/sys_vendor"), read("sys/class/dmi/id/product_name"));
        let names = |word: &str| vendor.contains(word) || product.contains(word);
        if names("innotek") || names("VirtualBox") {
            Self::VirtualBox
        } else if names("QEMU") || names("KVM") {
            Self::Qemu
        } else if names("Parallels") {
            Self::Parallels
        } else if names("VMware")
            || names("Virtual Machine")
            || names("Apple Virtualization")
            || read("proc/cpuinfo").split_whitespace().any(|word| word == "hypervisor")
        {
            Self::Virtual
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine with these files.
    fn machine(files: &[(&str, &str)]) -> Machine {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Machine::below(root.path())
    }

    #[test]
    fn machines_are_known_by_their_kernel_and_firmware() {
        const KERNEL: &str = "proc/sys/kernel/osrelease";
        const VENDOR: &str = "sys/class/dmi/id/sys_vendor";
        const PRODUCT: &str = "sys/class/dmi/id/product_name";
        for (files, wanted) in [
            (&[][..], Machine::Unknown),
            (
                &[(KERNEL, "6.12.0-amd64\n"), (VENDOR, "LENOVO\n"), ("proc/cpuinfo", "flags : fpu vmx\n")],
                Machine::Unknown,
            ),
            (&[(KERNEL, "5.15.153.1-microsoft-standard-WSL2\n")], Machine::Wsl),
            (
                &[(KERNEL, "6.1.0-custom\n"), ("proc/sys/fs/binfmt_misc/WSLInterop", "enabled\n")],
                Machine::Wsl,
            ),
            (&[(KERNEL, "4.4.0-19041-Microsoft\n"), ("run/WSL/1", "")], Machine::Unknown),
            (&[(KERNEL, "6.10.14-linuxkit\n")], Machine::DockerDesktop),
            (&[(KERNEL, "5.15.153.1-microsoft-standard-WSL2\n"), (".dockerenv", "")], Machine::DockerDesktop),
            (&[(VENDOR, "innotek GmbH\n"), (PRODUCT, "VirtualBox\n")], Machine::VirtualBox),
            (&[(VENDOR, "QEMU\n"), (PRODUCT, "Standard PC (Q35 + ICH9, 2009)\n")], Machine::Qemu),
            (&[(VENDOR, "Parallels Software International Inc.\n")], Machine::Parallels),
            (&[(VENDOR, "VMware, Inc.\n")], Machine::Virtual),
            (&[(VENDOR, "Microsoft Corporation\n"), (PRODUCT, "Virtual Machine\n")], Machine::Virtual),
            (&[(VENDOR, "Microsoft Corporation\n"), (PRODUCT, "Surface Laptop\n")], Machine::Unknown),
            (&[("proc/cpuinfo", "flags\t\t: fpu hypervisor lahf_lm\n")], Machine::Virtual),
        ] {
            assert_eq!(machine(files), wanted, "{files:?}");
        }
    }
}
