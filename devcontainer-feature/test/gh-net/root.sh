#!/bin/bash
# root needs nothing more than the capability the container was given.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "root may make tunnels" gh-net-sidecar probe
check "there is no entry for sudo" test ! -e /etc/sudoers.d/gh-net
check "there are no capabilities" bash -c "! getcap /usr/local/bin/gh-net-sidecar | grep cap_"
check "there is nothing to undo" bash -c "gh-net-sidecar cleanup | grep -x 'nothing to undo'"

reportResults
