#!/bin/bash
# Asked to grant nothing, it grants nothing.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "it is vscode" bash -c "id -un | grep -x vscode"
check "the user may not" bash -c "! gh-net-sidecar probe"
check "there is no entry for sudo" test ! -e /etc/sudoers.d/gh-net
check "there are no capabilities" bash -c "! getcap /usr/local/bin/gh-net-sidecar | grep cap_"

reportResults
