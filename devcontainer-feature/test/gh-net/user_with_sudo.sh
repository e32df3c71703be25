#!/bin/bash
# An ordinary user becomes root by sudo, for the commands of the sidecar only.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

# The image's own entry, which allows everything, would apply instead of ours.
if [ -e /etc/sudoers.d/vscode ]; then
    sudo mv /etc/sudoers.d/vscode /etc/vscode.sudoers
fi

check "it is vscode" bash -c "id -un | grep -x vscode"
check "the user may not make tunnels without sudo" bash -c "! gh-net-sidecar probe"
check "the user may make tunnels by sudo" sudo -n /usr/local/bin/gh-net-sidecar probe
check "sudo keeps the variable of the ssh connection" bash -c \
    "SSH_CONNECTION='192.0.2.1 1 192.0.2.2 2' sudo -n /usr/local/bin/gh-net-sidecar probe | grep -x 192.0.2.1"
check "cleanup becomes root by itself" bash -c "gh-net-sidecar cleanup | grep -x 'nothing to undo'"
check "no file can be written to" bash -c \
    "! sudo -n /usr/local/bin/gh-net-sidecar attach --trace-dest /etc/gh-net-was-here && test ! -e /etc/gh-net-was-here"
check "no other program is allowed" bash -c "! sudo -n true"
check "only root can read the entry" bash -c "stat -c '%U:%G %a' /etc/sudoers.d/gh-net | grep -x 'root:root 440'"
check "there are no capabilities" bash -c "! getcap /usr/local/bin/gh-net-sidecar | grep cap_"

reportResults
