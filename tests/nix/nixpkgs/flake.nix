# A stub for nixpkgs without network access. It implements exactly the part of the interface that our flake uses, and
# refuses other names and arguments, so that a new use is checked against nixpkgs and added here. It builds with the
# machine's own cargo. The README in ../ describes its limits.
{
  outputs =
    { self }:
    let
      lib = import ./lib.nix;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ] (system: import ./packages.nix { inherit lib system; });
    };
}
