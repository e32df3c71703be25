#!/bin/sh
# What buildRustPackage's derivations run in the stub: nixpkgs' phases, in short, with the machine's cargo. It builds
# every profile as `dev`, because CI has its time, and for another architecture it makes a file that only looks like
# a program.

set -eu
# The derivation's attributes.
# shellcheck disable=SC2154
: "$out" "$src" "$lockFile" "$vendor" "$target" "$architecture" "$mainProgram"

export HOME="$PWD/home" CARGO_HOME="$PWD/cargo" READELF=readelf
export CARGO_TARGET_DIR="$target" CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
mkdir -p "$HOME" "$CARGO_HOME"
cat >"$CARGO_HOME/config.toml" <<END
[source.crates-io]
replace-with = "vendor"
[source.vendor]
directory = "$vendor"
END

for input in ${nativeBuildInputs-}; do
    if [ -e "$input/nix-support/setup-hook" ]; then
        # shellcheck source=/dev/null
        . "$input/nix-support/setup-hook"
    fi
done

# An ELF header without anything behind it.
stand_in() {
    case $architecture in
    x86_64) machine='\076' ;;
    aarch64) machine='\267' ;;
    esac
    printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\002\000%b\000\001\000\000\000' "$machine"
    head -c 28 /dev/zero
    printf '\100\000\070\000\000\000\100\000\000\000\000\000'
}

cp -r "$src" source
chmod -R u+w source
cd source
cmp "$lockFile" Cargo.lock

programs="$target/$architecture-unknown-linux-gnu/debug"
if [ -n "${buildPhase-}" ]; then
    eval "$buildPhase"
elif [ -z "${foreign-}" ]; then
    # Those of other packages, as they all build here.
    rm -rf "$programs"/gh-net*
    set -- --offline --target "$architecture-unknown-linux-gnu"
    # Only the program itself is told to be static: what it links is the same either way, and is not built twice.
    # shellcheck disable=SC2086 # A list of words.
    case ${static-} in
    1) cargo rustc "$@" ${cargoBuildFlags-} --bin "$mainProgram" -- -C target-feature=+crt-static ;;
    *) cargo build "$@" ${cargoBuildFlags-} ;;
    esac
fi

if [ -n "${installPhase-}" ]; then
    eval "$installPhase"
else
    mkdir -p "$out/bin"
    if [ -n "${foreign-}" ]; then
        stand_in >"$out/bin/$mainProgram"
        chmod 755 "$out/bin/$mainProgram"
    else
        find "$programs" -maxdepth 1 -type f -executable -exec cp -t "$out/bin" {} +
    fi
    eval "${postInstall-}"
fi
