# gh-net, with the sidecars that it copies to codespaces where it looks for them.
{
  lib,
  rustPlatform,
  makeWrapper,
  gh,
  openssh,
  # Static ones, by architecture.
  sidecars,
}:
let
  workspace = import ./workspace.nix { inherit lib; };

  # Links, so that nothing here strips or patches a program of another architecture.
  link = architecture: sidecar: "ln -s ${lib.getExe sidecar} gh-net-sidecar-${architecture}";

  fallbacks = lib.makeBinPath [
    gh
    openssh
  ];
in
rustPlatform.buildRustPackage {
  pname = "gh-net";
  inherit (workspace) version cargoLock;
  src = workspace.programs;

  buildType = "shipped";
  cargoBuildFlags = [
    "--package"
    "gh-net"
  ];
  # The flake's checks test the workspace.
  doCheck = false;

  nativeBuildInputs = [ makeWrapper ];

  # The user's own gh and ssh come first: they know the user's login, agent and configuration.
  postInstall = ''
    mkdir -p $out/libexec/gh-net
    (
    cd $out/libexec/gh-net
    ${lib.concatLines (lib.mapAttrsToList link sidecars)}
    )
    wrapProgram $out/bin/gh-net --suffix PATH : ${fallbacks}
  '';

  meta = workspace.meta // {
    description = "Lets a codespace reach what only your computer reaches: its VPN, its LAN, its names";
    mainProgram = "gh-net";
  };
}
