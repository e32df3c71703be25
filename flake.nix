# gh-net for Nix: `nix run github:gh-net/gh-net -- my-codespace`.
#
# There is no flake.lock yet: only where nixpkgs is reached can one be written.
{
  description = "Lets a codespace reach what only your computer reaches: its VPN, its LAN, its names";

  # The code needs a Rust that nixpkgs' releases have some months later.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      workspace = import ./nix/workspace.nix { inherit lib; };

      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem =
        outputs:
        lib.genAttrs systems (
          system: outputs (withRust nixpkgs.legacyPackages.${system}) self.packages.${system}
        );

      # Said here, and not by cargo after the toolchains for the sidecars are built.
      withRust =
        pkgs:
        if lib.versionAtLeast pkgs.rustc.version workspace.rust-version then
          pkgs
        else
          throw "gh-net needs Rust ${workspace.rust-version}: this nixpkgs has ${pkgs.rustc.version}, nixos-unstable a newer one";
    in
    {
      packages = eachSystem (
        pkgs: packages:
        let
          inherit (pkgs.pkgsCross) musl64 aarch64-multiplatform-musl;
          architecture = pkgs.stdenv.hostPlatform.parsed.cpu.name;
        in
        {
          default = packages.local;
          local = pkgs.callPackage ./nix/local.nix {
            sidecars = {
              x86_64 = packages.sidecar-static-x86_64;
              aarch64 = packages.sidecar-static-aarch64;
            };
          };
          sidecar = pkgs.callPackage ./nix/sidecar.nix { };
          sidecar-static = packages."sidecar-static-${architecture}";
          sidecar-static-x86_64 = musl64.pkgsStatic.callPackage ./nix/sidecar.nix { };
          sidecar-static-aarch64 = aarch64-multiplatform-musl.pkgsStatic.callPackage ./nix/sidecar.nix { };
        }
      );

      apps = eachSystem (
        _: packages:
        let
          app = package: {
            type = "app";
            program = lib.getExe package;
            meta = { inherit (package.meta) description; };
          };
        in
        {
          default = app packages.local;
          local = app packages.local;
          sidecar = app packages.sidecar;
        }
      );

      checks = eachSystem (
        pkgs: packages:
        let
          check = name: command: pkgs.callPackage ./nix/check.nix { inherit name command; };
        in
        {
          inherit (packages) local sidecar;
          fmt = check "fmt" "cargo fmt --all --check";
          clippy = check "clippy" "cargo clippy --workspace --all-targets -- -D warnings";
          # End-to-end tests need root and network namespaces, which a build has not: `cargo xtask test`.
          tests = check "tests" "cargo test --workspace --lib --bins";
        }
      );

      devShells = eachSystem (pkgs: _: { default = pkgs.callPackage ./nix/shell.nix { }; });

      formatter = eachSystem (pkgs: _: pkgs.nixfmt-tree);
    };
}
