#!/bin/bash
# With `none`, it grants nothing.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "it is vscode" bash -c "id -un | grep -x vscode"
check "the user may not make tunnels" bash -c "! gh-net-sidecar probe"
check "there is no sudoers entry" test ! -e /etc/sudoers.d/gh-net
check "there are no capabilities" bash -c "! getcap /usr/local/bin/gh-net-sidecar | grep cap_"

reportResults
