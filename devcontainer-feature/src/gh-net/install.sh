#!/bin/sh
# Installs gh-net-sidecar and allows the remote user to run it. It starts nothing and changes no network: the sidecar
# runs when gh-net on the laptop attaches to it.
#
# It may be run again, with the same options or others; the last run takes effect. A running sidecar keeps its own file.
set -eu

# The release this script belongs to.
RELEASE=0.1.0

# The options of devcontainer-feature.json.
VERSION="${VERSION:-$RELEASE}"
VERSION="${VERSION#v}"
SHA256="${SHA256:-}"
PRIVILEGES="${PRIVILEGES:-auto}"
MIRROR="${MIRROR:-https://github.com/gh-net/gh-net/releases}"
MIRROR="${MIRROR%/}"
# The user who runs the sidecar, set by the tool that builds the container.
USERNAME="${_REMOTE_USER:-root}"

# Tests install below another directory than /.
ROOT="${GH_NET_INSTALL_ROOT:-}"
PROGRAM=/usr/local/bin/gh-net-sidecar
SUDOERS="$ROOT/etc/sudoers.d/gh-net"
# For the device, routes and rules; port 53; /run and resolv.conf, which root owns; a missing /dev/net/tun.
CAPABILITIES=cap_net_admin,cap_net_bind_service,cap_dac_override,cap_mknod

here=$(cd "$(dirname "$0")" && pwd)
work=
granted=

say() { printf 'gh-net: %s\n' "$*"; }

