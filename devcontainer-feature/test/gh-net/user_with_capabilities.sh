#!/bin/bash
# An ordinary user runs the sidecar with the capabilities of its file.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "it is vscode" bash -c "id -un | grep -x vscode"
check "the user may make tunnels" gh-net-sidecar probe
check "there is no sudoers entry" test ! -e /etc/sudoers.d/gh-net
# stdin and stdout are pipes, because it refuses anything else before it opens the file.
check "no file can be written to" bash -c \
    ": | gh-net-sidecar attach --trace-dest /etc/gh-net-was-here | cat >/dev/null; test ! -e /etc/gh-net-was-here"

reportResults
