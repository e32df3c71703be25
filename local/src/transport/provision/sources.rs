//! Sidecars on the laptop that can be copied: files, and those that are embedded in a released gh-net.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::Error;

/// Our version. A sidecar of another version is used only if ours can't be copied.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An architecture that sidecars exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The architecture for an output of `uname -m`.
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

// EMBEDDED: (architecture, program) of each sidecar that build.rs has embedded.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Where sidecars may be: in a directory that the user names, embedded in our program, or in a directory beside it.
/// Embedded ones come before those beside it, which may be of another version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    named: Option<PathBuf>,
    embedded: &'static [(&'static str, &'static [u8])],
    beside: Vec<PathBuf>,
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
    /// `named` is the directory that the user names.
    pub fn of(named: Option<PathBuf>) -> Self {
        let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
        let directory = program.as_deref().and_then(Path::parent);
        let beside = directory.map(|bin| vec![bin.to_owned(), bin.join("../libexec/gh-net")]);
        Self { named, embedded: EMBEDDED, beside: beside.unwrap_or_default() }
    }

    /// The best sidecar for `arch`.
    ///
    /// # Errors
    /// A file in the directory that the user names can't be read. Unreadable files beside us are skipped.
    pub(super) fn find(&self, arch: Arch) -> Result<Option<Binary>, Error> {
        if let Some(directory) = &self.named
            && let Some(binary) = find_in(directory, arch)?
        {
            return Ok(Some(binary));
        }
        if let Some((_, bytes)) = self.embedded.iter().find(|(name, _)| *name == arch.name()) {
            return Ok(Some(Binary::new(*bytes)));
        }
        let readable =
            |directory| find_in(directory, arch).inspect_err(|why| tracing::debug!("{why}")).ok().flatten();
        Ok(self.beside.iter().find_map(|directory| readable(directory)))
    }

    /// The places that were searched, for an error message.
    pub(super) fn searched(&self) -> String {
        let directories = self.named.iter().chain(&self.beside);
        let directories: Vec<_> = directories.map(|path| path.display().to_string()).collect();
        let embedded = if self.embedded.is_empty() { "; no sidecar is embedded in this gh-net" } else { "" };
        format!("searched on this computer: {}{embedded}", directories.join(", "))
    }
}

/// A sidecar for `arch` in a directory.
fn find_in(directory: &Path, arch: Arch) -> Result<Option<Binary>, Error> {
    for name in [format!("gh-net-sidecar-{}", arch.name()), "gh-net-sidecar".to_owned()] {
        let path = directory.join(name);
        match std::fs::read(&path) {
            Ok(bytes) if elf_machine(&bytes) == Some(arch.elf_machine()) => {
                return Ok(Some(Binary::new(bytes)));
            }
            Ok(_) => tracing::debug!("{} is not a program for {}", path.display(), arch.name()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path: path.display().to_string(), source }),
        }
    }
    Ok(None)
}

impl Binary {
    fn new(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = bytes.into();
        let hash = hash(&bytes);
        Self { bytes, hash }
    }

    /// Its file name in the codespace. The version is for people, the hash distinguishes builds.
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

/// The machine of a 64-bit little-endian ELF file; `None` for any other file.
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
        let beside = vec![PathBuf::from("/nowhere"), directory.path().to_owned()];
        (directory, Sources { beside, ..Sources::default() })
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

    /// A sidecar beside us may be of any version; an embedded one is of ours.
    #[test]
    fn embedded_sidecars_come_after_named_ones_and_before_those_beside() {
        let (directory, mut sources) = sources(&[("gh-net-sidecar-aarch64", elf(183))]);
        sources.embedded = &[("aarch64", b"built in")];
        let found = |sources: &Sources| sources.find(Arch::Aarch64).unwrap().unwrap();
        assert_eq!(found(&sources), Binary::new(&b"built in"[..]));
        sources.named = Some(directory.path().to_owned());
        assert_eq!(found(&sources), Binary::new(elf(183)));
    }

    #[test]
    fn an_unreadable_file_is_an_error_only_in_a_named_directory() {
        let (directory, mut sources) = sources(&[]);
        std::fs::create_dir(directory.path().join("gh-net-sidecar")).unwrap();
        assert_eq!(sources.find(Arch::X86_64).unwrap(), None);
        sources.named = Some(directory.path().to_owned());
        assert!(sources.find(Arch::X86_64).is_err());
    }

    #[test]
    fn none_for_the_architecture_is_none() {
        let (_directory, sources) =
            sources(&[("gh-net-sidecar", elf(183)), ("gh-net-sidecar-x86_64", vec![])]);
        assert_eq!(sources.find(Arch::X86_64).unwrap(), None);
        assert_eq!(Arch::named("riscv64"), None);
    }

    #[test]
    fn the_file_name_distinguishes_builds_of_a_version() {
        let binary = Binary::new(&b"abc"[..]);
        assert_eq!(binary.remote_name(), format!("gh-net-sidecar-{VERSION}-ba7816bf"));
    }
}
