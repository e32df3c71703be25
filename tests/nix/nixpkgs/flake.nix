# Stands in for nixpkgs where that can't be reached: as much of its interface as our flake uses, and not one name or
# argument more, so that whatever the flake newly asks for is refused until it has been looked up and added here.
# What it builds, it builds with the machine's own cargo. The README beside this says what it can't prove.
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
