//! Sidecars on the laptop that can be copied.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
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

/// Directories in which sidecars may lie, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    directories: Vec<PathBuf>,
}

/// A sidecar that can be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binary {
    pub(super) path: PathBuf,
    /// SHA-256 in hexadecimal.
    pub(super) hash: String,
}

impl Sources {
    /// The directory the user names, then those beside our own program.
    pub fn of(named: Option<PathBuf>) -> Self {
        let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
        let beside = program.as_deref().and_then(Path::parent);
        let places = beside.map(|bin| [bin.to_owned(), bin.join("../libexec/gh-net")]);
        Self { directories: named.into_iter().chain(places.into_iter().flatten()).collect() }
    }

    /// The best sidecar for `arch`.
    pub(super) fn find(&self, arch: Arch) -> Result<Option<Binary>, Error> {
        let names = [format!("gh-net-sidecar-{}", arch.name()), "gh-net-sidecar".to_owned()];
        let files =
            self.directories.iter().flat_map(|directory| names.iter().map(|name| directory.join(name)));
        for path in files {
            match elf_machine(&path) {
                Ok(Some(machine)) if machine == arch.elf_machine() => {
                    let mut binary = Binary { path, hash: String::new() };
                    binary.hash = hash(&binary.read()?);
                    return Ok(Some(binary));
                }
                Ok(_) => tracing::debug!("{} is no program for {}", path.display(), arch.name()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Read { path: path.display().to_string(), source }),
            }
        }
        Ok(None)
    }

    /// Where one was looked for, for a message.
    pub(super) fn searched(&self) -> String {
        let directories: Vec<_> = self.directories.iter().map(|path| path.display().to_string()).collect();
        format!("looked here in: {}", directories.join(", "))
    }
}

impl Binary {
    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        std::fs::read(&self.path)
            .map_err(|source| Error::Read { path: self.path.display().to_string(), source })
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
fn elf_machine(path: &Path) -> io::Result<Option<u16>> {
    let mut header = [0; 20];
    match File::open(path)?.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    // EI_MAG, EI_CLASS, EI_DATA, and e_machine at 18.
    let is_elf = header.starts_with(b"\x7fELF\x02\x01");
    Ok(is_elf.then(|| u16::from_le_bytes([header[18], header[19]])))
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
        (directory, Sources { directories })
    }

    #[test]
    fn the_file_for_the_architecture_wins_and_a_wrong_machine_is_not_taken() {
        let (directory, sources) = sources(&[
            ("gh-net-sidecar-aarch64", elf(183)),
            ("gh-net-sidecar-x86_64", b"#!/bin/sh\n".to_vec()),
            ("gh-net-sidecar", elf(62)),
        ]);
        let path = |arch| sources.find(arch).unwrap().unwrap().path;
        assert_eq!(path(Arch::Aarch64), directory.path().join("gh-net-sidecar-aarch64"));
        assert_eq!(path(Arch::X86_64), directory.path().join("gh-net-sidecar"));
    }

    #[test]
    fn none_for_the_architecture_is_none() {
        let (_directory, sources) = sources(&[("gh-net-sidecar", elf(62))]);
        assert_eq!(sources.find(Arch::Aarch64).unwrap(), None);
        assert_eq!(Arch::named("riscv64"), None);
    }

    #[test]
    fn a_name_tells_builds_of_one_version_apart() {
        let binary = Binary { path: PathBuf::new(), hash: hash(b"abc") };
        assert_eq!(binary.remote_name(), format!("gh-net-sidecar-{VERSION}-ba7816bf"));
    }
}
