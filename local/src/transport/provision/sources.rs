//! Sidecars on the laptop that can be copied: files, and in a released gh-net those inside of it.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Error, VERSION};

/// An architecture there are sidecars for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The one that `uname -m` means.
    pub(super) fn named(machine: &str) -> Option<Self> {
        match machine {
            "x86_64" | "amd64" => Some(Self::X86_64),
            "aarch64" | "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `e_machine` of its ELF files.
    fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }
}

// EMBEDDED: (architecture, program) of each sidecar that build.rs was given.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Directories in which sidecars may lie, best first; after them come those inside our own program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    directories: Vec<PathBuf>,
    embedded: &'static [(&'static str, &'static [u8])],
}

/// A sidecar that can be copied.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Binary {
    pub(super) bytes: Cow<'static, [u8]>,
    /// SHA-256 in hexadecimal.
    pub(super) hash: String,
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes with the hash {}", self.bytes.len(), self.hash)
    }
}

impl Sources {
    /// The directory the user names, those beside our own program, and what was built into it.
    pub fn of(named: Option<PathBuf>) -> Self {
        let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
        let beside = program.as_deref().and_then(Path::parent);
        let places = beside.map(|bin| [bin.to_owned(), bin.join("../libexec/gh-net")]);
        let directories = named.into_iter().chain(places.into_iter().flatten()).collect();
        Self { directories, embedded: EMBEDDED }
    }

    /// The best sidecar for `arch`.
    pub(super) fn find(&self, arch: Arch) -> Result<Option<Binary>, Error> {
        let names = [format!("gh-net-sidecar-{}", arch.name()), "gh-net-sidecar".to_owned()];
        let files =
            self.directories.iter().flat_map(|directory| names.iter().map(|name| directory.join(name)));
        for path in files {
            match std::fs::read(&path) {
                Ok(bytes) if elf_machine(&bytes) == Some(arch.elf_machine()) => {
                    return Ok(Some(Binary::new(bytes)));
                }
                Ok(_) => tracing::debug!("{} is no program for {}", path.display(), arch.name()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Read { path: path.display().to_string(), source }),
            }
        }
        let embedded = self.embedded.iter().find(|(name, _)| *name == arch.name());
        Ok(embedded.map(|(_, bytes)| Binary::new(*bytes)))
    }

    /// Where one was looked for, for a message.
    pub(super) fn searched(&self) -> String {
        let directories: Vec<_> = self.directories.iter().map(|path| path.display().to_string()).collect();
        let inside = if self.embedded.is_empty() { "; none is built into this gh-net" } else { "" };
        format!("looked here in: {}{inside}", directories.join(", "))
    }
}

impl Binary {
    fn new(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = bytes.into();
        let hash = hash(&bytes);
        Self { bytes, hash }
    }

    /// What it is called over there. The version is for people, the hash tells builds apart.
    pub(super) fn remote_name(&self) -> String {
        format!("gh-net-sidecar-{VERSION}-{}", self.hash.get(..8).unwrap_or(&self.hash))
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Which machine a 64-bit little-endian ELF file is for; `None` if it is something else.
fn elf_machine(file: &[u8]) -> Option<u16> {
    // EI_MAG, EI_CLASS, EI_DATA, and e_machine at 18.
    let is_elf = file.starts_with(b"\x7fELF\x02\x01");
    let machine = file.get(18..)?.first_chunk()?;
    is_elf.then(|| u16::from_le_bytes(*machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(18, 0);
        bytes.extend_from_slice(&machine.to_le_bytes());
        bytes
    }

    fn sources(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Sources) {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        }
        let directories = vec![PathBuf::from("/nowhere"), directory.path().to_owned()];
        (directory, Sources { directories, embedded: &[("aarch64", b"built in")] })
    }

    #[test]
    fn the_file_for_the_architecture_wins_and_a_wrong_machine_is_not_taken() {
        let (directory, sources) = sources(&[
            ("gh-net-sidecar-aarch64", elf(183)),
            ("gh-net-sidecar-x86_64", b"#!/bin/sh\n".to_vec()),
            ("gh-net-sidecar", elf(62)),
        ]);
        let found = |arch| sources.find(arch).unwrap().unwrap().bytes;
        let file = |name| std::fs::read(directory.path().join(name)).unwrap();
        assert_eq!(found(Arch::Aarch64), file("gh-net-sidecar-aarch64"));
        assert_eq!(found(Arch::X86_64), file("gh-net-sidecar"));
    }

    #[test]
    fn what_is_built_in_comes_last() {
        let (_directory, sources) = sources(&[("gh-net-sidecar", elf(62))]);
        let found = sources.find(Arch::Aarch64).unwrap().unwrap();
        assert_eq!((&*found.bytes, found.hash), (&b"built in"[..], hash(b"built in")));
    }

    #[test]
    fn none_for_the_architecture_is_none() {
        let (_directory, sources) =
            sources(&[("gh-net-sidecar", elf(183)), ("gh-net-sidecar-x86_64", vec![])]);
        assert_eq!(sources.find(Arch::X86_64).unwrap(), None);
        assert_eq!(Arch::named("riscv64"), None);
    }

    #[test]
    fn a_name_tells_builds_of_one_version_apart() {
        let binary = Binary::new(&b"abc"[..]);
        assert_eq!(binary.remote_name(), format!("gh-net-sidecar-{VERSION}-ba7816bf"));
    }
}
