# gh-net-sidecar, for the platform of the package set that calls this: static in pkgsStatic.
{
  lib,
  stdenv,
  rustPlatform,
}:
let
  workspace = import ./workspace.nix { inherit lib; };
in
rustPlatform.buildRustPackage {
  pname = "gh-net-sidecar";
  inherit (workspace) version cargoLock;
  src = workspace.programs;

  # It is copied over the user's link: small.
  buildType = "shipped";
  cargoBuildFlags = [
    "--package"
    "gh-net-sidecar"
  ];
  # The flake's checks test the workspace.
  doCheck = false;

  # With a loader of /nix/store it would start nowhere else.
  postInstall = lib.optionalString stdenv.hostPlatform.isStatic ''
    if $READELF --wide --program-headers $out/bin/gh-net-sidecar | grep INTERP; then
      echo "gh-net-sidecar is not static" >&2
      exit 1
    fi
  '';

  meta = workspace.meta // {
    description = "The codespace's end of gh-net";
    mainProgram = "gh-net-sidecar";
  };
}