fail() {
    printf 'gh-net: %s\n' "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

clean() { [ -z "$work" ] || rm -rf "$work"; }
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Installs packages on any distribution. `ca-certificates` and `curl` have the same name on all of them.
install_packages() {
    say "installing $*"
    if has apt-get; then
        lists=$(find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | head -n 1)
        apt-get update -q &&
            DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" || return 1
        # Do not leave package lists in an image that had none.
        [ -n "$lists" ] || rm -rf /var/lib/apt/lists/*
    elif has apk; then
        apk add --no-cache "$@"
    elif has dnf; then
        dnf install -y "$@"
    elif has microdnf; then
        microdnf install -y "$@"
    elif has yum; then
        yum install -y "$@"
    elif has zypper; then
        zypper --non-interactive install "$@"
    else
        printf 'gh-net: no package manager was found (apt-get, apk, dnf, microdnf, yum, zypper)\n' >&2
        return 1
    fi
}

machine() {
    case $(uname -m) in
        x86_64 | amd64) echo x86_64 ;;
        aarch64 | arm64) echo aarch64 ;;
        *) fail "there is no sidecar for the architecture $(uname -m), only for x86_64 and aarch64" ;;
    esac
}

download() {
    if has curl; then
        # Redirections of https must not lead to http.
        case $1 in https:*) only='=https' ;; *) only='=http,https' ;; esac
        curl -fsSL --proto "$only" --retry 3 -o "$2" "$1"
    else
        wget -q -O "$2" "$1"
    fi || fail "downloading $1 failed"
}

# Prints the hashes that the sidecar $1 may have: those of the option sha256; else, for its own release, that of the
# published Feature. A hash from the server of the file would prove nothing.
known_hashes() {
    if [ -n "$SHA256" ]; then
        printf '%s\n' "$SHA256"
    elif [ "$VERSION" = "$RELEASE" ] && [ -f "$here/SHA256SUMS" ]; then
        while read -r hash name; do
            [ "$name" != "$1" ] || printf '%s\n' "$hash"
        done <"$here/SHA256SUMS"
    fi
}

# Fails unless the file $1, from $2, has one of the hashes $3.
verify() {
    found=$(sha256sum "$1") || fail "the hash of $1 can't be computed"
    found=${found%% *}
    for hash in $3; do
        [ "$hash" != "$found" ] || return 0
    done
    fail "$2 has the SHA-256 hash $found, which is not the expected one: $3"
}

# Checks the options version and sha256, before anything is downloaded.
check_options() {
    [ "$VERSION" != latest ] ||
        fail "version=latest can't be verified: name a version and its sha256, or use a newer version of the Feature itself"
    # Several are separated by spaces or commas.
    spaces=$IFS
    IFS="$IFS,"
    # shellcheck disable=SC2086 # to be split
    set -- $SHA256
    IFS=$spaces
    for hash in "$@"; do
        case $hash in
            *[!0-9a-f]*) bad=yes ;;
            *) [ ${#hash} -eq 64 ] && bad= || bad=yes ;;
        esac
        [ -z "$bad" ] || fail "sha256=$hash: a SHA-256 hash has 64 hexadecimal digits, in lower case"
    done
    SHA256="$*"
}

# Downloads the file $1 of the release to $2, which must have one of the hashes $3.
fetch() {
    if [ -z "$3" ] && [ "$VERSION" = "$RELEASE" ]; then
        fail "this copy of the Feature carries no hash of $1, because no release published it: set the option sha256 to" \
            "that of SHA256SUMS of release v$VERSION, or put the file next to install.sh"
    elif [ -z "$3" ]; then
        fail "this Feature knows the hashes of version $RELEASE, and not of $VERSION: set the option sha256 to that of $1" \
            "in SHA256SUMS of release v$VERSION, or use version $VERSION of the Feature itself"
    fi
    has curl || has wget || install_packages curl ca-certificates || fail "curl or wget is needed to download $1"
    from="$MIRROR/download/v$VERSION/$1"
    say "downloading $from"
    download "$from" "$2"
    verify "$2" "$from" "$3"
}

# Puts the sidecar at $1: the file next to this script if it is of the requested release, else a download.
obtain() {
    name="gh-net-sidecar-$(machine)" || exit 1
    hashes=$(known_hashes "$name")
    if [ "$VERSION" = "$RELEASE" ]; then
        for file in "$here/$name" "$here/gh-net-sidecar"; do
            if [ -f "$file" ]; then
                cp "$file" "$1"
                # It came with this script, so it is as good as it; but it may be of another release.
                [ -z "$hashes" ] || verify "$1" "$file" "$hashes"
                return
            fi
        done
    fi
    fetch "$name" "$1" "$hashes"
}

install_program() {
    directory="$ROOT${PROGRAM%/*}"
    mkdir -p "$directory"
    # On the same file system, so that it can be renamed.
    work=$(mktemp -d "$directory/.gh-net.XXXXXX")
    obtain "$work/sidecar"
    chown 0:0 "$work/sidecar"
    chmod 755 "$work/sidecar"
    said=$("$work/sidecar" --version 2>&1) || fail "the sidecar does not run here: $said"
    [ "${said##* }" = "$VERSION" ] || fail "this is $said, and not version $VERSION"
    mv -f "$work/sidecar" "$ROOT$PROGRAM"
    say "installed $said as $PROGRAM"
}

# Allows the commands that gh-net and people run, without further arguments: for example, `attach --trace-dest FILE` would
# write to any file. There are no wildcards, because sudo-rs does not support them.
allow_sudo() {
    case $USERNAME in
        *[!A-Za-z0-9._-]* | -*) fail "the name of the user $USERNAME can't be written into sudoers" ;;
        *[!0-9]*) user=$USERNAME ;;
        *) user="#$USERNAME" ;;
    esac
    [ -d "${SUDOERS%/*}" ] || fail "there is no directory ${SUDOERS%/*}: is sudo installed?"
    # sudo does not read files with a dot in their name.
    new="${SUDOERS%/*}/.gh-net.new"
    {
        printf '# The commands of gh-net in this container.\n'
        printf 'Defaults!%s env_keep += "SSH_CONNECTION"\n' "$PROGRAM"
        for command in probe attach status 'status --json' cleanup; do
            printf '%s ALL=(root) NOPASSWD: %s %s\n' "$user" "$PROGRAM" "$command"
        done
    } >"$new"
    chown 0:0 "$new"
    chmod 440 "$new"
    if has visudo && ! said=$(visudo -c -q -f "$new" 2>&1); then
        rm -f "$new"
        fail "visudo rejects the sudoers entry: $said"
    fi
    mv -f "$new" "$SUDOERS"
    say "$USERNAME may run $PROGRAM by sudo, see $SUDOERS"
}

add_capabilities() {
    if ! has setcap; then
        if has apt-get; then package=libcap2-bin; elif has zypper; then package=libcap-progs; else package=libcap; fi
        install_packages "$package" || return 1
    fi
    # Permitted, not effective: if the container lacks one of them, the kernel refuses to run a file with +ep.
    setcap "$CAPABILITIES+p" "$ROOT$PROGRAM" || return 1
    granted=yes
    say "$PROGRAM has the capabilities $CAPABILITIES for every user"
}

grant() {
    how=$PRIVILEGES
    case $how in
        auto)
            if has sudo; then how=sudoers; else how=capabilities; fi
            [ "$USERNAME" != root ] || how=none
            ;;
        sudoers) has sudo || fail "privileges=sudoers, but sudo is not installed; the Feature common-utils installs it" ;;
        capabilities | none) ;;
        *) fail "privileges=$how: possible values are auto, sudoers, capabilities and none" ;;
    esac
    # Capabilities of an earlier run are gone with the old file; this removes its sudoers entry.
    rm -f "$SUDOERS"
    case $how in
        sudoers) allow_sudo ;;
        capabilities)
            add_capabilities || [ "$PRIVILEGES" = auto ] || fail "privileges=capabilities, but they can't be set here"
            [ -n "$granted" ] || say "warning: without sudo or capabilities, $USERNAME can't use gh-net; only root can"
            ;;
    esac
}

[ "$(id -u)" -eq 0 ] || fail "install.sh must be run as root"
umask 022
check_options
install_program
grant
