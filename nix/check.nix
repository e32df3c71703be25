# A command of cargo's that is to succeed on the workspace.
{
  lib,
  rustPlatform,
  clippy,
  rustfmt,
  name,
  command,
}:
let
  workspace = import ./workspace.nix { inherit lib; };
in
rustPlatform.buildRustPackage {
  pname = "gh-net-${name}";
  inherit (workspace) version cargoLock meta;
  src = workspace.everything;

  nativeBuildInputs = [
    clippy
    rustfmt
  ];

  buildPhase = command;
  doCheck = false;
  installPhase = "touch $out";
}
