# What the packages and checks have in common: Cargo's version, lock and sources.
{ lib }:
let
  inherit (lib) fileset;
  manifest = (lib.importTOML ../Cargo.toml).workspace.package;

  programs = fileset.unions [
    ../Cargo.lock
    ../Cargo.toml
    ../common
    ../local
    ../sidecar
    # Members: Cargo reads their manifests, whatever is built.
    ../tests/Cargo.toml
    ../tests/lab/Cargo.toml
    ../tests/support/Cargo.toml
    ../tests/xtask/Cargo.toml
  ];
  rooted =
    files:
    fileset.toSource {
      root = ../.;
      fileset = files;
    };
in
{
  inherit (manifest) version rust-version;

  cargoLock.lockFile = ../Cargo.lock;

  # What the programs are built from. A change to the documents or the lab builds nothing anew.
  programs = rooted programs;

  # What the checks look at.
  everything = rooted (
    fileset.unions [
      programs
      ../clippy.toml
      ../rustfmt.toml
      ../tests
    ]
  );

  meta = {
    homepage = "https://github.com/gh-net/gh-net";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
  };
}
