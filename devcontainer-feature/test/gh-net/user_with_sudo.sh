#!/bin/bash
# An ordinary user becomes root by sudo, for the sidecar's commands and nothing else of it.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

# The image's own entry, which allows everything, would answer in place of ours.
if [ -e /etc/sudoers.d/vscode ]; then
    sudo mv /etc/sudoers.d/vscode /etc/vscode.sudoers
fi

check "it is vscode" bash -c "id -un | grep -x vscode"
check "the user alone may not" bash -c "! gh-net-sidecar probe"
check "root may make tunnels, by sudo" sudo -n /usr/local/bin/gh-net-sidecar probe
check "sudo lets the ssh connection through" bash -c \
    "SSH_CONNECTION='192.0.2.1 1 192.0.2.2 2' sudo -n /usr/local/bin/gh-net-sidecar probe | grep -x 192.0.2.1"
check "cleanup becomes root by itself" bash -c "gh-net-sidecar cleanup | grep -x 'nothing to undo'"
check "no file can be written to" bash -c \
    "! sudo -n /usr/local/bin/gh-net-sidecar attach --trace-dest /etc/gh-net-was-here && test ! -e /etc/gh-net-was-here"
check "no other program is allowed" bash -c "! sudo -n true"
check "the entry is root's, and secret" bash -c "stat -c '%U:%G %a' /etc/sudoers.d/gh-net | grep -x 'root:root 440'"
check "there are no capabilities" bash -c "! getcap /usr/local/bin/gh-net-sidecar | grep cap_"

reportResults
